// Asks the daemon before the C library wakes up. A static glibc looks at the processor first (some twenty CPUID
// instructions, each of which a virtual machine hands to its host: 0.3 ms here, as long as all the rest of the program).
// So the program begins here, in the linker's early_start: the ordinary request is on its way with a dozen system calls,
// and while tulled works on it the library makes itself ready and main() begins, which checks everything as ever and
// hears the answer.
//
// Nothing of the library may be used: no memcpy (it is chosen by processor), no errno, no stack protector (both are in
// memory that is not there yet). Whatever is not ordinary is left to main(): the worst that happens here is nothing.
#include "client.h"

Early early;

#if defined(__x86_64__) && defined(__linux__)

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#ifndef __has_attribute
#define __has_attribute(name) 0
#endif
#if __has_attribute(no_stack_protector)
#define BARE static __attribute__((no_stack_protector))
#else
#define BARE static __attribute__((optimize("no-stack-protector")))
#endif

enum { FRAME_BYTES = 1 << 16, HEADER_BYTES = 12, PATIENCE_MS = 20 };

static char frame[FRAME_BYTES];

// x86-64's way into the kernel; a negative result is an error number.
BARE long call6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

BARE long call3(long number, long a, long b, long c) { return call6(number, a, b, c, 0, 0, 0); }

// Loops that a compiler would replace by memcpy and strlen, were it not for the assembler in them.
BARE void copy(char *to, const char *from, size_t count) {
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}

BARE void clear(void *at, size_t count) {
  __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(0) : "memory");
}

BARE size_t length(const char *text) {
  size_t count = 0;
  for (; text[count] != 0; count++) __asm__ volatile("" : "+r"(count));
  return count;
}

BARE bool same(const char *a, const char *b) {
  while (*a != 0 && *a == *b) a++, b++;
  return *a == *b;
}

BARE bool begins(const char *text, const char *with) {
  while (*with != 0 && *text == *with) text++, with++;
  return *with == 0;
}

BARE const char *find_variable(char **variables, const char *name) {
  for (; *variables != 0; variables++) {
    if (begins(*variables, name) && (*variables)[length(name)] == '=') return *variables + length(name) + 1;
  }
  return "";
}

// ---- stdin

// True when all of it is there and fits.
BARE bool read_all(void) {
  while (early.input_bytes < sizeof early.input) {
    struct pollfd poller = {.fd = 0, .events = POLLIN};
    if (call3(SYS_poll, (long)&poller, 1, PATIENCE_MS) <= 0) return false;
    const long got = call3(SYS_read, 0, (long)(early.input + early.input_bytes), (long)(sizeof early.input - early.input_bytes));
    if (got < 0) return false;
    if (got == 0) return early.input_ended = true;
    early.input_bytes += (size_t)got;
  }
  return false;
}

BARE bool is_key(const char *text, size_t bytes) {
  static const char key[] = "socket";
  if (bytes != sizeof key - 1) return false;
  for (size_t i = 0; i < bytes; i++) {
    if ((text[i] | 0x20) != key[i]) return false;
  }
  return true;
}

BARE size_t skip_space(size_t at) {
  while (at < early.input_bytes && (early.input[at] == ' ' || (early.input[at] >= '\t' && early.input[at] <= '\r'))) at++;
  return at;
}

// The end of the string that begins behind a quote; SIZE_MAX where there is none, or an escape in it.
BARE size_t string_end(size_t at) {
  for (; at < early.input_bytes; at++) {
    if (early.input[at] == '"') return at;
    if (early.input[at] == '\\') break;
  }
  return SIZE_MAX;
}

// The value of the top-level key "socket", or the default, into `path`. False for anything that is not plain; main() reads
// the JSON properly and compares.
BARE bool find_socket(char *path, size_t capacity) {
  copy(path, DEFAULT_SOCKET, sizeof DEFAULT_SOCKET);
  bool found = false;
  for (size_t at = 0, depth = 0; at < early.input_bytes; at++) {
    const char c = early.input[at];
    if (c == '{' || c == '[') depth++;
    if (c == '}' || c == ']') depth--;
    if (c != '"') continue;
    const size_t begin = at + 1, end = string_end(begin);
    if (end == SIZE_MAX) return false;
    at = end;
    if (depth != 1 || !is_key(early.input + begin, end - begin)) continue;
    size_t value = skip_space(end + 1);
    if (value >= early.input_bytes || early.input[value] != ':') continue; // a value, not a key
    value = skip_space(value + 1);
    if (found || value >= early.input_bytes || early.input[value] != '"') return false;
    found = true;
    const size_t last = string_end(value + 1);
    if (last == SIZE_MAX || last - value - 1 >= capacity || early.input[value + 1] != '/') return false;
    copy(path, early.input + value + 1, last - value - 1);
    path[last - value - 1] = 0;
    at = last;
  }
  return true;
}

