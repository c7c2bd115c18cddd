//! What the policy allows at the very most, in numbers a person can check before switching healing on.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::policy::Policy;
use super::ramp;
use crate::model::Span;

const DAY: Span = Span::hours(24);

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
    pub session_probes_per_set_and_day: u64,
    /// Heals of one manager in an hour.
    pub heals_per_hour: u64,
    /// Treatments under way at once, in a fleet of any size.
    pub in_flight: u64,
    /// The same in parts per thousand of the enabled sets, where that is more.
    pub in_flight_per_thousand: u64,
    /// The longest a set can be disabled by us while the manager answers.
    pub disabled_for: Span,
}

/// Computes them.
#[must_use]
pub fn bounds(policy: &Policy) -> Bounds {
    let budget = u64::from(policy.set_budget);
    let in_window = times_in_a_day(policy.set_budget_window);
    let cycles = times_in_a_day(policy.budget_cleared_after);
    let session_probes_per_set_and_day =
        if policy.session_probe { times_in_a_day(policy.session_probe_every) } else { 0 };
    Bounds {
        heals_per_set_and_day: budget.saturating_mul(in_window),
        heals_per_set_and_day_with_recoveries: budget.saturating_mul(cycles.max(in_window)),
        writes_per_heal: 3,
        session_probes_per_set_and_day,
        heals_per_hour: u64::from(policy.heals_per_hour),
        in_flight: u64::from(policy.max_in_flight),
        in_flight_per_thousand: u64::try_from(ramp::share(policy.in_flight_share, 1000)).unwrap_or(u64::MAX),
        disabled_for: policy.disabled_limit,
    }
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
            "At most {} heals of one set in a day ({writes} writes), {} if it recovers for long enough in between.",
            self.heals_per_set_and_day, self.heals_per_set_and_day_with_recoveries
        )?;
        writeln!(f, "At most {} session probes of one set in a day.", self.session_probes_per_set_and_day)?;
        let more = match self.in_flight_per_thousand {
            0 => String::new(),
            share => format!(" (or {}.{} % of the sets, where that is more)", share / 10, share % 10),
        };
        writeln!(
            f,
            "At most {} treatments at once{more}, one before the first has shown life, and {} heals in an hour.",
            self.in_flight, self.heals_per_hour
        )?;
        write!(f, "A set is disabled by us for at most {} while the manager answers.", self.disabled_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_in_words() {
        assert_eq!(
            bounds(&Policy::default()).to_string(),
            "At most 3 heals of one set in a day (9 writes), 72 if it recovers for long enough in between.\n\
             At most 1440 session probes of one set in a day.\n\
             At most 10 treatments at once (or 5.0 % of the sets, where that is more), one before the first has shown \
             life, and 1000 heals in an hour.\n\
             A set is disabled by us for at most 2 min while the manager answers."
        );
    }

    #[test]
    fn odd_windows_round_up_and_zero_does_not_divide() {
        let policy = Policy {
            set_budget_window: Span::hours(7),
            budget_cleared_after: Span::ZERO,
            session_probe: false,
            ..Policy::default()
        };
        let bounds = bounds(&policy);
        assert_eq!(bounds.heals_per_set_and_day, 12);
        assert_eq!(bounds.heals_per_set_and_day_with_recoveries, u64::MAX);
        assert_eq!(bounds.session_probes_per_set_and_day, 0);
    }
}
