/* CFI by hand: each instruction and each operation of expressions, then modules' own, then whatever bytes there may be. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/agent/crash/cfi_parts.h"

#define CODE  0x10000u /* where the made function is */
#define STACK 0x7000u  /* the made stack: word i has 0x100 + i */
#define WORDS 64u

static bool read_made(void *arg, uint64_t address, uint64_t *word)
{
    (void)arg;
    if (address < STACK || address >= STACK + 8 * WORDS || address % 8 != 0)
        return false;
    *word = 0x100 + (address - STACK) / 8;
    return true;
}

/* A section as bytes. */
struct bytes {
    uint8_t all[1024];
    unsigned n;
};

static void put(struct bytes *b, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        b->all[b->n++] = (uint8_t)(value >> 8 * i);
}

static void put_all(struct bytes *b, const void *bytes, unsigned n)
{
    memcpy(b->all + b->n, bytes, n);
    b->n += n;
}

/* Sets the length of the entry that began there. */
static void entry_end(struct bytes *b, unsigned begin)
{
    while ((b->n - begin) % 4 != 0)
        put(b, 0, 1);
    const uint32_t n = b->n - begin - 4;
    memcpy(b->all + begin, &n, sizeof n);
}

static struct stile__cfi_regs regs;
static bool is_signal;
static unsigned cut;     /* bytes of the section that are not the module's any more */
static uint32_t unknown; /* registers that are not known */

/* One step with this program, at so many bytes into the function. The CIE says: CFA rsp + 8, return address below. */
static enum stile__cfi_step step_with(const char *augmentation, const void *program, unsigned n,
                                      unsigned into)
{
    static const uint8_t initial[] = {0x0c, 7, 8, 0x90, 1};
    struct bytes b = {.n = 0};
    struct stile__pages pages = {{0}};
    const struct stile__cfi_memory memory = {read_made, NULL, &pages};
    put(&b, 1, 1); /* .eh_frame_hdr: an absolute pointer, no count, no table */
    put(&b, 0x04, 1);
    put(&b, 0xffff, 2);
    const unsigned pointer = b.n;
    put(&b, 0, 8);
    const unsigned cie = b.n;
    put(&b, 0, 8);
    put(&b, 1, 1);
    put_all(&b, augmentation, (unsigned)strlen(augmentation) + 1);
    put(&b, 1, 1);    /* code alignment */
    put(&b, 0x78, 1); /* data alignment: -8 */
    put(&b, 16, 1);
    if (augmentation[0] == 'z') {
        const unsigned size = b.n;
        put(&b, 0, 1);
        for (const char *a = augmentation + 1; *a != '\0'; a++)
            if (*a == 'P') {
                put(&b, 0x9b, 1);
                put(&b, 0x12345678, 4);
            } else if (*a == 'L') {
                put(&b, 0x1b, 1);
            } else if (*a == 'R') {
                put(&b, 0x03, 1); /* udata4 */
            } else if (*a != 'S') {
                put(&b, 0xee, 1);
            }
        b.all[size] = (uint8_t)(b.n - size - 1);
    }
    put_all(&b, initial, sizeof initial);
    entry_end(&b, cie);
    const unsigned fde = b.n, bytes = augmentation[0] == 'z' ? 4 : 8;
    put(&b, 0, 4);
    put(&b, b.n - cie, 4);
    put(&b, CODE, bytes);
    put(&b, 0x1000, bytes);
    if (augmentation[0] == 'z') {
        put(&b, 4, 1);
        put(&b, 0xeeeeeeee, 4);
    }
    put_all(&b, program, n);
    entry_end(&b, fde);
    put(&b, 0, 4);
    /* On the heap, so that a sanitizer knows its end. */
    uint8_t *section = malloc(b.n);
    const uint64_t eh_frame = (uint64_t)section + cie;
    memcpy(b.all + pointer, &eh_frame, sizeof eh_frame);
    memcpy(section, b.all, b.n);
    const struct stile__cfi_section s = {(uint64_t)section, (uint64_t)section, (uint64_t)section + b.n - cut};
    regs = (struct stile__cfi_regs){.known = (1u << STILE__CFI_REGS) - 1};
    for (unsigned i = 0; i < STILE__CFI_REGS; i++)
        regs.value[i] = 0x1000 + i;
    regs.value[STILE__CFI_RSP] = STACK + 80;
    regs.value[STILE__CFI_RBP] = STACK + 160;
    regs.value[STILE__CFI_RA] = CODE + into;
    regs.known &= ~unknown;
    is_signal = false;
    const enum stile__cfi_step done = stile__cfi_step(&s, CODE + into, &regs, &memory, &is_signal);
    free(section);
    return done;
}

