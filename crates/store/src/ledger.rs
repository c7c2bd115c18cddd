//! The ledger: sessions seen, by the incarnation that opened them.
//!
//! The rule: **a row only ever loses rights**. Who opened a session, and in which incarnation, is fixed when it is
//! first seen; an end is final. So no later mistake can make a living session look provably stale (I1). A ledger
//! that cannot be read in full is an error, and the caller deletes nothing.

use super::error::{StoreError, StoreErrorKind};
use super::sql::{Failure, from_json, from_name, int, to_json, uint, wall};
use super::{Durability, ManagerStore, Reread};
use medic_core::model::session::{LedgerChange, LedgerSession, OpenedBy};
use medic_core::model::{Incarnation, Owner, ScaleSetId, SessionId, Span, Wall};
use rusqlite::{Connection, Params, Row, params};
use std::collections::BTreeSet;

/// How many measured lifetimes of a manager are kept.
const LIFETIMES_KEEP: u32 = 1000;

const COLUMNS: &str =
    "id, set_id, owner, opened_by, incarnation, github_place, first_seen, last_seen, ended_at, ended_how";

/// A measured lifetime of a stale session: from the death of its holder to the first session after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleLifetime {
    pub set: ScaleSetId,
    /// How long GitHub kept it.
    pub span: Span,
    /// When it was gone.
    pub at: Wall,
}

impl ManagerStore {
    /// Applies changes in their order, all or none. Of a known session only `last_seen` moves, and only forward; an end
    /// is kept if none is known yet.
    pub fn apply(&self, changes: &[LedgerChange]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        // A later `last_seen` may be lost in a power cut; a new session or an end may not.
        let durable = changes.iter().any(|change| !matches!(change, LedgerChange::Alive { .. }));
        let durability = if durable { Durability::PowerCut } else { Durability::Crash };
        self.store.write("change the ledger", durability, Reread::Yes, |tx| {
            let manager = self.manager.as_str();
            for change in changes {
                match change {
                    LedgerChange::See(session) => upsert(tx, manager, session)?,
                    LedgerChange::Alive { session, at } => {
                        tx.prepare_cached(
                            "UPDATE sessions SET last_seen = max(last_seen, ?3)
                             WHERE manager = ?1 AND id = ?2 AND ended_at IS NULL",
                        )?
                        .execute(params![manager, session.as_str(), int(at.0)])?;
                    }
                    LedgerChange::End { session, at, how } => {
                        tx.prepare_cached(
                            "UPDATE sessions SET ended_at = ?3, ended_how = ?4
                             WHERE manager = ?1 AND id = ?2 AND ended_at IS NULL",
                        )?
                        .execute(params![
                            manager,
                            session.as_str(),
                            int(at.0),
                            how.as_str()
                        ])?;
                    }
                }
            }
            Ok(())
        })
    }

    /// What a proof of staleness needs: sessions without a known end, and the newest of their sets. By set, oldest
    /// first.
    pub fn live_sessions(&self) -> Result<Vec<LedgerSession>, StoreError> {
        self.store.read("read the ledger", |c| {
            let manager = self.manager.as_str();
            let mut found = select(c, LIVE, params![manager])?;
            let sets: BTreeSet<ScaleSetId> = found.iter().map(|session| session.set).collect();
            for set in sets {
                let newest = select(c, NEWEST, params![manager, int(set.0)])?;
                found.extend(newest.into_iter().filter(|session| session.ended.is_some()));
            }
            found.sort_by(|a, b| (a.set, a.first_seen, &a.id).cmp(&(b.set, b.first_seen, &b.id)));
            Ok(found)
        })
    }

    /// All sessions, by set, oldest first.
    pub fn sessions(&self) -> Result<Vec<LedgerSession>, StoreError> {
        self.store.read("read the ledger", |c| select(c, ALL, params![self.manager.as_str()]))
    }

    pub fn session(&self, id: &SessionId) -> Result<Option<LedgerSession>, StoreError> {
        let one = "WHERE manager = ?1 AND id = ?2";
        let params = params![self.manager.as_str(), id.as_str()];
        Ok(self.store.read("read the ledger", |c| select(c, one, params))?.pop())
    }

    /// Removes sessions last seen before `before`, and beyond `keep` the ended and the longest unseen; never one
    /// that we opened and that has not ended (I7). Returns how many.
    pub(super) fn prune_sessions(&self, before: Wall, keep: u32) -> Result<usize, StoreError> {
        self.store.write("prune the ledger", Durability::Crash, Reread::Yes, |tx| {
            let manager = self.manager.as_str();
            let old = tx.execute(
                "DELETE FROM sessions WHERE manager = ?1 AND last_seen < ?2
                     AND NOT (opened_by = 'medic' AND ended_at IS NULL)",
                params![manager, int(before.0)],
            )?;
            let beyond = tx.execute(
                "DELETE FROM sessions WHERE manager = ?1 AND NOT (opened_by = 'medic' AND ended_at IS NULL)
                     AND id IN (SELECT id FROM sessions WHERE manager = ?1
                         ORDER BY ended_at IS NOT NULL, last_seen DESC LIMIT -1 OFFSET ?2)",
                params![manager, keep],
            )?;
            Ok(old.saturating_add(beyond))
        })
    }

