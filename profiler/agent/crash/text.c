/* Text of a report. Runs in the handlers of crashes. */
#include "profiler/agent/crash/text.h"

#include "profiler/agent/signal/poison.h"

void stile__text_flush(struct stile__text *t)
{
    if (t->n != 0)
        t->sink(t->bytes, t->n);
    t->n = 0;
}

void stile__text_bytes(struct stile__text *t, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (t->n == sizeof t->bytes)
            stile__text_flush(t);
        t->bytes[t->n++] = bytes[i];
    }
}

void stile__text(struct stile__text *t, const char *s)
{
    size_t n = 0;
    while (s[n] != '\0')
        n++;
    stile__text_bytes(t, s, n);
}

void stile__text_foreign(struct stile__text *t, const char *s, size_t n)
{
    for (size_t i = 0; i < n && s[i] != '\0'; i++) {
        const char c = (unsigned char)s[i] < ' ' || s[i] == '\177' ? '?' : s[i];
        stile__text_bytes(t, &c, 1);
    }
}

static void digits_put(struct stile__text *t, uint64_t value, unsigned base, unsigned least)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = "0123456789abcdef"[value % base];
    while ((value /= base) != 0 || (sizeof digits - at < least && at > 0));
    stile__text_bytes(t, digits + at, sizeof digits - at);
}

void stile__text_decimal(struct stile__text *t, uint64_t value)
{
    digits_put(t, value, 10, 1);
}

void stile__text_signed(struct stile__text *t, int64_t value)
{
    if (value < 0)
        stile__text_bytes(t, "-", 1);
    digits_put(t, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, 1);
}

void stile__text_hex(struct stile__text *t, uint64_t value, unsigned digits)
{
    stile__text_bytes(t, "0x", 2);
    digits_put(t, value, 16, digits);
}

void stile__text_octets(struct stile__text *t, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        digits_put(t, bytes[i], 16, 2);
}
