//! The history: an audit log, append-only and bounded. No decision depends on it.

use super::error::StoreError;
use super::sql::{Failure, from_json, int, to_json, uint, wall};
use super::{Durability, HISTORY_KEEP, ManagerStore, Reread};
use medic_core::model::{ScaleSetId, Wall};
use rusqlite::{Connection, params};

/// The count is bounded after this many events, even without pruning.
const BOUND_EVERY: i64 = 1024;
/// The longest detail that is not cut, in bytes.
const DETAIL: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: u64,
    pub at: Wall,
    pub kind: String,
    pub set: Option<ScaleSetId>,
    pub detail: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryFilter {
    pub set: Option<ScaleSetId>,
    pub since: Wall,
    /// How many of the newest.
    pub limit: u32,
}

impl ManagerStore {
    pub fn append(
        &self,
        at: Wall,
        kind: &str,
        set: Option<ScaleSetId>,
        detail: &serde_json::Value,
    ) -> Result<(), StoreError> {
        self.store.write("append to the history", Durability::Crash, Reread::No, |tx| {
            let manager = self.manager.as_str();
            let detail = bounded(to_json(detail)?)?;
            tx.prepare_cached("INSERT INTO events (manager, at, kind, set_id, detail) VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![manager, int(at.0), kind, set.map(|s| int(s.0)), detail])?;
            if tx.last_insert_rowid() % BOUND_EVERY == 0 {
                delete_beyond(tx, manager, HISTORY_KEEP)?;
            }
            Ok(())
        })
    }

    /// The newest events that match, oldest first.
    pub fn history(&self, filter: HistoryFilter) -> Result<Vec<Event>, StoreError> {
        let set = filter.set.map(|s| int(s.0));
        self.store.read("read the history", |c| {
            let condition = if set.is_some() { "set_id = ?2" } else { "?2 IS NULL" };
            let mut statement = c.prepare_cached(&format!(
                "SELECT id, at, kind, set_id, detail FROM events
                 WHERE manager = ?1 AND {condition} AND at >= ?3 ORDER BY id DESC LIMIT ?4"
            ))?;
            let mut rows = statement.query(params![self.manager.as_str(), set, int(filter.since.0), filter.limit])?;
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                let id = uint(row.get(0)?);
                events.push(Event {
                    id,
                    at: wall(row.get(1)?),
                    kind: row.get(2)?,
                    set: row.get::<_, Option<i64>>(3)?.map(|set| ScaleSetId(uint(set))),
                    detail: from_json(&row.get::<_, String>(4)?, &format!("event {id}"))?,
                });
            }
            events.reverse();
            Ok(events)
        })
    }

    pub(super) fn prune_history(&self, before: Wall, keep: u32, bytes: u64) -> Result<usize, StoreError> {
        self.store.write("prune the history", Durability::Crash, Reread::Yes, |tx| {
            let manager = self.manager.as_str();
            let old =
                tx.execute("DELETE FROM events WHERE manager = ?1 AND at < ?2", params![manager, int(before.0)])?;
            let many = delete_beyond(tx, manager, keep)?;
            let large = tx.execute(
                "DELETE FROM events WHERE manager = ?1 AND id <= (
                     SELECT id FROM (SELECT id, sum(octet_length(detail)) OVER (ORDER BY id DESC) AS total
                                     FROM events WHERE manager = ?1)
                     WHERE total > ?2 ORDER BY id DESC LIMIT 1)",
                params![manager, int(bytes)],
            )?;
            Ok(old.saturating_add(many).saturating_add(large))
        })
    }
}

/// A long detail is cut, and the event says so.
fn bounded(detail: String) -> Result<String, Failure> {
    if detail.len() <= DETAIL {
        return Ok(detail);
    }
    let begins: String = detail.chars().take(DETAIL / 8).collect();
    to_json(&serde_json::json!({ "cut": format!("{} bytes were too many", detail.len()), "begins": begins }))
}

fn delete_beyond(tx: &Connection, manager: &str, keep: u32) -> Result<usize, Failure> {
    Ok(tx.execute(
        "DELETE FROM events WHERE manager = ?1 AND id <= (
             SELECT id FROM events WHERE manager = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        params![manager, keep],
    )?)
}
