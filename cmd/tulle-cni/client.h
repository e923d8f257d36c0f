// tulle-cni: the program that a container runtime executes. It hands its environment and its stdin to tulled over a
// Unix socket and prints the answer; so it starts in the time of an exec, and all the work is done where netlink
// sockets are open already. docs/cni.md ("Protocol") describes the frames; cmd/tulle-cni.ts is the same in TypeScript.
//
//   json.c      finds a few top-level strings in the configuration, and refuses what is not JSON
//   env.c       CNI's environment: what each command needs, what names may look like
//   answer.c    what goes to stdout: an error, or the versions
//   daemon.c    the socket: connect, trust, ask
//   pending.c   a DEL that nobody is there to do, written down for later
//   early.c     the same for the ordinary request, before the C library is ready
//   main.c      the order of it all
#ifndef TULLE_CNI_H
#define TULLE_CNI_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define DEFAULT_SOCKET "/run/tulle/cni.sock"
#define NEWEST_VERSION "1.1.0"
#define OLDEST_VERSION "0.1.0" // what a configuration without cniVersion speaks

enum {
  MAX_STDIN = 1 << 20,       // a configuration with a prevResult of many addresses is some 10 KiB
  MAX_ENVIRONMENT = 1 << 18, // two of the longest strings that execve(2) takes (MAX_ARG_STRLEN)
  MAX_ANSWER = 1 << 22,
  MAX_VALUE = 256,           // of the strings that the client itself reads: a name, a version, a socket's path
  MAX_DEPTH = 512,           // of nested arrays and objects
  TIMEOUT_MS = 90 * 1000,    // less than the two minutes after which kubelet and containerd give up
};

// CNI's error codes: SPEC.md section 5, from 100 on our own.
enum {
  CODE_VERSION = 1,
  CODE_ENVIRONMENT = 4,
  CODE_IO = 5,
  CODE_DECODE = 6,
  CODE_CONFIG = 7,
  CODE_TRY_LATER = 11,
  CODE_UNAVAILABLE = 50,
  CODE_UNTRUSTED = 100, // what listens on the socket is neither root nor this user
};

// ---- json.c

enum { FIELD_ABSENT, FIELD_TEXT, FIELD_LONG, FIELD_OTHER };

// A top-level key to look for, without regard to case as Go's encoding/json does; the last of several wins, null is none.
typedef struct {
  const char *key;
  int kind;
  size_t bytes; // of value, without the closing zero; the value itself may hold a zero
  char value[MAX_VALUE];
} Field;

// Reads one JSON object (RFC 8259). Returns -1, or the offset of the first byte that is wrong.
ptrdiff_t json_scan(const char *text, size_t bytes, Field *fields, size_t count);

// ---- the run

enum { FIELD_VERSION, FIELD_NAME, FIELD_SOCKET, FIELDS };

typedef struct {
  const char *command;
  char *input;
  size_t input_bytes;
  Field fields[FIELDS];
  int64_t deadline_ms;
} Run;

static inline int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// ---- env.c

const char *variable(const char *name); // "" where it is not set
bool env_check(const Run *run);         // prints the error and returns false
bool names_check(const Run *run);       // the same for container, interface, network and version

// ---- answer.c

bool write_all(int fd, const char *bytes, size_t count);
const char *spoken_version(const Run *run);
bool supported_version(const char *version);
// One JSON object on stdout; returns 1, the exit code.
int answer_error(const Run *run, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int answer_versions(const Run *run);
int about(void);

// ---- daemon.c

enum { ASKED, ABSENT, FAILED }; // FAILED: the error is on stdout already

// The request as it travels and as it is written down: header, environment, configuration.
typedef struct {
  char *bytes;
  size_t count;
} Frame;

bool frame_make(const Run *run, Frame *frame);
const char *socket_path(const Run *run); // NULL: the error is on stdout already
int daemon_ask(const Run *run, const char *path, const Frame *frame, int *exit_code);
int daemon_hear(const Run *run, const char *path, int fd, int *exit_code); // of one that was asked; never ABSENT

// ---- early.c

// What was done before main(), if anything.
typedef struct {
  int socket; // the daemon at `path` has the request; 0: nobody was asked, for stdin is open then
  char path[MAX_VALUE];
  bool input_ended;
  size_t input_bytes;
  char input[1 << 15]; // of stdin, what was read already
} Early;
extern Early early;

// ---- pending.c

bool pending_write(const Run *run, const char *socket, const Frame *frame);
void pending_remove(const Run *run, const char *socket);

#endif
