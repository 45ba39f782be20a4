#include "tests/unit/crash/work.h"

#include <dlfcn.h>
#include <math.h>
#include <regex.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

static volatile double sink;

static int by_text(const void *a, const void *b)
{
    char x[32], y[32];
    snprintf(x, sizeof x, "%d", *(const int *)a);
    snprintf(y, sizeof y, "%d", *(const int *)b);
    return strcmp(x, y);
}

static void sort(void)
{
    int numbers[64];
    unsigned seed = 7;
    for (unsigned i = 0; i < 64; i++)
        numbers[i] = rand_r(&seed);
    qsort(numbers, 64, sizeof *numbers, by_text);
}

static void format(void)
{
    char text[512];
    wchar_t wide[64];
    for (int i = 1; i < 20; i++) {
        snprintf(text, sizeof text, "%.17g %a %Lf %s %#x", 1.0 / i, 3.0 * i, (long double)i / 3, "text", i);
        sink = strtod(text, NULL) + (double)strtold(text, NULL);
        swprintf(wide, 64, L"%ls %d", L"wide", i);
    }
}

static void match(void)
{
    regex_t re;
    regmatch_t m[4];
    if (regcomp(&re, "([a-z]+)([0-9]+|x*)*(end|stop)$", REG_EXTENDED) == 0) {
        (void)regexec(&re, "some words and 123 numbers then99end", 4, m, 0);
        regfree(&re);
    }
}

static void compute(void)
{
    for (int i = 1; i < 100; i++)
        sink = sin(i) * exp(1.0 / i) + pow(i, 0.3) + tgamma(i / 20.0) + (double)powl(i, 0.1L);
}

static void allocate(void)
{
    void *p[32];
    for (unsigned i = 0; i < 32; i++)
        p[i] = malloc(16u << i % 12);
    for (unsigned i = 0; i < 32; i++)
        p[i] = realloc(p[i], 100);
    for (unsigned i = 0; i < 32; i++)
        free(p[i]);
    time_t now = time(NULL);
    char *text = asctime(gmtime(&now));
    sink = text[0];
}

/* A frame of any size, aligned to more than the stack is. */
static __attribute__((noinline)) void realign(unsigned n)
{
    _Alignas(128) volatile char aligned[128] = {0};
    volatile char *some = __builtin_alloca(n);
    for (unsigned i = 0; i < n; i++)
        some[i] = (char)i;
    aligned[n % 128] = some[n / 2];
    if (n > 32)
        realign(n / 2);
    sink = aligned[0] + some[0];
}

static void load(const char *module)
{
    void *handle = module != NULL ? dlopen(module, RTLD_LAZY | RTLD_LOCAL) : NULL;
    if (handle == NULL)
        return;
    double (*lazy)(double);
    *(void **)&lazy = dlsym(handle, "lazy");
    if (lazy != NULL)
        sink = lazy(0.5);
    dlclose(handle);
}

void work(const char *module)
{
    sort();
    format();
    match();
    compute();
    allocate();
    realign(4000);
    load(module);
}