/* Where the caller's register is what the program says. */
#define GIVES(reg, expected, into, ...)                                                                      \
    do {                                                                                                     \
        const uint8_t program[] = {__VA_ARGS__};                                                             \
        assert_int_equal(step_with("zR", program, sizeof program, into), STILE__CFI_DONE);                   \
        assert_true(regs.known >> (reg)&1);                                                                  \
        assert_int_equal(regs.value[reg], expected);                                                         \
    } while (0)

#define ENDS(step, into, ...)                                                                                \
    do {                                                                                                     \
        const uint8_t program[] = {__VA_ARGS__};                                                             \
        assert_int_equal(step_with("zR", program, sizeof program, into), step);                              \
    } while (0)

#define RSP      STILE__CFI_RSP
#define RA       STILE__CFI_RA
#define WORD(at) (0x100 + (at) / 8u) /* of the made stack */

static void test_augmentations(void **state)
{
    static const char *const known[] = {"zR", "", "zPLR", "zRS", "zPLRS", "zRX", "zR"};
    (void)state;
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(step_with(known[i], "", 0, 8), STILE__CFI_DONE);
        assert_int_equal(regs.value[RSP], STACK + 88);
        assert_int_equal(regs.value[RA], WORD(80));
        assert_int_equal(is_signal, strchr(known[i], 'S') != NULL);
    }
    for (cut = 1; cut < 64; cut++) /* the terminator is not needed */
        assert_int_equal(step_with("zR", "", 0, 8), cut <= 4 ? STILE__CFI_DONE : STILE__CFI_NONE);
    cut = 0;
    assert_int_equal(step_with("eh", "", 0, 8), STILE__CFI_NONE);
    assert_int_equal(step_with("zR", "", 0, 0xfff), STILE__CFI_DONE);
    assert_int_equal(step_with("zR", "", 0, 0x1000), STILE__CFI_NONE);
}

static void test_rows(void **state)
{
    (void)state;
    for (unsigned into = 0; into < 8; into++) { /* each advance by one, def_cfa_offset */
        static const uint8_t program[] = {0x41, 0x0e, 16, 0x02, 1,  0x0e, 24, 0x03, 1, 0, 0x0e, 32, 0x04, 1,
                                          0,    0,    0,  0x0e, 40, 0x01, 5,  0,    1, 0, 0x0e, 48};
        assert_int_equal(step_with("zR", program, sizeof program, into), STILE__CFI_DONE);
        assert_int_equal(regs.value[RSP], STACK + 80 + 8 * (1 + (into < 5 ? into : 5)));
        assert_int_equal(regs.value[RA], WORD(80 + 8 * (into < 5 ? into : 5)));
    }
    GIVES(RSP, STACK + 160 + 16, 4, 0x0c, 6, 16);           /* def_cfa */
    GIVES(RSP, STACK + 160 + 8, 4, 0x0d, 6);                /* def_cfa_register */
    GIVES(RSP, STACK + 160 + 16, 4, 0x12, 6, 0x7e);         /* def_cfa_sf */
    GIVES(RSP, STACK + 80 + 16, 4, 0x13, 0x7e);             /* def_cfa_offset_sf */
    GIVES(RSP, STACK + 88, 4, 0x0a, 0x0e, 32, 0x41, 0x0b);  /* remember, restore */
    GIVES(RSP, STACK + 112, 0, 0x0a, 0x0e, 32, 0x41, 0x0b); /* before that */
    GIVES(RSP, STACK + 88, 4, 0x2e, 16, 0x00);              /* GNU_args_size, nop */
    ENDS(STILE__CFI_NONE, 4, 0x0b);                         /* nothing to restore */
    ENDS(STILE__CFI_NONE, 4, 0x0c, 17, 8);                  /* no such register */
    ENDS(STILE__CFI_NONE, 4, 0x0f, 1, 0x77, 0x0e, 8);       /* an offset to an expression */
    ENDS(STILE__CFI_NONE, 4, 0x0f, 1, 0x77, 0x13, 8);
    ENDS(STILE__CFI_NONE, 4, 0x0f, 1, 0x77, 0x0d, 6);
    ENDS(STILE__CFI_NONE, 4, 0x3f);                  /* no such instruction */
    ENDS(STILE__CFI_MEMORY, 4, 0x0e, 8, 0x0c, 0, 8); /* leads out of the stack */
    ENDS(STILE__CFI_NONE, 4, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a, 0x0a);
}

