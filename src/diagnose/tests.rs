//! What an operator would expect of each rule, told as scenes.

use super::testing::*;
use super::{Memory, ProbeAnswer, diagnose};
use crate::model::log_fact::{ListenerErrorKind, LogEvent, LogSet};
use crate::model::session::{LedgerSession, OpenedBy};
use crate::model::{
    Confidence, Diagnosis, Enablement, EndpointName, EndpointState, Fact, FailureKind, ForgeId, ForgeStatistics,
    Generation, Goroutines, Incarnation, ListenerMetrics, ManagerState, Owner, RestartKind, Revision, SessionId, Span,
    Step, Wall, WorkerState,
};

use Confidence::{Proof, Strong, Weak};

// --- the manager as a whole ---

#[test]
fn a_manager_that_refuses_connections_is_down_and_one_that_answers_badly_is_unreachable() {
    for (kind, state) in [
        (FailureKind::Connect, ManagerState::Down),
        (FailureKind::Unauthorized, ManagerState::Unreachable),
        (FailureKind::Malformed, ManagerState::Unreachable),
        (FailureKind::Timeout, ManagerState::Unreachable),
    ] {
        let mut manager = Manager::healthy(2);
        manager.watch(secs(10));
        manager.fails = Some(kind);
        let fleet = manager.after(secs(2)).look();
        assert_eq!(fleet.manager, state, "{kind}");
        assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 2], "{kind}");
        assert!(says(&fleet, 1, &Fact::ManagerUnseen { kind }));
        assert!(fleet.blind);
        assert_eq!(manager.remedies(&fleet), []);
    }
}

#[test]
fn an_outage_of_the_manager_neither_begins_nor_ends_an_illness() {
    let mut manager = Manager::given_up(1, secs(30));
    let ill_since = manager.watch(secs(20)).findings[&id(1)].ill_since;
    assert!(ill_since.is_some());
    manager.fails = Some(FailureKind::Timeout);
    assert_eq!(manager.watch(Span::mins(5)).findings[&id(1)].ill_since, ill_since);
    manager.fails = None;
    let fleet = manager.watch(secs(4));
    assert_eq!(found(&fleet, 1), (Diagnosis::ConflictAbandoned, Strong));
    assert_eq!(fleet.findings[&id(1)].ill_since, ill_since);

    let mut well = Manager::healthy(1);
    well.watch(secs(10));
    well.fails = Some(FailureKind::Connect);
    assert_eq!(well.watch(Span::mins(5)).findings[&id(1)].ill_since, None);
}

#[test]
fn a_young_manager_is_restarted_and_its_sets_settle() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.restarts(secs(2));
    let fleet = manager.after(secs(3)).look();
    assert_eq!(fleet.manager, ManagerState::Restarted);
    assert_eq!(diagnoses(&fleet), [Diagnosis::Settling; 2]);
    assert!(fleet.findings.values().all(|finding| finding.ill_since.is_none()));
    manager.opens();
    manager.opens();
    let fleet = manager.watch(secs(20));
    assert_eq!((fleet.manager, diagnoses(&fleet)), (ManagerState::Up, vec![Diagnosis::Listening; 2]));
}

#[test]
fn a_restart_is_told_once_as_a_crash_when_sessions_were_left_behind() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    let run = manager.run.unwrap();
    manager.is_refused();
    manager.is_refused();
    assert_eq!(manager.look().restart, Some((RestartKind::Crash, run)));
    assert_eq!(manager.watch(Span::mins(1)).restart, None);
}

#[test]
fn a_restart_without_a_refusal_is_clean() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    manager.opens();
    let run = manager.run.unwrap();
    let mut told = Vec::new();
    for _ in 0..20 {
        told.extend(manager.after(secs(2)).look().restart);
    }
    assert_eq!(told, [(RestartKind::Clean, run)]);
}

#[test]
fn a_stop_that_the_log_saw_is_clean_at_once() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(1));
    manager.logs(secs(3), LogEvent::ManagerStopping);
    manager.logs(secs(1), LogEvent::ManagerStarted);
    assert_eq!(manager.look().restart.map(|(kind, _)| kind), Some(RestartKind::Clean));
}

#[test]
fn a_session_of_the_old_run_in_the_ledger_means_a_crash() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    let old = manager.run.unwrap();
    manager.ledger.push(session_of(OpenedBy::Manager(old), manager.now));
    manager.after(secs(5)).restarts(secs(1));
    assert_eq!(manager.look().restart.map(|(kind, _)| kind), Some(RestartKind::Crash));
}

fn session_of(opened_by: OpenedBy, at: Wall) -> LedgerSession {
    LedgerSession {
        set: id(1),
        place: scale_set(1, "acme").place().unwrap(),
        id: SessionId::new("s"),
        owner: ours(),
        opened_by,
        first_seen: at,
        last_seen: at,
        ended: None,
    }
}

