//! The logs of two real GARM builds, from the file to the ledger: the facts must not depend on how the bytes arrive or
//! when the medic is killed, and must agree with the metrics and goroutines recorded at the same moments.

use crate::recordings::{BUILDS, POST_FIX, PRE_FIX, folder};
use expect_test::{Expect, expect};
use medic_core::model::log_fact::{LogEvent, LogEvidence, LogFact, SetLog};
use medic_core::model::session::LedgerSession;
use medic_core::model::{
    Endpoint, EndpointName, Entity, EntityKind, GithubId, GithubPlace, ManagerName, Owner, ScaleSetId,
};
use medic_core::ports::read::LogSource;
use medic_garm::log::ledger_feed::{Feed, Known, Timeline};
use medic_garm::log::parse::Parser;
use medic_garm::log::source::{Facts, LogFile};
use medic_garm::log::tail::{Reached, Tail};
use medic_garm::{goroutines, metrics_text};
use medic_store::{ManagerStore, Store};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

const SITUATIONS: [&str; 12] = ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"];

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

/// The facts of a log that is complete from the start.
fn facts_of(log: &[u8]) -> Vec<LogFact> {
    let mut parser = Parser::default();
    log.split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

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

    /// The facts read while the file grows by these pieces.
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
fn facts_do_not_depend_on_how_the_log_arrives() {
    for build in BUILDS {
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

#[test]
fn facts_do_not_depend_on_where_the_log_is_cut() {
    let situations = [
        ("03", "closing message session"),
        ("04", "already has an active session"),
        ("06", "starting message session refresh loop"),
        ("10", "panic: "),
        ("12", "already has an active session"),
    ];
    let mut table = String::new();
    for build in BUILDS {
        for (number, mark) in situations {
            let log = recorded(build, number);
            let bytes = window(&log, mark);
            let wanted = facts_of(bytes);
            writeln!(table, "{number} {build}, {} cuts", bytes.len()).unwrap();
            for fact in &wanted {
                writeln!(table, "  {:?}", fact.what).unwrap();
            }
            for between in [Between::Nothing, Between::Restart] {
                // One file for all cuts.
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
    expect![[r#"
        03 garm-2026-04-pre-fix, 1275 cuts
          SessionClosing { set: Manager(ScaleSetId(2)) }
        04 garm-2026-04-pre-fix, 1002 cuts
          Conflict { set: Github { entity: "acme1", github_id: GithubId(3) }, owner: None, gave_up: true }
        06 garm-2026-04-pre-fix, 1052 cuts
          Poll { set: Manager(ScaleSetId(1)), cursor: 1 }
          SessionOpened { set: Manager(ScaleSetId(1)), session: SessionId("c10668f2-3a2d-4650-8fa4-df61eabe420b") }
        10 garm-2026-04-pre-fix, 1009 cuts
          ListenerStopped { set: Manager(ScaleSetId(1)) }
          Panic
        12 garm-2026-04-pre-fix, 1021 cuts
          Conflict { set: Github { entity: "acme0", github_id: GithubId(1) }, owner: None, gave_up: true }
        03 garm-2026-07-post-fix, 1025 cuts
          SessionClosing { set: Manager(ScaleSetId(2)) }
          ListenerStopped { set: Manager(ScaleSetId(2)) }
          ListenerStopped { set: Manager(ScaleSetId(2)) }
        04 garm-2026-07-post-fix, 1174 cuts
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
          WorkerStarted { set: Manager(ScaleSetId(4)) }
        06 garm-2026-07-post-fix, 1577 cuts
          SessionOpened { set: Manager(ScaleSetId(4)), session: SessionId("b53481fc-528e-4011-ae25-431918dda1ca") }
          Poll { set: Manager(ScaleSetId(4)), cursor: 0 }
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
        10 garm-2026-07-post-fix, 1046 cuts
          Panic
        12 garm-2026-07-post-fix, 1544 cuts
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
          Conflict { set: Manager(ScaleSetId(1)), owner: None, gave_up: false }
    "#]]
    .assert_eq(&table);
}

/// One set's state in short.
fn state(set: &SetLog) -> String {
    let conflicts = format!("{} conflicts", set.conflict_count);
    let how = if let Some((_, session)) = &set.session {
        format!("session {}", &session.as_str()[..8])
    } else if set.gave_up.is_some() {
        format!("gave up after {conflicts}")
    } else if set.conflicts.is_some() {
        format!("retries after {conflicts}")
    } else if set.last_closed.is_some() {
        "closed".to_owned()
    } else {
        "nothing".to_owned()
    };
    format!("{how}, opened {}", set.opened_count)
}

/// The evidence of a growing file after each recorded situation of a build: its run, then its four sets.
fn evidence_by_situation(build: &str) -> String {
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
        write!(text, "{number} run {}{panicked}{stopped}", seen.run_started.unwrap().0).unwrap();
        for (id, entity) in [(1, "acme0"), (2, "acme0"), (3, "acme1"), (4, "acme1")] {
            let set = seen.about(ScaleSetId(id), Some(entity), Some(GithubId(id)));
            let set = set.unwrap_or_else(|| panic!("{build} {number}: set {id} is not named"));
            assert_eq!(set.last_poll.is_some(), set.opened_count > 0, "{build} {number} {id}");
            write!(text, " | {}", state(&set)).unwrap();
        }
        text.push('\n');
    }
    text
}

fn check(build: &str, expected: &Expect) {
    expected.assert_eq(&evidence_by_situation(build));
}

#[test]
fn evidence_of_the_build_that_gives_up() {
    check(
        PRE_FIX,
        &expect![[r"
        01 run 1795459531651 | session 36c2c648, opened 1 | session 772c84b0, opened 1 | session 02cb17b5, opened 1 | session a776f05e, opened 1
        02 run 1795459531651 | session 36c2c648, opened 1 | session 772c84b0, opened 1 | session 02cb17b5, opened 1 | session a776f05e, opened 1
        03 run 1795459531651 | session 36c2c648, opened 1 | session b69ddd0e, opened 2 | session 02cb17b5, opened 1 | session a776f05e, opened 1
        04 run 1795459567099 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0
        05 run 1795459567099 | retries after 2 conflicts, opened 0 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0
        06 run 1795459567099 | session c10668f2, opened 1 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0
        07 run 1795459567099 | session c10668f2, opened 1 | session 83f4219a, opened 1 | session 7242c349, opened 1 | session c57125f0, opened 1
        08 run 1795459642229 | session dffcfc27, opened 1 | session 280eb652, opened 1 | gave up after 1 conflicts, opened 0 | session 60bf36ef, opened 1
        09 run 1795459642229, stopped | closed, opened 1 | closed, opened 1 | gave up after 1 conflicts, opened 0 | closed, opened 1
        10 run 1795459650671, panic | closed, opened 1 | session 3efc678f, opened 1 | gave up after 1 conflicts, opened 0 | session 41d09627, opened 1
        11 run 1795459665086 | session 02dcdd12, opened 1 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0 | gave up after 1 conflicts, opened 0
    "]],
    );
}

#[test]
fn evidence_of_the_build_that_retries() {
    check(
        POST_FIX,
        &expect![[r"
        01 run 1795459531702 | session cd3f8e35, opened 1 | session e3eff5cb, opened 1 | session cc6a20d3, opened 1 | session 11c72d22, opened 1
        02 run 1795459531702 | session cd3f8e35, opened 1 | session e3eff5cb, opened 1 | session cc6a20d3, opened 1 | session 11c72d22, opened 1
        03 run 1795459531702 | session cd3f8e35, opened 1 | session 11227318, opened 2 | session cc6a20d3, opened 1 | session 11c72d22, opened 1
        04 run 1795459567163 | retries after 5 conflicts, opened 0 | retries after 5 conflicts, opened 0 | retries after 5 conflicts, opened 0 | retries after 5 conflicts, opened 0
        05 run 1795459567163 | retries after 8 conflicts, opened 0 | retries after 8 conflicts, opened 0 | retries after 8 conflicts, opened 0 | retries after 8 conflicts, opened 0
        06 run 1795459567163 | session 3fb7f6d2, opened 1 | session 0ea8482c, opened 1 | session 52a20259, opened 1 | session b53481fc, opened 1
        07 run 1795459567163 | session 3fb7f6d2, opened 1 | session 17435e66, opened 2 | session aea2500b, opened 2 | session 2204dd86, opened 2
        08 run 1795459642429 | session 60ba7dce, opened 1 | session 40a46e74, opened 1 | retries after 5 conflicts, opened 0 | session 634ef08a, opened 1
        09 run 1795459642429, stopped | closed, opened 1 | closed, opened 1 | retries after 5 conflicts, opened 0 | closed, opened 1
        10 run 1795459651024, panic | closed, opened 1 | session 0f63bdb1, opened 1 | retries after 5 conflicts, opened 0 | session a3694b69, opened 1
        11 run 1795459665411 | session bc82df76, opened 1 | retries after 9 conflicts, opened 0 | retries after 9 conflicts, opened 0 | retries after 9 conflicts, opened 0
    "]],
    );
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
    facts_of(&lines[..at].join(&b'\n'))
}

/// How many facts of the manager's current run match.
fn count(facts: &[LogFact], fits: impl Fn(&LogEvent) -> bool) -> u64 {
    let start = facts.iter().rposition(|fact| fact.what == LogEvent::ManagerStarted).unwrap();
    facts[start..].iter().filter(|fact| fits(&fact.what)).count() as u64
}

#[test]
fn log_agrees_with_metrics_and_goroutines() {
    let mut table = String::new();
    for build in BUILDS {
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
            let total = |pick: fn(&medic_core::model::ScopeCounters) -> u64| metrics.scopes.values().map(pick).sum();
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
            for fact in &facts {
                evidence.absorb(fact);
            }
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
    expect![[r"
        garm-2026-04-pre-fix healthy: 0 conflicts, 4 opened, 0 closed, 4 polls, 4 listeners, 4 workers
        garm-2026-04-pre-fix stuck: 4 conflicts, 0 opened, 0 closed, 0 polls, 0 listeners, 0 workers
        garm-2026-04-pre-fix after-stale-sessions-expired: 11 conflicts, 1 opened, 0 closed, 1 polls, 1 listeners, 1 workers
        garm-2026-07-post-fix healthy: 0 conflicts, 4 opened, 0 closed, 4 polls, 4 listeners, 4 workers
        garm-2026-07-post-fix stuck: 16 conflicts, 0 opened, 0 closed, 0 polls, 0 listeners, 4 workers
        garm-2026-07-post-fix after-stale-sessions-expired: 50 conflicts, 4 opened, 0 closed, 4 polls, 4 listeners, 4 workers
    "]].assert_eq(&table);
}

fn whole_log(build: &str) -> Vec<u8> {
    SITUATIONS[..11].iter().flat_map(|number| recorded(build, number)).collect()
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
    store.sessions().unwrap()
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
            let (mut state, mut rest, mut rotations) = (seed, log.as_slice(), 0);
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(state >> 33).unwrap() % below
            };
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
