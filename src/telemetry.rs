//! Log lines: to stderr, for people or as JSON, dated in UTC, filtered by level and target. The levels may change while
//! the process runs, the format may not.
//!
//! Secrets stay out by type: [`crate::config::Secret`] has no `Display`, and its `Debug` is `[redacted]`, so a
//! field can hold one and still not show it.

use crate::clock::system_wall;
use crate::config::{LogConfig, LogFormat};
use std::sync::OnceLock;
use tracing::Subscriber;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("the log level `{level}` is not understood: {detail}; write info, or info,scaleset_medic::treat=debug")]
    Filter {
        /// As it was given.
        level: String,
        /// What the parser said.
        detail: String,
    },
    /// Something else in the process has begun already.
    #[error("logging has begun already: {0}")]
    Twice(#[from] SetGlobalDefaultError),
}

/// What [`init`] began, for [`change`].
static BEGUN: OnceLock<Levels> = OnceLock::new();

/// Puts other levels in force; whether that could be done.
type Levels = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// A subscriber, and what changes its levels.
pub struct Logging {
    subscriber: Box<dyn Subscriber + Send + Sync>,
    levels: Levels,
}

/// Begins logging to stderr for the whole process. `color` is for the text format only.
pub fn init(config: &LogConfig, color: bool) -> Result<(), TelemetryError> {
    let Logging { subscriber, levels } = logging(config, color, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber)?;
    // Whoever began before has set the global subscriber too, and that is an error already.
    let _ = BEGUN.set(levels);
    Ok(())
}

/// Goes over from `before` to `after`, as far as that can be done without a restart; the rest is told.
pub fn change(before: &LogConfig, after: &LogConfig) {
    if before.level != after.level {
        let changed = filter(after).is_ok_and(|filter| BEGUN.get().is_some_and(|levels| levels(filter)));
        if !changed {
            tracing::error!(level = after.level, "the log level could not be changed; it needs a restart");
        }
    }
    if before.format != after.format {
        tracing::warn!(
            format = after.format.as_str(),
            "log.format has changed; this needs a restart, lines go on in the format before"
        );
    }
}

fn filter(config: &LogConfig) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(&config.level)
        .map_err(|error| TelemetryError::Filter { level: config.level.clone(), detail: error.to_string() })
}

/// A subscriber that writes to `writer`.
pub fn logging<W>(config: &LogConfig, color: bool, writer: W) -> Result<Logging, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(config)?).with_timer(Utc).with_writer(writer);
    Ok(match config.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(color).with_filter_reloading();
            let handle = builder.reload_handle();
            let levels: Levels = Box::new(move |filter| handle.reload(filter).is_ok());
            Logging { subscriber: Box::new(builder.finish()), levels }
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let levels: Levels = Box::new(move |filter| handle.reload(filter).is_ok());
            Logging { subscriber: Box::new(builder.finish()), levels }
        }
    })
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
    use crate::config::Secret;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let config = LogConfig { format, level: level.into() };
        let logging = logging(&config, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(logging.subscriber, log);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_secret_in_a_field_is_not_shown_in_either_format() {
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
    fn lines_are_dated_in_utc() {
        let text = logged(LogFormat::Text, "info", || tracing::info!("here"));
        let date = text.split_whitespace().next().unwrap();
        assert!(date.ends_with('Z') && date.parse::<jiff::Timestamp>().is_ok(), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&logged(LogFormat::Json, "info", || tracing::info!(set = 7, "here"))).unwrap();
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'), "{json}");
        assert_eq!((json["message"].as_str(), json["set"].as_i64()), (Some("here"), Some(7)));
    }

    #[test]
    fn the_levels_change_while_logging_goes_on() {
        for format in LogFormat::ALL {
            let kept = Kept::default();
            let writer = kept.clone();
            let config = LogConfig { format: *format, level: "warn".into() };
            let Logging { subscriber, levels } = logging(&config, false, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("hidden");
                assert!(levels(EnvFilter::new("info")));
                tracing::info!("shown");
            });
            let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert!(text.contains("shown") && !text.contains("hidden"), "{text}");
        }
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
