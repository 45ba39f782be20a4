/* std::terminate: libstdc++'s and libc++abi's, without linking either. Normal context.
 *
 * Our handler is in the runtime, and the program's in ours: hooks on std::set_terminate and std::get_terminate show the program what
 * it has set itself. The runtimes call std::get_terminate through the same symbol, to know what to call, and get what is really
 * there. What the program reaches past the hooks is its own: then our handler is not called, or as one that it has set.
 *
 * Of the C++ ABI this uses: a type_info is a table of virtual functions and a name; the fifth function of a class's type_info looks for
 * that class in a thrown object and adjusts the pointer to it (__do_catch, can_catch); the third of std::exception is what(). */
#include "profiler/agent/terminate.h"

#include <link.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "barriers/unwind/symbols.h"
#include "profiler/agent/stile.h"
#include "profiler/region/raw_syscall.h"

#define RUNTIMES      4u /* loaded at once; what comes later goes unnoticed */
#define SET_TERMINATE "_ZSt13set_terminatePFvvE"
#define GET_TERMINATE "_ZSt13get_terminatev"

typedef void terminate_fn(void);
typedef void any_fn(void);

struct cxx_type {
    any_fn *const *functions;
    const char *name;
};

struct cxx_object {
    any_fn *const *functions;
};

/* libstdc++'s: what a thread has caught. The header of an exception ends in the unwinder's, whose first word is its class. */
struct cxa_globals {
    const char *caught;
};
#define CLASS_AT   80
#define GNU_CLASS  0x474e5543432b2b00ull /* GNUCC++\0; ...\1 refers to another */
#define CLASS_MASK (~1ull)

struct runtime {
    atomic_bool live; /* release: the rest is written */
    bool seen;
    const void *dynamic; /* of the module */
    uintptr_t start, end;
    _Atomic(terminate_fn *) program; /* the handler that the program believes to be there */
    terminate_fn *(*set)(terminate_fn *);
    terminate_fn *(*get)(void);
    const struct cxx_type *(*type)(void);
    const struct cxx_type *exception; /* std::exception's */
    /* libstdc++'s: a std::exception_ptr, made and unmade. */
    struct cxa_globals *(*globals)(void);
    void (*pointer)(struct cxx_object **made);
    void (*pointer_end)(struct cxx_object **made);
    /* libc++abi's: the object, whose references are counted. */
    struct cxx_object *(*object)(void);
    void (*object_end)(struct cxx_object *);
};

struct stile__terminated stile__terminated;

static struct runtime runtimes[RUNTIMES];
static _Atomic uintptr_t next_set, next_get; /* where no runtime is watched */
static atomic_bool watching, again;
static unsigned long long adds_seen, subs_seen; /* of the last look; the watcher's */

extern const Elf64_Dyn own_dynamic[] __asm__("_DYNAMIC") __attribute__((visibility("hidden")));

/* The note is this thread's from now on. False: it was already, so that this is a terminate within a terminate, or it is another's. */
static bool note_begin(struct stile__terminated *t)
{
    uint32_t own = stile__raw_gettid(), other = 0;
    if (!atomic_compare_exchange_strong(&t->tid, &other, own)) {
        if (other == own || stile__raw_syscall(SYS_tgkill, stile__raw_getpid(), other, 0, 0) != -ESRCH ||
            !atomic_compare_exchange_strong(&t->tid, &other, own))
            return false;
        atomic_store_explicit(&t->state, STILE__TERMINATED_NONE, memory_order_relaxed);
    }
    t->type[0] = t->what[0] = '\0';
    return true;
}

static void copy_bounded(char *to, size_t n, const char *from)
{
    size_t i = 0;
    for (; i < n - 1 && from[i] != '\0'; i++)
        to[i] = from[i];
    to[i] = '\0';
}

/* libstdc++ itself does not look whether the exception is another language's, which has no type where it reads one. */
static const struct cxx_type *type_now(const struct runtime *r)
{
    if (r->globals != NULL) {
        uint64_t class;
        const struct cxa_globals *g = r->globals();
        if (g == NULL || g->caught == NULL)
            return NULL;
        memcpy(&class, g->caught + CLASS_AT, sizeof class);
        if ((class & CLASS_MASK) != GNU_CLASS)
            return NULL;
    }
    return r->type();
}

/* The std::exception in the thrown object, asked for what it is. */
static void what_copy(const struct runtime *r, const struct cxx_type *type, void *object)
{
    bool (*find)(const struct cxx_type *, const struct cxx_type *, void **, unsigned) = (bool (*)(
        const struct cxx_type *, const struct cxx_type *, void **, unsigned))r->exception->functions[4];
    if (!find(r->exception, type, &object, 1) || object == NULL)
        return;
    const struct cxx_object *exception = object;
    const char *(*what)(const struct cxx_object *) =
        (const char *(*)(const struct cxx_object *))exception->functions[2];
    const char *text = what(exception);
    if (text != NULL)
        copy_bounded(stile__terminated.what, sizeof stile__terminated.what, text);
}

