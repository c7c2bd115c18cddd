//! The table of remedies: what a diagnosis, and one more fact, lead to where no guard blocks.

use super::*;

const TOGGLE: Decision = Decision::Treat { remedy: Remedy::Toggle, canary: true };
const CHECK: Decision = Decision::Treat { remedy: Remedy::SessionCheck, canary: false };
const EVIDENCE: Decision = waits(Waiting::Evidence, None);

const fn waits(waiting: Waiting, until: Option<Wall>) -> Decision {
    Decision::Watch { waiting, until }
}

const fn escalates(escalation: Escalation) -> Decision {
    Decision::Escalate { escalation }
}

fn deletes(remedy: fn(SessionId) -> Remedy) -> Decision {
    Decision::Treat { remedy: remedy(SessionId::new("s-1")), canary: true }
}

fn says(w: &mut World, fact: Fact) {
    w.finding().evidence.push(evidence(mins(61), fact));
}

fn retries(w: &mut World) {
    w.fleet.conflict_behaviour = ConflictBehaviour::Retries;
}

fn listens(w: &mut World) {
    w.finding().worker.state = WorkerState::Listening;
}

fn may_check(w: &mut World) {
    w.given.can_check_sessions.insert(ScaleSetId(1));
}

fn some_listen(w: &mut World) {
    may_check(w);
    says(w, Fact::CannotTellWhich { listening: 3, of: 4 });
}

