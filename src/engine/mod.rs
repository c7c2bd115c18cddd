//! The engine: sweep → diagnose → decide → treat → report, as one reconcile per manager.
//!
//! | file | what it does |
//! |---|---|
//! | `assemble` | configuration → engines |
//! | `reconcile` | one reconcile of one manager |
//! | `sweep`, `source_cache`, `interval` | which sources are asked, and how often |
//! | `log_follower` | GARM's log → evidence and session ledger |
//! | `records`, `lease`, `pause_file` | what the store and operators say; which instance may act |
//! | `treatments`, `driver` | open treatments; the only caller of writes |
//! | `changes`, `report` | what changed, reported once; the status afterwards |
//! | `service`, `once`, `dry_run` | all managers: the commands `run`, `once`, and those that only show |

pub mod assemble;
mod changes;
pub mod driver;
pub mod dry_run;
pub mod interval;
pub mod lease;
pub mod log_follower;
pub mod once;
pub mod pause_file;
pub mod reconcile;
pub mod records;
mod report;
pub mod service;
mod source_cache;
pub mod sweep;
mod treatments;

use medic_core::model::ManagerName;
use medic_core::policy::{Mode, Policy};

/// The settings of one manager's engine.
#[derive(Debug, Clone)]
pub struct Settings {
    pub manager: ManagerName,
    pub policy: Policy,
    pub mode: Mode,
    /// Decide, but never write.
    pub dry_run: bool,
}
