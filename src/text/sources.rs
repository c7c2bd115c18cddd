//! What each source of evidence shows, what stays hidden without it, and how to enable it: said here once, for `config
//! check`, `doctor`, `explain`, the status page and `docs/install.md`. GARM's keys are those of
//! `docs/reference/garm-api.md` §13.

use medic_core::model::Source;

pub struct SourceText {
    pub name: &'static str,
    pub shows: &'static str,
    /// What stays hidden without it, and what that costs.
    pub without: &'static str,
    /// Lines for GARM's `config.toml`.
    pub garm: &'static [&'static str],
    /// Lines for the medic's configuration.
    pub medic: &'static [&'static str],
}

macro_rules! log_path {
    () => {
        "/var/log/garm/garm.log"
    };
}
macro_rules! without_session_ids {
    () => {
        "session ids stay unknown, so a stale session cannot be deleted: after a crash each set waits until GitHub \
         forgets it, 50 to 92 s or more, instead of seconds"
    };
}

/// Where GARM writes its log, for those who have no such file yet.
pub const LOG_PATH: &str = log_path!();
/// What a log without lines of level debug hides.
pub const WITHOUT_SESSION_IDS: &str = without_session_ids!();

const LOGGING: &str = "[logging]";
const LOG_FILE: &str = concat!("log_file = \"", log_path!(), "\"");
const DEBUG: &str = "log_level = \"debug\"";
const JSON: &str = "log_format = \"json\"";
pub const LOG_STREAMER: &str = "enable_log_streamer = true";
/// GARM lines that make its log, wherever it goes, hold session ids.
pub const LOG_LEVEL: &[&str] = &[LOGGING, DEBUG, JSON];
/// The log by websocket, where no file can be shared: GARM lines and the medic's line.
pub const LOG_STREAM: (&[&str], &str) = (&[LOGGING, LOG_STREAMER, DEBUG, JSON], "log_stream = true");

const METRICS: &[&str] = &["[metrics]", "enable = true", "disable_auth = true", "period = \"60s\""];

pub const fn text(source: Source) -> SourceText {
    match source {
        Source::Api => SourceText {
            name: "GARM API",
            shows: "every scale set: enabled, edited, deleted",
            without: "nothing can be seen or healed at this GARM",
            garm: &[],
            medic: &["url = \"http://127.0.0.1:9997\"", "username = \"admin\"", "password_file = \"FILE\""],
        },
        Source::Metrics => SourceText {
            name: "metrics",
            shows: "restarts of GARM, and how many sessions it holds and is refused",
            without: "restarts of GARM, and sessions opened and refused, are not seen: no session can be proven stale, \
                      and most stuck sets stay `unknown`, so they are not healed",
            garm: METRICS,
            medic: &["metrics = true"],
        },
        Source::Goroutines => SourceText {
            name: "goroutines",
            shows: "the exact number of running listeners and workers",
            without: "the exact number of running listeners and workers: a stopped worker is then distinguished from \
                      a waiting one only by counters that stand still, which takes longer",
            garm: &["[default]", "debug_server = true"],
            medic: &["debug_server = true"],
        },
        Source::Log => SourceText {
            name: "log",
            shows: "which set is refused, by whom, and the ids of its sessions",
            without: concat!(
                "which set is refused, by whom and why is not seen, only how many; and ",
                without_session_ids!()
            ),
            garm: &[LOGGING, LOG_FILE, JSON, DEBUG],
            medic: &[LOG_FILE],
        },
        Source::ListenerMetrics => SourceText {
            name: "listener metrics",
            shows: "each set's last completed poll; GARM exports it since 2026-09",
            without: "a listener that stopped polling is found later",
            garm: METRICS,
            medic: &["metrics = true"],
        },
        Source::ActionsService => SourceText {
            name: "GitHub",
            shows: "whether GitHub knows each set, jobs that wait, and stale sessions to delete",
            without: "sets missing at GitHub and waiting jobs are not detected; no stale session is deleted, so \
                      healing takes 50 to 92 s or more",
            garm: &[],
            medic: &["[[github]]", "endpoint = \"github.com\"", "token_file = \"/run/secrets/github-token\""],
        },
        Source::Journal => SourceText {
            name: "journal",
            shows: "what the medic did before",
            without: "nothing is healed, because a set could be left disabled",
            garm: &[],
            medic: &["[run]", "state_dir = \"/var/lib/scaleset-medic\""],
        },
    }
}

/// How to enable a source, in one sentence without its full stop.
pub fn how_to_enable(source: Source) -> String {
    let SourceText { garm, medic, .. } = text(source);
    let join = |lines: &[&str]| lines.join(", ").replace("],", "]");
    let medic = format!("in the medic's configuration: {}", join(medic));
    let both = if garm.is_empty() { medic } else { format!("{medic}; in GARM's config.toml: {}", join(garm)) };
    match source {
        Source::Log => format!("{both}; where no file can be shared, {} and {LOG_STREAMER}", LOG_STREAM.1),
        _ => both,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_to_enable_names_both_configurations() {
        assert_eq!(
            how_to_enable(Source::Goroutines),
            "in the medic's configuration: debug_server = true; in GARM's config.toml: [default] debug_server = true"
        );
        let log = how_to_enable(Source::Log);
        assert!(log.contains("log_level = \"debug\"") && log.ends_with("enable_log_streamer = true"), "{log}");
        assert!(!how_to_enable(Source::ActionsService).contains("GARM"));
    }
}
