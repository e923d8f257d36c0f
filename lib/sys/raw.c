// Raw IP sockets: for probes and for tests. Protocol 255 (IPPROTO_RAW) sends packets that bring their own IP header; any
// other protocol gets its header from the kernel. An IPv4 socket receives with the IP header, an IPv6 socket without.
#include "sys.h"
#include <netinet/in.h>

typedef struct {
  int family;
  int32_t protocol;
} RawOptions;

static int open_raw(void *argument, const char **step) {
  RawOptions *options = argument;
  *step = "socket SOCK_RAW";
  int fd = socket(options->family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, options->protocol);
  return fd < 0 ? -errno : fd;
}

// openRaw(family: 4 | 6, protocol, namespace): handle
EXPORT(sys_open_raw) {
  Call call;
  call_read(env, info, &call);
  char path[PATH_MAX];
  int32_t family, protocol;
  if (!call_integer(&call, 0, &family) || !call_integer(&call, 1, &protocol) || !call_text(&call, 2, path, sizeof path) ||
      (family != 4 && family != 6) || protocol < 0 || protocol > 255)
    return result(env, fail(call.state, "openRaw", EINVAL));
  RawOptions options = {.family = family == 4 ? AF_INET : AF_INET6, .protocol = protocol};
  const char *step = "openRaw";
  int fd = open_in_namespace(path, open_raw, &options, &step);
  int32_t id = fd < 0 ? fd : handle_open(fd, KIND_RAW, call.state);
  return result(env, id < 0 ? fail(call.state, step, -id) : id);
}

// rawSend(handle, packet, address): bytes
EXPORT(sys_raw_send) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  uint8_t *packet;
  size_t bytes;
  char text[128];
  struct sockaddr_storage address;
  socklen_t length;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &packet, &bytes) || !call_text(&call, 2, text, sizeof text) ||
      parse_address(text, 0, &address, &length) != 0)
    return result(env, fail(call.state, "rawSend", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_RAW, &handle);
  if (error < 0) return result(env, fail(call.state, "sendto SOCK_RAW", -error));
  ssize_t sent;
  do sent = sendto(handle->fd, packet, bytes, MSG_NOSIGNAL, (struct sockaddr *)&address, length);
  while (sent < 0 && errno == EINTR);
  error = sent < 0 ? errno : 0;
  handle_release(handle);
  return result(env, error == 0 ? (int32_t)sent : fail(call.state, "sendto SOCK_RAW", error));
}

static int receive_raw(int fd, uint8_t *into, size_t bytes, uint8_t *sender) {
  socklen_t length = ADDRESS_BYTES;
  ssize_t received;
  do received = recvfrom(fd, into, bytes, MSG_DONTWAIT, (struct sockaddr *)sender, &length);
  while (received < 0 && errno == EINTR);
  return received >= 0 ? (int)received : -errno;
}

// rawReceive(handle, into, sender, timeoutMs): bytes, or -EAGAIN on timeout; blocks for one slice at most. Cuts what
// does not fit.
EXPORT(sys_raw_receive) {
  Call call;
  call_read(env, info, &call);
  int32_t id, timeout;
  uint8_t *into, *sender;
  size_t bytes, sender_bytes;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &into, &bytes) || bytes > INT32_MAX ||
      !call_bytes(&call, 2, &sender, &sender_bytes) || sender_bytes < ADDRESS_BYTES || !call_integer(&call, 3, &timeout))
    return result(env, fail(call.state, "rawReceive", EINVAL));
  Handle *handle;
  int received = handle_acquire(id, KIND_RAW, &handle);
  if (received == 0) {
    memset(sender, 0, ADDRESS_BYTES);
    received = receive_raw(handle->fd, into, bytes, sender);
    if (received == -EAGAIN && timeout != 0) {
      int ready = wait_for(call.state, handle, POLLIN, timeout);
      received = ready > 0 ? receive_raw(handle->fd, into, bytes, sender) : ready < 0 ? ready : -EAGAIN;
    }
    handle_release(handle);
  }
  return result(env, received < 0 ? fail(call.state, "recvfrom SOCK_RAW", -received) : received);
}
