//! Heal budgets of one set in a day and of a manager in an hour (`docs/reference/design.md` §6).
//!
//! Counted from the journal, so that a restart of ours frees nothing. Every heal counts, however it ended; session
//! checks have a rate of their own ([`session_check_block`]). 0 means none, never unlimited.
//!
//! Health for `budget_cleared_after` clears a set's count. It is proven if the last treatment before the present
//! unhealthy period ended with the set listening, and the period began at least that long after. A row dated in the
//! future (the clock was set back) still counts.

use crate::model::{BlockedBy, GuardFact, Outcome, Span, Treatment, Wall};
use crate::policy::Policy;

const MANAGER_WINDOW: Span = Span::hours(1);

/// The heals of one set that count against it, oldest first. `rows` are the set's, in any order.
pub fn counted<'a>(rows: &[&'a Treatment], ill_since: Option<Wall>, now: Wall, policy: &Policy) -> Vec<&'a Treatment> {
    let mut heals: Vec<&Treatment> =
        rows.iter().copied().filter(|row| row.is_heal() && now.since(row.opened) < policy.set_budget_window).collect();
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

pub fn set_block(counted: &[&Treatment], policy: &Policy) -> Option<BlockedBy> {
    let budget = usize::try_from(policy.set_budget).unwrap_or(usize::MAX);
    let surplus = counted.len().checked_sub(budget)?;
    let window = policy.set_budget_window;
    let fact = GuardFact::SetBudget { used: counted.len(), budget, window };
    Some(fact.until(counted.get(surplus).map(|row| row.opened.plus(window))))
}

/// Dates of the manager's heals within the last hour, oldest first.
pub fn recent_heals(history: &[Treatment], now: Wall) -> Vec<Wall> {
    let mut dates: Vec<Wall> = history
        .iter()
        .filter(|row| row.is_heal() && now.since(row.opened) < MANAGER_WINDOW)
        .map(|row| row.opened)
        .collect();
    dates.sort_unstable();
    dates
}

/// The guard of the manager's budget; `started` heals were allowed earlier in this sweep.
pub fn manager_block(recent: &[Wall], started: usize, policy: &Policy) -> Option<BlockedBy> {
    let budget = usize::try_from(policy.heals_per_hour).unwrap_or(usize::MAX);
    let used = recent.len().saturating_add(started);
    let surplus = used.checked_sub(budget)?;
    let fact = GuardFact::ManagerBudget { used, budget, window: MANAGER_WINDOW };
    Some(fact.until(recent.get(surplus).map(|opened| opened.plus(MANAGER_WINDOW))))
}

/// The guard of a set's session checks. A check whose answer was lost may have left a session of unknown id behind;
/// until GitHub ends that session, another check would only conflict with it.
pub fn session_check_block(rows: &[&Treatment], now: Wall, policy: &Policy) -> Option<BlockedBy> {
    let last = rows.iter().filter(|row| !row.is_heal()).max_by_key(|row| (row.opened, row.id))?;
    let last_failed = last.outcome() == Some(Outcome::Failed);
    let (since, wait) = if last_failed {
        (last.step_at, policy.stale_session_limit.max(policy.session_check_every))
    } else {
        (last.opened, policy.session_check_every)
    };
    let passed = now.since(since);
    (passed < wait).then(|| GuardFact::SessionCheckBackoff { passed, wait, last_failed }.until(Some(since.plus(wait))))
}

/// What is left of the manager's budget, for the metric.
pub fn manager_budget_remaining(history: &[Treatment], now: Wall, policy: &Policy) -> u32 {
    let used = u32::try_from(recent_heals(history, now).len()).unwrap_or(u32::MAX);
    policy.heals_per_hour.saturating_sub(used)
}

