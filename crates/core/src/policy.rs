//! Every number that a rule uses, each declared once with its default, bounds and meaning (`docs/reference/design.md`
//! §5, §6). `0` never means unlimited.

use crate::model::Span;
use crate::model::closed::closed_enum;
use crate::settings::{Follows, Kind, Risky, Takes};

closed_enum! {
    /// Whether writes are allowed.
    pub enum Mode {
        /// Everything but the writes; reports what it would have done.
        Observe = "observe",
        Heal = "heal",
    }
}

/// The longest that a stale session was measured to block is 92 s (`docs/reference/design.md` §1).
const LONGER_THAN_STALE: Span = Span::secs(93);
const SECOND: Span = Span::secs(1);
const MINUTE: Span = Span::mins(1);
const HOUR: Span = Span::hours(1);
const DAY: Span = Span::hours(24);
const WEEK: Span = Span::hours(24 * 7);
/// What the longest waits are measured against; a longer value is a slip of the unit.
const MONTH: Span = Span::hours(24 * 30);

crate::settings! {
    /// The limits of diagnosis and decision. One that a snapshot does not have is read with its default.
    #[serde(default)]
    pub struct Policy [policy] {
        /// Grace period after GARM's start, in which only proof leads to an action.
        settle: Span = default(Span::secs(20)), Takes::span(Span::ZERO, HOUR)
            .at_most("stale_session_limit")
            .risky(Risky::Below(Span::secs(5)), "GARM is judged right after its start, before its workers have tried once");
        /// Conflicts without a break for longer than this are no stale session: the scale set is reported and not
        /// healed. GitHub keeps a stale session for about 90 s.
        stale_session_limit: Span = default(Span::mins(5)), Takes::span(MINUTE, DAY)
            .at_most("verify_timeout")
            .risky(
                Risky::Below(LONGER_THAN_STALE),
                "an ordinary stale session lasts 50 to 92 s and would be taken for a session of somebody else",
            );
        /// A wait for a stale session longer than this is reported as unusual.
        stale_session_odd: Span = default(Span::mins(3)), Takes::span(SECOND, DAY)
            .at_most("stale_session_limit")
            .follows(Follows::Capped("stale_session_limit"));
        /// Allows a toggle of a deaf set (listener stalled), whose listener still runs.
        allow_risky: bool = default(false), Takes::a(Kind::Boolean)
            .risky(Risky::On, "toggling a deaf set, whose listener still runs, can crash GARM");
        /// Allows a toggle of a set whose changes GARM does not date (v0.2.0-alpha). If an operator disables the set
        /// during the treatment, it may be enabled again.
        allow_undated: bool = default(false), Takes::a(Kind::Boolean).risky(
            Risky::On,
            "where GARM does not date changes (v0.2.0-alpha), an operator's disable can be taken for ours and undone",
        );
        /// Consecutive sweeps that must agree before a strong finding leads to an action.
        confirm_strong: u32 = default(2), Takes::count(1, 100);
        /// Treatments under way at once, after the first one (the canary) has worked.
        max_in_flight: u32 = default(10), Takes::count(1, 1000);
        /// In a large fleet, each treated set whose worker comes back allows one more treatment at once, up to this share
        /// of the enabled sets. A treatment that does not help ends that. 0 when only `max_in_flight` is given.
        in_flight_share: f64 = default(0.05), Takes::a(Kind::Share).follows(Follows::ZeroWith("max_in_flight"));
        /// Treatments of one set within `set_budget_window`.
        set_budget: u32 = default(3), Takes::count(1, 1000);
        /// The window of `set_budget`.
        set_budget_window: Span = default(DAY), Takes::span(MINUTE, MONTH);
        /// Waits before the second, third, … treatment of one set; the last one repeats.
        backoff: Vec<Span> = default(vec![Span::mins(5), Span::mins(15), HOUR]), Takes::a(Kind::Spans(SECOND, WEEK));
        /// Random extra wait, as a share of each wait: 0.2 adds up to 20 %.
        backoff_jitter: f64 = default(0.2), Takes::a(Kind::Share);
        /// A set that is healthy for this long gets its budget back.
        budget_cleared_after: Span = default(HOUR), Takes::span(MINUTE, MONTH);
        /// Treatments of one GARM within an hour. 1000 is one crash of 500 sets, twice.
        heals_per_hour: u32 = default(1000), Takes::count(1, 100_000);
        /// Consecutive unverified treatments that open the circuit breaker, which stops healing.
        breaker_after: u32 = default(2), Takes::count(1, 100);
        /// An open breaker waits for this long before it allows one canary.
        breaker_half_open_after: Span = default(Span::mins(30)), Takes::span(MINUTE, WEEK);
        /// Shortest wait between disable and enable where nothing shows that the worker exists. GARM can lose an enable
        /// that comes sooner than 5 s.
        toggle_gap: Span = default(Span::secs(5)), Takes::span(Span::secs(5), Span::mins(10)).at_most("toggle_gap_limit");
        /// Longest wait for that evidence; the set is then enabled without it.
        toggle_gap_limit: Span = default(Span::secs(15)), Takes::span(Span::secs(5), Span::mins(10))
            .below("disabled_limit");
        /// Longest time that a set may stay disabled by us while GARM answers. At least the time in which an unanswered
        /// disable may arrive late.
        disabled_limit: Span = default(Span::mins(2)), Takes::span(Span::secs(45), HOUR);
        /// Longest wait for any sign of a worker after its toggle.
        restart_timeout: Span = default(Span::secs(30)), Takes::span(SECOND, HOUR).at_most("verify_timeout");
        /// Longest wait after a remedy for the listener to come back.
        verify_timeout: Span = default(Span::secs(330)), Takes::span(SECOND, DAY)
            .follows(Follows::Above("stale_session_limit"))
            .risky(
                Risky::Below(LONGER_THAN_STALE),
                "treatments end unverified before GitHub forgets the stale session, and two of them open the breaker",
            );
        /// A listener without a completed poll for this long is deaf (stalled). A healthy poll takes up to 90 s.
        deaf_after: Span = default(Span::secs(270)), Takes::span(Span::mins(2), DAY);
        /// A set that polls but starts no runner for its assigned jobs for this long is starved.
        starved_after: Span = default(Span::mins(10)), Takes::span(MINUTE, DAY);
        /// Sessions opened by one set within a minute, without a healthy poll, that count as flapping.
        flapping_per_minute: u32 = default(20), Takes::count(2, 100_000);
        /// Whether session checks are allowed.
        session_check: bool = default(true), Takes::a(Kind::Boolean);
        /// At most one session check of a set within this time.
        session_check_every: Span = default(MINUTE), Takes::span(MINUTE, DAY);
        /// GitHub must lack a set for this long before the set is called missing.
        missing_after: Span = default(Span::mins(2)), Takes::span(SECOND, DAY);
        /// Share of a GitHub credential's rate limit that is left to GARM.
        quota_reserve: f64 = default(0.2), Takes::a(Kind::Part);
    }
}

impl Policy {
    /// How far back the journal must be read: the longest time that any limit covers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_covers_a_day_and_every_limit() {
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
