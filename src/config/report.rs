//! Mistakes in a configuration, all of them in one report: where, which key, what is wrong and how to mend it.
//! Values of keys that hold or might hold a secret are never repeated.

use std::fmt;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The configuration file.
    File {
        /// The file, as it was named.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Built in.
    Default,
    /// Built in, and following another key that was given.
    Follows(&'static str),
    /// Nowhere: nothing was given that could be pointed at.
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

/// One mistake, or one warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub origin: Origin,
    /// The key in full (`policy.settle`), or empty when no key is concerned.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
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
        write!(f, "{}\n    mend: {}", self.what, self.mend)
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
    #[must_use]
    pub fn of(mut mistakes: Vec<Mistake>) -> Option<Self> {
        mistakes.sort();
        mistakes.dedup();
        (!mistakes.is_empty()).then_some(Self { mistakes })
    }

    /// A report of one mistake.
    #[must_use]
    pub fn one(mistake: Mistake) -> Self {
        Self { mistakes: vec![mistake] }
    }

    /// The mistakes, in the order of the file.
    #[must_use]
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
#[must_use]
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let bound = (typed.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (edits(&typed, name), name))
        .filter(|(cost, name)| {
            *cost <= bound || (typed.len() >= 4 && (name.starts_with(&typed) || typed.starts_with(name)))
        })
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words; only the first 64 characters count.
fn edits(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for (j, r) in right.iter().enumerate() {
            let cost =
                |row: &[usize], at: usize, more: usize| row.get(at).map_or(usize::MAX, |n| n.saturating_add(more));
            let mut least =
                cost(&row, j, usize::from(l != r)).min(cost(&row, j.saturating_add(1), 1)).min(cost(&next, j, 1));
            if let (Some(i1), Some(j1)) = (i.checked_sub(1), j.checked_sub(1))
                && left.get(i1) == Some(r)
                && right.get(j1) == Some(l)
            {
                least = least.min(cost(&before, j1, 1));
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_key_and_strangers_find_none() {
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
    fn a_flood_of_mistakes_is_cut() {
        let many = (0..150)
            .map(|line| Mistake {
                origin: Origin::File { name: "f".into(), line },
                key: String::new(),
                what: "w".into(),
                mend: "m".into(),
            })
            .collect();
        let text = Report::of(many).unwrap().to_string();
        assert!(text.starts_with("the configuration has 150 mistakes:\n") && text.ends_with("and 50 more\n"), "{text}");
        assert_eq!(text.lines().count(), 202);
    }
}
