/* What the collector needs to know of an ELF file to walk through its code: unwind tables, addresses, build id.
 * Collector, normal context. Nothing of a file is believed: every offset is checked, and a file that cannot be used
 * has no tables. Files are read, never mapped, since a mapped file that shrinks is a SIGBUS. */
#ifndef STILE_COLLECTOR_ELF_FILE_H
#define STILE_COLLECTOR_ELF_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct elf_segment {
    uint64_t vaddr, offset, filesz, memsz;
    bool exec;
};

/* A part of the file held in memory, by virtual address. */
struct elf_part {
    uint64_t vaddr, size;
    uint8_t *bytes; /* NULL: not there; owned */
};

struct elf_file {
    int fd;            /* -1: image; owned */
    const void *image; /* the vdso; not owned */
    size_t image_size;
    char build_id[129]; /* lower-case hex, "" for none */
    struct elf_segment segments[16];
    unsigned n_segments;
    struct elf_part eh_frame_hdr, eh_frame;
    uint64_t table_offset;  /* of the binary search table in .eh_frame_hdr */
    uint64_t table_entries; /* 0: no usable table */
};

/* Reads a file; owns fd from here on. Never fails: what cannot be read is left empty. */
void elf_file_open(struct elf_file *f, int fd, const void *image, size_t image_size);
void elf_file_close(struct elf_file *f);

/* Virtual address of a file offset. False if no loaded segment has it. */
bool elf_file_vaddr(const struct elf_file *f, uint64_t offset, uint64_t *vaddr);

/* Reads 8 bytes that lie at a virtual address, from the file. */
bool elf_file_read_word(const struct elf_file *f, uint64_t vaddr, uint64_t *word);

/* Reads n bytes that lie at a virtual address, from the file. */
bool elf_file_read(const struct elf_file *f, uint64_t vaddr, void *to, size_t n);

/* The first virtual address of the function that has vaddr, from its unwind entry: a stripped file still says where
 * its functions begin. False if no entry covers it. */
bool elf_file_function(const struct elf_file *f, uint64_t vaddr, uint64_t *start);

/* The same with the end, exclusive. If no entry covers it: the range around it that none covers. */
bool elf_file_entry(const struct elf_file *f, uint64_t vaddr, uint64_t *start, uint64_t *end);

/* The last virtual address that is loaded, exclusive. */
uint64_t elf_file_limit(const struct elf_file *f);

#endif
