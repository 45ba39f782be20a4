/* Entries of .eh_frame. Runs in the handlers of crashes. */
#include "profiler/agent/crash/cfi_parts.h"

#include "profiler/agent/signal/poison.h"

#define ENTRY_MAX   (1u << 20) /* bytes of one entry: a function of many megabytes has no more */
#define ENTRIES_MAX (1u << 20) /* of a module without a table that are looked at */

/* DW_EH_PE_* */
#define ENC_OMIT    0xffu
#define ENC_FORMAT  0x0fu
#define ENC_APPLY   0x70u
#define ENC_PCREL   0x10u
#define ENC_DATAREL 0x30u
#define ENC_TABLE   0x3bu /* datarel | sdata4: of every table that linkers make */

static uint64_t value_read(struct stile__cursor *c, uint8_t encoding)
{
    switch (encoding & ENC_FORMAT) {
    case 0x0: /* absptr */
    case 0x4: /* udata8 */
    case 0xc: /* sdata8 */
        return stile__cursor_uint(c, 8);
    case 0x1:
        return stile__cursor_uleb(c);
    case 0x2:
        return stile__cursor_uint(c, 2);
    case 0x3:
        return stile__cursor_uint(c, 4);
    case 0x9:
        return (uint64_t)stile__cursor_sleb(c);
    case 0xa:
        return (uint64_t)stile__cursor_int(c, 2);
    case 0xb:
        return (uint64_t)stile__cursor_int(c, 4);
    default:
        c->bad = true;
        return 0;
    }
}

uint64_t stile__cursor_pointer(struct stile__cursor *c, uint8_t encoding, uint64_t base)
{
    const uint64_t at = (uint64_t)c->at;
    if (encoding == ENC_OMIT)
        return 0;
    uint64_t value = value_read(c, encoding);
    switch (encoding & ENC_APPLY) {
    case 0:
        return value;
    case ENC_PCREL:
        return value + at;
    case ENC_DATAREL:
        return value + base;
    default:
        c->bad = true;
        return 0;
    }
}

/* Bytes of the module from an address on, as far as they were found readable. */
static bool cursor_at(const struct stile__cfi_section *s, struct stile__pages *pages, uint64_t at, uint64_t n,
                      struct stile__cursor *c)
{
    if (at < s->lo || at >= s->hi || n > s->hi - at || !stile__pages_readable(pages, at, n))
        return false;
    *c = (struct stile__cursor){(const uint8_t *)at, (const uint8_t *)at + n, false};
    return true;
}

/* The contents of the entry at an address: what follows its length. False: there is none, or it is the terminator. */
static bool entry_open(const struct stile__cfi_section *s, struct stile__pages *pages, uint64_t at,
                       struct stile__cursor *c)
{
    if (!cursor_at(s, pages, at, 4, c))
        return false;
    uint64_t n = stile__cursor_uint(c, 4);
    at += 4;
    if (n == UINT32_MAX) {
        if (!cursor_at(s, pages, at, 8, c))
            return false;
        n = stile__cursor_uint(c, 8);
        at += 8;
    }
    return n >= 4 && n <= ENTRY_MAX && cursor_at(s, pages, at, n, c);
}

/* What a CIE's augmentation says. */
static void augmentation_parse(struct stile__cursor *c, const uint8_t *augmentation,
                               struct stile__cfi_entry *e)
{
    const uint64_t n = stile__cursor_uleb(c);
    struct stile__cursor data = *c;
    stile__cursor_skip(c, n);
    if (c->bad)
        return;
    data.end = c->at;
    for (const uint8_t *letter = augmentation + 1; *letter != 0; letter++)
        switch (*letter) {
        case 'R':
            e->encoding = (uint8_t)stile__cursor_uint(&data, 1);
            break;
        case 'L':
            stile__cursor_skip(&data, 1);
            break;
        case 'P': {
            const uint8_t encoding = (uint8_t)stile__cursor_uint(&data, 1);
            if (encoding != ENC_OMIT)
                (void)value_read(&data, encoding);
            break;
        }
        case 'S':
            e->signal = true;
            break;
        default: /* what follows is not known, but its length is */
            data.at = data.end;
            break;
        }
    c->bad |= data.bad;
}