// ---- the frame, as daemon.c makes it

BARE size_t put_text(size_t at, const char *text, size_t bytes) {
  if (at + bytes > sizeof frame) return SIZE_MAX / 2;
  copy(frame + at, text, bytes);
  return at + bytes;
}

BARE size_t put_number(size_t at, unsigned long value) {
  char digits[24];
  size_t first = sizeof digits;
  do digits[--first] = (char)('0' + value % 10);
  while ((value /= 10) != 0);
  return put_text(at, digits + first, sizeof digits - first);
}

BARE size_t put_namespace(size_t at, const char *name, const char *path) {
  struct stat status;
  if (call6(SYS_newfstatat, AT_FDCWD, (long)path, (long)&status, 0, 0, 0) != 0) return at;
  at = put_text(at, name, length(name));
  at = put_number(at, status.st_dev);
  at = put_text(at, ":", 1);
  at = put_number(at, status.st_ino);
  return put_text(at, "", 1);
}

BARE void put32(size_t at, size_t value) {
  for (int i = 0; i < 4; i++) frame[at + (size_t)i] = (char)(value >> (24 - 8 * i));
}

// Its bytes; 0 when it does not fit.
BARE size_t make_frame(char **variables) {
  size_t at = HEADER_BYTES;
  at = put_text(at, "client.pid=", 11);
  at = put_number(at, (unsigned long)call3(SYS_getpid, 0, 0, 0));
  at = put_text(at, "", 1);
  at = put_namespace(at, "client.netns=", "/proc/self/ns/net");
  const char *netns = find_variable(variables, "CNI_NETNS");
  if (*netns != 0) at = put_namespace(at, "cni.netns=", netns);
  for (char **entry = variables; *entry != 0; entry++) {
    if (begins(*entry, "CNI_")) at = put_text(at, *entry, length(*entry) + 1);
  }
  const size_t environment = at - HEADER_BYTES;
  at = put_text(at, early.input, early.input_bytes);
  if (at > sizeof frame) return 0;
  copy(frame, "TCN1", 4);
  put32(4, environment);
  put32(8, early.input_bytes);
  return at;
}

// ---- the daemon

// Like dial() of daemon.c; -1 for anything but a daemon that may be asked.
BARE int dial(void) {
  struct sockaddr_un address;
  clear(&address, sizeof address);
  address.sun_family = AF_UNIX;
  copy(address.sun_path, early.path, length(early.path) + 1);
  const int fd = (int)call3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  struct ucred peer;
  unsigned bytes = sizeof peer;
  const bool good = call3(SYS_connect, fd, (long)&address, sizeof address) == 0 &&
                    call6(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&bytes, 0) == 0 &&
                    (peer.uid == 0 || peer.uid == (unsigned)call3(SYS_geteuid, 0, 0, 0));
  if (good) return fd;
  call3(SYS_close, fd, 0, 0);
  return -1;
}

BARE bool is_complete(char **variables) {
  const char *command = find_variable(variables, "CNI_COMMAND");
  const bool plugs = same(command, "ADD") || same(command, "CHECK");
  if (!plugs && !same(command, "DEL")) return false;
  if (plugs && *find_variable(variables, "CNI_NETNS") == 0) return false;
  return *find_variable(variables, "CNI_CONTAINERID") != 0 && *find_variable(variables, "CNI_IFNAME") != 0;
}

// `stack` is as the kernel left it: the number of arguments, the arguments, a null, the variables, a null.
__attribute__((used)) BARE void early_main(char **stack) {
  char **variables = stack + *(long *)stack + 2;
  if (!is_complete(variables) || !read_all() || !find_socket(early.path, sizeof ((struct sockaddr_un *)0)->sun_path)) return;
  const size_t bytes = make_frame(variables);
  const int fd = bytes == 0 ? -1 : dial();
  if (fd < 0) return;
  if (call6(SYS_sendto, fd, (long)frame, (long)bytes, MSG_NOSIGNAL, 0, 0) == (long)bytes) early.socket = fd;
  else call3(SYS_close, fd, 0, 0); // half a request is none
}

// The stack is aligned as a call expects it, rdx (a function to be called at exit, or 0) is kept for _start.
__asm__(".text\n"
        ".globl early_start\n"
        ".type early_start, @function\n"
        "early_start:\n"
        "  mov %rsp, %rdi\n"
        "  push %rdx\n"
        "  sub $8, %rsp\n"
        "  call early_main\n"
        "  add $8, %rsp\n"
        "  pop %rdx\n"
        "  jmp _start\n");

#endif