#[test]
fn a_start_date_that_wavers_by_a_second_is_the_same_run() {
    let mut manager = Manager::given_up(2, secs(30));
    let first = manager.run;
    let mut fleet = manager.look();
    for n in 0..20 {
        manager.run = first.map(|run| Incarnation(run.0.plus(Span::millis(if n % 2 == 0 { 900 } else { 0 }))));
        fleet = manager.after(secs(2)).look();
        assert_eq!((fleet.restart, fleet.incarnation), (None, first));
    }
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictAbandoned; 2]);
}

#[test]
fn counters_that_go_backwards_are_another_run_even_when_nobody_tells_its_start() {
    let mut manager = Manager::healthy(2);
    manager.run = None;
    assert_eq!(diagnoses(&manager.watch(secs(30))), [Diagnosis::Listening; 2]);
    manager.restarts(Span::ZERO);
    let fleet = manager.after(secs(15)).look();
    assert_eq!(fleet.manager, ManagerState::Restarted);
    assert_eq!(diagnoses(&fleet), [Diagnosis::Settling; 2]);
    // It has not tried yet: nothing may be concluded from that, whatever our first look's date.
    let fleet = manager.watch(secs(40));
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_manager_whose_clock_is_behind_is_as_young_as_we_saw_it_begin() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.restarts(Span::mins(10));
    manager.after(secs(2));
    let fleet = manager.watch(secs(14));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Settling; 2], "it began within the last 16 s, whatever its clock says");
}

#[test]
fn a_manager_whose_clock_is_ahead_does_not_settle_for_ever() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    manager.restarts(Span::ZERO);
    manager.run = Some(Incarnation(manager.now.plus(Span::hours(1))));
    manager.is_refused();
    assert_eq!(diagnoses(&manager.watch(secs(40))), [Diagnosis::ConflictAbandoned]);
}

#[test]
fn more_failing_sources_than_answering_ones_make_blind() {
    let mut manager = Manager::healthy(1);
    assert!(!manager.look().blind);
    for organization in ["a", "b", "c"] {
        manager.listed_for(organization, Err(FailureKind::Timeout));
    }
    assert!(!manager.look().blind, "three of six");
    manager.listed_for("d", Err(FailureKind::Timeout));
    assert!(manager.look().blind, "four of seven");
}

// --- endpoints, and a fault at GitHub ---

#[test]
fn an_endpoint_is_what_its_entities_answer() {
    let name = EndpointName::new("github.com");
    for (first, second, state) in [
        (None, None, EndpointState::Up),
        (Some(FailureKind::Server), None, EndpointState::Degraded),
        (Some(FailureKind::Server), Some(FailureKind::Timeout), EndpointState::Down),
        (Some(FailureKind::RateLimited), Some(FailureKind::RateLimited), EndpointState::Limited),
        (Some(FailureKind::Forbidden), None, EndpointState::Up),
    ] {
        let mut manager = Manager::healthy(1);
        manager.listed_for("acme", first.map_or(Ok(forge_sets([1])), Err));
        manager.listed_for("beta", second.map_or(Ok(Vec::new()), Err));
        assert_eq!(manager.look().endpoints.get(&name), Some(&state), "{first:?} {second:?}");
    }
}

#[test]
fn the_managers_own_failing_pulse_degrades_its_endpoint() {
    let mut manager = Manager::healthy(1);
    manager.look();
    manager.counters.rate_limit_errors += 1;
    let degraded = manager.after(secs(15)).look();
    assert_eq!(degraded.endpoints.values().copied().collect::<Vec<_>>(), [EndpointState::Degraded]);
    assert!(manager.watch(Span::mins(1)).endpoints.is_empty(), "it asks every 30 s: this is over");
}

#[test]
fn conflicts_in_two_entities_without_a_restart_are_a_fault_at_github() {
    let mut manager = Manager::healthy(2);
    manager.sets[1] = scale_set(2, "beta");
    manager.watch(secs(10));
    manager.closes();
    manager.closes();
    let fleet = manager.watch_refused(secs(20));
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying; 2]);
    assert!(fleet.fault_at_forge);

    let mut one = Manager::healthy(2);
    one.watch(secs(10));
    one.closes();
    one.closes();
    assert!(!one.watch_refused(secs(20)).fault_at_forge, "one entity is not GitHub");
}

#[test]
fn conflicts_after_a_restart_are_explained_by_it() {
    let mut manager = Manager::healthy(2);
    manager.sets[1] = scale_set(2, "beta");
    manager.gauges = true;
    manager.watch(secs(10));
    manager.restarts(secs(1));
    let fleet = manager.watch_refused(Span::mins(2));
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying; 2]);
    assert!(!fleet.fault_at_forge);
}

// --- disabled, missing ---

