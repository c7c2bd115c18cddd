//! The durable store: one `SQLite` file that holds what must survive us (`docs/reference/design.md` §5, §6, §7).
//!
//! The rule: **what a caller relies on after a power cut is on the disk when the call returns** (journal, ledger,
//! lease, pauses: `synchronous=FULL`). The rest (state, log positions, history) is written with `synchronous=NORMAL`.
//! `SQLite`'s write-ahead log keeps the order: after a power cut the newest such rows may be missing, never torn, and
//! never newer than a durable row written before them.
//!
//! Edge cases: a garbage, truncated or newer file is an error that says so, never a panic and never an empty store. A
//! file system without shared memory falls back to a rollback journal of the same durability. Two processes (sidecar
//! and cron job) may open one file: a call waits up to [`BUSY_TIMEOUT`] for the other; after a time-out, later calls
//! wait 20 ms until one succeeds.
//!
//! All rows but the lease and the pauses belong to one manager: see [`ManagerStore`].

mod changed;
mod error;
#[cfg(feature = "fault-injection")]
pub mod fault_injection;
mod history;
mod journal;
mod lease;
mod ledger;
mod lock_file;
mod manual;
mod open;
mod pause;
mod schema;
mod snapshots;
mod sql;
mod state;

pub use changed::Version;
pub use error::{StoreError, StoreErrorKind};
pub use history::{Event, HistoryFilter};
pub use lease::LeaseState;
pub use ledger::StaleLifetime;
pub use pause::NewPause;
pub use snapshots::SNAPSHOT_LIMIT;

use medic_core::model::{ManagerName, Span, Wall};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub const FILE_NAME: &str = "medic.db";
/// How long a call waits for another process that holds the file.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// The same after a time-out, until a call succeeds: all managers and the HTTP server wait with it.
const BUSY_AGAIN_TIMEOUT: Duration = Duration::from_millis(20);

/// How long rows are kept, how many of each manager, and how many bytes of them.
const JOURNAL_AGE: Span = Span::hours(30 * 24);
const JOURNAL_KEEP: u32 = 50_000;
const HISTORY_AGE: Span = Span::hours(90 * 24);
const HISTORY_KEEP: u32 = 200_000;
const HISTORY_BYTES: u64 = 64 * 1024 * 1024;
const SNAPSHOTS_KEEP: u32 = 10_000;
const SNAPSHOTS_BYTES: u64 = 64 * 1024 * 1024;
/// Forgetting a session is safe: it can then no longer be proven stale.
const LEDGER_AGE: Span = Span::hours(30 * 24);
/// 500 sets with a hundred sessions each.
const LEDGER_KEEP: u32 = 50_000;

/// The store. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: String,
    /// Where the file is; `None` in memory.
    state_dir: Option<PathBuf>,
    connection: Mutex<Connection>,
    /// Held once this process has asked for the lease.
    lock_file: Mutex<Option<lock_file::LockFile>>,
    /// Writes so far that change what a reconcile reads.
    writes: AtomicU64,
    /// The durability that the connection is set to; only changed under its lock.
    durability: Mutex<Option<Durability>>,
    /// The last write has timed out waiting for another process.
    timed_out: AtomicBool,
    #[cfg(feature = "fault-injection")]
    disk: Option<Arc<dyn fault_injection::FaultyDisk>>,
}

impl Inner {
    fn new((path, connection): (String, Connection), state_dir: Option<&Path>) -> Self {
        Self {
            path,
            state_dir: state_dir.map(Path::to_owned),
            connection: Mutex::new(connection),
            lock_file: Mutex::new(None),
            writes: AtomicU64::new(0),
            durability: Mutex::new(None),
            timed_out: AtomicBool::new(false),
            #[cfg(feature = "fault-injection")]
            disk: None,
        }
    }
}

/// One manager's part of the store. Implements [`medic_core::ports::write::Journal`].
#[derive(Clone, Debug)]
pub struct ManagerStore {
    store: Store,
    manager: ManagerName,
    /// The holder that must have the lease whenever the journal is written.
    fence: Option<Arc<str>>,
}

/// What a write survives once its call has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    PowerCut,
    /// Our own death; the newest such writes may be lost in a power cut.
    Crash,
}

/// Whether the engine has to read its records again after a write: the journal, the ledger, manual heals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reread {
    Yes,
    No,
}

/// How many rows [`ManagerStore::prune`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    pub treatments: usize,
    pub sessions: usize,
    pub events: usize,
    pub snapshots: usize,
}

