#!/usr/bin/env bash
# tls.sh LIBRARY: thread-local variables are initial-exec. The dynamic models call __tls_get_addr (or a TLS
# descriptor), which may allocate on first use, in the handler.
set -euo pipefail
symbols=$(nm -D "$1")
relocations=$(readelf -rW "$1")
if grep -q '__tls_get_addr' <<<"$symbols" || grep -qE 'R_X86_64_(DTPMOD64|DTPOFF64|TLSDESC)' <<<"$relocations"; then
    grep -E '__tls_get_addr' <<<"$symbols" || true
    grep -E 'R_X86_64_(DTPMOD64|DTPOFF64|TLSDESC)' <<<"$relocations" || true
    echo "${1##*/} has thread-local variables of a dynamic model; it needs -ftls-model=initial-exec"
    exit 1
fi
