//! Counters and goroutines, which name no set.

use super::super::testing::*;
use crate::model::{Confidence, ConflictBehaviour, Diagnosis, Enablement, Fact, Goroutines, Source, Span, WorkerState};

use Confidence::{Strong, Weak};

#[test]
fn all_sessions_open_and_polled_are_all_sets_listening() {
    let mut manager = Manager::healthy(3);
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Listening, Weak), "a session may just be being opened");
    for finding in manager.watch(secs(4)).findings.values() {
        let seen = (finding.diagnosis, finding.confidence, finding.worker.state);
        assert_eq!(seen, (Diagnosis::Listening, Strong, WorkerState::Listening));
    }
}

#[test]
fn refusals_that_stand_still_are_abandoned_sets() {
    let mut manager = Manager::given_up(3, secs(3));
    assert_eq!(diagnoses(&manager.diagnose()), [Diagnosis::Settling; 3], "they may be tried again any moment");
    let fleet = manager.watch(secs(8));
    for finding in fleet.findings.values() {
        let seen = (finding.diagnosis, finding.confidence, finding.worker.state);
        assert_eq!(seen, (Diagnosis::ConflictAbandoned, Strong, WorkerState::Absent));
    }
    assert_eq!(manager.remedies(&fleet).len(), 3);
}

#[test]
fn change_before_the_crash_restarts_no_worker() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.after(secs(2)).change(1);
    manager.after(secs(10)).restarts(secs(5));
    manager.is_refused();
    manager.is_refused();
    assert_eq!(diagnoses(&manager.watch(secs(20))), [Diagnosis::ConflictAbandoned; 2]);
}

#[test]
fn refusals_after_a_session_do_not_show_the_build() {
    // GitHub fails for a while; the listeners come back, as in any build.
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.closes();
    manager.closes();
    let fleet = manager.watch_refused(Span::mins(2));
    assert_ne!(fleet.conflict_behaviour, ConflictBehaviour::Retries);
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying; 2]);
}

#[test]
fn conflict_behaviour_resets_with_another_build() {
    let mut manager = Manager::healthy(2);
    manager.restarts(secs(3));
    assert_eq!(manager.watch_refused(secs(20)).conflict_behaviour, ConflictBehaviour::Retries);
    // An older build is installed.
    manager.restarts(secs(3));
    manager.is_refused();
    manager.is_refused();
    let fleet = manager.watch(secs(30));
    assert_eq!(
        (fleet.conflict_behaviour, diagnoses(&fleet)),
        (ConflictBehaviour::GivesUp, vec![Diagnosis::ConflictAbandoned; 2])
    );
}

#[test]
fn too_many_sessions_make_all_verdicts_unknown() {
    let mut manager = Manager::given_up(3, secs(30));
    assert_eq!(diagnoses(&manager.watch(secs(10))), [Diagnosis::ConflictAbandoned; 3]);
    manager.opens();
    manager.opens();
    let fleet = manager.watch(secs(60));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 3]);
    assert!(
        manager.remedies(&fleet).iter().all(|(_, kind)| *kind == crate::model::Remedy::SessionCheck),
        "at most asked about"
    );
}

#[test]
fn unread_counters_never_become_flat() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    // One is refused, and the metrics cannot be read from then on; both listen a moment later.
    manager.is_refused();
    manager.watch(secs(2));
    manager.metrics = false;
    let fleet = manager.watch(Span::mins(2));
    assert!(fleet.findings.values().all(|finding| finding.diagnosis != Diagnosis::ConflictAbandoned), "{fleet:?}");
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn failed_starts_without_retries_ask_for_a_session_check() {
    let mut manager = Manager::healthy(2);
    manager.restarts(secs(3));
    assert_eq!(manager.watch_refused(secs(20)).conflict_behaviour, ConflictBehaviour::Retries);
    // An older build is installed while GitHub fails: nothing shows that it is one.
    manager.restarts(secs(3));
    manager.counters.start_errors = 2;
    let fleet = manager.watch(Span::mins(2));
    assert_eq!(found(&fleet, 1), (Diagnosis::Unknown, Weak));
    assert!(says(&fleet, 1, &Fact::CannotTellWhich { listening: 0, of: 2 }), "which a session check may end");
}

#[test]
fn reconnecting_listener_is_not_asked_about() {
    for sets in [1, 3] {
        let mut manager = Manager::healthy(sets);
        manager.watch(secs(10));
        manager.closes();
        for _ in 0..40 {
            let fleet = manager.after(secs(2)).diagnose();
            assert!(fleet.findings.values().all(|finding| finding.diagnosis == Diagnosis::Unknown), "{fleet:?}");
            assert_eq!(manager.remedies(&fleet), [], "its next attempt may be a minute and a half away");
        }
        manager.opens();
        assert_eq!(found(&manager.watch(secs(4)), 1), (Diagnosis::Listening, Strong));
    }
}

