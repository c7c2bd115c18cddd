//! Model checking of the treatment machine and the decision core: the same functions as in production, every history
//! within the bounds. `docs/reliability.md` has the bounds, the figures and what is left out.

mod broken;
mod medic;
mod system;
mod world;

use broken::Broken;
use stateright::{Checker, HasDiscoveries, Model};
use system::System;
use world::Scenario;

/// Explores everything; returns the number of distinct states.
fn explore(what: &str, system: System) -> usize {
    let began = std::time::Instant::now();
    let checker = system.checker().threads(2).spawn_bfs().join();
    let (unique, all, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{what}: {unique} states ({all} visits), {depth} steps deep, {:.1?}", began.elapsed());
    for (name, path) in checker.discoveries() {
        if !matches!(name, "heals" | "yields") {
            panic!("{what}: {name} does not hold:\n{}", told(&path));
        }
    }
    checker.assert_properties();
    unique
}

fn told(path: &stateright::Path<system::State, system::Action>) -> String {
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
    explore("one set, one medic", System::of(1, 1, 2, 8));
}

#[test]
fn two_sets_and_one_medic() {
    explore("two sets, one medic", System::of(2, 1, 1, 8));
}

#[test]
fn one_set_and_two_medics() {
    explore("one set, two medics", System::of(1, 2, 2, 8));
}

#[test]
fn every_broken_medic_is_caught() {
    use Broken::*;
    let one = || System::of(1, 1, 2, 8);
    for (broken, system, property) in [
        (SkipsIncarnationCheck, one(), "I1"),
        (FightsTheOperator, one(), "I2"),
        (ForgetsTheJournal, one(), "I3"),
        (NeverEnables, one(), "I3"),
        (TakesLostForRefused, one(), "I3"),
        (StartsASecondTreatment, one(), "I5"),
        (SendsNoCanary, System::of(2, 1, 1, 8), "I5"),
        (HasNoLease, System::of(1, 2, 0, 8), "I5"),
        (ForgetsOwnSession, one(), "I7"),
        (SendsANoOp, System { scenarios: vec![Scenario::AbandonedUnknown], ..one() }, "liveness"),
    ] {
        let checker = System { broken: Some(broken), ..system }
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let found = checker.discovery(property);
        println!("{broken:?}: {} states until {property} is broken", checker.unique_state_count());
        assert!(found.is_some(), "{broken:?} is not caught by {property}: {:?}", checker.discoveries().keys());
    }
}
