//! Model checking of the treatment machine and the decision core: every history within the bounds.
//! `docs/reliability.md` has the bounds and the figures.

mod broken;
mod medic;
mod system;
mod world;

use broken::Broken;
use medic_core::policy::Policy;
use stateright::{Checker, HasDiscoveries, Model};
use system::System;
use world::Scenario;

/// Explores everything; returns the number of distinct states.
#[expect(clippy::print_stdout, reason = "the figures are part of the result")]
fn explore(what: &str, system: System) -> usize {
    let began = std::time::Instant::now();
    let checker = system.checker().threads(2).spawn_bfs().join();
    let (unique, all, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{what}: {unique} states ({all} visits), {depth} steps deep, {:.1?}", began.elapsed());
    for (name, path) in checker.discoveries() {
        assert!(matches!(name, "heals" | "aborts"), "{what}: {name} does not hold:\n{}", known(&path));
    }
    checker.assert_properties();
    unique
}

fn known(path: &stateright::Path<system::State, system::Action>) -> String {
    let (states, actions) = (path.clone().into_states(), path.clone().into_actions());
    let line = |(action, state): (&system::Action, &system::State)| {
        let steps: Vec<_> = state.journal.iter().map(|row| row.0.step.label()).collect();
        let sets: Vec<_> =
            state.world.sets.iter().map(|set| (set.disabled_by, set.worker.as_str(), set.session)).collect();
        format!("{} {action:?} → {sets:?} {steps:?}\n", state.world.tick)
    };
    format!("{:?}\n", states[0].world.scenario)
        + &actions.iter().zip(states.iter().skip(1)).map(line).collect::<String>()
}

#[test]
fn one_set_and_one_medic() {
    explore("one set, one medic, 2 faults", System::of(1, 1, 2, 8));
}

#[test]
fn two_sets_and_one_medic() {
    explore("two sets, one medic, 2 faults", System::of(2, 1, 2, 8));
}

#[test]
fn three_sets_one_at_a_time() {
    explore("three sets, max_in_flight 1, 1 fault", one_at_once());
}

/// Three sets: after the canary two would follow at once.
fn one_at_once() -> System {
    let scenarios = vec![Scenario::AbandonedKnown, Scenario::AbandonedUnknown];
    System { policy: medic::policy(1), scenarios, ..System::of(3, 1, 1, 4) }
}

#[test]
fn four_sets_two_at_a_time_after_two_have_recovered() {
    explore("four sets, max_in_flight 1, then half of them, 1 fault", rollout());
}

/// Four sets: one at a time until two have recovered.
fn rollout() -> System {
    let scenarios = vec![Scenario::AbandonedKnown, Scenario::AbandonedUnknown];
    let policy = Policy { in_flight_share: 0.5, ..medic::policy(1) };
    System { scenarios, policy, ..System::of(4, 1, 1, 4) }
}

#[test]
fn one_set_and_two_medics() {
    let scenarios = vec![Scenario::AbandonedKnown, Scenario::Suspect];
    explore("one set, two medics, 2 faults", System { scenarios, ..System::of(1, 2, 2, 6) });
}

#[test]
fn two_sets_and_two_medics() {
    let scenarios = vec![Scenario::AbandonedKnown, Scenario::Suspect];
    explore("two sets, two medics, 2 faults", System { scenarios, ..System::of(2, 2, 2, 4) });
}

#[test]
fn every_broken_medic_is_caught() {
    let one = || System::of(1, 1, 2, 8);
    let toggles = || System { scenarios: vec![Scenario::AbandonedUnknown], ..one() };
    for (broken, system, property) in [
        (Broken::SkipsIncarnationCheck, one(), "I1"),
        (Broken::FightsTheOperator, one(), "I2"),
        (Broken::ForgetsTheJournal, toggles(), "I3"),
        (Broken::NeverEnables, toggles(), "I3"),
        (Broken::TakesLostForRefused, toggles(), "I3"),
        (Broken::ForgetsTheSecondCopy, toggles(), "I3"),
        (Broken::StartsASecondTreatment, one(), "I5"),
        (Broken::SendsNoCanary, System::of(2, 1, 1, 8), "I5"),
        (Broken::IgnoresTheLimit, one_at_once(), "I5"),
        (Broken::SkipsTheRolloutLimit, rollout(), "I5"),
        (Broken::HasNoLease, System::of(1, 2, 0, 8), "I5"),
        (Broken::ForgetsOwnSession, System { scenarios: vec![Scenario::Suspect], ..one() }, "I7"),
        (Broken::SendsANoOp, toggles(), "liveness"),
    ] {
        let names = HasDiscoveries::AllOf([property].into());
        let checker = System { broken: Some(broken), ..system }.checker().finish_when(names).spawn_dfs().join();
        println!("{broken:?}: {} states until {property} is broken", checker.unique_state_count());
        let found: Vec<_> = checker.discoveries().into_keys().collect();
        assert!(found.contains(&property), "{broken:?} is not caught by {property}, only {found:?}");
    }
}
