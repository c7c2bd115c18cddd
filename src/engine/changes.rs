//! What a reconcile changed, reported once: to metrics, to the log, and to the history.

use crate::metrics::{Metrics, RecoveryCause};
use crate::status::Recovered;
use crate::text::{guards as guard_text, words};
use medic_core::diagnose::{Fleet, Recovery};
use medic_core::model::{
    Decision, Diagnosis, Guard, ManagerName, Outcome, RemedyKind, RestartKind, ScaleSetId, SetDecision, Span, Step,
    Treatment, Wall,
};
use medic_store::{HistoryFilter, ManagerStore};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The kind of event that reports a set's recovery.
const RECOVERY: &str = "recovery";
const RECOVERY_SHOWN: Span = Span::hours(24);
/// The newest events that are searched for recoveries at the start.
const EVENTS_SEARCHED: u32 = 5_000;

pub(super) struct ChangeReporter {
    store: ManagerStore,
    metrics: Arc<Metrics>,
    diagnoses: BTreeMap<ScaleSetId, Diagnosis>,
    decisions: BTreeMap<ScaleSetId, String>,
    blocked: BTreeSet<(ScaleSetId, Guard)>,
    would_act: BTreeSet<(ScaleSetId, RemedyKind)>,
    restart: Option<(RestartKind, Wall)>,
    recovered: BTreeMap<ScaleSetId, Recovered>,
}

/// What one reconcile found and did.
pub(super) struct Changes<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) decisions: &'a [SetDecision],
    pub(super) closed: &'a [Treatment],
    pub(super) history: &'a [Treatment],
}

impl ChangeReporter {
    /// Knows the recoveries of the last day from the history.
    pub(super) fn new(store: ManagerStore, metrics: Arc<Metrics>, now: Wall) -> Self {
        #[derive(Deserialize)]
        struct Detail {
            ill_since: Wall,
        }
        let newest = HistoryFilter { set: None, since: now.minus(RECOVERY_SHOWN), limit: EVENTS_SEARCHED };
        let events = store.history(newest).unwrap_or_default();
        let recoveries = events.into_iter().filter(|event| event.kind == RECOVERY).filter_map(|event| {
            let Detail { ill_since } = Detail::deserialize(&event.detail).ok()?;
            Some((event.set?, Recovered { ill_since, at: event.at }))
        });
        Self {
            recovered: recoveries.collect(),
            store,
            metrics,
            diagnoses: BTreeMap::new(),
            decisions: BTreeMap::new(),
            blocked: BTreeSet::new(),
            would_act: BTreeSet::new(),
            restart: None,
        }
    }

    const fn manager(&self) -> &ManagerName {
        self.store.manager()
    }

    /// The recovery of a set within the last day.
    pub(super) fn recovered(&self, set: ScaleSetId, now: Wall) -> Option<Recovered> {
        self.recovered.get(&set).copied().filter(|last| now.since(last.at) < RECOVERY_SHOWN)
    }

    pub(super) const fn restart(&self) -> Option<(RestartKind, Wall)> {
        self.restart
    }

    pub(super) fn report(&mut self, changes: &Changes<'_>) {
        let fleet = changes.fleet;
        if let Some((kind, incarnation)) = fleet.restart {
            self.restart = Some((kind, incarnation.0));
            self.metrics.restarted(self.manager(), kind);
            tracing::warn!(manager = %self.manager(), %kind, since = %incarnation.0, "GARM has restarted");
            self.append(fleet.at.wall, "restart", None, &json!({ "kind": kind, "at": incarnation }));
        }
        self.report_diagnoses(fleet);
        self.report_decisions(fleet, changes.decisions);
        self.report_closed(changes.closed);
        self.recovered.retain(|set, _| fleet.findings.contains_key(set));
        for recovery in &fleet.recoveries {
            self.report_recovery(fleet, recovery, changes.history);
        }
    }

    pub(super) fn report_closed(&self, closed: &[Treatment]) {
        for treatment in closed {
            if let Some(outcome) = treatment.outcome() {
                self.metrics.remedy(self.manager(), treatment.remedy.kind(), outcome);
            }
            self.append(treatment.step_at, "treatment", Some(treatment.set), &json!(treatment));
        }
    }

    fn report_recovery(&mut self, fleet: &Fleet, recovery: &Recovery, history: &[Treatment]) {
        let Recovery { set, ill_since, at, .. } = *recovery;
        self.recovered.insert(set, Recovered { ill_since, at });
        let is_treated = history.iter().any(|row| row.set == set && has_helped(row, ill_since));
        let (cause, outcome) = if is_treated {
            (RecoveryCause::Remedy, Outcome::Recovered)
        } else {
            (RecoveryCause::Itself, Outcome::SelfRecovered)
        };
        let (manager, took) = (self.manager(), at.since(ill_since));
        self.metrics.recovered(manager, cause, took);
        let name = name_of(fleet, set);
        tracing::info!(%manager, scale_set = %set, name, %outcome, %took, "the scale set listens again");
        self.append(at, RECOVERY, Some(set), &json!({ "outcome": outcome, "ill_since": ill_since }));
    }

