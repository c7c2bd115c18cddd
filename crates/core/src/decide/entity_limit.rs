//! The entity limit: how many sets of one entity may wait for their new workers at once.
//!
//! A pre-fix controller handles the changes of its entity's sets one after another, and each worker's start takes it
//! several requests to GitHub. One change waits in a slot; any other that waits for over a second is dropped silently
//! (`docs/reference/garm-api.md` §8.2, §11.1), and its set stays dead. So at most [`AT_ONCE`] sets of an entity are
//! between the disable and the sight of the worker. Where workers cannot be seen, one set goes every [`BLIND_START`]. A
//! build that retries queues without bound and is never blocked here.
//!
//! At the manager's start the controller starts every set before it reads changes: until then a disable would be lost.
//! The grace period bounds that wait.

use super::Input;
use crate::model::{
    BlockedBy, ConflictBehaviour, Diagnosis, EntityRef, Finding, GuardFact, RemedyKind, ScaleSet, ScaleSetId, Span,
    Step, Treatment, Wall, Worker, WorkerState,
};
use std::collections::{BTreeMap, BTreeSet};

/// One worker that is being started, and one change in the controller's slot.
pub const AT_ONCE: usize = 2;

/// The longest that a worker's start takes, by guess, where it cannot be seen.
pub const BLIND_START: Span = Span::secs(2);

/// The end of a wait whose disable is not answered yet.
const UNANSWERED: Wall = Wall(u64::MAX);

/// The sets that wait for their workers, by entity; those allowed in this sweep included.
#[derive(Debug, Clone, Default)]
pub struct EntityLimits {
    entities: BTreeMap<EntityRef, Limit>,
}

#[derive(Debug, Clone, Default)]
struct Limit {
    /// When each wait ends at the latest.
    waiting: Vec<Wall>,
    /// Whether the manager has still to start one of the sets.
    starting: bool,
}

impl EntityLimits {
    pub fn of(input: &Input<'_>) -> Self {
        let mut limits = Self::default();
        if input.fleet.conflict_behaviour == ConflictBehaviour::Retries {
            return limits;
        }
        let treated: BTreeSet<ScaleSetId> =
            input.given.history.iter().filter(|row| !row.step.is_closed()).map(|row| row.set).collect();
        let settling = input.fleet.findings.values().filter(|finding| finding.diagnosis == Diagnosis::Settling);
        let settling = settling.filter(|finding| !treated.contains(&finding.set));
        for entity in settling.filter_map(|finding| entity_of(input.fleet.sets.get(&finding.set)?)) {
            limits.entities.entry(entity).or_default().starting = true;
        }
        for row in &input.given.history {
            let finding = input.fleet.findings.get(&row.set);
            let Some(until) = waits_until(row, finding, input.given.now.wall, input.given.policy.toggle_gap_limit)
            else {
                continue;
            };
            if let Some(place) = &row.place {
                limits.entities.entry(place.entity_ref()).or_default().waiting.push(until);
            }
        }
        limits
    }

    pub fn block(&self, set: &ScaleSet, finding: &Finding, kind: RemedyKind) -> Option<BlockedBy> {
        if !kind.disables() {
            return None;
        }
        let Limit { waiting, starting } = self.entities.get(&entity_of(set)?)?;
        if *starting {
            return Some(GuardFact::EntityStarting.into());
        }
        let limit = if finding.worker.state == WorkerState::Unknown { 1 } else { AT_ONCE };
        (waiting.len() >= limit).then(|| {
            let until = waiting.iter().copied().min().filter(|until| *until != UNANSWERED);
            GuardFact::EntityLimit { waiting: waiting.len(), limit }.until(until)
        })
    }

    pub fn start(&mut self, set: &ScaleSet, kind: RemedyKind) {
        if let Some(entity) = entity_of(set).filter(|_| kind.disables()) {
            self.entities.entry(entity).or_default().waiting.push(UNANSWERED);
        }
    }
}

fn entity_of(set: &ScaleSet) -> Option<EntityRef> {
    set.entity_ref().filter(|_| set.has_place())
}

