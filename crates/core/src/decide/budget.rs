//! Budgets: so many treatments of one set in a day, so many of a manager in an hour (`docs/reference/design.md` §6).
//!
//! Counted purely from the journal, so that a restart of ours does not hand out a fresh burst. Every heal counts,
//! however it ended; a session probe has a rate of its own ([`session_check_held`]). 0 means none, never unlimited.
//!
//! Health for `budget_cleared_after` clears a set's count. What proves health: the last treatment before the present
//! illness ended with the set listening, and the illness began at least that long after. A row dated in the future
//! (the clock was set back) still counts.

use crate::model::{BlockedBy, Guard, Outcome, RemedyKind, Span, Treatment, Wall, told};
use crate::policy::Policy;

/// The window of the manager's budget.
pub const GLOBAL_WINDOW: Span = Span::hours(1);

/// Whether a treatment is a heal (a session probe only asks).
#[must_use]
pub const fn is_heal(treatment: &Treatment) -> bool {
    kind_is_heal(treatment.remedy.kind())
}

/// Whether a remedy disables its set for a while.
#[must_use]
pub const fn kind_disables(kind: RemedyKind) -> bool {
    match kind {
        RemedyKind::Toggle | RemedyKind::DeleteThenToggle => true,
        RemedyKind::DeleteSession | RemedyKind::SessionCheck => false,
    }
}

/// Whether a remedy heals.
#[must_use]
pub const fn kind_is_heal(kind: RemedyKind) -> bool {
    match kind {
        RemedyKind::Toggle | RemedyKind::DeleteSession | RemedyKind::DeleteThenToggle => true,
        RemedyKind::SessionCheck => false,
    }
}

/// The heals of one set that count against it, oldest first. `rows` are the set's, in any order.
#[must_use]
pub fn counted<'a>(rows: &[&'a Treatment], ill_since: Option<Wall>, now: Wall, policy: &Policy) -> Vec<&'a Treatment> {
    let mut heals: Vec<&Treatment> =
        rows.iter().copied().filter(|row| is_heal(row) && now.since(row.opened) < policy.set_budget_window).collect();
    heals.sort_by_key(|row| (row.opened, row.id));
    if let Some(ill_since) = ill_since
        && let Some(last) = heals.iter().rposition(|row| row.opened < ill_since)
        && let Some(row) = heals.get(last)
        && ended_well(row)
        && row.step_at.plus(policy.budget_cleared_after) <= ill_since
    {
        heals.drain(..=last);
    }
    heals
}

/// The guard of the set's budget.
#[must_use]
pub fn set_held(counted: &[&Treatment], policy: &Policy) -> Option<BlockedBy> {
    let budget = usize::try_from(policy.set_budget).unwrap_or(usize::MAX);
    let surplus = counted.len().checked_sub(budget)?;
    let window = policy.set_budget_window;
    Some(BlockedBy {
        guard: Guard::SetBudget,
        value: told!("{} of {} in {}", counted.len(), budget, window),
        limit: told!("{} in {}", budget, window),
        until: counted.get(surplus).map(|row| row.opened.plus(window)),
    })
}

/// Dates of the manager's heals within the last hour, oldest first.
#[must_use]
pub fn recent_heals(history: &[Treatment], now: Wall) -> Vec<Wall> {
    let mut dates: Vec<Wall> = history
        .iter()
        .filter(|row| is_heal(row) && now.since(row.opened) < GLOBAL_WINDOW)
        .map(|row| row.opened)
        .collect();
    dates.sort_unstable();
    dates
}

/// The guard of the manager's budget; `started` heals were allowed earlier in this sweep.
#[must_use]
pub fn manager_budget_block(recent: &[Wall], started: usize, policy: &Policy) -> Option<BlockedBy> {
    let budget = usize::try_from(policy.heals_per_hour).unwrap_or(usize::MAX);
    let used = recent.len().saturating_add(started);
    let surplus = used.checked_sub(budget)?;
    Some(BlockedBy {
        guard: Guard::ManagerBudget,
        value: told!("{} of {} in {}", used, budget, GLOBAL_WINDOW),
        limit: told!("{} in {}", budget, GLOBAL_WINDOW),
        until: recent.get(surplus).map(|opened| opened.plus(GLOBAL_WINDOW)),
    })
}

/// The rate of session probes of one set. One whose answer was lost may have left a session behind that nobody can
/// name; it ends by itself, and until then another probe would only meet our own session.
#[must_use]
pub fn session_check_held(rows: &[&Treatment], now: Wall, policy: &Policy) -> Option<BlockedBy> {
    let last = rows.iter().filter(|row| !is_heal(row)).max_by_key(|row| (row.opened, row.id))?;
    let (since, wait, what) = match last.outcome() {
        Some(Outcome::Failed) => (last.step_at, policy.stale_session_limit, "the last session probe failed"),
        Some(
            Outcome::Held
            | Outcome::Unheld
            | Outcome::Recovered
            | Outcome::SelfRecovered
            | Outcome::Unverified
            | Outcome::Aborted,
        )
        | None => (last.opened, policy.session_check_every, "the last session probe"),
    };
    let wait = wait.max(policy.session_check_every);
    let passed = now.since(since);
    (passed < wait).then(|| BlockedBy {
        guard: Guard::Backoff,
        value: told!("{} of {} since {}", passed, wait, what),
        limit: told!("{} between session probes", wait),
        until: Some(since.plus(wait)),
    })
}

/// What is left of the manager's budget, for the metric.
#[must_use]
pub fn global_remaining(history: &[Treatment], now: Wall, policy: &Policy) -> u32 {
    let used = u32::try_from(recent_heals(history, now).len()).unwrap_or(u32::MAX);
    policy.heals_per_hour.saturating_sub(used)
}