    fn report_diagnoses(&mut self, fleet: &Fleet) {
        self.diagnoses.retain(|set, _| fleet.findings.contains_key(set));
        for (id, finding) in &fleet.findings {
            let before = self.diagnoses.insert(*id, finding.diagnosis);
            if before == Some(finding.diagnosis) {
                continue;
            }
            let (manager, name) = (self.manager(), name_of(fleet, *id));
            let because = finding.evidence.first().map(|evidence| words::fact(&evidence.fact));
            let (diagnosis, confidence) = (finding.diagnosis, finding.confidence);
            if diagnosis.is_ill() {
                tracing::warn!(%manager, scale_set = %id, name, %diagnosis, %confidence, because, "diagnosis");
            } else if before.is_some() {
                tracing::info!(%manager, scale_set = %id, name, %diagnosis, %confidence, because, "diagnosis");
            }
            self.append(fleet.at.wall, "diagnosis", Some(*id), &json!(finding));
        }
    }

    fn report_decisions(&mut self, fleet: &Fleet, decisions: &[SetDecision]) {
        let (mut blocked, mut would_act, mut labels) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for SetDecision { set, decision } in decisions {
            let label = words::label(decision);
            let before = self.decisions.get(set);
            // At the start, a set that works is no news.
            if before != Some(&label) && (before.is_some() || !matches!(decision, Decision::Leave)) {
                self.report_decision(fleet, *set, decision, &label);
            }
            labels.insert(*set, label);
            let Decision::Blocked { remedy, guards } = decision else { continue };
            blocked.extend(guards.iter().map(|guard| (*set, guard.guard())));
            if guards.iter().all(|guard| guard.guard() == Guard::DryRun) {
                would_act.insert((*set, remedy.kind()));
            }
        }
        for (_, guard) in blocked.difference(&self.blocked) {
            self.metrics.withheld(self.manager(), *guard);
        }
        for (_, remedy) in would_act.difference(&self.would_act) {
            self.metrics.would_act(self.manager(), *remedy);
        }
        (self.blocked, self.would_act, self.decisions) = (blocked, would_act, labels);
    }

    fn report_decision(&self, fleet: &Fleet, set: ScaleSetId, decision: &Decision, label: &str) {
        let (manager, name) = (self.manager(), name_of(fleet, set));
        let guards = if let Decision::Blocked { guards, .. } = decision { &guards[..] } else { &[] };
        let blocked_by: Vec<_> =
            guards.iter().map(|guard| words::guard_in_full(&guard_text::shown(guard), fleet.at.wall)).collect();
        let blocked_by = (!blocked_by.is_empty()).then(|| blocked_by.join("; "));
        if guards.iter().any(|guard| guard.guard() == Guard::Bound) {
            tracing::error!(%manager, scale_set = %set, name, decision = label, blocked_by, "decision");
        } else {
            tracing::info!(%manager, scale_set = %set, name, decision = label, blocked_by, "decision");
        }
        let mut detail = json!(decision);
        if let Some(fields) = detail.as_object_mut() {
            fields.insert("finding".to_owned(), json!(fleet.findings.get(&set)));
        }
        self.append(fleet.at.wall, "decision", Some(set), &detail);
    }

    /// The history is for operators; a failure to write it stops nothing.
    fn append(&self, at: Wall, kind: &str, set: Option<ScaleSetId>, detail: &Value) {
        if let Err(error) = self.store.append(at, kind, set, detail) {
            tracing::warn!(manager = %self.manager(), %error, "an event could not be saved in the history");
            self.metrics.store_failed(self.manager());
        }
    }
}

fn name_of(fleet: &Fleet, set: ScaleSetId) -> &str {
    fleet.sets.get(&set).map_or("", |set| set.name.as_str())
}

/// Whether a treatment had changed something of its set before the recovery.
fn has_helped(row: &Treatment, ill_since: Wall) -> bool {
    use Outcome::{Recovered, Unverified};
    let has_acted = matches!(&row.step, Step::Verifying | Step::Closed { outcome: Recovered | Unverified, .. });
    has_acted && row.step_at >= ill_since
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_store::Store;

    #[test]
    fn change_reporter_loads_recoveries_of_the_last_day() {
        let name = ManagerName::new("garm");
        let store = Store::in_memory().unwrap().for_manager(&name);
        let recovery = |set, at: Wall, ill_since: u64| {
            let detail = json!({ "outcome": Outcome::Recovered, "ill_since": ill_since });
            store.append(at, RECOVERY, Some(ScaleSetId(set)), &detail).unwrap();
        };
        let (now, hour) = (Wall::default().plus(Span::hours(30)), |hour| Wall::default().plus(Span::hours(hour)));
        recovery(1, hour(5), 1);
        recovery(2, hour(7), 2);
        recovery(2, hour(8), 3);
        store.append(hour(9), "diagnosis", Some(ScaleSetId(3)), &json!({})).unwrap();
        let metrics = Arc::new(Metrics::new(&[name], medic_core::policy::Mode::Heal).unwrap());
        let changes = ChangeReporter::new(store, metrics, now);
        let recovered = |set, now| changes.recovered(ScaleSetId(set), now);
        assert_eq!(recovered(1, now), None, "more than a day ago");
        assert_eq!(recovered(2, now), Some(Recovered { ill_since: Wall(3), at: hour(8) }), "the newest");
        assert_eq!(recovered(2, hour(32)), None, "a day has passed meanwhile");
        assert_eq!(recovered(3, now), None);
    }
}
