/* What the blocking profile costs a program that does not block.
 *
 * pairs: a lock taken and given back, a semaphore posted and waited for, a byte through a pipe that has it: nanoseconds a pair
 * without libstile, with libstile and nothing recorded, and with waits recorded (at the usual rate, and all of them). Each is
 * the least of several runs that take turns, as whatever else the machine does only adds.
 * redis: a server under load on a socket of its own: throughput, and its CPU time for each request, with waits recorded ÷ without,
 * medians of pairs of runs. */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/runs.h"

#define PAIRS       2000000u
#define PAIR_RUNS   9
#define REDIS_RUNS  9
#define REQUESTS    "200000"
#define START_MS    5000
#define COMMAND_MAX 12

enum { PLAIN, OFF, ON, ALL, MODES };
static const char *const mode_names[MODES] = {"plain", "off", "on", "all"};

static char self[PATH_MAX], library[PATH_MAX + 32], directory[] = "/tmp/stile-block-XXXXXX";

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* What is measured, in a process of its own. */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static sem_t sem;
static int fds[2];

static void pair_mutex(void)
{
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
}

static void pair_read(void)
{
    pthread_rwlock_rdlock(&rwlock);
    pthread_rwlock_unlock(&rwlock);
}

static void pair_write(void)
{
    pthread_rwlock_wrlock(&rwlock);
    pthread_rwlock_unlock(&rwlock);
}

static void pair_sem(void)
{
    sem_post(&sem);
    sem_wait(&sem);
}

static void pair_pipe(void)
{
    char byte = 0;
    if (write(fds[1], &byte, 1) != 1 || read(fds[0], &byte, 1) != 1)
        _exit(1);
}

static const struct pair {
    const char *name;
    void (*run)(void);
    unsigned divisor; /* of how often it is run */
} pairs[] = {{"mutex", pair_mutex, 1},
             {"rwlock, read", pair_read, 1},
             {"rwlock, write", pair_write, 1},
             {"semaphore", pair_sem, 1},
             {"pipe", pair_pipe, 8}};
#define PAIR_KINDS (sizeof pairs / sizeof *pairs)

static int pairs_time(void)
{
    if (pipe(fds) != 0 || sem_init(&sem, 0, 0) != 0)
        return 1;
    for (size_t k = 0; k < PAIR_KINDS; k++) {
        const unsigned n = PAIRS / pairs[k].divisor;
        for (unsigned i = 0; i < n / 10; i++)
            pairs[k].run();
        uint64_t start = now_ns();
        for (unsigned i = 0; i < n; i++)
            pairs[k].run();
        printf("%f\n", (double)(now_ns() - start) / n);
    }
    return 0;
}

/* Runs of it. */

static void mode_set(int mode)
{
    char block[PATH_MAX];
    unsetenv("PROFILE");
    unsetenv("PROFILE_BLOCK");
    snprintf(block, sizeof block, "%s/%%p.pb.gz", directory);
    if (mode == PLAIN)
        unsetenv("LD_PRELOAD");
    else
        setenv("LD_PRELOAD", library, 1);
    if (mode >= ON)
        setenv("PROFILE_BLOCK", block, 1);
    setenv("PROFILE_BLOCK_RATE", mode == ALL ? "1" : "10000", 1);
}

static pid_t start(int mode, const char *const *argv, int out)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    mode_set(mode);
    dup2(out, STDOUT_FILENO);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static bool pairs_run(int mode, double *ns)
{
    const char *argv[] = {self, "--pairs", NULL};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    pid_t pid = start(mode, argv, ends[1]);
    close(ends[1]);
    FILE *f = fdopen(ends[0], "r");
    bool good = f != NULL;
    for (size_t k = 0; good && k < PAIR_KINDS; k++)
        good = fscanf(f, "%lf", &ns[k]) == 1;
    if (f != NULL)
        fclose(f);
    int status = 1;
    return waitpid(pid, &status, 0) == pid && status == 0 && good;
}

static void directory_clear(bool remove_it)
{
    char command[64];
    snprintf(command, sizeof command, remove_it ? "rm -rf %s" : "rm -f %s/*.gz", directory);
    if (system(command) != 0)
        fprintf(stderr, "bench: cannot clear %s\n", directory);
}

