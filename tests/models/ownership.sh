#!/usr/bin/env bash
# ownership.sh: spin looks through every interleaving of ownership.pml, in parts, since all at once is too much; then through
# those of each mutant, where it must find an error. All code of the model has to be reached in one part or another.
set -euo pipefail
model=$(dirname "$(readlink -f "$0")")/ownership.pml
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
ulimit -v 4000000

# made NAME DEFINITIONS COMPILED_WITH: a program that looks.
made() {
    mkdir "$1" && cd "$1"
    # shellcheck disable=SC2086
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

safety="-DSAFETY -DNOCLAIM"
one="-DLIVES=1 -DWAITS=1 -DROUNDS=1"
right lives "-DLIVES=2 -DWAITS=2 -DROUNDS=2" "$safety" ""
right readers "-DLIVES=1 -DWAITS=2 -DROUNDS=1 -DREADER" "$safety" ""
right freeze "-DLIVES=2 -DWAITS=1 -DROUNDS=1 -DFREEZER" "$safety" ""
right all "$one -DREADER -DFREEZER" "$safety" ""
right progress "$one -DFREEZER" "-DNFAIR=5" "-a -f"

# Not reached in any of them.
for part in lives readers freeze all; do
    awk '/^unreached in/ { of = $3 $4 } /pml:[0-9]+, state/ && of !~ /^claim/ { print of, $0 }' "$part/log" |
        sort >"$part.unreached"
done
cp lives.unreached left
for part in readers freeze all; do
    comm -12 left "$part.unreached" >less && mv less left
done
if [[ -s left ]]; then
    echo "never reached:"
    cat left
    exit 1
fi

optimize=-O0 # they end soon
booked="assertion violated (booked==now)"
wrong scan_end_does_not_count "$one -DFREEZER -DMUTANT_COUNT -DUNBOOKED" "$safety" "" "assertion violated  !(stopped)"
wrong scan_end_does_not_count_sides "$one -DMUTANT_COUNT" "$safety" "" "$booked"
wrong resume_does_not_look_for_a_freeze "$one -DFREEZER -DMUTANT_FREEZING" "$safety" "" "assertion violated  !(stopped)"
wrong resume_looks_too_early "$one -DFREEZER -DMUTANT_ORDER" "$safety" "" "assertion violated  !(stopped)"
wrong resume_does_not_wait_for_readers "$one -DMUTANT_WAIT" "$safety" "" "assertion violated forced"
wrong die_does_not_wait_for_readers "$one -DMUTANT_DIE" "$safety" "" "assertion violated forced"
wrong force_changes_the_side "$one -DMUTANT_SIDE" "$safety" "" "$booked"
wrong two_readers_tell "-DLIVES=1 -DWAITS=2 -DROUNDS=1 -DREADER -DMUTANT_TELLERS" "$safety" "" "$booked"
wrong nobody_loses_patience "$one -DMUTANT_PATIENCE" "-DNFAIR=4" "-a -f" "acceptance cycle"
