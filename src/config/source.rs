//! Where values come from: flags over environment over file over default. Everything is passed in; nothing here
//! reads the environment, so that a test is a plain map.

use super::keys::Key;
use super::report::{Mistake, Origin, Report};
use super::secret::read_bounded;
use std::collections::BTreeMap;
use std::path::Path;

/// The variable that names the configuration file.
pub const CONFIG_ENV: &str = "SCALESET_MEDIC_CONFIG";

/// The largest configuration file that is read.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A configuration file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// As it was named: what reports repeat.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// A key set by a flag.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagValue {
    /// The key.
    pub key: &'static Key,
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// What was given.
    pub value: String,
}

/// All that was given, unread.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources {
    /// The file, if one was named.
    pub file: Option<FileText>,
    /// The environment; only names that begin with `SCALESET_MEDIC_` matter, and empty values count as not given.
    pub env: BTreeMap<String, String>,
    /// The flags that set a key.
    pub flags: Vec<FlagValue>,
}

impl Sources {
    /// Reads the file named by `--config`, else by `SCALESET_MEDIC_CONFIG`, else none. The error is a report of
    /// one mistake: the file cannot be read.
    pub fn open(
        config_flag: Option<&Path>,
        env: BTreeMap<String, String>,
        flags: Vec<FlagValue>,
    ) -> Result<Self, Report> {
        let named = match config_flag {
            Some(path) => Some((path.to_path_buf(), Origin::Flag("--config"))),
            None => env
                .get(CONFIG_ENV)
                .filter(|value| !value.is_empty())
                .map(|value| (value.into(), Origin::Env(CONFIG_ENV.into()))),
        };
        let file = match named {
            Some((path, origin)) => Some(read_file(&path, origin)?),
            None => None,
        };
        Ok(Self { file, env, flags })
    }
}

fn read_file(path: &Path, origin: Origin) -> Result<FileText, Report> {
    let name = path.display().to_string();
    let (what, mend) = match read_bounded(path, FILE_BYTES_MAX) {
        Ok(Some(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(FileText { name, text }),
            Err(_) => (format!("{name} is not UTF-8 text"), "save it as UTF-8".to_owned()),
        },
        Ok(None) => (
            format!("{name} is longer than {FILE_BYTES_MAX} bytes"),
            "check that this is the configuration file".to_owned(),
        ),
        Err(error) => {
            (format!("cannot read {name}: {error}"), "check the path, and that this user may read the file".to_owned())
        }
    };
    Err(Report::one(Mistake { origin, key: String::new(), what, mend }))
}
