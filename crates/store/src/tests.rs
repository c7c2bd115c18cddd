use super::ledger::StaleLifetime;
use super::sql::uint;
use super::*;
use medic_core::decide::testing::{check, closed, hours, ledger_session, mins, open, scale_set};
use medic_core::model::log_fact::{LogEvidence, LogPosition};
use medic_core::model::manual::{MANUAL_HEAL_LIFETIME, ManualAction, ManualHealAnswer, ManualWait, Refusal};
use medic_core::model::pause::PauseScope;
use medic_core::model::session::{LedgerChange, LedgerSession, OpenedBy, SessionEnd};
use medic_core::model::{
    Entity, EntityKind, GithubId, GithubPlace, Incarnation, Outcome, Owner, Remedy, Revision, ScaleSetId, SessionId,
    Step, Treatment, TreatmentId,
};
use medic_core::ports::write::Journal;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

const RUN: Incarnation = Incarnation(Wall(1_000));

/// A state directory; every [`Home::open`] is what another process would have.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn dir(&self) -> PathBuf {
        self.0.path().join("state")
    }
    fn file(&self) -> PathBuf {
        self.dir().join(FILE_NAME)
    }
    fn store(&self) -> Store {
        Store::open(&self.dir()).unwrap()
    }
    fn open(&self) -> ManagerStore {
        self.store().for_manager(&ManagerName::new("garm"))
    }
    /// What opening says of a file with these bytes, which must stay as they are.
    fn refusal(bytes: &[u8]) -> StoreError {
        let home = Self::new();
        std::fs::create_dir(home.dir()).unwrap();
        std::fs::write(home.file(), bytes).unwrap();
        let error = Store::open(&home.dir()).unwrap_err();
        assert_eq!(std::fs::read(home.file()).unwrap(), bytes, "a refused file stays as it is");
        error
    }
    /// The bytes of a sound file with something in it.
    fn sound() -> Vec<u8> {
        let home = Self::new();
        let store = home.open();
        for set in 1..=200 {
            Journal::open(&store, verifying(set, 5)).unwrap();
        }
        drop(store);
        std::fs::read(home.file()).unwrap()
    }
}

fn verifying(set: u64, opened: u64) -> Treatment {
    open(0, set, Wall(opened), Step::Verifying)
}

