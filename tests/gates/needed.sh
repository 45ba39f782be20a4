#!/usr/bin/env bash
# needed.sh LIBRARY: the library may bring nothing but libc into a program.
set -euo pipefail
needed=$(readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | paste -sd' ')
[[ $needed == libc.so.6 ]] || {
    echo "${1##*/} needs '$needed', which should be libc.so.6 alone"
    exit 1
}
