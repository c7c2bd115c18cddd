//! What is kept from sweep to sweep. Stored as JSON; a field that is missing there starts empty.

use crate::model::{
    ConflictBehaviour, Diagnosis, EntityKind, GithubId, GithubStatistics, Goroutines, Incarnation, Owner, Revision,
    ScaleSet, ScaleSetId, ScopeCounters, Span, Wall,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Three times the wait between two attempts of a first start.
pub(super) const FLAT: Span = Span::secs(6);
/// Longer than the longest wait of a listener that had run.
const FLAT_AFTER_END: Span = Span::secs(100);
/// Refusals that grew within this are growing.
pub(super) const GROWING: Span = Span::secs(8);
/// The counters of one scrape are not read at one instant.
const READ_SKEW: Span = Span::secs(2);
/// Samples of a counter kept for its rate.
const SAMPLES: usize = 40;
/// How far back a rate looks.
pub(super) const RATE_WINDOW: Span = Span::mins(1);
/// A failure of the manager's own calls (made every 30 s) that is older than this is over.
const PULSE: Span = Span::secs(45);

/// What is known of one manager.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub(super) incarnation: Option<Incarnation>,
    /// By our own clock, the present incarnation began after this: the last answer of the one before, or the last
    /// refused connection. Absent while none was ever seen to end.
    pub(super) began_after: Option<Wall>,
    /// The last sweep that got an answer, or a refused connection.
    pub(super) answered: Option<Wall>,
    /// The first sweep in which the present incarnation answered.
    pub(super) run_seen: Option<Wall>,
    /// An incarnation whose beginning was seen, until it is known how the one before ended.
    pub(super) restarted: Option<Incarnation>,
    pub(super) restarts: VecDeque<Wall>,
    pub(super) conflict_behaviour: ConflictBehaviour,
    /// Whether the build exports per-set gauges, which settles its conflict behaviour.
    pub(super) has_set_gauges: bool,
    /// Goroutines as last counted, and since when the counts are the same.
    pub(super) goroutines: Option<(Goroutines, Wall)>,
    /// Whether the build exports a series per listener.
    pub(super) listener_series: bool,
    pub(super) owner: Option<Owner>,
    /// Counters of the present incarnation, by scope.
    pub(super) scopes: BTreeMap<EntityKind, Scope>,
    pub(super) sets: BTreeMap<ScaleSetId, SetState>,
    /// The sets as last seen, for sweeps in which the manager cannot be asked.
    pub(super) last_sets: Arc<BTreeMap<ScaleSetId, ScaleSet>>,
}

impl State {
    /// The latest date at which the present incarnation can have begun, by our own clock where it knows better.
    pub(super) fn began(&self) -> Option<Wall> {
        let dated = self.incarnation.map(|incarnation| incarnation.0.max(self.began_after.unwrap_or(Wall(0))));
        match (dated, self.run_seen) {
            (Some(dated), Some(seen)) => Some(dated.min(seen)),
            (Some(date), None) | (None, Some(date)) => Some(date),
            (None, None) => None,
        }
    }

    /// Whether the manager's own calls to GitHub fail now.
    pub(super) fn pulse_fails(&self, now: Wall) -> bool {
        self.scopes.values().any(|scope| now.since(scope.pulse_moved) < PULSE)
    }
}

/// Counters of one scope, and when each last moved.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Scope {
    pub last: ScopeCounters,
    /// When they were last read: they say nothing about the time since.
    pub read_at: Wall,
    /// When refusals last grew, or were first seen.
    pub errors_moved: Wall,
    /// By how much they grew then.
    pub errors_grew: u64,
    /// When the calls before a session last failed.
    pub start_errors_moved: Wall,
    /// When a poll last began.
    pub polls_moved: Wall,
    /// When the manager's own calls last failed.
    pub pulse_moved: Wall,
    /// Sessions open, and since when it is this number.
    pub open: Option<(u64, Wall)>,
    /// Sessions open, at each change, oldest first.
    pub opens: VecDeque<(Wall, u64)>,
    /// Sessions opened in all, by date, oldest first.
    pub opened: VecDeque<(Wall, u64)>,
    /// Reads in this incarnation.
    pub reads: u32,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SetState {
    pub diagnosis: Diagnosis,
    pub since: Wall,
    /// Sweeps in a row with this diagnosis.
    pub seen: u32,
    pub ill_since: Option<Wall>,
    /// The last verdict by counters that holds until something of the set changes.
    pub verdict: Option<Verdict>,
    pub revision: Option<Revision>,
    /// When we saw the revision change, by our own clock.
    pub revised: Option<Wall>,
    /// First sign of the present unbroken series of conflicts.
    pub conflict_since: Option<Wall>,
    /// Since when GitHub does not list it, under which id.
    pub missing_since: Option<(GithubId, Wall)>,
    /// Since when jobs wait and nothing moves, and the counts that do not move.
    pub jobs_wait: Option<(Wall, GithubStatistics)>,
    /// Sessions that the log had seen open at a date, about a minute ago.
    pub log_opened: Option<(Wall, u32)>,
}

