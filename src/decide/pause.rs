//! Pauses: a person (or a file) says "not now", for everything, one manager or one set (design §6).
//!
//! A pause holds back acts, never the settling of an open intent: a set that we disabled is enabled again whatever is
//! paused. A pause without an expiry lasts until it is resumed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use crate::model::{Guard, Held, ScaleSetId, Wall};
use serde::{Deserialize, Serialize};

/// What a pause covers. The pauses given to `decide` are those that bear on the manager judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum PauseScope {
    /// Every manager.
    All,
    /// This manager.
    Manager,
    /// One set of this manager.
    Set {
        /// Which.
        set: ScaleSetId,
    },
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What it covers.
    #[serde(flatten)]
    pub scope: PauseScope,
    /// Why, in its author's words.
    pub reason: String,
    /// Who asked for it.
    pub author: String,
    /// When it ends by itself; absent: when it is resumed.
    pub until: Option<Wall>,
}

impl Pause {
    /// Whether it holds this set back now.
    #[must_use]
    pub fn covers(&self, set: ScaleSetId, now: Wall) -> bool {
        let in_scope = match self.scope {
            PauseScope::All | PauseScope::Manager => true,
            PauseScope::Set { set: paused } => paused == set,
        };
        in_scope && self.until.is_none_or(|until| now < until)
    }
}

/// One entry per pause that covers the set.
pub fn held<'a>(pauses: &'a [Pause], set: ScaleSetId, now: Wall) -> impl Iterator<Item = Held> + 'a {
    pauses.iter().filter(move |pause| pause.covers(set, now)).map(|pause| {
        let what = match pause.scope {
            PauseScope::All => "everything",
            PauseScope::Manager => "this manager",
            PauseScope::Set { .. } => "this set",
        };
        Held {
            guard: Guard::Paused,
            value: format!("{what} paused by {}: {}", pause.author, pause.reason),
            limit: match pause.until {
                Some(until) => format!("resumed, or {until}"),
                None => "resumed".to_owned(),
            },
            until: pause.until,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(scope: PauseScope, until: Option<Wall>) -> Pause {
        Pause { scope, reason: "upgrade".into(), author: "alice".into(), until }
    }

    #[test]
    fn a_pause_covers_its_scope_until_its_end() {
        let (one, two) = (ScaleSetId(1), ScaleSetId(2));
        let pauses = [
            pause(PauseScope::Manager, Some(Wall(100))),
            pause(PauseScope::Set { set: one }, None),
            pause(PauseScope::All, Some(Wall(50))),
        ];
        assert_eq!(held(&pauses, one, Wall(49)).count(), 3);
        assert_eq!(held(&pauses, two, Wall(99)).count(), 1);
        assert_eq!(held(&pauses, two, Wall(100)).count(), 0);
        let held = held(&pauses, one, Wall(200)).next().unwrap();
        assert_eq!(held.value, "this set paused by alice: upgrade");
        assert_eq!((held.limit.as_str(), held.until), ("resumed", None));
    }
}
