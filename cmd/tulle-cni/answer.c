// What goes to stdout: nothing but one JSON object.
#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const versions[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST_VERSION};
enum { VERSIONS = sizeof versions / sizeof versions[0] };

bool write_all(int fd, const char *bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = write(fd, bytes, count);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes += written;
    count -= (size_t)written;
  }
  return true;
}

bool supported_version(const char *version) {
  for (size_t i = 0; i < VERSIONS; i++) {
    if (strcmp(version, versions[i]) == 0) return true;
  }
  return false;
}

const char *spoken_version(const Run *run) {
  const Field *field = &run->fields[FIELD_VERSION];
  if (field->kind == FIELD_ABSENT || (field->kind == FIELD_TEXT && field->bytes == 0)) return OLDEST_VERSION;
  return field->kind == FIELD_TEXT && strlen(field->value) == field->bytes ? field->value : "";
}

// Of text that is cut to fit; the escapes that JSON demands, no more. Returns the bytes written.
static size_t escape(char *into, size_t capacity, const char *text) {
  size_t count = 0;
  for (; *text != 0 && count + 7 < capacity; text++) {
    const unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') {
      into[count++] = '\\';
      into[count++] = (char)c;
    } else if (c < 0x20) {
      count += (size_t)snprintf(into + count, 7, "\\u%04x", c);
    } else {
      into[count++] = (char)c;
    }
  }
  into[count] = 0;
  return count;
}

int answer_error(const Run *run, int code, const char *format, ...) {
  char message[1024], escaped[sizeof message * 6 + 8], out[sizeof escaped + 128];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  escape(escaped, sizeof escaped, message);
  const char *version = spoken_version(run);
  const int bytes = snprintf(out, sizeof out, "{\n    \"cniVersion\": \"%s\",\n    \"code\": %d,\n    \"msg\": \"%s\"\n}\n",
                             supported_version(version) ? version : NEWEST_VERSION, code, escaped);
  write_all(STDOUT_FILENO, out, (size_t)bytes);
  return 1;
}

int answer_versions(const Run *run) {
  const Field *asked = &run->fields[FIELD_VERSION];
  char escaped[MAX_VALUE * 6 + 8] = NEWEST_VERSION, out[sizeof escaped + 256];
  if (asked->kind == FIELD_TEXT && asked->bytes > 0) escape(escaped, sizeof escaped, asked->value);
  size_t bytes = (size_t)snprintf(out, sizeof out, "{\n    \"cniVersion\": \"%s\",\n    \"supportedVersions\": [", escaped);
  for (size_t i = 0; i < VERSIONS; i++) {
    bytes += (size_t)snprintf(out + bytes, sizeof out - bytes, "%s\"%s\"", i == 0 ? "" : ", ", versions[i]);
  }
  bytes += (size_t)snprintf(out + bytes, sizeof out - bytes, "]\n}\n");
  return write_all(STDOUT_FILENO, out, bytes) ? 0 : 1;
}

int about(void) {
  char out[512];
  size_t bytes = (size_t)snprintf(out, sizeof out, "CNI plugin tulle-cni " TULLE_VERSION ": plugs pods into the overlay of tulled\nCNI protocol versions supported: ");
  for (size_t i = 0; i < VERSIONS; i++) {
    bytes += (size_t)snprintf(out + bytes, sizeof out - bytes, "%s%s", i == 0 ? "" : ", ", versions[i]);
  }
  out[bytes++] = '\n';
  write_all(STDERR_FILENO, out, bytes);
  return 0;
}
