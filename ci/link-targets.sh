#!/usr/bin/env bash
# Links the tests and examples for systems with kqueue against their own libc, so that a function which a system lacks
# shows. Nothing is run. Not part of .ci/run: the standard library is built for each, some three minutes a system.
#
# It needs the toolchain that ci/check-targets.sh sets up, and cargo-zigbuild with zig, which has the libc of these
# systems; with Python they are put into target/zig. Of NetBSD cargo-zigbuild knows nothing, and zig has no DragonFly.
# Targets may be named as arguments.
source "$(dirname "$0")/common.sh"

targets=("$@")
[ $# != 0 ] || targets=(x86_64-unknown-freebsd aarch64-apple-darwin x86_64-unknown-openbsd)

say "linking for ${#targets[@]} systems with kqueue"
if ! rustup toolchain list 2>/dev/null | grep -q '^debian\b'; then
    skip "linking for other systems: no toolchain of the name debian, which ci/check-targets.sh makes"
    exit 0
fi
bin=$PWD/target/zig/bin
if ! [ -x "$bin/cargo-zigbuild" ] && ! { python3 -m venv target/zig && run "$bin/pip" install -q ziglang cargo-zigbuild; }; then
    skip "linking for other systems: cargo-zigbuild cannot be installed with Python"
    exit 0
fi

export PATH=$bin:$PATH CARGO_ZIGBUILD_PYTHON=$bin/python3
export RUSTUP_TOOLCHAIN=debian RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target/link
for target in "${targets[@]}"; do
    run cargo-zigbuild zigbuild -p reev -Zbuild-std -Zbuild-std-features=panic-unwind --target "$target" --tests --examples
done
