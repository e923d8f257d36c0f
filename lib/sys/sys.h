// The addon's shared declarations. Flow: addon.c reads the table of exports; handles.c owns every descriptor; arena.c
// owns the memory that the hot calls work in; each other file is one family of system calls.
//
// Two kinds of exports, one convention: every one returns an int32, >= 0 for a result and -errno for a failure.
//   cold  take strings and Uint8Arrays; name the failed step with fail(), which the typed face turns into a SysError.
//   hot   take integers only: a handle, an arena, byte offsets into it. They allocate nothing.
#ifndef TULLE_SYS_H
#define TULLE_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <node_api.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

// Raised when an export changes its arguments or meaning; sys.ts refuses an addon of another number.
#define TULLE_ADDON_VERSION 2

#define BATCH_MESSAGES 64    // messages of one sendmmsg or recvmmsg: the train length at which GRO stops, too (UDP_GRO_CNT_MAX)
#define PACKET_IOVS 1024     // UIO_MAXIOV: the kernel refuses longer vectors
#define BATCH_IOVS 4096      // iovecs shared by the messages of one chunk: at least one message of PACKET_IOVS always fits
#define POLL_ENTRIES 256     // handles of one poll
#define ARENAS 16            // arenas of one environment
#define POLL_SLICE_MS 500    // no call blocks longer, so worker.terminate() and process exit are prompt
#define WATCHED 8            // handles of a poll that is remembered from one call to the next
#define ADDRESS_BYTES 32     // a sockaddr_in or sockaddr_in6 in an arena, padded

// ---- handles.c: the process-wide table of descriptors

enum {
  KIND_TUN = 1,
  KIND_UDP = 2,
  KIND_EVENT = 4,
  KIND_NETLINK = 8,
  KIND_RAW = 16,
  KIND_FILE = 32,
  KIND_PACKET = 64,
  KIND_ANY = 127,
};

typedef struct {
  int32_t id;       // 0 = free slot
  int fd;
  uint32_t kind;
  uint32_t calls;   // calls in progress; the last one to end after a close closes the descriptor
  bool closed;
  const void *owner; // the environment that closes it when it ends; NULL = kept
  int unsent;       // errno of a message that could not be sent aside (errand.c), until a receive tells it; atomic
} Handle;

// Somebody who sleeps while holding handles: an eventfd that close() writes to.
typedef struct Waker {
  int fd;
  struct Waker *next;
} Waker;

int32_t handle_open(int fd, uint32_t kind, const void *owner); // takes fd over, also when it fails
int handle_acquire(int32_t id, uint32_t kinds, Handle **handle); // 0, -EBADF, or -EINVAL for another kind
void handle_release(Handle *handle);
bool handle_closed(const Handle *handle);
int handle_close(int32_t id);
int handle_keep(int32_t id);
int handle_count(void);
void handle_close_owned(const void *owner);
int waker_add(Waker *waker);
void waker_remove(Waker *waker);
void waker_drain(const Waker *waker);
void waker_wake(const Waker *waker);

// ---- arena.c: the memory that hot calls address by offset

typedef struct {
  uint8_t *base;
  int64_t bytes;
  napi_ref view;   // keeps the Uint8Array alive; NULL = free
  bool movable;    // a plain ArrayBuffer can be detached or resized behind our back: looked up again at each call
} Arena;

// One environment: the main thread or one worker. Everything a batch needs is allocated here, once.
typedef struct {
  napi_env env;
  Waker waker;
  const char *step; // what failed last, for the error's text
  struct Watch *watches; // watch.c
  int32_t last_watch;
  Arena arenas[ARENAS];
  struct mmsghdr messages[BATCH_MESSAGES];
  struct iovec iovs[BATCH_IOVS];
  int32_t records[BATCH_MESSAGES]; // which record each message of a chunk came from
  _Alignas(8) uint8_t controls[BATCH_MESSAGES][64];
  struct pollfd polls[POLL_ENTRIES + 1];
  Handle *polled[POLL_ENTRIES];
  // The handles and events of the last small poll, and an epoll instance that watches them (readiness.c).
  int watching; // its descriptor; -1: none
  int32_t watched_count;
  int32_t watched[WATCHED][2];
} State;

