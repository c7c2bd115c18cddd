//! What a pass changed, told once: to metrics, to the log, and to the history.

use crate::engine::reconcile::{Parts, Restart};
use crate::metrics::RecoveryCause;
use crate::status::Recovered;
use crate::text::decision::label;
use medic_core::diagnose::Fleet;
use medic_core::model::{
    Decision, Diagnosis, Finding, Guard, Outcome, RemedyKind, ScaleSetId, SetDecision, Span, Step, Treatment, Wall,
};
use medic_store::{HistoryFilter, ManagerStore};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The kind of event that tells of a set's recovery.
const RECOVERY: &str = "recovery";

/// What was told already.
#[derive(Debug, Default)]
pub struct Account {
    diagnoses: BTreeMap<ScaleSetId, Diagnosis>,
    decisions: BTreeMap<ScaleSetId, String>,
    held: BTreeSet<(ScaleSetId, Guard)>,
    would_act: BTreeSet<(ScaleSetId, RemedyKind)>,
    restart: Restart,
    recovered: BTreeMap<ScaleSetId, Recovered>,
}

/// For so long it is told that a set has been ill.
const RECOVERY_TOLD: Span = Span::hours(24);
/// The newest events that are searched for recoveries at the start.
const EVENTS_SEARCHED: u32 = 5_000;

impl Account {
    /// The account of a process that has just begun: it knows what sets have recovered from lately.
    pub fn begin(store: &ManagerStore, now: Wall) -> Self {
        #[derive(Deserialize)]
        struct Told {
            ill_since: Wall,
        }
        let newest = HistoryFilter { set: None, since: now.minus(RECOVERY_TOLD), limit: EVENTS_SEARCHED };
        let events = store.history(newest).unwrap_or_default();
        let recoveries = events.into_iter().filter(|event| event.kind == RECOVERY).filter_map(|event| {
            let told = Told::deserialize(&event.detail).ok()?;
            Some((event.set?, Recovered { ill_since: told.ill_since, at: event.at }))
        });
        Self { recovered: recoveries.collect(), ..Self::default() }
    }

    /// The illness of a set that has ended within a day.
    pub fn recovered(&self, set: ScaleSetId, now: Wall) -> Option<Recovered> {
        self.recovered.get(&set).copied().filter(|last| now.since(last.at) < RECOVERY_TOLD)
    }

    /// The restart seen last.
    pub const fn restart(&self) -> Restart {
        self.restart
    }

    /// Tells what one pass changed.
    pub fn pass(
        &mut self,
        parts: &Parts,
        fleet: &Fleet,
        decisions: &[SetDecision],
        closed: &[Treatment],
        history: &[Treatment],
    ) {
        let manager = &parts.name;
        if let Some((kind, incarnation)) = fleet.restart {
            self.restart = Some((kind, incarnation.0));
            parts.metrics.restarted(manager, kind);
            tracing::warn!(%manager, %kind, since = %incarnation.0, "the manager has restarted");
            tell(parts, fleet.at.wall, "restart", None, &serde_json::json!({ "kind": kind, "at": incarnation }));
        }
        self.diagnoses(parts, fleet);
        self.decisions(parts, fleet, decisions);
        Self::closed(parts, closed);
        self.recovered.retain(|set, _| fleet.findings.contains_key(set));
        for recovery in &fleet.recoveries {
            self.recovered.insert(recovery.set, Recovered { ill_since: recovery.ill_since, at: recovery.at });
            let treated = history.iter().any(|row| row.set == recovery.set && helped(row, recovery.ill_since));
            let cause = if treated { RecoveryCause::Remedy } else { RecoveryCause::Itself };
            let took = recovery.at.since(recovery.ill_since);
            parts.metrics.recovered(manager, cause, took);
            let outcome = match cause {
                RecoveryCause::Remedy => Outcome::Recovered,
                RecoveryCause::Itself => Outcome::SelfRecovered,
            };
            let name = fleet.sets.get(&recovery.set).map_or("", |set| set.name.as_str());
            tracing::info!(%manager, scale_set = %recovery.set, name, %outcome, %took, "the scale set listens again");
            let detail = serde_json::json!({ "outcome": outcome, "ill_since": recovery.ill_since });
            tell(parts, recovery.at, RECOVERY, Some(recovery.set), &detail);
        }
    }

    /// Tells of treatments that have closed.
    pub fn closed(parts: &Parts, closed: &[Treatment]) {
        for treatment in closed {
            if let Some(outcome) = treatment.outcome() {
                parts.metrics.remedy(&parts.name, treatment.remedy.kind(), outcome);
            }
            tell(parts, treatment.step_at, "treatment", Some(treatment.set), &serde_json::json!(treatment));
        }
    }

    fn diagnoses(&mut self, parts: &Parts, fleet: &Fleet) {
        let manager = &parts.name;
        self.diagnoses.retain(|set, _| fleet.findings.contains_key(set));
        for (id, finding) in &fleet.findings {
            let before = self.diagnoses.insert(*id, finding.diagnosis);
            if before == Some(finding.diagnosis) {
                continue;
            }
            let name = fleet.sets.get(id).map_or("", |set| set.name.as_str());
            let because = finding.evidence.first().map(|evidence| crate::text::words::fact(&evidence.fact));
            let (diagnosis, confidence) = (finding.diagnosis, finding.confidence);
            if diagnosis.is_ill() {
                tracing::warn!(%manager, scale_set = %id, name, %diagnosis, %confidence, because, "diagnosis");
            } else if before.is_some() {
                tracing::info!(%manager, scale_set = %id, name, %diagnosis, %confidence, because, "diagnosis");
            }
            tell(parts, fleet.at.wall, "diagnosis", Some(*id), &serde_json::json!(finding));
        }
    }

