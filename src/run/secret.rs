//! A secret's file, read at each use, so that a rotated secret is picked up. A file that cannot be used just now (empty,
//! half written, gone) does not take the place of the secret that was read last: it is told once, and tried again.

use crate::config::{Secret, SecretFile};
use std::sync::{Arc, Mutex, PoisonError};

/// Gives the secret each time it is needed; the error is shown to people.
pub(super) type Source = Arc<dyn Fn() -> Result<Secret, String> + Send + Sync>;

/// The secret in `file`, as far as `usable` agrees.
pub(super) fn source(file: &SecretFile, usable: fn(&Secret) -> Result<(), String>) -> Source {
    let file = file.clone();
    let load = move || {
        let secret = file.load().map_err(|error| error.to_string())?;
        usable(&secret).map_err(|why| format!("{}: {why}", file.path().display()))?;
        Ok::<_, String>(secret)
    };
    let kept = Mutex::new(Kept { good: load().ok(), told: None });
    Arc::new(move || {
        let read = load();
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
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
    })
}

struct Kept {
    good: Option<Secret>,
    told: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_secret_that_was_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let usable = |secret: &Secret| if secret.expose() == "no key" { Err("it is none".into()) } else { Ok(()) };
        let none = source(&SecretFile::new(&path), usable);
        assert!(none().unwrap_err().contains("password"), "there never was one");
        std::fs::write(&path, "old\n").unwrap();
        let secret = source(&SecretFile::new(&path), usable);
        for bad in ["", "no key"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(secret().unwrap().expose(), "old", "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret().unwrap().expose(), "old");
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(secret().unwrap().expose(), "new");
        assert_eq!(none().unwrap().expose(), "new");
    }
}
