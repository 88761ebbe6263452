#!/usr/bin/env bash
# The WebSocket examples with clients of other people and in a browser; what is not here is skipped.
source "$(dirname "$0")/common.sh"

run cargo build --release --example ws_echo --example websocket
run timeout 600 tests/websocket/run.sh
run timeout 300 tests/browser/run.sh
