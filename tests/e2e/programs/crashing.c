/* crashing KIND: dies, or nearly so, in a way that KIND names. Says "before" on descriptor 2 first. Linked with nothing of Stile's:
 * what it calls is there if the library is preloaded. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int call(int);
static int called(const char *name, int argument)
{
    void *f = dlsym(RTLD_DEFAULT, name);
    return f != NULL ? ((call *)f)(argument) : -ENOSYS;
}

static int stile_crash_output_set(int fd)
{
    return called("stile_crash_output_set", fd);
}

static int stile_crash_enable(void)
{
    return called("stile_crash_enable", 0);
}

#define NOINLINE __attribute__((noinline, noclone))

void crash_here(char *address);

static char *const nowhere = (char *)0x10;

/* Exported, so that the report names it by itself. */
__attribute__((visibility("default"))) NOINLINE void crash_here(char *address)
{
    *(volatile char *)address = 1;
    __asm__ volatile("" ::: "memory");
}

static NOINLINE void crash_unnamed(char *address)
{
    crash_here(address);
    __asm__ volatile("" ::: "memory"); /* no tail call */
}

static void bad_access(void)
{
    crash_unnamed(nowhere);
}

static void bad_call(void)
{
    void (*volatile f)(void) = NULL;
    f();
    __asm__ volatile("" ::: "memory");
}

static void bus(void)
{
    FILE *f = tmpfile();
    char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    crash_unnamed(at);
}

static void illegal(void)
{
    __asm__ volatile("ud2");
}

static void divide(void)
{
    volatile int zero = 0, many = 100;
    printf("%d\n", many / zero);
}

static void breakpoint(void)
{
    __asm__ volatile("int3");
}

static void forbidden(void)
{
    raise(SIGSYS);
}

static volatile int never_so_deep = 1 << 30;
static NOINLINE int deeper(int n)
{
    if (n > never_so_deep)
        return 0;
    volatile char room[256];
    room[n % 256] = (char)n;
    return deeper(n + 1) + room[n % 200];
}

static void overflow(void)
{
    printf("%d\n", deeper(1));
}

static void *overflow_run(void *arg)
{
    overflow();
    return arg;
}

static void overflow_in_thread(void)
{
    pthread_t t;
    pthread_create(&t, NULL, overflow_run, NULL);
    pthread_join(t, NULL);
}

static void in_malloc(void)
{
    void *volatile p = malloc(100);
    free(p);
    free(p); /* libc finds this out and says so */
}

static void on_signal(int number)
{
    if (number == SIGUSR1)
        crash_unnamed(nowhere);
}

static void in_handler(void)
{
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
}

static pthread_barrier_t together;
static void *crash_run(void *arg)
{
    pthread_barrier_wait(&together);
    crash_unnamed(nowhere);
    return arg;
}

