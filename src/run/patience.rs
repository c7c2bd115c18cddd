//! How long looking often pays: while the picture changes, and for a while after. A set that waits for a person, for a
//! budget or for a manager that is down for the night is looked at less often; any change ends that.

use crate::diagnose::Fleet;
use crate::model::{Diagnosis, ManagerState, Mono, ScaleSetId, Span};
use std::collections::BTreeMap;

/// A picture that has not changed for so long will not in the next seconds either.
const LASTS: Span = Span::mins(5);

/// What the last passes saw.
#[derive(Debug, Default)]
pub struct Patience {
    picture: Option<(ManagerState, BTreeMap<ScaleSetId, Diagnosis>)>,
    since: Mono,
}

impl Patience {
    /// Takes a pass in; whether its picture has been the same for long. `acts`: something of ours is under way.
    pub fn is_spent(&mut self, fleet: &Fleet, acts: bool) -> bool {
        let diagnoses = fleet.findings.iter().map(|(set, finding)| (*set, finding.diagnosis)).collect();
        let picture = Some((fleet.manager, diagnoses));
        if acts || self.picture != picture {
            (self.picture, self.since) = (picture, fleet.at.mono);
        }
        fleet.at.mono.since(self.since) >= LASTS
    }
}
