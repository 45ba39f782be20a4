/* Text of a report, gathered in a buffer of the caller's and handed on when that is full. Async-signal-safe. */
#ifndef STILE_AGENT_CRASH_TEXT_H
#define STILE_AGENT_CRASH_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Takes a part of the text; the bytes are the caller's. */
typedef void stile__text_sink(const char *bytes, size_t n);

#define STILE__TEXT_PART                                                                                     \
    4096u /* bytes handed on at once, at most: as much as a pipe takes whole (PIPE_BUF) */

struct stile__text {
    stile__text_sink *sink;
    size_t n;
    char bytes[STILE__TEXT_PART];
};

void stile__text_bytes(struct stile__text *t, const char *bytes, size_t n);
void stile__text(struct stile__text *t, const char *s);

/* As many characters of s as a line may have of somebody else's text, n at most; what would break the line is a `?`. */
void stile__text_foreign(struct stile__text *t, const char *s, size_t n);

void stile__text_decimal(struct stile__text *t, uint64_t value);
void stile__text_signed(struct stile__text *t, int64_t value);

/* With 0x, and at least so many digits. */
void stile__text_hex(struct stile__text *t, uint64_t value, unsigned digits);

/* Two digits a byte. */
void stile__text_octets(struct stile__text *t, const uint8_t *bytes, size_t n);

/* Hands on what there is. */
void stile__text_flush(struct stile__text *t);

#endif