static void test_registers(void **state)
{
    (void)state;
    GIVES(3, 0x1003, 4, 0x00);
    GIVES(3, WORD(88 - 16), 4, 0x83, 2);                            /* offset */
    GIVES(3, WORD(88 - 16), 4, 0x05, 3, 2);                         /* offset_extended */
    GIVES(3, WORD(88 + 16), 4, 0x11, 3, 0x7e);                      /* offset_extended_sf */
    GIVES(3, WORD(88 + 16), 4, 0x2f, 3, 2);                         /* GNU_negative_offset_extended */
    GIVES(3, STACK + 88 - 16, 4, 0x14, 3, 2);                       /* val_offset */
    GIVES(3, STACK + 88 + 16, 4, 0x15, 3, 0x7e);                    /* val_offset_sf */
    GIVES(3, 0x1000, 4, 0x09, 3, 0);                                /* register */
    GIVES(3, 0x1003, 4, 0x83, 2, 0x08, 3);                          /* same_value */
    GIVES(3, 0x1003, 4, 0x83, 2, 0x41, 0xc3);                       /* restore */
    GIVES(RA, WORD(80), 4, 0x07, 16, 0x06, 16);                     /* restore_extended */
    GIVES(RA, WORD(80), 4, 0x85 | 0, 3, 0xb0, 5, 0x05, 0xff, 1, 2); /* vector registers */
    GIVES(RSP, WORD(88 - 16), 4, 0x87, 2);                          /* rsp itself */
    ENDS(STILE__CFI_ROOT, 4, 0x07, 16);                             /* undefined */
    ENDS(STILE__CFI_DONE, 4, 0x07, 3);
    assert_false(regs.known >> 3 & 1);
    ENDS(STILE__CFI_DONE, 4, 0x05, 3, 0x7f); /* saved where nothing can be read */
    assert_false(regs.known >> 3 & 1);
    assert_true(regs.known >> 12 & 1);
}

/* The value of an expression that begins with the CFA on its stack. */
#define EVAL(expected, ...)                                                                                  \
    do {                                                                                                     \
        const uint8_t e[] = {__VA_ARGS__};                                                                   \
        uint8_t program[64] = {0x16, 3, sizeof e};                                                           \
        memcpy(program + 3, e, sizeof e);                                                                    \
        assert_int_equal(step_with("zR", program, 3 + sizeof e, 4), STILE__CFI_DONE);                        \
        assert_true(regs.known >> 3 & 1);                                                                    \
        assert_int_equal(regs.value[3], (uint64_t)(expected));                                               \
    } while (0)

#define FAILS(...)                                                                                           \
    do {                                                                                                     \
        const uint8_t e[] = {__VA_ARGS__};                                                                   \
        uint8_t program[64] = {0x16, 3, sizeof e};                                                           \
        memcpy(program + 3, e, sizeof e);                                                                    \
        assert_int_equal(step_with("zR", program, 3 + sizeof e, 4), STILE__CFI_DONE);                        \
        assert_false(regs.known >> 3 & 1);                                                                   \
    } while (0)

