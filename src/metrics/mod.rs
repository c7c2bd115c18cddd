//! The Prometheus metrics. A metric is added in [`declared`], and counted by a call of [`Metrics::count`] or
//! [`Metrics::observe`]; a gauge takes its value from the status, in [`scrape`].
//!
//! Counters start at 0 for every combination of labels, so that `increase()` sees the first event.

pub mod declared;
mod scrape;

pub use declared::{DECLARED, Declared, Kind, PREFIX, RecoveryCause, series};

use crate::status::Status;
use declared::{Counter, Histogram, RemedyMode, RemedyOutcome, SweepResult};
use medic_core::model::decision::RemedyKind;
use medic_core::model::{FailureKind, Guard, ManagerName, Operation, Outcome, RestartKind, Span, Target};
use medic_core::policy::Mode;
use medic_http::Recorder;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};
use scrape::{Gauges, Shown};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Metrics {
    registry: Registry,
    counters: BTreeMap<&'static str, IntCounterVec>,
    histograms: BTreeMap<&'static str, HistogramVec>,
    shown: Arc<Mutex<Shown>>,
}

impl Metrics {
    /// Declares everything, with the counters of these managers at 0.
    pub fn new(managers: &[ManagerName], mode: Mode) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let (mut counters, mut histograms) = (BTreeMap::new(), BTreeMap::new());
        for Declared { kind, name, labels, buckets, help } in DECLARED {
            let names: Vec<_> = labels.iter().map(|(label, _)| *label).collect();
            match kind {
                Kind::Counter => {
                    let counter = IntCounterVec::new(Opts::new(*name, *help).namespace(PREFIX), &names)?;
                    registry.register(Box::new(counter.clone()))?;
                    counters.insert(*name, counter);
                }
                Kind::Histogram => {
                    let options = HistogramOpts::new(*name, *help).namespace(PREFIX).buckets(buckets.to_vec());
                    let histogram = HistogramVec::new(options, &names)?;
                    registry.register(Box::new(histogram.clone()))?;
                    histograms.insert(*name, histogram);
                }
                Kind::Gauge => {}
            }
        }
        let shown = Arc::new(Mutex::new(Shown {
            mode,
            config_is_good: true,
            intervals: BTreeMap::new(),
            managers: managers.iter().map(|manager| (manager.clone(), None)).collect(),
        }));
        registry.register(Box::new(Gauges::new(Arc::clone(&shown))?))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let metrics = Self { registry, counters, histograms, shown };
        for manager in managers {
            metrics.start_at_zero(manager);
        }
        Ok(metrics)
    }

    fn start_at_zero(&self, manager: &ManagerName) {
        for declared in DECLARED.iter().filter(|declared| declared.kind != Kind::Gauge) {
            for values in combinations(declared, manager) {
                if let Some(counter) = self.counters.get(declared.name) {
                    counter.with_label_values(&values);
                } else if let Some(histogram) = self.histograms.get(declared.name) {
                    histogram.with_label_values(&values);
                }
            }
        }
    }

    pub fn count<C: Counter>(&self, series: &C) {
        self.counters[C::NAME].with_label_values(&series.values()).inc();
    }

    pub fn observe<H: Histogram>(&self, series: &H, span: Span) {
        self.histograms[H::NAME].with_label_values(&series.values()).observe(span.as_secs_f64());
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the managers of this document; all others stay as they are.
    pub fn show(&self, status: &Arc<Status>) {
        let names = status.managers.iter().map(|manager| manager.name.clone());
        self.shown().managers.extend(names.map(|name| (name, Some(Arc::clone(status)))));
    }

    /// The managers are watched from now on, at this interval.
    pub fn watched(&self, managers: &[ManagerName], interval: Span) {
        self.shown().intervals.extend(managers.iter().map(|manager| (manager.clone(), interval)));
    }

    /// The configuration was read again: whether it is valid.
    pub fn config_read(&self, is_good: bool) {
        self.shown().config_is_good = is_good;
    }

    pub fn remedy(&self, manager: &ManagerName, remedy: RemedyKind, outcome: Outcome) {
        let (outcome, mode) = (&RemedyOutcome::Ended(outcome), &RemedyMode::Heal);
        self.count(&series::remedies_total { manager, remedy: &remedy, outcome, mode });
    }

    /// A treatment would have begun, but the mode is a dry run. To be called once per unhealthy period.
    pub fn would_act(&self, manager: &ManagerName, remedy: RemedyKind) {
        let (outcome, mode) = (&RemedyOutcome::WouldAct, &RemedyMode::DryRun);
        self.count(&series::remedies_total { manager, remedy: &remedy, outcome, mode });
    }

    pub fn withheld(&self, manager: &ManagerName, guard: Guard) {
        self.count(&series::withheld_total { manager, guard: &guard });
    }

    pub fn recovered(&self, manager: &ManagerName, cause: RecoveryCause, unhealthy_for: Span) {
        self.count(&series::recoveries_total { manager, cause: &cause });
        self.observe(&series::time_to_recover_seconds { manager }, unhealthy_for);
    }

    /// A stale session ended that nobody deleted.
    pub fn stale_session_ended(&self, manager: &ManagerName, lifetime: Span) {
        self.observe(&series::stale_session_lifetime_seconds { manager }, lifetime);
    }

    pub fn restarted(&self, manager: &ManagerName, kind: RestartKind) {
        self.count(&series::manager_restarts_total { manager, kind: &kind });
    }

    pub fn swept(&self, manager: &ManagerName, took: Span, seen: bool) {
        let result = if seen { &SweepResult::Seen } else { &SweepResult::Blind };
        self.observe(&series::sweep_duration_seconds { manager }, took);
        self.count(&series::sweeps_total { manager, result });
    }

    pub fn store_failed(&self, manager: &ManagerName) {
        self.count(&series::store_errors_total { manager });
    }

    /// Records the requests of one manager's clients.
    pub fn recorder(self: &Arc<Self>, manager: &ManagerName) -> Arc<dyn Recorder> {
        Arc::new(ManagerRecorder { metrics: Arc::clone(self), manager: manager.clone() })
    }

    /// The exposition text.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// What the HTTP clients report, as metrics of one manager.
struct ManagerRecorder {
    metrics: Arc<Metrics>,
    manager: ManagerName,
}

impl Recorder for ManagerRecorder {
    fn exchange(&self, target: Target, operation: Operation, took: Span, failure: Option<FailureKind>) {
        let (manager, target, operation) = (&self.manager, &target, &operation);
        self.metrics.observe(&series::probe_duration_seconds { manager, target, operation }, took);
        if let Some(reason) = &failure {
            self.metrics.count(&series::probe_failures_total { manager, target, operation, reason });
        }
    }
}

/// All label values that a counter or histogram of this manager can have, in the order of its labels.
fn combinations<'a>(declared: &Declared, manager: &'a ManagerName) -> Vec<Vec<&'a str>> {
    let mut rows = vec![Vec::new()];
    for (label, all) in declared.labels {
        let values = if *label == "manager" { vec![manager.as_str()] } else { all() };
        let longer = |row: &Vec<&'a str>| values.iter().map(|value| [row.as_slice(), &[*value]].concat()).collect();
        rows = rows.iter().flat_map(|row| -> Vec<_> { longer(row) }).collect();
    }
    let place = |label| declared.labels.iter().position(|(name, _)| *name == label);
    if let (Some(target), Some(operation)) = (place("target"), place("operation")) {
        // An operation has one server.
        let fits =
            |row: &[&str]| row[operation].parse::<Operation>().is_ok_and(|of| of.target().as_str() == row[target]);
        rows.retain(|row| fits(row));
    }
    rows
}
