//! Scenes: what the core was given, and what it decided, each time that it decided anew. Opaque here, one JSON document
//! each, kept packed; bounded by age, count and size at every append, because one may be as large as a fleet.

use super::error::{StoreError, StoreErrorKind};
use super::sql::{Failure, int, uint};
use super::{Durability, ManagerStore, SCENES_BYTES, SCENES_KEEP, Store};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use medic_core::model::{ManagerName, Wall};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::io::{Read as _, Write as _};

/// The longest scene, unpacked, in bytes. What is longer is refused when written, and not unpacked when read.
pub const SCENE_LONGEST: usize = 8 * 1024 * 1024;

impl ManagerStore {
    pub fn append_scene(&self, at: Wall, json: &str) -> Result<(), StoreError> {
        self.store.write("keep a scene", Durability::Crash, |tx| {
            if json.len() > SCENE_LONGEST {
                return Err(Failure::new(StoreErrorKind::Refused, format!("{} bytes are too many", json.len())));
            }
            let (manager, body) = (self.manager.as_str(), packed(json)?);
            tx.prepare_cached("INSERT INTO scenes (manager, at, bytes, body) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![manager, int(at.0), int(body.len() as u64), body])?;
            delete_beyond(tx, manager, SCENES_KEEP, SCENES_BYTES)?;
            Ok(())
        })
    }

    /// The numbers of the scenes since then, oldest first; those of an older file have none.
    pub fn scenes(&self, since: Wall) -> Result<Vec<u64>, StoreError> {
        self.store.read("read the scenes", |c| {
            if !has_scenes(c)? {
                return Ok(Vec::new());
            }
            let mut statement =
                c.prepare_cached("SELECT id FROM scenes WHERE manager = ?1 AND at >= ?2 ORDER BY id")?;
            let ids = statement.query_map(params![self.manager.as_str(), int(since.0)], |row| row.get(0))?;
            ids.map(|id| Ok(uint(id?))).collect()
        })
    }

    /// One of them; `None` when it was forgotten meanwhile.
    pub fn scene(&self, id: u64) -> Result<Option<String>, StoreError> {
        self.store.read("read a scene", |c| {
            let body: Option<Vec<u8>> = c
                .prepare_cached("SELECT body FROM scenes WHERE manager = ?1 AND id = ?2")?
                .query_row(params![self.manager.as_str(), int(id)], |row| row.get(0))
                .optional()?;
            body.map(|body| unpacked(&body, id)).transpose()
        })
    }

    /// The newest of them.
    pub fn newest_scene(&self) -> Result<Option<String>, StoreError> {
        let newest: Option<i64> = self.store.read("read the scenes", |c| {
            Ok(c.prepare_cached("SELECT max(id) FROM scenes WHERE manager = ?1")?
                .query_row([self.manager.as_str()], |row| row.get(0))?)
        })?;
        newest.map_or(Ok(None), |id| self.scene(uint(id)))
    }

    pub(super) fn prune_scenes(&self, before: Wall, keep: u32, bytes: u64) -> Result<usize, StoreError> {
        self.store.write("prune the scenes", Durability::Crash, |tx| {
            let manager = self.manager.as_str();
            let old =
                tx.execute("DELETE FROM scenes WHERE manager = ?1 AND at < ?2", params![manager, int(before.0)])?;
            Ok(old.saturating_add(delete_beyond(tx, manager, keep, bytes)?))
        })
    }
}

impl Store {
    /// The managers that have scenes, by name.
    pub fn managers_with_scenes(&self) -> Result<Vec<ManagerName>, StoreError> {
        self.read("read the scenes", |c| {
            if !has_scenes(c)? {
                return Ok(Vec::new());
            }
            let mut statement = c.prepare_cached("SELECT DISTINCT manager FROM scenes ORDER BY manager")?;
            let names = statement.query_map([], |row| row.get::<_, String>(0))?;
            names.map(|name| Ok(ManagerName::new(name?))).collect()
        })
    }
}

/// A file that is only read is not migrated.
fn has_scenes(c: &Connection) -> Result<bool, Failure> {
    Ok(c.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'scenes'", [], |row| row.get::<_, i64>(0))? > 0)
}

/// The newest scene is kept in any case.
fn delete_beyond(tx: &Connection, manager: &str, keep: u32, bytes: u64) -> Result<usize, Failure> {
    Ok(tx
        .prepare_cached(
            "DELETE FROM scenes WHERE manager = ?1 AND id <= (
                 SELECT id FROM (SELECT id, row_number() OVER newest AS place, sum(bytes) OVER newest AS total
                                 FROM scenes WHERE manager = ?1 WINDOW newest AS (ORDER BY id DESC))
                 WHERE place > 1 AND (place > ?2 OR total > ?3) ORDER BY id DESC LIMIT 1)",
        )?
        .execute(params![manager, keep, int(bytes)])?)
}

fn packed(json: &str) -> Result<Vec<u8>, Failure> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    let done = packer.write_all(json.as_bytes()).and_then(|()| packer.finish());
    done.map_err(|error| Failure::new(StoreErrorKind::Other, format!("cannot be packed: {error}")))
}

fn unpacked(body: &[u8], id: u64) -> Result<String, Failure> {
    let corrupt = |why: String| Failure::new(StoreErrorKind::Corrupt, format!("scene {id} {why}"));
    let mut json = String::new();
    let limit = SCENE_LONGEST as u64;
    let read = GzDecoder::new(body).take(limit.saturating_add(1)).read_to_string(&mut json);
    read.map_err(|error| corrupt(format!("cannot be unpacked: {error}")))?;
    if json.len() > SCENE_LONGEST { Err(corrupt("is longer than any that we write".to_owned())) } else { Ok(json) }
}
