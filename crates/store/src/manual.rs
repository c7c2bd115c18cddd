//! Manual heals and their answers.

use super::error::StoreError;
use super::sql::{from_json, int, to_json, uint, wall};
use super::{Durability, ManagerStore, Reread};
use medic_core::model::manual::{
    MANUAL_HEAL_LIFETIME, ManualAction, ManualHeal, ManualHealAnswer, ManualHealId, Refusal,
};
use medic_core::model::{ScaleSetId, Wall};
use rusqlite::{OptionalExtension as _, params};

impl ManagerStore {
    /// Adds a manual heal, and deletes those older than a day.
    pub fn add_manual_heal(
        &self,
        set: ScaleSetId,
        what: ManualAction,
        author: &str,
        now: Wall,
    ) -> Result<ManualHeal, StoreError> {
        self.store().write("add a manual heal", Durability::PowerCut, Reread::Yes, |tx| {
            tx.execute(
                "DELETE FROM manual_heals WHERE created < ?1",
                [int(now.minus(medic_core::model::Span::hours(24)).0)],
            )?;
            tx.execute(
                "INSERT INTO manual_heals (manager, set_id, action, author, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![self.manager().as_str(), int(set.0), to_json(&what)?, author, int(now.0)],
            )?;
            let id = ManualHealId(uint(tx.last_insert_rowid()));
            Ok(ManualHeal { id, set, what, author: author.to_owned(), created: now })
        })
    }

    /// Those that are neither finished nor too old, oldest first.
    pub fn manual_heals(&self, now: Wall) -> Result<Vec<ManualHeal>, StoreError> {
        self.store().read("read the manual heals", |c| {
            let mut statement = c.prepare_cached(
                "SELECT id, set_id, action, author, created FROM manual_heals
                 WHERE manager = ?1 AND NOT finished AND created > ?2 ORDER BY id",
            )?;
            let mut rows = statement.query(params![self.manager().as_str(), int(now.minus(MANUAL_HEAL_LIFETIME).0)])?;
            let mut heals = Vec::new();
            while let Some(row) = rows.next()? {
                let id = uint(row.get(0)?);
                heals.push(ManualHeal {
                    id: ManualHealId(id),
                    set: ScaleSetId(uint(row.get(1)?)),
                    what: from_json(&row.get::<_, String>(2)?, &format!("manual heal {id}"))?,
                    author: row.get(3)?,
                    created: wall(row.get(4)?),
                });
            }
            Ok(heals)
        })
    }

    /// Cancels a manual heal. Returns the answer of one that is finished already, which stays as it is.
    pub fn withdraw_manual_heal(&self, id: ManualHealId) -> Result<Option<ManualHealAnswer>, StoreError> {
        let withdrawn = ManualHealAnswer::Refused { why: Refusal::Withdrawn };
        let taken_back = self.store().write("withdraw a manual heal", Durability::PowerCut, Reread::Yes, |tx| {
            let sql = "UPDATE manual_heals SET answer = ?2, finished = 1 WHERE id = ?1 AND NOT finished";
            Ok(tx.execute(sql, params![int(id.0), to_json(&withdrawn)?])?)
        })?;
        if taken_back > 0 { Ok(None) } else { self.manual_heal_answer(id) }
    }

    /// Keeps an answer. A finished manual heal does not go back to waiting.
    pub fn answer_manual_heal(&self, id: ManualHealId, answer: &ManualHealAnswer) -> Result<(), StoreError> {
        let finished = match answer {
            ManualHealAnswer::Treating { .. } | ManualHealAnswer::Refused { .. } => true,
            ManualHealAnswer::Waiting { .. } => false,
        };
        self.store().write("answer a manual heal", Durability::PowerCut, Reread::Yes, |tx| {
            tx.execute(
                "UPDATE manual_heals SET answer = ?2, finished = ?3 WHERE id = ?1 AND (?3 OR NOT finished)",
                params![int(id.0), to_json(answer)?, finished],
            )?;
            Ok(())
        })
    }

    pub fn manual_heal_answer(&self, id: ManualHealId) -> Result<Option<ManualHealAnswer>, StoreError> {
        self.store().read("read a manual heal", |c| {
            let answer: Option<Option<String>> = c
                .query_row("SELECT answer FROM manual_heals WHERE id = ?1", [int(id.0)], |row| row.get(0))
                .optional()?;
            answer.flatten().map(|json| from_json(&json, &format!("manual heal {}", id.0))).transpose()
        })
    }
}
