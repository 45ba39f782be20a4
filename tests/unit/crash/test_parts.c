/* Parts of a report: their exact text, by the format of profiler/region/report.h. */
#include "tests/unit/support.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "profiler/agent/crash/module.h"
#include "profiler/agent/crash/parts.h"

static char got[1 << 20];
static size_t n_got;
static struct stile__text t;

static void sink(const char *bytes, size_t n)
{
    assert_true(n_got + n < sizeof got);
    memcpy(got + n_got, bytes, n);
    n_got += n;
}

static int set_up(void **state)
{
    (void)state;
    stile__modules_init();
    t.sink = sink;
    t.n = n_got = 0;
    return 0;
}

static const char *text(void)
{
    stile__text_flush(&t);
    got[n_got] = '\0';
    n_got = 0;
    return got;
}

static void test_frame(void **state)
{
    char expected[8192];
    Dl_info info;
    const uint64_t at = (uint64_t)dlsym(dlopen("libc.so.6", RTLD_NOW), "qsort") + 3,
                   own = (uint64_t)test_frame;
    struct link_map *libc = NULL;
    (void)state;
    assert_true(dladdr1((void *)at, &info, (void **)&libc, RTLD_DL_LINKMAP) != 0);
    stile__report_frame(&t, 7, at);
    snprintf(expected, sizeof expected, "  #7 %#lx %s+%#lx (qsort+0x3)\n", at, libc->l_name,
             at - libc->l_addr);
    assert_string_equal(text(), expected);
    stile__report_frame(&t, 0, 0);
    assert_string_equal(text(), "  #0 0x0\n");
    stile__report_frame(&t, 123456, 0x123450);
    assert_string_equal(text(), "  #123456 0x123450\n");
    /* Not exported: without a name. */
    char exe[4096] = "";
    assert_true(readlink("/proc/self/exe", exe, sizeof exe - 1) > 0);
    assert_true(dladdr1((void *)own, &info, (void **)&libc, RTLD_DL_LINKMAP) != 0);
    stile__report_frame(&t, 1, own);
    snprintf(expected, sizeof expected, "  #1 %#lx %s+%#lx\n", own, exe, own - libc->l_addr);
    assert_string_equal(text(), expected);
}

/* A module that is not linked to begin at 0: offsets are the file's virtual addresses. */
static void test_frame_of_a_moved_module(void **state)
{
    char expected[8192];
    void *handle = dlopen(test_setting("STILE_TEST_MOVED"), RTLD_NOW);
    struct link_map *map = NULL;
    struct stile__module m;
    (void)state;
    assert_non_null(handle);
    assert_int_equal(dlinfo(handle, RTLD_DI_LINKMAP, &map), 0);
    const uint64_t at = (uint64_t)dlsym(handle, "plugin_exported");
    assert_true(stile__module_of(at, &m));
    assert_int_equal(m.start - m.bias, 0x200000);
    stile__report_frame(&t, 1, at);
    snprintf(expected, sizeof expected, "  #1 %#lx %s+%#lx (plugin_exported+0x0)\n", at, map->l_name,
             at - map->l_addr);
    assert_string_equal(text(), expected);
    dlclose(handle);
}

static struct stile__frames f;

/* A stack of n frames, whose i-th is at 0x1000 + i, where nothing is. */
static void frames_make(uint32_t n)
{
    f.n = n;
    f.end = STILE__FRAMES_END_ROOT;
    for (uint32_t i = 0; i < n; i++)
        *(i < STILE__FRAMES_LEAF ? &f.leaf[i] : &f.root[i % STILE__FRAMES_ROOT]) = 0x1000 + i;
}

