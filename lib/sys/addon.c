// The addon's door: the table of exports, the state of an environment, arguments and results.
//
// N-API only, so one binary serves every Node.js from 20 on. The file is linked with -z nodelete: when the last worker
// that loaded it ends, Node would unmap the code under threads that are just about to return from it.
#include "sys.h"
#include <stdlib.h>
#include <time.h>

napi_value result(napi_env env, int32_t value) {
  napi_value number = NULL;
  napi_create_int32(env, value, &number);
  return number;
}

int32_t fail(State *state, const char *step, int error) {
  if (state != NULL) state->step = step;
  return -error;
}

// All arguments of a hot call. False when one is missing or not a number.
bool call_integers(napi_env env, napi_callback_info info, size_t count, State **state, int32_t *out) {
  napi_value values[MAX_ARGUMENTS];
  size_t given = MAX_ARGUMENTS;
  void *data = NULL;
  if (napi_get_cb_info(env, info, &given, values, NULL, &data) != napi_ok) return false;
  *state = data;
  if (given < count) return false;
  for (size_t i = 0; i < count; i++) {
    if (napi_get_value_int32(env, values[i], &out[i]) != napi_ok) return false;
  }
  return true;
}

void call_read(napi_env env, napi_callback_info info, Call *call) {
  void *data = NULL;
  *call = (Call){.env = env, .count = MAX_ARGUMENTS};
  if (napi_get_cb_info(env, info, &call->count, call->values, NULL, &data) != napi_ok) call->count = 0;
  call->state = data;
}

bool call_integer(const Call *call, size_t index, int32_t *out) {
  return index < call->count && napi_get_value_int32(call->env, call->values[index], out) == napi_ok;
}

bool call_text(const Call *call, size_t index, char *out, size_t bytes) {
  size_t needed, length;
  if (index >= call->count) return false;
  if (napi_get_value_string_utf8(call->env, call->values[index], NULL, 0, &needed) != napi_ok) return false;
  if (needed >= bytes) return false;
  if (napi_get_value_string_utf8(call->env, call->values[index], out, bytes, &length) != napi_ok) return false;
  memset(out + length, 0, bytes - length);
  return strlen(out) == length;
}

bool call_bytes(const Call *call, size_t index, uint8_t **data, size_t *bytes) {
  bool typed = false;
  napi_typedarray_type type;
  void *base = NULL;
  if (index >= call->count || napi_is_typedarray(call->env, call->values[index], &typed) != napi_ok || !typed)
    return false;
  if (napi_get_typedarray_info(call->env, call->values[index], &type, bytes, &base, NULL, NULL) != napi_ok) return false;
  if (type != napi_uint8_array) return false;
  if (base == NULL) *bytes = 0;
  *data = base;
  return true;
}

// errorStep(): which step of the last failed call failed
static EXPORT(sys_error_step) {
  Call call;
  call_read(env, info, &call);
  napi_value text = NULL;
  napi_create_string_utf8(env, call.state->step == NULL ? "" : call.state->step, NAPI_AUTO_LENGTH, &text);
  return text;
}

// monotonicMs(): milliseconds since boot, time asleep included
static EXPORT(sys_monotonic_ms) {
  (void)info;
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  napi_value number = NULL;
  napi_create_double(env, (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6, &number);
  return number;
}

static EXPORT(sys_version) {
  (void)info;
  return result(env, TULLE_ADDON_VERSION);
}

static const struct {
  const char *name;
  napi_callback call;
} exports_table[] = {
    {"version", sys_version},
    {"errorStep", sys_error_step},
    {"monotonicMs", sys_monotonic_ms},
    {"close", sys_close},
    {"keep", sys_keep},
    {"handleCount", sys_handle_count},
    {"registerArena", sys_register_arena},
    {"unregisterArena", sys_unregister_arena},
    {"checksum", sys_checksum},
    {"openTun", sys_open_tun},
    {"tunName", sys_tun_name},
    {"setTunOffloads", sys_set_tun_offloads},
    {"readTun", sys_read_tun},
    {"writeTun", sys_write_tun},
    {"openUdp", sys_open_udp},
    {"setUdpGro", sys_set_udp_gro},
    {"probeUdpTrains", sys_probe_udp_trains},
    {"localAddress", sys_local_address},
    {"encodeAddress", sys_encode_address},
    {"sendUdp", sys_send_udp},
    {"receiveUdp", sys_receive_udp},
    {"openEventFd", sys_open_event_fd},
    {"wake", sys_wake},
    {"drain", sys_drain},
    {"poll", sys_poll},
    {"pollReadable", sys_poll_readable},
    {"stopPolling", sys_stop_polling},
    {"openNetlink", sys_open_netlink},
    {"netlinkSend", sys_netlink_send},
    {"netlinkSendAside", sys_netlink_send_aside},
    {"netlinkReceive", sys_netlink_receive},
    {"netlinkExchange", sys_netlink_exchange},
    {"netlinkLinkIndex", sys_netlink_link_index},
    {"openRaw", sys_open_raw},
    {"rawSend", sys_raw_send},
    {"rawReceive", sys_raw_receive},
    {"openPacket", sys_open_packet},
    {"packetDrops", sys_packet_drops},
    {"createNamespace", sys_create_namespace},
    {"removeNamespace", sys_remove_namespace},
    {"withNamespace", sys_with_namespace},
    {"flockOpen", sys_flock_open},
    {"peerCredentials", sys_peer_credentials},
    {"sendUnix", sys_send_unix},
};

static void environment_ends(void *data) {
  State *state = data;
  handle_close_owned(state);
  forget_watched(state);
  waker_remove(&state->waker);
}

static void free_state(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  free(data);
}

NAPI_MODULE_INIT() {
  State *state = calloc(1, sizeof *state);
  if (state == NULL) return NULL;
  state->env = env;
  state->watching = -1;
  if (waker_add(&state->waker) < 0) {
    free(state);
    napi_throw_error(env, "EMFILE", "tulle's addon could not make an eventfd: too many open files");
    return NULL;
  }
  napi_add_env_cleanup_hook(env, environment_ends, state);
  napi_set_instance_data(env, state, free_state, NULL);
  for (size_t i = 0; i < sizeof exports_table / sizeof exports_table[0]; i++) {
    napi_value call;
    const char *name = exports_table[i].name;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, exports_table[i].call, state, &call) != napi_ok) return NULL;
    if (napi_set_named_property(env, exports, name, call) != napi_ok) return NULL;
  }
  return exports;
}
