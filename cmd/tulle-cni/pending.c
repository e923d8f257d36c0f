// A DEL while no daemon is there: the request goes into a folder beside the socket (SOCKET.pending, mode 0700), one file
// for each network, container and interface, and the daemon does what it finds there before it serves anybody.
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

// FNV-1a, 64 bits: names may be longer than a file's name. The parts end with a zero byte each.
static uint64_t hash(uint64_t sum, const char *text) {
  for (;; text++) {
    sum = (sum ^ (unsigned char)*text) * 0x100000001b3u;
    if (*text == 0) return sum;
  }
}

static void file_name(const Run *run, char into[32]) {
  uint64_t sum = hash(0xcbf29ce484222325u, run->fields[FIELD_NAME].value);
  sum = hash(hash(sum, variable("CNI_CONTAINERID")), variable("CNI_IFNAME"));
  snprintf(into, 32, "%016llx.del", (unsigned long long)sum);
}

// The folder's descriptor, or -1. It is made where it is missing; one that others may write to is refused.
static int open_folder(const char *socket, bool create) {
  char path[MAX_VALUE + 16];
  if (create) {
    snprintf(path, sizeof path, "%s", socket);
    char *slash = strrchr(path, '/');
    *slash = 0; // an absolute path has one
    if (path[0] != 0 && mkdir(path, 0755) != 0 && errno != EEXIST) return -1;
  }
  snprintf(path, sizeof path, "%s.pending", socket);
  if (create && mkdir(path, 0700) != 0 && errno != EEXIST) return -1;
  const int folder = open(path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat status;
  if (folder >= 0 && fstat(folder, &status) == 0 && (status.st_uid == geteuid() || status.st_uid == 0) && (status.st_mode & 077) == 0) return folder;
  if (folder >= 0) {
    close(folder);
    errno = EPERM;
  }
  return -1;
}

bool pending_write(const Run *run, const char *socket, const Frame *frame) {
  const int folder = open_folder(socket, true);
  if (folder < 0) {
    answer_error(run, CODE_IO, "tulled is not there, and %s.pending cannot be used: %s; start tulled", socket, strerror(errno));
    return false;
  }
  char name[32], temporary[32];
  file_name(run, name);
  snprintf(temporary, sizeof temporary, ".%ld.tmp", (long)getpid());
  unlinkat(folder, temporary, 0); // left by a killed process of this number
  const int file = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  bool good = file >= 0 && write_all(file, frame->bytes, frame->count) && fsync(file) == 0;
  good = good && renameat(folder, temporary, folder, name) == 0 && fsync(folder) == 0;
  if (!good) {
    answer_error(run, CODE_IO, "tulled is not there, and %s.pending/%s cannot be written: %s; start tulled", socket, name, strerror(errno));
    unlinkat(folder, temporary, 0);
  }
  if (file >= 0) close(file);
  close(folder);
  return good;
}

void pending_remove(const Run *run, const char *socket) {
  const int folder = open_folder(socket, false);
  if (folder < 0) return;
  char name[32];
  file_name(run, name);
  unlinkat(folder, name, 0);
  close(folder);
}