/// That a set listens or was given up, which holds until something of the set changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    pub diagnosis: Diagnosis,
    pub at: Wall,
    pub revision: Revision,
}

impl Scope {
    pub(super) fn read(&mut self, counters: ScopeCounters, now: Wall) {
        let first = self.reads == 0;
        self.read_at = now;
        let grew = counters.create_errors.saturating_sub(self.last.create_errors);
        if first || grew > 0 {
            self.errors_moved = now;
            self.errors_grew = if first { 0 } else { grew };
        }
        if first || counters.start_errors != self.last.start_errors {
            self.start_errors_moved = now;
        }
        if first || counters.poll != self.last.poll {
            self.polls_moved = now;
        }
        if !first && counters.rate_limit_errors != self.last.rate_limit_errors {
            self.pulse_moved = now;
        }
        let open = counters.open_now();
        if self.open.is_none_or(|(before, _)| before != open) {
            self.open = Some((open, now));
            self.opens.push_back((now, open));
            if self.opens.len() > SAMPLES {
                self.opens.pop_front();
            }
        }
        self.opened.push_back((now, counters.opened()));
        while self.opened.len() > SAMPLES || self.opened.front().is_some_and(|(at, _)| now.since(*at) > RATE_WINDOW) {
            self.opened.pop_front();
        }
        self.reads = self.reads.saturating_add(1);
        self.last = counters;
    }

    /// How many more sessions are open than at a date; 0 where the samples do not reach back to it.
    pub(super) fn grown_since(&self, at: Wall) -> u64 {
        let then = self.opens.iter().rev().find(|(changed, _)| *changed <= at);
        then.zip(self.open).map_or(0, |((_, then), (open, _))| open.saturating_sub(*then))
    }

    /// Sessions opened within the window, and the part of the window that was seen.
    pub(super) fn churn(&self) -> (u64, Span) {
        match (self.opened.front(), self.opened.back()) {
            (Some((from, before)), Some((to, after))) => (after.saturating_sub(*before), to.since(*from)),
            (Some(_), None) | (None, Some(_) | None) => (0, Span::ZERO),
        }
    }

    /// Refusals up to the sweep before.
    pub(super) const fn refused_before(&self, now: Wall) -> u64 {
        let grew = if self.errors_moved.0 == now.0 { self.errors_grew } else { 0 };
        self.last.create_errors.saturating_sub(grew)
    }

    pub(super) fn is_growing(&self, now: Wall) -> bool {
        self.errors_grew > 0 && now.since(self.errors_moved) < GROWING
    }

    /// Whether a listener of this incarnation has ended: it waits up to a minute between two attempts to open again.
    pub(super) const fn any_ended(&self) -> bool {
        self.last.delete > 0 || self.last.poll_errors > 0
    }

    /// Whether no session was opened in this incarnation: every refusal was one of a first start.
    pub(super) const fn never_opened(&self) -> bool {
        self.last.poll == 0
    }

    /// Whether the number of open sessions has stood still for longer than the longest wait between two attempts.
    pub(super) fn is_steady(&self) -> bool {
        let still = if self.any_ended() { FLAT_AFTER_END } else { FLAT };
        self.open.is_some_and(|(_, since)| self.unmoved(since) >= still)
    }

    /// For how long a counter that last moved then had stood still when it was last read.
    pub(super) fn unmoved(&self, since: Wall) -> Span {
        self.read_at.since(since)
    }

