//! Raw → [`Config`]: what every value means, and whether the values agree with each other and with the machine.
//! All mistakes end up in one [`Report`]; what is merely unwise is a warning.

use super::files::{check_ca, check_key, check_secret, check_state_dir};
use super::keys::{self, Key, Section};
use super::raw::{Raw, Table};
use super::reader::{Effective, Reader, plain_span};
use super::report::{Mistake, Origin, Report};
use super::secret::SecretFile;
use super::{Config, GithubAuth, GithubConfig, HttpConfig, LogConfig, LogFormat, ManagerConfig, RunConfig, Timeouts};
use crate::telemetry::BadLevels;
use medic_core::model::{EndpointName, ManagerName, Span};
use medic_core::policy::{Mode, Policy};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// How much of the machine is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Nothing: values only.
    Values,
    /// Secrets and certificates must be readable.
    Files,
    /// Also, the state directory must take a file.
    Machine,
}

/// A configuration without mistakes, with what `config check` and `config print` tell about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Every value in effect with its origin, table by table.
    pub effective: Vec<(Section, Vec<Effective>)>,
    /// What is allowed and unwise.
    pub warnings: Vec<Mistake>,
}

/// Checks everything that was given; the error lists all mistakes.
pub fn check(raw: &Raw, depth: Depth) -> Result<Checked, Report> {
    let mut pass = Pass { depth, mistakes: raw.mistakes.clone(), warnings: Vec::new(), effective: Vec::new() };
    let config = if raw.parsed { pass.config(raw) } else { None };
    match (Report::of(pass.mistakes), config) {
        (None, Some(config)) => Ok(Checked { config, effective: pass.effective, warnings: pass.warnings }),
        (Some(report), _) => Err(report),
        (None, None) => Err(Report::one(Mistake {
            origin: raw.origin.clone(),
            key: String::new(),
            what: "the configuration is incomplete".into(),
            mend: "see the shipped defaults.toml".into(),
        })),
    }
}

struct Pass {
    depth: Depth,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    effective: Vec<(Section, Vec<Effective>)>,
}

impl Pass {
    fn config(&mut self, raw: &Raw) -> Option<Config> {
        let run = self.run(&raw.only(Section::Run));
        let log = self.log(&raw.only(Section::Log));
        let http = self.http(&raw.only(Section::Http));
        let managers: Vec<Option<ManagerConfig>> =
            raw.all(Section::Manager).iter().map(|table| self.manager(table)).collect();
        let github: Vec<Option<GithubConfig>> =
            raw.all(Section::Github).iter().map(|table| self.github(table)).collect();
        let policy = self.policy(&raw.only(Section::Policy));
        let misspelt = raw.mistakes.iter().any(|mistake| mistake.key == Section::Manager.as_str());
        if managers.is_empty() && !misspelt {
            self.mistakes.push(Mistake {
                origin: raw.origin.clone(),
                key: "manager".into(),
                what: "no manager is configured".into(),
                mend: "add a [[manager]] table with name, url, username and password_file; a file is named by \
                       --config or SCALESET_MEDIC_CONFIG"
                    .into(),
            });
        }
        self.twice(raw.all(Section::Manager), &keys::manager::NAME, "give each manager a name of its own");
        self.twice(raw.all(Section::Github), &keys::github::ENDPOINT, "keep one [[github]] table per endpoint");
        Some(Config {
            run,
            log,
            http,
            managers: managers.into_iter().collect::<Option<_>>()?,
            github: github.into_iter().collect::<Option<_>>()?,
            policy,
        })
    }

    /// Reads a table with `read`, and keeps its values for printing.
    fn table<T>(&mut self, table: &Table, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let mut reader = Reader::new(table, &mut self.mistakes);
        let value = read(&mut reader);
        let effective = std::mem::take(&mut reader.effective);
        self.effective.push((table.section, effective));
        value
    }

