/* Planted: handler code that does not include poison.h. */
#include <stdlib.h>
