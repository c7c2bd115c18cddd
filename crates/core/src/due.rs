//! Which sources a sweep asks. The set list and the counters always: two requests, whatever the number of sets. What
//! changes slowly, or costs a credential's quota, only as often as its answer can matter.
//!
//! GitHub gets one request per entity, at most every `interval`, and at most one a second in the long run while anything
//! is not well: treatments need the same quota.

use crate::model::{Mono, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Calm,
    /// Something is not well, unknown or under treatment.
    Alert,
}

/// When this process asked each slow source last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    pub controller: Option<Mono>,
    pub lingering: Option<Mono>,
    pub github: Option<Mono>,
}

/// The slow sources due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub controller: bool,
    pub lingering: bool,
    pub github: bool,
}

const CONTROLLER_EVERY: Span = Span::mins(10);
const CALM_FACTOR: u64 = 4;
const GITHUB_LIST_EVERY: Span = Span::secs(1);

/// What is due, where GitHub has `lists` lists to ask for.
pub fn due(asked: &Asked, lists: usize, urgency: Urgency, interval: Span, now: Mono) -> Due {
    let calm = interval.times(CALM_FACTOR);
    let github_every = match urgency {
        Urgency::Calm => calm,
        Urgency::Alert => GITHUB_LIST_EVERY.times(u64::try_from(lists).unwrap_or(u64::MAX)).max(interval).min(calm),
    };
    let passed = |last: Option<Mono>, every: Span| last.is_none_or(|last| now.since(last) >= every);
    Due {
        controller: passed(asked.controller, CONTROLLER_EVERY),
        lingering: passed(asked.lingering, interval),
        github: passed(asked.github, github_every),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_asks_slow_sources_first_and_then_at_their_time() {
        let interval = Span::secs(15);
        let first = due(&Asked::default(), 4, Urgency::Calm, interval, Mono(0));
        assert_eq!(first, Due { controller: true, lingering: true, github: true });
        let asked = Asked { controller: Some(Mono(0)), lingering: Some(Mono(0)), github: Some(Mono(0)) };
        for (urgency, at, lingering, github) in [
            (Urgency::Alert, 14_999, false, false),
            (Urgency::Alert, 15_000, true, true),
            (Urgency::Calm, 15_000, true, false),
        ] {
            let expected = Due { controller: false, lingering, github };
            assert_eq!(due(&asked, 4, urgency, interval, Mono(at)), expected, "{urgency:?} {at}");
        }
    }

    #[test]
    fn due_asks_many_lists_less_often_but_not_less_than_calm() {
        let (interval, asked) = (Span::secs(15), Asked { github: Some(Mono(0)), ..Asked::default() });
        let due_at = |lists, second: u64| due(&asked, lists, Urgency::Alert, interval, Mono(second * 1000)).github;
        for (lists, first) in [(0, 15), (15, 15), (50, 50), (500, 60), (usize::MAX, 60)] {
            assert!(!due_at(lists, first - 1) && due_at(lists, first), "{lists} lists");
        }
    }
}
