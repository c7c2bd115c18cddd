//! The Prometheus metrics of the contract (`docs/reference/design.md` §9): one declaration each, in one table. Gauges
//! are reconciled with the whole picture after every pass, by [`Metrics::show`] alone, so that a series disappears with
//! its set; counters are born at 0 for every label combination, so that `increase()` sees the first event.
//!
//! Edge cases: a set, an endpoint or a quota that is gone takes its series with it; the series of sets are held apart,
//! as rows ([`SetSeries`]), so that ten thousand sets cost little; a dry run ends no treatment, so it has an outcome of
//! its own, [`WOULD_ACT`].

mod set_series;

use crate::status::{ManagerStatus, SetStatus, SourceState, Status};
use medic_core::model::decision::RemedyKind;
use medic_core::model::{
    Decision, Diagnosis, EndpointName, EndpointState, FailureKind, Guard, ManagerName, ManagerState, Operation,
    Outcome, RestartKind, Source, Span, Target,
};
use medic_http::Recorder;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use set_series::{Family, SetSeries};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

/// What a metric is, for its declaration and for the reference page.
#[derive(Debug, Clone, Copy)]
pub struct Declared {
    /// Name without the prefix.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Help text: meaning and unit.
    pub help: &'static str,
}

/// Every metric's prefix.
pub const PREFIX: &str = "scaleset_medic";

/// The outcome of a treatment that has not ended.
pub(super) const UNDER_WAY: &str = "under_way";

/// The outcome of a remedy that was due in a dry run.
pub const WOULD_ACT: &str = "would_act";

/// The modes of `remedies_total`.
const MODES: [&str; 2] = ["heal", "dry_run"];

const RECOVER_BUCKETS: &[f64] =
    &[1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1800.0, 3600.0];
const STALE_BUCKETS: &[f64] = &[10.0, 30.0, 45.0, 60.0, 75.0, 90.0, 105.0, 120.0, 180.0, 300.0, 600.0, 1800.0];
const PROBE_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

macro_rules! declare {
    ($($field:ident: $type:ident = $kind:literal [$($label:literal),*] $help:literal;)+) => {
        /// All metrics and their registry.
        pub struct Metrics {
            registry: Registry,
            sets: SetSeries,
            shown: Mutex<Shown>,
            $($field: $type,)+
        }

        /// The table of all metrics, in the order of the reference page.
        pub const DECLARED: &[Declared] = &[
            $(Declared { name: stringify!($field), kind: $kind, labels: &[$($label),*], help: $help },)+
        ];

        impl Metrics {
            fn declare() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(let $field: $type = New::new_metric(stringify!($field), $help, &[$($label),*])?;
                $field.register(&registry)?;)+
                Ok(Self { registry, sets: SetSeries::default(), shown: Mutex::default(), $($field,)+ })
            }
        }
    };
}

