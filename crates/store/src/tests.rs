use super::ledger::StaleLifetime;
use super::sql::uint;
use super::*;
use medic_core::decide::testing::{self, check, closed, hours, ledger_session, mins};
use medic_core::model::log_fact::{LogEvidence, LogPosition, ParserState};
use medic_core::model::manual::{
    MANUAL_HEAL_LIFETIME, ManualAction, ManualHeal, ManualHealAnswer, ManualHealId, ManualWait, Refusal,
};
use medic_core::model::pause::PauseScope;
use medic_core::model::session::{LedgerChange, LedgerSession, OpenedBy, SessionEnd};
use medic_core::model::{
    Evidence, Fact, FailureKind, GithubId, Incarnation, Note, Outcome, Owner, Remedy, Revision, ScaleSetId, SessionId,
    Source, Step, Treatment, TreatmentId,
};
use medic_core::ports::write::Journal;
use proptest::prelude::*;
use rusqlite::OpenFlags;
use serde::Deserialize as _;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use tempfile::TempDir;

mod migration;

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
    fn read_only(&self) -> ManagerStore {
        Store::open_read_only(&self.dir()).unwrap().unwrap().for_manager(&ManagerName::new("garm"))
    }
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
    /// The error of opening a file with these bytes, which must stay as they are.
    fn refusal(bytes: &[u8]) -> StoreError {
        let home = Self::new();
        std::fs::create_dir(home.dir()).unwrap();
        std::fs::write(home.file(), bytes).unwrap();
        let error = Store::open(&home.dir()).unwrap_err();
        assert_eq!(Store::open_read_only(&home.dir()).unwrap_err().kind, error.kind);
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
    testing::open(0, set, Wall(opened), Step::Verifying)
}

/// Adds treatments of these sets, opened and closed at the number of the set.
fn add_closed(store: &ManagerStore, sets: impl IntoIterator<Item = u64>, outcome: Outcome) {
    for set in sets {
        Journal::open(store, closed(0, set, Wall(set), Wall(set), outcome)).unwrap();
    }
}

fn events(store: &ManagerStore) -> Vec<Event> {
    store.history(HistoryFilter { set: None, since: Wall(0), limit: 100 }).unwrap()
}

fn note(store: &ManagerStore, at: u64) -> Result<(), StoreError> {
    store.append(Wall(at), "x", None, &serde_json::Value::Null)
}

fn see(store: &ManagerStore, session: &LedgerSession) {
    store.apply(&[LedgerChange::See(session.clone())]).unwrap();
}

fn end(store: &ManagerStore, session: &str, at: u64, how: SessionEnd) {
    store.apply(&[LedgerChange::End { session: SessionId::new(session), at: Wall(at), how }]).unwrap();
}

/// The sessions without an end.
fn live(store: &ManagerStore) -> Vec<LedgerSession> {
    store.sessions().unwrap().into_iter().filter(|session| session.ended.is_none()).collect()
}

fn pause(scope: PauseScope, expires: Option<u64>) -> NewPause {
    let (reason, author) = ("work".to_owned(), "me".to_owned());
    NewPause { scope, reason, author, created: Wall(1), expires: expires.map(Wall) }
}

