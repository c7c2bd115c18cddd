//! Typed values out of a raw table: the default where nothing was given, a mistake where the value does not fit.
//! Every value read is kept with its origin for `config print`.

use super::keys::{Key, Kind, Need};
use super::raw::{Given, Table, Value};
use super::report::{Mistake, Origin, nearest};
use medic_core::model::Span;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A value in effect, as `config print` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The key.
    pub key: &'static str,
    /// The value in TOML; absent when not set.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Reads one table. A value that does not fit is reported, and the default stands in for it so that the rest can
/// be checked too.
pub(super) struct Reader<'a> {
    table: &'a Table,
    mistakes: &'a mut Vec<Mistake>,
    pub(super) effective: Vec<Effective>,
    refused: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(table: &'a Table, mistakes: &'a mut Vec<Mistake>) -> Self {
        Self { table, mistakes, effective: Vec::new(), refused: BTreeSet::new() }
    }

    /// Where a key was given, else where its table begins.
    pub(super) fn origin(&self, key: &Key) -> Origin {
        self.table.given.get(key.name).map_or_else(|| self.table.origin.clone(), |given| given.origin.clone())
    }

    /// Whether a key was given.
    pub(super) fn is_given(&self, key: &Key) -> bool {
        self.table.given.contains_key(key.name)
    }

    /// Whether a key has a value that may be compared with others.
    pub(super) fn is_sound(&self, key: &Key) -> bool {
        !self.refused.contains(key.name)
    }

    /// Reports a mistake about a key.
    pub(super) fn wrong(&mut self, key: &Key, what: impl Into<String>, mend: impl Into<String>) {
        self.refused.insert(key.name);
        let origin = self.origin(key);
        self.mistakes.push(Mistake { origin, key: key.dotted(), what: what.into(), mend: mend.into() });
    }

    fn keep(&mut self, key: &Key, value: Option<String>, origin: Origin) {
        self.effective.push(Effective { key: key.name, value, origin });
    }

    /// The value of a key by `read`, which says what is wrong otherwise; `None` when it was not given or is wrong.
    fn read<T>(&mut self, key: &Key, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let table = self.table;
        match table.given.get(key.name) {
            Some(Given { value, .. }) => match read(value) {
                Ok(value) => return Some(value),
                Err(what) => self.wrong(key, what, mend(key.kind)),
            },
            None if key.need == Need::Required => {
                self.wrong(key, format!("`{}` is missing", key.name), format!("add `{} = …`: {}", key.name, key.doc));
            }
            None => {}
        }
        None
    }

    /// Reads a key that has a default, and keeps it for printing.
    fn with_default<T>(
        &mut self,
        key: &Key,
        default: T,
        read: impl FnOnce(&Value) -> Result<T, String>,
        shown: impl FnOnce(&T) -> String,
    ) -> T {
        let given = self.read(key, read);
        let origin = if given.is_some() { self.origin(key) } else { Origin::Default };
        let value = given.unwrap_or(default);
        self.keep(key, Some(shown(&value)), origin);
        value
    }

    /// Reads a key without a default, and keeps it for printing.
    fn without_default<T>(
        &mut self,
        key: &Key,
        read: impl FnOnce(&Value) -> Result<T, String>,
        shown: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let value = self.read(key, read);
        let origin = if value.is_some() { self.origin(key) } else { Origin::Nowhere };
        self.keep(key, value.as_ref().map(shown), origin);
        value
    }

    pub(super) fn span(&mut self, key: &Key, default: Span) -> Span {
        self.with_default(key, default, |value| span(key.kind, value), |shown| show_span(*shown))
    }

    /// A span whose default follows another key, which must be read before: `followed` stands in for `default`
    /// where that key asks for it.
    pub(super) fn span_following(&mut self, key: &Key, default: Span, followed: Span, leader: &'static Key) -> Span {
        let value = self.span(key, followed);
        if followed != default
            && let Some(last) = self.effective.last_mut()
            && last.origin == Origin::Default
        {
            last.origin = Origin::Follows(leader.name);
        }
        value
    }

    pub(super) fn spans(&mut self, key: &Key, default: Vec<Span>) -> Vec<Span> {
        self.with_default(
            key,
            default,
            |value| spans(key.kind, value),
            |spans| show_list(spans.iter().copied().map(show_span)),
        )
    }

    pub(super) fn count(&mut self, key: &Key, default: u32) -> u32 {
        self.with_default(
            key,
            default,
            |value| count(key.kind, value).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            ToString::to_string,
        )
    }

    pub(super) fn share(&mut self, key: &Key, default: f64) -> f64 {
        self.with_default(key, default, |value| share(key.kind, value), |share| format!("{share:?}"))
    }

    /// A share whose default is 0 where another key is given: who names a number gets no more than that.
    pub(super) fn share_unless(&mut self, key: &Key, default: f64, other: &'static Key) -> f64 {
        let named = self.table.given.contains_key(other.name);
        let value = self.share(key, if named { 0.0 } else { default });
        if named
            && let Some(last) = self.effective.last_mut()
            && last.origin == Origin::Default
        {
            last.origin = Origin::Follows(other.name);
        }
        value
    }

    pub(super) fn boolean(&mut self, key: &Key, default: bool) -> bool {
        let read = |value: &Value| match value {
            Value::Boolean(flag) => Ok(*flag),
            other => Err(mistyped(key.kind, other)),
        };
        self.with_default(key, default, read, ToString::to_string)
    }

    /// One of a closed set of words.
    pub(super) fn choice<T: Copy>(&mut self, key: &Key, default: T, words: &[(&'static str, T)]) -> T {
        let read = |value: &Value| match value {
            Value::Text(text) => words.iter().find(|(word, _)| word == text).map(|(_, one)| *one).ok_or_else(|| {
                match nearest(text, words.iter().map(|(word, _)| *word)) {
                    Some(near) => format!("{} is not known; did you mean \"{near}\"?", show_text(text)),
                    None => format!("{} is not known", show_text(text)),
                }
            }),
            other => Err(mistyped(key.kind, other)),
        };
        let given = self.read(key, read);
        let default_word = words.first().map_or("", |(word, _)| *word);
        let (value, shown, origin) = match (given, self.table.given.get(key.name)) {
            (Some(value), Some(Given { value: Value::Text(text), origin })) => (value, text.clone(), origin.clone()),
            _ => (default, default_word.to_owned(), Origin::Default),
        };
        self.keep(key, Some(show_text(&shown)), origin);
        value
    }

    pub(super) fn text(&mut self, key: &Key) -> Option<String> {
        self.without_default(key, |value| text(key.kind, value), |text| show_text(text))
    }

    pub(super) fn text_or(&mut self, key: &Key, default: &str) -> String {
        self.with_default(key, default.to_owned(), |value| text(key.kind, value), |text| show_text(text))
    }

    pub(super) fn path(&mut self, key: &Key) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    pub(super) fn number(&mut self, key: &Key) -> Option<u64> {
        self.without_default(key, |value| count(key.kind, value), ToString::to_string)
    }

    pub(super) fn names(&mut self, key: &Key) -> Vec<String> {
        let read = |value: &Value| match value {
            Value::List(items) => items.iter().map(|item| text(key.kind, item)).collect(),
            other => Err(mistyped(key.kind, other)),
        };
        self.with_default(key, Vec::new(), read, |names: &Vec<String>| {
            show_list(names.iter().map(|name| show_text(name)))
        })
    }

    /// A text that means something more; `parse` says what is wrong with it.
    pub(super) fn parsed<T>(
        &mut self,
        key: &Key,
        parse: impl FnOnce(&str) -> Result<T, String>,
        shown: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        self.without_default(key, |value| parse(&text(key.kind, value)?), shown)
    }

    /// The same, with a default.
    pub(super) fn parsed_or<T>(
        &mut self,
        key: &Key,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
        shown: impl FnOnce(&T) -> String,
    ) -> T {
        self.with_default(key, default, |value| parse(&text(key.kind, value)?), shown)
    }
}

fn text(kind: Kind, value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) if text.trim().is_empty() => Err("it is blank".into()),
        Value::Text(text) if text.contains(char::is_control) => Err("it contains a control character".into()),
        Value::Text(text) => Ok(text.clone()),
        other => Err(mistyped(kind, other)),
    }
}

