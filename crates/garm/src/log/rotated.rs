//! The files of a rotated log, in the order in which they were written.
//!
//! Only names that rotation makes are used, so that another program's log in the same folder is never read:
//! `garm-2026-11-23T18-45-31.651.log` (lumberjack, GARM's own), `garm.log.1`, `garm.log-20261123` (logrotate).
//! Compressed files are not read: the open file is read to its end.

use std::cmp::Reverse;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How many of the newest are used.
const FILES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rotated {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
    /// Last modification: seconds and nanoseconds since the epoch.
    pub(super) modified: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Numbered(Reverse<u64>),
    Dated(String),
}

/// The rotated files of the log at `path`, oldest first.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<Rotated>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Some(age) = entry.file_name().to_str().and_then(|candidate| age(name, candidate)) else { continue };
        // It may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            found.push((age, Rotated { path: entry.path(), device: metadata.dev(), inode: metadata.ino(), modified }));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let skip = found.len().saturating_sub(FILES_MAX);
    Ok(found.into_iter().skip(skip).map(|(_, file)| file).collect())
}

fn age(name: &str, candidate: &str) -> Option<Age> {
    if let Some(suffix) = candidate.strip_prefix(name) {
        let suffix = suffix.strip_prefix(['.', '-', '_'])?;
        return match suffix.parse() {
            Ok(number) if suffix.len() <= 4 => Some(Age::Numbered(Reverse(number))),
            _ => dated(suffix),
        };
    }
    let (stem, extension) = name.rsplit_once('.')?;
    let middle = candidate.strip_prefix(stem)?.strip_prefix('-')?;
    dated(middle.strip_suffix(extension)?.strip_suffix('.')?)
}

fn dated(text: &str) -> Option<Age> {
    let date = text.bytes().all(|b| b.is_ascii_digit() || b"-_.:TZ".contains(&b));
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    (date && digits >= 8).then(|| Age::Dated(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_takes_only_names_of_rotation_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "garm.log",
            "garm.log.1",
            "garm.log.2",
            "garm.log.10",
            "garm-2026-11-23T18-45-31.651.log",
            "garm-2026-11-24T00-00-00.000.log",
            "garm.log-20261122",
            "garm-audit.log",
            "garm-2.log",
            "garm.log.3.gz",
            "garm-2026-11-23T18-45-31.651.log.gz",
            "other.log.1",
            "garm.logic.1",
        ] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("garm.log.4")).unwrap();
        let names: Vec<String> = rotated(&folder.path().join("garm.log"))
            .unwrap()
            .into_iter()
            .map(|file| file.path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            [
                "garm.log.10",
                "garm.log.2",
                "garm.log.1",
                "garm-2026-11-23T18-45-31.651.log",
                "garm-2026-11-24T00-00-00.000.log",
                "garm.log-20261122"
            ]
        );
    }
}