declare! {
    build_info: IntGaugeVec = "gauge" ["version", "mode"] "Always 1; the version and mode of this medic are in the labels.";
    scale_set_info: PerSet = "gauge" ["manager", "scale_set", "name", "entity", "endpoint", "github_id"]
        "Always 1; joins a scale set's id at the manager to its name, entity, endpoint and id at the forge.";
    scale_set_enabled: PerSet = "gauge" ["manager", "scale_set"] "1 while the manager shows the scale set as enabled, else 0.";
    scale_set_healthy: PerSet = "gauge" ["manager", "scale_set"]
        "1 while the scale set listens, is settling or is disabled by a person, 0 while it is ill or cannot be seen.";
    scale_set_state: PerSet = "gauge" ["manager", "scale_set", "state"]
        "1 for the scale set's present diagnosis, 0 for all others.";
    scale_set_stuck_since_timestamp_seconds: PerSet = "gauge" ["manager", "scale_set"]
        "Unix time since which the scale set has not been well; 0 while it is.";
    scale_set_disabled_by_medic: PerSet = "gauge" ["manager", "scale_set"]
        "1 while a treatment of ours has, or may have, disabled the scale set, else 0.";
    lingering_instances: PerSet = "gauge" ["manager", "scale_set"]
        "Instances of the scale set that wait in `deleted`, which only a living worker clears.";
    scale_set_last_remedy_timestamp_seconds: PerSet = "gauge" ["manager", "scale_set", "remedy", "outcome"]
        "Unix time at which the scale set's latest treatment began, and how it ended; `under_way` while it has not.";
    remedies_total: IntCounterVec = "counter" ["manager", "remedy", "outcome", "mode"]
        "Treatments that ended, by remedy, outcome and mode (dry_run: those that were due, as `would_act`).";
    withheld_total: IntCounterVec = "counter" ["manager", "guard"]
        "Times a guard began to hold back a remedy that was due.";
    recoveries_total: IntCounterVec = "counter" ["manager", "cause"]
        "Scale sets that became well again, by themselves or by a remedy.";
    time_to_recover_seconds: HistogramVec = "histogram" ["manager"]
        "Seconds from the first ill finding of a scale set until it listened again.";
    stale_session_lifetime_seconds: HistogramVec = "histogram" ["manager"]
        "Seconds for which GitHub kept a stale session that ended by itself.";
    manager_up: IntGaugeVec = "gauge" ["manager"] "1 while the manager answers, else 0.";
    manager_state: IntGaugeVec = "gauge" ["manager", "state"] "1 for the manager's present state, 0 for all others.";
    manager_restarts_total: IntCounterVec = "counter" ["manager", "kind"]
        "Restarts of the manager, by how the run before ended.";
    endpoint_state: IntGaugeVec = "gauge" ["manager", "endpoint", "state"]
        "1 for the forge endpoint's present state, 0 for all others.";
    source_up: IntGaugeVec = "gauge" ["manager", "source"]
        "1 while a configured source of evidence answers, 0 while it does not; no series where it is not configured.";
    breaker_open: IntGaugeVec = "gauge" ["manager"] "1 while the circuit breaker has stopped healing, else 0.";
    paused: IntGaugeVec = "gauge" ["manager"]
        "1 while people have paused the healing of the manager or of some of its scale sets, by command or by file, else 0.";
    budget_remaining: IntGaugeVec = "gauge" ["manager", "scope"]
        "Treatments left: `manager` within the hour; `scale_set_min` the fewest of any ill set that waits for a treatment, no series while none does.";
    open_intents: IntGaugeVec = "gauge" ["manager"] "Treatments that may have something in effect on a server.";
    known_sessions: IntGaugeVec = "gauge" ["manager"] "Sessions in the ledger that have not ended.";
    github_rate_limit_remaining: IntGaugeVec = "gauge" ["manager", "endpoint"]
        "Calls left in the window of our own GitHub credential.";
    probe_duration_seconds: HistogramVec = "histogram" ["manager", "target", "operation"]
        "Seconds one exchange with a server took.";
    probe_failures_total: IntCounterVec = "counter" ["manager", "target", "operation", "reason"]
        "Exchanges that did not give what was asked.";
    sweep_duration_seconds: HistogramVec = "histogram" ["manager"] "Seconds one pass took: sweep, diagnosis, decision, effects.";
    last_sweep_timestamp_seconds: GaugeVec = "gauge" ["manager"] "Unix time of the end of the latest pass; 0 before the first.";
    interval_seconds: GaugeVec = "gauge" ["manager"] "Seconds between two passes while all is well, as configured.";
    sweeps_total: IntCounterVec = "counter" ["manager", "result"] "Passes, by whether the manager's scale sets could be read.";
    config_last_reload_successful: IntGaugeVec = "gauge" []
        "1 while the configuration as it is now is in force, 0 while it has mistakes or cannot be read, and an earlier one is used.";
    store_errors_total: IntCounterVec = "counter" ["manager"] "Times the durable store failed; no act follows a failure.";
}

