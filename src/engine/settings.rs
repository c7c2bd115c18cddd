//! The settings of one manager's engine.

use medic_core::model::ManagerName;
use medic_core::policy::{Mode, Policy};

#[derive(Debug, Clone)]
pub struct Settings {
    pub manager: ManagerName,
    pub policy: Policy,
    pub mode: Mode,
    /// Decide, but never write.
    pub dry_run: bool,
}
