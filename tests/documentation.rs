//! What the documentation promises about the tree: that each public item is shown at work or says
//! why not, that the tests, files and unsafe blocks it names are those that are there, and that its
//! links lead somewhere.

#[path = "support/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tree::{code, files, has_word};

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Public items that no example names, by the reason.
const NOT_SHOWN: [(&str, &[&str]); 7] = [
    (
        "a question whose line of documentation answers it",
        &[
            "as_u64",
            "authority",
            "close_code",
            "datagram_addr",
            "dropped_datagrams",
            "has_content",
            "has_token",
            "is_bodyless",
            "is_datagram",
            "is_deflated",
            "is_interim",
            "is_partial",
            "is_streaming",
            "is_unix",
            "resolve",
            "status",
            "unix_name",
            "unix_path",
            "wants_continue",
            "wants_upgrade",
            "find",
            "body_kind",
        ],
    ),
    (
        "a variant of what is shown: the same with a deadline, several pieces, or from elsewhere",
        &[
            "adopt_datagrams",
            "client_with",
            "connect_datagrams",
            "demand_upgrade",
            "fields",
            "leave_multicast",
            "listen_limited",
            "ping",
            "prepared",
            "read_by",
            "serve_path",
            "stream_sized",
            "try_wait",
            "wait_timeout",
            "write_by",
            "write_part",
            "write_vectored",
            "read_while_blocked",
            "close_listener",
            "unsatisfiable",
            "set_faults",
            "turn",
            "saw_reset",
            "shutdown_write",
            "free",
        ],
    ),
    (
        "a value that an example gets and uses without spelling its type",
        &[
            "Agreed",
            "Calls",
            "Completion",
            "Completions",
            "DatagramId",
            "Decoded",
            "Dial",
            "Headers",
            "Inherited",
            "PoolRemote",
            "PoolStats",
            "Routed",
            "Running",
            "Shutdown",
        ],
    ),
    (
        "the signature of a closure or function that an example passes",
        &["OriginFn", "PlaceFn", "RouteFn"],
    ),
    (
        "plain data, each field explained where it stands",
        &["CloseFrame", "Compress", "DeflateParams", "Established", "HeaderBytes", "Accept"],
    ),
    ("an error, whose documentation says what to do about it", &["LengthMismatch", "Refused"]),
    (
        "for those who drive a codec by hand; the layers of the crate do, and are the example",
        &[
            "Shared",
            "Sink",
            "closing",
            "fail",
            "from_nonce",
            "if_range",
            "plain_header",
            "put_continue",
            "refresh",
            "reserve_exact",
            "set_masks",
            "skip",
            "system",
        ],
    ),
];

/// The lines of the examples in documentation comments of `text`.
fn examples_in_source(text: &str) -> String {
    let mut examples = String::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            inside = false;
            continue;
        };
        match doc.trim_start().starts_with("```") {
            true => inside = !inside,
            false if inside => examples.extend([doc, "\n"]),
            false => {}
        }
    }
    examples
}

/// The blocks of Rust of a page.
fn rust_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in page.lines() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some((line.starts_with("```rust"), String::new())),
            (None, false) => {}
            (Some((_, block)), false) => block.extend([line, "\n"]),
            (Some(_), true) => {
                blocks.extend(open.take().filter(|(rust, _)| *rust).map(|(_, block)| block));
            }
        }
    }
    blocks
}

/// Items and methods that are `pub`, with whether their own documentation has an example.
fn public_items(text: &str) -> Vec<(String, bool)> {
    let mut items = Vec::new();
    let mut shown = false;
    for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
        let trimmed = line.trim_start();
        if trimmed.starts_with("///") {
            shown |= trimmed.contains("```");
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix("pub ") {
            let rest =
                rest.strip_prefix("const ").filter(|rest| rest.starts_with("fn ")).unwrap_or(rest);
            let kinds = ["fn ", "struct ", "enum ", "trait ", "type "];
            if let Some(name) = kinds.iter().find_map(|kind| rest.strip_prefix(kind)) {
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
                items.push((name[..end.unwrap_or(name.len())].to_owned(), shown));
            }
        }
        shown &= trimmed.starts_with("#[") || trimmed.starts_with(')') || trimmed.is_empty();
    }
    items
}