    fn run(&mut self, table: &Table) -> RunConfig {
        use keys::run;
        let depth = self.depth;
        self.table(table, |reader| {
            let interval = reader.span(&run::INTERVAL, Span::secs(15));
            let urgent = Span::secs(2);
            let urgent_interval =
                reader.span_following(&run::URGENT_INTERVAL, urgent, urgent.min(interval), &run::INTERVAL);
            let state_dir = PathBuf::from(reader.text_or(&run::STATE_DIR, "/var/lib/scaleset-medic"));
            let modes = [("observe", Mode::Observe), ("heal", Mode::Heal)];
            let mode = reader.choice(&run::MODE, Mode::Observe, &modes);
            let shutdown_limit = reader.span(&run::SHUTDOWN_LIMIT, Span::secs(10));
            ordered(reader, (&run::URGENT_INTERVAL, urgent_interval), (&run::INTERVAL, interval), Order::AtMost);
            if depth >= Depth::Machine
                && reader.is_sound(&run::STATE_DIR)
                && let Err(what) = check_state_dir(&state_dir)
            {
                reader.wrong(&run::STATE_DIR, what, "name a directory that this user may create and write");
            }
            RunConfig { interval, urgent_interval, state_dir, mode, shutdown_limit }
        })
    }

    fn log(&mut self, table: &Table) -> LogConfig {
        self.table(table, |reader| {
            let formats = LogFormat::ALL.iter().map(|format| (format.as_str(), *format)).collect::<Vec<_>>();
            let format = reader.choice(&keys::log::FORMAT, LogFormat::Text, &formats);
            let level = reader
                .parsed_or(&keys::log::LEVEL, "info".to_owned(), log_level, |level| super::reader::show_text(level));
            LogConfig { format, level }
        })
    }

