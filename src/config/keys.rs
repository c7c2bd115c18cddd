//! Every configuration key, once: its section, its name, what it takes and what it means. The parser, the
//! environment's names, the report's suggestions, `config print` and `config schema` all read this table, so that
//! a key cannot be known to one of them and not to another.

use medic_core::model::Span;
use medic_core::model::closed::closed_enum;

closed_enum! {
    /// A table of the configuration file, in the order in which it is shown.
    pub enum Section {
        /// `[run]`.
        Run = "run",
        /// `[log]`.
        Log = "log",
        /// `[http]`.
        Http = "http",
        /// `[[manager]]`, once per manager.
        Manager = "manager",
        /// `[[github]]`, once per endpoint.
        Github = "github",
        /// `[policy]`.
        Policy = "policy",
    }
}

impl Section {
    /// Whether the table may be repeated (`[[name]]`).
    #[must_use]
    pub const fn repeats(self) -> bool {
        match self {
            Self::Manager | Self::Github => true,
            Self::Run | Self::Log | Self::Http | Self::Policy => false,
        }
    }

    /// As it is written in the file: `[run]`, `[[manager]]`.
    #[must_use]
    pub fn header(self) -> String {
        if self.repeats() { format!("[[{self}]]") } else { format!("[{self}]") }
    }

    /// Its keys, in the order in which they are shown.
    #[must_use]
    pub const fn keys(self) -> &'static [&'static Key] {
        match self {
            Self::Run => run::ALL,
            Self::Log => log::ALL,
            Self::Http => http::ALL,
            Self::Manager => manager::ALL,
            Self::Github => github::ALL,
            Self::Policy => policy::ALL,
        }
    }

    /// The key of this name.
    #[must_use]
    pub fn key(self, name: &str) -> Option<&'static Key> {
        self.keys().iter().copied().find(|key| key.name == name)
    }
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A duration with its unit, within bounds.
    Span(Span, Span),
    /// A list of at least one duration, each within bounds, none shorter than the one before.
    Spans(Span, Span),
    /// A whole number within bounds.
    Count(u64, u64),
    /// A share from 0 up to, but not including, 1.
    Part,
    /// A share from 0 to 1.
    Share,
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A short name that may stand in a metric label.
    Name,
    /// Any text that is not blank.
    Text,
    /// The root address of a server.
    Url,
    /// An address to listen on.
    Listen,
    /// A path.
    Path,
    /// A file that holds a secret; only its path is configuration.
    SecretFile,
    /// Log levels, by target if need be.
    Filter,
    /// A list of names.
    Names,
}

/// What happens when a key is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is a mistake.
    Required,
    /// It is then not set.
    Optional,
    /// It has a default.
    Defaulted,
}

/// One key.
#[derive(Debug, PartialEq)]
pub struct Key {
    /// Its table.
    pub section: Section,
    /// Its name in the file.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What happens when it is not given.
    pub need: Need,
    /// What it means, in a sentence.
    pub doc: &'static str,
}

impl Key {
    /// The environment variable that sets it.
    #[must_use]
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}_{}", self.section.as_str().to_uppercase(), self.name.to_uppercase())
    }

    /// `section.name`.
    #[must_use]
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// What all our environment variables begin with.
pub const ENV_PREFIX: &str = "SCALESET_MEDIC_";

const SECOND: Span = Span::secs(1);
const MINUTE: Span = Span::mins(1);
const HOUR: Span = Span::hours(1);
const DAY: Span = Span::hours(24);
const WEEK: Span = Span::hours(24 * 7);
/// What the longest waits are measured against; a longer value is a slip of the unit.
const MONTH: Span = Span::hours(24 * 30);

