//! The status document, as plain data: what metrics, the status API, the page and the commands show after a reconcile.
//! Its JSON schema ([`schema`]) is derived from these types and from those of the model; `docs/status.schema.json` is
//! that schema. A date without `#[serde(with = …)]` does not compile here. Its texts (`incident`, `breaker_open`,
//! `stale_lifetimes`, `not_deleted`, guards' `value` and `limit`) are made in [`crate::text`]; `why` and `answer` are
//! notes of the journal.

use medic_core::model::time::{OptionalRfc3339, Rfc3339};
use medic_core::model::{
    Decision, Diagnosis, Enablement, EndpointName, EndpointState, EntityRef, Finding, GithubId, Guard, Incarnation,
    Lingering, ManagerName, ManagerState, Pause, RemedyKind, RestartKind, ScaleSetId, Source, Span, Treatment,
    TreatmentId, TreatmentState, Wall,
};
use medic_core::policy::Mode;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the status document; raised when a field changes meaning.
pub const STATUS_SCHEMA: u32 = 2;

/// The JSON schema of the status document, as text.
pub fn schema() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    format!("{:#}\n", settings.into_generator().into_root_schema_for::<Status>().as_value())
}

/// The document of `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// [`STATUS_SCHEMA`].
    pub schema: u32,
    pub version: String,
    pub mode: Mode,
    /// When the document was made.
    #[serde(with = "Rfc3339")]
    pub at: Wall,
    /// One per configured manager that was swept, in the configuration's order.
    pub managers: Vec<ManagerStatus>,
    /// Configured managers whose first sweep has not ended: they have just been started with, or they hang.
    #[serde(default)]
    pub not_swept_yet: Vec<ManagerName>,
}

impl Status {
    pub fn new(mode: Mode, at: Wall, managers: Vec<ManagerStatus>, not_swept_yet: Vec<ManagerName>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { schema: STATUS_SCHEMA, version, mode, at, managers, not_swept_yet }
    }
}

/// A decision whose guards are worded.
pub type ShownDecision = Decision<ShownGuard>;

/// One guard that blocks a remedy, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownGuard {
    pub guard: Guard,
    /// What it sees now (`2 of 3 sweeps`, `12 s of 20 s`).
    pub value: String,
    /// What it asks for.
    pub limit: String,
    /// When it stops blocking, if time alone decides.
    #[serde(default, with = "OptionalRfc3339")]
    pub until: Option<Wall>,
}

/// Whether a source of evidence can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SourceState {
    Up,
    /// Is asked and does not answer.
    Down {
        why: String,
    },
    NotConfigured {
        /// What it would show.
        would_show: String,
    },
}

/// A restart of the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// How the process before it ended.
    pub kind: RestartKind,
    #[serde(with = "Rfc3339")]
    pub at: Wall,
}

/// One manager after a reconcile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ManagerStatus {
    /// Its name in the configuration.
    pub name: ManagerName,
    /// When the reconcile began.
    #[serde(with = "Rfc3339")]
    pub at: Wall,
    /// How many milliseconds it took.
    pub took: Span,
    pub state: ManagerState,
    /// When its present process started.
    #[serde(default, with = "OptionalRfc3339")]
    pub incarnation: Option<Incarnation>,
    /// The latest restart that was seen.
    pub restart: Option<Restart>,
    pub endpoints: BTreeMap<EndpointName, EndpointState>,
    pub sources: BTreeMap<Source, SourceState>,
    /// All its scale sets.
    pub sets: Vec<SetStatus>,
    /// Pauses of the manager and of its sets that are in force, by command and by file.
    #[serde(default)]
    pub pauses: Vec<Pause>,
    /// Whether the circuit breaker is open, and why.
    pub breaker_open: Option<String>,
    /// Treatments left in this hour.
    pub budget_remaining: u64,
    /// Treatments that may have something in effect.
    pub open_intents: u32,
    /// Sessions in the ledger that have not ended.
    pub known_sessions: u32,
    /// Calls left of the GitHub credentials, by endpoint.
    pub quota_remaining: BTreeMap<EndpointName, u64>,
    /// The incident in words, until it ends.
    pub incident: Option<String>,
    /// How long GitHub has kept stale sessions here, in words, while a set may wait for one.
    #[serde(default)]
    pub stale_lifetimes: Option<String>,
}

/// One scale set after a reconcile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SetStatus {
    pub id: ScaleSetId,
    pub github_id: Option<GithubId>,
    pub name: String,
    pub entity: Option<EntityRef>,
    pub enabled: Enablement,
    /// What is wrong, and why.
    pub finding: Finding,
    /// Why its session is not deleted, in words, while it is unhealthy.
    #[serde(default)]
    pub not_deleted: Vec<String>,
    /// What is done about it.
    pub decision: ShownDecision,
    /// Its latest unhealthy period, if that ended within a day.
    #[serde(default)]
    pub recovered: Option<Recovered>,
    /// Set while a treatment has kept it disabled for longer than the limit.
    #[serde(default)]
    pub left_disabled: Option<LeftDisabled>,
    pub lingering: Lingering,
    /// Treatments left for it in the window.
    pub budget_remaining: u64,
    /// The whole of that budget.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Its latest treatments, newest first.
    pub treatments: Vec<TreatmentSummary>,
}

/// A period in which a set was unhealthy, after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recovered {
    #[serde(with = "Rfc3339")]
    pub ill_since: Wall,
    /// When it was seen to listen again.
    #[serde(with = "Rfc3339")]
    pub at: Wall,
}

/// How many treatments a set may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    pub treatments: u64,
    /// In milliseconds.
    pub window: Span,
}

/// A set that we disabled and could not enable again in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftDisabled {
    /// Since when it has been disabled.
    #[serde(with = "Rfc3339")]
    pub since: Wall,
    /// How often the enable was tried.
    pub tries: u32,
    /// The latest answer, in words; absent while the manager cannot be asked.
    pub answer: Option<String>,
}

/// One treatment of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TreatmentSummary {
    pub id: TreatmentId,
    pub remedy: RemedyKind,
    #[serde(with = "Rfc3339")]
    pub opened: Wall,
    pub state: TreatmentState,
    pub why: Option<String>,
    /// How often its present step was tried; 0 for a step that is not repeated.
    #[serde(default)]
    pub tries: u32,
    /// The answer to the last try that failed, in words.
    #[serde(default)]
    pub answer: Option<String>,
    /// When it is tried again.
    #[serde(default, with = "OptionalRfc3339")]
    pub next_try: Option<Wall>,
}

impl From<&Treatment> for TreatmentSummary {
    fn from(treatment: &Treatment) -> Self {
        Self {
            id: treatment.id,
            remedy: treatment.remedy.kind(),
            opened: treatment.opened,
            state: treatment.step.state(),
            why: treatment.why().map(str::to_owned),
            tries: treatment.tries().map_or(0, |(tries, _)| tries),
            answer: treatment.refusal.clone(),
            next_try: treatment.tries().filter(|(tries, _)| *tries > 0).map(|(_, next)| next),
        }
    }
}

impl SetStatus {
    /// Whether the set listens, is in its grace period, or was disabled by an operator.
    pub fn is_healthy(&self) -> bool {
        !self.finding.diagnosis.is_ill() && self.finding.diagnosis != Diagnosis::Unknown
    }

    /// The guards that block a remedy now.
    pub fn guards(&self) -> impl Iterator<Item = Guard> + '_ {
        self.decision.guards().iter().map(|block| block.guard)
    }
}
