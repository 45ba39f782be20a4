/* libunwind over a snapshot: stack words come from the snapshot, code and tables from the files. Where there is no
 * CFI (code compiled at run time), one step by frame pointer within the snapshot, then libunwind again.
 * Collector, normal context. */
#include "profiler/collector/unwinder.h"

#include <libunwind-x86_64.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS_MIN 65536ull     /* nothing is mapped below: vm.mmap_min_addr */
#define ADDRESS_MAX (1ull << 56) /* user half of the address space, five-level paging included */
#define CACHE_ROWS                                                                                           \
    16384 /* unwind rows that libunwind keeps; its default of 128 thrashes on any real program */

/* Exported by libunwind for debuggers, declared in none of its headers. */
int _Ux86_64_dwarf_search_unwind_table(unw_addr_space_t as, unw_word_t ip, unw_dyn_info_t *di,
                                       unw_proc_info_t *pi, int need_unwind_info, void *arg);

struct unwinder {
    unw_addr_space_t space;
    const struct mapping_table *mappings;
    uint32_t generation; /* of the mappings, when the cache was last flushed */
    const struct snapshot *snapshot;
    uint64_t regs[STILE__REG_COUNT]; /* where libunwind is to start */
    uint32_t lost;                   /* bits of those that are not known */
    bool no_cfi;                     /* the last frame asked for has none */
    uint32_t asked;                  /* mapping whose tables are being read */
    enum {
        NO_STUB,
        STUB_RETURN,
        STUB_INTERRUPTED
    } stub;                    /* what the last frame is, which is then not shown */
    bool at_barrier;           /* the walk came to the snapshot's barrier */
    uint64_t ra[STILE__STUBS]; /* where stubs go on, if the snapshot says it */
};

static int find_proc_info(unw_addr_space_t as, unw_word_t ip, unw_proc_info_t *pi, int need_unwind_info,
                          void *arg)
{
    struct unwinder *u = arg;
    uint32_t i = mappings_find_ever(u->mappings, ip);
    const struct mapping *m = i != MAPPING_NONE ? &u->mappings->all[i] : NULL;

    /* Never -UNW_ENOINFO: libunwind would then guess by rbp, even where rbp is no frame pointer. */
    u->no_cfi =
        m != NULL || u->mappings->view == &u->mappings->now; /* else not known: it was not looked at then */
    u->asked = i;
    if (m == NULL || m->module == NULL || m->module->elf.table_entries == 0)
        return -UNW_EBADFRAME;
    const struct elf_file *elf = &m->module->elf;
    unw_dyn_info_t di;
    memset(&di, 0, sizeof di);
    di.start_ip = m->start;
    di.end_ip = m->end;
    di.format = UNW_INFO_FORMAT_REMOTE_TABLE;
    di.u.rti.segbase = m->bias + elf->eh_frame_hdr.vaddr;
    di.u.rti.table_data = di.u.rti.segbase + elf->table_offset;
    di.u.rti.table_len = elf->table_entries; /* counted in 8-byte words, and an entry has 8 bytes */
    int err = _Ux86_64_dwarf_search_unwind_table(as, ip, &di, pi, need_unwind_info, arg);
    u->no_cfi = err == -UNW_ENOINFO;
    return u->no_cfi ? -UNW_EBADFRAME : err;
}

static void put_unwind_info(unw_addr_space_t as, unw_proc_info_t *pi, void *arg)
{
    (void)as;
    (void)pi;
    (void)arg;
}

static int get_dyn_info_list_addr(unw_addr_space_t as, unw_word_t *addr, void *arg)
{
    (void)as;
    (void)addr;
    (void)arg;
    return -UNW_ENOINFO;
}

static bool stack_word(const struct snapshot *s, uint64_t address, uint64_t *word)
{
    if (address < s->start || address - s->start > s->len || s->len - (address - s->start) < sizeof *word)
        return false;
    memcpy(word, s->bytes + (address - s->start), sizeof *word);
    return true;
}

/* An entry is its return address: the rest of it, and those of stubs that the snapshot does not tell of, are not to be had. */
static bool entry_word(const struct unwinder *u, uint64_t offset, uint64_t *word)
{
    *word = u->ra[offset / STILE__STUB_ENTRY];
    return offset % STILE__STUB_ENTRY == 0 && *word != 0;
}

static int access_mem(unw_addr_space_t as, unw_word_t address, unw_word_t *value, int write, void *arg)
{
    const struct unwinder *u = arg;
    (void)as;
    if (write)
        return -UNW_EREADONLYREG;
    uint64_t offset = address - u->snapshot->stubs.entries;
    if (u->snapshot->stubs.entries != 0 && offset < (uint64_t)STILE__STUBS * STILE__STUB_ENTRY)
        return entry_word(u, offset, value) ? 0 : -UNW_EINVAL;
    if (stack_word(u->snapshot, address, value) || mappings_read_word(u->mappings, u->asked, address, value))
        return 0;
    return -UNW_EINVAL;
}

