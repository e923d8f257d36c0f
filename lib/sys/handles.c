// The table of descriptors, shared by all threads and environments of the process.
//
// JavaScript never holds a descriptor number: the kernel gives a closed number to the next open, and a worker that still
// reads "its" number would read somebody else's. It holds an id instead. Ids only grow; the slot is the id modulo the
// table's size, so a lookup is one comparison and an id comes back only after two thousand million opens.
// A call holds its handle while it runs. close() marks the handle; the last call to end closes the descriptor.
#include "sys.h"
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/file.h>

#define SLOTS 16384

static Handle table[SLOTS];
static int32_t last_id = 0;
static int open_count = 0;
static Waker *wakers = NULL;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int32_t handle_open(int fd, uint32_t kind, const void *owner) {
  pthread_mutex_lock(&lock);
  int32_t id = last_id;
  for (int tries = 0; tries < SLOTS; tries++) {
    id = id == INT32_MAX ? 1 : id + 1;
    Handle *handle = &table[id % SLOTS];
    if (handle->id != 0) continue;
    *handle = (Handle){.id = id, .fd = fd, .kind = kind, .owner = owner};
    last_id = id;
    open_count++;
    pthread_mutex_unlock(&lock);
    return id;
  }
  pthread_mutex_unlock(&lock);
  close(fd);
  return -EMFILE;
}

int handle_acquire(int32_t id, uint32_t kinds, Handle **out) {
  *out = NULL;
  if (id <= 0) return -EBADF;
  Handle *handle = &table[id % SLOTS];
  int error = 0;
  pthread_mutex_lock(&lock);
  if (handle->id != id || handle->closed) error = -EBADF;
  else if ((handle->kind & kinds) == 0) error = -EINVAL;
  else {
    handle->calls++;
    *out = handle;
  }
  pthread_mutex_unlock(&lock);
  return error;
}

// Frees the slot; the caller closes the descriptor after the lock: closing a TUN device takes milliseconds.
static int take_out(Handle *handle) {
  int fd = handle->fd;
  *handle = (Handle){0};
  open_count--;
  return fd;
}

void handle_release(Handle *handle) {
  int fd = -1;
  pthread_mutex_lock(&lock);
  handle->calls--;
  if (handle->closed && handle->calls == 0) fd = take_out(handle);
  pthread_mutex_unlock(&lock);
  if (fd >= 0) close(fd);
}

bool handle_closed(const Handle *handle) {
  pthread_mutex_lock(&lock);
  bool closed = handle->closed;
  pthread_mutex_unlock(&lock);
  return closed;
}

// With the lock held. Everybody who sleeps gets up and looks: there are at most a few, and closing is rare.
static int mark_closed(Handle *handle) {
  handle->closed = true;
  if (handle->calls == 0) return take_out(handle);
  for (Waker *waker = wakers; waker != NULL; waker = waker->next) waker_wake(waker);
  return -1;
}

int handle_close(int32_t id) {
  if (id <= 0) return -EBADF;
  Handle *handle = &table[id % SLOTS];
  pthread_mutex_lock(&lock);
  if (handle->id != id || handle->closed) {
    pthread_mutex_unlock(&lock);
    return -EBADF;
  }
  int fd = mark_closed(handle);
  pthread_mutex_unlock(&lock);
  if (fd >= 0) close(fd);
  return 0;
}

int handle_keep(int32_t id) {
  if (id <= 0) return -EBADF;
  Handle *handle = &table[id % SLOTS];
  pthread_mutex_lock(&lock);
  bool found = handle->id == id && !handle->closed;
  if (found) handle->owner = NULL;
  pthread_mutex_unlock(&lock);
  return found ? 0 : -EBADF;
}

int handle_count(void) {
  pthread_mutex_lock(&lock);
  int count = open_count;
  pthread_mutex_unlock(&lock);
  return count;
}

void handle_close_owned(const void *owner) {
  for (int slot = 0; slot < SLOTS; slot++) {
    Handle *handle = &table[slot];
    int fd = -1;
    pthread_mutex_lock(&lock);
    if (handle->id != 0 && handle->owner == owner && !handle->closed) fd = mark_closed(handle);
    pthread_mutex_unlock(&lock);
    if (fd >= 0) close(fd);
  }
}

int waker_add(Waker *waker) {
  waker->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (waker->fd < 0) return -errno;
  pthread_mutex_lock(&lock);
  waker->next = wakers;
  wakers = waker;
  pthread_mutex_unlock(&lock);
  return 0;
}

void waker_remove(Waker *waker) {
  pthread_mutex_lock(&lock);
  for (Waker **at = &wakers; *at != NULL; at = &(*at)->next) {
    if (*at != waker) continue;
    *at = waker->next;
    break;
  }
  pthread_mutex_unlock(&lock);
  close(waker->fd);
}

void waker_drain(const Waker *waker) {
  uint64_t count;
  ssize_t bytes = read(waker->fd, &count, sizeof count);
  (void)bytes; // EAGAIN: nobody woke us
}

void waker_wake(const Waker *waker) {
  uint64_t one = 1;
  ssize_t bytes = write(waker->fd, &one, sizeof one);
  (void)bytes; // EAGAIN: the counter is full, so the sleeper is woken already
}

EXPORT(sys_close) {
  State *state;
  int32_t id;
  if (!call_integers(env, info, 1, &state, &id)) return result(env, -EINVAL);
  int error = handle_close(id);
  return result(env, error < 0 ? fail(state, "close", -error) : 0);
}

EXPORT(sys_keep) {
  State *state;
  int32_t id;
  if (!call_integers(env, info, 1, &state, &id)) return result(env, -EINVAL);
  int error = handle_keep(id);
  return result(env, error < 0 ? fail(state, "keep", -error) : 0);
}

EXPORT(sys_handle_count) {
  (void)info;
  return result(env, handle_count());
}

// flockOpen(path, exclusive): handle of a file locked until it is closed or the process ends.
EXPORT(sys_flock_open) {
  Call call;
  call_read(env, info, &call);
  char path[PATH_MAX];
  int32_t exclusive;
  if (!call_text(&call, 0, path, sizeof path) || !call_integer(&call, 1, &exclusive))
    return result(env, fail(call.state, "flockOpen", EINVAL));
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return result(env, fail(call.state, "open", errno));
  if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
    int error = errno;
    close(fd);
    return result(env, fail(call.state, "flock", error));
  }
  int32_t id = handle_open(fd, KIND_FILE, call.state);
  return result(env, id < 0 ? fail(call.state, "flockOpen", -id) : id);
}