static void test_frames(void **state)
{
    const uint32_t shown = STILE__FRAMES_LEAF + STILE__FRAMES_ROOT;
    const uint32_t counts[] = {0,         1,     2,         STILE__FRAMES_LEAF, STILE__FRAMES_LEAF + 1,
                               shown - 1, shown, shown + 1, shown + 700};
    (void)state;
    for (unsigned k = 0; k < sizeof counts / sizeof *counts; k++) {
        const uint32_t n = counts[k];
        static char expected[1 << 16];
        size_t at = 0;
        expected[0] = '\0';
        frames_make(n);
        for (uint32_t i = 0; i < n; i++) {
            if (i == STILE__FRAMES_LEAF && n > shown) {
                at += (size_t)sprintf(expected + at,
                                      n - shown == 1 ? "  ... %u frame is not shown ...\n"
                                                     : "  ... %u frames are not shown ...\n",
                                      n - shown);
                i = n - STILE__FRAMES_ROOT;
            }
            at += (size_t)sprintf(expected + at, "  #%u %#x\n", i, 0x1000 + i);
        }
        stile__report_frames(&t, &f, 0);
        assert_string_equal(text(), expected);
    }
}

static void test_ends(void **state)
{
    char seen[6][128] = {{0}};
    (void)state;
    for (int end = STILE__FRAMES_END_ROOT; end <= STILE__FRAMES_END_LOCKED; end++) {
        frames_make(0);
        f.end = end;
        stile__report_frames(&t, &f, 0);
        const char *line = text();
        assert_true(strlen(line) < sizeof seen[end]);
        memcpy(seen[end], line, strlen(line) + 1);
        assert_int_equal(seen[end][0] == '\0', end == STILE__FRAMES_END_ROOT);
        if (end != STILE__FRAMES_END_ROOT) {
            assert_int_equal(strncmp(seen[end], "  (", 3), 0);
            assert_string_equal(seen[end] + strlen(seen[end]) - 2, ")\n");
        }
        for (int other = 0; other < end; other++)
            assert_string_not_equal(seen[end], seen[other]);
    }
    assert_string_equal(seen[STILE__FRAMES_END_MEMORY], "  (the stack could not be read further)\n");
}

/* Each line can be read back, and is what there is. */
static void test_modules(void **state)
{
    unsigned n = 0;
    struct stile__module m;
    (void)state;
    stile__report_modules(&t);
    char *line = strdup(text()), *next, *whole = line;
    assert_int_equal(strncmp(line, "modules:\n", 9), 0);
    for (line += 9; *line != '\0'; line = next, n++) {
        unsigned long start, end, bias;
        char id[256], path[4096];
        next = strchr(line, '\n');
        assert_non_null(next);
        *next++ = '\0';
        assert_int_equal(sscanf(line, "  %lx-%lx %lx %255s %4095[^\n]", &start, &end, &bias, id, path), 5);
        assert_true(stile__module_of(start, &m));
        assert_int_equal(m.start, start);
        assert_int_equal(m.end, end);
        assert_int_equal(m.bias, bias);
        assert_string_equal(m.path, path);
        assert_int_equal(strlen(id), m.build_id_len == 0 ? 1 : 2 * m.build_id_len);
        assert_true(m.build_id_len != 0 || strcmp(id, "-") == 0);
    }
    free(whole);
    assert_true(n >= 5);
}

static void test_registers(void **state)
{
    uint64_t regs[NGREG] = {0};
    (void)state;
    for (unsigned i = 0; i <= REG_RIP; i++)
        regs[i] = 0x100 + i;
    regs[REG_RSP] = 0x7ffd12345678;
    stile__report_registers(&t, regs);
    assert_string_equal(
        text(),
        "registers:\n"
        "  rip 0x0000000000000110 rsp 0x00007ffd12345678 rbp 0x000000000000010a rax 0x000000000000010d\n"
        "  rbx 0x000000000000010b rcx 0x000000000000010e rdx 0x000000000000010c rsi 0x0000000000000109\n"
        "  rdi 0x0000000000000108 r8 0x0000000000000100 r9 0x0000000000000101 r10 0x0000000000000102\n"
        "  r11 0x0000000000000103 r12 0x0000000000000104 r13 0x0000000000000105 r14 0x0000000000000106\n"
        "  r15 0x0000000000000107\n");
}

