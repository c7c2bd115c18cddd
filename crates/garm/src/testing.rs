//! Recordings of two real GARM builds, for the tests of the parsers.

use std::path::{Path, PathBuf};

pub(crate) const PRE_FIX: &str = "garm-2026-04-pre-fix";
pub(crate) const POST_FIX: &str = "garm-2026-07-post-fix";
pub(crate) const BUILDS: [&str; 2] = [PRE_FIX, POST_FIX];

pub(crate) fn folder(build: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/recordings")).join(build)
}

pub(crate) fn recorded(build: &str, file: &str) -> Vec<u8> {
    let path = folder(build).join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The log of one recorded situation, by its number.
pub(crate) fn recorded_log(build: &str, number: &str) -> Vec<u8> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder(build).join("logs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with(number));
    assert_eq!(files.len(), 1, "{build} {number}");
    std::fs::read(&files[0]).unwrap()
}

pub(crate) fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}
