/* Opens ELF files for the symbolizer. They are read, never mapped: a file that is cut short meanwhile must not
 * raise SIGBUS in the collector. Context: any normal context; single-threaded. */
#include "proto/elf_file.h"

#include <elfutils/libdwelf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int segments_load(struct stile__elf_file *f)
{
    size_t n;

    if (elf_getphdrnum(f->elf, &n))
        return -EINVAL;
    f->segments = calloc(n + 1, sizeof(*f->segments));
    if (!f->segments)
        return -ENOMEM;
    for (size_t i = 0; i < n && i <= INT32_MAX; i++) {
        GElf_Phdr p;

        if (!gelf_getphdr(f->elf, (int)i, &p) || p.p_type != PT_LOAD)
            continue;
        f->segments[f->n_segments++] = (struct stile__elf_segment){
            .offset = p.p_offset,
            .file_size = p.p_filesz,
            .address = p.p_vaddr,
            .memory_size = p.p_memsz,
            .executable = p.p_flags & PF_X,
        };
    }
    return 0;
}

static int header_check(Elf *elf)
{
    GElf_Ehdr header;

    if (!elf || elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header))
        return -EINVAL;
    return header.e_type == ET_EXEC || header.e_type == ET_DYN ? 0 : -EINVAL;
}

static int elf_take(struct stile__elf_file *f, Elf *elf)
{
    int err;

    f->elf = elf;
    err = header_check(elf);
    if (!err)
        err = segments_load(f);
    if (err)
        stile__elf_file_close(f);
    return err;
}

int stile__elf_file_open(struct stile__elf_file *f, int fd)
{
    *f = (struct stile__elf_file){.fd = fd};
    elf_version(EV_CURRENT);
    return elf_take(f, elf_begin(fd, ELF_C_READ, NULL));
}

int stile__elf_file_open_image(struct stile__elf_file *f, const void *image, size_t size)
{
    *f = (struct stile__elf_file){.fd = -1};
    elf_version(EV_CURRENT);
    return elf_take(f, elf_memory((char *)image, size)); /* only read */
}

void stile__elf_file_detach(struct stile__elf_file *f)
{
    if (f->fd < 0)
        return;
    elf_cntl(f->elf, ELF_C_FDDONE);
    close(f->fd);
    f->fd = -1;
}

void stile__elf_file_close(struct stile__elf_file *f)
{
    elf_end(f->elf);
    if (f->fd >= 0)
        close(f->fd);
    free(f->segments);
    *f = (struct stile__elf_file){.fd = -1};
}

bool stile__elf_file_address(const struct stile__elf_file *f, uint64_t offset, uint64_t *address)
{
    bool found = false;

    for (size_t i = 0; i < f->n_segments; i++) {
        const struct stile__elf_segment *s = &f->segments[i];

        if (offset < s->offset || offset - s->offset >= s->file_size)
            continue;
        if (found && !s->executable)
            continue;
        *address = s->address + (offset - s->offset);
        found = true;
        if (s->executable)
            break;
    }
    return found;
}

bool stile__elf_file_is_code(const struct stile__elf_file *f, uint64_t address)
{
    for (size_t i = 0; i < f->n_segments; i++) {
        const struct stile__elf_segment *s = &f->segments[i];

        if (s->executable && address >= s->address && address - s->address < s->memory_size)
            return true;
    }
    return false;
}

size_t stile__elf_file_build_id(const struct stile__elf_file *f, const uint8_t **id)
{
    const void *bytes = NULL;
    ssize_t size = f->elf ? dwelf_elf_gnu_build_id(f->elf, &bytes) : 0;

    *id = bytes;
    return size > 0 ? (size_t)size : 0;
}

static bool is_text_section(const char *name)
{
    return name &&
           (!strcmp(name, ".debug_str") || !strcmp(name, ".debug_line_str") || !strcmp(name, ".zdebug_str"));
}

bool stile__elf_file_has_sound_texts(const struct stile__elf_file *f)
{
    Elf_Scn *section = NULL;
    size_t names;

    if (elf_getshdrstrndx(f->elf, &names))
        return false;
    while ((section = elf_nextscn(f->elf, section))) {
        GElf_Shdr header;
        Elf_Data *data;

        if (!gelf_getshdr(section, &header) || header.sh_type == SHT_NOBITS ||
            !is_text_section(elf_strptr(f->elf, names, header.sh_name)))
            continue;
        data = elf_rawdata(section, NULL);
        if (data && data->d_buf && data->d_size && ((const char *)data->d_buf)[data->d_size - 1])
            return false;
    }
    return true;
}
