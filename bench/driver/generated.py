"""Programs that are generated, since no source tree has them: with many distinct stacks, with much debug information.
They are made once and kept in the build directory."""

import os
import subprocess
import tempfile
from pathlib import Path

from driver.measure import Failed

FUNCTIONS = 50  # of a unit
CALLS = 4  # places from which a function calls the next
COMPILE_S = 240

# A path is the state of a generator of numbers: which function comes next, and from which place it is called.
STACKS_HEAD = """#include <stdint.h>
#include <time.h>
extern int (*const functions[])(uint64_t, uint64_t, int);
extern __thread volatile uint64_t sink;
extern int work;
static inline uint64_t next(uint64_t x) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; return x; }
static inline void rounds(int n) { for (int i = 0; i < n; i++) sink += (uint64_t)i ^ sink << 1; }
static inline int burn(void) { rounds(work); return 1; }
"""
STACKS_FUNCTION = """
__attribute__((noinline)) int {name}(uint64_t path, uint64_t leaf, int left)
{{
    int deep = 0;
    if (left == {shared})
        path = leaf;
    path = next(path);
    if (left == 0)
        return burn();
    switch (path >> 62) {{
{cases}
    }}
    return deep + 1;
}}
"""
# The first DEPTH - SHARED frames are those of the neighbours, too, as in programs.
STACKS_MAIN = """#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
__thread volatile uint64_t sink;
int work = 1000;
static int stacks, threads, depth;
static double until_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
/* Each path gets a little more CPU time than a period, so nearly each gets a sample of its own. */
static void *run(void *arg)
{
    double begin = until_s(CLOCK_THREAD_CPUTIME_ID), period = atof(getenv("STACKS_PERIOD"));
    int first = (int)(intptr_t)arg;
    for (int i = first, n = 1; i < stacks; i += threads, n++)
        while (until_s(CLOCK_THREAD_CPUTIME_ID) - begin < n * period)
            functions[i % 7](((uint64_t)i / 64 + 1) * 0x9e3779b97f4a7c15u, ((uint64_t)i + 1) * 0xbf58476d1ce4e5b9u,
                             depth);
    return NULL;
}
int main(int argc, char **argv)
{
    pthread_t t[64];
    stacks = argc > 1 ? atoi(argv[1]) : 1000;
    threads = argc > 2 ? atoi(argv[2]) : 1;
    depth = argc > 3 ? atoi(argv[3]) : 30;
    for (int i = 1; i < threads; i++)
        pthread_create(&t[i], NULL, run, (void *)(intptr_t)i);
    run((void *)0);
    for (int i = 1; i < threads; i++)
        pthread_join(t[i], NULL);
    printf("%.9f\\n", until_s(CLOCK_MONOTONIC));
    return 0;
}
"""
SHARED = 10


def _run(*argv):
    try:
        subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=COMPILE_S)
    except subprocess.CalledProcessError as e:
        last = e.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"status {e.returncode}"]
        raise Failed(f"{argv[0]}: {last[0]}") from e
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Failed(f"{argv[0]}: {e}") from e


def _kept(bench, name, make):
    """What `make` makes in a directory, given the path; kept under a name that says what it is made of."""
    cache = bench.build / "bench" / "generated"
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            make(Path(scratch), Path(scratch) / name)
            os.rename(Path(scratch) / name, path)
    return path


def _stacks_unit(u, units):
    text = [STACKS_HEAD]
    for f in range(FUNCTIONS):
        cases = "\n".join(f"    case {c}:\n        deep = functions[(path >> {7 + c}) % {units * FUNCTIONS}]"
                          "(path, leaf, left - 1);\n        break;" for c in range(CALLS))
        text.append(STACKS_FUNCTION.format(name=f"f_{u}_{f}", shared=SHARED, cases=cases))
    return "".join(text)


