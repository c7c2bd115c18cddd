//! The circuit breaker: when heals do not help, stop healing (`docs/reference/design.md` §6). Closed = healing allowed,
//! open = stopped.
//!
//! It opens after `breaker_after` heals in a row, across sets, that were not verified or failed. After
//! `breaker_half_open_after` one trial may start: its recovery closes the breaker, another bad end opens it again. An
//! operator's reset closes it at once. The state is computed from the journal, whose newest rows are always given here.
//!
//! Session checks and aborted heals say nothing about whether heals help: they neither count nor interrupt the row.

use crate::model::{BlockedBy, GuardFact, Outcome, Treatment, Wall};
use crate::policy::Policy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    Closed {
        /// Bad ends in a row so far.
        bad: u32,
    },
    Open {
        /// Since the last bad end.
        since: Wall,
        half_open: Wall,
    },
    HalfOpen {
        since: Wall,
    },
    Trial {
        since: Wall,
    },
}

impl Breaker {
    /// Whether healing is stopped but for a trial: the metric `breaker_open`.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Closed { .. } => false,
            Self::Open { .. } | Self::HalfOpen { .. } | Self::Trial { .. } => true,
        }
    }
}

/// The state, from the journal's rows (in any order) and the date of an operator's last reset.
pub fn state(history: &[Treatment], reset: Option<Wall>, now: Wall, policy: &Policy) -> Breaker {
    let mut ends: Vec<(&Treatment, Outcome)> = history
        .iter()
        .filter(|row| row.is_heal())
        .filter_map(|row| row.outcome().map(|outcome| (row, outcome)))
        .filter(|(row, _)| reset.is_none_or(|reset| row.step_at > reset))
        .collect();
    ends.sort_by_key(|(row, _)| (row.step_at, row.id));

    let (mut bad, mut open) = (0_u32, None::<Wall>);
    for (row, outcome) in ends {
        match (outcome, open) {
            (Outcome::Unverified | Outcome::Failed, _) => {
                bad = bad.saturating_add(1);
                if open.is_some() || bad >= policy.breaker_after.max(1) {
                    open = Some(row.step_at);
                }
            }
            // Only a treatment begun while the breaker was open is its trial; others recover for old reasons.
            (Outcome::Recovered | Outcome::SelfRecovered, Some(since)) if row.opened < since => {}
            (Outcome::Recovered, Some(_)) | (Outcome::Recovered | Outcome::SelfRecovered, None) => {
                (bad, open) = (0, None);
            }
            (Outcome::SelfRecovered, Some(_)) | (Outcome::Aborted | Outcome::Held | Outcome::Unheld, _) => {}
        }
    }
    let Some(since) = open else { return Breaker::Closed { bad } };
    let half_open = since.plus(policy.breaker_half_open_after);
    // A date in the future means that the clock was set back: the wait might never end, so one trial may start.
    if now < half_open && now >= since {
        return Breaker::Open { since, half_open };
    }
    let trial = history.iter().any(|row| row.is_heal() && row.opened >= since && row.in_flight());
    if trial { Breaker::Trial { since } } else { Breaker::HalfOpen { since } }
}

