//! Secrets. A [`Secret`] cannot be printed: it has neither `Display` nor `Serialize`, and its `Debug` says
//! `[redacted]`; only [`Secret::expose`] gives the text, at the one place that puts it on the wire.
//!
//! Configuration holds paths, not secrets: a [`SecretFile`] is read when it is needed, so that a rotated password
//! is picked up at the next login without a restart.

pub use medic_http::Secret;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest secret that is read: an App's private key has about 3 KB.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The path of a file that holds one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

/// Why a secret cannot be had. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("cannot read the secret in {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing in it.
    #[error("the secret in {path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// More than [`SECRET_BYTES_MAX`].
    #[error("the secret in {path} is longer than {SECRET_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("the secret in {path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

impl SecretFile {
    /// The secret in the file at `path`, which is not read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it, without the one newline that editors put at the end.
    pub fn load(&self) -> Result<Secret, SecretError> {
        let path = || self.0.clone();
        let bytes = read_bounded(&self.0, SECRET_BYTES_MAX)
            .map_err(|source| SecretError::Unreadable { path: path(), source })?
            .ok_or_else(|| SecretError::TooLarge { path: path() })?;
        let mut text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { path: path() })?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.is_empty() { Err(SecretError::Empty { path: path() }) } else { Ok(Secret::new(text)) }
    }

    /// Whether others than its owner and group may read it; `false` where that cannot be told.
    #[must_use]
    pub fn is_world_readable(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(&self.0).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
        }
        #[cfg(not(unix))]
        false
    }
}

/// The whole file, or `None` when it is longer than `limit` bytes; never reads more than one byte past it.
pub(super) fn read_bounded(path: &Path, limit: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, SecretFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, SecretFile::new(path))
    }

    #[test]
    fn one_trailing_newline_is_not_part_of_the_secret() {
        for (content, secret) in
            [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), (" pw ", " pw "), ("a\nb\n", "a\nb")]
        {
            assert_eq!(file(content.as_bytes()).1.load().unwrap().expose(), secret, "{content:?}");
        }
    }

    #[test]
    fn unusable_secrets_name_the_file_and_not_the_content() {
        for (content, message) in [
            (b"".as_slice(), "is empty"),
            (b"\n", "is empty"),
            (b"hunter2\xff", "not UTF-8"),
            (&vec![b'x'; SECRET_BYTES_MAX + 1], "longer than 65536 bytes"),
        ] {
            let (_dir, secret) = file(content);
            let error = secret.load().unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("secret"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("xxx"), "{error}");
        }
        let error = SecretFile::new("/nowhere/at/all").load().unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("No such file"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_world_readable_file_is_noticed() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, secret) = file(b"pw");
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false)] {
            std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret.is_world_readable(), open, "{mode:o}");
        }
    }
}
