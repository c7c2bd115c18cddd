//! What may be done about a finding, and what holds it back (`docs/reference/design.md` §5, §6).

use super::closed::closed_enum;
use super::ids::{Owner, ScaleSetId, SessionId, TreatmentId};
use super::time::{OptionalRfc3339, Span, Wall};
use super::told::{Guards, Words};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// The kinds of remedy, as labels.
    pub enum RemedyKind {
        /// Disable, wait for the worker, enable.
        Toggle = "toggle",
        /// Delete a provably stale session.
        DeleteSession = "delete_session",
        /// Delete a provably stale session, then toggle.
        DeleteThenToggle = "delete_then_toggle",
        /// Ask for a session to learn whether anybody holds one, and end it at once.
        SessionCheck = "session_check",
    }
}

/// A remedy for one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remedy {
    /// Disable, wait for the worker, enable.
    Toggle,
    /// Delete this session, which is provably stale; the manager retries by itself.
    DeleteSession { session: SessionId },
    /// Delete this session, which is provably stale, then toggle.
    DeleteThenToggle { session: SessionId },
    /// Learn whether anybody holds a session.
    SessionCheck,
}

impl Remedy {
    #[must_use]
    pub const fn kind(&self) -> RemedyKind {
        match self {
            Self::Toggle => RemedyKind::Toggle,
            Self::DeleteSession { .. } => RemedyKind::DeleteSession,
            Self::DeleteThenToggle { .. } => RemedyKind::DeleteThenToggle,
            Self::SessionCheck => RemedyKind::SessionCheck,
        }
    }
}

closed_enum! {
    /// A reason to withhold a remedy.
    pub enum Guard {
        /// Mode is `observe`.
        DryRun = "dry_run",
        /// The manager is younger than the settle time, and the finding is no proof.
        Settle = "settle",
        /// Not enough sweeps agree yet.
        Confirmation = "confirmation",
        /// The incident's first treatment has not verified yet.
        Canary = "canary",
        /// Enough treatments are under way.
        InFlight = "in_flight",
        /// This set had its treatments for the window.
        SetBudget = "set_budget",
        /// This set was treated too recently.
        Backoff = "backoff",
        /// The manager had its treatments for the hour.
        ManagerBudget = "manager_budget",
        /// The circuit breaker is open.
        Breaker = "breaker",
        /// Several entities conflict without a restart: a fault at GitHub.
        BlastRadius = "blast_radius",
        /// The manager is down, the endpoint fails, or most probes are blind.
        Frozen = "frozen",
        /// Paused by a person.
        Paused = "paused",
        /// What made the manager give up is not seen to be gone.
        CauseNotResolved = "cause_not_resolved",
        /// The credential's remaining quota is reserved for the manager.
        Quota = "quota",
        /// Another medic holds the lease.
        Lease = "lease",
        /// The medic's own store cannot be read or written.
        Store = "store",
        /// Other sets of its entity wait for their workers.
        EntityLimit = "entity_limit",
        /// A set that we disabled cannot be enabled again, and is so for longer than a set ever should be.
        LeftDisabled = "left_disabled",
        /// The manager does not date changes of its sets, so that a person's could not be told from ours.
        Undated = "undated",
        /// Acting would break a bound that no policy allows to break: a fault of the medic.
        Bound = "bound",
    }
}

/// One guard that holds a remedy back, in a person's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockedBy {
    pub guard: Guard,
    /// What it sees now (`2 of 3 sweeps`, `12 s of 20 s`).
    #[schemars(with = "String")]
    pub value: Words,
    /// What it asks for.
    #[schemars(with = "String")]
    pub limit: Words,
    /// When it would next let an act pass, if time alone decides.
    #[serde(default, with = "OptionalRfc3339")]
    pub until: Option<Wall>,
}

closed_enum! {
    /// What is waited for, when waiting is the remedy.
    pub enum Waiting {
        /// The manager has just started.
        Settling = "settling",
        /// A stale session ends by itself within about a minute and a half; the manager retries.
        StaleSession = "stale_session",
        /// The same, for longer than ordinary (from 3 min).
        StaleSessionOdd = "stale_session_odd",
        Evidence = "evidence",
        Treatment = "treatment",
    }
}

/// What only a person can mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Escalation {
    /// Another owner holds the set's session.
    HeldElsewhere {
        /// Its name, where GitHub told.
        owner: Option<Owner>,
        run: Span,
    },
    /// Conflicts at several entities at once: a fault at GitHub.
    EndpointFault,
    /// The set is gone at GitHub.
    Missing,
    /// The set has another id at GitHub.
    Mismatched,
    Unauthorized,
    /// Assigned jobs do not turn into runners.
    Starved,
    /// The listener hears nothing; toggling it is risky and not allowed.
    Deaf,
    /// Sessions open and end in a loop.
    Flapping,
    /// GitHub forgot the session under a running listener.
    Evicted,
    /// Not enough can be seen to tell.
    Unknown,
}

impl Escalation {
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::HeldElsewhere { .. } => "held_elsewhere",
            Self::EndpointFault => "endpoint_fault",
            Self::Missing => "missing",
            Self::Mismatched => "mismatched",
            Self::Unauthorized => "unauthorized",
            Self::Starved => "starved",
            Self::Deaf => "deaf",
            Self::Flapping => "flapping",
            Self::Evicted => "evicted",
            Self::Unknown => "unknown",
        }
    }
}

/// The decision about one set in one sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Nothing is wrong, or nothing is ours to mend.
    Leave,
    /// Waiting is the remedy.
    Watch {
        waiting: Waiting,
        /// Until when, if time alone decides.
        #[serde(default, with = "OptionalRfc3339")]
        until: Option<Wall>,
    },
    /// A person is needed.
    Escalate { escalation: Escalation },
    /// A remedy is known, and held back.
    Blocked {
        remedy: Remedy,
        /// By these guards, all of them.
        #[schemars(with = "Vec<BlockedBy>")]
        guards: Guards,
    },
    Treat {
        remedy: Remedy,
        /// Whether it is the incident's first, alone in flight.
        canary: bool,
    },
    /// A treatment is under way.
    Treating { treatment: TreatmentId },
}

/// The decision about one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDecision {
    pub set: ScaleSetId,
    #[serde(flatten)]
    pub decision: Decision,
}
