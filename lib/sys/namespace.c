// Network namespaces.
//
// A network namespace belongs to a thread. Sockets are opened in another one by a thread of our own that ends right
// after, so no thread of Node's is ever seen in the wrong place; withNamespace is the one exception, and it must go back.
#include "sys.h"
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define THREAD_STACK (256 * 1024)

int start_thread(pthread_t *thread, void *(*run)(void *), void *argument) {
  sigset_t all, before;
  pthread_attr_t attributes;
  int error = pthread_attr_init(&attributes);
  if (error != 0) return error;
  pthread_attr_setstacksize(&attributes, THREAD_STACK);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(thread, &attributes, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

typedef struct {
  const char *path;
  Opener open;
  void *argument;
  const char *step;
  int result;
} Errand;

static int enter(const char *path, const char **step) {
  *step = "open";
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  *step = "setns";
  int error = setns(fd, CLONE_NEWNET) == 0 ? 0 : -errno;
  close(fd);
  return error;
}

static void *run_errand(void *argument) {
  Errand *errand = argument;
  errand->result = errand->path == NULL ? 0 : enter(errand->path, &errand->step);
  if (errand->result == 0) errand->result = errand->open(errand->argument, &errand->step);
  return NULL;
}

static int in_thread(Errand *errand) {
  pthread_t thread;
  int error = start_thread(&thread, run_errand, errand);
  if (error != 0) {
    errand->step = "pthread_create";
    return -error;
  }
  pthread_join(thread, NULL);
  return errand->result;
}

int open_in_namespace(const char *path, Opener open, void *argument, const char **step) {
  if (path[0] == 0) return open(argument, step);
  Errand errand = {.path = path, .open = open, .argument = argument, .step = *step};
  int fd = in_thread(&errand);
  *step = errand.step;
  return fd;
}

static int make_namespace(void *argument, const char **step) {
  *step = "unshare CLONE_NEWNET";
  if (unshare(CLONE_NEWNET) != 0) return -errno;
  *step = "mount";
  return mount("/proc/thread-self/ns/net", argument, NULL, MS_BIND, NULL) == 0 ? 0 : -errno;
}

// createNamespace(path): 0. The bind mount keeps the namespace alive when the thread that made it is gone.
EXPORT(sys_create_namespace) {
  Call call;
  call_read(env, info, &call);
  char path[PATH_MAX];
  if (!call_text(&call, 0, path, sizeof path)) return result(env, fail(call.state, "createNamespace", EINVAL));
  int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
  if (fd < 0) return result(env, fail(call.state, "open", errno));
  close(fd);
  Errand errand = {.open = make_namespace, .argument = path, .step = "createNamespace"};
  int error = in_thread(&errand);
  if (error == 0) return result(env, 0);
  unlink(path);
  return result(env, fail(call.state, errand.step, -error));
}

// What createNamespace leaves at a path: a namespace, or (after a crash or a lost mount) an empty file. Nothing else is
// ours to delete.
static int check_removable(const char *path) {
  int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct statfs system;
  struct statx file; // not fstat: as a symbol that is younger than the glibc that Node.js needs
  int status = fstatfs(fd, &system) != 0 || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &file) != 0 ? -errno : 0;
  close(fd);
  if (status != 0 || system.f_type == NSFS_MAGIC) return status;
  return S_ISREG(file.stx_mode) && file.stx_size == 0 ? 0 : -EINVAL;
}

// removeNamespace(path): 0, also when there is nothing. Processes and sockets inside keep the namespace alive.
EXPORT(sys_remove_namespace) {
  Call call;
  call_read(env, info, &call);
  char path[PATH_MAX];
  if (!call_text(&call, 0, path, sizeof path)) return result(env, fail(call.state, "removeNamespace", EINVAL));
  int error = check_removable(path);
  if (error == -ENOENT || error == -ENOTDIR) return result(env, 0);
  if (error != 0) return result(env, fail(call.state, "removeNamespace", -error));
  while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue; // mounts may lie on one another
  if (errno != EINVAL && errno != ENOENT) return result(env, fail(call.state, "umount", errno));
  if (unlink(path) != 0 && errno != ENOENT) return result(env, fail(call.state, "unlink", errno));
  return result(env, 0);
}

// withNamespace(path, action, failed): runs action in the namespace; gives its result, or the error to `failed`.
// The one export that does not return a number of its own: calls failed(-errno) when the namespace cannot be entered.
EXPORT(sys_with_namespace) {
  Call call;
  call_read(env, info, &call);
  char path[PATH_MAX];
  const char *step = "withNamespace";
  int error = call_text(&call, 0, path, sizeof path) && call.count >= 3 ? 0 : -EINVAL;
  int home = -1;
  if (error == 0) {
    step = "open /proc/thread-self/ns/net";
    home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0) error = -errno;
  }
  // Where the way back is barred (a user namespace that does not own our network namespace), this fails before we left.
  if (error == 0 && setns(home, CLONE_NEWNET) != 0) {
    step = "setns";
    error = -errno;
  }
  if (error == 0) error = enter(path, &step);

  napi_value nobody, value = NULL;
  napi_get_undefined(env, &nobody);
  if (error != 0) {
    if (home >= 0) close(home);
    napi_value code = result(env, fail(call.state, step, -error));
    napi_call_function(env, nobody, call.values[2], 1, &code, &value);
    return NULL;
  }
  napi_call_function(env, nobody, call.values[1], 0, NULL, &value); // a thrown error stays pending, for the caller
  if (setns(home, CLONE_NEWNET) != 0) {
    fprintf(stderr, "tulle: cannot return from network namespace %s (errno %d): stopping, as nothing done here would be right\n", path, errno);
    abort();
  }
  close(home);
  return value;
}
