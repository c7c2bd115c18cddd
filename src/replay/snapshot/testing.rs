//! Snapshots of an empty sweep, for tests.

use super::*;
use medic_core::decide::testing::conditions;
use medic_core::model::{Mono, Now, Seen};
use medic_core::policy::Policy;

/// A sweep that asked nothing.
pub(crate) fn empty_sweep(wall: Wall, mono: Mono) -> Sweep {
    Sweep {
        at: Now { wall, mono },
        controller: Seen::NotAsked,
        scale_sets: Seen::NotAsked,
        lingering: Seen::NotAsked,
        metrics: Seen::NotAsked,
        goroutines: Seen::NotAsked,
        log: Seen::NotAsked,
        actions_service: BTreeMap::new(),
    }
}

/// Gives `run` a snapshot of an empty sweep at `at` with these decisions.
pub(crate) fn with_snapshot<T>(at: Wall, decisions: &[SetDecision], run: impl FnOnce(&Snapshot<'_>) -> T) -> T {
    let sweep = empty_sweep(at, Mono(0));
    let conditions = conditions(at, Policy::default());
    let (state, checks, findings) = (State::default(), BTreeMap::new(), Findings::new());
    let context = Context { treatments: &[], checks: &checks, ledger: &[] };
    run(&Snapshot::new((&state, &sweep), &context, &conditions, &findings, decisions))
}

pub(crate) fn line() -> String {
    with_snapshot(Wall(1), &[], |snapshot| serde_json::to_string(snapshot).unwrap())
}
