//! Passwords, tokens and keys. A [`Secret`] has no `Display` and no `Serialize`, so that it cannot get into a log, an
//! error or a page by accident; only [`Secret::expose`] gives the text.
//!
//! Configuration holds paths: a [`SecretFile`] is read at each use, so that a rotated secret needs no restart. A file that
//! cannot be used (empty, half written, gone, on a share that hangs) leaves the secret that was read last in use; that is
//! logged once, and the file is tried again.

use crate::file::{FileReader, read_bounded};
use async_trait::async_trait;
use http::HeaderValue;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest secret that is read: an App's private key has about 3 KB.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Returns a secret each time it is needed, so that a rotated one is used from then on.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The secret as it is now, or why it cannot be read.
    async fn secret(&self) -> Result<Secret, String>;
}

#[async_trait]
impl<F: Fn() -> Result<Secret, String> + Send + Sync> SecretSource for F {
    async fn secret(&self) -> Result<Secret, String> {
        self()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `SCHEME SECRET` as a header, marked as sensitive; `None` if the secret is empty or cannot stand in a header.
    pub fn authorization(&self, scheme: &str) -> Option<HeaderValue> {
        let text = Some(self.0.trim()).filter(|text| !text.is_empty())?;
        let mut header = HeaderValue::from_str(&format!("{scheme} {text}")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SecretFile(PathBuf);

/// Why a secret cannot be read. Names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the secret in {path} is empty")]
    Empty { path: PathBuf },
    #[error("the secret in {path} is longer than {SECRET_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("the secret in {path} is not UTF-8 text")]
    NotText { path: PathBuf },
}

impl SecretFile {
    /// The secret in the file at `path`, which is not read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

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

    /// Whether others than its owner and group may read it; `false` where that is unknown.
    pub fn is_world_readable(&self) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(&self.0).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
        }
        #[cfg(not(unix))]
        false
    }

    /// The secret as it is at each use, where `usable` accepts it.
    pub fn source(&self, usable: fn(&Secret) -> Result<(), String>, reader: FileReader) -> Arc<dyn SecretSource> {
        Arc::new(Reloading { file: self.clone(), usable, reader, last: Mutex::default() })
    }
}

struct Reloading {
    file: SecretFile,
    usable: fn(&Secret) -> Result<(), String>,
    reader: FileReader,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    good: Option<Secret>,
    logged: Option<String>,
}

#[async_trait]
impl SecretSource for Reloading {
    async fn secret(&self) -> Result<Secret, String> {
        let (file, usable) = (self.file.clone(), self.usable);
        let load = move || {
            let secret = file.load().map_err(|error| error.to_string())?;
            usable(&secret).map_err(|why| format!("{}: {why}", file.path().display()))?;
            Ok(secret)
        };
        let read = self.reader.read(load).await;
        self.or_last(read.unwrap_or_else(|why| Err(format!("{}: {why}", self.file.path().display()))))
    }
}

impl Reloading {
    fn or_last(&self, read: Result<Secret, String>) -> Result<Secret, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &last.good) {
            (Ok(secret), _) => {
                *last = Last { good: Some(secret.clone()), logged: None };
                Ok(secret)
            }
            (Err(why), None) => Err(why),
            (Err(why), Some(good)) => {
                let good = good.clone();
                if last.logged.as_ref() != Some(&why) {
                    tracing::error!(why, "cannot read a secret again; the last one read stays in use");
                    last.logged = Some(why);
                }
                Ok(good)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Reading;
    use medic_core::model::Span;

    #[test]
    fn debug_output_and_header_hide_the_secret() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert_eq!(secret.expose(), "hunter2");
        let header = secret.authorization("Bearer").unwrap();
        assert_eq!((header.as_bytes(), header.is_sensitive()), (b"Bearer hunter2".as_slice(), true));
        for unusable in ["", " ", "a\nb"] {
            assert_eq!(Secret::new(unusable).authorization("Bearer"), None, "{unusable:?}");
        }
    }

    fn file(content: &[u8]) -> (tempfile::TempDir, SecretFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, SecretFile::new(path))
    }

    #[test]
    fn secret_file_drops_one_trailing_newline() {
        for (content, secret) in
            [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), ("pw\n\n", "pw\n"), (" pw ", " pw "), ("a\nb\n", "a\nb")]
        {
            assert_eq!(file(content.as_bytes()).1.load().unwrap().expose(), secret, "{content:?}");
        }
    }

    #[test]
    fn secret_file_error_names_the_file_not_the_content() {
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
    fn secret_file_detects_world_readable_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, secret) = file(b"pw");
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false)] {
            std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret.is_world_readable(), open, "{mode:o}");
        }
    }

    #[tokio::test]
    async fn unusable_secret_file_leaves_the_last_secret_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let usable = |secret: &Secret| if secret.expose() == "no key" { Err("it is none".into()) } else { Ok(()) };
        let secret = SecretFile::new(&path).source(usable, FileReader::new(Reading::OnThreads));
        assert!(secret.secret().await.unwrap_err().contains("password"), "there never was one");
        std::fs::write(&path, "old\n").unwrap();
        assert_eq!(secret.secret().await.unwrap().expose(), "old");
        for bad in ["", "no key"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(secret.secret().await.unwrap().expose(), "old", "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.secret().await.unwrap().expose(), "old");
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(secret.secret().await.unwrap().expose(), "new");
    }

    #[tokio::test]
    async fn hanging_secret_file_leaves_the_last_secret_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "old\n").unwrap();
        let impatient = || FileReader::with_timeout(Span::millis(30));
        let secret = SecretFile::new(&path).source(|_| Ok(()), impatient());
        assert_eq!(secret.secret().await.unwrap().expose(), "old");
        // To open a FIFO that nobody writes to does not end.
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        for _ in 0..3 {
            assert_eq!(secret.secret().await.unwrap().expose(), "old");
        }
        let other = SecretFile::new(&path).source(|_| Ok(()), impatient());
        let why = other.secret().await.unwrap_err();
        assert!(why.contains("token") && why.contains("hang"), "{why}");
        // Both readers end, and so does this test: they see a file without content.
        drop(std::fs::OpenOptions::new().write(true).open(&path).unwrap());
    }
}