/* Returns whether the entry's own data begin with their length. */
static bool cie_parse(struct stile__cursor c, struct stile__cfi_entry *e, bool *sized)
{
    const uint64_t id = stile__cursor_uint(&c, 4), version = stile__cursor_uint(&c, 1);
    const uint8_t *augmentation = c.at;
    while (stile__cursor_uint(&c, 1) != 0)
        ;
    if (c.bad || id != 0 || (version != 1 && version != 3 && version != 4) ||
        (augmentation[0] != 0 && augmentation[0] != 'z'))
        return false;
    if (version == 4)
        stile__cursor_skip(&c, 2); /* sizes of addresses and of segments */
    e->encoding = 0;
    e->signal = false;
    e->code_align = stile__cursor_uleb(&c);
    e->data_align = stile__cursor_sleb(&c);
    e->ra = version == 1 ? stile__cursor_uint(&c, 1) : stile__cursor_uleb(&c);
    *sized = augmentation[0] == 'z';
    if (*sized)
        augmentation_parse(&c, augmentation, e);
    e->common = c;
    return !c.bad && e->ra < STILE__CFI_REGS;
}

/* An FDE. The CIE is `known` if it is where the one of the entry before was, so that a scan opens it once. */
static bool fde_parse(const struct stile__cfi_section *s, struct stile__pages *pages, struct stile__cursor c,
                      struct stile__cfi_entry *e)
{
    const uint64_t at = (uint64_t)c.at, back = stile__cursor_uint(&c, 4);
    struct stile__cursor cie;
    bool sized = false;
    if (c.bad || back == 0 || back > at - s->lo || !entry_open(s, pages, at - back, &cie) ||
        !cie_parse(cie, e, &sized))
        return false;
    e->hdr = s->hdr;
    e->start = stile__cursor_pointer(&c, e->encoding, s->hdr);
    e->end = e->start + value_read(&c, e->encoding);
    if (sized)
        stile__cursor_skip(&c, stile__cursor_uleb(&c));
    e->program = c;
    return !c.bad;
}

static bool fde_has(const struct stile__cfi_section *s, struct stile__pages *pages, uint64_t at, uint64_t pc,
                    struct stile__cfi_entry *e)
{
    struct stile__cursor c;
    return entry_open(s, pages, at, &c) && fde_parse(s, pages, c, e) && e->start <= pc && pc < e->end;
}

/* The sorted table: pairs of where code begins and where its FDE is, both from .eh_frame_hdr on. */
static bool table_find(const struct stile__cfi_section *s, struct stile__pages *pages, uint64_t table,
                       uint64_t n, uint64_t pc, uint64_t *fde)
{
    uint64_t lo = 0, hi = n;
    struct stile__cursor c;
    if (table < s->lo || table >= s->hi || n == 0 || n > (s->hi - table) / 8)
        return false;
    while (hi - lo > 1) {
        const uint64_t middle = lo + (hi - lo) / 2;
        if (!cursor_at(s, pages, table + 8 * middle, 4, &c))
            return false;
        if (s->hdr + (uint64_t)stile__cursor_int(&c, 4) <= pc)
            lo = middle;
        else
            hi = middle;
    }
    if (!cursor_at(s, pages, table + 8 * lo + 4, 4, &c))
        return false;
    *fde = s->hdr + (uint64_t)stile__cursor_int(&c, 4);
    return true;
}

/* Entry after entry. */
static bool scan_find(const struct stile__cfi_section *s, struct stile__pages *pages, uint64_t at,
                      uint64_t pc, struct stile__cfi_entry *e)
{
    struct stile__cursor c;
    for (uint32_t n = 0; n < ENTRIES_MAX && entry_open(s, pages, at, &c); n++) {
        if (fde_parse(s, pages, c, e) && e->start <= pc && pc < e->end)
            return true;
        at = (uint64_t)c.end;
    }
    return false;
}

bool stile__cfi_find(const struct stile__cfi_section *s, uint64_t pc, struct stile__pages *pages,
                     struct stile__cfi_entry *e)
{
    const uint64_t left = s->hdr >= s->lo && s->hdr < s->hi ? s->hi - s->hdr : 0;
    struct stile__cursor c;
    uint64_t fde;
    if (left < 4 || !cursor_at(s, pages, s->hdr, left < 24 ? left : 24, &c) || stile__cursor_uint(&c, 1) != 1)
        return false;
    const uint8_t frame = (uint8_t)stile__cursor_uint(&c, 1), count = (uint8_t)stile__cursor_uint(&c, 1),
                  table = (uint8_t)stile__cursor_uint(&c, 1);
    const uint64_t eh_frame = stile__cursor_pointer(&c, frame, s->hdr);
    const uint64_t n = stile__cursor_pointer(&c, count, s->hdr);
    if (c.bad)
        return false;
    if (table == ENC_TABLE && count != ENC_OMIT)
        return table_find(s, pages, (uint64_t)c.at, n, pc, &fde) && fde_has(s, pages, fde, pc, e);
    return frame != ENC_OMIT && scan_find(s, pages, eh_frame, pc, e);
}
