//! The canary: an incident's first treatment runs alone until its set shows life (`docs/reference/design.md` §6).
//!
//! An incident begins with the manager's incarnation or, without a restart, with the first set that fell ill after all
//! were well. The canary is verified once the worker of its set tries again, or the set recovered; then other sets with
//! the same diagnosis follow, up to `max_in_flight`. Each other diagnosis has a canary of its own, one at a time. After
//! a failed canary the next candidate takes its place, until the breaker opens.
//!
//! A session check is never a canary, and waits while one is open. Session checks run one by one.

use crate::model::{BlockedBy, Diagnosis, GuardFact, Incarnation, Outcome, ScaleSetId, Treatment, Wall};
use std::collections::BTreeSet;

/// What the incident's treatments have shown so far, those allowed in this sweep included.
#[derive(Debug, Clone, Default)]
pub struct Canaries {
    verified: BTreeSet<Diagnosis>,
    heals: Vec<(ScaleSetId, Diagnosis)>,
    checks: Vec<ScaleSetId>,
}

/// Whether this rule lets a heal start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    First,
    /// After a canary that verified.
    Follows,
    /// Not yet: this set is treated first.
    Waits(ScaleSetId),
}

/// When the present incident began: `ill` are the dates on which the sets that can be healed fell ill.
pub fn began(incarnation: Option<Incarnation>, ill: impl Iterator<Item = Wall>) -> Wall {
    let first_ill = ill.min().unwrap_or_default();
    incarnation.map_or(first_ill, |run| run.0.max(first_ill))
}

impl Canaries {
    pub fn of(history: &[Treatment], began: Wall) -> Self {
        let mut canaries = Self::default();
        for row in history {
            if row.in_flight() {
                if row.is_heal() {
                    canaries.heals.push((row.set, row.cause));
                } else {
                    canaries.checks.push(row.set);
                }
            }
            let showed_life = row.worker_restarted.is_some() || row.outcome() == Some(Outcome::Recovered);
            if row.is_heal() && row.opened >= began && showed_life {
                canaries.verified.insert(row.cause);
            }
        }
        canaries
    }

    /// Open treatments, this sweep's included.
    pub fn in_flight(&self) -> usize {
        self.heals.len().saturating_add(self.checks.len())
    }

    pub fn admit(&self, cause: Diagnosis) -> Admission {
        if self.verified.contains(&cause) {
            return Admission::Follows;
        }
        let ahead = if self.verified.is_empty() {
            self.heals.first().map(|(set, _)| *set).or(self.checks.first().copied())
        } else {
            self.unverified()
        };
        ahead.map_or(Admission::First, Admission::Waits)
    }

    pub fn block(&self, cause: Diagnosis) -> Option<BlockedBy> {
        match self.admit(cause) {
            Admission::First | Admission::Follows => None,
            Admission::Waits(set) => Some(GuardFact::Canary { set }.into()),
        }
    }

    pub fn session_check_block(&self) -> Option<BlockedBy> {
        if let Some(set) = self.unverified() {
            return Some(GuardFact::Canary { set }.into());
        }
        (!self.checks.is_empty()).then(|| GuardFact::SessionCheckOpen.into())
    }

    pub fn start_heal(&mut self, set: ScaleSetId, cause: Diagnosis) {
        self.heals.push((set, cause));
    }

    pub fn start_session_check(&mut self, set: ScaleSetId) {
        self.checks.push(set);
    }

    fn unverified(&self) -> Option<ScaleSetId> {
        self.heals.iter().find(|(_, cause)| !self.verified.contains(cause)).map(|(set, _)| *set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{check, closed, mins, open};
    use crate::model::Step;

    const CAUSE: Diagnosis = Diagnosis::ConflictAbandoned;

    #[test]
    fn others_follow_once_the_worker_of_the_canary_restarted() {
        let mut row = open(1, 7, mins(10), Step::Verifying);
        let waiting = Canaries::of(&[row.clone()], mins(9));
        assert_eq!(waiting.admit(CAUSE), Admission::Waits(ScaleSetId(7)));
        assert_eq!(waiting.block(CAUSE), Some(GuardFact::Canary { set: ScaleSetId(7) }.into()));
        row.worker_restarted = Some(mins(11));
        assert_eq!(Canaries::of(&[row], mins(9)).admit(CAUSE), Admission::Follows);
        let recovered = closed(1, 7, mins(10), mins(11), Outcome::Recovered);
        assert_eq!(Canaries::of(&[recovered], mins(9)).admit(CAUSE), Admission::Follows);
    }

    #[test]
    fn failed_or_self_recovered_canary_verifies_nothing() {
        for outcome in [Outcome::Unverified, Outcome::Failed, Outcome::Aborted, Outcome::SelfRecovered] {
            let row = closed(1, 7, mins(10), mins(11), outcome);
            assert_eq!(Canaries::of(&[row], mins(9)).admit(CAUSE), Admission::First, "{outcome}");
        }
    }

    #[test]
    fn new_incident_needs_a_new_canary() {
        let old = closed(1, 7, mins(10), mins(11), Outcome::Recovered);
        assert_eq!(Canaries::of(&[old], mins(20)).admit(CAUSE), Admission::First);
        assert_eq!(began(Some(Incarnation(mins(5))), [mins(6), mins(7)].into_iter()), mins(6));
        assert_eq!(began(Some(Incarnation(mins(9))), [mins(6)].into_iter()), mins(9), "ill before the restart");
        assert_eq!(began(None, [mins(8), mins(6)].into_iter()), mins(6));
    }

    #[test]
    fn each_diagnosis_has_its_own_canary() {
        let mut proven = open(1, 7, mins(10), Step::Verifying);
        proven.worker_restarted = Some(mins(11));
        let mut canaries = Canaries::of(&[proven], mins(9));
        assert_eq!(canaries.admit(Diagnosis::Unheld), Admission::First);
        canaries.start_heal(ScaleSetId(8), Diagnosis::Unheld);
        assert_eq!(canaries.admit(Diagnosis::Unheld), Admission::Waits(ScaleSetId(8)));
        assert_eq!(canaries.admit(CAUSE), Admission::Follows);
    }

    #[test]
    fn session_checks_run_one_by_one_after_the_canary() {
        let mut canaries = Canaries::of(&[check(1, 1, mins(0), mins(1), Outcome::Held)], mins(0));
        assert_eq!(canaries.session_check_block(), None);
        canaries.start_session_check(ScaleSetId(2));
        assert_eq!(canaries.session_check_block(), Some(GuardFact::SessionCheckOpen.into()));
        assert_eq!(canaries.admit(CAUSE), Admission::Waits(ScaleSetId(2)), "the canary is alone in flight");
        let mut canaries = Canaries::default();
        canaries.start_heal(ScaleSetId(3), CAUSE);
        assert_eq!(canaries.session_check_block(), Some(GuardFact::Canary { set: ScaleSetId(3) }.into()));
    }
}
