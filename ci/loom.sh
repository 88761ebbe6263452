#!/usr/bin/env bash
# What crosses threads, in every interleaving that loom finds. The name reev_loom is ours alone, since tokio, which the
# benches use, loses its sockets under `--cfg loom`.
source "$(dirname "$0")/common.sh"

say "loom"
if ! grep -rqE 'cfg\((all\()?(test, )?reev_loom' --include='*.rs' --exclude=sync.rs src tests 2>/dev/null; then
    skip "loom: no test is written for it yet"
    exit 0
fi
export RUSTFLAGS="--cfg reev_loom" CARGO_TARGET_DIR=target/loom LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
# Whether it is optimised matters, how well does not.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run cargo test -p reev --release --lib loom -- --nocapture | tee "$log"
grep -qE 'test result: ok\. [1-9]' "$log" || fail "no loom test ran"
