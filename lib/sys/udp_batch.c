// UDP in batches: sendmmsg with UDP_SEGMENT trains gathered from the arena, recvmmsg with UDP_GRO strides.
#include "sys.h"
#include <netinet/in.h>
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define SEND_RECORD 20    // firstIov, iovCount, segmentSize, addressOffset, status
#define RECEIVE_RECORD 48 // length, segmentSize, flags, reserved, sockaddr
#define SEND_WAITS 4      // waits of 1 ms for a full socket buffer, per call: then the packet is better dropped

// Turns one record into a message. Returns the iovecs it took, or -errno for a record that points outside.
static int build_message(State *state, const Arena *arena, const uint8_t *record, int64_t iovs, int slot, int used) {
  int32_t count = load_word(record + 4), segment = load_word(record + 8), address = load_word(record + 12);
  if (segment < 0 || segment > UINT16_MAX || count > BATCH_IOVS - used) return -EINVAL;
  if (!arena_holds(arena, address, 1, 0, ADDRESS_BYTES)) return -EFAULT;
  int error = arena_iovs(arena, iovs, load_word(record), count, &state->iovs[used]);
  if (error < 0) return error;
  uint16_t family;
  memcpy(&family, arena->base + address, sizeof family);
  struct msghdr *message = &state->messages[slot].msg_hdr;
  *message = (struct msghdr){
      .msg_name = arena->base + address,
      .msg_namelen = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6),
      .msg_iov = &state->iovs[used],
      .msg_iovlen = (size_t)count,
  };
  if (segment == 0) return count;
  message->msg_control = state->controls[slot];
  message->msg_controllen = CMSG_SPACE(sizeof(uint16_t));
  struct cmsghdr *control = CMSG_FIRSTHDR(message);
  control->cmsg_level = IPPROTO_UDP;
  control->cmsg_type = UDP_SEGMENT;
  control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
  uint16_t size = (uint16_t)segment;
  memcpy(CMSG_DATA(control), &size, sizeof size);
  return count;
}

// Sends one chunk. sendmmsg tells the error of its first message only: a later failure ends the batch early, and the
// next call starts at the failed message and gets its error. So each failure costs one more call, and no message is lost.
static int32_t send_chunk(State *state, int fd, int count, uint8_t *records, int *waits) {
  int32_t sent = 0;
  bool retried = false;
  for (int i = 0; i < count;) {
    int done = sendmmsg(fd, &state->messages[i], (unsigned)(count - i), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done > 0) {
      for (int k = 0; k < done; k++) store_word(records + (int64_t)state->records[i + k] * SEND_RECORD + 16, 0);
      sent += done;
      i += done;
      retried = false;
      continue;
    }
    int error = errno;
    if (error == EINTR) continue;
    if (error == EAGAIN && *waits > 0) {
      struct pollfd ready = {.fd = fd, .events = POLLOUT};
      (*waits)--;
      poll(&ready, 1, 1);
      continue;
    }
    if (error == ECONNREFUSED && !retried) { // an ICMP error that came back for an earlier datagram, not for this one
      retried = true;
      continue;
    }
    store_word(records + (int64_t)state->records[i] * SEND_RECORD + 16, error);
    i++;
    retried = false;
  }
  return sent;
}

