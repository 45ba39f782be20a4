/* Planted: handler code that allocates and prints, and calls into the library outside the handler. */
#include <stdio.h>
#include <stdlib.h>
#include "library.h"

void *planted_handler(int n);
void *planted_handler(int n)
{
    void *p = malloc((size_t)n);

    printf("%d bytes at %p\n", n + stile_listed(), p);
    return p;
}
