//! The logs of two real GARM builds, from the file to the ledger: the facts agree with the metrics and goroutines
//! recorded at the same moments, and the ledger does not depend on when the medic is killed.

use crate::recordings::{BUILDS, POST_FIX, PRE_FIX, folder};
use medic_core::model::log_fact::{LogEvent, LogEvidence, LogFact};
use medic_core::model::session::LedgerSession;
use medic_core::model::{
    Endpoint, EndpointName, Entity, EntityKind, GithubId, GithubPlace, ManagerName, Owner, ScaleSetId,
};
use medic_garm::log::ledger_feed::{Feed, Known, Timeline};
use medic_garm::log::parse::Parser;
use medic_garm::log::source::{Facts, LogFile};
use medic_garm::{goroutines, metrics_text};
use medic_store::{ManagerStore, Store};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

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

/// The facts up to the access line of a recorded answer.
fn until_served(build: &str, logs: &[&str], metrics: &[u8]) -> Vec<LogFact> {
    let log: Vec<u8> = logs.iter().flat_map(|number| recorded(build, number)).collect();
    let served = format!("\"bytes\":{},", metrics.len());
    let lines: Vec<&[u8]> = log.split(|b| *b == b'\n').collect();
    let is_it = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line).replace(": ", ":");
        line.contains("\"/metrics\"") && line.contains(&served)
    };
    let at = lines.iter().rposition(is_it).unwrap_or_else(|| panic!("{build} {logs:?}: no scrape of {served}"));
    let mut parser = Parser::default();
    lines[..at].iter().filter_map(|line| parser.line(line)).collect()
}

/// How many facts of the manager's current run match.
fn count(facts: &[LogFact], fits: impl Fn(&LogEvent) -> bool) -> u64 {
    let start = facts.iter().rposition(|fact| fact.what == LogEvent::ManagerStarted).unwrap();
    facts[start..].iter().filter(|fact| fits(&fact.what)).count() as u64
}

#[test]
fn log_agrees_with_metrics_and_goroutines() {
    let expired = "after-stale-sessions-expired";
    for (build, moment, logs, expected) in [
        (PRE_FIX, "healthy", &["01", "02"][..], (0, 4)),
        (PRE_FIX, "stuck", &["04", "05"], (4, 0)),
        (PRE_FIX, expired, &["04", "05", "06"], (11, 1)),
        (POST_FIX, "healthy", &["01", "02"], (0, 4)),
        (POST_FIX, "stuck", &["04", "05"], (16, 0)),
        (POST_FIX, expired, &["04", "05", "06"], (50, 4)),
    ] {
        let read = |kind| std::fs::read(folder(build).join(format!("http/{kind}-{moment}.txt"))).unwrap();
        let text = read("metrics");
        let facts = until_served(build, logs, &text);
        let metrics = metrics_text::parse(&text).unwrap();
        let live = goroutines::count(&read("goroutines")).unwrap();
        let total = |pick: fn(&medic_core::model::ScopeCounters) -> u64| metrics.scopes.values().map(pick).sum();
        let (creates, errors, polls): (u64, u64, u64) =
            (total(|c| c.create), total(|c| c.create_errors), total(|c| c.poll));

        let conflicts = count(&facts, |what| matches!(what, LogEvent::Conflict { .. }));
        let opened = count(&facts, |what| matches!(what, LogEvent::SessionOpened { .. }));
        let closed = count(&facts, |what| matches!(what, LogEvent::SessionClosing { .. }));
        let polled = count(&facts, |what| matches!(what, LogEvent::Poll { .. }));
        assert_eq!((conflicts, opened), expected, "{build} {moment}");
        assert_eq!(conflicts, errors, "{build} {moment}: conflicts and errors of CreateMessageSession");
        assert_eq!(opened, creates - errors, "{build} {moment}: sessions opened");
        assert_eq!(polled, polls, "{build} {moment}: polls");
        assert_eq!(opened - closed, u64::from(live.listeners), "{build} {moment}: living listeners");

        let mut evidence = LogEvidence::default();
        for fact in &facts {
            evidence.absorb(fact);
        }
        let started = evidence.by_id.values().filter(|set| set.started.is_some() && set.gave_up.is_none()).count();
        assert_eq!(started as u64, u64::from(live.workers), "{build} {moment}: living workers");
        let process = metrics.incarnation.unwrap().0;
        let delay = evidence.run_started.unwrap().since(process).as_millis();
        assert!(delay <= 2000, "{build} {moment}: the log begins {delay} ms after its process");
    }
}

