//! The file, the environment and the flags as typed by a person: values without meaning yet, each with its origin.
//! Finds what is wrong with the *shape* (syntax, unknown tables and keys); what is wrong with values is
//! [`super::check`]'s.
//!
//! The spanned tree of the TOML parser is walked rather than derived with serde, because a derived reader stops at
//! its first mistake. A syntax error is told by line and message only: the line itself may hold a secret.

use super::keys::{ENV_PREFIX, Key, Kind, Section};
use super::report::{Mistake, Origin, nearest};
use super::source::{CONFIG_ENV, FileText, Sources};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// More tables of one name than this are a mistake.
const REPEATS_MAX: usize = 1000;

/// A value as it was typed.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number that fits.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list.
    List(Vec<Value>),
    /// Anything that no key takes; its TOML type.
    Odd(&'static str),
}

impl Value {
    /// Its type, in a person's terms.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Odd(name) => name,
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// What was typed.
    pub value: Value,
    /// Where.
    pub origin: Origin,
}

/// One table: what was given for its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Which.
    pub section: Section,
    /// Where it begins.
    pub origin: Origin,
    /// Values by key name.
    pub given: BTreeMap<&'static str, Given>,
}

impl Table {
    const fn new(section: Section, origin: Origin) -> Self {
        Self { section, origin, given: BTreeMap::new() }
    }
}

/// Everything that was given, by table.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    tables: BTreeMap<Section, Vec<Table>>,
    /// Where a missing table would have been.
    pub origin: Origin,
    /// What is wrong with the shape.
    pub mistakes: Vec<Mistake>,
    /// Whether the text could be parsed at all; if not, checking values would only add noise.
    pub parsed: bool,
}

impl Raw {
    /// Reads all sources, the stronger over the weaker.
    #[must_use]
    pub fn read(sources: &Sources) -> Self {
        let origin = match &sources.file {
            Some(file) => Origin::File { name: file.name.clone(), line: 1 },
            None => Origin::Nowhere,
        };
        let mut raw = Self { tables: BTreeMap::new(), origin, mistakes: Vec::new(), parsed: true };
        if let Some(file) = &sources.file {
            raw.read_file(file);
        }
        raw.read_env(&sources.env);
        for flag in &sources.flags {
            let given = Given { value: from_text(flag.key.kind, &flag.value), origin: Origin::Flag(flag.flag) };
            raw.overlay(flag.key, given);
        }
        raw
    }

    /// The tables of a repeated section, in the order of the file.
    #[must_use]
    pub fn all(&self, section: Section) -> &[Table] {
        self.tables.get(&section).map_or(&[], Vec::as_slice)
    }

    /// The table of a section that is not repeated; empty when it was not given.
    #[must_use]
    pub fn only(&self, section: Section) -> Table {
        self.all(section).first().cloned().unwrap_or_else(|| Table::new(section, self.origin.clone()))
    }

    fn mistake(&mut self, origin: Origin, key: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) {
        self.mistakes.push(Mistake { origin, key: key.into(), what: what.into(), mend: mend.into() });
    }

    fn read_file(&mut self, file: &FileText) {
        let (document, errors) = DeTable::parse_recoverable(&file.text);
        let lines = Lines { file };
        for error in &errors {
            self.parsed = false;
            let message = error.message().lines().next().unwrap_or("not TOML");
            self.mistake(
                lines.at(error.span().map_or(0, |span| span.start)),
                "",
                format!("not valid TOML: {message}"),
                "write `key = value` lines under [section] headers, texts in quotes",
            );
        }
        if !self.parsed {
            return;
        }
        for (name, value) in document.get_ref() {
            let origin = lines.at(name.span().start);
            let Ok(section) = name.get_ref().parse::<Section>() else {
                self.unknown_top(origin, name.get_ref(), value.get_ref());
                continue;
            };
            match (section.repeats(), value.get_ref()) {
                (false, DeValue::Table(table)) => self.read_table(&lines, section, origin, table),
                (true, DeValue::Array(items)) if items.iter().all(|item| item.get_ref().is_table()) => {
                    if items.len() > REPEATS_MAX {
                        let mend = format!("at most {REPEATS_MAX} are taken");
                        self.mistake(origin, "", format!("{} tables {}", items.len(), section.header()), mend);
                        continue;
                    }
                    for item in items {
                        if let DeValue::Table(table) = item.get_ref() {
                            self.read_table(&lines, section, lines.at(item.span().start), table);
                        }
                    }
                }
                _ => {
                    let what = format!("`{section}` is not written as its table");
                    self.mistake(origin, section.as_str(), what, format!("write {}", section.header()));
                }
            }
        }
    }

