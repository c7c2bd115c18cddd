//! A secret's file, read at each use, so that a rotated secret is picked up. A file that cannot be used just now (empty,
//! half written, gone, on a share that hangs) does not take the place of the secret that was read last: it is told once,
//! and tried again.

use crate::config::{Secret, SecretFile};
use crate::io::file::Reader;
use async_trait::async_trait;
use medic_http::secret::SecretSource;
use std::sync::{Arc, Mutex, PoisonError};

/// The secret in `file`, as far as `usable` agrees.
pub(crate) fn source(
    file: &SecretFile,
    usable: fn(&Secret) -> Result<(), String>,
    reader: Reader,
) -> Arc<dyn SecretSource> {
    Arc::new(Source { file: file.clone(), usable, reader, kept: Mutex::default() })
}

struct Source {
    file: SecretFile,
    usable: fn(&Secret) -> Result<(), String>,
    reader: Reader,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    good: Option<Secret>,
    told: Option<String>,
}

#[async_trait]
impl SecretSource for Source {
    async fn secret(&self) -> Result<Secret, String> {
        let (file, usable) = (self.file.clone(), self.usable);
        let load = move || {
            let secret = file.load().map_err(|error| error.to_string())?;
            usable(&secret).map_err(|why| format!("{}: {why}", file.path().display()))?;
            Ok(secret)
        };
        let read = self.reader.read(load).await;
        self.kept(read.unwrap_or_else(|why| Err(format!("{}: {why}", self.file.path().display()))))
    }
}

impl Source {
    fn kept(&self, read: Result<Secret, String>) -> Result<Secret, String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &kept.good) {
            (Ok(secret), _) => {
                *kept = Kept { good: Some(secret.clone()), told: None };
                Ok(secret)
            }
            (Err(why), None) => Err(why),
            (Err(why), Some(good)) => {
                let good = good.clone();
                if kept.told.as_ref() != Some(&why) {
                    tracing::error!(why, "a secret cannot be read again; going on with the one that was read before");
                    kept.told = Some(why);
                }
                Ok(good)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::file::tests::impatient;
    use medic_garm::log::source::Reading;

    #[tokio::test]
    async fn a_file_that_cannot_be_used_leaves_the_secret_that_was_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let usable = |secret: &Secret| if secret.expose() == "no key" { Err("it is none".into()) } else { Ok(()) };
        let secret = source(&SecretFile::new(&path), usable, Reader::new(Reading::OnThreads));
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
    async fn a_file_that_hangs_leaves_the_secret_that_was_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "old\n").unwrap();
        let secret = source(&SecretFile::new(&path), |_| Ok(()), impatient());
        assert_eq!(secret.secret().await.unwrap().expose(), "old");
        // To open a FIFO that nobody writes to does not end.
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        for _ in 0..3 {
            assert_eq!(secret.secret().await.unwrap().expose(), "old");
        }
        let other = source(&SecretFile::new(&path), |_| Ok(()), impatient());
        let why = other.secret().await.unwrap_err();
        assert!(why.contains("token") && why.contains("hang"), "{why}");
        // Both readers end, and so does this test: they see a file without content.
        drop(std::fs::OpenOptions::new().write(true).open(&path).unwrap());
    }
}
