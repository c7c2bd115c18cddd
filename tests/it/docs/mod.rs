//! The documentation matches the program: generated tables, commands, links, paths and configurations.

mod citations;
mod commands;
mod figures;
mod keys;
mod rules;

use scaleset_medic::config::{Depth, Section, Sources, check};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The texts of the files below `places` with such an extension, by path.
pub(crate) fn files(places: &[&str], extensions: &[&str]) -> BTreeMap<String, String> {
    fn walk(path: &Path, extensions: &[&str], found: &mut BTreeMap<String, String>) {
        if path.is_dir() {
            if !["target", "fixtures", "node_modules", ".git"].iter().any(|name| path.ends_with(name)) {
                for entry in std::fs::read_dir(path).unwrap() {
                    walk(&entry.unwrap().path(), extensions, found);
                }
            }
        } else if path.extension().is_some_and(|kind| extensions.iter().any(|known| kind == *known)) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            found.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    let mut found = BTreeMap::new();
    for place in places {
        walk(&root().join(place), extensions, &mut found);
    }
    found
}

/// Every page by its path.
fn pages() -> BTreeMap<String, String> {
    let pages = files(&["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"], &["md"]);
    assert!(pages.len() > 30, "the pages were not found");
    pages
}

/// A piece of a page with its line number.
struct Piece<'a> {
    line: usize,
    text: &'a str,
}

/// The texts between backticks, outside of blocks.
fn inline(page: &str) -> Vec<Piece<'_>> {
    let mut within = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        if line.trim_start().starts_with("```") {
            within = !within;
        } else if !within {
            found.extend(line.split('`').skip(1).step_by(2).map(|text| Piece { line: number, text }));
        }
    }
    found
}

/// The blocks between fences: the language, the line of the fence, the text.
fn blocks(page: &str) -> Vec<(String, usize, String)> {
    let mut found: Vec<(String, usize, String)> = Vec::new();
    let mut within = false;
    for (number, line) in (1..).zip(page.lines()) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            within = !within;
            if within {
                found.push((language.to_owned(), number, String::new()));
            }
        } else if within && let Some((_, _, text)) = found.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(&head.map(str::to_owned)) + &line(&head.map(|_| "---".to_owned()));
    out.extend(rows.into_iter().map(|row| line(&row)));
    out
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

/// The generated texts between `<!-- made: NAME -->` and `<!-- end -->`.
fn made() -> BTreeMap<String, String> {
    let mut made = BTreeMap::from([
        ("key-limits".to_owned(), keys::limits()),
        ("evidence".to_owned(), rules::evidence()),
        ("diagnoses".to_owned(), rules::diagnoses()),
        ("plain-words".to_owned(), rules::plain_words()),
        ("sources".to_owned(), rules::sources()),
        ("remedies".to_owned(), rules::remedies()),
        ("special-cases".to_owned(), rules::special_cases()),
        ("escalations".to_owned(), rules::escalations()),
        ("guards".to_owned(), rules::guards()),
        ("recovery".to_owned(), figures::recovery()),
        ("watching".to_owned(), figures::watching()),
        ("bounds".to_owned(), rules::bounds()),
        ("stale".to_owned(), rules::stale()),
        ("outcomes".to_owned(), rules::outcomes()),
    ]);
    made.extend(Section::ALL.iter().map(|section| (format!("keys-{section}"), keys::of(*section))));
    made
}

#[test]
fn tables_match_the_code() {
    let made = made();
    let mut used = BTreeSet::new();
    for (name, page) in pages() {
        let mut parts = page.split("<!-- made: ");
        let mut expected = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (table, rest) = part.split_once(" -->\n").unwrap();
            let (_, after) = rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("{name}: {table} has no end"));
            let text = made.get(table).unwrap_or_else(|| panic!("{name}: no code generates {table}"));
            assert!(used.insert(table.to_owned()), "{table} occurs twice");
            // Writing to a String cannot fail.
            let _ = write!(expected, "<!-- made: {table} -->\n\n{text}\n<!-- end -->{after}");
        }
        if expected != page {
            expect_test::expect_file![root().join(&name)].assert_eq(&expected);
        }
    }
    assert_eq!(used, made.into_keys().collect());
}

#[test]
fn links_and_paths_exist() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut links = 0;
    for (name, page) in &pages {
        let folder = root().join(name).parent().unwrap().to_owned();
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { root().join(name) } else { folder.join(path) };
            if !path.exists() {
                wrong.push(format!("{name}: {target} is not there"));
            } else if !anchor.is_empty() && !anchors(&std::fs::read_to_string(&path).unwrap()).contains(anchor) {
                wrong.push(format!("{name}: {target} has no such heading"));
            }
        }
        for piece in inline(page) {
            let path = piece.text.trim_end_matches('/');
            let ours = ["src/", "tests/", "docs/", "manifests/", "packaging/", "benches/", "grafana/", ".ci/"];
            let is_path = !path.contains([' ', '*', '…', '<']) && ours.iter().any(|folder| path.starts_with(folder));
            if is_path && !root().join(path).exists() {
                wrong.push(format!("{name}:{}: {path} is not there", piece.line));
            }
        }
    }
    assert!(links > 80, "only {links} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The anchors that GitHub gives to a page's headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    page.lines().filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#'))).collect()
}

#[test]
fn index_lists_every_page_once() {
    let pages = pages();
    let index = &pages["docs/README.md"];
    let listed: Vec<_> = index.lines().filter(|line| line.starts_with("- [")).collect();
    let own = pages.keys().filter_map(|name| name.strip_prefix("docs/"));
    for name in own.filter(|name| *name != "README.md" && (!name.contains('/') || *name == "runbooks/README.md")) {
        let count = listed.iter().filter(|line| line.contains(&format!("]({name})"))).count();
        assert_eq!(count, 1, "{name} in docs/README.md");
    }
    assert!(pages["README.md"].contains("](docs/README.md)"), "README.md does not lead to the index");
}

#[test]
fn named_keys_and_tests_exist() {
    let sources: String =
        files(&["src", "crates", "tests", "benches", "manifests"], &["rs", "yml", "yaml"]).into_values().collect();
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        for Piece { line, text } in inline(&page) {
            let words = text.split(" = ").next().unwrap_or_default();
            if let Some((section, key)) = words.split_once('.')
                && let Ok(section) = section.parse::<Section>()
                && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && section.key(key).is_none()
                && !matches!(key, "rs" | "md" | "toml")
            {
                wrong.push(format!("{name}:{line}: there is no key {text}"));
            }
            let text = text.strip_prefix("scaleset_medic_").unwrap_or(text);
            let sentence = text.matches('_').count() >= 3 && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if sentence && !sources.contains(text) {
                wrong.push(format!("{name}:{line}: nothing is called {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn shown_configurations_pass_the_check() {
    let mut shown = 0;
    for (name, page) in pages() {
        for (language, line, text) in blocks(&page) {
            // Blocks without a manager are GARM's configuration, or a part.
            if language != "toml" || !text.contains("[[manager]]") {
                continue;
            }
            shown += 1;
            let checked = check(&Sources::of_text(format!("{name}:{line}"), text), Depth::Values);
            assert!(checked.is_ok(), "{}", checked.unwrap_err());
        }
    }
    assert!(shown >= 2, "only {shown} configurations were found");
}