fn ended_well(row: &Treatment) -> bool {
    match row.outcome() {
        Some(Outcome::Recovered | Outcome::SelfRecovered) => true,
        Some(Outcome::Unverified | Outcome::Aborted | Outcome::Failed | Outcome::Held | Outcome::Unheld) | None => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{closed, hours, mins, probe};

    fn counts(rows: &[Treatment], ill_since: Option<Wall>, now: Wall) -> usize {
        counted(&rows.iter().collect::<Vec<_>>(), ill_since, now, &Policy::default()).len()
    }

    #[test]
    fn a_remedy_without_a_toggle_leaves_its_set_enabled() {
        let disables: Vec<_> = RemedyKind::ALL.iter().filter(|kind| kind_disables(**kind)).collect();
        assert_eq!(disables, [&RemedyKind::Toggle, &RemedyKind::DeleteThenToggle]);
    }

    #[test]
    fn three_in_a_day_and_then_until_the_oldest_leaves_the_window() {
        let policy = Policy::default();
        let rows: Vec<_> = (0..3).map(|n| closed(n, 1, hours(n), hours(n), Outcome::Unverified)).collect();
        let refs: Vec<_> = rows.iter().collect();
        let counted = counted(&refs, Some(Wall(0)), hours(5), &policy);
        let held = set_held(&counted, &policy).unwrap();
        assert_eq!((&*held.value.to_string(), &*held.limit.to_string()), ("3 of 3 in 24 h", "3 in 24 h"));
        assert_eq!(held.until, Some(hours(24)));
        assert_eq!(counts(&rows, Some(Wall(0)), hours(24)), 2, "the oldest left the window");
        assert_eq!(set_held(&counted[..2], &policy), None);
    }

    #[test]
    fn an_hour_of_health_clears_the_count_and_less_does_not() {
        let rows =
            [closed(1, 1, mins(0), mins(1), Outcome::Unverified), closed(2, 1, mins(10), mins(12), Outcome::Recovered)];
        assert_eq!(counts(&rows, Some(mins(72)), mins(73)), 0);
        assert_eq!(counts(&rows, Some(mins(71)), mins(73)), 2);
        let unwell = [rows[0].clone(), closed(2, 1, mins(10), mins(12), Outcome::Unverified)];
        assert_eq!(counts(&unwell, Some(mins(600)), mins(601)), 2, "nothing shows that it was ever well");
        assert_eq!(counts(&rows, None, mins(600)), 2);
    }

    #[test]
    fn treatments_of_the_present_illness_count_after_a_cleared_past() {
        let rows = [
            closed(1, 1, mins(0), mins(1), Outcome::Recovered),
            closed(2, 1, mins(200), mins(206), Outcome::Unverified),
        ];
        assert_eq!(counts(&rows, Some(mins(199)), mins(210)), 1);
    }

    #[test]
    fn a_treatment_of_the_very_moment_the_set_fell_ill_is_one_of_this_illness() {
        let rows = [closed(1, 1, mins(100), mins(100), Outcome::Recovered)];
        let policy = Policy { budget_cleared_after: Span::ZERO, ..Policy::default() };
        assert_eq!(counted(&[&rows[0]], Some(mins(100)), mins(101), &policy).len(), 1);
        assert_eq!(counted(&[&rows[0]], Some(mins(101)), mins(101), &policy).len(), 0);
    }

    #[test]
    fn a_clock_set_back_hands_out_nothing() {
        let rows: Vec<_> = (0..3).map(|n| closed(n, 1, hours(30), hours(30), Outcome::Unverified)).collect();
        assert_eq!(counts(&rows, Some(Wall(0)), hours(1)), 3);
    }

    #[test]
    fn the_manager_has_its_hour_and_zero_means_none() {
        let policy = Policy { heals_per_hour: 2, set_budget: 0, ..Policy::default() };
        let rows = [
            closed(1, 1, mins(0), mins(1), Outcome::Recovered),
            closed(2, 2, mins(30), mins(31), Outcome::Recovered),
            probe(3, 3, mins(31), mins(32), Outcome::Held),
        ];
        let recent = recent_heals(&rows, mins(59));
        let held = manager_budget_block(&recent, 0, &policy).unwrap();
        assert_eq!((&*held.value.to_string(), held.until), ("2 of 2 in 1 h", Some(mins(60))));
        let recent = recent_heals(&rows, mins(60));
        assert_eq!(manager_budget_block(&recent, 0, &policy), None);
        assert!(manager_budget_block(&recent, 1, &policy).is_some(), "what this sweep started counts");
        for (minute, left) in [(59, 0), (60, 1), (90, 2)] {
            assert_eq!(global_remaining(&rows, mins(minute), &policy), left, "{minute}");
        }
        assert_eq!(set_held(&[], &policy).unwrap().until, None);
    }

    #[test]
    fn session_probes_have_their_own_rate_and_a_failed_one_bars_for_a_session_life() {
        let policy = Policy::default();
        let row = probe(1, 1, mins(0), Wall(500), Outcome::Held);
        let held = session_check_held(&[&row], Wall(20_000), &policy).unwrap();
        assert_eq!(
            (&*held.value.to_string(), held.until),
            ("20 s of 1 min since the last session probe", Some(mins(1)))
        );
        assert_eq!(session_check_held(&[&row], mins(1), &policy), None);
        let lost = probe(2, 1, mins(2), mins(2), Outcome::Failed);
        assert_eq!(session_check_held(&[&row, &lost], mins(6), &policy).unwrap().until, Some(mins(7)));
        assert_eq!(session_check_held(&[&row, &lost], mins(7), &policy), None);
        assert_eq!(counts(&[row, lost], Some(Wall(0)), mins(3)), 0, "probes are no heals");
    }
}
