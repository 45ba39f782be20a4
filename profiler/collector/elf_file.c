/* Reads the parts of an ELF file that unwinding needs. Collector, normal context. */
#include "profiler/collector/elf_file.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PART_MAX (256u << 20) /* no unwind table is larger; keeps a made-up size from exhausting memory */
#define NOTE_MAX (64u << 10)

/* Encodings of .eh_frame_hdr, LSB core specification, exception frames. */
#define DW_EH_PE_UDATA4         0x03
#define DW_EH_PE_DATAREL_SDATA4 0x3b

static bool read_at(const struct elf_file *f, uint64_t offset, void *to, uint64_t n)
{
    if (f->fd < 0) {
        if (offset > f->image_size || n > f->image_size - offset)
            return false;
        memcpy(to, (const char *)f->image + offset, n);
        return true;
    }
    while (n > 0) {
        ssize_t got = pread(f->fd, to, n, (off_t)offset);
        if (got <= 0)
            return false;
        to = (char *)to + got;
        offset += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return true;
}

static void part_read(const struct elf_file *f, struct elf_part *part, uint64_t offset, uint64_t vaddr,
                      uint64_t size)
{
    if (size == 0 || size > PART_MAX)
        return;
    part->bytes = malloc(size);
    if (part->bytes == NULL || !read_at(f, offset, part->bytes, size)) {
        free(part->bytes);
        part->bytes = NULL;
        return;
    }
    part->vaddr = vaddr;
    part->size = size;
}

static void build_id_read(struct elf_file *f, uint64_t offset, uint64_t size)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t *notes = malloc(NOTE_MAX);
    if (notes == NULL || size > NOTE_MAX || !read_at(f, offset, notes, size))
        size = 0;
    for (uint64_t at = 0; at + sizeof(Elf64_Nhdr) <= size;) {
        Elf64_Nhdr n;
        memcpy(&n, notes + at, sizeof n);
        uint64_t name = at + sizeof n;
        uint64_t desc = name + ((n.n_namesz + 3ull) & ~3ull);
        uint64_t next = desc + ((n.n_descsz + 3ull) & ~3ull);
        if (next > size || next <= at)
            break;
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(notes + name, "GNU", 4) == 0 &&
            n.n_descsz <= 64) {
            for (uint32_t i = 0; i < n.n_descsz; i++) {
                f->build_id[2 * i] = hex[notes[desc + i] >> 4];
                f->build_id[2 * i + 1] = hex[notes[desc + i] & 15];
            }
            f->build_id[2 * n.n_descsz] = '\0';
        }
        at = next;
    }
    free(notes);
}

/* .eh_frame has no size in the program headers: its section has, and else it ends with its segment at the latest. */
static void eh_frame_read(struct elf_file *f, const Elf64_Ehdr *eh, uint64_t eh_frame_vaddr)
{
    for (unsigned i = 0; i < eh->e_shnum && eh->e_shentsize == sizeof(Elf64_Shdr); i++) {
        Elf64_Shdr sh;
        if (!read_at(f, eh->e_shoff + i * sizeof sh, &sh, sizeof sh))
            break;
        if (sh.sh_addr == eh_frame_vaddr && (sh.sh_flags & SHF_ALLOC) && sh.sh_type != SHT_NOBITS &&
            sh.sh_size > 0) {
            part_read(f, &f->eh_frame, sh.sh_offset, sh.sh_addr, sh.sh_size);
            return;
        }
    }
    for (unsigned i = 0; i < f->n_segments; i++) {
        const struct elf_segment *s = &f->segments[i];
        uint64_t into = eh_frame_vaddr - s->vaddr;
        if (eh_frame_vaddr >= s->vaddr && into < s->filesz)
            part_read(f, &f->eh_frame, s->offset + into, eh_frame_vaddr, s->filesz - into);
    }
}

static void eh_frame_hdr_read(struct elf_file *f, const Elf64_Ehdr *eh, const Elf64_Phdr *ph)
{
    int32_t relative;
    uint32_t entries;

    part_read(f, &f->eh_frame_hdr, ph->p_offset, ph->p_vaddr, ph->p_filesz);
    const uint8_t *h = f->eh_frame_hdr.bytes;
    /* version, encodings of .eh_frame's address, of the number of entries and of the table */
    if (h == NULL || ph->p_filesz < 12 || h[0] != 1 || (h[1] & 0x0f) != 0x0b || h[2] != DW_EH_PE_UDATA4 ||
        h[3] != DW_EH_PE_DATAREL_SDATA4)
        return;
    memcpy(&relative, h + 4, sizeof relative);
    memcpy(&entries, h + 8, sizeof entries);
    if (entries > (ph->p_filesz - 12) / 8)
        return;
    f->table_offset = 12;
    f->table_entries = entries;
    eh_frame_read(f, eh, ph->p_vaddr + 4 + (uint64_t)(int64_t)relative);
}

