//! Detects changes of the records that a reconcile reads, so that unchanged records are read once.

use super::Store;
use super::error::StoreError;
use std::sync::atomic::Ordering;

/// Equal versions: the journal, the ledger and the manual heals hold the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Changes with every commit of another process.
    theirs: i64,
    /// Changes with every write of this one.
    ours: u64,
}

impl Store {
    /// The version now. A write that comes between this and a read only makes the next version differ.
    pub fn version(&self) -> Result<Version, StoreError> {
        let ours = self.inner.writes.load(Ordering::Acquire);
        let theirs = self.read("detect changes", |connection| {
            Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
        })?;
        Ok(Version { theirs, ours })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewPause;
    use medic_core::model::{ManagerName, Span, Wall};

    #[test]
    fn version_changes_with_rereadable_writes_only() {
        let dir = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
        let garm = store.for_manager(&ManagerName::new("garm"));
        let first = store.version().unwrap();
        garm.save_state("{}").unwrap();
        store.acquire("one", Wall(1), Span::secs(60)).unwrap();
        store.acquire("one", Wall(2), Span::secs(60)).unwrap();
        assert_eq!(store.version().unwrap(), first);
        garm.save_breaker_reset(Wall(1)).unwrap();
        let second = store.version().unwrap();
        assert_ne!(second, first);
        let scope = medic_core::model::PauseScope::All;
        let pause = NewPause { scope, reason: String::new(), author: String::new(), created: Wall(1), expires: None };
        other.add_pause(pause).unwrap();
        assert_ne!(store.version().unwrap(), second);
    }
}
