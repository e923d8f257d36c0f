// Netlink sockets: bytes in, bytes out. What the bytes mean is lib/netlink's business.
#include "sys.h"
#include <linux/netlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62 // asm-generic/socket.h, Linux 5.0
#endif

#define NETLINK_BUFFER (1 << 20) // many answers at once, or a burst of events while JavaScript is busy elsewhere
#define MOST_ANSWER (32 << 10)   // one datagram of the kernel's (netlink_recvmsg allocates no more for a dump's part)

typedef struct {
  int32_t protocol;
  uint32_t groups;
} NetlinkOptions;

static int open_netlink(void *argument, const char **step) {
  NetlinkOptions *options = argument;
  *step = "socket AF_NETLINK";
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, options->protocol);
  if (fd < 0) return -errno;
  int one = 1, bytes = NETLINK_BUFFER;
  // All optional: an older kernel only explains less.
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof one);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
  setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof one);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = options->groups};
  *step = "bind AF_NETLINK";
  if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

// openNetlink(protocol, namespace, groups): handle
EXPORT(sys_open_netlink) {
  Call call;
  call_read(env, info, &call);
  char path[PATH_MAX];
  int32_t protocol, groups;
  if (!call_integer(&call, 0, &protocol) || !call_text(&call, 1, path, sizeof path) || !call_integer(&call, 2, &groups))
    return result(env, fail(call.state, "openNetlink", EINVAL));
  NetlinkOptions options = {.protocol = protocol, .groups = (uint32_t)groups};
  const char *step = "openNetlink";
  int fd = open_in_namespace(path, open_netlink, &options, &step);
  int32_t id = fd < 0 ? fd : handle_open(fd, KIND_NETLINK, call.state);
  return result(env, id < 0 ? fail(call.state, step, -id) : id);
}

ssize_t send_netlink(int fd, const uint8_t *message, size_t bytes) {
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  for (;;) {
    ssize_t sent = sendto(fd, message, bytes, MSG_NOSIGNAL, (struct sockaddr *)&kernel, sizeof kernel);
    if (sent >= 0 || errno != EINTR) return sent;
  }
}

// netlinkSend(handle, message): bytes
EXPORT(sys_netlink_send) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  uint8_t *message;
  size_t bytes;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &message, &bytes))
    return result(env, fail(call.state, "sendto AF_NETLINK", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_NETLINK, &handle);
  if (error < 0) return result(env, fail(call.state, "sendto AF_NETLINK", -error));
  ssize_t sent = send_netlink(handle->fd, message, bytes);
  error = sent < 0 ? errno : 0;
  handle_release(handle);
  return result(env, error == 0 ? (int32_t)sent : fail(call.state, "sendto AF_NETLINK", error));
}

// One message of the kernel's; others may write to our port, and are not believed. 0 = nothing there.
static int receive_netlink(int fd, uint8_t *into, size_t bytes) {
  for (;;) {
    struct sockaddr_nl sender = {0};
    struct iovec iov = {.iov_base = into, .iov_len = bytes};
    struct msghdr message = {.msg_name = &sender, .msg_namelen = sizeof sender, .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t received = recvmsg(fd, &message, MSG_DONTWAIT);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0) return errno == EAGAIN ? 0 : -errno;
    if (sender.nl_pid != 0) continue;
    if (message.msg_flags & MSG_TRUNC) return -EMSGSIZE;
    return (int)received;
  }
}

// netlinkReceive(handle, into, timeoutMs): bytes, 0 on timeout; blocks for one slice at most. There is no answer to a
// message that could not be sent aside: its error is told here, once.
EXPORT(sys_netlink_receive) {
  Call call;
  call_read(env, info, &call);
  int32_t id, timeout;
  uint8_t *into;
  size_t bytes;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &into, &bytes) || bytes > INT32_MAX ||
      !call_integer(&call, 2, &timeout))
    return result(env, fail(call.state, "recvmsg AF_NETLINK", EINVAL));
  Handle *handle;
  const char *step = "recvmsg AF_NETLINK";
  int received = handle_acquire(id, KIND_NETLINK, &handle);
  if (received == 0) {
    received = receive_netlink(handle->fd, into, bytes);
    if (received == 0 && timeout != 0) {
      received = wait_for(call.state, handle, POLLIN, timeout);
      if (received > 0) received = receive_netlink(handle->fd, into, bytes);
    }
    int unsent = received == 0 ? __atomic_exchange_n(&handle->unsent, 0, __ATOMIC_RELAXED) : 0;
    if (unsent != 0) {
      step = "sendto AF_NETLINK";
      received = -unsent;
    }
    handle_release(handle);
  }
  return result(env, received < 0 ? fail(call.state, step, -received) : received);
}

// netlinkExchange(handle, message, into): sends, and gives the answers that are there then, one behind the other, as they
// would follow each other in one datagram: bytes. The kernel does the work inside send, so these are all answers, unless
// they are more than `into` holds; the rest is received as ever.
EXPORT(sys_netlink_exchange) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  uint8_t *message, *into;
  size_t bytes, capacity;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &message, &bytes) ||
      !call_bytes(&call, 2, &into, &capacity) || capacity > INT32_MAX)
    return result(env, fail(call.state, "sendto AF_NETLINK", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_NETLINK, &handle);
  if (error < 0) return result(env, fail(call.state, "sendto AF_NETLINK", -error));
  const char *step = "sendto AF_NETLINK";
  size_t count = 0;
  if (send_netlink(handle->fd, message, bytes) < 0) error = -errno;
  while (error == 0 && capacity - count >= (count == 0 ? 1 : MOST_ANSWER)) {
    step = "recvmsg AF_NETLINK";
    const int received = receive_netlink(handle->fd, into + count, capacity - count);
    if (received <= 0) {
      error = received;
      break;
    }
    count += NLMSG_ALIGN((size_t)received);
    if (count > capacity) count = capacity;
  }
  handle_release(handle);
  return result(env, error < 0 ? fail(call.state, step, -error) : (int32_t)count);
}

// netlinkLinkIndex(handle, name): the link's index, 0 when there is none. Every other question about a link waits for the
// lock that whoever makes or deletes one holds for milliseconds; what a socket is bound to, which means nothing to a netlink
// socket, is looked up without it (net/core/sock.c, sock_setbindtodevice). Not SIOCGIFINDEX: for a missing link it starts
// modprobe.
EXPORT(sys_netlink_link_index) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  char name[IFNAMSIZ];
  const char *step = "setsockopt SO_BINDTODEVICE";
  if (!call_integer(&call, 0, &id) || !call_text(&call, 1, name, sizeof name) || name[0] == 0)
    return result(env, fail(call.state, step, EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_NETLINK, &handle);
  if (error < 0) return result(env, fail(call.state, step, -error));
  int index = 0;
  socklen_t bytes = sizeof index;
  if (setsockopt(handle->fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)) != 0) {
    error = errno;
  } else {
    step = "getsockopt SO_BINDTOIFINDEX";
    error = getsockopt(handle->fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, &bytes) == 0 ? 0 : errno;
  }
  handle_release(handle);
  return result(env, error == 0 || error == ENODEV ? index : fail(call.state, step, error));
}
