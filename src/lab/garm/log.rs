#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! GARM's log lines, in both formats of Go's slog (`reference/garm-api.md` §12). Keys may repeat, as in the original.

use super::config::{GarmConfig, LogFormat, LogLevel};
use crate::model::Wall;
use bytes::Bytes;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Lines kept for a reader that has not asked yet.
const KEPT: usize = 100_000;

/// A line's attributes, in order.
pub(super) type Attributes = Vec<(&'static str, Value)>;

/// The log, until somebody takes it.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<Bytes>,
}

impl Log {
    /// Writes a line, if its level is logged.
    pub(super) fn write(&mut self, config: &GarmConfig, at: Wall, level: LogLevel, msg: &str, attributes: &Attributes) {
        if level < config.log_level {
            return;
        }
        let line = match config.log_format {
            LogFormat::Json => json(at, level, msg, attributes),
            LogFormat::Text => text(at, level, msg, attributes),
        };
        self.raw(&line);
    }

    /// A line that is no log record, such as a panic's.
    pub(super) fn raw(&mut self, line: &str) {
        if self.lines.len() >= KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(Bytes::from(line.to_owned()));
    }

    pub(super) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.lines).into()
    }
}

fn json(at: Wall, level: LogLevel, msg: &str, attributes: &Attributes) -> String {
    let mut line = format!("{{\"time\":\"{}\",\"level\":\"{}\",\"msg\":{}", date(at), level.as_str(), Value::from(msg));
    for (key, value) in attributes {
        let _ = write!(line, ",\"{key}\":{value}");
    }
    line.push('}');
    line
}

fn text(at: Wall, level: LogLevel, msg: &str, attributes: &Attributes) -> String {
    let mut line = format!("time={} level={} msg={}", date(at), level.as_str(), quoted(msg));
    for (key, value) in attributes {
        let value = match value {
            Value::String(text) => quoted(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
        };
        let _ = write!(line, " {key}={value}");
    }
    line
}

/// slog quotes what is empty or holds a blank, a quote, an equals sign or a control character; a backslash alone needs
/// no quotes.
fn quoted(text: &str) -> String {
    if text.is_empty() || text.contains([' ', '"', '=']) || text.contains(char::is_control) {
        Value::from(text).to_string()
    } else {
        text.to_owned()
    }
}

/// RFC 3339 with fractions, as Go writes it.
pub(super) fn date(at: Wall) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |timestamp| format!("{timestamp:.9}"))
}
