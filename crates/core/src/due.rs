//! Which sources to ask in this pass. Pure: given what was asked when, and whether anything is wrong.
//!
//! The rule: the set list and the counters always (two requests, whatever the number of sets); everything that
//! changes slowly or costs a credential's quota only as often as its answer can matter. A manager's cost per pass
//! is constant; GitHub's is one request per entity, at most every `interval`, and no more than one a second on the
//! long run while something is ill: treatments need the same few requests that a credential may send.

use crate::model::{Mono, Span};

/// How urgent seeing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Calm,
    /// Something is ill, unknown or under treatment.
    Alert,
}

/// When each slow source was asked last in this run of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    pub controller: Option<Mono>,
    pub lingering: Option<Mono>,
    pub broker: Option<Mono>,
}

/// The slow sources due now; the fast ones always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub controller: bool,
    pub lingering: bool,
    pub broker: bool,
}

const CONTROLLER_EVERY: Span = Span::mins(10);
const CALM_FACTOR: u64 = 4;
/// Of the requests that GitHub is sent, one list a second is what looking may use up while treatments are under way.
const LIST_EVERY: Span = Span::secs(1);

/// What is due, where GitHub has so many lists to ask for. While calm, it is asked a quarter as often; with many lists
/// it is in between while something is ill.
#[must_use]
pub fn due(asked: &Asked, lists: usize, urgency: Urgency, interval: Span, now: Mono) -> Due {
    let calm = interval.times(CALM_FACTOR);
    let github_every = match urgency {
        Urgency::Calm => calm,
        Urgency::Alert => LIST_EVERY.times(u64::try_from(lists).unwrap_or(u64::MAX)).max(interval).min(calm),
    };
    let passed = |last: Option<Mono>, every: Span| last.is_none_or(|last| now.since(last) >= every);
    Due {
        controller: passed(asked.controller, CONTROLLER_EVERY),
        lingering: passed(asked.lingering, interval),
        broker: passed(asked.broker, github_every),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_sources_are_asked_first_and_then_only_when_their_time_comes() {
        let interval = Span::secs(15);
        let all = Due { controller: true, lingering: true, broker: true };
        assert_eq!(due(&Asked::default(), 4, Urgency::Calm, interval, Mono(0)), all);
        let asked = Asked { controller: Some(Mono(0)), lingering: Some(Mono(0)), broker: Some(Mono(0)) };
        let none = Due { controller: false, lingering: false, broker: false };
        assert_eq!(due(&asked, 4, Urgency::Alert, interval, Mono(14_999)), none);
        assert_eq!(
            due(&asked, 4, Urgency::Alert, interval, Mono(15_000)),
            Due { controller: false, lingering: true, broker: true }
        );
        assert_eq!(
            due(&asked, 4, Urgency::Calm, interval, Mono(15_000)),
            Due { controller: false, lingering: true, broker: false }
        );
    }

    #[test]
    fn many_lists_leave_room_for_treatments_and_are_never_asked_for_less_than_while_calm() {
        let (interval, asked) = (Span::secs(15), Asked { broker: Some(Mono(0)), ..Asked::default() });
        let due_at = |lists, second: u64| due(&asked, lists, Urgency::Alert, interval, Mono(second * 1000)).broker;
        for (lists, first) in [(0, 15), (15, 15), (50, 50), (500, 60), (usize::MAX, 60)] {
            assert!(!due_at(lists, first - 1) && due_at(lists, first), "{lists} lists");
        }
    }
}
