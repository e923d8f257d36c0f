// Netlink messages that are sent aside: the kernel does a request's work inside send, and for some requests (a link's
// deletion) waits tens of milliseconds after the work is done. A thread of ours waits there. What becomes of the request
// is in the acknowledgement, which is received as ever; one that could not be sent is told by a receive, too.
//
// A new thread costs a fifth of a millisecond and more on a virtual machine, so one that has nothing to do stays for a while.
#include "sys.h"
#include <stdlib.h>
#include <time.h>

#define IDLE_SECONDS 10
#define MOST_IDLE 4

typedef struct Errand {
  struct Errand *next;
  Handle *handle;
  size_t bytes;
  uint8_t message[];
} Errand;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static Errand *first, **last = &first;
static int waiting, idle; // errands in the queue, threads without one

static void perform(Errand *errand) {
  if (send_netlink(errand->handle->fd, errand->message, errand->bytes) < 0)
    __atomic_store_n(&errand->handle->unsent, errno, __ATOMIC_RELAXED);
  handle_release(errand->handle);
  free(errand);
}

// With the lock held. NULL when there was nothing to do for long enough, or others wait already.
static Errand *next_errand(void) {
  if (first == NULL && idle < MOST_IDLE) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += IDLE_SECONDS;
    idle++;
    while (first == NULL && pthread_cond_timedwait(&work, &lock, &until) == 0) continue;
    idle--;
  }
  Errand *errand = first;
  if (errand == NULL) return NULL;
  first = errand->next;
  if (first == NULL) last = &first;
  waiting--;
  return errand;
}

static void *run_errands(void *argument) {
  (void)argument;
  pthread_mutex_lock(&lock);
  for (Errand *errand; (errand = next_errand()) != NULL;) {
    pthread_mutex_unlock(&lock);
    perform(errand);
    pthread_mutex_lock(&lock);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

// Takes the errand over, unless it fails. 0 or an errno.
static int send_aside(Errand *errand) {
  int error = 0;
  pthread_mutex_lock(&lock);
  if (idle <= waiting) {
    pthread_t thread;
    error = start_thread(&thread, run_errands, NULL);
    if (error == 0) pthread_detach(thread);
  }
  if (error == 0) {
    errand->next = NULL;
    *last = errand;
    last = &errand->next;
    waiting++;
    pthread_cond_signal(&work);
  }
  pthread_mutex_unlock(&lock);
  return error;
}

// netlinkSendAside(handle, message): 0 at once
EXPORT(sys_netlink_send_aside) {
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
  Errand *errand = malloc(sizeof *errand + bytes);
  error = ENOMEM;
  if (errand != NULL) {
    errand->handle = handle;
    errand->bytes = bytes;
    memcpy(errand->message, message, bytes);
    error = send_aside(errand);
    if (error == 0) return result(env, 0);
    free(errand);
  }
  handle_release(handle);
  return result(env, fail(call.state, "pthread_create", error));
}
