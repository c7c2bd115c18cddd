//! Failures of the store, with advice.

use medic_core::model::closed::closed_enum;
use medic_core::ports::write::{JournalError, JournalFault};

closed_enum! {
    pub enum StoreErrorKind {
        /// The parent of the state directory is not there.
        Missing = "missing",
        /// The state directory's path is something else than a directory.
        NotADirectory = "not_a_directory",
        NotWritable = "not_writable",
        DiskFull = "disk_full",
        /// Not a database, truncated, or damaged.
        Corrupt = "corrupt",
        /// Written by a newer release.
        NewerSchema = "newer_schema",
        /// Written by an older release, and only to be read.
        OlderSchema = "older_schema",
        /// A database of another program.
        Foreign = "foreign",
        /// Another process held the file for too long.
        Busy = "busy",
        NoSuchRow = "no_such_row",
        /// The request contradicts what the store holds.
        Refused = "refused",
        /// Another medic has taken over.
        LeaseLost = "lease_lost",
        Other = "other",
    }
}

impl StoreErrorKind {
    const fn advice(self) -> &'static str {
        match self {
            Self::Missing => "create the parent directory, or correct `state_dir`",
            Self::NotADirectory | Self::Foreign => "point `state_dir` to a directory of its own",
            Self::NotWritable => "give the user of this process read and write access to the state directory",
            Self::DiskFull => "free space on the volume of the state directory",
            Self::Corrupt => {
                "stop every medic, keep a copy of the file, and restore or remove it; before removing it, see that no \
                 scale set is left disabled"
            }
            Self::NewerSchema => "use the release that wrote the file, or a newer one",
            Self::OlderSchema => "start this release's `run` or `once`, which brings the file up to date",
            Self::Busy => "see which other process uses the state directory; the next try may succeed",
            Self::NoSuchRow | Self::Refused => "this is a fault of the program; please report it",
            Self::LeaseLost => "nothing: the holder of the lease finishes open treatments",
            Self::Other => "see what came back",
        }
    }
}

/// A failure of the store: which file, what was tried, what came back, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store at {path} could not {what} ({kind}): {detail}; {}", kind.advice())]
pub struct StoreError {
    pub path: String,
    /// What was tried, as the end of "could not …".
    pub what: &'static str,
    pub kind: StoreErrorKind,
    pub detail: String,
}

impl StoreError {
    pub(super) fn of_io(path: &std::path::Path, what: &'static str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::NotFound => StoreErrorKind::Missing,
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
                StoreErrorKind::NotADirectory
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreErrorKind::NotWritable,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreErrorKind::DiskFull,
            _ => StoreErrorKind::Other,
        };
        Self { path: path.display().to_string(), what, kind, detail: error.to_string() }
    }
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        let detail = format!("{}: {}; {}", error.kind, error.detail, error.kind.advice());
        let cause = match error.kind {
            StoreErrorKind::LeaseLost => JournalFault::LeaseLost,
            StoreErrorKind::Missing
            | StoreErrorKind::NotADirectory
            | StoreErrorKind::NotWritable
            | StoreErrorKind::DiskFull
            | StoreErrorKind::Corrupt
            | StoreErrorKind::NewerSchema
            | StoreErrorKind::OlderSchema
            | StoreErrorKind::Foreign
            | StoreErrorKind::Busy
            | StoreErrorKind::NoSuchRow
            | StoreErrorKind::Refused
            | StoreErrorKind::Other => JournalFault::Storage,
        };
        Self { path: error.path, what: error.what, detail, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};
    use std::path::Path;

    #[test]
    fn io_failures_have_their_kind_and_advice() {
        for (kind, wanted, advice) in [
            (ErrorKind::NotFound, StoreErrorKind::Missing, "create the parent directory"),
            (ErrorKind::PermissionDenied, StoreErrorKind::NotWritable, "read and write access"),
            (ErrorKind::ReadOnlyFilesystem, StoreErrorKind::NotWritable, "read and write access"),
            (ErrorKind::StorageFull, StoreErrorKind::DiskFull, "free space"),
        ] {
            let error = StoreError::of_io(Path::new("/var/lib/x"), "be opened", &Error::from(kind));
            assert_eq!(error.kind, wanted);
            let text = error.to_string();
            assert!(text.contains("/var/lib/x") && text.contains(advice), "{text}");
        }
    }
}