/// Until when the treatment waits for its worker; `None` when it does not.
fn waits_until(row: &Treatment, finding: Option<&Finding>, now: Wall, limit: Span) -> Option<Wall> {
    if !row.remedy.kind().disables() {
        return None;
    }
    match &row.step {
        Step::Deleting { .. } | Step::Disabling { .. } | Step::DisableUnknown { .. } => Some(UNANSWERED),
        Step::Disabled { .. } => {
            let Worker { state, since } = finding.map_or(Worker::UNKNOWN, |finding| finding.worker);
            let most = match state {
                WorkerState::Unknown => BLIND_START,
                WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening if since >= row.step_at => {
                    return None;
                }
                WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening => limit,
            };
            let until = row.step_at.plus(most);
            (now < until).then_some(until)
        }
        Step::Enabling { .. }
        | Step::CheckOpening { .. }
        | Step::CheckOpened { .. }
        | Step::Verifying
        | Step::Closed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{finding, mins, open, scale_set, scale_set_of};
    use crate::model::{Confidence, Diagnosis, Revision};

    const LIMIT: Span = Span::secs(15);

    fn disabled(at: Wall) -> Treatment {
        open(1, 1, at, Step::Disabled { ours: Revision::new("ours"), again_until: None })
    }

    fn seen(state: WorkerState, since: Wall) -> Finding {
        Finding { worker: Worker { state, since }, ..finding(1, Diagnosis::DisabledByMedic, Confidence::Proof) }
    }

    fn waiting(rows: &[Wall]) -> EntityLimits {
        of_first(Limit { waiting: rows.to_vec(), starting: false })
    }

    fn of_first(limit: Limit) -> EntityLimits {
        EntityLimits { entities: BTreeMap::from([(entity_of(&scale_set(1)).unwrap(), limit)]) }
    }

    #[test]
    fn set_waits_until_its_worker_is_seen_or_the_gap_limit() {
        let (row, later) = (disabled(mins(1)), mins(1).plus(Span::secs(3)));
        for (state, at, waits) in [
            (WorkerState::Absent, mins(0), true),
            (WorkerState::Idle, mins(0), true),
            (WorkerState::Idle, mins(1), false),
            (WorkerState::Retrying, later, false),
            (WorkerState::Unknown, mins(0), false),
        ] {
            let until = waits_until(&row, Some(&seen(state, at)), later, LIMIT);
            assert_eq!(until.is_some(), waits, "{state:?} at {at:?}");
        }
        let absent = seen(WorkerState::Absent, mins(0));
        assert_eq!(waits_until(&row, Some(&absent), mins(1).plus(Span::secs(15)), LIMIT), None);
        assert_eq!(waits_until(&row, None, mins(1).plus(Span::secs(1)), LIMIT), Some(mins(1).plus(BLIND_START)));
    }

    #[test]
    fn only_steps_up_to_the_disable_wait() {
        let steps = [
            (Step::Disabling { seen: Revision::new("r"), sent: None }, true),
            (Step::DisableUnknown { seen: Revision::new("r"), sent: mins(1) }, true),
            (Step::Enabling { ours: Revision::new("r"), since: None, attempts: 0, not_before: mins(1) }, false),
            (Step::Verifying, false),
        ];
        for (step, waits) in steps {
            let row = open(1, 1, mins(1), step);
            assert_eq!(waits_until(&row, None, mins(9), LIMIT).is_some(), waits, "{:?}", row.step);
        }
    }

    #[test]
    fn limit_is_two_of_an_entity_or_one_if_workers_are_unseen() {
        let absent = seen(WorkerState::Absent, mins(0));
        let blind = seen(WorkerState::Unknown, mins(0));
        let one = waiting(&[mins(2)]);
        assert_eq!(one.block(&scale_set(2), &absent, RemedyKind::Toggle), None);
        let held = one.block(&scale_set(2), &blind, RemedyKind::DeleteThenToggle).unwrap();
        assert_eq!(held, GuardFact::EntityLimit { waiting: 1, limit: 1 }.until(Some(mins(2))));
        let two = waiting(&[mins(2), UNANSWERED]);
        assert_eq!(two.block(&scale_set(2), &absent, RemedyKind::Toggle).unwrap().until, Some(mins(2)));
        assert_eq!(two.block(&scale_set(2), &absent, RemedyKind::DeleteSession), None, "nothing is toggled");
        assert_eq!(two.block(&scale_set_of(2, "other"), &absent, RemedyKind::Toggle), None);
    }

    #[test]
    fn starting_entity_blocks_toggles_alone() {
        let limits = of_first(Limit { starting: true, ..Limit::default() });
        let absent = seen(WorkerState::Absent, mins(0));
        assert_eq!(limits.block(&scale_set(2), &absent, RemedyKind::Toggle), Some(GuardFact::EntityStarting.into()));
        assert_eq!(limits.block(&scale_set(2), &absent, RemedyKind::DeleteSession), None);
        assert_eq!(limits.block(&scale_set_of(2, "other"), &absent, RemedyKind::Toggle), None);
    }
}
