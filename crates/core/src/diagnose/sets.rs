//! The scale sets as last seen.

use super::state::{SetState, State};
use crate::model::{ScaleSet, ScaleSetId, Sweep};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The sets of this sweep; while the manager cannot be asked, those of the last sweep that saw them. Every one of them
/// has its place in the state afterwards.
pub(super) fn known(state: &mut State, sweep: &Sweep) -> Arc<BTreeMap<ScaleSetId, ScaleSet>> {
    if let Some(seen) = sweep.scale_sets.known() {
        let last = &state.last_sets;
        if seen.len() != last.len() || seen.iter().any(|set| last.get(&set.id) != Some(set)) {
            let sets: BTreeMap<_, _> = seen
                .iter()
                .map(|set| {
                    // GARM omits the endpoint in some answers; it does not change.
                    let endpoint = set.endpoint.clone().or_else(|| last.get(&set.id)?.endpoint.clone());
                    (set.id, ScaleSet { endpoint, ..set.clone() })
                })
                .collect();
            state.sets.retain(|id, _| sets.contains_key(id));
            state.last_sets = Arc::new(sets);
        }
    }
    for id in state.last_sets.keys() {
        state.sets.entry(*id).or_insert_with(|| SetState { since: sweep.at.wall, ..SetState::default() });
    }
    Arc::clone(&state.last_sets)
}
