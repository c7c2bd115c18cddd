#![expect(clippy::disallowed_methods, reason = "tests read recordings")]

use super::*;
use crate::log::parse::Parser;
use medic_core::decide::stale::{CurrentManager, newest_is_stale};
use medic_core::decide::testing::scale_set;
use medic_core::model::session::NotStale;
use medic_core::model::{ManagerName, ManagerState, ScaleSet};
use medic_store::{ManagerStore, Store};
use std::path::Path;

const BUILDS: [&str; 2] = ["garm-2026-04-pre-fix", "garm-2026-07-post-fix"];

/// The facts of a recorded log.
fn recorded(build: &str, number: &str) -> Vec<LogFact> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .join("tests/fixtures/recordings")
        .join(build)
        .join("logs");
    let file = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|file| file.file_name().unwrap().to_str().unwrap().starts_with(number))
        .unwrap();
    let mut parser = Parser::default();
    std::fs::read(file).unwrap().split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

/// A manager as the feed and the proof know it, with a real ledger.
struct Scene {
    feed: Feed,
    timeline: Timeline,
    places: BTreeMap<ScaleSetId, GithubPlace>,
    owner: Owner,
    store: ManagerStore,
}

fn set(id: u64) -> ScaleSet {
    scale_set(id)
}

impl Scene {
    fn new() -> Self {
        Self {
            feed: Feed::default(),
            timeline: Timeline::default(),
            places: (1..=4).map(|id| (ScaleSetId(id), set(id).place().unwrap())).collect(),
            owner: Owner::new("garm-c1"),
            store: Store::in_memory().unwrap().for_manager(&ManagerName::new("m")),
        }
    }
    fn give(&mut self, facts: &[LogFact]) -> Vec<LedgerChange> {
        let known = Known { timeline: &self.timeline, places: &self.places, owner: Some(&self.owner) };
        let changes = self.feed.absorb(facts, known);
        self.store.apply(&changes).unwrap();
        changes
    }
    fn tell(&mut self, at: u64, what: LogEvent) -> Vec<LedgerChange> {
        self.give(&[LogFact { at: Wall(at), what }])
    }
    fn row(&self, id: &str) -> Option<LedgerSession> {
        self.store.session(&SessionId::new(id)).unwrap()
    }
    fn stale(&self, id: u64, current: Incarnation) -> Result<SessionId, Vec<NotStale>> {
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(current), owner: Some(&self.owner) };
        let rows = self.store.live_sessions().unwrap();
        let rows = rows.iter().filter(|row| row.set == ScaleSetId(id));
        newest_is_stale(rows, &set(id), manager).map(|proof| proof.session().clone())
    }
}

fn id(n: u64) -> LogSet {
    LogSet::Manager(ScaleSetId(n))
}
fn opened(n: u64, session: &str) -> LogEvent {
    LogEvent::SessionOpened { set: id(n), session: SessionId::new(session) }
}
fn held(n: u64, session: &str) -> LogEvent {
    LogEvent::SessionHeld { set: id(n), session: SessionId::new(session) }
}
fn closing(n: u64) -> LogEvent {
    LogEvent::SessionClosing { set: id(n) }
}
fn stopped(n: u64) -> LogEvent {
    LogEvent::ListenerStopped { set: id(n) }
}

#[test]
fn after_a_recorded_kill_every_session_is_proven_stale_and_after_recovery_none() {
    for build in BUILDS {
        let mut scene = Scene::new();
        for number in ["01", "02", "03"] {
            scene.give(&recorded(build, number));
        }
        let first = scene.feed.run_started.map(Incarnation).unwrap();
        for n in 1..=4 {
            assert!(scene.stale(n, first).unwrap_err().contains(&NotStale::SameRun), "{build}: they are in use");
        }
        scene.give(&recorded(build, "04"));
        let second = scene.feed.run_started.map(Incarnation).unwrap();
        assert!(second > first);
        let mut proven: Vec<_> = (1..=4).map(|n| scene.stale(n, second).unwrap()).collect();
        proven.sort();
        proven.dedup();
        assert_eq!(proven.len(), 4, "{build}");
        for number in ["05", "06", "07"] {
            scene.give(&recorded(build, number));
        }
        for n in 1..=4 {
            assert!(scene.stale(n, second).is_err(), "{build}: set {n} listens again");
        }
        // Nobody deleted the old ones: they ended by themselves.
        for session in proven {
            assert_eq!(scene.store.session(&session).unwrap().unwrap().ended.unwrap().1, SessionEnd::Expired);
        }
    }
}

