//! What the sources answered in one sweep: dated facts, and failures, which are facts too.

use super::closed::closed_enum;
use super::failure::RequestFailure;
use super::ids::{EndpointName, Entity, EntityKind, EntityRef, GithubId, Incarnation, Revision, ScaleSetId};
use super::log_fact::LogEvidence;
use super::time::{Now, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

closed_enum! {
    /// Where evidence comes from (`docs/reference/design.md` §4), strongest first.
    pub enum Source {
        /// The manager's log, by file or websocket.
        Log = "log",
        /// Per-set listener metrics of newer GARM.
        ListenerMetrics = "listener_metrics",
        /// Goroutine counts of the debug server.
        Goroutines = "goroutines",
        /// Aggregate counters of `/metrics`.
        Metrics = "metrics",
        /// GitHub's list of scale sets per entity.
        #[serde(alias = "broker")] // its name in files of before 0.1.0
        ActionsService = "actions_service",
        /// The manager's REST API.
        Api = "api",
        /// Our own journal: what we did, and the answers to session checks.
        Journal = "journal",
    }
}

/// A source's answer has three values: seen, not there to be asked, and *could not see*.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Seen<T> {
    Known(T),
    /// The source is not configured, or was not due in this sweep.
    NotAsked,
    /// The source was asked and did not answer usably.
    Failed(RequestFailure),
}

impl<T> Seen<T> {
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::NotAsked | Self::Failed(_) => None,
        }
    }
    pub const fn failure(&self) -> Option<&RequestFailure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Known(_) | Self::NotAsked => None,
        }
    }
    pub fn from_result(result: Result<T, RequestFailure>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Everything the sources answered about one manager in one sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// When the sweep began; the date of all its facts.
    pub at: Now,
    pub controller: Seen<Controller>,
    pub scale_sets: Seen<Vec<ScaleSet>>,
    /// Instances waiting to be removed, per set.
    pub lingering: Seen<BTreeMap<ScaleSetId, Lingering>>,
    pub metrics: Seen<ManagerMetrics>,
    pub goroutines: Seen<Goroutines>,
    /// The facts of the log so far, see [`LogEvidence`].
    pub log: Seen<LogEvidence>,
    /// GitHub's list of sets, per entity.
    #[serde(with = "pairs", alias = "broker")]
    pub actions_service: BTreeMap<EntityRef, Seen<Vec<GithubSet>>>,
}

/// A map as a list of pairs: JSON has only textual keys.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}

/// The manager's identity (`GET /controller-info`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// UUID; the owner of its sessions is `garm-` + this.
    pub id: String,
    /// Build description; not to be relied upon (`v0.0.0-unknown` is common).
    pub version: String,
}

/// Whether a set may receive jobs. Absent in GARM's JSON means disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enablement {
    /// `"enabled": true`.
    Enabled,
    /// `false`, or not there at all.
    Disabled,
}

/// A GitHub endpoint as the manager describes it (`docs/reference/garm-api.md` §5.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub name: EndpointName,
    /// `https://github.com`, with or without a trailing slash.
    pub base_url: String,
    /// `https://api.github.com/`, or GHES's API root.
    pub api_base_url: String,
}

/// One scale set as the manager's API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleSet {
    pub id: ScaleSetId,
    /// GitHub's id; absent until created there.
    pub github_id: Option<GithubId>,
    /// May repeat across entities.
    pub name: String,
    /// Absent only in malformed data.
    pub entity: Option<Entity>,
    /// GARM leaves it zeroed in some answers.
    pub endpoint: Option<Arc<Endpoint>>,
    pub enabled: Enablement,
    /// Runners that GitHub asked for, as last known to the manager.
    pub desired_runners: u32,
    pub max_runners: u32,
    pub revision: Revision,
    /// `updated_at` as a date, when it parses.
    pub updated_at: Option<Wall>,
}

impl ScaleSet {
    pub fn entity_ref(&self) -> Option<EntityRef> {
        Some(EntityRef { endpoint: self.endpoint.as_ref()?.name.clone(), entity: self.entity.clone()? })
    }

    /// Whether [`Self::place`] is known.
    pub const fn has_place(&self) -> bool {
        self.endpoint.is_some() && self.entity.is_some() && self.github_id.is_some()
    }

    pub fn place(&self) -> Option<GithubPlace> {
        Some(GithubPlace { endpoint: self.endpoint.clone()?, entity: self.entity.clone()?, github_id: self.github_id? })
    }
}

