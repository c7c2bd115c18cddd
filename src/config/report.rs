//! Mistakes in a configuration, all of them in one report: where, which key, what is wrong and how to fix it. Values of
//! keys that hold or might hold a secret are never repeated.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    File {
        /// As it was named.
        name: String,
        /// From 1.
        line: usize,
    },
    Env(String),
    Flag(&'static str),
    Default,
    /// A default that follows another key that was given.
    Follows(&'static str),
    Nowhere,
}

/// As `config print` shows it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "from {name}:{line}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
            Self::Follows(key) => write!(f, "default, follows {key}"),
            Self::Nowhere => f.write_str("not set"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    pub origin: Origin,
    /// The key in full (`policy.settle`), or empty when no key is concerned.
    pub key: String,
    pub what: String,
    pub fix: String,
}

impl Mistake {
    pub(super) fn new(origin: Origin, key: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { origin, key: key.into(), what: what.into(), fix: fix.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { name, line } => write!(f, "{name}:{line}: ")?,
            Origin::Env(name) => write!(f, "environment variable {name}: ")?,
            Origin::Flag(name) => write!(f, "flag {name}: ")?,
            Origin::Default | Origin::Follows(_) | Origin::Nowhere => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}\n    fix: {}", self.what, self.fix)
    }
}

/// More mistakes than this are counted, not listed.
const LISTED_MAX: usize = 100;

/// All mistakes of one configuration; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    mistakes: Vec<Mistake>,
}

impl Report {
    /// A report of these mistakes, in the order of the file; `None` when there are none.
    pub fn of(mut mistakes: Vec<Mistake>) -> Option<Self> {
        mistakes.sort();
        mistakes.dedup();
        (!mistakes.is_empty()).then_some(Self { mistakes })
    }

    pub fn one(mistake: Mistake) -> Self {
        Self { mistakes: vec![mistake] }
    }

    /// The mistakes, in the order of the file.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        writeln!(f, "the configuration has {count} mistake{}:", if count == 1 { "" } else { "s" })?;
        for mistake in self.mistakes.iter().take(LISTED_MAX) {
            writeln!(f, "{mistake}")?;
        }
        if count > LISTED_MAX {
            writeln!(f, "and {} more", count.saturating_sub(LISTED_MAX))?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// The one of `known` that `typed` was most likely meant to be, if any is close enough.
pub(super) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What is longer than any name is not worth comparing.
    let typed: String = typed.to_lowercase().replace('-', "_").chars().take(64).collect();
    let bound = (typed.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&typed, name), name))
        .filter(|(cost, name)| {
            *cost <= bound || (typed.len() >= 4 && (name.starts_with(&typed) || typed.starts_with(name)))
        })
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_misspelt_keys_only() {
        let known = ["interval", "state_dir", "mode", "password_file"];
        for (typed, meant) in [
            ("intervall", Some("interval")),
            ("statedir", Some("state_dir")),
            ("state-dir", Some("state_dir")),
            ("Mode", Some("mode")),
            ("moed", Some("mode")),
            ("password", Some("password_file")),
            ("moon", None),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), meant, "{typed}");
        }
    }

    #[test]
    fn report_lists_at_most_100_mistakes() {
        let many = (0..150).map(|line| Mistake::new(Origin::File { name: "f".into(), line }, "", "w", "m")).collect();
        let text = Report::of(many).unwrap().to_string();
        assert!(text.starts_with("the configuration has 150 mistakes:\n") && text.ends_with("and 50 more\n"), "{text}");
        assert_eq!(text.lines().count(), 202);
    }
}
