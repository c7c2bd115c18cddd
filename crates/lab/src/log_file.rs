//! A log file as a simulated manager writes it, and its rotation by others.
//!
//! Lines are appended (`O_APPEND`, as GARM's logger does): after a truncation writing continues at the front.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The file is copied to `<path>.1` and cut to nothing; the writer notices nothing.
    CopyTruncate,
    /// The file is renamed to `<path>.1`, and the writer opens a new one.
    Rename,
}

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens or creates the file; what is in it stays.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends lines, in one write.
    pub fn append<L: AsRef<[u8]>>(&mut self, lines: &[L]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(lines.iter().map(|line| line.as_ref().len().saturating_add(1)).sum());
        for line in lines {
            whole.extend_from_slice(line.as_ref());
            whole.push(b'\n');
        }
        self.file.write_all(&whole)
    }

    /// Rotates the file; an older `<path>.1` is replaced.
    pub fn rotate(&mut self, how: Rotation) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        match how {
            Rotation::CopyTruncate => {
                std::fs::copy(&self.path, &old)?;
                self.file.set_len(0)
            }
            Rotation::Rename => {
                std::fs::rename(&self.path, &old)?;
                *self = Self::open(&self.path)?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotate_keeps_old_lines_and_starts_an_empty_file() {
        for how in [Rotation::CopyTruncate, Rotation::Rename] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("garm.log");
            let mut log = LogFile::open(&path).unwrap();
            log.append(&["one"]).unwrap();
            log.rotate(how).unwrap();
            log.append(&["two"]).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n", "{how:?}");
            assert_eq!(std::fs::read_to_string(dir.path().join("garm.log.1")).unwrap(), "one\n", "{how:?}");
        }
    }
}