    fn http(&mut self, table: &Table) -> HttpConfig {
        self.table(table, |reader| {
            let default = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9810));
            let parse = |text: &str| text.parse::<SocketAddr>().map_err(|_| format!("\"{text}\" is no such address"));
            HttpConfig {
                listen: reader.parsed_or(&keys::http::LISTEN, default, parse, |listen| format!("\"{listen}\"")),
            }
        })
    }

    fn manager(&mut self, table: &Table) -> Option<ManagerConfig> {
        use keys::manager as key;
        let depth = self.depth;
        let mut warnings = Vec::new();
        let config = self.table(table, |reader| {
            let name = reader.parsed(&key::NAME, manager_name, |name| super::reader::show_text(name.as_str()));
            let url = reader.parsed(&key::URL, root_url, |url| super::reader::show_text(url.as_str()));
            let username = reader.text(&key::USERNAME);
            let password_file = reader.path(&key::PASSWORD_FILE).map(SecretFile::new);
            let ca_file = reader.path(&key::CA_FILE);
            let log_file = reader.path(&key::LOG_FILE);
            let log_stream = reader.boolean(&key::LOG_STREAM, false);
            let debug_server = reader.boolean(&key::DEBUG_SERVER, false);
            let metrics = reader.boolean(&key::METRICS, true);
            let metrics_auth = reader.boolean(&key::METRICS_AUTH, true);
            let timeouts = timeouts(reader, &key::CONNECT_TIMEOUT, &key::REQUEST_TIMEOUT);
            let requests_per_second = reader.count(&key::REQUESTS_PER_SECOND, 20);
            if depth >= Depth::Files {
                secret(reader, &key::PASSWORD_FILE, password_file.as_ref(), &mut warnings, |_| Ok(()));
                ca(reader, &key::CA_FILE, ca_file.as_deref());
            }
            Some(ManagerConfig {
                name: name?,
                url: url?,
                username: username?,
                password_file: password_file?,
                ca_file,
                log_file,
                log_stream,
                debug_server,
                metrics,
                metrics_auth,
                timeouts,
                requests_per_second,
            })
        });
        self.warnings.append(&mut warnings);
        config
    }

    fn github(&mut self, table: &Table) -> Option<GithubConfig> {
        use keys::github as key;
        let depth = self.depth;
        let mut warnings = Vec::new();
        let config = self.table(table, |reader| {
            let endpoint = reader.text(&key::ENDPOINT);
            let entities = reader.names(&key::ENTITIES);
            let token_file = reader.path(&key::TOKEN_FILE).map(SecretFile::new);
            let app_id = reader.number(&key::APP_ID);
            let installation_id = reader.number(&key::INSTALLATION_ID);
            let private_key_file = reader.path(&key::PRIVATE_KEY_FILE).map(SecretFile::new);
            let ca_file = reader.path(&key::CA_FILE);
            let timeouts = timeouts(reader, &key::CONNECT_TIMEOUT, &key::REQUEST_TIMEOUT);
            let requests_per_second = reader.count(&key::REQUESTS_PER_SECOND, 5);
            if let Some(bad) = entities.iter().find(|name| !is_entity(name)) {
                let what = format!("{} names no entity", super::reader::show_text(bad));
                reader.wrong(&key::ENTITIES, what, "write names as GARM does: \"acme\" or \"acme/app\"");
            }
            if depth >= Depth::Files {
                secret(reader, &key::TOKEN_FILE, token_file.as_ref(), &mut warnings, |_| Ok(()));
                secret(reader, &key::PRIVATE_KEY_FILE, private_key_file.as_ref(), &mut warnings, check_key);
                ca(reader, &key::CA_FILE, ca_file.as_deref());
            }
            credential_given_once(reader);
            let auth = match (token_file, app_id, installation_id, private_key_file) {
                (Some(token_file), ..) => GithubAuth::Pat { token_file },
                (None, Some(app_id), Some(installation_id), Some(private_key_file)) => {
                    GithubAuth::App { app_id, installation_id, private_key_file }
                }
                (None, ..) => return None,
            };
            Some(GithubConfig {
                endpoint: EndpointName::new(endpoint?),
                entities,
                auth,
                ca_file,
                timeouts,
                requests_per_second,
            })
        });
        self.warnings.append(&mut warnings);
        config
    }

    fn policy(&mut self, table: &Table) -> Policy {
        self.table(table, policy)
    }

    /// A value that must be unique among the tables of a section.
    fn twice(&mut self, tables: &[Table], key: &'static Key, mend: &str) {
        let mut seen: BTreeMap<&str, &Origin> = BTreeMap::new();
        for table in tables {
            let Some(given) = table.given.get(key.name) else { continue };
            let super::raw::Value::Text(text) = &given.value else { continue };
            if let Some(first) = seen.get(text.as_str()) {
                let first = match first {
                    Origin::File { line, .. } => format!(" (line {line})"),
                    Origin::Env(_) | Origin::Flag(_) | Origin::Default | Origin::Follows(_) | Origin::Nowhere => {
                        String::new()
                    }
                };
                self.mistakes.push(Mistake {
                    origin: given.origin.clone(),
                    key: key.dotted(),
                    what: format!("{} is already there{first}", super::reader::show_text(text)),
                    mend: mend.into(),
                });
            } else {
                seen.insert(text, &given.origin);
            }
        }
    }
}