#[test]
fn a_persons_disable_is_theirs_and_ours_is_ours() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.enable(1, Enablement::Disabled);
    manager.enable(2, Enablement::Disabled);
    manager.closes();
    manager.closes();
    let ours = Step::Disabled { ours: manager.set(2).revision.clone() };
    manager.treatments.push(treatment(2, manager.now, ours));
    let fleet = manager.after(secs(2)).look();
    assert_eq!(diagnoses(&fleet), [Diagnosis::Disabled, Diagnosis::DisabledByMedic]);
    assert_eq!(fleet.findings[&id(1)].ill_since, None);
    assert!(fleet.findings[&id(2)].ill_since.is_some());
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_disabled_sets_worker_is_known_to_wait_once_all_workers_are_counted() {
    let mut manager = Manager::healthy(2);
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    manager.watch(secs(4));
    manager.enable(1, Enablement::Disabled);
    manager.closes();
    manager.goroutines = Some(Goroutines { listeners: 1, workers: 1 });
    assert_eq!(manager.after(secs(2)).look().findings[&id(1)].worker.0, WorkerState::Absent);
    manager.goroutines = Some(Goroutines { listeners: 1, workers: 2 });
    let fleet = manager.after(secs(2)).look();
    assert_eq!(fleet.findings[&id(1)].worker, (WorkerState::Idle, manager.now));
}

#[test]
fn missing_takes_time_and_a_list_that_was_given() {
    let mut manager = Manager::healthy(2);
    manager.listed(Ok(forge_sets([2])));
    assert_eq!(diagnoses(&manager.watch(secs(110))), [Diagnosis::Listening; 2]);
    let fleet = manager.watch(secs(20));
    assert_eq!(found(&fleet, 1), (Diagnosis::Missing, Proof));
    assert_eq!(found(&fleet, 2).0, Diagnosis::Listening);
    manager.listed(Err(FailureKind::Server));
    assert_ne!(found(&manager.after(secs(2)).look(), 1).0, Diagnosis::Missing, "no list, no claim");
    manager.listed(Ok(forge_sets([1, 2])));
    assert_eq!(found(&manager.watch(secs(4)), 1).0, Diagnosis::Listening);
}

#[test]
fn a_set_created_anew_is_not_missing_under_its_old_id() {
    let mut manager = Manager::healthy(1);
    manager.listed(Ok(forge_sets([2])));
    manager.watch(secs(100));
    manager.set(1).forge_id = Some(ForgeId(777));
    let fleet = manager.watch(secs(60));
    assert_ne!(found(&fleet, 1).0, Diagnosis::Missing, "this id has been missed for a minute only");
}

#[test]
fn the_same_name_under_another_id_is_a_mismatch() {
    let mut manager = Manager::healthy(1);
    let mut list = forge_sets([1]);
    list[0].id = ForgeId(999);
    manager.listed(Ok(list));
    let fleet = manager.watch(secs(130));
    assert_eq!(found(&fleet, 1), (Diagnosis::Mismatched, Proof));
    assert!(says(&fleet, 1, &Fact::ForgeOtherId { id: ForgeId(999) }));
}

// --- counters of a scope ---

#[test]
fn all_sessions_open_and_polled_are_all_sets_listening() {
    let mut manager = Manager::healthy(3);
    assert_eq!(found(&manager.look(), 1), (Diagnosis::Listening, Weak), "one look may catch a session being opened");
    let fleet = manager.watch(secs(4));
    for set in 1..=3 {
        assert_eq!(found(&fleet, set), (Diagnosis::Listening, Strong));
        assert_eq!(fleet.findings[&id(set)].worker.0, WorkerState::Listening);
    }
}

#[test]
fn refusals_that_stand_still_are_abandoned_sets() {
    let mut manager = Manager::healthy(3);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    for _ in 0..3 {
        manager.is_refused();
    }
    assert_eq!(diagnoses(&manager.look()), [Diagnosis::Settling; 3], "they may be tried again any moment");
    let fleet = manager.watch(secs(8));
    for set in 1..=3 {
        assert_eq!(found(&fleet, set), (Diagnosis::ConflictAbandoned, Strong));
        assert_eq!(fleet.findings[&id(set)].worker.0, WorkerState::Absent);
    }
    assert_eq!(manager.remedies(&fleet).len(), 3);
}

#[test]
fn a_change_of_before_the_crash_that_is_seen_after_it_revives_nobody() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.after(secs(2)).change(1);
    manager.after(secs(10)).restarts(secs(5));
    manager.is_refused();
    manager.is_refused();
    assert_eq!(diagnoses(&manager.watch(secs(20))), [Diagnosis::ConflictAbandoned; 2]);
}

