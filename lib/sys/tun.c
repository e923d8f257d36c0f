// TUN and TAP devices: open, offloads, and one packet a slot, many slots a call. Packet sockets (packet.c) are read and
// written here, too.
#include "sys.h"
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#define WRITE_TRIES 3

enum { TUN_VNET_HEADER = 1, TUN_MULTI_QUEUE = 2, TUN_FRAMES = 4 };

// openTun(name, flags): handle. In the namespace of the calling thread.
EXPORT(sys_open_tun) {
  Call call;
  call_read(env, info, &call);
  char name[IFNAMSIZ];
  int32_t flags;
  if (!call_text(&call, 0, name, sizeof name) || !call_integer(&call, 1, &flags))
    return result(env, fail(call.state, "openTun", EINVAL));
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return result(env, fail(call.state, "open /dev/net/tun", errno));

  struct ifreq request = {0};
  memcpy(request.ifr_name, name, sizeof name);
  request.ifr_flags = (flags & TUN_FRAMES ? IFF_TAP : IFF_TUN) | IFF_NO_PI;
  if (flags & TUN_VNET_HEADER) request.ifr_flags |= IFF_VNET_HDR;
  if (flags & TUN_MULTI_QUEUE) request.ifr_flags |= IFF_MULTI_QUEUE;
  const char *step = "ioctl TUNSETIFF";
  int header = 10; // struct virtio_net_hdr without num_buffers
  int status = ioctl(fd, TUNSETIFF, &request);
  if (status == 0 && (flags & TUN_VNET_HEADER)) {
    step = "ioctl TUNSETVNETHDRSZ";
    status = ioctl(fd, TUNSETVNETHDRSZ, &header);
  }
  if (status != 0) {
    int error = errno;
    close(fd);
    return result(env, fail(call.state, step, error));
  }
  int32_t id = handle_open(fd, KIND_TUN, call.state);
  return result(env, id < 0 ? fail(call.state, "openTun", -id) : id);
}

// tunName(handle, into): bytes of the name the kernel gave.
EXPORT(sys_tun_name) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  uint8_t *into;
  size_t bytes;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &into, &bytes) || bytes < IFNAMSIZ)
    return result(env, fail(call.state, "tunName", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_TUN, &handle);
  if (error < 0) return result(env, fail(call.state, "ioctl TUNGETIFF", -error));
  struct ifreq request = {0};
  error = ioctl(handle->fd, TUNGETIFF, &request) == 0 ? 0 : errno;
  handle_release(handle);
  if (error != 0) return result(env, fail(call.state, "ioctl TUNGETIFF", error));
  memcpy(into, request.ifr_name, IFNAMSIZ);
  return result(env, (int32_t)strnlen(request.ifr_name, IFNAMSIZ));
}

EXPORT(sys_set_tun_offloads) {
  State *state;
  int32_t in[2];
  if (!call_integers(env, info, 2, &state, in)) return result(env, -EINVAL);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_TUN, &handle);
  if (error < 0) return result(env, fail(state, "ioctl TUNSETOFFLOAD", -error));
  error = ioctl(handle->fd, TUNSETOFFLOAD, (unsigned long)(uint32_t)in[1]) == 0 ? 0 : errno;
  handle_release(handle);
  return result(env, error == 0 ? 0 : fail(state, "ioctl TUNSETOFFLOAD", error));
}

// readTun(handle, arena, slotsOffset, slotStride, slotBytes, maxSlots, lengthsOffset): count
EXPORT(sys_read_tun) {
  State *state;
  int32_t in[7];
  if (!call_integers(env, info, 7, &state, in)) return result(env, -EINVAL);
  Arena *arena = arena_of(state, in[1]);
  int64_t slots = in[2], stride = in[3], bytes = in[4], lengths = in[6];
  int32_t max = in[5];
  if (arena == NULL || max < 0 || bytes < 1 || (lengths & 3) != 0) return result(env, -EINVAL);
  if (!arena_holds(arena, slots, max, stride, bytes) || !arena_holds(arena, lengths, max, 4, 4))
    return result(env, -EFAULT);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_TUN | KIND_PACKET, &handle);
  if (error < 0) return result(env, error);

  int32_t count = 0;
  while (count < max) {
    ssize_t length = read(handle->fd, arena->base + slots + count * stride, (size_t)bytes);
    if (length < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && count == 0) error = -errno;
      break;
    }
    store_word(arena->base + lengths + (int64_t)count * 4, (int32_t)length);
    count++;
  }
  handle_release(handle);
  return result(env, error < 0 ? error : count);
}

static int write_packet(int fd, const struct iovec *iovs, int count) {
  int error = 0;
  for (int tries = 0; tries < WRITE_TRIES; tries++) {
    if (writev(fd, iovs, count) >= 0) return 0;
    error = errno;
    if (error != EINTR && error != EAGAIN) break;
  }
  return error;
}

// writeTun(handle, arena, packetsOffset, packetCount, iovsOffset): packets written
EXPORT(sys_write_tun) {
  State *state;
  int32_t in[5];
  if (!call_integers(env, info, 5, &state, in)) return result(env, -EINVAL);
  Arena *arena = arena_of(state, in[1]);
  int64_t packets = in[2], iovs = in[4];
  int32_t count = in[3];
  if (arena == NULL || count < 0 || iovs < 0 || ((packets | iovs) & 3) != 0) return result(env, -EINVAL);
  if (!arena_holds(arena, packets, count, 12, 12)) return result(env, -EFAULT);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_TUN | KIND_PACKET, &handle);
  if (error < 0) return result(env, error);

  int32_t written = 0;
  for (int32_t i = 0; i < count; i++) {
    uint8_t *record = arena->base + packets + (int64_t)i * 12;
    int32_t iov_count = load_word(record + 4);
    int status = -arena_iovs(arena, iovs, load_word(record), iov_count, state->iovs);
    if (status == 0) status = write_packet(handle->fd, state->iovs, iov_count);
    store_word(record + 8, status);
    if (status == 0) written++;
  }
  handle_release(handle);
  return result(env, written);
}
