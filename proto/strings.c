/* The string table of a profile, kept in wire form. Used by the builder for every text that it is given.
 * Context: any normal context; single-threaded. */
#include "proto/strings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    STRING_TABLE_TAG = 6 << 3 | 2, /* Profile.string_table, length-delimited */
};

struct stile__string_entry {
    size_t offset, length; /* into wire */
};

struct text_key {
    const struct stile__strings *strings;
    const char *text;
    size_t length;
};

static bool text_equal(const void *context, uint64_t id)
{
    const struct text_key *key = context;
    const struct stile__string_entry *e = &key->strings->entries[id];

    return e->length == key->length && !memcmp(key->strings->wire.data + e->offset, key->text, key->length);
}

/* The length of the UTF-8 sequence at p, 0 if there is none. p is NUL-terminated, so no byte behind the
 * terminator is looked at: NUL is no continuation byte. */
static size_t utf8_length(const uint8_t *p)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t code;
    size_t n;

    if (p[0] < 0x80)
        return 1;
    n = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc0 || p[0] >= 0xf8)
        return 0;
    code = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < smallest[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0;
    return n;
}

static bool is_utf8(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;

    for (size_t n; *p; p += n) {
        n = utf8_length(p);
        if (!n)
            return false;
    }
    return true;
}

/* A copy in which every byte outside UTF-8 is replaced; to be freed. */
static char *utf8_repaired(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    char *copy = malloc(strlen(text) * 3 + 1), *out = copy;

    if (!copy)
        return NULL;
    while (*p) {
        size_t n = utf8_length(p);

        memcpy(out, n ? (const char *)p : "\xef\xbf\xbd", n ? n : 3);
        out += n ? n : 3;
        p += n ? n : 1;
    }
    *out = '\0';
    return copy;
}

static int intern_utf8(struct stile__strings *s, const char *text, int64_t *index)
{
    struct text_key key = {s, text, strlen(text)};
    uint64_t hash = stile__hash_bytes(text, key.length);
    uint64_t id;

    if (stile__id_table_find(&s->table, hash, text_equal, &key, &id)) {
        *index = (int64_t)id;
        return 0;
    }
    if (stile__array_grow(&s->entries, &s->capacity, s->count, sizeof(*s->entries)) ||
        stile__id_table_reserve(&s->table) || stile__buffer_reserve(&s->wire, key.length + 11))
        return -ENOMEM;
    /* Nothing below can fail: there is room. */
    stile__buffer_varint_append(&s->wire, STRING_TABLE_TAG);
    stile__buffer_varint_append(&s->wire, key.length);
    s->entries[s->count].offset = s->wire.size;
    s->entries[s->count].length = key.length;
    stile__buffer_append(&s->wire, text, key.length);
    stile__id_table_add(&s->table, hash, s->count);
    *index = (int64_t)s->count++;
    return 0;
}

int stile__strings_intern(struct stile__strings *s, const char *text, int64_t *index)
{
    char *repaired;
    int err;

    if (!text)
        text = "";
    if (is_utf8(text))
        return intern_utf8(s, text, index);
    repaired = utf8_repaired(text);
    if (!repaired)
        return -ENOMEM;
    err = intern_utf8(s, repaired, index);
    free(repaired);
    return err;
}

int stile__strings_init(struct stile__strings *s)
{
    int64_t zero;

    return stile__strings_intern(s, "", &zero);
}

void stile__strings_free(struct stile__strings *s)
{
    stile__buffer_free(&s->wire);
    free(s->entries);
    stile__id_table_free(&s->table);
    memset(s, 0, sizeof(*s));
}
