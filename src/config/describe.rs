//! A checked configuration in a person's terms: `config print` and the notes of `config check`.

use super::{Checked, Config, Origin};
use medic_core::policy::Mode;
use std::fmt::Write as _;

/// Every value in effect as TOML, each with its origin as a comment. Reading it back gives the same configuration.
#[must_use]
pub fn print(checked: &Checked) -> String {
    let mut text = String::new();
    for (section, values) in &checked.effective {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, section.header());
        for value in values {
            let line = match &value.value {
                Some(shown) => format!("{} = {shown}", value.key),
                None => format!("#{} =", value.key),
            };
            let _ = writeln!(text, "{line:<44} # {}", value.origin);
        }
    }
    text
}

/// One line: what is watched, and whether it would be healed.
#[must_use]
pub fn summary(config: &Config) -> String {
    let managers = config.managers.iter().map(|manager| manager.name.as_str()).collect::<Vec<_>>().join(", ");
    let endpoints = match config.github.as_slice() {
        [] => "GitHub not asked".to_owned(),
        github => format!(
            "GitHub asked for {}",
            github.iter().map(|one| one.endpoint.as_str()).collect::<Vec<_>>().join(", ")
        ),
    };
    let mode = match config.run.mode {
        Mode::Observe => "observe",
        Mode::Heal => "heal",
    };
    format!("good: mode {mode}; managers {managers}; {endpoints}")
}

/// What follows from the configuration and may surprise.
#[must_use]
pub fn notes(checked: &Checked) -> Vec<String> {
    let config = &checked.config;
    let mut notes = Vec::new();
    if config.run.mode == Mode::Observe {
        notes.push("mode is observe: nothing is changed anywhere; set run.mode = \"heal\" to heal".to_owned());
    }
    if config.github.is_empty() {
        notes.push("no [[github]]: sets missing at GitHub are not noticed, and no stale session is ended".to_owned());
    }
    for manager in &config.managers {
        let name = &manager.name;
        if manager.log_file.is_none() && !manager.log_stream {
            notes.push(format!(
                "manager {name}: no log_file and no log_stream: session ids are not seen, so a stale session is \
                 waited for"
            ));
        }
        if !manager.metrics && !manager.debug_server && manager.log_file.is_none() && !manager.log_stream {
            notes.push(format!(
                "manager {name}: neither metrics, debug_server nor log: a stuck set cannot be told from a healthy one"
            ));
        }
    }
    notes.extend(unencrypted(config));
    if config.policy.allow_risky {
        notes.push("policy.allow_risky: toggling a deaf set can crash GARM".to_owned());
    }
    if config.policy.allow_undated {
        notes
            .push("policy.allow_undated: without dates a person's disable can be taken for ours and undone".to_owned());
    }
    for (section, values) in &checked.effective {
        for value in values {
            if let (Origin::Follows(leader), Some(shown)) = (&value.origin, &value.value) {
                notes.push(format!("{section}.{} is {}, following {leader}", value.key, shown.trim_matches('"')));
            }
        }
    }
    notes
}

/// The managers whose password anybody on the way can read, each in words.
pub fn unencrypted(config: &Config) -> impl Iterator<Item = String> {
    let open = config.managers.iter().filter(|manager| manager.url.scheme() == "http" && !is_loopback(&manager.url));
    open.map(|manager| format!("manager {}: the password crosses the network unencrypted (http)", manager.name))
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