#[test]
fn numbers_that_contradict_each_other_prove_nothing() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    manager.counters.delete += 1;
    // By the sessions nobody listens, yet somebody polls.
    let fleet = manager.watch(Span::mins(4));
    assert_eq!(found(&fleet, 1).0, Diagnosis::Unknown);
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn skewed_clock_makes_a_toggle_no_unhealthy_period() {
    let mut manager = Manager::healthy(1);
    manager.watch(Span::mins(3));
    manager.enable(1, Enablement::Disabled);
    manager.closes();
    manager.after(secs(2)).diagnose();
    manager.enable(1, Enablement::Enabled);
    manager.set(1).updated_at = Some(manager.now.minus(Span::mins(30)));
    for _ in 0..5 {
        let fleet = manager.after(secs(2)).diagnose();
        assert_eq!(manager.remedies(&fleet), []);
        assert!(!found(&fleet, 1).0.is_ill());
    }
    manager.opens();
    assert_eq!(found(&manager.watch(secs(4)), 1).0, Diagnosis::Listening);
}

#[test]
fn start_errors_are_start_abandoned_until_the_cause_ends() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    manager.counters.start_errors = 4;
    manager.counters.rate_limit_errors = 2;
    let fleet = manager.watch(secs(20));
    assert_eq!(found(&fleet, 1), (Diagnosis::StartAbandoned, Strong));
    assert!(!says(&fleet, 1, &Fact::CauseGone), "it failed a moment ago");
    let fleet = manager.watch(Span::mins(1));
    assert!(says(&fleet, 1, &Fact::CauseGone), "a whole period of the manager's pulse was quiet");
    manager.counters.rate_limit_errors += 1;
    assert!(!says(&manager.after(secs(2)).diagnose(), 1, &Fact::CauseGone));
}

#[test]
fn a_failed_start_that_reached_the_session_call_is_no_conflict() {
    let mut manager = Manager::healthy(2);
    manager.after(secs(5)).restarts(secs(3));
    manager.is_refused();
    manager.is_refused();
    manager.counters.start_errors = 2;
    assert_eq!(diagnoses(&manager.watch(secs(20))), [Diagnosis::StartAbandoned; 2]);
}

#[test]
fn sessions_that_open_and_end_at_once_are_flapping() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    let churn = |manager: &mut Manager, per_look: u64| {
        let mut fleet = manager.diagnose();
        for _ in 0..30 {
            manager.counters.create += per_look;
            manager.counters.poll += per_look;
            manager.counters.poll_errors += per_look;
            manager.counters.delete += per_look;
            fleet = manager.after(secs(2)).diagnose();
        }
        fleet
    };
    let fleet = churn(&mut manager, 10);
    assert_eq!(diagnoses(&fleet), [Diagnosis::Flapping; 2]);
    assert_eq!(manager.remedies(&fleet), []);

    let mut one_of_many = Manager::healthy(50);
    one_of_many.watch(secs(10));
    let fleet = churn(&mut one_of_many, 10);
    assert_eq!(found(&fleet, 1), (Diagnosis::Unknown, Weak), "one flaps, and nothing says which");
    assert_eq!(one_of_many.remedies(&fleet), []);
}

#[test]
fn fifty_listeners_that_restart_once_do_not_flap() {
    let mut manager = Manager::healthy(50);
    manager.watch(secs(10));
    for _ in 0..50 {
        manager.closes();
        manager.opens();
    }
    assert_eq!(diagnoses(&manager.watch(secs(4))), [Diagnosis::Listening; 50]);
}

#[test]
fn open_sessions_without_a_poll_for_long_are_deaf() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(60));
    manager.polling = 0;
    assert_eq!(found(&manager.watch(secs(200)), 1).0, Diagnosis::Listening);
    let fleet = manager.watch(secs(100));
    assert_eq!(found(&fleet, 1), (Diagnosis::Deaf, Strong));
}

// --- goroutines ---

#[test]
fn evidence_names_the_source_that_counted() {
    let mut manager = Manager::healthy(2);
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    manager.goroutines = Some(Goroutines { listeners: 0, workers: 0 });
    manager.is_refused();
    manager.is_refused();
    let fleet = manager.watch(secs(30));
    let facts: Vec<_> = fleet.findings[&id(1)].evidence.iter().map(|one| (one.source, one.fact.clone())).collect();
    assert!(matches!(facts[0], (Source::Metrics, Fact::CreateErrors { count: 2, .. })), "{facts:?}");
    assert!(facts.contains(&(Source::Goroutines, Fact::SessionsByCounters { open: 0, expected: 2 })), "{facts:?}");
}

#[test]
fn exact_counts_say_at_once_that_all_listen() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Listening, Strong));
}

#[test]
fn no_goroutines_after_the_start_time_are_unheld_sets() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    manager.watch(secs(10));
    manager.goroutines = Some(Goroutines::default());
    for _ in 0..30 {
        let fleet = manager.after(secs(2)).diagnose();
        assert_eq!(manager.remedies(&fleet), [], "a clean restart looks just like this");
    }
    let fleet = manager.watch(secs(30));
    assert_eq!(found(&fleet, 1), (Diagnosis::Unheld, Strong));
    assert_eq!(fleet.findings[&id(1)].worker.state, WorkerState::Absent);
}
