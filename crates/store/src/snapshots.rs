//! Snapshots for `replay`: one JSON document each, opaque here. The oldest go when there are too many or too large ones.

use super::error::{StoreError, StoreErrorKind};
use super::sql::{Failure, int, uint};
use super::{Durability, ManagerStore, Reread, SNAPSHOTS_BYTES, SNAPSHOTS_KEEP, Store};
use medic_core::model::{ManagerName, Wall};
use rusqlite::{Connection, OptionalExtension as _, params};

/// The longest snapshot that is kept, in bytes.
pub const SNAPSHOT_LIMIT: usize = 4 * 1024 * 1024;

impl ManagerStore {
    pub fn append_snapshot(&self, at: Wall, json: &str) -> Result<(), StoreError> {
        self.store.write("keep a snapshot", Durability::Crash, Reread::No, |tx| {
            if json.len() > SNAPSHOT_LIMIT {
                return Err(Failure::new(StoreErrorKind::Refused, format!("{} bytes are too many", json.len())));
            }
            let manager = self.manager.as_str();
            tx.prepare_cached("INSERT INTO snapshots (manager, at, bytes, body) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![manager, int(at.0), int(json.len() as u64), json])?;
            delete_beyond(tx, manager, SNAPSHOTS_KEEP, SNAPSHOTS_BYTES)?;
            Ok(())
        })
    }

    /// The ids of the snapshots taken since then, oldest first.
    pub fn snapshots(&self, since: Wall) -> Result<Vec<u64>, StoreError> {
        self.store.read("list the snapshots", |c| {
            let mut statement =
                c.prepare_cached("SELECT id FROM snapshots WHERE manager = ?1 AND at >= ?2 ORDER BY id")?;
            let ids = statement.query_map(params![self.manager.as_str(), int(since.0)], |row| row.get(0))?;
            ids.map(|id| Ok(uint(id?))).collect()
        })
    }

    /// One snapshot; `None` once it has been pruned.
    pub fn snapshot(&self, id: u64) -> Result<Option<String>, StoreError> {
        self.one_snapshot("id = ?2", id)
    }

    pub fn newest_snapshot(&self) -> Result<Option<String>, StoreError> {
        self.one_snapshot("id > ?2", 0)
    }

    fn one_snapshot(&self, condition: &str, id: u64) -> Result<Option<String>, StoreError> {
        self.store.read("read a snapshot", |c| {
            let newest =
                format!("SELECT body FROM snapshots WHERE manager = ?1 AND {condition} ORDER BY id DESC LIMIT 1");
            let row = |row: &rusqlite::Row<'_>| row.get(0);
            Ok(c.prepare_cached(&newest)?.query_row(params![self.manager.as_str(), int(id)], row).optional()?)
        })
    }

    pub(super) fn prune_snapshots(&self, before: Wall, keep: u32, bytes: u64) -> Result<usize, StoreError> {
        self.store.write("prune the snapshots", Durability::Crash, Reread::No, |tx| {
            let manager = self.manager.as_str();
            let old =
                tx.execute("DELETE FROM snapshots WHERE manager = ?1 AND at < ?2", params![manager, int(before.0)])?;
            Ok(old.saturating_add(delete_beyond(tx, manager, keep, bytes)?))
        })
    }
}

impl Store {
    /// The managers that have snapshots, by name.
    pub fn managers_with_snapshots(&self) -> Result<Vec<ManagerName>, StoreError> {
        self.read("list the snapshots", |c| {
            let mut statement = c.prepare_cached("SELECT DISTINCT manager FROM snapshots ORDER BY manager")?;
            let names = statement.query_map([], |row| row.get::<_, String>(0))?;
            names.map(|name| Ok(ManagerName::new(name?))).collect()
        })
    }
}

/// The newest snapshot always stays.
fn delete_beyond(tx: &Connection, manager: &str, keep: u32, bytes: u64) -> Result<usize, Failure> {
    Ok(tx
        .prepare_cached(
            "DELETE FROM snapshots WHERE manager = ?1 AND id <= (
                 SELECT id FROM (SELECT id, row_number() OVER newest AS place, sum(bytes) OVER newest AS total
                                 FROM snapshots WHERE manager = ?1 WINDOW newest AS (ORDER BY id DESC))
                 WHERE place > 1 AND (place > ?2 OR total > ?3) ORDER BY id DESC LIMIT 1)",
        )?
        .execute(params![manager, keep, int(bytes)])?)
}
