//! How long to wait until the next reconcile. While all is well: `interval`. While anything is not: `urgent_interval`,
//! and less often the longer nothing changes, because a set may wait for an operator or for a budget all night.

use medic_core::diagnose::Fleet;
use medic_core::due::Urgency;
use medic_core::model::{Diagnosis, Fact, ManagerState, Mono, ScaleSetId, Span, Treatment};
use std::collections::BTreeMap;

/// Without a change for this long, none is to be expected within seconds.
const SLOW_AFTER: Span = Span::mins(5);
const SLOW_FACTOR: u64 = 5;

/// Without a change for this long, none is to be expected within minutes either.
const SLOWEST_AFTER: Span = Span::hours(1);
/// A manual heal is given up after two minutes.
const SLOWEST: Span = Span::mins(1);

#[derive(Debug)]
pub struct PollInterval {
    pub(super) calm: Span,
    urgent: Span,
    pub(super) urgency: Urgency,
    /// What the last sweep saw, and since when it is the same.
    seen: Option<Seen>,
    since: Mono,
    unchanged: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    manager: ManagerState,
    diagnoses: BTreeMap<ScaleSetId, Diagnosis>,
}

impl PollInterval {
    pub const fn new(calm: Span, urgent: Span) -> Self {
        let urgency = Urgency::Alert;
        Self { calm, urgent, urgency, seen: None, since: Mono(0), unchanged: Span::ZERO }
    }

    pub(super) fn observe(&mut self, fleet: &Fleet, open: &[Treatment]) {
        self.urgency = urgency(fleet, open);
        let diagnoses = fleet.findings.iter().map(|(set, finding)| (*set, finding.diagnosis)).collect();
        self.note(Seen { manager: fleet.manager, diagnoses }, !open.is_empty(), fleet.at.mono);
    }

    fn note(&mut self, seen: Seen, is_treating: bool, now: Mono) {
        if is_treating || self.seen.as_ref() != Some(&seen) {
            (self.seen, self.since) = (Some(seen), now);
        }
        self.unchanged = now.since(self.since);
    }

    pub(super) fn until_next(&self) -> Span {
        let wait = match self.urgency {
            Urgency::Calm => self.calm,
            Urgency::Alert if self.unchanged >= SLOWEST_AFTER => SLOWEST,
            Urgency::Alert if self.unchanged >= SLOW_AFTER => self.urgent.times(SLOW_FACTOR),
            Urgency::Alert => self.urgent,
        };
        wait.min(self.calm)
    }
}

fn urgency(fleet: &Fleet, open: &[Treatment]) -> Urgency {
    let may_change_soon = fleet.findings.values().any(|finding| match finding.diagnosis {
        // Without a source that could show anything, sweeping more often shows no more.
        Diagnosis::Unknown => finding.evidence.iter().all(|evidence| evidence.fact != Fact::NothingToSee),
        known => !known.is_well() && !known.is_lasting(),
    });
    let is_calm = fleet.manager == ManagerState::Up && !may_change_soon && open.is_empty();
    if is_calm { Urgency::Calm } else { Urgency::Alert }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_interval_grows_until_something_changes() {
        let mut interval = PollInterval::new(Span::secs(300), Span::secs(2));
        let (ill, well) = (Diagnosis::ConflictAbandoned, Diagnosis::Listening);
        let mut wait = |diagnosis, is_treating, second: u64| {
            let seen = Seen { manager: ManagerState::Up, diagnoses: [(ScaleSetId(1), diagnosis)].into() };
            interval.note(seen, is_treating, Mono(second * 1000));
            interval.until_next().as_millis() / 1000
        };
        for (diagnosis, is_treating, second, expected) in [
            (ill, false, 1000, 2),
            (ill, false, 1299, 2),
            (ill, false, 1300, 10),
            (ill, true, 1310, 2),
            (ill, false, 1609, 2),
            (ill, false, 1610, 10),
            (ill, false, 4909, 10),
            (ill, false, 4910, 60),
            (well, false, 4920, 2),
        ] {
            assert_eq!(wait(diagnosis, is_treating, second), expected, "{second} s");
        }
    }
}