/// Whether `holder` has the lease after it asked for it, for a minute.
fn takes(store: &Store, holder: &str, at: u64) -> bool {
    store.acquire(holder, Wall(at), Span::mins(1)).unwrap() == LeaseState::Held
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
    let store = home.open();
    let treatment = Journal::open(&store, verifying(1, 5)).unwrap();
    let session = ledger_session(1, "s1", RUN, Wall(2_000));
    see(&store, &session);
    store.save_state("{\"a\":1}").unwrap();
    store.save_breaker_reset(Wall(9)).unwrap();
    store.append(Wall(7), "note", Some(ScaleSetId(1)), &serde_json::json!({"x": 1})).unwrap();
    store.record_stale_lifetime(ScaleSetId(1), Span::secs(61), Wall(8)).unwrap();
    let pause = store.store().add_pause(pause(PauseScope::All, None)).unwrap();
    assert!(takes(store.store(), "one", 1));
    drop(store);
    let store = home.open();
    assert_eq!(store.unfinished().unwrap(), [treatment]);
    assert_eq!(live(&store), [session]);
    assert_eq!(store.load_state().unwrap().unwrap(), "{\"a\":1}");
    assert_eq!(store.breaker_reset().unwrap(), Some(Wall(9)));
    assert_eq!(events(&store)[0].detail, serde_json::json!({"x": 1}));
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
    // The mode of a file is corrected; a directory may be a volume's and keeps its mode.
    drop(store);
    std::fs::set_permissions(home.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(home.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    home.open();
    assert_eq!((mode(&home.dir()), mode(&home.file())), (0o755, 0o600));
}

#[test]
fn unusable_file_is_refused_with_its_reason() {
    assert_eq!(Home::refusal(b"this is no database at all, and it is long enough").kind, StoreErrorKind::Corrupt);
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

/// A set must not stay disabled because of a text that is only shown.
#[test]
fn unknown_note_does_not_hide_a_treatment() {
    let store = memory();
    let since = Some(Wall(5));
    let enabling = Step::Enabling { ours: Revision::new("r1"), since, attempts: 2, not_before: Wall(5) };
    for set in 1..=3 {
        Journal::open(&store, testing::open(0, set, Wall(5), enabling.clone())).unwrap();
    }
    let notes = [r#"{"note":"of_later"}"#, r#"{"note":"failed","what":"of_later"}"#, r#""a sentence""#];
    for (set, note) in (1..).zip(notes) {
        let change = "UPDATE treatments SET treatment = json_set(treatment, '$.refusal', json(?1)) WHERE set_id = ?2";
        store.store.lock().execute(change, rusqlite::params![note, set]).unwrap();
    }
    let open = store.unfinished().unwrap();
    let texts = notes.map(|note| note.trim_matches('"').to_owned());
    assert_eq!(
        open.iter().map(|row| row.refusal.clone()).collect::<Vec<_>>(),
        texts.map(|text| Some(Note::Text { text }))
    );
    assert!(open.iter().all(|row| row.step == enabling));
    add_closed(&store, [4], Outcome::Failed);
    let change = r#"UPDATE treatments SET treatment = json_set(treatment, '$.step.why', json('{"note":"of_later"}'))
        WHERE set_id = 4"#;
    store.store.lock().execute(change, []).unwrap();
    let why = Note::Text { text: r#"{"note":"of_later"}"#.to_owned() };
    assert!(store.since(Wall(0)).unwrap().iter().any(|row| row.why() == Some(&why)));
}

#[test]
fn manual_heal_is_open_until_it_is_answered_withdrawn_or_old() {
    let store = memory();
    let now = Wall(1_000_000);
    let add = |set, action| store.add_manual_heal(ScaleSetId(set), action, "alice", now).unwrap();
    let [first, second, third, fourth] = [
        add(1, ManualAction::Heal),
        add(2, ManualAction::DeleteSession { session: SessionId::new("s-1") }),
        add(3, ManualAction::Heal),
        add(4, ManualAction::Heal),
    ];
    assert_eq!(store.manual_heals(now).unwrap(), [first.clone(), second.clone(), third.clone(), fourth.clone()]);
    let waits = ManualHealAnswer::Waiting { why: ManualWait::Begins };
    let refused = ManualHealAnswer::Refused { why: Refusal::Listens };
    let treating = ManualHealAnswer::Treating { treatment: TreatmentId(7) };
    let answer = |heal: &ManualHeal, with: &ManualHealAnswer| store.answer_manual_heal(heal.id, with).unwrap();
    answer(&first, &waits);
    answer(&third, &waits);
    assert_eq!(store.manual_heals(now).unwrap().len(), 4, "they wait");
    answer(&first, &refused);
    assert_eq!(store.manual_heal_answer(first.id).unwrap(), Some(refused));
    assert_eq!(store.withdraw_manual_heal(third.id).unwrap(), None);
    // A reconcile that had read it before answers now.
    answer(&third, &waits);
    answer(&fourth, &treating);
    assert_eq!(store.withdraw_manual_heal(fourth.id).unwrap(), Some(treating));
    assert_eq!(store.manual_heals(now).unwrap(), [second]);
    assert_eq!(store.manual_heals(now.plus(MANUAL_HEAL_LIFETIME)).unwrap(), [], "too old to be carried out");
}

#[test]
fn unusable_state_directory_has_its_kind_of_error() {
    let home = Home::new();
    let missing = Store::open(&home.dir().join("below")).unwrap_err();
    assert_eq!(missing.kind, StoreErrorKind::Missing);
    std::fs::write(home.dir(), "a file").unwrap();
    assert_eq!(Store::open(&home.dir()).unwrap_err().kind, StoreErrorKind::NotADirectory);
}

#[test]
fn row_that_does_not_parse_fails_the_whole_answer() {
    let store = memory();
    let damage = |sql: &str| store.store.lock().execute_batch(sql).unwrap();
    see(&store, &ledger_session(1, "good", RUN, Wall(2_000)));
    see(&store, &ledger_session(2, "bad", RUN, Wall(2_000)));
    Journal::open(&store, verifying(1, 5)).unwrap();
    damage("UPDATE sessions SET github_place = '{' WHERE id = 'bad'; UPDATE treatments SET treatment = '[]'");
    assert_eq!(store.sessions().unwrap_err().kind, StoreErrorKind::Corrupt);
    assert_eq!(store.live_sessions().unwrap_err().kind, StoreErrorKind::Corrupt);
    assert!(store.unfinished().unwrap_err().to_string().contains("treatment 1"));
    damage("DELETE FROM sessions WHERE id = 'bad'; UPDATE sessions SET ended_at = 5");
    assert_eq!(store.sessions().unwrap_err().kind, StoreErrorKind::Corrupt);
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
    assert_eq!(note(&two, 1).unwrap_err().kind, StoreErrorKind::Busy);
    let timeout = || two.store.lock().query_row("PRAGMA busy_timeout", [], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(timeout(), 20, "not for every call of every manager again");
    one.store.lock().execute_batch("ROLLBACK").unwrap();
    note(&two, 1).unwrap();
    assert_eq!(timeout(), 2000);
}

#[test]
fn journal_numbers_are_ordered_and_never_reused() {
    let store = memory();
    let late = Journal::open(&store, verifying(1, 50)).unwrap();
    let early = Journal::open(&store, testing::open(77, 2, Wall(10), Step::Verifying)).unwrap();
    assert_eq!((late.id, early.id), (TreatmentId(1), TreatmentId(2)), "the given number is ignored");
    assert_eq!(store.unfinished().unwrap(), [early.clone(), late.clone()], "oldest first");
    let done = Treatment { id: early.id, ..closed(0, 2, Wall(10), Wall(20), Outcome::Recovered) };
    store.record(&done).unwrap();
    assert_eq!(store.unfinished().unwrap(), [late]);
    add_closed(&store, 3..=62, Outcome::Recovered);
    assert_eq!(store.prune(Wall(u64::MAX / 2)).unwrap().treatments, 11);
    assert_eq!(Journal::open(&store, verifying(2, 60)).unwrap().id, TreatmentId(63));
}

#[test]
fn every_step_is_kept_as_it_is() {
    let store = memory();
    let mut treatment = Journal::open(&store, verifying(1, 5)).unwrap();
    let ours = Revision::new("r1");
    let steps = [
        Step::Deleting { session: SessionId::new("s"), seen: Some(ours.clone()), attempts: 2, not_before: Wall(3) },
        Step::Disabling { seen: ours.clone(), sent: None },
        Step::DisableUnknown { seen: ours.clone(), sent: Wall(4) },
        Step::Disabled { ours: ours.clone(), again_until: Some(Wall(5)) },
        Step::Enabling { ours, since: None, attempts: 1, not_before: Wall(9) },
        Step::Verifying,
        Step::Closed { outcome: Outcome::Failed, why: Note::DisableLost },
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
fn journal_returns_recent_treatments_and_the_newest_50() {
    let store = memory();
    let sets = |since: u64| store.since(Wall(since)).unwrap().iter().map(|row| row.set.0).collect::<Vec<_>>();
    add_closed(&store, [10, 20, 30], Outcome::Unverified);
    Journal::open(&store, verifying(4, 25)).unwrap();
    assert_eq!((sets(0), sets(31)), (vec![10, 20, 4, 30], vec![10, 20, 4, 30]), "by date, open or closed");
    add_closed(&store, 100..160, Outcome::Unverified);
    assert_eq!(sets(1000), (110..160).collect::<Vec<_>>());
    assert_eq!(sets(105), (105..160).collect::<Vec<_>>());
}

#[test]
fn only_writes_that_must_survive_a_power_cut_are_synced() {
    let home = Home::new();
    let store = home.open();
    let level = || store.store.lock().query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).unwrap();
    let journal_mode: String = store.store.lock().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal_mode, "wal");
    let (full, normal) = (2, 1);
    let session = ledger_session(1, "s1", RUN, Wall(2_000));
    let cheap = || note(&store, 1).unwrap();
    let mut treatment = Journal::open(&store, verifying(1, 5)).unwrap();
    assert_eq!(level(), full);
    cheap();
    assert_eq!(level(), normal);
    treatment.worker_restarted = Some(Wall(6));
    store.record(&treatment).unwrap();
    assert_eq!(level(), full);
    cheap();
    see(&store, &session);
    assert_eq!(level(), full, "a session seen for the first time");
    store.apply(&[LedgerChange::Alive { session: session.id, at: Wall(3_000) }]).unwrap();
    assert_eq!(level(), normal, "a session seen again");
    end(&store, "s1", 9, SessionEnd::Closed);
    assert_eq!(level(), full);
    cheap();
    assert!(takes(store.store(), "one", 1));
    assert_eq!(level(), full);
}

#[test]
fn lease_of_a_dead_process_is_free_at_once() {
    let home = Home::new();
    let (killed, next) = (home.store(), home.store());
    assert!(takes(&killed, "killed", 0) && !takes(&next, "next", 1), "it is alive");
    // As the kernel does for a process that ends in whatever way.
    drop(killed);
    assert!(takes(&next, "next", 2) && !takes(&home.store(), "third", 3));
}

#[test]
fn lease_expires_if_its_holder_is_not_proven_dead() {
    let home = Home::new();
    let (here, elsewhere) = (home.store(), home.store());
    // The second is without the lock, as on another machine.
    assert!(takes(&here, "here", 0) && takes(&elsewhere, "elsewhere", 60_000));
    drop((here, elsewhere));
    let next = home.store();
    assert!(!takes(&next, "next", 60_001) && takes(&next, "next", 120_000));
}

#[test]
fn thawed_medic_writes_nothing_after_a_takeover() {
    let home = Home::new();
    let (frozen, next) = (home.store(), home.store());
    assert!(takes(&frozen, "frozen", 0));
    let journal = frozen.for_manager(&ManagerName::new("garm")).fenced("frozen");
    let opened = journal.open(verifying(7, 1)).unwrap();
    assert!(takes(&next, "next", 60_000));
    let error = journal.record(&opened).unwrap_err().to_string();
    assert!(error.contains("lease_lost: next has the lease now; nothing"), "{error}");
    assert!(journal.open(verifying(8, 2)).is_err());
    next.release("next").unwrap();
    assert!(journal.record(&opened).is_err(), "the other may have acted");
    assert!(takes(&frozen, "frozen", 60_002));
    journal.record(&opened).unwrap();
}

#[test]
fn intents_of_managers_not_configured_are_found() {
    let store = Store::in_memory().unwrap();
    let (kept, renamed) = (ManagerName::new("kept"), ManagerName::new("renamed"));
    let intent = |set| testing::open(0, set, Wall(1), Step::Disabled { ours: Revision::new("r"), again_until: None });
    store.for_manager(&kept).open(intent(1)).unwrap();
    let lost = store.for_manager(&renamed).open(intent(2)).unwrap();
    store.for_manager(&renamed).open(verifying(3, 1)).unwrap();
    assert_eq!(store.intents_of_others(&[kept]).unwrap(), [(renamed, lost)]);
}

#[test]
fn lease_is_held_until_its_date_and_no_longer() {
    let home = Home::new();
    let (one, two) = (home.store(), home.store());
    let renew = |holder: &str, at| one.renew(holder, Wall(at), Span::mins(1)).unwrap();
    assert!(takes(&one, "one", 0));
    let taken = LeaseState::HeldByOther { holder: "one".to_owned(), until: Wall(60_000) };
    assert_eq!(two.acquire("two", Wall(59_999), Span::mins(1)).unwrap(), taken);
    assert!(renew("one", 40_000) && !takes(&two, "two", 60_000));
    assert!(takes(&two, "two", 100_000), "the holder died");
    // Even when the other's has expired too: it may have acted.
    assert!(!renew("one", 100_001) && !renew("one", 180_000));
    one.release("one").unwrap();
    assert_eq!(one.lease_holder(Wall(120_000)).unwrap(), Some(("two".to_owned(), Wall(160_000))));
    two.release("two").unwrap();
    assert_eq!(one.lease_holder(Wall(120_000)).unwrap(), None);
    assert!(!renew("one", 120_000), "another process returned it");
    assert!(takes(&one, "one", 120_000));
    // The clock was set back a day: no ttl could put the date so far ahead.
    assert!(takes(&two, "two", 0));
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
fn pruning_keeps_its_bounds_and_everything_open() {
    let store = memory();
    let open_one = Journal::open(&store, verifying(500, 0)).unwrap();
    add_closed(&store, 1..=80, Outcome::Recovered);
    for n in 1..=20 {
        note(&store, n).unwrap();
        let mut session = ledger_session(n, &format!("s{n:02}"), RUN, Wall(n));
        session.last_seen = Wall(n);
        session.ended = (n % 2 == 0).then_some((Wall(n), SessionEnd::Closed));
        see(&store, &session);
    }
    let mine =
        LedgerSession { opened_by: OpenedBy::Medic, last_seen: Wall(0), ..ledger_session(99, "mine", RUN, Wall(0)) };
    see(&store, &mine);
    assert_eq!(store.prune_treatments(Wall(5), 100).unwrap(), 4);
    assert_eq!(store.prune_treatments(Wall(5), 60).unwrap(), 16);
    let left: Vec<u64> = store.since(Wall(0)).unwrap().iter().map(|t| t.set.0).collect();
    assert_eq!(left, [vec![open_one.set.0], (21..=80).collect()].concat());
    assert_eq!(store.prune_treatments(Wall(u64::MAX / 2), 10).unwrap(), 10, "fifty are kept for the breaker");
    assert_eq!(store.prune_history(Wall(5), 10, 1_000).unwrap(), 10);
    assert_eq!(store.prune_sessions(Wall(5), 100).unwrap(), 4);
    assert_eq!(store.prune_sessions(Wall(5), 9).unwrap(), 8);
    let ids: Vec<String> = live(&store).iter().map(|s| s.id.to_string()).collect();
    assert_eq!(ids, ["s05", "s07", "s09", "s11", "s13", "s15", "s17", "s19", "mine"], "the ended go first");
    assert_eq!(store.prune(Wall(0)).unwrap(), Pruned::default());
    assert!(store.prune(Wall(u64::MAX / 2)).unwrap().sessions > 0);
    assert_eq!(live(&store), [mine]);
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
fn history_is_filtered_and_ends_with_the_newest() {
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
    see(&a, &ledger_session(1, "s1", RUN, Wall(1)));
    a.save_state("a").unwrap();
    assert!(b.record(&treatment).is_err());
    end(&b, "s1", 2, SessionEnd::Closed);
    assert_eq!((b.unfinished().unwrap().len(), live(&b).len()), (1, 0));
    assert_eq!(b.load_state().unwrap(), None);
    b.prune(Wall(u64::MAX / 2)).unwrap();
    assert_eq!(live(&a).len(), 1);
}

#[test]
fn state_and_log_position_are_loaded_as_saved() {
    let store = memory();
    assert_eq!((store.load_state().unwrap(), store.load_log_position("/l").unwrap()), (None, None));
    for json in ["{}", "{}", "{\"b\":\"ü\"}"] {
        store.save_state(json).unwrap();
        assert_eq!(store.load_state().unwrap().unwrap(), json);
    }
    let parser = ParserState { last_dated: Some(Wall(4)), in_trace: true, in_opening: true };
    let position = LogPosition { device: u64::MAX, inode: 2, offset: 3, tail_hash: u64::MAX, parser };
    let mut evidence = LogEvidence { debug: true, ..LogEvidence::default() };
    evidence.by_id.entry(ScaleSetId(1)).or_default().conflict_count = 3;
    store.save_log_position("/l", &position, &evidence).unwrap();
    assert_eq!(store.load_log_position("/l").unwrap(), Some((position, evidence)));
    assert_eq!(store.load_log_position("/other").unwrap(), None);
}

#[test]
fn pauses_end_by_date_and_by_scope() {
    let store = Store::in_memory().unwrap();
    let add = |scope: &PauseScope, expires| store.add_pause(pause(scope.clone(), expires)).unwrap();
    let manager = PauseScope::Manager { manager: ManagerName::new("m") };
    let (all, one) = (add(&PauseScope::All, Some(100)), add(&manager, None));
    assert_eq!(store.pauses(Wall(99)).unwrap(), [all.clone(), one.clone()]);
    assert_eq!(store.pauses(Wall(100)).unwrap(), [one]);
    assert_eq!((store.remove_pauses_of(&PauseScope::All), store.remove_pauses_of(&PauseScope::All)), (Ok(1), Ok(0)));
    add(&manager, Some(200));
    assert_eq!(store.remove_pauses_of(&manager).unwrap(), 2);
    assert_eq!(store.pauses(Wall(0)).unwrap(), []);
}

#[test]
fn known_session_only_loses_rights() {
    let store = memory();
    let seen = LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..ledger_session(1, "s1", RUN, Wall(100)) };
    see(&store, &seen);
    // A later, bolder claim about the same session changes nothing but the date.
    let mut bold = ledger_session(2, "s1", RUN, Wall(50));
    bold.last_seen = Wall(900_000);
    see(&store, &bold);
    let row = store.sessions().unwrap().remove(0);
    assert_eq!((row.set, row.opened_by, row.first_seen), (ScaleSetId(1), OpenedBy::UnknownIncarnation, Wall(100)));
    assert_eq!(row.last_seen, Wall(900_000));
    end(&store, "s1", 7, SessionEnd::DeletedByUs);
    end(&store, "s1", 8, SessionEnd::Expired);
    see(&store, &seen);
    let row = store.sessions().unwrap().remove(0);
    assert_eq!((row.ended, row.last_seen), (Some((Wall(7), SessionEnd::DeletedByUs)), Wall(900_000)));
    assert_eq!(live(&store), []);
}

#[test]
fn live_sessions_include_the_newest_of_their_sets() {
    let store = memory();
    let ended = |session: LedgerSession| LedgerSession { ended: Some((Wall(9_000), SessionEnd::Closed)), ..session };
    for session in [
        ended(ledger_session(1, "old", RUN, Wall(100))),
        ledger_session(1, "open", RUN, Wall(200)),
        ended(ledger_session(1, "newer", RUN, Wall(300))),
        ended(ledger_session(2, "only", RUN, Wall(300))),
        ledger_session(3, "live", RUN, Wall(50)),
    ] {
        see(&store, &session);
    }
    let ids: Vec<String> = store.live_sessions().unwrap().iter().map(|s| s.id.to_string()).collect();
    assert_eq!(ids, ["open", "newer", "live"]);
}

/// What the ledger should hold.
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
    fn ledger_follows_its_rules(batches in proptest::collection::vec(proptest::collection::vec(change(), 0..6), 0..8)) {
        let store = memory();
        let mut model = Model::default();
        for batch in &batches {
            store.apply(batch).unwrap();
            for change in batch {
                model.apply(change);
            }
        }
        let rows = store.sessions().unwrap();
        prop_assert_eq!(rows.len(), model.0.len());
        for (id, wanted) in &model.0 {
            prop_assert_eq!(rows.iter().find(|row| row.id.as_str() == id), Some(wanted));
        }
    }
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
fn read_only_store_changes_nothing_and_leaves_no_file() {
    let home = Home::new();
    assert!(Store::open_read_only(&home.dir()).unwrap().is_none());
    assert!(!home.dir().exists());
    note(&home.open(), 1).unwrap();
    let before = (home.files(), std::fs::read(home.file()).unwrap());
    assert_eq!(before.0, [FILE_NAME]);
    let reader = home.read_only();
    assert_eq!(events(&reader).len(), 1);
    assert!(note(&reader, 2).is_err() && Journal::open(&reader, verifying(1, 5)).is_err());
    drop(reader);
    assert_eq!((home.files(), std::fs::read(home.file()).unwrap()), before);
}

#[test]
fn read_only_opening_writes_only_to_a_wal_file_without_log() {
    let home = Home::new();
    let flags = || open::shared_flags(&home.file());
    let medic = home.open();
    assert_eq!(flags(), OpenFlags::SQLITE_OPEN_READ_ONLY, "a medic is running");
    drop(medic);
    assert_eq!(flags(), OpenFlags::SQLITE_OPEN_READ_WRITE);
    Connection::open(home.file()).unwrap().pragma_update(None, "journal_mode", "TRUNCATE").unwrap();
    assert_eq!(flags(), OpenFlags::SQLITE_OPEN_READ_ONLY, "a rollback journal is its owner's");
}

#[test]
fn medic_that_starts_while_another_reads_loses_nothing() {
    let home = Home::new();
    note(&home.open(), 1).unwrap();
    let reader = home.read_only();
    let medic = home.open();
    note(&medic, 2).unwrap();
    assert_eq!(events(&reader).len(), 2, "what is written meanwhile is seen");
    drop(reader);
    note(&medic, 3).unwrap();
    assert_eq!(events(&home.read_only()).len(), 3);
    note(&medic, 4).unwrap();
    drop(medic);
    assert_eq!(events(&home.open()).len(), 4);
    assert_eq!(home.files(), [FILE_NAME]);
}

#[test]
fn log_of_a_killed_medic_stays_for_its_successor() {
    let (home, killed) = (Home::new(), Home::new());
    let medic = home.open();
    note(&medic, 1).unwrap();
    std::fs::create_dir(killed.dir()).unwrap();
    for name in home.files() {
        std::fs::copy(home.dir().join(&name), killed.dir().join(&name)).unwrap();
    }
    let left = || (killed.files(), std::fs::read(killed.dir().join(format!("{FILE_NAME}-wal"))).unwrap());
    let before = left();
    assert_eq!(events(&killed.read_only()).len(), 1);
    assert_eq!(left(), before);
}

#[test]
fn copy_with_any_name_is_read_without_a_file_beside_it() {
    let home = Home::new();
    drop(home.open());
    let strange = home.dir().join("a copy?mode=rw#1 %41 ü");
    std::fs::copy(home.file(), &strange).unwrap();
    let before = home.files();
    let store = Store::open_copy_read_only(&strange).unwrap().unwrap();
    assert_eq!(store.managers_with_snapshots().unwrap(), []);
    assert_eq!(home.files(), before);
}

#[test]
fn history_is_bounded_by_size_and_a_long_event_is_cut() {
    let store = memory();
    for n in 0..10_u64 {
        store.append(Wall(n), "x", None, &serde_json::json!("x".repeat(998))).unwrap();
    }
    store.append(Wall(10), "x", None, &serde_json::json!("ü".repeat(20_000))).unwrap();
    let detail = events(&store).pop().unwrap().detail;
    assert_eq!(detail["cut"], "40002 bytes were too many");
    assert!(detail["begins"].as_str().unwrap().starts_with("\"üüü"));
    let length = i64::try_from(detail.to_string().len()).unwrap();
    assert_eq!(store.prune_history(Wall(0), 100, uint(length) + 3_500).unwrap(), 7);
    assert_eq!(events(&store).len(), 4);
}
