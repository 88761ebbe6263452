#!/usr/bin/env bash
# Clippy for the systems with kqueue, on their own libc: the library, its tests and its examples. The benches are for
# Linux: they set a bare epoll loop beside the servers, read /proc, count instructions, and need a C compiler. A
# system's standard library is built from source, which the distribution's own toolchain has. Nothing is linked or run.
# Targets may be named as arguments.
source "$(dirname "$0")/common.sh"

targets=("$@")
if [ $# = 0 ]; then
    targets=(x86_64-unknown-freebsd aarch64-apple-darwin x86_64-unknown-netbsd x86_64-unknown-openbsd
        x86_64-unknown-dragonfly)
fi

say "types and lints of ${#targets[@]} systems with kqueue"
packages=(rustc-web cargo-web rust-web-src rust-web-clippy)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        skip "other systems: needs the packages ${packages[*]} (Debian), and may not install them"
        exit 0
    fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if ! { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
        tail -n 3 "$log"
        skip "other systems: the packages ${packages[*]} cannot be had"
        exit 0
    fi
fi
if ! command -v rustup >/dev/null; then
    skip "other systems: needs rustup to choose the toolchain"
    exit 0
fi
rustup toolchain list | grep -q '^debian\b' || run rustup toolchain link debian /usr

export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/targets
# The lint is mistaken on OpenBSD, whose thread-locals are made otherwise: they are const already.
lints=(-D warnings -A clippy::missing_const_for_thread_local)
# All in one: what they share is built once, and both cores are busy. To see whose an error is, name one target.
run cargo +debian clippy -p reev -Zbuild-std -Zbuild-std-features=panic-unwind "${targets[@]/#/--target=}" --lib --tests --examples -- "${lints[@]}"
run cargo +debian clippy -p reev -Zbuild-std -Zbuild-std-features=panic-unwind "${targets[@]/#/--target=}" --no-default-features --lib -- "${lints[@]}"
