//! The figures of `docs/comparison.md` come from `docs/performance.md`.

use super::{root, table};

/// The figures of one row, for 4, 50 and 500 sets.
fn measured(page: &str, name: &str) -> [String; 3] {
    let cells = |row: &str| {
        row.trim_matches('|').split('|').map(|cell| cell.replace(['*', '†'], "").trim().to_owned()).collect::<Vec<_>>()
    };
    let row = page.lines().filter(|line| line.starts_with('|')).map(cells).find(|row| row[0].starts_with(name));
    let row = row.unwrap_or_else(|| panic!("docs/performance.md has no row {name}"));
    [1, 2, 3].map(|column| row[column].clone())
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/performance.md")).unwrap()
}

pub(super) fn recovery() -> String {
    let page = page();
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
        let [four, fifty, five_hundred] = measured(&page, &format!("recovery: {way}"));
        [words.to_owned(), four, fifty, five_hundred]
    });
    table(["from the kill until all sets listen", "4 sets", "50 sets", "500 sets"], rows)
}

pub(super) fn watching() -> String {
    let page = page();
    let watchers = ["medic", "Prometheus + blackbox", "monit"].map(|watcher| {
        (watcher, ["CPU s/h", "RSS MiB", "requests/sweep"].map(|what| measured(&page, &format!("{what}: {watcher}"))))
    });
    let rows = ["4", "50", "500"].into_iter().enumerate().flat_map(|(size, sets)| {
        watchers.iter().map(move |(watcher, [cpu, memory, requests])| {
            [sets.to_owned(), (*watcher).to_owned(), cpu[size].clone(), memory[size].clone(), requests[size].clone()]
        })
    });
    table(["sets", "watcher", "CPU s/h", "memory, MiB", "requests a sweep"], rows.collect::<Vec<_>>())
}