static void two(void)
{
    pthread_t t[2];
    pthread_barrier_init(&together, NULL, 2);
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, crash_run, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

static void child_report(pid_t pid)
{
    int status;
    waitpid(pid, &status, 0);
    printf("child: %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    fflush(stdout);
}

static void in_child(void)
{
    pid_t pid = fork();
    if (pid == 0)
        bad_access();
    child_report(pid);
}

/* Its memory is this process's: nothing of the report's state may be touched. */
static void in_vfork_child(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        crash_here(nowhere);
        _exit(1);
    }
    child_report(pid);
    bad_access();
}

static void closed(void)
{
    close(2);
    bad_access();
}

/* Descriptor 2 is a file that the program opened itself. */
static void reopened(void)
{
    close(2);
    if (open("data", O_WRONLY | O_CREAT | O_TRUNC, 0600) != 2)
        abort();
    bad_access();
}

static sigjmp_buf back;
static volatile sig_atomic_t handled;
static void jump_back(int number)
{
    handled = number;
    siglongjmp(back, 1);
}

static void survived(void)
{
    for (volatile int i = 0; i < 3; i++) {
        signal(SIGSEGV, jump_back);
        if (sigsetjmp(back, 1) == 0)
            crash_unnamed(nowhere);
    }
    printf("survived: %d\n", handled);
}

/* Goes on, and then crashes for good. */
static void survived_once(void)
{
    survived();
    fflush(stdout);
    signal(SIGSEGV, SIG_DFL);
    pthread_t t;
    pthread_barrier_init(&together, NULL, 1);
    pthread_create(&t, NULL, crash_run, NULL);
    pthread_join(t, NULL);
}

/* The same in one thread: the second crash is deeper than the first one, and on the same stack. */
static NOINLINE void crash_deeper(int n)
{
    volatile char room[256];
    room[0] = (char)n;
    if (n > 0)
        crash_deeper(n - 1);
    else
        crash_unnamed(nowhere);
    room[1] = room[0];
}

static void survived_in_place(void)
{
    signal(SIGSEGV, jump_back);
    if (sigsetjmp(back, 1) == 0)
        crash_unnamed(nowhere);
    signal(SIGSEGV, SIG_DFL);
    crash_deeper(5);
}

/* Signals are let in for the time of a call. */
static void let_in(void)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &all, NULL);
    kill(getpid(), SIGABRT);
    ppoll(NULL, 0, NULL, &none);
    printf("it went on\n");
}

/* No filter that lets through what libc does need let this through. */
static void filtered(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_tgsigqueueinfo, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        exit(98);
    breakpoint();
    printf("it went on\n");
}

static void exit_7(int number)
{
    (void)number;
    _exit(7);
}

/* Children that libc does not know of have the handler of their parent. */
static void in_bare_child(void)
{
    signal(SIGSEGV, exit_7);
    pid_t pid = (pid_t)syscall(SYS_fork);
    if (pid == 0)
        bad_access();
    child_report(pid);
}

static _Atomic int is_deaf;

static void *sleep_blocked(void *arg)
{
    uint64_t all = ~0ull;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
    is_deaf = 1;
    for (;;)
        pause();
    return arg;
}

static void *sleep_open(void *arg)
{
    for (;;)
        pause();
    return arg;
}

/* Its stack is there, and is not, while it is walked. */
static char *deepest, *highest;
static _Atomic int deep_enough;

static void *vanish(void *arg)
{
    uint64_t all = ~0ull;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
    while (!deep_enough)
        usleep(100);
    for (;;) {
        usleep(4000);
        mprotect(deepest, (size_t)(highest - deepest), PROT_NONE);
        usleep(1000);
        mprotect(deepest, (size_t)(highest - deepest), PROT_READ | PROT_WRITE);
    }
    return arg;
}

static NOINLINE void go_down(int n)
{
    volatile char room[64];
    room[0] = (char)n;
    char *const page = (char *)((uintptr_t)room & ~4095ul);
    if (n == 59900)
        highest = page;
    if (n == 100)
        deepest = page;
    if (n > 0) {
        go_down(n - 1);
    } else {
        deep_enough = 1;
        crash_unnamed(nowhere);
    }
    room[1] = room[0];
}

static void *go_down_run(void *arg)
{
    go_down(60000);
    return arg;
}

static void vanishing(void)
{
    pthread_t t;
    pthread_create(&t, NULL, vanish, NULL);
    pthread_create(&t, NULL, go_down_run, NULL);
    pthread_join(t, NULL);
}

/* Thousands of threads, of which one never answers. */
static void thousands(void)
{
    pthread_attr_t attr;
    pthread_t t;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    for (int i = 0; i < 2000; i++)
        if (pthread_create(&t, &attr, i == 0 ? sleep_blocked : sleep_open, NULL) != 0)
            exit(98);
    while (!is_deaf)
        usleep(1000);
    bad_access();
}

static void say_and_exit(int number, siginfo_t *info, void *context)
{
    (void)context;
    printf("mine: %d %d %p\n", number, info->si_code, info->si_addr);
    fflush(stdout);
    _exit(7);
}