static void test_expressions(void **state)
{
    const uint64_t cfa = STACK + 88;
    (void)state;
    EVAL(cfa, 0x96);
    EVAL(5, 0x35);
    EVAL(0x0807060504030201, 0x03, 1, 2, 3, 4, 5, 6, 7, 8);
    EVAL(WORD(88), 0x06);
    EVAL(WORD(88) & 0xff, 0x94, 1);
    EVAL(0xfe, 0x08, 0xfe);
    EVAL(-2, 0x09, 0xfe);
    EVAL(0xfffe, 0x0a, 0xfe, 0xff);
    EVAL(-2, 0x0b, 0xfe, 0xff);
    EVAL(0xfffffffe, 0x0c, 0xfe, 0xff, 0xff, 0xff);
    EVAL(-2, 0x0d, 0xfe, 0xff, 0xff, 0xff);
    EVAL(0xff00000000000001, 0x0e, 1, 0, 0, 0, 0, 0, 0, 0xff);
    EVAL(0xff00000000000001, 0x0f, 1, 0, 0, 0, 0, 0, 0, 0xff);
    EVAL(300, 0x10, 0xac, 2);
    EVAL(-128, 0x11, 0x80, 0x7f);
    EVAL(2 * cfa, 0x12, 0x22);             /* dup, plus */
    EVAL(cfa, 0x31, 0x13);                 /* drop */
    EVAL(cfa, 0x31, 0x14);                 /* over */
    EVAL(cfa, 0x31, 0x32, 0x15, 2);        /* pick */
    EVAL(cfa - 1, 0x31, 0x16, 0x16, 0x1c); /* swap, minus */
    EVAL(3, 0x33, 0x32, 0x31, 0x17, 0x13); /* rot: the top becomes the third */
    EVAL(7, 0x09, 0xf9, 0x19);
    EVAL(4, 0x36, 0x3c, 0x1a);
    EVAL(-3, 0x09, 0xfa, 0x32, 0x1b);
    EVAL(1, 0x37, 0x33, 0x1d);
    EVAL(21, 0x37, 0x33, 0x1e);
    EVAL(-3, 0x33, 0x1f);
    EVAL(~3ull, 0x33, 0x20);
    EVAL(7, 0x33, 0x36, 0x21);
    EVAL(cfa + 300, 0x23, 0xac, 2);
    EVAL(24, 0x33, 0x33, 0x24);
    EVAL(1, 0x3c, 0x33, 0x25);
    EVAL(-1, 0x09, 0xfc, 0x33, 0x26);
    EVAL(5, 0x33, 0x36, 0x27);
    EVAL(0, 0x33, 0x08, 64, 0x24);
    for (unsigned op = 0x29; op <= 0x2e; op++) { /* 3 and -1: eq, ge, gt, le, lt, ne */
        static const uint8_t expected[] = {0, 1, 1, 0, 0, 1};
        EVAL(expected[op - 0x29], 0x33, 0x09, 0xff, (uint8_t)op);
    }
    EVAL(5, 0x31, 0x28, 1, 0, 0x06, 0x35); /* bra over a deref */
    EVAL(cfa, 0x30, 0x28, 1, 0, 0x96);     /* not taken */
    EVAL(5, 0x2f, 1, 0, 0x06, 0x35);       /* skip */
    EVAL(0x1003, 0x53);                    /* reg3 */
    EVAL(0x1003 - 8, 0x73, 0x78);          /* breg3 */
    EVAL(0x100c, 0x90, 12);                /* regx */
    EVAL(0x100c + 1, 0x92, 12, 1);         /* bregx */
    EVAL(0x12345678, 0xf1, 0x03, 0x78, 0x56, 0x34, 0x12);
    /* A loop that ends: 5 4 3 2 1 0. */
    EVAL(0, 0x35, 0x31, 0x1c, 0x12, 0x28, 0xfa, 0xff);
    FAILS(0x2f, 0xfd, 0xff); /* for ever */
    FAILS(0x2f, 0xfc, 0xff); /* to before it */
    /* To before it, where its length is a swap, after which the branch would not be taken again. */
    FAILS(0x30, 0x16, 0x12, 0x28, 0xf9, 0xff, 0x96, 0x96, 0x96, 0x96, 0x96, 0x96, 0x96, 0x96, 0x96, 0x96,
          0x96, 0x96, 0x96, 0x96, 0x96, 0x96);
    FAILS(0x2f, 1, 0);             /* to behind it */
    FAILS(0x13, 0x13);             /* nothing to drop */
    FAILS(0x13);                   /* no value */
    FAILS(0x12, 0x2f, 0xfc, 0xff); /* more than the stack has */
    FAILS(0x31, 0x30, 0x1b);       /* by zero */
    FAILS(0x31, 0x30, 0x1d);
    FAILS(0x15, 200);
    FAILS(0x94, 9);
    FAILS(0x30, 0x06);                                                           /* of NULL */
    FAILS(0x6f);                                                                 /* no such register */
    FAILS(0xe0);                                                                 /* no such operation */
    FAILS(0x0e, 1, 2);                                                           /* cut short */
    EVAL(0x8000000000000000, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x09, 0xff, 0x1b); /* overflows */
}