/// Reads `[policy]` and refuses limits that contradict each other. Two defaults follow `stale_session_limit`, so
/// that changing it alone is no contradiction.
fn policy(reader: &mut Reader<'_>) -> Policy {
    use keys::policy as key;
    let default = Policy::default();
    let settle = reader.span(&key::SETTLE, default.settle);
    let stale_session_limit = reader.span(&key::STALE_SESSION_LIMIT, default.stale_session_limit);
    let odd = default.stale_session_odd.min(stale_session_limit);
    let margin = Span(default.verify_timeout.0.saturating_sub(default.stale_session_limit.0));
    let verify = stale_session_limit.plus(margin);
    let limit = &key::STALE_SESSION_LIMIT;
    let policy = Policy {
        settle,
        stale_session_limit,
        stale_session_odd: reader.span_following(&key::STALE_SESSION_ODD, default.stale_session_odd, odd, limit),
        allow_risky: reader.boolean(&key::ALLOW_RISKY, default.allow_risky),
        allow_undated: reader.boolean(&key::ALLOW_UNDATED, default.allow_undated),
        confirm_strong: reader.count(&key::CONFIRM_STRONG, default.confirm_strong),
        max_in_flight: reader.count(&key::MAX_IN_FLIGHT, default.max_in_flight),
        in_flight_share: reader.share_unless(&key::IN_FLIGHT_SHARE, default.in_flight_share, &key::MAX_IN_FLIGHT),
        set_budget: reader.count(&key::SET_BUDGET, default.set_budget),
        set_budget_window: reader.span(&key::SET_BUDGET_WINDOW, default.set_budget_window),
        backoff: reader.spans(&key::BACKOFF, default.backoff),
        backoff_jitter: reader.share(&key::BACKOFF_JITTER, default.backoff_jitter),
        budget_cleared_after: reader.span(&key::BUDGET_CLEARED_AFTER, default.budget_cleared_after),
        heals_per_hour: reader.count(&key::HEALS_PER_HOUR, default.heals_per_hour),
        breaker_after: reader.count(&key::BREAKER_AFTER, default.breaker_after),
        breaker_half_open_after: reader.span(&key::BREAKER_HALF_OPEN_AFTER, default.breaker_half_open_after),
        toggle_gap: reader.span(&key::TOGGLE_GAP, default.toggle_gap),
        toggle_gap_limit: reader.span(&key::TOGGLE_GAP_LIMIT, default.toggle_gap_limit),
        disabled_limit: reader.span(&key::DISABLED_LIMIT, default.disabled_limit),
        restart_timeout: reader.span(&key::REVIVE_TIMEOUT, default.restart_timeout),
        verify_timeout: reader.span_following(&key::VERIFY_TIMEOUT, default.verify_timeout, verify, limit),
        deaf_after: reader.span(&key::DEAF_AFTER, default.deaf_after),
        starved_after: reader.span(&key::STARVED_AFTER, default.starved_after),
        flapping_per_minute: reader.count(&key::FLAPPING_PER_MINUTE, default.flapping_per_minute),
        session_check: reader.boolean(&key::SESSION_PROBE, default.session_check),
        session_check_every: reader.span(&key::SESSION_PROBE_EVERY, default.session_check_every),
        missing_after: reader.span(&key::MISSING_AFTER, default.missing_after),
        quota_reserve: reader.share(&key::QUOTA_RESERVE, default.quota_reserve),
    };
    let limit = (limit, policy.stale_session_limit);
    let gap_limit = (&key::TOGGLE_GAP_LIMIT, policy.toggle_gap_limit);
    let verify = (&key::VERIFY_TIMEOUT, policy.verify_timeout);
    ordered(reader, (&key::SETTLE, policy.settle), limit, Order::AtMost);
    ordered(reader, (&key::STALE_SESSION_ODD, policy.stale_session_odd), limit, Order::AtMost);
    ordered(reader, limit, verify, Order::AtMost);
    ordered(reader, (&key::REVIVE_TIMEOUT, policy.restart_timeout), verify, Order::AtMost);
    ordered(reader, (&key::TOGGLE_GAP, policy.toggle_gap), gap_limit, Order::AtMost);
    ordered(reader, gap_limit, (&key::DISABLED_LIMIT, policy.disabled_limit), Order::Below);
    policy
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    AtMost,
    Below,
}

/// Refuses two sound spans in the wrong order, pointing at the one that was given.
fn ordered(reader: &mut Reader<'_>, low: (&Key, Span), high: (&Key, Span), order: Order) {
    let holds = match order {
        Order::AtMost => low.1 <= high.1,
        Order::Below => low.1 < high.1,
    };
    if holds || !reader.is_sound(low.0) || !reader.is_sound(high.0) {
        return;
    }
    let words = match order {
        Order::AtMost => "at most",
        Order::Below => "less than",
    };
    let (low_name, high_name) = (low.0.name, high.0.name);
    let (low_span, high_span) = (plain_span(low.1), plain_span(high.1));
    let mend = format!("lower {low_name} or raise {high_name}");
    if reader.is_given(low.0) {
        let what = format!("{low_span} contradicts {high_name} = {high_span}: it must be {words} that");
        reader.wrong(low.0, what, mend);
    } else {
        let what = format!("{high_span} contradicts {low_name} = {low_span}, which must be {words} that");
        reader.wrong(high.0, what, mend);
    }
}

