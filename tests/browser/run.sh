#!/usr/bin/env bash
# The example `websocket` in a real browser. Without chromium and chromedriver it is skipped aloud;
# REEV_INSTALL=1 installs the distribution's packages. Screenshots go to target/browser/.
# usage: run.sh [PATH_OF_WEBSOCKET]
source "$(dirname "${BASH_SOURCE[0]}")/../../ci/common.sh"

server=${1:-target/release/examples/websocket}
if [ "${REEV_INSTALL:-0}" = 1 ] && ! command -v chromedriver >/dev/null && command -v apt-get >/dev/null; then
    run timeout 300 apt-get install -y --no-install-recommends chromium chromium-driver || true
fi
if ! command -v chromedriver >/dev/null || ! command -v python3 >/dev/null; then
    skip "the browser: chromedriver or python3 is not here (REEV_INSTALL=1 installs chromium)"
    exit 0
fi
[ -x "$server" ] || run cargo build --release --example websocket

say "the chat and the round trips in headless Chromium"
banner=$(mktemp)
"$server" --addr 127.0.0.1:0 --reactors 2 --no-pin >"$banner" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -f "$banner"' EXIT
for _ in $(seq 100); do
    addr=$(sed -n 's/.*listening on \([^;]*\);.*/\1/p' "$banner")
    if [ -n "$addr" ]; then break; fi
    sleep 0.1
done
[ -n "$addr" ] || fail "the example gave no banner"
run timeout 180 python3 tests/browser/websocket.py "http://$addr" target/browser
