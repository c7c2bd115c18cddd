//! Every citation of a document in `docs/reference` names an existing section.

use super::{files, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const FOLDER: &str = "docs/reference/";

struct Document {
    /// The numbers of its headings: `12`, `6.4`, `1a`.
    sections: BTreeSet<String>,
    /// The failure modes in its tables: `F7`.
    rows: BTreeSet<String>,
}

impl Document {
    fn of(text: &str) -> Self {
        let number = |heading: &str| Some(heading.split_whitespace().next()?.trim_end_matches('.').to_owned());
        let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
        let rows = text.lines().filter_map(|line| line.strip_prefix("| F")?.split_whitespace().next());
        Self { sections: headings.filter_map(number).collect(), rows: rows.map(|row| format!("F{row}")).collect() }
    }
}

/// The text without comment marks and line breaks: a citation may cross lines.
fn flat(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_start_matches(['/', '!', '#']).trim());
    lines.collect::<Vec<_>>().join(" ")
}

/// The number of cited sections, and the mistakes.
fn citations(text: &str, documents: &BTreeMap<String, Document>) -> (usize, Vec<String>) {
    let text = flat(text);
    let (mut count, mut wrong) = (0, Vec::new());
    for rest in text.split(FOLDER).skip(1) {
        let Some((name, tail)) = rest.split_once(".md").filter(|(name, _)| !name.contains([' ', '/', '`'])) else {
            continue;
        };
        let Some(document) = documents.get(name) else {
            wrong.push(format!("there is no {FOLDER}{name}.md"));
            continue;
        };
        for word in tail.trim_start_matches(['`', ')']).split([' ', ',', '-']).filter(|word| !word.is_empty()) {
            let cited = word.trim_end_matches(['.', ')', ':', ';', '|']).trim_start_matches('§');
            let known = if word.starts_with(['§', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
                document.sections.contains(cited)
            } else if word.starts_with('F') && cited[1..].parse::<u32>().is_ok() {
                document.rows.contains(cited)
            } else if word == "and" {
                continue;
            } else {
                break;
            };
            count += 1;
            if !known {
                wrong.push(format!("{name}.md has no {word}"));
            }
            if word.ends_with(['.', ')', ':', ';', '|']) {
                break;
            }
        }
    }
    for name in documents.keys() {
        for (at, _) in text.match_indices('§') {
            let before = text[..at].trim_end_matches([' ', '`']);
            let named = before.strip_suffix(".md").unwrap_or(before).strip_suffix(name.as_str());
            if named.is_some_and(|before| before.ends_with([' ', '`', '(']) || before.is_empty()) {
                wrong.push(format!("{name} §… has no path"));
            }
        }
    }
    (count, wrong)
}

fn documents() -> BTreeMap<String, Document> {
    let folder = root().join(FOLDER);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    files.map(|path| (named(&path), Document::of(&std::fs::read_to_string(&path).unwrap()))).collect()
}

#[test]
fn citations_name_existing_sections() {
    let documents = documents();
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in files(&["."], &["rs", "md", "toml", "yaml", "yml", "sh", "py", "sql"]) {
        // This file holds wrong citations.
        if path.ends_with("citations.rs") {
            continue;
        }
        // The documents link to each other by name alone.
        let text = if path.starts_with(FOLDER) { text.replace("](", "] docs/reference/") } else { text };
        let (found, mistakes) = citations(&text, &documents);
        count += found;
        wrong.extend(mistakes.into_iter().map(|mistake| format!("{path}: {mistake}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} citations were found");
}

#[test]
fn wrong_citations_are_reported() {
    let document = Document::of("# Title\n\n## 1. One\n\n### 1.2 Two\n\n### 1a. Letters\n\n| F7 | a row |\n");
    let documents = BTreeMap::from([("design".to_owned(), document)]);
    let report = |text: &str| citations(text, &documents);
    assert_eq!(report("(`docs/reference/design.md` §1, §1.2): 5, 15"), (2, vec![]));
    assert_eq!(report("//! `docs/reference/design.md`\n//! §1.2-1a F7. 9 more"), (3, vec![]));
    assert_eq!(report("`docs/reference/design.md` §3").1, ["design.md has no §3"]);
    assert_eq!(report("`docs/reference/design.md` §1-1.9").1, ["design.md has no 1.9"]);
    assert_eq!(report("`docs/reference/design.md` §1 F8").1, ["design.md has no F8"]);
    assert_eq!(report("docs/reference/plan.md §1").1, ["there is no docs/reference/plan.md"]);
    assert_eq!(report("as in design\n/// §1").1, ["design §… has no path"]);
    assert_eq!(report("[design](reference/design.md) §1").1, Vec::<String>::new());
}
