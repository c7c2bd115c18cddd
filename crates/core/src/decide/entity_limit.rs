//! The turn of an entity: how many of its sets may wait for their new workers at once.
//!
//! A pre-fix controller handles the changes of its entity's sets in line, and starting a worker takes it several
//! requests to GitHub. One change waits in its slot; whatever else waits for longer than a second is dropped without a
//! word (`docs/reference/garm-api.md` §8.2, §11.1): the set stays as dead as it was. So at most [`AT_ONCE`] sets of an
//! entity are under way between the disable and the sight of the worker. Where nothing shows workers, one set goes
//! every [`BLIND_TURN`]. A build that retries queues without bound, and its toggles never wait here.
//!
//! At the manager's start the same line is gone through before the controller hears of any change: while it has not
//! come to one of the entity's sets, a disable would be lost. The settle time bounds that wait.

use super::Input;
use crate::model::{
    BlockedBy, ConflictBehaviour, Diagnosis, EndpointName, Entity, Finding, Guard, RemedyKind, ScaleSet, ScaleSetId,
    Span, Step, Treatment, Wall, WorkerState, told,
};
use std::collections::{BTreeMap, BTreeSet};

/// Sets of one entity that may wait for their workers: one that is being started, and one in the controller's slot.
pub const AT_ONCE: usize = 2;

/// How long a worker's start takes at most, by guess, where it is not seen.
pub const BLIND_TURN: Span = Span::secs(2);

/// When a wait for a worker is over at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    At(Wall),
    /// The disable is not answered yet.
    Open,
}

impl End {
    const fn known(self) -> Option<Wall> {
        match self {
            Self::At(at) => Some(at),
            Self::Open => None,
        }
    }
}

/// The sets that wait for their workers, by entity; those allowed in this sweep included.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    entities: BTreeMap<EndpointName, BTreeMap<Entity, Turn>>,
}

#[derive(Debug, Clone, Default)]
struct Turn {
    waiting: Vec<End>,
    /// Whether the manager has not come to one of the sets since its start.
    starting: bool,
}

impl Turns {
    /// From the journal's open treatments.
    #[must_use]
    pub fn of(input: &Input<'_>) -> Self {
        let mut turns = Self::default();
        if input.conflict_behaviour == ConflictBehaviour::Retries {
            return turns;
        }
        let treated: BTreeSet<ScaleSetId> =
            input.history.iter().filter(|row| !row.step.is_closed()).map(|row| row.set).collect();
        let settling = input.findings.values().filter(|finding| finding.diagnosis == Diagnosis::Settling);
        let settling = settling.filter(|finding| !treated.contains(&finding.set));
        for (endpoint, entity) in settling.filter_map(|finding| entity_of(input.sets.get(&finding.set)?)) {
            turns.turn(endpoint, entity).starting = true;
        }
        for row in input.history {
            let finding = input.findings.get(&row.set);
            let Some(until) = waits_until(row, finding, input.now.wall, input.policy.toggle_gap_limit) else {
                continue;
            };
            if let Some(place) = &row.place {
                turns.turn(&place.endpoint.name, &place.entity).waiting.push(until);
            }
        }
        turns
    }

    /// The guard of a toggle of this set.
    #[must_use]
    pub fn held(&self, set: &ScaleSet, finding: &Finding, kind: RemedyKind) -> Option<BlockedBy> {
        if !toggles(kind) {
            return None;
        }
        let (endpoint, entity) = entity_of(set)?;
        let Turn { waiting, starting } = self.entities.get(endpoint)?.get(entity)?;
        if *starting {
            return Some(BlockedBy {
                guard: Guard::EntityLimit,
                value: told!("the manager has not come to every set of its entity since its start"),
                limit: told!("it starts them in line, and hears of changes afterwards"),
                until: None,
            });
        }
        let limit = if finding.worker.0 == WorkerState::Unknown { 1 } else { AT_ONCE };
        (waiting.len() >= limit).then(|| BlockedBy {
            guard: Guard::EntityLimit,
            value: told!("{} of {} sets of its entity wait for their workers", waiting.len(), limit),
            limit: told!("{} at once: the manager starts an entity's workers in line, and drops what waits", limit),
            until: waiting.iter().filter_map(|end| end.known()).min(),
        })
    }