/// What has series now, to know what to remove.
#[derive(Default)]
struct Shown {
    endpoints: BTreeSet<(ManagerName, EndpointName)>,
    quotas: BTreeSet<(ManagerName, EndpointName)>,
}

trait New: Sized {
    fn new_metric(name: &'static str, help: &'static str, labels: &[&str]) -> prometheus::Result<Self>;

    fn register(&self, registry: &Registry) -> prometheus::Result<()>;
}

/// A family of the sets' own series, which no registry holds ([`SetSeries`]).
struct PerSet {
    name: &'static str,
    help: &'static str,
}

impl New for PerSet {
    fn new_metric(name: &'static str, help: &'static str, _labels: &[&str]) -> prometheus::Result<Self> {
        Ok(Self { name, help })
    }

    fn register(&self, _registry: &Registry) -> prometheus::Result<()> {
        Ok(())
    }
}

macro_rules! plain {
    ($($type:ident),+) => {$(
        impl New for $type {
            fn new_metric(name: &'static str, help: &'static str, labels: &[&str]) -> prometheus::Result<Self> {
                Self::new(Opts::new(name, help).namespace(PREFIX), labels)
            }

            fn register(&self, registry: &Registry) -> prometheus::Result<()> {
                registry.register(Box::new(self.clone()))
            }
        }
    )+};
}
plain!(GaugeVec, IntCounterVec, IntGaugeVec);

impl New for HistogramVec {
    fn new_metric(name: &'static str, help: &'static str, labels: &[&str]) -> prometheus::Result<Self> {
        let buckets = match name {
            "time_to_recover_seconds" => RECOVER_BUCKETS,
            "stale_session_lifetime_seconds" => STALE_BUCKETS,
            _ => PROBE_BUCKETS,
        };
        Self::new(HistogramOpts::new(name, help).namespace(PREFIX).buckets(buckets.to_vec()), labels)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.clone()))
    }
}

/// Why a set became well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryCause {
    /// Without us.
    Itself,
    /// After a remedy.
    Remedy,
}

impl RecoveryCause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Itself => "self",
            Self::Remedy => "remedy",
        }
    }
}

