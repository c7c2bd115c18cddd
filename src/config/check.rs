//! Given values become a [`Config`]: each value by its kind, then how values depend on each other and on the machine.
//! All mistakes end up in one [`Report`]; what is merely unwise is a warning.

use super::files::{check_ca, check_key, check_state_dir};
use super::kind::{self, plain_span, quoted};
use super::report::{Mistake, Origin, Report};
use super::sources::{Sources, Table, Tables};
use super::{Config, Section};
use medic_core::model::Span;
use medic_core::settings::{Follows, Key, Kind, Limit, Need};
use medic_http::SecretFile;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// How much of the machine is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Nothing: values only.
    Values,
    /// Secrets and certificates must be readable.
    Files,
    /// Also, the state directory must be writable.
    Machine,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    pub section: Section,
    pub key: &'static str,
    /// The value in TOML; absent when not set.
    pub value: Option<String>,
    pub origin: Origin,
}

/// A configuration without mistakes, with what `config check` and `config print` show about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub config: Config,
    /// Every value in effect, table by table.
    pub effective: Vec<Vec<Effective>>,
    pub warnings: Vec<Mistake>,
}

/// Checks everything that was given.
pub fn check(sources: &Sources, depth: Depth) -> Result<Checked, Report> {
    let tables = Tables::read(sources);
    let mut checker = Checker { depth, mistakes: tables.mistakes.clone(), warnings: Vec::new(), effective: Vec::new() };
    let config = if tables.parsed { checker.config(&tables) } else { None };
    match (Report::of(checker.mistakes), config) {
        (None, Some(config)) => Ok(Checked { config, effective: checker.effective, warnings: checker.warnings }),
        (Some(report), _) => Err(report),
        (None, None) => Err(Report::one(Mistake::new(
            tables.origin,
            "",
            "the configuration is incomplete",
            "compare it with the output of `scaleset-medic config defaults`",
        ))),
    }
}

struct Checker {
    depth: Depth,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    effective: Vec<Vec<Effective>>,
}

impl Checker {
    fn config(&mut self, tables: &Tables) -> Option<Config> {
        let run = self.only(tables, Section::Run);
        let log = self.only(tables, Section::Log);
        let http = self.only(tables, Section::Http);
        let managers = self.all(tables, Section::Manager);
        let github = self.all(tables, Section::Github);
        let policy = self.only(tables, Section::Policy);
        let misspelt = tables.mistakes.iter().any(|mistake| mistake.key == Section::Manager.as_str());
        if tables.of(Section::Manager).is_empty() && !misspelt {
            let fix = "add a [[manager]] table with name, url, username and password_file; a file is named by --config \
                       or SCALESET_MEDIC_CONFIG";
            self.mistakes.push(Mistake::new(tables.origin.clone(), "manager", "no manager is configured", fix));
        }
        self.unique(&tables.of(Section::Manager), "name", "give each manager a name of its own");
        self.unique(&tables.of(Section::Github), "endpoint", "keep one [[github]] table per endpoint");
        Some(Config { run: run?, log: log?, http: http?, managers: managers?, github: github?, policy: policy? })
    }

    fn only<T: DeserializeOwned>(&mut self, tables: &Tables, section: Section) -> Option<T> {
        self.all(tables, section)?.pop()
    }

    fn all<T: DeserializeOwned>(&mut self, tables: &Tables, section: Section) -> Option<Vec<T>> {
        let read: Vec<Option<T>> = tables.of(section).iter().map(|table| self.table(table)).collect();
        read.into_iter().collect()
    }

