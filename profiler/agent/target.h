/* Where the profile goes. */
#ifndef STILE_AGENT_TARGET_H
#define STILE_AGENT_TARGET_H

#include <stddef.h>

/* Expands %p (pid), %e (program's name), %t (unix time in seconds) and %% in a path. Returns 0 or -ENAMETOOLONG. */
int stile__target_expand(const char *path, char *out, size_t size);

/* Says at start what would fail at the end: 0, or -errno (-EISDIR, -EACCES, -ENOENT, -ENOTDIR, -EROFS, ...; -ELOOP
 * for a symbolic link and -EINVAL for a device or the like, which are never followed or replaced). */
int stile__target_check(const char *path);

#endif