    /// Keeps a measured lifetime; the newest 1,000 are kept.
    pub fn record_stale_lifetime(&self, set: ScaleSetId, span: Span, at: Wall) -> Result<(), StoreError> {
        self.store.write("keep a lifetime", Durability::Crash, Reread::Yes, |tx| {
            let manager = self.manager.as_str();
            tx.execute(
                "INSERT INTO stale_lifetimes (manager, set_id, at, span) VALUES (?1, ?2, ?3, ?4)",
                params![manager, int(set.0), int(at.0), int(span.0)],
            )?;
            tx.execute(
                "DELETE FROM stale_lifetimes WHERE manager = ?1 AND id <= (SELECT id FROM stale_lifetimes
                     WHERE manager = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                params![manager, LIFETIMES_KEEP],
            )?;
            Ok(())
        })
    }

    /// Up to `limit` measured lifetimes, newest first: "GitHub has kept such sessions 61–92 s here".
    pub fn stale_lifetimes(&self, limit: u32) -> Result<Vec<StaleLifetime>, StoreError> {
        self.store.read("read lifetimes", |c| {
            let mut statement = c.prepare_cached(
                "SELECT set_id, span, at FROM stale_lifetimes WHERE manager = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![self.manager.as_str(), limit], |row| {
                Ok(StaleLifetime {
                    set: ScaleSetId(uint(row.get(0)?)),
                    span: Span(uint(row.get(1)?)),
                    at: wall(row.get(2)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn upsert(tx: &Connection, manager: &str, session: &LedgerSession) -> Result<(), Failure> {
    let (opened_by, incarnation) = match session.opened_by {
        OpenedBy::Manager(incarnation) => ("manager", Some(int(incarnation.0.0))),
        OpenedBy::UnknownIncarnation => ("unknown", None),
        OpenedBy::Medic => ("medic", None),
    };
    tx.prepare_cached(&format!(
        "INSERT INTO sessions (manager, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (manager, id) DO UPDATE SET
             last_seen = max(last_seen, excluded.last_seen),
             ended_at = coalesce(ended_at, excluded.ended_at),
             ended_how = coalesce(ended_how, excluded.ended_how)"
    ))?
    .execute(params![
        manager,
        session.id.as_str(),
        int(session.set.0),
        session.owner.as_str(),
        opened_by,
        incarnation,
        to_json(&session.place)?,
        int(session.first_seen.0),
        int(session.last_seen.0),
        session.ended.map(|(at, _)| int(at.0)),
        session.ended.map(|(_, how)| how.as_str()),
    ])?;
    Ok(())
}

/// The few without an end, by their own index: in the order of another index, all sessions would be read.
const LIVE: &str = "INDEXED BY sessions_live WHERE manager = ?1 AND ended_at IS NULL";
const NEWEST: &str = "WHERE manager = ?1 AND set_id = ?2 ORDER BY first_seen DESC, id DESC LIMIT 1";
const ALL: &str = "WHERE manager = ?1 ORDER BY set_id, first_seen, id";

fn select(connection: &Connection, condition: &str, params: impl Params) -> Result<Vec<LedgerSession>, Failure> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM sessions {condition}"))?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(session(row)?);
    }
    Ok(found)
}

fn session(row: &Row<'_>) -> Result<LedgerSession, Failure> {
    let id: String = row.get(0)?;
    let opened_by: String = row.get(3)?;
    let incarnation: Option<i64> = row.get(4)?;
    let opened_by = match (opened_by.as_str(), incarnation) {
        ("manager", Some(at)) => OpenedBy::Manager(Incarnation(wall(at))),
        ("unknown", None) => OpenedBy::UnknownIncarnation,
        ("medic", None) => OpenedBy::Medic,
        (other, _) => {
            let detail = format!("session {id} was opened by `{other}`, incarnation {incarnation:?}");
            return Err(Failure::new(StoreErrorKind::Corrupt, detail));
        }
    };
    let ended_at: Option<i64> = row.get(8)?;
    let ended_how: Option<String> = row.get(9)?;
    let ended = match (ended_at, ended_how) {
        (Some(at), Some(how)) => Some((wall(at), from_name(&how)?)),
        (None, None) => None,
        (at, how) => {
            return Err(Failure::new(StoreErrorKind::Corrupt, format!("session {id} ended {at:?} as {how:?}")));
        }
    };
    let place: String = row.get(5)?;
    Ok(LedgerSession {
        set: ScaleSetId(uint(row.get(1)?)),
        place: from_json(&place, &format!("session {id}"))?,
        owner: Owner::new(row.get::<_, String>(2)?),
        opened_by,
        first_seen: wall(row.get(6)?),
        last_seen: wall(row.get(7)?),
        ended,
        id: SessionId::new(id),
    })
}