fn ended_well(row: &Treatment) -> bool {
    matches!(row.outcome(), Some(Outcome::Recovered | Outcome::SelfRecovered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{check, closed, hours, mins};

    fn counts(rows: &[Treatment], ill_since: Option<Wall>, now: Wall) -> usize {
        counted(&rows.iter().collect::<Vec<_>>(), ill_since, now, &Policy::default()).len()
    }

    #[test]
    fn set_budget_blocks_until_the_oldest_leaves_the_window() {
        let policy = Policy::default();
        let rows: Vec<_> = (0..3).map(|n| closed(n, 1, hours(n), hours(n), Outcome::Unverified)).collect();
        let refs: Vec<_> = rows.iter().collect();
        let counted = counted(&refs, Some(Wall(0)), hours(5), &policy);
        let fact = GuardFact::SetBudget { used: 3, budget: 3, window: hours(24).since(Wall(0)) };
        assert_eq!(set_block(&counted, &policy), Some(fact.until(Some(hours(24)))));
        assert_eq!(counts(&rows, Some(Wall(0)), hours(24)), 2, "the oldest left the window");
        assert_eq!(set_block(&counted[..2], &policy), None);
    }

    #[test]
    fn an_hour_of_health_clears_the_count() {
        let rows =
            [closed(1, 1, mins(0), mins(1), Outcome::Unverified), closed(2, 1, mins(10), mins(12), Outcome::Recovered)];
        assert_eq!(counts(&rows, Some(mins(72)), mins(73)), 0);
        assert_eq!(counts(&rows, Some(mins(71)), mins(73)), 2);
        let unwell = [rows[0].clone(), closed(2, 1, mins(10), mins(12), Outcome::Unverified)];
        assert_eq!(counts(&unwell, Some(mins(600)), mins(601)), 2, "nothing shows that it was ever well");
        assert_eq!(counts(&rows, None, mins(600)), 2);
    }

    #[test]
    fn heals_of_the_present_unhealthy_period_count_after_clearing() {
        let rows = [
            closed(1, 1, mins(0), mins(1), Outcome::Recovered),
            closed(2, 1, mins(200), mins(206), Outcome::Unverified),
        ];
        assert_eq!(counts(&rows, Some(mins(199)), mins(210)), 1);
    }

    #[test]
    fn heal_at_the_very_start_of_the_unhealthy_period_counts() {
        let rows = [closed(1, 1, mins(100), mins(100), Outcome::Recovered)];
        let policy = Policy { budget_cleared_after: Span::ZERO, ..Policy::default() };
        assert_eq!(counted(&[&rows[0]], Some(mins(100)), mins(101), &policy).len(), 1);
        assert_eq!(counted(&[&rows[0]], Some(mins(101)), mins(101), &policy).len(), 0);
    }

    #[test]
    fn clock_set_back_frees_no_budget() {
        let rows: Vec<_> = (0..3).map(|n| closed(n, 1, hours(30), hours(30), Outcome::Unverified)).collect();
        assert_eq!(counts(&rows, Some(Wall(0)), hours(1)), 3);
    }

    #[test]
    fn manager_budget_counts_an_hour_and_zero_blocks() {
        let policy = Policy { heals_per_hour: 2, set_budget: 0, ..Policy::default() };
        let rows = [
            closed(1, 1, mins(0), mins(1), Outcome::Recovered),
            closed(2, 2, mins(30), mins(31), Outcome::Recovered),
            check(3, 3, mins(31), mins(32), Outcome::Held),
        ];
        let recent = recent_heals(&rows, mins(59));
        let fact = GuardFact::ManagerBudget { used: 2, budget: 2, window: MANAGER_WINDOW };
        assert_eq!(manager_block(&recent, 0, &policy), Some(fact.until(Some(mins(60)))));
        let recent = recent_heals(&rows, mins(60));
        assert_eq!(manager_block(&recent, 0, &policy), None);
        assert!(manager_block(&recent, 1, &policy).is_some(), "what this sweep started counts");
        for (minute, left) in [(59, 0), (60, 1), (90, 2)] {
            assert_eq!(manager_budget_remaining(&rows, mins(minute), &policy), left, "{minute}");
        }
        assert_eq!(set_block(&[], &policy).unwrap().until, None);
    }

    #[test]
    fn failed_session_check_blocks_for_a_session_lifetime() {
        let policy = Policy::default();
        let row = check(1, 1, mins(0), Wall(500), Outcome::Held);
        let (passed, wait) = (Span::secs(20), Span::mins(1));
        let fact = GuardFact::SessionCheckBackoff { passed, wait, last_failed: false };
        assert_eq!(session_check_block(&[&row], Wall(20_000), &policy), Some(fact.until(Some(mins(1)))));
        assert_eq!(session_check_block(&[&row], mins(1), &policy), None);
        let lost = check(2, 1, mins(2), mins(2), Outcome::Failed);
        assert_eq!(session_check_block(&[&row, &lost], mins(6), &policy).unwrap().until, Some(mins(7)));
        assert_eq!(session_check_block(&[&row, &lost], mins(7), &policy), None);
        assert_eq!(counts(&[row, lost], Some(Wall(0)), mins(3)), 0, "session checks are no heals");
    }
}