fn whole_log(build: &str) -> Vec<u8> {
    (1..=11).flat_map(|number| recorded(build, &format!("{number:02}"))).collect()
}

fn places() -> BTreeMap<ScaleSetId, GithubPlace> {
    let endpoint = Arc::new(Endpoint {
        name: EndpointName::new("fake"),
        base_url: "http://github".to_owned(),
        api_base_url: "http://github/api".to_owned(),
    });
    (1..=4)
        .map(|id| {
            let entity = Entity { kind: EntityKind::Organization, name: format!("acme{}", (id - 1) / 2) };
            (ScaleSetId(id), GithubPlace { endpoint: endpoint.clone(), entity, github_id: GithubId(id) })
        })
        .collect()
}

/// One run of the medic: reads the log, and is killed after `steps` of its two durable steps.
fn run(path: &Path, store: &ManagerStore, steps: usize) {
    let (timeline, places, owner) = (Timeline::default(), places(), Owner::new("garm-c1"));
    let known = Known { timeline: &timeline, places: &places, owner: Some(&owner) };
    let name = path.display().to_string();
    let kept = store.load_log_position(&name).unwrap();
    let evidence = kept.as_ref().map_or_else(LogEvidence::default, |(_, evidence)| evidence.clone());
    let mut feed = Feed::resume(&evidence, &store.live_sessions().unwrap());
    let log = LogFile::new(path, kept, Facts::Taken);
    while log.step() {}
    let batch = log.batch();
    let changes = feed.absorb(&batch.facts, known);
    if steps >= 1 {
        store.apply(&changes).unwrap();
    }
    if steps >= 2 {
        store.save_log_position(&name, &batch.position.unwrap(), &batch.evidence).unwrap();
    }
}

fn ledger(store: &ManagerStore) -> Vec<LedgerSession> {
    (1..=4).flat_map(|id| store.of_set(ScaleSetId(id)).unwrap()).collect()
}

#[test]
fn ledger_is_the_same_whenever_the_medic_is_killed() {
    for build in BUILDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("garm.log");
        append(&path, &whole_log(build));
        let whole = Store::in_memory().unwrap().for_manager(&ManagerName::new("m"));
        run(&path, &whole, 2);
        let wanted = ledger(&whole);
        assert!(wanted.len() >= 16, "{build}");

        for seed in 1..=20_u64 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("garm.log");
            let store = Store::in_memory().unwrap().for_manager(&ManagerName::new("m"));
            let log = whole_log(build);
            let (mut rest, mut rotations, mut dice) = (log.as_slice(), 0, SmallRng::seed_from_u64(seed));
            let mut random = |below: usize| dice.random_range(0..below);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + random(20_000)).min(rest.len()));
                append(&path, piece);
                rest = after;
                run(&path, &store, random(3));
                // Rotated between two lines, as GARM does it.
                if piece.ends_with(b"\n") || random(4) == 0 {
                    let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
                    let (line, after) = rest.split_at(end);
                    append(&path, line);
                    rest = after;
                    rotations += 1;
                    let name = format!("garm-2026-11-24T00-00-{rotations:06}.log");
                    std::fs::rename(&path, folder.path().join(name)).unwrap();
                }
            }
            if !path.exists() {
                append(&path, b"");
            }
            run(&path, &store, 2);
            let found = ledger(&store);
            let ids =
                |rows: &[LedgerSession]| rows.iter().map(|row| (row.id.clone(), row.opened_by)).collect::<Vec<_>>();
            assert_eq!(ids(&found), ids(&wanted), "{build} seed {seed}");
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_eq!(found.ended.is_some(), wanted.ended.is_some(), "{build} seed {seed}: {found:?} {wanted:?}");
            }
        }
    }
}
