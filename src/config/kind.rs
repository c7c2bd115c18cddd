//! What each [`Kind`] of value takes: how it is read, written and described.
//!
//! A value that was read is kept in the form in which its setting is serialized: a duration as its milliseconds, the
//! rest as it is written.

use super::report::nearest;
use medic_core::model::Span;
use medic_core::settings::Kind;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

pub struct Words {
    pub noun: &'static str,
    /// What is allowed.
    pub bounds: String,
    /// How to write it: the rest of the sentence `use BOUNDS`.
    hint: &'static str,
}

pub fn words(kind: Kind) -> Words {
    const NUMBER: &str = ", without quotes";
    let range = |least, most| format!("{} to {}", plain_span(least), plain_span(most));
    let fixed = |noun, bounds: &str, hint| (noun, bounds.to_owned(), hint);
    let (noun, bounds, hint) = match kind {
        Kind::Span(least, most) => ("duration", range(least, most), r#", for example "15s" or "5m""#),
        Kind::Spans(least, most) => {
            let bounds = format!("at least one, each {}, none shorter than the one before", range(least, most));
            ("list of durations", bounds, r#", for example ["5m", "15m"]"#)
        }
        Kind::Count(least, most) if most > u64::from(u32::MAX) => ("whole number", format!("at least {least}"), NUMBER),
        Kind::Count(least, most) => ("whole number", format!("{least} to {most}"), NUMBER),
        Kind::Part => fixed("number", "0 up to, but not including, 1", NUMBER),
        Kind::Share => fixed("number", "0 to 1", NUMBER),
        Kind::Boolean => fixed("boolean", "true or false", NUMBER),
        Kind::Choice(words) => ("text", format!("\"{}\"", words.join("\" or \"")), ""),
        Kind::Label => fixed("text", "1 to 64 letters, digits, dots, dashes or underscores", ""),
        Kind::Text => fixed("text", "any text that is not blank", ""),
        Kind::Url => {
            let example = r#", for example "http://127.0.0.1:9997""#;
            fixed("URL", "http or https, without user, password and query", example)
        }
        Kind::Listen => {
            let example = r#", for example "0.0.0.0:9810" or "[::1]:9810""#;
            fixed("address and port", "IP:PORT or [IPV6]:PORT", example)
        }
        Kind::Path => fixed("path", "any path", ""),
        Kind::StateDir => fixed("path", "a directory", " that this user can create and write"),
        Kind::Certificates => fixed("path", "a PEM file with at least one certificate", " that this user can read"),
        Kind::SecretFile => {
            fixed("path", "a file of at most 64 KiB", " that holds the secret and that this user can read")
        }
        Kind::KeyFile => fixed("path", "a file with a private key in PEM", " that this user can read"),
        Kind::Levels => {
            let example = r#", for example "info,scaleset_medic=debug,medic_garm=debug""#;
            fixed("log levels", "error, warn, info, debug, trace or off; or levels by target", example)
        }
        Kind::Entities => fixed("list of texts", "names as GARM has them", r#", for example ["acme", "acme/app"]"#),
    };
    Words { noun, bounds, hint }
}

pub(super) fn fix(kind: Kind) -> String {
    let Words { noun, bounds, hint } = words(kind);
    match kind {
        Kind::Span(..) | Kind::Spans(..) | Kind::Count(..) | Kind::Part | Kind::Share => {
            format!("use a {noun}, {bounds}{hint}")
        }
        _ => format!("use {bounds}{hint}"),
    }
}

/// Reads a value. What it should have been is not repeated where it may hold a secret.
pub(super) fn read(kind: Kind, value: &Value) -> Result<Value, String> {
    let mistyped = || Err(format!("expected {}, found {}", words(kind).noun, type_name(value)));
    let list = |read: &dyn Fn(&Value) -> Result<Value, String>| match value {
        Value::Array(items) => items.iter().map(read).collect::<Result<Vec<_>, _>>(),
        _ => mistyped().map(|_: Value| Vec::new()),
    };
    match kind {
        Kind::Span(least, most) => span(least, most, value),
        Kind::Spans(least, most) => {
            let spans = list(&|item| span(least, most, item))?;
            if spans.is_empty() {
                Err("the list is empty".into())
            } else if spans.is_sorted_by_key(Value::as_u64) {
                Ok(spans.into())
            } else {
                Err("a wait is shorter than the one before it".into())
            }
        }
        Kind::Count(least, most) => match (value.as_u64(), value.is_f64() || !value.is_number()) {
            (_, true) => mistyped(),
            (Some(0), _) if least > 0 => Err("zero is not allowed; it never means unlimited".into()),
            (Some(number), _) if (least..=most).contains(&number) => Ok(value.clone()),
            _ => Err(format!("{value} is out of bounds")),
        },
        Kind::Part | Kind::Share => match value.as_f64() {
            None => mistyped(),
            Some(number) if (0.0..1.0).contains(&number) => Ok(json!(number)),
            Some(1.0) if kind == Kind::Share => Ok(json!(1.0)),
            Some(_) => Err(format!("{value} is out of bounds")),
        },
        Kind::Boolean if value.is_boolean() => Ok(value.clone()),
        Kind::Boolean => mistyped(),
        Kind::Entities => Ok(list(&entity)?.into()),
        Kind::Choice(_)
        | Kind::Label
        | Kind::Text
        | Kind::Url
        | Kind::Listen
        | Kind::Path
        | Kind::StateDir
        | Kind::Certificates
        | Kind::SecretFile
        | Kind::KeyFile
        | Kind::Levels => {
            let Value::String(text) = value else { return mistyped() };
            self::text(kind, text).map(Value::String)
        }
    }
}

fn text(kind: Kind, text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it is blank".into());
    }
    if text.contains(char::is_control) {
        return Err("it contains a control character".into());
    }
    match kind {
        Kind::Choice(words) if !words.contains(&text) => {
            let near = nearest(text, words.iter().copied()).map(|near| format!("; did you mean \"{near}\"?"));
            return Err(format!("{} is not known{}", quoted(text), near.unwrap_or_default()));
        }
        Kind::Label => {
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            if !plain || text.len() > 64 {
                return Err("it cannot be the value of a metric label".into());
            }
        }
        Kind::Url => return root_url(text).map(String::from),
        Kind::Listen => {
            let parsed = text.parse::<SocketAddr>();
            return parsed
                .map(|at| at.to_string())
                .map_err(|_| format!("{} is not an address with a port", quoted(text)));
        }
        Kind::Levels => drop(levels(text).map_err(|bad| bad.to_string())?),
        _ => {}
    }
    Ok(text.to_owned())
}

fn span(least: Span, most: Span, value: &Value) -> Result<Value, String> {
    let Value::String(text) = value else { return Err(format!("expected duration, found {}", type_name(value))) };
    let duration = humantime::parse_duration(text.trim())
        .map_err(|error| format!("{} is not a duration: {error}", quoted(text)))?;
    let span = Span::from(duration);
    if span == Span::ZERO && least > Span::ZERO {
        Err("zero is not allowed; it never means unlimited".into())
    } else if span < least || span > most {
        Err(format!("{} is out of bounds", quoted(text)))
    } else {
        Ok(json!(span))
    }
}

fn entity(value: &Value) -> Result<Value, String> {
    let Value::String(name) = value else { return Err(format!("expected text, found {}", type_name(value))) };
    let parts: Vec<&str> = name.split('/').collect();
    let is_entity =
        parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.contains(char::is_whitespace));
    if is_entity && !name.contains(char::is_control) {
        Ok(value.clone())
    } else {
        Err(format!("{} is not the name of an entity", quoted(name)))
    }
}

/// A server's root: http or https, a host, perhaps a base path. A refused address is not repeated, since it may
/// hold a password.
fn root_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| match error {
        // Unicode host names are left out with `idna_adapter`.
        url::ParseError::IdnaError => "its host is not ASCII; write an international name in its xn-- form".into(),
        error => format!("it is not a URL: {error}"),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        Err(format!("{} is not supported, only http and https", url.scheme()))
    } else if !url.has_host() {
        Err("it has no host".into())
    } else if !url.username().is_empty() || url.password().is_some() {
        Err("it contains credentials; use username and password_file".into())
    } else if url.query().is_some() || url.fragment().is_some() {
        Err("it has a query or a fragment".into())
    } else if url.path().contains("/api/v1") {
        Err("it contains /api/v1, which the medic adds".into())
    } else {
        Ok(url)
    }
}

