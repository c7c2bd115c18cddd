//! What the configuration says about the machine: secrets and certificates that can be read, a state directory
//! that can be written. Each check says in words what is wrong; none leaves anything behind.

use super::secret::{Secret, SecretFile, read_bounded};
use std::path::{Path, PathBuf};

/// The largest bundle of certificates that is read.
const CA_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The secret can be read.
pub(super) fn check_secret(file: &SecretFile) -> Result<Secret, String> {
    file.load().map_err(|error| error.to_string())
}

/// The secret looks like a private key.
pub(crate) fn check_key(secret: &Secret) -> Result<(), String> {
    let text = secret.expose();
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        Ok(())
    } else {
        Err("the file holds no private key in PEM".into())
    }
}

/// The file holds at least one certificate.
pub(super) fn check_ca(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let bytes = read_bounded(path, CA_BYTES_MAX)
        .map_err(|error| format!("cannot read {shown}: {error}"))?
        .ok_or_else(|| format!("{shown} is longer than {CA_BYTES_MAX} bytes"))?;
    if String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----") {
        Ok(())
    } else {
        Err(format!("{shown} holds no certificate in PEM"))
    }
}

/// The directory exists, or can be made, and takes a file. What was made for the test is removed again.
///
/// # Errors
/// In words: what cannot be done, and what the system said.
pub fn check_state_dir(dir: &Path) -> Result<(), String> {
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .map(Path::to_path_buf)
        .collect();
    let result = std::fs::create_dir_all(dir)
        .map_err(|error| format!("cannot create {}: {error}", dir.display()))
        .and_then(|()| write_into(dir));
    for made in &missing {
        // A directory that others have begun to use meanwhile is not empty, and stays.
        drop(std::fs::remove_dir(made));
    }
    result
}

fn write_into(dir: &Path) -> Result<(), String> {
    let probe = dir.join(format!(".scaleset-medic-check-{}", std::process::id()));
    let written = std::fs::write(&probe, b"").map_err(|error| format!("cannot write into {}: {error}", dir.display()));
    drop(std::fs::remove_file(&probe));
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_can_be_made_is_not_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b/c");
        assert_eq!(check_state_dir(&dir), Ok(()));
        assert!(!root.path().join("a").exists());
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(check_state_dir(&dir), Ok(()));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "the check left a file");
    }

    #[test]
    fn a_state_directory_under_a_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let refused = check_state_dir(&file.join("state")).unwrap_err();
        assert!(refused.starts_with("cannot create ") && refused.contains("Not a directory"), "{refused}");
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("ca.pem");
        std::fs::write(&file, b"hello").unwrap();
        assert!(check_ca(&file).unwrap_err().ends_with("holds no certificate in PEM"));
        std::fs::write(&file, b"-----BEGIN CERTIFICATE-----\n").unwrap();
        assert_eq!(check_ca(&file), Ok(()));
    }
}
