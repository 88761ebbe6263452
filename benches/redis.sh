#!/usr/bin/env bash
# Compares examples/redis with the redis-server of the distribution (packages redis-server and
# redis-tools): the same load by redis-benchmark, in turns, each server on one core and the load
# on another. Prints requests a second and processor time of the server for each request, and in
# how many rounds the example was ahead.
#
#   benches/redis.sh [shared|apart] [ROUNDS]       default: shared, 5 rounds
#
# shared: server and load on one core, so that what a request costs either of them is time that
# the other lacks. apart: a core each; then the load is busy all the time and sets the pace, and
# the processor time says which server does with less (the example counts its looking for events
# before it sleeps, SPIN_US microseconds, 50 by default). A round is 2 seconds for each server and
# test, in four slices in turns.
set -euo pipefail
cd "$(dirname "$0")/.."

placement=${1:-shared}
rounds=${2:-5}
slices=4
tests=(PING_INLINE PING_MBULK SET GET INCR LPUSH)
server_core=${SERVER_CORE:-0}
case "$placement" in
    shared) client_core=$server_core ;;
    apart) client_core=${CLIENT_CORE:-1} ;;
    *) echo "shared or apart, not $placement"; exit 2 ;;
esac
clients=${CLIENTS:-50}
spin_us=${SPIN_US:-50}

for program in redis-server redis-benchmark redis-cli; do
    command -v "$program" >/dev/null || { echo "no $program here (redis-server, redis-tools)"; exit 1; }
done
[ -n "${EXAMPLE:-}" ] || cargo build --quiet --release --example redis
example=${EXAMPLE:-${CARGO_TARGET_DIR:-target}/release/examples/redis}

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

declare -A port pid
port[reev]=$(free_port)
taskset -c "$server_core" "$example" --addr "127.0.0.1:${port[reev]}" --no-pin --spin-us "$spin_us" \
    >"$work/reev.log" 2>&1 &
pid[reev]=$!; pids+=($!)
port[redis]=$(free_port)
taskset -c "$server_core" redis-server --port "${port[redis]}" --bind 127.0.0.1 --save '' \
    --appendonly no --dir "$work" >"$work/redis.log" 2>&1 &
pid[redis]=$!; pids+=($!)
for server in reev redis; do
    for _ in $(seq 200); do
        redis-cli -p "${port[$server]}" ping >/dev/null 2>&1 && break
        sleep 0.05
    done
done

cpu() {
    awk '{ spent += $1 } END { printf "%.0f", spent }' "/proc/${pid[$1]}"/task/*/schedstat
}

# load SERVER TEST REQUESTS: requests a second, and nanoseconds of the server for each of them.
load() {
    local before rate
    before=$(cpu "$1")
    rate=$(taskset -c "$client_core" redis-benchmark -p "${port[$1]}" -c "$clients" -P 16 -n "$3" \
        -t "${2,,}" --csv | awk -F'"' -v name="$2" '$2 == name { print $4 }')
    echo "$rate $((($(cpu "$1") - before) / $3))"
}

declare -A requests
for test in "${tests[@]}"; do
    read -r rate _ < <(load redis "$test" 100000)
    requests[$test]=$(awk -v rate="$rate" 'BEGIN { printf "%.0f", rate / 2 }')
done
for ((round = 1; round <= rounds; round++)); do
    for test in "${tests[@]}"; do
        # Who comes first changes from round to round.
        if ((round % 2)); then order=(reev redis); else order=(redis reev); fi
        for ((slice = 0; slice < slices; slice++)); do
            for server in "${order[@]}"; do
                echo "$test $server $round $(load "$server" "$test" "${requests[$test]}")"
            done
        done
    done
    # Lists grow with every LPUSH.
    for server in reev redis; do redis-cli -p "${port[$server]}" flushall >/dev/null; done
done >"$work/results"
awk '
    # All slices have as many requests, so their times are what adds up.
    { time[$1, $2, $3] += 1 / $4; cost[$1, $2, $3] += $5; n[$1, $2]++ }
    { sum[$1, $2] += 1 / $4; spent[$1, $2] += $5 }
    !seen[$1]++ { names[++tests] = $1 }
    $3 > rounds { rounds = $3 }
    END {
        printf "%-12s %12s %12s %7s   %10s %10s %7s   %s\n", "", "reev req/s", "redis req/s", "ratio",
            "reev ns", "redis ns", "ratio", "rounds ahead by rate, by processor time"
        for (i = 1; i <= tests; i++) {
            t = names[i]; fast = cheap = 0
            for (r = 1; r <= rounds; r++) {
                fast += time[t, "reev", r] < time[t, "redis", r]
                cheap += cost[t, "reev", r] < cost[t, "redis", r]
            }
            printf "%-12s %12.0f %12.0f %7.2f   %10.0f %10.0f %7.2f   %d, %d of %d\n", t,
                n[t, "reev"] / sum[t, "reev"], n[t, "redis"] / sum[t, "redis"],
                sum[t, "redis"] / sum[t, "reev"],
                spent[t, "reev"] / n[t, "reev"], spent[t, "redis"] / n[t, "redis"],
                spent[t, "reev"] / spent[t, "redis"], fast, cheap, rounds
        }
    }
' "$work/results"
