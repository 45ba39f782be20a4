/* Cuts. A cut moves the call tree and all totals into a piece: a process structure without a process, which writers take
 * like one that has ended. Threads, mappings and slots stay: the piece reads them from the process that it was cut from.
 * So nothing is counted twice or not at all, whatever becomes of the writer. Collector, normal context. */
#include "profiler/collector/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "profiler/collector/names.h"
#include "profiler/collector/waits.h"

/* Between a stop and its cut: a record that was being written then arrives. */
#define ARRIVAL_NS     20000000u
#define ARRIVAL_NS_MAX 1000000000u /* where the program's clock is not ours (a time namespace) */

void pieces_init(struct process *p)
{
    struct stile__region *r = p->region;
    p->interval_ns = r->interval_ns;
    if (p->interval_ns != 0 &&
        (p->interval_ns < STILE__INTERVAL_NS_MIN || p->interval_ns > STILE__INTERVAL_NS_MAX))
        p->interval_ns = 0; /* read again from shared memory: checked again */
    p->toggles = r->toggle != 0;
    p->numbered = p->interval_ns != 0 || p->toggles;
    p->piece = p->toggles ? 1 : 0;
    p->next_cut_ns = now_mono_ns() + p->interval_ns;
}

static struct stile__piece *entry_of(const struct process *p)
{
    return &p->region->pieces[p->piece % STILE__PIECES];
}

/* Whether the piece that is being collected has been started. */
static bool started(const struct process *p)
{
    uint32_t last = atomic_load_explicit(&p->region->pieces_started, memory_order_acquire); /* pairs with B */
    return (int32_t)(last - p->piece) >= 0;
}

bool pieces_running(const struct process *p)
{
    return !p->toggles || p->piece_seen;
}

uint64_t pieces_next_ns(const struct process *p)
{
    return p->state == PROCESS_ACTIVE && p->interval_ns != 0 && pieces_running(p) ? p->next_cut_ns
                                                                                  : UINT64_MAX;
}

/* A moment that the program told, kept within what can be. */
static uint64_t moment(const struct process *p, uint64_t told)
{
    uint64_t now = now_mono_ns(); /* not that of the round's beginning: it may have been told since */
    return told < p->start_mono_ns ? p->start_mono_ns : told > now ? now : told;
}

/* From here on the present file's time runs. */
static void begin(struct process *p, uint64_t mono_ns)
{
    p->start_unix_ns += mono_ns - p->start_mono_ns;
    p->start_mono_ns = mono_ns;
}

/* The names of a piece. wanted: its files are written even without a sample. */
static void files_take(struct process *piece, const struct process *p, bool wanted)
{
    for (int i = 0; i < FILES; i++) {
        memcpy(piece->files[i].path, p->files[i].path, sizeof piece->files[i].path);
        piece->files[i].owns = wanted || p->files[i].owns;
    }
}

/* Moves what there is into a piece, the end of which was end_ns. Without memory it stays, and the next cut takes it. */
static void cut(struct process *p, uint64_t end_ns, bool wanted)
{
    struct call_tree fresh;
    struct process *piece = calloc(1, sizeof *piece);

    if (piece == NULL || call_tree_init(&fresh) != 0) {
        free(piece);
        return;
    }
    if (!waits_cut(p, piece)) {
        call_tree_free(&fresh);
        free(piece);
        return;
    }
    piece->origin = p;
    piece->state = PROCESS_ENDED;
    piece->pid = p->pid;
    piece->own_pid = p->own_pid;
    piece->pidfd = piece->maps_fd = -1;
    piece->region = p->region;
    piece->hz = p->hz;
    piece->period_ns = p->period_ns;
    piece->numbered = true;
    piece->start_unix_ns = p->start_unix_ns;
    piece->start_mono_ns = p->start_mono_ns;
    piece->end_mono_ns = end_ns;
    files_take(piece, p, wanted);

    piece->tree = p->tree;
    piece->ticks = p->ticks;
    piece->cpu_ns = p->cpu_ns;
    piece->kernel_ns = p->kernel_ns;
    piece->signals = p->signals;
    memcpy(piece->reason_ticks, p->reason_ticks, sizeof piece->reason_ticks);
    memcpy(piece->reason_ns, p->reason_ns, sizeof piece->reason_ns);
    p->tree = fresh;
    p->cuts++; /* mirrors find their nodes again */
    p->cut_cpu_ns += p->cpu_ns;
    p->ticks = p->cpu_ns = p->kernel_ns = p->signals = 0;
    memset(p->reason_ticks, 0, sizeof p->reason_ticks);
    memset(p->reason_ns, 0, sizeof p->reason_ns);

    names_next(p);
    p->pieces_open++;
    piece->next = p->cut;
    p->cut = piece;
}

