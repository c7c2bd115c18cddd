//! One lease per store: of two medics with one state directory, only one heals (`docs/reference/design.md` §7).
//!
//! The rule: a lease is valid until its date. A dead holder blocks others for at most its ttl, and not at all if its death
//! is proven ([`super::lock_file`]). A lease that ends later than its ttl allows was written before the clock was set back:
//! it is void.

use super::error::StoreError;
use super::lock_file::LockFile;
use super::sql::{Failure, int, uint, wall};
use super::{Durability, Reread, Store};
use medic_core::model::{Span, Wall};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::PoisonError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    Held,
    HeldByOther { holder: String, until: Wall },
}

struct Row {
    holder: String,
    until: Wall,
    ttl: Span,
}

impl Store {
    /// Takes the lease if it is free, expired, void, the caller's own, or its holder is dead. `holder` names one run of
    /// one process.
    pub fn acquire(&self, holder: &str, now: Wall, ttl: Span) -> Result<LeaseState, StoreError> {
        let mut lock_file = self.inner.lock_file.lock().unwrap_or_else(PoisonError::into_inner);
        if lock_file.is_none() {
            *lock_file = self.inner.state_dir.as_deref().and_then(|dir| LockFile::take(dir, holder));
        }
        let proven_dead = |other: &str| lock_file.as_ref().is_some_and(|lock| lock.proves_dead(other));
        self.write("take the lease", Durability::PowerCut, Reread::No, |tx| {
            if let Some(row) = read(tx)?
                && row.holder != holder
                && is_good(&row, now, ttl)
                && !proven_dead(&row.holder)
            {
                return Ok(LeaseState::HeldByOther { holder: row.holder, until: row.until });
            }
            tx.prepare_cached(
                "INSERT INTO lease (only, holder, until, ttl) VALUES (1, ?1, ?2, ?3)
                 ON CONFLICT (only) DO UPDATE SET holder = excluded.holder, until = excluded.until, ttl = excluded.ttl",
            )?
            .execute(params![holder, int(now.plus(ttl).0), int(ttl.0)])?;
            Ok(LeaseState::Held)
        })
    }

    /// Prolongs the caller's lease; returns whether the caller still had it. One that another holder took
    /// meanwhile is lost, even if it was released since: the other may have acted. Then call [`Self::acquire`] again.
    pub fn renew(&self, holder: &str, now: Wall, ttl: Span) -> Result<bool, StoreError> {
        self.write("renew the lease", Durability::PowerCut, Reread::No, |tx| {
            let prolonged = tx
                .prepare_cached("UPDATE lease SET until = ?2, ttl = ?3 WHERE holder = ?1")?
                .execute(params![holder, int(now.plus(ttl).0), int(ttl.0)])?;
            Ok(prolonged > 0)
        })
    }

    pub fn release(&self, holder: &str) -> Result<(), StoreError> {
        self.write("release the lease", Durability::PowerCut, Reread::Yes, |tx| {
            tx.execute("DELETE FROM lease WHERE holder = ?1", [holder])?;
            Ok(())
        })?;
        *self.inner.lock_file.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Who has the lease now, if anybody, for `status`.
    pub fn lease_holder(&self, now: Wall) -> Result<Option<(String, Wall)>, StoreError> {
        self.read("read the lease", |c| {
            Ok(read(c)?.filter(|row| is_good(row, now, row.ttl)).map(|row| (row.holder, row.until)))
        })
    }
}

/// The holder of the lease, even of an expired one.
pub(super) fn holder(connection: &Connection) -> Result<Option<String>, Failure> {
    Ok(read(connection)?.map(|row| row.holder))
}

fn is_good(row: &Row, now: Wall, ttl: Span) -> bool {
    row.until > now && row.until.since(now) <= row.ttl.max(ttl)
}

fn read(connection: &Connection) -> Result<Option<Row>, Failure> {
    Ok(connection
        .prepare_cached("SELECT holder, until, ttl FROM lease WHERE only = 1")?
        .query_row([], |row| Ok(Row { holder: row.get(0)?, until: wall(row.get(1)?), ttl: Span(uint(row.get(2)?)) }))
        .optional()?)
}
