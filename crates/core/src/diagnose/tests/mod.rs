//! What an operator would expect of each rule, as situations.

mod attributing;
mod conflict_behaviour;
mod counting;
mod evidence;
mod healthy;
mod life;
mod log;
mod managers;

mod properties;
mod record;
mod soak;

use super::testing::*;
use super::{CheckAnswer, State, diagnose};
use crate::model::log_fact::LogEvent;
use crate::model::session::{LedgerSession, OpenedBy};
use crate::model::{
    Confidence, Diagnosis, Enablement, EndpointName, EndpointState, Fact, FailureKind, GithubId, GithubStatistics,
    Goroutines, Incarnation, ListenerMetrics, ManagerState, Owner, RestartKind, Revision, SessionId, Span, Step, Wall,
    WorkerState,
};

use Confidence::{Proof, Strong};

// --- the manager as a whole ---

#[test]
fn manager_down_only_if_connections_are_refused() {
    for (kind, state) in [
        (FailureKind::Connect, ManagerState::Down),
        (FailureKind::Unauthorized, ManagerState::Unreachable),
        (FailureKind::Malformed, ManagerState::Unreachable),
        (FailureKind::Timeout, ManagerState::Unreachable),
    ] {
        let mut manager = Manager::healthy(2);
        manager.watch(secs(10));
        manager.fails = Some(kind);
        let fleet = manager.after(secs(2)).diagnose();
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
    let fleet = manager.after(secs(3)).diagnose();
    assert_eq!(fleet.manager, ManagerState::Restarted);
    assert_eq!(diagnoses(&fleet), [Diagnosis::Settling; 2]);
    assert!(fleet.findings.values().all(|finding| finding.ill_since.is_none()));
    manager.opens();
    manager.opens();
    let fleet = manager.watch(secs(20));
    assert_eq!((fleet.manager, diagnoses(&fleet)), (ManagerState::Up, vec![Diagnosis::Listening; 2]));
}

#[test]
fn restart_with_refusals_is_reported_once_as_a_crash() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.after(secs(5)).restarts(secs(3));
    let run = manager.run.unwrap();
    manager.is_refused();
    manager.is_refused();
    assert_eq!(manager.diagnose().restart, Some((RestartKind::Crash, run)));
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
        told.extend(manager.after(secs(2)).diagnose().restart);
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
    assert_eq!(manager.diagnose().restart.map(|(kind, _)| kind), Some(RestartKind::Clean));
}

#[test]
fn a_session_of_the_old_run_in_the_ledger_means_a_crash() {
    let mut manager = Manager::healthy(1);
    manager.watch(secs(10));
    let old = manager.run.unwrap();
    manager.ledger.push(session_of(OpenedBy::Manager(old), manager.now));
    manager.after(secs(5)).restarts(secs(1));
    assert_eq!(manager.diagnose().restart.map(|(kind, _)| kind), Some(RestartKind::Crash));
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
fn start_date_varying_by_a_second_is_one_run() {
    let mut manager = Manager::given_up(2, secs(30));
    let first = manager.run;
    let mut fleet = manager.diagnose();
    for n in 0..20 {
        manager.run = first.map(|run| Incarnation(run.0.plus(Span::millis(if n % 2 == 0 { 900 } else { 0 }))));
        fleet = manager.after(secs(2)).diagnose();
        assert_eq!((fleet.restart, fleet.incarnation), (None, first));
    }
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictAbandoned; 2]);
}

#[test]
fn counters_going_backwards_are_an_undated_restart() {
    let mut manager = Manager::healthy(2);
    manager.run = None;
    assert_eq!(diagnoses(&manager.watch(secs(30))), [Diagnosis::Listening; 2]);
    manager.restarts(Span::ZERO);
    let fleet = manager.after(secs(15)).diagnose();
    assert_eq!(fleet.manager, ManagerState::Restarted);
    assert_eq!(diagnoses(&fleet), [Diagnosis::Settling; 2]);
    // It has not tried yet: nothing may be concluded from that, whatever the date of our first sweep.
    let fleet = manager.watch(secs(40));
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn slow_manager_clock_does_not_age_the_manager() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.restarts(Span::mins(10));
    manager.after(secs(2));
    let fleet = manager.watch(secs(14));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Settling; 2], "it began within the last 16 s, whatever its clock says");
}