void elf_file_open(struct elf_file *f, int fd, const void *image, size_t image_size)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph;

    memset(f, 0, sizeof *f);
    f->fd = fd;
    f->image = image;
    f->image_size = image_size;
    if (!read_at(f, 0, &eh, sizeof eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 ||
        eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_phentsize != sizeof ph)
        return;
    for (int pass = 0; pass < 2; pass++) /* segments first: the others are looked up in them */
        for (unsigned i = 0; i < eh.e_phnum; i++) {
            if (!read_at(f, eh.e_phoff + i * sizeof ph, &ph, sizeof ph))
                return;
            if (pass == 0 && ph.p_type == PT_LOAD && f->n_segments < sizeof f->segments / sizeof *f->segments)
                f->segments[f->n_segments++] = (struct elf_segment){ph.p_vaddr, ph.p_offset, ph.p_filesz,
                                                                    ph.p_memsz, (ph.p_flags & PF_X) != 0};
            else if (pass == 1 && ph.p_type == PT_NOTE && f->build_id[0] == '\0')
                build_id_read(f, ph.p_offset, ph.p_filesz);
            else if (pass == 1 && ph.p_type == PT_GNU_EH_FRAME && f->eh_frame_hdr.bytes == NULL)
                eh_frame_hdr_read(f, &eh, &ph);
        }
}

void elf_file_close(struct elf_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->eh_frame_hdr.bytes);
    free(f->eh_frame.bytes);
    f->fd = -1;
    f->eh_frame_hdr.bytes = f->eh_frame.bytes = NULL;
}

bool elf_file_vaddr(const struct elf_file *f, uint64_t offset, uint64_t *vaddr)
{
    for (unsigned i = 0; i < f->n_segments; i++) {
        const struct elf_segment *s = &f->segments[i];
        /* A mapping starts at a page: up to a page before the segment belongs to it, too. */
        if (offset + 4096 > s->offset && offset < s->offset + s->filesz && s->exec) {
            *vaddr = s->vaddr + (offset - s->offset);
            return true;
        }
    }
    return false;
}

static bool part_word(const struct elf_part *p, uint64_t vaddr, uint64_t *word)
{
    if (p->bytes == NULL || vaddr < p->vaddr || vaddr - p->vaddr >= p->size)
        return false;
    uint64_t at = vaddr - p->vaddr, n = p->size - at < sizeof *word ? p->size - at : sizeof *word;
    *word = 0;
    memcpy(word, p->bytes + at, n);
    return true;
}

bool elf_file_read(const struct elf_file *f, uint64_t vaddr, void *to, size_t n)
{
    for (unsigned i = 0; i < f->n_segments; i++) {
        const struct elf_segment *s = &f->segments[i];
        if (vaddr >= s->vaddr && vaddr - s->vaddr < s->filesz && s->filesz - (vaddr - s->vaddr) >= n)
            return read_at(f, s->offset + (vaddr - s->vaddr), to, n);
    }
    return false;
}

bool elf_file_read_word(const struct elf_file *f, uint64_t vaddr, uint64_t *word)
{
    return part_word(&f->eh_frame, vaddr, word) || part_word(&f->eh_frame_hdr, vaddr, word) ||
           elf_file_read(f, vaddr, word, sizeof *word);
}

uint64_t elf_file_limit(const struct elf_file *f)
{
    uint64_t limit = 0;
    for (unsigned i = 0; i < f->n_segments; i++)
        if (f->segments[i].vaddr + f->segments[i].memsz > limit)
            limit = f->segments[i].vaddr + f->segments[i].memsz;
    return limit;
}

/* Entry i of the search table: both numbers are relative to the table's own section. */
static void table_entry(const struct elf_file *f, uint64_t i, uint64_t *start, uint64_t *fde)
{
    int32_t relative[2];
    memcpy(relative, f->eh_frame_hdr.bytes + f->table_offset + i * sizeof relative, sizeof relative);
    *start = f->eh_frame_hdr.vaddr + (uint64_t)(int64_t)relative[0];
    *fde = f->eh_frame_hdr.vaddr + (uint64_t)(int64_t)relative[1];
}

bool elf_file_entry(const struct elf_file *f, uint64_t vaddr, uint64_t *start, uint64_t *end)
{
    uint64_t lo = 0, hi = f->table_entries, at, fde, words[2], next = UINT64_MAX;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        table_entry(f, mid, &at, &fde);
        if (at <= vaddr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < f->table_entries)
        table_entry(f, lo, &next, &fde);
    *start = 0;
    *end = next;
    if (lo == 0)
        return false;
    table_entry(f, lo - 1, start, &fde);
    /* length, CIE pointer; then first address and size, 4 bytes each in every file that has such a table */
    if (!part_word(&f->eh_frame, fde, &words[0]) || !part_word(&f->eh_frame, fde + 8, &words[1]))
        return false;
    uint64_t covered = *start + (words[1] >> 32);
    if (vaddr >= covered) {
        *start = covered;
        return false;
    }
    *end = covered < next ? covered : next;
    return true;
}

bool elf_file_function(const struct elf_file *f, uint64_t vaddr, uint64_t *start)
{
    uint64_t end;
    return elf_file_entry(f, vaddr, start, &end);
}
