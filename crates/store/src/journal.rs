//! The journal: every treatment, step by step, durable before its effect is on the wire (I6).

use super::error::{StoreError, StoreErrorKind};
use super::sql::{Failure, from_json, int, to_json, uint};
use super::{Durability, ManagerStore, Reread, Store, lease};
use medic_core::model::{ManagerName, Treatment, TreatmentId, Wall};
use medic_core::ports::write::{Journal, JournalError};
use rusqlite::{Connection, ErrorCode, params};

/// The newest treatments, however old: they decide whether the breaker is open.
const NEWEST: &str = "id > COALESCE((SELECT id FROM treatments WHERE manager = ?1
     ORDER BY id DESC LIMIT 1 OFFSET 50), 0)";

impl Journal for ManagerStore {
    /// Also fails when the set has a treatment that is not closed: there is never more than one (I5).
    fn open(&self, treatment: Treatment) -> Result<Treatment, JournalError> {
        Ok(self.store.write("open a treatment", Durability::PowerCut, Reread::Yes, |tx| {
            self.pass_fence(tx)?;
            insert(tx, self.manager.as_str(), treatment)
        })?)
    }

    fn record(&self, treatment: &Treatment) -> Result<(), JournalError> {
        Ok(self.store.write("record a treatment", Durability::PowerCut, Reread::Yes, |tx| {
            self.pass_fence(tx)?;
            let body = to_json(treatment)?;
            let changed = tx
                .prepare_cached(
                    "UPDATE treatments SET closed = ?3, outcome = ?4, is_intent = ?5, treatment = ?6
                     WHERE id = ?1 AND manager = ?2",
                )?
                .execute(params![
                    int(treatment.id.0),
                    self.manager.as_str(),
                    closed_at(treatment),
                    treatment.outcome().map(medic_core::model::Outcome::as_str),
                    treatment.step.is_intent(),
                    body
                ])
                .map_err(|e| explain_second_open(e, treatment))?;
            if changed == 1 { Ok(()) } else { Err(no_such(treatment)) }
        })?)
    }

    fn unfinished(&self) -> Result<Vec<Treatment>, JournalError> {
        Ok(self.store.read("read open treatments", |c| {
            select(c, "closed IS NULL AND opened >= ?2", self.manager.as_str(), Wall(0))
        })?)
    }

    fn since(&self, since: Wall) -> Result<Vec<Treatment>, JournalError> {
        Ok(self.store.read("read treatments", |c| {
            let mut rows = select(c, &format!("opened < ?2 AND {NEWEST}"), self.manager.as_str(), since)?;
            rows.extend(select(c, "opened >= ?2", self.manager.as_str(), since)?);
            rows.sort_by_key(|row| (row.opened, row.id));
            Ok(rows)
        })?)
    }
}

impl Store {
    /// Intents of managers that are not configured (any more): nobody finishes them.
    pub fn intents_of_others(&self, configured: &[ManagerName]) -> Result<Vec<(ManagerName, Treatment)>, StoreError> {
        self.read("read open treatments of other managers", |c| {
            let mut statement =
                c.prepare("SELECT DISTINCT manager FROM treatments WHERE closed IS NULL AND is_intent")?;
            let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            let mut found = Vec::new();
            for name in names.into_iter().map(ManagerName::new).filter(|name| !configured.contains(name)) {
                let open = select(c, "closed IS NULL AND opened >= ?2", name.as_str(), Wall(0))?;
                let intents = open.into_iter().filter(|row| row.step.is_intent());
                found.extend(intents.map(|row| (name.clone(), row)));
            }
            Ok(found)
        })
    }
}

impl ManagerStore {
    fn pass_fence(&self, connection: &Connection) -> Result<(), Failure> {
        let Some(fence) = &self.fence else { return Ok(()) };
        match lease::holder(connection)? {
            Some(holder) if holder.as_str() == fence.as_ref() => Ok(()),
            Some(other) => Err(Failure::new(StoreErrorKind::LeaseLost, format!("{other} has the lease now"))),
            None => Err(Failure::new(StoreErrorKind::LeaseLost, "nobody has the lease")),
        }
    }

    /// One treatment, for `explain` and `history`.
    pub fn treatment(&self, id: TreatmentId) -> Result<Option<Treatment>, StoreError> {
        self.store.read("read a treatment", |c| {
            let found = select(c, "id = ?2", self.manager.as_str(), Wall(id.0))?;
            Ok(found.into_iter().next())
        })
    }

    /// Removes closed treatments that ended before `before`, and beyond the newest `keep` of session checks and of heals:
    /// session checks must not displace heals, which count against budgets. Open treatments and the newest ones stay.
    pub(super) fn prune_treatments(&self, before: Wall, keep: u32) -> Result<usize, StoreError> {
        self.store.write("prune the journal", Durability::Crash, Reread::Yes, |tx| {
            Ok(tx.execute(
                &format!(
                    "DELETE FROM treatments WHERE manager = ?1 AND closed IS NOT NULL AND NOT ({NEWEST})
                     AND (closed < ?2 OR id IN (
                         SELECT id FROM (
                             SELECT id, ROW_NUMBER() OVER (
                                 PARTITION BY treatment ->> '$.remedy.kind' = 'session_check' ORDER BY id DESC
                             ) AS nth FROM treatments WHERE manager = ?1 AND closed IS NOT NULL)
                         WHERE nth > ?3))"
                ),
                params![self.manager.as_str(), int(before.0), keep],
            )?)
        })
    }
}

fn insert(tx: &Connection, manager: &str, mut treatment: Treatment) -> Result<Treatment, Failure> {
    tx.prepare_cached(
        "INSERT INTO treatments (manager, set_id, opened, closed, outcome, is_intent, treatment)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, '')",
    )?
    .execute(params![
        manager,
        int(treatment.set.0),
        int(treatment.opened.0),
        closed_at(&treatment),
        treatment.outcome().map(medic_core::model::Outcome::as_str),
        treatment.step.is_intent(),
    ])
    .map_err(|e| explain_second_open(e, &treatment))?;
    let id = tx.last_insert_rowid();
    treatment.id = TreatmentId(uint(id));
    tx.prepare_cached("UPDATE treatments SET treatment = ?2 WHERE id = ?1")?
        .execute(params![id, to_json(&treatment)?])?;
    Ok(treatment)
}

fn select(connection: &Connection, condition: &str, manager: &str, value: Wall) -> Result<Vec<Treatment>, Failure> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, treatment FROM treatments WHERE manager = ?1 AND {condition} ORDER BY opened, id"
    ))?;
    let mut rows = statement.query(params![manager, int(value.0)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        found.push(from_json(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?, &format!("treatment {id}"))?);
    }
    Ok(found)
}

fn closed_at(treatment: &Treatment) -> Option<i64> {
    treatment.step.is_closed().then(|| int(treatment.step_at.0))
}

fn explain_second_open(error: rusqlite::Error, treatment: &Treatment) -> Failure {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        let detail = format!("scale set {} has a treatment that is not closed", treatment.set);
        return Failure::new(StoreErrorKind::Refused, detail);
    }
    error.into()
}

fn no_such(treatment: &Treatment) -> Failure {
    Failure::new(StoreErrorKind::NoSuchRow, format!("there is no treatment {} of this GARM", treatment.id))
}
