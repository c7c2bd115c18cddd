//! The most that a policy allows, in numbers to check before healing is switched on, and the check at run time that it
//! is kept.
//!
//! The check ([`blocks`]) shares no rule with the guards: it counts the journal's rows and knows no causes or canaries.
//! It blocks only what a bug in the guards let through. Manual heals do not count. [`left_disabled`] also blocks without
//! a bug of ours, and blocks manual heals too: the manager may refuse an enable.

use super::rollout;
use crate::model::{BlockedBy, Bounded, GuardFact, RemedyKind, ScaleSetId, Span, Treatment, Wall};
use crate::policy::Policy;

const DAY: Span = Span::hours(24);
const HOUR: Span = Span::hours(1);

/// The most that can happen under a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Heals of one set in a day while it never stays well.
    pub heals_per_set_and_day: u64,
    /// Heals of one set in a day when it is well for just long enough to clear its count each time.
    pub heals_per_set_and_day_with_recoveries: u64,
    /// Writes of one heal that are answered: a deletion, a disable and an enable.
    pub writes_per_heal: u64,
    /// Session checks of one set in a day; each opens and deletes a session.
    pub session_checks_per_set_and_day: u64,
    pub heals_per_hour: u64,
    /// Open treatments at once, in a fleet of any size.
    pub in_flight: u64,
    /// The same in parts per thousand of the enabled sets, where that is more.
    pub in_flight_per_thousand: u64,
    /// The longest that we disable a set while the manager answers.
    pub disabled_for: Span,
}

pub fn bounds(policy: &Policy) -> Bounds {
    let budget = u64::from(policy.set_budget);
    let in_window = times_in_a_day(policy.set_budget_window);
    let cycles = times_in_a_day(policy.budget_cleared_after);
    let session_checks_per_set_and_day =
        if policy.session_check { times_in_a_day(policy.session_check_every) } else { 0 };
    Bounds {
        heals_per_set_and_day: budget.saturating_mul(in_window),
        heals_per_set_and_day_with_recoveries: budget.saturating_mul(cycles.max(in_window)),
        writes_per_heal: 3,
        session_checks_per_set_and_day,
        heals_per_hour: u64::from(policy.heals_per_hour),
        in_flight: u64::from(policy.max_in_flight),
        in_flight_per_thousand: as_u64(rollout::share(policy.in_flight_share, 1000)),
        disabled_for: policy.disabled_limit,
    }
}

/// A treatment that this sweep has allowed, or is about to allow.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    pub set: ScaleSetId,
    pub remedy: RemedyKind,
}

