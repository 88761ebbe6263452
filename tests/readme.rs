//! The README, the crate's documentation and the examples show the same server.

const README: &str = include_str!("../README.md");
const CRATE: &str = include_str!("../src/lib.rs");
const EXAMPLE: &str = include_str!("../examples/echo.rs");

/// The code between the first fence that starts with `fence` and the next.
fn first_block(text: &str, fence: &str) -> String {
    let lines = text.lines().skip_while(|line| !line.starts_with(fence)).skip(1);
    let block: Vec<&str> = lines.take_while(|line| !line.starts_with("```")).collect();
    assert!(!block.is_empty(), "no block that starts with {fence}");
    block.join("\n")
}

fn crate_docs() -> String {
    let docs = CRATE.lines().filter_map(|line| line.strip_prefix("//!"));
    docs.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_and_the_crate_show_the_same_echo_server_of_fourteen_lines() {
    let shown = first_block(README, "```rust");
    assert_eq!(shown, first_block(&crate_docs(), "```no_run"));
    assert_eq!(shown.lines().count(), 14);
}

#[test]
fn the_example_has_the_same_handler_and_address() {
    let shown = first_block(README, "```rust");
    let start = shown.find("struct Echo;").expect("a handler");
    let end = shown.find("fn main").expect("a main");
    assert!(EXAMPLE.contains(shown[start..end].trim_end()), "examples/echo.rs differs");
    assert!(EXAMPLE.contains("\"127.0.0.1:7000\""));
}
