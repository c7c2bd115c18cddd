//! Counters that name no set, where the numbers barely leave a choice, or barely do not.

use super::super::testing::*;
use crate::model::log_fact::{ListenerErrorKind, LogEvent};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, EntityKind, Fact, Goroutines, Span, Step, WorkerState,
};

use Confidence::{Strong, Weak};

// --- goroutines ---

#[test]
fn goroutines_count_for_the_only_scope() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 1, workers: 2 });
    let fleet = manager.watch(Span::mins(2));
    assert!(says(&fleet, 1, &Fact::CannotTellWhich { listening: 1, of: 2 }));
    manager.set(2).entity.as_mut().unwrap().kind = EntityKind::Repository;
    assert!(says(&manager.diagnose(), 1, &Fact::NothingToSee), "nothing shows in which of two scopes it is");
}

#[test]
fn living_workers_raise_retrying_and_lower_unheld() {
    for (workers, retries, unheld) in [(2, Strong, Weak), (3, Strong, Weak), (1, Weak, Strong)] {
        let mut manager = Manager::given_up(2, Span::mins(5));
        manager.gauges = true;
        manager.goroutines = Some(Goroutines { listeners: 0, workers });
        let fleet = manager.watch(secs(20));
        assert_eq!(found(&fleet, 1), (Diagnosis::ConflictRetrying, retries), "{workers} of 2 workers");
        let mut untried = Manager::healthy(2);
        untried.restarts(Span::mins(2));
        untried.goroutines = Some(Goroutines { listeners: 0, workers });
        assert_eq!(found(&untried.watch(secs(20)), 1), (Diagnosis::Unheld, unheld), "{workers} of 2 workers");
    }
}

// --- rates ---

#[test]
fn two_sweeps_at_one_instant_show_no_rate() {
    for (sets, opened) in [(2, 1000), (50, 200)] {
        let mut manager = Manager::healthy(sets);
        manager.watch(secs(10));
        manager.after(Span::mins(2)).diagnose();
        manager.counters.create += opened;
        manager.counters.poll += opened;
        manager.counters.poll_errors += opened;
        manager.counters.delete += opened;
        assert_eq!(found(&manager.diagnose(), 1).0, Diagnosis::Listening, "{opened} of {sets}");
    }
}

// --- given up ---

#[test]
fn cause_gone_is_evidence_of_start_abandoned_only() {
    for (start_errors, expected) in [(3, Diagnosis::StartAbandoned), (0, Diagnosis::ConflictAbandoned)] {
        let mut manager = Manager::given_up(2, Span::mins(2));
        manager.counters.start_errors = start_errors;
        assert_eq!(found(&manager.watch(secs(20)), 2).0, expected);
        manager.change(1);
        let kept = |fleet: &super::super::Fleet| {
            assert!(fleet.findings[&id(2)].evidence.iter().any(|e| matches!(e.fact, Fact::UnchangedSince { .. })));
            assert_eq!(found(fleet, 2).0, expected);
            says(fleet, 2, &Fact::CauseGone)
        };
        assert!(!kept(&manager.watch_refused(secs(10))), "{expected}: start errors stand still for 30 s only");
        let gone = kept(&manager.watch_refused(secs(30)));
        assert_eq!(gone, expected == Diagnosis::StartAbandoned, "{expected}");
    }
}

#[test]
fn changed_set_has_45_seconds_to_come_back() {
    let mut manager = Manager::given_up(1, Span::mins(5));
    manager.watch(secs(10));
    manager.enable(1, Enablement::Disabled);
    manager.after(secs(1)).diagnose();
    manager.enable(1, Enablement::Enabled);
    assert_eq!(found(&manager.watch(secs(44)), 1).0, Diagnosis::Unknown);
    assert_eq!(found(&manager.after(secs(1)).diagnose(), 1), (Diagnosis::Unheld, Strong));
}

// --- who listens, when some do ---

#[test]
fn changed_set_is_the_one_whose_session_is_missing() {
    let mut manager = Manager::healthy(3);
    manager.watch(secs(10));
    manager.closes();
    manager.change(3);
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!(found(&fleet, 1).0, Diagnosis::Listening);
    assert_eq!(found(&fleet, 2).0, Diagnosis::Listening);
    assert_ne!(found(&fleet, 3).0, Diagnosis::Listening);
}

/// Of three sets one listens, nobody knows which; then set 1 is treated, and `change` happens.
fn treated(change: impl FnOnce(&mut Manager)) -> Manager {
    let mut manager = Manager::given_up(3, Span::mins(10));
    manager.opens();
    manager.watch(secs(20));
    manager.change(1);
    manager.after(secs(2)).diagnose();
    manager.treatments.push(open(1, 1, manager.now, Step::Verifying));
    change(&mut manager);
    manager.after(secs(2));
    manager
}

