//! `replay`: recorded scenes, decided again by this release under this configuration. Reads one file, writes nothing, asks
//! nobody.

use super::Failure;
use super::args::{Output, ReplayArgs};
use super::output::{data, diagnostic, prose};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::replay::{Difference, Extent, Judgement, Renamed, Replayed, Rules, parse, replay};
use crate::text::{guards, words};
use medic_core::model::Wall;
use medic_store::Store;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read as _};
use std::path::Path;

/// The version of the JSON document.
const SCHEMA: u32 = 1;
/// The longest line that is read: twice the longest scene that is written.
const LINE: usize = 2 * medic_store::SCENE_LONGEST;
/// Unreadable lines that are told one by one.
const TOLD: usize = 20;
/// How every database of ours begins.
const DATABASE: &[u8] = b"SQLite format 3\0";

/// Runs the command; `config` reads the configuration, where its policy is wanted.
pub(super) fn run(args: &ReplayArgs, config: impl FnOnce() -> Result<Config, Failure>) -> Result<ExitCode, Failure> {
    let (rules, by) = if args.recorded_policy {
        (Rules::default(), "the recorded policies")
    } else {
        let config = config()?;
        (Rules { policy: Some(config.policy), mode: Some(config.run.mode) }, "the policy of this configuration")
    };
    let mut show = Show { output: args.output, report: Report::new(by) };
    let name = if args.file == Path::new("-") { "stdin".to_owned() } else { args.file.display().to_string() };
    if name == "stdin" {
        lines(std::io::stdin().lock(), &name, &rules, &mut show)?;
    } else {
        file(&args.file, &name, &rules, &mut show)?;
    }
    show.end(&name)
}

fn file(path: &Path, name: &str, rules: &Rules, show: &mut Show) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::Usage(format!("cannot read {name}: {error}; check the path"));
    let mut reader = BufReader::new(File::open(path).map_err(cannot)?);
    if reader.fill_buf().map_err(cannot)?.starts_with(DATABASE) {
        return database(path, name, rules, show);
    }
    lines(reader, name, rules, show)
}

/// Every scene of a state database, oldest first.
fn database(path: &Path, name: &str, rules: &Rules, show: &mut Show) -> Result<(), Failure> {
    let usage = |error: medic_store::StoreError| Failure::Usage(error.to_string());
    let Some(store) = Store::open_copy_read_only(path).map_err(usage)? else { return Ok(()) };
    for manager in store.managers_with_scenes().map_err(usage)? {
        let store = store.for_manager(&manager);
        for id in store.scenes(Wall(0)).map_err(usage)? {
            match store.scene(id) {
                Ok(Some(json)) => show.line(&json, Place { name, unit: "scene", number: id }, rules)?,
                Ok(None) => {}
                Err(error) => show.unreadable(Place { name, unit: "scene", number: id }, &error.to_string()),
            }
        }
    }
    Ok(())
}

fn lines(mut reader: impl BufRead, name: &str, rules: &Rules, show: &mut Show) -> Result<(), Failure> {
    let mut number = 0_u64;
    loop {
        number = number.saturating_add(1);
        let place = Place { name, unit: "line", number };
        let cannot =
            |error: std::io::Error| Failure::Usage(format!("cannot read {name} from line {number} on: {error}"));
        match next_line(&mut reader).map_err(cannot)? {
            None => return Ok(()),
            Some(Line::TooLong) => show.unreadable(place, &format!("it is longer than {LINE} bytes")),
            Some(Line::Bytes(bytes)) => match std::str::from_utf8(&bytes) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => show.line(text, place, rules)?,
                Err(error) => show.unreadable(place, &format!("it is no UTF-8 text: {error}")),
            },
        }
    }
}

/// One line, without more of it in memory than any scene has.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Bytes(Vec<u8>),
    TooLong,
}

fn next_line(reader: &mut impl BufRead) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE).unwrap_or(u64::MAX).saturating_add(1);
    if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') || line.len() <= LINE {
        return Ok(Some(Line::Bytes(line)));
    }
    drop(line);
    loop {
        let (skipped, over) = match reader.fill_buf() {
            Ok(rest) => match memchr::memchr(b'\n', rest) {
                Some(at) => (at.saturating_add(1), true),
                None => (rest.len(), rest.is_empty()),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => (0, false),
            Err(error) => return Err(error),
        };
        reader.consume(skipped);
        if over {
            return Ok(Some(Line::TooLong));
        }
    }
}

/// Where something was read.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    name: &'a str,
    unit: &'static str,
    number: u64,
}

/// All that was replayed.
#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    medic: &'static str,
    decided_by: &'static str,
    agree: u64,
    differ: u64,
    not_replayed: u64,
    unreadable: u64,
    other_events: u64,
    /// By the number of its line, or in a database by its own number.
    scenes: Vec<Told>,
    unreadable_lines: BTreeMap<u64, String>,
}

#[derive(Debug, Serialize)]
struct Told {
    number: u64,
    #[serde(flatten)]
    replayed: Replayed,
}

impl Report {
    const fn new(decided_by: &'static str) -> Self {
        Self {
            schema: SCHEMA,
            medic: env!("CARGO_PKG_VERSION"),
            decided_by,
            agree: 0,
            differ: 0,
            not_replayed: 0,
            unreadable: 0,
            other_events: 0,
            scenes: Vec::new(),
            unreadable_lines: BTreeMap::new(),
        }
    }
}

struct Show {
    output: Output,
    report: Report,
}

