/* What the unit tests share. Everything here fails the test rather than return an error. */
#ifndef STILE_TESTS_UNIT_SUPPORT_H
#define STILE_TESTS_UNIT_SUPPORT_H

/* cmocka wants these four before itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#ifdef __SANITIZE_ADDRESS__
#    define UNDER_ASAN 1
#else
#    define UNDER_ASAN 0
#endif
#ifdef __SANITIZE_THREAD__
#    define UNDER_TSAN 1
#else
#    define UNDER_TSAN 0
#endif
#define UNDER_SANITIZER (UNDER_ASAN || UNDER_TSAN)

/* A sequence of numbers that is the same in every run. */
uint64_t next_number(uint64_t *state);
void fill_random(void *to, size_t n, uint64_t *state);

/* The value of an environment variable that CMake gives every test. */
const char *test_setting(const char *name);

/* A fresh directory for the calling test program, and its end with all that is in it (one level). */
const char *scratch_make(void);
void scratch_remove(void);
/* The same for cmocka, of a test or of a group. */
int scratch_set_up(void **state);
int scratch_tear_down(void **state);
/* scratch/name, in one of eight buffers that are used in turn. */
const char *scratch_path(const char *name);

/* A whole file as text, to be freed; NULL if there is none. */
char *file_text(const char *path);
void file_write(const char *path, const void *bytes, size_t n);

/* Waits until a file is there, for half a minute at most. */
bool file_awaited(const char *path);

/* What the process has now. */
unsigned count_descriptors(void);
unsigned count_map_lines(void);
unsigned count_threads(void);

/* CPU time, and work that takes it. */
uint64_t thread_cpu_ns(void);
uint64_t process_cpu_ns(void);
void spin_ns(uint64_t cpu_ns);

/* Sends descriptor 2 to a file; stderr_end gives what was written, to be freed, and puts descriptor 2 back. */
void stderr_begin(void);
char *stderr_end(void);

/* Installs a handler past every runtime that would run it later or elsewhere; all signals are masked in it. */
void handler_install_raw(int signal, void (*handler)(int, siginfo_t *, void *));

/* Runs fn in a forked child; returns the wait status. */
int in_child(void (*fn)(void *arg), void *arg);
/* For such a child: ends it with status 100 when a condition does not hold. */
#define CHILD_CHECK(condition)                                                                               \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            child_failed(__FILE__, __LINE__, #condition);                                                    \
    } while (0)
_Noreturn void child_failed(const char *file, int line, const char *what);

#endif