fn memory() -> ManagerStore {
    Store::in_memory().unwrap().for_manager(&ManagerName::new("garm"))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn everything_survives_a_reopening() {
    let home = Home::new();
    let (treatment, session, pause);
    {
        let store = home.open();
        treatment = Journal::open(&store, verifying(1, 5)).unwrap();
        session = ledger_session(1, "s1", RUN, Wall(2_000));
        store.see(&session).unwrap();
        store.save_state("{\"a\":1}").unwrap();
        store.save_breaker_reset(Wall(9)).unwrap();
        store.append(Wall(7), "note", Some(ScaleSetId(1)), &serde_json::json!({"x": 1})).unwrap();
        store.record_stale_lifetime(ScaleSetId(1), Span::secs(61), Wall(8)).unwrap();
        let wanted = NewPause {
            scope: PauseScope::All,
            reason: "work".to_owned(),
            author: "me".to_owned(),
            created: Wall(1),
            expires: None,
        };
        pause = store.store().add_pause(wanted).unwrap();
        assert_eq!(store.store().acquire("one", Wall(1), Span::secs(60)).unwrap(), LeaseState::Held);
    }
    let store = home.open();
    assert_eq!(store.unfinished().unwrap(), [treatment]);
    assert_eq!(store.live().unwrap(), [session]);
    assert_eq!(store.load_state().unwrap().unwrap(), "{\"a\":1}");
    assert_eq!(store.breaker_reset().unwrap(), Some(Wall(9)));
    let all = HistoryFilter { set: None, since: Wall(0), limit: 10 };
    assert_eq!(store.history(all).unwrap()[0].detail, serde_json::json!({"x": 1}));
    let lifetime = StaleLifetime { set: ScaleSetId(1), span: Span::secs(61), at: Wall(8) };
    assert_eq!(store.stale_lifetimes(5).unwrap(), [lifetime]);
    assert_eq!(store.store().pauses(Wall(100)).unwrap(), [pause]);
    assert_eq!(store.store().lease_holder(Wall(2)).unwrap().unwrap().0, "one");
}

#[test]
fn directory_and_files_are_for_the_owner_only() {
    let home = Home::new();
    let store = home.open();
    store.save_state("x").unwrap();
    assert_eq!((mode(&home.dir()), mode(&home.file())), (0o700, 0o600));
    for entry in std::fs::read_dir(home.dir()).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    // A file that was made too open is put right; a directory may be a volume's, and is left alone.
    drop(store);
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(home.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    home.open();
    assert_eq!((mode(&home.dir()), mode(&home.file())), (0o755, 0o600));
}

#[test]
fn a_file_that_is_not_a_sound_store_is_refused_with_the_reason() {
    assert_eq!(Home::refusal(b"this is no database at all, and long enough to tell").kind, StoreErrorKind::Corrupt);
    let sound = Home::sound();
    for keep in [sound.len() / 2, sound.len() - 4096, 4096 + 100] {
        assert_eq!(Home::refusal(&sound[..keep]).kind, StoreErrorKind::Corrupt, "cut to {keep} bytes");
    }
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    let error = Home::refusal(&newer);
    assert_eq!(error.kind, StoreErrorKind::NewerSchema);
    assert!(error.to_string().contains("version 99"), "{error}");
    let mut foreign = sound;
    foreign[68..72].copy_from_slice(&7_u32.to_be_bytes());
    assert_eq!(Home::refusal(&foreign).kind, StoreErrorKind::Foreign);
}

/// A state file as schema version 3 had it, with an open treatment at each step.
const VERSION_3: &str = include_str!("../fixtures/v3.sql");

impl Home {
    fn of_version_3() -> Self {
        let home = Self::new();
        std::fs::create_dir(home.dir()).unwrap();
        Connection::open(home.file()).unwrap().execute_batch(VERSION_3).unwrap();
        home
    }
}

/// Where the sets of that file are at GitHub.
fn place_of_version_3(set: u64) -> GithubPlace {
    let entity = Entity { kind: EntityKind::Repository, name: "acme/app".to_owned() };
    GithubPlace { entity, ..scale_set(set).place().unwrap() }
}

#[test]
fn migration_keeps_treatments_of_version_3_at_their_steps() {
    let home = Home::of_version_3();
    let store = home.open();
    let (at, seen, ours) = (hours(2), Revision::new("r0"), Revision::new("r1"));
    let session = SessionId::new("s-1");
    let deletion = Remedy::DeleteThenToggle { session: session.clone() };
    let check = Remedy::SessionCheck;
    let deleting = Step::Deleting { session, seen: Some(seen.clone()), attempts: 1, not_before: at };
    let opened = Step::CheckOpened { session: SessionId::new("ours-10"), attempts: 1, not_before: at };
    let steps = [
        (deletion, deleting),
        (Remedy::Toggle, Step::Disabling { seen: seen.clone(), sent: None }),
        (Remedy::Toggle, Step::Disabling { seen: seen.clone(), sent: Some(at) }),
        (Remedy::Toggle, Step::DisableUnknown { seen, sent: at }),
        (Remedy::Toggle, Step::Disabled { ours: ours.clone(), again_until: None }),
        (Remedy::Toggle, Step::Disabled { ours: ours.clone(), again_until: Some(at.plus(Span::secs(30))) }),
        (Remedy::Toggle, Step::Enabling { ours, since: Some(at), attempts: 2, not_before: at }),
        (Remedy::Toggle, Step::Verifying),
        (check.clone(), Step::CheckOpening { owner: Owner::of_session_check(ScaleSetId(9), at) }),
        (check, opened),
    ];
    let row = |(n, (remedy, step))| Treatment { remedy, place: Some(place_of_version_3(n)), ..open(n, n, at, step) };
    let mut wanted: Vec<Treatment> = (1..).zip(steps).map(row).collect();
    wanted[7].revived = Some(at);
    assert_eq!(store.unfinished().unwrap(), wanted);
    let intents = store.store().intents_of_others(&[]).unwrap();
    assert_eq!(intents.len(), 9, "all but the one that verifies");
    let closed = |id| store.treatment(TreatmentId(id)).unwrap().unwrap();
    assert_eq!((closed(11).outcome(), closed(12).outcome()), (Some(Outcome::Aborted), Some(Outcome::Held)));
    assert_eq!((closed(12).remedy, closed(12).holder), (Remedy::SessionCheck, Some(Owner::new("garm-c1"))));
    let outcome = store.store.lock().query_row("SELECT outcome FROM treatments WHERE id = 11", [], |row| row.get(0));
    assert_eq!(outcome, Ok("aborted".to_owned()));
    store.record(&wanted[0]).unwrap();
    assert!(Journal::open(&store, verifying(5, 9)).is_err(), "one open treatment per set");
}

#[test]
fn migration_keeps_the_other_records_of_version_3() {
    let home = Home::of_version_3();
    assert_eq!(Store::open_read_only(&home.dir()).unwrap_err().kind, StoreErrorKind::OlderSchema);
    let store = home.open();
    let run = Incarnation(mins(50));
    let manager = ledger_session(1, "s-1", run, hours(1));
    let unknown = LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..ledger_session(2, "s-2", run, hours(1)) };
    let ours = LedgerSession { opened_by: OpenedBy::Medic, ..ledger_session(10, "ours-10", run, hours(2)) };
    let of_file = |row: LedgerSession| LedgerSession { place: place_of_version_3(row.set.0), ..row };
    assert_eq!(store.live().unwrap(), [manager, unknown, ours].map(of_file));
    let (position, evidence) = store.load_log_position("/garm.log").unwrap().unwrap();
    let of_set = evidence.about(ScaleSetId(1), Some("acme/app"), Some(GithubId(101))).unwrap();
    assert_eq!((position.offset, of_set.conflict_count), (u64::MAX, 3));
    assert_eq!((store.breaker_reset().unwrap(), store.load_state().unwrap()), (Some(Wall(9)), None));
    assert_eq!(store.store().pauses(Wall(2)).unwrap().len(), 1);
    let heals = store.manual_heals(hours(2)).unwrap();
    assert_eq!((heals.len(), heals[0].set, &heals[0].what), (1, ScaleSetId(3), &ManualAction::Heal));
    assert_eq!(store.manual_heal_answer(heals[0].id).unwrap(), None);
    let next = store.add_manual_heal(ScaleSetId(4), ManualAction::Heal, "bob", hours(2)).unwrap();
    assert_eq!(next.id.0, 8, "no number is used again");
    assert_eq!(store.newest_snapshot().unwrap(), None);
    let events = store.history(HistoryFilter { set: None, since: Wall(0), limit: 10 }).unwrap();
    let request = &events[0].detail;
    assert_eq!((events[0].kind.as_str(), &request["remedy"]), ("request", &"session_check".into()));
    assert_eq!(request["step"], "check_opened");
    let blocked = &events[1].detail;
    assert_eq!((&blocked["decision"], &blocked["remedy"]["kind"]), (&"blocked".into(), &"session_check".into()));
    assert_eq!(blocked["guards"][0]["guard"], "manager_budget");
    assert_eq!(blocked["guards"][1]["guard"], "entity_limit");
}

#[test]
fn migrated_file_refuses_writes_of_version_3() {
    let home = Home::of_version_3();
    let old = Connection::open(home.file()).unwrap();
    let store = home.open();
    for write in [
        "UPDATE treatments SET closed = 1, outcome = 'failed', is_intent = 0, body = '{}' WHERE id = 5",
        "INSERT INTO treatments (manager, set_id, opened, is_intent, body) VALUES ('garm', 77, 1, 1, '{}')",
        "INSERT INTO sessions (manager, id, set_id, owner, opened_by, place, first_seen, last_seen)
             VALUES ('garm', 's', 1, 'o', 'unknown', '{}', 1, 1)",
    ] {
        assert!(old.execute(write, []).is_err(), "{write}");
    }
    assert_eq!((store.unfinished().unwrap().len(), store.live().unwrap().len()), (10, 3));
}

#[test]
fn migration_of_version_1_takes_a_disable_for_sent() {
    let home = Home::new();
    let step = Step::Disabling { seen: Revision::new("seen"), sent: Some(Wall(7_000)) };
    let mut treatment = serde_json::to_value(open(1, 1, Wall(7_000), step.clone())).unwrap();
    treatment["step"]["sent"] = serde_json::Value::Null;
    std::fs::create_dir(home.dir()).unwrap();
    let mut connection = Connection::open(home.file()).unwrap();
    schema::migrate_to(&mut connection, 1).unwrap();
    let insert = "INSERT INTO treatments VALUES (1, 'garm', 1, 7000, NULL, NULL, 1, ?1)";
    connection.execute(insert, [treatment.to_string()]).unwrap();
    assert_eq!(home.open().unfinished().unwrap()[0].step, step);
}

#[test]
fn an_order_waits_is_answered_once_and_grows_old() {
    let home = Home::new();
    let store = home.open();
    let now = Wall(1_000_000);
    let first = store.add_manual_heal(ScaleSetId(1), ManualAction::Heal, "alice", now).unwrap();
    let session = SessionId::new("s-1");
    let second = store.add_manual_heal(ScaleSetId(2), ManualAction::DeleteSession { session }, "bob", now).unwrap();
    let open = |at| store.manual_heals(at).unwrap();
    assert_eq!(open(now), [first.clone(), second.clone()]);
    store.answer_manual_heal(first.id, &ManualHealAnswer::Waiting { why: ManualWait::Begins }).unwrap();
    assert_eq!(open(now).len(), 2, "it waits");
    let refused = ManualHealAnswer::Refused { why: Refusal::Listens };
    store.answer_manual_heal(first.id, &refused).unwrap();
    assert_eq!((open(now), store.manual_heal_answer(first.id).unwrap()), (vec![second], Some(refused)));
    assert_eq!(open(now.plus(MANUAL_HEAL_LIFETIME)), [], "too old to be carried out");
}

#[test]
fn an_order_is_withdrawn_until_it_is_settled() {
    let home = Home::new();
    let store = home.open();
    let now = Wall(1_000_000);
    let place = |set| store.add_manual_heal(ScaleSetId(set), ManualAction::Heal, "alice", now).unwrap().id;
    let (waiting, taken_up) = (place(1), place(2));
    let waits = ManualHealAnswer::Waiting { why: ManualWait::Begins };
    store.answer_manual_heal(waiting, &waits).unwrap();
    assert_eq!(store.withdraw_manual_heal(waiting).unwrap(), None);
    // A pass that had read it before says so now.
    store.answer_manual_heal(waiting, &waits).unwrap();
    let treating = ManualHealAnswer::Treating { treatment: TreatmentId(7) };
    store.answer_manual_heal(taken_up, &treating).unwrap();
    assert_eq!(store.withdraw_manual_heal(taken_up).unwrap(), Some(treating));
    assert_eq!(store.manual_heals(now).unwrap(), []);
}

#[test]
fn a_state_directory_that_cannot_be_is_told_apart() {
    let home = Home::new();
    let missing = Store::open(&home.dir().join("below")).unwrap_err();
    assert_eq!(missing.kind, StoreErrorKind::Missing);
    std::fs::write(home.dir(), "a file").unwrap();
    assert_eq!(Store::open(&home.dir()).unwrap_err().kind, StoreErrorKind::NotADirectory);
}

#[test]
fn a_row_that_does_not_parse_fails_the_whole_answer() {
    let home = Home::new();
    let store = home.open();
    store.see(&ledger_session(1, "good", RUN, Wall(2_000))).unwrap();
    store.see(&ledger_session(2, "bad", RUN, Wall(2_000))).unwrap();
    Journal::open(&store, verifying(1, 5)).unwrap();
    store
        .store
        .lock()
        .execute_batch(
            "UPDATE sessions SET github_place = '{' WHERE id = 'bad'; UPDATE treatments SET treatment = '[]'",
        )
        .unwrap();
    assert_eq!(store.live().unwrap_err().kind, StoreErrorKind::Corrupt);
    assert_eq!(store.live_sessions().unwrap_err().kind, StoreErrorKind::Corrupt);
    assert!(store.unfinished().unwrap_err().to_string().contains("treatment 1"));
    store.store.lock().execute_batch("UPDATE sessions SET ended_at = 5 WHERE id = 'good'").unwrap();
    assert_eq!(store.session(&SessionId::new("good")).unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[test]
fn two_processes_share_one_file() {
    let home = Home::new();
    let (one, two) = (home.open(), home.open());
    let first = Journal::open(&one, verifying(1, 5)).unwrap();
    assert_eq!(two.unfinished().unwrap(), [first]);
    assert!(Journal::open(&two, verifying(1, 6)).is_err(), "one treatment per set, whoever asks");
    std::thread::scope(|scope| {
        for (store, base) in [(&one, 1_000), (&two, 2_000)] {
            scope.spawn(move || {
                for n in 0..50 {
                    Journal::open(store, verifying(base + n, 7)).unwrap();
                }
            });
        }
    });
    let all = one.since(Wall(0)).unwrap();
    let mut numbers: Vec<u64> = all.iter().map(|treatment| treatment.id.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=101).collect::<Vec<_>>(), "no number twice, none lost");
}

#[test]
fn locked_file_is_a_bounded_wait_and_an_error() {
    let home = Home::new();
    let (one, two) = (home.open(), home.open());
    one.store.lock().execute_batch("BEGIN IMMEDIATE").unwrap();
    two.store.lock().busy_timeout(Duration::ZERO).unwrap();
    let error = two.append(Wall(1), "x", None, &serde_json::Value::Null).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Busy);
    let patience = || two.store.lock().query_row("PRAGMA busy_timeout", [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(patience(), 20, "not for every call of every manager again");
    one.store.lock().execute_batch("ROLLBACK").unwrap();
    two.append(Wall(1), "x", None, &serde_json::Value::Null).unwrap();
    assert_eq!(patience(), 2000);
}

#[test]
fn journal_numbers_are_ordered_and_never_reused() {
    let store = memory();
    let late = Journal::open(&store, verifying(1, 50)).unwrap();
    let early = Journal::open(&store, open(77, 2, Wall(10), Step::Verifying)).unwrap();
    assert_eq!((late.id, early.id), (TreatmentId(1), TreatmentId(2)), "the given number is ignored");
    assert_eq!(store.unfinished().unwrap(), [early.clone(), late.clone()], "oldest first");
    let done = Treatment { id: early.id, ..closed(0, 2, Wall(10), Wall(20), Outcome::Recovered) };
    store.record(&done).unwrap();
    assert_eq!(store.unfinished().unwrap(), [late]);
    for n in 3..=62 {
        Journal::open(&store, closed(0, n, Wall(n), Wall(n), Outcome::Recovered)).unwrap();
    }
    assert_eq!(store.prune(Wall(u64::MAX / 2)).unwrap().treatments, 11);
    assert_eq!(Journal::open(&store, verifying(2, 60)).unwrap().id, TreatmentId(63));
}

#[test]
fn every_step_is_kept_as_it_is() {
    let store = memory();
    let mut treatment = Journal::open(&store, verifying(1, 5)).unwrap();
    let ours = Revision::new("r1");
    let steps = [
        Step::Deleting {
            session: SessionId::new("s"),
            seen: Some(Revision::new("r")),
            attempts: 2,
            not_before: Wall(3),
        },
        Step::Disabling { seen: ours.clone(), sent: None },
        Step::DisableUnknown { seen: ours.clone(), sent: Wall(4) },
        Step::Disabled { ours: ours.clone(), again_until: Some(Wall(5)) },
        Step::Enabling { ours, since: None, attempts: 1, not_before: Wall(9) },
        Step::Verifying,
        Step::Closed { outcome: Outcome::Failed, why: "because".to_owned() },
    ];
    for step in steps {
        treatment.step = step;
        store.record(&treatment).unwrap();
        assert_eq!(store.treatment(treatment.id).unwrap().unwrap(), treatment);
    }
    assert!(store.unfinished().unwrap().is_empty());
    let stranger = Treatment { id: TreatmentId(99), ..treatment };
    let error = store.record(&stranger).unwrap_err();
    assert!(error.to_string().contains("no treatment 99"), "{error}");
}

#[test]
fn budgets_see_what_was_opened_since_closed_or_not() {
    let store = memory();
    for (set, opened) in [(1, 10), (2, 20), (3, 30)] {
        Journal::open(&store, closed(0, set, Wall(opened), Wall(opened + 1), Outcome::Unverified)).unwrap();
    }
    Journal::open(&store, verifying(4, 25)).unwrap();
    let sets = |since: u64| -> Vec<u64> {
        store.since(Wall(since)).unwrap().iter().map(|treatment| treatment.set.0).collect()
    };
    assert_eq!((sets(0), sets(31)), (vec![1, 2, 4, 3], vec![1, 2, 4, 3]), "in order, and the newest however old");
}

#[test]
fn what_must_survive_a_power_cut_is_synced_and_the_rest_is_not() {
    let home = Home::new();
    let store = home.open();
    let level = || store.store.lock().query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).unwrap();
    let journal_mode: String = store.store.lock().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal_mode, "wal");
    let (full, normal) = (2, 1);
    let session = ledger_session(1, "s1", RUN, Wall(2_000));
    let cheap = || store.append(Wall(1), "x", None, &serde_json::Value::Null).unwrap();
    let mut treatment = Journal::open(&store, verifying(1, 5)).unwrap();
    assert_eq!(level(), full);
    cheap();
    assert_eq!(level(), normal);
    treatment.revived = Some(Wall(6));
    store.record(&treatment).unwrap();
    assert_eq!(level(), full);
    cheap();
    store.see(&session).unwrap();
    assert_eq!(level(), full, "a session seen for the first time");
    store.see(&session).unwrap();
    assert_eq!(level(), normal, "a session seen again");
    store.end(&session.id, Wall(9), SessionEnd::Closed).unwrap();
    assert_eq!(level(), full);
    cheap();
    store.store().acquire("one", Wall(1), Span::secs(60)).unwrap();
    assert_eq!(level(), full);
}

#[test]
fn a_medic_that_was_killed_does_not_keep_its_successor_waiting() {
    let home = Home::new();
    let ttl = Span::secs(60);
    let killed = home.store();
    assert_eq!(killed.acquire("killed", Wall(0), ttl).unwrap(), LeaseState::Held);
    let next = home.store();
    assert!(matches!(next.acquire("next", Wall(1), ttl).unwrap(), LeaseState::HeldByOther { .. }), "it lives");
    // As the kernel does for a process that ends in whatever way.
    drop(killed);
    assert_eq!(next.acquire("next", Wall(2), ttl).unwrap(), LeaseState::Held);
    let third = home.store();
    assert!(matches!(third.acquire("third", Wall(3), ttl).unwrap(), LeaseState::HeldByOther { .. }));
}

#[test]
fn a_lease_whose_holder_cannot_be_shown_to_be_dead_runs_out() {
    let home = Home::new();
    let ttl = Span::secs(60);
    let (here, elsewhere) = (home.store(), home.store());
    assert_eq!(here.acquire("here", Wall(0), ttl).unwrap(), LeaseState::Held);
    // Without the lock, as on another machine.
    assert_eq!(elsewhere.acquire("elsewhere", Wall(60_000), ttl).unwrap(), LeaseState::Held);
    drop((here, elsewhere));
    let next = home.store();
    assert!(matches!(next.acquire("next", Wall(60_001), ttl).unwrap(), LeaseState::HeldByOther { .. }));
    assert_eq!(next.acquire("next", Wall(120_000), ttl).unwrap(), LeaseState::Held);
}

#[test]
fn thawed_medic_writes_nothing_after_a_takeover() {
    let home = Home::new();
    let ttl = Span::secs(60);
    let frozen = home.store();
    frozen.acquire("frozen", Wall(0), ttl).unwrap();
    let journal = frozen.for_manager(&ManagerName::new("garm")).fenced("frozen");
    let opened = journal.open(open(0, 7, Wall(1), Step::Verifying)).unwrap();
    let next = home.store();
    assert_eq!(next.acquire("next", Wall(60_000), ttl).unwrap(), LeaseState::Held);
    let error = journal.record(&opened).unwrap_err().to_string();
    assert!(error.contains("lease_lost: next has the lease now; nothing: whoever has the lease settles"), "{error}");
    assert!(journal.open(open(0, 8, Wall(2), Step::Verifying)).is_err());
    next.release("next").unwrap();
    assert!(journal.record(&opened).is_err(), "it may have acted");
    frozen.acquire("frozen", Wall(60_002), ttl).unwrap();
    journal.record(&opened).unwrap();
}

#[test]
fn an_intent_of_a_manager_that_is_watched_no_more_is_found() {
    let store = Home::new().store();
    let (kept, renamed) = (ManagerName::new("kept"), ManagerName::new("renamed"));
    let intent = |set| open(0, set, Wall(1), Step::Disabled { ours: Revision::new("r"), again_until: None });
    store.for_manager(&kept).open(intent(1)).unwrap();
    let lost = store.for_manager(&renamed).open(intent(2)).unwrap();
    store.for_manager(&renamed).open(open(0, 3, Wall(1), Step::Verifying)).unwrap();
    assert_eq!(store.intents_of_others(&[kept]).unwrap(), [(renamed, lost)]);
}

#[test]
fn the_newest_treatments_are_in_view_however_old_they_are() {
    let store = Home::new().store().for_manager(&ManagerName::new("garm"));
    for n in 0..60 {
        store.open(closed(0, n, hours(n), hours(n), Outcome::Unverified)).unwrap();
    }
    let ids = |since| store.since(since).unwrap().into_iter().map(|row| row.set.0).collect::<Vec<_>>();
    assert_eq!(ids(hours(1000)), (10..60).collect::<Vec<_>>());
    assert_eq!(ids(hours(5)), (5..60).collect::<Vec<_>>());
}

#[test]
fn a_lease_is_good_until_its_date_and_no_longer() {
    let home = Home::new();
    let (one, two) = (home.store(), home.store());
    let ttl = Span::secs(30);
    assert_eq!(one.acquire("one", Wall(0), ttl).unwrap(), LeaseState::Held);
    let taken = LeaseState::HeldByOther { holder: "one".to_owned(), until: Wall(30_000) };
    assert_eq!(two.acquire("two", Wall(29_999), ttl).unwrap(), taken);
    assert!(one.renew("one", Wall(20_000), ttl).unwrap());
    assert!(matches!(two.acquire("two", Wall(30_000), ttl).unwrap(), LeaseState::HeldByOther { .. }));
    assert_eq!(two.acquire("two", Wall(50_000), ttl).unwrap(), LeaseState::Held, "the holder died");
    // Even when the other's has expired too: it may have acted.
    assert!([50_001, 90_000].into_iter().all(|at| !one.renew("one", Wall(at), ttl).unwrap()));
    one.release("one").unwrap();
    assert_eq!(one.lease_holder(Wall(60_000)).unwrap(), Some(("two".to_owned(), Wall(80_000))));
    two.release("two").unwrap();
    assert_eq!(one.lease_holder(Wall(60_000)).unwrap(), None);
    assert!(!one.renew("one", Wall(60_000), ttl).unwrap(), "given back by another");
    assert_eq!(one.acquire("one", Wall(60_000), ttl).unwrap(), LeaseState::Held);
    // The clock was set back a day: no ttl could put the date so far ahead.
    assert_eq!(two.acquire("two", Wall(0), ttl).unwrap(), LeaseState::Held);
}

#[test]
fn session_checks_evict_no_heals_from_the_journal() {
    let store = memory();
    let heal = Journal::open(&store, closed(0, 1, Wall(1), Wall(1), Outcome::Unverified)).unwrap();
    for n in 2..=200 {
        Journal::open(&store, check(0, n, Wall(n), Wall(n), Outcome::Held)).unwrap();
    }
    assert_eq!(store.prune_treatments(Wall(0), 100).unwrap(), 99);
    assert_eq!(store.since(Wall(0)).unwrap().first().map(|row| row.id), Some(heal.id));
}

#[test]
fn pruning_keeps_its_bounds_and_never_takes_what_is_still_open() {
    let store = memory();
    let open_one = Journal::open(&store, verifying(500, 0)).unwrap();
    for n in 1..=80 {
        Journal::open(&store, closed(0, n, Wall(n), Wall(n), Outcome::Recovered)).unwrap();
    }
    for n in 1..=20 {
        store.append(Wall(n), "x", None, &serde_json::Value::Null).unwrap();
        let mut session = ledger_session(n, &format!("s{n:02}"), RUN, Wall(n));
        session.last_seen = Wall(n);
        session.ended = (n % 2 == 0).then_some((Wall(n), SessionEnd::Closed));
        store.see(&session).unwrap();
    }
    let mine =
        LedgerSession { opened_by: OpenedBy::Medic, last_seen: Wall(0), ..ledger_session(99, "mine", RUN, Wall(0)) };
    store.see(&mine).unwrap();
    assert_eq!(store.prune_treatments(Wall(5), 100).unwrap(), 4);
    assert_eq!(store.prune_treatments(Wall(5), 60).unwrap(), 16);
    let left: Vec<u64> = store.since(Wall(0)).unwrap().iter().map(|t| t.set.0).collect();
    assert_eq!(left, [vec![open_one.set.0], (21..=80).collect()].concat());
    assert_eq!(store.prune_treatments(Wall(u64::MAX / 2), 10).unwrap(), 10, "fifty tell of the breaker");
    assert_eq!(store.prune_history(Wall(5), 10, 1_000).unwrap(), 10);
    assert_eq!(store.prune_sessions(Wall(5), 100).unwrap(), 4);
    assert_eq!(store.prune_sessions(Wall(5), 9).unwrap(), 8);
    let live: Vec<String> = store.live().unwrap().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(live, ["s05", "s07", "s09", "s11", "s13", "s15", "s17", "s19", "mine"], "the ended go first");
    assert_eq!(store.prune(Wall(0)).unwrap(), Pruned::default());
    assert!(store.prune(Wall(u64::MAX / 2)).unwrap().sessions > 0);
    assert_eq!(store.live().unwrap(), [mine]);
    assert_eq!(store.unfinished().unwrap(), [open_one]);
}

#[test]
fn event_flood_stays_bounded_without_pruning() {
    let store = memory();
    for n in 0..1_100 {
        store.record_stale_lifetime(ScaleSetId(n), Span(n), Wall(n)).unwrap();
    }
    let kept = store.stale_lifetimes(u32::MAX).unwrap();
    assert_eq!((kept.len(), kept[0].set), (1_000, ScaleSetId(1_099)), "the newest, newest first");
}

#[test]
fn the_history_is_filtered_and_ends_with_the_newest() {
    let store = memory();
    for n in 0..10_u64 {
        store.append(Wall(n), "x", Some(ScaleSetId(n % 2)), &serde_json::json!(n)).unwrap();
    }
    let ask = |set: Option<u64>, since: u64, limit: u32| -> Vec<u64> {
        let filter = HistoryFilter { set: set.map(ScaleSetId), since: Wall(since), limit };
        store.history(filter).unwrap().iter().map(|event| event.at.0).collect()
    };
    assert_eq!(ask(None, 0, 3), [7, 8, 9]);
    assert_eq!(ask(Some(0), 3, 100), [4, 6, 8]);
    assert_eq!(ask(Some(5), 0, 100), [0_u64; 0]);
}

#[test]
fn managers_do_not_see_each_others_rows() {
    let store = Store::in_memory().unwrap();
    let (a, b) = (store.for_manager(&ManagerName::new("a")), store.for_manager(&ManagerName::new("b")));
    let treatment = Journal::open(&a, verifying(1, 5)).unwrap();
    Journal::open(&b, verifying(1, 5)).unwrap();
    a.see(&ledger_session(1, "s1", RUN, Wall(1))).unwrap();
    a.save_state("a").unwrap();
    assert!(b.record(&treatment).is_err());
    assert!(!b.end(&SessionId::new("s1"), Wall(2), SessionEnd::Closed).unwrap());
    assert_eq!((b.unfinished().unwrap().len(), b.live().unwrap().len()), (1, 0));
    assert_eq!(b.load_state().unwrap(), None);
    b.prune(Wall(u64::MAX / 2)).unwrap();
    assert_eq!(a.live().unwrap().len(), 1);
}

#[test]
fn memory_and_log_place_come_back_as_they_were() {
    let store = memory();
    assert_eq!((store.load_state().unwrap(), store.load_log_position("/l").unwrap()), (None, None));
    for json in ["{}", "{}", "{\"b\":\"ü\"}"] {
        store.save_state(json).unwrap();
        assert_eq!(store.load_state().unwrap().unwrap(), json);
    }
    let position = LogPosition { device: u64::MAX, inode: 2, offset: 3, tail_hash: u64::MAX, ..LogPosition::default() };
    let mut evidence = LogEvidence { debug: true, ..LogEvidence::default() };
    evidence.by_id.entry(ScaleSetId(1)).or_default().conflict_count = 3;
    store.save_log_position("/l", &position, &evidence).unwrap();
    assert_eq!(store.load_log_position("/l").unwrap(), Some((position, evidence)));
    assert_eq!(store.load_log_position("/other").unwrap(), None);
}

#[test]
fn pauses_end_by_date_by_number_and_by_scope() {
    let store = Store::in_memory().unwrap();
    let set = |scope: PauseScope, expires: Option<u64>| {
        let (reason, author) = ("r".to_owned(), "a".to_owned());
        store.add_pause(NewPause { scope, reason, author, created: Wall(1), expires: expires.map(Wall) }).unwrap()
    };
    let manager = PauseScope::Manager { manager: ManagerName::new("m") };
    let all = set(PauseScope::All, Some(100));
    let one = set(manager.clone(), None);
    assert_eq!(store.pauses(Wall(99)).unwrap(), [all.clone(), one.clone()]);
    assert_eq!(store.pauses(Wall(100)).unwrap(), [one]);
    assert!(store.remove_pause(all.id).unwrap());
    assert!(!store.remove_pause(all.id).unwrap());
    set(manager.clone(), Some(200));
    assert_eq!(store.remove_pauses_of(&manager).unwrap(), 2);
    assert_eq!(store.pauses(Wall(0)).unwrap(), []);
}

#[test]
fn a_session_only_ever_loses_rights() {
    let store = memory();
    let seen = LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..ledger_session(1, "s1", RUN, Wall(100)) };
    store.see(&seen).unwrap();
    // A later, bolder claim about the same session changes nothing but the date.
    let mut bold = ledger_session(2, "s1", RUN, Wall(50));
    bold.last_seen = Wall(900_000);
    store.see(&bold).unwrap();
    let row = store.session(&seen.id).unwrap().unwrap();
    assert_eq!((row.set, row.opened_by, row.first_seen), (ScaleSetId(1), OpenedBy::UnknownIncarnation, Wall(100)));
    assert_eq!(row.last_seen, Wall(900_000));
    assert!(store.end(&seen.id, Wall(7), SessionEnd::DeletedByUs).unwrap());
    assert!(!store.end(&seen.id, Wall(8), SessionEnd::Expired).unwrap(), "the first end stays");
    store.see(&seen).unwrap();
    let row = store.session(&seen.id).unwrap().unwrap();
    assert_eq!((row.ended, row.last_seen), (Some((Wall(7), SessionEnd::DeletedByUs)), Wall(900_000)));
    assert_eq!(store.live().unwrap(), []);
}

