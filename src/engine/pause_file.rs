//! A pause by file: anybody who can write into the state directory can pause healing without this program, for example
//! with `touch` or from an init container.
//!
//! The file `pause` pauses healing while it exists. Empty, it pauses everything. As TOML it may narrow the pause
//! (`manager`, `set`), say why (`reason`, `author`) and end it (`expires`, RFC 3339). A file that cannot be read or
//! parsed, or that names an unknown manager, pauses everything. So does a file over 64 KiB, and anything that is
//! not a regular file: a named pipe would block its reader. A share that hangs pauses everything too, and blocks nobody
//! ([`medic_http::file`]).

use crate::config::Config;
use medic_core::model::{ManagerName, Pause, PauseId, PauseScope, ScaleSetId, Wall};
use medic_http::file::{FileReader, read_bounded};
use serde::Deserialize;
use std::fs::FileType;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

pub const FILE_NAME: &str = "pause";
const BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    manager: Option<String>,
    set: Option<u64>,
    reason: Option<String>,
    author: Option<String>,
    expires: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseFile {
    path: PathBuf,
    managers: Vec<ManagerName>,
}

impl PauseFile {
    pub fn of(config: &Config) -> Self {
        let managers = config.managers.iter().map(|manager| manager.name.clone()).collect();
        Self { path: config.run.state_dir.join(FILE_NAME), managers }
    }

    /// `None` without a file, or when the pause has expired.
    pub fn read(&self, now: Wall) -> Option<Pause> {
        let text = match read_text(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
        };
        let pause = text.and_then(|text| parse(&text, &self.managers, now));
        let pause = pause.unwrap_or_else(|error| pause_everything(&self.path, &error, now));
        pause.expires.is_none_or(|end| now < end).then_some(pause)
    }
}

/// Reads the file with a time-out.
#[derive(Debug)]
pub struct PauseFileReader {
    file: PauseFile,
    reader: FileReader,
}

impl PauseFileReader {
    pub fn new(file: PauseFile, reader: FileReader) -> Self {
        Self { file, reader }
    }

    pub async fn read(&self, now: Wall) -> Option<Pause> {
        let file = self.file.clone();
        let read = self.reader.read(move || file.read(now)).await;
        read.unwrap_or_else(|error| Some(pause_everything(&self.file.path, &error.to_string(), now)))
    }
}

