/* Memory that is handed out piece by piece and freed all at once. Context: any normal context; single-threaded. */
#ifndef STILE_PROTO_ARENA_H
#define STILE_PROTO_ARENA_H

#include <stddef.h>

struct stile__arena_block;

/* All zero is an empty arena. */
struct stile__arena {
    struct stile__arena_block *blocks; /* newest first */
    size_t used;                       /* bytes handed out of the newest block */
    size_t total;                      /* bytes of all blocks */
    size_t limit;                      /* 0: none; else total never exceeds it */
};

/* 16-byte aligned and zeroed; NULL if memory ran out or the limit is reached. Valid until stile__arena_free. */
void *stile__arena_alloc(struct stile__arena *a, size_t size);
/* A copy of the first `length` bytes of text, with a NUL behind them. */
char *stile__arena_text(struct stile__arena *a, const char *text, size_t length);
void stile__arena_free(struct stile__arena *a);

#endif
