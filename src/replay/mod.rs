//! Snapshots, evaluated again by this release: where does it decide differently? Pure.
//!
//! Each snapshot stands for itself. Its state was made by the rules of then, and nothing shows what another decision in
//! an earlier snapshot would have led to.

pub mod snapshot;

use crate::text::words::label;
use medic_core::decide::{Conditions, Input, decide};
use medic_core::diagnose::{Context, diagnose};
use medic_core::model::{
    Confidence, Decision, Diagnosis, Finding, ManagerName, Remedy, ScaleSet, ScaleSetId, SetDecision, Wall,
};
use medic_core::policy::{Mode, Policy};
use serde::{Deserialize, Serialize};
use snapshot::{SNAPSHOT_KIND, SNAPSHOT_SCHEMA, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// The `kind` of a snapshot before version 2.
const FIRST_KIND: &str = "scene";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("it is JSON, but not a line of a history")]
    NotHistory,
    #[error(
        "it is a snapshot of version {theirs}, recorded by scaleset-medic {medic}; this release ({ours}) reads version \
         {SNAPSHOT_SCHEMA}. Use the release that recorded it",
        ours = env!("CARGO_PKG_VERSION")
    )]
    OtherVersion { theirs: u32, medic: String },
    #[error("it is a damaged snapshot: {0}")]
    Damaged(String),
}

/// The snapshot of one line of a history; `None` if the line is another event.
pub fn parse(line: &str) -> Result<Option<Snapshot<'static>>, Unreadable> {
    #[derive(Deserialize)]
    struct Head {
        kind: Option<String>,
        schema: Option<u32>,
        medic: Option<String>,
    }
    let head: Head = serde_json::from_str(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Unreadable::NotJson(format!("it ends in the middle, cut off? ({error})")),
        serde_json::error::Category::Data => Unreadable::NotHistory,
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => Unreadable::NotJson(error.to_string()),
    })?;
    match (head.kind.as_deref(), head.schema) {
        (None, _) => Err(Unreadable::NotHistory),
        (Some(SNAPSHOT_KIND), Some(SNAPSHOT_SCHEMA)) => {
            serde_json::from_str(line).map(Some).map_err(|error| Unreadable::Damaged(error.to_string()))
        }
        (Some(SNAPSHOT_KIND | FIRST_KIND), Some(theirs)) => {
            let medic = head.medic.unwrap_or_else(|| "of unknown version".to_owned());
            Err(Unreadable::OtherVersion { theirs, medic })
        }
        (Some(SNAPSHOT_KIND | FIRST_KIND), None) => Err(Unreadable::Damaged("its version is missing".to_owned())),
        (Some(_), _) => Ok(None),
    }
}

/// The configuration to evaluate snapshots with; what is absent is as recorded.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub policy: Option<Policy>,
    /// Whether writes are allowed.
    pub mode: Option<Mode>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replayed {
    pub at: Wall,
    pub manager: ManagerName,
    /// The version of the medic that recorded it.
    pub medic: String,
    pub sets: usize,
    pub differences: Vec<Difference>,
    /// The sets that are decided the same, but diagnosed differently.
    pub renamed: Vec<Renamed>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub set: ScaleSetId,
    pub name: String,
    /// As recorded; absent if there was no such set.
    pub then: Option<Judgement>,
    /// Today; absent if there is no such set.
    pub now: Option<Judgement>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub finding: Option<Finding>,
    pub decision: Decision,
}

/// A set that is decided the same, but diagnosed differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renamed {
    pub set: ScaleSetId,
    pub then: (Diagnosis, Confidence),
    pub now: (Diagnosis, Confidence),
}

pub fn replay(snapshot: &Snapshot<'_>, rules: &Rules) -> Replayed {
    let recorded = snapshot.conditions.as_ref();
    let conditions = Conditions {
        policy: rules.policy.clone().unwrap_or_else(|| recorded.policy.clone()),
        mode: rules.mode.unwrap_or(recorded.mode),
        ..recorded.clone()
    };
    let mut state = snapshot.state.as_ref().clone();
    let context = Context { treatments: &snapshot.treatments, checks: &snapshot.checks, ledger: &recorded.ledger };
    let fleet = diagnose(&mut state, &snapshot.sweep, &context, &conditions.policy);
    let now =
        judgements(&decide(&Input { fleet: &fleet, given: &conditions }), |set| fleet.findings.get(&set).cloned());
    let then = judgements(&snapshot.decisions, |set| snapshot.findings.get(&set).cloned());
    let sets = now.len();
    let (differences, renamed) = compare(then, now, &fleet.sets);
    let (manager, medic) = (recorded.name.clone(), snapshot.medic.to_string());
    Replayed { at: recorded.now.wall, manager, medic, sets, differences, renamed }
}

