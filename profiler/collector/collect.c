/* The collector's main loop: hears of processes, drains them, sees them end, has their files written. One thread;
 * nothing in it waits longer than one round. */
#include "profiler/collector/collect.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "profiler/collector/crash.h"
#include "profiler/collector/dump.h"
#include "profiler/collector/names.h"
#include "profiler/collector/pieces.h"
#include "profiler/collector/process.h"
#include "profiler/collector/tree.h"
#include "profiler/collector/waits.h"
#include "profiler/collector/writers.h"

#define LISTENER_FD   3
#define LINGER_NS     300000000ull   /* after the last process: a child may just be saying hello */
#define FIRST_WAIT_NS 10000000000ull /* for the first process */
#define STATUS_NS     500000000ull
#define IMAGE_NS      250000000ull /* between looks whether images are still there */
#define CHECKPOINT_NS 1000000000ull
#define CLIENTS_MAX   16
#define MMAP_FROM     (64 << 10) /* bytes */
#define ROUND_MS_MAX  50
#define ROUND_MS_MIN  4
#define FREEZE_MS     2          /* a round, while a program stands still for us */
#define WAITS_MS      20         /* a round, where waits are recorded */
#define PIDFS_MAGIC   0x50494446 /* of a pidfd's file system, from Linux 6.9 on */
#define RECORD_CELLS  8u         /* of a ring that a sample takes, if it is 50 frames deep */

struct client {
    int fd;
    pid_t pid;         /* its own */
    int32_t ended_pid; /* its command, 0 while that runs */
};

static struct {
    struct process *processes;
    struct client clients[CLIENTS_MAX];
    int n_clients;
    struct stile__status total; /* of processes that are gone */
    struct target first_files[FILES];
    int first_error;
    char first_message[512];
    bool any, had_client;
    bool refused; /* a process was not taken: it is of another version, or there was no memory */
    uint64_t last_busy_ns, last_status_ns, last_image_ns, last_checkpoint_ns;
} c;

static bool readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

/* Whether two pidfds are of one process, which may have ended. Older kernels, which give all the same number, do not tell. */
static bool same_process(int a, int b)
{
    struct statfs fs;
    struct stat one, other;
    return fstatfs(a, &fs) == 0 && fs.f_type == PIDFS_MAGIC && fstat(a, &one) == 0 && fstat(b, &other) == 0 &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static struct process *process_of(pid_t pid)
{
    for (struct process *p = c.processes; p != NULL; p = p->next)
        if (p->pid == pid && p->origin == NULL)
            return p;
    return NULL;
}

static void hello_take(const struct stile__hello *hello, size_t size, const int *fds, pid_t pid)
{
    struct hello_text text;
    const char *why;

    if (!hello_parse(hello, size, &text)) {
        c.refused = true;
        for (int i = 0; i < STILE__HELLO_FDS; i++)
            close(fds[i]);
        return;
    }
    struct process *earlier = process_of(pid);
    if (earlier != NULL && readable(earlier->pidfd) &&
        !same_process(earlier->pidfd, fds[STILE__HELLO_FD_PIDFD])) {
        /* not its exec: the pid of a dead process, used again */
        process_end(earlier);
        names_release(pid);
        earlier = NULL;
    }
    struct process *p = process_new(hello, fds, pid, &why);
    if (p == NULL) {
        c.refused = true;
        return;
    }
    bool restarted = earlier != NULL && earlier->state == PROCESS_DONE &&
                     atomic_load_explicit(&earlier->region->finish_request, memory_order_relaxed) != 0;
    if (earlier != NULL) {
        process_end(earlier); /* with its last cuts, so that its numbers are known */
        crash_replaced(earlier);
        p->birth_ns = earlier->birth_ns;
        p->follows = true;
        p->earlier_cpu_ns = earlier->earlier_cpu_ns + earlier->cut_cpu_ns + earlier->cpu_ns;
    }
    names_assign(p, &text, restarted ? NULL : earlier);
    pid_t clients[CLIENTS_MAX];
    for (int i = 0; i < c.n_clients; i++)
        clients[i] = c.clients[i].pid;
    crash_begin(p, &text, clients, c.n_clients);
    snprintf(p->command, sizeof p->command, "%s", text.text[STILE__HELLO_COMMAND]);
    tree_join(p);
    if (!c.any)
        memcpy(c.first_files, p->files, sizeof c.first_files);
    c.any = true;
    p->next = c.processes;
    c.processes = p;
}

static void client_add(int fd, pid_t pid)
{
    if (c.n_clients == CLIENTS_MAX) {
        close(fd);
        return;
    }
    c.had_client = true;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    c.clients[c.n_clients++] = (struct client){.fd = fd, .pid = pid};
}

/* Takes the descriptors of a message. Returns how many there are; more than a hello has are closed. */
static int descriptors_take(struct msghdr *msg, int *fds)
{
    int n = 0;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m != NULL; m = CMSG_NXTHDR(msg, m))
        if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_RIGHTS)
            for (size_t i = 0; i < (m->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                int fd;
                memcpy(&fd, CMSG_DATA(m) + i * sizeof fd, sizeof fd);
                if (n < STILE__HELLO_FDS)
                    fds[n++] = fd;
                else
                    close(fd);
            }
    return n;
}