impl Store {
    /// Opens the store in `state_dir`; creates the directory (0700, not its parents) and the file (0600) if they
    /// are missing, and migrates an older schema.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { inner: Arc::new(Inner::new(open::open(state_dir)?, Some(state_dir))) })
    }

    /// As [`Self::open`], on a disk that can fail.
    #[cfg(feature = "fault-injection")]
    pub fn open_on_faulty_disk(
        state_dir: &Path,
        disk: Arc<dyn fault_injection::FaultyDisk>,
    ) -> Result<Self, StoreError> {
        let inner = Inner::new(open::open(state_dir)?, Some(state_dir));
        Ok(Self { inner: Arc::new(Inner { disk: Some(disk), ..inner }) })
    }

    /// The store of another medic, read only: nothing is created, migrated or repaired, and every write fails. `None`
    /// if no medic has run yet.
    pub fn open_read_only(state_dir: &Path) -> Result<Option<Self>, StoreError> {
        let opened = open::read_only(&state_dir.join(FILE_NAME), open::Share::WithWriters)?;
        Ok(opened.map(|opened| Self { inner: Arc::new(Inner::new(opened, None)) }))
    }

    /// The same for a copy of a store's file, which nobody changes meanwhile.
    pub fn open_copy_read_only(file: &Path) -> Result<Option<Self>, StoreError> {
        let opened = open::read_only(file, open::Share::Alone)?;
        Ok(opened.map(|opened| Self { inner: Arc::new(Inner::new(opened, None)) }))
    }

    /// A store in memory, for tests and dry runs.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self { inner: Arc::new(Inner::new(open::in_memory()?, None)) })
    }

    pub fn for_manager(&self, manager: &ManagerName) -> ManagerStore {
        ManagerStore { store: self.clone(), manager: manager.clone(), fence: None }
    }

    /// The file, for messages.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held dropped its transaction, which rolled back: the connection is sound.
        self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        what: &'static str,
        f: impl FnOnce(&Connection) -> Result<T, sql::Failure>,
    ) -> Result<T, StoreError> {
        f(&self.lock()).map_err(|failure| failure.at(self.path(), what))
    }

    /// Runs `f` in one `BEGIN IMMEDIATE` transaction: other processes see all of it or nothing.
    fn write<T>(
        &self,
        what: &'static str,
        durability: Durability,
        reread: Reread,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, sql::Failure>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        if reread == Reread::Yes {
            self.inner.writes.fetch_add(1, Ordering::AcqRel);
        }
        let run = |connection: &mut Connection| -> Result<T, sql::Failure> {
            self.set_durability(connection, durability)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = f(&transaction)?;
            #[cfg(feature = "fault-injection")]
            if self.inner.disk.as_ref().is_some_and(|disk| disk.loses_write(what)) {
                return Ok(value);
            }
            transaction.commit()?;
            Ok(value)
        };
        #[cfg(feature = "fault-injection")]
        if self.inner.disk.as_ref().is_some_and(|disk| !disk.accepts_write()) {
            return Err(sql::Failure::new(StoreErrorKind::DiskFull, "the lab's disk is full").at(self.path(), what));
        }
        let done = run(&mut connection).map_err(|failure| failure.at(self.path(), what));
        self.note_wait(&connection, done.as_ref().err());
        #[cfg(feature = "fault-injection")]
        if let Some(disk) = &self.inner.disk {
            disk.after_write(what);
        }
        done
    }

    /// Shortens the wait for other processes after a time-out, and restores it after a success.
    fn note_wait(&self, connection: &Connection, error: Option<&StoreError>) {
        let timed_out = error.is_some_and(|error| error.kind == StoreErrorKind::Busy);
        if self.inner.timed_out.swap(timed_out, Ordering::AcqRel) != timed_out {
            let wait = if timed_out { BUSY_AGAIN_TIMEOUT } else { BUSY_TIMEOUT };
            if let Err(error) = connection.busy_timeout(wait) {
                tracing::warn!(%error, "the store's time-out for other processes cannot be set");
            }
        }
    }

    /// Sets the durability of the next write, if it is not set so already.
    fn set_durability(&self, connection: &Connection, durability: Durability) -> Result<(), sql::Failure> {
        let mut set = self.inner.durability.lock().unwrap_or_else(PoisonError::into_inner);
        if *set == Some(durability) {
            return Ok(());
        }
        *set = None;
        let level = match durability {
            Durability::PowerCut => "FULL",
            Durability::Crash => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", level)?;
        *set = Some(durability);
        Ok(())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl ManagerStore {
    pub const fn manager(&self) -> &ManagerName {
        &self.manager
    }

    /// The same, whose journal accepts writes only while `holder` has the lease. A medic that was stopped in the middle
    /// of a treatment, and continues after another has taken over, can then do nothing more: the journal comes before
    /// every request (I6).
    #[must_use]
    pub fn fenced(self, holder: &str) -> Self {
        Self { fence: Some(holder.into()), ..self }
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Removes what is too old or too much; never an open treatment, never a session of ours that has not ended. Once
    /// an hour is often enough.
    pub fn prune(&self, now: Wall) -> Result<Pruned, StoreError> {
        let treatments = self.prune_treatments(now.minus(JOURNAL_AGE), JOURNAL_KEEP)?;
        let sessions = self.prune_sessions(now.minus(LEDGER_AGE), LEDGER_KEEP)?;
        let events = self.prune_history(now.minus(HISTORY_AGE), HISTORY_KEEP, HISTORY_BYTES)?;
        let snapshots = self.prune_snapshots(now.minus(HISTORY_AGE), SNAPSHOTS_KEEP, SNAPSHOTS_BYTES)?;
        Ok(Pruned { treatments, sessions, events, snapshots })
    }
}

#[cfg(test)]
mod tests;
