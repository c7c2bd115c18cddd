//! What a manual heal may do, and what it may not.

use super::*;
use crate::model::session::OpenedBy;

const OLD: Incarnation = Incarnation(mins(10));

fn refused(why: Refusal) -> ManualHealAnswer {
    ManualHealAnswer::Refused { why }
}

fn healing(diagnosis: Diagnosis) -> World {
    World::one(diagnosis, Confidence::Strong).with(|w| w.given.manual_heals.push(manual_heal(ManualAction::Heal)))
}

/// An operator asks for the deletion of session `s-1`, of which the ledger has this row.
fn deleting(diagnosis: Diagnosis, row: Option<&LedgerSession>) -> World {
    World::one(diagnosis, Confidence::Strong).with(|w| {
        let what = ManualAction::DeleteSession { session: SessionId::new("s-1") };
        w.given.manual_heals.push(manual_heal(what));
        w.given.can_check_sessions.insert(ScaleSetId(1));
        w.remember(row.cloned());
    })
}

fn row(run: Incarnation) -> LedgerSession {
    ledger_session(1, "s-1", run, Wall(run.0.0 + 60_000))
}

#[test]
fn operator_may_delete_a_session_that_conflicts() {
    let session = || SessionId::new("s-1");
    let unknown = LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..row(OLD) };
    let foreign = LedgerSession { owner: Owner::of_garm("other"), ..row(OLD) };
    for row in [None, Some(row(OLD)), Some(unknown), Some(foreign)] {
        for (diagnosis, remedy) in [
            (Diagnosis::ConflictAbandoned, Remedy::DeleteThenToggle { session: session() }),
            (Diagnosis::HeldElsewhere, Remedy::DeleteSession { session: session() }),
        ] {
            let world = deleting(diagnosis, row.as_ref());
            assert_eq!(world.first(), Decision::Treat { remedy, canary: false }, "{row:?}");
        }
    }
    let retries =
        deleting(Diagnosis::ConflictAbandoned, None).with(|w| w.fleet.conflict_behaviour = ConflictBehaviour::Retries);
    let remedy = Remedy::DeleteSession { session: session() };
    assert_eq!(retries.first(), Decision::Treat { remedy, canary: false });
}

#[test]
fn session_of_the_current_incarnation_is_never_deleted() {
    let late = LedgerSession { first_seen: RUN.0, ..row(OLD) };
    let alive = LedgerSession { last_seen: mins(62), ..row(OLD) };
    for row in [row(RUN), row(Incarnation(mins(61))), late, alive] {
        for diagnosis in [Diagnosis::ConflictAbandoned, Diagnosis::ConflictRetrying, Diagnosis::HeldElsewhere] {
            assert_eq!(deleting(diagnosis, Some(&row)).first(), Decision::Leave, "{row:?}");
        }
    }
}

#[test]
fn session_of_unknown_origin_needs_a_seen_conflict() {
    for diagnosis in Diagnosis::ALL.iter().copied() {
        let refused =
            matches!(diagnosis, Diagnosis::ConflictAbandoned | Diagnosis::ConflictRetrying | Diagnosis::HeldElsewhere);
        assert_eq!(deleting(diagnosis, None).treats().len(), usize::from(refused), "{diagnosis}");
        let listens = deleting(diagnosis, None).with(|w| w.finding().worker.state = WorkerState::Listening);
        assert_eq!(listens.first(), Decision::Leave, "{diagnosis}");
    }
}

#[test]
fn refusal_of_a_deletion_names_every_reason() {
    let session = ledger_session(1, "s-1", RUN, mins(60));
    let mut world = deleting(Diagnosis::ConflictAbandoned, Some(&session));
    let against = vec![NotStale::SameRun, NotStale::OpenedTooLate, NotStale::AliveAfterStart];
    assert_eq!(world.answer(), refused(Refusal::NotStale { session: session.id, against }));
    world.set(1).github_id = None;
    assert_eq!(world.answer(), refused(Refusal::NoCredential), "the set's place is not known");
    world.given.can_check_sessions.clear();
    assert_eq!(world.answer(), refused(Refusal::NoCredential));
}

#[test]
fn manual_heal_prefers_the_remedy_of_the_table() {
    let world = healing(Diagnosis::ConflictAbandoned).with(World::may_delete);
    let session = SessionId::new("s-1");
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::DeleteThenToggle { session }, canary: false });
    let checked = suspect().with(|w| w.given.manual_heals.push(manual_heal(ManualAction::Heal)));
    assert_eq!(checked.first(), Decision::Leave, "a session check heals nothing");
    assert_eq!(checked.answer(), refused(Refusal::ToggleUseless(Diagnosis::Unknown)));
}

#[test]
fn manual_heal_toggles_only_workers_that_gave_up() {
    use ConflictBehaviour::{GivesUp, Retries, Unknown};
    let useless = |diagnosis| Some(Refusal::ToggleUseless(diagnosis));
    for (diagnosis, worker, build, refusal) in [
        (Diagnosis::ConflictAbandoned, WorkerState::Unknown, Retries, None),
        (Diagnosis::StartAbandoned, WorkerState::Absent, Retries, None),
        (Diagnosis::Unheld, WorkerState::Unknown, GivesUp, None),
        (Diagnosis::Unknown, WorkerState::Absent, GivesUp, None),
        (Diagnosis::Unknown, WorkerState::Absent, Unknown, None),
        (Diagnosis::Unknown, WorkerState::Absent, Retries, useless(Diagnosis::Unknown)),
        (Diagnosis::Unknown, WorkerState::Unknown, GivesUp, useless(Diagnosis::Unknown)),
        (Diagnosis::ConflictRetrying, WorkerState::Retrying, GivesUp, useless(Diagnosis::ConflictRetrying)),
        (Diagnosis::Evicted, WorkerState::Listening, GivesUp, Some(Refusal::ListenerRuns)),
        (Diagnosis::Deaf, WorkerState::Listening, GivesUp, Some(Refusal::ListenerRuns)),
        (Diagnosis::Listening, WorkerState::Unknown, GivesUp, Some(Refusal::Listens)),
    ] {
        let mut world = healing(diagnosis).with(|w| {
            w.finding().worker.state = worker;
            w.fleet.conflict_behaviour = build;
        });
        let expected = refusal.map_or(ManualHealAnswer::Waiting { why: ManualWait::Begins }, refused);
        assert_eq!(world.answer(), expected, "{diagnosis} {worker} {build}");
        world.set(1).enabled = Enablement::Disabled;
        assert_eq!(world.answer(), refused(Refusal::SetDisabled), "{diagnosis}: an operator disabled it");
    }
}

#[test]
fn manual_heal_waits_five_sweeps_for_a_clear_diagnosis() {
    for diagnosis in [Diagnosis::Settling, Diagnosis::Unknown] {
        for seen in 1..=6 {
            let world = healing(diagnosis).with(|w| w.finding().seen = seen);
            let unclear = ManualHealAnswer::Waiting { why: ManualWait::Unclear(diagnosis) };
            assert_eq!(world.answer() == unclear, seen < 5, "{diagnosis} {seen}");
        }
    }
    let clear = healing(Diagnosis::Listening).with(|w| w.finding().seen = 1);
    assert_eq!(clear.answer(), refused(Refusal::Listens), "clear at once");
}
