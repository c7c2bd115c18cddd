//! The gauges, written on scrape from the latest status of each manager: a series disappears with its set, its endpoint
//! or its source. A manager without a status yet has the series that do not depend on it, at 0.

use super::declared::{BudgetScope, DECLARED, Gauge, Kind, PREFIX, series};
use crate::status::{ManagerStatus, SetStatus, SourceState, Status};
use medic_core::model::{Decision, Diagnosis, Enablement, EndpointState, ManagerName, ManagerState, Span, Wall};
use medic_core::policy::Mode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) struct Shown {
    pub mode: Mode,
    pub config_is_good: bool,
    pub intervals: BTreeMap<ManagerName, Span>,
    /// The document that holds the manager's latest status.
    pub managers: BTreeMap<ManagerName, Option<Arc<Status>>>,
}

/// All gauges, as the registry wants them.
pub(super) struct Gauges {
    descriptions: Vec<Desc>,
    shown: Arc<Mutex<Shown>>,
}

impl Gauges {
    pub(super) fn new(shown: Arc<Mutex<Shown>>) -> prometheus::Result<Self> {
        let gauges = DECLARED.iter().filter(|declared| declared.kind == Kind::Gauge);
        let descriptions = gauges.map(|gauge| {
            let labels = gauge.labels.iter().map(|(label, _)| (*label).to_owned()).collect();
            Desc::new(format!("{PREFIX}_{}", gauge.name), gauge.help.to_owned(), labels, HashMap::new())
        });
        Ok(Self { descriptions: descriptions.collect::<Result<_, _>>()?, shown })
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        write(&self.shown.lock().unwrap_or_else(PoisonError::into_inner), &mut samples);
        self.descriptions.iter().map(|description| samples.family(description)).collect()
    }
}

/// The samples of one scrape, by metric.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, Vec<Metric>>);

impl Samples {
    fn set<G: Gauge>(&mut self, series: &G, value: f64) {
        let pair = |(name, value): (&&str, _)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(String::from(value));
            pair
        };
        let mut labels: Vec<_> = G::LABELS.iter().zip(series.values()).map(pair).collect();
        labels.sort_by(|a, b| a.name().cmp(b.name()));
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut sample = Metric::from_gauge(gauge);
        sample.set_label(labels);
        self.0.entry(G::NAME).or_default().push(sample);
    }

    fn family(&mut self, description: &Desc) -> MetricFamily {
        let name = description.fq_name.trim_start_matches(PREFIX).trim_start_matches('_');
        let mut family = MetricFamily::default();
        family.set_name(description.fq_name.clone());
        family.set_help(description.help.clone());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(self.0.remove(name).unwrap_or_default());
        family
    }
}

fn write(shown: &Shown, out: &mut Samples) {
    out.set(&series::build_info { version: env!("CARGO_PKG_VERSION"), mode: &shown.mode }, 1.0);
    out.set(&series::config_last_reload_successful, flag(shown.config_is_good));
    for (manager, interval) in &shown.intervals {
        out.set(&series::interval_seconds { manager }, interval.as_secs_f64());
    }
    for (manager, document) in &shown.managers {
        let status = document.iter().flat_map(|status| &status.managers).find(|status| status.name == *manager);
        write_manager(manager, status, out);
        if let Some(status) = status {
            write_parts(manager, status, out);
            for set in &status.sets {
                write_set(manager, set, out);
            }
        }
    }
}

/// The series that a manager has before its first status too.
fn write_manager(manager: &ManagerName, status: Option<&ManagerStatus>, out: &mut Samples) {
    let is = |holds: fn(&ManagerStatus) -> bool| flag(status.is_some_and(holds));
    let many = |count: fn(&ManagerStatus) -> u32| status.map_or(0.0, |status| f64::from(count(status)));
    let answers = |status: &ManagerStatus| matches!(status.state, ManagerState::Up | ManagerState::Restarted);
    out.set(&series::manager_up { manager }, is(answers));
    out.set(&series::breaker_open { manager }, is(|status| status.breaker_open.is_some()));
    out.set(&series::paused { manager }, is(|status| !status.pauses.is_empty()));
    out.set(&series::open_intents { manager }, many(|status| status.open_intents));
    out.set(&series::known_sessions { manager }, many(|status| status.known_sessions));
    let ended = status.map_or(Wall(0), |status| status.at.plus(status.took));
    out.set(&series::last_sweep_timestamp_seconds { manager }, ended.as_secs_f64());
}

fn write_parts(manager: &ManagerName, status: &ManagerStatus, out: &mut Samples) {
    for state in ManagerState::ALL {
        out.set(&series::manager_state { manager, state }, flag(*state == status.state));
    }
    for (source, state) in &status.sources {
        match state {
            SourceState::Up => out.set(&series::source_up { manager, source }, 1.0),
            SourceState::Down { .. } => out.set(&series::source_up { manager, source }, 0.0),
            SourceState::NotConfigured { .. } => {}
        }
    }
    for (endpoint, present) in &status.endpoints {
        for state in EndpointState::ALL {
            out.set(&series::endpoint_state { manager, endpoint, state }, flag(state == present));
        }
    }
    for (endpoint, left) in &status.quota_remaining {
        out.set(&series::github_rate_limit_remaining { manager, endpoint }, number(*left));
    }
    let mut budget = |scope, left| out.set(&series::budget_remaining { manager, scope: &scope }, number(left));
    budget(BudgetScope::Manager, status.budget_remaining);
    // A set whose treatment is under way needs no other one yet.
    let waits = |set: &&SetStatus| {
        !set.is_healthy() && matches!(set.decision, Decision::Blocked { .. } | Decision::Treat { .. })
    };
    if let Some(least) = status.sets.iter().filter(waits).map(|set| set.budget_remaining).min() {
        budget(BudgetScope::ScaleSetMin, least);
    }
}

fn write_set(manager: &ManagerName, set: &SetStatus, out: &mut Samples) {
    let (scale_set, diagnosis) = (&set.id, set.finding.diagnosis);
    let (entity, endpoint) = set.entity.as_ref().map_or(("", ""), |of| (of.entity.name.as_str(), of.endpoint.as_str()));
    let github_id = &set.github_id.map_or_else(String::new, |id| id.to_string());
    out.set(&series::scale_set_info { manager, scale_set, name: &set.name, entity, endpoint, github_id }, 1.0);
    out.set(&series::scale_set_enabled { manager, scale_set }, flag(set.enabled == Enablement::Enabled));
    out.set(&series::scale_set_healthy { manager, scale_set }, flag(set.is_healthy()));
    for state in Diagnosis::ALL {
        out.set(&series::scale_set_state { manager, scale_set, state }, flag(*state == diagnosis));
    }
    let stuck_since = set.finding.ill_since.map_or(0.0, Wall::as_secs_f64);
    out.set(&series::scale_set_stuck_since_timestamp_seconds { manager, scale_set }, stuck_since);
    let by_medic = flag(diagnosis == Diagnosis::DisabledByMedic);
    out.set(&series::scale_set_disabled_by_medic { manager, scale_set }, by_medic);
    out.set(&series::lingering_instances { manager, scale_set }, f64::from(set.lingering.deleted));
    if let Some(last) = set.treatments.first() {
        let (remedy, outcome) = (&last.remedy, &last.state);
        let series = series::scale_set_last_remedy_timestamp_seconds { manager, scale_set, remedy, outcome };
        out.set(&series, last.opened.as_secs_f64());
    }
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

#[expect(clippy::cast_precision_loss, reason = "no budget and no quota goes beyond 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