#[test]
fn refusals_that_grow_are_retries() {
    let mut manager = Manager::healthy(3);
    manager.gauges = true;
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    let fleet = manager.watch_refused(secs(30));
    for set in 1..=3 {
        assert_eq!(found(&fleet, set), (Diagnosis::ConflictRetrying, Strong));
        assert_eq!(fleet.findings[&id(set)].worker.0, WorkerState::Retrying);
    }
    assert_eq!(fleet.generation, Generation::Retries);
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn more_refusals_than_sets_show_a_build_that_retries() {
    let mut manager = Manager::healthy(2);
    manager.after(secs(5)).restarts(secs(3));
    let fleet = manager.watch_refused(secs(20));
    assert_eq!((fleet.generation, diagnoses(&fleet)), (Generation::Retries, vec![Diagnosis::ConflictRetrying; 2]));
}

#[test]
fn refusals_of_a_listener_that_had_run_say_nothing_of_the_build() {
    // GitHub fails for a while; the listeners of a build that gives up come back by themselves, as they do in any.
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.closes();
    manager.closes();
    let fleet = manager.watch_refused(Span::mins(2));
    assert_ne!(fleet.generation, Generation::Retries);
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying; 2]);
    manager.opens();
    manager.opens();
    manager.watch(secs(20));
    // Later it crashes: now its workers are dead, and that must be seen.
    manager.restarts(secs(3));
    manager.is_refused();
    manager.is_refused();
    let fleet = manager.watch(secs(30));
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictAbandoned; 2]);
    assert_eq!(manager.remedies(&fleet).len(), 2);
}

#[test]
fn what_behaviour_taught_is_unlearnt_when_another_build_runs() {
    let mut manager = Manager::healthy(2);
    manager.restarts(secs(3));
    assert_eq!(manager.watch_refused(secs(20)).generation, Generation::Retries);
    // An older build is installed.
    manager.restarts(secs(3));
    manager.is_refused();
    manager.is_refused();
    let fleet = manager.watch(secs(30));
    assert_eq!((fleet.generation, diagnoses(&fleet)), (Generation::GivesUp, vec![Diagnosis::ConflictAbandoned; 2]));
}

#[test]
fn abandoned_sets_stay_apart_while_a_toggled_one_retries_and_comes_back() {
    let mut manager = Manager::given_up(3, secs(30));
    manager.watch(secs(10));
    manager.change(1);
    let fleet = manager.watch_refused(secs(20));
    let abandoned = Diagnosis::ConflictAbandoned;
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying, abandoned, abandoned]);
    assert!(fleet.findings[&id(2)].evidence.iter().any(|e| matches!(e.fact, Fact::UnchangedSince { .. })));
    manager.opens();
    let fleet = manager.watch(secs(10));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Listening, abandoned, abandoned]);
}

#[test]
fn nobody_guesses_which_of_two_sets_listens() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    manager.opens();
    let fleet = manager.watch(secs(30));
    for set in 1..=2 {
        assert_eq!(found(&fleet, set), (Diagnosis::Unknown, Weak));
        assert!(says(&fleet, set, &Fact::CannotTellWhich { listening: 1, of: 2 }));
    }
}

#[test]
fn a_listener_that_is_about_to_come_back_is_not_asked_about() {
    let mut manager = Manager::healthy(3);
    manager.watch(secs(10));
    manager.closes();
    for _ in 0..40 {
        let fleet = manager.after(secs(2)).look();
        assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 3]);
        assert_eq!(manager.remedies(&fleet), [], "its next attempt may be a minute and a half away");
    }
    manager.opens();
    assert_eq!(diagnoses(&manager.watch(secs(4))), [Diagnosis::Listening; 3]);
}

#[test]
fn the_only_listener_of_a_scope_that_is_about_to_come_back_is_left_alone() {
    let mut manager = Manager::healthy(1);
    manager.watch(Span::mins(5));
    manager.closes();
    for _ in 0..40 {
        let fleet = manager.after(secs(2)).look();
        assert_eq!((diagnoses(&fleet), manager.remedies(&fleet)), (vec![Diagnosis::Unknown], vec![]));
    }
    manager.opens();
    assert_eq!(diagnoses(&manager.watch(secs(4))), [Diagnosis::Listening]);
}