static void note(const struct runtime *r)
{
    struct stile__terminated *t = &stile__terminated;
    struct cxx_object *object = NULL;
    if (!note_begin(t))
        return;
    const struct cxx_type *type = type_now(r);
    if (type != NULL && type->name != NULL)
        copy_bounded(t->type, sizeof t->type,
                     type->name + (type->name[0] == '*')); /* its name is not unique */
    atomic_store_explicit(&t->state, STILE__TERMINATED_TYPE, memory_order_release);
    if (type == NULL)
        return;
    if (r->globals != NULL)
        r->pointer(&object);
    else
        object = r->object();
    if (object == NULL)
        return;
    what_copy(r, type, object);
    atomic_store_explicit(&t->state, STILE__TERMINATED_WHAT, memory_order_release);
    if (r->globals != NULL)
        r->pointer_end(&object);
    else
        r->object_end(object);
}

/* As the runtime would call it, whatever it is. */
static void terminated(struct runtime *r)
{
    note(r);
    atomic_load_explicit(&r->program, memory_order_acquire)();
}

#define HANDLER(i)                                                                                           \
    static void handler_##i(void)                                                                            \
    {                                                                                                        \
        terminated(&runtimes[i]);                                                                            \
    }
HANDLER(0)
HANDLER(1)
HANDLER(2)
HANDLER(3)
static terminate_fn *const handlers[RUNTIMES] = {handler_0, handler_1, handler_2, handler_3};

static terminate_fn *handler_of(const struct runtime *r)
{
    return handlers[r - runtimes];
}

static bool runtime_find(const struct link_map *map, struct runtime *r)
{
#define FIND(name) stile__symbol_of(map, name)
    r->set = (terminate_fn * (*)(terminate_fn *)) FIND(SET_TERMINATE);
    if (r->set == NULL)
        return false;
    r->get = (terminate_fn * (*)(void)) FIND(GET_TERMINATE);
    r->type = (const struct cxx_type *(*)(void))FIND("__cxa_current_exception_type");
    r->exception = (const struct cxx_type *)stile__symbol_variable_of(map, "_ZTISt9exception");
    r->object = (struct cxx_object * (*)(void)) FIND("__cxa_current_primary_exception");
    r->object_end = (void (*)(struct cxx_object *))FIND("__cxa_decrement_exception_refcount");
    r->globals = NULL;
    if (r->object == NULL || r->object_end == NULL) {
        r->globals = (struct cxa_globals * (*)(void)) FIND("__cxa_get_globals");
        r->pointer = (void (*)(struct cxx_object **))FIND("_ZSt17current_exceptionv");
        r->pointer_end = (void (*)(struct cxx_object **))FIND("_ZNSt15__exception_ptr13exception_ptrD1Ev");
        if (r->globals == NULL || r->pointer == NULL || r->pointer_end == NULL)
            return false;
    }
#undef FIND
    return r->get != NULL && r->type != NULL && r->exception != NULL;
}

static void range_find(struct runtime *r, const struct dl_phdr_info *info)
{
    r->start = UINTPTR_MAX;
    r->end = 0;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const Elf64_Phdr *ph = &info->dlpi_phdr[i];
        if (ph->p_type != PT_LOAD)
            continue;
        const uintptr_t start = info->dlpi_addr + ph->p_vaddr, end = start + ph->p_memsz;
        r->start = start < r->start ? start : r->start;
        r->end = end > r->end ? end : r->end;
    }
}

static void install(struct runtime *r)
{
    atomic_store_explicit(&r->program, r->get(), memory_order_release); /* before ours may be called */
    terminate_fn *there = r->set(handler_of(r));
    if (there != handler_of(r))
        atomic_store_explicit(&r->program, there, memory_order_release);
}

static void runtime_look(const struct link_map *map, const struct dl_phdr_info *info)
{
    struct runtime *r = NULL;
    for (unsigned i = 0; i < RUNTIMES; i++) {
        struct runtime *known = &runtimes[i];
        if (!atomic_load(&known->live)) {
            r = r == NULL ? known : r;
        } else if (known->dynamic == map->l_ld) {
            known->seen = true;
            /* Its own default: it went and came back at the same place. */
            const uintptr_t there = (uintptr_t)known->get();
            if (there >= known->start && there < known->end)
                install(known);
            return;
        }
    }
    if (r == NULL || !runtime_find(map, r))
        return;
    r->dynamic = map->l_ld;
    r->seen = true;
    range_find(r, info);
    install(r);
    atomic_store_explicit(&r->live, true, memory_order_release);
}

