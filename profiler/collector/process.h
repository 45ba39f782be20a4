/* One profiled process image, as the collector knows it. Collector, normal context, single-threaded. */
#ifndef STILE_COLLECTOR_PROCESS_H
#define STILE_COLLECTOR_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "profiler/collector/call_tree.h"
#include "profiler/collector/mirror.h"
#include "profiler/collector/modules.h"
#include "profiler/collector/rule_table.h"
#include "profiler/collector/unwinder.h"
#include "profiler/collector/verify.h"
#include "profiler/collector/vet.h"
#include "profiler/region/hello.h"
#include "profiler/region/layout.h"

/* Invariant of pieces: one that was cut (origin is not NULL) has a tree, totals, times and a path of its own. Its threads,
 * mappings, region and texts are its origin's, which outlives it: the origin is not done while pieces_open is not 0. */

/* A thread that was seen; its number stays when its slot is used again. */
struct thread_seen {
    uint32_t tid;
    uint32_t generation;
    char comm[17];
    bool ended;
    uint64_t booked_ns; /* on its stacks, all pieces of the profile together */
    uint64_t used_ns;   /* by its own clock, once that is known; else 0 */
    /* Of the blocking profile: what waits.c knows of it. */
    uint64_t birth_ns, waited_ns;   /* CLOCK_MONOTONIC; delay that is booked */
    uint64_t run_delay_base_ns;     /* that the kernel had counted when the thread was first seen */
    uint64_t life_ns, elsewhere_ns; /* its life up to the last look, and what of it is in no book; */
    uint64_t elsewhere_told_ns;     /* of that, what is by now */
    uint64_t idle_ns;               /* of its life: it neither ran nor was ready to */
    double chance_ns2;              /* squares of what is booked of waits that were recorded by chance */
    bool clocked;                   /* all are known */
    uint32_t last_node,
        last_cuts; /* of its last sample: the place in the call tree that is after so many cuts */
    bool has_last;
    bool looked; /* idle_ns is of the look that is under way */
    struct mirror mirror;
    uint32_t member; /* in a tree's profile: whose it is */
};

/* What became of barriers. */
struct barrier_totals {
    uint64_t placed, hit, retired, restored;
};

/* More in one tick is nonsense: numbers come from the program. */
#define TICK_NS_MAX (3600ull * 1000000000u)

/* What was last seen of a slot: its counters belong to the handler, so the collector takes differences. */
struct slot_seen {
    uint32_t thread; /* 1 + index into threads of its present generation, or 0 */
    uint64_t lost_ticks, lost_ns, signals;
    uint64_t lost_waits, lost_delay_ns, lost_wakes;
    /* The open wait that was looked at last, and its place in the call tree. */
    struct {
        uint64_t since_ns;
        uint32_t number, cuts, node, label;
        uint8_t reason; /* enum stile__reason */
        bool known;
    } open;
    struct barrier_totals barriers;
};

/* The files of a process. */
enum { FILE_CPU, FILE_BLOCK, FILES };

/* Where one of them goes. */
struct target {
    char path[PATH_MAX]; /* "": it is not wanted */
    char base[PATH_MAX]; /* the name without a number; "" unless the process is numbered */
    bool owns;    /* the path is the one that the user named: a file is written even without a sample */
    bool in_tree; /* not written: it becomes a part of the tree's file, which the path names */
    bool wrote;   /* a file is there */
    int error;    /* of the last time that it was written: 0 or -errno; */
    uint32_t lines_late; /* and places whose lines were left out then, since looking them up took too long */
};

/* The blocking profile of a process; see waits.h. All zero without one. */
struct waits {
    bool on;
    bool alone; /* there is no CPU profile */
    struct call_tree tree;
    uint64_t rate_ns, advance_ns;
    uint64_t start_mono_ns; /* of the session: no wait is older */
    uint64_t next_ns;       /* CLOCK_MONOTONIC: open waits are looked at, */
    uint64_t next_clock_ns; /* and the clocks of their threads */
    uint64_t n, ns;         /* in the tree; wake-ups are not counted */
    uint64_t reason_n[STILE__WAIT_REASONS], reason_ns[STILE__WAIT_REASONS];
    uint64_t wakes;
    uint64_t lost, lost_ns; /* of n and ns: that found their ring full */
    uint64_t lost_wakes;
    uint64_t part_n[STILE__REASON_COUNT];  /* whose stack is not whole, */
    uint64_t part_ns[STILE__REASON_COUNT]; /* by why */
    uint64_t late;                         /* that came after their piece was written */
    uint64_t generations, open;            /* looks at open waits, and what was told of them */
    uint64_t broken;                       /* looks that their threads broke off */
    uint64_t checks;                       /* of who owns the stack */
};

