/* What wrapped_library.c counts, for wrapped.c. */
#ifndef STILE_TESTS_E2E_PROGRAMS_WRAPPED_H
#define STILE_TESTS_E2E_PROGRAMS_WRAPPED_H

extern unsigned wrapped_calls;

#endif
