/* What is said over the socket: one SOCK_SEQPACKET message per purpose, on the collector's abstract address.
 * The agent connects, says it and closes, so that it holds no file descriptor between messages. `stile record`
 * stays connected and is told how things stand. */
#ifndef STILE_REGION_HELLO_H
#define STILE_REGION_HELLO_H

#include <stdint.h>

enum stile__message_type {
    STILE__MESSAGE_HELLO = 1, /* a process and its region; carries STILE__HELLO_FDS descriptors */
    STILE__MESSAGE_POKE,      /* look at the requests in the regions now */
    STILE__MESSAGE_CLIENT,    /* `stile record`: send status until the tree has ended */
    STILE__MESSAGE_CLIENT_END, /* `stile record`: its command, process `pid`, has ended; answer with the summary */
    STILE__MESSAGE_DUMP /* `stile dump`: all stacks of a process, to the one descriptor that comes with it */
};

enum { STILE__HELLO_FD_REGION, STILE__HELLO_FD_MAPS, STILE__HELLO_FD_PIDFD, STILE__HELLO_FDS };

#define STILE__HELLO_TEXT_MAX 32768u

/* Strings follow one another in text, each ended by a NUL, in the order of the enum below. */
struct stile__hello {
    uint32_t type;    /* enum stile__message_type */
    uint32_t version; /* STILE__REGION_VERSION */
    int32_t pid;      /* as the program sees itself */
    uint32_t text_len;
    char text[STILE__HELLO_TEXT_MAX];
};
enum stile__hello_text {
    STILE__HELLO_TEMPLATE,       /* PROFILE as it was set; "" for no CPU profile */
    STILE__HELLO_PATH,           /* the same with %p, %e and %t expanded */
    STILE__HELLO_CWD,            /* directory that a relative path is relative to */
    STILE__HELLO_COMMAND,        /* command line, arguments separated by spaces */
    STILE__HELLO_BLOCK_TEMPLATE, /* PROFILE_BLOCK as it was set; "" for no blocking profile */
    STILE__HELLO_BLOCK_PATH,     /* the same with %p, %e and %t expanded */
    STILE__HELLO_CRASH_PATH,     /* file of PROFILE_CRASH, expanded; "" for none */
    STILE__HELLO_TEXTS
};

/* STILE__MESSAGE_CLIENT. */
struct stile__client_begin {
    uint32_t type;
    uint32_t merge; /* 1: one file for the whole tree */
};

/* STILE__MESSAGE_CLIENT_END: process `pid`, and how it ended. */
struct stile__client_end {
    uint32_t type;
    int32_t pid;
    int32_t wait_status; /* as waitpid has it */
    uint64_t used_ns;    /* CPU time of it and of all that it had waited for; 0: not known */
};

/* STILE__MESSAGE_DUMP, and what is said when it is done. */
struct stile__dump_ask {
    uint32_t type;
    int32_t pid;        /* as the asking process sees it */
    uint32_t interrupt; /* 1: threads that wait in what no hook sees are signalled, too */
};
struct stile__dump_told {
    int32_t error; /* 0, -ESRCH: this collector has no such process, or another -errno */
    uint32_t threads, shown;
    char message[256]; /* one line when error is set */
};

/* Told to a client about twice a second and at the end (final != 0). Totals over the whole tree. */
struct stile__status {
    uint64_t ticks;
    uint64_t cpu_ns;           /* CPU time sampled */
    uint64_t bracketed_ns[16]; /* by enum stile__reason */
    uint64_t kernel_ns;
    uint32_t processes;
    uint32_t final;
    int32_t error;   /* 0 or -errno of writing the first file */
    uint32_t files;  /* written so far */
    uint32_t failed; /* that could not be written */
    uint64_t signals;
    uint32_t numbered;   /* a process may write several files: they have numbers */
    uint32_t lines_late; /* places whose lines are left out, since looking them up took too long */
    char path[4096];     /* the first process's file; "" when no process was profiled */
    char busiest[4096];  /* the file with the most CPU time in it */
    uint64_t busiest_ns;
    char clock[128];   /* what ticked, in words: of the process with the most CPU time */
    char message[512]; /* one line when error is set */
    uint64_t waits, wait_ns;
    uint64_t wait_reason_ns[32]; /* by enum stile__wait_reason */
    uint32_t block_files;        /* blocking profiles written so far */
    uint32_t pad2;
    char block_path[4096]; /* the first process's blocking profile; "" for none */
    char block_most[4096]; /* the one with the most time in it */
    uint64_t block_most_ns;
    uint64_t unprofiled_ns; /* CPU time of children that have no profile, as far as that is known */
    uint32_t merged;        /* images of processes in the tree's one file; 0: each process has its own */
    uint32_t running;       /* processes of the tree that have not ended */
};

/* The environment variable by which a descendant finds the collector: "NAME@PID:ROOT", NAME the abstract address
 * without its leading NUL, PID the process that waits for the file at its end (0: none does), ROOT the process that is
 * no child. */
#define STILE__ROOT_ENV "STILE_ROOT"

#endif