struct dump;

/* Its crash; see crash.h. */
struct crash {
    char path[PATH_MAX]; /* where reports go, absolute; "": to no file */
    bool is_command;     /* of a `stile record`, which says how it ended */
    bool named;          /* the program was given names */
    bool closed;         /* nothing more will be done */
    bool end_known;
    int wait_status;
    char *text; /* the threads at its end, if it ended without a word; owned */
    size_t n_text;
    pid_t writer; /* fork that writes the file, 0 for none */
};

/* What a region tells beside samples. */
struct told {
    uint32_t clocks[STILE__CLOCK_KINDS]; /* threads, by what ticks for them */
    int perf_error, timer_error;
    uint32_t threads_unsampled;
    uint64_t stale_signals;
    bool signal_taken, toggle_taken;
    uint32_t barriers_state;
};

enum process_state {
    PROCESS_ACTIVE, /* its rings are drained */
    PROCESS_ENDED,  /* drained for the last time; the file is due */
    PROCESS_WRITING,
    PROCESS_DONE /* the file is there, or none was due; kept while its pid lives, for what it execs */
};

struct process {
    struct process *next;
    enum process_state state;
    pid_t pid;       /* as the collector sees it */
    int32_t own_pid; /* as the program sees it */
    uid_t uid;       /* whose files the program makes: the region's owner */
    int pidfd, maps_fd;
    struct slot_seen *slots;

    struct stile__region *region;
    uint64_t region_size;
    struct stile__region_size size; /* as checked; the region's own words are not read again */
    uint64_t period_ns, start_unix_ns, start_mono_ns, start_cpu_ns;
    bool foreign_clock;      /* the program's CLOCK_MONOTONIC is another one than ours */
    bool from_birth;         /* what the image used before the session is part of the profile */
    uint64_t earlier_cpu_ns; /* CPU time of images before this one that is in their profiles */
    uint64_t used_cpu_ns;    /* the process's own CPU clock, when last read, */
    uint64_t used_read_ns;   /* at this CLOCK_MONOTONIC */
    uint32_t hz;
    const char *damage;    /* what was wrong with the region, or NULL; it is not read any more */
    char damage_text[256]; /* where it has numbers in it */
    struct waits waits;

    struct mapping_table mappings;
    uint32_t modules_seen; /* bytes of modules text already taken */
    uint64_t maps_read_ns; /* CLOCK_MONOTONIC when maps were last read */
    uint64_t maps_cost_ns; /* what reading them took */
    bool maps_fresh;       /* read in this drain already */
    uint32_t unloads_seen; /* count of unloads before this drain */
    struct unwinder *unwinder;
    struct vetting vetting;
    struct rule_table rules;
    int64_t learn_left_ns; /* what this drain may still spend on learning */
    uint64_t below_left;   /* kept frames that this round may still look up one by one; see stack_node */
    uint32_t depth, debug, barriers; /* as the region had it when it was handed over, */
    uint32_t tick_ns;
    int signal;                    /* of the clocks; 0: none that may be sent */
    bool ticks_wanted, waits_told; /* there are clocks; threads say so before they wait: the region's dump */
    struct stubs stubs;            /* the same */
    struct barrier_totals barrier_totals;
    uint64_t frames_saved;                         /* that samples kept of earlier ones */
    uint64_t frames_by_rules, frames_by_libunwind; /* frames sampled, by who found them; */
    uint64_t frames_unruled;                       /* of the latter, those that had no rule */
    uint64_t rules_bytes;                          /* that the table took at the end */
    struct {
        uint64_t n, cycles;
    } walks[2]; /* with STILE__DEBUG_WALK_TIME: by rules alone, and with a snapshot */
    struct verify verify;
    struct call_tree tree;
    uint32_t cuts; /* that the tree is after: its number */

    struct thread_seen *threads;
    uint32_t n_threads, cap_threads;
    uint64_t threads_ended;
    uint64_t comm_read_ns;

    uint64_t ticks, cpu_ns, kernel_ns, signals;
    uint64_t cut_cpu_ns; /* in the pieces that were cut before */
    uint64_t reason_ticks[STILE__REASON_COUNT], reason_ns[STILE__REASON_COUNT];
    uint64_t blocks_short;
    uint64_t end_mono_ns; /* when it was drained for the last time */

