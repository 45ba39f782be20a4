/* What profiles say of themselves, for `stile record --verbose`. */
#ifndef STILE_CLI_COMMENTS_H
#define STILE_CLI_COMMENTS_H

#include <stdio.h>
#include <time.h>

/* Writes the comments of all profiles of one run to `to`, one a line, after a line that names the file. first: the path
 * of one of them, absolute; the others are found beside it: what template, where %p, %e and %t stand for any text, and
 * names.h's numbers make of a name, and was written since then (by CLOCK_REALTIME_COARSE, which files go by). */
void stile__comments_print(FILE *to, const char *template, const char *first, const struct timespec *since);

#endif
