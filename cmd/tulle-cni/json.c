// A strict reader of JSON that keeps nothing but a few top-level strings. No recursion and no allocation: what is open
// is one bit a level. It accepts exactly what JSON.parse accepts, up to MAX_DEPTH; test/cmd/tulle-cni-json.test.ts
// compares the two.
#include "client.h"

#include <string.h>
#include <strings.h>

typedef struct {
  const char *at;
  const char *end;
} Reader;

// A decoded string: bytes beyond the capacity are counted and dropped.
typedef struct {
  char *into;
  size_t capacity;
  size_t bytes;
} Text;

static void put(Text *text, unsigned byte) {
  if (text == NULL) return;
  if (text->bytes < text->capacity) text->into[text->bytes] = (char)byte;
  text->bytes++;
}

static void put_rune(Text *text, uint32_t rune) {
  if (rune < 0x80) {
    put(text, rune);
  } else if (rune < 0x800) {
    put(text, 0xC0 | rune >> 6);
    put(text, 0x80 | (rune & 0x3F));
  } else if (rune < 0x10000) {
    put(text, 0xE0 | rune >> 12);
    put(text, 0x80 | (rune >> 6 & 0x3F));
    put(text, 0x80 | (rune & 0x3F));
  } else {
    put(text, 0xF0 | rune >> 18);
    put(text, 0x80 | (rune >> 12 & 0x3F));
    put(text, 0x80 | (rune >> 6 & 0x3F));
    put(text, 0x80 | (rune & 0x3F));
  }
}

static void skip_space(Reader *reader) {
  while (reader->at < reader->end && memchr(" \t\n\r", *reader->at, 4) != NULL) reader->at++;
}

static bool take(Reader *reader, char wanted) {
  if (reader->at == reader->end || *reader->at != wanted) return false;
  reader->at++;
  return true;
}

static bool hex4(Reader *reader, uint32_t *value) {
  *value = 0;
  for (int i = 0; i < 4; i++, reader->at++) {
    if (reader->at == reader->end) return false;
    const char c = *reader->at;
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return false;
    *value = *value << 4 | (uint32_t)digit;
  }
  return true;
}

// After "\u". Half of a surrogate pair without the other half becomes U+FFFD, as in Go and in Node's UTF-8.
static bool take_unicode(Reader *reader, Text *text) {
  uint32_t rune;
  if (!hex4(reader, &rune)) return false;
  if (rune >= 0xD800 && rune < 0xDC00 && reader->end - reader->at >= 2 && reader->at[0] == '\\' && reader->at[1] == 'u') {
    Reader ahead = {reader->at + 2, reader->end};
    uint32_t low;
    if (hex4(&ahead, &low) && low >= 0xDC00 && low < 0xE000) {
      *reader = ahead;
      rune = 0x10000 + ((rune - 0xD800) << 10) + (low - 0xDC00);
    }
  }
  put_rune(text, rune >= 0xD800 && rune < 0xE000 ? 0xFFFD : rune);
  return true;
}

// After the opening quote.
static bool take_string(Reader *reader, Text *text) {
  while (reader->at < reader->end) {
    const unsigned char c = (unsigned char)*reader->at;
    if (c < 0x20) return false;
    reader->at++;
    if (c == '"') return true;
    if (c != '\\') {
      put(text, c);
      continue;
    }
    if (reader->at == reader->end) return false;
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *escape = memchr(escapes, *reader->at, sizeof escapes - 1);
    if (escape != NULL) {
      put(text, (unsigned char)meanings[escape - escapes]);
      reader->at++;
    } else if (*reader->at == 'u') {
      reader->at++;
      if (!take_unicode(reader, text)) return false;
    } else {
      return false;
    }
  }
  return false;
}

static bool take_digits(Reader *reader) {
  const char *first = reader->at;
  while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') reader->at++;
  return reader->at > first;
}

