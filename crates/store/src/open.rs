//! Opening: the directory, the file and its mode, and the settings of the connection.

use super::error::{StoreError, StoreErrorKind};
use super::schema::Access;
use super::sql::Failure;
use super::{BUSY_TIMEOUT, FILE_NAME, schema};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Files up to this size are checked in full when opened; that takes milliseconds.
const CHECKED_UP_TO: u64 = 16 * 1024 * 1024;

pub(super) fn open(state_dir: &Path) -> Result<(String, Connection), StoreError> {
    ensure_directory(state_dir)?;
    let file = state_dir.join(FILE_NAME);
    let size = ensure_file(state_dir, &file)?;
    let path = file.display().to_string();
    let connect = || -> Result<Connection, Failure> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut connection = Connection::open_with_flags(&file, flags)?;
        prepare(&connection)?;
        // Before anything is written: a file of another program stays as it is.
        schema::inspect(&connection, Access::Migrate)?;
        set_journal_mode(&connection)?;
        schema::migrate(&mut connection)?;
        if size <= CHECKED_UP_TO {
            check(&connection)?;
        }
        Ok(connection)
    };
    let connection = connect().map_err(|failure| failure.at(&path, "be opened"))?;
    Ok((path, connection))
}

/// Who else may use a file that is only read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// A medic that writes, or one that has just begun to.
    WithWriters,
    /// Nobody, unless a write-ahead log lies beside it: a copy.
    Alone,
}

/// Whether a write-ahead log lies beside a file, without which the file is not whole.
fn has_log(file: &Path) -> bool {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    Path::new(&log).exists()
}

/// The flags to read a file that others may use.
///
/// A read-only connection creates the companion files of the write-ahead log and cannot remove them. A connection that
/// may write removes them when it is the last to close, under `SQLite`'s locks, so a medic that has started meanwhile
/// keeps them; `query_only` prevents other changes. If there is a log already, a medic is writing or was killed: the log,
/// or the rollback journal of a file that does not use one, is left to its successor. Without the right to write,
/// `SQLite` falls back to reading.
pub(super) fn shared_flags(file: &Path) -> OpenFlags {
    let companions_to_remove = uses_log(file) && !has_log(file);
    if companions_to_remove { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY }
}

/// Whether a file is in write-ahead mode: its header says how it is to be read (`SQLite`'s file format, §1.3.3).
fn uses_log(file: &Path) -> bool {
    const READ_VERSION: usize = 19;
    let mut header = [0_u8; READ_VERSION + 1];
    File::open(file).and_then(|mut file| file.read_exact(&mut header)).is_ok() && header.last() == Some(&2)
}

/// The URI of a file that nobody changes: `SQLite` then creates no companion files.
fn immutable(file: &Path) -> String {
    let mut address = "file:".to_owned();
    // A leading double slash would begin the name of a host.
    if file.is_absolute() {
        address.push_str("//");
    }
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => address.push(char::from(*byte)),
            other => {
                let _ = write!(address, "%{other:02X}");
            }
        }
    }
    address + "?immutable=1"
}

/// For reading only: nothing is created, migrated or repaired. `None` when there is no file.
pub(super) fn read_only(file: &Path, share: Share) -> Result<Option<(String, Connection)>, StoreError> {
    let path = file.display().to_string();
    let size = match std::fs::metadata(file) {
        // Its creator died before it wrote anything.
        Ok(found) if found.len() == 0 => return Ok(None),
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::of_io(file, "be read", &error)),
    };
    let connect = || -> Result<Connection, Failure> {
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let only_read = flags | OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = match share {
            Share::Alone if !has_log(file) => {
                Connection::open_with_flags(immutable(file), only_read | OpenFlags::SQLITE_OPEN_URI)?
            }
            Share::Alone => Connection::open_with_flags(file, only_read)?,
            Share::WithWriters => Connection::open_with_flags(file, flags | shared_flags(file))?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true)?;
        schema::inspect(&connection, Access::Read)?;
        if size <= CHECKED_UP_TO {
            check(&connection)?;
        }
        Ok(connection)
    };
    let connection = connect().map_err(|failure| failure.at(&path, "be read"))?;
    Ok(Some((path, connection)))
}

pub(super) fn in_memory() -> Result<(String, Connection), StoreError> {
    let path = ":memory:".to_owned();
    let connect = || -> Result<Connection, Failure> {
        let mut connection = Connection::open_in_memory()?;
        prepare(&connection)?;
        schema::migrate(&mut connection)?;
        Ok(connection)
    };
    let connection = connect().map_err(|failure| failure.at(&path, "be opened"))?;
    Ok((path, connection))
}

/// Makes the directory with exactly 0700, whatever the umask. An existing one keeps its rights, which may be a
/// volume's. Parents are not made: a missing parent is a typing error or a volume that is not mounted.
fn ensure_directory(dir: &Path) -> Result<(), StoreError> {
    let fail = |error: std::io::Error| StoreError::of_io(dir, "make its directory", &error);
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(fail),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if std::fs::metadata(dir).map_err(fail)?.is_dir() {
                Ok(())
            } else {
                Err(fail(std::io::ErrorKind::NotADirectory.into()))
            }
        }
        Err(error) => Err(fail(error)),
    }
}

/// Makes the file with exactly 0600 before `SQLite` sees it; `SQLite` gives its companion files the same rights.
/// Returns the file's size.
fn ensure_file(dir: &Path, file: &Path) -> Result<u64, StoreError> {
    let fail = |error: std::io::Error| StoreError::of_io(file, "be opened", &error);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(file);
    let handle = opened.map_err(fail)?;
    let metadata = handle.metadata().map_err(fail)?;
    if metadata.permissions().mode() & 0o777 != 0o600 {
        handle.set_permissions(Permissions::from_mode(0o600)).map_err(fail)?;
    }
    if metadata.len() == 0 {
        // The file's name must survive a power cut too. Some file systems refuse to sync a directory; then the
        // name is as durable as they make it.
        drop(File::open(dir).and_then(|dir| dir.sync_all()));
    }
    Ok(metadata.len())
}

fn prepare(connection: &Connection) -> Result<(), Failure> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    // A plan holds for every value: otherwise a statement is prepared again whenever a parameter changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Half a megabyte: the sidecar's memory is counted.
    connection.pragma_update(None, "cache_size", -512)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// The write-ahead log needs one sync per commit and lets `status` read while `run` writes. Where it cannot be had
/// (no shared memory), TRUNCATE is the rollback mode that is durable with `synchronous=FULL`: DELETE would need the
/// directory synced as well, or a power cut could bring the old journal back.
fn set_journal_mode(connection: &Connection) -> Result<(), Failure> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode.eq_ignore_ascii_case("wal") {
        // After a checkpoint the log's file shrinks to this many bytes.
        connection.pragma_update_and_check(None, "journal_size_limit", 4 * 1024 * 1024, |_| Ok(()))?;
    } else {
        connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
    }
    Ok(())
}

fn check(connection: &Connection) -> Result<(), Failure> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Failure::new(StoreErrorKind::Corrupt, verdict)) }
}