    fn read_table(&mut self, lines: &Lines<'_>, section: Section, origin: Origin, table: &DeTable<'_>) {
        let mut read = Table::new(section, origin);
        for (name, value) in table {
            let origin = lines.at(name.span().start);
            match section.key(name.get_ref()) {
                Some(key) => {
                    read.given.insert(key.name, Given { value: from_toml(value), origin });
                }
                None => self.unknown_key(origin, section, name.get_ref()),
            }
        }
        self.tables.entry(section).or_default().push(read);
    }

    fn unknown_top(&mut self, origin: Origin, name: &str, value: &DeValue<'_>) {
        let shown = shorten(name);
        let sections = || Section::ALL.iter().map(|section| section.as_str());
        let home = Section::ALL.iter().find(|section| section.key(name).is_some());
        let meant = nearest(name, sections()).and_then(|near| near.parse::<Section>().ok());
        let mend = match (home, meant) {
            (Some(home), _) if !value.is_table() => format!("it belongs under {}", home.header()),
            (_, Some(meant)) => format!("did you mean {}?", meant.header()),
            _ => format!(
                "the tables are {}",
                Section::ALL.iter().map(|section| section.header()).collect::<Vec<_>>().join(", ")
            ),
        };
        let what = if value.is_table() || value.is_array() { "unknown table" } else { "key outside of any table" };
        self.mistake(origin, shown, what, mend);
    }

    fn unknown_key(&mut self, origin: Origin, section: Section, name: &str) {
        let key = format!("{section}.{}", shorten(name));
        if let Some(file_key) = secret_in_place(section, name) {
            self.mistake(
                origin,
                key,
                "a secret does not belong into the configuration",
                format!("put it into a file of its own and name that file with `{file_key}`"),
            );
            return;
        }
        let names = || section.keys().iter().map(|key| key.name);
        let elsewhere = Section::ALL.iter().find(|other| other.key(name).is_some());
        let mend = match (nearest(name, names()), elsewhere) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, Some(other)) => format!("it belongs under {}", other.header()),
            (None, None) => {
                format!("the keys of {} are {}", section.header(), names().collect::<Vec<_>>().join(", "))
            }
        };
        self.mistake(origin, key, "unknown key", mend);
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
            match parts {
                Some((section, key_name)) => match section.key(key_name) {
                    Some(key) => {
                        let given = Given { value: from_text(key.kind, value), origin };
                        self.overlay(key, given);
                    }
                    None => self.unknown_key(origin, section, key_name),
                },
                None => self.mistake(
                    origin,
                    "",
                    "sets no known key",
                    format!("write {ENV_PREFIX}TABLE_KEY, for example {}", super::keys::run::MODE.env()),
                ),
            }
        }
    }

    /// Sets a key over what the file says. A repeated table can only be meant when there is at most one of it.
    fn overlay(&mut self, key: &'static Key, given: Given) {
        let tables = self.tables.entry(key.section).or_default();
        if tables.is_empty() {
            tables.push(Table::new(key.section, given.origin.clone()));
        }
        let count = tables.len();
        match tables.first_mut() {
            Some(table) if count == 1 => {
                table.given.insert(key.name, given);
            }
            _ => self.mistake(
                given.origin,
                key.dotted(),
                format!("there are {count} {} tables, and this cannot say which", key.section.header()),
                "set it in the file",
            ),
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

/// A name that somebody typed, short enough for a report and without control characters.
fn shorten(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn from_toml(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Odd("a number too large"), Value::Integer),
        DeValue::Float(number) => number.as_str().parse().map_or(Value::Odd("a number"), Value::Float),
        DeValue::Array(items) => Value::List(items.iter().map(from_toml).collect()),
        DeValue::Datetime(_) => Value::Odd("a date"),
        DeValue::Table(_) => Value::Odd("a table"),
    }
}

/// The environment and flags know only text; what does not fit stays text and is refused by type later.
fn from_text(kind: Kind, text: &str) -> Value {
    let text = text.trim();
    match kind {
        Kind::Boolean => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Boolean),
        Kind::Count(..) => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
        Kind::Part | Kind::Share => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Float),
        Kind::Spans(..) | Kind::Names => Value::List(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::Text(item.into()))
                .collect(),
        ),
        Kind::Span(..)
        | Kind::Choice(_)
        | Kind::Name
        | Kind::Text
        | Kind::Url
        | Kind::Listen
        | Kind::Path
        | Kind::SecretFile
        | Kind::Filter => Value::Text(text.to_owned()),
    }
}

struct Lines<'a> {
    file: &'a FileText,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> Origin {
        let before = self.file.text.as_bytes().get(..offset).unwrap_or(self.file.text.as_bytes());
        let line = before.split(|byte| *byte == b'\n').count();
        Origin::File { name: self.file.name.clone(), line }
    }
}
