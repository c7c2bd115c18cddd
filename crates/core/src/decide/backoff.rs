//! Back-off: how long one set is left alone after a treatment (`docs/reference/design.md` §6: 5, 15, 60 min, with
//! jitter).
//!
//! The last wait repeats. The jitter only ever lengthens a wait, and is fixed by the treatment's number, so that a
//! restart of ours does not roll the dice again. It spreads sets that fell ill together.

use crate::model::{BlockedBy, Guard, Span, Treatment, TreatmentId, Wall, told};
use crate::policy::Policy;

/// The wait after `previous` counted treatments (none: no wait), with `unit` in [0, 1) choosing the jitter.
#[must_use]
pub fn wait(policy: &Policy, previous: usize, unit: f64) -> Span {
    let Some(index) = previous.checked_sub(1) else { return Span::ZERO };
    let Some(base) = policy.backoff.get(index).or(policy.backoff.last()) else { return Span::ZERO };
    base.plus(share_of(*base, policy.backoff_jitter.max(0.0) * unit.clamp(0.0, 1.0)))
}

/// A number in [0, 1) that belongs to a treatment (splitmix64 of its number).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
pub fn unit_of(id: TreatmentId) -> f64 {
    let mut x = id.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// The guard, for the treatments that count (oldest first).
#[must_use]
pub fn held(counted: &[&Treatment], now: Wall, policy: &Policy) -> Option<BlockedBy> {
    let last = counted.last()?;
    let wait = wait(policy, counted.len(), unit_of(last.id));
    let passed = now.since(last.step_at);
    (passed < wait).then(|| BlockedBy {
        guard: Guard::Backoff,
        value: told!("{} of {} since treatment #{}", passed, wait, last.id),
        limit: format!("{wait} after the {} treatment of this set", nth(counted.len())).into(),
        until: Some(last.step_at.plus(wait)),
    })
}

/// 1st, 2nd, 3rd, 4th, …, 11th.
fn nth(number: usize) -> String {
    let end = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        (_, _) => "th",
    };
    format!("{number}{end}")
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a wait: the cast from f64 saturates and takes NaN as 0"
)]
fn share_of(span: Span, share: f64) -> Span {
    Span((span.as_millis() as f64 * share) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_english() {
        let told = [1, 2, 3, 4, 11, 12, 13, 21, 22, 103, 111].map(nth);
        let expected = ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "103rd", "111th"];
        assert_eq!(told, expected.map(str::to_owned));
    }
    use crate::decide::testing::closed;
    use crate::model::Outcome;

    #[test]
    fn the_last_wait_repeats() {
        let policy = Policy::default();
        let waits: Vec<_> = (0..6).map(|n| wait(&policy, n, 0.0).to_string()).collect();
        assert_eq!(waits, ["0 ms", "5 min", "15 min", "1 h", "1 h", "1 h"]);
    }

    #[test]
    fn jitter_lengthens_by_its_share_at_most() {
        let policy = Policy::default();
        assert_eq!(wait(&policy, 1, 0.5), Span::secs(330));
        assert_eq!(wait(&policy, 1, 7.0), Span::mins(6));
        for id in 0..2000 {
            let unit = unit_of(TreatmentId(id));
            assert!((0.0..1.0).contains(&unit));
        }
        assert!((unit_of(TreatmentId(1)) - unit_of(TreatmentId(2))).abs() > f64::EPSILON);
    }

    #[test]
    fn a_treatments_share_of_the_jitter_is_the_same_in_every_version_of_ours() {
        // The first outputs of the reference splitmix64 for these seeds.
        for (seed, first) in [(0, 0xE220_A839_7B1D_CDAF_u64), (1_234_567, 6_457_827_717_110_365_317)] {
            let bits = unit_of(TreatmentId(seed)) * 2_f64.powi(53);
            assert_eq!(format!("{bits}"), (first >> 11).to_string(), "{seed}");
        }
    }

    #[test]
    fn absurd_numbers_saturate() {
        let policy = Policy { backoff: vec![Span::MAX], backoff_jitter: f64::INFINITY, ..Policy::default() };
        assert_eq!(wait(&policy, 1, 0.9), Span::MAX);
        let policy = Policy { backoff_jitter: f64::NAN, ..Policy::default() };
        assert_eq!(wait(&policy, 1, 0.9), Span::mins(5));
        assert_eq!(wait(&Policy { backoff: vec![], ..Policy::default() }, 3, 0.9), Span::ZERO);
    }

    #[test]
    fn a_set_treated_a_minute_ago_waits_and_says_until_when() {
        let policy = Policy { backoff_jitter: 0.0, ..Policy::default() };
        let row = closed(7, 1, Wall(0), Wall(60_000), Outcome::Unverified);
        let held = held(&[&row], Wall(120_000), &policy).unwrap();
        assert_eq!(held.value, "1 min of 5 min since treatment #7");
        assert_eq!(held.limit, "5 min after the 1st treatment of this set");
        assert_eq!(held.until, Some(Wall(360_000)));
        assert_eq!(super::held(&[&row], Wall(360_000), &policy), None);
        assert_eq!(super::held(&[], Wall(0), &policy), None);
    }
}
