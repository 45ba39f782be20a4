/* Creates and ends threads, a thousand a second at most: `churn N`. Says in JSON what the process holds after the first
 * tenth of them and at the end. */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "work.h"

static void *thread_main(void *unused)
{
    burn(200000);
    return unused;
}

static int lines_of(const char *path)
{
    int n = 0, c;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    while ((c = getc(f)) != EOF)
        n += c == '\n';
    fclose(f);
    return n;
}

static int descriptors(void)
{
    int n = -3; /* ".", ".." and the directory's own */
    DIR *d = opendir("/proc/self/fd");
    while (d != NULL && readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static long rss_kb(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL || fscanf(f, "%*d %ld", &pages) != 1)
        exit(1);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void tell(const char *before)
{
    printf("%s{\"fds\": %d, \"maps\": %d, \"timers\": %d, \"rss_kb\": %ld}", before, descriptors(),
           lines_of("/proc/self/maps"), lines_of("/proc/self/timers"), rss_kb());
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 1000;
    for (int i = 0; i < n; i += 2) {
        pthread_t a, b;
        if (pthread_create(&a, NULL, thread_main, NULL) != 0 ||
            pthread_create(&b, NULL, thread_main, NULL) != 0)
            return 1;
        pthread_join(a, NULL);
        pthread_join(b, NULL);
        usleep(1500);
        if (i == n / 10)
            tell("[");
    }
    tell(", ");
    puts("]");
    return 0;
}