#[test]
fn after_a_recorded_clean_stop_nothing_is_left_open() {
    for build in BUILDS {
        let mut scene = Scene::new();
        for number in ["08", "09", "10"] {
            scene.give(&recorded(build, number));
        }
        let ends: Vec<_> =
            [1, 2, 4].into_iter().map(|n| scene.store.of_set(ScaleSetId(n)).unwrap()[0].ended.unwrap().1).collect();
        assert_eq!(ends.iter().filter(|end| **end == SessionEnd::Closed).count(), ends.len(), "{build}: {ends:?}");
        // The third party's deletion was seen by the poll that failed.
        let evicted = scene.store.of_set(ScaleSetId(1)).unwrap().pop().unwrap();
        assert_eq!(evicted.ended.unwrap().1, SessionEnd::Expired, "{build}");
        // The panic took the others with it: the next run proves them stale.
        scene.give(&recorded(build, "11"));
        let current = scene.feed.run_started.map(Incarnation).unwrap();
        for n in [2, 4] {
            assert!(scene.stale(n, current).is_ok(), "{build} set {n}");
        }
        assert!(scene.stale(1, current).is_err(), "{build}: set 1 listens");
    }
}

#[test]
fn a_scraped_start_refines_the_logs_and_the_logs_alone_will_do() {
    let mut scene = Scene::new();
    scene.timeline.observe(Incarnation(Wall(99_000)), Wall(150_000));
    scene.tell(100_000, LogEvent::ManagerStarted);
    scene.tell(101_000, opened(1, "a1"));
    assert_eq!(scene.row("a1").unwrap().opened_by, OpenedBy::Manager(Incarnation(Wall(99_000))));
    // A second run that was never scraped.
    scene.tell(900_000, LogEvent::ManagerStarted);
    scene.tell(901_000, opened(1, "a2"));
    assert_eq!(scene.row("a2").unwrap().opened_by, OpenedBy::Manager(Incarnation(Wall(900_000))));
    assert_eq!(scene.row("a1").unwrap().ended, Some((Wall(901_000), SessionEnd::Expired)));
}

#[test]
fn a_living_session_is_never_proven_stale_by_what_a_late_scrape_or_a_lost_start_line_says() {
    // The scrape still shows the old process when the new one's session opens.
    let mut scene = Scene::new();
    let (old, new) = (Incarnation(Wall(100_000)), Incarnation(Wall(500_000)));
    scene.timeline.observe(old, Wall(499_000));
    scene.tell(101_000, LogEvent::ManagerStarted);
    // The new run's start line was lost.
    scene.tell(500_100, opened(1, "b1"));
    assert!(scene.stale(1, new).is_err());
    assert!(scene.stale(1, old).is_err());
    // Without any start line: attributed only between two sights of one process.
    let mut scene = Scene::new();
    scene.timeline.observe(old, Wall(499_000));
    scene.tell(500_100, opened(1, "b1"));
    assert_eq!(scene.row("b1"), None);
    scene.timeline.observe(new, Wall(510_000));
    scene.give(&[]);
    assert_eq!(scene.row("b1"), None, "half a second after the start is too close to call");
    scene.tell(560_000, held(2, "c1"));
    scene.timeline.observe(new, Wall(570_000));
    scene.give(&[]);
    assert_eq!(scene.row("c1").unwrap().opened_by, OpenedBy::Manager(new));
    // Once the run is over without that, it is unknown for good.
    scene.tell(600_000, LogEvent::ManagerStarted);
    assert_eq!(scene.row("b1").unwrap().opened_by, OpenedBy::UnknownIncarnation);
    assert!(scene.stale(1, Incarnation(Wall(600_000))).unwrap_err().contains(&NotStale::OpeningRunUnknown));
}

