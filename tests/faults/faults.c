/* Fault injection, in the library that tests preload instead of the product's. It is the same but for these faults.
 *
 *   STILE_FAULTS=seed=7,lock=100,slot=50   each kind one in so many times, by chance; stubs=N: a process has so many
 *   STILE_FAULTS_REPORT=FILE               how many there were, in a file that is mapped: it is right whatever the end was
 *
 * The report is eight bytes each: the process that made it, its counts by kind, and those of all its children together. */
#include "barriers/stub.h"
#include "profiler/agent/signal/faults.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "profiler/region/raw_syscall.h"
#include "profiler/region/rules.h"

static const char *const names[STILE__FAULTS] = {[STILE__FAULT_LOCK] = "lock",
                                                 [STILE__FAULT_STUBS] = "stubs",
                                                 [STILE__FAULT_SLOT] = "slot",
                                                 [STILE__FAULT_GONE] = "gone",
                                                 [STILE__FAULT_RULE] = "rule",
                                                 [STILE__FAULT_ROW] = "row",
                                                 [STILE__FAULT_RING] = "ring",
                                                 [STILE__FAULT_BLOCK] = "block",
                                                 [STILE__FAULT_OWNER_SAMPLE] = "owner-sample",
                                                 [STILE__FAULT_OWNER_BARRIERS] = "owner-barriers",
                                                 [STILE__FAULT_OWNER_REMOVE] = "owner-remove",
                                                 [STILE__FAULT_OWNER_WAIT] = "owner-wait",
                                                 [STILE__FAULT_OWNER_EXECUTES] = "owner-executes"};

struct report {
    _Atomic uint64_t pid, own[STILE__FAULTS], others[STILE__FAULTS];
};

static uint32_t one_in[STILE__FAULTS]; /* 0: never */
static uint64_t seed = 1;
static struct report unread, *report = &unread;
static _Thread_local uint64_t chance;

static uint32_t setting(const char *all, const char *name)
{
    const size_t len = strlen(name);
    for (const char *at = all; at != NULL && *at != '\0'; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, name, len) == 0 && at[len] == '=')
            return (uint32_t)strtoul(at + len + 1, NULL, 10);
    return 0;
}

/* Before the library's own constructor. */
__attribute__((constructor(101))) static void faults_read(void)
{
    const char *all = getenv("STILE_FAULTS"), *path = getenv("STILE_FAULTS_REPORT");
    for (unsigned i = 0; i < STILE__FAULTS; i++)
        one_in[i] = setting(all, names[i]);
    seed = setting(all, "seed") + 1;
    int fd = path != NULL ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    void *at = MAP_FAILED;
    if (ftruncate(fd, sizeof *report) == 0)
        at = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return;
    uint64_t none = 0;
    report = at;
    atomic_compare_exchange_strong(&report->pid, &none, (uint64_t)getpid());
}

static uint32_t draw(uint32_t n)
{
    if (chance == 0)
        chance = seed * 0x9e3779b97f4a7c15u ^ (uint64_t)stile__raw_gettid() << 20;
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(chance >> 33) % n;
}

static void count(enum stile__fault kind, uint32_t n)
{
    bool own = atomic_load_explicit(&report->pid, memory_order_relaxed) == (uint64_t)stile__raw_getpid();
    atomic_fetch_add_explicit(own ? &report->own[kind] : &report->others[kind], n, memory_order_relaxed);
}

bool stile__fault(enum stile__fault kind, uint32_t n)
{
    if (one_in[kind] == 0 || draw(one_in[kind]) != 0)
        return false;
    count(kind, n);
    return true;
}

/* What a wrong row of CFI may say; only that of a signal's frame is no row. */
static uint64_t other_rule(uint64_t rule)
{
    static const uint8_t ops[] = {STILE__RULE_NONE,          STILE__RULE_RSP,       STILE__RULE_RBP,
                                  STILE__RULE_DEREF_RSP,     STILE__RULE_DEREF_RBP, STILE__RULE_REGISTER,
                                  STILE__RULE_FRAME_POINTER, STILE__RULE_END,       STILE__RULE_OTHER};
    enum stile__rule_op op = stile__rule_op(rule);
    int32_t offset = stile__rule_offset(rule);
    int16_t saved = stile__rule_saved(rule);
    int8_t extra = stile__rule_extra(rule);
    switch (draw(6)) {
    case 0: /* the next row's */
        offset += draw(2) != 0 ? 8 : -8;
        break;
    case 1:
        offset += 8 * ((int32_t)draw(64) - 32);
        break;
    case 2:
        offset = (int32_t)draw(1u << 16) - (1 << 12);
        break;
    case 3:
        saved = (int16_t)(draw(64) - 48);
        break;
    case 4:
        op = op == STILE__RULE_RSP ? STILE__RULE_RBP : STILE__RULE_RSP;
        break;
    default:
        op = (enum stile__rule_op)ops[draw(sizeof ops)];
        extra = (int8_t)draw(256);
        break;
    }
    return stile__rule_make(op, offset, saved, extra) | (rule & STILE__RULE_AT_BASE);
}

uint64_t stile__fault_rule(enum stile__fault kind, uint64_t rule)
{
    const enum stile__rule_op op = stile__rule_op(rule);
    if (op < STILE__RULE_RSP || op > STILE__RULE_DEREF_RBP || !stile__fault(kind, 1))
        return rule;
    return other_rule(rule);
}

uint32_t stile__fault_stubs(void)
{
    const uint32_t n = one_in[STILE__FAULT_STUBS];
    const uint32_t least = STILE__STUB_SELF_TEST + 1; /* the first that barriers have */
    return n == 0 || n >= STILE__STUBS - least ? STILE__STUBS : least + n;
}

void stile__fault_starved(void)
{
    if (one_in[STILE__FAULT_STUBS] != 0)
        count(STILE__FAULT_STUBS, 1);
}