static int bench_pairs(void)
{
    double least[MODES][PAIR_KINDS], ns[PAIR_KINDS];
    for (int m = 0; m < MODES; m++)
        for (size_t k = 0; k < PAIR_KINDS; k++)
            least[m][k] = 1e9;
    for (int run = 0; run < PAIR_RUNS; run++)
        for (int m = 0; m < MODES; m++) {
            if (!pairs_run(m, ns)) {
                fprintf(stderr, "bench: a run of \"%s\" failed\n", mode_names[m]);
                return 1;
            }
            for (size_t k = 0; k < PAIR_KINDS; k++)
                if (ns[k] < least[m][k])
                    least[m][k] = ns[k];
        }
    printf("%-14s %10s", "ns a pair", mode_names[PLAIN]);
    for (int m = OFF; m < MODES; m++)
        printf(" %8s %7s %7s", mode_names[m], "more", "ratio");
    printf("\n");
    for (size_t k = 0; k < PAIR_KINDS; k++) {
        printf("%-14s %10.2f", pairs[k].name, least[PLAIN][k]);
        for (int m = OFF; m < MODES; m++)
            printf(" %8.2f %+7.2f %7.3f", least[m][k], least[m][k] - least[PLAIN][k],
                   least[m][k] / least[PLAIN][k]);
        printf("\n");
    }
    return 0;
}

/* A server under load. */

struct load {
    double per_second; /* requests */
    double cpu;        /* seconds that the server used */
};

static bool command_run(const char *const *argv, char *text, size_t size)
{
    int ends[2], status = 1;
    size_t have = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    pid_t pid = start(PLAIN, argv, ends[1]);
    close(ends[1]);
    for (ssize_t n; (n = read(ends[0], text + have, size - 1 - have)) > 0;)
        have += (size_t)n;
    close(ends[0]);
    text[have] = '\0';
    return waitpid(pid, &status, 0) == pid && status == 0;
}

static bool redis_run(int mode, struct load *load)
{
    char socket[64], text[4096];
    snprintf(socket, sizeof socket, "%s/redis", directory);
    const char *server[COMMAND_MAX] = {"redis-server", "--port", "0", "--unixsocket",
                                       socket,         "--save", "",  NULL};
    const char *ping[COMMAND_MAX] = {"redis-cli", "-s", socket, "ping", NULL};
    const char *stop[COMMAND_MAX] = {"redis-cli", "-s", socket, "shutdown", "nosave", NULL};
    const char *press[COMMAND_MAX + 4] = {"redis-benchmark", "-s", socket, "-q", "--csv", "-t", "get", "-n",
                                          REQUESTS,          "-c", "20",   NULL};
    struct rusage use;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC), status = 1;
    pid_t pid = start(mode, server, null);
    close(null);
    bool up = false;
    for (int ms = 0; !up && ms < START_MS; ms += 20) {
        usleep(20000);
        up = access(socket, F_OK) == 0 && command_run(ping, text, sizeof text);
    }
    bool good = up && command_run(press, text, sizeof text);
    const char *at = good ? strstr(text, "\"GET\",\"") : NULL;
    load->per_second = at != NULL ? atof(at + 7) : 0;
    command_run(stop, text, sizeof text);
    if (!up)
        kill(pid, SIGTERM);
    if (wait4(pid, &status, 0, &use) != pid)
        return false;
    load->cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    return at != NULL && load->per_second > 0;
}

static int bench_redis(void)
{
    double throughput[REDIS_RUNS], cpu[REDIS_RUNS];
    for (int i = 0; i < REDIS_RUNS; i++) {
        struct load load[2];
        for (int k = 0; k < 2; k++) {
            int mode = (i + k) % 2 == 0 ? PLAIN : ON; /* the first has it easier or harder */
            if (!redis_run(mode, &load[mode == ON])) {
                fprintf(stderr, "bench: redis did not run (redis-server and redis-tools are needed)\n");
                return 1;
            }
        }
        directory_clear(false);
        throughput[i] = load[1].per_second / load[0].per_second;
        cpu[i] = load[1].cpu / load[0].cpu;
    }
    double t = runs_median(throughput, REDIS_RUNS), c = runs_median(cpu, REDIS_RUNS);
    printf("redis, waits recorded / plain, medians of %d pairs: throughput %.3f (%.3f to %.3f), "
           "CPU time for as many requests %.3f (%.3f to %.3f)\n",
           REDIS_RUNS, t, throughput[0], throughput[REDIS_RUNS - 1], c, cpu[0], cpu[REDIS_RUNS - 1]);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "--pairs") == 0)
        return pairs_time();
    if (what[0] != '\0' && strcmp(what, "pairs") != 0 && strcmp(what, "redis") != 0) {
        fputs("usage: block [pairs|redis]\n", stderr);
        return 2;
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0 || mkdtemp(directory) == NULL) {
        perror("bench");
        return 1;
    }
    self[n] = '\0';
    snprintf(library, sizeof library, "%.*s/../lib/libstile.so", (int)(strrchr(self, '/') - self), self);
    int failed = 0;
    if (strcmp(what, "redis") != 0)
        failed |= bench_pairs();
    if (strcmp(what, "pairs") != 0)
        failed |= bench_redis();
    directory_clear(true);
    return failed;
}
