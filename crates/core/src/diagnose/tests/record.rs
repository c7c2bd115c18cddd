//! What is kept from sweep to sweep, and the evidence beside a diagnosis.

use super::super::Fleet;
use super::super::testing::*;
use crate::model::log_fact::{ListenerErrorKind, LogEvent};
use crate::model::session::{LedgerSession, OpenedBy, SessionEnd};
use crate::model::{
    Confidence, Diagnosis, Enablement, Fact, FailureKind, Goroutines, Incarnation, Lingering, Span, WorkerState,
};
use std::sync::Arc;

use Confidence::{Proof, Strong, Weak};

// --- the sets as last seen ---

#[test]
fn omitted_endpoint_is_kept_and_changed_endpoint_replaced() {
    let mut manager = Manager::healthy(1);
    let endpoint = manager.diagnose().sets[&id(1)].endpoint.clone();
    assert!(endpoint.is_some());
    manager.set(1).endpoint = None;
    assert_eq!(manager.after(secs(2)).diagnose().sets[&id(1)].endpoint, endpoint);
    manager.change(1);
    assert_eq!(manager.after(secs(2)).diagnose().sets[&id(1)].endpoint, endpoint, "also when something else changes");
    let moved =
        endpoint.map(|endpoint| Arc::new(crate::model::Endpoint { base_url: "new".to_owned(), ..(*endpoint).clone() }));
    manager.set(1).endpoint = moved.clone();
    assert_eq!(manager.after(secs(2)).diagnose().sets[&id(1)].endpoint, moved);
}

// --- agreement, unhealthy period and its end ---

#[test]
fn findings_are_counted_and_dated_until_the_diagnosis_changes() {
    let mut manager = Manager::healthy(1);
    let count = |fleet: &Fleet| (fleet.findings[&id(1)].seen, fleet.findings[&id(1)].since);
    assert_eq!(count(&manager.diagnose()), (1, START));
    assert_eq!(count(&manager.watch(secs(4))), (4, START));
    manager.restarts(secs(1));
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!((found(&fleet, 1).0, count(&fleet)), (Diagnosis::Settling, (1, manager.now)));
}

#[test]
fn state_of_another_version_starts_empty_where_it_lacks_a_field() {
    let mut manager = Manager::healthy(1);
    manager.set(1).entity = None;
    manager.state = serde_json::from_str(r#"{"of_tomorrow":1,"sets":{"1":{}}}"#).unwrap();
    let finding = manager.diagnose().findings[&id(1)].clone();
    assert_eq!((finding.diagnosis, finding.seen, finding.since), (Diagnosis::Unknown, 1, manager.now));
}

#[test]
fn weak_listening_neither_ends_nor_shows_an_unhealthy_period() {
    let mut manager = Manager::given_up(1, secs(30));
    let ill_since = manager.watch(secs(20)).findings[&id(1)].ill_since;
    manager.change(1);
    manager.opens();
    let weak = manager.after(secs(2)).diagnose();
    assert_eq!(found(&weak, 1), (Diagnosis::Listening, Weak));
    assert!(weak.recoveries.is_empty(), "a creation under way may yet be refused");
    assert_eq!(weak.findings[&id(1)].ill_since, None);
    let strong = manager.after(secs(2)).diagnose();
    assert_eq!(found(&strong, 1), (Diagnosis::Listening, Strong));
    assert_eq!(strong.recoveries.iter().map(|one| Some(one.ill_since)).collect::<Vec<_>>(), [ill_since]);
}

#[test]
fn living_workers_without_listeners_are_weak_retries_for_good() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 0, workers: 2 });
    let fleet = manager.watch(Span::mins(20));
    assert_eq!(found(&fleet, 1), (Diagnosis::ConflictRetrying, Weak), "never held elsewhere");
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn conflict_becomes_held_elsewhere_after_the_stale_limit() {
    let mut manager = Manager::healthy(1);
    manager.gauges = true;
    manager.restarts(secs(1));
    manager.diagnose();
    while found(&manager.watch_refused(secs(2)), 1).0 != Diagnosis::ConflictRetrying {}
    let since = manager.now;
    let fleet = manager.watch_refused(manager.policy.stale_session_limit);
    assert_eq!((manager.now.since(since), found(&fleet, 1).0), (Span::mins(5), Diagnosis::ConflictRetrying));
    let fleet = manager.watch_refused(secs(2));
    assert_eq!((found(&fleet, 1), manager.remedies(&fleet)), ((Diagnosis::HeldElsewhere, Strong), vec![]));
    manager.fails = Some(FailureKind::Timeout);
    manager.after(secs(2)).diagnose();
    manager.fails = None;
    assert_eq!(found(&manager.watch_refused(secs(4)), 1).0, Diagnosis::HeldElsewhere, "a blind sweep ends no series");
    manager.opens();
    assert_eq!(found(&manager.watch(secs(4)), 1).0, Diagnosis::Listening);
}