static void test_frames_by_expressions(void **state)
{
    (void)state;
    /* An entry of the PLT: 8 bytes more from its 11th byte on. */
#define PLT 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22
    GIVES(RSP, STACK + 88, 0x10a, PLT);
    GIVES(RSP, STACK + 96, 0x10b, PLT);
    GIVES(RA, WORD(88), 0x10f, PLT);
    /* A realigned stack: the CFA lies below rbp; registers by expressions. */
    GIVES(RSP, WORD(152), 4, 0x0f, 3, 0x76, 0x78, 0x06, 0x16, 16, 2, 0x76, 0);
    GIVES(RA, WORD(160), 4, 0x10, 16, 2, 0x76, 0);
    GIVES(6, WORD(160), 4, 0x10, 6, 2, 0x76, 0);
    ENDS(STILE__CFI_MEMORY, 4, 0x10, 16, 2, 0x70, 0);
    ENDS(STILE__CFI_MEMORY, 4, 0x0f, 1, 0xe0);
    ENDS(STILE__CFI_NONE, 4, 0x0f, 99, 0x70);
}

/* What is not known leads nowhere, and stays so in the caller. */
static void test_unknown_registers(void **state)
{
    (void)state;
    unknown = 1u << 3 | 1u << 6;
    FAILS(0x53);
    FAILS(0x76, 0);
    ENDS(STILE__CFI_MEMORY, 4, 0x0c, 6, 16);
    ENDS(STILE__CFI_MEMORY, 4, 0x0f, 2, 0x76, 16);
    ENDS(STILE__CFI_MEMORY, 4, 0x09, 16, 3);
    ENDS(STILE__CFI_DONE, 4, 0x00);
    assert_false(regs.known >> 3 & 1);
    ENDS(STILE__CFI_DONE, 4, 0x83, 2);
    assert_true(regs.known >> 3 & 1);
    unknown = 0;
}

/* A module of this process, moved elsewhere as it is. */
static struct moved {
    uint8_t *bytes;
    uint64_t n, hdr, distance;
} moved;