static int access_reg(unw_addr_space_t as, unw_regnum_t reg, unw_word_t *value, int write, void *arg)
{
    const struct unwinder *u = arg;
    (void)as;
    if (write || reg < 0 || reg >= STILE__REG_COUNT || /* libunwind numbers them as DWARF does */
        (u->lost >> reg & 1) != 0)
        return -UNW_EBADREG;
    *value = u->regs[reg];
    return 0;
}

static int access_fpreg(unw_addr_space_t as, unw_regnum_t reg, unw_fpreg_t *value, int write, void *arg)
{
    (void)as;
    (void)reg;
    (void)value;
    (void)write;
    (void)arg;
    return -UNW_EBADREG;
}

static int resume(unw_addr_space_t as, unw_cursor_t *cursor, void *arg)
{
    (void)as;
    (void)cursor;
    (void)arg;
    return -UNW_EINVAL;
}

struct unwinder *unwinder_new(const struct mapping_table *mappings)
{
    static unw_accessors_t accessors = {
        .find_proc_info = find_proc_info,
        .put_unwind_info = put_unwind_info,
        .get_dyn_info_list_addr = get_dyn_info_list_addr,
        .access_mem = access_mem,
        .access_reg = access_reg,
        .access_fpreg = access_fpreg,
        .resume = resume,
    };
    struct unwinder *u = calloc(1, sizeof *u);
    if (u == NULL)
        return NULL;
    u->mappings = mappings;
    u->space = unw_create_addr_space(&accessors, 0);
    if (u->space == NULL) {
        free(u);
        return NULL;
    }
    unw_set_caching_policy(u->space, UNW_CACHE_GLOBAL);
    unw_set_cache_size(u->space, CACHE_ROWS, 0);
    return u;
}

void unwinder_free(struct unwinder *u)
{
    if (u == NULL)
        return;
    unw_destroy_addr_space(u->space);
    free(u);
}

/* Whether a stub with this stack pointer is the barrier with which the snapshot ends: its slot was just popped. */
static bool is_last_barrier(const struct unwinder *u, uint64_t rsp)
{
    return u->snapshot->ends_at_barrier && rsp == u->snapshot->start + u->snapshot->len;
}

/* Where the stub goes on that is a return address, or 0. */
static uint64_t stub_ra(const struct unwinder *u, uint64_t ret)
{
    uint64_t offset = ret - u->snapshot->stubs.first;
    if (offset >= (uint64_t)STILE__STUBS * STILE__STUB_BYTES || offset % STILE__STUB_BYTES != 0)
        return 0;
    uint64_t ra = u->ra[offset / STILE__STUB_BYTES];
    return stubs_have(&u->snapshot->stubs, ra - 1) ? 0 : ra; /* no stub leads to another */
}

/* One step by frame pointer. The frame must lie above the stack pointer within the snapshot; anything else is not a
 * frame. Whether the return address is code is not always known: pages of code made at run time are writable, not
 * executable, for moments, and one of those may be when the maps were read. */
static bool frame_pointer_step(struct unwinder *u)
{
    uint64_t rbp = u->regs[STILE__REG_RBP], next_rbp, ret;
    if (u->stub != NO_STUB || (u->lost >> STILE__REG_RBP & 1) != 0 || rbp < u->regs[STILE__REG_RSP] ||
        rbp % 8 != 0 || !stack_word(u->snapshot, rbp, &next_rbp) || !stack_word(u->snapshot, rbp + 8, &ret))
        return false;
    if (stubs_have(&u->snapshot->stubs, ret - 1)) {
        u->at_barrier = is_last_barrier(u, rbp + 16);
        ret = u->at_barrier ? 0 : stub_ra(u, ret);
    }
    if (ret < ADDRESS_MIN || ret >= ADDRESS_MAX)
        return false;
    u->regs[STILE__REG_RSP] = rbp + 16;
    u->regs[STILE__REG_RBP] = next_rbp;
    u->regs[STILE__REG_RIP] = ret - 1; /* inside the call, whose row it is */
    return true;
}

/* Whether the stack has no room for a caller above this stack pointer. Above a barrier there are callers. */
static bool is_the_end(const struct unwinder *u, uint64_t rsp)
{
    return !u->snapshot->ends_at_barrier &&
           rsp + 2 * sizeof(uint64_t) >= u->snapshot->start + u->snapshot->len;
}

/* Walks from u->regs as far as CFI goes. Returns true if that was the outermost frame, or the last barrier. Appends all but
 * the frame it starts with, which the caller has appended; leaves in u->regs the frame without CFI otherwise. */
