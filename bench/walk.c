/* `./dev bench walk`: what does a sample's stack cost, next to other ways of taking it? Every figure that counts is a
 * ratio of two sides measured in the same run; times stand beside it to show where it comes from. */
#include "bench/walk.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double walk_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return n != 0 ? values[n / 2] : 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const void *stack_end);
    } parts[] = {
        {"real", walk_real}, {"frame", walk_frame}, {"handler", walk_handler}, {"memory", walk_memory}};
    const size_t n = sizeof parts / sizeof *parts;
    size_t chosen = n;
    for (size_t i = 0; argc == 2 && i < n; i++)
        if (strcmp(argv[1], parts[i].name) == 0)
            chosen = i;
    if (argc > 2 || (argc == 2 && chosen == n)) {
        fputs("bench_walk takes one of real, frame, handler, memory, or nothing for all\n", stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* each line when it is known, wherever it goes */
    int err = 0;
    for (size_t i = 0; i < n; i++)
        if (chosen == n || chosen == i)
            err |= parts[i].run(argv);
    return err;
}