static bool watched; /* somebody wants to know */

/* With the loader's lock, so that nothing is unloaded meanwhile. */
static int module_look(struct dl_phdr_info *info, size_t size, void *arg)
{
    bool *first = arg;
    (void)size;
    if (*first && info->dlpi_adds == adds_seen && info->dlpi_subs == subs_seen)
        return 1;
    if (*first) {
        adds_seen = info->dlpi_adds;
        subs_seen = info->dlpi_subs;
        for (unsigned i = 0; i < RUNTIMES; i++)
            runtimes[i].seen = false;
    }
    *first = false;
    struct link_map map = {.l_addr = info->dlpi_addr};
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            map.l_ld = (Elf64_Dyn *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    if (map.l_ld != NULL && map.l_ld != own_dynamic)
        runtime_look(&map, info);
    return 0;
}

void stile__terminate_watch(void)
{
    watched = true;
    atomic_store(&again, true);
    while (atomic_load(&again) && !atomic_exchange(&watching, true)) {
        bool first = true;
        atomic_store(&again, false);
        dl_iterate_phdr(module_look, &first);
        for (unsigned i = 0; !first && i < RUNTIMES; i++)
            if (!runtimes[i].seen)
                atomic_store(&runtimes[i].live, false);
        atomic_store(&watching, false);
    }
}

void stile__terminate_unloaded(void)
{
    atomic_store_explicit(&next_set, 0, memory_order_relaxed);
    atomic_store_explicit(&next_get, 0, memory_order_relaxed);
    for (unsigned i = 0; i < RUNTIMES; i++)
        if (atomic_load_explicit(&runtimes[i].live, memory_order_relaxed)) {
            stile__terminate_watch();
            return;
        }
}

/* Not by dlsym: each throw asks for the handler, perhaps while another thread has the loader's lock and waits for this one. */
static uintptr_t next_find(_Atomic uintptr_t *cache, const char *name)
{
    uintptr_t found = atomic_load_explicit(cache, memory_order_relaxed);
    if (found == 0) { /* any thread finds the same */
        found = stile__symbol_next(name);
        atomic_store_explicit(cache, found, memory_order_relaxed);
    }
    return found;
}

/* The runtime that a call is meant for: the one that calls itself, or the first. */
static struct runtime *runtime_of(uintptr_t caller, bool *own)
{
    struct runtime *first = NULL;
    *own = false;
    for (unsigned i = 0; i < RUNTIMES; i++) {
        struct runtime *r = &runtimes[i];
        if (!atomic_load_explicit(&r->live, memory_order_acquire))
            continue;
        if (caller >= r->start && caller < r->end) {
            *own = true;
            return r;
        }
        first = first == NULL ? r : first;
    }
    return first;
}

terminate_fn *stile__set_terminate(terminate_fn *to) __asm__(SET_TERMINATE) STILE_EXPORT;
terminate_fn *stile__get_terminate(void) __asm__(GET_TERMINATE) STILE_EXPORT;

terminate_fn *stile__set_terminate(terminate_fn *to)
{
    bool own;
    struct runtime *r = runtime_of((uintptr_t)__builtin_return_address(0), &own);
    if (r == NULL || own) {
        terminate_fn *(*next)(terminate_fn *) =
            r != NULL ? r->set : (terminate_fn * (*)(terminate_fn *)) next_find(&next_set, SET_TERMINATE);
        return next != NULL ? next(to) : NULL;
    }
    if (to == NULL) { /* what that means the runtime knows */
        r->set(NULL);
        to = r->get();
    }
    terminate_fn *earlier = atomic_exchange(&r->program, to), *there = r->set(handler_of(r));
    return there == handler_of(r) ? earlier : there;
}

/* The runtime itself asks, at each throw. One that is not known was loaded since, with a plugin: this is the last moment to see it.
 * (dl_iterate_phdr's lock is held only while the list changes, never while a constructor runs.) */
terminate_fn *stile__get_terminate(void)
{
    bool own;
    const uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    struct runtime *r = runtime_of(caller, &own);
    if (!own && watched) {
        stile__terminate_watch();
        r = runtime_of(caller, &own);
    }
    if (r == NULL) {
        terminate_fn *(*next)(void) = (terminate_fn * (*)(void)) next_find(&next_get, GET_TERMINATE);
        return next != NULL ? next() : NULL;
    }
    terminate_fn *there = r->get();
    return !own && there == handler_of(r) ? atomic_load(&r->program) : there;
}