def many_stacks(bench, units):
    """PROGRAM STACKS THREADS DEPTH, with STACKS_PERIOD (seconds) in its environment: drives so many call paths, each
    for a period of CPU time, and prints when it was done."""
    def make(scratch, out):
        names = [f"f_{u}_{f}" for u in range(units) for f in range(FUNCTIONS)]
        sources = []
        for u in range(units):
            sources.append(scratch / f"unit{u}.c")
            sources[-1].write_text(_stacks_unit(u, units), encoding="ascii")
        table = "".join(f"int {n}(uint64_t, uint64_t, int);\n" for n in names)
        table += "int (*const functions[])(uint64_t, uint64_t, int) = {" + ", ".join(names) + "};\n"
        sources.append(scratch / "main.c")
        sources[-1].write_text(STACKS_HEAD + table + STACKS_MAIN, encoding="ascii")
        # With frame pointers, so that perf's cheap way sees the same stacks.
        _run("cc", "-g", "-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-o", out,
             *sources, "-lpthread")
    return _kept(bench, f"many_stacks_{units}", make)


DEBUG_UNITS = 240
DEBUG_TYPES, DEBUG_MEMBERS, DEBUG_FUNCTIONS = 4000, 24, 700  # of a unit: 2.3 MB of debug information

DEBUG_HEAD = """typedef unsigned long number;
static inline number step(number x) { x ^= x << 13; x ^= x >> 7; return x ^ x << 17; }
static inline number steps(number x, int n) { number a = 0; for (int i = 0; i < n; i++) a += x = step(x); return a; }
"""
DEBUG_FUNCTION = """
__attribute__((noinline)) number work_{i}(struct type_{t} *arg, number x)
{{
    struct type_{t} *first = arg;
    number some = step(x), more = steps(some, 8 + (int)(x & 7)), all = 0;
    for (int i = 0; i < 4; i++)
        all += steps(more + (number)i, 16);
    return all + some + (first ? (number)first->member_{t}_0 : 0);
}}
"""
DEBUG_MAIN = """#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    int n = sizeof units / sizeof *units;
    volatile unsigned long x = 1;
    while (now_s(CLOCK_THREAD_CPUTIME_ID) < seconds)
        for (int i = 0; i < n; i++)
            x += units[i](x + (unsigned long)i);
    printf("%.9f\\n", now_s(CLOCK_MONOTONIC));
    return 0;
}
"""


def _debug_unit():
    text = [DEBUG_HEAD]
    for t in range(DEBUG_TYPES):
        members = "".join(f" struct type_{max(t - m, 0)} *member_{t}_{m};" if m % 3 else f" long member_{t}_{m};"
                          for m in range(DEBUG_MEMBERS))
        text.append(f"struct type_{t} {{{members} }};\n")
    for i in range(DEBUG_FUNCTIONS):
        text.append(DEBUG_FUNCTION.format(i=i, t=i % DEBUG_TYPES))
    table = ", ".join(f"(number (*)(void *, number))work_{i}" for i in range(DEBUG_FUNCTIONS))
    text.append(f"static number (*const all[])(void *, number) = {{{table}}};\n"
                f"number unit(number x) {{ return all[step(x) % {DEBUG_FUNCTIONS}](0, x); }}\n")
    return "".join(text)


def much_debug(bench):
    """PROGRAM SECONDS: runs functions of all of its units for so long, and prints when it was done. It is one unit,
    compiled once and linked so often that its debug information is of the size wanted."""
    def make(scratch, out):
        (scratch / "unit.c").write_text(_debug_unit(), encoding="ascii")
        _run("cc", "-g", "-O1", "-fno-eliminate-unused-debug-types", "-c", "-o", scratch / "unit.o", scratch / "unit.c")
        objects = []
        for u in range(DEBUG_UNITS):
            objects.append(scratch / f"unit{u}.o")
            _run("objcopy", f"--prefix-symbols=u{u}_", scratch / "unit.o", objects[-1])
        names = [f"u{u}_unit" for u in range(DEBUG_UNITS)]
        main = "".join(f"unsigned long {n}(unsigned long);\n" for n in names)
        main += "unsigned long (*const units[])(unsigned long) = {" + ", ".join(names) + "};\n"
        (scratch / "main.c").write_text(main + DEBUG_MAIN, encoding="ascii")
        _run("cc", "-g", "-O1", "-o", out, scratch / "main.c", *objects)
    return _kept(bench, "much_debug", make)
