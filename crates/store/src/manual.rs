//! Orders of people, and what became of them.

use super::error::StoreError;
use super::sql::{from_json, int, to_json, uint, wall};
use super::{Durability, ManagerStore};
use medic_core::model::manual::{
    MANUAL_HEAL_LIFETIME, ManualAction, ManualHeal, ManualHealAnswer, ManualHealId, Refusal,
};
use medic_core::model::{ScaleSetId, Wall};
use rusqlite::{OptionalExtension as _, params};

impl ManagerStore {
    /// Places an order; those of yesterday are cleared away on the occasion.
    pub fn place_order(
        &self,
        set: ScaleSetId,
        what: ManualAction,
        author: &str,
        now: Wall,
    ) -> Result<ManualHeal, StoreError> {
        self.store().write("place an order", Durability::PowerCut, |tx| {
            tx.execute(
                "DELETE FROM orders WHERE created < ?1",
                [int(now.minus(medic_core::model::Span::hours(24)).0)],
            )?;
            tx.execute(
                "INSERT INTO orders (manager, set_id, what, author, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![self.manager().as_str(), int(set.0), to_json(&what)?, author, int(now.0)],
            )?;
            let id = ManualHealId(uint(tx.last_insert_rowid()));
            Ok(ManualHeal { id, set, what, author: author.to_owned(), created: now })
        })
    }

    /// Orders that are neither settled nor too old, oldest first.
    pub fn orders(&self, now: Wall) -> Result<Vec<ManualHeal>, StoreError> {
        self.store().read("read the orders", |c| {
            let mut statement = c.prepare_cached(
                "SELECT id, set_id, what, author, created FROM orders
                 WHERE manager = ?1 AND NOT settled AND created > ?2 ORDER BY id",
            )?;
            let mut rows = statement.query(params![self.manager().as_str(), int(now.minus(MANUAL_HEAL_LIFETIME).0)])?;
            let mut orders = Vec::new();
            while let Some(row) = rows.next()? {
                let id = uint(row.get(0)?);
                orders.push(ManualHeal {
                    id: ManualHealId(id),
                    set: ScaleSetId(uint(row.get(1)?)),
                    what: from_json(&row.get::<_, String>(2)?, &format!("order {id}"))?,
                    author: row.get(3)?,
                    created: wall(row.get(4)?),
                });
            }
            Ok(orders)
        })
    }

    /// Takes back an order that is not settled, so that nobody carries it out. Gives the answer of one that is settled
    /// already, which is left as it is.
    pub fn withdraw_order(&self, id: ManualHealId) -> Result<Option<ManualHealAnswer>, StoreError> {
        let withdrawn = ManualHealAnswer::Refused { why: Refusal::Withdrawn };
        let taken_back = self.store().write("withdraw an order", Durability::PowerCut, |tx| {
            let sql = "UPDATE orders SET answer = ?2, settled = 1 WHERE id = ?1 AND NOT settled";
            Ok(tx.execute(sql, params![int(id.0), to_json(&withdrawn)?])?)
        })?;
        if taken_back > 0 { Ok(None) } else { self.order_answer(id) }
    }

    /// Notes what is said to an order. One that is settled does not wait again.
    pub fn answer_order(&self, id: ManualHealId, answer: &ManualHealAnswer) -> Result<(), StoreError> {
        let settled = match answer {
            ManualHealAnswer::Treating { .. } | ManualHealAnswer::Refused { .. } => true,
            ManualHealAnswer::Waiting { .. } => false,
        };
        self.store().write("answer an order", Durability::PowerCut, |tx| {
            tx.execute(
                "UPDATE orders SET answer = ?2, settled = ?3 WHERE id = ?1 AND (?3 OR NOT settled)",
                params![int(id.0), to_json(answer)?, settled],
            )?;
            Ok(())
        })
    }

    /// What was said to an order so far.
    pub fn order_answer(&self, id: ManualHealId) -> Result<Option<ManualHealAnswer>, StoreError> {
        self.store().read("read an order", |c| {
            let answer: Option<Option<String>> =
                c.query_row("SELECT answer FROM orders WHERE id = ?1", [int(id.0)], |row| row.get(0)).optional()?;
            answer.flatten().map(|json| from_json(&json, &format!("order {}", id.0))).transpose()
        })
    }
}
