/* C++ and Rust names, through libiberty. Called by the symbolizer once per distinct name.
 * Context: any normal context. Names come from files that nobody vouches for: time, stack and output are bounded. */
#include "proto/demangle.h"

#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

enum {
    /* libiberty takes stack in proportion to the name's length. */
    NAME_MOST = 8 * 1024,
    /* Its own limit stops at 1 KiB, which long template names exceed; below this it is safe to lift. */
    UNLIMITED_MOST = 4 * 1024,
};

struct output {
    char *bytes;
    size_t used, size;
    jmp_buf full;
};

/* libiberty cannot be told to stop, and a name of 100 bytes can expand to gigabytes. Jumping out is safe: its
 * callback interfaces keep what they need on the stack (but for an identifier in punycode, which then leaks). */
static void put(const char *text, size_t length, void *opaque)
{
    struct output *out = opaque;

    if (length >= out->size - out->used)
        longjmp(out->full, 1);
    memcpy(out->bytes + out->used, text, length);
    out->used += length;
}

static bool has_prefix(const char *name, const char *prefix)
{
    return !strncmp(name, prefix, strlen(prefix));
}

/* Nonzero on success. Rust first: its old names are valid C++ names too, with the hash as a last component. */
static int demangle(const char *name, size_t length, struct output *output)
{
    int options = DMGL_PARAMS | DMGL_ANSI | (length <= UNLIMITED_MOST ? DMGL_NO_RECURSE_LIMIT : 0);

    if (rust_demangle_callback(name, DMGL_PARAMS, put, output))
        return 1;
    output->used = 0;
    return has_prefix(name, "_Z") && cplus_demangle_v3_callback(name, options, put, output);
}

size_t stile__demangle(const char *name, char *out, size_t size)
{
    struct output output = {.bytes = out, .size = size};
    size_t length = strlen(name);

    if (size == 0 || length > NAME_MOST || !(has_prefix(name, "_Z") || has_prefix(name, "_R")))
        return 0;
    if (setjmp(output.full) || !demangle(name, length, &output))
        return 0;
    out[output.used] = '\0';
    return output.used;
}
