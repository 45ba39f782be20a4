/* Names first, for all places, from symbol tables: they are cheap. Lines then, from debug information, which may take any
 * time. Runs in the writer process, normal context.
 *
 *   looking thread                             writer
 *   --------------                             ------
 *   (A) fill place's name; store state NAMED,  (C) load state, acquire:
 *       release                                    read what it says is there
 *   (B) fill place's frames; store LINED,
 *       release
 *
 * A and B pair with C. Each state has fields of its own, which nobody changes after it. */
#include "profiler/collector/look_up.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "profiler/collector/process.h"
#include "proto/id_table.h"

#define GRACE_NS    100000000u /* for the names in a file that comes when time is up already */
#define STACK_BYTES ((size_t)8 << 20)

enum { PLACE_UNKNOWN, PLACE_NAMED, PLACE_LINED };

/* A distinct address. */
struct place {
    uint64_t address;
    uint32_t mapping, n_frames;
    const struct stile__symbol_frame *name; /* NULL: no symbol */
    const struct stile__symbol_frame *frames;
    _Atomic uint32_t state;
    uint32_t seen; /* the state when time was up: what is in the file */
};

/* What has been opened; the next file of the same process may need it, too. */
struct opened {
    struct module as; /* as it was: another one may lie there now */
    const struct module *module;
    struct stile__symbol_module *symbols;
};

struct sources {
    struct stile__symbolizer *symbolizer;
    struct opened *opened;
    size_t n, cap;
};

struct look_up {
    const struct mapping_table *mappings;
    struct sources *from;
    bool names_only;
    uint64_t until_ns; /* without a thread: no line is asked for after that; or 0 */
    struct place *places;
    size_t n, cap;
    uint32_t *node_place;                 /* index + 1, or 0 */
    struct stile__symbol_module **opened; /* of each mapping; the thread's until it is done */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done; /* under lock */
    bool left; /* to its thread */
    struct look_up_late late;
};

/* Of this process. The thread that was left behind has its own. */
static struct sources *sources;
static uint64_t until_ns;
static bool was_late;
static uint32_t lines_late;

void look_up_until(uint64_t mono_ns)
{
    until_ns = mono_ns;
}

static struct sources *sources_get(void)
{
    if (sources == NULL)
        sources = calloc(1, sizeof *sources);
    if (sources != NULL && sources->symbolizer == NULL)
        sources->symbolizer = stile__symbolizer_new();
    return sources != NULL && sources->symbolizer != NULL ? sources : NULL;
}

static bool is_same(const struct opened *o, const struct module *m)
{
    return o->module == m && o->as.dev == m->dev && o->as.ino == m->ino && o->as.size == m->size &&
           o->as.changed.tv_sec == m->changed.tv_sec && o->as.changed.tv_nsec == m->changed.tv_nsec &&
           o->as.elf.image == m->elf.image;
}

/* Asks nothing of a file twice, even if there is no memory to remember that. */
static struct stile__symbol_module *module_open(struct sources *s, const struct mapping *m)
{
    for (size_t i = 0; i < s->n; i++)
        if (is_same(&s->opened[i], m->module))
            return s->opened[i].symbols;
    if (s->n == s->cap) {
        size_t cap = s->cap * 2 + 16;
        struct opened *more = realloc(s->opened, cap * sizeof *more);
        if (more == NULL)
            return NULL;
        s->opened = more;
        s->cap = cap;
    }
    s->opened[s->n] =
        (struct opened){*m->module, m->module,
                        stile__symbolizer_module_open(s->symbolizer, m->path, m->module->elf.fd,
                                                      m->module->elf.image, m->module->elf.image_size)};
    return s->opened[s->n++].symbols;
}

static uint64_t offset_of(const struct look_up *l, const struct place *p)
{
    const struct mapping *m = &l->mappings->all[p->mapping];
    return p->address - m->start + m->offset;
}

static void names_find(struct look_up *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct place *p = &l->places[i];
        const struct mapping *m = &l->mappings->all[p->mapping];
        if (l->opened[p->mapping] == NULL)
            l->opened[p->mapping] = module_open(l->from, m);
        if (l->opened[p->mapping] != NULL)
            stile__symbolizer_name(l->opened[p->mapping], offset_of(l, p), &p->name);
        atomic_store_explicit(&p->state, PLACE_NAMED, memory_order_release); /* A, pairs with C */
    }
}

/* Without a thread that can be left there is a look at the clock before each place. */
static void lines_find(struct look_up *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->until_ns != 0 && now_mono_ns() >= l->until_ns) {
            l->names_only = was_late = true;
            return;
        }
        struct place *p = &l->places[i];
        if (l->opened[p->mapping] != NULL)
            p->n_frames =
                (uint32_t)stile__symbolizer_frames(l->opened[p->mapping], offset_of(l, p), &p->frames);
        atomic_store_explicit(&p->state, PLACE_LINED, memory_order_release); /* B, pairs with C */
    }
}