Arena *arena_of(State *state, int32_t id); // NULL: no such arena, or detached
bool arena_holds(const Arena *arena, int64_t offset, int64_t count, int64_t stride, int64_t bytes);
int arena_iovs(const Arena *arena, int64_t table, int32_t first, int32_t count, struct iovec *iovs);

// A record may be rewritten by another thread while we read it: read each word once, check the copy, use the copy.
static inline int32_t load_word(const uint8_t *at) { return __atomic_load_n((const int32_t *)at, __ATOMIC_RELAXED); }
static inline void store_word(uint8_t *at, int32_t value) { __atomic_store_n((int32_t *)at, value, __ATOMIC_RELAXED); }

// ---- addon.c: arguments and results

#define MAX_ARGUMENTS 8

typedef struct {
  napi_env env;
  State *state;
  size_t count;
  napi_value values[MAX_ARGUMENTS];
} Call;

bool call_integers(napi_env env, napi_callback_info info, size_t count, State **state, int32_t *out);
void call_read(napi_env env, napi_callback_info info, Call *call);
bool call_integer(const Call *call, size_t index, int32_t *out);
bool call_text(const Call *call, size_t index, char *out, size_t bytes); // refuses what does not fit or holds a NUL
bool call_bytes(const Call *call, size_t index, uint8_t **data, size_t *bytes);
napi_value result(napi_env env, int32_t value);
int32_t fail(State *state, const char *step, int error); // notes the step, returns -error

// ---- namespace.c

typedef int (*Opener)(void *argument, const char **step);
// Runs open in the namespace at path, in a thread of its own, so that the caller's thread never moves; "" = here.
int open_in_namespace(const char *path, Opener open, void *argument, const char **step);
// A thread that takes no signals: those belong to Node's main thread.
int start_thread(pthread_t *thread, void *(*run)(void *), void *argument);

// ---- netlink.c

ssize_t send_netlink(int fd, const uint8_t *message, size_t bytes); // to the kernel; -1 and errno

// ---- readiness.c, udp.c

void forget_watched(State *state);
int wait_for(State *state, Handle *handle, short events, int timeout_ms); // 1 ready, 0 timeout, -EBADF closed
int parse_address(const char *text, int port, struct sockaddr_storage *address, socklen_t *bytes); // 0 or -EINVAL

// ---- the exports

#define EXPORT(name) napi_value name(napi_env env, napi_callback_info info)
EXPORT(sys_close);
EXPORT(sys_keep);
EXPORT(sys_handle_count);
EXPORT(sys_register_arena);
EXPORT(sys_unregister_arena);
EXPORT(sys_checksum);
EXPORT(sys_open_tun);
EXPORT(sys_tun_name);
EXPORT(sys_set_tun_offloads);
EXPORT(sys_read_tun);
EXPORT(sys_write_tun);
EXPORT(sys_open_udp);
EXPORT(sys_set_udp_gro);
EXPORT(sys_probe_udp_trains);
EXPORT(sys_local_address);
EXPORT(sys_encode_address);
EXPORT(sys_send_udp);
EXPORT(sys_receive_udp);
EXPORT(sys_open_event_fd);
EXPORT(sys_wake);
EXPORT(sys_drain);
EXPORT(sys_poll);
EXPORT(sys_poll_readable);
EXPORT(sys_stop_polling);
EXPORT(sys_open_netlink);
EXPORT(sys_netlink_send);
EXPORT(sys_netlink_send_aside);
EXPORT(sys_netlink_receive);
EXPORT(sys_netlink_exchange);
EXPORT(sys_netlink_link_index);
EXPORT(sys_open_raw);
EXPORT(sys_raw_send);
EXPORT(sys_raw_receive);
EXPORT(sys_open_packet);
EXPORT(sys_packet_drops);
EXPORT(sys_create_namespace);
EXPORT(sys_remove_namespace);
EXPORT(sys_with_namespace);
EXPORT(sys_flock_open);
EXPORT(sys_peer_credentials);
EXPORT(sys_send_unix);

#endif
