//! RUSTC_BOOTSTRAP=1 cargo fuzz run websocket_decode
#![no_main]

#[path = "../../tests/support/websocket_fuzzing.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::decode(data));
