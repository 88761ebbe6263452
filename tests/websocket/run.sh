#!/usr/bin/env bash
# Conformance of the example ws_echo, with clients of other people. What is not there is skipped
# aloud; REEV_INSTALL=1 installs it from the registries into target/.
# usage: run.sh [PATH_OF_WS_ECHO]
source "$(dirname "${BASH_SOURCE[0]}")/../../ci/common.sh"

echo_server=${1:-target/release/examples/ws_echo}
[ -x "$echo_server" ] || run cargo build --release --example ws_echo
home=$PWD/target/websocket-clients
mkdir -p "$home"
python=python3
[ -x "$home/venv/bin/python" ] && python=$home/venv/bin/python
if [ "${REEV_INSTALL:-0}" = 1 ]; then
    command -v python3 >/dev/null && [ ! -x "$home/venv/bin/python" ] \
        && run timeout 120 python3 -m venv "$home/venv" \
        && run timeout 120 "$home/venv/bin/pip" install -q websockets autobahn \
        && python=$home/venv/bin/python
    command -v npm >/dev/null && [ ! -d "$home/node_modules/ws" ] \
        && run timeout 120 npm install --silent --no-fund --no-audit --prefix "$home" ws
fi

banner=$(mktemp)
"$echo_server" --addr 127.0.0.1:0 --reactors 1 --no-pin >"$banner" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -f "$banner"' EXIT
for _ in $(seq 100); do
    port=$(sed -n 's/.*listening on [^;]*:\([0-9]*\);.*/\1/p' "$banner")
    if [ -n "$port" ]; then break; fi
    sleep 0.1
done
[ -n "$port" ] || fail "ws_echo gave no banner"

if command -v python3 >/dev/null; then
    say "every malformed frame, close code and split of UTF-8"
    run timeout 120 python3 tests/websocket/frames.py 127.0.0.1 "$port"
else
    skip "the frames: python3 is not here"
fi
if "$python" -c 'import websockets' 2>/dev/null; then
    say "the Python packages websockets and autobahn"
    run timeout 180 "$python" tests/websocket/clients.py 127.0.0.1 "$port"
else
    skip "the Python clients: websockets is not here (REEV_INSTALL=1 installs it)"
fi
if command -v node >/dev/null && [ -d "$home/node_modules/ws" ]; then
    say "the npm package ws"
    NODE_PATH=$home/node_modules run timeout 120 node tests/websocket/clients.cjs 127.0.0.1 "$port"
else
    skip "the npm client: ws is not here (REEV_INSTALL=1 installs it)"
fi
