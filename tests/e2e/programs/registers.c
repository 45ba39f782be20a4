/* All that a call can leave in registers, many calls deep: `registers MS`. See registers_asm.S. */
#include <cpuid.h>
#include <stddef.h>
#include <string.h>

#include "registers.h"
#include "rounds.h"

#define XSAVED     0xe7u   /* x87, SSE, AVX, AVX-512 */
#define FLAGS      0x8d5u  /* CF PF AF ZF SF OF */
#define MXCSR      0x1f80u /* no exception is raised */
#define X87_WORD   0x37fu
#define FLAGS_KEPT 0x202u /* what user mode has set besides */

struct image {
    struct {
        uint16_t fcw, fsw;
        uint8_t ftw, pad;
        uint16_t fop;
        uint64_t fip, fdp;
        uint32_t mxcsr, mxcsr_mask;
        uint8_t st[8][16]; /* ten bytes each */
        uint8_t xmm[16][16];
        uint8_t unused[96];
        uint64_t components, header[7];
        uint8_t extended[IMAGE_XSAVE - 576];
    } x;
    uint64_t gprs[IMAGE_COUNT], flags;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct image) == IMAGE_SIZE && offsetof(struct image, flags) == IMAGE_FLAGS,
               "as in assembly");

void registers_round(uint64_t depth, const struct image *images);
void registers_work(void);
void registers_compare(uint64_t depth);

static struct image images[IMAGES];
struct image registers_found;
uint32_t registers_mask;
const uint32_t registers_mxcsr = MXCSR;

static struct {
    unsigned offset, size;
} components[8];

void registers_work(void)
{
    work_a_little();
}

static void random_fill(void *to, size_t n, uint64_t *random)
{
    uint8_t *byte = to;
    while (n-- > 0)
        *byte++ = (uint8_t)random_below(random, 256);
}

static void image_fill(struct image *image, uint64_t *random)
{
    random_fill(image->gprs, sizeof(image->gprs), random);
    image->flags = (random_below(random, FLAGS + 1) & FLAGS) | FLAGS_KEPT;
    image->x.fcw = (uint16_t)(X87_WORD & ~0xc00u) | (uint16_t)(random_below(random, 4) << 10); /* rounding */
    image->x.mxcsr = MXCSR | random_below(random, 4) << 13;
    image->x.ftw = 0xff; /* none is empty */
    for (unsigned i = 0; i < 8; i++)
        random_fill(image->x.st[i], 10, random);
    random_fill(image->x.xmm, sizeof(image->x.xmm), random);
    image->x.components = registers_mask;
    for (unsigned c = 2; c < 8; c++)
        random_fill((char *)&image->x + components[c].offset, components[c].size, random);
}

void registers_compare(uint64_t depth)
{
    const struct image *wanted = &images[depth % IMAGES], *found = &registers_found;
    CHECK(memcmp(found->gprs, wanted->gprs, 9 * sizeof(uint64_t)) == 0);
    for (unsigned i = 0; i < 6; i++)
        CHECK(found->gprs[9 + i] == depth + i);
    CHECK((found->flags & FLAGS) == (wanted->flags & FLAGS));
    CHECK(found->x.mxcsr == wanted->x.mxcsr && found->x.fcw == wanted->x.fcw);
    CHECK(found->x.fsw == wanted->x.fsw && found->x.ftw == wanted->x.ftw);
    for (unsigned i = 0; i < 8; i++)
        CHECK(memcmp(found->x.st[i], wanted->x.st[i], 10) == 0);
    CHECK(memcmp(found->x.xmm, wanted->x.xmm, sizeof(found->x.xmm)) == 0);
    for (unsigned c = 2; c < 8; c++)
        CHECK(memcmp((const char *)&found->x + components[c].offset,
                     (const char *)&wanted->x + components[c].offset, components[c].size) == 0);
}

/* What this processor has, and where it is saved. */
static void components_find(void)
{
    unsigned a, b, c, d, low, high;
    CHECK(__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) != 0);
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    registers_mask = low & XSAVED;
    for (unsigned i = 2; i < 8; i++) {
        if ((registers_mask >> i & 1) == 0)
            continue;
        CHECK(__get_cpuid_count(0xd, i, &a, &b, &c, &d) && b >= 576 && a + b <= IMAGE_XSAVE);
        components[i].size = a;
        components[i].offset = b;
    }
}

int main(int argc, char **argv)
{
    uint64_t random = 1, begun = process_cpu_ns();

    if (argc != 2)
        return 2;
    components_find();
    for (unsigned i = 0; i < IMAGES; i++)
        image_fill(&images[i], &random);
    for (int i = 0; i < 20 || process_cpu_ns() - begun < strtoull(argv[1], NULL, 10) * MS; i++)
        registers_round(20 + random_below(&random, i % 4 == 0 ? 20 : 280), images);
    printf("components %x: done\n", registers_mask);
    return 0;
}
