//! `replay`: snapshots, evaluated again by this release with this configuration. It reads one file and writes nothing.

use super::Failure;
use super::args::{Output, ReplayArgs};
use super::output::{data, diagnostic, prose};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::replay::{Difference, Judgement, Renamed, Replayed, Rules, parse, replay};
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
/// The longest line that is read: twice the longest snapshot that is kept.
const LONGEST_LINE: usize = 2 * medic_store::SNAPSHOT_LIMIT;
/// Unreadable lines that are reported one by one.
const REPORTED: usize = 20;
/// How every `SQLite` file begins.
const DATABASE: &[u8] = b"SQLite format 3\0";

/// `config` reads the configuration if its policy is wanted.
pub(super) fn run(args: &ReplayArgs, config: impl FnOnce() -> Result<Config, Failure>) -> Result<ExitCode, Failure> {
    let (rules, by) = if args.recorded_policy {
        (Rules::default(), "the recorded policies")
    } else {
        let config = config()?;
        (Rules { policy: Some(config.policy), mode: Some(config.run.mode) }, "the policy of this configuration")
    };
    let medic = env!("CARGO_PKG_VERSION");
    let report = Report { schema: SCHEMA, medic, decided_by: by, ..Report::default() };
    let name = if args.file == Path::new("-") { "stdin".to_owned() } else { args.file.display().to_string() };
    let is_stdin = name == "stdin";
    let mut show = Show { output: args.output, rules, name, report };
    if is_stdin {
        lines(std::io::stdin().lock(), &mut show)?;
    } else {
        file(&args.file, &mut show)?;
    }
    show.end()
}

fn file(path: &Path, show: &mut Show) -> Result<(), Failure> {
    let cannot =
        |error: std::io::Error| Failure::Usage(format!("cannot read {}: {error}; check the path", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(cannot)?);
    if reader.fill_buf().map_err(cannot)?.starts_with(DATABASE) {
        return database(path, show);
    }
    lines(reader, show)
}

fn database(path: &Path, show: &mut Show) -> Result<(), Failure> {
    let usage = |error: medic_store::StoreError| Failure::Usage(error.to_string());
    let Some(store) = Store::open_copy_read_only(path).map_err(usage)? else { return Ok(()) };
    for manager in store.managers_with_snapshots().map_err(usage)? {
        let store = store.for_manager(&manager);
        for id in store.snapshots(Wall(0)).map_err(usage)? {
            let place = Place { unit: "snapshot", number: id };
            match store.snapshot(id) {
                Ok(Some(json)) => show.line(&json, place)?,
                Ok(None) => {}
                Err(error) => show.unreadable(place, &error.to_string()),
            }
        }
    }
    Ok(())
}

fn lines(mut reader: impl BufRead, show: &mut Show) -> Result<(), Failure> {
    let mut number = 0_u64;
    loop {
        number = number.saturating_add(1);
        let place = Place { unit: "line", number };
        let name = &show.name;
        let cannot = |error| Failure::Usage(format!("cannot read {name} from line {number} on: {error}"));
        match next_line(&mut reader).map_err(cannot)? {
            None => return Ok(()),
            Some(Line::TooLong) => show.unreadable(place, &format!("it is longer than {LONGEST_LINE} bytes")),
            Some(Line::Bytes(bytes)) => match std::str::from_utf8(&bytes) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => show.line(text, place)?,
                Err(error) => show.unreadable(place, &format!("it is not UTF-8: {error}")),
            },
        }
    }
}

/// One line; no more of it is in memory than the longest that is read.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Bytes(Vec<u8>),
    TooLong,
}

fn next_line(reader: &mut impl BufRead) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let limit = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX).saturating_add(1);
    if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') || line.len() <= LONGEST_LINE {
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

#[derive(Debug, Clone, Copy)]
struct Place {
    unit: &'static str,
    number: u64,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    schema: u32,
    medic: &'static str,
    decided_by: &'static str,
    agree: u64,
    differ: u64,
    unreadable: u64,
    other_events: u64,
    snapshots: Vec<Numbered>,
    unreadable_lines: BTreeMap<u64, String>,
}

#[derive(Debug, Serialize)]
struct Numbered {
    /// Of its line; in a database its id.
    number: u64,
    #[serde(flatten)]
    replayed: Replayed,
}

struct Show {
    output: Output,
    rules: Rules,
    /// Of the file.
    name: String,
    report: Report,
}

