// Packet sockets: whole frames of one link, in and out (packet(7)). The lab's relay stands between a node's link and the
// switch with them. They are read and written by readTun and writeTun, a frame a slot: read(2) and writev(2) are the same.
#include "sys.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23 // Linux 4.20
#endif

typedef struct {
  char link[IFNAMSIZ];
  int32_t receive_buffer;
} PacketOptions;

static int set_options(int fd, const PacketOptions *options, const char **step) {
  int on = 1;
  *step = "setsockopt PACKET_VNET_HDR"; // a virtio_net_hdr before each frame: what the kernel left undone, checksums above all
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) return -errno;
  *step = "setsockopt PACKET_IGNORE_OUTGOING"; // what others send out of this link is not for us
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0) return -errno;
  *step = "setsockopt SO_RCVBUF";
  int bytes = options->receive_buffer;
  if (bytes > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0 &&
      setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) != 0)
    return -errno;
  return 0;
}

// Bound before it takes a protocol, so that no frame of another link is ever in its queue.
static int open_packet(void *argument, const char **step) {
  PacketOptions *options = argument;
  *step = "socket AF_PACKET";
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int status = set_options(fd, options, step);
  if (status == 0) {
    *step = "if_nametoindex";
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    address.sll_ifindex = (int)if_nametoindex(options->link);
    if (address.sll_ifindex == 0) {
      status = -errno;
    } else {
      *step = "bind AF_PACKET";
      if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) status = -errno;
    }
  }
  if (status == 0) return fd;
  close(fd);
  return status;
}

// openPacket(link, namespace, receiveBuffer): handle; "" is the namespace of the calling thread, 0 the kernel's own buffer
EXPORT(sys_open_packet) {
  Call call;
  call_read(env, info, &call);
  PacketOptions options;
  char path[PATH_MAX];
  if (!call_text(&call, 0, options.link, sizeof options.link) || !call_text(&call, 1, path, sizeof path) ||
      !call_integer(&call, 2, &options.receive_buffer) || options.receive_buffer < 0)
    return result(env, fail(call.state, "openPacket", EINVAL));
  const char *step = "openPacket";
  int fd = open_in_namespace(path, open_packet, &options, &step);
  int32_t id = fd < 0 ? fd : handle_open(fd, KIND_PACKET, call.state);
  return result(env, id < 0 ? fail(call.state, step, -id) : id);
}

// packetDrops(handle): frames that found the receive buffer full since the last call
EXPORT(sys_packet_drops) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  if (!call_integer(&call, 0, &id)) return result(env, fail(call.state, "packetDrops", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_PACKET, &handle);
  if (error < 0) return result(env, fail(call.state, "getsockopt PACKET_STATISTICS", -error));
  struct tpacket_stats statistics = {0};
  socklen_t length = sizeof statistics;
  error = getsockopt(handle->fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &length) == 0 ? 0 : errno;
  handle_release(handle);
  if (error != 0) return result(env, fail(call.state, "getsockopt PACKET_STATISTICS", error));
  return result(env, statistics.tp_drops > INT32_MAX ? INT32_MAX : (int32_t)statistics.tp_drops);
}
