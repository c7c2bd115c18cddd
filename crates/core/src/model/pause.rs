//! An operator's pause: no treatment starts within its scope while it lasts.

use super::ids::{ManagerName, ScaleSetId};
use super::time::{OptionalRfc3339, Rfc3339, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Unique in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PauseId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum PauseScope {
    All,
    Manager { manager: ManagerName },
    Set { manager: ManagerName, set: ScaleSetId },
}

impl PauseScope {
    /// Whether it covers this set.
    pub fn covers(&self, manager: &ManagerName, set: ScaleSetId) -> bool {
        match self {
            Self::All => true,
            Self::Manager { manager: paused } => paused == manager,
            Self::Set { manager: paused, set: paused_set } => paused == manager && *paused_set == set,
        }
    }

    /// Whether it covers this manager or any of its sets.
    pub fn concerns(&self, manager: &ManagerName) -> bool {
        match self {
            Self::All => true,
            Self::Manager { manager: paused } | Self::Set { manager: paused, .. } => paused == manager,
        }
    }
}

/// `everything`, `manager garm`, `scale set 3 of garm`.
impl std::fmt::Display for PauseScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Manager { manager } => write!(f, "manager {manager}"),
            Self::Set { manager, set } => write!(f, "scale set {set} of {manager}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    pub id: PauseId,
    pub scope: PauseScope,
    pub reason: String,
    pub author: String,
    #[serde(with = "Rfc3339")]
    pub created: Wall,
    /// Without an expiry it lasts until it is resumed.
    #[serde(default, with = "OptionalRfc3339")]
    pub expires: Option<Wall>,
}

impl PauseId {
    /// The pause file in the state directory; the store gives no such number.
    pub const FILE: Self = Self(0);
}
