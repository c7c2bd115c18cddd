//! Log lines: to stderr, for people or as JSON, dated in UTC, filtered by level and target. The levels may change while
//! the process runs, the format may not.
//!
//! Secrets stay out by type: [`crate::config::Secret`] has no `Display`, and its `Debug` is `[redacted]`, so a
//! field can hold one and still not show it.

use crate::config::{LogConfig, LogFormat};
use medic_clock::system_wall;
use std::sync::OnceLock;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{fmt, registry, reload};

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("the log level `{level}` is not understood: {detail}; write info, or info,scaleset_medic::treat=debug")]
    Filter {
        /// As it was given.
        level: String,
        /// Which part of it.
        detail: BadLevels,
    },
    /// Something else in the process has begun already.
    #[error("logging has begun already: {0}")]
    Twice(#[from] SetGlobalDefaultError),
}

/// The part of a text that names no levels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLevels {
    /// It should be one of `off`, `error`, `warn`, `info`, `debug` and `trace`.
    #[error("`{0}` is no level")]
    Level(String),
    /// It should be the path of a module.
    #[error("`{0}` is no target")]
    Target(String),
}

/// The levels of a text: one level, `target=level`, or several of them with commas between.
///
/// # Errors
/// The first part that is neither. (The log library would take a misspelt level for the name of a target.)
pub fn levels(text: &str) -> Result<Targets, BadLevels> {
    const LEVELS: [(&str, LevelFilter); 6] = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    text.split(',').map(str::trim).try_fold(Targets::new(), |targets, piece| {
        let (target, name) = piece.rsplit_once('=').map_or((None, piece), |(target, name)| (Some(target.trim()), name));
        let level = LEVELS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim()));
        let (_, level) = level.ok_or_else(|| BadLevels::Level(name.to_owned()))?;
        let is_path = |target: &str| {
            !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || ['_', ':', '-'].contains(&c))
        };
        match target {
            None => Ok(targets.with_default(*level)),
            Some(target) if is_path(target) => Ok(targets.with_target(target, *level)),
            Some(other) => Err(BadLevels::Target(other.to_owned())),
        }
    })
}

/// What [`init`] began, for [`change`].
static BEGUN: OnceLock<Levels> = OnceLock::new();

/// Puts other levels in force; whether that could be done.
type Levels = Box<dyn Fn(Targets) -> bool + Send + Sync>;

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
            let Logging { subscriber, levels: change } = logging(&config, false, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("hidden");
                assert!(change(levels("info").unwrap()));
                tracing::info!("shown");
            });
            let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert!(text.contains("shown") && !text.contains("hidden"), "{text}");
        }
    }

    #[test]
    fn what_names_no_levels_is_refused() {
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