/// Planted: a public function without an example, and an exception for one that is not there.
#[test]
fn every_public_item_is_shown_or_has_a_reason_not_to() {
    let sources = files("src", &["rs"]);
    let pages = files("docs", &["md"]);
    let mut examples: String = sources.iter().map(|(_, text)| examples_in_source(text)).collect();
    examples.extend(pages.iter().flat_map(|(_, page)| rust_blocks(page)));
    let excused: BTreeSet<&str> = NOT_SHOWN.iter().flat_map(|(_, names)| *names).copied().collect();
    let (mut missing, mut seen) = (Vec::new(), BTreeSet::new());
    for (file, text) in &sources {
        for (name, shown) in public_items(text) {
            let named = shown || has_word(&examples, &name);
            if !named && !excused.contains(name.as_str()) {
                missing.push(format!("{file}: {name}"));
            }
            seen.insert(name);
        }
    }
    none("public items that no example shows", &missing);
    let gone = excused.iter().filter(|name| !seen.contains(**name)).map(|name| (*name).to_owned());
    none("excused, but there is no such item", &gone.collect::<Vec<_>>());
}

/// A page or a note of the project's root.
fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The cells of a table's row.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The blocks of unsafe code under src/sys/, by file and function.
fn unsafe_blocks() -> BTreeMap<(String, String), usize> {
    let mut blocks = BTreeMap::new();
    for (file, text) in files("src/sys", &["rs"]) {
        let mut function = String::new();
        for line in text.lines() {
            let code = code(line);
            if let Some((before, after)) = code.split_once("fn ")
                && before.chars().all(|c| c.is_ascii_lowercase() || " ()".contains(c))
            {
                let end = after.find(|c: char| !c.is_alphanumeric() && c != '_');
                function = after[..end.unwrap_or(after.len())].to_owned();
            }
            let block = code.replace("unsafe {", "unsafe{").matches("unsafe{").count();
            let other =
                ["unsafe impl", "unsafe extern \"C\" {"].iter().any(|kind| code.contains(kind));
            if block > 0 || other {
                let place = (file.clone(), function.clone());
                *blocks.entry(place).or_insert(0) += block + usize::from(other);
            }
        }
    }
    blocks
}

/// Planted: a block more in a function, one in a new function, and a row for one that is gone.
#[test]
fn the_unsafe_ledger_has_every_block_and_no_other() {
    let ledger = page("docs/unsafe.md");
    let rows = ledger.lines().filter(|line| line.starts_with("| `src/sys/")).map(cells);
    let mut listed = BTreeMap::new();
    for row in rows {
        let [file, function, blocks, _, why] = row[..] else { panic!("five cells: {row:?}") };
        assert!(!why.is_empty(), "{file} {function} has no reason");
        let place = (file.trim_matches('`').to_owned(), function.trim_matches('`').to_owned());
        assert!(listed.insert(place, blocks.parse().unwrap()).is_none(), "{file} {function} twice");
    }
    let found = unsafe_blocks();
    assert!(!found.is_empty(), "there are some");
    let differs = |place: &&(String, String)| listed.get(*place) != found.get(*place);
    let places: BTreeSet<_> = listed.keys().chain(found.keys()).filter(differs).collect();
    let told = places.iter().map(|place| {
        let count = |blocks: &BTreeMap<(String, String), usize>| blocks.get(*place).copied();
        let (there, here) = (count(&found), count(&listed));
        format!("{} {}: {there:?} in the tree, {here:?} in docs/unsafe.md", place.0, place.1)
    });
    none("the unsafe ledger is not up to date", &told.collect::<Vec<_>>());
}

/// The numbered entries of the page of hard cases, each with the tests that it names.
fn hard_cases() -> BTreeMap<u32, Vec<String>> {
    let text = page("docs/hard-cases.md");
    let (mut cases, mut number): (BTreeMap<u32, Vec<String>>, u32) = (BTreeMap::new(), 0);
    for line in text.lines() {
        if let Some((digits, _)) = line.split_once(". **")
            && let Ok(next) = digits.parse::<u32>()
        {
            assert_eq!(next, number + 1, "the numbers follow each other");
            number = next;
            cases.insert(number, Vec::new());
        }
        let named = line.split('`').filter(|word| word.starts_with("hard_case_"));
        if let Some(tests) = cases.get_mut(&number) {
            tests.extend(named.map(str::to_owned));
        }
    }
    cases
}

