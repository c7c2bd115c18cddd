//! Every rule's number, with its default and the reason for it (`docs/reference/design.md` §5, §6). `0` never means
//! unlimited.

use crate::model::Span;
use crate::model::closed::closed_enum;

closed_enum! {
    /// Whether writes are allowed.
    pub enum Mode {
        /// Everything but the writes; reports what it would have done.
        Observe = "observe",
        Heal = "heal",
    }
}

/// The limits of diagnosis and decision. One that a snapshot does not have is read with its default.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Grace after a manager's start, in which nothing short of proof leads to an act.
    pub settle: Span,
    /// An unbroken run of conflicts longer than this is no stale session.
    pub stale_session_limit: Span,
    /// From here on, a wait for a stale session is called odd.
    pub stale_session_odd: Span,
    /// Allows a toggle of a deaf set, which still runs a listener.
    pub allow_risky: bool,
    /// Whether a set whose changes have no dates may be disabled: a person's change of it cannot be told from ours.
    pub allow_undated: bool,
    /// Sweeps in a row that must agree before a strong finding is acted upon.
    pub confirm_strong: u32,
    /// Treatments under way at once, after the canary.
    pub max_in_flight: u32,
    /// The same as a share of the enabled sets, reached as treatments prove to help ([`ramp`](super::ramp)).
    pub in_flight_share: f64,
    /// Treatments of one set within `set_budget_window`.
    pub set_budget: u32,
    /// The window of `set_budget`.
    pub set_budget_window: Span,
    /// Waits before the second, third, … treatment of one set; the last repeats.
    pub backoff: Vec<Span>,
    /// Spread added to each wait, as a share of it (0.2 = up to 20 % more).
    pub backoff_jitter: f64,
    /// Health for this long clears a set's count.
    pub budget_cleared_after: Span,
    /// Treatments of one manager within an hour: one crash of 500 sets, twice.
    pub heals_per_hour: u32,
    /// Unverified treatments in a row that open the breaker.
    pub breaker_after: u32,
    /// How long an open breaker waits before it lets one canary through.
    pub breaker_half_open_after: Span,
    /// Least wait between disable and enable where nothing shows that the worker is there.
    pub toggle_gap: Span,
    /// How long to wait for that evidence before enabling all the same.
    pub toggle_gap_limit: Span,
    /// Longest a set may stay disabled by us while the manager is reachable.
    pub disabled_limit: Span,
    /// How long a toggled worker may take to show any life.
    pub restart_timeout: Span,
    /// How long to wait for listener evidence after a remedy.
    pub verify_timeout: Span,
    /// A listener without a completed poll for this long is deaf (three poll lengths).
    pub deaf_after: Span,
    /// Assigned jobs that start nothing for this long make a polling set starved.
    pub starved_after: Span,
    /// Sessions opened by one set within a minute that no healthy poll explains.
    pub flapping_per_minute: u32,
    /// Whether session probes may be used at all.
    pub session_check: bool,
    /// At most one session probe per set within this.
    pub session_check_every: Span,
    /// A forge must lack a set for this long before it is called missing.
    pub missing_after: Span,
    /// Share of a GitHub credential's quota left to the manager.
    pub quota_reserve: f64,
}

impl Policy {
    /// How far the journal must be looked back into: the longest time that any limit reaches.
    #[must_use]
    pub fn history(&self) -> Span {
        let longest_backoff = self.backoff.iter().copied().max().unwrap_or_default();
        // The jitter at most doubles a wait.
        [
            Span::hours(24),
            self.set_budget_window,
            longest_backoff.times(2),
            self.breaker_half_open_after.times(2),
            self.budget_cleared_after,
            self.session_check_every,
            self.stale_session_limit,
        ]
        .into_iter()
        .fold(Span::ZERO, Span::max)
    }
}

impl Default for Policy {
    fn default() -> Self {
        let stale_session_limit = Span::mins(5);
        Self {
            settle: Span::secs(20),
            stale_session_limit,
            stale_session_odd: Span::mins(3),
            allow_risky: false,
            allow_undated: false,
            confirm_strong: 2,
            max_in_flight: 10,
            in_flight_share: 0.05,
            set_budget: 3,
            set_budget_window: Span::hours(24),
            backoff: vec![Span::mins(5), Span::mins(15), Span::mins(60)],
            backoff_jitter: 0.2,
            budget_cleared_after: Span::hours(1),
            heals_per_hour: 1000,
            breaker_after: 2,
            breaker_half_open_after: Span::mins(30),
            toggle_gap: Span::secs(5),
            toggle_gap_limit: Span::secs(15),
            disabled_limit: Span::mins(2),
            restart_timeout: Span::secs(30),
            verify_timeout: stale_session_limit.plus(Span::secs(30)),
            deaf_after: Span::secs(270),
            starved_after: Span::mins(10),
            flapping_per_minute: 20,
            session_check: true,
            session_check_every: Span::mins(1),
            missing_after: Span::mins(2),
            quota_reserve: 0.2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_looked_back_into_for_a_day_or_for_as_long_as_any_limit_reaches() {
        assert_eq!(Policy::default().history(), Span::hours(24));
        let default = Policy::default;
        let days = Span::hours(72);
        for reaches in [
            Policy { set_budget_window: days, ..default() },
            Policy { backoff: vec![Span::mins(5), Span::hours(36)], ..default() },
            Policy { breaker_half_open_after: Span::hours(36), ..default() },
            Policy { budget_cleared_after: days, ..default() },
            Policy { session_check_every: days, ..default() },
            Policy { stale_session_limit: days, ..default() },
        ] {
            assert_eq!(reaches.history(), days, "{reaches:?}");
        }
    }
}
