/* Uses a third of a second of CPU time and calls nothing of libstile. */
#include <stile.h>
#include <time.h>

int main(void)
{
    volatile unsigned long sum = 0;

    while (clock() < CLOCKS_PER_SEC / 3)
        for (unsigned i = 0; i < 100000; i++)
            sum += i;
    return 0;
}
