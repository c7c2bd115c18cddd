//! Every metric of the contract (`docs/reference/design.md` §9), declared once: kind, name, labels with their types,
//! buckets, help. The label structs, the zeroes that counters start with and `docs/metrics.md` follow from it.

use medic_core::model::closed::closed_enum;
use medic_core::model::decision::RemedyKind;
use medic_core::model::{
    Diagnosis, EndpointName, EndpointState, FailureKind, Guard, ManagerName, ManagerState, Operation, Outcome,
    RestartKind, ScaleSetId, Source, Target, TreatmentState,
};
use medic_core::policy::Mode;
use std::borrow::Cow;

/// Every metric's prefix.
pub const PREFIX: &str = "scaleset_medic";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All values of a label; empty where they are not known beforehand.
pub type LabelValues = fn() -> Vec<&'static str>;

/// One metric, as it is declared.
#[derive(Debug)]
pub struct Declared {
    pub kind: Kind,
    /// Without the prefix.
    pub name: &'static str,
    pub labels: &'static [(&'static str, LabelValues)],
    pub buckets: &'static [f64],
    pub help: &'static str,
}

/// The labels of one series, by name.
pub trait Series {
    /// The metric's name without the prefix.
    const NAME: &'static str;
    const LABELS: &'static [&'static str];

    /// The values in the order of the declaration.
    fn values(&self) -> Vec<Cow<'_, str>>;
}

pub trait Counter: Series {}
pub trait Gauge: Series {}
pub trait Histogram: Series {}

/// A type of label values.
pub trait Label {
    fn text(&self) -> Cow<'_, str>;

    /// All values; empty where they are not known beforehand.
    fn all() -> Vec<&'static str> {
        Vec::new()
    }
}

macro_rules! series {
    ($kind:ident $name:ident {}) => {
        pub struct $name;
        impl $kind for $name {}
        impl Series for $name {
            const NAME: &'static str = stringify!($name);
            const LABELS: &'static [&'static str] = &[];
            fn values(&self) -> Vec<Cow<'_, str>> {
                Vec::new()
            }
        }
    };
    ($kind:ident $name:ident { $($label:ident: $type:ty),+ }) => {
        pub struct $name<'a> {
            $(pub $label: &'a $type,)+
        }
        impl $kind for $name<'_> {}
        impl Series for $name<'_> {
            const NAME: &'static str = stringify!($name);
            const LABELS: &'static [&'static str] = &[$(stringify!($label)),+];
            fn values(&self) -> Vec<Cow<'_, str>> {
                vec![$(self.$label.text()),+]
            }
        }
    };
}

macro_rules! declare {
    ($($kind:ident $name:ident { $($label:ident: $type:ty),* } $(in $buckets:ident)? $help:literal;)+) => {
        /// The label structs, each under the name of its metric.
        #[expect(non_camel_case_types, reason = "a metric has one name, wherever it is searched for")]
        pub mod series {
            use super::*;
            $(series!($kind $name { $($label: $type),* });)+
        }

        /// All metrics, in the order of the reference page.
        pub const DECLARED: &[Declared] = &[$(Declared {
            kind: Kind::$kind,
            name: stringify!($name),
            labels: &[$((stringify!($label), <$type as Label>::all)),*],
            buckets: [$($buckets,)? &[]][0],
            help: $help,
        },)+];
    };
}

const RECOVERY: &[f64] =
    &[1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1800.0, 3600.0];
const STALE_SESSION: &[f64] = &[10.0, 30.0, 45.0, 60.0, 75.0, 90.0, 105.0, 120.0, 180.0, 300.0, 600.0, 1800.0];
const REQUEST: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

