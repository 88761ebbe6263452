#!/usr/bin/env bash
# Instructions for each operation, under callgrind, against the bounds in benches/instructions/main.rs.
source "$(dirname "$0")/common.sh"

say "instruction counts"
if ! command -v valgrind >/dev/null; then
    skip "instruction counts: valgrind is not installed (apt-get install valgrind)"
    exit 0
fi
export CARGO_PROFILE_BENCH_DEBUG=false # so that what smoke.sh has built is built already
run cargo bench --bench instructions
