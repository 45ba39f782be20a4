/* An ELF file or image, opened so that nothing in it can crash us. Context: any normal; single-threaded. */
#ifndef STILE_PROTO_ELF_FILE_H
#define STILE_PROTO_ELF_FILE_H

#include <gelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stile__elf_segment {
    uint64_t offset, file_size;    /* in the file */
    uint64_t address, memory_size; /* as linked */
    bool executable;
};

/* elf is NULL if there is nothing readable; then all else is zero but fd, which is -1. */
struct stile__elf_file {
    Elf *elf;
    int fd;                              /* ours, -1 once detached or for an image */
    struct stile__elf_segment *segments; /* PT_LOAD only */
    size_t n_segments;
};

/* Takes over fd, also on failure. 0, or -errno: -EINVAL if it is no executable or shared object. */
int stile__elf_file_open(struct stile__elf_file *f, int fd);
/* image must outlive f. */
int stile__elf_file_open_image(struct stile__elf_file *f, const void *image, size_t size);
/* Closes the descriptor; sections that were not read until now read as missing. */
void stile__elf_file_detach(struct stile__elf_file *f);
void stile__elf_file_close(struct stile__elf_file *f);

/* The address, as linked, of the byte at offset of the file, if a segment loads it; code before data. */
bool stile__elf_file_address(const struct stile__elf_file *f, uint64_t offset, uint64_t *address);
bool stile__elf_file_is_code(const struct stile__elf_file *f, uint64_t address);
/* The build id's size in bytes, 0 if there is none. *id lives as long as f. */
size_t stile__elf_file_build_id(const struct stile__elf_file *f, const uint8_t **id);

/* Whether the sections that hold DWARF's texts end with a NUL, as they must; to be asked once a Dwarf was made of f,
 * which unpacks them. libdw trusts them. */
bool stile__elf_file_has_sound_texts(const struct stile__elf_file *f);

#endif
