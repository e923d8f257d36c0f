// Arenas: memory of JavaScript that the hot calls address by byte offsets.
//
// An offset comes from JavaScript and may be anything, and the memory may be shared with another thread that rewrites it
// while we look. So nothing is a pointer until arena_holds() said yes, with 64-bit arithmetic that 32-bit inputs cannot
// overflow, and every word of a record is read once.
#include "sys.h"

Arena *arena_of(State *state, int32_t id) {
  if (id < 0 || id >= ARENAS || state->arenas[id].view == NULL) return NULL;
  Arena *arena = &state->arenas[id];
  if (!arena->movable) return arena;
  napi_value view;
  size_t bytes;
  void *base;
  if (napi_get_reference_value(state->env, arena->view, &view) != napi_ok || view == NULL) return NULL;
  if (napi_get_typedarray_info(state->env, view, NULL, &bytes, &base, NULL, NULL) != napi_ok) return NULL;
  if (base == NULL || bytes == 0) return NULL;
  arena->base = base;
  arena->bytes = (int64_t)bytes;
  return arena;
}

// Whether count places of `bytes` bytes, `stride` apart, lie in the arena. No place (count 0) needs no room.
bool arena_holds(const Arena *arena, int64_t offset, int64_t count, int64_t stride, int64_t bytes) {
  if (offset < 0 || count < 0 || stride < 0 || bytes < 0) return false;
  if (count == 0) return true;
  return offset + (count - 1) * stride + bytes <= arena->bytes;
}

// Reads `count` iovec records (offset, length) from the table. 0, -EINVAL for a bad count, -EFAULT for a bad place.
int arena_iovs(const Arena *arena, int64_t table, int32_t first, int32_t count, struct iovec *iovs) {
  if (count < 1 || count > PACKET_IOVS || first < 0) return -EINVAL;
  int64_t start = table + (int64_t)first * 8;
  if (!arena_holds(arena, start, count, 8, 8)) return -EFAULT;
  const uint8_t *record = arena->base + start;
  for (int32_t i = 0; i < count; i++, record += 8) {
    int32_t offset = load_word(record);
    int32_t bytes = load_word(record + 4);
    if (!arena_holds(arena, offset, 1, 0, bytes)) return -EFAULT;
    iovs[i] = (struct iovec){.iov_base = arena->base + offset, .iov_len = (size_t)bytes};
  }
  return 0;
}

// registerArena(view: Uint8Array, movable: 0 | 1): id
EXPORT(sys_register_arena) {
  Call call;
  call_read(env, info, &call);
  uint8_t *base;
  size_t bytes;
  int32_t movable;
  if (!call_bytes(&call, 0, &base, &bytes) || !call_integer(&call, 1, &movable) || bytes == 0 || bytes > INT32_MAX)
    return result(env, fail(call.state, "registerArena", EINVAL));
  if (((uintptr_t)base & 3) != 0) return result(env, fail(call.state, "registerArena", EINVAL));
  for (int32_t id = 0; id < ARENAS; id++) {
    Arena *arena = &call.state->arenas[id];
    if (arena->view != NULL) continue;
    napi_ref view;
    if (napi_create_reference(env, call.values[0], 1, &view) != napi_ok)
      return result(env, fail(call.state, "registerArena", ENOMEM));
    *arena = (Arena){.base = base, .bytes = (int64_t)bytes, .view = view, .movable = movable != 0};
    return result(env, id);
  }
  return result(env, fail(call.state, "registerArena", EMFILE));
}

EXPORT(sys_unregister_arena) {
  State *state = NULL;
  int32_t id;
  if (!call_integers(env, info, 1, &state, &id) || id < 0 || id >= ARENAS || state->arenas[id].view == NULL)
    return result(env, fail(state, "unregisterArena", EINVAL));
  napi_delete_reference(env, state->arenas[id].view);
  state->arenas[id] = (Arena){0};
  return result(env, 0);
}

// The ones' complement sum of the bytes as 16-bit words in the machine's order. Wide adds and a late fold give the same
// sum as the RFC's 16-bit adds (RFC 1071 section 2); four accumulators let the adds overlap.
static uint64_t sum_words(const uint8_t *at, size_t bytes) {
  uint64_t sums[4] = {0, 0, 0, 0};
  for (; bytes >= 16; at += 16, bytes -= 16) {
    uint32_t words[4];
    memcpy(words, at, 16);
    for (int i = 0; i < 4; i++) sums[i] += words[i];
  }
  uint64_t sum = sums[0] + sums[1] + sums[2] + sums[3];
  for (; bytes >= 2; at += 2, bytes -= 2) {
    uint16_t word;
    memcpy(&word, at, 2);
    sum += word;
  }
  if (bytes == 1) {
    uint8_t last[2] = {*at, 0}; // an odd byte is the high half of its word, in any order
    uint16_t word;
    memcpy(&word, last, 2);
    sum += word;
  }
  return sum;
}

static uint32_t fold(uint64_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint32_t)sum;
}

// checksum(arena, offset, length, initial): the folded sum as big-endian words, not inverted.
EXPORT(sys_checksum) {
  State *state;
  int32_t in[4];
  if (!call_integers(env, info, 4, &state, in)) return result(env, -EINVAL);
  Arena *arena = arena_of(state, in[0]);
  if (arena == NULL) return result(env, -EINVAL);
  if (!arena_holds(arena, in[1], 1, 0, in[2])) return result(env, -EFAULT);
  uint32_t sum = fold(sum_words(arena->base + in[1], (size_t)in[2]));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  sum = (sum >> 8) | ((sum & 0xff) << 8); // the sum of swapped words is the swapped sum (RFC 1071 section 2 (B))
#endif
  return result(env, (int32_t)fold((uint64_t)sum + (uint32_t)in[3]));
}
