#!/usr/bin/env bash
# Format, clippy on all targets, documentation: each warning is an error.
source "$(dirname "$0")/common.sh"

say "format"
run cargo fmt --check

say "clippy"
run cargo clippy --all-targets -- -D warnings
run cargo clippy --all-targets --no-default-features -- -D warnings

say "documentation"
export RUSTDOCFLAGS="-D warnings"
run cargo doc --no-deps
run cargo doc --no-deps --no-default-features
