#!/usr/bin/env bash
# crash_output.sh: spin looks through every interleaving of crash_output.pml, in parts; then through those of each mutant, where
# it must find an error.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
model=$here/crash_output.pml
. "$here/spin.sh"

safety="-DSAFETY"
one="-DSWAPS=1 -DCRASHES=1"
right crash "-DCRASH -DSWAPS=2 -DCRASHES=1" "$safety" ""
right crashes "-DCRASH -DSWAPS=1 -DCRASHES=2" "$safety" ""
right hostile "-DCRASH -DHOSTILE -DSWAPS=2 -DCRASHES=1" "$safety" ""
right foreign "-DCRASH -DSWAPS=1 -DCRASHES=1 -DOPENS=2" "$safety" ""
right no_crash "-DSWAPS=3" "$safety" ""
reached crash crashes hostile foreign no_crash

optimize=-O0 # they end soon
two="-DCRASH -DSWAPS=2 -DCRASHES=1"
wrong swap_looks_too_early "$two -DMUTANT_SWAP" "$safety" "" "assertion violated (file[fd]==what)"
wrong crash_loads_too_early "$two -DMUTANT_CRASH" "$safety" "" "assertion violated (file[fd]==what)"
wrong swap_always_closes "$two -DMUTANT_ALWAYS" "$safety" "" "assertion violated (file[fd]==what)"
wrong swap_closes_without_a_look "$two -DHOSTILE -DMUTANT_CLOSE" "$safety" "" "assertion violated (file[old]==was)"
wrong crash_writes_without_a_look "$two -DHOSTILE -DMUTANT_LOOK" "$safety" "" "assertion violated (file[fd]==what)"
wrong refused_keeps_its_duplicate "-DCRASH $one -DMUTANT_DUPLICATE" "$safety" "" "assertion violated (hostile||"
