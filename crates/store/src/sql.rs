//! Small helpers between our types and `SQLite`'s.

use super::error::{StoreError, StoreErrorKind};
use medic_core::model::Wall;
use rusqlite::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A failure inside a call, before it is known which call it was.
#[derive(Debug)]
pub(super) struct Failure {
    kind: StoreErrorKind,
    detail: String,
}

impl Failure {
    pub(super) fn new(kind: StoreErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub(super) fn at(self, path: &str, what: &'static str) -> StoreError {
        StoreError { path: path.to_owned(), what, kind: self.kind, detail: self.detail }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreErrorKind::DiskFull,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreErrorKind::Corrupt,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                StoreErrorKind::NotWritable
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Busy,
            Some(_) => StoreErrorKind::Other,
            None => match error {
                // A column of another type than the schema says: the file is not what we wrote.
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::IntegralValueOutOfRange(..) => StoreErrorKind::Corrupt,
                _ => StoreErrorKind::Other,
            },
        };
        Self::new(kind, error.to_string())
    }
}

/// An unsigned number as `SQLite` keeps it; beyond 2^63 it saturates.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The number back; a negative one, which we never write, reads as 0.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn wall(value: i64) -> Wall {
    Wall(uint(value))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::new(StoreErrorKind::Other, format!("cannot be serialised: {e}")))
}

/// A row that does not parse makes the whole answer an error: half a ledger must not be taken for all of it.
pub(super) fn from_json<T: DeserializeOwned>(text: &str, row: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|e| Failure::new(StoreErrorKind::Corrupt, format!("{row} holds JSON that does not parse: {e}")))
}

/// A closed enum's value out of its column.
pub(super) fn from_name<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|e: String| Failure::new(StoreErrorKind::Corrupt, e))
}