    /// Whether a poll began although no session is open by the counters: then the counters are wrong.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.open.is_some_and(|(open, since)| open == 0 && self.polls_moved > since.plus(READ_SKEW))
    }

    /// Whether refusals have stood still, with no attempt under way, for longer than the wait between two attempts: 2 s
    /// at a first start, up to a minute for a listener that had run.
    pub(super) fn is_flat(&self) -> bool {
        let span = if self.any_ended() { FLAT_AFTER_END } else { FLAT };
        self.reads >= 2 && !self.in_flight() && self.unmoved(self.errors_moved) >= span
    }

    /// Whether an attempt to open a session is under way.
    pub(super) const fn in_flight(&self) -> bool {
        self.last.create > self.last.create_errors.saturating_add(self.last.poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Wall = Wall(1_000_000);

    fn after(seconds: u64) -> Wall {
        T0.plus(Span::secs(seconds))
    }

    fn read(reads: impl IntoIterator<Item = (u64, ScopeCounters)>) -> Scope {
        let mut scope = Scope::default();
        for (second, counters) in reads {
            scope.read(counters, after(second));
        }
        scope
    }

    fn refused(errors: u64) -> ScopeCounters {
        ScopeCounters { create: errors, create_errors: errors, ..ScopeCounters::default() }
    }

    #[test]
    fn start_errors_are_dated_by_the_sweep_that_saw_them_grow() {
        let failed = |start_errors| ScopeCounters { start_errors, ..ScopeCounters::default() };
        assert_eq!(read([(0, failed(0)), (10, failed(3)), (20, failed(3))]).start_errors_moved, after(10));
    }

    #[test]
    fn churn_covers_one_minute_and_keeps_bounded_samples() {
        let opened = |create| ScopeCounters { create, poll: create, ..ScopeCounters::default() };
        assert_eq!(read([(0, opened(5)), (60, opened(9))]).churn(), (4, Span::mins(1)));
        assert_eq!(read([(0, opened(5)), (61, opened(9))]).churn(), (0, Span::ZERO));
        let busy = read((0..200).map(|n| (n / 10, opened(n))));
        assert_eq!((busy.opened.len(), busy.opens.len()), (SAMPLES, SAMPLES));
        assert_eq!(busy.churn().0, 39);
    }

    #[test]
    fn refusals_count_as_growing_for_eight_seconds() {
        assert!(!read([(0, refused(5))]).is_growing(after(1)), "the first sweep sees no growth");
        let grew = read([(0, refused(5)), (10, refused(6))]);
        assert!(grew.is_growing(after(17)));
        assert!(!grew.is_growing(after(18)));
    }

    #[test]
    fn any_ended_counts_closed_sessions_and_failed_polls() {
        let ended = |delete, poll_errors| ScopeCounters { delete, poll_errors, ..ScopeCounters::default() };
        for (counters, expected) in [(ended(0, 0), false), (ended(1, 0), true), (ended(0, 1), true)] {
            assert_eq!(read([(0, counters)]).any_ended(), expected, "{counters:?}");
        }
    }

    #[test]
    fn refusals_are_flat_after_the_longest_wait_for_a_retry() {
        assert!(!read([(100, refused(2))]).is_flat(), "seen once");
        let seen = |second| read([(0, refused(2)), (second, refused(2))]);
        assert!(!seen(5).is_flat());
        assert!(seen(6).is_flat());
        let under_way = ScopeCounters { create: 3, ..refused(2) };
        assert!(!read([(0, under_way), (100, under_way)]).is_flat(), "an attempt has no answer yet");
        let polled = ScopeCounters { poll: 2, ..under_way };
        assert!(read([(0, polled), (100, polled)]).is_flat());
    }

    #[test]
    fn poll_after_the_last_session_ended_is_a_contradiction() {
        let ended = |poll| ScopeCounters { create: 1, poll, delete: 1, poll_errors: 1, ..ScopeCounters::default() };
        for (second, contradicts) in [(1, false), (2, false), (3, true)] {
            assert_eq!(read([(0, ended(1)), (second, ended(2))]).contradicts_itself(), contradicts, "{second} s");
        }
    }
}