#[test]
fn fast_manager_clock_does_not_extend_the_grace_period() {
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
    assert!(!manager.diagnose().blind);
    for organization in ["a", "b", "c"] {
        manager.listed_for(organization, Err(FailureKind::Timeout));
    }
    assert!(!manager.diagnose().blind, "three of six");
    manager.listed_for("d", Err(FailureKind::Timeout));
    assert!(manager.diagnose().blind, "four of seven");
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
        manager.listed_for("acme", first.map_or(Ok(github_sets([1])), Err));
        manager.listed_for("beta", second.map_or(Ok(Vec::new()), Err));
        assert_eq!(manager.diagnose().endpoints.get(&name), Some(&state), "{first:?} {second:?}");
    }
}

#[test]
fn the_managers_own_failing_pulse_degrades_its_endpoint() {
    let mut manager = Manager::healthy(1);
    manager.diagnose();
    manager.counters.rate_limit_errors += 1;
    let degraded = manager.after(secs(15)).diagnose();
    assert_eq!(degraded.endpoints.values().copied().collect::<Vec<_>>(), [EndpointState::Degraded]);
    assert!(manager.watch(Span::mins(1)).endpoints.is_empty(), "it asks every 30 s: this is over");
}

#[test]
fn conflicts_of_two_entities_are_a_fault_at_github() {
    let mut manager = Manager::healthy(2);
    manager.sets[1] = scale_set(2, "beta");
    manager.watch(secs(10));
    manager.closes();
    manager.closes();
    let fleet = manager.watch_refused(secs(20));
    assert_eq!(diagnoses(&fleet), [Diagnosis::ConflictRetrying; 2]);
    assert!(fleet.fault_at_github);

    let mut one = Manager::healthy(2);
    one.watch(secs(10));
    one.closes();
    one.closes();
    assert!(!one.watch_refused(secs(20)).fault_at_github, "one entity is not GitHub");
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
    assert!(!fleet.fault_at_github);
}

// --- disabled, missing ---

#[test]
fn disabled_by_medic_only_with_an_open_treatment() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(10));
    manager.enable(1, Enablement::Disabled);
    manager.enable(2, Enablement::Disabled);
    manager.closes();
    manager.closes();
    let ours = Step::Disabled { ours: manager.set(2).revision.clone(), again_until: None };
    manager.treatments.push(treatment(2, manager.now, ours));
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!(diagnoses(&fleet), [Diagnosis::Disabled, Diagnosis::DisabledByMedic]);
    assert_eq!(fleet.findings[&id(1)].ill_since, None);
    assert!(fleet.findings[&id(2)].ill_since.is_some());
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn disabled_sets_worker_is_idle_if_all_workers_live() {
    let mut manager = Manager::healthy(2);
    manager.goroutines = Some(Goroutines { listeners: 2, workers: 2 });
    manager.watch(secs(4));
    manager.enable(1, Enablement::Disabled);
    manager.closes();
    manager.goroutines = Some(Goroutines { listeners: 1, workers: 1 });
    assert_eq!(manager.after(secs(2)).diagnose().findings[&id(1)].worker.0, WorkerState::Absent);
    manager.goroutines = Some(Goroutines { listeners: 1, workers: 2 });
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!(fleet.findings[&id(1)].worker, (WorkerState::Idle, manager.now));
}

#[test]
fn missing_needs_a_list_for_missing_after() {
    let mut manager = Manager::healthy(2);
    manager.listed(Ok(github_sets([2])));
    assert_eq!(diagnoses(&manager.watch(secs(110))), [Diagnosis::Listening; 2]);
    let fleet = manager.watch(secs(20));
    assert_eq!(found(&fleet, 1), (Diagnosis::Missing, Proof));
    assert_eq!(found(&fleet, 2).0, Diagnosis::Listening);
    manager.listed(Err(FailureKind::Server));
    assert_ne!(found(&manager.after(secs(2)).diagnose(), 1).0, Diagnosis::Missing, "no list, no claim");
    manager.listed(Ok(github_sets([1, 2])));
    assert_eq!(found(&manager.watch(secs(4)), 1).0, Diagnosis::Listening);
}

