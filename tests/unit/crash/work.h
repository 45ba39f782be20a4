/* Work to be interrupted at any instruction. */
#ifndef STILE_TESTS_UNIT_CRASH_WORK_H
#define STILE_TESTS_UNIT_CRASH_WORK_H

/* A round of all. module: one that binds lazily, or NULL. */
void work(const char *module);

#endif
