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
const REVIVE: Span = Span::secs(45);
/// A poll begins at least this often in a scope with listeners (`docs/reference/actions-service.md` §5).
const POLLS: Span = Span::secs(180);
/// Sessions that one healthy set may open within a minute: its listener restarts after a failed poll.
const RESTARTS: u64 = 3;

/// One scope's open question.
pub(super) struct Question<'a> {
    /// Enabled sets of the scope that could hold a session.
    pub candidates: Vec<&'a ScaleSet>,
    /// Sets that their own evidence has decided.
    pub decided: &'a BTreeMap<ScaleSetId, Found>,
    pub scope: Option<&'a Scope>,
    pub goroutines: Option<Counted>,
}

impl Question<'_> {
    fn decided(&self, set: &ScaleSet) -> Option<&Found> {
        self.decided.get(&set.id)
    }
}

/// Goroutine counts of this sweep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub now: Goroutines,
    /// Since when the counts are the same.
    pub since: Wall,
    /// The candidates of all scopes.
    pub all: u32,
}

/// What is found by counting of the sets that are not decided.
pub(super) fn answer(
    seen: &SweepEvidence<'_>,
    question: &Question<'_>,
    states: &BTreeMap<ScaleSetId, SetState>,
) -> Vec<(ScaleSetId, Found)> {
    let open: Vec<&ScaleSet> =
        question.candidates.iter().copied().filter(|set| question.decided(set).is_none()).collect();
    let all = |found: &Found| open.iter().map(|set| (set.id, found.clone())).collect();
    let Some(count) = Count::of(seen, question) else {
        // No source that could tell is available.
        return all(&undecided(seen, Source::Api, Fact::NothingToSee));
    };
    if let Some(found) = whole_scope(seen, question, &count) {
        return all(&found);
    }
    let mut answers = Vec::with_capacity(open.len());
    split(seen, &open, count.left_for(question), &count, states, &mut answers);
    answers
}