static bool cfi_walk(struct unwinder *u, uint64_t *addresses, size_t *n, size_t max)
{
    static const int kept[] = {UNW_X86_64_RBX, UNW_X86_64_RBP, UNW_X86_64_RSP, UNW_X86_64_R12,
                               UNW_X86_64_R13, UNW_X86_64_R14, UNW_X86_64_R15, UNW_X86_64_RIP};
    unw_cursor_t cursor;
    unw_word_t ip, value;

    if (unw_init_remote(&cursor, u->space, u) != 0)
        return false;
    while (*n < max) {
        u->no_cfi = false;
        int step = unw_step(&cursor);
        if (step == 0)
            return true;
        if (step < 0 || unw_get_reg(&cursor, UNW_REG_IP, &ip) != 0)
            break;
        if (ip == 0) { /* the end by the ABI's word, or memory that is no frame any more */
            if ((unw_get_reg(&cursor, UNW_X86_64_RBP, &value) == 0 && value == 0) ||
                (unw_get_reg(&cursor, UNW_REG_SP, &value) == 0 && is_the_end(u, value)))
                return true;
            break;
        }
        /* libunwind says it of the frame that a signal interrupted. */
        const bool interrupted = unw_is_signal_frame(&cursor) > 0;
        if (stubs_have(&u->snapshot->stubs, interrupted ? ip : ip - 1)) {
            u->at_barrier =
                !interrupted && unw_get_reg(&cursor, UNW_REG_SP, &value) == 0 && is_last_barrier(u, value);
            if (u->at_barrier)
                return true;
            if (u->stub != NO_STUB) /* no stub leads to another: two that do could go on for ever */
                break;
            u->stub = interrupted ? STUB_INTERRUPTED : STUB_RETURN;
            u->asked = mappings_find(u->mappings, ip); /* the step reads its code, even if its row is kept */
            continue;
        }
        addresses[(*n)++] = interrupted || u->stub == STUB_INTERRUPTED ? ip : ip - 1;
        u->stub = NO_STUB;
    }
    uint32_t lost = u->lost;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        bool have = unw_get_reg(&cursor, kept[i], &value) == 0;
        if (have)
            u->regs[kept[i]] = value;
        lost = have ? lost & ~(1u << kept[i]) : lost | 1u << kept[i];
    }
    u->lost = lost;
    return false;
}

void unwinder_flush(struct unwinder *u)
{
    unw_flush_cache(u->space, 0, 0);
}

static size_t walk(struct unwinder *u, const struct snapshot *s, uint64_t *addresses, size_t max,
                   enum stile__reason *reason)
{
    size_t n = 0;

    if (u->generation != u->mappings->view->generation) { /* a library is gone: its rows are no longer true */
        unwinder_flush(u);
        u->generation = u->mappings->view->generation;
    }
    u->snapshot = s;
    memcpy(u->regs, s->regs, sizeof u->regs);
    u->lost = s->lost;
    u->at_barrier = false;
    u->stub = stubs_have(&s->stubs, u->regs[STILE__REG_RIP]) ? STUB_INTERRUPTED : NO_STUB;
    if (u->stub == NO_STUB)
        addresses[n++] = u->regs[STILE__REG_RIP];
    *reason = STILE__REASON_NONE;
    size_t known =
        n; /* frames up to the last one in code that is known: only those are shown if the walk fails */
    while (!cfi_walk(u, addresses, &n, max)) {
        size_t last = n;
        while (last > known && mappings_find_ever(u->mappings, addresses[last - 1]) == MAPPING_NONE)
            last--;
        known = last;
        if (n >= max) {
            *reason = STILE__REASON_TRUNCATED;
            return n;
        }
        /* The loader's first instructions have no CFI, and nothing above them but the arguments. */
        if (u->no_cfi && is_the_end(u, u->regs[STILE__REG_RSP]))
            return n;
        /* Where there is CFI and it failed, rbp is anything: no guess. */
        if (!u->no_cfi || !frame_pointer_step(u)) {
            if (u->at_barrier)
                return n;
            *reason = STILE__REASON_NO_UNWIND_INFO;
            return known;
        }
        addresses[n++] = u->regs[STILE__REG_RIP];
    }
    return n;
}

size_t unwinder_walk(struct unwinder *u, const struct snapshot *s, uint64_t *addresses, size_t max,
                     enum stile__reason *reason)
{
    for (size_t i = 0; i < s->n_barriers; i++)
        if (s->barriers[i].stub < STILE__STUBS)
            u->ra[s->barriers[i].stub] = s->barriers[i].ra;
    size_t n = walk(u, s, addresses, max, reason);
    for (size_t i = 0; i < s->n_barriers; i++)
        if (s->barriers[i].stub < STILE__STUBS)
            u->ra[s->barriers[i].stub] = 0;
    return n;
}

bool unwinder_at_barrier(const struct unwinder *u)
{
    return u->at_barrier;
}
