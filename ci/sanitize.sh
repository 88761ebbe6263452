#!/usr/bin/env bash
# The library's tests under AddressSanitizer (with LeakSanitizer), which the stable toolchain carries.
source "$(dirname "$0")/common.sh"

say "AddressSanitizer"
host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$(find "$(rustc --print sysroot)" -name 'librustc*_rt.asan.a' 2>/dev/null | head -n 1)
if [ -z "$runtime" ]; then
    skip "AddressSanitizer: this toolchain has no runtime for it"
    exit 0
fi
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan
run cargo test -p reev --lib --target "$host"