/// The bounds that one more treatment would break in a fleet of `enabled` sets; `started` were allowed earlier in this
/// sweep.
pub fn blocks(
    policy: &Policy,
    enabled: usize,
    history: &[Treatment],
    started: &[Started],
    next: Started,
    now: Wall,
) -> Vec<BlockedBy> {
    let limits = bounds(policy);
    let ours = || history.iter().filter(|row| row.manual_heal.is_none());
    let within = |row: &Treatment, span: Span| row.opened.plus(span) > now;
    let of_kind = |set: ScaleSetId, kind: RemedyKind| set == next.set && kind.heals() == next.remedy.heals();
    let same_kind = ours().filter(|row| of_kind(row.set, row.remedy.kind()) && within(row, DAY)).count()
        + started.iter().filter(|other| of_kind(other.set, other.remedy)).count();
    let mut counts = if next.remedy.heals() {
        let in_hour = ours().filter(|row| row.is_heal() && within(row, HOUR)).count()
            + started.iter().filter(|other| other.remedy.heals()).count();
        vec![
            (Bounded::HealsOfSet, same_kind, limits.heals_per_set_and_day_with_recoveries),
            (Bounded::HealsOfManager, in_hour, limits.heals_per_hour),
        ]
    } else {
        vec![(Bounded::SessionChecksOfSet, same_kind, limits.session_checks_per_set_and_day)]
    };
    let in_flight = ours().filter(|row| row.in_flight()).count() + started.len();
    let share = as_u64(rollout::share(policy.in_flight_share, enabled));
    counts.push((Bounded::InFlight, in_flight, limits.in_flight.max(share)));
    let broken = counts.into_iter().map(|(of, count, limit)| (of, as_u64(count), limit));
    broken
        .filter(|(_, count, limit)| count >= limit)
        .map(|(of, count, limit)| GuardFact::Bound { of, count, limit }.into())
        .collect()
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The guard of remedies that disable, if we could not enable a set within the limit: another set would fare no better.
pub fn left_disabled(policy: &Policy, history: &[Treatment], now: Wall) -> Option<BlockedBy> {
    let limit = policy.disabled_limit;
    let (since, set) = history.iter().filter_map(|row| Some((row.disabled_since()?, row.set))).min()?;
    let disabled_for = now.since(since);
    (disabled_for >= limit).then(|| GuardFact::LeftDisabled { set, disabled_for, limit }.into())
}

/// How often something at least `every` apart can begin within a day.
fn times_in_a_day(every: Span) -> u64 {
    match DAY.as_millis().checked_div(every.as_millis()) {
        Some(times) if DAY.as_millis().is_multiple_of(every.as_millis()) => times.max(1),
        Some(times) => times.saturating_add(1),
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{check, closed, hours, mins, open};
    use crate::model::{ManualHealId, Outcome, Revision, Step};

    const SET: ScaleSetId = ScaleSetId(7);

    fn blocks_of(rows: &[Treatment], started: &[Started], remedy: RemedyKind) -> Vec<(Bounded, u64)> {
        let policy = Policy { heals_per_hour: 4, max_in_flight: 2, budget_cleared_after: DAY, ..Policy::default() };
        let blocks = blocks(&policy, 10, rows, started, Started { set: SET, remedy }, hours(24));
        let bound = |block: BlockedBy| {
            let GuardFact::Bound { of, count, limit } = block.fact else { panic!("{block:?}") };
            assert_eq!(count, limit);
            (of, count)
        };
        blocks.into_iter().map(bound).collect()
    }

    #[test]
    fn one_treatment_beyond_a_bound_is_blocked() {
        let remedy = RemedyKind::Toggle;
        let three: Vec<_> = (0..3).map(|n| closed(n, 7, hours(n + 1), hours(n + 1), Outcome::Recovered)).collect();
        let of_set = [(Bounded::HealsOfSet, 3)];
        assert_eq!(blocks_of(&three, &[], remedy), of_set);
        assert_eq!(blocks_of(&three[1..], &[], remedy), []);
        assert_eq!(blocks_of(&three[1..], &[Started { set: SET, remedy }], remedy), of_set);
        assert_eq!(blocks_of(&three, &[], RemedyKind::SessionCheck), [], "a session check heals nothing");

        let of_others: Vec<_> =
            (0..4).map(|n| closed(n, n, hours(23).plus(Span::mins(n + 1)), hours(24), Outcome::Recovered)).collect();
        assert_eq!(blocks_of(&of_others, &[], remedy), [(Bounded::HealsOfManager, 4)]);

        let open = [open(1, 1, mins(1400), Step::Verifying), open(2, 2, mins(1400), Step::Verifying)];
        assert_eq!(blocks_of(&open, &[], RemedyKind::SessionCheck), [(Bounded::InFlight, 2)]);
    }

    #[test]
    fn manual_heals_do_not_count_and_session_checks_count_apart() {
        let manual: Vec<_> = (0..3)
            .map(|n| Treatment {
                manual_heal: Some(ManualHealId(n)),
                ..closed(n, 7, hours(23), hours(23), Outcome::Recovered)
            })
            .collect();
        assert_eq!(blocks_of(&manual, &[], RemedyKind::Toggle), []);
        let checks: Vec<_> = (0..1440).map(|n| check(n, 7, mins(n + 1), mins(n + 1), Outcome::Held)).collect();
        assert_eq!(blocks_of(&checks, &[], RemedyKind::SessionCheck), [(Bounded::SessionChecksOfSet, 1440)]);
        assert_eq!(blocks_of(&checks, &[], RemedyKind::Toggle), []);
    }

    #[test]
    fn left_disabled_blocks_from_the_limit_on() {
        let policy = Policy::default();
        let (ours, seen) = (|| Revision::new("ours"), || Revision::new("seen"));
        let enabling = Step::Enabling { ours: ours(), since: Some(mins(7)), attempts: 3, not_before: mins(9) };
        let disabled = |again_until| Step::Disabled { ours: ours(), again_until };
        let lost = Some(mins(7).plus(Treatment::LATE));
        for (step, at_limit) in [
            (enabling, mins(9)),
            (disabled(None), mins(10)),
            (disabled(lost), mins(9)),
            (Step::DisableUnknown { seen: seen(), sent: mins(7) }, mins(9)),
            (Step::Disabling { seen: seen(), sent: Some(mins(7)) }, mins(9)),
        ] {
            // The step itself dates from the eighth minute.
            let rows = [open(1, 7, mins(8), step), closed(2, 8, mins(1), mins(2), Outcome::Recovered)];
            assert_eq!(left_disabled(&policy, &rows, Wall(at_limit.0 - 1)), None, "{rows:?}");
            let (disabled_for, limit) = (Span::mins(2), Span::mins(2));
            let fact = GuardFact::LeftDisabled { set: SET, disabled_for, limit };
            assert_eq!(left_disabled(&policy, &rows, at_limit), Some(fact.into()));
        }
        for step in [Step::Disabling { seen: seen(), sent: None }, Step::Verifying] {
            assert_eq!(left_disabled(&policy, &[open(1, 7, mins(1), step)], mins(60)), None);
        }
    }

    #[test]
    fn odd_windows_round_up_and_zero_is_unbounded() {
        let policy = Policy {
            set_budget_window: Span::hours(7),
            budget_cleared_after: Span::ZERO,
            session_check: false,
            ..Policy::default()
        };
        let bounds = bounds(&policy);
        assert_eq!(bounds.heals_per_set_and_day, 12);
        assert_eq!(bounds.heals_per_set_and_day_with_recoveries, u64::MAX);
        assert_eq!(bounds.session_checks_per_set_and_day, 0);
    }
}
