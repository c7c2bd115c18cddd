//! What a manager's loop carries over a restart of ours: the diagnosis memory, the place in the log, a few dates.

use super::error::StoreError;
use super::sql::{from_json, int, to_json, wall};
use super::{Durability, ManagerStore};
use medic_core::model::Wall;
use medic_core::model::log_fact::{LogEvidence, LogPosition};
use rusqlite::{OptionalExtension, params};

const BREAKER_RESET: &str = "breaker_reset";

impl ManagerStore {
    /// Keeps the memory, which is opaque here, if another one is kept. An unchanged one costs no write.
    pub fn save_memory(&self, json: &str) -> Result<(), StoreError> {
        if self.load_memory()?.as_deref() == Some(json) { Ok(()) } else { self.save_changed_memory(json) }
    }

    /// Keeps the memory of a caller who knows that it is not the one kept last: that one need not be read.
    pub fn save_changed_memory(&self, json: &str) -> Result<(), StoreError> {
        self.store.write("keep the memory", Durability::Crash, |tx| {
            tx.prepare_cached(
                "INSERT INTO memory (manager, body) VALUES (?1, ?2)
                 ON CONFLICT (manager) DO UPDATE SET body = excluded.body",
            )?
            .execute(params![self.manager.as_str(), json])?;
            Ok(())
        })
    }

    /// The memory kept last.
    pub fn load_memory(&self) -> Result<Option<String>, StoreError> {
        self.store.read("read the memory", |c| {
            Ok(c.prepare_cached("SELECT body FROM memory WHERE manager = ?1")?
                .query_row([self.manager.as_str()], |row| row.get(0))
                .optional()?)
        })
    }

    /// Keeps how far a log was read *and* what it said up to there, in one step: kept apart, a death in between
    /// would read lines twice or lose their facts. Facts that went elsewhere (the ledger) must be stored before.
    pub fn save_log_position(
        &self,
        path: &str,
        position: &LogPosition,
        evidence: &LogEvidence,
    ) -> Result<(), StoreError> {
        self.store.write("keep the log position", Durability::Crash, |tx| {
            tx.prepare_cached(
                "INSERT INTO log_positions (manager, path, position, evidence) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (manager, path) DO UPDATE SET position = excluded.position, evidence = excluded.evidence",
            )?
            .execute(params![self.manager.as_str(), path, to_json(position)?, to_json(evidence)?])?;
            Ok(())
        })
    }

    /// How far a log was read, and what it had said.
    pub fn load_log_position(&self, path: &str) -> Result<Option<(LogPosition, LogEvidence)>, StoreError> {
        self.store.read("read the log position", |c| {
            let found: Option<(String, String)> = c
                .prepare_cached("SELECT position, evidence FROM log_positions WHERE manager = ?1 AND path = ?2")?
                .query_row([self.manager.as_str(), path], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((position, evidence)) = found else { return Ok(None) };
            Ok(Some((from_json(&position, "the log position")?, from_json(&evidence, "the log position")?)))
        })
    }

    /// Keeps when a person closed the circuit breaker: earlier treatments no longer count against it.
    pub fn save_breaker_reset(&self, at: Wall) -> Result<(), StoreError> {
        self.store.write("keep the breaker's reset", Durability::PowerCut, |tx| {
            tx.execute(
                "INSERT INTO dates (manager, name, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (manager, name) DO UPDATE SET at = excluded.at",
                params![self.manager.as_str(), BREAKER_RESET, int(at.0)],
            )?;
            Ok(())
        })
    }

    /// When a person last closed the circuit breaker.
    pub fn breaker_reset(&self) -> Result<Option<Wall>, StoreError> {
        self.store.read("read the breaker's reset", |c| {
            let at: Option<i64> = c
                .prepare_cached("SELECT at FROM dates WHERE manager = ?1 AND name = ?2")?
                .query_row([self.manager.as_str(), BREAKER_RESET], |row| row.get(0))
                .optional()?;
            Ok(at.map(wall))
        })
    }
}
