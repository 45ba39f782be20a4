#!/usr/bin/env bash
# exports.sh LIBRARY VERSION_SCRIPT HEADER: what the library shows to programs is exactly what the version script
# names and, for its stile_* pattern, what the public header declares.
set -euo pipefail
library=$1 script=$2 header=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The names between global: and local:, comments taken out.
sed 's/#.*//' "$script" | tr '\n' ' ' | sed 's:/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/: :g' |
    sed -n 's/.*{ *global *:\(.*\) local *: *\* *; *} *;.*/\1/p' | tr -s ' ;' '\n\n' | sed '/^$/d' |
    sort -u >"$tmp/listed"
[[ -s $tmp/listed ]] || {
    echo "${script##*/}: not one { global: ...; local: *; };"
    exit 1
}
# Declarations only: comments and preprocessor lines also name functions.
gcc -E -P -x c "$header" 2>/dev/null | grep -oE '\bstile_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u >"$tmp/declared" || true
{
    sed '/\*/d' "$tmp/listed"
    if grep -qxF 'stile_*' "$tmp/listed"; then cat "$tmp/declared"; fi
} | sort -u >"$tmp/wanted"
if grep '\*' "$tmp/listed" | grep -vxF 'stile_*'; then
    echo "${script##*/}: no pattern but stile_*"
    exit 1
fi
nm -D --defined-only --format=just-symbols "$library" | sed 's/@.*//' | sort -u >"$tmp/exported"

extra=$(comm -13 "$tmp/wanted" "$tmp/exported" | paste -sd' ')
absent=$(comm -23 "$tmp/wanted" "$tmp/exported" | paste -sd' ')
[[ -z $extra ]] || echo "${library##*/} exports more than it should: $extra"
[[ -z $absent ]] || echo "${library##*/} does not export: $absent"
[[ -z $extra && -z $absent ]]
