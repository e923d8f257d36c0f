// The daemon's side of the socket: find it, make sure whose it is, ask, hand its answer on.
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

static const char magic[4] = {'T', 'C', 'N', '1'};
enum { HEADER_BYTES = 12, RETRY_US = 2000 };

static void put32(char *at, uint32_t value) {
  value = htonl(value);
  memcpy(at, &value, sizeof value);
}

static uint32_t get32(const char *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return ntohl(value);
}

// What only this process can know: who it is, and which namespaces it and CNI_NETNS are (device:inode of nsfs).
static size_t facts(char *into, size_t capacity) {
  struct stat own, target;
  size_t bytes = (size_t)snprintf(into, capacity, "client.pid=%ld", (long)getpid()) + 1;
  if (stat("/proc/self/ns/net", &own) == 0) {
    bytes += (size_t)snprintf(into + bytes, capacity - bytes, "client.netns=%lu:%lu", (unsigned long)own.st_dev, (unsigned long)own.st_ino) + 1;
  }
  if (variable("CNI_NETNS")[0] != 0 && stat(variable("CNI_NETNS"), &target) == 0) {
    bytes += (size_t)snprintf(into + bytes, capacity - bytes, "cni.netns=%lu:%lu", (unsigned long)target.st_dev, (unsigned long)target.st_ino) + 1;
  }
  return bytes;
}

bool frame_make(const Run *run, Frame *frame) {
  char known[256];
  size_t environment = facts(known, sizeof known);
  const size_t known_bytes = environment;
  for (char **entry = environ; *entry != NULL; entry++) {
    if (strncmp(*entry, "CNI_", 4) == 0) environment += strlen(*entry) + 1;
  }
  if (environment > MAX_ENVIRONMENT) {
    answer_error(run, CODE_ENVIRONMENT, "the CNI_ variables hold more than %d bytes", MAX_ENVIRONMENT);
    return false;
  }
  frame->count = HEADER_BYTES + environment + run->input_bytes;
  frame->bytes = malloc(frame->count);
  if (frame->bytes == NULL) {
    answer_error(run, CODE_TRY_LATER, "no memory for %zu bytes; try again later", frame->count);
    return false;
  }
  char *at = frame->bytes;
  memcpy(at, magic, sizeof magic);
  put32(at + 4, (uint32_t)environment);
  put32(at + 8, (uint32_t)run->input_bytes);
  at += HEADER_BYTES;
  memcpy(at, known, known_bytes);
  at += known_bytes;
  for (char **entry = environ; *entry != NULL; entry++) {
    if (strncmp(*entry, "CNI_", 4) != 0) continue;
    const size_t bytes = strlen(*entry) + 1;
    memcpy(at, *entry, bytes);
    at += bytes;
  }
  memcpy(at, run->input, run->input_bytes);
  return true;
}

const char *socket_path(const Run *run) {
  const Field *field = &run->fields[FIELD_SOCKET];
  if (field->kind == FIELD_ABSENT || (field->kind == FIELD_TEXT && field->bytes == 0)) return DEFAULT_SOCKET;
  const size_t longest = sizeof((struct sockaddr_un *)0)->sun_path - 1;
  if (field->kind == FIELD_OTHER) {
    answer_error(run, CODE_DECODE, "socket: it must be a string");
  } else if (field->kind == FIELD_LONG || field->bytes > longest) {
    answer_error(run, CODE_CONFIG, "socket: a path has at most %zu bytes", longest);
  } else if (field->value[0] != '/' || strlen(field->value) != field->bytes) {
    answer_error(run, CODE_CONFIG, "socket: \"%s\" is not an absolute path", field->value);
  } else {
    return field->value;
  }
  return NULL;
}

// Waits until `events` are there; false when the time is up.
static bool ready(const Run *run, int fd, short events) {
  for (;;) {
    const int64_t left = run->deadline_ms - now_ms();
    if (left <= 0) return false;
    struct pollfd poller = {.fd = fd, .events = events};
    const int count = poll(&poller, 1, (int)left);
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return false;
  }
}