#[test]
fn a_set_that_processed_a_message_lately_is_not_the_suspect() {
    let mut manager = Manager::given_up(3, Span::mins(10));
    manager.opens();
    manager.watch(secs(10));
    manager.change(2);
    let fleet = manager.watch(secs(10));
    assert_eq!(found(&fleet, 2), (Diagnosis::Listening, Weak));
    assert!(says(&fleet, 2, &Fact::RevisionMoved));
    assert_eq!(found(&fleet, 1), (Diagnosis::Unknown, Weak));
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
fn a_lost_enable_is_unheld() {
    let mut manager = Manager::given_up(1, Span::mins(5));
    manager.watch(secs(10));
    manager.enable(1, Enablement::Disabled);
    manager.after(secs(1)).look();
    manager.enable(1, Enablement::Enabled);
    assert_eq!(found(&manager.watch(secs(30)), 1).0, Diagnosis::Unknown, "it may still come");
    assert_eq!(found(&manager.watch(secs(30)), 1), (Diagnosis::Unheld, Strong));
}

#[test]
fn a_persons_toggle_of_a_healthy_set_is_no_illness_whatever_the_managers_clock() {
    let mut manager = Manager::healthy(1);
    manager.watch(Span::mins(3));
    manager.enable(1, Enablement::Disabled);
    manager.closes();
    manager.after(secs(2)).look();
    manager.enable(1, Enablement::Enabled);
    manager.set(1).updated_at = Some(manager.now.minus(Span::mins(30)));
    for _ in 0..5 {
        let fleet = manager.after(secs(2)).look();
        assert_eq!(manager.remedies(&fleet), []);
        assert!(!found(&fleet, 1).0.is_ill());
    }
    manager.opens();
    assert_eq!(found(&manager.watch(secs(4)), 1).0, Diagnosis::Listening);
}

#[test]
fn failures_before_a_session_are_start_abandoned_and_wait_for_their_cause() {
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
    assert!(!says(&manager.after(secs(2)).look(), 1, &Fact::CauseGone));
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
fn sets_that_nobody_ever_tried_are_unheld_after_a_while() {
    let mut manager = Manager::healthy(2);
    manager.restarts(secs(3));
    assert_eq!(diagnoses(&manager.watch(secs(60))), [Diagnosis::Unknown; 2]);
    assert_eq!(found(&manager.watch(secs(30)), 1), (Diagnosis::Unheld, Strong));
}

#[test]
fn sessions_that_open_and_end_at_once_are_flapping() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    let churn = |manager: &mut Manager, per_look: u64| {
        let mut fleet = manager.look();
        for _ in 0..30 {
            manager.counters.create += per_look;
            manager.counters.poll += per_look;
            manager.counters.poll_errors += per_look;
            manager.counters.delete += per_look;
            fleet = manager.after(secs(2)).look();
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

#[test]
fn conflicts_that_no_stale_session_explains_are_held_elsewhere() {
    let mut manager = Manager::healthy(1);
    manager.gauges = true;
    manager.restarts(secs(1));
    assert_eq!(found(&manager.watch_refused(Span::mins(4)), 1).0, Diagnosis::ConflictRetrying);
    let fleet = manager.watch_refused(Span::mins(2));
    assert_eq!(found(&fleet, 1), (Diagnosis::HeldElsewhere, Strong));
    assert_eq!(manager.remedies(&fleet), []);
    manager.fails = Some(FailureKind::Timeout);
    manager.after(secs(2)).look();
    manager.fails = None;
    assert_eq!(found(&manager.watch_refused(secs(4)), 1).0, Diagnosis::HeldElsewhere, "not to see ends no run");
    manager.opens();
    assert_eq!(found(&manager.watch(secs(4)), 1).0, Diagnosis::Listening);
}

// --- goroutines ---

#[test]
fn exact_counts_say_at_once_that_all_listen() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    assert_eq!(found(&manager.look(), 1), (Diagnosis::Listening, Strong));
}

#[test]
fn no_listener_and_no_worker_are_dead_sets_once_they_had_the_time_to_start() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    manager.watch(secs(10));
    manager.goroutines = Some(Goroutines::default());
    for _ in 0..30 {
        let fleet = manager.after(secs(2)).look();
        assert_eq!(manager.remedies(&fleet), [], "a clean restart looks just like this");
    }
    let fleet = manager.watch(secs(30));
    assert_eq!(found(&fleet, 1), (Diagnosis::Unheld, Strong));
    assert_eq!(fleet.findings[&id(1)].worker.0, WorkerState::Absent);
}

#[test]
fn workers_that_all_live_and_do_not_listen_try_and_are_left_to_it() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.goroutines = Some(Goroutines { listeners: 0, workers: 2 });
    let fleet = manager.watch(Span::mins(3));
    assert_eq!(found(&fleet, 1), (Diagnosis::ConflictRetrying, Weak));
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn fewer_workers_than_sets_after_a_refusal_show_a_build_that_gives_up() {
    let mut manager = Manager::given_up(2, secs(30));
    manager.goroutines = Some(Goroutines { listeners: 0, workers: 0 });
    let fleet = manager.watch(secs(10));
    assert_eq!((fleet.generation, found(&fleet, 1)), (Generation::GivesUp, (Diagnosis::ConflictAbandoned, Strong)));
}

// --- the set's own listener metrics ---

#[test]
fn a_fresh_poll_by_the_sets_own_metric_proves_that_it_listens() {
    let mut manager = Manager::healthy(2);
    manager.gauges = true;
    for (set, ago) in [(1, 30), (2, 600)] {
        let last_success = Some(manager.now.minus(secs(ago)));
        manager.listeners.insert(id(set), ListenerMetrics { last_success, restarts: 0 });
    }
    let fleet = manager.look();
    assert_eq!(found(&fleet, 1), (Diagnosis::Listening, Proof));
    assert_eq!(found(&fleet, 2), (Diagnosis::Deaf, Proof));
}

#[test]
fn a_set_enabled_a_moment_ago_is_not_deaf_by_its_old_polls() {
    let mut manager = Manager::healthy(1);
    manager.gauges = true;
    let last_success = Some(manager.now.minus(Span::mins(20)));
    manager.listeners.insert(id(1), ListenerMetrics { last_success, restarts: 0 });
    manager.change(1);
    assert_eq!(found(&manager.watch(secs(4)), 1), (Diagnosis::Listening, Strong));
}

#[test]
fn no_series_while_others_have_one_is_a_refused_set_only_after_a_first_poll_had_its_time() {
    let mut manager = Manager::healthy(2);
    manager.gauges = true;
    manager.restarts(secs(1));
    manager.opens();
    manager.listeners.insert(id(1), ListenerMetrics { last_success: Some(manager.now), restarts: 0 });
    let fleet = manager.watch_refused(secs(60));
    assert_eq!(found(&fleet, 2).0, Diagnosis::ConflictRetrying, "one session is open, and it is the other's");
    manager.opens();
    let fleet = manager.watch(secs(40));
    assert_eq!(found(&fleet, 2).0, Diagnosis::Listening, "its first poll is under way");
}

// --- session probes ---

#[test]
fn a_probe_that_opened_shows_an_unheld_set_until_something_newer_contradicts() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    manager.opens();
    manager.watch(secs(20));
    manager.probes.insert(id(2), (manager.now, ProbeAnswer::Unheld));
    let fleet = manager.watch(secs(4));
    assert_eq!(found(&fleet, 2), (Diagnosis::Unheld, Strong));
    assert_eq!(found(&fleet, 1).0, Diagnosis::Listening, "the one open session is its");
    manager.opens();
    let fleet = manager.watch(secs(4));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Listening; 2], "a session opened since");
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_probe_that_names_another_owner_shows_who_holds_the_set() {
    let stranger = Owner::new("garm-somebody-else");
    for (owner, expected) in
        [(Some(stranger), Diagnosis::HeldElsewhere), (Some(ours()), Diagnosis::Unknown), (None, Diagnosis::Unknown)]
    {
        let mut manager = Manager::given_up(2, Span::mins(10));
        manager.opens();
        manager.watch(secs(20));
        manager.probes.insert(id(2), (manager.now, ProbeAnswer::Held { owner }));
        assert_eq!(found(&manager.look(), 2).0, expected);
    }
}

