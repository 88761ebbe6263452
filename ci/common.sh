# Sourced by the scripts beside it: they run in the project's root and stop at the first failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n=== %s\n' "$*"; }
skip() { printf '\n=== SKIPPED: %s\n' "$*"; }
fail() { printf '\n=== FAILED: %s\n' "$*" >&2; exit 1; }
run() { printf '+ %s\n' "$*"; "$@"; }

# The README's commands, one a line, as they stand in its sh blocks.
readme_commands() { awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on' README.md; }
