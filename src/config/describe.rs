//! A configuration for people: `config print`, `config defaults`, and the notes of `config check`.

use super::{Checked, Config, Origin, Section, kind};
use crate::text::{sources, wrapped};
use medic_core::model::Source;
use medic_core::policy::Mode;
use medic_core::settings::{Key, Kind, Need, Risk, Risky};
use std::fmt::Write as _;

/// Every value in effect as TOML, each with its origin as a comment. Reading it back gives the same configuration.
pub fn print(checked: &Checked) -> String {
    let mut text = String::new();
    for table in &checked.effective {
        let Some(first) = table.first() else { continue };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, first.section.header());
        for value in table {
            let line = match &value.value {
                Some(shown) => format!("{} = {shown}", value.key),
                None => format!("#{} =", value.key),
            };
            let _ = writeln!(text, "{line:<44} # {}", value.origin);
        }
    }
    text
}

/// What a key means, and which of its values are risky.
pub fn meaning(key: &Key) -> String {
    let Some(Risk { when, why }) = key.takes.risk else { return key.doc.to_owned() };
    let when = match when {
        Risky::On => "if true".to_owned(),
        Risky::Below(least) => format!("below {}", kind::plain_span(least)),
        Risky::Above(most) => format!("above {}", kind::plain_span(most)),
    };
    format!("{} Risky {when}: {why}.", key.doc)
}

const HEAD: &str = "\
# The configuration of scaleset-medic: every key with its default.
#
# A line that begins with \"#\" and a letter is a setting to uncomment; a line that begins with \"# \" explains.
# The environment overrides this file (SCALESET_MEDIC_TABLE_KEY, for example SCALESET_MEDIC_RUN_MODE=heal), and flags
# override both. `scaleset-medic config print` shows the values in effect.
# Durations have a unit: \"500ms\", \"15s\", \"5m\", \"1h 30m\". 0 never means unlimited.
";

/// A commented file to start from: every key with its meaning, and its default or an example.
pub fn defaults() -> String {
    let mut text = HEAD.to_owned();
    for section in Section::ALL {
        let intro = match section {
            Section::Manager => "# One table for each GARM; at least one is required.\n#",
            Section::Github => {
                "# Optional: one table for each endpoint of GitHub. Each needs token_file, or the three keys of an \
                 App.\n#"
            }
            Section::Run | Section::Log | Section::Http | Section::Policy => "",
        };
        let _ = writeln!(text, "\n{intro}{}", section.header());
        for key in section.keys() {
            let kind = key.takes.kind;
            let value = match key.need {
                Need::Default(value) => kind::toml(kind, &value()),
                Need::Required(example) | Need::Optional(example) if matches!(kind, Kind::Count(..)) => {
                    example.to_owned()
                }
                Need::Required(example) | Need::Optional(example) => kind::quoted(example),
            };
            let optional = if matches!(key.need, Need::Optional(_)) { " Optional." } else { "" };
            let hash = if section.repeats() { "#" } else { "" };
            for line in wrapped(&format!("{}{optional}", meaning(key)), 118) {
                let _ = writeln!(text, "# {line}");
            }
            let _ = writeln!(text, "{hash}{} = {value}", key.name);
        }
    }
    text
}

/// One line: what is watched, and whether it would be healed.
pub fn summary(config: &Config) -> String {
    let managers = config.managers.iter().map(|manager| manager.name.as_str()).collect::<Vec<_>>().join(", ");
    let endpoints = config.github.iter().map(|one| one.endpoint.as_str()).collect::<Vec<_>>().join(", ");
    let github = if endpoints.is_empty() { "GitHub not asked".into() } else { format!("GitHub asked for {endpoints}") };
    let mode = match config.run.mode {
        Mode::Observe => "observe",
        Mode::Heal => "heal",
    };
    format!("good: mode {mode}; managers {managers}; {github}")
}

/// What follows from the configuration and may surprise.
pub fn notes(checked: &Checked) -> Vec<String> {
    let config = &checked.config;
    let mut notes = Vec::new();
    if config.run.mode == Mode::Observe {
        notes.push("mode is observe: nothing is changed anywhere; set run.mode = \"heal\" to heal".to_owned());
    }
    if config.github.is_empty() {
        notes.push(format!("no [[github]]: {}", sources::text(Source::ActionsService).without));
    }
    for manager in &config.managers {
        let name = &manager.name;
        if manager.log_file.is_none() && !manager.log_stream {
            let without = sources::text(Source::Log).without;
            notes.push(format!("manager {name}: no log_file and no log_stream: {without}"));
            if !manager.metrics && !manager.debug_server {
                notes.push(format!(
                    "manager {name}: neither metrics, debug_server nor log: a stuck set looks like a healthy one"
                ));
            }
        }
    }
    notes.extend(unencrypted(config));
    notes.extend(risks(config).map(|risk| format!("{}.{}: {}", risk.section, risk.setting, risk.why)));
    for value in checked.effective.iter().flatten() {
        if let (Origin::Follows(leader), Some(shown)) = (&value.origin, &value.value) {
            notes.push(format!("{}.{} is {}, following {leader}", value.section, value.key, shown.trim_matches('"')));
        }
    }
    notes
}

/// A setting that is allowed and rarely meant.
pub struct RiskySetting {
    pub section: &'static str,
    /// As in the file: `allow_risky = true`.
    pub setting: String,
    pub why: &'static str,
    /// The same line with the default.
    pub usual: String,
}

/// The risky settings of `[run]` and `[policy]`.
pub fn risks(config: &Config) -> impl Iterator<Item = RiskySetting> {
    use medic_core::policy::Policy;
    use medic_core::settings::risks;
    risks(super::RunConfig::KEYS, &config.run).chain(risks(Policy::KEYS, &config.policy)).map(|(key, value, why)| {
        let line = |value: &serde_json::Value| format!("{} = {}", key.name, kind::toml(key.takes.kind, value));
        let usual = line(&key.default().unwrap_or_default());
        RiskySetting { section: key.section, setting: line(&value), why, usual }
    })
}

/// The managers whose password can be read on the network.
pub fn unencrypted(config: &Config) -> impl Iterator<Item = String> {
    let open = config.managers.iter().filter(|manager| manager.url.scheme() == "http" && !is_loopback(&manager.url));
    open.map(|manager| format!("manager {}: the password crosses the network unencrypted (http)", manager.name))
}

/// Whether the connection stays on this machine.
pub(crate) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
