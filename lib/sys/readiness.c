// Waiting: event descriptors and poll.
//
// Nothing here sleeps longer than a slice: a worker can be terminated, and a process can exit, only between two calls.
// A sleeper holds its handles and listens on its environment's waker, so that close() wakes it at once.
//
// A loop polls the same few handles each time, and poll(2) registers with every one of them, twice, for each sleep. So a
// small poll is remembered as an epoll instance, where they stay registered; only another set of handles makes it anew.
#include "sys.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int slice(int timeout_ms) { return timeout_ms < 0 || timeout_ms > POLL_SLICE_MS ? POLL_SLICE_MS : timeout_ms; }

int wait_for(State *state, Handle *handle, short events, int timeout_ms) {
  struct pollfd polls[2] = {{.fd = handle->fd, .events = events}, {.fd = state->waker.fd, .events = POLLIN}};
  int ready = poll(polls, 2, slice(timeout_ms));
  if (ready < 0 && errno != EINTR) return -errno;
  if (ready > 0 && polls[1].revents != 0) waker_drain(&state->waker);
  if (handle_closed(handle)) return -EBADF;
  return ready > 0 && polls[0].revents != 0;
}

EXPORT(sys_open_event_fd) {
  Call call;
  call_read(env, info, &call);
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int32_t id = fd < 0 ? -errno : handle_open(fd, KIND_EVENT, call.state);
  return result(env, id < 0 ? fail(call.state, "eventfd", -id) : id);
}

// wake(handle): 0. A full counter is no failure: the sleeper has been woken.
EXPORT(sys_wake) {
  State *state;
  int32_t id;
  if (!call_integers(env, info, 1, &state, &id)) return result(env, -EINVAL);
  Handle *handle;
  int error = handle_acquire(id, KIND_EVENT, &handle);
  if (error < 0) return result(env, fail(state, "write eventfd", -error));
  uint64_t one = 1;
  error = write(handle->fd, &one, sizeof one) == sizeof one || errno == EAGAIN ? 0 : errno;
  handle_release(handle);
  return result(env, error == 0 ? 0 : fail(state, "write eventfd", error));
}

// drain(handle): how often it was woken since the last drain
EXPORT(sys_drain) {
  State *state;
  int32_t id;
  if (!call_integers(env, info, 1, &state, &id)) return result(env, -EINVAL);
  Handle *handle;
  int error = handle_acquire(id, KIND_EVENT, &handle);
  if (error < 0) return result(env, error);
  uint64_t count = 0;
  if (read(handle->fd, &count, sizeof count) < 0) {
    count = 0;
    if (errno != EAGAIN && errno != EINTR) error = -errno;
  }
  handle_release(handle);
  return result(env, error < 0 ? error : count > INT32_MAX ? INT32_MAX : (int32_t)count);
}

void forget_watched(State *state) {
  if (state->watching >= 0) close(state->watching);
  state->watching = -1;
  state->watched_count = 0;
}

static bool watches(const State *state, int32_t count, const int32_t (*entries)[2]) {
  return state->watching >= 0 && state->watched_count == count &&
         memcmp(state->watched, entries, (size_t)count * sizeof entries[0]) == 0;
}

static bool watch_one(const State *state, int fd, uint32_t events, uint32_t row) {
  struct epoll_event event = {.events = events, .data.u32 = row};
  return epoll_ctl(state->watching, EPOLL_CTL_ADD, fd, &event) == 0;
}

// False where epoll cannot: a regular file, the same descriptor twice, no descriptor left.
static bool watch_all(State *state, int32_t count, const int32_t (*entries)[2]) {
  forget_watched(state);
  state->watching = epoll_create1(EPOLL_CLOEXEC);
  bool all = state->watching >= 0 && watch_one(state, state->waker.fd, EPOLLIN, (uint32_t)count);
  for (int32_t i = 0; all && i < count; i++)
    all = watch_one(state, state->polls[i].fd, (uint32_t)state->polls[i].events, (uint32_t)i);
  if (!all) {
    forget_watched(state);
    return false;
  }
  state->watched_count = count;
  memcpy(state->watched, entries, (size_t)count * sizeof entries[0]);
  return true;
}

// poll(2) over state->polls and the waker behind them, by epoll where that is possible. The bits are the same.
static int poll_entries(State *state, int32_t count, const int32_t (*entries)[2], int timeout_ms) {
  if (count > WATCHED || (!watches(state, count, entries) && !watch_all(state, count, entries)))
    return poll(state->polls, (nfds_t)count + 1, timeout_ms);
  struct epoll_event events[WATCHED + 1];
  int status = epoll_wait(state->watching, events, count + 1, timeout_ms);
  for (int i = 0; i < status; i++) state->polls[events[i].data.u32].revents = (short)events[i].events;
  return status;
}

// poll(arena, pollOffset, count, timeoutMs): entries with a revents
EXPORT(sys_poll) {
  State *state;
  int32_t in[4];
  if (!call_integers(env, info, 4, &state, in)) return result(env, -EINVAL);
  Arena *arena = arena_of(state, in[0]);
  int64_t table = in[1];
  int32_t count = in[2];
  if (arena == NULL || count < 0 || count > POLL_ENTRIES || (table & 3) != 0) return result(env, -EINVAL);
  if (!arena_holds(arena, table, count, 12, 12)) return result(env, -EFAULT);

  bool gone = false;
  int32_t entries[WATCHED][2];
  for (int32_t i = 0; i < count; i++) {
    const uint8_t *entry = arena->base + table + (int64_t)i * 12;
    Handle **handle = &state->polled[i];
    int32_t id = load_word(entry);
    if (handle_acquire(id, KIND_ANY, handle) != 0) gone = true;
    short events = (short)(load_word(entry + 4) & (POLLIN | POLLPRI | POLLOUT));
    state->polls[i] = (struct pollfd){.fd = *handle == NULL ? -1 : (*handle)->fd, .events = events};
    if (i < WATCHED) entries[i][0] = id, entries[i][1] = events;
  }
  state->polls[count] = (struct pollfd){.fd = state->waker.fd, .events = POLLIN};
  int status = gone ? poll(state->polls, (nfds_t)count + 1, 0) : poll_entries(state, count, entries, slice(in[3]));
  int error = status < 0 && errno != EINTR ? -errno : 0;
  if (status > 0 && state->polls[count].revents != 0) waker_drain(&state->waker);

  int32_t ready = 0;
  for (int32_t i = 0; i < count; i++) {
    Handle *handle = state->polled[i];
    int32_t revents = status > 0 ? state->polls[i].revents : 0;
    if (handle == NULL || handle_closed(handle)) revents = POLLNVAL;
    if (handle != NULL) handle_release(handle);
    store_word(arena->base + table + (int64_t)i * 12 + 8, revents);
    if (revents != 0) ready++;
  }
  return result(env, error < 0 ? error : ready);
}
