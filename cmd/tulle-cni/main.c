// The order of a run: look at the environment, read the configuration, ask the daemon; where there is none, say so, or
// for DEL write it down.
#include "client.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// All of stdin, at most MAX_STDIN bytes. Returns 0, or the error code that was answered.
static int read_input(Run *run) {
  run->input = malloc(MAX_STDIN + 1);
  if (run->input == NULL) {
    answer_error(run, CODE_TRY_LATER, "no memory; try again later");
    return CODE_TRY_LATER;
  }
  memcpy(run->input, early.input, early.input_bytes);
  run->input_bytes = early.input_bytes;
  if (early.input_ended) return 0;
  while (run->input_bytes <= MAX_STDIN) {
    struct pollfd poller = {.fd = STDIN_FILENO, .events = POLLIN};
    const int64_t left = run->deadline_ms - now_ms();
    const int count = left <= 0 ? 0 : poll(&poller, 1, (int)left);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) {
      answer_error(run, CODE_IO, "error reading from stdin: it did not end in time");
      return CODE_IO;
    }
    const ssize_t got = read(STDIN_FILENO, run->input + run->input_bytes, MAX_STDIN + 1 - run->input_bytes);
    if (got == 0) return 0;
    if (got > 0) {
      run->input_bytes += (size_t)got;
    } else if (errno != EINTR && errno != EAGAIN) {
      answer_error(run, CODE_IO, "error reading from stdin: %s", strerror(errno));
      return CODE_IO;
    }
  }
  answer_error(run, CODE_IO, "error reading from stdin: the configuration is larger than %d bytes", MAX_STDIN);
  return CODE_IO;
}

// VERSION needs nothing but the environment: what stdin says of cniVersion is taken if it comes at once.
static int versions(Run *run) {
  run->input = malloc(MAX_STDIN);
  struct pollfd poller = {.fd = STDIN_FILENO, .events = POLLIN};
  while (run->input != NULL && !isatty(STDIN_FILENO) && run->input_bytes < MAX_STDIN && poll(&poller, 1, 1000) > 0) {
    const ssize_t got = read(STDIN_FILENO, run->input + run->input_bytes, MAX_STDIN - run->input_bytes);
    if (got <= 0) break;
    run->input_bytes += (size_t)got;
  }
  if (run->input != NULL && json_scan(run->input, run->input_bytes, run->fields, FIELDS) >= 0) {
    run->fields[FIELD_VERSION].kind = FIELD_ABSENT;
  }
  return answer_versions(run);
}

// Nobody listens.
static int without_daemon(const Run *run, const char *path, const Frame *frame) {
  if (strcmp(run->command, "STATUS") == 0) {
    return answer_error(run, CODE_UNAVAILABLE, "tulled is not there: nothing listens on %s; start tulled", path);
  }
  if (strcmp(run->command, "DEL") != 0) {
    return answer_error(run, CODE_TRY_LATER, "tulled is not there: nothing listens on %s; start tulled, or try again later", path);
  }
  if (!names_check(run) || !pending_write(run, path, frame)) return 1;
  // A daemon that started meanwhile may have looked into the folder before our file was there. From here on either it
  // answers us, or it is not there yet and will find the file.
  int exit_code = 1;
  const int asked = daemon_ask(run, path, frame, &exit_code);
  if (asked == ABSENT) return 0;
  if (asked == ASKED && exit_code == 0) pending_remove(run, path);
  return asked == ASKED ? exit_code : 1;
}

int main(void) {
  Run run = {.fields = {{.key = "cniVersion"}, {.key = "name"}, {.key = "socket"}}};
  signal(SIGPIPE, SIG_IGN);
  run.command = variable("CNI_COMMAND");
  if (run.command[0] == 0) return about();
  // For tests and for runtimes that are more patient or less.
  const int limit = atoi(variable("TULLE_CNI_TIMEOUT_MS"));
  run.deadline_ms = now_ms() + (limit > 0 ? limit : TIMEOUT_MS);
  if (!env_check(&run)) return 1;
  if (strcmp(run.command, "VERSION") == 0) return versions(&run);

  if (read_input(&run) != 0) return 1;
  const ptrdiff_t wrong = json_scan(run.input, run.input_bytes, run.fields, FIELDS);
  if (wrong >= 0) {
    run.fields[FIELD_VERSION].kind = FIELD_ABSENT; // what came before the mistake is no basis for an answer
    return answer_error(&run, CODE_DECODE, "error unmarshall network config: it is not a JSON object, see byte %td", wrong);
  }
  Frame frame;
  const char *path = socket_path(&run);
  if (path == NULL) return 1;
  int exit_code = 1;
  if (early.socket > 0 && strcmp(path, early.path) == 0) {
    return daemon_hear(&run, path, early.socket, &exit_code) == ASKED ? exit_code : 1;
  }
  if (early.socket > 0) close(early.socket); // it was not the daemon that is meant, and undoes what it began
  if (!frame_make(&run, &frame)) return 1;
  switch (daemon_ask(&run, path, &frame, &exit_code)) {
    case ASKED:
      return exit_code;
    case ABSENT:
      return without_daemon(&run, path, &frame);
    default:
      return 1;
  }
}