impl Metrics {
    /// Declares everything and gives birth to every counter of the named managers.
    ///
    /// # Errors
    /// Only if two declarations clash, which a test rules out.
    pub fn new(managers: &[ManagerName], mode: &str) -> prometheus::Result<Self> {
        let metrics = Self::declare()?;
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), mode]).set(1);
        metrics.config_read(true);
        for manager in managers {
            metrics.give_birth(manager.as_str());
        }
        Ok(metrics)
    }

    fn give_birth(&self, manager: &str) {
        for remedy in RemedyKind::ALL {
            for outcome in Outcome::ALL.iter().map(|outcome| outcome.as_str()).chain([WOULD_ACT]) {
                for mode in MODES {
                    self.remedies_total.with_label_values(&[manager, remedy.as_str(), outcome, mode]).reset();
                }
            }
        }
        for guard in Guard::ALL {
            self.withheld_total.with_label_values(&[manager, guard.as_str()]).reset();
        }
        for cause in [RecoveryCause::Itself, RecoveryCause::Remedy] {
            self.recoveries_total.with_label_values(&[manager, cause.as_str()]).reset();
        }
        for kind in RestartKind::ALL {
            self.manager_restarts_total.with_label_values(&[manager, kind.as_str()]).reset();
        }
        for operation in Operation::ALL {
            let target = operation.target();
            self.probe_duration_seconds.with_label_values(&[manager, target.as_str(), operation.as_str()]);
            for reason in FailureKind::ALL {
                self.probe_failures_total
                    .with_label_values(&[manager, target.as_str(), operation.as_str(), reason.as_str()])
                    .reset();
            }
        }
        for result in ["seen", "blind"] {
            self.sweeps_total.with_label_values(&[manager, result]).reset();
        }
        self.store_errors_total.with_label_values(&[manager]).reset();
        self.time_to_recover_seconds.with_label_values(&[manager]);
        self.stale_session_lifetime_seconds.with_label_values(&[manager]);
        self.sweep_duration_seconds.with_label_values(&[manager]);
        self.manager_up.with_label_values(&[manager]).set(0);
        self.breaker_open.with_label_values(&[manager]).set(0);
        self.paused.with_label_values(&[manager]).set(0);
        self.open_intents.with_label_values(&[manager]).set(0);
        self.known_sessions.with_label_values(&[manager]).set(0);
        self.last_sweep_timestamp_seconds.with_label_values(&[manager]).set(0.0);
    }

    /// Reconciles every gauge with the picture after a pass; the only writer of gauges. Managers that the picture
    /// does not hold yet keep what they show.
    pub fn show(&self, status: &Status) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for manager in &status.managers {
            self.show_manager(manager);
            self.show_endpoints(manager, &mut shown);
        }
        drop(shown);
        self.sets.show(status);
    }

    fn show_manager(&self, manager: &ManagerStatus) {
        let name = manager.name.as_str();
        let up = matches!(manager.state, ManagerState::Up | ManagerState::Restarted);
        self.manager_up.with_label_values(&[name]).set(i64::from(up));
        for state in ManagerState::ALL {
            self.manager_state.with_label_values(&[name, state.as_str()]).set(i64::from(*state == manager.state));
        }
        for source in Source::ALL {
            let labels = [name, source.as_str()];
            match manager.sources.get(source) {
                Some(SourceState::Up) => self.source_up.with_label_values(&labels).set(1),
                Some(SourceState::Down { .. }) => self.source_up.with_label_values(&labels).set(0),
                Some(SourceState::NotConfigured { .. }) | None => {
                    let _ = self.source_up.remove_label_values(&labels);
                }
            }
        }
        self.breaker_open.with_label_values(&[name]).set(i64::from(manager.breaker_open.is_some()));
        self.paused.with_label_values(&[name]).set(i64::from(!manager.pauses.is_empty()));
        self.budget_remaining.with_label_values(&[name, "manager"]).set(clamp(manager.budget_remaining));
        // A set whose treatment is under way needs no other one yet.
        let waits = |set: &&SetStatus| {
            !set.is_healthy() && matches!(set.decision, Decision::Blocked { .. } | Decision::Treat { .. })
        };
        match manager.sets.iter().filter(waits).map(|set| set.budget_remaining).min() {
            Some(least) => self.budget_remaining.with_label_values(&[name, "scale_set_min"]).set(clamp(least)),
            None => {
                let _ = self.budget_remaining.remove_label_values(&[name, "scale_set_min"]);
            }
        }
        self.open_intents.with_label_values(&[name]).set(i64::from(manager.open_intents));
        self.known_sessions.with_label_values(&[name]).set(i64::from(manager.known_sessions));
        self.last_sweep_timestamp_seconds.with_label_values(&[name]).set(manager.at.plus(manager.took).as_secs_f64());
    }

    fn show_endpoints(&self, manager: &ManagerStatus, shown: &mut Shown) {
        let name = manager.name.as_str();
        for (endpoint, present) in &manager.endpoints {
            for state in EndpointState::ALL {
                self.endpoint_state
                    .with_label_values(&[name, endpoint.as_str(), state.as_str()])
                    .set(i64::from(state == present));
            }
        }
        for endpoint in replaced(&mut shown.endpoints, &manager.name, manager.endpoints.keys()) {
            for state in EndpointState::ALL {
                let _ = self.endpoint_state.remove_label_values(&[name, endpoint.as_str(), state.as_str()]);
            }
        }
        for (endpoint, remaining) in &manager.quota_remaining {
            self.github_rate_limit_remaining.with_label_values(&[name, endpoint.as_str()]).set(clamp(*remaining));
        }
        for endpoint in replaced(&mut shown.quotas, &manager.name, manager.quota_remaining.keys()) {
            let _ = self.github_rate_limit_remaining.remove_label_values(&[name, endpoint.as_str()]);
        }
    }

    /// The managers are watched from now on, at this interval.
    pub fn watched(&self, managers: &[ManagerName], interval: Span) {
        for manager in managers {
            self.interval_seconds.with_label_values(&[manager.as_str()]).set(interval.as_secs_f64());
        }
    }

    /// A treatment ended.
    pub fn remedy(&self, manager: &ManagerName, remedy: RemedyKind, outcome: Outcome) {
        self.remedies_total.with_label_values(&[manager.as_str(), remedy.as_str(), outcome.as_str(), "heal"]).inc();
    }

    /// A treatment would have begun, but the mode is a dry run. To be told once per illness, not once per pass.
    pub fn would_act(&self, manager: &ManagerName, remedy: RemedyKind) {
        self.remedies_total.with_label_values(&[manager.as_str(), remedy.as_str(), WOULD_ACT, "dry_run"]).inc();
    }

    /// A guard began to hold a remedy back.
    pub fn withheld(&self, manager: &ManagerName, guard: Guard) {
        self.withheld_total.with_label_values(&[manager.as_str(), guard.as_str()]).inc();
    }

    /// A set became well.
    pub fn recovered(&self, manager: &ManagerName, cause: RecoveryCause, ill_for: Span) {
        self.recoveries_total.with_label_values(&[manager.as_str(), cause.as_str()]).inc();
        self.time_to_recover_seconds.with_label_values(&[manager.as_str()]).observe(ill_for.as_secs_f64());
    }

    /// A stale session ended by itself.
    pub fn stale_session_ended(&self, manager: &ManagerName, lifetime: Span) {
        self.stale_session_lifetime_seconds.with_label_values(&[manager.as_str()]).observe(lifetime.as_secs_f64());
    }

    /// The manager restarted.
    pub fn restarted(&self, manager: &ManagerName, kind: RestartKind) {
        self.manager_restarts_total.with_label_values(&[manager.as_str(), kind.as_str()]).inc();
    }

    /// A pass ended.
    pub fn swept(&self, manager: &ManagerName, took: Span, seen: bool) {
        self.sweep_duration_seconds.with_label_values(&[manager.as_str()]).observe(took.as_secs_f64());
        self.sweeps_total.with_label_values(&[manager.as_str(), if seen { "seen" } else { "blind" }]).inc();
    }

    /// The store failed.
    pub fn store_failed(&self, manager: &ManagerName) {
        self.store_errors_total.with_label_values(&[manager.as_str()]).inc();
    }

    /// The configuration was read again: whether it is without mistakes.
    pub fn config_read(&self, is_good: bool) {
        let no_labels: [&str; 0] = [];
        self.config_last_reload_successful.with_label_values(&no_labels).set(i64::from(is_good));
    }

    /// A recorder of exchanges for one manager's clients.
    #[must_use]
    pub fn recorder(self: &Arc<Self>, manager: &ManagerName) -> Arc<dyn Recorder> {
        Arc::new(ManagerRecorder { metrics: Arc::clone(self), manager: manager.clone() })
    }

    /// The exposition text.
    ///
    /// # Errors
    /// If the encoder fails, which plain text in memory does not.
    pub fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut out = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut out)?;
        for (family, declared) in [
            (Family::Info, &self.scale_set_info),
            (Family::Enabled, &self.scale_set_enabled),
            (Family::Healthy, &self.scale_set_healthy),
            (Family::State, &self.scale_set_state),
            (Family::StuckSince, &self.scale_set_stuck_since_timestamp_seconds),
            (Family::DisabledByMedic, &self.scale_set_disabled_by_medic),
            (Family::Lingering, &self.lingering_instances),
            (Family::LastRemedy, &self.scale_set_last_remedy_timestamp_seconds),
        ] {
            self.sets.write(family, declared.name, declared.help, &mut out);
        }
        Ok(out.into_bytes())
    }
}

