//! Counters without names → sets: GARM counts sessions per scope (repositories, organisations, enterprises), not per
//! set. What a set's own evidence leaves open is decided here, and only where the numbers leave no choice.
//!
//! The rule: *never guess*. Either all open sets of a scope listen, or none does, or memory tells them apart; else the
//! finding is `unknown` with `CannotTellWhich`, and at most a session probe asks.
//!
//! How the numbers speak (`docs/reference/design.md` §1, `docs/reference/garm-api.md` §9):
//! - sessions open now = opened − ended. All of them, and polls going on: every set listens.
//! - none open, refusals that grow: somebody keeps trying. None open, refusals that stand still and no attempt under
//!   way: nobody tries. A build that gives up tries once per set at its start; a set that was really changed since
//!   (toggled, edited) has a worker that retries.
//! - What was found holds for a set until something of the set changes, within one run of the manager: so the sets
//!   that were given up stay apart from those that come back one by one.

use super::LATELY;
use super::memory::{FLAT, GROWING, Scope, SetMemory, Verdict};
use super::rules::{self, Found, Scene};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Fact, Goroutines, ScaleSet, ScaleSetId, Source, Span, Step, Wall,
    WorkerState,
};
use std::collections::{BTreeMap, BTreeSet};

/// The manager asks for its quota every 30 s; a failure would show within this.
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
    /// Those of them that their own evidence has decided, in the order of their ids.
    pub decided: &'a [(ScaleSetId, Found)],
    pub scope: Option<&'a Scope>,
    pub goroutines: Option<Counted>,
}

impl Question<'_> {
    fn decided(&self, set: &ScaleSet) -> Option<&Found> {
        let at = self.decided.binary_search_by_key(&set.id, |(id, _)| *id).ok()?;
        self.decided.get(at).map(|(_, found)| found)
    }
}

/// Goroutine counts of this sweep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub now: Goroutines,
    /// Since when they are so many.
    pub since: Wall,
    /// The candidates of all scopes.
    pub all: u32,
}

