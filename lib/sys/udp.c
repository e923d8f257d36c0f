// UDP sockets: open, options, addresses. The batches are in udp_batch.c.
#include "sys.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum { UDP_WITH_GRO = 1, UDP_DONT_FRAGMENT = 2, UDP_REUSE_PORT = 4, UDP_MAY_FRAGMENT = 8 };

int parse_address(const char *text, int port, struct sockaddr_storage *address, socklen_t *bytes) {
  memset(address, 0, sizeof *address);
  struct sockaddr_in *four = (struct sockaddr_in *)address;
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    *bytes = sizeof *four;
    return 0;
  }
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
  char plain[INET6_ADDRSTRLEN];
  const char *zone = strchr(text, '%'); // fe80::1%eth0: a link-local address means nothing without its link
  size_t length = zone == NULL ? strlen(text) : (size_t)(zone - text);
  if (length >= sizeof plain) return -EINVAL;
  memcpy(plain, text, length);
  plain[length] = 0;
  if (inet_pton(AF_INET6, plain, &six->sin6_addr) != 1) return -EINVAL;
  if (zone != NULL && (six->sin6_scope_id = if_nametoindex(zone + 1)) == 0) return -EINVAL;
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)port);
  *bytes = sizeof *six;
  return 0;
}

// The FORCE options pass net.core.rmem_max, but need CAP_NET_ADMIN in the first user namespace. A smaller buffer is no
// reason to fail.
static void set_buffer(int fd, int force, int plain, int bytes) {
  if (bytes <= 0) return;
  if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) != 0)
    setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

static int set_option(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof value); }

static int prepare(int fd, int family, int32_t flags, const char **step) {
  *step = "setsockopt IPV6_V6ONLY";
  if (family == AF_INET6 && set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) != 0) return errno;
  *step = "setsockopt SO_REUSEPORT";
  if ((flags & UDP_REUSE_PORT) && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) return errno;
  *step = "setsockopt UDP_GRO";
  if ((flags & UDP_WITH_GRO) && set_option(fd, IPPROTO_UDP, UDP_GRO, 1) != 0) return errno;
  if ((flags & (UDP_DONT_FRAGMENT | UDP_MAY_FRAGMENT)) == 0) return 0;
  *step = "setsockopt IP_MTU_DISCOVER";
  bool whole = (flags & UDP_DONT_FRAGMENT) != 0;
  int failed = family == AF_INET
                   ? set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, whole ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT)
                   : set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, whole ? IPV6_PMTUDISC_DO : IPV6_PMTUDISC_DONT);
  return failed ? errno : 0;
}

// openUdp(address, port, receiveBuffer, sendBuffer, flags): handle. In the namespace of the calling thread.
EXPORT(sys_open_udp) {
  Call call;
  call_read(env, info, &call);
  char text[128];
  int32_t port, receive_buffer, send_buffer, flags;
  struct sockaddr_storage address;
  socklen_t bytes;
  if (!call_text(&call, 0, text, sizeof text) || !call_integer(&call, 1, &port) ||
      !call_integer(&call, 2, &receive_buffer) || !call_integer(&call, 3, &send_buffer) ||
      !call_integer(&call, 4, &flags) || port < 0 || port > 65535 || parse_address(text, port, &address, &bytes) != 0)
    return result(env, fail(call.state, "openUdp", EINVAL));

  int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return result(env, fail(call.state, "socket", errno));
  set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, receive_buffer);
  set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, send_buffer);
  const char *step = "setsockopt";
  int error = prepare(fd, address.ss_family, flags, &step);
  if (error == 0 && bind(fd, (struct sockaddr *)&address, bytes) != 0) {
    error = errno;
    step = "bind";
  }
  if (error != 0) {
    close(fd);
    return result(env, fail(call.state, step, error));
  }
  int32_t id = handle_open(fd, KIND_UDP, call.state);
  return result(env, id < 0 ? fail(call.state, "openUdp", -id) : id);
}

EXPORT(sys_set_udp_gro) {
  State *state;
  int32_t in[2];
  if (!call_integers(env, info, 2, &state, in)) return result(env, -EINVAL);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_UDP, &handle);
  if (error < 0) return result(env, fail(state, "setsockopt UDP_GRO", -error));
  error = set_option(handle->fd, IPPROTO_UDP, UDP_GRO, in[1] != 0) == 0 ? 0 : errno;
  handle_release(handle);
  return result(env, error == 0 ? 0 : fail(state, "setsockopt UDP_GRO", error));
}

// probeUdpTrains(handle): 0 when the kernel knows UDP_SEGMENT (Linux 4.18). It is left at its default, no segment size; one that
// does not know it would ignore it in sendmsg, too, and send a train as one datagram.
EXPORT(sys_probe_udp_trains) {
  State *state;
  int32_t in[1];
  if (!call_integers(env, info, 1, &state, in)) return result(env, -EINVAL);
  Handle *handle;
  int error = handle_acquire(in[0], KIND_UDP, &handle);
  if (error < 0) return result(env, fail(state, "setsockopt UDP_SEGMENT", -error));
  error = set_option(handle->fd, IPPROTO_UDP, UDP_SEGMENT, 0) == 0 ? 0 : errno;
  handle_release(handle);
  return result(env, error == 0 ? 0 : fail(state, "setsockopt UDP_SEGMENT", error));
}

// localAddress(handle, into): writes the sockaddr that the socket is bound to.
EXPORT(sys_local_address) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  uint8_t *into;
  size_t bytes;
  if (!call_integer(&call, 0, &id) || !call_bytes(&call, 1, &into, &bytes) || bytes < ADDRESS_BYTES)
    return result(env, fail(call.state, "localAddress", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_UDP, &handle);
  if (error < 0) return result(env, fail(call.state, "getsockname", -error));
  memset(into, 0, ADDRESS_BYTES);
  socklen_t length = ADDRESS_BYTES;
  error = getsockname(handle->fd, (struct sockaddr *)into, &length) == 0 ? 0 : errno;
  handle_release(handle);
  return result(env, error == 0 ? 0 : fail(call.state, "getsockname", error));
}

// encodeAddress(text, port, into): writes a padded sockaddr.
EXPORT(sys_encode_address) {
  Call call;
  call_read(env, info, &call);
  char text[128];
  int32_t port;
  uint8_t *into;
  size_t bytes;
  struct sockaddr_storage address;
  socklen_t length;
  if (!call_text(&call, 0, text, sizeof text) || !call_integer(&call, 1, &port) || port < 0 || port > 65535 ||
      !call_bytes(&call, 2, &into, &bytes) || bytes < ADDRESS_BYTES || parse_address(text, port, &address, &length) != 0)
    return result(env, fail(call.state, "encodeAddress", EINVAL));
  memcpy(into, &address, ADDRESS_BYTES);
  return result(env, 0);
}