struct ManagerRecorder {
    metrics: Arc<Metrics>,
    manager: ManagerName,
}

impl Recorder for ManagerRecorder {
    fn exchange(&self, target: Target, operation: Operation, took: Span, failure: Option<FailureKind>) {
        let manager = self.manager.as_str();
        self.metrics
            .probe_duration_seconds
            .with_label_values(&[manager, target.as_str(), operation.as_str()])
            .observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.metrics
                .probe_failures_total
                .with_label_values(&[manager, target.as_str(), operation.as_str(), reason.as_str()])
                .inc();
        }
    }
}

/// Replaces one manager's part of a set of series and returns what is no longer in it.
fn replaced<'a>(
    shown: &mut BTreeSet<(ManagerName, EndpointName)>,
    manager: &ManagerName,
    now: impl Iterator<Item = &'a EndpointName>,
) -> Vec<EndpointName> {
    let now: BTreeSet<EndpointName> = now.cloned().collect();
    let gone: Vec<_> =
        shown.iter().filter(|(of, endpoint)| of == manager && !now.contains(endpoint)).cloned().collect();
    for pair in &gone {
        shown.remove(pair);
    }
    shown.extend(now.into_iter().map(|endpoint| (manager.clone(), endpoint)));
    gone.into_iter().map(|(_, endpoint)| endpoint).collect()
}