/// Everything needed to address one set at GitHub, also after a restart of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GithubPlace {
    pub endpoint: Arc<Endpoint>,
    pub entity: Entity,
    pub github_id: GithubId,
}

impl GithubPlace {
    pub fn entity_ref(&self) -> EntityRef {
        EntityRef { endpoint: self.endpoint.name.clone(), entity: self.entity.clone() }
    }
}

/// Instances of a set that wait to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Lingering {
    /// In `deleted`: only a running worker clears them.
    pub deleted: u32,
    /// In `pending_delete`, `pending_force_delete` or `deleting`.
    pub pending_delete: u32,
    /// Every instance of the set, whatever its status.
    pub total: u32,
}

/// The parts of `/metrics` that concern sessions.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ManagerMetrics {
    /// `process_start_time_seconds`.
    pub incarnation: Option<Incarnation>,
    /// GitHub operation counters per scope. GARM has no finer label.
    pub scopes: BTreeMap<EntityKind, ScopeCounters>,
    /// Per-set listener metrics; empty on builds without them, and on newer ones while no worker runs.
    pub listeners: BTreeMap<ScaleSetId, ListenerMetrics>,
    /// Whether per-set gauges (`garm_scaleset_info`) are exported: such a build has the stale-session fix
    /// (`docs/reference/garm-api.md` §1: the gauges came nine days after it).
    pub has_set_gauges: bool,
    /// Quotas of the manager's own credentials.
    pub quotas: Vec<Quota>,
}

/// `garm_github_operations_total` and `garm_github_errors_total` of one scope, since the process began: of
/// `CreateMessageSession`, `DeleteMessageSession` and `GetMessage`. An operation counts when it starts, an error when it
/// returns (cancellation included).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScopeCounters {
    pub create: u64,
    pub create_errors: u64,
    pub delete: u64,
    pub poll: u64,
    pub poll_errors: u64,
    /// Errors of the calls that come before a session: registration token, service address, set look-up.
    pub start_errors: u64,
    /// Errors of `GetRateLimit`, which GARM calls every 30 s: they show whether it can reach the API.
    pub rate_limit_errors: u64,
}

/// Per-set listener metrics of newer GARM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListenerMetrics {
    /// `garm_scaleset_listener_last_success_timestamp`: the last completed poll.
    pub last_success: Option<Wall>,
}

/// What is left of our own credential's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnQuota {
    pub remaining: u64,
    /// How many of them are reserved for the manager.
    pub reserve: u64,
    pub reset: Wall,
}

/// A credential's quota as the manager knows it (`garm_github_rate_limit_*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub credential: String,
    pub endpoint: EndpointName,
    /// Calls allowed per window; 0 before the manager first asked.
    pub limit: u64,
    pub remaining: u64,
    /// When the window ends; absent before the manager first asked.
    pub reset: Option<Wall>,
}

/// Counts out of a goroutine dump (`docs/reference/garm-api.md` §10): exact, but without names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Goroutines {
    /// `(*scaleSetListener).loop`: living listeners.
    pub listeners: u32,
    /// `(*Worker).keepListenerAlive`: living workers, those of disabled sets included.
    pub workers: u32,
}

/// One scale set as GitHub lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GithubSet {
    pub id: GithubId,
    pub name: String,
    /// Job and runner counts, when GitHub gave them.
    pub statistics: Option<GithubStatistics>,
}

/// GitHub's counts of one set (`docs/reference/actions-service.md` §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GithubStatistics {
    /// Waiting jobs nobody has acquired.
    pub available_jobs: u64,
    /// Jobs assigned to the set, running ones included: what schedulers scale to.
    pub assigned_jobs: u64,
    pub running_jobs: u64,
    pub registered_runners: u64,
    pub busy_runners: u64,
    pub idle_runners: u64,
}

impl ScopeCounters {
    /// Sessions opened since the process began, including those in flight.
    pub const fn opened(&self) -> u64 {
        self.create.saturating_sub(self.create_errors)
    }
    /// Sessions that should be open now. Each opened session leads to a poll at once, and each end of a listener starts
    /// a delete. A creation in flight counts as open, so the figure must be seen in two sweeps.
    pub fn open_now(&self) -> u64 {
        self.opened().min(self.poll).saturating_sub(self.delete)
    }
}
