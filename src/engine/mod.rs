//! The loop and the one-shot: sweep → diagnose → decide → treat → export; shutdown.
//!
//! - [`engine`]: one manager, one pass.
//! - [`service`]: all managers side by side, for as long as the process lives (`run`).
//! - [`once`]: all managers until there is nothing more to learn or to do (`once`).
//! - [`assemble`]: configuration → engines.
//! - [`checkup`]: one look at every source, for `doctor`.
//! - [`pause_file`]: a pause by a file in the state directory.
//! - [`lease`]: which medic of several on one store may act.
//! - `watch`: which events of a manager are a reason to look at once.
//! - `secret`: a secret's file, read again at each use; [`reader`]: a share that hangs holds nobody up.
//! - [`chronicle`]: the manager's log, followed for evidence and for the ledger.
//! - [`scene`]: what the core was given whenever it decided anew; [`replay`]: the same decided again, later.
//! - [`account`]: what a pass changed, told once; [`report`]: the picture after it; [`incident`]: the incident in words.

pub mod assemble;
pub mod changes;
pub mod driver;
pub mod dry_run;
pub mod interval;
pub mod lease;
pub mod log_follower;
pub mod once;
pub mod pause_file;
pub mod reconcile;
pub mod report;
pub mod service;
mod source_cache;
pub mod sweep;
