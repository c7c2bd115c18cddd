//! The properties of every parser, for any bytes. A property that does not hold panics.
//!
//! Used by the bounded run of the ordinary tests (`tests/it/fuzz.rs`) and the fuzz targets (`fuzz/`).

use super::servers;
use medic_core::model::log_fact::{LogEvent, LogEvidence, LogFact, LogSet};
use medic_core::model::{Enablement, Owner, RequestFailure, SessionId};
use medic_garm::log::format::{LINE_MAX, attributes, head, second_beginning};
use medic_garm::log::parse::Parser;
use medic_garm::log::tail::{Reached, Tail};
use medic_garm::{events, goroutines, metrics_text};
use medic_http::BodySink;
use scaleset_medic::config::{Depth, Sources, check};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Never in the input of a property, so it must not be in the output.
pub const PASSWORD: &str = "hunter2-4c1f-never-shown";

/// The longest name or id accepted from outside.
const NAME_MAX: usize = 256;
/// The longest error that may be shown for one answer.
const DETAIL_MAX: usize = 4096;

pub type Property = fn(&[u8]);

/// The properties, by the names of their fuzz targets.
pub const ALL: [(&str, Property); 7] = [
    ("log_line", log_line),
    ("log_tail", log_tail),
    ("metrics_text", metrics_text),
    ("goroutines", goroutine_dump),
    ("garm_json", garm_json),
    ("actions_service_json", actions_service_json),
    ("configuration", configuration),
];

/// Lines, one after another through one parser.
pub fn log_line(bytes: &[u8]) {
    let mut parser = Parser::default();
    let mut evidence = LogEvidence::default();
    for line in bytes.split(|b| *b == b'\n') {
        let _ = (head(line), attributes(line));
        if let Some(rest) = second_beginning(line) {
            assert!(!rest.is_empty() && rest.len() < line.len(), "what may begin inside a line is shorter than it");
        }
        // As a restart between two lines keeps it.
        let kept = serde_json::to_string(&parser.state()).unwrap();
        let mut resumed = Parser::new(serde_json::from_str(&kept).unwrap());
        let fact = parser.line(line);
        assert_eq!(resumed.line(line), fact, "a restart changes no fact");
        assert_eq!(resumed.state(), parser.state());
        if let Some(fact) = fact {
            is_in_bounds(&fact, line, parser.state().last_dated.map(|at| at.0));
            evidence.absorb(&fact);
        }
    }
    serde_json::to_string(&evidence).unwrap();
}

fn is_in_bounds(fact: &LogFact, line: &[u8], dated: Option<u64>) {
    assert_eq!(Some(fact.at.0), dated, "a fact has the date of its line or of the one before");
    let (set, session, owner) = parts(&fact.what);
    if let Some(LogSet::Github { entity, .. }) = set {
        assert!(entity.len() <= NAME_MAX, "an entity of {} bytes", entity.len());
    }
    if let Some(session) = session {
        let text = session.as_str();
        assert!((8..=64).contains(&text.len()), "a session id of {} bytes", text.len());
        assert!(text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'), "it goes into a URL: {text}");
    }
    if let Some(owner) = owner {
        assert!(!owner.as_str().is_empty() && owner.as_str().len() <= NAME_MAX);
        assert!(String::from_utf8_lossy(line).contains(owner.as_str()) || line.contains(&b'\\'), "an invented owner");
    }
}

fn parts(event: &LogEvent) -> (Option<&LogSet>, Option<&SessionId>, Option<&Owner>) {
    match event {
        LogEvent::ManagerStarted | LogEvent::ManagerStopping | LogEvent::Panic => (None, None, None),
        LogEvent::Conflict { set, owner, .. } => (Some(set), None, owner.as_ref()),
        LogEvent::SessionOpened { set, session } | LogEvent::SessionHeld { set, session } => {
            (Some(set), Some(session), None)
        }
        LogEvent::StartFailed { set, .. }
        | LogEvent::SessionClosing { set }
        | LogEvent::SessionCloseFailed { set, .. }
        | LogEvent::ListenerStopped { set }
        | LogEvent::Poll { set, .. }
        | LogEvent::JobSeen { set }
        | LogEvent::ListenerFailed { set, .. }
        | LogEvent::WorkerIdle { set }
        | LogEvent::WorkerStarted { set }
        | LogEvent::MessageFailed { set } => (Some(set), None, None),
    }
}

/// A file that grows by pieces, whose size the first two bytes say. The lines are those of the bytes.
pub fn log_tail(bytes: &[u8]) {
    let (size, bytes) = match bytes {
        [low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])).max(rest.len() / 40).max(1), rest),
        _ => return,
    };
    let wanted: Vec<Vec<u8>> = match bytes.iter().rposition(|b| *b == b'\n') {
        Some(end) => bytes[..end].split(|b| *b == b'\n').filter_map(as_given).collect(),
        None => Vec::new(),
    };
    for restarts in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garm.log");
        let mut log = std::fs::File::create(&path).unwrap();
        let (mut tail, mut found) = (Tail::new(&path, None), Vec::new());
        for piece in bytes.chunks(size) {
            log.write_all(piece).unwrap();
            let mut sink = |line: &[u8]| found.push(line.to_vec());
            while tail.step(&mut sink).unwrap().reached == Reached::Within {}
            if restarts {
                tail = Tail::new(&path, tail.position(Parser::default().state()));
            }
        }
        assert!(found == wanted, "other lines in pieces of {size} bytes, restarts: {restarts}");
    }
}