#[test]
fn recreated_set_is_not_missing_under_its_old_id() {
    let mut manager = Manager::healthy(1);
    manager.listed(Ok(github_sets([2])));
    manager.watch(secs(100));
    manager.set(1).github_id = Some(GithubId(777));
    let fleet = manager.watch(secs(60));
    assert_ne!(found(&fleet, 1).0, Diagnosis::Missing, "this id has been missed for a minute only");
}

#[test]
fn the_same_name_under_another_id_is_a_mismatch() {
    let mut manager = Manager::healthy(1);
    let mut list = github_sets([1]);
    list[0].id = GithubId(999);
    manager.listed(Ok(list));
    let fleet = manager.watch(secs(130));
    assert_eq!(found(&fleet, 1), (Diagnosis::Mismatched, Proof));
    assert!(says(&fleet, 1, &Fact::GithubOtherId { id: GithubId(999) }));
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
    let fleet = manager.diagnose();
    assert_eq!(found(&fleet, 1), (Diagnosis::Listening, Proof));
    assert_eq!(found(&fleet, 2), (Diagnosis::Deaf, Proof));
}

#[test]
fn old_polls_of_a_changed_set_are_not_deafness() {
    let mut manager = Manager::healthy(1);
    manager.gauges = true;
    let last_success = Some(manager.now.minus(Span::mins(20)));
    manager.listeners.insert(id(1), ListenerMetrics { last_success, restarts: 0 });
    manager.change(1);
    assert_eq!(found(&manager.watch(secs(4)), 1), (Diagnosis::Listening, Strong));
}

#[test]
fn missing_series_means_refused_after_the_first_poll_time() {
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

// --- session checks ---

#[test]
fn session_check_that_opened_shows_an_unheld_set() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    manager.opens();
    manager.watch(secs(20));
    manager.checks.insert(id(2), (manager.now, CheckAnswer::Unheld));
    let fleet = manager.watch(secs(4));
    assert_eq!(found(&fleet, 2), (Diagnosis::Unheld, Strong));
    assert_eq!(found(&fleet, 1).0, Diagnosis::Listening, "the one open session is its");
    manager.opens();
    let fleet = manager.watch(secs(4));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Listening; 2], "a session opened since");
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn session_check_with_a_foreign_owner_is_held_elsewhere() {
    let stranger = Owner::new("garm-somebody-else");
    let probe = Owner::of_session_check(id(2), Wall(0));
    for (owner, expected) in [
        (Some(stranger), Diagnosis::HeldElsewhere),
        (Some(ours()), Diagnosis::Unknown),
        (None, Diagnosis::Unknown),
        (Some(probe), Diagnosis::Unknown),
    ] {
        let mut manager = Manager::given_up(2, Span::mins(10));
        manager.opens();
        manager.watch(secs(20));
        manager.checks.insert(id(2), (manager.now, CheckAnswer::Held { owner }));
        assert_eq!(found(&manager.diagnose(), 2).0, expected);
    }
}

#[test]
fn set_held_long_after_a_crash_is_unknown() {
    let mut manager = Manager::given_up(2, Span::mins(10));
    for set in 1..=2 {
        manager.checks.insert(id(set), (manager.now, CheckAnswer::Held { owner: None }));
    }
    let fleet = manager.watch(secs(30));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 2], "a stale session would have ended");
    // What is left of a session check whose grant was lost is nobody's: it ends by itself.
    for set in 1..=2 {
        let owner = Some(Owner::of_session_check(id(set), manager.now));
        manager.checks.insert(id(set), (manager.now, CheckAnswer::Held { owner }));
    }
    assert_eq!(diagnoses(&manager.watch(secs(30))), [Diagnosis::ConflictAbandoned; 2]);
    let mut early = Manager::given_up(1, secs(40));
    early.checks.insert(id(1), (early.now, CheckAnswer::Held { owner: None }));
    assert_eq!(diagnoses(&early.watch(secs(30))), [Diagnosis::ConflictAbandoned], "held by what the crash left");
}

#[test]
fn session_check_of_an_earlier_run_is_ignored() {
    let mut manager = Manager::given_up(1, Span::mins(1));
    manager.checks.insert(id(1), (manager.now.minus(Span::mins(2)), CheckAnswer::Unheld));
    assert_eq!(found(&manager.watch(secs(10)), 1).0, Diagnosis::ConflictAbandoned);
}

