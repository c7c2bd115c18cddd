//! A person's order to heal one set now. It lifts the limits that bound what we do by ourselves, and none that keeps
//! a running listener or a living session from harm.

use super::ids::{ScaleSetId, SessionId};
use super::time::{Span, Wall};
use serde::{Deserialize, Serialize};

/// How long an order waits for a medic that carries it out.
pub const MANUAL_HEAL_LIFETIME: Span = Span::mins(2);

/// One order, unique in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ManualHealId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum ManualAction {
    Heal,
    /// The deletion of this session, which the person knows to be stale.
    DeleteSession {
        session: SessionId,
    },
}

/// An order for one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualHeal {
    pub id: ManualHealId,
    pub set: ScaleSetId,
    pub what: ManualAction,
    pub author: String,
    pub created: Wall,
}

/// What the medic that holds the lease says to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ManualHealAnswer {
    /// It is being carried out.
    Treating { treatment: super::ids::TreatmentId },
    /// It will not be carried out.
    Refused { why: String },
    Waiting {
        /// For what, in words.
        why: String,
    },
}
