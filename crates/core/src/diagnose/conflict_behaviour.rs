//! What the build does after a refused start, learnt from what it was seen to do.

use super::log;
use super::state::State;
use crate::model::fleet::Fleet;
use crate::model::{ConflictBehaviour, Enablement, EntityKind, ScaleSet, Span, Sweep};

/// After this, a build that retries has retried.
const FIRST_TRIES: Span = Span::secs(10);

/// The build's own metrics are never overruled. What was learnt from behaviour is, by an incarnation that behaves
/// otherwise: another build was installed.
pub(super) fn learn(state: &mut State, sweep: &Sweep, fleet: &Fleet) {
    if state.has_set_gauges {
        return;
    }
    let now = sweep.at.wall;
    let Some(began) = state.began() else { return };
    let age = now.since(began);
    if let Some(log) = sweep.log.known()
        && log::is_of_incarnation(log, fleet.incarnation)
        && log::sets(log).any(|set| set.gave_up.is_some())
    {
        state.conflict_behaviour = ConflictBehaviour::GivesUp;
        return;
    }
    let total = u32::try_from(fleet.sets.len()).unwrap_or(u32::MAX);
    let refused = state.scopes.values().any(|scope| scope.last.create_errors > 0);
    if let Some(counted) = sweep.goroutines.known()
        && counted.workers < total
        && refused
        && state.conflict_behaviour == ConflictBehaviour::Unknown
        && age >= FIRST_TRIES
    {
        state.conflict_behaviour = ConflictBehaviour::GivesUp;
    }
    // A build that gives up tries each set once; only a set that was changed since the start tries again.
    let changed = fleet
        .sets
        .values()
        .any(|set| fleet.incarnation.is_none_or(|run| set.updated_at.is_none_or(|updated| updated > run.0)));
    // In any build a listener that had run tries again: only first starts show the difference.
    if changed {
        return;
    }
    for (kind, scope) in state.scopes.iter().filter(|(_, scope)| scope.never_opened()) {
        let candidates = fleet.sets.values().filter(|set| candidate_kind(set) == Some(*kind)).count();
        let candidates = u64::try_from(candidates).unwrap_or(u64::MAX);
        if candidates == 0 || scope.last.create_errors == 0 {
            continue;
        }
        // The counters of this sweep may be younger than its list: a set may have been toggled in between.
        if scope.refused_before(now) > candidates {
            state.conflict_behaviour = ConflictBehaviour::Retries;
        } else if age >= FIRST_TRIES && scope.is_flat() {
            state.conflict_behaviour = ConflictBehaviour::GivesUp;
        }
    }
}

/// The scope in which an enabled, created set could hold a session.
pub(super) fn candidate_kind(set: &ScaleSet) -> Option<EntityKind> {
    match (set.enabled, set.github_id) {
        (Enablement::Enabled, Some(_)) => set.entity.as_ref().map(|entity| entity.kind),
        (Enablement::Enabled, None) | (Enablement::Disabled, _) => None,
    }
}