impl Show {
    fn line(&mut self, text: &str, place: Place) -> Result<(), Failure> {
        match parse(text) {
            Ok(None) => self.report.other_events = self.report.other_events.saturating_add(1),
            Err(error) => self.unreadable(place, &error.to_string()),
            Ok(Some(snapshot)) => {
                let replayed = replay(&snapshot, &self.rules);
                let agrees = replayed.differences.is_empty();
                let count = if agrees { &mut self.report.agree } else { &mut self.report.differ };
                *count = count.saturating_add(1);
                match self.output {
                    Output::Text => prose(&text_of(&replayed))?,
                    Output::Json => self.report.snapshots.push(Numbered { number: place.number, replayed }),
                }
            }
        }
        Ok(())
    }

    fn unreadable(&mut self, Place { unit, number }: Place, why: &str) {
        self.report.unreadable = self.report.unreadable.saturating_add(1);
        if self.report.unreadable_lines.len() < REPORTED {
            diagnostic(&format!("error: {}: {unit} {number} is left out: {why}\n", self.name));
            self.report.unreadable_lines.insert(number, why.to_owned());
        }
    }

    fn end(self) -> Result<ExitCode, Failure> {
        let name = self.name.as_str();
        let Report { agree, differ, unreadable, other_events, decided_by, .. } = self.report;
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
            Output::Text if replayed > 0 => {
                let unreadable = if unreadable > 0 { format!("; {unreadable} unreadable") } else { String::new() };
                let counts = format!("{agree} agree, {differ} differ{unreadable}");
                data(&format!("{replayed} evaluated again with {decided_by}: {counts}\n"))?;
            }
            Output::Text => {}
        }
        match (replayed, differ, unreadable) {
            (0, _, _) => Err(Failure::Usage(nothing(name, other_events, unreadable))),
            (_, 0, 0) => Ok(ExitCode::Well),
            (_, 0, _) => Ok(ExitCode::Usage),
            _ => Ok(ExitCode::Differs),
        }
    }
}

fn nothing(name: &str, other_events: u64, unreadable: u64) -> String {
    let why = match (other_events, unreadable) {
        (0, 0) => "it is empty".to_owned(),
        (0, lines) => format!("none of it could be read ({lines})"),
        (events, _) => format!("none of its {events} events is a snapshot"),
    };
    format!("{name} holds nothing to replay: {why}; `scaleset-medic history --snapshots` exports the snapshots")
}

fn text_of(replayed: &Replayed) -> String {
    let Replayed { at, manager, medic, sets, differences, renamed } = replayed;
    let mut out = format!("{}  {manager}  ", at.date());
    let _ = match differences.len() {
        0 => writeln!(out, "agrees: {sets} {}", if *sets == 1 { "set" } else { "sets" }),
        differ => writeln!(out, "differs: {differ} of {sets} sets, recorded by version {medic}"),
    };
    for Difference { set, name, then, now } in differences {
        let _ = writeln!(out, "  set {set} {name}");
        for (when, judgement) in [("then", then), ("now", now)] {
            let words = judgement.as_ref().map_or_else(|| "there is no such set".to_owned(), |one| judged(one, *at));
            let _ = writeln!(out, "    {when:<5} {words}");
        }
    }
    for Renamed { set, then, now } in renamed {
        let _ = writeln!(
            out,
            "  set {set} is decided the same, but diagnosed differently: now {} ({}), then {} ({})",
            now.0, now.1, then.0, then.1
        );
    }
    out
}

/// A finding with its reason, and the decision with all guards, in one line.
fn judged(judgement: &Judgement, at: Wall) -> String {
    let decision = guards::decision(judgement.decision.clone());
    let decision = words::decision(&decision, at, |held| words::guard_in_full(held, at));
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
    fn next_line_skips_a_line_that_is_too_long() {
        assert_eq!(all(b""), []);
        assert_eq!(all(b"a\n\nbc"), [Some(2), Some(1), Some(2)]);
        let mut text = vec![b'x'; LONGEST_LINE];
        text.push(b'\n');
        text.extend(vec![b'y'; LONGEST_LINE + 100]);
        text.extend(b"\nend");
        assert_eq!(all(&text), [Some(LONGEST_LINE + 1), None, Some(3)]);
        text.truncate(2 * LONGEST_LINE + 50);
        assert_eq!(all(&text), [Some(LONGEST_LINE + 1), None]);
    }
}