fn pause_everything(path: &Path, error: &str, now: Wall) -> Pause {
    Pause {
        id: PauseId::FILE,
        scope: PauseScope::All,
        reason: format!("{} cannot be used, so everything is paused: {error}", path.display()),
        author: "a file".to_owned(),
        created: now,
        expires: None,
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        // A dangling link exists all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return Err(io::Error::other("it is a dangling link"));
        }
        Err(error) => return Err(error),
    };
    if !kind.is_file() {
        return Err(io::Error::other(format!("it is {}, not a file", name_of(kind))));
    }
    let too_long = || io::Error::other(format!("it is longer than {BYTES_MAX} bytes"));
    let bytes = read_bounded(path, BYTES_MAX)?.ok_or_else(too_long)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn parse(text: &str, managers: &[ManagerName], now: Wall) -> Result<Pause, String> {
    let content: Content = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let scope = match (content.manager, content.set) {
        (None, None) => PauseScope::All,
        (Some(manager), None) => PauseScope::Manager { manager: ManagerName::new(manager) },
        (Some(manager), Some(set)) => PauseScope::Set { manager: ManagerName::new(manager), set: ScaleSetId(set) },
        (None, Some(_)) => return Err("a set needs its manager".to_owned()),
    };
    if let PauseScope::Manager { manager } | PauseScope::Set { manager, .. } = &scope
        && !managers.contains(manager)
    {
        let known: Vec<_> = managers.iter().map(ManagerName::as_str).collect();
        return Err(format!("no manager {manager} is configured; configured: {}", known.join(", ")));
    }
    let expires =
        content.expires.map(|text| Wall::parse(&text).ok_or(format!("expires: {text} is not an RFC 3339 date")));
    Ok(Pause {
        id: PauseId::FILE,
        scope,
        reason: content.reason.unwrap_or_else(|| "no reason given".to_owned()),
        author: content.author.unwrap_or_else(|| "a file".to_owned()),
        created: now,
        expires: expires.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_764_000_000_000);

    fn read(path: PathBuf) -> Option<Pause> {
        PauseFile { path, managers: vec![ManagerName::new("garm")] }.read(NOW)
    }

    fn read_content(text: &str) -> Option<Pause> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
        read(dir.path().join(FILE_NAME))
    }

    #[test]
    fn empty_pause_file_pauses_everything() {
        assert_eq!(read(tempfile::tempdir().unwrap().path().join(FILE_NAME)), None);
        assert_eq!(read_content("").unwrap().scope, PauseScope::All);
    }

    #[test]
    fn pause_file_may_narrow_explain_and_end_the_pause() {
        let pause = read_content("manager = \"garm\"\nset = 3\nreason = \"upgrade\"\nauthor = \"alice\"\n").unwrap();
        assert_eq!(pause.scope, PauseScope::Set { manager: ManagerName::new("garm"), set: ScaleSetId(3) });
        assert_eq!((pause.reason.as_str(), pause.author.as_str()), ("upgrade", "alice"));
        assert!(read_content("expires = \"2099-01-01T00:00:00Z\"").is_some());
        assert_eq!(read_content("expires = \"2001-01-01T00:00:00Z\""), None, "it is over");
    }

    #[test]
    fn invalid_pause_file_pauses_everything_and_says_so() {
        let long = "#".repeat(BYTES_MAX + 1);
        for text in ["mood = 1", "set = 3", "expires = \"soon\"", "\u{0}", "manager = \"gram\"", &long] {
            let pause = read_content(text).unwrap();
            assert_eq!(pause.scope, PauseScope::All, "{text}");
            assert!(pause.reason.contains("cannot be used"), "{text}: {}", pause.reason);
        }
    }

    #[test]
    fn pause_path_that_is_no_file_pauses_everything() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        // Opening the pipe would block for ever.
        let made = std::process::Command::new("mkfifo").arg(in_dir("pipe")).status().unwrap();
        assert!(made.success());
        std::fs::create_dir(in_dir("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(in_dir("socket")).unwrap();
        for (link, goal) in [("to-pipe", "pipe"), ("to-nothing", "nothing")] {
            std::os::unix::fs::symlink(in_dir(goal), in_dir(link)).unwrap();
        }
        for (name, kind) in [
            ("pipe", "a named pipe, not a file"),
            ("to-pipe", "a named pipe, not a file"),
            ("directory", "a directory, not a file"),
            ("socket", "a socket, not a file"),
            ("to-nothing", "a dangling link"),
        ] {
            let pause = read(in_dir(name)).unwrap();
            assert_eq!(pause.scope, PauseScope::All, "{name}");
            assert!(pause.reason.ends_with(&format!("so everything is paused: it is {kind}")), "{}", pause.reason);
        }
    }

    #[tokio::test]
    async fn hanging_pause_file_pauses_everything_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let file = PauseFile { path: dir.path().join(FILE_NAME), managers: Vec::new() };
        let watched = PauseFileReader::new(file, FileReader::with_timeout(medic_core::model::Span::millis(30)));
        assert_eq!(watched.read(NOW).await, None);
        let (end, hangs) = std::sync::mpsc::channel::<()>();
        // Readings wait for each other: any that hangs stands for the file's own.
        assert!(watched.reader.read(move || hangs.recv().unwrap_err()).await.is_err());
        let pause = watched.read(NOW).await.unwrap();
        assert_eq!(pause.scope, PauseScope::All);
        assert!(pause.reason.contains("does the file system hang?"), "{}", pause.reason);
        drop(end);
        let answers_again = async {
            while watched.read(NOW).await.is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_mins(1), answers_again).await.unwrap();
    }
}