/// What the counters say.
struct Count<'a> {
    /// Sessions open now in the scope.
    open: u64,
    /// All candidates of the scope.
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
    fn of(seen: &SweepEvidence<'_>, question: &Question<'a>) -> Option<Self> {
        let candidates = number_of(question.candidates.len());
        let scope = question.scope.filter(|_| seen.sweep.metrics.known().is_some());
        let goroutines = question.goroutines;
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
    fn left_for(&self, question: &Question<'_>) -> Sessions {
        let (mut surely, mut perhaps) = (0_u64, 0_u64);
        for found in question.candidates.iter().filter_map(|set| question.decided(set)) {
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
    fn settled(&self, now: Wall) -> bool {
        self.flat(now) && self.scope.is_none_or(Scope::is_settled)
    }

    /// Whether every worker of the manager lives, by goroutine count.
    fn all_live(&self, seen: &SweepEvidence<'_>) -> bool {
        self.goroutines.is_some_and(|counted| counted.now.workers >= seen.total)
    }

    fn fact(&self) -> Fact {
        Fact::SessionsByCounters { open: self.open, expected: self.candidates }
    }
}

/// Rates that mean the same for every set of the scope.
fn whole_scope(seen: &SweepEvidence<'_>, question: &Question<'_>, count: &Count<'_>) -> Option<Found> {
    let scope = count.scope?;
    let (opened, within) = scope.churn();
    let each = u64::from(seen.policy.flapping_per_minute);
    let candidates = count.candidates.max(1);
    let fact = Fact::SessionChurn { opened, within };
    if opened >= each.saturating_mul(candidates) && within > Span::ZERO {
        return Some(by_metrics(seen, Diagnosis::Flapping, Confidence::Strong, fact));
    }
    if opened >= each.saturating_add(candidates.saturating_mul(RESTARTS)) && within > Span::ZERO {
        // One of them flaps, and no source says which: its sessions come and go in every count.
        return Some(by_metrics(seen, Diagnosis::Unknown, Confidence::Weak, fact));
    }
    let silent = scope.unmoved(scope.polls_moved);
    let all_open = count.open >= count.candidates && !question.candidates.is_empty();
    (all_open && silent >= seen.policy.deaf_after.max(POLLS)).then(|| {
        let fact = Fact::LastPoll { ago: silent };
        counted((Diagnosis::Deaf, Confidence::Strong), Source::Metrics, scope.polls_moved, fact)
            .working((WorkerState::Listening, scope.polls_moved))
    })
}

fn split(
    seen: &SweepEvidence<'_>,
    open: &[&ScaleSet],
    sessions: Sessions,
    count: &Count<'_>,
    states: &BTreeMap<ScaleSetId, SetState>,
    found: &mut Vec<(ScaleSetId, Found)>,
) {
    let number = |sets: &[&ScaleSet]| number_of(sets.len());
    if sessions.least >= number(open) {
        let listens = listens(seen, count);
        found.extend(open.iter().map(|set| (set.id, listens.clone())));
        return;
    }
    let known = |set: &ScaleSet| states.get(&set.id);
    let held = |set: &ScaleSet| known(set).and_then(|m| m.verdict.as_ref()).filter(|v| v.holds(set, seen));
    let gave_up = |set: &ScaleSet| held(set).filter(|verdict| verdict.diagnosis != Diagnosis::Listening);
    if sessions.most == 0 {
        let tries = count.growing(seen.now);
        let judged = |set: &ScaleSet| match gave_up(set) {
            // Somebody tries, but nothing of this set has changed.
            Some(verdict) if tries => still_given_up(seen, set, verdict, count),
            Some(_) | None => without_session(seen, set, known(set), count),
        };
        found.extend(open.iter().map(|set| (set.id, judged(set))));
        return;
    }
    // Some listen and some do not: earlier sweeps or our own treatments may separate them.
    let ours = brought_back(seen, open, count, |set, first| {
        // One that gave up, or whose build gives up, does not come back unless something of it changes; then it tries
        // until the stale session ends.
        let changed = seen.changed(set, known(set));
        let had_its_time = changed.is_none_or(|at| first.since(at) > seen.policy.stale_session_limit);
        held(set).is_some() || (had_its_time && seen.conflict_behaviour != ConflictBehaviour::Retries)
    });
    if !ours.is_empty() {
        let rest: Vec<&ScaleSet> = open.iter().copied().filter(|set| !ours.contains(&set.id)).collect();
        found.extend(ours.iter().map(|id| (*id, listens(seen, count))));
        split(seen, &rest, sessions.less(number_of(ours.len())), count, states, found);
        return;
    }
    let (given_up, rest): (Vec<&ScaleSet>, Vec<&ScaleSet>) = open.iter().partition(|set| gave_up(set).is_some());
    let (listened, others): (Vec<&ScaleSet>, Vec<&ScaleSet>) =
        rest.iter().partition(|set| held(set).is_some_and(|verdict| verdict.diagnosis == Diagnosis::Listening));
    // More sessions than sets that may hold one: some verdict was wrong, and no source says which.
    if sessions.least > number(&rest) {
        found.extend(open.iter().map(|set| (set.id, cannot_tell(seen, set, known(set), sessions.most, open, count))));
        return;
    }
    for (set, verdict) in given_up.iter().filter_map(|set| Some((set, gave_up(set)?))) {
        found.push((set.id, still_given_up(seen, set, verdict, count)));
    }
    let left = sessions.less(number(&listened));
    if sessions.least >= number(&rest) {
        found.extend(rest.iter().map(|set| (set.id, listens(seen, count))));
    } else if sessions.least >= number(&listened) && left.most == 0 {
        found.extend(listened.iter().map(|set| (set.id, listens(seen, count))));
        found.extend(others.iter().map(|set| (set.id, without_session(seen, set, known(set), count))));
    } else if sessions.least >= number(&listened) {
        found.extend(listened.iter().map(|set| (set.id, listens(seen, count))));
        found.extend(others.iter().map(|set| (set.id, cannot_tell(seen, set, known(set), left.most, &others, count))));
    } else {
        found.extend(rest.iter().map(|set| (set.id, cannot_tell(seen, set, known(set), sessions.most, &rest, count))));
    }
}

/// The sets whose treatments wait for a listener, if as many more sessions are open as there are such sets, and no
/// other set can have opened them.
fn brought_back(
    seen: &SweepEvidence<'_>,
    open: &[&ScaleSet],
    count: &Count<'_>,
    accounted: impl Fn(&ScaleSet, Wall) -> bool,
) -> BTreeSet<ScaleSetId> {
    let treated: Vec<_> = seen
        .context
        .treatments
        .iter()
        .filter(|row| matches!(row.step, Step::Verifying) && open.iter().any(|set| set.id == row.set))
        // A treatment in an earlier incarnation brings nothing back in this one.
        .filter(|row| seen.began.is_none_or(|began| row.step_at >= began))
        .collect();
    let (Some(first), Some(scope)) = (treated.iter().map(|row| row.step_at).min(), count.scope) else {
        return BTreeSet::new();
    };
    let sets: BTreeSet<ScaleSetId> = treated.iter().map(|row| row.set).collect();
    let as_many = scope.grown_since(first) >= number_of(sets.len());
    let no_other = open.iter().all(|set| sets.contains(&set.id) || accounted(set, first));
    if as_many && no_other { sets } else { BTreeSet::new() }
}

fn counted(diagnosis: (Diagnosis, Confidence), source: Source, at: Wall, fact: Fact) -> Found {
    Found::new(Rule::Counters, diagnosis, source, at, fact)
}

fn by_metrics(seen: &SweepEvidence<'_>, diagnosis: Diagnosis, confidence: Confidence, fact: Fact) -> Found {
    counted((diagnosis, confidence), Source::Metrics, seen.now, fact)
}

fn number_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Nothing of the set has changed since it was found to be given up.
fn still_given_up(seen: &SweepEvidence<'_>, set: &ScaleSet, verdict: &Verdict, count: &Count<'_>) -> Found {
    let fact = Fact::UnchangedSince { since: verdict.at };
    let kept = counted((verdict.diagnosis, Confidence::Strong), count.source, seen.now, fact)
        .with(count.source, seen.now, count.fact())
        .working((WorkerState::Absent, verdict.at));
    if verdict.diagnosis == Diagnosis::StartAbandoned && cause_is_gone(seen, set, count) {
        kept.with(Source::Metrics, seen.now, Fact::CauseGone)
    } else {
        kept
    }
}

impl Verdict {
    fn holds(&self, set: &ScaleSet, seen: &SweepEvidence<'_>) -> bool {
        self.revision == set.revision && seen.began.is_none_or(|began| self.at >= began)
    }
}

/// There is a session for every set.
fn listens(seen: &SweepEvidence<'_>, count: &Count<'_>) -> Found {
    let since = count.scope.and_then(|scope| scope.open).map_or(seen.now, |(_, since)| since);
    let polled = count.scope.map_or(seen.now, |scope| scope.polls_moved);
    // A creation under way counts as open for a moment: one sweep is not enough.
    let settled = count.source == Source::Goroutines || seen.now.since(since) >= Span::secs(1);
    let confidence = if settled { Confidence::Strong } else { Confidence::Weak };
    counted((Diagnosis::Listening, confidence), count.source, seen.now, count.fact())
        .working((WorkerState::Listening, since.max(polled)))
}

/// Nobody listens for this set; does anybody try?
fn without_session(seen: &SweepEvidence<'_>, set: &ScaleSet, known: Option<&SetState>, count: &Count<'_>) -> Found {
    if count.source == Source::Metrics && count.scope.is_some_and(Scope::contradicts_itself) {
        return cannot_say(seen, count);
    }
    if session_check::is_held_by_somebody(seen, set) {
        return cannot_say(seen, count);
    }
    let changed = seen.changed(set, known);
    if count.growing(seen.now) {
        return while_refusals_grow(seen, set, known, changed, count);
    }
    let waited = changed.map_or(Span::MAX, |at| seen.now.since(at));
    if !count.settled(seen.now) || waited < REVIVE {
        return settling(seen, count);
    }
    match count.scope {
        Some(scope) => while_nobody_tries(seen, set, known, changed, scope, count),
        None => by_workers(seen, count),
    }
}

/// Somebody is refused repeatedly: this set, unless its worker is known not to try.
fn while_refusals_grow(
    seen: &SweepEvidence<'_>,
    set: &ScaleSet,
    known: Option<&SetState>,
    changed: Option<Wall>,
    count: &Count<'_>,
) -> Found {
    let Some(scope) = count.scope else { return cannot_say(seen, count) };
    let may_be_first = changed.is_none() && seen.age() < START;
    let all_tried = scope.last.create >= count.candidates;
    let tries = match seen.conflict_behaviour {
        ConflictBehaviour::Retries => true,
        // Its workers may be at their first attempt.
        ConflictBehaviour::Unknown if may_be_first => return settling(seen, count),
        ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => changed.is_some() || has_listened(seen, set, known),
    };
    if tries {
        let fact = Fact::CreateErrorsGrow { by: scope.errors_grew, within: GROWING };
        return strong(seen, Diagnosis::ConflictRetrying, fact, count)
            .working((WorkerState::Retrying, scope.errors_moved));
    }
    // The others try. Where a listener has run in this incarnation, it may be this set's that comes back.
    if seen.conflict_behaviour == ConflictBehaviour::GivesUp && scope.never_opened() && (all_tried || !may_be_first) {
        return abandoned(seen, set, scope, count);
    }
    cannot_say(seen, count)
}

/// Refusals stand still, and no attempt is under way.
fn while_nobody_tries(
    seen: &SweepEvidence<'_>,
    set: &ScaleSet,
    known: Option<&SetState>,
    changed: Option<Wall>,
    scope: &Scope,
    count: &Count<'_>,
) -> Found {
    let (now, age, last) = (seen.now, seen.age(), scope.last);
    let fact = Fact::CreateErrors { count: last.create_errors, flat_for: scope.unmoved(scope.errors_moved) };
    if has_listened(seen, set, known) {
        // Its listener ended and does not come back: a request of the manager may hang.
        let mut found = strong(seen, Diagnosis::Unheld, fact, count);
        found.confidence = Confidence::Weak;
        return found;
    }
    if changed.is_some() {
        return strong(seen, Diagnosis::Unheld, fact, count).working((WorkerState::Unknown, now));
    }
    // Some were not tried yet.
    if age < START && last.create.max(last.start_errors) < count.candidates {
        return settling(seen, count);
    }
    if last.create_errors > last.start_errors {
        return match seen.conflict_behaviour {
            // This build retries; living workers prove it.
            ConflictBehaviour::Retries => {
                let mut found = strong(seen, Diagnosis::ConflictRetrying, Fact::BuildRetries, count);
                found.confidence = if count.all_live(seen) { Confidence::Strong } else { Confidence::Weak };
                found
            }
            ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => abandoned(seen, set, scope, count),
        };
    }
    if last.start_errors > 0 {
        return match seen.conflict_behaviour {
            // It would try again: it hangs, or another build was installed. GitHub may be asked.
            ConflictBehaviour::Retries => {
                let fact = Fact::CannotTellWhich { listening: 0, of: count.candidates };
                undecided(seen, count.source, fact)
            }
            ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => abandoned(seen, set, scope, count),
        };
    }
    if age < START {
        return settling(seen, count);
    }
    let mut found = strong(seen, Diagnosis::Unheld, Fact::ManagerAge { age }, count);
    if count.all_live(seen) {
        found.confidence = Confidence::Weak;
    }
    found
}

/// No counters: what the number of workers shows (`docs/reference/garm-api.md` §10).
fn by_workers(seen: &SweepEvidence<'_>, count: &Count<'_>) -> Found {
    let Some(Counted { now, all, .. }) = count.goroutines else { return cannot_say(seen, count) };
    let living = now.workers;
    let fact = Fact::LivingWorkers { living, expected: seen.total };
    let found = |diagnosis, confidence| {
        let listeners = Fact::LivingListeners { living: now.listeners, expected: all };
        counted((diagnosis, confidence), Source::Goroutines, seen.now, fact.clone()).with(
            Source::Goroutines,
            seen.now,
            listeners,
        )
    };
    if living >= seen.total {
        // All workers live and none listens: they try.
        found(Diagnosis::ConflictRetrying, Confidence::Weak)
    } else if seen.total.saturating_sub(living) >= all {
        found(Diagnosis::Unheld, Confidence::Strong).working((WorkerState::Absent, seen.now))
    } else {
        found(Diagnosis::Unheld, Confidence::Weak)
    }
}

/// Given up at the first start. If more calls failed before a session than at one, it was not a conflict.
fn abandoned(seen: &SweepEvidence<'_>, set: &ScaleSet, scope: &Scope, count: &Count<'_>) -> Found {
    let last = scope.last;
    let absent = (WorkerState::Absent, seen.now);
    if last.create_errors > last.start_errors {
        let flat_for = scope.unmoved(scope.errors_moved);
        let fact = Fact::CreateErrors { count: last.create_errors, flat_for };
        return strong(seen, Diagnosis::ConflictAbandoned, fact, count).working(absent);
    }
    let fact = Fact::StartErrors { count: last.start_errors };
    let found = strong(seen, Diagnosis::StartAbandoned, fact, count).working(absent);
    if cause_is_gone(seen, set, count) { found.with(Source::Metrics, seen.now, Fact::CauseGone) } else { found }
}

/// A fact of the scope's counters, with the open sessions by whichever source counts them.
fn strong(seen: &SweepEvidence<'_>, diagnosis: Diagnosis, fact: Fact, count: &Count<'_>) -> Found {
    by_metrics(seen, diagnosis, Confidence::Strong, fact).with(count.source, seen.now, count.fact())
}

/// Whether the set was seen to listen in this incarnation, and nothing of it has changed since.
fn has_listened(seen: &SweepEvidence<'_>, set: &ScaleSet, known: Option<&SetState>) -> bool {
    let verdict = known.and_then(|known| known.verdict.as_ref()).filter(|verdict| verdict.holds(set, seen));
    verdict.is_some_and(|verdict| verdict.diagnosis == Diagnosis::Listening)
}

/// Whether what made the manager give up is seen to be gone. Without an answer of GitHub to ourselves, a whole period of
/// the manager's own calls must have passed without a failure.
fn cause_is_gone(seen: &SweepEvidence<'_>, set: &ScaleSet, count: &Count<'_>) -> bool {
    let quiet = if seen.lists.of_set(set).is_some() { FLAT } else { PULSE };
    seen.cause_gone && count.scope.is_some_and(|scope| scope.unmoved(scope.start_errors_moved) >= quiet)
}

/// The counters leave it open: the manager is within its grace period, or nothing else can tell.
fn undecided(seen: &SweepEvidence<'_>, source: Source, fact: Fact) -> Found {
    let (rule, diagnosis) =
        if seen.young { (Rule::GracePeriod, Diagnosis::Settling) } else { (Rule::Nothing, Diagnosis::Unknown) };
    Found::new(rule, (diagnosis, Confidence::Weak), source, seen.now, fact)
}

fn settling(seen: &SweepEvidence<'_>, count: &Count<'_>) -> Found {
    undecided(seen, count.source, Fact::ManagerAge { age: seen.age() }).with(count.source, seen.now, count.fact())
}

fn cannot_say(seen: &SweepEvidence<'_>, count: &Count<'_>) -> Found {
    undecided(seen, count.source, count.fact())
}

/// Some of these listen and some do not. That may be asked about (`CannotTellWhich`) only where nothing is on its way:
/// a listener that is about to come back must not find its session taken by our question.
fn cannot_tell(
    seen: &SweepEvidence<'_>,
    set: &ScaleSet,
    known: Option<&SetState>,
    listening: u64,
    of: &[&ScaleSet],
    count: &Count<'_>,
) -> Found {
    let moved = known.and_then(|known| known.revised).and(seen.changed(set, known));
    let treated = seen.context.treatments.iter().any(|row| row.set == set.id);
    if let Some(at) = moved.filter(|at| !treated && seen.now.since(*at) < LATELY)
        && !count.growing(seen.now)
    {
        return counted((Diagnosis::Listening, Confidence::Weak), Source::Api, at, Fact::RevisionMoved).with(
            count.source,
            seen.now,
            count.fact(),
        );
    }
    let fact = if count.settled(seen.now) {
        Fact::CannotTellWhich { listening, of: number_of(of.len()) }
    } else {
        count.fact()
    };
    let found = undecided(seen, count.source, fact);
    if seen.changed(set, known).is_some() && count.growing(seen.now) {
        let at = count.scope.map_or(seen.now, |scope| scope.errors_moved);
        return found.working((WorkerState::Retrying, at));
    }
    found
}