declare! {
    Gauge build_info { version: str, mode: Mode } "Always 1; the labels show the version and the mode of this medic.";
    Gauge scale_set_info {
        manager: ManagerName, scale_set: ScaleSetId, name: str, entity: str, endpoint: str, github_id: str
    } "Always 1; joins a scale set's id in GARM to its name, entity, endpoint and id at GitHub.";
    Gauge scale_set_enabled { manager: ManagerName, scale_set: ScaleSetId }
        "1 while GARM shows the scale set as enabled, else 0.";
    Gauge scale_set_healthy { manager: ManagerName, scale_set: ScaleSetId }
        "1 while the scale set listens, is in its grace period or was disabled by an operator; 0 while it is unhealthy \
         or cannot be seen.";
    Gauge scale_set_state { manager: ManagerName, scale_set: ScaleSetId, state: Diagnosis }
        "1 for the scale set's present diagnosis, 0 for all others.";
    Gauge scale_set_stuck_since_timestamp_seconds { manager: ManagerName, scale_set: ScaleSetId }
        "Unix time since which the scale set has been unhealthy; 0 while it is healthy.";
    Gauge scale_set_disabled_by_medic { manager: ManagerName, scale_set: ScaleSetId }
        "1 while a treatment has, or may have, disabled the scale set, else 0.";
    Gauge lingering_instances { manager: ManagerName, scale_set: ScaleSetId }
        "Instances of the scale set in status `deleted`; only a running worker removes them.";
    Gauge scale_set_last_remedy_timestamp_seconds {
        manager: ManagerName, scale_set: ScaleSetId, remedy: RemedyKind, outcome: TreatmentState
    } "Unix time at which the scale set's latest treatment began, by its outcome; `under_way` until it ends.";
    Counter remedies_total { manager: ManagerName, remedy: RemedyKind, outcome: RemedyOutcome, mode: RemedyMode }
        "Treatments that ended, by remedy, outcome and mode. In a dry run: treatments that were due, with outcome \
         `would_act`.";
    Counter withheld_total { manager: ManagerName, guard: Guard } "Times a guard began to block a remedy that was due.";
    Counter recoveries_total { manager: ManagerName, cause: RecoveryCause }
        "Scale sets that became healthy again, without a remedy (`self`) or after one.";
    Histogram time_to_recover_seconds { manager: ManagerName } in RECOVERY
        "Seconds from the first unhealthy finding of a scale set until it listened again.";
    Histogram stale_session_lifetime_seconds { manager: ManagerName } in STALE_SESSION
        "Seconds until GitHub ended a stale session that nobody deleted.";
    Gauge manager_up { manager: ManagerName } "1 while GARM answers, else 0.";
    Gauge manager_state { manager: ManagerName, state: ManagerState }
        "1 for GARM's present state, 0 for all others.";
    Counter manager_restarts_total { manager: ManagerName, kind: RestartKind }
        "Restarts of GARM, by how its earlier process ended.";
    Gauge endpoint_state { manager: ManagerName, endpoint: EndpointName, state: EndpointState }
        "1 for the GitHub endpoint's present state, 0 for all others.";
    Gauge source_up { manager: ManagerName, source: Source }
        "1 while a configured source of evidence answers, else 0. No series for a source that is not configured.";
    Gauge breaker_open { manager: ManagerName } "1 while the circuit breaker blocks healing, else 0.";
    Gauge paused { manager: ManagerName }
        "1 while an operator has paused healing at this GARM or of any of its scale sets, else 0.";
    Gauge budget_remaining { manager: ManagerName, scope: BudgetScope }
        "Treatments left: `manager` within the hour; `scale_set_min` the fewest of any unhealthy set that waits for a \
         treatment, no series if none does.";
    Gauge open_intents { manager: ManagerName } "Treatments that may have something in effect on a server.";
    Gauge known_sessions { manager: ManagerName } "Sessions in the session ledger that have not ended.";
    Gauge github_rate_limit_remaining { manager: ManagerName, endpoint: EndpointName }
        "Requests left in the rate limit of our own GitHub credential.";
    Histogram probe_duration_seconds { manager: ManagerName, target: Target, operation: Operation } in REQUEST
        "Seconds that one request to a server took.";
    Counter probe_failures_total { manager: ManagerName, target: Target, operation: Operation, reason: FailureKind }
        "Requests that failed, by reason.";
    Histogram sweep_duration_seconds { manager: ManagerName } in REQUEST
        "Seconds that one reconcile took: sweep, diagnosis, decision, actions.";
    Gauge last_sweep_timestamp_seconds { manager: ManagerName }
        "Unix time at which the latest reconcile ended; 0 before the first.";
    Gauge interval_seconds { manager: ManagerName } "Configured seconds between two sweeps while all scale sets are \
        healthy.";
    Counter sweeps_total { manager: ManagerName, result: SweepResult }
        "Sweeps, by whether GARM's scale sets could be read.";
    Gauge config_last_reload_successful {}
        "1 while the present configuration is in use; 0 while it is invalid or unreadable and an earlier one is used.";
    Counter store_errors_total { manager: ManagerName } "Failures of the durable store; no action follows a failure.";
}

closed_enum! {
    /// Why a set became healthy again.
    pub enum RecoveryCause {
        /// Without us.
        Itself = "self",
        /// After a remedy.
        Remedy = "remedy",
    }
}

closed_enum! {
    pub enum RemedyMode {
        Heal = "heal",
        DryRun = "dry_run",
    }
}

closed_enum! {
    pub enum BudgetScope {
        Manager = "manager",
        ScaleSetMin = "scale_set_min",
    }
}

closed_enum! {
    pub enum SweepResult {
        Seen = "seen",
        Blind = "blind",
    }
}

/// How a treatment ended. A dry run ends none, so it has an outcome of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemedyOutcome {
    Ended(Outcome),
    WouldAct,
}

macro_rules! closed {
    ($($type:ty),+) => {$(
        impl Label for $type {
            fn text(&self) -> Cow<'_, str> {
                self.as_str().into()
            }
            fn all() -> Vec<&'static str> {
                Self::ALL.iter().map(|value| value.as_str()).collect()
            }
        }
    )+};
}
closed!(
    BudgetScope,
    Diagnosis,
    EndpointState,
    FailureKind,
    Guard,
    ManagerState,
    Mode,
    Operation,
    Outcome,
    RecoveryCause,
    RemedyKind,
    RemedyMode,
    RestartKind,
    Source,
    SweepResult,
    Target
);

impl Label for RemedyOutcome {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Ended(outcome) => outcome.as_str().into(),
            Self::WouldAct => "would_act".into(),
        }
    }
    fn all() -> Vec<&'static str> {
        [Outcome::all(), vec!["would_act"]].concat()
    }
}

impl Label for TreatmentState {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Ended(outcome) => outcome.as_str().into(),
            Self::Open(_) => "under_way".into(),
        }
    }
    fn all() -> Vec<&'static str> {
        [Outcome::all(), vec!["under_way"]].concat()
    }
}

impl Label for str {
    fn text(&self) -> Cow<'_, str> {
        self.into()
    }
}

macro_rules! names {
    ($($type:ty),+) => {$(
        impl Label for $type {
            fn text(&self) -> Cow<'_, str> {
                self.as_str().into()
            }
        }
    )+};
}
names!(EndpointName, ManagerName);

impl Label for ScaleSetId {
    fn text(&self) -> Cow<'_, str> {
        self.to_string().into()
    }
}
