/* Reads nested JSON by recursive descent: `deep_json DEPTH ROUNDS`. Each level of the text has some numbers and texts
 * besides the next one. A text with few levels comes first, so that the code is known to a profiler before stacks are
 * deep. */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

#define SHORT_DEPTH 20
#define SHORT_NS    (400ull * MS)
#define LEVEL_BYTES 512 /* more than a level of the text has */
#define NUMBERS     24  /* on a level */

struct reader {
    const char *at;
    uint64_t sum; /* of all that is in the text */
    bool ok;
};

static void value_read(struct reader *r);

static void space_skip(struct reader *r)
{
    while (isspace((unsigned char)*r->at))
        r->at++;
}

static bool take(struct reader *r, char c)
{
    space_skip(r);
    if (*r->at != c)
        return false;
    r->at++;
    return true;
}

static void expect(struct reader *r, char c)
{
    if (!take(r, c))
        r->ok = false;
}

static void text_read(struct reader *r)
{
    expect(r, '"');
    while (r->ok && *r->at != '"') {
        if (*r->at == '\\')
            r->at++;
        if (*r->at == '\0') {
            r->ok = false;
            return;
        }
        r->sum = r->sum * 31 + (unsigned char)*r->at++;
    }
    expect(r, '"');
}

static void number_read(struct reader *r)
{
    char *end;
    double value = strtod(r->at, &end);
    if (end == r->at)
        r->ok = false;
    r->at = end;
    r->sum = r->sum * 31 + (uint64_t)value;
}

WORK static void array_read(struct reader *r)
{
    expect(r, '[');
    if (take(r, ']'))
        return;
    do
        value_read(r);
    while (r->ok && take(r, ','));
    expect(r, ']');
}

WORK static void object_read(struct reader *r)
{
    expect(r, '{');
    if (take(r, '}'))
        return;
    do {
        space_skip(r);
        text_read(r);
        expect(r, ':');
        value_read(r);
    } while (r->ok && take(r, ','));
    expect(r, '}');
}

WORK static void value_read(struct reader *r)
{
    space_skip(r);
    if (!r->ok)
        return;
    if (*r->at == '[')
        array_read(r);
    else if (*r->at == '{')
        object_read(r);
    else if (*r->at == '"')
        text_read(r);
    else
        number_read(r);
    r->sum++; /* not the last thing done */
}

/* So many levels, arrays and objects in turn. To be freed. */
static char *text_make(unsigned depth)
{
    char *text = malloc((size_t)depth * LEVEL_BYTES + 1), *at = text;
    if (text == NULL)
        abort();
    for (unsigned i = 0; i < depth; i++) {
        bool object = i % 2 != 0;
        at += sprintf(at, object ? "{\"name\": \"level \\\"%u\\\"\", " : "[\"level %u\", ", i);
        for (unsigned k = 0; k < NUMBERS; k++)
            at += object ? sprintf(at, "\"n%u\": %u, ", k, i + k) : sprintf(at, "%u.%u, ", i + k, k);
        at += sprintf(at, object ? "\"more\": " : "\n");
    }
    at += sprintf(at, "0");
    for (unsigned i = depth; i-- > 0;)
        *at++ = i % 2 != 0 ? '}' : ']';
    *at = '\0';
    return text;
}

static uint64_t text_parse(const char *text)
{
    struct reader r = {.at = text, .ok = true};
    value_read(&r);
    if (!r.ok || *r.at != '\0')
        abort();
    return r.sum;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    char *brief = text_make(SHORT_DEPTH), *text = text_make((unsigned)strtoul(argv[1], NULL, 10));
    uint64_t sum = 0;
    for (uint64_t start = thread_cpu_ns(); thread_cpu_ns() - start < SHORT_NS;)
        if (text_parse(brief) == 0)
            return 1;
    for (int i = 0; i < atoi(argv[2]); i++)
        sum += text_parse(text);
    printf("%llu\n", (unsigned long long)sum);
    free(brief);
    free(text);
    return 0;
}
