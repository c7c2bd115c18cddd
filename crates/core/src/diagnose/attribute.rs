//! Counters without names → sets: GARM counts sessions per scope (repositories, organisations, enterprises), not per
//! set. What a set's own evidence leaves open is decided here, and only where the numbers leave no choice.
//!
//! *Never guess*: either all open sets of a scope listen, or none does, or the state of earlier sweeps separates them.
//! Otherwise the finding is `unknown` with `CannotTellWhich`, and at most a session check asks GitHub.
//!
//! What the numbers mean (`docs/reference/design.md` §1, `docs/reference/garm-api.md` §9):
//! - Sessions open now = opened − ended. If that is one per set and polls go on, every set listens.
//! - None open and refusals grow: somebody keeps trying. None open, refusals stand still and no attempt is under way:
//!   nobody tries. A build that gives up tries each set once at its start; a set that was changed since has a worker
//!   that retries.
//! - What was found of a set holds until something of it changes, within one incarnation: the sets that were given up
//!   stay apart from those that come back one by one.

use super::evidence::{Found, SweepEvidence};
use super::session_check;
use super::state::{FLAT, GROWING, Scope, SetState, Verdict};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Fact, Goroutines, Rule, ScaleSet, ScaleSetId, Source, Span, Step, Wall,
    WorkerState,
};
use std::collections::{BTreeMap, BTreeSet};

/// A set that processed a message within this was well then.
const LATELY: Span = Span::mins(10);

/// The manager asks for its quota every 30 s: a failure shows within this.
const PULSE: Span = Span::secs(45);
/// A manager needs this long at most to try each set once.
const START: Span = Span::secs(75);
/// A set that was changed needs this long at most to listen again, if nothing refuses it.
const LISTENS_AGAIN_WITHIN: Span = Span::secs(45);
/// A poll begins at least this often in a scope with listeners (`docs/reference/actions-service.md` §5).
const POLLS: Span = Span::secs(180);
/// Sessions that one healthy set may open within a minute: its listener restarts after a failed poll.
const RESTARTS: u64 = 3;

#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub now: Goroutines,
    /// Since when the counts are the same.
    pub since: Wall,
    /// The candidates of all scopes.
    pub all: u32,
}

/// What is found by counting of those of the scope's `candidates` that their own evidence has not decided.
pub(super) fn answer(
    seen: &SweepEvidence<'_>,
    candidates: &[&ScaleSet],
    decided: &BTreeMap<ScaleSetId, Found>,
    scope: Option<&Scope>,
    goroutines: Option<Counted>,
    states: &BTreeMap<ScaleSetId, SetState>,
) -> Vec<(ScaleSetId, Found)> {
    let open: Vec<&ScaleSet> = candidates.iter().copied().filter(|set| !decided.contains_key(&set.id)).collect();
    let all = |found: &Found| open.iter().map(|set| (set.id, found.clone())).collect();
    let scope = scope.filter(|_| seen.sweep.metrics.known().is_some());
    let Some(count) = Count::of(number_of(candidates.len()), scope, goroutines) else {
        // No source that could show it is available.
        return all(&undecided(seen, Source::Api, Fact::NothingToSee));
    };
    let sessions = count.left_for(candidates.iter().filter_map(|set| decided.get(&set.id)));
    let judge = Judge { seen, count, states };
    if let Some(found) = judge.whole_scope() {
        return all(&found);
    }
    let mut answers = Vec::with_capacity(open.len());
    judge.split(&open, sessions, &mut answers);
    answers
}

/// What the counters say.
struct Count<'a> {
    open: u64,
    candidates: u64,
    source: Source,
    scope: Option<&'a Scope>,
    goroutines: Option<Counted>,
}

/// How many sessions the undecided sets have among them, at least and at most.
#[derive(Debug, Clone, Copy)]
struct Sessions {
    least: u64,
    most: u64,
}

