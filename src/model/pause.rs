//! A pause set by a person: nothing is healed within its scope while it lasts.

use super::ids::{ManagerName, ScaleSetId};
use super::time::Wall;
use serde::{Deserialize, Serialize};

/// One pause, unique in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PauseId(pub u64);

/// What a pause covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum PauseScope {
    /// Everything.
    All,
    /// One manager with all its sets.
    Manager {
        /// Which.
        manager: ManagerName,
    },
    /// One set.
    Set {
        /// Its manager.
        manager: ManagerName,
        /// Which.
        set: ScaleSetId,
    },
}

impl PauseScope {
    /// Whether it covers this set.
    #[must_use]
    pub fn covers(&self, manager: &ManagerName, set: ScaleSetId) -> bool {
        match self {
            Self::All => true,
            Self::Manager { manager: paused } => paused == manager,
            Self::Set { manager: paused, set: paused_set } => paused == manager && *paused_set == set,
        }
    }
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Its number, by which it can be ended.
    pub id: PauseId,
    /// What it covers.
    pub scope: PauseScope,
    /// Why, in its author's words.
    pub reason: String,
    /// Who set it.
    pub author: String,
    /// When it was set.
    pub created: Wall,
    /// When it ends by itself, if it does.
    pub expires: Option<Wall>,
}
