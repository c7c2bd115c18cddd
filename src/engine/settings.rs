//! What one manager's engine is told about itself.

use medic_core::model::ManagerName;
use medic_core::policy::{Mode, Policy};

/// How one manager is treated.
#[derive(Debug, Clone)]
pub struct Settings {
    pub manager: ManagerName,
    pub policy: Policy,
    pub mode: Mode,
    /// Decide, but never write.
    pub dry_run: bool,
}
