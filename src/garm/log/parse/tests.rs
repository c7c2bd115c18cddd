use super::*;
use crate::model::log_fact::LogEvidence;
use expect_test::{Expect, expect};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

const BUILDS: [&str; 2] = ["garm-2026-04-pre-fix", "garm-2026-07-post-fix"];

fn recorded(build: &str, number: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(build).join("logs");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with(number));
    assert_eq!(files.len(), 1, "{build} {number}");
    std::fs::read(&files[0]).unwrap()
}

fn facts(log: &[u8]) -> Vec<LogFact> {
    let mut parser = Parser::default();
    log.split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

fn evidence(logs: &[Vec<u8>]) -> LogEvidence {
    let mut evidence = LogEvidence::default();
    let mut parser = Parser::default();
    for line in logs.iter().flat_map(|log| log.split(|b| *b == b'\n')) {
        if let Some(fact) = parser.line(line) {
            evidence.absorb(&fact);
        }
    }
    evidence
}

fn set_name(set: &LogSet) -> String {
    match set {
        LogSet::Manager(id) => format!("{id}"),
        LogSet::Forge { entity, forge_id } => format!("{entity}#{forge_id}"),
    }
}

fn told(event: &LogEvent) -> (String, Option<String>) {
    let (what, set) = match event {
        LogEvent::ManagerStarted => ("start".to_owned(), None),
        LogEvent::ManagerStopping => ("stop".to_owned(), None),
        LogEvent::Panic => ("panic".to_owned(), None),
        LogEvent::Conflict { set, owner, gave_up } => {
            (format!("conflict gave_up={gave_up} owner={owner:?}"), Some(set))
        }
        LogEvent::StartFailed { set, kind, gave_up } => (format!("start failed {kind} gave_up={gave_up}"), Some(set)),
        LogEvent::SessionOpened { set, .. } => ("opened".to_owned(), Some(set)),
        LogEvent::SessionHeld { set, .. } => ("held".to_owned(), Some(set)),
        LogEvent::SessionClosing { set } => ("closing".to_owned(), Some(set)),
        LogEvent::SessionCloseFailed { set, kind } => (format!("close failed {kind}"), Some(set)),
        LogEvent::ListenerStopped { set } => ("stopped".to_owned(), Some(set)),
        LogEvent::Poll { set, .. } => ("poll".to_owned(), Some(set)),
        LogEvent::JobSeen { set } => ("job".to_owned(), Some(set)),
        LogEvent::ListenerFailed { set, kind, refresh } => (format!("failed {kind} refresh={refresh}"), Some(set)),
        LogEvent::WorkerIdle { set } => ("idle".to_owned(), Some(set)),
        LogEvent::WorkerStarted { set } => ("started".to_owned(), Some(set)),
        LogEvent::MessageFailed { set } => ("message failed".to_owned(), Some(set)),
    };
    (what, set.map(set_name))
}

/// One line per kind of fact: how often, for which sets.
fn summary(build: &str, number: &str) -> String {
    let mut counts: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    for fact in facts(&recorded(build, number)) {
        let (what, set) = told(&fact.what);
        *counts.entry(what).or_default().entry(set.unwrap_or_else(|| "manager".to_owned())).or_default() += 1;
    }
    let mut text = format!("{number} {build}\n");
    for (what, sets) in counts {
        let sets: Vec<String> = sets.into_iter().map(|(set, count)| format!("{set} x{count}")).collect();
        writeln!(text, "  {what}: {}", sets.join(", ")).unwrap();
    }
    text
}

fn check(numbers: &[&str], expected: &Expect) {
    let text: String = numbers.iter().flat_map(|number| BUILDS.iter().map(|build| summary(build, number))).collect();
    expected.assert_eq(&text);
}

#[test]
fn recorded_boot_jobs_and_toggle() {
    check(
        &["01", "02", "03"],
        &expect![[r#"
        01 garm-2026-04-pre-fix
          opened: 1 x1, 2 x1, 3 x1, 4 x1
          poll: 1 x1, 2 x1, 3 x1, 4 x1
          start: manager x1
          started: 1 x1, 2 x1, 3 x1, 4 x1
        01 garm-2026-07-post-fix
          opened: 1 x1, 2 x1, 3 x1, 4 x1
          poll: 1 x1, 2 x1, 3 x1, 4 x1
          start: manager x1
          started: 1 x2, 2 x2, 3 x2, 4 x2
        02 garm-2026-04-pre-fix
          job: 1 x3
          poll: 1 x1
        02 garm-2026-07-post-fix
          job: 1 x3
          poll: 1 x1
        03 garm-2026-04-pre-fix
          closing: 2 x1
          opened: 2 x1
          poll: 2 x1
          stopped: 2 x2
        03 garm-2026-07-post-fix
          closing: 2 x1
          opened: 2 x1
          poll: 2 x1
          stopped: 2 x2
    "#]],
    );
}

#[test]
fn recorded_conflicts_after_a_kill() {
    check(
        &["04", "05", "06", "07", "08"],
        &expect![[r#"
        04 garm-2026-04-pre-fix
          conflict gave_up=true owner=None: acme0#1 x1, acme0#2 x1, acme1#3 x1, acme1#4 x1
          start: manager x1
        04 garm-2026-07-post-fix
          conflict gave_up=false owner=None: 1 x5, 2 x5, 3 x5, 4 x5
          start: manager x1
          started: 1 x2, 2 x2, 3 x2, 4 x2
        05 garm-2026-04-pre-fix
          conflict gave_up=false owner=None: 1 x2
          idle: 1 x1
          started: 1 x1
        05 garm-2026-07-post-fix
          conflict gave_up=false owner=None: 1 x3, 2 x3, 3 x3, 4 x3
        06 garm-2026-04-pre-fix
          conflict gave_up=false owner=None: 1 x5
          opened: 1 x1
          poll: 1 x1
        06 garm-2026-07-post-fix
          conflict gave_up=false owner=None: 1 x5, 2 x5, 3 x4, 4 x4
          opened: 1 x1, 2 x1, 3 x1, 4 x1
          poll: 1 x1, 2 x1, 3 x1, 4 x1
        07 garm-2026-04-pre-fix
          idle: 2 x1, 3 x1, 4 x1
          opened: 2 x1, 3 x1, 4 x1
          poll: 2 x1, 3 x1, 4 x1
          started: 2 x1, 3 x1, 4 x1
        07 garm-2026-07-post-fix
          closing: 2 x1, 3 x1, 4 x1
          failed not_found refresh=false: 4 x1
          opened: 2 x1, 3 x1, 4 x1
          poll: 2 x1, 3 x1, 4 x1
          stopped: 2 x2, 3 x2, 4 x2
        08 garm-2026-04-pre-fix
          conflict gave_up=true owner=None: acme1#3 x1
          opened: 1 x1, 2 x1, 4 x1
          poll: 1 x1, 2 x1, 4 x1
          start: manager x1
          started: 1 x1, 2 x1, 4 x1
        08 garm-2026-07-post-fix
          conflict gave_up=false owner=None: 3 x5
          opened: 1 x1, 2 x1, 4 x1
          poll: 1 x1, 2 x1, 4 x1
          start: manager x1
          started: 1 x2, 2 x2, 3 x2, 4 x2
    "#]],
    );
}

#[test]
fn recorded_ends() {
    check(
        &["09", "10", "11"],
        &expect![[r#"
        09 garm-2026-04-pre-fix
          closing: 1 x1, 2 x1, 4 x1
          stop: manager x1
          stopped: 1 x1, 2 x1, 4 x1
        09 garm-2026-07-post-fix
          closing: 1 x1, 2 x1, 4 x1
          failed not_found refresh=false: 1 x1
          stop: manager x1
          stopped: 1 x1, 2 x1, 4 x1
        10 garm-2026-04-pre-fix
          closing: 1 x1
          conflict gave_up=true owner=None: acme1#3 x1
          failed not_found refresh=false: 1 x1
          opened: 1 x1, 2 x1, 4 x1
          panic: manager x1
          poll: 1 x1, 2 x1, 4 x1
          start: manager x1
          started: 1 x1, 2 x1, 4 x1
          stopped: 1 x2
        10 garm-2026-07-post-fix
          closing: 1 x1
          conflict gave_up=false owner=None: 3 x5
          failed not_found refresh=false: 1 x1
          opened: 1 x1, 2 x1, 4 x1
          panic: manager x1
          poll: 1 x1, 2 x1, 4 x1
          start: manager x1
          started: 1 x2, 2 x2, 3 x2, 4 x2
          stopped: 1 x1
        11 garm-2026-04-pre-fix
          conflict gave_up=true owner=None: acme0#2 x1, acme1#3 x1, acme1#4 x1
          opened: 1 x1
          poll: 1 x1
          start: manager x1
          started: 1 x1
        11 garm-2026-07-post-fix
          conflict gave_up=false owner=None: 2 x9, 3 x9, 4 x9
          opened: 1 x1
          poll: 1 x1
          start: manager x1
          started: 1 x2, 2 x2, 3 x2, 4 x2
    "#]],
    );
}

#[test]
fn recorded_text_format_at_info_level() {
    check(
        &["12"],
        &expect![[r#"
        12 garm-2026-04-pre-fix
          conflict gave_up=true owner=None: acme0#1 x1
          idle: 1 x1
          start: manager x2
          stop: manager x1
        12 garm-2026-07-post-fix
          conflict gave_up=false owner=None: 1 x8
          start: manager x2
          started: 1 x2
          stop: manager x1
    "#]],
    );
}
