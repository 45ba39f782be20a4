/* Closes every descriptor from 3 on, as daemons do, uses files of its own from then on, and checks that
 * nobody else read or wrote a byte of them: `closer FILE`. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "work.h"

#define FILES 40

WORK static uint64_t work_before_close(uint64_t ns)
{
    return burn(ns);
}

WORK static uint64_t work_after_close(uint64_t ns)
{
    return burn(ns);
}

/* Pipes with a byte in each, and descriptors of one file: whoever reads or writes one of them shows. */
static int check(int pipes[][2], const int *files)
{
    struct stat st;
    char c;

    for (int i = 0; i < FILES; i++) {
        if (read(pipes[i][0], &c, 1) != 1 || c != 'x')
            return 11;
        if (read(pipes[i][0], &c, 1) != -1 || errno != EAGAIN)
            return 12;
        if (lseek(files[i], 0, SEEK_CUR) != 3)
            return 13;
        if (fstat(files[i], &st) != 0 || st.st_size != 3 || pread(files[i], &c, 1, 0) != 1 || c != 'o')
            return 14;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int pipes[FILES][2], files[FILES], bad;

    if (argc < 2)
        return 2;
    work_before_close(300 * MS);
    closefrom(3);
    for (int i = 0; i < FILES; i++) {
        if (pipe2(pipes[i], O_NONBLOCK) != 0 || write(pipes[i][1], "x", 1) != 1)
            return 3;
        files[i] = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (files[i] < 0)
            return 4;
        if (write(files[i], "own", 3) != 3)
            return 5;
    }
    printf("first own %d\n", pipes[0][0]);
    fflush(stdout);
    work_after_close(500 * MS);
    bad = check(pipes, files);
    closefrom(3);
    work_after_close(100 * MS);
    return bad;
}
