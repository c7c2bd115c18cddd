//! The guards that block a remedy, as facts. `text::guards` of the program words them.

use super::closed::closed_enum;
use super::ids::{EndpointName, ScaleSetId, TreatmentId};
use super::pause::Pause;
use super::time::{Span, Wall};
use serde::{Deserialize, Serialize};

closed_enum! {
    pub enum Guard {
        /// The mode is `observe`.
        DryRun = "dry_run",
        /// The manager has just started, and the finding is no proof.
        Settle = "settle",
        /// Too few sweeps agree, or the evidence is weak.
        Confirmation = "confirmation",
        /// The incident's first treatment has not been verified yet.
        Canary = "canary",
        /// As many treatments are open as may be.
        InFlight = "in_flight",
        SetBudget = "set_budget",
        Backoff = "backoff",
        ManagerBudget = "manager_budget",
        Breaker = "breaker",
        /// Sets of several entities conflict and no restart explains it: a fault at GitHub.
        BlastRadius = "blast_radius",
        /// The manager is down, the endpoint fails, or most sources cannot be read.
        Frozen = "frozen",
        Paused = "paused",
        /// The cause of the failed start is not known to be resolved.
        CauseNotResolved = "cause_not_resolved",
        /// The remaining quota of the credential is reserved for the manager.
        Quota = "quota",
        Lease = "lease",
        Store = "store",
        /// Other sets of the entity wait for their workers.
        EntityLimit = "entity_limit",
        /// A set that we disabled could not be enabled within the limit.
        LeftDisabled = "left_disabled",
        /// The manager does not date changes, so an operator's change looks like ours.
        Undated = "undated",
        /// The treatment would break a bound that the other guards should have kept: a bug of ours.
        Bound = "bound",
    }
}

/// What a guard that blocks sees, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum GuardFact {
    DryRun,
    Settle {
        /// Since the manager's start; `None` where the start is not known.
        age: Option<Span>,
        needed: Span,
        crash_loop: bool,
    },
    Unconfirmed {
        sweeps: u32,
        needed: u32,
    },
    WeakEvidence,
    Canary {
        /// The set that is treated first.
        set: ScaleSetId,
    },
    InFlight {
        open: usize,
        limit: usize,
        /// How far the limit can grow as treatments show that they help.
        most: usize,
    },
    /// Session checks run one by one.
    SessionCheckOpen,
    SetBudget {
        used: usize,
        budget: usize,
        window: Span,
    },
    Backoff {
        passed: Span,
        wait: Span,
        /// The set's latest treatment.
        treatment: TreatmentId,
        /// How many treatments count.
        treatments: usize,
    },
    SessionCheckBackoff {
        passed: Span,
        wait: Span,
        last_failed: bool,
    },
    ManagerBudget {
        used: usize,
        budget: usize,
        window: Span,
    },
    BreakerOpen {
        since: Wall,
        /// Bad ends in a row that open it.
        after: u32,
        half_open: Wall,
    },
    BreakerTrial {
        since: Wall,
        /// Bad ends in a row that open it.
        after: u32,
    },
    /// The diagnosis says that several entities fail at once.
    GithubFault,
    UnexplainedConflicts {
        entities: usize,
    },
    Frozen {
        reasons: Vec<FrozenReason>,
    },
    Paused {
        pause: Pause,
    },
    CauseNotResolved,
    Quota {
        remaining: u64,
        reserve: u64,
    },
    Lease {
        holder: String,
        /// Unless the holder renews it.
        ends: Wall,
    },
    Store {
        why: String,
    },
    /// The manager is still starting the workers of the entity.
    EntityStarting,
    EntityLimit {
        waiting: usize,
        limit: usize,
    },
    LeftDisabled {
        set: ScaleSetId,
        disabled_for: Span,
        limit: Span,
    },
    Undated,
    Bound {
        of: Bounded,
        count: u64,
        limit: u64,
    },
}

/// Why too little can be seen to act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum FrozenReason {
    ManagerDown,
    ManagerUnreachable,
    EndpointDown { endpoint: EndpointName },
    EndpointLimited { endpoint: EndpointName },
    SourcesBlind,
}

closed_enum! {
    pub enum Bounded {
        HealsOfSet = "heals_of_set",
        HealsOfManager = "heals_of_manager",
        SessionChecksOfSet = "session_checks_of_set",
        InFlight = "in_flight",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedBy {
    #[serde(flatten)]
    pub fact: GuardFact,
    /// When it stops blocking, if time alone decides.
    pub until: Option<Wall>,
}

impl BlockedBy {
    pub const fn guard(&self) -> Guard {
        match self.fact {
            GuardFact::DryRun => Guard::DryRun,
            GuardFact::Settle { .. } => Guard::Settle,
            GuardFact::Unconfirmed { .. } | GuardFact::WeakEvidence => Guard::Confirmation,
            GuardFact::Canary { .. } => Guard::Canary,
            GuardFact::InFlight { .. } | GuardFact::SessionCheckOpen => Guard::InFlight,
            GuardFact::SetBudget { .. } => Guard::SetBudget,
            GuardFact::Backoff { .. } | GuardFact::SessionCheckBackoff { .. } => Guard::Backoff,
            GuardFact::ManagerBudget { .. } => Guard::ManagerBudget,
            GuardFact::BreakerOpen { .. } | GuardFact::BreakerTrial { .. } => Guard::Breaker,
            GuardFact::GithubFault | GuardFact::UnexplainedConflicts { .. } => Guard::BlastRadius,
            GuardFact::Frozen { .. } => Guard::Frozen,
            GuardFact::Paused { .. } => Guard::Paused,
            GuardFact::CauseNotResolved => Guard::CauseNotResolved,
            GuardFact::Quota { .. } => Guard::Quota,
            GuardFact::Lease { .. } => Guard::Lease,
            GuardFact::Store { .. } => Guard::Store,
            GuardFact::EntityStarting | GuardFact::EntityLimit { .. } => Guard::EntityLimit,
            GuardFact::LeftDisabled { .. } => Guard::LeftDisabled,
            GuardFact::Undated => Guard::Undated,
            GuardFact::Bound { .. } => Guard::Bound,
        }
    }
}

/// A guard that blocks until something other than time changes.
impl From<GuardFact> for BlockedBy {
    fn from(fact: GuardFact) -> Self {
        Self { fact, until: None }
    }
}

impl GuardFact {
    /// The same, where time alone lifts it.
    pub const fn until(self, until: Option<Wall>) -> BlockedBy {
        BlockedBy { fact: self, until }
    }
}
