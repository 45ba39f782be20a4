/* Signal handlers that jump away from where the lock of their thread's stack is often held: `lock_left MS` unwinds by force
 * through deep stacks, again and again, while a timer's handler leaves by siglongjmp, from wherever that is. Nothing here
 * allocates or takes a lock of its own. Says whether all returns and unwinds led where they should. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unwind.h>

#include "deep.h"

static sigjmp_buf back, landed;
static volatile sig_atomic_t may_jump, jumped;
static volatile unsigned unwound;
static struct _Unwind_Exception exception;
static uint64_t until_cfa;

static void on_timer(int number)
{
    (void)number;
    if (!may_jump)
        return;
    may_jump = 0;
    jumped = jumped + 1;
    siglongjmp(back, 1);
}

static _Unwind_Reason_Code stop(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
                                struct _Unwind_Exception *e, struct _Unwind_Context *context, void *arg)
{
    (void)version, (void)actions, (void)class, (void)e, (void)arg;
    if (_Unwind_GetCFA(context) >= until_cfa)
        siglongjmp(landed, 1);
    return _URC_NO_REASON;
}

static void unwind(void *arg)
{
    (void)arg;
    burn(MS / 10);
    memset(&exception, 0, sizeof exception);
    _Unwind_ForcedUnwind(&exception, stop, NULL);
    abort();
}

WORK static void unwind_deep(unsigned depth, uint64_t x)
{
    struct deep d = {unwind, NULL};
    if (sigsetjmp(landed, 0) == 0) {
        deep_do(&d, depth, x);
        deep_check(false);
    }
    unwound = unwound + 1;
}

static void run(void *arg)
{
    const uint64_t until_ns = process_cpu_ns() + *(uint64_t *)arg;
    volatile uint64_t x = 1;
    until_cfa = (uintptr_t)__builtin_frame_address(0);
    while (process_cpu_ns() < until_ns || jumped < 20 || unwound < 20) {
        if (sigsetjmp(back, 1) == 0) {
            may_jump = 1;
            unwind_deep(30 + (unsigned)(x >> 40) % 150, x);
            unwind_deep(60, x);
        }
        may_jump = 0;
        x = deep_step(x);
        deep_do(NULL, 200, x);
    }
}

int main(int argc, char **argv)
{
    uint64_t ns = argc > 1 ? strtoull(argv[1], NULL, 10) * MS : 0;
    struct deep d = {run, &ns};
    struct sigaction action = {.sa_flags = SA_RESTART};
    struct itimerval each = {{0, 700}, {0, 700}}, none = {{0, 0}, {0, 0}};

    action.sa_handler = on_timer;
    if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &each, NULL) != 0)
        return 1;
    deep_do(&d, 100, 5);
    setitimer(ITIMER_REAL, &none, NULL);
    printf("wrong %ld\n", deep_wrong);
    return 0;
}
