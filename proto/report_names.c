/* Names the frames of a crash report. Context: forks of the collector, and the command line; single-threaded. */
#include "proto/report_names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/region/report.h"
#include "proto/demangle.h"
#include "proto/report_modules.h"
#include "proto/symbolizer.h"

enum { NAME_MOST = 2048 }; /* bytes of a function's or file's name that are shown */

struct line {
    const char *at;
    size_t n;      /* without what ends it: */
    size_t ending; /* bytes; 0 in a text that is cut */
};

struct stile__report_names {
    struct stile__report_way way;
    struct stile__symbolizer *symbolizer;
    struct stile__report_modules modules;
    int error;
    char demangled[NAME_MOST], mangled[NAME_MOST];
};

struct stile__report_names *stile__report_names_new(const struct stile__report_way *way,
                                                    const char *debug_root)
{
    struct stile__report_names *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->way = *way;
    r->symbolizer = stile__symbolizer_new();
    if (!r->symbolizer || (debug_root && stile__symbolizer_debug_root_set(r->symbolizer, debug_root))) {
        stile__report_names_free(r);
        return NULL;
    }
    return r;
}

void stile__report_names_free(struct stile__report_names *r)
{
    if (!r)
        return;
    stile__report_modules_free(&r->modules);
    stile__symbolizer_free(r->symbolizer);
    free(r);
}

static void put(struct stile__report_names *r, const char *bytes, size_t n)
{
    if (!r->error && n && !r->way.write(r->way.arg, bytes, n))
        r->error = -ECANCELED;
}

static void line_put(struct stile__report_names *r, const struct line *l)
{
    put(r, l->at, l->n + l->ending);
}

/* The next line of what is left. Logs that went through a terminal have carriage returns. */
static bool line_next(const char **at, const char *end, struct line *l)
{
    const char *newline, *next;

    if (*at == end)
        return false;
    newline = memchr(*at, '\n', (size_t)(end - *at));
    next = newline ? newline + 1 : end;
    l->at = *at;
    l->n = (size_t)((newline ? newline : end) - *at);
    if (newline && l->n && l->at[l->n - 1] == '\r')
        l->n--;
    l->ending = (size_t)(next - l->at) - l->n;
    *at = next;
    return true;
}

static bool starts(const struct line *l, const char *with)
{
    size_t n = strlen(with);

    return l->n >= n && !memcmp(l->at, with, n);
}

static bool is_modules(const struct line *l)
{
    return l->n + 1 == sizeof(STILE__REPORT_MODULES) - 1 && !memcmp(l->at, STILE__REPORT_MODULES, l->n);
}

/* A frame as the program writes it: `  #N 0xPC`, and perhaps ` PATH+0xOFFSET`, and what else it knows of it. */
struct frame {
    size_t number;  /* bytes of the line up to the address, which is a part of it */
    size_t address; /* bytes of the line up to its end */
    uint64_t pc;
    const char *place; /* PATH+0xOFFSET, n_place bytes; not terminated */
    size_t n_place;
};

/* Whether what follows the address is of the raw form: PATH+0xOFFSET at its end, or before a " (". What has a name already has
 * that in brackets. */
static bool place_parse(const struct line *l, struct frame *f)
{
    const char *at = l->at + f->address, *end = l->at + l->n, *plus;

    f->place = at;
    f->n_place = 0;
    if (at == end)
        return true;
    f->place = ++at; /* the blank */
    while ((plus = memmem(at, (size_t)(end - at), "+0x", 3))) {
        uint64_t offset;
        const char *after = stile__report_hex(plus + 1, end, &offset);
        if (after && (after == end || (end - after >= 2 && after[0] == ' ' && after[1] == '('))) {
            f->n_place = (size_t)(after - f->place);
            return true;
        }
        at = plus + 3;
    }
    return false;
}

static bool frame_parse(const struct line *l, struct frame *f)
{
    const char *at = l->at + 3, *end = l->at + l->n;

    if (!starts(l, "  #"))
        return false;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    if (at == l->at + 3 || at == end || *at != ' ')
        return false;
    f->number = (size_t)(at - l->at);
    at = stile__report_hex(at + 1, end, &f->pc);
    if (!at || (at < end && *at != ' '))
        return false;
    f->address = (size_t)(at - l->at);
    return place_parse(l, f);
}

/* What would break a line, in names that files have. */
static int clean(char *to, size_t size, const char *name)
{
    size_t n = 0;

    for (; name[n] && n + 1 < size; n++)
        to[n] = (unsigned char)name[n] < ' ' || name[n] == '\177' ? '?' : name[n];
    to[n] = '\0';
    return (int)n;
}

/* One line of a frame: in the end what the raw one has, or that it is inlined into the next. */
static void named_put(struct stile__report_names *r, const struct line *l, const struct frame *f,
                      const struct stile__symbol_frame *s, bool inlined)
{
    char name[NAME_MOST], file[NAME_MOST], out[2 * NAME_MOST + 64];
    int n;

    clean(name, sizeof(name), s->name);
    clean(file, sizeof(file), s->filename);
    put(r, l->at, f->address);
    if (file[0] && s->line)
        n = snprintf(out, sizeof(out), " %s at %s:%" PRId64, name, file, s->line);
    else
        n = snprintf(out, sizeof(out), " %s%s%s", name, file[0] ? " at " : "", file);
    put(r, out, (size_t)n);
    if (inlined)
        put(r, " (inlined)", 10);
    else if (f->n_place) {
        put(r, " (", 2);
        put(r, f->place, f->n_place);
        put(r, ")", 1);
    }
    put(r, l->ending > 1 ? "\r\n" : "\n", l->ending > 1 ? 2 : 1);
}