/* All of it, and what a sanitizer has put between variables. */
static __attribute__((no_sanitize("address"), noinline)) void copy(uint8_t *to, uint64_t from, uint64_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

static void module_move(const void *of)
{
    struct dl_find_object found;
    struct stile__pages pages = {{0}};
    assert_int_equal(_dl_find_object((void *)of, &found), 0);
    const uint64_t start = (uint64_t)found.dlfo_map_start;
    moved.n = (uint64_t)found.dlfo_map_end - start;
    moved.bytes = calloc(1, moved.n);
    for (uint64_t at = 0; at < moved.n; at += 4096)
        if (stile__pages_readable(&pages, start + at, 1))
            copy(moved.bytes + at, start + at, moved.n - at < 4096 ? moved.n - at : 4096);
    moved.distance = (uint64_t)moved.bytes - start;
    moved.hdr = (uint64_t)found.dlfo_eh_frame - start;
}

static enum stile__cfi_step moved_step(uint64_t pc)
{
    struct stile__pages pages = {{0}};
    const struct stile__cfi_memory memory = {read_made, NULL, &pages};
    const uint64_t at = (uint64_t)moved.bytes;
    const struct stile__cfi_section s = {at + moved.hdr, at, at + moved.n};
    bool signal;
    regs = (struct stile__cfi_regs){.known = (1u << STILE__CFI_REGS) - 1};
    for (unsigned i = 0; i < STILE__CFI_REGS; i++)
        regs.value[i] = STACK + 8 * (i + 4);
    return stile__cfi_step(&s, at + pc, &regs, &memory, &signal);
}

/* Without its table a module says the same, entry after entry. */
static void test_scan(void **state)
{
    static struct stile__cfi_regs by_table[4000];
    static enum stile__cfi_step steps[4000];
    uint64_t rng = 3, done = 0;
    (void)state;
    module_move(test_scan);
    const uint64_t here = (uint64_t)test_scan + moved.distance - (uint64_t)moved.bytes;
    for (unsigned round = 0; round < 2; round++) {
        rng = 3;
        for (unsigned i = 0; i < (UNDER_SANITIZER ? 400 : 4000); i++) {
            const enum stile__cfi_step step = moved_step(here + next_number(&rng) % 16384 - 8192);
            done += step == STILE__CFI_DONE;
            if (round == 1) {
                assert_int_equal(step, steps[i]);
                assert_memory_equal(&regs, &by_table[i], sizeof regs);
            }
            steps[i] = step;
            by_table[i] = regs;
        }
        moved.bytes[moved.hdr + 3] = 0xff;
    }
    assert_true(done > 400);
    free(moved.bytes);
}

/* Any bytes: a step ends, and reads nothing outside (a sanitizer sees to that). */
static void test_any_bytes(void **state)
{
    const uint64_t rounds = UNDER_SANITIZER ? 3000 : 20000;
    uint64_t rng = 17, counts[4] = {0};
    (void)state;
    module_move(test_any_bytes);
    const uint64_t here = (uint64_t)test_any_bytes + moved.distance - (uint64_t)moved.bytes;
    const uint64_t size = moved.n - moved.hdr < 32768 ? moved.n - moved.hdr : 32768;
    uint8_t *whole = malloc(size);
    memcpy(whole, moved.bytes + moved.hdr, size);
    for (uint64_t round = 0; round < rounds; round++) {
        memcpy(moved.bytes + moved.hdr, whole, size);
        for (uint64_t k = next_number(&rng) % 64 * (next_number(&rng) % 64); k > 0; k--) {
            const uint64_t r = next_number(&rng), at = r % 1024 == 0 ? r / 1024 % 24 : r / 1024 % size;
            moved.bytes[moved.hdr + at] = r >> 60 < 4 ? 0xff : r >> 60 < 6 ? 0 : (uint8_t)(r >> 32);
        }
        for (unsigned i = 0; i < 10; i++) {
            const uint64_t pc = i < 8 ? here + next_number(&rng) % 16384 - 8192 : next_number(&rng) >> i;
            const enum stile__cfi_step step = moved_step(pc);
            assert_in_range(step, STILE__CFI_DONE, STILE__CFI_MEMORY);
            counts[step]++;
        }
    }
    print_message("done %lu, none %lu, root %lu, memory %lu\n", counts[0], counts[1], counts[2], counts[3]);
    assert_true(counts[STILE__CFI_DONE] > rounds / 10 && counts[STILE__CFI_NONE] > rounds / 10 &&
                counts[STILE__CFI_MEMORY] > 0);
    free(whole);
    free(moved.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_augmentations), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_registers),     cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_scan),          cmocka_unit_test(test_frames_by_expressions),
        cmocka_unit_test(test_any_bytes),     cmocka_unit_test(test_unknown_registers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