/// The part of a text that is not log levels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLevels {
    /// It should be one of `off`, `error`, `warn`, `info`, `debug` and `trace`.
    #[error("\"{0}\" is not a level")]
    Level(String),
    /// It should be the path of a module.
    #[error("\"{0}\" is not a target")]
    Target(String),
}

/// The levels of a text: one level, `target=level`, or several of them with commas between.
/// Fails with the first part that is neither. (The log library would take a misspelt level for the name of a target.)
pub fn levels(text: &str) -> Result<Targets, BadLevels> {
    const LEVELS: [(&str, LevelFilter); 6] = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    let is_path = |c: char| c.is_ascii_alphanumeric() || ['_', ':', '-'].contains(&c);
    text.split(',').map(str::trim).try_fold(Targets::new(), |targets, piece| {
        let (target, name) = piece.rsplit_once('=').map_or((None, piece), |(target, name)| (Some(target.trim()), name));
        let level = LEVELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
        let (_, level) = level.ok_or_else(|| BadLevels::Level(name.to_owned()))?;
        match target {
            None => Ok(targets.with_default(*level)),
            Some(target) if !target.is_empty() && target.chars().all(is_path) => {
                Ok(targets.with_target(target, *level))
            }
            Some(other) => Err(BadLevels::Target(other.to_owned())),
        }
    })
}

