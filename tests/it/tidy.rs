//! House rules that neither the compiler nor clippy can check. Which crate may use which is in the crates' manifests,
//! purity and printing are lints.

use crate::docs::files;
use std::collections::{BTreeMap, BTreeSet};

fn is_test(name: &str) -> bool {
    name.contains("/tests/")
        || name.contains("/testing/")
        || name.ends_with("/tests.rs")
        || name.ends_with("testing.rs")
}

/// The part of a file that is shipped.
fn shipped(text: &str) -> &str {
    &text[..text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len())]
}

/// The crate of a file, and its module path: `crates/core/src/decide/mod.rs` is (`crates/core`, [`decide`]).
fn module(name: &str) -> Option<(String, Vec<String>)> {
    let (krate, path) = if let Some(path) = name.strip_prefix("src/") { ("", path) } else { name.split_once("/src/")? };
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    Some((krate.to_owned(), parts))
}

/// The modules that a file names by `crate::…` or `super::…`, as deep as there are files.
fn uses(own: &[String], text: &str, known: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for line in shipped(text).lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, word) in ["crate::", "super::"].iter().flat_map(|word| line.match_indices(word)) {
            let mut from = if word == "super::" { own[..own.len().saturating_sub(1)].to_vec() } else { Vec::new() };
            let mut rest = &line[at + word.len()..];
            while let Some(up) = rest.strip_prefix("super::") {
                from.pop();
                rest = up;
            }
            for part in rest.split("::") {
                let part: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                from.push(part);
                if known.contains(&from) && from != own {
                    found.insert(from.clone());
                }
            }
        }
    }
    found
}

/// Modules on a way from `start` back to it. A folder's own file belongs to the files in the folder: those use what it
/// declares.
fn circle(start: &[String], arrows: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> bool {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&Vec<String>> = arrows.get(start).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if module == start {
            return true;
        }
        if seen.insert(module) {
            next.extend(arrows.get(module).into_iter().flatten());
        }
    }
    false
}

#[test]
fn modules_import_each_other_in_one_direction() {
    let mut crates: BTreeMap<String, BTreeMap<Vec<String>, String>> = BTreeMap::new();
    for (name, text) in files(&["src", "crates"], &["rs"]) {
        if let Some((krate, path)) = module(&name).filter(|(krate, _)| krate != "crates/lab" && !is_test(&name)) {
            crates.entry(krate).or_default().insert(path, text);
        }
    }
    let mut circles = Vec::new();
    for (krate, files) in crates {
        let all: BTreeSet<Vec<String>> = files.keys().cloned().collect();
        let is_folder =
            |path: &Vec<String>| all.iter().any(|other| other.len() > path.len() && other.starts_with(path));
        let leaves: BTreeSet<Vec<String>> = all.iter().filter(|path| !is_folder(path)).cloned().collect();
        let arrows: BTreeMap<_, _> =
            leaves.iter().map(|path| (path.clone(), uses(path, &files[path], &leaves))).collect();
        circles.extend(
            leaves.iter().filter(|path| circle(path, &arrows)).map(|path| format!("{krate} {}", path.join("::"))),
        );
    }
    assert_eq!(circles, Vec::<String>::new());
}

/// Cargo cannot say that the simulators may use the core's words only: one that shared a rule with what it tests would
/// agree with its faults.
#[test]
fn simulators_share_no_rule_with_what_they_test() {
    for (name, text) in files(&["crates/lab/src"], &["rs"]) {
        for word in ["medic_core::diagnose", "medic_core::decide", "medic_core::treat", "medic_core::policy"] {
            assert!(!text.contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn files_say_what_they_are_and_leave_nothing_to_do() {
    for (name, text) in files(&["src", "crates"], &["rs"]) {
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!("] {
            assert!(!text.contains(word), "{name}: {word}");
        }
        let has_doc = text.lines().take(3).any(|line| line.starts_with("//!"));
        assert!(has_doc || is_test(&name) || name.contains("/tests"), "{name} begins without a word on what it is");
        assert!(text.len() <= 40 * 1024, "{name} is too long to be read: {} bytes", text.len());
    }
}

#[test]
fn test_names_are_at_most_60_characters() {
    let mut long = Vec::new();
    for (name, text) in files(&["src", "crates", "tests"], &["rs"]) {
        let mut lines = text.lines().map(str::trim);
        while lines.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
            let function = lines.find_map(|line| line.split_once("fn ").map(|(_, rest)| rest)).unwrap_or_default();
            let function = function.split('(').next().unwrap_or_default();
            if function.len() > 60 {
                long.push(format!("{name}: {function}"));
            }
        }
    }
    assert_eq!(long, Vec::<String>::new());
}

/// Whether shipped code names what only tests may use: the feature `lab` compiles it.
fn uses_test_code(text: &str) -> bool {
    shipped(text).lines().any(|line| ["for_tests", "::testing::", "faulty_disk"].iter().any(|word| line.contains(word)))
}

#[test]
fn program_uses_no_test_code() {
    for (name, text) in files(&["src"], &["rs"]) {
        assert!(is_test(&name) || !uses_test_code(&text), "{name} uses code that is made for tests");
    }
    let test = "#[cfg(test)]\nmod tests {\n    use medic_core::treat::testing::rev;\n}\n";
    assert!(!uses_test_code(test));
    assert!(uses_test_code(&format!("fn shipped() {{ DeletionWarrant::for_tests(session()) }}\n\n{test}")));
    assert!(uses_test_code("use medic_core::treat::testing::rev;\n"));
}
