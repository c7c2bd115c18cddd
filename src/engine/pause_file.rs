//! A pause by file: whoever can write into the state directory can stop all healing without this program's help, from
//! an init container or with `touch` for instance.
//!
//! The rule: the file `pause` pauses while it is there. Empty, it pauses everything; as TOML it may narrow that
//! (`manager`, `set`), say why (`reason`, `author`), and end by itself (`expires`, RFC 3339). A file that cannot be
//! read or understood, or that names a manager that is not configured, pauses everything: somebody wanted to stop
//! something. So does what is no file at all: opening a named pipe would wait for a writer who never comes, and what
//! lies behind a device or a socket is no pause. A share that hangs pauses everything too, and holds up nobody
//! ([`medic_http::file`]).

use crate::config::Config;
use medic_core::model::{ManagerName, Pause, PauseId, PauseScope, ScaleSetId, Wall};
use medic_http::file::FileReader;
use serde::Deserialize;
use std::fs::FileType;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "pause";
/// The most of it that is read.
const BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    manager: Option<String>,
    set: Option<u64>,
    reason: Option<String>,
    author: Option<String>,
    expires: Option<String>,
}

/// Where the file may be, and whom it may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseFile {
    path: PathBuf,
    managers: Vec<ManagerName>,
}

impl PauseFile {
    /// The file of this configuration's state directory.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let managers = config.managers.iter().map(|manager| manager.name.clone()).collect();
        Self { path: config.run.state_dir.join(FILE_NAME), managers }
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pause that it asks for; `None` where there is no such file, or it is over.
    #[must_use]
    pub fn read(&self, now: Wall) -> Option<Pause> {
        read(&self.path, &self.managers, now)
    }
}

/// What a medic that works for a long time asks of the file: it waits for it only so long.
#[derive(Debug)]
pub struct WatchedPause {
    file: PauseFile,
    reader: FileReader,
}

impl WatchedPause {
    /// The file, read by `reader`.
    #[must_use]
    pub fn new(file: PauseFile, reader: FileReader) -> Self {
        Self { file, reader }
    }

    /// As [`PauseFile::read`].
    pub async fn read(&self, now: Wall) -> Option<Pause> {
        let file = self.file.clone();
        let read = self.reader.read(move || file.read(now)).await;
        read.unwrap_or_else(|error| Some(everything(self.file.path(), &error.to_string(), now)))
    }
}

fn read(path: &Path, managers: &[ManagerName], now: Wall) -> Option<Pause> {
    let text = match text_of(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    let pause = text.and_then(|text| understand(&text, managers, now));
    let pause = pause.unwrap_or_else(|error| everything(path, &error, now));
    pause.expires.is_none_or(|end| now < end).then_some(pause)
}

fn everything(path: &Path, error: &str, now: Wall) -> Pause {
    Pause {
        id: PauseId::FILE,
        scope: PauseScope::All,
        reason: format!("{} cannot be used, so everything is paused: {error}", path.display()),
        author: "a file".to_owned(),
        created: now,
        expires: None,
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        // A link that leads nowhere is there all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return Err(io::Error::other("it is a link to what does not exist"));
        }
        Err(error) => return Err(error),
    };
    if !kind.is_file() {
        return Err(io::Error::other(format!("it is {}, not a file", named(kind))));
    }
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, BYTES_MAX), &mut text)?;
    Ok(text)
}

fn named(kind: FileType) -> &'static str {
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

fn understand(text: &str, managers: &[ManagerName], now: Wall) -> Result<Pause, String> {
    let wish: Wish = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let scope = match (wish.manager, wish.set) {
        (None, None) => PauseScope::All,
        (Some(manager), None) => PauseScope::Manager { manager: ManagerName::new(manager) },
        (Some(manager), Some(set)) => PauseScope::Set { manager: ManagerName::new(manager), set: ScaleSetId(set) },
        (None, Some(_)) => return Err("a set needs its manager".to_owned()),
    };
    if let PauseScope::Manager { manager } | PauseScope::Set { manager, .. } = &scope
        && !managers.contains(manager)
    {
        let known: Vec<_> = managers.iter().map(ManagerName::as_str).collect();
        return Err(format!("no manager {manager} is configured; there is {}", known.join(", ")));
    }
    let expires = wish.expires.map(|text| Wall::parse(&text).ok_or(format!("expires: {text} is no RFC 3339 date")));
    Ok(Pause {
        id: PauseId::FILE,
        scope,
        reason: wish.reason.unwrap_or_else(|| "no reason given".to_owned()),
        author: wish.author.unwrap_or_else(|| "a file".to_owned()),
        created: now,
        expires: expires.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_764_000_000_000);

    fn with(text: &str) -> Option<Pause> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, text).unwrap();
        read(&path, &[ManagerName::new("garm")], NOW)
    }

    #[test]
    fn no_file_pauses_nothing_and_an_empty_one_everything() {
        assert_eq!(read(&tempfile::tempdir().unwrap().path().join(FILE_NAME), &[], NOW), None);
        assert_eq!(with("").unwrap().scope, PauseScope::All);
    }

    #[test]
    fn a_file_may_narrow_the_pause_say_why_and_end_it() {
        let pause = with("manager = \"garm\"\nset = 3\nreason = \"upgrade\"\nauthor = \"alice\"\n").unwrap();
        assert_eq!(pause.scope, PauseScope::Set { manager: ManagerName::new("garm"), set: ScaleSetId(3) });
        assert_eq!((pause.reason.as_str(), pause.author.as_str()), ("upgrade", "alice"));
        assert!(with("expires = \"2099-01-01T00:00:00Z\"").is_some());
        assert_eq!(with("expires = \"2001-01-01T00:00:00Z\""), None, "it is over");
    }

    #[test]
    fn what_cannot_be_understood_pauses_everything_and_says_so() {
        for text in ["mood = 1", "set = 3", "expires = \"soon\"", "\u{0}", "manager = \"gram\""] {
            let pause = with(text).unwrap();
            assert_eq!(pause.scope, PauseScope::All, "{text}");
            assert!(pause.reason.contains("cannot be used"), "{text}: {}", pause.reason);
        }
    }

    #[test]
    fn what_is_no_file_is_not_opened_pauses_everything_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let in_dir = |name: &str| dir.path().join(name);
        // A reader of a named pipe waits for its writer: opened, this test would never end.
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
            ("to-nothing", "a link to what does not exist"),
        ] {
            let pause = read(&in_dir(name), &[], NOW).unwrap();
            assert_eq!(pause.scope, PauseScope::All, "{name}");
            assert!(pause.reason.ends_with(&format!("so everything is paused: it is {kind}")), "{}", pause.reason);
        }
    }

    #[tokio::test]
    async fn a_share_that_hangs_pauses_everything_until_it_answers_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = PauseFile { path: dir.path().join(FILE_NAME), managers: Vec::new() };
        let watched = WatchedPause::new(file, FileReader::with_patience(medic_core::model::Span::millis(30)));
        assert_eq!(watched.read(NOW).await, None);
        let (end, hangs) = std::sync::mpsc::channel::<()>();
        // An earlier reading that hangs stands for the file's own: each waits for the other.
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
