/* Included before what is tested: makes its races wide. */
#ifndef STILE_TESTS_UNIT_CRASH_WIDEN_H
#define STILE_TESTS_UNIT_CRASH_WIDEN_H

void widen(void);
#define STILE__WIDEN() widen()

#endif