/// The environment and flags know only text; what does not fit stays text and is refused later.
pub(super) fn from_text(kind: Kind, text: &str) -> Value {
    let text = text.trim();
    match kind {
        Kind::Boolean | Kind::Count(..) | Kind::Part | Kind::Share => {
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
        Kind::Spans(..) | Kind::Entities => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect()
        }
        _ => text.into(),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number with a fraction",
        Value::Number(_) => "whole number",
        Value::Null => "number out of range",
        Value::Array(_) => "list",
        // How the TOML parser gives a date to serde.
        Value::Object(map) if map.keys().any(|key| key.contains("datetime")) => "date",
        Value::Object(_) => "table",
    }
}

/// A value that was read, as it is written in the file.
pub fn written(kind: Kind, value: &Value) -> Value {
    let span = |value: &Value| value.as_u64().map_or_else(|| value.clone(), |millis| plain_span(Span(millis)).into());
    match (kind, value) {
        (Kind::Span(..), value) => span(value),
        (Kind::Spans(..), Value::Array(items)) => items.iter().map(span).collect(),
        _ => value.clone(),
    }
}

/// A value that was read, in TOML.
pub fn toml(kind: Kind, value: &Value) -> String {
    toml::Value::try_from(written(kind, value)).map_or_else(|_| value.to_string(), |value| value.to_string())
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A duration as it is written in the file.
pub(super) fn plain_span(span: Span) -> String {
    humantime::format_duration(span.into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_refuses_what_is_not_a_level() {
        for (text, wrong) in [
            ("loud", BadLevels::Level("loud".into())),
            ("", BadLevels::Level(String::new())),
            ("info,loud=debig", BadLevels::Level("debig".into())),
            ("info,=debug", BadLevels::Target(String::new())),
            ("info,a::b[span{field}]=debug", BadLevels::Target("a::b[span{field}]".into())),
        ] {
            assert_eq!(levels(text).unwrap_err(), wrong);
        }
        assert!(levels("INFO, a::b_c = Debug ,d-e=off").is_ok());
    }
}
