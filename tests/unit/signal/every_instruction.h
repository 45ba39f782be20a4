#ifndef STILE_TESTS_UNIT_SIGNAL_EVERY_INSTRUCTION_H
#define STILE_TESTS_UNIT_SIGNAL_EVERY_INSTRUCTION_H

#ifdef __cplusplus
extern "C"
#endif
    int
    throw_through(int n);

#endif
