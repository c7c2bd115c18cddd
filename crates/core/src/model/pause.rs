//! A pause set by a person: nothing is healed within its scope while it lasts.

use super::ids::{ManagerName, ScaleSetId};
use super::time::{OptionalRfc3339, Rfc3339, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One pause, unique in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PauseId(pub u64);

/// What a pause covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum PauseScope {
    All,
    /// One manager with all its sets.
    Manager {
        manager: ManagerName,
    },
    Set {
        manager: ManagerName,
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

    /// Whether it covers this manager or any of its sets.
    #[must_use]
    pub fn concerns(&self, manager: &ManagerName) -> bool {
        match self {
            Self::All => true,
            Self::Manager { manager: paused } | Self::Set { manager: paused, .. } => paused == manager,
        }
    }

    /// What ends the pauses of exactly this scope.
    #[must_use]
    pub fn resume(&self) -> String {
        match self {
            Self::All => "scaleset-medic resume".to_owned(),
            Self::Manager { manager } => format!("scaleset-medic resume --manager {manager}"),
            Self::Set { manager, set } => format!("scaleset-medic resume --manager {manager} --set {set}"),
        }
    }
}

/// As people say it: `everything`, `manager garm`, `scale set 3 of garm`.
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
    /// Its number, by which it can be ended.
    pub id: PauseId,
    pub scope: PauseScope,
    /// Why, in its author's words.
    pub reason: String,
    pub author: String,
    /// When it was set.
    #[serde(with = "Rfc3339")]
    pub created: Wall,
    /// When it ends by itself, if it does.
    #[serde(default, with = "OptionalRfc3339")]
    pub expires: Option<Wall>,
}

impl PauseId {
    /// The pause by the file in the state directory; the store gives no such number.
    pub const FILE: Self = Self(0);
}

impl Pause {
    /// What a person does to end it.
    #[must_use]
    pub fn how_to_end(&self) -> String {
        if self.id == PauseId::FILE {
            "remove the file `pause` from the state directory".to_owned()
        } else {
            self.scope.resume()
        }
    }

    /// `by alice until 16:19:04: upgrade`, `by alice, as long as the file is there: upgrade`.
    #[must_use]
    pub fn words(&self, now: Wall) -> String {
        let end = match self.expires {
            Some(end) => format!(" until {}", end.near(now)),
            None if self.id == PauseId::FILE => ", as long as the file is there".to_owned(),
            None => " until resumed".to_owned(),
        };
        format!("by {}{end}: {}", self.author, self.reason)
    }
}
