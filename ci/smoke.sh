#!/usr/bin/env bash
# The benches run; the README's first command serves, answers a real client, and ends on SIGTERM with 0.
source "$(dirname "$0")/common.sh"

command=$(readme_commands | head -n 1)
example=$(sed -n 's/^cargo run --release --example \([a-z_0-9]*\)$/\1/p' <<<"$command")
[ -n "$example" ] || fail "the README's first command is not cargo run --release --example NAME: $command"

dir=$(mktemp -d)
pid=
cleanup() {
    if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap cleanup EXIT

say "every part of the loopback bench, in a tiny form"
run cargo bench --profile dev --bench loopback -- --tiny --only echo-128,http-1,ws-128,churn,offload,udp,proxy --out "$dir/bench"

# Starts the words given, asks the server, stops it.
serve_and_ask() {
    local addr status
    : >"$dir/banner"
    printf '+ %s &\n' "$*"
    "$@" >"$dir/banner" &
    pid=$!
    for _ in $(seq 600); do
        addr=$(sed -n 's/.*listening on \([^;]*\);.*/\1/p' "$dir/banner")
        if [ -n "$addr" ]; then break; fi
        kill -0 "$pid" 2>/dev/null || fail "it ended before it served"
        sleep 0.1
    done
    [ -n "$addr" ] || fail "no banner within a minute"
    cat "$dir/banner"
    if command -v curl >/dev/null; then
        ask "$addr" /plaintext 'Hello, World!'
        ask "$addr" /json '{"message":"Hello, World!"}'
    else
        skip "asking with curl, which is not here; tests/examples.rs asks the same"
    fi
    run kill -TERM "$pid" # cargo run has become the server, which kept its number
    status=0
    wait "$pid" || status=$?
    pid=
    [ "$status" = 0 ] || fail "it ended with $status after SIGTERM"
    echo "it ended with 0"
}

ask() {
    local answer
    answer=$(curl --silent --show-error --fail --max-time 20 --noproxy '*' "http://$1$2")
    [ "$answer" = "$3" ] || fail "$2 answered: $answer"
    echo "$2 answered: $answer"
}

say "the README's first command, on a port that the system chooses"
read -ra words <<<"$command"
run cargo build "${words[@]:2}"
serve_and_ask "${words[@]}" -- --addr 127.0.0.1:0

if (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then
    skip "the README's first command as it stands: somebody listens on port 8080"
else
    say "the README's first command, as it stands"
    serve_and_ask "${words[@]}"
fi
