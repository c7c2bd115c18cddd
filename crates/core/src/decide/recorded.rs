//! The input of [`decide`](super::decide), kept: what a history records of a decision and a replay decides again.
//!
//! A recording outlives the release that made it. A limit that it does not know has its default of today; a field of
//! the model that came later must have one too (`#[serde(default)]`), as in the journal.

use super::{Footing, Input};
use crate::model::session::LedgerSession;
use crate::model::{
    ConflictBehaviour, Decision, Diagnosis, EndpointName, EndpointState, Findings, Incarnation, ManagerName,
    ManagerState, ManualHeal, Now, OwnQuota, Owner, Pause, ScaleSet, ScaleSetId, SetDecision, Treatment, Wall,
};
use crate::policy::{Mode, Policy};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An [`Input`] that owns what it refers to; the fields mean the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Input`")]
pub struct Recorded {
    pub now: Now,
    pub name: ManagerName,
    pub mode: Mode,
    #[serde(deserialize_with = "with_todays_defaults")]
    pub policy: Policy,
    pub findings: Findings,
    pub sets: BTreeMap<ScaleSetId, ScaleSet>,
    pub manager: ManagerState,
    pub incarnation: Option<Incarnation>,
    pub crash_loop: bool,
    pub conflict_behaviour: ConflictBehaviour,
    pub endpoints: BTreeMap<EndpointName, EndpointState>,
    pub blind: bool,
    pub fault_at_github: bool,
    pub history: Vec<Treatment>,
    pub ledger: Vec<LedgerSession>,
    pub owner: Option<Owner>,
    pub pauses: Vec<Pause>,
    pub orders: Vec<ManualHeal>,
    pub breaker_reset: Option<Wall>,
    pub can_check_sessions: BTreeSet<ScaleSetId>,
    #[serde(default)]
    pub quotas: BTreeMap<EndpointName, OwnQuota>,
    pub footing: Footing,
}

impl Recorded {
    /// A copy of an input.
    #[must_use]
    pub fn of(input: &Input<'_>) -> Self {
        Self {
            now: input.now,
            name: input.name.clone(),
            mode: input.mode,
            policy: input.policy.clone(),
            findings: input.findings.clone(),
            sets: input.sets.clone(),
            manager: input.manager,
            incarnation: input.incarnation,
            crash_loop: input.crash_loop,
            conflict_behaviour: input.conflict_behaviour,
            endpoints: input.endpoints.clone(),
            blind: input.blind,
            fault_at_github: input.fault_at_github,
            history: input.history.to_vec(),
            ledger: input.ledger.to_vec(),
            owner: input.owner.cloned(),
            pauses: input.pauses.to_vec(),
            orders: input.orders.to_vec(),
            breaker_reset: input.breaker_reset,
            can_check_sessions: input.can_check_sessions.clone(),
            quotas: input.quotas.clone(),
            footing: input.footing.clone(),
        }
    }

    /// The input, to be decided again.
    #[must_use]
    pub fn input(&self) -> Input<'_> {
        Input {
            now: self.now,
            name: &self.name,
            mode: self.mode,
            policy: &self.policy,
            findings: &self.findings,
            sets: &self.sets,
            manager: self.manager,
            incarnation: self.incarnation,
            crash_loop: self.crash_loop,
            conflict_behaviour: self.conflict_behaviour,
            endpoints: &self.endpoints,
            blind: self.blind,
            fault_at_github: self.fault_at_github,
            history: &self.history,
            ledger: &self.ledger,
            owner: self.owner.as_ref(),
            pauses: &self.pauses,
            orders: &self.orders,
            breaker_reset: self.breaker_reset,
            can_check_sessions: &self.can_check_sessions,
            quotas: &self.quotas,
            footing: &self.footing,
        }
    }

    /// Forgets the sets that are well and left alone; how many those are. The rest may then be decided otherwise, which
    /// who records must see for itself.
    pub fn forget_the_well(&mut self, decisions: &[SetDecision]) -> usize {
        let left = decisions.iter().filter(|decided| decided.decision == Decision::Leave).map(|decided| decided.set);
        let is_well = |set: &ScaleSetId| {
            let diagnosis = self.findings.get(set).map(|finding| finding.diagnosis);
            matches!(diagnosis, Some(Diagnosis::Listening | Diagnosis::Disabled))
        };
        let well: BTreeSet<ScaleSetId> = left.filter(is_well).collect();
        self.findings.retain(|set, _| !well.contains(set));
        self.sets.retain(|set, _| !well.contains(set));
        self.ledger.retain(|session| !well.contains(&session.set));
        self.can_check_sessions.retain(|set| !well.contains(set));
        well.len()
    }
}

fn with_todays_defaults<'de, D: Deserializer<'de>>(recording: D) -> Result<Policy, D::Error> {
    use serde::de::Error as _;
    let recorded = serde_json::Map::deserialize(recording)?;
    let mut policy = serde_json::to_value(Policy::default()).map_err(D::Error::custom)?;
    if let Some(today) = policy.as_object_mut() {
        today.extend(recorded);
    }
    serde_json::from_value(policy).map_err(|error| D::Error::custom(format!("policy: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::decide;
    use crate::decide::testing::recorded;

    #[test]
    fn an_input_comes_back_as_it_was_and_is_decided_alike() {
        let recorded = recorded();
        let json = serde_json::to_string(&recorded.input()).unwrap();
        let read: Recorded = serde_json::from_str(&json).unwrap();
        assert_eq!(read, recorded);
        assert_eq!(Recorded::of(&read.input()), recorded);
        let decisions = decide(&read.input());
        assert_eq!(decisions, decide(&recorded.input()));
        assert!(matches!(decisions[0].decision, Decision::Treat { .. }), "{decisions:?}");
    }

    #[test]
    fn findings_of_no_set_are_written_as_those_of_many() {
        let none = Recorded { findings: Findings::new(), ..recorded() };
        for json in [serde_json::to_value(none.input()).unwrap(), serde_json::to_value(&none).unwrap()] {
            assert_eq!(json["findings"], serde_json::json!({}));
        }
        assert!(serde_json::to_value(recorded().input()).unwrap()["findings"]["1"].is_object());
    }

    #[test]
    fn a_limit_that_a_recording_does_not_know_has_todays_default() {
        let mut json = serde_json::to_value(recorded()).unwrap();
        json["policy"].as_object_mut().unwrap().remove("confirm_strong");
        json["policy"]["of_a_later_release"] = serde_json::json!(1);
        let read: Recorded = serde_json::from_str(&json.to_string()).unwrap();
        assert_eq!(read, recorded());
        json["policy"]["settle"] = serde_json::json!("soon");
        let error = serde_json::from_str::<Recorded>(&json.to_string()).unwrap_err().to_string();
        assert!(error.contains("policy") && error.contains("soon"), "{error}");
    }

    #[test]
    fn a_set_that_is_not_forgotten_can_still_be_asked_about() {
        let mut short = recorded();
        short.forget_the_well(&decide(&short.input()));
        assert_eq!(short.can_check_sessions, BTreeSet::from([ScaleSetId(1)]));
    }

    #[test]
    fn what_is_well_can_be_forgotten_and_nothing_else() {
        let mut short = recorded();
        let decisions = decide(&short.input());
        assert_eq!(short.forget_the_well(&decisions), 1);
        assert_eq!(decide(&short.input()), decisions[..1]);
        assert_eq!((short.sets.len(), short.ledger.len(), short.history.len()), (1, 0, 1));
        // Ill, and left alone: it may matter to the others.
        let mut whole = recorded();
        let leave = SetDecision { set: ScaleSetId(1), decision: Decision::Leave };
        assert_eq!(whole.forget_the_well(&[leave]), 0);
    }
}