// sendUdp(handle, arena, messagesOffset, messageCount, iovsOffset): messages sent
EXPORT(sys_send_udp) {
  State *state;
  int32_t in[5];
  if (!call_integers(env, info, 5, &state, in)) return result(env, -EINVAL);
  Arena *arena = arena_of(state, in[1]);
  int64_t messages = in[2], iovs = in[4];
  int32_t count = in[3];
  if (arena == NULL || count < 0 || iovs < 0 || ((messages | iovs) & 3) != 0) return result(env, -EINVAL);
  if (!arena_holds(arena, messages, count, SEND_RECORD, SEND_RECORD)) return result(env, -EFAULT);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_UDP, &handle);
  if (error < 0) return result(env, error);

  uint8_t *records = arena->base + messages;
  int32_t sent = 0;
  int waits = SEND_WAITS, chunk = 0, used = 0;
  for (int32_t i = 0; i < count; i++) {
    if (chunk == BATCH_MESSAGES || used > BATCH_IOVS - PACKET_IOVS) {
      sent += send_chunk(state, handle->fd, chunk, records, &waits);
      chunk = used = 0;
    }
    uint8_t *record = records + (int64_t)i * SEND_RECORD;
    int taken = build_message(state, arena, record, iovs, chunk, used);
    if (taken < 0) {
      store_word(record + 16, -taken);
      continue;
    }
    state->records[chunk++] = i;
    used += taken;
  }
  if (chunk > 0) sent += send_chunk(state, handle->fd, chunk, records, &waits);
  handle_release(handle);
  return result(env, sent);
}

// The UDP_GRO stride of a received train; 0 = one datagram.
static int32_t stride_of(struct msghdr *message) {
  for (struct cmsghdr *control = CMSG_FIRSTHDR(message); control != NULL; control = CMSG_NXTHDR(message, control)) {
    if (control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_GRO) continue;
    int size = 0;
    memcpy(&size, CMSG_DATA(control), sizeof size);
    return size;
  }
  return 0;
}

// An ICMP error waiting on the socket is returned once in place of data; it says nothing about what is in the queue.
static bool is_pending_error(int error) {
  return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == EMSGSIZE ||
         error == EPROTO || error == ENOPROTOOPT || error == EHOSTDOWN || error == EACCES;
}

// receiveUdp(handle, arena, slotsOffset, slotStride, slotBytes, maxMessages, recordsOffset): count
EXPORT(sys_receive_udp) {
  State *state;
  int32_t in[7];
  if (!call_integers(env, info, 7, &state, in)) return result(env, -EINVAL);
  Arena *arena = arena_of(state, in[1]);
  int64_t slots = in[2], stride = in[3], bytes = in[4], records = in[6];
  int32_t max = in[5] > BATCH_MESSAGES ? BATCH_MESSAGES : in[5];
  if (arena == NULL || max < 0 || bytes < 1 || (records & 3) != 0) return result(env, -EINVAL);
  if (!arena_holds(arena, slots, max, stride, bytes) || !arena_holds(arena, records, max, RECEIVE_RECORD, RECEIVE_RECORD))
    return result(env, -EFAULT);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_UDP, &handle);
  if (error < 0) return result(env, error);

  for (int32_t i = 0; i < max; i++) {
    uint8_t *name = arena->base + records + (int64_t)i * RECEIVE_RECORD + 16;
    memset(name, 0, ADDRESS_BYTES);
    state->iovs[i] = (struct iovec){.iov_base = arena->base + slots + i * stride, .iov_len = (size_t)bytes};
    state->messages[i].msg_hdr = (struct msghdr){
        .msg_name = name,
        .msg_namelen = ADDRESS_BYTES,
        .msg_iov = &state->iovs[i],
        .msg_iovlen = 1,
        .msg_control = state->controls[i],
        .msg_controllen = sizeof state->controls[i],
    };
  }
  int count = 0;
  for (int tries = 0; max > 0 && tries < 3; tries++) {
    count = recvmmsg(handle->fd, state->messages, (unsigned)max, MSG_DONTWAIT, NULL);
    if (count >= 0) break;
    error = errno;
    count = error == EAGAIN ? 0 : -error;
    if (error != EINTR && !is_pending_error(error)) break;
  }
  for (int i = 0; i < count; i++) {
    uint8_t *record = arena->base + records + (int64_t)i * RECEIVE_RECORD;
    struct msghdr *message = &state->messages[i].msg_hdr;
    store_word(record, (int32_t)state->messages[i].msg_len);
    store_word(record + 4, stride_of(message));
    store_word(record + 8, (message->msg_flags & MSG_TRUNC) != 0);
    store_word(record + 12, 0);
  }
  handle_release(handle);
  return result(env, count);
}
