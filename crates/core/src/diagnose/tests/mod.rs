//! What an operator would expect of each rule, as situations.

mod attributing;
mod conflict_behaviour;
mod counting;
mod evidence;
mod healthy;
mod life;
mod managers;
mod properties;
mod record;
mod soak;

use super::CheckAnswer;
use super::testing::*;
use crate::model::{
    Confidence, Diagnosis, Enablement, EndpointName, EndpointState, Fact, FailureKind, GithubId, GithubStatistics,
    Incarnation, ListenerMetrics, ManagerState, Owner, Revision, Span, Step, Wall,
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
fn outage_of_the_manager_ends_no_unhealthy_period() {
    let mut manager = Manager::given_up(1, secs(30));
    let ill_since = manager.watch(secs(20)).findings[&id(1)].ill_since;
    assert!(ill_since.is_some());
    manager.fails = Some(FailureKind::Timeout);
    assert_eq!(manager.watch(Span::mins(5)).findings[&id(1)].ill_since, ill_since);
    manager.fails = None;
    let fleet = manager.watch(secs(4));
    assert_eq!(found(&fleet, 1), (Diagnosis::ConflictAbandoned, Strong));
    assert_eq!(fleet.findings[&id(1)].ill_since, ill_since);
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
fn endpoint_is_what_its_entities_answer() {
    use FailureKind::{Forbidden, RateLimited, Server, Timeout};
    let name = EndpointName::new("github.com");
    for (first, second, state) in [
        (None, None, EndpointState::Up),
        (Some(Server), None, EndpointState::Degraded),
        (Some(Server), Some(Timeout), EndpointState::Down),
        (Some(RateLimited), Some(RateLimited), EndpointState::Limited),
        (Some(RateLimited), None, EndpointState::Up),
        (Some(Forbidden), None, EndpointState::Up),
        (Some(Forbidden), Some(Forbidden), EndpointState::Up),
    ] {
        let mut manager = Manager::healthy(1);
        manager.listed_for("acme", first.map_or(Ok(github_sets([1])), Err));
        manager.listed_for("beta", second.map_or(Ok(Vec::new()), Err));
        assert_eq!(manager.diagnose().endpoints.get(&name), Some(&state), "{first:?} {second:?}");
    }
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
    manager.treatments.push(open(2, 2, manager.now, ours));
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!(diagnoses(&fleet), [Diagnosis::Disabled, Diagnosis::DisabledByMedic]);
    assert_eq!(fleet.findings[&id(1)].ill_since, None);
    assert!(fleet.findings[&id(2)].ill_since.is_some());
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn missing_needs_a_list_for_missing_after() {
    let mut manager = Manager::healthy(2);
    manager.listed(Ok(github_sets([2])));
    let wait = manager.policy.missing_after;
    assert_eq!(diagnoses(&manager.watch(wait.minus(secs(2)))), [Diagnosis::Listening; 2]);
    let fleet = manager.after(secs(2)).diagnose();
    assert_eq!((found(&fleet, 1), found(&fleet, 2).0), ((Diagnosis::Missing, Proof), Diagnosis::Listening));
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
fn name_under_another_id_is_a_mismatch() {
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
fn old_polls_of_a_changed_set_are_not_deafness() {
    let mut manager = Manager::healthy(1);
    manager.gauges = true;
    let last_success = Some(manager.now.minus(Span::mins(20)));
    manager.listeners.insert(id(1), ListenerMetrics { last_success });
    manager.change(1);
    assert_eq!(found(&manager.watch(secs(4)), 1), (Diagnosis::Listening, Strong));
}

// --- session checks ---

#[test]
fn session_check_with_a_foreign_owner_is_held_elsewhere() {
    for (owner, expected) in [
        (Some(Owner::new("garm-somebody-else")), Diagnosis::HeldElsewhere),
        (Some(ours()), Diagnosis::Unknown),
        (None, Diagnosis::Unknown),
        (Some(Owner::of_session_check(id(2), Wall(0))), Diagnosis::Unknown),
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
    // What is left of a session check whose grant was lost is nobody's: it ends soon.
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
fn set_without_an_entity_or_a_github_id_is_unknown() {
    let mut manager = Manager::healthy(2);
    manager.set(1).entity = None;
    manager.set(2).github_id = None;
    manager.set(2).revision = Revision::new("");
    let fleet = manager.watch(secs(10));
    assert_eq!(diagnoses(&fleet), [Diagnosis::Unknown; 2]);
    assert_eq!(manager.remedies(&fleet), []);
}
