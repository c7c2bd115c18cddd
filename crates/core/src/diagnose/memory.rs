//! What is carried from pass to pass. Serialised into the store; whatever is missing or unknown starts empty.

use crate::model::{
    ConflictBehaviour, Diagnosis, EntityKind, GithubId, GithubStatistics, Goroutines, Incarnation, Owner, Revision,
    ScaleSet, ScaleSetId, ScopeCounters, Span, Wall,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Longer than the wait between two attempts of a first start, three times.
pub(super) const FLAT: Span = Span::secs(6);
/// Longer than the longest wait of a listener that had run.
const FLAT_AFTER_END: Span = Span::secs(100);
/// Refusals that grew within this are growing.
pub(super) const GROWING: Span = Span::secs(8);
/// The counters of one scrape are not read at one instant.
const READ_SKEW: Span = Span::secs(2);
/// Samples of a counter kept to tell its rate.
const SAMPLES: usize = 40;
/// How far back a rate looks.
pub(super) const RATE_WINDOW: Span = Span::mins(1);

/// Everything remembered of one manager.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The manager's present run.
    pub(super) incarnation: Option<Incarnation>,
    /// By our own clock, the present run began after this: the last look at the run before, or at a manager that was
    /// down. Absent while nothing was ever seen to end.
    pub(super) began_after: Option<Wall>,
    /// The last sweep that saw the run before end: the last answer of it, or the last refused connection.
    pub(super) answered: Option<Wall>,
    /// The first sweep in which the present run answered.
    pub(super) run_seen: Option<Wall>,
    /// A run whose beginning was seen, until it is told how the one before ended.
    pub(super) restarted: Option<Incarnation>,
    /// When runs were seen to follow another, the latest last.
    pub(super) restarts: VecDeque<Wall>,
    /// What the build does after a refused start, once seen.
    pub(super) conflict_behaviour: ConflictBehaviour,
    /// Whether its own metrics say so, which nothing overrules.
    pub(super) has_set_gauges: bool,
    /// Goroutines as last counted, and since when they are so many.
    pub(super) goroutines: Option<(Goroutines, Wall)>,
    /// Whether the build exports a series per listener.
    pub(super) listener_series: bool,
    /// The owner name of the manager's sessions.
    pub(super) owner: Option<Owner>,
    /// Counters by scope, of the present run.
    pub(super) scopes: BTreeMap<EntityKind, Scope>,
    pub(super) sets: BTreeMap<ScaleSetId, SetMemory>,
    /// The sets as last seen, for passes in which the manager cannot be asked.
    pub(super) last_sets: Arc<BTreeMap<ScaleSetId, ScaleSet>>,
}

/// Counters of one scope, and when each last moved.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Scope {
    pub last: ScopeCounters,
    /// When that was. What is not read says nothing about the time since.
    pub read_at: Wall,
    /// When refusals last grew, or were first seen.
    pub errors_moved: Wall,
    /// By how much they grew then.
    pub errors_grew: u64,
    /// When the calls before a session last failed anew.
    pub start_errors_moved: Wall,
    /// When a poll last began.
    pub polls_moved: Wall,
    /// When the pulse of the manager's access last failed anew.
    pub pulse_moved: Wall,
    /// Sessions open, and since when it is this number.
    pub open: Option<(u64, Wall)>,
    /// Sessions open, at each change, oldest first.
    pub opens: VecDeque<(Wall, u64)>,
    /// (date, sessions opened so far), oldest first.
    pub opened: VecDeque<(Wall, u64)>,
    /// Reads of this run.
    pub reads: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SetMemory {
    /// The last diagnosis, since when, and how many sweeps in a row.
    pub diagnosis: Diagnosis,
    pub since: Wall,
    /// Sweeps in a row.
    pub seen: u32,
    /// Since when it has not been well.
    pub ill_since: Option<Wall>,
    /// The last verdict by counters that holds until something of the set changes.
    pub verdict: Option<Verdict>,
    /// The revision last seen.
    pub revision: Option<Revision>,
    /// When we saw the revision change, by our own clock.
    pub revised: Option<Wall>,
    /// First sign of the present unbroken run of conflicts.
    pub conflict_since: Option<Wall>,
    /// Since when GitHub does not list it, under which id.
    pub missing_since: Option<(GithubId, Wall)>,
    /// Since when jobs wait and nothing moves, and the counts that do not move.
    pub jobs_wait: Option<(Wall, GithubStatistics)>,
    /// (date, sessions that the log saw open), about a minute apart.
    pub log_opened: Option<(Wall, u32)>,
}

/// A verdict that only something new about the set can overturn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// What was found: listening, or given up.
    pub diagnosis: Diagnosis,
    pub at: Wall,
    pub revision: Revision,
}