impl Sessions {
    const fn less(self, taken: u64) -> Self {
        Self { least: self.least.saturating_sub(taken), most: self.most.saturating_sub(taken) }
    }
}

impl<'a> Count<'a> {
    fn of(candidates: u64, scope: Option<&'a Scope>, goroutines: Option<Counted>) -> Option<Self> {
        let by_goroutines = goroutines.and_then(|Counted { now: counted, all, .. }| {
            if counted.listeners == 0 {
                Some(0)
            } else if counted.listeners >= all {
                Some(candidates)
            } else if u64::from(all) == candidates {
                Some(u64::from(counted.listeners))
            } else {
                None
            }
        });
        if let Some(open) = by_goroutines {
            return Some(Self { open, candidates, source: Source::Goroutines, scope, goroutines });
        }
        let open = scope?.last.open_now();
        Some(Self { open, candidates, source: Source::Metrics, scope, goroutines })
    }

    /// The sessions that the decided sets leave for the others.
    fn left_for<'f>(&self, decided: impl Iterator<Item = &'f Found>) -> Sessions {
        let (mut surely, mut perhaps) = (0_u64, 0_u64);
        for found in decided {
            match found.diagnosis.holds_session() {
                Some(true) => surely = surely.saturating_add(1),
                None => perhaps = perhaps.saturating_add(1),
                Some(false) => {}
            }
        }
        let most = self.open.saturating_sub(surely);
        Sessions { least: most.saturating_sub(perhaps), most }
    }

    fn growing(&self, now: Wall) -> bool {
        self.scope.is_some_and(|scope| scope.is_growing(now))
    }

    /// Nobody tries: refusals stand still, and no attempt is under way. Without counters, the goroutine counts must
    /// have stood still for as long as a start takes.
    fn flat(&self, now: Wall) -> bool {
        match (self.scope, self.goroutines) {
            (Some(scope), _) => scope.is_flat(),
            (None, Some(counted)) => now.since(counted.since) >= START,
            (None, None) => false,
        }
    }

    /// Nothing is on its way: no refusal grows, and the number of sessions has stood still for a while.
    fn is_steady(&self, now: Wall) -> bool {
        self.flat(now) && self.scope.is_none_or(Scope::is_steady)
    }

    /// Whether every worker of the manager lives, by goroutine count.
    fn all_live(&self, seen: &SweepEvidence<'_>) -> bool {
        self.goroutines.is_some_and(|counted| counted.now.workers >= seen.total())
    }

    fn fact(&self) -> Fact {
        Fact::SessionsByCounters { open: self.open, expected: self.candidates }
    }
}

/// What is needed to judge the open sets of a scope.
struct Judge<'a> {
    seen: &'a SweepEvidence<'a>,
    count: Count<'a>,
    states: &'a BTreeMap<ScaleSetId, SetState>,
}

