//! The whole picture after one pass, as plain data: what metrics, the status API, the page and the commands show.

use medic_core::model::decision::Decision;
use medic_core::model::diagnosis::{EndpointState, Finding, ManagerState, RestartKind};
use medic_core::model::guard::Guard;
use medic_core::model::ids::{EndpointName, EntityRef, GithubId, Incarnation, ManagerName, ScaleSetId, TreatmentId};
use medic_core::model::observation::{Enablement, Lingering, Source};
use medic_core::model::pause::Pause;
use medic_core::model::time::{Span, Wall};
use medic_core::model::treatment::Treatment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the status document; raised when a field changes meaning.
pub const STATUS_SCHEMA: u32 = 1;

/// The document of `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`STATUS_SCHEMA`].
    pub schema: u32,
    pub version: String,
    /// `observe` or `heal`.
    pub mode: String,
    /// When the document was made.
    pub at: Wall,
    /// One per configured manager that was looked at, in the configuration's order.
    pub managers: Vec<ManagerStatus>,
    /// Configured managers whose first pass is not over yet: they have just been begun with, or they hang.
    #[serde(default)]
    pub not_looked_at: Vec<ManagerName>,
}

/// A decision whose guards are worded.
pub type ShownDecision = Decision<ShownGuard>;

/// One guard that blocks a remedy, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownGuard {
    pub guard: Guard,
    /// What it sees now (`2 of 3 sweeps`, `12 s of 20 s`).
    pub value: String,
    /// What it asks for.
    pub limit: String,
    /// When it stops blocking, if time alone decides.
    pub until: Option<Wall>,
}

/// Whether a source of evidence can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// One manager after a pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Its name in the configuration.
    pub name: ManagerName,
    /// When the pass began.
    pub at: Wall,
    /// How long it took.
    pub took: Span,
    pub state: ManagerState,
    pub incarnation: Option<Incarnation>,
    /// The restart seen last, and how the run before it ended.
    pub restart: Option<(RestartKind, Wall)>,
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
    /// The incident in words, while there is one.
    pub incident: Option<String>,
    /// How long GitHub has kept stale sessions here, in words, while a set may wait for one.
    #[serde(default)]
    pub stale_lifetimes: Option<String>,
}

/// One scale set after a pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetStatus {
    pub id: ScaleSetId,
    pub github_id: Option<GithubId>,
    pub name: String,
    pub entity: Option<EntityRef>,
    pub enabled: Enablement,
    /// What is wrong, and why.
    pub finding: Finding,
    /// While it is ill: why its session is not deleted, in words.
    #[serde(default)]
    pub not_deleted: Vec<String>,
    /// What is done about it.
    pub decision: ShownDecision,
    /// How it was last ill, if that has ended within a day.
    #[serde(default)]
    pub recovered: Option<Recovered>,
    /// While a treatment of ours has kept it disabled for longer than it may.
    #[serde(default)]
    pub left_disabled: Option<LeftDisabled>,
    pub lingering: Lingering,
    /// Treatments left for it in the window.
    pub budget_remaining: u64,
    /// What that is left of.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Its latest treatments, newest first.
    pub treatments: Vec<TreatmentSummary>,
}

/// An illness of a set that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Since when it was ill.
    pub ill_since: Wall,
    /// When it was seen to listen again.
    pub at: Wall,
}

/// How many treatments a set may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub treatments: u64,
    pub window: Span,
}

/// A set that we disabled and could not enable again in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftDisabled {
    /// Since when it has been disabled.
    pub since: Wall,
    /// How often the enable was tried.
    pub tries: u32,
    /// What came back last, in words; nothing while the manager cannot be asked.
    pub answer: Option<String>,
}

/// A treatment, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreatmentSummary {
    pub id: TreatmentId,
    pub remedy: String,
    pub opened: Wall,
    /// Where it stands, or how it ended.
    pub state: String,
    pub why: Option<String>,
    /// How often its present step was tried, where it is one that is tried again.
    #[serde(default)]
    pub tries: u32,
    /// What came back from the last try that failed, in words.
    #[serde(default)]
    pub answer: Option<String>,
    /// When it is tried again.
    #[serde(default)]
    pub next_try: Option<Wall>,
}

impl From<&Treatment> for TreatmentSummary {
    fn from(treatment: &Treatment) -> Self {
        Self {
            id: treatment.id,
            remedy: treatment.remedy.kind().as_str().to_owned(),
            opened: treatment.opened,
            state: treatment.outcome().map_or_else(|| treatment.step.label().to_owned(), |o| o.as_str().to_owned()),
            why: treatment.why().map(str::to_owned),
            tries: treatment.tries().map_or(0, |(tries, _)| tries),
            answer: treatment.refusal.clone(),
            next_try: treatment.tries().filter(|(tries, _)| *tries > 0).map(|(_, next)| next),
        }
    }
}

impl SetStatus {
    /// Whether the set counts as healthy: it listens, or a person wants it idle.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.finding.diagnosis.is_ill() && self.finding.diagnosis != medic_core::model::diagnosis::Diagnosis::Unknown
    }

    /// The guards that hold a remedy back now.
    pub fn guards(&self) -> impl Iterator<Item = Guard> + '_ {
        self.decision.guards().iter().map(|block| block.guard)
    }
}
