//! What the configuration says about the machine: keys and certificates, and a state directory that can be written. No
//! check leaves anything behind.

use medic_http::Secret;
use medic_http::file::read_bounded;
use medic_http::reqwest_transport::CA_BYTES_MAX;
use std::path::{Path, PathBuf};

pub(crate) fn check_key(secret: &Secret) -> Result<(), String> {
    let text = secret.expose();
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        Ok(())
    } else {
        Err("the file holds no private key in PEM".into())
    }
}

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

/// The directory exists or can be created, and can be written. What was created for the test is removed again.
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
        // A directory that others use meanwhile is not empty, and stays.
        drop(std::fs::remove_dir(made));
    }
    result
}

fn write_into(dir: &Path) -> Result<(), String> {
    let file = dir.join(format!(".scaleset-medic-check-{}", std::process::id()));
    let written = std::fs::write(&file, b"").map_err(|error| format!("cannot write into {}: {error}", dir.display()));
    drop(std::fs::remove_file(&file));
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_state_dir_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b/c");
        assert_eq!(check_state_dir(&dir), Ok(()));
        assert!(!root.path().join("a").exists());
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(check_state_dir(&dir), Ok(()));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "the check left a file");
    }
}
