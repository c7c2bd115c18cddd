//! The logs of two real GARM builds, followed as the medic follows them: what they say must not depend on how the
//! bytes arrive, and must agree with the metrics and the goroutines that were recorded at the same moments.

use expect_test::{Expect, expect};
use scaleset_medic::garm::log::parse::Parser;
use scaleset_medic::garm::log::source::{Facts, LogFile};
use scaleset_medic::garm::log::tail::{Reached, Tail};
use scaleset_medic::garm::{goroutines, metrics_text};
use scaleset_medic::model::log_fact::{LogEvent, LogEvidence, LogFact, LogSet, SetLog};
use scaleset_medic::model::{ForgeId, ScaleSetId};
use scaleset_medic::probe::ports::LogSource;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

const PRE_FIX: &str = "garm-2026-04-pre-fix";
const POST_FIX: &str = "garm-2026-07-post-fix";
const SITUATIONS: [&str; 12] = ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"];

fn folder(build: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(build)
}

fn recorded(build: &str, number: &str) -> Vec<u8> {
    let entries = std::fs::read_dir(folder(build).join("logs")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let path = paths.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(number)).unwrap();
    let mut log = std::fs::read(path).unwrap();
    if log.last() != Some(&b'\n') {
        log.push(b'\n');
    }
    log
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// What the log says when all its lines are there at once.
fn facts_of(log: &[u8]) -> Vec<LogFact> {
    let mut parser = Parser::default();
    log.split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

/// What happens to the medic between two arrivals of bytes.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    Restart,
}

/// A medic that follows a file.
struct Follower {
    folder: tempfile::TempDir,
    tail: Tail,
    parser: Parser,
}

impl Follower {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tail = Tail::new(folder.path().join("garm.log"), None);
        Self { folder, tail, parser: Parser::default() }
    }

    /// What is read while the file grows by these pieces.
    fn read<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>, between: Between) -> Vec<LogFact> {
        let path = self.folder.path().join("garm.log");
        let mut log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut found = Vec::new();
        for piece in pieces {
            log.write_all(piece).unwrap();
            let Self { tail, parser, .. } = self;
            while tail.step(&mut |line| found.extend(parser.line(line))).unwrap().reached == Reached::Within {}
            if matches!(between, Between::Restart) {
                self.tail = Tail::new(&path, tail.position(parser.state()));
                self.parser = Parser::new(self.parser.state());
            }
        }
        found
    }
}

fn followed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, between: Between) -> Vec<LogFact> {
    Follower::new().read(pieces, between)
}

#[test]
fn whole_and_line_by_line_every_situation_says_the_same() {
    for build in [PRE_FIX, POST_FIX] {
        for number in SITUATIONS {
            let log = recorded(build, number);
            let wanted = facts_of(&log);
            assert!(!wanted.is_empty(), "{build} {number}");
            assert_eq!(followed([log.as_slice()], Between::Nothing), wanted, "{build} {number} whole");
            for between in [Between::Nothing, Between::Restart] {
                let lines = log.split_inclusive(|b| *b == b'\n');
                assert_eq!(followed(lines, between), wanted, "{build} {number} line by line, {between:?}");
                for size in [1000, 4093] {
                    let found = followed(log.chunks(size), between);
                    assert_eq!(found, wanted, "{build} {number} by {size} bytes, {between:?}");
                }
            }
        }
    }
}

/// The line with `mark`, the one before, and what follows, about a kilobyte in all.
fn window<'a>(log: &'a [u8], mark: &str) -> &'a [u8] {
    let at = log.windows(mark.len()).position(|bytes| bytes == mark.as_bytes()).unwrap();
    let begins = |at: usize| log[..at].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let start = begins(begins(at).saturating_sub(1));
    let least = (start + 1000).max(at).min(log.len() - 1);
    let end = least + log[least..].iter().position(|b| *b == b'\n').unwrap() + 1;
    &log[start..end]
}

fn set_name(set: &LogSet) -> String {
    match set {
        LogSet::Manager(id) => id.to_string(),
        LogSet::Forge { entity, forge_id } => format!("{entity}#{forge_id}"),
    }
}

#[test]
fn cut_at_every_byte_the_decisive_lines_say_the_same() {
    let situations = [
        ("03", "closing message session"),
        ("04", "already has an active session"),
        ("06", "starting message session refresh loop"),
        ("10", "panic: "),
        ("12", "already has an active session"),
    ];
    let mut table = String::new();
    for build in [PRE_FIX, POST_FIX] {
        for (number, mark) in situations {
            let log = recorded(build, number);
            let bytes = window(&log, mark);
            let wanted = facts_of(bytes);
            writeln!(table, "{number} {build}, {} cuts", bytes.len()).unwrap();
            for fact in &wanted {
                writeln!(table, "  {:?}", fact.what).unwrap();
            }
            for between in [Between::Nothing, Between::Restart] {
                // One file for all cuts: what is followed goes on behind the cut before.
                let mut follower = Follower::new();
                for cut in 0..bytes.len() {
                    follower.parser = Parser::default();
                    let (head, rest) = bytes.split_at(cut);
                    let found = follower.read([head, rest], between);
                    assert_eq!(found, wanted, "{build} {number} cut at {cut}, {between:?}");
                }
            }
        }
    }
    expect![[""]].assert_eq(&table);
}

