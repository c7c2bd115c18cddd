//! Log lines: to stderr, for people or as JSON, dated in UTC, filtered by level and target. The levels can change while
//! the process runs, the format cannot.
//!
//! Secrets stay out by type: [`medic_http::Secret`] has no `Display`, and its `Debug` is `[redacted]`.

use crate::config::kind::{BadLevels, levels};
use crate::config::{LogConfig, LogFormat};
use medic_clock::system_wall;
use std::sync::OnceLock;
use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{fmt, registry, reload};

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log level `{level}` is not valid: {detail}; use info, or info,scaleset_medic=debug,medic_garm=debug")]
    Filter { level: String, detail: BadLevels },
    #[error("logging has already started: {0}")]
    Twice(#[from] SetGlobalDefaultError),
}

/// What [`init`] set, for [`change`].
static STARTED: OnceLock<Levels> = OnceLock::new();

/// Changes the levels; whether that could be done.
type Levels = Box<dyn Fn(Targets) -> bool + Send + Sync>;

/// A subscriber, and what changes its levels.
pub struct Logging {
    subscriber: Box<dyn Subscriber + Send + Sync>,
    levels: Levels,
}

/// Starts logging to stderr for the whole process. `color` is for the text format only.
pub fn init(config: &LogConfig, color: bool) -> Result<(), TelemetryError> {
    let Logging { subscriber, levels } = logging(config, color, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)?;
    // An earlier start has set the global subscriber too, which is an error above.
    let _ = STARTED.set(levels);
    Ok(())
}

/// Changes from `before` to `after`, as far as that needs no restart; the rest is logged.
pub fn change(before: &LogConfig, after: &LogConfig) {
    if before.level != after.level {
        let changed = filter(after).is_ok_and(|filter| STARTED.get().is_some_and(|levels| levels(filter)));
        if !changed {
            tracing::error!(level = after.level, "the log level could not be changed; it needs a restart");
        }
    }
    if before.format != after.format {
        tracing::warn!(format = after.format.as_str(), "log.format has changed; it takes effect after a restart");
    }
}

fn filter(config: &LogConfig) -> Result<Targets, TelemetryError> {
    levels(&config.level).map_err(|detail| TelemetryError::Filter { level: config.level.clone(), detail })
}

/// A subscriber that writes to `writer`.
pub fn logging<W>(config: &LogConfig, color: bool, writer: W) -> Result<Logging, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(config)?);
    let lines = fmt::layer().with_timer(Utc).with_writer(writer);
    let filtered = registry().with(filter);
    let subscriber: Box<dyn Subscriber + Send + Sync> = match config.format {
        LogFormat::Text => Box::new(filtered.with(lines.with_ansi(color))),
        LogFormat::Json => Box::new(filtered.with(lines.json().flatten_event(true))),
    };
    Ok(Logging { subscriber, levels: Box::new(move |levels| handle.reload(levels).is_ok()) })
}

/// `2026-11-24T04:02:32.123Z`.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let millis = i64::try_from(system_wall().0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(date) => write!(writer, "{date:.3}"),
            Err(_) => write!(writer, "{millis}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_http::Secret;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, log: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let config = LogConfig { format, level: level.into() };
        let logging = logging(&config, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(logging.subscriber, log);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn log_lines_redact_secrets_in_both_formats() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "only its Debug matters")]
        struct Login {
            user: &'static str,
            password: Secret,
        }
        for format in LogFormat::ALL {
            let text = logged(*format, "trace", || {
                let login = Login { user: "admin", password: Secret::new("hunter2") };
                let _span = tracing::info_span!("login", ?login).entered();
                tracing::info!(password = ?Secret::new("hunter2"), ?login, "logged in as {login:?}");
            });
            assert!(text.contains("admin") && text.contains("[redacted]"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn log_lines_are_dated_in_utc() {
        let text = logged(LogFormat::Text, "info", || tracing::info!("here"));
        let date = text.split_whitespace().next().unwrap();
        assert!(date.ends_with('Z') && date.parse::<jiff::Timestamp>().is_ok(), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&logged(LogFormat::Json, "info", || tracing::info!(set = 7, "here"))).unwrap();
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'), "{json}");
        assert_eq!((json["message"].as_str(), json["set"].as_i64()), (Some("here"), Some(7)));
    }

    #[test]
    fn levels_filter_by_target() {
        let log = || {
            tracing::debug!("hidden");
            tracing::debug!(target: "loud", "shown");
            tracing::info!("plain");
        };
        let text = logged(LogFormat::Text, "info,loud=debug", log);
        assert!(text.contains("shown") && text.contains("plain") && !text.contains("hidden"), "{text}");
    }
}