    fn table<T: DeserializeOwned>(&mut self, table: &Table) -> Option<T> {
        let keys = table.section.keys();
        let mut reader = Reader { table, values: Map::new(), mistakes: Vec::new(), effective: Vec::new() };
        for key in keys {
            reader.read(key);
        }
        for key in keys {
            reader.check_limit(key);
            self.warnings.extend(reader.check_machine(key, self.depth));
        }
        if table.section == Section::Github {
            reader.check_credential();
        }
        let Reader { values, mut mistakes, effective, .. } = reader;
        self.effective.push(effective);
        if mistakes.is_empty() {
            match serde_json::from_value(Value::Object(values)) {
                Ok(read) => return Some(read),
                // A declared type that its kind does not fit; a test reads every kind.
                Err(error) => {
                    let (origin, key) = (table.origin.clone(), table.section.as_str());
                    mistakes.push(Mistake::new(origin, key, error.to_string(), "report this as a bug"));
                }
            }
        }
        self.mistakes.append(&mut mistakes);
        None
    }

    /// A value must be unique among the tables of a section.
    fn unique(&mut self, tables: &[Table], name: &str, fix: &str) {
        let mut seen: BTreeMap<&str, &Origin> = BTreeMap::new();
        for table in tables {
            let Some(given) = table.given.get(name) else { continue };
            let Value::String(text) = &given.value else { continue };
            if let Some(first) = seen.get(text.as_str()) {
                let first =
                    if let Origin::File { line, .. } = first { format!(" (line {line})") } else { String::new() };
                let (key, what) =
                    (format!("{}.{name}", table.section), format!("{} is used twice{first}", quoted(text)));
                self.mistakes.push(Mistake::new(given.origin.clone(), key, what, fix));
            } else {
                seen.insert(text, &given.origin);
            }
        }
    }
}

/// Reads one table, in the order of its keys. The default stands in for a value that does not fit, so that the rest can
/// be checked too.
struct Reader<'a> {
    table: &'a Table,
    values: Map<String, Value>,
    mistakes: Vec<Mistake>,
    effective: Vec<Effective>,
}

