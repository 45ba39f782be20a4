#!/usr/bin/env bash
# handler-symbols.sh ALLOWED LIBRARY OBJECT...: what the signal handler's objects, linked together, still need from
# elsewhere must be on the list, or the handler could reach code that locks or allocates. What is ours among it must
# be a variable in LIBRARY: a function there would be handler code that no gate looks at.
set -euo pipefail
allowed=$1 library=$2
shift 2
(($# > 0)) || { echo "no objects to look at"; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

if grep -vE '^(#|$)' "$allowed" | grep -vE '^[A-Za-z_][A-Za-z0-9_]* # .'; then
    echo "each line of ${allowed##*/} is a symbol and, after a #, its reason"
    exit 1
fi
ld -r -o "$tmp/handler.o" "$@"
nm --undefined-only --format=just-symbols "$tmp/handler.o" >"$tmp/undefined"
readelf -sW "$library" | awk '$4 == "OBJECT" || $4 == "TLS" { print $8 }' >"$tmp/variables"

status=0
while read -r symbol; do
    if ! grep -q "^$symbol #" "$allowed"; then
        fault="must not use $symbol"
    elif [[ $symbol == stile_* ]] && ! grep -qxF "$symbol" "$tmp/variables"; then
        fault="uses $symbol, which is no variable of ours"
    else
        continue
    fi
    for object in "$@"; do
        if nm --undefined-only --format=just-symbols "$object" | grep -xF "$symbol" >/dev/null; then
            echo "the signal handler $fault (${object##*/})"
        fi
    done
    status=1
done <"$tmp/undefined"
exit "$status"