fn span(kind: Kind, value: &Value) -> Result<Span, String> {
    let (Kind::Span(least, most) | Kind::Spans(least, most)) = kind else { return Err(mistyped(kind, value)) };
    let Value::Text(text) = value else { return Err(mistyped(kind, value)) };
    let duration = humantime::parse_duration(text.trim())
        .map_err(|error| format!("{} is not a duration: {error}", show_text(text)))?;
    let span = Span::from(duration);
    if span == Span::ZERO && least > Span::ZERO {
        Err("zero is not allowed; it never means unlimited".into())
    } else if span < least || span > most {
        Err(format!("{} is out of bounds", show_text(text)))
    } else {
        Ok(span)
    }
}

fn spans(kind: Kind, value: &Value) -> Result<Vec<Span>, String> {
    let Value::List(items) = value else { return Err(mistyped(kind, value)) };
    if items.is_empty() {
        return Err("the list is empty".into());
    }
    let spans = items.iter().map(|item| span(kind, item)).collect::<Result<Vec<_>, _>>()?;
    if spans.is_sorted() { Ok(spans) } else { Err("a wait is shorter than the one before it".into()) }
}

fn count(kind: Kind, value: &Value) -> Result<u64, String> {
    let Kind::Count(least, most) = kind else { return Err(mistyped(kind, value)) };
    match value {
        Value::Integer(0) if least > 0 => Err("zero is not allowed; it never means unlimited".into()),
        Value::Integer(number) => match u64::try_from(*number) {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(format!("{number} is out of bounds")),
        },
        other => Err(mistyped(kind, other)),
    }
}

