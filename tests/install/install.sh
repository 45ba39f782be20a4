#!/usr/bin/env bash
# install.sh cmake|pkg-config CMAKE BUILD_DIR CC CXX: installs the build into a prefix of its own, builds a program
# there that calls nothing of the library, under --as-needed, and runs it with PROFILE.
set -euo pipefail
how=$1 cmake=$2 build=$3 cc=$4 cxx=$5
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
unset LD_PRELOAD LD_LIBRARY_PATH "${!PROFILE@}" LDFLAGS CFLAGS

# Installed at one place and moved to another: nothing may remember the first.
"$cmake" --install "$build" --prefix "$tmp/first" >/dev/null
mv "$tmp/first" "$tmp/prefix"
prefix=$tmp/prefix
library=$(find "$prefix" -name libstile.so)
[[ -n $library ]] || { echo "libstile.so is not installed under its own name"; exit 1; }
libdir=${library%/*}

needs_libstile() {
    readelf -dW "$1" | grep -qE '\(NEEDED\).*\[libstile\.so'
}

case $how in
cmake)
    LDFLAGS=-Wl,--as-needed CC=$cc "$cmake" -G Ninja -S "$here/consumer" -B "$tmp/build" \
        -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
    "$cmake" --build "$tmp/build" >/dev/null
    program=$tmp/build/consumer # finds the library by its own run path
    ;;
pkg-config)
    export PKG_CONFIG_PATH=$libdir/pkgconfig
    program=$tmp/consumer
    # shellcheck disable=SC2046 # words are wanted
    "$cc" -O1 $(pkg-config --cflags stile) -Wl,--as-needed "$here/consumer/main.c" -o "$program" $(pkg-config --libs stile)
    export LD_LIBRARY_PATH=$libdir
    # Without the care that stile.pc takes, the library is dropped here: this check can fail.
    "$cc" -O1 -I"$prefix/include" -Wl,--as-needed "$here/consumer/main.c" -o "$tmp/plain" -L"$libdir" -lstile
    ! needs_libstile "$tmp/plain" || { echo "--as-needed dropped nothing, so this test shows nothing"; exit 1; }
    # The header stands alone, in both languages.
    for compile in "$cc -xc -std=c99" "$cxx -xc++ -std=c++11"; do
        echo '#include <stile.h>' | $compile -Wall -Wextra -pedantic -Werror -fsyntax-only -I"$prefix/include" -
    done
    ;;
esac
needs_libstile "$program" || { echo "${program##*/} does not need libstile.so"; exit 1; }

check_profile() {
    [[ -s $1 ]] || { echo "no profile ${1##*/}"; exit 1; }
    gzip -t "$1" || { echo "${1##*/} is not gzip"; exit 1; }
}
cd "$tmp"
PROFILE=t.pb.gz "$program"
check_profile t.pb.gz
"$prefix/bin/stile" record -o r.pb.gz -- "$program"
check_profile r.pb.gz
