//! GARM's log lines, in both formats of Go's slog (`docs/reference/garm-api.md` §12): the call's attributes, then those
//! of its context. Keys may repeat, as in GARM.

use super::config::{GarmConfig, LogFormat, LogLevel};
use super::db::{EntityRow, SetRow};
use super::stamp::{Stamp, Ticker};
use bytes::Bytes;
use medic_core::model::Wall;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Lines kept until they are taken; the oldest are dropped.
const KEPT: usize = 100_000;

/// A line's attributes, in order.
pub(super) type Attrs = Vec<(&'static str, Value)>;

/// Attributes of a line: `attrs!["key" => value, …]`.
macro_rules! attrs {
    ($($key:literal => $value:expr),* $(,)?) => { vec![$(($key, serde_json::json!($value))),*] };
}
pub(super) use attrs;

/// The part of GARM that writes a line: its attributes end the line.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    Garm,
    /// `worker="…"` and nothing else.
    Named(&'a str),
    /// The scale set worker.
    Worker(&'a SetRow),
    Listener(&'a SetRow),
    Session(&'a SetRow, &'a str),
    /// The scale set controller of an entity.
    Controller(&'a EntityRow),
    /// The pool manager of an entity.
    Pool(&'a EntityRow),
    /// Watcher of the database.
    Watcher,
}

impl By<'_> {
    fn push(self, attrs: &mut Attrs) {
        let of_entity = |attrs: &mut Attrs, entity: &EntityRow| {
            attrs.extend(attrs!["entity" => &entity.entity.name, "endpoint" => &entity.endpoint]);
        };
        match self {
            Self::Garm => {}
            Self::Named(name) => attrs.extend(attrs!["worker" => name]),
            Self::Worker(set) => {
                attrs.extend(attrs!["worker" => set.worker()]);
                of_entity(attrs, &set.entity);
            }
            Self::Listener(set) => {
                attrs.extend(attrs!["sub_worker" => "scaleset-listener"]);
                Self::Worker(set).push(attrs);
            }
            Self::Session(set, session) => {
                attrs.extend(attrs!["session_id" => session, "session_listener" => set.id]);
                Self::Listener(set).push(attrs);
            }
            Self::Controller(entity) => {
                attrs.extend(attrs!["worker" => entity.controller()]);
                of_entity(attrs, entity);
            }
            Self::Pool(entity) => attrs.extend(attrs![
                "pool_mgr" => &entity.entity.name,
                "endpoint" => &entity.endpoint,
                "pool_type" => entity.entity.kind.as_str(),
            ]),
            Self::Watcher => attrs.extend(attrs!["watcher" => "database"]),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<Bytes>,
    ticker: Ticker,
}

impl Log {
    /// Writes a line, if its level is logged.
    pub(super) fn write(
        &mut self,
        config: &GarmConfig,
        at: Wall,
        (level, msg): (LogLevel, &str),
        mut attrs: Attrs,
        by: By<'_>,
    ) {
        if level < config.log_level {
            return;
        }
        by.push(&mut attrs);
        let at = self.ticker.at(at);
        let line = match config.log_format {
            LogFormat::Json => json(at, level, msg, &attrs),
            LogFormat::Text => text(at, level, msg, &attrs),
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

fn json(at: Stamp, level: LogLevel, msg: &str, attrs: &Attrs) -> String {
    let mut line =
        format!("{{\"time\":\"{}\",\"level\":\"{}\",\"msg\":{}", at.nano(), level.as_str(), Value::from(msg));
    for (key, value) in attrs {
        let _ = write!(line, ",\"{key}\":{value}");
    }
    line.push('}');
    line
}

fn text(at: Stamp, level: LogLevel, msg: &str, attrs: &Attrs) -> String {
    let mut line = format!("time={} level={} msg={}", at.milli(), level.as_str(), quoted(msg));
    for (key, value) in attrs {
        let value = match value {
            Value::String(text) => quoted(text),
            Value::Null => "<nil>".to_owned(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => quoted(&value.to_string()),
        };
        let _ = write!(line, " {key}={value}");
    }
    line
}

/// slog quotes what is empty or holds a blank, a quote, an equals sign or something unprintable.
fn quoted(text: &str) -> String {
    let plain = |c: char| !c.is_control() && !matches!(c, ' ' | '"' | '=');
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { go_quote(text) }
}

/// Go's `%q`.
pub(super) fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\u{feff}' => out.write_str("\\ufeff"),
            c if c.is_control() && c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
            c => out.write_char(c),
        };
    }
    out.push('"');
    out
}
