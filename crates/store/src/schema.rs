//! The tables, and how an older file is brought up to date.
//!
//! `application_id` says that a file is ours, `user_version` which schema it has. Migrations only go forward, each
//! in its own transaction; a file from a newer release is refused untouched, and so is an older one that is only read.

use super::error::StoreErrorKind;
use super::sql::Failure;
use rusqlite::{Connection, TransactionBehavior};

/// "ssmd", as `SQLite`'s `application_id`.
const APPLICATION_ID: i64 = 0x7373_6d64;

/// Entry N brings a file from version N to N + 1. Never edit a released one.
const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4];

/// The names that the code has now. On purpose:
/// - `treatments.body` and `sessions.place` are renamed so that a process of an earlier release that still runs cannot
///   add rows with the old names. Its journal fails then, and it only undoes what it has begun.
/// - The state between sweeps is dropped: a reconcile without it confirms every finding again before it acts.
/// - The names in events are changed as text, because events are only shown.
/// - What was a sentence in treatments and requests is the fact `text` now.
const VERSION_4: &str = r#"
UPDATE treatments SET outcome = 'aborted' WHERE outcome = 'yielded';
UPDATE treatments SET body = json_replace(body, '$.step.outcome', 'aborted')
    WHERE CASE WHEN json_valid(body) THEN body ->> '$.step.outcome' = 'yielded' END;
UPDATE treatments SET body = json_replace(body, '$.step.step', 'check_opening')
    WHERE CASE WHEN json_valid(body) THEN body ->> '$.step.step' = 'probe_opening' END;
UPDATE treatments SET body = json_replace(body, '$.step.step', 'check_opened')
    WHERE CASE WHEN json_valid(body) THEN body ->> '$.step.step' = 'probe_opened' END;
UPDATE treatments SET body = json_replace(body, '$.remedy.kind', 'session_check')
    WHERE CASE WHEN json_valid(body) THEN body ->> '$.remedy.kind' = 'session_probe' END;
UPDATE treatments SET body = json_remove(
        json_set(body, '$.place.github_id', json(body -> '$.place.forge_id')), '$.place.forge_id')
    WHERE CASE WHEN json_valid(body) THEN json_type(body, '$.place.forge_id') IS NOT NULL END;
UPDATE treatments SET body = json_set(body, '$.step.why', json_object('note', 'text', 'text', body ->> '$.step.why'))
    WHERE CASE WHEN json_valid(body) THEN json_type(body, '$.step.why') = 'text' END;
UPDATE treatments SET body = json_set(body, '$.refusal', json_object('note', 'text', 'text', body ->> '$.refusal'))
    WHERE CASE WHEN json_valid(body) THEN json_type(body, '$.refusal') = 'text' END;
UPDATE treatments SET body = json_remove(
        json_set(body, '$.worker_restarted', json(body -> '$.revived'), '$.manual_heal', json(body -> '$.ordered')),
        '$.revived', '$.ordered')
    WHERE CASE WHEN json_valid(body) THEN json_type(body, '$.revived') IS NOT NULL
        OR json_type(body, '$.ordered') IS NOT NULL END;
ALTER TABLE treatments RENAME COLUMN body TO treatment;

UPDATE sessions SET place = json_remove(json_set(place, '$.github_id', json(place -> '$.forge_id')), '$.forge_id')
    WHERE CASE WHEN json_valid(place) THEN json_type(place, '$.forge_id') IS NOT NULL END;
ALTER TABLE sessions RENAME COLUMN place TO github_place;

UPDATE log_positions SET evidence = replace(evidence, '"by_forge":', '"by_github":');

DROP TABLE memory;
CREATE TABLE state (manager TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

ALTER TABLE orders RENAME TO manual_heals;
ALTER TABLE manual_heals RENAME COLUMN what TO action;
ALTER TABLE manual_heals RENAME COLUMN settled TO finished;
UPDATE manual_heals SET action = replace(action, '"order":', '"action":');
-- Answers were sentences, and are facts now. Nobody waits for one: a manual heal lasts two minutes.
UPDATE manual_heals SET answer = NULL;

DROP TABLE scenes;
CREATE TABLE snapshots (
    id      INTEGER PRIMARY KEY,
    manager TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    body    TEXT    NOT NULL
) STRICT;
-- Covers what the bounds read, so that no body is read for them.
CREATE INDEX snapshots_manager ON snapshots (manager, id, at, bytes);

UPDATE events SET detail = json_set(detail, '$.note', json_object('note', 'text', 'text', detail ->> '$.note'))
    WHERE kind = 'act' AND CASE WHEN json_valid(detail) THEN json_type(detail, '$.note') = 'text' END;
UPDATE events SET kind = 'request' WHERE kind = 'act';
UPDATE events SET detail = json_set(detail, '$.step.why', json_object('note', 'text', 'text', detail ->> '$.step.why'))
    WHERE kind = 'treatment' AND CASE WHEN json_valid(detail) THEN json_type(detail, '$.step.why') = 'text' END;
UPDATE events SET detail = json_set(detail, '$.refusal', json_object('note', 'text', 'text', detail ->> '$.refusal'))
    WHERE kind = 'treatment' AND CASE WHEN json_valid(detail) THEN json_type(detail, '$.refusal') = 'text' END;
UPDATE events SET detail =
    replace(replace(replace(replace(replace(replace(replace(replace(replace(
    replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(detail,
        '"decision":"act"', '"decision":"treat"'),
        '"decision":"withhold"', '"decision":"blocked"'),
        '"outcome":"yielded"', '"outcome":"aborted"'),
        '"session_probe"', '"session_check"'),
        '"probe_opening"', '"check_opening"'),
        '"probe_opened"', '"check_opened"'),
        '"probe_refused"', '"check_refused"'),
        '"forge_id":', '"github_id":'),
        '"forge_lists_set"', '"github_lists_set"'),
        '"forge_lacks_set"', '"github_lacks_set"'),
        '"forge_other_id"', '"github_other_id"'),
        '"broker_unseen"', '"github_unseen"'),
        '"source":"broker"', '"source":"actions_service"'),
        '"global_budget"', '"manager_budget"'),
        '"cause_present"', '"cause_not_resolved"'),
        '"entity_turn"', '"entity_limit"'),
        '"fact":"retries_by_itself"', '"fact":"build_retries"'),
        '"revived":', '"worker_restarted":'),
        '"ordered":', '"manual_heal":');
