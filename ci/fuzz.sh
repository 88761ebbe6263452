#!/usr/bin/env bash
# Fuzzes each codec for FUZZ_SECONDS, by default 12, from the seeds of fuzz/corpus on; as many at
# once as there are cores.
source "$(dirname "$0")/common.sh"

say "fuzzing"
if ! command -v c++ >/dev/null; then
    skip "fuzzing: there is no C++ compiler for libFuzzer (apt-get install g++)"
    exit 0
fi
if ! find "$(rustc --print sysroot)" -name 'librustc*_rt.asan.a' | grep -q .; then
    skip "fuzzing: this toolchain has no runtime of AddressSanitizer"
    exit 0
fi
if ! cargo fuzz --version >/dev/null 2>&1 && ! run cargo install cargo-fuzz --locked; then
    skip "fuzzing: cargo-fuzz is not here and cannot be installed (cargo install cargo-fuzz)"
    exit 0
fi

export RUSTC_BOOTSTRAP=1 # the instrumentation is in the stable compiler, but not stable
run cargo fuzz build
host=$(rustc -vV | sed -n 's/^host: //p')
programs=${CARGO_TARGET_DIR:-fuzz/target}/$host/release
seconds=${FUZZ_SECONDS:-12}

# What it finds on its way is kept outside the repository, for the next run; what fails, in fuzz/artifacts.
fuzz() {
    local target=$1 found=target/fuzz/$1 artifacts=fuzz/artifacts/$1/ log
    local seeds=fuzz/corpus/$target
    if [ ! -d "$seeds" ]; then seeds=fuzz/corpus/${target%%_*}; fi
    [ -d "$seeds" ] || fail "$target has no seeds in fuzz/corpus"
    mkdir -p "$found" "$artifacts"
    log=target/fuzz/$target.log
    if ! "$programs/$target" -max_total_time="$seconds" -timeout=10 -artifact_prefix="$artifacts" \
        "$found" "$seeds" >"$log" 2>&1; then
        tail -n 40 "$log"
        fail "$target; once more: RUSTC_BOOTSTRAP=1 cargo fuzz run $target ${artifacts}FILE"
    fi
    echo "$target: $(sed -n 's/^Done \(.*\)$/\1/p' "$log")"
}
export -f fuzz fail
export programs seconds
cargo fuzz list | xargs -P "$(nproc)" -I TARGET bash -euo pipefail -c 'fuzz TARGET'
