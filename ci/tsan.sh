#!/usr/bin/env bash
# Tests of what crosses threads under ThreadSanitizer, TSAN_ROUNDS times (default 5), because a short race shows only in
# some runs. Not part of .ci/run: it builds the standard library too, and takes some ten minutes.
#
# It needs a compiler with the sources of the standard library, and clang's runtime. On Debian:
#   apt-get install rustc-web cargo-web rust-web-src libclang-rt-22-dev
# Another compiler is found with RUST_BIN, the folder of its cargo and rustc; another runtime with TSAN_RUNTIME.
source "$(dirname "$0")/common.sh"

say "ThreadSanitizer"
bin=${RUST_BIN:-/usr/bin}
if ! [ -e "$("$bin/rustc" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.toml" ]; then
    skip "ThreadSanitizer: $bin/rustc has no sources of the standard library (see the head of this script)"
    exit 0
fi
found=$(find /usr/lib/llvm-*/lib/clang -name 'libclang_rt.tsan-x86_64.a' 2>/dev/null | sort -V | tail -n 1 || true)
runtime=${TSAN_RUNTIME:-$found}
if ! [ -e "$runtime" ]; then
    skip "ThreadSanitizer: clang's runtime is not here (see the head of this script)"
    exit 0
fi

host=$("$bin/rustc" -vV | sed -n 's/^host: //p')
export PATH=$bin:/usr/bin:/bin
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/tsan
# The runtime as a whole, before all else, so that it is there when the first of its functions is called.
export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt \
-Zpre-link-args=-Wl,--whole-archive,$runtime,--no-whole-archive -Clink-arg=-lm -Clink-arg=-lc"
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 ${TSAN_OPTIONS:-}"

# That test puts another file in a descriptor's place while a reactor uses it.
skip=(--skip a_reactor_that_fails_stops_the_others)
tests=(--lib --test hard_cases --test under_fire --test proactor --test server --test outbound)
run cargo test -p reev -Zbuild-std --target "$host" "${tests[@]}" --no-run
for round in $(seq "${TSAN_ROUNDS:-5}"); do
    say "ThreadSanitizer: round $round"
    run cargo test -p reev -Zbuild-std --target "$host" "${tests[@]}" "$@" -- "${skip[@]}"
done