// --- starved, by GitHub's counts ---

#[test]
fn jobs_that_wait_while_nothing_moves_starve_a_set_that_listens() {
    let mut manager = Manager::healthy(1);
    manager.listed(Ok(with_statistics(1, GithubStatistics { assigned_jobs: 3, ..GithubStatistics::default() })));
    assert_eq!(found(&manager.watch(Span::mins(9)), 1).0, Diagnosis::Listening);
    let fleet = manager.watch(Span::mins(2));
    assert_eq!(found(&fleet, 1).0, Diagnosis::Starved);
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn busy_set_with_waiting_jobs_is_not_starved() {
    let mut manager = Manager::healthy(1);
    manager.set(1).max_runners = 1000;
    for n in 0..60 {
        let counts = GithubStatistics { assigned_jobs: 20 + n, running_jobs: 10 + n, ..GithubStatistics::default() };
        manager.listed(Ok(with_statistics(1, counts)));
        assert_eq!(found(&manager.watch(secs(30)), 1).0, Diagnosis::Listening);
    }
    let full = GithubStatistics { assigned_jobs: 9, running_jobs: 5, busy_runners: 5, ..GithubStatistics::default() };
    manager.set(1).max_runners = 5;
    manager.listed(Ok(with_statistics(1, full)));
    assert_eq!(found(&manager.watch(Span::mins(20)), 1).0, Diagnosis::Listening, "all its runners are at work");
}

// --- memory ---

#[test]
fn state_survives_storage_and_other_versions() {
    let mut manager = Manager::given_up(2, secs(30));
    manager.watch(secs(10));
    let before = manager.diagnose();
    let mut json = serde_json::to_value(&manager.state).unwrap();
    manager.state = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(manager.diagnose().findings[&id(1)].since, before.findings[&id(1)].since);

    json["of_tomorrow"] = serde_json::json!(1);
    for set in json["sets"].as_object_mut().unwrap().values_mut() {
        set.as_object_mut().unwrap().remove("conflict_since");
    }
    let kept: State = serde_json::from_value(json).unwrap();
    assert_eq!(kept.sets.len(), 2);
    assert_eq!(serde_json::from_str::<State>("{}").unwrap(), State::default());
}

#[test]
fn a_set_that_is_gone_from_the_manager_is_forgotten() {
    let mut manager = Manager::healthy(2);
    manager.watch(secs(4));
    manager.sets.remove(0);
    manager.closes();
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!(fleet.findings.keys().copied().collect::<Vec<_>>(), [id(2)]);
    assert_eq!((manager.state.sets.len(), manager.state.last_sets.len()), (1, 1));
}

#[test]
fn equal_findings_are_counted_and_dated() {
    let mut manager = Manager::healthy(1);
    let first = manager.diagnose().findings[&id(1)].clone();
    let last = manager.watch(secs(4)).findings[&id(1)].clone();
    assert_eq!((first.seen, last.seen), (1, 4));
    assert_eq!(last.since, first.since);
}

#[test]
fn recovery_is_reported_once_with_its_beginning() {
    let mut manager = Manager::given_up(1, secs(30));
    let ill_since = manager.watch(secs(20)).findings[&id(1)].ill_since.unwrap();
    manager.change(1);
    manager.opens();
    let mut told = Vec::new();
    for _ in 0..10 {
        told.extend(manager.after(secs(2)).diagnose().recoveries);
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
    manager.set(2).github_id = None;
    manager.set(2).revision = Revision::new("");
    let fleet = manager.watch(secs(10));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 2]);
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn every_one_of_ten_thousand_sets_gets_a_finding() {
    let mut manager = Manager::healthy(10_000);
    let sweep = manager.sweep();
    let (treatments, probes, ledger) = (Vec::new(), std::collections::BTreeMap::new(), Vec::new());
    let context = super::Context { treatments: &treatments, checks: &probes, ledger: &ledger };
    let fleet = diagnose(&mut manager.state, &sweep, &context, &manager.policy);
    assert_eq!(fleet.findings.len(), 10_000);
}
