//! The manager's run and how the one before ended, its endpoints, and faults at GitHub: at their edges.

use super::super::LOOP_WINDOW;
use super::super::testing::*;
use crate::model::log_fact::LogEvent;
use crate::model::session::{LedgerSession, OpenedBy, SessionEnd};
use crate::model::{
    EndpointName, EndpointState, FailureKind, Incarnation, ManagerState, Owner, Quota, RestartKind, Span,
};

// --- its run ---

#[test]
fn log_moves_the_run_forward_only() {
    let mut manager = Manager::healthy(1);
    let run = manager.diagnose().incarnation;
    manager.run = None;
    manager.logs(Span::hours(2), LogEvent::ManagerStarted);
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!((fleet.incarnation, fleet.restarts), (run, 0), "the log has not seen the latest start");
    manager.logs(secs(1), LogEvent::ManagerStarted);
    let fleet = manager.diagnose();
    assert_eq!((fleet.incarnation, fleet.restarts), (Some(Incarnation(manager.now.minus(secs(1)))), 1));
}

#[test]
fn start_date_that_moves_back_is_another_run_and_no_restart() {
    let mut manager = Manager::healthy(1);
    manager.diagnose();
    manager.run = Some(Incarnation(START.minus(Span::hours(2))));
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!((fleet.incarnation, fleet.restarts, fleet.restart), (manager.run, 0, None));
}

#[test]
fn undated_restart_needs_a_refused_connection() {
    for (kind, state) in [(FailureKind::Connect, ManagerState::Restarted), (FailureKind::Timeout, ManagerState::Up)] {
        let mut manager = Manager::healthy(1);
        (manager.run, manager.metrics) = (None, false);
        manager.watch(secs(30));
        manager.fails = Some(kind);
        manager.after(secs(2)).diagnose();
        manager.fails = None;
        assert_eq!(manager.after(secs(2)).diagnose().manager, state, "{kind}");
    }
}

#[test]
fn any_counter_that_goes_backwards_is_another_run() {
    let changes: [fn(&mut Manager); 5] = [
        |_| {},
        |manager| manager.counters.create -= 1,
        |manager| manager.counters.poll -= 1,
        |manager| manager.counters.delete -= 1,
        |manager| manager.counters.create_errors -= 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut manager = Manager::healthy(2);
        manager.run = None;
        manager.is_refused();
        manager.closes();
        manager.polling = 0;
        manager.watch(secs(10));
        change(&mut manager);
        let expected = if n == 0 { ManagerState::Up } else { ManagerState::Restarted };
        assert_eq!(manager.after(secs(2)).diagnose().manager, expected, "{n}");
    }
}

#[test]
fn restarts_are_counted_over_a_bounded_window() {
    let mut manager = Manager::healthy(1);
    manager.diagnose();
    for expected in 1..=2 {
        manager.after(Span::mins(1)).restarts(secs(10));
        assert_eq!(manager.diagnose().restarts, expected);
    }
    manager.after(LOOP_WINDOW.minus(Span::mins(1)).minus(Span::millis(1)));
    assert_eq!(manager.diagnose().restarts, 2);
    assert_eq!(manager.after(Span::millis(1)).diagnose().restarts, 1, "the first is as old as the window");
    for _ in 0..40 {
        manager.after(secs(20)).restarts(secs(10));
        manager.diagnose();
    }
    assert_eq!(manager.state.restarts.len(), 32);
}

#[test]
fn grace_period_ends_exactly_at_its_limit() {
    let mut manager = Manager::healthy(1);
    manager.restarts(manager.policy.settle.minus(Span::millis(1)));
    assert_eq!(manager.diagnose().manager, ManagerState::Restarted);
    assert_eq!(manager.after(Span::millis(1)).diagnose().manager, ManagerState::Up);
}

// --- how the run before ended ---

/// How it is reported to have ended, at this age of the new incarnation.
fn ended(age: u64, change: impl FnOnce(&mut Manager, Incarnation)) -> Option<RestartKind> {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    manager.after(secs(age)).restarts(secs(age));
    let run = manager.run.unwrap();
    change(&mut manager, run);
    let (kind, of) = manager.diagnose().restart?;
    assert_eq!((of, manager.watch(secs(60)).restart), (run, None), "reported once");
    Some(kind)
}

const CRASH: Option<RestartKind> = Some(RestartKind::Crash);
const CLEAN: Option<RestartKind> = Some(RestartKind::Clean);

#[test]
fn restart_without_refusals_is_clean_after_15_seconds() {
    assert_eq!(ended(14, |_, _| {}), None);
    assert_eq!(ended(15, |_, _| {}), CLEAN);
    assert_eq!(ended(60, |manager, _| manager.is_refused()), CRASH);
}

#[test]
fn crash_needs_a_living_session_of_an_earlier_run() {
    let ledger = |change: fn(LedgerSession, Incarnation) -> LedgerSession| {
        ended(5, |manager, run| {
            let old = ledger_session(1, "s", Incarnation(START.minus(Span::hours(1))), START);
            manager.ledger.push(change(old, run));
        })
    };
    assert_eq!(ledger(|session, _| session), CRASH);
    assert_eq!(ledger(|session, run| LedgerSession { opened_by: OpenedBy::Manager(run), ..session }), None);
    assert_eq!(ledger(|session, _| LedgerSession { ended: Some((START, SessionEnd::Closed)), ..session }), None);
    assert_eq!(ledger(|session, _| LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..session }), None);
}