impl Show {
    fn line(&mut self, text: &str, place: Place<'_>, rules: &Rules) -> Result<(), Failure> {
        match parse(text) {
            Ok(None) => self.report.other_events = self.report.other_events.saturating_add(1),
            Err(error) => self.unreadable(place, &error.to_string()),
            Ok(Some(scene)) => {
                let replayed = replay(&scene, rules);
                let count = match (&replayed.extent, replayed.differences.is_empty()) {
                    (Extent::Nothing { .. }, _) => &mut self.report.not_replayed,
                    (Extent::Core | Extent::Decision { .. }, true) => &mut self.report.agree,
                    (Extent::Core | Extent::Decision { .. }, false) => &mut self.report.differ,
                };
                *count = count.saturating_add(1);
                match self.output {
                    Output::Text => prose(&text_of(&replayed))?,
                    Output::Json => self.report.scenes.push(Told { number: place.number, replayed }),
                }
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, Place { name, unit, number }: Place<'_>, why: &str) {
        self.report.unreadable = self.report.unreadable.saturating_add(1);
        if self.report.unreadable_lines.len() < TOLD {
            diagnostic(&format!("error: {name}: {unit} {number} is left out: {why}\n"));
            self.report.unreadable_lines.insert(number, why.to_owned());
        }
    }

    fn end(self, name: &str) -> Result<ExitCode, Failure> {
        let Report { agree, differ, not_replayed, unreadable, other_events, decided_by, .. } = self.report;
        let replayed = agree.saturating_add(differ);
        let more = unreadable.saturating_sub(self.report.unreadable_lines.len() as u64);
        if more > 0 {
            diagnostic(&format!("error: {name}: {more} more could not be read\n"));
        }
        match self.output {
            Output::Json => {
                let report = serde_json::to_string_pretty(&self.report).map_err(Failure::internal)?;
                data(&format!("{report}\n"))?;
            }
            Output::Text if replayed.saturating_add(not_replayed) > 0 => {
                let mut out = format!("{replayed} decided again by {decided_by}: {agree} agree, {differ} differ");
                for (count, what) in [(not_replayed, "not kept"), (unreadable, "unreadable")] {
                    if count > 0 {
                        let _ = write!(out, "; {count} {what}");
                    }
                }
                data(&(out + "\n"))?;
            }
            Output::Text => {}
        }
        match (replayed, differ, unreadable) {
            (0, _, _) => Err(Failure::Usage(nothing(name, other_events, not_replayed, unreadable))),
            (_, 0, 0) => Ok(ExitCode::Well),
            (_, 0, _) => Ok(ExitCode::Usage),
            _ => Ok(ExitCode::Differs),
        }
    }
}

fn nothing(name: &str, other_events: u64, not_replayed: u64, unreadable: u64) -> String {
    let why = match (other_events, not_replayed, unreadable) {
        (0, 0, 0) => "it is empty".to_owned(),
        (0, 0, lines) => format!("none of it could be read ({lines})"),
        (_, 0, _) => format!("its {other_events} events are no scenes"),
        (_, scenes, _) => format!("its {scenes} scenes were too long to be kept"),
    };
    format!("{name} holds nothing to replay: {why}; `scaleset-medic history --scenes` exports what is recorded")
}

fn text_of(replayed: &Replayed) -> String {
    let Replayed { at, manager, medic, sets, differences, renamed, .. } = replayed;
    let mut out = format!("{}  {manager}  ", at.date());
    let _ = match (&replayed.extent, differences.len()) {
        (Extent::Nothing { why }, _) => writeln!(out, "not replayed: {why}"),
        (_, 0) => writeln!(out, "agrees: {sets} {}", if *sets == 1 { "set" } else { "sets" }),
        (_, differ) => writeln!(out, "differs: {differ} of {sets} sets, recorded by version {medic}"),
    };
    if let Extent::Decision { why } = &replayed.extent {
        let _ = writeln!(out, "  only the decision was replayed: {why}");
    }
    for Difference { set, name, then, now } in differences {
        let _ = writeln!(out, "  set {set} {name}");
        for (when, judgement) in [("then", then), ("now", now)] {
            let words = judgement.as_ref().map_or_else(|| "there is no such set".to_owned(), judged);
            let _ = writeln!(out, "    {when:<5} {words}");
        }
    }
    for Renamed { set, then, now } in renamed {
        let _ = writeln!(
            out,
            "  set {set} is decided alike, but is now {} ({}), then {} ({})",
            now.0, now.1, then.0, then.1
        );
    }
    out
}

/// A finding and the decision about it, in a line: with the reason, and all guards.
fn judged(judgement: &Judgement) -> String {
    let decision = words::decision(&guards::decision(judgement.decision.clone()));
    let Some(finding) = &judgement.finding else { return decision };
    let because = finding.evidence.first().map_or_else(String::new, |first| format!(", {}", words::fact(&first.fact)));
    format!("{} ({}{because}): {decision}", finding.diagnosis, finding.confidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Option<usize>> {
        // A small buffer, so that lines span several reads.
        let mut reader = BufReader::with_capacity(7, text);
        let mut found = Vec::new();
        while let Some(line) = next_line(&mut reader).unwrap() {
            found.push(match line {
                Line::Bytes(bytes) => Some(bytes.len()),
                Line::TooLong => None,
            });
        }
        found
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_and_no_memory() {
        assert_eq!(all(b""), []);
        assert_eq!(all(b"a\n\nbc"), [Some(2), Some(1), Some(2)]);
        let mut text = vec![b'x'; LINE];
        text.push(b'\n');
        text.extend(vec![b'y'; LINE + 100]);
        text.extend(b"\nend");
        assert_eq!(all(&text), [Some(LINE + 1), None, Some(3)]);
        text.truncate(2 * LINE + 50);
        assert_eq!(all(&text), [Some(LINE + 1), None]);
    }
}
