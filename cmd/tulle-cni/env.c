// CNI's environment: SPEC.md section 2 ("Parameters"), and the rules for names of libcni's pkg/utils.
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *variable(const char *name) {
  const char *value = getenv(name);
  return value == NULL ? "" : value;
}

static const struct {
  const char *command;
  const char *required[4];
} commands[] = {
  {"ADD", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}},
  {"CHECK", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}},
  {"DEL", {"CNI_CONTAINERID", "CNI_IFNAME"}},
  {"GC", {"CNI_PATH"}},
  {"STATUS", {NULL}},
  {"VERSION", {NULL}},
};

bool env_check(const Run *run) {
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
    if (strcmp(commands[i].command, run->command) != 0) continue;
    char missing[128] = "";
    for (size_t j = 0; j < 4 && commands[i].required[j] != NULL; j++) {
      if (variable(commands[i].required[j])[0] != 0) continue;
      if (missing[0] != 0) strcat(missing, ",");
      strcat(missing, commands[i].required[j]); // all of them together are shorter than the buffer
    }
    if (missing[0] == 0) return true;
    answer_error(run, CODE_ENVIRONMENT, "required env variables [%s] missing", missing);
    return false;
  }
  answer_error(run, CODE_ENVIRONMENT, "unknown CNI_COMMAND: %s", run->command);
  return false;
}

// ^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$
static bool valid_id(const char *text, size_t bytes) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  if (bytes == 0 || strchr("_.-", text[0]) != NULL) return false;
  for (size_t i = 0; i < bytes; i++) {
    if (text[i] == 0 || strchr(letters, text[i]) == NULL) return false;
  }
  return true;
}

static const char *interface_problem(const char *name) {
  if (strlen(name) > 15) return "interface name is too long";
  if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return "interface name is . or ..";
  if (strpbrk(name, "/: \t\n\v\f\r") != NULL) return "interface name contains / or : or whitespace characters";
  return NULL;
}

bool names_check(const Run *run) {
  const Field *name = &run->fields[FIELD_NAME];
  const char *id = variable("CNI_CONTAINERID"), *ifname = variable("CNI_IFNAME");
  if (name->kind == FIELD_ABSENT || (name->kind == FIELD_TEXT && name->bytes == 0)) {
    answer_error(run, CODE_CONFIG, "missing network name: name");
  } else if (name->kind == FIELD_OTHER) {
    answer_error(run, CODE_DECODE, "name: it must be a string");
  } else if (name->kind == FIELD_LONG || !valid_id(name->value, name->bytes)) {
    answer_error(run, CODE_CONFIG, "invalid characters found in network name: name \"%s\"", name->value);
  } else if (!valid_id(id, strlen(id))) {
    answer_error(run, CODE_ENVIRONMENT, "invalid characters in containerID: CNI_CONTAINERID \"%.256s\"", id);
  } else if (interface_problem(ifname) != NULL) {
    answer_error(run, CODE_ENVIRONMENT, "%s: CNI_IFNAME \"%.64s\"", interface_problem(ifname), ifname);
  } else if (!supported_version(spoken_version(run))) {
    answer_error(run, CODE_VERSION, "incompatible CNI versions: cniVersion \"%s\"", run->fields[FIELD_VERSION].value);
  } else {
    return true;
  }
  return false;
}