static bool file_has_to_be(const struct process *p, int file)
{
    return p->files[file].owns || process_has_samples(p, file);
}

/* The owner of a name writes a file each interval; others do where they used the processor. */
static void interval_look(struct process *p, uint64_t now)
{
    if (pieces_next_ns(p) > now)
        return;
    /* A stop that is waiting for what is on its way may be older than this moment: nothing is left to cut after it. */
    if (p->toggles && atomic_load_explicit(&entry_of(p)->state, memory_order_acquire) == STILE__PIECE_STOPPED)
        return;
    while (p->next_cut_ns <= now) /* on a grid, so that lateness does not add up */
        p->next_cut_ns += p->interval_ns;
    waits_look(p, true);
    if (file_has_to_be(p, FILE_CPU) || file_has_to_be(p, FILE_BLOCK))
        cut(p, now, false);
    begin(p, now);
}

/* A piece whose start was not seen yet: its time and its intervals begin. */
static void start_see(struct process *p)
{
    if (p->piece_seen || !started(p))
        return;
    p->piece_seen = true;
    begin(p, moment(p, entry_of(p)->start_mono_ns));
    p->next_cut_ns = p->start_mono_ns + p->interval_ns;
}

/* The agent's stop of the piece that is being collected, if it is time to cut there. */
static bool stop_take(struct process *p, uint64_t now, bool last)
{
    struct stile__piece *e = entry_of(p);
    uint32_t stopped = STILE__PIECE_STOPPED;

    if (!p->piece_seen || atomic_load_explicit(&e->state, memory_order_acquire) != stopped) { /* D */
        p->stop_seen_ns = 0;
        return false;
    }
    if (p->stop_seen_ns == 0)
        p->stop_seen_ns = now;
    bool arrived = (e->stop_mono_ns < now && now - e->stop_mono_ns > ARRIVAL_NS) ||
                   now - p->stop_seen_ns > ARRIVAL_NS_MAX;
    return (last || arrived) &&
           atomic_compare_exchange_strong_explicit(&e->state, &stopped, STILE__PIECE_TAKEN,
                                                   memory_order_acq_rel, memory_order_relaxed); /* E */
}

/* All that is left of the piece, and its file. */
static void stop_cut(struct process *p)
{
    process_drain(p);
    uint64_t end = moment(p, entry_of(p)->stop_mono_ns);
    waits_look(p, true);
    cut(p, end, true);
    begin(p, end);
    p->stop_seen_ns = 0;
    p->piece_seen = false;
    p->piece++;
    atomic_store_explicit(&p->region->pieces_done, p->piece - 1, memory_order_release); /* F, pairs with A */
}

void pieces_look(struct process *p, uint64_t now)
{
    if (p->damage != NULL)
        return;
    if (p->toggles)
        for (unsigned n = 0; n < STILE__PIECES; n++) {
            start_see(p);
            if (!stop_take(p, now, false))
                break;
            stop_cut(p);
        }
    interval_look(p, now);
}

void pieces_drain_last(struct process *p, uint64_t now)
{
    process_drain(p);
    if (p->toggles && p->damage == NULL)
        for (unsigned n = 0; n < STILE__PIECES; n++) {
            start_see(p);
            if (!stop_take(p, now, true))
                break;
            stop_cut(p);
            process_drain(p); /* what comes after it */
        }
    waits_look(p, true);
    /* Interval or not: what is left is the last file's. With a toggle there is none, unless a piece was running. */
    if (p->toggles)
        for (int i = 0; i < FILES; i++)
            p->files[i].owns = p->piece_seen || process_has_samples(p, i);
}

void pieces_adopt(struct process *p)
{
    while (p->cut != NULL) {
        struct process *piece = p->cut;
        p->cut = piece->next;
        piece->next = p->next;
        p->next = piece;
    }
}
