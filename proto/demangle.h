/* Names as written in the source. Context: any normal context; thread-safe. */
#ifndef STILE_PROTO_DEMANGLE_H
#define STILE_PROTO_DEMANGLE_H

#include <stddef.h>

/* Writes the demangled form of a C++ or Rust (legacy without its hash, v0) name to out, NUL-terminated. Returns its
 * length, or 0 if name is nothing that can be demangled or the result does not fit; then out is unspecified. */
size_t stile__demangle(const char *name, char *out, size_t size);

#endif