static void own_handler(void)
{
    struct sigaction sa = {.sa_sigaction = say_and_exit, .sa_flags = SA_SIGINFO}, seen;
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGSEGV, NULL, &seen);
    printf("seen: %d %d\n", seen.sa_sigaction == say_and_exit, seen.sa_flags == SA_SIGINFO);
    bad_access();
}

static void say_and_raise(int number)
{
    static const char text[] = "mine\n";
    if (write(1, text, sizeof text - 1) < 0)
        _exit(8);
    signal(number, SIG_DFL);
    raise(number);
}

static void raising_handler(void)
{
    signal(SIGSEGV, say_and_raise);
    signal(SIGABRT, say_and_raise);
    bad_access();
}

static void ignored(void)
{
    signal(SIGTRAP, SIG_IGN);
    raise(SIGTRAP);
    printf("ignored\n");
}

static void untouched(void)
{
    struct sigaction seen;
    const int all[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        sigaction(all[i], NULL, &seen);
        printf("%d ", seen.sa_handler == SIG_DFL && seen.sa_flags == 0);
    }
    printf("%d\n", signal(SIGSEGV, SIG_IGN) == SIG_DFL && signal(SIGSEGV, SIG_DFL) == SIG_IGN);
}

static void in_loader(void)
{
    void *plugin = dlopen(getenv("CRASHING_PLUGIN"), RTLD_NOW);
    printf("%p %s\n", plugin, dlerror());
}

/* The crash output is a file of ours; what goes to descriptor 2 before does not go there. */
static void output_set(void)
{
    int fd = open("crash.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    printf("set: %d %d %d\n", stile_crash_output_set(fd), stile_crash_output_set(-5),
           stile_crash_output_set(12345));
    fflush(stdout);
    close(fd);
    fprintf(stderr, "after it was set\n");
    bad_access();
}

static void output_off(void)
{
    int fd = open("crash.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    stile_crash_output_set(fd);
    stile_crash_output_set(-1);
    bad_access();
}

static void enabled(void)
{
    printf("enable: %d %d\n", stile_crash_enable(), stile_crash_enable());
    fflush(stdout);
    output_set();
}

/* A profile in between leaves the crash output as it was set. */
static void profiled(void)
{
    struct {
        size_t size;
        const char *path;
        unsigned hz;
        int signal;
    } options = {sizeof options, "between.pb.gz", 0, 0};
    int (*start)(const void *) = (int (*)(const void *))dlsym(RTLD_DEFAULT, "stile_profile_start");
    int (*stop)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "stile_profile_stop");
    const int started = start(&options);
    printf("%d %d\n", started, stop());
    fflush(stdout);
}

static void profiled_before(void)
{
    profiled();
    bad_access();
}

static void profiled_and_set(void)
{
    int fd = open("crash.txt", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    stile_crash_output_set(fd);
    close(fd);
    profiled();
    bad_access();
}

/* A monitor: reads to the end of file, which is the end of the report. */
static void monitor(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        abort();
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[0], 0);
        execl("/bin/sh", "sh", "-c", "cat > monitor.txt; echo end >> monitor.txt", NULL);
        _exit(127);
    }
    close(ends[0]);
    stile_crash_output_set(ends[1]);
    close(ends[1]);
    bad_access();
}

/* All threads of a kind do the same; see test_crash.py. */
static _Atomic int ready;
static int never[2];
static void *read_for_ever(void *arg)
{
    char byte;
    pthread_setname_np(pthread_self(), "reader");
    ready++;
    if (read(never[0], &byte, 1) < 0)
        return NULL;
    return arg;
}

static void *allocate_for_ever(void *arg)
{
    pthread_setname_np(pthread_self(), "allocator");
    ready++;
    for (;;) {
        void *p = malloc(100 + (size_t)(rand() % 1000));
        __asm__ volatile("" : "+r"(p));
        free(p);
    }
    return arg;
}