#[test]
fn the_proof_gets_live_sessions_and_whatever_came_after_them() {
    let store = memory();
    let ended = |session: LedgerSession| LedgerSession { ended: Some((Wall(9_000), SessionEnd::Closed)), ..session };
    for session in [
        ended(ledger_session(1, "old", RUN, Wall(100))),
        ledger_session(1, "open", RUN, Wall(200)),
        ended(ledger_session(1, "newer", RUN, Wall(300))),
        ended(ledger_session(2, "only", RUN, Wall(300))),
        ledger_session(3, "live", RUN, Wall(50)),
    ] {
        store.see(&session).unwrap();
    }
    let ids: Vec<String> = store.live_sessions().unwrap().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(ids, ["open", "newer", "live"]);
}

/// What the ledger should hold, written down in the plainest way.
#[derive(Default)]
struct Model(BTreeMap<String, LedgerSession>);

impl Model {
    fn apply(&mut self, change: &LedgerChange) {
        match change {
            LedgerChange::See(session) => {
                let row = self.0.entry(session.id.to_string()).or_insert_with(|| session.clone());
                row.last_seen = row.last_seen.max(session.last_seen);
                row.ended = row.ended.or(session.ended);
            }
            LedgerChange::Alive { session, at } => {
                if let Some(row) = self.0.get_mut(session.as_str()).filter(|row| row.ended.is_none()) {
                    row.last_seen = row.last_seen.max(*at);
                }
            }
            LedgerChange::End { session, at, how } => {
                if let Some(row) = self.0.get_mut(session.as_str()) {
                    row.ended = row.ended.or(Some((*at, *how)));
                }
            }
        }
    }
}

