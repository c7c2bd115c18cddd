//! Back-off: how long a set is not treated after a treatment (`docs/reference/design.md` §6: 5, 15, 60 min, with
//! jitter).
//!
//! The last wait repeats. Jitter only lengthens a wait, and spreads sets that fell ill together. It follows from the
//! treatment's id, so a restart of ours does not change it.

use crate::model::{BlockedBy, GuardFact, Span, Treatment, TreatmentId, Wall};
use crate::policy::Policy;

/// The wait after `previous` counted treatments (none: no wait), with `unit` in [0, 1) choosing the jitter.
pub fn wait(policy: &Policy, previous: usize, unit: f64) -> Span {
    let Some(index) = previous.checked_sub(1) else { return Span::ZERO };
    let Some(base) = policy.backoff.get(index).or(policy.backoff.last()) else { return Span::ZERO };
    base.plus(share_of(*base, policy.backoff_jitter.max(0.0) * unit.clamp(0.0, 1.0)))
}

/// A number in [0, 1) that belongs to a treatment (splitmix64 of its number).
#[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
pub fn unit_of(id: TreatmentId) -> f64 {
    let mut x = id.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// The guard, for the treatments that count (oldest first).
pub fn block(counted: &[&Treatment], now: Wall, policy: &Policy) -> Option<BlockedBy> {
    let last = counted.last()?;
    let wait = wait(policy, counted.len(), unit_of(last.id));
    let passed = now.since(last.step_at);
    (passed < wait).then(|| {
        let fact = GuardFact::Backoff { passed, wait, treatment: last.id, treatments: counted.len() };
        fact.until(Some(last.step_at.plus(wait)))
    })
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

    use crate::decide::testing::closed;
    use crate::model::Outcome;

    #[test]
    fn the_last_wait_repeats() {
        let policy = Policy::default();
        let waits: Vec<_> = (0..6).map(|n| wait(&policy, n, 0.0).to_string()).collect();
        assert_eq!(waits, ["0 ms", "5 min", "15 min", "1 h", "1 h", "1 h"]);
    }

    #[test]
    fn jitter_lengthens_the_wait_by_its_share_at_most() {
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
    fn jitter_of_a_treatment_is_stable_across_releases() {
        // The first outputs of the reference splitmix64 for these seeds.
        for (seed, first) in [(0, 0xE220_A839_7B1D_CDAF_u64), (1_234_567, 6_457_827_717_110_365_317)] {
            let bits = unit_of(TreatmentId(seed)) * 2_f64.powi(53);
            assert_eq!(format!("{bits}"), (first >> 11).to_string(), "{seed}");
        }
    }

    #[test]
    fn wait_saturates_on_absurd_numbers() {
        let policy = Policy { backoff: vec![Span::MAX], backoff_jitter: f64::INFINITY, ..Policy::default() };
        assert_eq!(wait(&policy, 1, 0.9), Span::MAX);
        let policy = Policy { backoff_jitter: f64::NAN, ..Policy::default() };
        assert_eq!(wait(&policy, 1, 0.9), Span::mins(5));
        assert_eq!(wait(&Policy { backoff: vec![], ..Policy::default() }, 3, 0.9), Span::ZERO);
    }

    #[test]
    fn block_lasts_until_the_wait_after_the_last_treatment() {
        let policy = Policy { backoff_jitter: 0.0, ..Policy::default() };
        let row = closed(7, 1, Wall(0), Wall(60_000), Outcome::Unverified);
        let (passed, wait) = (Span::mins(1), Span::mins(5));
        let fact = GuardFact::Backoff { passed, wait, treatment: TreatmentId(7), treatments: 1 };
        assert_eq!(block(&[&row], Wall(120_000), &policy), Some(fact.until(Some(Wall(360_000)))));
        assert_eq!(block(&[&row], Wall(360_000), &policy), None);
        assert_eq!(block(&[], Wall(0), &policy), None);
    }
}
