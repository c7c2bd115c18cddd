//! What survives our restart without being a record: the state between sweeps, the position in the log, a date.

use super::error::StoreError;
use super::sql::{from_json, int, to_json, wall};
use super::{Durability, ManagerStore, Reread};
use medic_core::model::Wall;
use medic_core::model::log_fact::{LogEvidence, LogPosition};
use rusqlite::{OptionalExtension, params};

const BREAKER_RESET: &str = "breaker_reset";

impl ManagerStore {
    /// Keeps the state, which is opaque here. An unchanged one costs no write.
    pub fn save_state(&self, json: &str) -> Result<(), StoreError> {
        if self.load_state()?.as_deref() == Some(json) {
            return Ok(());
        }
        self.store.write("keep the state", Durability::Crash, Reread::No, |tx| {
            tx.prepare_cached(
                "INSERT INTO state (manager, body) VALUES (?1, ?2)
                 ON CONFLICT (manager) DO UPDATE SET body = excluded.body",
            )?
            .execute(params![self.manager.as_str(), json])?;
            Ok(())
        })
    }

    pub fn load_state(&self) -> Result<Option<String>, StoreError> {
        self.store.read("read the state", |c| {
            Ok(c.prepare_cached("SELECT body FROM state WHERE manager = ?1")?
                .query_row([self.manager.as_str()], |row| row.get(0))
                .optional()?)
        })
    }

    /// Keeps how far a log was read *and* what it said up to there, in one transaction: otherwise a crash in between
    /// reads lines twice or loses their facts. Store facts that go elsewhere (the ledger) first.
    pub fn save_log_position(
        &self,
        path: &str,
        position: &LogPosition,
        evidence: &LogEvidence,
    ) -> Result<(), StoreError> {
        self.store.write("keep the log position", Durability::Crash, Reread::No, |tx| {
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

    /// Keeps when an operator closed the circuit breaker: earlier treatments no longer count against it.
    pub fn save_breaker_reset(&self, at: Wall) -> Result<(), StoreError> {
        self.store.write("keep the breaker's reset", Durability::PowerCut, Reread::Yes, |tx| {
            tx.execute(
                "INSERT INTO dates (manager, name, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (manager, name) DO UPDATE SET at = excluded.at",
                params![self.manager.as_str(), BREAKER_RESET, int(at.0)],
            )?;
            Ok(())
        })
    }

    /// When an operator last closed the circuit breaker.
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
