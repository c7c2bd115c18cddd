//! A log file as a simulated manager writes it (`O_APPEND`, as GARM's logger does), and its rotation by others.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens or creates the file; what is in it stays.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends lines, in one write.
    pub(crate) fn append<L: AsRef<[u8]>>(&mut self, lines: &[L]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(lines.iter().map(|line| line.as_ref().len().saturating_add(1)).sum());
        for line in lines {
            whole.extend_from_slice(line.as_ref());
            whole.push(b'\n');
        }
        self.file.write_all(&whole)
    }

    /// Renames the file to `<path>.1`, which may replace an older one, and opens a new one.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, &old)?;
        *self = Self::open(&self.path)?;
        Ok(())
    }
}
