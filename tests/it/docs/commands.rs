//! The command line accepts every command that a page or an alert shows.

use super::{blocks, inline, pages, root};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use scaleset_medic::cli::args::Cli;

/// Placeholders with a value that clap accepts.
const PLACEHOLDERS: [(&str, &str); 3] = [("TIME", "1h"), ("ADDRESS", "127.0.0.1:9810"), ("SHELL", "bash")];

/// The words of a line as a shell splits them, up to the end of the command.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut word: Option<String> = None;
    for c in line.chars() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('|' | ';' | '#' | '>' | '&' | ')' | '\\' | '…', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let filled = |word: String| {
        let known = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        known.map_or(word, |(_, value)| (*value).to_owned())
    };
    words.into_iter().map(filled).collect()
}

/// Why the command line refuses this; `None` if it does not.
fn refused(line: &str) -> Option<String> {
    let typed = std::iter::once("scaleset-medic".to_owned()).chain(words(line));
    match Cli::try_parse_from(typed) {
        Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Some(error.to_string().lines().next().unwrap_or_default().to_owned())
        }
        Ok(_) | Err(_) => None,
    }
}

fn is_command(word: &str) -> bool {
    Cli::command().find_subcommand(word).is_some()
}

/// The commands of a line of a block: after the program's name, and after `cargo run … --`.
fn in_block(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    if let Some((_, rest)) = line.split_once("cargo run ")
        && let Some((_, rest)) = rest.split_once(" -- ")
    {
        found.push(rest);
    }
    for (at, name) in line.match_indices("scaleset-medic ") {
        let begins = line[..at].chars().next_back().is_none_or(|before| before.is_whitespace() || before == '/');
        let rest = &line[at + name.len()..];
        let next = rest.split_whitespace().next().unwrap_or_default();
        if begins && (is_command(next) || next.starts_with("--") && next.len() > 2) {
            found.push(rest);
        }
    }
    found
}

/// The command between backticks, with the program's name or, if it has more than one word, without.
fn in_text(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("scaleset-medic ") {
        return Some(rest);
    }
    let (first, rest) = text.split_once(' ')?;
    // A `=` is a setting.
    (is_command(first) && !rest.starts_with('=')).then_some(text)
}

#[test]
fn documented_commands_are_accepted() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        let texts = inline(&page).into_iter().filter_map(|piece| Some((piece.line, in_text(piece.text)?.to_owned())));
        let shown = blocks(&page).into_iter().flat_map(|(_, line, text)| {
            let lines = (line + 1..).zip(text.lines().map(str::to_owned).collect::<Vec<_>>());
            lines.flat_map(|(at, line)| {
                in_block(&line).into_iter().map(|found| (at, found.to_owned())).collect::<Vec<_>>()
            })
        });
        for (line, command) in texts.chain(shown) {
            checked += 1;
            wrong.extend(refused(&command).map(|why| format!("{name}:{line}: {command}: {why}")));
        }
    }
    assert!(checked > 100, "only {checked} commands were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_of_alerts_are_accepted() {
    let rules = std::fs::read_to_string(root().join("manifests/prometheus/prometheusrule.yaml")).unwrap();
    let rules = rules.replace("{{ $labels.scale_set }}", "7").replace("{{ $labels.manager }}", "garm");
    let commands: Vec<_> = inline(&rules).into_iter().filter_map(|piece| in_text(piece.text)).collect();
    assert!(commands.len() >= 3, "the alerts name no command");
    let wrong: Vec<_> =
        commands.iter().filter_map(|command| Some(format!("{command}: {}", refused(command)?))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unknown_commands_are_found() {
    assert_eq!(in_block("$ cargo run --release --locked -- lab --list  # exit 0"), ["lab --list  # exit 0"]);
    assert_eq!(in_block("kubectl exec garm -c scaleset-medic -- /bin/scaleset-medic doctor"), ["doctor"]);
    assert_eq!(in_text("heal SET"), Some("heal SET"));
    assert_eq!(in_text("status"), None);
    assert_eq!(
        words("pause --reason \"an upgrade\" --for TIME | cat"),
        ["pause", "--reason", "an upgrade", "--for", "1h"]
    );
    for good in
        ["heal SET --session ID --yes", "lab --list  # all", "--version", "pause --manager M --set SET --reason 'x y'"]
    {
        assert_eq!(refused(good), None, "{good}");
    }
    for bad in ["heel SET", "heal", "heal SET --now", "pause --for TIME", "status --nagios --watch"] {
        assert!(refused(bad).is_some(), "{bad}");
    }
}