"#;

/// Snapshots for `replay`, in the form of then.
const VERSION_3: &str = "
CREATE TABLE scenes (
    id      INTEGER PRIMARY KEY,
    manager TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    body    BLOB    NOT NULL
) STRICT;
-- Covers what the bounds read, so that no body is read for them.
CREATE INDEX scenes_manager ON scenes (manager, id, at, bytes);
";

/// Manual heals. A disable that an earlier release was about to send may have been sent: it kept no date of that.
const VERSION_2: &str = "
UPDATE treatments SET body = json_set(body, '$.step.sent', json_extract(body, '$.step_at'))
    WHERE closed IS NULL AND CASE WHEN json_valid(body) THEN json_extract(body, '$.step.step') = 'disabling' END;
CREATE TABLE orders (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    manager TEXT    NOT NULL,
    set_id  INTEGER NOT NULL,
    what    TEXT    NOT NULL,
    author  TEXT    NOT NULL,
    created INTEGER NOT NULL,
    answer  TEXT,
    settled INTEGER NOT NULL DEFAULT 0
) STRICT;
";

const VERSION_1: &str = "
CREATE TABLE treatments (
    id        INTEGER PRIMARY KEY AUTOINCREMENT, -- numbers are never used again
    manager   TEXT    NOT NULL,
    set_id    INTEGER NOT NULL,
    opened    INTEGER NOT NULL,
    closed    INTEGER,
    outcome   TEXT,
    is_intent INTEGER NOT NULL,
    body      TEXT    NOT NULL
) STRICT;
CREATE INDEX treatments_opened ON treatments (manager, opened);
CREATE INDEX treatments_closed ON treatments (manager, closed);
-- Never more than one treatment per set (I5), whatever the callers do.
CREATE UNIQUE INDEX treatments_one_open ON treatments (manager, set_id) WHERE closed IS NULL;

CREATE TABLE sessions (
    manager     TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    set_id      INTEGER NOT NULL,
    owner       TEXT    NOT NULL,
    opened_by   TEXT    NOT NULL,
    incarnation INTEGER,
    place       TEXT    NOT NULL,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    ended_at    INTEGER,
    ended_how   TEXT,
    PRIMARY KEY (manager, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_set ON sessions (manager, set_id, first_seen);
CREATE INDEX sessions_live ON sessions (manager) WHERE ended_at IS NULL;

CREATE TABLE stale_lifetimes (
    id      INTEGER PRIMARY KEY,
    manager TEXT    NOT NULL,
    set_id  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    span    INTEGER NOT NULL
) STRICT;
CREATE INDEX stale_lifetimes_manager ON stale_lifetimes (manager, id);

CREATE TABLE memory (manager TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE log_positions (
    manager  TEXT NOT NULL,
    path     TEXT NOT NULL,
    position TEXT NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (manager, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE dates (
    manager TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (manager, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE lease (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL,
    ttl    INTEGER NOT NULL
) STRICT;

CREATE TABLE pauses (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    scope   TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    author  TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT;

CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    manager TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    set_id  INTEGER,
    detail  TEXT    NOT NULL
) STRICT;
CREATE INDEX events_manager ON events (manager, id);
CREATE INDEX events_set ON events (manager, set_id, id);
CREATE INDEX events_at ON events (manager, at);
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A process that brings an older file up to date.
    Migrate,
    Read,
}

/// Refuses a file that another program or a newer release wrote, and an older one that is only read.
pub(super) fn inspect(connection: &Connection, access: Access) -> Result<(), Failure> {
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version = version(connection)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(Failure::new(
            StoreErrorKind::Foreign,
            format!("a database of another program (application id {application})"),
        ));
    }
    let known = MIGRATIONS.len();
    if version > known {
        return Err(Failure::new(
            StoreErrorKind::NewerSchema,
            format!("its schema is version {version}; this release knows versions up to {known}"),
        ));
    }
    if access == Access::Read && version < known {
        return Err(Failure::new(
            StoreErrorKind::OlderSchema,
            format!("its schema is version {version}; this release reads version {known}"),
        ));
    }
    Ok(())
}

/// Applies what is missing. Two processes may try at once: the version is read again under the write lock.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    migrate_to(connection, MIGRATIONS.len())
}

pub(super) fn migrate_to(connection: &mut Connection, wanted: usize) -> Result<(), Failure> {
    while version(connection)? < wanted {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let from = version(&transaction)?;
        if let Some(step) = MIGRATIONS.get(from) {
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", super::sql::int(from as u64 + 1))?;
        }
        transaction.commit()?;
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<usize, Failure> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    usize::try_from(version).map_err(|_| Failure::new(StoreErrorKind::Corrupt, format!("schema version {version}")))
}