/// Planted: a test renamed, an entry without one, a name under the wrong number.
#[test]
fn every_hard_case_names_tests_that_are_there() {
    let sources = [files("src", &["rs"]), files("tests", &["rs"])].concat();
    let mut tests = BTreeSet::new();
    for line in sources.iter().flat_map(|(_, text)| text.lines()) {
        if let Some(name) = line.trim_start().strip_prefix("fn hard_case_") {
            let end = name.find('(').unwrap_or(name.len());
            tests.insert(format!("hard_case_{}", &name[..end]));
        }
    }
    // Two digits, or `cargo test hard_case_01` would not find it.
    let number = |test: &str| {
        let digits = test.split('_').nth(2)?;
        if digits.len() == 2 { digits.parse().ok() } else { None }
    };
    let tested: BTreeSet<u32> = tests.iter().filter_map(|test| number(test)).collect();
    let cases = hard_cases();
    assert_eq!(cases.len(), 39);
    let unfound = tests.iter().filter(|test| number(test).is_none());
    let mut wrong: Vec<String> = unfound.map(|test| format!("{test}: not two digits")).collect();
    for (case, named) in &cases {
        if named.is_empty() && tested.contains(case) {
            wrong.push(format!("{case} names no test, and there is one"));
        }
        if named.is_empty() {
            wrong.push(format!("{case} names no test"));
        }
        for test in named {
            if !tests.contains(test) || number(test) != Some(*case) {
                wrong.push(format!("{case} names {test}"));
            }
        }
    }
    none("docs/hard-cases.md is not up to date", &wrong);
}

/// Planted: a test that runs one way again, and a number left out on the page.
#[test]
fn the_page_tells_which_hard_cases_run_both_ways() {
    let mut both = BTreeSet::new();
    for (_, text) in files("tests", &["rs"]) {
        for test in text.split("fn hard_case_").skip(1) {
            let number = test.split('_').next().and_then(|digits| digits.parse::<u32>().ok());
            if test.split(')').next().is_some_and(|head| head.contains("(origin: Origin"))
                || test.lines().nth(1).is_some_and(|line| line.trim() == "origin in origins(),")
            {
                both.extend(number);
            }
        }
    }
    let page = page("docs/hard-cases.md");
    let line = page.lines().find_map(|line| line.strip_prefix("Run both ways: "));
    let told = line.expect("a line of the page").trim_end_matches('.').split(", ");
    let told: BTreeSet<u32> = told.map(|number| number.parse().unwrap()).collect();
    assert_eq!(told, both);
}

/// The names that a heading can be linked by.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let plain = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    plain.map(|line| line.replace(' ', "-").replace(['.', ',', '`', ':', '(', ')'], "")).collect()
}

/// Planted: a link to a page that is not there, and one to a heading that is not.
#[test]
fn every_link_of_a_page_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let notes = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut pages = files("docs", &["md"]);
    pages.extend(notes.map(|name| (name.to_owned(), page(name))));
    let mut broken = Vec::new();
    for (name, text) in &pages {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(name).parent().unwrap_or(Path::new(""));
            let place = root.join(if path.is_empty() { name.into() } else { folder.join(path) });
            let is_there = place.exists()
                && (anchor.is_empty()
                    || anchors(&std::fs::read_to_string(&place).unwrap()).contains(anchor));
            if !is_there {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    none("links that lead nowhere", &broken);
}

/// Planted: a page taken from the index.
#[test]
fn the_index_has_every_page() {
    let index = page("docs/README.md");
    let pages = files("docs", &["md"]).into_iter();
    let names = pages.filter_map(|(name, _)| name.strip_prefix("docs/").map(str::to_owned));
    let missing = names.filter(|name| {
        name != "README.md" && !name.contains('/') && !index.contains(&format!("]({name})"))
    });
    none("pages that docs/README.md does not link", &missing.collect::<Vec<_>>());
}

/// Planted: a field renamed on the page.
#[test]
fn the_pages_name_every_setting() {
    let config = page("src/config.rs");
    let pages = ["limits", "linux", "shutdown", "operations", "deployment"];
    let text: String = pages.iter().map(|name| page(&format!("docs/{name}.md"))).collect();
    let fields = config.lines().filter_map(|line| line.strip_prefix("    pub "));
    let fields = fields.filter_map(|rest| rest.split_once(": ").map(|(name, _)| name));
    let unnamed = fields.filter(|name| !name.contains(' ') && !has_word(&text, name));
    none("settings that no page names", &unnamed.map(str::to_owned).collect::<Vec<_>>());
}

/// Planted: a file without a row.
#[test]
fn the_design_lists_every_file_of_the_core() {
    let design = page("docs/design.md");
    let files = files("src", &["rs"]).into_iter().map(|(name, _)| name);
    let unlisted = files.filter(|name| {
        let name = name.trim_start_matches("src/");
        let deep = name.starts_with("proto/") || name.starts_with("proactor/");
        !deep && !design.contains(&format!("`{name}`"))
    });
    none("files that docs/design.md does not list", &unlisted.collect::<Vec<_>>());
}