/// Adds the sets' diagnoses by counting, in no order.
pub(super) fn answer(
    scene: &Scene<'_>,
    question: &Question<'_>,
    memory: &BTreeMap<ScaleSetId, SetMemory>,
    answers: &mut Vec<(ScaleSetId, Found)>,
) {
    let open: Vec<&ScaleSet> =
        question.candidates.iter().copied().filter(|set| question.decided(set).is_none()).collect();
    let Some(count) = Count::of(scene, question) else {
        answers.extend(open.iter().map(|set| (set.id, unseen(scene))));
        return;
    };
    if let Some(found) = whole_scope(scene, question, &count) {
        answers.extend(open.iter().map(|set| (set.id, found.clone())));
        return;
    }
    split(scene, &open, count.left_for(question), &count, memory, answers);
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
    fn of(scene: &Scene<'_>, question: &Question<'a>) -> Option<Self> {
        let candidates = number_of(question.candidates.len());
        let scope = question.scope.filter(|_| scene.sweep.metrics.known().is_some());
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

    /// What the sets that are decided already leave. One that is not polled well may hold a session or not.
    fn left_for(&self, question: &Question<'_>) -> Sessions {
        let (mut surely, mut perhaps) = (0_u64, 0_u64);
        for found in question.candidates.iter().filter_map(|set| question.decided(set)) {
            match found.diagnosis {
                Diagnosis::Listening | Diagnosis::Deaf | Diagnosis::Starved => surely = surely.saturating_add(1),
                Diagnosis::Evicted
                | Diagnosis::Flapping
                | Diagnosis::Mismatched
                | Diagnosis::Missing
                | Diagnosis::Unauthorized
                | Diagnosis::Unknown => perhaps = perhaps.saturating_add(1),
                Diagnosis::Disabled
                | Diagnosis::DisabledByMedic
                | Diagnosis::Settling
                | Diagnosis::ConflictRetrying
                | Diagnosis::ConflictAbandoned
                | Diagnosis::StartAbandoned
                | Diagnosis::Unheld
                | Diagnosis::HeldElsewhere => {}
            }
        }
        let most = self.open.saturating_sub(surely);
        Sessions { least: most.saturating_sub(perhaps), most }
    }

    fn growing(&self, now: Wall) -> bool {
        self.scope.is_some_and(|scope| scope.is_growing(now))
    }

    /// Nobody tries: refusals stand still, and no attempt is under way. Without counters, the goroutines must have
    /// stood still for as long as a start takes.
    fn flat(&self, now: Wall) -> bool {
        match (self.scope, self.goroutines) {
            (Some(scope), _) => scope.is_flat(),
            (None, Some(counted)) => now.since(counted.since) >= START,
            (None, None) => false,
        }
    }

    /// Nothing is on its way: no refusal grows, and the sessions are as many as they were for a while.
    fn settled(&self, now: Wall) -> bool {
        self.flat(now) && self.scope.is_none_or(Scope::is_settled)
    }

    /// Whether every worker of the manager lives, by goroutine count.
    fn all_live(&self, scene: &Scene<'_>) -> bool {
        self.goroutines.is_some_and(|counted| counted.now.workers >= scene.total)
    }

    fn fact(&self) -> Fact {
        Fact::SessionsByCounters { open: self.open, expected: self.candidates }
    }
}

/// Rates that say the same of every set of the scope.
fn whole_scope(scene: &Scene<'_>, question: &Question<'_>, count: &Count<'_>) -> Option<Found> {
    let scope = count.scope?;
    let (opened, within) = scope.churn();
    let each = u64::from(scene.policy.flapping_per_minute);
    let candidates = count.candidates.max(1);
    let fact = Fact::SessionChurn { opened, within };
    if opened >= each.saturating_mul(candidates) && within > Span::ZERO {
        return Some(Found::new(Diagnosis::Flapping, Confidence::Strong, scene.now, Source::Metrics, fact));
    }
    if opened >= each.saturating_add(candidates.saturating_mul(RESTARTS)) && within > Span::ZERO {
        // One of them flaps, and nothing says which: its sessions come and go in every count.
        return Some(Found::new(Diagnosis::Unknown, Confidence::Weak, scene.now, Source::Metrics, fact));
    }
    let silent = scope.unmoved(scope.polls_moved);
    let all_open = count.open >= count.candidates && !question.candidates.is_empty();
    (all_open && silent >= scene.policy.deaf_after.max(POLLS)).then(|| {
        let fact = Fact::LastPoll { ago: silent };
        Found::new(Diagnosis::Deaf, Confidence::Strong, scope.polls_moved, Source::Metrics, fact)
            .working((WorkerState::Listening, scope.polls_moved))
    })
}

fn split(
    scene: &Scene<'_>,
    open: &[&ScaleSet],
    sessions: Sessions,
    count: &Count<'_>,
    memory: &BTreeMap<ScaleSetId, SetMemory>,
    found: &mut Vec<(ScaleSetId, Found)>,
) {
    let number = |sets: &[&ScaleSet]| number_of(sets.len());
    if sessions.least >= number(open) {
        let listens = listens(scene, count);
        found.extend(open.iter().map(|set| (set.id, listens.clone())));
        return;
    }
    let known = |set: &ScaleSet| memory.get(&set.id);
    let held = |set: &ScaleSet| known(set).and_then(|m| m.verdict.as_ref()).filter(|v| v.holds(set, scene));
    let gave_up = |set: &ScaleSet| held(set).filter(|verdict| verdict.diagnosis != Diagnosis::Listening);
    if sessions.most == 0 {
        let tries = count.growing(scene.now);
        let judged = |set: &ScaleSet| match gave_up(set) {
            // Somebody tries, but nothing of this set has changed.
            Some(verdict) if tries => still_given_up(scene, set, verdict, count),
            Some(_) | None => without_session(scene, set, known(set), count),
        };
        found.extend(open.iter().map(|set| (set.id, judged(set))));
        return;
    }
    // Some listen and some do not: memory may tell them apart, and so may what we did.
    let ours = brought_back(scene, open, count, |set, first| {
        // One that gave up, or whose build gives up, does not come back unless something of it changes; then it tries
        // for as long as a session stands in its way.
        let changed = scene.changed(set, known(set));
        let had_its_time = changed.is_none_or(|at| first.since(at) > scene.policy.stale_session_limit);
        held(set).is_some() || (had_its_time && scene.conflict_behaviour != ConflictBehaviour::Retries)
    });
    if !ours.is_empty() {
        let rest: Vec<&ScaleSet> = open.iter().copied().filter(|set| !ours.contains(&set.id)).collect();
        found.extend(ours.iter().map(|id| (*id, listens(scene, count))));
        split(scene, &rest, sessions.less(number_of(ours.len())), count, memory, found);
        return;
    }
    let (given_up, rest): (Vec<&ScaleSet>, Vec<&ScaleSet>) = open.iter().partition(|set| gave_up(set).is_some());
    let (listened, others): (Vec<&ScaleSet>, Vec<&ScaleSet>) =
        rest.iter().partition(|set| held(set).is_some_and(|verdict| verdict.diagnosis == Diagnosis::Listening));
    // More sessions than sets that may hold one: some verdict was wrong, and nothing says which.
    if sessions.least > number(&rest) {
        found.extend(open.iter().map(|set| (set.id, cannot_tell(scene, set, known(set), sessions.most, open, count))));
        return;
    }
    for (set, verdict) in given_up.iter().filter_map(|set| Some((set, gave_up(set)?))) {
        found.push((set.id, still_given_up(scene, set, verdict, count)));
    }
    let left = sessions.less(number(&listened));
    if sessions.least >= number(&rest) {
        found.extend(rest.iter().map(|set| (set.id, listens(scene, count))));
    } else if sessions.least >= number(&listened) && left.most == 0 {
        found.extend(listened.iter().map(|set| (set.id, listens(scene, count))));
        found.extend(others.iter().map(|set| (set.id, without_session(scene, set, known(set), count))));
    } else if sessions.least >= number(&listened) {
        found.extend(listened.iter().map(|set| (set.id, listens(scene, count))));
        found.extend(others.iter().map(|set| (set.id, cannot_tell(scene, set, known(set), left.most, &others, count))));
    } else {
        found.extend(rest.iter().map(|set| (set.id, cannot_tell(scene, set, known(set), sessions.most, &rest, count))));
    }
}

/// The sets whose treatments have done their part, if as many more sessions are open as there are such sets, and
/// nothing else can have opened them: every other set is one that cannot have come back by itself since.
fn brought_back(
    scene: &Scene<'_>,
    open: &[&ScaleSet],
    count: &Count<'_>,
    accounted: impl Fn(&ScaleSet, Wall) -> bool,
) -> BTreeSet<ScaleSetId> {
    let treated: Vec<_> = scene
        .context
        .treatments
        .iter()
        .filter(|row| matches!(row.step, Step::Verifying) && open.iter().any(|set| set.id == row.set))
        // What was done to an earlier run brings nothing back in this one.
        .filter(|row| scene.began.is_none_or(|began| row.step_at >= began))
        .collect();
    let (Some(first), Some(scope)) = (treated.iter().map(|row| row.step_at).min(), count.scope) else {
        return BTreeSet::new();
    };
    let sets: BTreeSet<ScaleSetId> = treated.iter().map(|row| row.set).collect();
    let as_many = scope.grown_since(first) >= number_of(sets.len());
    let no_other = open.iter().all(|set| sets.contains(&set.id) || accounted(set, first));
    if as_many && no_other { sets } else { BTreeSet::new() }
}

fn number_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Nothing of the set has changed since it was found to be given up.
fn still_given_up(scene: &Scene<'_>, set: &ScaleSet, verdict: &Verdict, count: &Count<'_>) -> Found {
    let fact = Fact::UnchangedSince { since: verdict.at };
    let kept = Found::new(verdict.diagnosis, Confidence::Strong, scene.now, count.source, fact)
        .with(count.source, scene.now, count.fact())
        .working((WorkerState::Absent, verdict.at));
    if verdict.diagnosis == Diagnosis::StartAbandoned && cause_is_gone(scene, set, count) {
        kept.with(Source::Metrics, scene.now, Fact::CauseGone)
    } else {
        kept
    }
}

impl Verdict {
    fn holds(&self, set: &ScaleSet, scene: &Scene<'_>) -> bool {
        self.revision == set.revision && scene.began.is_none_or(|began| self.at >= began)
    }
}

/// The session count leaves no set out.
fn listens(scene: &Scene<'_>, count: &Count<'_>) -> Found {
    let since = count.scope.and_then(|scope| scope.open).map_or(scene.now, |(_, since)| since);
    let polled = count.scope.map_or(scene.now, |scope| scope.polls_moved);
    // A creation under way counts as open for a moment: one look is not enough.
    let settled = count.source == Source::Goroutines || scene.now.since(since) >= Span::secs(1);
    let confidence = if settled { Confidence::Strong } else { Confidence::Weak };
    Found::new(Diagnosis::Listening, confidence, scene.now, count.source, count.fact())
        .working((WorkerState::Listening, since.max(polled)))
}

/// Nobody listens for this set; does anybody try?
fn without_session(scene: &Scene<'_>, set: &ScaleSet, known: Option<&SetMemory>, count: &Count<'_>) -> Found {
    if count.source == Source::Metrics && count.scope.is_some_and(Scope::contradicts_itself) {
        return cannot_say(scene, count);
    }
    if rules::is_held_by_somebody(scene, set) {
        return cannot_say(scene, count);
    }
    let changed = scene.changed(set, known);
    if count.growing(scene.now) {
        return while_refusals_grow(scene, set, known, changed, count);
    }
    let waited = changed.map_or(Span::MAX, |at| scene.now.since(at));
    if !count.settled(scene.now) || waited < REVIVE {
        return settling(scene, count);
    }
    match count.scope {
        Some(scope) => while_nobody_tries(scene, set, known, changed, scope, count),
        None => by_workers(scene, count),
    }
}

/// Somebody is refused again and again: this set, unless its worker is known not to try.
fn while_refusals_grow(
    scene: &Scene<'_>,
    set: &ScaleSet,
    known: Option<&SetMemory>,
    changed: Option<Wall>,
    count: &Count<'_>,
) -> Found {
    let Some(scope) = count.scope else { return cannot_say(scene, count) };
    let may_be_first = changed.is_none() && scene.age() < START;
    let all_tried = scope.last.create >= count.candidates;
    let tries = match scene.conflict_behaviour {
        ConflictBehaviour::Retries => true,
        // Its workers may be at their first attempt.
        ConflictBehaviour::Unknown if may_be_first => return settling(scene, count),
        ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => changed.is_some() || has_listened(scene, set, known),
    };
    if tries {
        let fact = Fact::CreateErrorsGrow { by: scope.errors_grew, within: GROWING };
        return strong(scene, Diagnosis::ConflictRetrying, fact, count)
            .working((WorkerState::Retrying, scope.errors_moved));
    }
    // The others try. Where a listener has run in this run of the manager, this set's may be the one that comes back.
    if scene.conflict_behaviour == ConflictBehaviour::GivesUp && scope.never_opened() && (all_tried || !may_be_first) {
        return abandoned(scene, set, scope, count);
    }
    cannot_say(scene, count)
}

/// Refusals stand still, and no attempt is under way.
fn while_nobody_tries(
    scene: &Scene<'_>,
    set: &ScaleSet,
    known: Option<&SetMemory>,
    changed: Option<Wall>,
    scope: &Scope,
    count: &Count<'_>,
) -> Found {
    let (now, age, last) = (scene.now, scene.age(), scope.last);
    let fact = Fact::CreateErrors { count: last.create_errors, flat_for: scope.unmoved(scope.errors_moved) };
    if has_listened(scene, set, known) {
        // Its listener ended, and nobody brings it back: a request of the manager's may hang.
        let mut found = strong(scene, Diagnosis::Unheld, fact, count);
        found.confidence = Confidence::Weak;
        return found;
    }
    if changed.is_some() {
        return strong(scene, Diagnosis::Unheld, fact, count).working((WorkerState::Unknown, now));
    }
    // Some were not tried yet.
    if age < START && last.create.max(last.start_errors) < count.candidates {
        return settling(scene, count);
    }
    if last.create_errors > last.start_errors {
        return match scene.conflict_behaviour {
            // It retries by itself, as its kind does; its living workers prove it.
            ConflictBehaviour::Retries => {
                let mut found = strong(scene, Diagnosis::ConflictRetrying, Fact::RetriesByItself, count);
                found.confidence = if count.all_live(scene) { Confidence::Strong } else { Confidence::Weak };
                found
            }
            ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => abandoned(scene, set, scope, count),
        };
    }
    if last.start_errors > 0 {
        return match scene.conflict_behaviour {
            // It would try again: it hangs, or another build was put in its place. GitHub may be asked.
            ConflictBehaviour::Retries => {
                let fact = Fact::CannotTellWhich { listening: 0, of: count.candidates };
                Found::new(undecided(scene), Confidence::Weak, scene.now, count.source, fact)
            }
            ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => abandoned(scene, set, scope, count),
        };
    }
    if age < START {
        return settling(scene, count);
    }
    let mut found = strong(scene, Diagnosis::Unheld, Fact::ManagerAge { age }, count);
    if count.all_live(scene) {
        found.confidence = Confidence::Weak;
    }
    found
}

/// No counters: what the workers' number says (`docs/reference/garm-api.md` §10).
fn by_workers(scene: &Scene<'_>, count: &Count<'_>) -> Found {
    let Some(counted) = count.goroutines else { return cannot_say(scene, count) };
    let living = counted.now.workers;
    let fact = Fact::LivingWorkers { living, expected: scene.total };
    let found = |diagnosis, confidence| {
        Found::new(diagnosis, confidence, scene.now, Source::Goroutines, fact.clone()).with(
            Source::Goroutines,
            scene.now,
            Fact::LivingListeners { living: counted.now.listeners, expected: counted.all },
        )
    };
    if living >= scene.total {
        // All workers live and none listens: they try.
        found(Diagnosis::ConflictRetrying, Confidence::Weak)
    } else if scene.total.saturating_sub(living) >= counted.all {
        found(Diagnosis::Unheld, Confidence::Strong).working((WorkerState::Absent, scene.now))
    } else {
        found(Diagnosis::Unheld, Confidence::Weak)
    }
}

/// Given up at the first start. More failures before a session than refusals of one: it was not a conflict.
fn abandoned(scene: &Scene<'_>, set: &ScaleSet, scope: &Scope, count: &Count<'_>) -> Found {
    let last = scope.last;
    let absent = (WorkerState::Absent, scene.now);
    if last.create_errors > last.start_errors {
        let flat_for = scope.unmoved(scope.errors_moved);
        let fact = Fact::CreateErrors { count: last.create_errors, flat_for };
        return strong(scene, Diagnosis::ConflictAbandoned, fact, count).working(absent);
    }
    let fact = Fact::StartErrors { count: last.start_errors };
    let found = strong(scene, Diagnosis::StartAbandoned, fact, count).working(absent);
    if cause_is_gone(scene, set, count) { found.with(Source::Metrics, scene.now, Fact::CauseGone) } else { found }
}

/// A fact of the scope's counters, beside the sessions that are open, by whichever source counts them.
fn strong(scene: &Scene<'_>, diagnosis: Diagnosis, fact: Fact, count: &Count<'_>) -> Found {
    Found::new(diagnosis, Confidence::Strong, scene.now, Source::Metrics, fact).with(
        count.source,
        scene.now,
        count.fact(),
    )
}

/// Whether the set was seen to listen in this run, and nothing of it has changed since.
fn has_listened(scene: &Scene<'_>, set: &ScaleSet, known: Option<&SetMemory>) -> bool {
    let verdict = known.and_then(|known| known.verdict.as_ref()).filter(|verdict| verdict.holds(set, scene));
    verdict.is_some_and(|verdict| verdict.diagnosis == Diagnosis::Listening)
}

/// Whether what made the manager give up is seen to be gone. Where we ask GitHub ourselves, its answer tells; else a
/// whole period of the manager's own pulse must.
fn cause_is_gone(scene: &Scene<'_>, set: &ScaleSet, count: &Count<'_>) -> bool {
    let quiet = if scene.asks_github(set) { FLAT } else { PULSE };
    scene.cause_gone && count.scope.is_some_and(|scope| scope.unmoved(scope.start_errors_moved) >= quiet)
}

/// Young, or not to be told.
fn undecided(scene: &Scene<'_>) -> Diagnosis {
    if scene.young { Diagnosis::Settling } else { Diagnosis::Unknown }
}

fn settling(scene: &Scene<'_>, count: &Count<'_>) -> Found {
    let fact = Fact::ManagerAge { age: scene.age() };
    Found::new(undecided(scene), Confidence::Weak, scene.now, count.source, fact).with(
        count.source,
        scene.now,
        count.fact(),
    )
}

fn cannot_say(scene: &Scene<'_>, count: &Count<'_>) -> Found {
    Found::new(undecided(scene), Confidence::Weak, scene.now, count.source, count.fact())
}

/// Some of these listen and some do not. That may be asked about (`CannotTellWhich`) only where nothing is on its way:
/// a listener that is about to come back must not find its session taken by our question.
fn cannot_tell(
    scene: &Scene<'_>,
    set: &ScaleSet,
    known: Option<&SetMemory>,
    listening: u64,
    of: &[&ScaleSet],
    count: &Count<'_>,
) -> Found {
    let moved = known.and_then(|known| known.revised).and(scene.changed(set, known));
    let treated = scene.context.treatments.iter().any(|row| row.set == set.id);
    if let Some(at) = moved.filter(|at| !treated && scene.now.since(*at) < LATELY)
        && !count.growing(scene.now)
    {
        return Found::new(Diagnosis::Listening, Confidence::Weak, at, Source::Api, Fact::RevisionMoved).with(
            count.source,
            scene.now,
            count.fact(),
        );
    }
    let fact = if count.settled(scene.now) {
        Fact::CannotTellWhich { listening, of: number_of(of.len()) }
    } else {
        count.fact()
    };
    let found = Found::new(undecided(scene), Confidence::Weak, scene.now, count.source, fact);
    if scene.changed(set, known).is_some() && count.growing(scene.now) {
        let at = count.scope.map_or(scene.now, |scope| scope.errors_moved);
        return found.working((WorkerState::Retrying, at));
    }
    found
}

/// No source that could tell is available.
fn unseen(scene: &Scene<'_>) -> Found {
    Found::new(undecided(scene), Confidence::Weak, scene.now, Source::Api, Fact::NothingToSee)
}