impl Default for SetMemory {
    fn default() -> Self {
        Self::fresh(Wall(0))
    }
}

impl SetMemory {
    /// A set never seen before.
    pub(super) const fn fresh(now: Wall) -> Self {
        Self {
            diagnosis: Diagnosis::Unknown,
            since: now,
            seen: 0,
            ill_since: None,
            verdict: None,
            revision: None,
            revised: None,
            conflict_since: None,
            missing_since: None,
            jobs_wait: None,
            log_opened: None,
        }
    }
}

impl Scope {
    /// Takes the next reading of one run in.
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

    /// How many more sessions are open than at a date; none are known to be where memory does not reach back so far.
    pub(super) fn grown_since(&self, at: Wall) -> u64 {
        let then = self.opens.iter().rev().find(|(changed, _)| *changed <= at);
        then.zip(self.open).map_or(0, |((_, then), (open, _))| open.saturating_sub(*then))
    }

    /// Sessions opened within the window, and the window as far as it was seen.
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

    /// Whether refusals keep coming.
    pub(super) fn is_growing(&self, now: Wall) -> bool {
        self.errors_grew > 0 && now.since(self.errors_moved) < GROWING
    }

    /// Whether a listener of this run has ended: it waits up to a minute between two attempts to open again.
    pub(super) const fn any_ended(&self) -> bool {
        self.last.delete > 0 || self.last.poll_errors > 0
    }

    /// Whether no session was opened in this run: whoever was refused was refused at its first start.
    pub(super) const fn never_opened(&self) -> bool {
        self.last.poll == 0
    }

    /// Whether the number of open sessions has stood still for longer than the longest wait between two attempts.
    pub(super) fn is_settled(&self) -> bool {
        let still = if self.any_ended() { FLAT_AFTER_END } else { FLAT };
        self.open.is_some_and(|(_, since)| self.unmoved(since) >= still)
    }

    /// For how long what last moved then had not moved when it was last read.
    pub(super) fn unmoved(&self, since: Wall) -> Span {
        self.read_at.since(since)
    }

    /// Whether a poll began although no session is open by the numbers: then the numbers are wrong.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.open.is_some_and(|(open, since)| open == 0 && self.polls_moved > since.plus(READ_SKEW))
    }

    /// Whether refusals have stood still for so long, with no attempt under way, that nobody can be trying. A first
    /// start is tried again every 2 s; a listener that had run waits up to a minute between two attempts.
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
    fn failed_starts_are_dated_by_the_look_that_saw_them_grow() {
        let failed = |start_errors| ScopeCounters { start_errors, ..ScopeCounters::default() };
        assert_eq!(read([(0, failed(0)), (10, failed(3)), (20, failed(3))]).start_errors_moved, after(10));
    }

    #[test]
    fn a_rate_looks_back_a_minute_and_keeps_no_more_than_it_needs() {
        let opened = |create| ScopeCounters { create, poll: create, ..ScopeCounters::default() };
        assert_eq!(read([(0, opened(5)), (60, opened(9))]).churn(), (4, Span::mins(1)));
        assert_eq!(read([(0, opened(5)), (61, opened(9))]).churn(), (0, Span::ZERO));
        let busy = read((0..200).map(|n| (n / 10, opened(n))));
        assert_eq!((busy.opened.len(), busy.opens.len()), (SAMPLES, SAMPLES));
        assert_eq!(busy.churn().0, 39);
    }

    #[test]
    fn refusals_grow_for_eight_seconds_after_the_look_that_saw_them_grow() {
        assert!(!read([(0, refused(5))]).is_growing(after(1)), "the first look sees no growth");
        let grew = read([(0, refused(5)), (10, refused(6))]);
        assert!(grew.is_growing(after(17)));
        assert!(!grew.is_growing(after(18)));
    }

    #[test]
    fn a_closed_session_or_a_failed_poll_is_a_listener_that_ended() {
        let ended = |delete, poll_errors| ScopeCounters { delete, poll_errors, ..ScopeCounters::default() };
        for (counters, expected) in [(ended(0, 0), false), (ended(1, 0), true), (ended(0, 1), true)] {
            assert_eq!(read([(0, counters)]).any_ended(), expected, "{counters:?}");
        }
    }

    #[test]
    fn refusals_are_flat_once_nobody_can_be_trying() {
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
    fn a_poll_long_after_the_last_session_ended_contradicts_the_numbers() {
        let ended = |poll| ScopeCounters { create: 1, poll, delete: 1, poll_errors: 1, ..ScopeCounters::default() };
        for (second, contradicts) in [(1, false), (2, false), (3, true)] {
            assert_eq!(read([(0, ended(1)), (second, ended(2))]).contradicts_itself(), contradicts, "{second} s");
        }
    }
}
