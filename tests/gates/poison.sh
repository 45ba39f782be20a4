#!/usr/bin/env bash
# poison.sh FOLDER...: every C source there includes poison.h after all its other includes.
set -euo pipefail
shopt -s nullglob
status=0 seen=0
for folder in "$@"; do
    for source in "$folder"/*.c; do
        seen=$((seen + 1))
        last=$(grep -E '^[[:space:]]*#[[:space:]]*include' "$source" | tail -n 1) || true
        [[ $last =~ [\"/]poison\.h\" ]] || {
            echo "$source: its last include must be poison.h"
            status=1
        }
    done
done
((seen > 0)) || { echo "no C sources in $*"; exit 1; }
exit "$status"