static void *look(void *arg)
{
    struct look_up *l = arg;
    names_find(l);
    if (!l->names_only)
        lines_find(l);
    pthread_mutex_lock(&l->lock);
    l->done = true;
    pthread_cond_signal(&l->ended);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* False: there is no thread to be had. */
static bool thread_begin(struct look_up *l)
{
    pthread_attr_t attr;
    pthread_t thread;
    if (pthread_attr_init(&attr) != 0)
        return false;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    bool begun = pthread_create(&thread, &attr, look, l) == 0;
    pthread_attr_destroy(&attr);
    return begun;
}

static bool done_by(struct look_up *l, uint64_t mono_ns)
{
    struct timespec at = {(time_t)(mono_ns / 1000000000u), (long)(mono_ns % 1000000000u)};
    pthread_mutex_lock(&l->lock);
    while (!l->done && pthread_cond_timedwait(&l->ended, &l->lock, &at) != ETIMEDOUT)
        ;
    bool done = l->done;
    pthread_mutex_unlock(&l->lock);
    return done;
}

static void states_see(struct look_up *l)
{
    l->late.places = (uint32_t)l->n;
    for (size_t i = 0; i < l->n; i++) {
        struct place *p = &l->places[i];
        p->seen = atomic_load_explicit(&p->state, memory_order_acquire); /* C, pairs with A and B */
        l->late.lines += p->seen != PLACE_LINED;
        l->late.nameless += p->seen == PLACE_UNKNOWN || (p->seen == PLACE_NAMED && p->name == NULL);
    }
    lines_late += l->late.lines;
}

/* In a thread of its own only if it may have to be left. */
static void look_in_time(struct look_up *l)
{
    uint64_t until = until_ns, now = now_mono_ns();
    l->names_only = was_late || (until_ns != 0 && until_ns <= now);
    if (l->names_only && until < now + GRACE_NS)
        until = now + GRACE_NS;
    if (until_ns == 0 || !thread_begin(l)) {
        l->until_ns = until;
        look(l);
        return;
    }
    if (done_by(l, until))
        return;
    l->left = was_late = true;
    sources = NULL;
}

struct key {
    const struct look_up *l;
    uint64_t address;
    uint32_t mapping;
};

static bool place_equal(const void *context, uint64_t id)
{
    const struct key *key = context;
    const struct place *p = &key->l->places[id];
    return p->address == key->address && p->mapping == key->mapping;
}

static int place_add(struct look_up *l, struct stile__id_table *ids, const struct call_node *n,
                     uint32_t *index)
{
    const struct key key = {l, n->address, n->mapping};
    uint64_t hash = stile__hash_add(n->mapping, n->address), id;

    if (!stile__id_table_find(ids, hash, place_equal, &key, &id)) {
        if (l->n == l->cap) {
            size_t cap = l->cap * 2 + 256;
            struct place *more = realloc(l->places, cap * sizeof *more);
            if (more == NULL)
                return -ENOMEM;
            l->places = more;
            l->cap = cap;
        }
        if (stile__id_table_reserve(ids) != 0)
            return -ENOMEM;
        id = l->n++;
        l->places[id] = (struct place){.address = n->address, .mapping = n->mapping};
        stile__id_table_add(ids, hash, id);
    }
    *index = (uint32_t)id + 1;
    return 0;
}

static int places_list(struct look_up *l, const struct call_tree *tree)
{
    struct stile__id_table ids = {0};
    int err = 0;
    for (uint32_t i = 0; i < tree->n_nodes && err == 0; i++)
        if (tree->nodes[i].mapping < l->mappings->n_all && i != CALL_TREE_ROOT &&
            l->mappings->all[tree->nodes[i].mapping].module != NULL)
            err = place_add(l, &ids, &tree->nodes[i], &l->node_place[i]);
    stile__id_table_free(&ids);
    return err;
}

struct look_up *look_up_new(const struct mapping_table *mappings, const struct call_tree *tree)
{
    struct look_up *l = calloc(1, sizeof *l);
    pthread_condattr_t attr;
    if (l == NULL)
        return NULL;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->ended, &attr);
    pthread_condattr_destroy(&attr);
    l->mappings = mappings;
    l->from = sources_get();
    l->node_place = calloc((size_t)tree->n_nodes + 1, sizeof *l->node_place);
    l->opened = calloc((size_t)mappings->n_all + 1, sizeof(struct stile__symbol_module *));
    if (l->from == NULL || l->node_place == NULL || l->opened == NULL || places_list(l, tree) != 0) {
        look_up_free(l);
        return NULL;
    }
    look_in_time(l);
    states_see(l);
    return l;
}

void look_up_free(struct look_up *l)
{
    if (l == NULL || l->left)
        return;
    pthread_cond_destroy(&l->ended);
    pthread_mutex_destroy(&l->lock);
    free(l->places);
    free(l->node_place);
    free(l->opened);
    free(l);
}

size_t look_up_frames(const struct look_up *l, uint32_t node, const struct stile__symbol_frame **frames)
{
    *frames = NULL;
    if (l->node_place[node] == 0)
        return 0;
    const struct place *p = &l->places[l->node_place[node] - 1];
    switch (p->seen) {
    case PLACE_NAMED:
        *frames = p->name;
        return p->name != NULL;
    case PLACE_LINED:
        *frames = p->frames;
        return p->n_frames;
    default:
        return 0;
    }
}

bool look_up_has_debug_info(const struct look_up *l, uint32_t mapping)
{
    return !l->left && !l->names_only && l->opened[mapping] != NULL &&
           stile__symbolizer_coverage(l->opened[mapping]).debug_info;
}

struct look_up_late look_up_late_of(const struct look_up *l)
{
    return l->late;
}

uint32_t look_up_lines_late(void)
{
    return lines_late;
}
