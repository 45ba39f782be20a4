#!/usr/bin/env bash
# exports.sh LIBRARY VERSION_SCRIPT HEADER [LIST]: what the library shows to programs is exactly what the version script
# names and, for its stile_* pattern, what the public header declares. With a list, the version script has one node, whose
# names have its version, and the list (a name a line, # begins a comment) has all the others, which have none.
set -euo pipefail
library=$1 script=$2 header=$3 list=${4-}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The names between global: and local:, or the node's end; comments taken out.
pattern='{ *global *:\(.*\) local *: *\* *; *} *;'
[[ -z $list ]] || pattern='\([A-Za-z0-9_.]\+\) *{ *global *:\([^:]*\)} *;'
sed 's/#.*//' "$script" | tr '\n' ' ' | sed 's:/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/: :g' >"$tmp/script"
if [[ -z $list ]]; then
    sed -n "s/.*$pattern.*/\1/p" "$tmp/script" | tr -s ' ;' '\n\n' | sed '/^$/d' | sort -u >"$tmp/listed"
else
    node=$(sed -n "s/^ *$pattern *$/\1/p" "$tmp/script")
    sed -n "s/^ *$pattern *$/\2/p" "$tmp/script" | tr -s ' ;' '\n\n' | sed "/^$/d; s/$/@@$node/" >"$tmp/versioned"
    [[ ! -s $tmp/versioned ]] || { cat "$tmp/versioned" && sed 's/#.*//; /^ *$/d' "$list"; } | sort -u >"$tmp/listed"
fi
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
# A version is a symbol, too.
nm -D --defined-only --format=just-symbols "$library" | grep -vxF "${node-}" | sort -u >"$tmp/exported"

extra=$(comm -13 "$tmp/wanted" "$tmp/exported" | paste -sd' ')
absent=$(comm -23 "$tmp/wanted" "$tmp/exported" | paste -sd' ')
[[ -z $extra ]] || echo "${library##*/} exports more than it should: $extra"
[[ -z $absent ]] || echo "${library##*/} does not export: $absent"
[[ -z $extra && -z $absent ]]