/// What is known besides, the change that shows it, and what follows.
type Row = (&'static str, fn(&mut World), Decision);

fn table<const N: usize>(diagnosis: Diagnosis, confidence: Confidence, rows: [Row; N]) {
    for (known, change, expected) in rows {
        assert_eq!(World::one(diagnosis, confidence).with(change).first(), expected, "{diagnosis}: {known}");
    }
}

#[test]
fn conflict_abandoned_deletes_a_stale_session_then_toggles() {
    let newer = |w: &mut World| {
        w.may_delete();
        w.remember([ledger_session(1, "s-2", RUN, mins(61))]);
    };
    let by_build = |w: &mut World| {
        w.may_delete();
        retries(w);
    };
    table(
        Diagnosis::ConflictAbandoned,
        Confidence::Proof,
        [
            ("nothing", |_| {}, TOGGLE),
            (
                "a stale session that we may delete",
                World::may_delete,
                deletes(|session| Remedy::DeleteThenToggle { session }),
            ),
            (
                "one that we may not delete",
                |w| {
                    w.may_delete();
                    w.given.can_check_sessions.clear();
                },
                TOGGLE,
            ),
            ("a newer session, of this run", newer, TOGGLE),
            ("the build retries", by_build, deletes(|session| Remedy::DeleteSession { session })),
            ("its listener runs", listens, EVIDENCE),
        ],
    );
}

#[test]
fn build_that_retries_is_toggled_only_if_unheld() {
    for diagnosis in Diagnosis::ALL.iter().copied() {
        let world = World::one(diagnosis, Confidence::Proof).with(|w| {
            retries(w);
            says(w, Fact::CauseGone);
        });
        assert_eq!(world.first() == TOGGLE, diagnosis == Diagnosis::Unheld, "{diagnosis}");
    }
}

#[test]
fn start_abandoned_is_toggled_once_its_cause_is_gone() {
    let unresolved = World::one(Diagnosis::StartAbandoned, Confidence::Proof);
    assert_eq!(unresolved.only().guard(), Guard::CauseNotResolved);
    for (build, expected) in [
        (ConflictBehaviour::Unknown, TOGGLE),
        (ConflictBehaviour::GivesUp, TOGGLE),
        (ConflictBehaviour::Retries, EVIDENCE),
    ] {
        let world = World::one(Diagnosis::StartAbandoned, Confidence::Proof).with(|w| {
            w.fleet.conflict_behaviour = build;
            says(w, Fact::CauseGone);
        });
        assert_eq!(world.first(), expected, "{build}");
    }
}

#[test]
fn conflict_retrying_waits_and_deletes_only_with_proof() {
    let (limit, fault) = (Some(mins(65)), escalates(Escalation::EndpointFault));
    for (now, at_github, expected) in [
        (61, false, waits(Waiting::StaleSession, limit)),
        (63, false, waits(Waiting::StaleSessionOdd, limit)),
        (64, true, waits(Waiting::StaleSessionOdd, limit)),
        (65, true, fault),
        (65, false, waits(Waiting::StaleSessionOdd, limit)),
    ] {
        let mut world = World::one(Diagnosis::ConflictRetrying, Confidence::Proof).with(|w| {
            says(w, Fact::ConflictLine { owner: None, run: Span::mins(1) });
            w.finding().since = mins(61);
            w.fleet.fault_at_github = at_github;
            w.is_at(mins(now));
        });
        assert_eq!(world.first(), expected, "{now} min");
        world.may_delete();
        world.fleet.fault_at_github = false;
        assert_eq!(world.first(), deletes(|session| Remedy::DeleteSession { session }), "{now} min");
    }
}

#[test]
fn weak_evidence_gets_a_session_check_at_most() {
    table(
        Diagnosis::Unheld,
        Confidence::Weak,
        [("GitHub can be asked", may_check, CHECK), ("its listener runs", listens, EVIDENCE)],
    );
    let barred = |w: &mut World| {
        some_listen(w);
        w.given.policy.session_check = false;
    };
    let (unplaced, unknown) = (|w: &mut World| w.set(1).github_id = None, escalates(Escalation::Unknown));
    table(
        Diagnosis::Unknown,
        Confidence::Weak,
        [
            ("some sets listen", some_listen, CHECK),
            ("nobody may ask", |w| says(w, Fact::CannotTellWhich { listening: 3, of: 4 }), unknown.clone()),
            ("nothing", may_check, unknown.clone()),
            ("session checks are off", barred, unknown),
        ],
    );
    let unplaced = World::one(Diagnosis::Unknown, Confidence::Weak).with(some_listen).with(unplaced);
    assert_eq!(unplaced.first(), escalates(Escalation::Unknown), "its place is not known");
}

#[test]
fn session_check_never_competes_with_a_listener() {
    for diagnosis in Diagnosis::ALL.iter().copied() {
        let suspect = matches!(diagnosis, Diagnosis::Unheld | Diagnosis::Unknown);
        let world = World::one(diagnosis, Confidence::Weak).with(some_listen);
        assert_eq!(world.first() == CHECK, suspect, "{diagnosis}");
        let (Decision::Treat { remedy, .. } | Decision::Blocked { remedy, .. }) = world.with(listens).first() else {
            continue;
        };
        assert_ne!(remedy, Remedy::SessionCheck, "{diagnosis}");
    }
}

#[test]
fn deaf_is_toggled_only_if_risky_and_its_session_lives() {
    let lives = |id: &str, seen| ledger_session(1, id, RUN, seen);
    let ended = |mut session: LedgerSession| {
        session.ended = Some((session.last_seen, SessionEnd::Closed));
        session
    };
    for (allow_risky, ledger, toggled) in [
        (true, vec![], false),
        (true, vec![lives("s-1", mins(61))], true),
        (false, vec![lives("s-1", mins(61))], false),
        (true, vec![ended(lives("s-1", mins(61)))], false),
        (true, vec![ledger_session(1, "old", Incarnation(mins(10)), mins(11))], false),
        (true, vec![lives("s-1", mins(61)), ended(lives("s-2", mins(62)))], false),
        (true, vec![ended(lives("s-1", mins(61))), lives("s-2", mins(62))], true),
        (true, vec![ledger_session(2, "another set's", RUN, mins(61))], false),
    ] {
        let world = World::one(Diagnosis::Deaf, Confidence::Strong).with(|w| {
            w.given.policy.allow_risky = allow_risky;
            listens(w);
            w.remember(ledger);
        });
        let expected = if toggled { TOGGLE } else { escalates(Escalation::Deaf) };
        assert_eq!(world.first(), expected, "{allow_risky} {:?}", world.given.ledger);
    }
}

#[test]
fn held_elsewhere_names_the_holder_and_the_duration() {
    let held = |owner, minutes| escalates(Escalation::HeldElsewhere { owner, run: Span::mins(minutes) });
    let other = || Some(Owner::new("garm-other"));
    table(
        Diagnosis::HeldElsewhere,
        Confidence::Proof,
        [
            (
                "a line",
                |w| says(w, Fact::ConflictLine { owner: Some(Owner::new("garm-other")), run: Span::mins(6) }),
                held(other(), 6),
            ),
            (
                "a session check",
                |w| says(w, Fact::CheckRefused { owner: Some(Owner::new("garm-other")) }),
                held(other(), 1),
            ),
            ("ill for longer", |w| w.finding().ill_since = Some(mins(51)), held(None, 10)),
            ("a fault at GitHub", |w| w.fleet.fault_at_github = true, escalates(Escalation::EndpointFault)),
        ],
    );
}

#[test]
fn diagnoses_without_a_remedy_get_none() {
    for (diagnosis, expected) in [
        (Diagnosis::Listening, Decision::Leave),
        (Diagnosis::Disabled, Decision::Leave),
        (Diagnosis::Settling, waits(Waiting::Settling, Some(RUN.0.plus(Span::secs(20))))),
        (Diagnosis::DisabledByMedic, waits(Waiting::Treatment, None)),
        (Diagnosis::Missing, escalates(Escalation::Missing)),
        (Diagnosis::Mismatched, escalates(Escalation::Mismatched)),
        (Diagnosis::Unauthorized, escalates(Escalation::Unauthorized)),
        (Diagnosis::Starved, escalates(Escalation::Starved)),
        (Diagnosis::Flapping, escalates(Escalation::Flapping)),
        (Diagnosis::Evicted, escalates(Escalation::Evicted)),
    ] {
        table(diagnosis, Confidence::Proof, [("a stale session", World::may_delete, expected)]);
    }
}

#[test]
fn disabled_set_gets_no_remedy() {
    for diagnosis in Diagnosis::ALL.iter().copied() {
        for ledger in [vec![], vec![ledger_session(1, "s-2", RUN, mins(61))]] {
            let world = World::one(diagnosis, Confidence::Proof).with(|w| {
                w.set(1).enabled = Enablement::Disabled;
                w.given.policy.allow_risky = true;
                some_listen(w);
                w.may_delete();
                w.remember(ledger);
            });
            let decision = world.first();
            assert!(
                !matches!(decision, Decision::Treat { .. } | Decision::Blocked { .. }),
                "{diagnosis}: {decision:?}"
            );
        }
    }
}
