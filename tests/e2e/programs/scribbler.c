/* Works, and meanwhile writes garbage over what is mapped as somebody's memfd, as a stray pointer would: scribbler WHERE SEED WRITES.
 * WHERE is the part of it: "header", "slots", "all". Says how much CPU time it worked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "work.h"

#define PAGE 4096u

struct target {
    char *at;
    size_t bytes;
};

static uint64_t numbers;

static uint64_t number(void)
{
    numbers = numbers * 6364136223846793005u + 1442695040888963407u;
    return numbers >> 20 ^ numbers << 13;
}

static struct target memfd_find(void)
{
    struct target t = {NULL, 0};
    char line[512];
    FILE *f = fopen("/proc/self/maps", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        unsigned long from, to;
        if (strstr(line, "/memfd:stile") != NULL && sscanf(line, "%lx-%lx", &from, &to) == 2)
            t = (struct target){(char *)from, to - from};
    }
    if (f != NULL)
        fclose(f);
    return t;
}

/* A page that is there; what is not has nothing to be spoiled. */
static char *page_any(const struct target *t, const char *where)
{
    size_t first = 0, n = t->bytes / PAGE;
    unsigned char there;
    if (strcmp(where, "header") == 0)
        n = 1;
    else if (strcmp(where, "slots") == 0) { /* behind the header and a mebibyte of text */
        first = 257;
        n = 1;
    }
    for (int tries = 0; tries < 10000; tries++) {
        char *page = t->at + (first + number() % n) * PAGE;
        if (mincore(page, PAGE, &there) == 0 && (there & 1) != 0)
            return page;
    }
    return NULL;
}

WORK static uint64_t work_beside_garbage(uint64_t ns)
{
    return burn(ns);
}

int main(int argc, char **argv)
{
    struct target t = memfd_find();
    uint64_t used = 0;
    if (argc < 4)
        return 2;
    numbers = strtoull(argv[2], NULL, 10);
    int writes = atoi(argv[3]);
    used += work_beside_garbage(100 * MS);
    for (int i = 0; i < writes; i++) {
        char *page = t.at != NULL ? page_any(&t, argv[1]) : NULL;
        uint64_t value = number() >> number() % 64;
        if (page != NULL)
            memcpy(page + number() % (PAGE / 8) * 8, &value, sizeof value);
        used += work_beside_garbage(400 * MS / (unsigned)writes);
    }
    printf("%d\n", t.at != NULL);
    fprintf(stderr, "%llu\n", (unsigned long long)used);
    return 5;
}