    fn decisions(&mut self, parts: &Parts, fleet: &Fleet, decisions: &[SetDecision]) {
        let manager = &parts.name;
        let mut held = BTreeSet::new();
        let mut would_act = BTreeSet::new();
        let mut told = BTreeMap::new();
        for SetDecision { set, decision } in decisions {
            let label = label(decision);
            let before = self.decisions.get(set);
            // At the start, a set that is well is no news.
            let is_news = before != Some(&label) && (before.is_some() || !matches!(decision, Decision::Leave));
            if is_news {
                let name = fleet.sets.get(set).map_or("", |set| set.name.as_str());
                match decision {
                    Decision::Blocked { guards, .. } => {
                        let held = guards
                            .iter()
                            .map(|held| crate::text::words::held(held, None))
                            .collect::<Vec<_>>()
                            .join("; ");
                        if guards.iter().any(|held| held.guard == Guard::Bound) {
                            tracing::error!(%manager, scale_set = %set, name, decision = label, held, "decision");
                        } else {
                            tracing::info!(%manager, scale_set = %set, name, decision = label, held, "decision");
                        }
                    }
                    Decision::Leave
                    | Decision::Watch { .. }
                    | Decision::Escalate { .. }
                    | Decision::Treat { .. }
                    | Decision::Treating { .. } => {
                        tracing::info!(%manager, scale_set = %set, name, decision = label, "decision");
                    }
                }
                tell(parts, fleet.at.wall, "decision", Some(*set), &founded(decision, fleet.findings.get(set)));
            }
            told.insert(*set, label);
            let Decision::Blocked { remedy, guards } = decision else { continue };
            held.extend(guards.iter().map(|guard| (*set, guard.guard)));
            if guards.iter().all(|guard| guard.guard == Guard::DryRun) {
                would_act.insert((*set, remedy.kind()));
            }
        }
        for (_, guard) in held.difference(&self.held) {
            parts.metrics.withheld(manager, *guard);
        }
        for (_, remedy) in would_act.difference(&self.would_act) {
            parts.metrics.would_act(manager, *remedy);
        }
        (self.held, self.would_act, self.decisions) = (held, would_act, told);
    }
}

/// A decision with the finding that it answers: the diagnosis and its evidence.
fn founded(decision: &Decision, finding: Option<&Finding>) -> serde_json::Value {
    let mut detail = serde_json::json!(decision);
    if let Some(fields) = detail.as_object_mut() {
        fields.insert("finding".to_owned(), serde_json::json!(finding));
    }
    detail
}

/// Whether a treatment had changed something of its set within the illness that has just ended.
fn helped(row: &Treatment, ill_since: Wall) -> bool {
    let acted = match &row.step {
        Step::Verifying => true,
        Step::Closed { outcome, .. } => matches!(outcome, Outcome::Recovered | Outcome::Unverified),
        Step::Deleting { .. }
        | Step::Disabling { .. }
        | Step::DisableUnknown { .. }
        | Step::Disabled { .. }
        | Step::Enabling { .. }
        | Step::CheckOpening { .. }
        | Step::CheckOpened { .. } => false,
    };
    acted && row.step_at >= ill_since
}

fn tell(parts: &Parts, at: Wall, kind: &str, set: Option<ScaleSetId>, detail: &serde_json::Value) {
    // The history is for people; a failure to write it stops nothing.
    if let Err(error) = parts.store.append(at, kind, set, detail) {
        tracing::warn!(manager = %parts.name, %error, "an event could not be kept");
        parts.metrics.store_failed(&parts.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::ManagerName;
    use medic_store::Store;

    #[test]
    fn a_process_that_begins_anew_knows_what_sets_have_recovered_from_within_a_day() {
        let store = Store::in_memory().unwrap().for_manager(&ManagerName::new("garm"));
        let recovery = |set, at: Wall, ill_since: u64| {
            let detail = serde_json::json!({ "outcome": Outcome::Recovered, "ill_since": ill_since });
            store.append(at, RECOVERY, Some(ScaleSetId(set)), &detail).unwrap();
        };
        let (now, hour) = (Wall::default().plus(Span::hours(30)), |hour| Wall::default().plus(Span::hours(hour)));
        recovery(1, hour(5), 1);
        recovery(2, hour(7), 2);
        recovery(2, hour(8), 3);
        store.append(hour(9), "diagnosis", Some(ScaleSetId(3)), &serde_json::json!({})).unwrap();
        let account = Account::begin(&store, now);
        let told = |set, now| account.recovered(ScaleSetId(set), now);
        assert_eq!(told(1, now), None, "more than a day ago");
        assert_eq!(told(2, now), Some(Recovered { ill_since: Wall(3), at: hour(8) }), "the newest");
        assert_eq!(told(2, hour(32)), None, "a day has passed meanwhile");
        assert_eq!(told(3, now), None);
    }
}