/// The reference page `docs/metrics.md`, made from the declarations.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `src/export/metrics.rs`; do not edit. The port also serves the usual `process_*` \
         metrics of the medic itself.\n\nTimes are in seconds, dates in seconds since the Unix epoch. `scale_set` is \
         the manager's id of the set; join `scale_set_info` for its name. Every counter is there from the start, at 0.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for declared in DECLARED {
        let labels = declared.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{PREFIX}_{}` | {} | {labels} | {} |", declared.name, declared.kind, declared.help);
    }
    page.push_str("\n## Label values\n\n| label | of | values |\n|---|---|---|\n");
    let with = |more| Outcome::ALL.iter().map(|outcome| outcome.as_str()).chain([more]).collect::<Vec<_>>();
    let (outcomes, ended) = (with(WOULD_ACT), with(UNDER_WAY));
    for (label, of, values) in [
        ("state", "scale_set_state", names(Diagnosis::ALL)),
        ("state", "manager_state", names(ManagerState::ALL)),
        ("state", "endpoint_state", names(EndpointState::ALL)),
        ("remedy", "remedies_total", names(RemedyKind::ALL)),
        ("outcome", "remedies_total", list(&outcomes)),
        ("outcome", "scale_set_last_remedy_timestamp_seconds", list(&ended)),
        ("mode", "remedies_total", list(&MODES)),
        ("guard", "withheld_total", names(Guard::ALL)),
        ("cause", "recoveries_total", list(&["self", "remedy"])),
        ("kind", "manager_restarts_total", names(RestartKind::ALL)),
        ("source", "source_up", names(Source::ALL)),
        ("scope", "budget_remaining", list(&["manager", "scale_set_min"])),
        ("target", "probe_*", names(Target::ALL)),
        ("operation", "probe_*", names(Operation::ALL)),
        ("reason", "probe_failures_total", names(FailureKind::ALL)),
        ("result", "sweeps_total", list(&["seen", "blind"])),
    ] {
        let _ = writeln!(page, "| `{label}` | `{of}` | {values} |");
    }
    page
}

fn names<T: std::fmt::Display>(all: &[T]) -> String {
    list(&all.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn list<T: AsRef<str>>(all: &[T]) -> String {
    all.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(" ")
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
