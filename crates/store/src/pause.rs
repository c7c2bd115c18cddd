//! Pauses set by people: they outlive us, and end by date or by command.

use super::error::StoreError;
use super::sql::{from_json, int, to_json, uint, wall};
use super::{Durability, Reread, Store};
use medic_core::model::Wall;
use medic_core::model::pause::{Pause, PauseId, PauseScope};
use rusqlite::params;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPause {
    pub scope: PauseScope,
    pub reason: String,
    pub author: String,
    pub created: Wall,
    pub expires: Option<Wall>,
}

impl Store {
    /// The pauses in force, oldest first.
    pub fn pauses(&self, now: Wall) -> Result<Vec<Pause>, StoreError> {
        self.read("read the pauses", |c| {
            let mut statement = c.prepare_cached(
                "SELECT id, scope, reason, author, created, expires FROM pauses
                 WHERE expires IS NULL OR expires > ?1 ORDER BY id",
            )?;
            let mut rows = statement.query([int(now.0)])?;
            let mut pauses = Vec::new();
            while let Some(row) = rows.next()? {
                let id = uint(row.get(0)?);
                pauses.push(Pause {
                    id: PauseId(id),
                    scope: from_json(&row.get::<_, String>(1)?, &format!("pause {id}"))?,
                    reason: row.get(2)?,
                    author: row.get(3)?,
                    created: wall(row.get(4)?),
                    expires: row.get::<_, Option<i64>>(5)?.map(wall),
                });
            }
            Ok(pauses)
        })
    }

    /// Sets a pause. Expired ones are deleted.
    pub fn add_pause(&self, pause: NewPause) -> Result<Pause, StoreError> {
        self.write("set a pause", Durability::PowerCut, Reread::Yes, |tx| {
            tx.execute("DELETE FROM pauses WHERE expires <= ?1", [int(pause.created.0)])?;
            tx.execute(
                "INSERT INTO pauses (scope, reason, author, created, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    to_json(&pause.scope)?,
                    pause.reason,
                    pause.author,
                    int(pause.created.0),
                    pause.expires.map(|at| int(at.0))
                ],
            )?;
            let NewPause { scope, reason, author, created, expires } = pause;
            Ok(Pause { id: PauseId(uint(tx.last_insert_rowid())), scope, reason, author, created, expires })
        })
    }

    /// Ends all pauses of exactly this scope. How many there were.
    pub fn remove_pauses_of(&self, scope: &PauseScope) -> Result<usize, StoreError> {
        self.write("end pauses", Durability::PowerCut, Reread::Yes, |tx| {
            Ok(tx.execute("DELETE FROM pauses WHERE scope = ?1", [to_json(scope)?])?)
        })
    }
}