    /// Takes in a heal that this sweep allowed.
    pub fn start(&mut self, set: &ScaleSet, kind: RemedyKind) {
        if let Some((endpoint, entity)) = entity_of(set).filter(|_| toggles(kind)) {
            self.turn(endpoint, entity).waiting.push(End::Open);
        }
    }

    fn turn(&mut self, endpoint: &EndpointName, entity: &Entity) -> &mut Turn {
        self.entities.entry(endpoint.clone()).or_default().entry(entity.clone()).or_default()
    }
}

/// By reference: it is asked for every set of every sweep.
fn entity_of(set: &ScaleSet) -> Option<(&EndpointName, &Entity)> {
    let entity = set.entity.as_ref().filter(|_| set.has_place())?;
    Some((&set.endpoint.as_ref()?.name, entity))
}

const fn toggles(kind: RemedyKind) -> bool {
    match kind {
        RemedyKind::Toggle | RemedyKind::DeleteThenToggle => true,
        RemedyKind::DeleteSession | RemedyKind::SessionCheck => false,
    }
}

/// Until when the treatment waits for its worker; `None` when it does not.
fn waits_until(row: &Treatment, finding: Option<&Finding>, now: Wall, limit: Span) -> Option<End> {
    if !toggles(row.remedy.kind()) {
        return None;
    }
    match &row.step {
        Step::Deleting { .. } | Step::Disabling { .. } | Step::DisableUnknown { .. } => Some(End::Open),
        Step::Disabled { .. } => {
            let (worker, at) = finding.map_or((WorkerState::Unknown, Wall(0)), |finding| finding.worker);
            let most = match worker {
                WorkerState::Unknown => BLIND_TURN,
                WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening if at >= row.step_at => return None,
                WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening => limit,
            };
            let until = row.step_at.plus(most);
            (now < until).then_some(End::At(until))
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

    fn seen(state: WorkerState, at: Wall) -> Finding {
        Finding { worker: (state, at), ..finding(1, Diagnosis::DisabledByMedic, Confidence::Proof) }
    }

    fn waiting(rows: &[End]) -> Turns {
        of_first(Turn { waiting: rows.to_vec(), starting: false })
    }

    fn of_first(turn: Turn) -> Turns {
        let set = scale_set(1);
        let (endpoint, entity) = entity_of(&set).unwrap();
        Turns { entities: BTreeMap::from([(endpoint.clone(), BTreeMap::from([(entity.clone(), turn)]))]) }
    }

    #[test]
    fn a_set_waits_until_its_worker_is_seen_and_no_longer_than_the_toggle_waits_for_it() {
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
        assert_eq!(
            waits_until(&row, None, mins(1).plus(Span::secs(1)), LIMIT),
            Some(End::At(mins(1).plus(BLIND_TURN)))
        );
    }

    #[test]
    fn what_is_sent_or_about_to_be_waits_and_what_is_enabled_does_not() {
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
    fn two_at_once_where_workers_are_seen_else_one_and_other_entities_are_free() {
        let absent = seen(WorkerState::Absent, mins(0));
        let blind = seen(WorkerState::Unknown, mins(0));
        let one = waiting(&[End::At(mins(2))]);
        assert_eq!(one.held(&scale_set(2), &absent, RemedyKind::Toggle), None);
        let held = one.held(&scale_set(2), &blind, RemedyKind::DeleteThenToggle).unwrap();
        assert_eq!((held.guard, held.until), (Guard::EntityLimit, Some(mins(2))));
        let two = waiting(&[End::At(mins(2)), End::Open]);
        assert_eq!(two.held(&scale_set(2), &absent, RemedyKind::Toggle).unwrap().until, Some(mins(2)));
        assert_eq!(two.held(&scale_set(2), &absent, RemedyKind::DeleteSession), None, "nothing is toggled");
        assert_eq!(two.held(&scale_set_of(2, "acme/other"), &absent, RemedyKind::Toggle), None);
    }

    #[test]
    fn nothing_is_toggled_before_the_manager_has_come_to_every_set_of_the_entity() {
        let turns = of_first(Turn { starting: true, ..Turn::default() });
        let absent = seen(WorkerState::Absent, mins(0));
        assert_eq!(turns.held(&scale_set(2), &absent, RemedyKind::Toggle).unwrap().guard, Guard::EntityLimit);
        assert_eq!(turns.held(&scale_set(2), &absent, RemedyKind::DeleteSession), None);
        assert_eq!(turns.held(&scale_set_of(2, "acme/other"), &absent, RemedyKind::Toggle), None);
    }
}
