//! The house rules that a test can check.

#[path = "support/tree.rs"]
mod tree;

use tree::{code, files, has_word};

/// Every line of `files` with its place.
fn lines(files: &[(String, String)]) -> impl Iterator<Item = (String, &str)> {
    files.iter().flat_map(|(name, text)| {
        text.lines().enumerate().map(move |(i, line)| (format!("{name}:{}", i + 1), line))
    })
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Planted: a file of 601 lines.
#[test]
fn no_source_file_is_long() {
    let long = files("src", &["rs"]).into_iter().filter(|(_, text)| text.lines().count() > 600);
    none("files over 600 lines", long.map(|(name, _)| name).collect());
}

/// Planted: an unsafe block in src/core.rs.
#[test]
fn unsafe_code_lives_under_sys() {
    let sources = files("src", &["rs"]);
    let outside = lines(&sources)
        .filter(|(at, line)| !at.starts_with("src/sys/") && has_word(&code(line), "unsafe"));
    none("unsafe outside src/sys/", outside.map(|(at, _)| at).collect());
}

/// Planted: a SAFETY comment removed.
#[test]
fn unsafe_code_says_why() {
    let mut found = Vec::new();
    for (name, text) in files("src", &["rs"]).iter().chain(&files("tests", &["rs"])) {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = code(line);
            let names_a_type = code.contains("unsafe fn") || code.contains("unsafe extern");
            if !has_word(&code, "unsafe") || names_a_type {
                continue;
            }
            // Above the statement, which may have begun a few lines before.
            let above = lines[..i].iter().rev().take(6).take_while(|line| !line.trim().is_empty());
            if !above.into_iter().any(|line| line.contains("SAFETY:")) {
                found.push(format!("{name}:{}", i + 1));
            }
        }
    }
    none("unsafe without a SAFETY comment", found);
}

const CODE: [&str; 5] = ["src", "tests", "examples", "benches", "fuzz"];

/// Planted: each of the words.
#[test]
fn nothing_is_left_to_do() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("db", "g!"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
    ];
    for folder in CODE {
        let sources = files(folder, &["rs"]);
        let found = lines(&sources).filter(|(_, line)| words.iter().any(|w| line.contains(w)));
        none("left to do", found.map(|(at, line)| format!("{at}: {line}")).collect());
    }
}

/// Planted: a line of code with `//` before it.
#[test]
fn no_code_is_commented_out() {
    for folder in CODE {
        let sources = files(folder, &["rs"]);
        let found = lines(&sources).filter(|(_, line)| {
            let Some(text) = line.trim_start().strip_prefix("//") else {
                return false;
            };
            let text = text.trim();
            let documents = text.starts_with(['/', '!']);
            let starts = ["let ", "use ", "fn ", "pub ", "impl ", "#[", "return ", "} else"];
            let code = text.ends_with([';', '{', '}'])
                && (text.contains(['(', '=', '}']) || starts.iter().any(|s| text.starts_with(s)));
            !documents && code
        });
        none("commented-out code", found.map(|(at, line)| format!("{at}: {line}")).collect());
    }
}

/// Planted: a tab, and a blank at a line's end, in each kind of file.
#[test]
fn no_tabs_and_no_blanks_at_the_end_of_a_line() {
    let all = files("", &["rs", "md", "toml", "sh", "yml", "yaml"]);
    assert!(all.len() > 30, "the files are found");
    let found = lines(&all).filter(|(_, line)| line.contains('\t') || line.ends_with([' ', '\r']));
    none("tabs or blanks", found.map(|(at, _)| at).collect());
    let ends = all.iter().filter(|(_, text)| !text.is_empty() && !text.ends_with('\n'));
    none("no newline at the end", ends.map(|(name, _)| name.clone()).collect());
}

/// What belongs to one machine is not for others: home folders, mirrors of registries, private
/// hosts. Planted: each of them.
#[test]
fn nothing_of_one_machine() {
    let all = files("", &["rs", "md", "toml", "sh", "yml", "yaml", "lock", "json"]);
    let paths = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
    ];
    let found = lines(&all).filter(|(at, line)| {
        let registry = at.starts_with("Cargo.lock")
            && (line.contains("registry+") || line.contains("sparse+"))
            && !line.contains("https://github.com/rust-lang/crates.io-index");
        let hosts = line.split("://").skip(1);
        let private =
            hosts.filter_map(|rest| rest.split(['/', ':', '"', ')', ' ']).next()).any(|host| {
                let ends = [".internal", ".local", ".corp", ".lan"];
                let starts = ["10.", "192.168.", "172.16."];
                ends.iter().any(|end| host.ends_with(end))
                    || starts.iter().any(|start| host.starts_with(start))
            });
        let paths = paths.iter().any(|path| line.contains(path));
        registry || private || paths
    });
    none("of one machine", found.map(|(at, line)| format!("{at}: {line}")).collect());
}