static NOINLINE void *count_for_ever(void *arg)
{
    pthread_setname_np(pthread_self(), "counter");
    ready++;
    for (volatile unsigned long n = 0;; n++)
        ;
    return arg;
}

static void many(void)
{
    const int n = 199;
    pthread_t t;
    if (pipe(never) != 0)
        abort();
    for (int i = 0; i < n; i++) {
        /* Rules are learned of the first one that waits: of many at once, without, there is not room for all that they leave. */
        if (i == 1)
            usleep(1000000);
        pthread_create(&t, NULL,
                       i < n / 2       ? read_for_ever
                       : i < n / 4 * 3 ? allocate_for_ever
                                       : count_for_ever,
                       NULL);
    }
    while (ready < n)
        usleep(1000);
    usleep(100000);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%lld\n", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    fflush(stdout);
    bad_access();
}

static void long_run(void)
{
    pthread_t t;
    if (pipe(never) != 0)
        abort();
    pthread_create(&t, NULL, read_for_ever, NULL);
    pthread_create(&t, NULL, allocate_for_ever, NULL);
    while (ready < 2)
        usleep(1000);
    printf("ready\n");
    fflush(stdout);
    count_for_ever(NULL);
}

/* Crashes while another thread exchanges the crash output for another one, all the time. Both files get parts of nothing: the
 * report is whole in one of them. A third one is opened again and again, to get a number that was just closed. */
static void *swap(void *arg)
{
    int a = open("a", O_WRONLY | O_CREAT | O_APPEND, 0600),
        b = open("b", O_WRONLY | O_CREAT | O_APPEND, 0600);
    stile_crash_output_set(a);
    ready = 1;
    for (;;) {
        stile_crash_output_set(b);
        stile_crash_output_set(a);
    }
    return arg;
}

static void *reuse(void *arg)
{
    for (;;) {
        int fd = open("foreign", O_WRONLY | O_CREAT | O_APPEND, 0600);
        close(fcntl(fd, F_DUPFD, 3));
        close(fd);
    }
    return arg;
}

static void swapping(void)
{
    pthread_t t;
    pthread_create(&t, NULL, swap, NULL);
    pthread_create(&t, NULL, reuse, NULL);
    while (!ready)
        sched_yield();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (long i = now.tv_nsec % 20000; i > 0; i--)
        __asm__ volatile("");
    bad_access();
}

int main(int argc, char **argv)
{
    static const struct kind {
        const char *name;
        void (*run)(void);
    } kinds[] = {
        {"access", bad_access},
        {"call", bad_call},
        {"bus", bus},
        {"illegal", illegal},
        {"divide", divide},
        {"trap", breakpoint},
        {"sys", forbidden},
        {"abort", abort},
        {"overflow", overflow},
        {"overflow-thread", overflow_in_thread},
        {"malloc", in_malloc},
        {"handler", in_handler},
        {"two", two},
        {"child", in_child},
        {"vfork", in_vfork_child},
        {"closed", closed},
        {"reopened", reopened},
        {"survived", survived},
        {"survived-once", survived_once},
        {"survived-in-place", survived_in_place},
        {"let-in", let_in},
        {"filtered", filtered},
        {"bare-child", in_bare_child},
        {"thousands", thousands},
        {"vanishing", vanishing},
        {"own-handler", own_handler},
        {"raising", raising_handler},
        {"ignored", ignored},
        {"untouched", untouched},
        {"loader", in_loader},
        {"output", output_set},
        {"output-off", output_off},
        {"enable", enabled},
        {"monitor", monitor},
        {"profiled", profiled_before},
        {"profiled-and-set", profiled_and_set},
        {"many", many},
        {"long", long_run},
        {"swapping", swapping},
    };
    if (getenv("CRASHING_SILENT") == NULL)
        fprintf(stderr, "before\n");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (argc > 1 && strcmp(argv[1], kinds[i].name) == 0) {
            kinds[i].run();
            return 0;
        }
    return 99;
}