/* The file behind a module, looked for once. */
static void module_open(struct stile__report_names *r, struct stile__report_module *m)
{
    char text[NAME_MOST + 128], path[NAME_MOST];
    bool other = false;

    if (m->tried)
        return;
    m->tried = true;
    for (unsigned way = 0; way < r->way.ways && !m->symbols; way++) {
        int fd = r->way.open(r->way.arg, m->path, way);
        if (fd < 0)
            continue;
        m->symbols = stile__symbolizer_module_find(r->symbolizer, m->path, fd, m->id, m->id_size, &other);
        close(fd);
    }
    if (!m->symbols && !other)
        m->symbols = stile__symbolizer_module_find(r->symbolizer, m->path, -1, m->id, m->id_size, &other);
    if (m->symbols || !other)
        return;
    clean(path, sizeof(path), m->path);
    put(r, text,
        (size_t)snprintf(text, sizeof(text), "  (%s is another build: its frames have no names)\n", path));
}

static void frame_put(struct stile__report_names *r, const struct line *l, const struct frame *f)
{
    struct stile__report_module *m = stile__report_modules_find(&r->modules, f->pc);
    const struct stile__symbol_frame *frames = NULL;
    const char *known;
    size_t n = 0;

    if (m)
        module_open(r, m);
    if (m && m->symbols)
        n = stile__symbolizer_frames_linked(m->symbols, f->pc - m->bias, &frames);
    for (size_t i = 0; i < n; i++)
        named_put(r, l, f, &frames[i], i + 1 < n);
    if (n)
        return;
    known = r->way.name && (!m || !m->symbols) ? r->way.name(r->way.arg, f->pc) : NULL;
    if (known)
        named_put(r, l, f, &(struct stile__symbol_frame){.name = known, .filename = ""}, false);
    else
        line_put(r, l);
}

/* `exception: TYPE: what`, TYPE as the compiler mangles types. */
static bool exception_put(struct stile__report_names *r, const struct line *l)
{
    static const char key[] = "exception: ", prefix[] = "typeinfo for ";
    size_t blank = 0, from, n = 0, is = sizeof(prefix) - 1;

    while (blank < l->n && l->at[blank] == ' ')
        blank++;
    if (l->n - blank < sizeof(key) || memcmp(l->at + blank, key, sizeof(key) - 1))
        return false;
    from = blank + sizeof(key) - 1;
    while (from + n < l->n && l->at[from + n] != ':' && l->at[from + n] != ' ')
        n++;
    if (!n || n + 5 > sizeof(r->mangled))
        return false;
    snprintf(r->mangled, sizeof(r->mangled), "_ZTI%.*s", (int)n, l->at + from);
    if (stile__demangle(r->mangled, r->demangled, sizeof(r->demangled)) <= is ||
        memcmp(r->demangled, prefix, is))
        return false;
    put(r, l->at, from);
    put(r, r->demangled + is, strlen(r->demangled + is));
    put(r, l->at + from + n, l->n - from - n + l->ending);
    return true;
}

/* The table of modules, wherever in the text it stands; the last one counts. */
static int modules_read(struct stile__report_names *r, const char *text, size_t size)
{
    const char *at = text, *end = text + size;
    struct line l;
    bool in = false;
    int err = 0;

    stile__report_modules_free(&r->modules);
    r->error = 0;
    while (!err && line_next(&at, end, &l)) {
        if (is_modules(&l))
            in = true;
        else if (in && starts(&l, "  0x"))
            err = stile__report_modules_add(&r->modules, l.at, l.n);
        else
            in = false;
    }
    stile__report_modules_sort(&r->modules);
    return err;
}

int stile__report_annotate(struct stile__report_names *r, const char *text, size_t size)
{
    const char *at = text, *end = text + size;
    struct frame f;
    struct line l;
    int err = modules_read(r, text, size);

    if (err)
        return err;
    while (!r->error && line_next(&at, end, &l)) {
        if (frame_parse(&l, &f))
            frame_put(r, &l, &f);
        else if (!exception_put(r, &l))
            line_put(r, &l);
    }
    return r->error;
}

static bool is_thread(const struct line *l)
{
    return starts(l, "thread ") && l->at[l->n - 1] == ':';
}

static bool has_crashed(const struct line *l)
{
    static const char ending[] = " crashed:";
    size_t n = sizeof(ending) - 1;

    return l->n > n && !memcmp(l->at + l->n - n, ending, n);
}

/* The sections of threads that crashed, or of all others. */
static void threads_put(struct stile__report_names *r, const char *text, size_t size, bool crashed)
{
    const char *at = text, *end = text + size;
    struct frame f;
    struct line l;
    bool in = false;

    while (!r->error && line_next(&at, end, &l)) {
        bool head = is_thread(&l);
        if (head)
            in = has_crashed(&l) == crashed;
        else if (!starts(&l, "  "))
            in = false;
        if (!in)
            continue;
        if (frame_parse(&l, &f)) {
            frame_put(r, &l, &f);
        } else {
            l.ending = 0;
            line_put(r, &l);
            put(r, "\n", 1); /* the text may be cut in it */
        }
    }
}

int stile__report_stacks(struct stile__report_names *r, const char *text, size_t size, const char *first,
                         const char *last)
{
    int err = modules_read(r, text, size);

    if (err)
        return err;
    put(r, first, strlen(first));
    threads_put(r, text, size, true);
    threads_put(r, text, size, false);
    put(r, last, strlen(last));
    return r->error;
}