macro_rules! keys {
    ($(#[$meta:meta])* $module:ident, $section:expr; $($(#[doc = $doc:literal])+ $id:ident = $name:literal: $need:ident $kind:expr,)+) => {
        $(#[$meta])*
        pub mod $module {
            use super::*;
            $($(#[doc = $doc])+ pub const $id: Key =
                Key { section: $section, name: $name, kind: $kind, need: Need::$need, doc: concat!($($doc),+).trim_ascii_start() };)+
            /// All of them, in the order in which they are shown.
            pub const ALL: &[&Key] = &[$(&$id),+];
        }
    };
}

keys! {
    /// Keys of `[run]`.
    run, Section::Run;
    /// Time between two sweeps while all is well.
    INTERVAL = "interval": Defaulted Kind::Span(SECOND, HOUR),
    /// Time between two sweeps while anything is ill or under treatment.
    URGENT_INTERVAL = "urgent_interval": Defaulted Kind::Span(Span::millis(500), MINUTE),
    /// Where the journal, the ledger and the history are kept.
    STATE_DIR = "state_dir": Defaulted Kind::Path,
    /// `observe` does everything but change things and says what it would have done; `heal` heals.
    MODE = "mode": Defaulted Kind::Choice(&["observe", "heal"]),
    /// Longest time from a signal to the end of the process; open intents are settled in it.
    SHUTDOWN_LIMIT = "shutdown_limit": Defaulted Kind::Span(SECOND, Span::mins(5)),
}

keys! {
    /// Keys of `[log]`.
    log, Section::Log;
    /// How log lines are written to stderr.
    FORMAT = "format": Defaulted Kind::Choice(&["text", "json"]),
    /// The least level that is logged, by target if need be.
    LEVEL = "level": Defaulted Kind::Filter,
}

keys! {
    /// Keys of `[http]`.
    http, Section::Http;
    /// Address of /metrics, /healthz, /readyz, /api/v1/status and the status page.
    LISTEN = "listen": Defaulted Kind::Listen,
}

keys! {
    /// Keys of `[[manager]]`.
    manager, Section::Manager;
    /// Our name for this GARM; a label of all its metrics.
    NAME = "name": Required Kind::Name,
    /// Its root address, without /api/v1.
    URL = "url": Required Kind::Url,
    /// An administrator of it.
    USERNAME = "username": Required Kind::Text,
    /// The file that holds the administrator's password.
    PASSWORD_FILE = "password_file": Required Kind::SecretFile,
    /// Certificates (PEM) to trust in place of the usual ones.
    CA_FILE = "ca_file": Optional Kind::Path,
    /// GARM's log file, if it can be read here; the best source there is.
    LOG_FILE = "log_file": Optional Kind::Path,
    /// Whether to follow the log over GARM's websocket.
    LOG_STREAM = "log_stream": Defaulted Kind::Boolean,
    /// Whether GARM's `debug_server` is on and its goroutines may be counted.
    DEBUG_SERVER = "debug_server": Defaulted Kind::Boolean,
    /// Whether to read GARM's /metrics.
    METRICS = "metrics": Defaulted Kind::Boolean,
    /// Whether /metrics wants a token (GARM's `disable_auth` is false).
    METRICS_AUTH = "metrics_auth": Defaulted Kind::Boolean,
    /// Longest wait for a connection.
    CONNECT_TIMEOUT = "connect_timeout": Defaulted Kind::Span(Span::millis(100), MINUTE),
    /// Longest wait for a whole answer.
    REQUEST_TIMEOUT = "request_timeout": Defaulted Kind::Span(Span::millis(100), Span::mins(5)),
    /// Most requests sent to it in a second.
    REQUESTS_PER_SECOND = "requests_per_second": Defaulted Kind::Count(1, 1000),
}

keys! {
    /// Keys of `[[github]]`.
    github, Section::Github;
    /// GARM's name of the endpoint; its addresses come from GARM.
    ENDPOINT = "endpoint": Required Kind::Text,
    /// Organisations, repositories (owner/name) and enterprises to ask about; empty means all of the endpoint.
    ENTITIES = "entities": Defaulted Kind::Names,
    /// The file that holds a personal access token.
    TOKEN_FILE = "token_file": Optional Kind::SecretFile,
    /// The id of a GitHub App, in place of a token.
    APP_ID = "app_id": Optional Kind::Count(1, u64::MAX >> 1),
    /// The id of the App's installation.
    INSTALLATION_ID = "installation_id": Optional Kind::Count(1, u64::MAX >> 1),
    /// The file that holds the App's private key (PEM).
    PRIVATE_KEY_FILE = "private_key_file": Optional Kind::SecretFile,
    /// Certificates (PEM) to trust in place of the usual ones.
    CA_FILE = "ca_file": Optional Kind::Path,
    /// Longest wait for a connection.
    CONNECT_TIMEOUT = "connect_timeout": Defaulted Kind::Span(Span::millis(100), MINUTE),
    /// Longest wait for a whole answer.
    REQUEST_TIMEOUT = "request_timeout": Defaulted Kind::Span(Span::millis(100), Span::mins(5)),
    /// Most requests sent in a second with this credential.
    REQUESTS_PER_SECOND = "requests_per_second": Defaulted Kind::Count(1, 1000),
}

keys! {
    /// Keys of `[policy]`.
    policy, Section::Policy;
    /// Grace after a manager's start, in which nothing short of proof leads to an act.
    SETTLE = "settle": Defaulted Kind::Span(Span::ZERO, HOUR),
    /// An unbroken run of conflicts longer than this is no stale session.
    STALE_SESSION_LIMIT = "stale_session_limit": Defaulted Kind::Span(MINUTE, DAY),
    /// From here on, a wait for a stale session is called odd.
    STALE_SESSION_ODD = "stale_session_odd": Defaulted Kind::Span(SECOND, DAY),
    /// Allows a toggle of a deaf set, which still runs a listener.
    ALLOW_RISKY = "allow_risky": Defaulted Kind::Boolean,
    /// Allows a toggle of a set whose changes GARM does not date (v0.2.0-alpha): a person who disables it meanwhile may
    /// find it enabled.
    ALLOW_UNDATED = "allow_undated": Defaulted Kind::Boolean,
    /// Sweeps in a row that must agree before a strong finding is acted upon.
    CONFIRM_STRONG = "confirm_strong": Defaulted Kind::Count(1, 100),
    /// Treatments under way at once, after the canary.
    MAX_IN_FLIGHT = "max_in_flight": Defaulted Kind::Count(1, 1000),
    /// The share of the enabled sets up to which more are let go at once as sets show life.
    IN_FLIGHT_SHARE = "in_flight_share": Defaulted Kind::Share,
    /// Treatments of one set within `set_budget_window`.
    SET_BUDGET = "set_budget": Defaulted Kind::Count(1, 1000),
    /// The window of `set_budget`.
    SET_BUDGET_WINDOW = "set_budget_window": Defaulted Kind::Span(MINUTE, MONTH),
    /// Waits before the second, third, … treatment of one set; the last repeats.
    BACKOFF = "backoff": Defaulted Kind::Spans(SECOND, WEEK),
    /// Spread added to each wait, as a share of it.
    BACKOFF_JITTER = "backoff_jitter": Defaulted Kind::Share,
    /// Health for this long clears a set's count.
    BUDGET_CLEARED_AFTER = "budget_cleared_after": Defaulted Kind::Span(MINUTE, MONTH),
    /// Treatments of one manager within an hour.
    HEALS_PER_HOUR = "heals_per_hour": Defaulted Kind::Count(1, 100_000),
    /// Unverified treatments in a row that open the breaker.
    BREAKER_AFTER = "breaker_after": Defaulted Kind::Count(1, 100),
    /// How long an open breaker waits before it lets one canary through.
    BREAKER_HALF_OPEN_AFTER = "breaker_half_open_after": Defaulted Kind::Span(MINUTE, WEEK),
    /// Least wait between disable and enable where nothing shows that the worker is there.
    TOGGLE_GAP = "toggle_gap": Defaulted Kind::Span(Span::secs(5), Span::mins(10)),
    /// How long to wait for that evidence before enabling all the same.
    TOGGLE_GAP_LIMIT = "toggle_gap_limit": Defaulted Kind::Span(Span::secs(5), Span::mins(10)),
    /// Longest a set may stay disabled by us while the manager is reachable. Not below the time in which an unanswered
    /// disable may come a second time.
    DISABLED_LIMIT = "disabled_limit": Defaulted Kind::Span(Span::secs(45), HOUR),
    /// How long a toggled worker may take to show any life.
    REVIVE_TIMEOUT = "restart_timeout": Defaulted Kind::Span(SECOND, HOUR),
    /// How long to wait for listener evidence after a remedy.
    VERIFY_TIMEOUT = "verify_timeout": Defaulted Kind::Span(SECOND, DAY),
    /// A listener without a completed poll for this long is deaf; a healthy poll takes up to 90 s.
    DEAF_AFTER = "deaf_after": Defaulted Kind::Span(Span::mins(2), DAY),
    /// Assigned jobs that start nothing for this long make a polling set starved.
    STARVED_AFTER = "starved_after": Defaulted Kind::Span(MINUTE, DAY),
    /// Sessions opened by one set within a minute that no healthy poll explains.
    FLAPPING_PER_MINUTE = "flapping_per_minute": Defaulted Kind::Count(2, 100_000),
    /// Whether session probes may be used at all.
    SESSION_PROBE = "session_check": Defaulted Kind::Boolean,
    /// At most one session probe per set within this.
    SESSION_PROBE_EVERY = "session_check_every": Defaulted Kind::Span(MINUTE, DAY),
    /// A forge must lack a set for this long before it is called missing.
    MISSING_AFTER = "missing_after": Defaulted Kind::Span(SECOND, DAY),
    /// Share of a GitHub credential's quota left to the manager.
    QUOTA_RESERVE = "quota_reserve": Defaulted Kind::Part,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_own_name_and_variable() {
        let all: Vec<&Key> = Section::ALL.iter().flat_map(|section| section.keys().iter().copied()).collect();
        let mut names: Vec<String> = all.iter().map(|key| key.env()).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "two keys share a name: {names:?}");
        for key in all {
            assert_eq!(key.section.key(key.name), Some(key));
        }
    }

    #[test]
    fn the_variable_of_a_key_is_its_path_in_capitals() {
        assert_eq!(policy::STALE_SESSION_LIMIT.env(), "SCALESET_MEDIC_POLICY_STALE_SESSION_LIMIT");
        assert_eq!(manager::PASSWORD_FILE.env(), "SCALESET_MEDIC_MANAGER_PASSWORD_FILE");
    }
}
