//! What the policy allows at the very most, in numbers a person can check before switching healing on, and the check
//! at run time that it is kept.
//!
//! The check ([`held`]) shares no rule with the guards: it counts the journal's rows anew and knows nothing of causes
//! and canaries. It holds only what a fault in the guards let through. What a person orders is not counted. Only
//! [`left_disabled`] holds without a fault of ours, and for orders too: the manager may refuse an enable.

use super::rollout;
use crate::model::{BlockedBy, Guard, RemedyKind, ScaleSetId, Span, Treatment, Wall, told};
use crate::policy::Policy;

const DAY: Span = Span::hours(24);
const HOUR: Span = Span::hours(1);

/// The most that can happen under a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Heals of one set in a day while it never stays well.
    pub heals_per_set_and_day: u64,
    /// Heals of one set in a day when each time it is well for just long enough to clear its count.
    pub heals_per_set_and_day_with_recoveries: u64,
    /// Writes of one heal that are answered: a deletion, a disable and an enable.
    pub writes_per_heal: u64,
    /// Session probes of one set in a day, each a session opened and deleted.
    pub session_checks_per_set_and_day: u64,
    /// Heals of one manager in an hour.
    pub heals_per_hour: u64,
    /// Treatments under way at once, in a fleet of any size.
    pub in_flight: u64,
    /// The same in parts per thousand of the enabled sets, where that is more.
    pub in_flight_per_thousand: u64,
    /// The longest a set can be disabled by us while the manager answers.
    pub disabled_for: Span,
}

#[must_use]
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
        in_flight_per_thousand: u64::try_from(rollout::share(policy.in_flight_share, 1000)).unwrap_or(u64::MAX),
        disabled_for: policy.disabled_limit,
    }
}

/// The bounds that one more treatment would break, in a fleet of so many enabled sets; `started` were allowed earlier in
/// this sweep.
#[must_use]
pub fn held(
    policy: &Policy,
    enabled: usize,
    history: &[Treatment],
    started: &[(ScaleSetId, RemedyKind)],
    next: (ScaleSetId, RemedyKind),
    now: Wall,
) -> Vec<BlockedBy> {
    let limits = bounds(policy);
    let within = |row: &Treatment, span: Span| row.opened.plus(span) > now;
    let count = |counts: &dyn Fn(&Treatment) -> bool, counts_too: &dyn Fn(&(ScaleSetId, RemedyKind)) -> bool| {
        let before = history.iter().filter(|row| row.ordered.is_none() && counts(row)).count();
        let total = before.saturating_add(started.iter().filter(|one| counts_too(one)).count());
        u64::try_from(total).unwrap_or(u64::MAX)
    };
    let (set, kind) = next;
    let is_heal = |kind: RemedyKind| kind != RemedyKind::SessionCheck;
    let mut broken = Vec::new();
    let mut check = |is: u64, limit: u64, what: &'static str| {
        if is >= limit {
            let (value, limit) = (told!("{} {}", is, what), told!("{} {}", limit, what));
            broken.push(BlockedBy { guard: Guard::Bound, value, limit, until: None });
        }
    };
    let same_kind = count(
        &|row| row.set == set && is_heal(row.remedy.kind()) == is_heal(kind) && within(row, DAY),
        &|(of, other)| *of == set && is_heal(*other) == is_heal(kind),
    );
    if is_heal(kind) {
        check(same_kind, limits.heals_per_set_and_day_with_recoveries, "heals of the set in a day");
        let in_hour = count(&|row| is_heal(row.remedy.kind()) && within(row, HOUR), &|(_, other)| is_heal(*other));
        check(in_hour, limits.heals_per_hour, "heals of the manager in an hour");
    } else {
        check(same_kind, limits.session_checks_per_set_and_day, "session probes of the set in a day");
    }
    let share = u64::try_from(rollout::share(policy.in_flight_share, enabled)).unwrap_or(u64::MAX);
    check(count(&Treatment::in_flight, &|_| true), limits.in_flight.max(share), "treatments under way");
    broken
}

/// The bound that is broken already: a set that we have had disabled for too long, because its enable does not succeed.
/// Another one would not fare better.
#[must_use]
pub fn left_disabled(policy: &Policy, history: &[Treatment], now: Wall) -> Option<BlockedBy> {
    let longest = bounds(policy).disabled_for;
    let (since, set) = history.iter().filter_map(|row| Some((row.disabled_since()?, row.set))).min()?;
    (now.since(since) >= longest).then(|| BlockedBy {
        guard: Guard::LeftDisabled,
        value: told!("set {} disabled by us for {}", set, now.since(since)),
        limit: told!("{}", longest),
        until: None,
    })
}

/// How often something at least `every` apart can begin within a day.
fn times_in_a_day(every: Span) -> u64 {
    match DAY.as_millis().checked_div(every.as_millis()) {
        Some(times) if DAY.as_millis().is_multiple_of(every.as_millis()) => times.max(1),
        Some(times) => times.saturating_add(1),
        None => u64::MAX,
    }
}

impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let writes = self.heals_per_set_and_day.saturating_mul(self.writes_per_heal);
        writeln!(
            f,
            "At most {} heals of one set in a day ({writes} writes, repeated ones aside), {} if it recovers for long enough \
             in between.",
            self.heals_per_set_and_day, self.heals_per_set_and_day_with_recoveries
        )?;
        writeln!(f, "At most {} session probes of one set in a day.", self.session_checks_per_set_and_day)?;
        let more = match self.in_flight_per_thousand {
            0 => String::new(),
            share => format!(" (or {}.{} % of the sets, where that is more)", share / 10, share % 10),
        };
        writeln!(
            f,
            "At most {} treatments at once{more}, one before the first has shown life, and {} heals in an hour.",
            self.in_flight, self.heals_per_hour
        )?;
        write!(
            f,
            "A set is disabled by us for at most {} and a pass while the manager answers; if it refuses the enable for longer, no \
             other set is disabled.",
            self.disabled_for
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{closed, hours, mins, open, probe};
    use crate::model::{ManualHealId, Outcome, Revision, Step};

    fn words(rows: &[Treatment], started: &[(ScaleSetId, RemedyKind)], kind: RemedyKind) -> Vec<String> {
        let policy = Policy { heals_per_hour: 4, max_in_flight: 2, budget_cleared_after: DAY, ..Policy::default() };
        let held = held(&policy, 10, rows, started, (ScaleSetId(7), kind), hours(24));
        held.into_iter().map(|held| format!("{}: {}", held.guard, held.value)).collect()
    }

    #[test]
    fn one_more_than_the_bounds_is_held_whatever_the_guards_say() {
        let toggle = RemedyKind::Toggle;
        let three: Vec<_> = (0..3).map(|n| closed(n, 7, hours(n + 1), hours(n + 1), Outcome::Recovered)).collect();
        assert_eq!(words(&three, &[], toggle), ["bound: 3 heals of the set in a day"]);
        assert_eq!(words(&three[1..], &[], toggle), [""; 0]);
        assert_eq!(words(&three[1..], &[(ScaleSetId(7), toggle)], toggle), ["bound: 3 heals of the set in a day"]);
        assert_eq!(words(&three, &[], RemedyKind::SessionCheck), [""; 0], "asking is no healing");

        let of_others: Vec<_> =
            (0..4).map(|n| closed(n, n, hours(23).plus(Span::mins(n + 1)), hours(24), Outcome::Recovered)).collect();
        assert_eq!(words(&of_others, &[], toggle), ["bound: 4 heals of the manager in an hour"]);

        let under_way = [open(1, 1, mins(1400), Step::Verifying), open(2, 2, mins(1400), Step::Verifying)];
        assert_eq!(words(&under_way, &[], RemedyKind::SessionCheck), ["bound: 2 treatments under way"]);
    }

    #[test]
    fn what_a_person_orders_is_not_counted_and_probes_have_a_bound_of_their_own() {
        let ordered: Vec<_> = (0..3)
            .map(|n| Treatment {
                ordered: Some(ManualHealId(n)),
                ..closed(n, 7, hours(23), hours(23), Outcome::Recovered)
            })
            .collect();
        assert_eq!(words(&ordered, &[], RemedyKind::Toggle), [""; 0]);
        let probes: Vec<_> = (0..1440).map(|n| probe(n, 7, mins(n + 1), mins(n + 1), Outcome::Held)).collect();
        assert_eq!(words(&probes, &[], RemedyKind::SessionCheck), ["bound: 1440 session probes of the set in a day"]);
        assert_eq!(words(&probes, &[], RemedyKind::Toggle), [""; 0]);
    }

    #[test]
    fn a_set_that_stays_disabled_by_us_is_told_with_its_time_from_the_limit_on() {
        let policy = Policy::default();
        let enabling = |since| Step::Enabling {
            ours: Revision::new("ours"),
            since: Some(since),
            attempts: 3,
            not_before: mins(9),
        };
        let disabled = |again_until| Step::Disabled { ours: Revision::new("ours"), again_until };
        let lost = Some(mins(7).plus(Treatment::LATE));
        for (step, until_limit) in [
            (enabling(mins(7)), mins(9)),
            (disabled(None), mins(10)),
            (disabled(lost), mins(9)),
            (Step::DisableUnknown { seen: Revision::new("seen"), sent: mins(7) }, mins(9)),
            (Step::Disabling { seen: Revision::new("seen"), sent: Some(mins(7)) }, mins(9)),
        ] {
            // The step itself dates from the eighth minute.
            let rows = [open(1, 7, mins(8), step), closed(2, 8, mins(1), mins(2), Outcome::Recovered)];
            assert_eq!(left_disabled(&policy, &rows, Wall(until_limit.0 - 1)), None, "{rows:?}");
            let held = left_disabled(&policy, &rows, until_limit).unwrap();
            let words = format!("{}: {} (limit {})", held.guard, held.value, held.limit);
            assert_eq!(words, "left_disabled: set 7 disabled by us for 2 min (limit 2 min)");
        }
        let unsent = Step::Disabling { seen: Revision::new("seen"), sent: None };
        for step in [unsent, Step::Verifying] {
            assert_eq!(left_disabled(&policy, &[open(1, 7, mins(1), step)], mins(60)), None);
        }
    }

    #[test]
    fn the_defaults_in_words() {
        assert_eq!(
            bounds(&Policy::default()).to_string(),
            "At most 3 heals of one set in a day (9 writes, repeated ones aside), 72 if it recovers for long enough in \
             between.\n\
             At most 1440 session probes of one set in a day.\n\
             At most 10 treatments at once (or 5.0 % of the sets, where that is more), one before the first has shown \
             life, and 1000 heals in an hour.\n\
             A set is disabled by us for at most 2 min and a pass while the manager answers; if it refuses the enable for \
             longer, no other set is disabled."
        );
    }

    #[test]
    fn odd_windows_round_up_and_zero_does_not_divide() {
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
