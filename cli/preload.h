/* How libstile gets into a command. */
#ifndef STILE_CLI_PRELOAD_H
#define STILE_CLI_PRELOAD_H

#include <stddef.h>

/* The value of LD_PRELOAD that adds libstile.so to the present one. Returns 0, or -errno after one line. */
int stile__preload_value(char *value, size_t size);

#endif
