// Datagrams to Unix sockets: Node.js has streams only.
#include "sys.h"
#include <stddef.h>
#include <sys/un.h>

// (name, Uint8Array): sends one datagram, without waiting. A name that begins with "@" is abstract, as sd_notify(3) has it.
EXPORT(sys_send_unix) {
  Call call;
  call_read(env, info, &call);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char name[PATH_MAX];
  uint8_t *data = NULL;
  size_t bytes;
  if (!call_text(&call, 0, name, sizeof name) || !call_bytes(&call, 1, &data, &bytes)) return result(env, fail(call.state, "sendUnix", EINVAL));
  size_t length = strlen(name);
  bool abstract = name[0] == '@';
  if (!abstract && name[0] != '/') return result(env, fail(call.state, "sendUnix", EINVAL));
  // A path needs its closing zero; an abstract name is what its length says, and its first byte is that zero.
  if (length + (abstract ? 0 : 1) > sizeof address.sun_path) return result(env, fail(call.state, "sendUnix", ENAMETOOLONG));
  memcpy(address.sun_path, name, length);
  if (abstract) address.sun_path[0] = 0;

  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return result(env, fail(call.state, "socket", errno));
  socklen_t address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (abstract ? 0 : 1));
  ssize_t sent = sendto(fd, bytes == 0 ? "" : (const char *)data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&address, address_bytes);
  int error = sent < 0 ? errno : 0;
  close(fd);
  return result(env, error == 0 ? 0 : fail(call.state, "sendto", error));
}
