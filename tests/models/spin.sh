# What the models' scripts share: sourced, with `model` set. spin looks through every interleaving of a model, in parts; then
# through those of each mutant, where it must find an error.
# shellcheck shell=bash
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
ulimit -v 4000000

# made NAME DEFINITIONS COMPILED_WITH: a program that looks.
made() {
    mkdir "$1" && cd "$1"
    # shellcheck disable=SC2086,SC2154
    spin -a $2 "$model" >spin.log && gcc "${optimize--O2}" -w $3 -o pan pan.c || { cat spin.log; exit 1; }
    cd ..
}

# looked NAME DEFINITIONS COMPILED_WITH ARGUMENTS: its verdict is in NAME/log.
looked() {
    made "$1" "$2" "$3"
    # shellcheck disable=SC2086
    (cd "$1" && timeout -s KILL 100 ./pan -m1000000 -w22 $4 >log 2>&1) || true
    grep -qE 'errors: [0-9]+$' "$1/log" && ! grep -qE 'Search not completed|max search depth too small' "$1/log" ||
        grep -qE 'errors: 1$' "$1/log" || { echo "$1: not looked through"; cat "$1/log"; exit 1; }
}

right() {
    looked "$@"
    grep -q 'errors: 0$' "$1/log" || { echo "$1: there is an error"; cat "$1/log"; exit 1; }
    echo "$1: $(grep 'states, stored' "$1/log" | sed 's/^ *//; s/ (.*//')"
}

# wrong NAME DEFINITIONS COMPILED_WITH ARGUMENTS ERROR: it must be that one.
wrong() {
    looked "${@:1:4}"
    grep -qF "$5" "$1/log" || { echo "$1: spin does not find this mutant's error"; cat "$1/log"; exit 1; }
    echo "$1: found"
}

# reached PART...: all code of the model is, in one part or another.
reached() {
    local part
    for part in "$@"; do
        awk '/^unreached in/ { of = $3 $4 } /pml:[0-9]+, state/ && of !~ /^claim/ { print of, $0 }' "$part/log" |
            sort >"$part.unreached"
    done
    cp "$1.unreached" left
    for part in "${@:2}"; do
        comm -12 left "$part.unreached" >less && mv less left
    done
    if [[ -s left ]]; then
        echo "never reached:"
        cat left
        exit 1
    fi
}