fn judgements(
    decisions: &[SetDecision],
    finding: impl Fn(ScaleSetId) -> Option<Finding>,
) -> BTreeMap<ScaleSetId, Judgement> {
    let judgement = |SetDecision { set, decision }: &SetDecision| {
        (*set, Judgement { finding: finding(*set), decision: decision.clone() })
    };
    decisions.iter().map(judgement).collect()
}

fn compare(
    mut then: BTreeMap<ScaleSetId, Judgement>,
    mut now: BTreeMap<ScaleSetId, Judgement>,
    sets: &BTreeMap<ScaleSetId, ScaleSet>,
) -> (Vec<Difference>, Vec<Renamed>) {
    let (mut differences, mut renamed) = (Vec::new(), Vec::new());
    let all: BTreeSet<ScaleSetId> = then.keys().chain(now.keys()).copied().collect();
    for set in all {
        let (then, now) = (then.remove(&set), now.remove(&set));
        match (&then, &now) {
            (Some(a), Some(b)) if is_same(&a.decision, &b.decision) => {
                let diagnosis = |judgement: &Judgement| {
                    judgement.finding.as_ref().map(|finding| (finding.diagnosis, finding.confidence))
                };
                if let (Some(then), Some(now)) = (diagnosis(a), diagnosis(b))
                    && then != now
                {
                    renamed.push(Renamed { set, then, now });
                }
            }
            _ => {
                let name = sets.get(&set).map_or_else(String::new, |set| set.name.clone());
                differences.push(Difference { set, name, then, now });
            }
        }
    }
    (differences, renamed)
}

/// Whether two decisions are the same, waiting times aside.
fn is_same(a: &Decision, b: &Decision) -> bool {
    label(a) == label(b) && remedy(a) == remedy(b)
}

const fn remedy(decision: &Decision) -> Option<&Remedy> {
    match decision {
        Decision::Blocked { remedy, .. } | Decision::Treat { remedy, .. } => Some(remedy),
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } | Decision::Treating { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::snapshot::testing::{line, with_snapshot};
    use medic_core::decide::testing::finding;

    #[test]
    fn replay_compares_decisions_before_diagnoses() {
        let judgement =
            |diagnosis, decision| Judgement { finding: Some(finding(1, diagnosis, Confidence::Weak)), decision };
        let of = |diagnosis, decision| BTreeMap::from([(ScaleSetId(1), judgement(diagnosis, decision))]);
        let listening = || of(Diagnosis::Listening, Decision::Leave);
        let toggle = Decision::Treat { remedy: Remedy::Toggle, canary: false };
        for (what, now, differences, renamed) in [
            ("the same", listening(), 0, 0),
            ("another diagnosis", of(Diagnosis::Disabled, Decision::Leave), 0, 1),
            ("another decision", of(Diagnosis::Listening, toggle), 1, 0),
            ("no such set", BTreeMap::new(), 1, 0),
        ] {
            let (differ, rename) = compare(listening(), now, &BTreeMap::new());
            assert_eq!((differ.len(), rename.len()), (differences, renamed), "{what}");
        }
    }

    #[test]
    fn replay_reports_a_set_that_no_longer_gets_a_decision() {
        let decisions = [SetDecision { set: ScaleSetId(1), decision: Decision::Leave }];
        let replayed = with_snapshot(Wall(5), &decisions, |snapshot| replay(snapshot, &Rules::default()));
        assert_eq!((replayed.at, replayed.sets, replayed.differences.len()), (Wall(5), 0, 1));
        assert_eq!(replayed.differences[0].now, None);
    }

    #[test]
    fn snapshot_without_a_policy_key_gets_its_default() {
        let line = line();
        let settle = format!("\"settle\":{},", Policy::default().settle.0);
        assert!(line.contains(&settle), "{line}");
        let read = parse(&line.replace(&settle, "\"of_a_later_release\":1,")).unwrap().unwrap();
        assert_eq!(read.conditions.policy, Policy::default());
    }
}