/* What a message asks for. Descriptors that go to somebody are his, n_fds is 0 then. True if the connection is, too. */
static bool message_take(int fd, const struct stile__hello *said, size_t n, pid_t peer, const int *fds,
                         int *n_fds)
{
    if (said->type == STILE__MESSAGE_CLIENT && *n_fds == 0 && n == sizeof(struct stile__client_begin)) {
        struct stile__client_begin begin;
        memcpy(&begin, said, sizeof begin);
        if (begin.merge != 0)
            tree_begin();
        client_add(fd, peer);
        return true;
    }
    if (said->type == STILE__MESSAGE_HELLO && *n_fds == STILE__HELLO_FDS) {
        *n_fds = 0;
        hello_take(said, n, fds, peer);
    } else if (said->type == STILE__MESSAGE_DUMP && *n_fds == 1 && n == sizeof(struct stile__dump_ask)) {
        struct stile__dump_ask ask;
        memcpy(&ask, said, sizeof ask);
        *n_fds = 0;
        dump_ask(c.processes, &ask, fd, fds[0]);
        return true;
    }
    return false;
}

/* One connection: a message, and for all but clients and dumps the end. */
static void connection_take(int fd)
{
    static struct stile__hello hello;
    union {
        char bytes[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {&hello, sizeof hello};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
    struct ucred peer;
    socklen_t peer_len = sizeof peer;
    struct timeval patience = {.tv_usec = 100000};
    int fds[STILE__HELLO_FDS];

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0 && geteuid() != 0))
        goto out;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t n;
    while ((n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ; /* a writer has ended */
    int n_fds = n > 0 ? descriptors_take(&msg, fds) : 0;
    bool kept = n >= (ssize_t)sizeof hello.type && message_take(fd, &hello, (size_t)n, peer.pid, fds, &n_fds);
    while (n_fds > 0)
        close(fds[--n_fds]);
    if (kept)
        return;
out:
    close(fd);
}

static void listener_take(void)
{
    int fd;
    while ((fd = accept4(LISTENER_FD, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        connection_take(fd);
}

_Static_assert(STILE__WAIT_REASONS <= sizeof((struct stile__status *)0)->wait_reason_ns / sizeof(uint64_t),
               "a place for each reason");

static void status_add(struct stile__status *s, const struct process *p)
{
    s->ticks += p->ticks;
    s->cpu_ns += p->cpu_ns;
    s->kernel_ns += p->kernel_ns;
    s->signals += p->signals;
    s->processes += p->origin == NULL && !p->follows;
    s->numbered = s->numbered || p->numbered;
    s->files += p->files[FILE_CPU].wrote;
    s->block_files += p->files[FILE_BLOCK].wrote;
    for (int i = 0; i < FILES; i++)
        s->lines_late += p->files[i].lines_late;
    s->waits += p->waits.n;
    s->wait_ns += p->waits.ns;
    for (int i = 0; i < STILE__WAIT_REASONS; i++)
        s->wait_reason_ns[i] += p->waits.reason_ns[i];
    if (p->files[FILE_BLOCK].wrote && p->waits.ns > s->block_most_ns) {
        s->block_most_ns = p->waits.ns;
        snprintf(s->block_most, sizeof s->block_most, "%s", p->files[FILE_BLOCK].path);
    }
    for (int i = 0; i < STILE__REASON_COUNT; i++)
        s->bracketed_ns[i] += p->reason_ns[i];
    if (p->files[FILE_CPU].wrote && p->cpu_ns > s->busiest_ns) {
        s->busiest_ns = p->cpu_ns;
        snprintf(s->busiest, sizeof s->busiest, "%s", p->files[FILE_CPU].path);
        process_clock_describe(p, s->clock, sizeof s->clock);
    }
}

static void status_fill(struct stile__status *s)
{
    *s = c.total;
    for (const struct process *p = c.processes; p != NULL; p = p->next)
        status_add(s, p);
    if (tree_process() != NULL)
        tree_status(s);
    s->running = tree_running(c.processes);
    s->error = s->error != 0 ? s->error : c.first_error;
    snprintf(s->path, sizeof s->path, "%s", c.first_files[FILE_CPU].path);
    snprintf(s->block_path, sizeof s->block_path, "%s", c.first_files[FILE_BLOCK].path);
    if (s->message[0] == '\0')
        snprintf(s->message, sizeof s->message, "%s", c.first_message);
}

static void client_drop(int i)
{
    close(c.clients[i].fd);
    c.clients[i] = c.clients[--c.n_clients];
}

/* Whether all that has ended is written, the command's own process too. */
static bool settled(int32_t pid)
{
    for (const struct process *p = c.processes; p != NULL; p = p->next)
        if (p->state == PROCESS_ENDED || p->state == PROCESS_WRITING ||
            (p->pid == pid && p->state != PROCESS_DONE) || crash_pending(p))
            return false;
    return true;
}

static void command_ended(const struct stile__client_end *said)
{
    for (struct process *p = c.processes; p != NULL; p = p->next)
        if (p->pid == said->pid && p->origin == NULL)
            crash_ended(p, said->wait_status);
}

/* Whether some `stile record` has not said yet how its command ended. */
static bool commands_run(void)
{
    for (int i = 0; i < c.n_clients; i++)
        if (c.clients[i].ended_pid == 0)
            return true;
    return false;
}

/* Reads what clients say and tells them how things stand. A client that is gone is forgotten. */
static void clients_serve(uint64_t now)
{
    static struct stile__status s;
    bool due = now - c.last_status_ns > STATUS_NS;

    for (int i = 0; i < c.n_clients; i++) {
        struct stile__client_end said;
        ssize_t n = recv(c.clients[i].fd, &said, sizeof said, MSG_DONTWAIT);
        if (n == sizeof said && said.type == STILE__MESSAGE_CLIENT_END) {
            c.clients[i].ended_pid = said.pid;
            tree_command_ended(&(struct tree_command){c.clients[i].pid, said.used_ns});
            command_ended(&said);
        }
        bool final = c.clients[i].ended_pid != 0 && settled(c.clients[i].ended_pid) && tree_written();
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            client_drop(i--);
            continue;
        }
        if (!due && !final)
            continue;
        status_fill(&s);
        s.final = final;
        send(c.clients[i].fd, &s, sizeof s, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (final)
            client_drop(i--);
    }
    if (due)
        c.last_status_ns = now;
}

/* Whether the tree's file has to be there: its command has ended, and all that has ended with it is known. */
static bool command_over(void)
{
    for (int i = 0; i < c.n_clients; i++)
        if (c.clients[i].ended_pid != 0 && settled(c.clients[i].ended_pid))
            return true;
    /* Nobody will say so any more. */
    return c.n_clients == 0 && tree_running(c.processes) == 0 && settled(0);
}

static void forget(struct process **at)
{
    struct process *p = *at;
    status_add(&c.total, p);
    if (p->origin == NULL)
        names_release(p->pid);
    *at = p->next;
    process_free(p);
}

static bool has_samples(const struct process *p)
{
    return process_has_samples(p, FILE_CPU) || process_has_samples(p, FILE_BLOCK);
}

/* One look at one process. */
static void process_round(struct process *p, uint64_t now, bool look_at_images)
{
    int error = 0;

    atomic_fetch_add_explicit(&p->region->heartbeat, 1, memory_order_relaxed);
    if (p->state == PROCESS_ACTIVE) {
        bool finish = atomic_load_explicit(&p->region->finish_request, memory_order_acquire) != 0;
        bool dead = readable(p->pidfd);
        if (finish || dead || (look_at_images && process_image_gone(p)))
            process_end(p);
        else
            process_drain_asked(p);
        if (p->state == PROCESS_ACTIVE) {
            waits_look(p, false);
            pieces_look(p, now);
        }
        p->flush_wanted = atomic_load_explicit(&p->region->flush_request, memory_order_acquire);
        /* With pid 1 its whole namespace dies, we too: what there is is kept on disk while it lives. */
        if (!pieces_running(p) && !has_samples(p) && p->flush_wanted != p->flush_writing) {
            p->flush_writing = p->flush_wanted; /* nothing is being sampled: there is no file to be had */
            process_answer_flush(p, p->flush_wanted, NULL);
        }
        if (p->own_pid == 1 && pieces_running(p) && now - c.last_checkpoint_ns > CHECKPOINT_NS &&
            p->flush_writing == p->flush_wanted) {
            c.last_checkpoint_ns = now;
            p->flush_writing--;
        }
        if (p->state == PROCESS_ACTIVE && p->writer == 0 && p->flush_writing != p->flush_wanted)
            waits_look(p, true); /* its file is up to date */
    }
    crash_round(p, commands_run());
    dump_round(p);
    bool over = writer_check(p, &error);
    if (!over || error == 0)
        return;
    for (int i = 0; i < FILES; i++)
        c.total.failed += p->files[i].error != 0;
    if (c.first_error == 0)
        c.first_error = process_files_trouble(p, c.first_message, sizeof c.first_message);
}

static void processes_round(uint64_t now)
{
    bool look = now - c.last_image_ns > IMAGE_NS;
    if (look)
        c.last_image_ns = now;
    for (struct process **at = &c.processes; *at != NULL;) {
        struct process *p = *at;
        process_round(p, now, look);
        pieces_adopt(p);
        /* Kept until its pid is free: what it execs takes its name over. What it has exec'd may have ended, too, and still be
         * to be heard of: it has said hello before its end, so the round after the one that sees that has heard it. */
        bool gone = p->origin != NULL || p->seen_dead;
        p->seen_dead = p->origin == NULL && readable(p->pidfd);
        if (p->state == PROCESS_DONE && p->pieces_open == 0 && !crash_pending(p) && !dump_pending(p) && gone)
            forget(at);
        else
            at = &p->next;
    }
    writers_start_due(c.processes);
    tree_round(c.processes, command_over());
}

/* Milliseconds in which a busy thread fills a quarter of its ring: of the smallest one, as slots go by when threads came and not
 * by what they do. */
static int ring_ms(const struct process *p)
{
    const uint32_t used = atomic_load_explicit(&p->region->slots_used, memory_order_relaxed);
    uint64_t records = stile__slot_cells(p->size, used != 0 ? used - 1 : 0) / RECORD_CELLS;
    int ms = (int)(records * 1000 / (4 * p->hz));
    return p->waits.on && ms > WAITS_MS ? WAITS_MS : ms; /* waits come at any rate */
}

/* How long a round may take so that no ring overflows at twice the rate. */
static int round_ms(void)
{
    int ms = ROUND_MS_MAX, least = ROUND_MS_MIN;
    uint64_t now = now_mono_ns();
    bool hurry = false;
    for (const struct process *p = c.processes; p != NULL; p = p->next) {
        uint64_t cut = pieces_next_ns(p);
        if (cut < now + (uint64_t)ms * 1000000)
            ms = cut > now ? (int)((cut - now) / 1000000) + 1 : 1;
        if (p->state == PROCESS_ACTIVE && ring_ms(p) < ms)
            ms = ring_ms(p);
        least = dump_urgent(p) ? FREEZE_MS : least;
        hurry = hurry || dump_urgent(p) || crash_urgent(p);
    }
    if (writers_running() != 0 || hurry)
        ms = least;
    return ms < least ? least : ms;
}

static bool over(uint64_t now)
{
    bool live = c.n_clients != 0 || !tree_idle();
    for (const struct process *p = c.processes; p != NULL; p = p->next)
        live = live || p->state != PROCESS_DONE || crash_pending(p) || dump_pending(p);
    if (live)
        c.last_busy_ns = now;
    return now - c.last_busy_ns > (c.any || c.had_client || c.refused ? LINGER_NS : FIRST_WAIT_NS);
}

/* A writer's end cuts the wait short: somebody may be waiting for its file. */
static void child_ended(int signal)
{
    (void)signal;
}

int stile__collect(void)
{
    struct sigaction on_child = {.sa_handler = child_ended, .sa_flags = SA_NOCLDSTOP};
    struct stat_check {
        int type;
        socklen_t len;
    } s = {.len = sizeof s.type};

    if (getsockopt(LISTENER_FD, SOL_SOCKET, SO_TYPE, &s.type, &s.len) != 0 || s.type != SOCK_SEQPACKET) {
        fputs("stile collect: started by a profiled program, not by hand\n", stderr);
        return 2;
    }
    prctl(PR_SET_NAME, "stile");
    /* Tables for all slots that there can be are pages that nobody touches, for each process. malloc would learn from the
     * first one's end to take them from memory that was used before, and clear it. */
    mallopt(M_MMAP_THRESHOLD, MMAP_FROM);
    signal(SIGPIPE, SIG_IGN);
    sigaction(SIGCHLD, &on_child, NULL);
    fcntl(LISTENER_FD, F_SETFL, O_NONBLOCK);
    fcntl(LISTENER_FD, F_SETFD, FD_CLOEXEC);
    c.last_busy_ns = now_mono_ns();
    for (;;) {
        struct pollfd fds[1 + CLIENTS_MAX] = {{LISTENER_FD, POLLIN, 0}};
        for (int i = 0; i < c.n_clients; i++)
            fds[1 + i] = (struct pollfd){c.clients[i].fd, POLLIN, 0};
        poll(fds, (nfds_t)c.n_clients + 1, round_ms());
        uint64_t now = now_mono_ns();
        listener_take();
        processes_round(now);
        clients_serve(now);
        if (over(now))
            return 0;
    }
}
