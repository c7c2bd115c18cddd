//! Blast radius, by cause (`docs/reference/design.md` §6). Conflicts of many sets right after a restart have one cause
//! and are healed. Conflicts in several entities without a restart are a fault at GitHub, where every request only
//! adds load (`docs/reference/failure-modes.md` §1b F5). A percentage of sets would treat both alike.
//!
//! A restart explains a conflict for as long as a stale session can last. So does our own treatment that restarted the
//! worker. A refusal that names another owner does not count, nor does a worker that gave up at the manager's start.

use super::Input;
use super::remedy::conflict_since;
use crate::model::{BlockedBy, EntityRef, GuardFact, ScaleSetId, Wall};
use std::collections::BTreeSet;

/// The guard; it blocks every remedy of the manager.
pub fn block(input: &Input<'_>) -> Option<BlockedBy> {
    let entities = unexplained(input);
    match (entities.len(), input.fleet.fault_at_github) {
        (0 | 1, false) => None,
        (0 | 1, true) => Some(GuardFact::GithubFault.into()),
        (entities, _) => Some(GuardFact::UnexplainedConflicts { entities }.into()),
    }
}

/// The entities of the conflicts that nothing explains.
fn unexplained(input: &Input<'_>) -> BTreeSet<EntityRef> {
    let restarted = |at: Wall| input.fleet.incarnation.is_none_or(|run| at >= run.0);
    let treated: BTreeSet<ScaleSetId> =
        input.given.history.iter().filter(|row| row.is_heal() && restarted(row.opened)).map(|row| row.set).collect();
    let explained_until = input.fleet.incarnation.map(|run| run.0.plus(input.given.policy.stale_session_limit));
    let findings = input.fleet.findings.values().filter(|finding| finding.diagnosis.is_refused_now());
    findings
        .filter(|finding| !treated.contains(&finding.set))
        .filter(|finding| finding.named_owner().is_none_or(|owner| input.fleet.owner.as_ref() == Some(owner)))
        .filter(|finding| explained_until.is_none_or(|until| conflict_since(finding, input.given.now.wall) > until))
        .filter_map(|finding| input.fleet.sets.get(&finding.set)?.entity_ref())
        .collect()
}
