#!/usr/bin/env bash
# Format, clippy on all targets, documentation: each warning is an error.
source "$(dirname "$0")/common.sh"

say "format"
run cargo fmt --all --check

say "clippy"
run cargo clippy --all-targets -- -D warnings
run cargo clippy -p reev --all-targets --no-default-features -- -D warnings

say "documentation"
export RUSTDOCFLAGS="-D warnings"
run cargo doc -p reev --no-deps
run cargo doc -p reev --no-deps --no-default-features
