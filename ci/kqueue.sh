#!/usr/bin/env bash
# The tests once more on the kqueue backend, over an emulation of kqueue (src/sys/kqueue/emulation.rs) that is hostile
# by a seed: REEV_KQUEUE_SEED=N repeats one. Left out are the tests that touch no kernel: the codecs' (http1_head,
# http1_response, http1_cuts, websocket_deflate, _frames, _fuzz, _model, _utf8), those on the simulated kernel alone
# (simulation, pool, websocket_pair), the bench's (bench_open_loop), and those about the sources (documentation, readme,
# tidy).
source "$(dirname "$0")/common.sh"

tests=(chat_example connector datagram dns_example examples guide hard_cases http1_clients http1_differential
    http1_files http1_server http1_times inherited loadgen outbound outbound_examples pair proactor proactor_cleanup
    proactor_crowd proactor_deadlines proactor_delegate proactor_ends proactor_share proactor_swap regressions server
    soak tail_example under_fire websocket_handshake websocket_hostile websocket_loopback websocket_memory
    websocket_server)
left_out=(bench_open_loop documentation http1_cuts http1_head http1_response pool readme simulation tidy
    websocket_deflate websocket_frames websocket_fuzz websocket_model websocket_pair websocket_utf8)

say "tests on the kqueue backend, over the emulation"
# So that a new file of tests is in one of the two lists.
known=$(printf '%s\n' "${tests[@]}" "${left_out[@]}" | sort)
there=$(for path in tests/*.rs tests/*/main.rs; do
    name=${path#tests/}
    name=${name%/main.rs}
    echo "${name%.rs}"
done | sort)
[ "$known" = "$there" ] || fail "tests/ and the lists in this script differ: $(comm -3 <(echo "$known") <(echo "$there"))"

# A folder of its own, or every build would undo the other's.
export CARGO_TARGET_DIR=target/kqueue RUSTFLAGS="--cfg reev_kqueue_emulation"
run cargo clippy -p reev --lib -- -D warnings
run cargo build -p reev --examples
run cargo test -p reev --lib "${tests[@]/#/--test=}"
