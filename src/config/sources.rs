//! The file, the environment and the flags, as given: values without meaning yet, each with its origin. Mistakes of
//! shape (syntax, unknown tables and keys) are found here; mistakes in values are found by [`super::check`].
//!
//! The spanned tree of the TOML parser is walked rather than derived with serde, because a derived reader stops at its
//! first mistake. A syntax error is reported by line and message only: the line itself may hold a secret.

use super::Section;
use super::kind::from_text;
use super::report::{Mistake, Origin, Report, nearest};
use medic_core::settings::{ENV_PREFIX, Key};
use medic_http::file::read_bounded;
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

pub const CONFIG_ENV: &str = "SCALESET_MEDIC_CONFIG";

const FILE_BYTES_MAX: usize = 1024 * 1024;
/// More tables of one name than this are a mistake.
const REPEATS_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// As it was named: what reports repeat.
    pub name: String,
    pub text: String,
}

#[derive(Debug, Clone)]
pub struct FlagValue {
    pub section: Section,
    pub key: &'static str,
    /// The flag, with its dashes.
    pub flag: &'static str,
    pub value: String,
}

/// All that was given, not yet read. A test passes it in; nothing here reads the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<FileText>,
    /// Only names that begin with `SCALESET_MEDIC_` matter, and empty values count as not given.
    pub env: BTreeMap<String, String>,
    pub flags: Vec<FlagValue>,
}

impl Sources {
    pub fn of_text(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: Some(FileText { name: name.into(), text: text.into() }), ..Self::default() }
    }

    /// Reads the file named by `--config`, else by `SCALESET_MEDIC_CONFIG`, else none.
    pub fn open(
        config_flag: Option<&Path>,
        env: BTreeMap<String, String>,
        flags: Vec<FlagValue>,
    ) -> Result<Self, Report> {
        let by_env = env.get(CONFIG_ENV).filter(|value| !value.is_empty()).map(Path::new);
        let file = match (config_flag, by_env) {
            (Some(path), _) => Some(read_file(path, Origin::Flag("--config"))?),
            (None, Some(path)) => Some(read_file(path, Origin::Env(CONFIG_ENV.into()))?),
            (None, None) => None,
        };
        Ok(Self { file, env, flags })
    }
}

