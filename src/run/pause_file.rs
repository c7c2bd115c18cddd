//! A pause by file: whoever can write into the state directory can stop all healing without this program's help, from
//! an init container or with `touch` for instance.
//!
//! The rule: the file `pause` pauses while it is there. Empty, it pauses everything; as TOML it may narrow that
//! (`manager`, `set`), say why (`reason`, `author`), and end by itself (`expires`, RFC 3339). A file that cannot be
//! read or understood, or that names a manager that is not configured, pauses everything: somebody wanted to stop
//! something.

use crate::config::Config;
use crate::model::{ManagerName, Pause, PauseId, PauseScope, ScaleSetId, Wall};
use serde::Deserialize;
use std::io;
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

fn read(path: &Path, managers: &[ManagerName], now: Wall) -> Option<Pause> {
    let read = std::fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, BYTES_MAX), &mut text).map(|_| text)
    });
    let text = match read {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    let pause = text.and_then(|text| understand(&text, managers, now)).unwrap_or_else(|error| Pause {
        id: PauseId::FILE,
        scope: PauseScope::All,
        reason: format!("{} cannot be used, so everything is paused: {error}", path.display()),
        author: "a file".to_owned(),
        created: now,
        expires: None,
    });
    pause.expires.is_none_or(|end| now < end).then_some(pause)
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
}