/// The set as a person would put it.
fn state(set: &SetLog) -> String {
    let conflicts = format!("{} conflicts", set.conflict_count);
    let how = if let Some((_, session)) = &set.session {
        format!("session {}", session.as_str())
    } else if set.gave_up.is_some() {
        format!("gave up after {conflicts}")
    } else if set.conflicts.is_some() {
        format!("retries after {conflicts}")
    } else if set.last_closed.is_some() {
        "closed".to_owned()
    } else if set.idle.is_some() {
        "idle".to_owned()
    } else if set.started.is_some() {
        "started".to_owned()
    } else {
        "nothing".to_owned()
    };
    format!("{how}, opened {}", set.opened_count)
}

/// The day of a build as the log tells it, situation after situation in one growing file.
fn story(build: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garm.log");
    let log = LogFile::new(&path, None, Facts::Dropped);
    let (mut text, mut panics) = (String::new(), None);
    for number in &SITUATIONS[..11] {
        append(&path, &recorded(build, number));
        while log.step() {}
        let seen = log.evidence().unwrap();
        let panicked = if seen.last_panic == panics { "" } else { ", panic" };
        panics = seen.last_panic;
        let stopped = if seen.last_stop > seen.run_started { ", stopped" } else { "" };
        writeln!(text, "{number} run of {}{panicked}{stopped}", seen.run_started.unwrap().0).unwrap();
        for (id, entity) in [(1, "acme0"), (2, "acme0"), (3, "acme1"), (4, "acme1")] {
            let told = seen.about(ScaleSetId(id), Some(entity), Some(ForgeId(id)));
            writeln!(text, "  {id} {}", told.map_or_else(|| "not named".to_owned(), |set| state(&set))).unwrap();
        }
    }
    text
}

fn check(build: &str, expected: &Expect) {
    expected.assert_eq(&story(build));
}

#[test]
fn the_day_of_the_build_that_gives_up() {
    check(PRE_FIX, &expect![[""]]);
}

#[test]
fn the_day_of_the_build_that_retries() {
    check(POST_FIX, &expect![[""]]);
}

/// What the log had said when a recorded answer was served: up to the access line of that answer.
fn until_served(build: &str, logs: &[&str], metrics: &[u8]) -> Vec<LogFact> {
    let log: Vec<u8> = logs.iter().flat_map(|number| recorded(build, number)).collect();
    let served = format!("\"bytes\":{},", metrics.len());
    let lines: Vec<&[u8]> = log.split(|b| *b == b'\n').collect();
    let is_it = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line).replace(": ", ":");
        line.contains("\"/metrics\"") && line.contains(&served)
    };
    let at = lines.iter().rposition(is_it).unwrap_or_else(|| panic!("{build} {logs:?}: no scrape of {served}"));
    facts_of(&lines[..at].join(&b'\n'))
}

/// How many facts of the manager's current run fit.
fn count(facts: &[LogFact], fits: impl Fn(&LogEvent) -> bool) -> u64 {
    let start = facts.iter().rposition(|fact| fact.what == LogEvent::ManagerStarted).unwrap();
    facts[start..].iter().filter(|fact| fits(&fact.what)).count() as u64
}

#[test]
fn metrics_and_goroutines_of_the_same_moment_agree_with_the_log() {
    let mut table = String::new();
    for build in [PRE_FIX, POST_FIX] {
        for (moment, logs) in [
            ("healthy", &["01", "02"][..]),
            ("stuck", &["04", "05"]),
            ("after-stale-sessions-expired", &["04", "05", "06"]),
        ] {
            let read = |kind| std::fs::read(folder(build).join(format!("http/{kind}-{moment}.txt"))).unwrap();
            let text = read("metrics");
            let facts = until_served(build, logs, &text);
            let metrics = metrics_text::parse(&text).unwrap();
            let live = goroutines::count(&read("goroutines")).unwrap();
            let total =
                |pick: fn(&scaleset_medic::model::ScopeCounters) -> u64| metrics.scopes.values().map(pick).sum();
            let (creates, errors, polls): (u64, u64, u64) =
                (total(|c| c.create), total(|c| c.create_errors), total(|c| c.poll));

            let conflicts = count(&facts, |what| matches!(what, LogEvent::Conflict { .. }));
            let opened = count(&facts, |what| matches!(what, LogEvent::SessionOpened { .. }));
            let closed = count(&facts, |what| matches!(what, LogEvent::SessionClosing { .. }));
            let polled = count(&facts, |what| matches!(what, LogEvent::Poll { .. }));
            assert_eq!(conflicts, errors, "{build} {moment}: conflicts and errors of CreateMessageSession");
            assert_eq!(opened, creates - errors, "{build} {moment}: sessions opened");
            assert_eq!(polled, polls, "{build} {moment}: polls");
            assert_eq!(opened - closed, u64::from(live.listeners), "{build} {moment}: living listeners");

            let mut evidence = LogEvidence::default();
            facts.iter().for_each(|fact| evidence.absorb(fact));
            let started = evidence.by_id.values().filter(|set| set.started.is_some() && set.gave_up.is_none()).count();
            assert_eq!(started as u64, u64::from(live.workers), "{build} {moment}: living workers");
            let process = metrics.incarnation.unwrap().0;
            let delay = evidence.run_started.unwrap().since(process).as_millis();
            assert!(delay <= 2000, "{build} {moment}: the log begins {delay} ms after its process");
            writeln!(
                table,
                "{build} {moment}: {conflicts} conflicts, {opened} opened, {closed} closed, {polled} polls, {} listeners, \
                 {} workers",
                live.listeners, live.workers
            )
            .unwrap();
        }
    }
    expect![[""]].assert_eq(&table);
}