    struct process *origin; /* of a piece: what it was cut from */
    struct process *cut;    /* pieces that are not in the list yet */
    unsigned pieces_open;   /* that are not written yet */
    char *trouble;          /* why a piece could not be written: a line, or NULL */
    uint64_t interval_ns;   /* 0: no cuts by the clock */
    uint64_t next_cut_ns;   /* CLOCK_MONOTONIC, while the process is being sampled */
    bool toggles;           /* the program's signal says when it is sampled */
    bool numbered;          /* it may write more than one file: all have numbers */
    bool piece_seen;        /* the piece that is being collected was started */
    uint32_t piece;         /* being collected; 0 without a toggle */
    uint64_t stop_seen_ns;  /* when its stop was first seen, or 0 */
    uint64_t late_ticks;    /* that came after their piece was cut */
    unsigned number;        /* of the files that are written next, under their names */

    struct target files[FILES];
    unsigned images; /* images that this pid has exec'd before this one */
    char command[4096];
    pid_t parent_pid;         /* as the program saw it when it was born; 0: in another namespace */
    bool seen_dead;           /* by the last round */
    bool follows;             /* this image was exec'd by an earlier one that is known */
    uint64_t birth_ns;        /* start_mono_ns of the first image that this process had */
    uint64_t session_unix_ns; /* start of the session; start_unix_ns moves on with the pieces */
    struct tree *
        tree_file; /* of the structure that stands for the whole tree (see merge.h), else NULL: it has no region */
    uint32_t tree_write; /* number of the tree's file that the program waits for, or 0 */

    struct crash crash;
    struct dump *dump;      /* under way, or NULL */
    uint32_t dumps, dumped; /* so many were begun; the last dump_request that was served */
    struct {                /* the stack that a thread gave before it asked for a dump */
        char *text;         /* owned */
        size_t n;
        uint32_t tid;
    } dump_own;
    pid_t answering; /* fork that writes into the region's answer, 0 for none */

    pid_t writer; /* process that writes the file, 0 for none */
    struct batch *batch;
    unsigned batch_index, writer_tries;
    bool writer_final, writer_unnamed;
    uint64_t writer_since_ns;
    uint32_t flush_wanted, flush_writing;
};

uint64_t now_mono_ns(void);

/* Takes over a region and the descriptors of a hello (closed on failure, too). NULL, and *why is set, if the region
 * cannot be used or without memory. */
struct process *process_new(const struct stile__hello *hello, const int *fds, pid_t pid, const char **why);
void process_free(struct process *p);

/* Reads what the program's maps say now, and what the region's modules text says. */
void process_maps_refresh(struct process *p);

/* Whether a file is to be written with what there is: the one that the user named, and any that has samples. */
bool process_file_due(const struct process *p, int file);
bool process_has_samples(const struct process *p, int file);

/* The error of the first of its files that could not be written the last time, and a line about it; 0 if there is none. */
int process_files_trouble(const struct process *p, char *message, size_t size);

/* Takes all records out of the rings into the call tree. */
void process_drain(struct process *p);

/* The same, and tells the program if it waits for that. */
void process_drain_asked(struct process *p);

/* Adds weight to a stack of a thread, leaf first, under its reason if it is not whole; in_kernel: under a [kernel] leaf. */
void process_stack_add(struct process *p, uint32_t thread, const uint64_t *frames, size_t n,
                       enum stile__reason reason, bool in_kernel, uint64_t ticks, uint64_t ns);

/* The thread that has slot i now, as an index; UINT32_MAX without memory. */
uint32_t process_thread_of(struct process *p, uint32_t i);

/* Whether something was unloaded before a record that the last look at the maps had not seen: it waits for the next. */
bool process_maps_wait(struct process *p, const struct stile__record *r);

/* Reads the process's CPU clock, while it can be read. */
void process_clock_read(struct process *p);

/* Compares what was booked with the clocks of threads and process, once nothing more will be booked, and books the
 * rest by its cause. */
void process_settle(struct process *p);

/* What its region tells now, or what is known of all processes of a tree. */
struct told process_told(const struct process *p);

/* What ticked for its threads, in words. */
void process_clock_describe(const struct process *p, char *text, size_t size);

/* The name of the process: that of its main thread, or the file that its command line begins with. comm: 17 bytes. */
void process_comm(const struct process *p, char *comm);

/* Makes `want` snapshot blocks ready, or as many as there can be. The collector populates them, so the program pays
 * nothing for it. */
void process_blocks_grow(struct process *p, uint32_t want);

/* The last drain, when the program's end or wish is known. */
void process_end(struct process *p);

/* Whether the process has ended, all of its threads. */
bool process_dead(const struct process *p);

/* True if the image is gone though the process lives: it has exec'd. */
bool process_image_gone(const struct process *p);

/* Tells the program what became of its file; message may be NULL. */
void process_answer_finish(struct process *p, bool failed, const char *message);
void process_answer_flush(struct process *p, uint32_t request, const char *message);

#endif
