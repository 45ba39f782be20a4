#!/usr/bin/env bash
# ownership.sh: spin looks through every interleaving of ownership.pml, in parts, since all at once is too much; then through
# those of each mutant, where it must find an error. All code of the model has to be reached in one part or another.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
model=$here/ownership.pml
. "$here/spin.sh"

safety="-DSAFETY -DNOCLAIM"
one="-DLIVES=1 -DWAITS=1 -DROUNDS=1"
right lives "-DLIVES=2 -DWAITS=2 -DROUNDS=2" "$safety" ""
right readers "-DLIVES=1 -DWAITS=2 -DROUNDS=1 -DREADER" "$safety" ""
right freeze "-DLIVES=2 -DWAITS=1 -DROUNDS=1 -DFREEZER" "$safety" ""
right all "$one -DREADER -DFREEZER" "$safety" ""
right progress "$one -DFREEZER" "-DNFAIR=5" "-a -f"

reached lives readers freeze all

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
