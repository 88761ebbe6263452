#!/usr/bin/env bash
# The README's test command, and that the bare crate's tests build.
source "$(dirname "$0")/common.sh"

command=$(readme_commands | grep -E '^cargo test' || true)
[ "$(wc -l <<<"$command")" = 1 ] && [ -n "$command" ] || fail "README.md has no single test command"

say "the README's test command"
read -ra words <<<"$command"
run "${words[@]}"

say "tests without the default features"
run cargo test -p reev --no-default-features --no-run