// >= 0: a connected socket; -1: nobody is there; -2: the error is on stdout already.
static int dial(const Run *run, const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, path, strlen(path) + 1); // socket_path() has measured it
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  while (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN && now_ms() < run->deadline_ms) { // the queue of the listening socket is full
      usleep(RETRY_US);
      continue;
    }
    const int error = errno;
    close(fd);
    if (error == ENOENT || error == ECONNREFUSED || error == ENOTDIR) return -1;
    if (error == EACCES || error == EPERM) {
      answer_error(run, CODE_UNTRUSTED, "%s: permission denied: only root and the user of tulled may ask it", path);
    } else {
      answer_error(run, CODE_TRY_LATER, "%s: %s; try again later", path, strerror(error));
    }
    return -2;
  }
  if (fd < 0) {
    answer_error(run, CODE_TRY_LATER, "no socket: %s; try again later", strerror(errno));
    return -2;
  }
  // Whoever listens decides where pods are plugged in: it must be root or who runs us.
  struct ucred peer;
  socklen_t bytes = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || (peer.uid != 0 && peer.uid != geteuid())) {
    close(fd);
    answer_error(run, CODE_UNTRUSTED, "%s: who listens there is neither root nor this user; remove that socket", path);
    return -2;
  }
  return fd;
}

// 1: all of it; 0: the other side ended; -1: the time is up.
static int send_frame(const Run *run, int fd, const Frame *frame) {
  for (size_t done = 0; done < frame->count;) {
    const ssize_t sent = send(fd, frame->bytes + done, frame->count - done, MSG_NOSIGNAL);
    if (sent >= 0) {
      done += (size_t)sent;
    } else if (errno == EAGAIN) {
      if (!ready(run, fd, POLLOUT)) return -1;
    } else if (errno != EINTR) {
      return 0;
    }
  }
  return 1;
}

static int receive(const Run *run, int fd, char *into, size_t count) {
  while (count > 0) {
    const ssize_t got = recv(fd, into, count, 0);
    if (got > 0) {
      into += got;
      count -= (size_t)got;
    } else if (got < 0 && errno == EAGAIN) {
      if (!ready(run, fd, POLLIN)) return -1;
    } else if (got == 0 || errno != EINTR) {
      return 0;
    }
  }
  return 1;
}

static int read_answer(const Run *run, int fd, int *exit_code) {
  char header[HEADER_BYTES];
  int state = receive(run, fd, header, sizeof header);
  if (state != 1) return state;
  const uint32_t code = get32(header + 4), bytes = get32(header + 8);
  if (memcmp(header, magic, sizeof magic) != 0 || code > 255 || bytes > MAX_ANSWER) return 0;
  char *body = malloc((size_t)bytes + 1);
  if (body == NULL) return 0;
  state = receive(run, fd, body, bytes);
  if (state == 1) *exit_code = write_all(STDOUT_FILENO, body, bytes) ? (int)code : 1;
  free(body);
  return state;
}

int daemon_ask(const Run *run, const char *path, const Frame *frame, int *exit_code) {
  const int fd = dial(run, path);
  if (fd == -1) return ABSENT;
  if (fd < 0) return FAILED;
  // A daemon that refuses us may answer before it has read everything: look for its answer in any case.
  const int state = send_frame(run, fd, frame);
  if (state >= 0) return daemon_hear(run, path, fd, exit_code);
  close(fd);
  answer_error(run, CODE_TRY_LATER, "%s: tulled did not answer in time; try again later", path);
  return FAILED;
}

int daemon_hear(const Run *run, const char *path, int fd, int *exit_code) {
  const int state = read_answer(run, fd, exit_code);
  close(fd);
  if (state == 1) return ASKED;
  if (state == 0) {
    answer_error(run, CODE_TRY_LATER, "%s: tulled ended the connection without an answer; try again later", path);
  } else {
    answer_error(run, CODE_TRY_LATER, "%s: tulled did not answer in time; try again later", path);
  }
  return FAILED;
}
