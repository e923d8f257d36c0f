// Readiness for an event loop: pollReadable.
//
// libuv's own poll handle is out of N-API's reach, so each watch is a thread that sleeps in poll and calls back through a
// thread-safe function. Level-triggered, one call in flight: the thread sleeps on its waker until JavaScript has returned.
// The environment may end first, so each watch has a cleanup hook; hooks run last in, first out, hence this one before the
// thread-safe function's own, and the thread is gone before what it calls is.
#include "sys.h"
#include <stdlib.h>

typedef struct Watch {
  int32_t id;
  struct Watch *next; // in the environment's list
  State *state;
  Handle *handle;
  Waker waker;
  pthread_t thread;
  napi_threadsafe_function call;
  bool stopping;  // atomic: set by the loop's thread
  bool answered;  // atomic: the callback has returned
  bool over;      // the loop's thread only: joined, and out of the list
} Watch;

static bool stopping(const Watch *watch) { return __atomic_load_n(&watch->stopping, __ATOMIC_ACQUIRE); }

static void *run_watch(void *argument) {
  Watch *watch = argument;
  struct pollfd polls[2] = {{.fd = watch->handle->fd, .events = POLLIN}, {.fd = watch->waker.fd, .events = POLLIN}};
  bool in_flight = false;
  while (!stopping(watch)) {
    polls[0].fd = in_flight ? -1 : watch->handle->fd;
    polls[0].revents = polls[1].revents = 0;
    if (poll(polls, 2, -1) < 0) continue;
    if (polls[1].revents != 0) {
      waker_drain(&watch->waker);
      if (__atomic_exchange_n(&watch->answered, false, __ATOMIC_ACQ_REL)) in_flight = false;
    }
    bool closed = handle_closed(watch->handle);
    if (stopping(watch)) break;
    if (in_flight || (!closed && polls[0].revents == 0)) continue;
    if (napi_call_threadsafe_function(watch->call, NULL, napi_tsfn_nonblocking) != napi_ok || closed) break;
    in_flight = true;
  }
  return NULL;
}

static void stop_thread(Watch *watch) {
  __atomic_store_n(&watch->stopping, true, __ATOMIC_RELEASE);
  waker_wake(&watch->waker);
  pthread_join(watch->thread, NULL);
  waker_remove(&watch->waker);
  handle_release(watch->handle);
  for (Watch **at = &watch->state->watches; *at != NULL; at = &(*at)->next) {
    if (*at != watch) continue;
    *at = watch->next;
    break;
  }
  watch->over = true;
}

static void environment_ends(void *argument) { stop_thread(argument); }

static void stop_watch(napi_env env, Watch *watch) {
  if (watch->over) return;
  napi_remove_env_cleanup_hook(env, environment_ends, watch);
  stop_thread(watch);
  napi_release_threadsafe_function(watch->call, napi_tsfn_abort); // lets the loop end; free_watch follows
}

static void free_watch(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  free(data);
}

// On the loop's thread. A closed handle ends the watch, or the loop would wait for it for ever.
static void call_back(napi_env env, napi_value callback, void *context, void *data) {
  (void)data;
  Watch *watch = context;
  if (env == NULL || watch->over) return;
  if (handle_closed(watch->handle)) {
    stop_watch(env, watch);
    return;
  }
  napi_value nobody, value, error;
  napi_get_undefined(env, &nobody);
  // Node 20 and 22 only warn about what is thrown here: hand it over as any event's uncaughtException ourselves.
  if (napi_call_function(env, nobody, callback, 0, NULL, &value) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error);
  if (watch->over) return;
  __atomic_store_n(&watch->answered, true, __ATOMIC_RELEASE);
  waker_wake(&watch->waker);
}

// Starts the thread last: everything it touches is there by then. 0 or an errno.
static int start_watch(napi_env env, Watch *watch, napi_value callback) {
  int error = waker_add(&watch->waker);
  if (error < 0) {
    free(watch);
    return -error;
  }
  napi_value name;
  napi_create_string_utf8(env, "tulle.pollReadable", NAPI_AUTO_LENGTH, &name);
  if (napi_create_threadsafe_function(env, callback, NULL, name, 0, 1, NULL, free_watch, watch, call_back,
                                      &watch->call) != napi_ok) {
    waker_remove(&watch->waker);
    free(watch);
    return ENOMEM;
  }
  error = start_thread(&watch->thread, run_watch, watch);
  if (error == 0) {
    napi_add_env_cleanup_hook(env, environment_ends, watch);
    return 0;
  }
  waker_remove(&watch->waker);
  watch->over = true;
  napi_release_threadsafe_function(watch->call, napi_tsfn_abort); // frees the watch
  return error;
}

// pollReadable(handle, callback): the watch's number, for stopPolling
EXPORT(sys_poll_readable) {
  Call call;
  call_read(env, info, &call);
  int32_t id;
  napi_valuetype type = napi_undefined;
  if (call.count >= 2) napi_typeof(env, call.values[1], &type);
  if (!call_integer(&call, 0, &id) || type != napi_function)
    return result(env, fail(call.state, "pollReadable", EINVAL));
  Handle *handle;
  int error = handle_acquire(id, KIND_ANY, &handle);
  if (error < 0) return result(env, fail(call.state, "pollReadable", -error));
  Watch *watch = calloc(1, sizeof *watch);
  error = ENOMEM;
  if (watch != NULL) {
    watch->state = call.state;
    watch->handle = handle;
    watch->id = ++call.state->last_watch;
    error = start_watch(env, watch, call.values[1]);
  }
  if (error != 0) {
    handle_release(handle);
    return result(env, fail(call.state, "pollReadable", error));
  }
  watch->next = call.state->watches;
  call.state->watches = watch;
  return result(env, watch->id);
}

// stopPolling(watch): 0. The callback is not called again. An old number is nothing.
EXPORT(sys_stop_polling) {
  State *state;
  int32_t id;
  if (!call_integers(env, info, 1, &state, &id)) return result(env, -EINVAL);
  for (Watch *watch = state->watches; watch != NULL; watch = watch->next) {
    if (watch->id != id) continue;
    stop_watch(env, watch);
    break;
  }
  return result(env, 0);
}
