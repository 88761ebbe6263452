//! RUSTC_BOOTSTRAP=1 cargo fuzz run http1_request
#![no_main]

#[path = "../../tests/support/http1_fuzzing.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::fuzz_request(data));