/* Five pages: something, a gap, a guard, a stack of two. */
static void test_mapping(void **state)
{
    char expected[256];
    (void)state;
    const uint64_t lo = (uint64_t)mmap(NULL, 64 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                   at = lo + 20 * 4096;
    assert_true(lo != (uint64_t)MAP_FAILED);
    assert_int_equal(munmap((void *)lo, 64 * 4096), 0);
    assert_int_equal(
        (uint64_t)mmap((void *)at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), at);
    assert_int_equal(
        (uint64_t)mmap((void *)(at + 8192), 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
        at + 8192);
    assert_int_equal((uint64_t)mmap((void *)(at + 12288), 8192, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     at + 12288);
    stile__report_mapping(&t, at, 0);
    snprintf(expected, sizeof expected, "mapping: %#lx-%#lx r--p\n", at, at + 4096);
    assert_string_equal(text(), expected);
    stile__report_mapping(&t, at + 4095, at);
    assert_string_equal(text(), expected);
    stile__report_mapping(&t, at + 4096, at + 4096); /* below it is a guard, which is no stack */
    snprintf(expected, sizeof expected,
             "mapping: none; the nearest below ends at %#lx, the nearest above begins at %#lx\n", at + 4096,
             at + 8192);
    assert_string_equal(text(), expected);
    for (unsigned k = 0; k < 3; k++) { /* the stack pointer near, just not, and elsewhere */
        const uint64_t rsp[] = {at + 12288 + 8, at + 12280 + (64 << 10) + 1, 0};
        stile__report_mapping(&t, at + 12280, rsp[k]);
        snprintf(expected, sizeof expected, "mapping: %#lx-%#lx ---p%s\n", at + 8192, at + 12288,
                 k == 0 ? "; perhaps a stack overflow" : "");
        assert_string_equal(text(), expected);
    }
    assert_int_equal(munmap((void *)(at + 8192), 4096), 0); /* as below the main thread's */
    stile__report_mapping(&t, at + 12280, at + 12280);
    snprintf(expected, sizeof expected,
             "mapping: none; the nearest below ends at %#lx, the nearest above begins at %#lx; perhaps a "
             "stack overflow\n",
             at + 4096, at + 12288);
    assert_string_equal(text(), expected);
    munmap((void *)at, 5 * 4096);
}

static void test_mapping_of_files(void **state)
{
    char expected[256], name[300];
    (void)state;
    /* The program's own lowest mapping is the lowest of all, mostly; what lies below address 0x1000 has none. */
    stile__report_mapping(&t, 0, (uint64_t)&t);
    assert_int_equal(strncmp(text(), "mapping: none; the nearest above begins at 0x", 45), 0);
    stile__report_mapping(&t, 0xffffffffffffff00, 0);
    assert_int_equal(strncmp(text(), "mapping: none; the nearest below ends at 0x", 43), 0);
    int local = 0;
    stile__report_mapping(&t, (uint64_t)&local, 0);
    if (!UNDER_SANITIZER)
        assert_non_null(strstr(text(), " rw-p [stack]\n"));
    (void)text();
    /* A name that is long, and one with a newline. */
    (void)scratch_make();
    for (unsigned k = 0; k < 2; k++) {
        memset(name, 'n', 240);
        strcpy(name + (k == 0 ? 200 : 3), k == 0 ? "" : "new\nline");
        const char *path = scratch_path(name);
        uint8_t page[4096] = {0};
        file_write(path, page, sizeof page);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        const uint64_t at = (uint64_t)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fileno(file), 0);
        fclose(file);
        stile__report_mapping(&t, at + 5, 0);
        const char *line = text();
        snprintf(expected, sizeof expected, "mapping: %#lx-%#lx r--p /", at, at + 4096);
        assert_int_equal(strncmp(line, expected, strlen(expected)), 0);
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        assert_true(strlen(line) > (k == 0 ? 200 : 50));
        munmap((void *)at, 4096);
    }
    scratch_remove();
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frame),   TEST(test_frame_of_a_moved_module),
        TEST(test_frames),  TEST(test_ends),
        TEST(test_modules), TEST(test_registers),
        TEST(test_mapping), TEST(test_mapping_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
