//! How long looking often pays: while the picture changes, and for a while after. A set that waits for a person, for a
//! budget or for a manager that is down for the night is looked at less often; any change ends that.

use crate::model::{Diagnosis, ManagerState, Mono, ScaleSetId, Span};
use std::collections::BTreeMap;

/// A picture that has not changed for so long will not in the next seconds either.
const LASTS: Span = Span::mins(5);

/// What a pass saw.
pub type Picture = (ManagerState, BTreeMap<ScaleSetId, Diagnosis>);

/// What the last passes saw, and since when it is the same.
#[derive(Debug, Default)]
pub struct Patience {
    picture: Option<Picture>,
    since: Mono,
}

impl Patience {
    /// Takes a pass in; whether its picture has been the same for long. `acts`: something of ours is under way.
    pub fn is_spent(&mut self, picture: Picture, acts: bool, now: Mono) -> bool {
        if acts || self.picture.as_ref() != Some(&picture) {
            (self.picture, self.since) = (Some(picture), now);
        }
        now.since(self.since) >= LASTS
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
        assert!(!patience.is_spent(abandoned.clone(), false, at(1000)));
        assert!(!patience.is_spent(abandoned.clone(), false, at(1299)));
        assert!(patience.is_spent(abandoned.clone(), false, at(1300)));
        assert!(!patience.is_spent(abandoned.clone(), true, at(1310)), "a treatment is under way");
        assert!(!patience.is_spent(abandoned.clone(), false, at(1609)));
        assert!(patience.is_spent(abandoned, false, at(1610)));
        assert!(!patience.is_spent(well, false, at(1620)), "it has changed");
    }
}