fn share(kind: Kind, value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(0) => 0.0,
        Value::Integer(1) => 1.0,
        Value::Integer(number) => return Err(format!("{number} is out of bounds")),
        other => return Err(mistyped(kind, other)),
    };
    let fits = (0.0..=1.0).contains(&number) && !(kind == Kind::Part && number >= 1.0);
    if fits { Ok(number) } else { Err(format!("{number} is out of bounds")) }
}

fn mistyped(kind: Kind, value: &Value) -> String {
    let wanted = match kind {
        Kind::Span(..) => "a duration in quotes",
        Kind::Spans(..) => "a list of durations",
        Kind::Count(..) => "a whole number",
        Kind::Part | Kind::Share => "a number",
        Kind::Boolean => "true or false",
        Kind::Names => "a list of strings",
        Kind::Choice(_)
        | Kind::Name
        | Kind::Text
        | Kind::Url
        | Kind::Listen
        | Kind::Path
        | Kind::SecretFile
        | Kind::Filter => "a string",
    };
    format!("{wanted} is needed, not {}", value.type_name())
}

/// How to write a value of this kind.
fn mend(kind: Kind) -> String {
    match kind {
        Kind::Span(least, most) => format!(
            "write a duration with its unit, such as \"15s\" or \"5m\", from {} to {}",
            plain_span(least),
            plain_span(most)
        ),
        Kind::Spans(least, most) => format!(
            "write a rising list of durations, such as [\"5m\", \"15m\"], each from {} to {}",
            plain_span(least),
            plain_span(most)
        ),
        Kind::Count(least, most) => format!("write a whole number from {least} to {most}, without quotes"),
        Kind::Part => "write a number from 0.0 up to, but not including, 1.0".into(),
        Kind::Share => "write a number from 0.0 to 1.0".into(),
        Kind::Boolean => "write true or false, without quotes".into(),
        Kind::Choice(words) => format!("write one of \"{}\"", words.join("\", \"")),
        Kind::Name => "write up to 64 letters, digits, dots, dashes and underscores".into(),
        Kind::Text => "write a text in quotes".into(),
        Kind::Url => "write the server's root address, such as \"http://127.0.0.1:9997\"".into(),
        Kind::Listen => "write an IP address and a port, such as \"0.0.0.0:9810\" or \"[::1]:9810\"".into(),
        Kind::Path => "write a path in quotes".into(),
        Kind::SecretFile => "write the path of a file that holds the secret, in quotes".into(),
        Kind::Filter => {
            "write error, warn, info, debug, trace or off, or levels by target such as \"info,scaleset_medic::treat=debug\""
                .into()
        }
        Kind::Names => "write a list of texts, such as [\"acme\", \"acme/app\"]".into(),
    }
}

/// A text in TOML.
pub(super) fn show_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A duration as it is written in the file.
pub(super) fn plain_span(span: Span) -> String {
    humantime::format_duration(span.into()).to_string()
}

fn show_span(span: Span) -> String {
    format!("\"{}\"", plain_span(span))
}

fn show_list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}