#[test]
fn a_close_counts_when_it_has_happened() {
    let mut scene = Scene::new();
    scene.tell(1_000, LogEvent::ManagerStarted);
    for n in 1..=4 {
        scene.tell(2_000, opened(n, &format!("d{n}")));
        scene.tell(3_000, closing(n));
    }
    assert!((1..=4).all(|n| scene.row(&format!("d{n}")).unwrap().ended.is_none()), "a hanging DELETE is no end");
    scene.tell(3_100, stopped(1));
    assert_eq!(scene.row("d1").unwrap().ended, Some((Wall(3_000), SessionEnd::Closed)));
    let kind = ListenerErrorKind::Network;
    scene.tell(3_100, LogEvent::SessionCloseFailed { set: id(2), kind });
    scene.tell(3_200, stopped(2));
    assert_eq!(scene.row("d2").unwrap().ended, None, "it may live on at the forge");
    let kind = ListenerErrorKind::NotFound;
    scene.tell(3_100, LogEvent::SessionCloseFailed { set: id(3), kind });
    assert_eq!(scene.row("d3").unwrap().ended, Some((Wall(3_100), SessionEnd::Expired)));
    scene.tell(4_000, opened(4, "d5"));
    assert_eq!(scene.row("d4").unwrap().ended, Some((Wall(3_000), SessionEnd::Closed)));
    // A stop without a close says nothing about the session.
    scene.tell(5_000, stopped(4));
    assert_eq!(scene.row("d5").unwrap().ended, None);
}

#[test]
fn a_session_waits_for_its_set_and_owner_and_loses_nothing_meanwhile() {
    let mut scene = Scene::new();
    let places = std::mem::take(&mut scene.places);
    scene.tell(1_000, LogEvent::ManagerStarted);
    scene.tell(2_000, opened(1, "e1"));
    scene.tell(2_500, held(1, "e1"));
    scene.tell(3_000, closing(1));
    scene.tell(3_001, stopped(1));
    assert_eq!((scene.row("e1"), scene.feed.waiting()), (None, 1));
    scene.places = places;
    scene.give(&[]);
    let row = scene.row("e1").unwrap();
    assert_eq!((row.first_seen, row.last_seen), (Wall(2_000), Wall(2_500)));
    assert_eq!(row.ended, Some((Wall(3_000), SessionEnd::Closed)));
    assert_eq!(scene.feed.waiting(), 0);
}

#[test]
fn signs_of_life_move_the_last_date_and_a_late_word_of_the_session_before_does_nothing() {
    let mut scene = Scene::new();
    scene.tell(1_000, LogEvent::ManagerStarted);
    scene.tell(2_000, opened(1, "f1"));
    scene.tell(62_000, held(1, "f1"));
    assert_eq!(scene.row("f1").unwrap().last_seen, Wall(62_000));
    scene.tell(70_000, opened(1, "f2"));
    assert_eq!(scene.tell(70_001, held(1, "f1")), []);
    assert_eq!(scene.row("f1").unwrap().ended, Some((Wall(70_000), SessionEnd::Unknown)));
    assert_eq!(scene.row("f2").unwrap().ended, None);
}

#[test]
fn a_restart_of_ours_goes_on_from_the_evidence_and_the_ledger() {
    let build = BUILDS[1];
    let mut whole = Scene::new();
    let mut pieces = Scene::new();
    let mut evidence = LogEvidence::default();
    for number in ["01", "03", "04", "05", "06", "07"] {
        for fact in recorded(build, number) {
            whole.give(std::slice::from_ref(&fact));
            evidence.absorb(&fact);
            pieces.give(&[fact]);
            // A close on its way is forgotten at a restart; otherwise nothing is.
            if !pieces.feed.latest.values().any(|latest| latest.closing.is_some()) {
                pieces.feed = Feed::resume(&evidence, &pieces.store.live_sessions().unwrap());
            }
        }
    }
    for n in 1..=4 {
        let (a, b) = (whole.store.of_set(ScaleSetId(n)).unwrap(), pieces.store.of_set(ScaleSetId(n)).unwrap());
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert_eq!((&a.id, a.opened_by, a.ended), (&b.id, b.opened_by, b.ended), "set {n}");
        }
    }
    // What waited is not forgotten either.
    let places = std::mem::take(&mut pieces.places);
    let open = opened(1, "99999999");
    evidence.absorb(&LogFact { at: Wall(u64::MAX / 2), what: open.clone() });
    pieces.tell(u64::MAX / 2, open);
    pieces.feed = Feed::resume(&evidence, &pieces.store.live_sessions().unwrap());
    pieces.places = places;
    pieces.give(&[]);
    assert!(pieces.row("99999999").is_some());
}

#[test]
fn what_waits_and_what_is_remembered_is_bounded() {
    let mut scene = Scene::new();
    scene.places.clear();
    for n in 0..WAITING_MAX as u64 + 100 {
        scene.tell(n, opened(n, &format!("{n:08}")));
        scene.timeline.observe(Incarnation(Wall(n)), Wall(n));
    }
    assert_eq!(scene.feed.waiting(), WAITING_MAX);
    assert_eq!(scene.timeline.runs.len(), RUNS_MAX);
}