impl Reader<'_> {
    fn is_given(&self, name: &str) -> bool {
        self.table.given.contains_key(name)
    }

    fn span(&self, name: &str) -> Span {
        Span(self.values.get(name).and_then(Value::as_u64).unwrap_or_default())
    }

    /// A remark about a key, at the place where it was given, or where its table begins.
    fn remark(&self, key: &Key, what: String, fix: String) -> Mistake {
        let given = self.table.given.get(key.name);
        let origin = given.map_or_else(|| self.table.origin.clone(), |given| given.origin.clone());
        Mistake { origin, key: key.dotted(), what, fix }
    }

    fn wrong(&mut self, key: &Key, what: impl Into<String>, fix: impl Into<String>) {
        let mistake = self.remark(key, what.into(), fix.into());
        self.mistakes.push(mistake);
    }

    /// Whether a key has a value that may be compared with others.
    fn is_sound(&self, name: &str) -> bool {
        let dotted = format!("{}.{name}", self.table.section);
        self.mistakes.iter().all(|mistake| mistake.key != dotted)
    }

    fn read(&mut self, key: &'static Key) {
        let (table, kind) = (self.table, key.takes.kind);
        let (value, origin) = match table.given.get(key.name).map(|given| (kind::read(kind, &given.value), given)) {
            Some((Ok(value), given)) => (Some(value), given.origin.clone()),
            Some((Err(what), _)) => {
                self.wrong(key, what, kind::fix(kind));
                self.default(key)
            }
            None => {
                if let Need::Required(example) = key.need {
                    let fix = format!("add `{} = {}`: {}", key.name, quoted(example), key.doc);
                    self.wrong(key, format!("`{}` is missing", key.name), fix);
                }
                self.default(key)
            }
        };
        let shown = value.as_ref().map(|value| kind::toml(kind, value));
        self.effective.push(Effective { section: self.table.section, key: key.name, value: shown, origin });
        self.values.extend(value.map(|value| (key.name.to_owned(), value)));
    }

    fn default(&self, key: &Key) -> (Option<Value>, Origin) {
        let Some(default) = key.default() else { return (None, Origin::Nowhere) };
        let usual = Span(default.as_u64().unwrap_or_default());
        let value = match key.takes.follows {
            None => return (Some(default), Origin::Default),
            Some(Follows::Capped(leader)) => json!(usual.min(self.span(leader))),
            Some(Follows::Above(leader)) => {
                let of_leader = self.table.section.key(leader).and_then(Key::default).and_then(|value| value.as_u64());
                json!(self.span(leader).plus(usual.minus(Span(of_leader.unwrap_or_default()))))
            }
            Some(Follows::ZeroWith(leader)) if self.is_given(leader) => json!(0.0),
            Some(Follows::ZeroWith(_)) => default.clone(),
        };
        let leader = key.takes.follows.map_or("", Follows::leader);
        let origin = if value == default { Origin::Default } else { Origin::Follows(leader) };
        (Some(value), origin)
    }

    /// Refuses two sound durations in the wrong order, at the one that was given.
    fn check_limit(&mut self, low: &'static Key) {
        let (words, high) = match low.takes.limit {
            None => return,
            Some(Limit::AtMost(high)) => ("at most", high),
            Some(Limit::Below(high)) => ("less than", high),
        };
        let Some(high) = self.table.section.key(high) else { return };
        let (low_span, high_span) = (self.span(low.name), self.span(high.name));
        let holds = low_span < high_span || (words == "at most" && low_span == high_span);
        if holds || !self.is_sound(low.name) || !self.is_sound(high.name) {
            return;
        }
        let (low_text, high_text) = (plain_span(low_span), plain_span(high_span));
        let fix = format!("lower {} or raise {}", low.name, high.name);
        if self.is_given(low.name) {
            let what = format!("{low_text} contradicts {} = {high_text}: it must be {words} that", high.name);
            self.wrong(low, what, fix);
        } else {
            let what = format!("{high_text} contradicts {} = {low_text}, which must be {words} that", low.name);
            self.wrong(high, what, fix);
        }
    }

    /// Checks what a path leads to. A secret that everybody may read is a warning.
    fn check_machine(&mut self, key: &'static Key, depth: Depth) -> Option<Mistake> {
        let kind = key.takes.kind;
        let path = Path::new(self.values.get(key.name)?.as_str()?);
        let secret = SecretFile::new(path);
        let read = match kind {
            Kind::SecretFile if depth >= Depth::Files => secret.load().map(drop).map_err(|error| error.to_string()),
            Kind::KeyFile if depth >= Depth::Files => {
                secret.load().map_err(|error| error.to_string()).and_then(|secret| check_key(&secret))
            }
            Kind::Certificates if depth >= Depth::Files => check_ca(path),
            Kind::StateDir if depth >= Depth::Machine => check_state_dir(path),
            _ => return None,
        };
        match read {
            Err(what) => self.wrong(key, what, kind::fix(kind)),
            Ok(()) if matches!(kind, Kind::SecretFile | Kind::KeyFile) && secret.is_world_readable() => {
                let what = format!("every user of this machine can read {}", path.display());
                return Some(self.remark(key, what, "chmod o-r, or a mode of 0400 on the mounted secret".into()));
            }
            Ok(()) => {}
        }
        None
    }

    /// A token, or all three keys of an App, and not both.
    fn check_credential(&mut self) {
        let app = ["app_id", "installation_id", "private_key_file"];
        let (given, missing): (Vec<_>, Vec<_>) = app.into_iter().partition(|name| self.is_given(name));
        let (name, what, fix) = match (self.is_given("token_file"), given.is_empty(), missing.first()) {
            (true, false, _) => (
                "token_file",
                format!("a token and a GitHub App ({}) are given together", given.join(", ")),
                "keep token_file, or the three keys of the App",
            ),
            (false, true, _) => (
                "token_file",
                "no credential is given".to_owned(),
                "add token_file, or app_id, installation_id and private_key_file",
            ),
            (false, false, Some(first)) => (
                *first,
                format!("the GitHub App lacks {}", missing.join(" and ")),
                "an App needs all three of its keys",
            ),
            (true, true, _) | (false, false, None) => return,
        };
        if let Some(key) = Section::Github.key(name) {
            self.wrong(key, what, fix);
        }
    }
}
