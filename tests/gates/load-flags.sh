#!/usr/bin/env bash
# load-flags.sh LIBRARY: bound at load time (resolving a call lazily in the handler would enter the loader), never
# unloaded (stubs and handler stay valid for ever), and without an executable stack.
set -euo pipefail
dynamic=$(readelf -dW "$1")
segments=$(readelf -lW "$1")
status=0
fault() {
    echo "$1"
    status=1
}
grep -qE '\((FLAGS|FLAGS_1|BIND_NOW)\).*\b(BIND_NOW|NOW)\b|\(BIND_NOW\)' <<<"$dynamic" ||
    fault "${1##*/} binds lazily; it needs -Wl,-z,now"
grep -qE '\(FLAGS_1\).*\bNODELETE\b' <<<"$dynamic" ||
    fault "${1##*/} can be unloaded; it needs -Wl,-z,nodelete"
grep -qE 'GNU_STACK .* RW +0x' <<<"$segments" ||
    fault "${1##*/} asks for an executable stack; an assembly file lacks .note.GNU-stack"
exit "$status"