static bool take_number(Reader *reader) {
  take(reader, '-');
  if (!take(reader, '0') && !take_digits(reader)) return false;
  if (take(reader, '.') && !take_digits(reader)) return false;
  if (take(reader, 'e') || take(reader, 'E')) {
    if (!take(reader, '+')) take(reader, '-');
    return take_digits(reader);
  }
  return true;
}

static bool take_word(Reader *reader, const char *word) {
  const size_t bytes = strlen(word);
  if ((size_t)(reader->end - reader->at) < bytes || memcmp(reader->at, word, bytes) != 0) return false;
  reader->at += bytes;
  return true;
}

// Any value that holds no other; a string goes into `text`. Returns its first byte, 0 for none.
static char take_scalar(Reader *reader, Text *text) {
  if (reader->at == reader->end) return 0;
  const char first = *reader->at;
  bool good;
  if (first == '"') {
    reader->at++;
    good = take_string(reader, text);
  } else if (first == 't') {
    good = take_word(reader, "true");
  } else if (first == 'f') {
    good = take_word(reader, "false");
  } else if (first == 'n') {
    good = take_word(reader, "null");
  } else {
    good = take_number(reader);
  }
  return good ? first : 0;
}

static Field *find(Field *fields, size_t count, const char *key, size_t bytes) {
  for (size_t i = 0; i < count; i++) {
    if (strlen(fields[i].key) == bytes && strncasecmp(fields[i].key, key, bytes) == 0) return &fields[i];
  }
  return NULL;
}

static void keep(Field *field, char first, const Text *text) {
  if (first == 'n') return;
  field->kind = first != '"' ? FIELD_OTHER : text->bytes > text->capacity ? FIELD_LONG : FIELD_TEXT;
  field->bytes = field->kind == FIELD_TEXT ? text->bytes : 0;
  if (field->kind == FIELD_TEXT) memcpy(field->value, text->into, text->bytes);
  field->value[field->bytes] = 0;
}

ptrdiff_t json_scan(const char *text, size_t bytes, Field *fields, size_t count) {
  Reader reader = {text, text + bytes};
  bool is_object[MAX_DEPTH];
  size_t depth = 0;
  Field *field = NULL; // the wanted key that we stand behind
  for (size_t i = 0; i < count; i++) fields[i].kind = FIELD_ABSENT, fields[i].bytes = 0, fields[i].value[0] = 0;

  skip_space(&reader);
  if (reader.at == reader.end || *reader.at != '{') return reader.at - text;
  for (;;) {
    // A value begins here.
    skip_space(&reader);
    const char opening = reader.at < reader.end ? *reader.at : 0;
    if (opening == '{' || opening == '[') {
      if (depth == MAX_DEPTH) return reader.at - text;
      if (field != NULL) keep(field, opening, NULL);
      field = NULL;
      is_object[depth++] = opening == '{';
      reader.at++;
      skip_space(&reader);
      if (!take(&reader, opening == '{' ? '}' : ']')) goto key;
      depth--;
    } else {
      char value[MAX_VALUE];
      Text decoded = {value, sizeof value - 1, 0};
      const char first = take_scalar(&reader, field == NULL ? NULL : &decoded);
      if (first == 0) return reader.at - text;
      if (field != NULL) keep(field, first, &decoded);
      field = NULL;
    }
    // A value has ended here.
    for (;;) {
      skip_space(&reader);
      if (depth == 0) return reader.at == reader.end ? -1 : reader.at - text;
      if (take(&reader, ',')) break;
      if (!take(&reader, is_object[depth - 1] ? '}' : ']')) return reader.at - text;
      depth--;
    }
    skip_space(&reader);
  key:
    if (is_object[depth - 1]) {
      char name[32];
      Text decoded = {name, sizeof name, 0};
      if (!take(&reader, '"') || !take_string(&reader, &decoded)) return reader.at - text;
      if (depth == 1 && decoded.bytes <= sizeof name) field = find(fields, count, name, decoded.bytes);
      skip_space(&reader);
      if (!take(&reader, ':')) return reader.at - text;
    }
  }
}
