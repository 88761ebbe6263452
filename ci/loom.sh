#!/usr/bin/env bash
# What crosses threads, in every interleaving that loom finds.
source "$(dirname "$0")/common.sh"

say "loom"
if ! grep -rqE 'cfg\((all\()?(test, )?loom' --include='*.rs' --exclude=sync.rs src tests 2>/dev/null; then
    skip "loom: no test is written for it yet"
    exit 0
fi
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run cargo test --release --lib loom -- --nocapture | tee "$log"
grep -qE 'test result: ok\. [1-9]' "$log" || fail "no loom test ran"