#[test]
fn a_set_that_somebody_holds_long_after_the_crash_is_not_called_abandoned() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    for set in 1..=2 {
        manager.probes.insert(id(set), (manager.now, ProbeAnswer::Held { owner: None }));
    }
    let fleet = manager.watch(secs(30));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 2], "a stale session would have ended");
    let mut early = Manager::given_up(1, secs(40));
    early.probes.insert(id(1), (early.now, ProbeAnswer::Held { owner: None }));
    assert_eq!(diagnoses(&early.watch(secs(30))), [Diagnosis::ConflictAbandoned], "held by what the crash left");
}

#[test]
fn a_probe_of_an_earlier_run_or_before_a_change_says_nothing() {
    let mut manager = Manager::given_up(1, Span::mins(1));
    manager.probes.insert(id(1), (manager.now.minus(Span::mins(2)), ProbeAnswer::Unheld));
    assert_eq!(found(&manager.watch(secs(10)), 1).0, Diagnosis::ConflictAbandoned);
}

// --- the log ---

#[test]
fn the_latest_line_decides() {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    manager.logs(secs(50), LogEvent::ManagerStarted);
    let conflict = |gave_up| LogEvent::Conflict { set: by_manager(1), owner: None, gave_up };
    manager.logs(secs(40), conflict(false));
    manager.logs(secs(2), conflict(false));
    let fleet = manager.look();
    assert_eq!(found(&fleet, 1), (Diagnosis::ConflictRetrying, Proof));
    assert_eq!(fleet.findings[&id(1)].worker.0, WorkerState::Retrying);
    assert_eq!(fleet.findings[&id(1)].ill_since, Some(manager.now.minus(secs(2))));
    manager.logs(secs(1), LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") });
    manager.logs(Span::ZERO, LogEvent::Poll { set: by_manager(1), cursor: 0 });
    let fleet = manager.look();
    assert_eq!(found(&fleet, 1), (Diagnosis::Listening, Proof));
    assert_eq!(fleet.recoveries.len(), 1);
    assert_eq!(fleet.findings[&id(1)].ill_since, None);
}

#[test]
fn a_line_of_the_controller_names_the_set_by_its_forge_id() {
    let mut manager = Manager::given_up(2, secs(30));
    let set = LogSet::Forge { entity: "acme".to_owned(), forge_id: ForgeId(102) };
    manager.logs(secs(30), LogEvent::ManagerStarted);
    manager.logs(secs(29), LogEvent::Conflict { set, owner: None, gave_up: true });
    let fleet = manager.look();
    assert_eq!((fleet.generation, found(&fleet, 2)), (Generation::GivesUp, (Diagnosis::ConflictAbandoned, Proof)));
    assert!(says(&fleet, 2, &Fact::GaveUpLine));
}

#[test]
fn a_worker_that_gave_up_and_was_changed_since_is_not_known_to_be_dead() {
    let mut manager = Manager::given_up(1, secs(30));
    manager.logs(secs(30), LogEvent::ManagerStarted);
    manager.logs(secs(29), LogEvent::Conflict { set: by_manager(1), owner: None, gave_up: true });
    assert_eq!(found(&manager.watch(secs(4)), 1), (Diagnosis::ConflictAbandoned, Proof));
    manager.change(1);
    assert_ne!(found(&manager.after(secs(2)).look(), 1).1, Proof);
}

#[test]
fn a_long_run_of_conflicts_or_a_strange_owner_is_held_elsewhere() {
    let stranger = Owner::new("garm-somebody-else");
    for (owner, first, expected) in [
        (None, 60, Diagnosis::ConflictRetrying),
        (None, 400, Diagnosis::HeldElsewhere),
        (Some(ours()), 60, Diagnosis::ConflictRetrying),
        (Some(stranger), 60, Diagnosis::HeldElsewhere),
    ] {
        let mut manager = Manager::healthy(1);
        for ago in [first, 1] {
            let set = by_manager(1);
            manager.logs(secs(ago), LogEvent::Conflict { set, owner: owner.clone(), gave_up: false });
        }
        assert_eq!(found(&manager.look(), 1), (expected, Proof), "{owner:?} for {first} s");
    }
}

#[test]
fn a_start_that_failed_for_another_reason_is_start_abandoned() {
    let mut manager = Manager::healthy(1);
    manager.restarts(secs(30));
    manager.logs(secs(30), LogEvent::ManagerStarted);
    let kind = ListenerErrorKind::Server;
    manager.logs(secs(29), LogEvent::StartFailed { set: by_manager(1), kind, gave_up: true });
    assert_eq!(found(&manager.look(), 1), (Diagnosis::StartAbandoned, Proof));
}

#[test]
fn lines_of_a_refused_refresh_or_poll_are_an_eviction_while_they_are_news() {
    let mut manager = Manager::healthy(1);
    let refresh = LogEvent::ListenerFailed { set: by_manager(1), kind: ListenerErrorKind::NotFound, refresh: true };
    manager.logs(Span::mins(9), LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") });
    manager.logs(secs(1), refresh);
    assert_eq!(found(&manager.look(), 1), (Diagnosis::Evicted, Proof));
    for _ in 0..8 {
        manager.after(secs(40)).logs(Span::ZERO, LogEvent::Poll { set: by_manager(1), cursor: 0 });
    }
    assert_eq!(
        found(&manager.look(), 1).0,
        Diagnosis::Listening,
        "one failed refresh in five minutes: the next worked"
    );
}

#[test]
fn a_poll_that_fails_because_the_manager_closed_its_session_is_no_eviction() {
    let mut manager = Manager::healthy(1);
    manager.logs(secs(9), LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") });
    manager.logs(secs(1), LogEvent::SessionClosing { set: by_manager(1) });
    let kind = ListenerErrorKind::NotFound;
    manager.logs(Span::ZERO, LogEvent::ListenerFailed { set: by_manager(1), kind, refresh: false });
    assert!(!found(&manager.watch(secs(4)), 1).0.is_ill());
}

#[test]
fn credentials_refused_to_the_manager_are_unauthorized() {
    let mut manager = Manager::healthy(1);
    let kind = ListenerErrorKind::Unauthorized;
    manager.logs(secs(1), LogEvent::ListenerFailed { set: by_manager(1), kind, refresh: false });
    let fleet = manager.look();
    assert_eq!(found(&fleet, 1), (Diagnosis::Unauthorized, Proof));
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_message_that_fails_again_and_again_starves_its_set() {
    let mut manager = Manager::healthy(1);
    manager.logs(secs(9), LogEvent::Poll { set: by_manager(1), cursor: 7 });
    for _ in 0..3 {
        manager.logs(secs(1), LogEvent::MessageFailed { set: by_manager(1) });
    }
    assert_eq!(found(&manager.look(), 1), (Diagnosis::Starved, Proof));
}

#[test]
fn sessions_that_the_log_sees_open_again_and_again_are_flapping() {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    let opened = || LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") };
    manager.logs(secs(1), opened());
    manager.look();
    for _ in 0..20 {
        manager.logs(Span::ZERO, opened());
        manager.after(secs(1));
    }
    assert_eq!(found(&manager.look(), 1), (Diagnosis::Flapping, Proof));
}

#[test]
fn silence_of_a_log_that_goes_on_is_deafness_and_of_one_that_stopped_is_not() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.logs(secs(300), LogEvent::Poll { set: by_manager(1), cursor: 0 });
    assert_eq!(found(&manager.look(), 1).0, Diagnosis::Unknown);
    manager.logs(secs(1), LogEvent::Poll { set: by_manager(2), cursor: 0 });
    assert_eq!(found(&manager.look(), 1), (Diagnosis::Deaf, Proof));
}

// --- starved, by GitHub's counts ---

#[test]
fn jobs_that_wait_while_nothing_moves_starve_a_set_that_listens() {
    let mut manager = Manager::healthy(1);
    manager.listed(Ok(with_statistics(1, ForgeStatistics { assigned_jobs: 3, ..ForgeStatistics::default() })));
    assert_eq!(found(&manager.watch(Span::mins(9)), 1).0, Diagnosis::Listening);
    let fleet = manager.watch(Span::mins(2));
    assert_eq!(found(&fleet, 1).0, Diagnosis::Starved);
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_busy_set_always_has_jobs_that_wait_and_is_not_starved() {
    let mut manager = Manager::healthy(1);
    manager.set(1).max_runners = 1000;
    for n in 0..60 {
        let counts = ForgeStatistics { assigned_jobs: 20 + n, running_jobs: 10 + n, ..ForgeStatistics::default() };
        manager.listed(Ok(with_statistics(1, counts)));
        assert_eq!(found(&manager.watch(secs(30)), 1).0, Diagnosis::Listening);
    }
    let full = ForgeStatistics { assigned_jobs: 9, running_jobs: 5, busy_runners: 5, ..ForgeStatistics::default() };
    manager.set(1).max_runners = 5;
    manager.listed(Ok(with_statistics(1, full)));
    assert_eq!(found(&manager.watch(Span::mins(20)), 1).0, Diagnosis::Listening, "all its runners are at work");
}

// --- memory ---

#[test]
fn memory_survives_the_store_and_an_older_or_newer_medic() {
    let mut manager = Manager::given_up(2, secs(30));
    manager.watch(secs(10));
    let before = manager.look();
    let mut json = serde_json::to_value(&manager.memory).unwrap();
    manager.memory = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(manager.look().findings[&id(1)].since, before.findings[&id(1)].since);

    json["of_tomorrow"] = serde_json::json!(1);
    for set in json["sets"].as_object_mut().unwrap().values_mut() {
        set.as_object_mut().unwrap().remove("conflict_since");
    }
    let kept: Memory = serde_json::from_value(json).unwrap();
    assert_eq!(kept.sets.len(), 2);
    assert_eq!(serde_json::from_str::<Memory>("{}").unwrap(), Memory::default());
}

#[test]
fn a_set_that_is_gone_from_the_manager_is_forgotten() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(4));
    manager.sets.remove(0);
    manager.closes();
    let fleet = manager.after(secs(2)).look();
    assert_eq!(fleet.findings.keys().copied().collect::<Vec<_>>(), [id(2)]);
    assert_eq!((manager.memory.sets.len(), manager.memory.last_sets.len()), (1, 1));
}

#[test]
fn agreement_is_counted_and_dated() {
    let mut manager = Manager::healthy(1);
    let first = manager.look().findings[&id(1)].clone();
    let last = manager.watch(secs(4)).findings[&id(1)].clone();
    assert_eq!((first.seen, last.seen), (1, 4));
    assert_eq!(last.since, first.since);
}

#[test]
fn a_recovery_is_told_once_with_its_beginning() {
    let mut manager = Manager::given_up(1, secs(30));
    let ill_since = manager.watch(secs(20)).findings[&id(1)].ill_since.unwrap();
    manager.change(1);
    manager.opens();
    let mut told = Vec::new();
    for _ in 0..10 {
        told.extend(manager.after(secs(2)).look().recoveries);
    }
    assert_eq!(
        told.iter().map(|recovery| (recovery.set, recovery.ill_since)).collect::<Vec<_>>(),
        [(id(1), ill_since)]
    );
}

#[test]
fn a_set_without_an_entity_or_a_forge_id_is_unknown() {
    let mut manager = Manager::healthy(2);
    manager.set(1).entity = None;
    manager.set(2).forge_id = None;
    manager.set(2).revision = Revision::new("");
    let fleet = manager.watch(secs(10));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 2]);
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_pass_over_ten_thousand_sets_asks_each_once() {
    let mut manager = Manager::healthy(10_000);
    let sweep = manager.sweep();
    let (treatments, probes, ledger) = (Vec::new(), std::collections::BTreeMap::new(), Vec::new());
    let context = super::Context { treatments: &treatments, probes: &probes, ledger: &ledger };
    let fleet = diagnose(&mut manager.memory, &sweep, &context, &manager.policy);
    assert_eq!(fleet.findings.len(), 10_000);
}