#[test]
fn panic_or_conflict_in_the_log_is_a_crash() {
    let panicked = |before: u64| ended(5, |manager, _| manager.logs(secs(5 + before), LogEvent::Panic));
    assert_eq!(panicked(60), CRASH);
    assert_eq!(panicked(600), CRASH);
    assert_eq!(panicked(601), None, "that was another end");
    let conflict = || LogEvent::Conflict { set: by_manager(1), owner: None, gave_up: false };
    assert_eq!(ended(5, |manager, _| manager.logs(secs(1), conflict())), CRASH);
}

#[test]
fn logged_stop_counts_for_the_restart_right_after_it() {
    let stopped = |before: u64| ended(5, |manager, _| manager.logs(secs(5 + before), LogEvent::ManagerStopping));
    assert_eq!(stopped(1), CLEAN);
    assert_eq!(stopped(600), CLEAN);
    assert_eq!(stopped(601), None, "that was another end");
    assert_eq!(ended(5, |manager, _| manager.logs(secs(1), LogEvent::ManagerStopping)), None, "the new run's own");
}

// --- its endpoints ---

#[test]
fn endpoint_is_limited_if_every_credential_is_used_up() {
    let quota = |endpoint: &str, limit, remaining, reset: Option<u64>| Quota {
        credential: "app".to_owned(),
        endpoint: EndpointName::new(endpoint),
        limit,
        remaining,
        reset: reset.map(|seconds| START.plus(secs(seconds))),
    };
    let ours = |remaining, reset| quota("github.com", 5000, remaining, reset);
    let cases = [
        (vec![ours(0, Some(60))], true),
        (vec![ours(0, Some(60)), ours(0, Some(1))], true),
        (vec![ours(1, Some(60))], false),
        (vec![ours(0, Some(60)), ours(1, Some(60))], false),
        (vec![ours(0, Some(0))], false),
        (vec![ours(0, None)], false),
        (vec![quota("github.com", 0, 0, Some(60))], false),
        (vec![quota("ghes", 5000, 0, Some(60))], false),
        (vec![ours(0, Some(60)), quota("ghes", 5000, 9, Some(60))], true),
        (vec![], false),
    ];
    for (quotas, used_up) in cases {
        let mut manager = Manager::healthy(1);
        manager.quotas = quotas;
        let state = manager.diagnose().endpoints.get(&EndpointName::new("github.com")).copied();
        assert_eq!(state, used_up.then_some(EndpointState::Limited), "{:?}", manager.quotas);
    }
}

#[test]
fn failed_pulse_degrades_the_endpoint_for_45_seconds() {
    let mut manager = Manager::healthy(1);
    manager.diagnose();
    manager.counters.rate_limit_errors += 1;
    manager.after(secs(15)).diagnose();
    let degraded: Vec<_> = manager.after(secs(44)).diagnose().endpoints.into_values().collect();
    assert_eq!(degraded, [EndpointState::Degraded]);
    assert!(manager.after(secs(1)).diagnose().endpoints.is_empty());
}

// --- faults at GitHub ---

#[test]
fn two_failing_entities_are_a_fault_at_github() {
    for (second, fault) in [(Err(FailureKind::Server), true), (Ok(Vec::new()), false)] {
        let mut manager = Manager::healthy(1);
        manager.listed_for("acme", Err(FailureKind::Timeout));
        manager.listed_for("beta", second);
        assert_eq!(manager.diagnose().fault_at_github, fault);
    }
}

/// Sets of two entities, both refused by the log, in an incarnation of this age.
fn conflicting(age: u64, since: u64, owner: Option<&Owner>, change: impl FnOnce(&mut Manager)) -> bool {
    let mut manager = Manager::healthy(2);
    manager.sets[1] = scale_set_of(2, "beta");
    manager.run = Some(Incarnation(manager.now.minus(secs(age))));
    for ago in [since, 1] {
        for set in [1, 2] {
            let what = LogEvent::Conflict { set: by_manager(set), owner: owner.cloned(), gave_up: false };
            manager.logs(secs(ago), what);
        }
    }
    change(&mut manager);
    manager.diagnose().fault_at_github
}

#[test]
fn unexplained_conflicts_of_entities_are_githubs_fault() {
    let stranger = Owner::new("garm-somebody-else");
    for (age, since, owner, changed, fault, why) in [
        (3600, 99, None, None, true, "nothing explains them"),
        (3600, 99, Some(&ours()), None, true, "they name our own manager"),
        (3600, 99, Some(&stranger), None, false, "another manager holds them"),
        (400, 99, None, None, true, "later than the last stale session"),
        (400, 100, None, None, false, "five minutes after the start the last stale session may just end"),
        (3600, 99, None, Some(100), false, "changed just before: their workers came to it late"),
        (3600, 99, None, Some(219), false, "changed two minutes before"),
        (3600, 99, None, Some(220), true, "changed long before"),
        (3600, 250, None, Some(130), false, "changed two minutes after"),
        (3600, 250, None, Some(129), true, "changed when they had long been refused"),
    ] {
        let change = |manager: &mut Manager| {
            if let Some(ago) = changed {
                let at = manager.now.minus(secs(ago));
                manager.sets.iter_mut().for_each(|set| set.updated_at = Some(at));
            }
        };
        assert_eq!(conflicting(age, since, owner, change), fault, "{why}");
    }
    assert!(!conflicting(3600, 99, None, |manager| manager.sets[1] = scale_set(2)), "one entity is not GitHub");
}