#[test]
fn verdict_keeps_its_first_date_until_the_set_changes() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    manager.watch(secs(10));
    let unchanged_since = |manager: &mut Manager| {
        manager.is_refused();
        let fleet = manager.after(secs(2)).diagnose();
        let of = |set| {
            fleet.findings[&id(set)].evidence.iter().find_map(|evidence| {
                if let Fact::UnchangedSince { since } = evidence.fact { Some(since) } else { None }
            })
        };
        (of(1), of(2))
    };
    manager.change(2);
    let (first, _) = unchanged_since(&mut manager);
    assert!(first.is_some());
    manager.after(secs(30));
    let (again, changed) = unchanged_since(&mut manager);
    assert_eq!((again, changed), (first, None));
}

#[test]
fn verdict_follows_a_set_that_listens_after_a_change() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    manager.change(1);
    manager.watch(Span::mins(1));
    manager.closes();
    assert_eq!(found(&manager.watch(Span::mins(4)), 1), (Diagnosis::Unheld, Weak), "a request of its may hang");
}

// --- the manager's log and the endpoints, for a start that failed ---

#[test]
fn cause_is_gone_only_while_github_answers() {
    let gone = |answer, pulse_fails: bool| {
        let mut manager = Manager::healthy(1);
        manager.restarts(secs(30));
        manager.logs(secs(30), LogEvent::ManagerStarted);
        let kind = ListenerErrorKind::Server;
        manager.logs(secs(29), LogEvent::StartFailed { set: by_manager(1), kind, gave_up: true });
        manager.listed(answer);
        manager.diagnose();
        manager.counters.rate_limit_errors += u64::from(pulse_fails);
        let fleet = manager.after(secs(2)).diagnose();
        assert_eq!(found(&fleet, 1), (Diagnosis::StartAbandoned, Proof));
        says(&fleet, 1, &Fact::CauseGone)
    };
    assert!(gone(Ok(github_sets([1])), false));
    assert!(!gone(Err(FailureKind::Server), false));
    assert!(!gone(Ok(github_sets([1])), true));
}

// --- more evidence ---

#[test]
fn lingering_instances_are_evidence_unless_the_set_is_well() {
    let lingers = |mut manager: Manager, diagnosis, deleted| {
        manager.lingering.insert(id(1), Lingering { deleted, ..Lingering::default() });
        let fleet = manager.watch(secs(30));
        assert_eq!(found(&fleet, 1).0, diagnosis);
        says(&fleet, 1, &Fact::DeletedInstancesLinger { count: deleted })
    };
    let suspect = || {
        let mut manager = Manager::given_up(2, Span::mins(10));
        manager.opens();
        manager
    };
    assert!(lingers(Manager::given_up(1, secs(30)), Diagnosis::ConflictAbandoned, 3));
    assert!(lingers(suspect(), Diagnosis::Unknown, 3));
    assert!(!lingers(suspect(), Diagnosis::Unknown, 0));
    assert!(!lingers(Manager::healthy(1), Diagnosis::Listening, 3), "its listener will clear them");
}

#[test]
fn stale_session_in_the_ledger_is_evidence_of_an_ill_set() {
    type Change = fn(LedgerSession, Incarnation) -> LedgerSession;
    let old = Incarnation(START.minus(Span::hours(2)));
    let cases: [(bool, bool, Change); 6] = [
        (true, true, |session, _| session),
        (true, false, |session, run| LedgerSession { opened_by: OpenedBy::Manager(run), ..session }),
        (true, false, |session, run| LedgerSession {
            opened_by: OpenedBy::Manager(Incarnation(run.0.plus(secs(9)))),
            ..session
        }),
        (true, false, |session, _| LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..session }),
        (true, false, |session, _| LedgerSession { ended: Some((START, SessionEnd::Closed)), ..session }),
        // Nobody knows which run this is.
        (false, false, |session, _| session),
    ];
    for (n, (dated, known, change)) in cases.into_iter().enumerate() {
        let mut manager = Manager::given_up(1, secs(30));
        let run = manager.run.unwrap();
        manager.run = manager.run.filter(|_| dated);
        manager.ledger.push(change(ledger_session(1, "s", old, START), run));
        let fleet = manager.watch(secs(30));
        assert_eq!(found(&fleet, 1).0, Diagnosis::ConflictAbandoned);
        let facts = fleet.findings[&id(1)].evidence.iter().map(|evidence| &evidence.fact);
        let mut stale = facts.filter(|fact| matches!(fact, Fact::StaleSessionKnown { .. }));
        assert_eq!(stale.next(), known.then_some(&Fact::StaleSessionKnown { incarnation: old }), "{n}");
    }
}

#[test]
fn disabled_sets_worker_is_idle_if_all_that_can_live_do() {
    for (mut manager, living, missing) in [
        (Manager::healthy(2), 2, "neither worker gave up"),
        (Manager::given_up(2, Span::mins(10)), 1, "the living one is set 1's: set 2's gave up"),
    ] {
        manager.watch(secs(20));
        manager.enable(1, Enablement::Disabled);
        for (workers, expected) in [(living - 1, WorkerState::Absent), (living, WorkerState::Idle)] {
            manager.goroutines = Some(Goroutines { listeners: 0, workers });
            for _ in 0..3 {
                let worker = manager.after(secs(2)).diagnose().findings[&id(1)].worker;
                assert_eq!(worker.state, expected, "{missing}");
                assert!(expected == WorkerState::Absent || worker.since == manager.now);
            }
        }
    }
}
