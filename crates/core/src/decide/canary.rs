//! The canary: an incident's first treatment goes alone, until its set shows life (`docs/reference/design.md` §6).
//!
//! An incident begins with the manager's run or, without a restart, with the first set that fell ill after all were
//! well. The canary has verified once its set is *revived* (the worker tries again) or has recovered; then other sets
//! with the same diagnosis follow, up to `max_in_flight`. A set with another diagnosis sends a canary of its own, one
//! at a time. A canary that fails is over; the next candidate takes its place, until the breaker opens.
//!
//! A session probe is never a canary, and waits while one is under way; only one probe runs at a time.

use super::budget::is_heal;
use crate::model::{BlockedBy, Diagnosis, Guard, Incarnation, Outcome, ScaleSetId, Treatment, Wall, told};
use std::collections::BTreeSet;

/// What the incident's treatments have shown so far, those allowed in this sweep included.
#[derive(Debug, Clone, Default)]
pub struct Canaries {
    verified: BTreeSet<Diagnosis>,
    heals: Vec<(ScaleSetId, Diagnosis)>,
    probes: Vec<ScaleSetId>,
}

/// Whether a heal may start, as far as this rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    First,
    /// After a canary that verified.
    Follows,
    /// Not yet: this set goes first.
    Waits(ScaleSetId),
}

/// When the present incident began: `ill` are the dates on which the sets that can be healed fell ill.
#[must_use]
pub fn began(incarnation: Option<Incarnation>, ill: impl Iterator<Item = Wall>) -> Wall {
    let first_ill = ill.min().unwrap_or_default();
    incarnation.map_or(first_ill, |run| run.0.max(first_ill))
}

impl Canaries {
    /// From the journal's rows.
    #[must_use]
    pub fn of(history: &[Treatment], began: Wall) -> Self {
        let mut canaries = Self::default();
        for row in history {
            if row.in_flight() {
                if is_heal(row) {
                    canaries.heals.push((row.set, row.cause));
                } else {
                    canaries.probes.push(row.set);
                }
            }
            let showed_life = row.revived.is_some() || row.outcome() == Some(Outcome::Recovered);
            if is_heal(row) && row.opened >= began && showed_life {
                canaries.verified.insert(row.cause);
            }
        }
        canaries
    }

    /// Treatments under way, this sweep's included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.heals.len().saturating_add(self.probes.len())
    }

    /// Whether a heal for this cause may start.
    #[must_use]
    pub fn admit(&self, cause: Diagnosis) -> Admission {
        if self.verified.contains(&cause) {
            return Admission::Follows;
        }
        let ahead = if self.verified.is_empty() {
            self.heals.first().map(|(set, _)| *set).or(self.probes.first().copied())
        } else {
            self.unverified()
        };
        ahead.map_or(Admission::First, Admission::Waits)
    }

    /// The guard of a heal.
    #[must_use]
    pub fn held(&self, cause: Diagnosis) -> Option<BlockedBy> {
        match self.admit(cause) {
            Admission::First | Admission::Follows => None,
            Admission::Waits(set) => Some(waits_for(set)),
        }
    }

    /// The guard of a session probe.
    #[must_use]
    pub fn session_check_held(&self) -> Option<BlockedBy> {
        if let Some(set) = self.unverified() {
            return Some(waits_for(set));
        }
        (!self.probes.is_empty()).then(|| BlockedBy {
            guard: Guard::InFlight,
            value: told!("1 of 1 session probes under way"),
            limit: told!("1 session probe at once"),
            until: None,
        })
    }

    /// Takes in a heal that this sweep allowed.
    pub fn start_heal(&mut self, set: ScaleSetId, cause: Diagnosis) {
        self.heals.push((set, cause));
    }

    /// Takes in a session probe that this sweep allowed.
    pub fn start_session_check(&mut self, set: ScaleSetId) {
        self.probes.push(set);
    }

    fn unverified(&self) -> Option<ScaleSetId> {
        self.heals.iter().find(|(_, cause)| !self.verified.contains(cause)).map(|(set, _)| *set)
    }
}

fn waits_for(set: ScaleSetId) -> BlockedBy {
    BlockedBy {
        guard: Guard::Canary,
        value: told!("set {} goes first and has shown no life yet", set),
        limit: told!("the first treated set tries again or listens"),
        until: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{closed, mins, open, probe};
    use crate::model::Step;

    const CAUSE: Diagnosis = Diagnosis::ConflictAbandoned;

    #[test]
    fn the_first_goes_alone_and_the_others_follow_once_it_shows_life() {
        let mut row = open(1, 7, mins(10), Step::Verifying);
        let waiting = Canaries::of(&[row.clone()], mins(9));
        assert_eq!(waiting.admit(CAUSE), Admission::Waits(ScaleSetId(7)));
        assert_eq!(waiting.held(CAUSE).unwrap().value, "set 7 goes first and has shown no life yet");
        row.revived = Some(mins(11));
        assert_eq!(Canaries::of(&[row], mins(9)).admit(CAUSE), Admission::Follows);
        let recovered = closed(1, 7, mins(10), mins(11), Outcome::Recovered);
        assert_eq!(Canaries::of(&[recovered], mins(9)).admit(CAUSE), Admission::Follows);
    }

    #[test]
    fn a_failed_canary_and_one_that_healed_itself_prove_nothing() {
        for outcome in [Outcome::Unverified, Outcome::Failed, Outcome::Aborted, Outcome::SelfRecovered] {
            let row = closed(1, 7, mins(10), mins(11), outcome);
            assert_eq!(Canaries::of(&[row], mins(9)).admit(CAUSE), Admission::First, "{outcome}");
        }
    }

    #[test]
    fn a_new_incident_needs_a_new_canary() {
        let old = closed(1, 7, mins(10), mins(11), Outcome::Recovered);
        assert_eq!(Canaries::of(&[old], mins(20)).admit(CAUSE), Admission::First);
        assert_eq!(began(Some(Incarnation(mins(5))), [mins(6), mins(7)].into_iter()), mins(6));
        assert_eq!(began(Some(Incarnation(mins(9))), [mins(6)].into_iter()), mins(9), "ill before the restart");
        assert_eq!(began(None, [mins(8), mins(6)].into_iter()), mins(6));
    }

    #[test]
    fn another_diagnosis_sends_its_own_canary_while_the_proven_ones_go_on() {
        let mut proven = open(1, 7, mins(10), Step::Verifying);
        proven.revived = Some(mins(11));
        let mut canaries = Canaries::of(&[proven], mins(9));
        assert_eq!(canaries.admit(Diagnosis::Unheld), Admission::First);
        canaries.start_heal(ScaleSetId(8), Diagnosis::Unheld);
        assert_eq!(canaries.admit(Diagnosis::Unheld), Admission::Waits(ScaleSetId(8)));
        assert_eq!(canaries.admit(CAUSE), Admission::Follows);
    }

    #[test]
    fn probes_go_one_by_one_and_give_way_to_a_canary() {
        let mut canaries = Canaries::of(&[probe(1, 1, mins(0), mins(1), Outcome::Held)], mins(0));
        assert_eq!(canaries.session_check_held(), None);
        canaries.start_session_check(ScaleSetId(2));
        assert_eq!(canaries.session_check_held().unwrap().guard, Guard::InFlight);
        assert_eq!(canaries.admit(CAUSE), Admission::Waits(ScaleSetId(2)), "the canary is alone in flight");
        let mut canaries = Canaries::default();
        canaries.start_heal(ScaleSetId(3), CAUSE);
        assert_eq!(canaries.session_check_held().unwrap().guard, Guard::Canary);
    }
}
