//! How long looking often pays: while the picture changes, and for a while after. A set that waits for a person, for a
//! budget or for a manager that is down for the night is looked at less and less often; any change ends that.

use medic_core::model::{Diagnosis, ManagerState, Mono, ScaleSetId, Span};
use std::collections::BTreeMap;

/// A picture that has not changed for so long will not in the next seconds either.
const LASTS: Span = Span::mins(5);

/// Nor in the next minutes, after so long.
const LASTS_LONG: Span = Span::hours(1);

/// How often to look at something that is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// It may change at any moment.
    #[default]
    Quick,
    /// It has not for minutes.
    Slow,
    /// It has not for an hour.
    Calm,
}

/// What a pass saw.
pub type Picture = (ManagerState, BTreeMap<ScaleSetId, Diagnosis>);

/// What the last passes saw, and since when it is the same.
#[derive(Debug, Default)]
pub struct Patience {
    picture: Option<Picture>,
    since: Mono,
}

impl Patience {
    /// Takes a pass in. `acts`: something of ours is under way.
    pub fn pace(&mut self, picture: Picture, acts: bool, now: Mono) -> Pace {
        if acts || self.picture.as_ref() != Some(&picture) {
            (self.picture, self.since) = (Some(picture), now);
        }
        match now.since(self.since) {
            unchanged if unchanged >= LASTS_LONG => Pace::Calm,
            unchanged if unchanged >= LASTS => Pace::Slow,
            _ => Pace::Quick,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_stays_the_same_is_looked_at_less_often_until_it_changes_or_something_is_done() {
        let of = |diagnosis| (ManagerState::Up, [(ScaleSetId(1), diagnosis)].into());
        let (abandoned, well) = (of(Diagnosis::ConflictAbandoned), of(Diagnosis::Listening));
        let at = |seconds: u64| Mono(seconds * 1000);
        let mut patience = Patience::default();
        assert_eq!(patience.pace(abandoned.clone(), false, at(1000)), Pace::Quick);
        assert_eq!(patience.pace(abandoned.clone(), false, at(1299)), Pace::Quick);
        assert_eq!(patience.pace(abandoned.clone(), false, at(1300)), Pace::Slow);
        assert_eq!(patience.pace(abandoned.clone(), true, at(1310)), Pace::Quick, "a treatment is under way");
        assert_eq!(patience.pace(abandoned.clone(), false, at(1609)), Pace::Quick);
        assert_eq!(patience.pace(abandoned.clone(), false, at(1610)), Pace::Slow);
        assert_eq!(patience.pace(abandoned.clone(), false, at(4909)), Pace::Slow);
        assert_eq!(patience.pace(abandoned, false, at(4910)), Pace::Calm);
        assert_eq!(patience.pace(well, false, at(4920)), Pace::Quick, "it has changed");
    }
}