fn is_brought_back(change: impl FnOnce(&mut Manager)) -> bool {
    let fleet = treated(change).watch(secs(10));
    let listens = found(&fleet, 1) == (Diagnosis::Listening, Strong);
    assert_eq!(listens, found(&fleet, 1).0 == Diagnosis::Listening);
    listens
}

#[test]
fn new_session_belongs_to_the_treated_set() {
    let mut manager = treated(Manager::opens);
    let fleet = manager.watch(secs(10));
    assert_eq!(found(&fleet, 1), (Diagnosis::Listening, Strong));
    for set in 2..=3 {
        assert_eq!(found(&fleet, set), (Diagnosis::Unknown, Weak));
        assert!(says(&fleet, set, &Fact::CannotTellWhich { listening: 1, of: 2 }));
    }
    assert!(!is_brought_back(|_| {}), "no session more");
    assert!(
        is_brought_back(|manager| {
            manager.opens();
            manager.treatments.push(open(9, 9, manager.now, Step::Verifying));
        }),
        "a treatment of a set that is not here takes no session"
    );
}

#[test]
fn treatment_counts_only_after_its_enable_in_this_run() {
    assert!(!is_brought_back(|manager| {
        manager.opens();
        let ours = manager.set(1).revision.clone();
        manager.treatments[0].step = Step::Enabling { ours, since: None, attempts: 1, not_before: manager.now };
    }));
    assert!(!is_brought_back(|manager| {
        manager.opens();
        manager.treatments[0].step_at = START.minus(Span::mins(20));
    }));
}

#[test]
fn new_session_may_belong_to_another_changed_set() {
    assert!(!is_brought_back(|manager| {
        manager.opens();
        manager.after(secs(2)).change(2);
    }));
    assert!(
        !is_brought_back(|manager| {
            manager.change(2);
            manager.diagnose();
            manager.opens();
        }),
        "at the very date of the treatment"
    );
    assert!(
        !is_brought_back(|manager| {
            manager.now = manager.now.minus(secs(8));
            manager.change(2);
            manager.diagnose();
            manager.after(secs(8)).opens();
        }),
        "toggled a moment before, and trying since"
    );
    assert!(
        !is_brought_back(|manager| {
            manager.gauges = true;
            manager.opens();
        }),
        "in a build that retries, any of them comes back"
    );
}

#[test]
fn changed_set_may_hold_the_session_for_a_stale_lifetime() {
    for (seconds, expected) in [(300, Diagnosis::Unknown), (301, Diagnosis::Listening)] {
        let mut manager = Manager::given_up(3, Span::mins(10));
        manager.opens();
        manager.watch(secs(20));
        manager.change(2);
        manager.diagnose();
        manager.after(secs(seconds)).change(1);
        manager.diagnose();
        manager.treatments.push(open(1, 1, manager.now, Step::Verifying));
        manager.after(secs(2)).opens();
        manager.after(secs(2));
        assert_eq!(found(&manager.watch(secs(10)), 1).0, expected, "changed {seconds} s before the treatment");
    }
}

#[test]
fn treated_set_listens_beside_an_evicted_one() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    manager.watch(secs(20));
    manager.change(1);
    manager.after(secs(2)).diagnose();
    manager.treatments.push(open(1, 1, manager.now, Step::Verifying));
    manager.after(secs(2)).opens();
    let kind = ListenerErrorKind::NotFound;
    manager.logs(Span::ZERO, LogEvent::ListenerFailed { set: by_manager(2), kind, refresh: false });
    manager.diagnose();
    let fleet = manager.after(secs(4)).diagnose();
    assert_eq!(found(&fleet, 2).0, Diagnosis::Evicted);
    assert_eq!(found(&fleet, 1), (Diagnosis::Listening, Strong));
}

// --- while refusals grow ---

#[test]
fn first_starts_are_judged_by_the_managers_age() {
    let mut manager = Manager::healthy(60);
    manager.restarts(secs(1));
    manager.diagnose();
    for age in [31, 73, 75] {
        let fleet = manager.watch_refused(secs(age - manager.now.since(manager.run.unwrap().0).as_millis() / 1000));
        assert_eq!(
            (fleet.conflict_behaviour, found(&fleet, 1)),
            (ConflictBehaviour::Unknown, (Diagnosis::Unknown, Weak)),
            "{age} s"
        );
        assert_eq!(says(&fleet, 1, &Fact::ManagerAge { age: secs(age) }), age < 75, "{age} s");
    }
}

/// Four sets of a build that gives up (a worker is missing); some were tried, and refusals grow now.
fn growing(age: u64, tried: u64) -> Manager {
    let mut manager = Manager::healthy(4);
    manager.restarts(secs(age));
    manager.goroutines = Some(Goroutines { listeners: 0, workers: 1 });
    for _ in 1..tried {
        manager.is_refused();
    }
    manager.diagnose();
    manager.is_refused();
    manager.after(secs(2));
    manager
}

