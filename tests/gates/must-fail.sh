#!/usr/bin/env bash
# must-fail.sh PATTERN COMMAND...: passes when COMMAND fails and says PATTERN. Shows that a gate can fail.
set -euo pipefail
pattern=$1
shift
if output=$("$@" 2>&1); then
    printf '%s\n' "$output"
    echo "this had to fail, and passed: $*"
    exit 1
fi
printf '%s\n' "$output"
grep -qE -- "$pattern" <<<"$output" || {
    echo "it failed, but did not say: $pattern"
    exit 1
}