fn timeouts(reader: &mut Reader<'_>, connect: &'static Key, request: &'static Key) -> Timeouts {
    let request_default = Span::secs(15);
    let timeouts =
        Timeouts { connect: reader.span(connect, Span::secs(5)), request: reader.span(request, request_default) };
    ordered(reader, (connect, timeouts.connect), (request, timeouts.request), Order::AtMost);
    timeouts
}

/// A token, or all three keys of an App, and not both.
fn credential_given_once(reader: &mut Reader<'_>) {
    use keys::github as key;
    let app = [&key::APP_ID, &key::INSTALLATION_ID, &key::PRIVATE_KEY_FILE];
    let given = app.into_iter().filter(|key| reader.is_given(key)).map(|key| key.name).collect::<Vec<_>>();
    let missing = app.into_iter().filter(|key| !reader.is_given(key)).collect::<Vec<_>>();
    match (reader.is_given(&key::TOKEN_FILE), given.is_empty(), missing.first()) {
        (true, false, _) => reader.wrong(
            &key::TOKEN_FILE,
            format!("a token and a GitHub App ({}) are given together", given.join(", ")),
            "keep token_file, or the three keys of the App",
        ),
        (false, true, _) => reader.wrong(
            &key::TOKEN_FILE,
            "no credential is given",
            "add token_file, or app_id, installation_id and private_key_file",
        ),
        (false, false, Some(first)) => {
            let names = missing.iter().map(|key| key.name).collect::<Vec<_>>().join(" and ");
            reader.wrong(first, format!("the GitHub App lacks {names}"), "an App needs all three of its keys");
        }
        (true, true, _) | (false, false, None) => {}
    }
}

fn secret(
    reader: &mut Reader<'_>,
    key: &'static Key,
    file: Option<&SecretFile>,
    warnings: &mut Vec<Mistake>,
    also: impl FnOnce(&super::Secret) -> Result<(), String>,
) {
    let Some(file) = file else { return };
    match check_secret(file).and_then(|secret| also(&secret)) {
        Err(what) => reader.wrong(key, what, "check the path and the content, and that this user may read it"),
        Ok(()) if file.is_world_readable() => warnings.push(Mistake {
            origin: reader.origin(key),
            key: key.dotted(),
            what: format!("everybody on this machine may read {}", file.path().display()),
            mend: "chmod o-r, or a mode of 0400 on the mounted secret".into(),
        }),
        Ok(()) => {}
    }
}

fn ca(reader: &mut Reader<'_>, key: &'static Key, path: Option<&std::path::Path>) {
    if let Some(path) = path
        && let Err(what) = check_ca(path)
    {
        reader.wrong(key, what, "name a PEM file with at least one certificate that this user may read");
    }
}

fn manager_name(text: &str) -> Result<ManagerName, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if plain && text.len() <= 64 { Ok(ManagerName::new(text)) } else { Err("it cannot stand in a metric label".into()) }
}

/// A server's root: http or https, a host, perhaps a base path. A refused address is not repeated, since it may
/// hold a password.
fn root_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| match error {
        // Unicode host names are left out with `idna_adapter`.
        url::ParseError::IdnaError => {
            "its host is no ASCII name; an international one is written in its xn-- form".into()
        }
        error => format!("it is no URL: {error}"),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        Err(format!("{} is not spoken here, only http and https", url.scheme()))
    } else if !url.has_host() {
        Err("it names no host".into())
    } else if !url.username().is_empty() || url.password().is_some() {
        Err("credentials do not belong into an address; use username and password_file".into())
    } else if url.query().is_some() || url.fragment().is_some() {
        Err("it has a query or a fragment".into())
    } else if url.path().contains("/api/v1") {
        Err("it contains /api/v1, which is added by us".into())
    } else {
        Ok(url)
    }
}

fn is_entity(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.contains(char::is_whitespace))
}

fn log_level(text: &str) -> Result<String, String> {
    match crate::telemetry::levels(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(BadLevels::Level(level)) => Err(format!("{} is no level", super::reader::show_text(&level))),
        Err(BadLevels::Target(target)) => Err(format!("{} is no target", super::reader::show_text(&target))),
    }
}
