/* A module whose calls are bound when they are made. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((visibility("default"))) double lazy(double x);
double lazy(double x)
{
    char text[128];
    snprintf(text, sizeof text, "%g", x);
    x += atof(text) + strlen(text) + cosh(x) + asinh(x) + erf(x) + j0(x) + cbrt(x) + lgamma(x);
    x +=
        strspn(text, "0.") + strtoul(text, NULL, 10) + (strstr(text, "x") != NULL) + hypot(x, 1) + fdim(x, 2);
    return x + remainder(x, 0.3) + logb(x) + atan2(x, 2) + sinh(x) + tanh(x);
}
