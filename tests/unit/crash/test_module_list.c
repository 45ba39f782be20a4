/* The modules by the loader's list alone: of what it has no index for, and of loaders that have none. */
#include "tests/unit/crash/test_module.c"
