use super::*;
use crate::log::parse::Parser;
use crate::testing::{BUILDS, recorded_log};
use medic_core::decide::stale::{CurrentManager, newest_is_stale};
use medic_core::decide::testing::scale_set;
use medic_core::model::session::NotStale;
use medic_core::model::{ManagerName, ManagerState};
use medic_store::{ManagerStore, Store};

fn recorded(build: &str, number: &str) -> Vec<LogFact> {
    let mut parser = Parser::default();
    recorded_log(build, number).split(|b| *b == b'\n').filter_map(|line| parser.line(line)).collect()
}

/// A manager with a real ledger.
struct Fixture {
    feed: Feed,
    timeline: Timeline,
    places: BTreeMap<ScaleSetId, GithubPlace>,
    owner: Owner,
    store: ManagerStore,
}

impl Fixture {
    fn new() -> Self {
        Self {
            feed: Feed::default(),
            timeline: Timeline::default(),
            places: (1..=4).map(|id| (ScaleSetId(id), scale_set(id).place().unwrap())).collect(),
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
    fn log(&mut self, at: u64, what: LogEvent) -> Vec<LedgerChange> {
        self.give(&[LogFact { at: Wall(at), what }])
    }
    fn row(&self, id: &str) -> Option<LedgerSession> {
        self.store.session(&SessionId::new(id)).unwrap()
    }
    fn of_set(&self, set: u64) -> Vec<LedgerSession> {
        self.store.sessions().unwrap().into_iter().filter(|row| row.set.0 == set).collect()
    }
    fn stale(&self, id: u64, current: Incarnation) -> Result<SessionId, Vec<NotStale>> {
        let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(current), owner: Some(&self.owner) };
        let rows = self.store.live_sessions().unwrap();
        let rows = rows.iter().filter(|row| row.set == ScaleSetId(id));
        newest_is_stale(rows, &scale_set(id), manager).map(|proof| proof.session().clone())
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
fn sessions_are_stale_after_a_recorded_kill_until_recovery() {
    for build in BUILDS {
        let mut fixture = Fixture::new();
        for number in ["01", "02", "03"] {
            fixture.give(&recorded(build, number));
        }
        let first = fixture.feed.run_started.map(Incarnation).unwrap();
        for n in 1..=4 {
            assert!(fixture.stale(n, first).unwrap_err().contains(&NotStale::SameRun), "{build}: they are in use");
        }
        fixture.give(&recorded(build, "04"));
        let second = fixture.feed.run_started.map(Incarnation).unwrap();
        assert!(second > first);
        let mut proven: Vec<_> = (1..=4).map(|n| fixture.stale(n, second).unwrap()).collect();
        proven.sort();
        proven.dedup();
        assert_eq!(proven.len(), 4, "{build}");
        for number in ["05", "06", "07"] {
            fixture.give(&recorded(build, number));
        }
        for n in 1..=4 {
            assert!(fixture.stale(n, second).is_err(), "{build}: set {n} listens again");
        }
        // Nobody deleted the old ones: they expired.
        for session in proven {
            assert_eq!(fixture.row(session.as_str()).unwrap().ended.unwrap().1, SessionEnd::Expired);
        }
    }
}

#[test]
fn recorded_clean_stop_leaves_no_session_open() {
    for build in BUILDS {
        let mut fixture = Fixture::new();
        for number in ["08", "09", "10"] {
            fixture.give(&recorded(build, number));
        }
        let ends = [1, 2, 4].map(|n| fixture.of_set(n)[0].ended.unwrap().1);
        assert_eq!(ends, [SessionEnd::Closed; 3], "{build}");
        // The third party's deletion was seen by the poll that failed.
        let evicted = fixture.of_set(1).pop().unwrap();
        assert_eq!(evicted.ended.unwrap().1, SessionEnd::Expired, "{build}");
        // The panic ended the others: the next run proves them stale.
        fixture.give(&recorded(build, "11"));
        let current = fixture.feed.run_started.map(Incarnation).unwrap();
        for n in [2, 4] {
            assert!(fixture.stale(n, current).is_ok(), "{build} set {n}");
        }
        assert!(fixture.stale(1, current).is_err(), "{build}: set 1 listens");
    }
}

#[test]
fn incarnation_comes_from_the_log_refined_by_a_scrape() {
    let mut fixture = Fixture::new();
    fixture.timeline.observe(Incarnation(Wall(99_000)), Wall(150_000));
    fixture.log(100_000, LogEvent::ManagerStarted);
    fixture.log(101_000, opened(1, "a1"));
    assert_eq!(fixture.row("a1").unwrap().opened_by, OpenedBy::Manager(Incarnation(Wall(99_000))));
    // A second run that was never scraped.
    fixture.log(900_000, LogEvent::ManagerStarted);
    fixture.log(901_000, opened(1, "a2"));
    assert_eq!(fixture.row("a2").unwrap().opened_by, OpenedBy::Manager(Incarnation(Wall(900_000))));
    assert_eq!(fixture.row("a1").unwrap().ended, Some((Wall(901_000), SessionEnd::Expired)));
}

#[test]
fn late_scrape_or_lost_start_line_proves_nothing_stale() {
    // The scrape still shows the old process when the new one's session opens.
    let mut fixture = Fixture::new();
    let (old, new) = (Incarnation(Wall(100_000)), Incarnation(Wall(500_000)));
    fixture.timeline.observe(old, Wall(499_000));
    fixture.log(101_000, LogEvent::ManagerStarted);
    // The new run's start line was lost.
    fixture.log(500_100, opened(1, "b1"));
    assert!(fixture.stale(1, new).is_err());
    assert!(fixture.stale(1, old).is_err());
    // Without any start line: attributed only between two sights of one process.
    let mut fixture = Fixture::new();
    fixture.timeline.observe(old, Wall(499_000));
    fixture.log(500_100, opened(1, "b1"));
    assert_eq!(fixture.row("b1"), None);
    fixture.timeline.observe(new, Wall(510_000));
    fixture.give(&[]);
    assert_eq!(fixture.row("b1"), None, "half a second after the start is too close to call");
    fixture.log(560_000, held(2, "c1"));
    fixture.timeline.observe(new, Wall(570_000));
    fixture.give(&[]);
    assert_eq!(fixture.row("c1").unwrap().opened_by, OpenedBy::Manager(new));
    // Once the run is over without that, it is unknown for good.
    fixture.log(600_000, LogEvent::ManagerStarted);
    assert_eq!(fixture.row("b1").unwrap().opened_by, OpenedBy::UnknownIncarnation);
    assert!(fixture.stale(1, Incarnation(Wall(600_000))).unwrap_err().contains(&NotStale::OpeningRunUnknown));
}

#[test]
fn announced_close_is_no_end() {
    let mut fixture = Fixture::new();
    fixture.log(1_000, LogEvent::ManagerStarted);
    for n in 1..=4 {
        fixture.log(2_000, opened(n, &format!("d{n}")));
        fixture.log(3_000, closing(n));
    }
    assert!((1..=4).all(|n| fixture.row(&format!("d{n}")).unwrap().ended.is_none()), "a hanging DELETE is no end");
    fixture.log(3_100, stopped(1));
    assert_eq!(fixture.row("d1").unwrap().ended, Some((Wall(3_000), SessionEnd::Closed)));
    let kind = ListenerErrorKind::Network;
    fixture.log(3_100, LogEvent::SessionCloseFailed { set: id(2), kind });
    fixture.log(3_200, stopped(2));
    assert_eq!(fixture.row("d2").unwrap().ended, None, "it may still exist at GitHub");
    let kind = ListenerErrorKind::NotFound;
    fixture.log(3_100, LogEvent::SessionCloseFailed { set: id(3), kind });
    assert_eq!(fixture.row("d3").unwrap().ended, Some((Wall(3_100), SessionEnd::Expired)));
    fixture.log(4_000, opened(4, "d5"));
    assert_eq!(fixture.row("d4").unwrap().ended, Some((Wall(3_000), SessionEnd::Closed)));
    // A stop without a close says nothing about the session.
    fixture.log(5_000, stopped(4));
    assert_eq!(fixture.row("d5").unwrap().ended, None);
}

#[test]
fn session_waits_for_its_set_and_owner() {
    let mut fixture = Fixture::new();
    let places = std::mem::take(&mut fixture.places);
    fixture.log(1_000, LogEvent::ManagerStarted);
    fixture.log(2_000, opened(1, "e1"));
    fixture.log(2_500, held(1, "e1"));
    fixture.log(3_000, closing(1));
    fixture.log(3_001, stopped(1));
    assert_eq!((fixture.row("e1"), fixture.feed.waiting()), (None, 1));
    fixture.places = places;
    fixture.give(&[]);
    let row = fixture.row("e1").unwrap();
    assert_eq!((row.first_seen, row.last_seen), (Wall(2_000), Wall(2_500)));
    assert_eq!(row.ended, Some((Wall(3_000), SessionEnd::Closed)));
    assert_eq!(fixture.feed.waiting(), 0);
}

#[test]
fn late_line_of_the_previous_session_is_ignored() {
    let mut fixture = Fixture::new();
    fixture.log(1_000, LogEvent::ManagerStarted);
    fixture.log(2_000, opened(1, "f1"));
    fixture.log(62_000, held(1, "f1"));
    assert_eq!(fixture.row("f1").unwrap().last_seen, Wall(62_000));
    fixture.log(70_000, opened(1, "f2"));
    assert_eq!(fixture.log(70_001, held(1, "f1")), []);
    assert_eq!(fixture.row("f1").unwrap().ended, Some((Wall(70_000), SessionEnd::Unknown)));
    assert_eq!(fixture.row("f2").unwrap().ended, None);
}

#[test]
fn restart_resumes_from_evidence_and_ledger() {
    let build = BUILDS[1];
    let mut whole = Fixture::new();
    let mut pieces = Fixture::new();
    let mut evidence = LogEvidence::default();
    for number in ["01", "03", "04", "05", "06", "07"] {
        for fact in recorded(build, number) {
            whole.give(std::slice::from_ref(&fact));
            evidence.absorb(&fact);
            pieces.give(&[fact]);
            // An announced close is forgotten at a restart, nothing else.
            if !pieces.feed.latest.values().any(|latest| latest.closing.is_some()) {
                pieces.feed = Feed::resume(&evidence, &pieces.store.live_sessions().unwrap());
            }
        }
    }
    for n in 1..=4 {
        let (a, b) = (whole.of_set(n), pieces.of_set(n));
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert_eq!((&a.id, a.opened_by, a.ended), (&b.id, b.opened_by, b.ended), "set {n}");
        }
    }
    // Nor is a waiting session.
    let places = std::mem::take(&mut pieces.places);
    let open = opened(1, "99999999");
    evidence.absorb(&LogFact { at: Wall(u64::MAX / 2), what: open.clone() });
    pieces.log(u64::MAX / 2, open);
    pieces.feed = Feed::resume(&evidence, &pieces.store.live_sessions().unwrap());
    pieces.places = places;
    pieces.give(&[]);
    assert!(pieces.row("99999999").is_some());
}

#[test]
fn waiting_sessions_and_incarnations_are_bounded() {
    let mut fixture = Fixture::new();
    fixture.places.clear();
    for n in 0..WAITING_MAX as u64 + 100 {
        fixture.log(n, opened(n, &format!("{n:08}")));
        fixture.timeline.observe(Incarnation(Wall(n)), Wall(n));
    }
    assert_eq!(fixture.feed.waiting(), WAITING_MAX);
    assert_eq!(fixture.timeline.incarnations.len(), INCARNATIONS_MAX);
}
