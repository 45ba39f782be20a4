/* barriers/arch/x86_64/call_site.c: against calls that the assembler has encoded, and against bytes that are none. */
#include "tests/unit/support.h"

#include <string.h>
#include <sys/mman.h>

#include "barriers/call_site.h"
#include "profiler/region/layout.h"

static const struct call {
    uint64_t end, length;
} * calls, *calls_end;
extern const char calls_assembled[], calls_assembled_end[], calls_code[], calls_code_end[];

static uint8_t *page; /* of code that the test writes, with a page before and behind it that cannot be read */

static int set_up(void **state)
{
    (void)state;
    calls = (const void *)calls_assembled;
    calls_end = (const void *)calls_assembled_end;
    uint8_t *at = mmap(NULL, 3 * (size_t)STILE__PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return -1;
    page = at + STILE__PAGE;
    return mprotect(page, STILE__PAGE, PROT_READ | PROT_WRITE);
}

/* Whether a call precedes what follows these bytes, which 0xcc precede. */
static bool precedes(const uint8_t *bytes, size_t n)
{
    memset(page, 0xcc, STILE__PAGE);
    memcpy(page + 64, bytes, n);
    return stile__call_precedes((uintptr_t)page + 64 + n);
}

static void test_all_calls(void **state)
{
    size_t n = 0;
    (void)state;
    for (const struct call *c = calls; c != calls_end; c++, n++)
        if (!precedes((const uint8_t *)c->end - c->length, c->length))
            fail_msg("call %zu, %u bytes: %02x %02x %02x ...", n, (unsigned)c->length,
                     ((const uint8_t *)c->end - c->length)[0], ((const uint8_t *)c->end - c->length)[1],
                     ((const uint8_t *)c->end - c->length)[2]);
    assert_true(n > 4800);
}

/* Within a call nothing ends, but for those whose operands are made to look so. */
static void test_within_calls(void **state)
{
    (void)state;
    for (const struct call *c = calls; c != calls_end; c++) {
        const uint8_t *from = (const uint8_t *)c->end - c->length;
        if (from[0] == 0xe8 && from[3] == 0xff)
            continue;
        for (uint64_t n = 1; n < c->length; n++)
            if (precedes(from, n))
                fail_msg("call %zu, after %u of %u bytes", (size_t)(c - calls), (unsigned)n,
                         (unsigned)c->length);
    }
}

/* Where they lie: read in place, all but those that begin on the page before. */
static void test_in_place(void **state)
{
    size_t far = 0;
    (void)state;
    for (const struct call *c = calls; c != calls_end; c++) {
        bool near = c->end % STILE__PAGE < 7;
        assert_int_equal(stile__call_precedes(c->end), !near);
        far += !near;
    }
    assert_true(far > 4800);
}

/* The page before is not read: it may not be there. */
static void test_at_a_pages_beginning(void **state)
{
    static const uint8_t call[] = {0xff, 0xd0};
    (void)state;
    for (size_t at = 0; at < 32; at++) {
        memset(page, 0xcc, STILE__PAGE);
        if (at >= sizeof call)
            memcpy(page + at - sizeof call, call, sizeof call);
        assert_int_equal(stile__call_precedes((uintptr_t)page + at), at >= 7);
    }
    memset(page, 0xcc, STILE__PAGE);
    memcpy(page + STILE__PAGE - sizeof call, call, sizeof call);
    /* What follows the page is not read either. */
    assert_true(stile__call_precedes((uintptr_t)page + STILE__PAGE - 1) == false);
}

/* Length of FF /2 from its opcode on, by the SDM's tables 2-2 and 2-3. */
static unsigned length_by_tables(unsigned modrm, unsigned sib)
{
    static const uint8_t displacement[4][8] = {
        {0, 0, 0, 0, 0, 4, 0, 0}, {1, 1, 1, 1, 1, 1, 1, 1}, {4, 4, 4, 4, 4, 4, 4, 4}, {0}};
    unsigned mod = modrm / 64, rm = modrm % 8;
    if (modrm / 8 % 8 != 2)
        return 0;
    bool has_sib = mod != 3 && rm == 4;
    unsigned n = 2 + has_sib + displacement[mod][rm];
    return has_sib && mod == 0 && sib % 8 == 5 ? n + 4 : n;
}

/* Every ModR/M and SIB byte with every length: a call there is, or there is none. */
static void test_every_operand(void **state)
{
    (void)state;
    for (unsigned modrm = 0; modrm < 256; modrm++)
        for (unsigned sib = 0; sib < 256; sib++) {
            if (modrm == 0xff || sib == 0xff || modrm == 0xe8 || sib == 0xe8)
                continue; /* what follows may be a call of its own */
            const uint8_t bytes[] = {0xff, (uint8_t)modrm, (uint8_t)sib, 0x22, 0x22, 0x22, 0x22, 0x22};
            for (unsigned n = 2; n <= sizeof bytes; n++)
                if (precedes(bytes, n) != (length_by_tables(modrm, sib) == n))
                    fail_msg("ff %02x %02x, %u bytes", modrm, sib, n);
        }
}

#define BYTES(...)                                                                                           \
    {                                                                                                        \
        sizeof((const uint8_t[]){__VA_ARGS__}),                                                              \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }

static void test_no_calls(void **state)
{
    static const struct {
        size_t n;
        uint8_t bytes[15];
    } none[] = {
        BYTES(0xc3),                               /* ret */
        BYTES(0x90),                               /* nop */
        BYTES(0x0f, 0x05),                         /* syscall */
        BYTES(0x0f, 0x0b),                         /* ud2 */
        BYTES(0xcc),                               /* int3 */
        BYTES(0xe9, 1, 2, 3, 4),                   /* jmp */
        BYTES(0xeb, 5),                            /* jmp */
        BYTES(0xff, 0xe0),                         /* jmp *%rax */
        BYTES(0xff, 0x25, 1, 2, 3, 4),             /* jmp *...(%rip) */
        BYTES(0xff, 0x24, 0xc5, 1, 2, 3, 4),       /* jmp *...(,%rax,8) */
        BYTES(0xff, 0xf0),                         /* push %rax */
        BYTES(0xff, 0x74, 0x24, 8),                /* push 8(%rsp) */
        BYTES(0xff, 0xc0),                         /* inc %eax */
        BYTES(0xff, 0xc8),                         /* dec %eax */
        BYTES(0xff, 0x18),                         /* lcall *(%rax) */
        BYTES(0xff, 0x5c, 0x24, 8),                /* lcall *8(%rsp) */
        BYTES(0xfe, 0xd0),                         /* nothing */
        BYTES(0xe8, 1, 2, 3),                      /* half a call */
        BYTES(0xe8, 1, 2, 3, 4, 0x90),             /* a call, and more */
        BYTES(0xff, 0xd0, 0x90),                   /* the same */
        BYTES(0xff, 0x15, 1, 2, 3, 4, 0x90),       /* the same */
        BYTES(0x48, 0x8d, 0x05, 1, 2, 3, 4),       /* lea */
        BYTES(0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8), /* mov $..., %rax */
        BYTES(0xf3, 0x0f, 0x1e, 0xfa),             /* endbr64 */
        BYTES(0xc7, 0xf8, 0, 0, 0, 0),             /* xbegin */
    };
    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (precedes(none[i].bytes, none[i].n))
            fail_msg("no call: %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_calls),     cmocka_unit_test(test_within_calls),
        cmocka_unit_test(test_in_place),      cmocka_unit_test(test_at_a_pages_beginning),
        cmocka_unit_test(test_every_operand), cmocka_unit_test(test_no_calls),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
