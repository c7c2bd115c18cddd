//! House rules that a machine can check: the walls of ARCHITECTURE.md, and the purity of the pure rooms.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: &[&str] = &[
    "model",
    "diagnose",
    "decide",
    "doctor",
    "treat/act.rs",
    "treat/machine.rs",
    "treat/toggle.rs",
    "treat/deletion.rs",
    "treat/verify.rs",
    "treat/session_check.rs",
    "probe/plan.rs",
    "lab/garm",
    "lab/github",
    "lab/world.rs",
    "lab/story.rs",
];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::process",
    "std::thread",
    "tokio",
    "reqwest",
    "hyper",
    "rusqlite",
    "rand::",
    "HashMap",
    "HashSet",
    "async fn",
    "async move",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The lines that are neither comments nor tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn is_test(name: &str) -> bool {
    ["tests.rs", "testing.rs", "explore.rs", "treat/world.rs", "recordings.rs", "properties.rs", "door_tests.rs"]
        .iter()
        .any(|end| name.ends_with(end))
        || name.contains("/tests/")
}

/// Lines of files under these folders that hold any of these words.
fn offenders(within: &[&str], words: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if is_test(&name) || !within.iter().any(|room| name.starts_with(room)) {
            continue;
        }
        let hits = code(&text).filter(|line| words.iter().any(|word| line.contains(word)));
        wrong.extend(hits.map(|line| format!("{name}: {}", line.trim())));
    }
    wrong
}

#[test]
fn pure_rooms_hold_nothing_impure() {
    assert_eq!(offenders(PURE, IMPURE), Vec::<String>::new());
}

#[test]
fn pure_rooms_deny_it_to_the_compiler_too() {
    let pure: Vec<_> =
        sources().into_iter().filter(|(name, _)| PURE.iter().any(|room| name.starts_with(room))).collect();
    let silent = pure.iter().filter(|(name, text)| {
        let room = name.split('/').next().unwrap_or_default();
        let head = pure.iter().find(|(other, _)| *other == format!("{room}/mod.rs")).map_or("", |(_, head)| head);
        !is_test(name)
            && !text.contains("deny(clippy::disallowed_methods")
            && !head.contains("deny(clippy::disallowed_methods")
    });
    assert_eq!(silent.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn the_simulators_share_no_rule_with_what_they_test() {
    assert_eq!(offenders(&["lab"], &["crate::diagnose", "crate::decide", "crate::treat"]), Vec::<String>::new());
}

#[test]
fn adapters_decide_nothing_and_know_no_other_adapter() {
    assert_eq!(
        offenders(&["garm"], &["crate::github", "crate::diagnose", "crate::decide::decide"]),
        Vec::<String>::new()
    );
    assert_eq!(
        offenders(&["github"], &["crate::garm", "crate::diagnose", "crate::decide::decide"]),
        Vec::<String>::new()
    );
    assert_eq!(offenders(&["probe"], &["treat::ports", "crate::garm", "crate::github"]), Vec::<String>::new());
}

#[test]
fn only_the_command_line_prints() {
    let elsewhere: Vec<_> =
        sources().iter().filter_map(|(name, _)| name.split('/').next().map(str::to_owned)).collect();
    let rooms: Vec<&str> = elsewhere.iter().map(String::as_str).filter(|room| *room != "cli").collect();
    assert_eq!(offenders(&rooms, &["println!", "eprintln!", "dbg!"]), Vec::<String>::new());
}

#[test]
fn nothing_is_left_to_do_and_every_file_says_what_it_is() {
    for (name, text) in sources() {
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!("] {
            assert!(!text.contains(word), "{name}: {word}");
        }
        let has_doc = text.lines().take(3).any(|line| line.starts_with("//!"));
        assert!(has_doc || is_test(&name) || text.is_empty(), "{name} begins without a word on what it is");
        assert!(text.len() <= 40 * 1024, "{name} is too long to be read: {} bytes", text.len());
    }
}