fn read_file(path: &Path, origin: Origin) -> Result<FileText, Report> {
    let name = path.display().to_string();
    let (what, fix) = match read_bounded(path, FILE_BYTES_MAX) {
        Ok(Some(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(FileText { name, text }),
            Err(_) => (format!("{name} is not UTF-8 text"), "save it as UTF-8"),
        },
        Ok(None) => {
            (format!("{name} is longer than {FILE_BYTES_MAX} bytes"), "check that this is the configuration file")
        }
        Err(error) => (format!("cannot read {name}: {error}"), "check the path, and that this user may read the file"),
    };
    Err(Report::one(Mistake::new(origin, "", what, fix)))
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// One table: what was given for its keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    pub(super) section: Section,
    pub(super) origin: Origin,
    pub(super) given: BTreeMap<&'static str, Given>,
}

impl Table {
    const fn new(section: Section, origin: Origin) -> Self {
        Self { section, origin, given: BTreeMap::new() }
    }
}

/// Everything that was given, by table.
pub(super) struct Tables {
    by_section: BTreeMap<Section, Vec<Table>>,
    /// Where a missing table would have been.
    pub(super) origin: Origin,
    pub(super) mistakes: Vec<Mistake>,
    /// Whether the text is TOML; if not, checking values would only add noise.
    pub(super) parsed: bool,
}

impl Tables {
    /// Reads all sources, the stronger over the weaker.
    pub(super) fn read(sources: &Sources) -> Self {
        let origin = sources.file.as_ref().map_or(Origin::Nowhere, |file| file.at(0));
        let mut all = Self { by_section: BTreeMap::new(), origin, mistakes: Vec::new(), parsed: true };
        if let Some(file) = &sources.file {
            all.read_file(file);
        }
        all.read_env(&sources.env);
        for flag in &sources.flags {
            match flag.section.key(flag.key) {
                Some(key) => all.overlay(flag.section, key, &flag.value, Origin::Flag(flag.flag)),
                None => all.unknown_key(Origin::Flag(flag.flag), flag.section, flag.key),
            }
        }
        all
    }

    /// The tables of a section, in the order of the file; one that is empty where a section that does not repeat was
    /// not given.
    pub(super) fn of(&self, section: Section) -> Vec<Table> {
        match self.by_section.get(&section) {
            Some(tables) => tables.clone(),
            None if section.repeats() => Vec::new(),
            None => vec![Table::new(section, self.origin.clone())],
        }
    }

    fn mistake(&mut self, origin: Origin, key: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) {
        self.mistakes.push(Mistake::new(origin, key, what, fix));
    }

    fn read_file(&mut self, file: &FileText) {
        let (document, errors) = DeTable::parse_recoverable(&file.text);
        for error in &errors {
            self.parsed = false;
            let message = error.message().lines().next().unwrap_or("not TOML");
            let origin = file.at(error.span().map_or(0, |span| span.start));
            let fix = "write `key = value` lines under [section] headers, texts in quotes";
            self.mistake(origin, "", format!("not valid TOML: {message}"), fix);
        }
        if !self.parsed {
            return;
        }
        for (name, value) in document.get_ref() {
            let origin = file.at(name.span().start);
            let Ok(section) = name.get_ref().parse::<Section>() else {
                self.unknown_top(origin, name.get_ref(), value.get_ref());
                continue;
            };
            match (section.repeats(), value.get_ref()) {
                (false, DeValue::Table(table)) => self.read_table(file, section, origin, table),
                (true, DeValue::Array(items)) if items.len() > REPEATS_MAX => {
                    let what = format!("{} {} tables are too many", items.len(), section.header());
                    self.mistake(origin, "", what, format!("use at most {REPEATS_MAX}"));
                }
                (true, DeValue::Array(items)) if items.iter().all(|item| item.get_ref().is_table()) => {
                    for item in items {
                        if let DeValue::Table(table) = item.get_ref() {
                            self.read_table(file, section, file.at(item.span().start), table);
                        }
                    }
                }
                _ => {
                    let what = format!("`{section}` is not written as a table");
                    self.mistake(origin, section.as_str(), what, format!("write {}", section.header()));
                }
            }
        }
    }

    fn read_table(&mut self, file: &FileText, section: Section, origin: Origin, table: &DeTable<'_>) {
        let mut read = Table::new(section, origin);
        for (name, value) in table {
            let origin = file.at(name.span().start);
            match section.key(name.get_ref()) {
                Some(key) => drop(read.given.insert(key.name, Given { value: from_toml(value), origin })),
                None => self.unknown_key(origin, section, name.get_ref()),
            }
        }
        self.by_section.entry(section).or_default().push(read);
    }

    fn unknown_top(&mut self, origin: Origin, name: &str, value: &DeValue<'_>) {
        let home = Section::ALL.iter().find(|section| section.key(name).is_some());
        let meant = nearest(name, Section::ALL.iter().map(|section| section.as_str()));
        let fix = match (home, meant.and_then(|near| near.parse::<Section>().ok())) {
            (Some(home), _) if !value.is_table() => format!("move it under {}", home.header()),
            (_, Some(meant)) => format!("did you mean {}?", meant.header()),
            _ => {
                let all: Vec<_> = Section::ALL.iter().map(|section| section.header()).collect();
                format!("the tables are {}", all.join(", "))
            }
        };
        let what = if value.is_table() || value.is_array() { "unknown table" } else { "key outside of any table" };
        self.mistake(origin, shorten(name), what, fix);
    }

    fn unknown_key(&mut self, origin: Origin, section: Section, name: &str) {
        let key = format!("{section}.{}", shorten(name));
        if let Some(file_key) = secret_in_place(section, name) {
            let fix = format!("put it into a file of its own and name that file with `{file_key}`");
            self.mistake(origin, key, "a secret must not be in the configuration", fix);
            return;
        }
        let names = || section.keys().iter().map(|key| key.name);
        let elsewhere = Section::ALL.iter().find(|other| other.key(name).is_some());
        let fix = match (nearest(name, names()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(other)) => format!("move it under {}", other.header()),
            (None, None) => {
                format!("the keys of {} are {}", section.header(), names().collect::<Vec<_>>().join(", "))
            }
        };
        self.mistake(origin, key, "unknown key", fix);
    }

    fn read_env(&mut self, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            if value.is_empty() || name == CONFIG_ENV || is_service_link(rest) {
                continue;
            }
            let rest = rest.to_lowercase();
            let parts = rest.split_once('_').and_then(|(table, key)| Some((table.parse::<Section>().ok()?, key)));
            let origin = Origin::Env(name.clone());
            let Some((section, key_name)) = parts else {
                let fix = format!("write {ENV_PREFIX}TABLE_KEY, for example {ENV_PREFIX}RUN_MODE");
                self.mistake(origin, "", "sets no known key", fix);
                continue;
            };
            match section.key(key_name) {
                Some(key) => self.overlay(section, key, value, origin),
                None => self.unknown_key(origin, section, key_name),
            }
        }
    }

    /// Sets a key over what the file says. A repeated table can only be meant when there is at most one of it.
    fn overlay(&mut self, section: Section, key: &'static Key, text: &str, origin: Origin) {
        let tables = self.by_section.entry(section).or_default();
        if tables.is_empty() {
            tables.push(Table::new(section, origin.clone()));
        }
        if let [table] = tables.as_mut_slice() {
            table.given.insert(key.name, Given { value: from_text(key.takes.kind, text), origin });
        } else {
            let what = format!("there are {} {} tables, and this does not say which", tables.len(), section.header());
            self.mistake(origin, key.dotted(), what, "set it in the file");
        }
    }
}

/// Kubernetes sets such variables for a Service called `scaleset-medic`; they are not ours.
fn is_service_link(rest: &str) -> bool {
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

/// The key to use for a secret that somebody wrote into the file itself.
fn secret_in_place(section: Section, name: &str) -> Option<&'static str> {
    match (section, name) {
        (Section::Manager, "password" | "pass" | "secret" | "token") => Some("password_file"),
        (Section::Github, "token" | "pat" | "password" | "secret") => Some("token_file"),
        (Section::Github, "private_key" | "key" | "pem") => Some("private_key_file"),
        _ => None,
    }
}

/// A name as given, short enough for a report and without control characters.
fn shorten(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `null` for a number that JSON cannot hold.
fn from_toml(value: &Spanned<DeValue<'_>>) -> Value {
    Value::deserialize(ValueDeserializer::from(value.clone())).unwrap_or_default()
}

impl FileText {
    fn at(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        Origin::File { name: self.name.clone(), line: before.split(|byte| *byte == b'\n').count() }
    }
}
