//! What passing bytes on costs by the length of messages: `Ctx::pair` beside bare loops that copy
//! or splice. It shows from which length on the pipe pays; the bench `loopback` has proxies among
//! others, and UDP.
//!
//! The server's thread has one core, the load another. Rounds of all servers take turns; what
//! counts is the processor time of the server's thread.

#[path = "../loopback/sys.rs"]
#[allow(dead_code, reason = "the other bench uses the rest")]
mod sys;

mod proxies;

use std::time::Duration;

/// Puts the calling thread on a core, if there are so many.
fn pin(nth: usize) {
    if let Some(core) = core_affinity::get_core_ids().and_then(|ids| ids.get(nth).copied()) {
        core_affinity::set_for_current(core);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut arguments = pico_args::Arguments::from_env();
    let _ = arguments.contains("--bench"); // cargo passes it
    if arguments.contains("--help") {
        println!("--rounds N (5), --slice-ms N (200)");
        return;
    }
    let number = |flag, default| -> u64 {
        arguments.clone().opt_value_from_str(flag).expect("a number").unwrap_or(default)
    };
    let (rounds, slice) = (number("--rounds", 5), Duration::from_millis(number("--slice-ms", 200)));
    proxies::compare(rounds, slice);
}
