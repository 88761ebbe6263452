//! The project's files, for tests of what is written in them.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};

/// The files of the project, by path, with their text; not what a build makes.
pub fn files(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(at: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(at) else {
            return;
        };
        for entry in entries.map(|entry| entry.unwrap()) {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().expect("names are UTF-8");
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !["target", ".git", "corpus", "artifacts"].contains(&name) {
                walk(&path, extensions, found);
            } else if kind.is_file()
                && path.extension().is_some_and(|e| extensions.iter().any(|&known| e == known))
            {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), extensions, &mut found);
    found.sort();
    let text = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        (name, fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(text).collect()
}

/// The code of a line, without its comment and without what it says in strings.
pub fn code(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut previous = ' ';
    for (i, c) in line.char_indices() {
        if c == '"' && previous != '\\' && previous != '\'' {
            in_string = !in_string;
        } else if !in_string && line[i..].starts_with("//") {
            break;
        } else if !in_string {
            code.push(c);
        }
        previous = c;
    }
    code
}

pub fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}