/// A line as the tail returns it, if it does.
fn as_given(line: &[u8]) -> Option<Vec<u8>> {
    let start = line.iter().position(|b| *b != 0)?;
    Some(line[start..].iter().copied().take(LINE_MAX).collect())
}

pub fn metrics_text(bytes: &[u8]) {
    let read = metrics_text::parse(bytes);
    let commented = [bytes, b"\n# TYPE nothing counter\n\n"].concat();
    assert_eq!(format!("{:?}", metrics_text::parse(&commented)), format!("{read:?}"), "a comment says nothing");
    let Ok(metrics) = read else { return };
    let lines = bytes.split(|b| *b == b'\n').count();
    assert!(metrics.listeners.len() <= lines && metrics.quotas.len() <= lines && metrics.scopes.len() <= lines);
    for scope in metrics.scopes.values() {
        assert!(scope.create.max(scope.poll) < u64::MAX, "a counter that no process can reach");
    }
}

/// A goroutine dump; the first byte says in which pieces it comes.
pub fn goroutine_dump(bytes: &[u8]) {
    let Some((size, dump)) = bytes.split_first() else { return };
    let whole = goroutines::count(dump);
    let mut counter = goroutines::GoroutineCounter::default();
    counter.begin();
    dump.chunks(usize::from(*size).max(1)).for_each(|piece| counter.piece(piece));
    assert_eq!(counter.finish(), whole, "the counts depend on the pieces");
    let blocks = dump.split(|b| *b == b'\n').filter(|line| line.starts_with(b"goroutine ")).count();
    let counts = whole.unwrap_or_default();
    assert!(counts.listeners as usize <= blocks && counts.workers as usize <= blocks);
}

/// An answer of the manager to any request, and a message of its websocket.
pub fn garm_json(bytes: &[u8]) {
    let _ = events::parse(&String::from_utf8_lossy(bytes));
    let answers = servers::ask_garm(bytes);
    answers.failures.iter().for_each(is_fit_to_show);
    let Some(sets) = answers.sets else { return };
    // Unread fields may hold values that a stricter parser refuses.
    let text = String::from_utf8_lossy(bytes);
    let Ok(wire) = serde_json::from_str::<Vec<serde_json::Value>>(&text) else { return };
    if !wire.iter().all(serde_json::Value::is_object) {
        return;
    }
    let mut seen = BTreeMap::new();
    for set in &wire {
        // Of a repeated id, any of its objects may be the one that counts.
        let enabled: &mut BTreeSet<bool> = seen.entry(set["id"].as_u64()).or_default();
        enabled.insert(set["enabled"].as_bool().unwrap_or(false));
    }
    assert!(sets.len() <= wire.len(), "more sets than objects");
    for set in sets {
        let known = seen.get(&Some(set.id.0)).unwrap();
        assert!(known.contains(&(set.enabled == Enablement::Enabled)), "a missing `enabled` means disabled");
    }
}

/// An answer of the Actions service to a list of sets and to a request for a session.
pub fn actions_service_json(bytes: &[u8]) {
    let answers = servers::ask_github(bytes);
    answers.failures.iter().for_each(is_fit_to_show);
    if let Some(sets) = answers.sets {
        let ids: BTreeSet<u64> = sets.iter().map(|set| set.id.0).collect();
        assert!(ids.len() == sets.len() && !ids.contains(&0), "one set twice, or one without an id");
    }
    if let Some(session) = answers.session {
        assert!(!session.as_str().is_empty(), "a session without an id cannot be ended");
    }
}

fn is_fit_to_show(failure: &RequestFailure) {
    let shown = format!("{failure:?}");
    assert!(shown.len() <= DETAIL_MAX, "an error of {} bytes", shown.len());
    assert!(!shown.contains(PASSWORD), "a secret in an error");
    assert!(!failure.detail.contains('\n'), "an error of several lines");
}

pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for text in [text.to_owned(), format!("{text}\n[[manager]]\npassword = \"{PASSWORD}\"\n")] {
        let sources = Sources::of_text("medic.toml", text);
        match check(&sources, Depth::Values) {
            Ok(checked) => assert!(!format!("{checked:?}").contains(PASSWORD), "a secret in what is printed"),
            Err(report) => {
                let shown = report.to_string();
                assert!(!report.mistakes().is_empty(), "refused without a reason");
                assert!(!shown.contains(PASSWORD), "a secret in an error: {shown}");
                assert!(shown.len() <= 64 * 1024 + 8 * bytes.len(), "an error of {} bytes", shown.len());
            }
        }
    }
}
