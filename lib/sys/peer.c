// Who is at the other end of a Unix socket.
#include "sys.h"

// (descriptor, Uint8Array of 12 bytes): pid, uid, gid as unix(7) SO_PEERCRED has them. The descriptor is the event loop's
// own, so there is no handle: the caller keeps it open during the call.
EXPORT(sys_peer_credentials) {
  Call call;
  call_read(env, info, &call);
  int32_t fd;
  uint8_t *into;
  size_t bytes;
  struct ucred peer;
  socklen_t peer_bytes = sizeof peer;
  if (!call_integer(&call, 0, &fd) || !call_bytes(&call, 1, &into, &bytes) || bytes < sizeof peer)
    return result(env, fail(call.state, "peerCredentials", EINVAL));
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0)
    return result(env, fail(call.state, "getsockopt SO_PEERCRED", errno));
  memcpy(into, &peer, sizeof peer);
  return result(env, 0);
}