fn change() -> impl Strategy<Value = LedgerChange> {
    let ends = proptest::sample::select(SessionEnd::ALL.to_vec());
    (0..4_u8, 0..6_u64, 0..1_000_u64, ends).prop_map(|(kind, n, at, how)| {
        let (session, at) = (SessionId::new(format!("s{n}")), Wall(at));
        match kind {
            0 => LedgerChange::See(ledger_session(n % 3, session.as_str(), RUN, at)),
            1 => {
                let seen = ledger_session(n % 3, session.as_str(), RUN, at);
                LedgerChange::See(LedgerSession { ended: Some((at, how)), ..seen })
            }
            2 => LedgerChange::Alive { session, at },
            _ => LedgerChange::End { session, at, how },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_its_rules_say(batches in proptest::collection::vec(proptest::collection::vec(change(), 0..6), 0..8)) {
        let store = memory();
        let mut model = Model::default();
        for batch in &batches {
            store.apply(batch).unwrap();
            for change in batch {
                model.apply(change);
            }
        }
        for (id, wanted) in &model.0 {
            let row = store.session(&SessionId::new(id.clone())).unwrap();
            prop_assert_eq!(row.as_ref(), Some(wanted));
        }
        let live = model.0.values().filter(|row| row.ended.is_none()).count();
        prop_assert_eq!(store.live().unwrap().len(), live);
    }
}

#[test]
fn read_only_store_creates_and_changes_nothing() {
    let home = Home::new();
    assert!(Store::open_read_only(&home.dir()).unwrap().is_none());
    assert!(!home.dir().exists());
    let writer = home.open();
    Journal::open(&writer, verifying(1, 5)).unwrap();
    let look = Store::open_read_only(&home.dir()).unwrap().unwrap().for_manager(&ManagerName::new("garm"));
    assert_eq!(look.unfinished().unwrap().len(), 1);
    assert!(Journal::open(&look, verifying(2, 5)).is_err());
    assert_eq!(writer.unfinished().unwrap().len(), 1);
}

#[test]
fn a_damaged_file_is_told_to_whoever_only_looks() {
    let home = Home::new();
    std::fs::create_dir(home.dir()).unwrap();
    std::fs::write(home.file(), b"not a database at all, however long it is").unwrap();
    assert_eq!(Store::open_read_only(&home.dir()).unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[test]
fn snapshots_are_pruned_by_age_count_and_size() {
    let store = memory();
    assert_eq!((store.newest_snapshot().unwrap(), store.snapshots(Wall(0)).unwrap()), (None, vec![]));
    let json = |n: u64| format!("{{\"n\":{n},\"ü\":\"{}\"}}", "x".repeat(1_000));
    for n in 1..=6 {
        store.append_snapshot(Wall(n), &json(n)).unwrap();
    }
    let ids = store.snapshots(Wall(3)).unwrap();
    assert_eq!((ids.len(), store.snapshot(ids[0]).unwrap()), (4, Some(json(3))));
    assert_eq!(store.newest_snapshot().unwrap(), Some(json(6)));
    assert_eq!(store.prune_snapshots(Wall(2), 4, u64::MAX >> 1).unwrap(), 2, "by age, then by count");
    assert_eq!((store.snapshot(ids[0]).unwrap(), store.snapshot(1).unwrap()), (Some(json(3)), None));
    assert_eq!(store.prune_snapshots(Wall(0), 100, 2 * json(6).len() as u64).unwrap(), 2, "by size");
    assert_eq!(store.prune_snapshots(Wall(0), 100, 1).unwrap(), 1, "the newest stays in any case");
    assert_eq!(store.snapshots(Wall(0)).unwrap().len(), 1);
    assert_eq!(store.store().managers_with_snapshots().unwrap(), [ManagerName::new("garm")]);
    let error = store.append_snapshot(Wall(7), &"x".repeat(SNAPSHOT_LIMIT + 1)).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
}

#[test]
fn copy_with_any_name_is_read_without_a_file_beside_it() {
    let home = Home::new();
    drop(home.open());
    let strange = home.dir().join("a copy?mode=rw#1 %41 ü");
    std::fs::copy(home.file(), &strange).unwrap();
    let before = std::fs::read_dir(home.dir()).unwrap().count();
    let store = Store::open_copy_read_only(&strange).unwrap().unwrap();
    assert_eq!(store.managers_with_snapshots().unwrap(), []);
    assert_eq!(std::fs::read_dir(home.dir()).unwrap().count(), before);
}

#[test]
fn the_history_is_bounded_by_size_too_and_a_long_event_is_cut() {
    let store = memory();
    for n in 0..10_u64 {
        store.append(Wall(n), "x", None, &serde_json::json!("x".repeat(998))).unwrap();
    }
    store.append(Wall(10), "x", None, &serde_json::json!("ü".repeat(20_000))).unwrap();
    let all = HistoryFilter { set: None, since: Wall(0), limit: 100 };
    let detail = store.history(all).unwrap().pop().unwrap().detail;
    assert_eq!(detail["cut"], "40002 bytes were too many");
    assert!(detail["begins"].as_str().unwrap().starts_with("\"üüü"));
    let length = i64::try_from(detail.to_string().len()).unwrap();
    assert_eq!(store.prune_history(Wall(0), 100, uint(length) + 3_500).unwrap(), 7);
    assert_eq!(store.history(all).unwrap().len(), 4);
}
