//! Which sources to ask in this pass. Pure: given what was asked when, and whether anything is wrong.
//!
//! The rule: the set list and the counters always (two requests, whatever the number of sets); everything that
//! changes slowly or costs a credential's quota only as often as its answer can matter. A manager's cost per pass
//! is constant; GitHub's is one request per entity, at most every `interval`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use crate::model::{Mono, Span};

/// How urgent seeing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// All is well.
    Calm,
    /// Something is ill, unknown or under treatment.
    Alert,
}

/// When each slow source was asked last in this run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// Controller information.
    pub controller: Option<Mono>,
    /// Instances.
    pub lingering: Option<Mono>,
    /// GitHub's lists.
    pub broker: Option<Mono>,
}

/// The slow sources due now; the fast ones always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Controller information.
    pub controller: bool,
    /// Instances.
    pub lingering: bool,
    /// GitHub's lists.
    pub broker: bool,
}

const CONTROLLER_EVERY: Span = Span::mins(10);
const CALM_FACTOR: u64 = 4;

/// What is due. While calm, GitHub is asked a quarter as often.
#[must_use]
pub fn due(asked: &Asked, urgency: Urgency, interval: Span, now: Mono) -> Due {
    let broker_every = match urgency {
        Urgency::Calm => interval.times(CALM_FACTOR),
        Urgency::Alert => interval,
    };
    let passed = |last: Option<Mono>, every: Span| last.is_none_or(|last| now.since(last) >= every);
    Due {
        controller: passed(asked.controller, CONTROLLER_EVERY),
        lingering: passed(asked.lingering, interval),
        broker: passed(asked.broker, broker_every),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_sources_are_asked_first_and_then_only_when_their_time_comes() {
        let interval = Span::secs(15);
        let all = Due { controller: true, lingering: true, broker: true };
        assert_eq!(due(&Asked::default(), Urgency::Calm, interval, Mono(0)), all);
        let asked = Asked { controller: Some(Mono(0)), lingering: Some(Mono(0)), broker: Some(Mono(0)) };
        let none = Due { controller: false, lingering: false, broker: false };
        assert_eq!(due(&asked, Urgency::Alert, interval, Mono(14_999)), none);
        assert_eq!(
            due(&asked, Urgency::Alert, interval, Mono(15_000)),
            Due { controller: false, lingering: true, broker: true }
        );
        assert_eq!(
            due(&asked, Urgency::Calm, interval, Mono(15_000)),
            Due { controller: false, lingering: true, broker: false }
        );
    }
}