impl Judge<'_> {
    /// Rates that mean the same for every set of the scope.
    fn whole_scope(&self) -> Option<Found> {
        let policy = self.seen.policy;
        let scope = self.count.scope?;
        let (opened, within) = scope.churn();
        let each = u64::from(policy.flapping_per_minute);
        let candidates = self.count.candidates.max(1);
        let fact = Fact::SessionChurn { opened, within };
        if opened >= each.saturating_mul(candidates) && within > Span::ZERO {
            return Some(self.by_metrics(Diagnosis::Flapping, Confidence::Strong, fact));
        }
        if opened >= each.saturating_add(candidates.saturating_mul(RESTARTS)) && within > Span::ZERO {
            // One of them flaps, and no source says which: its sessions come and go in every count.
            return Some(self.by_metrics(Diagnosis::Unknown, Confidence::Weak, fact));
        }
        let silent = scope.unmoved(scope.polls_moved);
        let all_open = self.count.open >= self.count.candidates && self.count.candidates > 0;
        (all_open && silent >= policy.deaf_after.max(POLLS)).then(|| {
            let fact = Fact::LastPoll { ago: silent };
            counted((Diagnosis::Deaf, Confidence::Strong), Source::Metrics, scope.polls_moved, fact)
                .working(WorkerState::Listening, scope.polls_moved)
        })
    }

    fn split(&self, open: &[&ScaleSet], sessions: Sessions, found: &mut Vec<(ScaleSetId, Found)>) {
        let number = |sets: &[&ScaleSet]| number_of(sets.len());
        if sessions.least >= number(open) {
            found.extend(open.iter().map(|set| (set.id, self.listens())));
            return;
        }
        if sessions.most == 0 {
            let tries = self.count.growing(self.seen.now);
            let judged = |set: &ScaleSet| match self.gave_up(set) {
                // Somebody tries, but nothing of this set has changed.
                Some(verdict) if tries => self.still_given_up(set, verdict),
                Some(_) | None => self.without_session(set),
            };
            found.extend(open.iter().map(|set| (set.id, judged(set))));
            return;
        }
        // Some listen and some do not: earlier sweeps or our own treatments may separate them.
        let ours = self.brought_back(open);
        if !ours.is_empty() {
            let rest: Vec<&ScaleSet> = open.iter().copied().filter(|set| !ours.contains(&set.id)).collect();
            found.extend(ours.iter().map(|id| (*id, self.listens())));
            return self.split(&rest, sessions.less(number_of(ours.len())), found);
        }
        let (given_up, rest): (Vec<&ScaleSet>, Vec<&ScaleSet>) =
            open.iter().partition(|set| self.gave_up(set).is_some());
        let (listened, others): (Vec<&ScaleSet>, Vec<&ScaleSet>) = rest.iter().partition(|set| self.has_listened(set));
        let unclear = |sets: &[&ScaleSet], listening| -> Vec<(ScaleSetId, Found)> {
            sets.iter().map(|set| (set.id, self.cannot_tell(set, listening, sets.len()))).collect()
        };
        // More sessions than sets that may hold one: some verdict was wrong, and no source says which.
        if sessions.least > number(&rest) {
            found.extend(unclear(open, sessions.most));
            return;
        }
        for (set, verdict) in given_up.iter().filter_map(|set| Some((set, self.gave_up(set)?))) {
            found.push((set.id, self.still_given_up(set, verdict)));
        }
        let left = sessions.less(number(&listened));
        if sessions.least >= number(&rest) {
            found.extend(rest.iter().map(|set| (set.id, self.listens())));
        } else if sessions.least >= number(&listened) {
            found.extend(listened.iter().map(|set| (set.id, self.listens())));
            if left.most == 0 {
                found.extend(others.iter().map(|set| (set.id, self.without_session(set))));
            } else {
                found.extend(unclear(&others, left.most));
            }
        } else {
            found.extend(unclear(&rest, sessions.most));
        }
    }

    /// The sets whose treatments wait for a listener, if as many more sessions are open as there are such sets, and no
    /// other set can have opened them.
    fn brought_back(&self, open: &[&ScaleSet]) -> BTreeSet<ScaleSetId> {
        let seen = self.seen;
        let treated: Vec<_> = seen
            .context
            .treatments
            .iter()
            .filter(|row| matches!(row.step, Step::Verifying) && open.iter().any(|set| set.id == row.set))
            // A treatment in an earlier incarnation brings nothing back in this one.
            .filter(|row| seen.began.is_none_or(|began| row.step_at >= began))
            .collect();
        let (Some(first), Some(scope)) = (treated.iter().map(|row| row.step_at).min(), self.count.scope) else {
            return BTreeSet::new();
        };
        let sets: BTreeSet<ScaleSetId> = treated.iter().map(|row| row.set).collect();
        // One that gave up, or whose build gives up, does not come back unless something of it changes; then it tries
        // until the stale session ends.
        let is_accounted = |set: &ScaleSet| {
            let had_its_time = self.changed(set).is_none_or(|at| first.since(at) > seen.policy.stale_session_limit);
            self.verdict(set).is_some() || (had_its_time && seen.fleet.conflict_behaviour != ConflictBehaviour::Retries)
        };
        let as_many = scope.grown_since(first) >= number_of(sets.len());
        let no_other = open.iter().all(|set| sets.contains(&set.id) || is_accounted(set));
        if as_many && no_other { sets } else { BTreeSet::new() }
    }

    fn known(&self, set: &ScaleSet) -> Option<&SetState> {
        self.states.get(&set.id)
    }

    fn changed(&self, set: &ScaleSet) -> Option<Wall> {
        self.seen.changed(set, self.known(set))
    }

    /// What was found of the set in this incarnation, if nothing of it has changed since.
    fn verdict(&self, set: &ScaleSet) -> Option<&Verdict> {
        let holds = |verdict: &&Verdict| {
            verdict.revision == set.revision && self.seen.began.is_none_or(|began| verdict.at >= began)
        };
        self.known(set)?.verdict.as_ref().filter(holds)
    }

    fn gave_up(&self, set: &ScaleSet) -> Option<&Verdict> {
        self.verdict(set).filter(|verdict| verdict.diagnosis != Diagnosis::Listening)
    }

    fn has_listened(&self, set: &ScaleSet) -> bool {
        self.verdict(set).is_some_and(|verdict| verdict.diagnosis == Diagnosis::Listening)
    }

    /// Nothing of the set has changed since it was found to be given up.
    fn still_given_up(&self, set: &ScaleSet, verdict: &Verdict) -> Found {
        let (source, now) = (self.count.source, self.seen.now);
        let fact = Fact::UnchangedSince { since: verdict.at };
        let kept = counted((verdict.diagnosis, Confidence::Strong), source, now, fact)
            .with(source, now, self.count.fact())
            .working(WorkerState::Absent, verdict.at);
        let resolved = verdict.diagnosis == Diagnosis::StartAbandoned && self.cause_is_gone(set);
        if resolved { kept.with(Source::Metrics, now, Fact::CauseGone) } else { kept }
    }

    /// There is a session for every set.
    fn listens(&self) -> Found {
        let (source, now) = (self.count.source, self.seen.now);
        let since = self.count.scope.and_then(|scope| scope.open).map_or(now, |(_, since)| since);
        let polled = self.count.scope.map_or(now, |scope| scope.polls_moved);
        // A creation under way counts as open for a moment: one sweep is not enough.
        let steady = source == Source::Goroutines || now.since(since) >= Span::secs(1);
        let confidence = if steady { Confidence::Strong } else { Confidence::Weak };
        counted((Diagnosis::Listening, confidence), source, now, self.count.fact())
            .working(WorkerState::Listening, since.max(polled))
    }

    /// Nobody listens for this set; does anybody try?
    fn without_session(&self, set: &ScaleSet) -> Found {
        let (count, now) = (&self.count, self.seen.now);
        if count.source == Source::Metrics && count.scope.is_some_and(Scope::contradicts_itself) {
            return self.cannot_say();
        }
        if session_check::is_held_by_somebody(self.seen, set) {
            return self.cannot_say();
        }
        if count.growing(now) {
            return self.while_refusals_grow(set);
        }
        let waited = self.changed(set).map_or(Span::MAX, |at| now.since(at));
        if !count.is_steady(now) || waited < LISTENS_AGAIN_WITHIN {
            return self.grace_period();
        }
        match count.scope {
            Some(scope) => self.while_nobody_tries(set, scope),
            None => self.by_workers(),
        }
    }

    /// Somebody is refused repeatedly: this set, unless its worker is known not to try.
    fn while_refusals_grow(&self, set: &ScaleSet) -> Found {
        let Some(scope) = self.count.scope else { return self.cannot_say() };
        let changed = self.changed(set);
        let may_be_first = changed.is_none() && self.seen.age() < START;
        let all_tried = scope.last.create >= self.count.candidates;
        let tries = match self.seen.fleet.conflict_behaviour {
            ConflictBehaviour::Retries => true,
            // Its workers may be at their first attempt.
            ConflictBehaviour::Unknown if may_be_first => return self.grace_period(),
            ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => changed.is_some() || self.has_listened(set),
        };
        if tries {
            let fact = Fact::CreateErrorsGrow { by: scope.errors_grew, within: GROWING };
            return self.strong(Diagnosis::ConflictRetrying, fact).working(WorkerState::Retrying, scope.errors_moved);
        }
        // The others try. Where a listener has run in this incarnation, it may be this set's that comes back.
        let gives_up = self.seen.fleet.conflict_behaviour == ConflictBehaviour::GivesUp;
        if gives_up && scope.never_opened() && (all_tried || !may_be_first) {
            return self.abandoned(set, scope);
        }
        self.cannot_say()
    }

    /// Refusals stand still, and no attempt is under way.
    fn while_nobody_tries(&self, set: &ScaleSet, scope: &Scope) -> Found {
        let (now, age, last) = (self.seen.now, self.seen.age(), scope.last);
        let unheld = |fact| self.strong(Diagnosis::Unheld, fact);
        let fact = Fact::CreateErrors { count: last.create_errors, flat_for: scope.unmoved(scope.errors_moved) };
        if self.has_listened(set) {
            // Its listener ended and does not come back: a request of the manager may hang.
            return Found { confidence: Confidence::Weak, ..unheld(fact) };
        }
        if self.changed(set).is_some() {
            return unheld(fact).working(WorkerState::Unknown, now);
        }
        // Some were not tried yet.
        if age < START && last.create.max(last.start_errors) < self.count.candidates {
            return self.grace_period();
        }
        let gives_up = self.seen.fleet.conflict_behaviour != ConflictBehaviour::Retries;
        if last.create_errors.max(last.start_errors) > 0 {
            return if gives_up {
                self.abandoned(set, scope)
            } else if last.create_errors > last.start_errors {
                // This build retries; living workers prove it.
                let confidence = if self.count.all_live(self.seen) { Confidence::Strong } else { Confidence::Weak };
                Found { confidence, ..self.strong(Diagnosis::ConflictRetrying, Fact::BuildRetries) }
            } else {
                // It would try again: it hangs, or another build was installed. GitHub may be asked.
                self.undecided(Fact::CannotTellWhich { listening: 0, of: self.count.candidates })
            };
        }
        if age < START {
            return self.grace_period();
        }
        let confidence = if self.count.all_live(self.seen) { Confidence::Weak } else { Confidence::Strong };
        Found { confidence, ..unheld(Fact::ManagerAge { age }) }
    }

    /// No counters: what the number of workers shows (`docs/reference/garm-api.md` §10).
    fn by_workers(&self) -> Found {
        let Some(Counted { now: Goroutines { listeners, workers }, all, .. }) = self.count.goroutines else {
            return self.cannot_say();
        };
        let (now, total) = (self.seen.now, self.seen.total());
        let found = |diagnosis, confidence| {
            let fact = Fact::LivingWorkers { living: workers, expected: total };
            counted((diagnosis, confidence), Source::Goroutines, now, fact).with(
                Source::Goroutines,
                now,
                Fact::LivingListeners { living: listeners, expected: all },
            )
        };
        if workers >= total {
            // All workers live and none listens: they try.
            found(Diagnosis::ConflictRetrying, Confidence::Weak)
        } else if total.saturating_sub(workers) >= all {
            found(Diagnosis::Unheld, Confidence::Strong).working(WorkerState::Absent, now)
        } else {
            found(Diagnosis::Unheld, Confidence::Weak)
        }
    }

    /// Given up at the first start. If more calls failed before a session than at one, it was not a conflict.
    fn abandoned(&self, set: &ScaleSet, scope: &Scope) -> Found {
        let (last, now) = (scope.last, self.seen.now);
        if last.create_errors > last.start_errors {
            let flat_for = scope.unmoved(scope.errors_moved);
            let fact = Fact::CreateErrors { count: last.create_errors, flat_for };
            return self.strong(Diagnosis::ConflictAbandoned, fact).working(WorkerState::Absent, now);
        }
        let fact = Fact::StartErrors { count: last.start_errors };
        let found = self.strong(Diagnosis::StartAbandoned, fact).working(WorkerState::Absent, now);
        if self.cause_is_gone(set) { found.with(Source::Metrics, now, Fact::CauseGone) } else { found }
    }

    fn by_metrics(&self, diagnosis: Diagnosis, confidence: Confidence, fact: Fact) -> Found {
        counted((diagnosis, confidence), Source::Metrics, self.seen.now, fact)
    }

    /// A fact of the scope's counters, with the open sessions by whichever source counts them.
    fn strong(&self, diagnosis: Diagnosis, fact: Fact) -> Found {
        self.by_metrics(diagnosis, Confidence::Strong, fact).with(self.count.source, self.seen.now, self.count.fact())
    }

    /// Whether what made the manager give up is seen to be gone. Without an answer of GitHub to ourselves, a whole
    /// period of the manager's own calls must have passed without a failure.
    fn cause_is_gone(&self, set: &ScaleSet) -> bool {
        let quiet = if self.seen.lists.of_set(set).is_some() { FLAT } else { PULSE };
        self.seen.cause_gone && self.count.scope.is_some_and(|scope| scope.unmoved(scope.start_errors_moved) >= quiet)
    }

    fn undecided(&self, fact: Fact) -> Found {
        undecided(self.seen, self.count.source, fact)
    }

    fn grace_period(&self) -> Found {
        let fact = Fact::ManagerAge { age: self.seen.age() };
        self.undecided(fact).with(self.count.source, self.seen.now, self.count.fact())
    }

    fn cannot_say(&self) -> Found {
        self.undecided(self.count.fact())
    }

    /// Of these sets some listen and some do not. That may be asked about (`CannotTellWhich`) only where nothing is on
    /// its way: a listener that is about to come back must not find its session taken by our question.
    fn cannot_tell(&self, set: &ScaleSet, listening: u64, of: usize) -> Found {
        let (seen, count, changed) = (self.seen, &self.count, self.changed(set));
        let growing = count.growing(seen.now);
        let moved = self.known(set).and_then(|known| known.revised).and(changed);
        let treated = seen.context.treatments.iter().any(|row| row.set == set.id);
        if let Some(at) = moved.filter(|at| !treated && !growing && seen.now.since(*at) < LATELY) {
            return counted((Diagnosis::Listening, Confidence::Weak), Source::Api, at, Fact::RevisionMoved).with(
                count.source,
                seen.now,
                count.fact(),
            );
        }
        let which = Fact::CannotTellWhich { listening, of: number_of(of) };
        let found = self.undecided(if count.is_steady(seen.now) { which } else { count.fact() });
        if changed.is_some() && growing {
            let at = count.scope.map_or(seen.now, |scope| scope.errors_moved);
            return found.working(WorkerState::Retrying, at);
        }
        found
    }
}

fn counted(diagnosis: (Diagnosis, Confidence), source: Source, at: Wall, fact: Fact) -> Found {
    Found::new(Rule::Counters, diagnosis, source, at, fact)
}

fn number_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The counters leave it open: the manager is within its grace period, or nothing else can show it.
fn undecided(seen: &SweepEvidence<'_>, source: Source, fact: Fact) -> Found {
    let (rule, diagnosis) =
        if seen.young() { (Rule::GracePeriod, Diagnosis::Settling) } else { (Rule::Nothing, Diagnosis::Unknown) };
    Found::new(rule, (diagnosis, Confidence::Weak), source, seen.now, fact)
}
