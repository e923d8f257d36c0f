// Runs plugins as a container runtime does and takes the time of each, from the start of the process to its end.
//
// Node.js is no stopwatch for programs of a few milliseconds: it forks, which copies the page tables of a large process
// and makes it fault afterwards, where runtimes (Go) and this program vfork; and of many children at once it is the
// bottleneck itself.
//
//   launch PARALLEL < jobs     jobs: program, input, number of variables, the variables; each ends with a zero byte
//
// Prints nanoseconds of each job in the order of the jobs, and at last those of all of them together. Ends with 1 when a
// job fails, and says with which words.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_VARIABLES = 32, MAX_INPUT = 60000 }; // a pipe holds 64 KiB: nobody waits for a reader

typedef struct {
  char *program, *input;
  char *environment[MAX_VARIABLES + 1];
  int output; // of the running process; its end for reading
  pid_t pid;
  int64_t start, nanoseconds;
} Job;

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void stop(const char *what) {
  fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
  exit(1);
}

static char *text(char **at, const char *end) {
  char *found = *at;
  char *zero = memchr(found, 0, (size_t)(end - found));
  if (zero == NULL) {
    errno = EINVAL;
    stop("the list of jobs ends early");
  }
  *at = zero + 1;
  return found;
}

static char *read_all(size_t *count) {
  size_t room = 1 << 16;
  char *bytes = malloc(room);
  *count = 0;
  for (;;) {
    if (bytes == NULL) stop("memory");
    const ssize_t got = read(STDIN_FILENO, bytes + *count, room - *count);
    if (got < 0 && errno != EINTR) stop("stdin");
    if (got == 0) return bytes;
    if (got > 0) *count += (size_t)got;
    if (*count == room) bytes = realloc(bytes, room *= 2);
  }
}

static Job *read_jobs(int *count) {
  size_t bytes;
  char *at = read_all(&bytes);
  const char *end = at + bytes;
  Job *jobs = NULL;
  for (*count = 0; at < end; ++*count) {
    jobs = realloc(jobs, sizeof *jobs * (size_t)(*count + 1));
    if (jobs == NULL) stop("memory");
    Job *job = &jobs[*count];
    *job = (Job){.program = text(&at, end), .input = text(&at, end)};
    const int variables = atoi(text(&at, end));
    if (variables > MAX_VARIABLES || strlen(job->input) > MAX_INPUT) {
      errno = E2BIG;
      stop(job->program);
    }
    for (int i = 0; i < variables; i++) job->environment[i] = text(&at, end);
  }
  return jobs;
}

static void start(Job *job) {
  job->start = now();
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) stop("pipe");
  const size_t bytes = strlen(job->input);
  if (write(in[1], job->input, bytes) != (ssize_t)bytes) stop("the job's stdin");
  close(in[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  char *arguments[] = {job->program, NULL};
  errno = posix_spawn(&job->pid, job->program, &actions, NULL, arguments, job->environment);
  if (errno != 0) stop(job->program);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  job->output = out[0];
}

static void finish(Job *job, int status) {
  char answer[4096];
  const ssize_t count = read(job->output, answer, sizeof answer);
  job->nanoseconds = now() - job->start;
  close(job->output);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  fprintf(stderr, "%.*s\n", count < 0 ? 0 : (int)count, answer);
  exit(1);
}

int main(int count, char **arguments) {
  const int parallel = count == 2 ? atoi(arguments[1]) : 0;
  if (parallel < 1) {
    fprintf(stderr, "usage: launch PARALLEL < jobs\n");
    return 2;
  }
  int jobs_count;
  Job *jobs = read_jobs(&jobs_count);
  const int64_t begin = now();
  for (int next = 0, done = 0; done < jobs_count;) {
    if (next < jobs_count && next - done < parallel) {
      start(&jobs[next++]);
      continue;
    }
    int status;
    const pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0 && errno != EINTR) stop("wait");
    for (int i = 0; i < next; i++) {
      if (pid <= 0 || jobs[i].pid != pid) continue;
      jobs[i].pid = 0;
      finish(&jobs[i], status);
      done++;
    }
  }
  const int64_t all = now() - begin;
  for (int i = 0; i < jobs_count; i++) printf("%lld\n", (long long)jobs[i].nanoseconds);
  printf("%lld\n", (long long)all);
  return 0;
}
