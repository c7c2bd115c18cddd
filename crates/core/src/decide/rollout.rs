//! The rollout limit: how many treatments may be open at once (`docs/reference/design.md` §6, I5).
//!
//! After the canary `max_in_flight` are open at once. In a fleet of hundreds that alone would take minutes, so each set
//! of the incident that has shown life raises the limit by one, up to `in_flight_share` of the enabled sets. A treatment
//! that ends badly restarts the count with the sets that show life after it. The limit is never below `max_in_flight`,
//! which 0 makes none at all.
//!
//! Computed from the journal, so that a restart of ours changes nothing.

use crate::model::{Outcome, Treatment, Wall};
use crate::policy::Policy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    pub now: usize,
    /// The limit once enough sets have shown life.
    pub most: usize,
}

impl Rollout {
    /// From the journal's rows, for an incident that began at `began` in a fleet of `enabled` sets.
    pub fn of(history: &[Treatment], began: Wall, enabled: usize, policy: &Policy) -> Self {
        let least = usize::try_from(policy.max_in_flight).unwrap_or(usize::MAX);
        let most = if least == 0 { 0 } else { least.max(share(policy.in_flight_share, enabled)) };
        if most == least {
            return Self { now: least, most };
        }
        let heals = || history.iter().filter(|row| row.is_heal() && row.opened >= began);
        let bad = heals().filter(|row| ended_badly(row)).map(|row| row.step_at).max();
        let shown = heals().filter_map(shown_life).filter(|at| bad.is_none_or(|bad| *at > bad)).count();
        Self { now: shown.clamp(least, most), most }
    }
}

/// Rounded down; the share is clamped to 0..=1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a number of sets, clamped: the cast takes NaN as 0"
)]
pub(super) fn share(share: f64, enabled: usize) -> usize {
    (share.clamp(0.0, 1.0) * enabled as f64) as usize
}

fn ended_badly(row: &Treatment) -> bool {
    matches!(row.outcome(), Some(Outcome::Unverified | Outcome::Failed))
}

/// When its set first showed life; never, if it ended badly.
fn shown_life(row: &Treatment) -> Option<Wall> {
    match row.outcome() {
        None => row.worker_restarted,
        Some(Outcome::Recovered) => row.worker_restarted.or(Some(row.step_at)),
        Some(
            Outcome::SelfRecovered
            | Outcome::Unverified
            | Outcome::Aborted
            | Outcome::Failed
            | Outcome::Held
            | Outcome::Unheld,
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{closed, mins, worker_restarted};
    use crate::model::Span;

    fn rollout(rows: &[Treatment], enabled: usize) -> Rollout {
        Rollout::of(rows, mins(60), enabled, &Policy { in_flight_share: 0.1, ..Policy::default() })
    }

    fn alive(count: u64) -> Vec<Treatment> {
        (1..=count).map(|id| worker_restarted(id, id, mins(61))).collect()
    }

    #[test]
    fn limit_grows_with_sets_whose_worker_restarted_up_to_the_share() {
        for (shown, now) in [(0, 10), (1, 10), (10, 10), (11, 11), (20, 20), (50, 50), (300, 50)] {
            assert_eq!(rollout(&alive(shown), 500), Rollout { now, most: 50 }, "{shown}");
        }
    }

    #[test]
    fn small_fleet_keeps_max_in_flight() {
        assert_eq!(rollout(&alive(99), 109), Rollout { now: 10, most: 10 });
    }

    #[test]
    fn bad_end_restarts_the_count() {
        let mut rows = alive(40);
        rows.push(closed(100, 100, mins(61), mins(62), Outcome::Unverified));
        assert_eq!(rollout(&rows, 500).now, 10);
        rows.extend(
            (41..=52).map(|id| Treatment { worker_restarted: Some(mins(63)), ..worker_restarted(id, id, mins(61)) }),
        );
        assert_eq!(rollout(&rows, 500).now, 12);
    }

    #[test]
    fn good_end_counts_and_a_bad_one_does_not() {
        let mut rows = alive(40);
        rows.push(closed(100, 100, mins(61), mins(62), Outcome::Recovered));
        assert_eq!(rollout(&rows, 500).now, 41);
        let shown = rows[0].worker_restarted.unwrap();
        rows.push(closed(101, 101, mins(61), shown, Outcome::Failed));
        assert_eq!(rollout(&rows, 500).now, 10, "one set has shown life since");
    }

    #[test]
    fn treatments_of_another_incident_do_not_count() {
        let rows: Vec<_> = (1..=40).map(|id| worker_restarted(id, id, mins(59))).collect();
        assert_eq!(rollout(&rows, 500).now, 10);
    }

    #[test]
    fn self_recovered_sets_do_not_count() {
        let end = mins(61).plus(Span::secs(9));
        let rows: Vec<_> = (1..=40).map(|id| closed(id, id, mins(61), end, Outcome::SelfRecovered)).collect();
        assert_eq!(rollout(&rows, 500).now, 10);
    }

    #[test]
    fn zero_and_absurd_shares_stay_bounded() {
        let none = Policy { max_in_flight: 0, in_flight_share: 1.0, ..Policy::default() };
        assert_eq!(Rollout::of(&alive(40), mins(60), 500, &none), Rollout { now: 0, most: 0 });
        for (share, most) in [(f64::NAN, 10), (-1.0, 10), (f64::INFINITY, 500)] {
            let policy = Policy { in_flight_share: share, ..Policy::default() };
            assert_eq!(Rollout::of(&[], mins(60), 500, &policy).most, most, "{share}");
        }
    }
}
