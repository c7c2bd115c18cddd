//! The figures of `docs/comparison.md` come from `docs/performance.md`.

use super::{root, table};

/// The rows of the table with this head.
fn measured(head: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(root().join("docs/performance.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with(head)).skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.replace('*', "").trim().to_owned()).collect();
    let found: Vec<_> = rows.map(cells).collect();
    assert!(!found.is_empty(), "docs/performance.md has no table that begins with {head}");
    found
}

pub(super) fn recovery() -> String {
    let measured = measured("| way | 4 sets | ratio | 50 sets |");
    let rows = [
        ("pre-fix GARM alone", "a GARM that gives up, alone"),
        ("the report's script at once, set after set", "the same with a script that toggles every set once"),
        ("post-fix GARM alone", "a GARM that retries, alone"),
        ("medic, pre-fix GARM, no ledger", "the medic beside a GARM that gives up"),
        ("medic, pre-fix GARM, ledger", "the same, session ids known"),
        ("medic, post-fix GARM, no ledger", "the medic beside a GARM that retries"),
        ("medic, post-fix GARM, ledger", "the same, session ids known"),
    ]
    .map(|(way, words)| {
        let row = measured.iter().find(|row| row[0].starts_with(way));
        let row = row.unwrap_or_else(|| panic!("docs/performance.md has no row {way}"));
        [words.to_owned(), row[1].clone(), row[3].clone(), row[5].clone()]
    });
    table(["from the kill until all sets listen", "4 sets", "50 sets", "500 sets"], rows)
}

pub(super) fn watching() -> String {
    let rows = measured("| sets | watcher | CPU s/h |").into_iter().filter(|row| row.len() > 4 && row[0] != "10,000");
    let rows: Vec<_> =
        rows.map(|row| [row[0].clone(), row[1].clone(), row[2].clone(), row[3].clone(), row[4].clone()]).collect();
    assert!(rows.iter().any(|row| row[1] == "medic") && rows.iter().any(|row| row[1] == "monit"));
    table(["sets", "watcher", "CPU s/h", "memory, MiB", "requests a sweep"], rows)
}