#[test]
fn refusals_of_others_prove_nothing_if_the_build_gives_up() {
    for (age, tried, expected) in [
        (12, 2, Diagnosis::Settling),
        (30, 2, Diagnosis::Unknown),
        (30, 3, Diagnosis::Unknown),
        (30, 4, Diagnosis::ConflictAbandoned),
        (80, 3, Diagnosis::ConflictAbandoned),
    ] {
        let fleet = growing(age, tried).diagnose();
        assert_eq!(
            (fleet.conflict_behaviour, found(&fleet, 2).0),
            (ConflictBehaviour::GivesUp, expected),
            "{age} s, {tried} tried"
        );
    }
    let mut had_run = growing(80, 4);
    (had_run.counters.create, had_run.counters.poll) = (had_run.counters.create + 1, 1);
    (had_run.counters.delete, had_run.counters.poll_errors) = (1, 1);
    assert_eq!(found(&had_run.diagnose(), 2).0, Diagnosis::Unknown, "a listener has run, and it may be this set's");
}

#[test]
fn refusals_leave_it_open_if_the_build_is_unknown() {
    let mut manager = Manager::healthy(2);
    manager.restarts(Span::mins(2));
    manager.change(1);
    let fleet = manager.watch_refused(secs(40));
    assert_eq!(fleet.conflict_behaviour, ConflictBehaviour::Unknown);
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying, Diagnosis::Unknown]);
}

// --- while nobody tries ---

#[test]
fn start_gets_75_seconds_to_try_every_set() {
    for (refused, failed) in [(1, 0), (0, 1)] {
        let mut manager = Manager::healthy(2);
        manager.restarts(secs(30));
        manager.counters.create = refused;
        manager.counters.create_errors = refused;
        manager.counters.start_errors = failed;
        let fleet = manager.watch(secs(44));
        assert_eq!(found(&fleet, 1).0, Diagnosis::Unknown, "74 s old: {refused} refused, {failed} failed of 2");
        assert!(says(&fleet, 1, &Fact::ManagerAge { age: secs(74) }));
        let given_up = if failed > 0 { Diagnosis::StartAbandoned } else { Diagnosis::ConflictAbandoned };
        assert_eq!(found(&manager.after(secs(1)).diagnose(), 1), (given_up, Strong), "75 s old");
    }
    let mut untried = Manager::healthy(2);
    untried.restarts(secs(30));
    assert_eq!(found(&untried.watch(secs(44)), 1).0, Diagnosis::Unknown);
    assert_eq!(found(&untried.after(secs(1)).diagnose(), 1), (Diagnosis::Unheld, Strong));
}

// --- which of them ---

#[test]
fn recent_change_means_listening_unless_we_made_it() {
    let changed = |treated: Option<u64>| {
        let mut manager = Manager::given_up(3, Span::mins(20));
        manager.opens();
        manager.watch(secs(10));
        manager.change(2);
        manager.diagnose();
        let ours = manager.set(1).revision.clone();
        let enabling = Step::Enabling { ours, since: None, attempts: 0, not_before: START };
        manager.treatments.extend(treated.map(|set| open(set, set, manager.now, enabling)));
        manager
    };
    let fleet = changed(None).watch(secs(10));
    assert_eq!((found(&fleet, 2), found(&fleet, 1)), ((Diagnosis::Listening, Weak), (Diagnosis::Unknown, Weak)));
    assert!(says(&fleet, 2, &Fact::RevisionMoved));
    assert_eq!(found(&changed(Some(3)).watch(secs(10)), 2), (Diagnosis::Listening, Weak), "another was treated");
    assert_eq!(found(&changed(Some(2)).watch(secs(10)), 2).0, Diagnosis::Unknown);
    let mut long_ago = changed(None);
    let fleet = long_ago.watch(Span::mins(10).minus(secs(2)));
    assert_eq!(found(&fleet, 2), (Diagnosis::Listening, Weak));
    let fleet = long_ago.after(secs(2)).diagnose();
    assert_eq!(found(&fleet, 2).0, Diagnosis::Unknown, "ten minutes ago");
    assert_eq!(fleet.findings[&id(2)].worker.state, WorkerState::Unknown, "nobody is refused");
}

#[test]
fn only_a_changed_set_is_known_to_retry() {
    let mut manager = Manager::given_up(3, Span::mins(20));
    manager.opens();
    manager.watch(secs(10));
    manager.change(2);
    let fleet = manager.watch_refused(secs(20));
    assert_eq!(found(&fleet, 2).0, Diagnosis::Unknown);
    assert_eq!(fleet.findings[&id(2)].worker.state, WorkerState::Retrying);
    assert_eq!(fleet.findings[&id(1)].worker.state, WorkerState::Unknown);
}