/// The guard. `trial_started`: this sweep has started the trial already.
pub fn block(breaker: Breaker, trial_started: bool, policy: &Policy) -> Option<BlockedBy> {
    let after = policy.breaker_after.max(1);
    match breaker {
        Breaker::Closed { .. } => None,
        Breaker::HalfOpen { .. } if !trial_started => None,
        Breaker::Open { since, half_open } => {
            Some(GuardFact::BreakerOpen { since, after, half_open }.until(Some(half_open)))
        }
        Breaker::HalfOpen { since } | Breaker::Trial { since } => Some(GuardFact::BreakerTrial { since, after }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{check, closed, mins, open};
    use crate::model::{Remedy, Span, Step};

    fn at(history: &[Treatment], now: Wall) -> Breaker {
        state(history, None, now, &Policy::default())
    }

    fn two_bad() -> Vec<Treatment> {
        vec![closed(1, 1, mins(0), mins(1), Outcome::Unverified), closed(2, 2, mins(1), mins(2), Outcome::Failed)]
    }

    #[test]
    fn opens_after_two_bad_ends_in_a_row_across_sets() {
        assert_eq!(at(&two_bad()[..1], mins(3)), Breaker::Closed { bad: 1 });
        let open = at(&two_bad(), mins(3));
        assert_eq!(open, Breaker::Open { since: mins(2), half_open: mins(32) });
        let fact = GuardFact::BreakerOpen { since: mins(2), after: 2, half_open: mins(32) };
        assert_eq!(block(open, false, &Policy::default()), Some(fact.until(Some(mins(32)))));
    }

    #[test]
    fn only_a_recovery_interrupts_the_row_of_bad_ends() {
        let mut rows = two_bad();
        rows.push(closed(3, 3, mins(0), Wall(90_000), Outcome::Recovered));
        assert_eq!(at(&rows, mins(3)), Breaker::Closed { bad: 1 });
        let mut rows = two_bad();
        rows.push(closed(3, 3, mins(0), Wall(90_000), Outcome::Aborted));
        rows.push(check(4, 4, mins(0), Wall(90_000), Outcome::Unheld));
        rows.push(check(5, 5, mins(2), mins(3), Outcome::Failed));
        assert_eq!(at(&rows, mins(3)), Breaker::Open { since: mins(2), half_open: mins(32) });
    }

    #[test]
    fn one_trial_after_half_an_hour_closes_or_reopens_it() {
        let policy = Policy::default();
        let mut rows = two_bad();
        assert_eq!(at(&rows, mins(32)), Breaker::HalfOpen { since: mins(2) });
        assert_eq!(block(at(&rows, mins(32)), false, &policy), None);
        assert!(block(at(&rows, mins(32)), true, &policy).is_some(), "one, not two");
        rows.push(open(3, 1, mins(32), Step::Verifying));
        assert_eq!(at(&rows, mins(33)), Breaker::Trial { since: mins(2) });
        let trial = GuardFact::BreakerTrial { since: mins(2), after: 2 };
        assert_eq!(block(at(&rows, mins(33)), false, &policy), Some(trial.into()));
        rows[2] = closed(3, 1, mins(32), mins(34), Outcome::Recovered);
        assert_eq!(at(&rows, mins(35)), Breaker::Closed { bad: 0 });
        rows[2] = closed(3, 1, mins(32), mins(34), Outcome::Unverified);
        assert_eq!(at(&rows, mins(35)), Breaker::Open { since: mins(34), half_open: mins(64) });
    }

    #[test]
    fn recovery_of_an_older_treatment_does_not_close_it() {
        let mut rows = two_bad();
        rows.push(closed(3, 3, Wall(90_000), mins(4), Outcome::Recovered));
        assert!(at(&rows, mins(5)).is_open());
    }

    #[test]
    fn trial_opened_at_the_very_date_of_opening_counts() {
        let policy = Policy { breaker_half_open_after: Span::ZERO, ..Policy::default() };
        let mut rows = two_bad();
        rows.push(closed(3, 3, mins(2), mins(4), Outcome::Recovered));
        assert_eq!(state(&rows, None, mins(5), &policy), Breaker::Closed { bad: 0 });
    }

    #[test]
    fn trial_is_an_open_heal_begun_since_opening() {
        let ask = Treatment { remedy: Remedy::SessionCheck, ..open(3, 3, mins(32), Step::Verifying) };
        let others = [open(3, 3, mins(1), Step::Verifying), ask, closed(3, 3, mins(32), mins(32), Outcome::Aborted)];
        for other in others {
            let mut rows = two_bad();
            rows.push(other);
            assert_eq!(at(&rows, mins(33)), Breaker::HalfOpen { since: mins(2) }, "{:?}", rows[2]);
        }
        let mut rows = two_bad();
        rows.push(open(3, 3, mins(2), Step::Verifying));
        assert_eq!(at(&rows, mins(33)), Breaker::Trial { since: mins(2) });
    }

    #[test]
    fn reset_forgets_earlier_ends() {
        assert_eq!(state(&two_bad(), Some(mins(2)), mins(3), &Policy::default()), Breaker::Closed { bad: 0 });
        assert_eq!(state(&two_bad(), Some(mins(1)), mins(3), &Policy::default()), Breaker::Closed { bad: 1 });
    }

    #[test]
    fn zero_threshold_opens_after_one_bad_end() {
        let policy = Policy { breaker_after: 0, ..Policy::default() };
        assert!(state(&two_bad()[..1], None, mins(2), &policy).is_open());
    }
}
