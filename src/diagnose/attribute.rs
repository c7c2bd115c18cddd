//! Counters without names → sets: GARM counts sessions per scope (repositories, organisations, enterprises), not per
//! set. What a set's own evidence leaves open is decided here, and only where the numbers leave no choice.
//!
//! The rule: *never guess*. Either all open sets of a scope listen, or none does, or memory tells them apart; else the
//! finding is `unknown` with `CannotTellWhich`, and at most a session probe asks.
//!
//! How the numbers speak (design §1, `reference/garm-api.md` §8):
//! - sessions open now = opened − ended. All of them, and polls going on: every set listens.
//! - none open, refusals that grow: somebody keeps trying. None open, refusals that stand still and no attempt under
//!   way: nobody tries. A build that gives up tries once per set at its start; a set that was really changed since
//!   (toggled, edited) has a worker that retries.
//! - What was found holds for a set until something of the set changes, within one run of the manager: so the sets
//!   that were given up stay apart from those that come back one by one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::memory::{FLAT, Scope, SetMemory, Verdict};
use super::rules::{Found, Scene};
use crate::model::{
    Confidence, Diagnosis, Fact, Generation, Goroutines, ScaleSet, ScaleSetId, Source, Span, Step, Wall, WorkerState,
};
use std::collections::{BTreeMap, BTreeSet};

/// Refusals that grew within this are growing.
const GROWING: Span = Span::secs(8);
/// The manager asks for its quota every 30 s; a failure would show within this.
const PULSE: Span = Span::secs(45);
/// A manager needs this long at most to try each set once.
const START: Span = Span::secs(75);
/// A set that was changed needs this long at most to listen again, if nothing refuses it.
const REVIVE: Span = Span::secs(45);
/// A poll begins at least this often in a scope with listeners (`reference/actions-service.md` §5).
const POLLS: Span = Span::secs(180);

/// One scope's open question.
pub(super) struct Question<'a> {
    /// Enabled sets of the scope that could hold a session.
    pub candidates: Vec<&'a ScaleSet>,
    /// Those of them that their own evidence has decided.
    pub decided: &'a BTreeMap<ScaleSetId, Found>,
    /// The scope's counters.
    pub scope: Option<&'a Scope>,
    /// Goroutine counts, and the number of candidates in all scopes.
    pub goroutines: Option<(Goroutines, u32)>,
}

/// The sets' diagnoses by counting.
pub(super) fn answer(
    scene: &Scene<'_>,
    question: &Question<'_>,
    memory: &BTreeMap<ScaleSetId, SetMemory>,
) -> BTreeMap<ScaleSetId, Found> {
    let open: Vec<&ScaleSet> =
        question.candidates.iter().copied().filter(|set| !question.decided.contains_key(&set.id)).collect();
    let Some(count) = Count::of(scene, question) else {
        return open.iter().map(|set| (set.id, unseen(scene))).collect();
    };
    if let Some(found) = whole_scope(scene, question, &count) {
        return open.iter().map(|set| (set.id, found.clone())).collect();
    }
    let listening_elsewhere = listening(question.decided, &question.candidates);
    let sessions = count.open.saturating_sub(listening_elsewhere);
    split(scene, &open, sessions, &count, memory)
}

/// What the counters say.
struct Count<'a> {
    /// Sessions open now in the scope.
    open: u64,
    /// All candidates of the scope.
    candidates: u64,
    source: Source,
    scope: Option<&'a Scope>,
}

impl<'a> Count<'a> {
    fn of(scene: &Scene<'_>, question: &Question<'a>) -> Option<Self> {
        let candidates = u64::try_from(question.candidates.len()).unwrap_or(u64::MAX);
        let scope = question.scope.filter(|_| scene.sweep.metrics.known().is_some());
        let by_goroutines = question.goroutines.and_then(|(counted, all)| {
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
            return Some(Self { open, candidates, source: Source::Goroutines, scope });
        }
        let open = scope?.last.open_now();
        Some(Self { open, candidates, source: Source::Metrics, scope })
    }

    fn growing(&self, now: Wall) -> bool {
        self.scope.is_some_and(|scope| {
            scope.last.create_errors > 0 && scope.errors_grew > 0 && now.since(scope.errors_moved) < GROWING
        })
    }

    /// Nobody tries: refusals stand still, and no attempt is under way.
    fn flat(&self, now: Wall) -> bool {
        self.scope.is_none_or(|scope| scope.is_flat(now))
    }

    fn fact(&self) -> Fact {
        Fact::SessionsByCounters { open: self.open, expected: self.candidates }
    }
}

/// Rates that say the same of every set of the scope.
fn whole_scope(scene: &Scene<'_>, question: &Question<'_>, count: &Count<'_>) -> Option<Found> {
    let scope = count.scope?;
    let (opened, within) = scope.churn();
    let limit = u64::from(scene.policy.flapping_per_minute).saturating_mul(count.candidates.max(1));
    if opened >= limit && within > Span::ZERO {
        let fact = Fact::SessionChurn { opened, within };
        return Some(Found::new(Diagnosis::Flapping, Confidence::Strong, scene.now, Source::Metrics, fact));
    }
    let silent = scene.now.since(scope.polls_moved);
    let all_open = count.open >= count.candidates && !question.candidates.is_empty();
    (all_open && silent >= scene.policy.deaf_after.max(POLLS)).then(|| {
        let fact = Fact::LastPoll { ago: silent };
        Found::new(Diagnosis::Deaf, Confidence::Strong, scope.polls_moved, Source::Metrics, fact)
    })
}

fn split(
    scene: &Scene<'_>,
    open: &[&ScaleSet],
    sessions: u64,
    count: &Count<'_>,
    memory: &BTreeMap<ScaleSetId, SetMemory>,
) -> BTreeMap<ScaleSetId, Found> {
    let number = |sets: &[&ScaleSet]| number_of(sets.len());
    if sessions >= number(open) {
        return open.iter().map(|set| (set.id, listens(scene, count))).collect();
    }
    let held = |set: &ScaleSet| memory.get(&set.id).and_then(|m| m.verdict.as_ref()).filter(|v| v.holds(set, scene));
    let gave_up = |set: &ScaleSet| held(set).filter(|verdict| verdict.diagnosis != Diagnosis::Listening);
    if sessions == 0 {
        let tries = count.growing(scene.now);
        let found = |set: &ScaleSet| match gave_up(set) {
            // Somebody tries, but nothing of this set has changed.
            Some(verdict) if tries => still_given_up(scene, set, verdict, count),
            Some(_) | None => without_session(scene, set, count),
        };
        return open.iter().map(|set| (set.id, found(set))).collect();
    }
    // Some listen and some do not: memory may tell them apart, and so may what we did.
    let ours = brought_back(scene, open, count);
    if !ours.is_empty() {
        let rest: Vec<&ScaleSet> = open.iter().copied().filter(|set| !ours.contains(&set.id)).collect();
        let mut found: BTreeMap<_, _> = ours.iter().map(|id| (*id, listens(scene, count))).collect();
        found.extend(split(scene, &rest, sessions.saturating_sub(number_of(ours.len())), count, memory));
        return found;
    }
    let (given_up, rest): (Vec<&ScaleSet>, Vec<&ScaleSet>) = open.iter().partition(|set| gave_up(set).is_some());
    let (listened, others): (Vec<&ScaleSet>, Vec<&ScaleSet>) =
        rest.iter().partition(|set| held(set).is_some_and(|verdict| verdict.diagnosis == Diagnosis::Listening));
    let mut found = BTreeMap::new();
    for (set, verdict) in given_up.iter().filter_map(|set| Some((set, gave_up(set)?))) {
        found.insert(set.id, still_given_up(scene, set, verdict, count));
    }
    if sessions >= number(&rest) {
        found.extend(rest.iter().map(|set| (set.id, listens(scene, count))));
    } else if sessions >= number(&listened) {
        found.extend(listened.iter().map(|set| (set.id, listens(scene, count))));
        let left = sessions.saturating_sub(number(&listened));
        if left == 0 {
            found.extend(others.iter().map(|set| (set.id, without_session(scene, set, count))));
        } else {
            found.extend(others.iter().map(|set| (set.id, cannot_tell(scene, set, left, &others, count))));
        }
    } else {
        found.extend(rest.iter().map(|set| (set.id, cannot_tell(scene, set, sessions, &rest, count))));
    }
    found
}

/// The sets whose treatments have done their part, if as many more sessions are open as there are such sets.
fn brought_back(scene: &Scene<'_>, open: &[&ScaleSet], count: &Count<'_>) -> BTreeSet<ScaleSetId> {
    let treated: Vec<_> = scene
        .context
        .treatments
        .iter()
        .filter(|row| matches!(row.step, Step::Verifying) && open.iter().any(|set| set.id == row.set))
        .collect();
    let (Some(first), Some(scope)) = (treated.iter().map(|row| row.step_at).min(), count.scope) else {
        return BTreeSet::new();
    };
    let as_many = scope.grown_since(first) >= number_of(treated.len());
    if as_many { treated.iter().map(|row| row.set).collect() } else { BTreeSet::new() }
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
        self.revision == set.revision && scene.incarnation.is_none_or(|run| self.at >= run.0)
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
fn without_session(scene: &Scene<'_>, set: &ScaleSet, count: &Count<'_>) -> Found {
    let (now, age) = (scene.now, scene.age());
    let changed = set.updated_at.filter(|updated| scene.incarnation.is_some_and(|run| *updated > run.0));
    let scope = count.scope.map(|scope| (scope.last, scope.errors_moved));
    let strong = |diagnosis, fact| {
        Found::new(diagnosis, Confidence::Strong, now, count.source, fact).with(count.source, now, count.fact())
    };
    let flat_for = scope.map_or(Span::ZERO, |(_, moved)| now.since(moved));
    let refusals = scope.map_or(0, |(last, _)| last.create_errors);
    if count.growing(now) {
        let grew = count.scope.map_or(0, |scope| scope.errors_grew);
        let tries = match scene.generation {
            Generation::Retries => true,
            // Its workers may be at their first attempt.
            Generation::Unknown if changed.is_none() && age < START => return settling(scene, count),
            Generation::GivesUp | Generation::Unknown => changed.is_some(),
        };
        if tries {
            let at = scope.map_or(now, |(_, moved)| moved);
            return strong(Diagnosis::ConflictRetrying, Fact::CreateErrorsGrow { by: grew, within: GROWING })
                .working((WorkerState::Retrying, at));
        }
        if scene.generation == Generation::GivesUp {
            return strong(Diagnosis::ConflictAbandoned, Fact::CreateErrors { count: refusals, flat_for })
                .working((WorkerState::Absent, now));
        }
        return cannot_say(scene, count);
    }
    let waited = changed.map_or(Span::MAX, |at| now.since(at));
    if !count.flat(now) || waited < REVIVE {
        return settling(scene, count);
    }
    if changed.is_some() {
        return strong(Diagnosis::Unheld, Fact::CreateErrors { count: refusals, flat_for })
            .working((WorkerState::Unknown, now));
    }
    if refusals > 0 {
        return match scene.generation {
            // It retries by itself, as its kind does; its living workers prove it.
            Generation::Retries => {
                let alive = scene.sweep.goroutines.known().is_some_and(|counted| counted.workers >= scene.total);
                let mut found = strong(Diagnosis::ConflictRetrying, Fact::RetriesByItself);
                found.confidence = if alive { Confidence::Strong } else { Confidence::Weak };
                found
            }
            Generation::GivesUp | Generation::Unknown => {
                strong(Diagnosis::ConflictAbandoned, Fact::CreateErrors { count: refusals, flat_for })
                    .working((WorkerState::Absent, now))
            }
        };
    }
    let start_errors = scope.map_or(0, |(last, _)| last.start_errors);
    if start_errors > 0 && age >= FLAT {
        let mut found = strong(Diagnosis::StartAbandoned, Fact::StartErrors { count: start_errors });
        if cause_is_gone(scene, set, count) {
            found = found.with(Source::Metrics, now, Fact::CauseGone);
        }
        return match scene.generation {
            Generation::Retries => cannot_say(scene, count),
            Generation::GivesUp | Generation::Unknown => found.working((WorkerState::Absent, now)),
        };
    }
    if age < START {
        return settling(scene, count);
    }
    strong(Diagnosis::Unheld, Fact::ManagerAge { age })
}

/// Whether what made the manager give up is seen to be gone. Where we ask GitHub ourselves, its answer tells; else a
/// whole period of the manager's own pulse must.
fn cause_is_gone(scene: &Scene<'_>, set: &ScaleSet, count: &Count<'_>) -> bool {
    let quiet = if scene.asks_forge(set) { FLAT } else { PULSE };
    scene.cause_gone && count.scope.is_some_and(|scope| scene.now.since(scope.start_errors_moved) >= quiet)
}

fn settling(scene: &Scene<'_>, count: &Count<'_>) -> Found {
    let young = scene.age() < scene.policy.settle;
    let diagnosis = if young { Diagnosis::Settling } else { Diagnosis::Unknown };
    let fact = Fact::ManagerAge { age: scene.age() };
    Found::new(diagnosis, Confidence::Weak, scene.now, count.source, fact).with(count.source, scene.now, count.fact())
}

fn cannot_say(scene: &Scene<'_>, count: &Count<'_>) -> Found {
    let young = scene.age() < scene.policy.settle;
    let diagnosis = if young { Diagnosis::Settling } else { Diagnosis::Unknown };
    Found::new(diagnosis, Confidence::Weak, scene.now, count.source, count.fact())
}

fn cannot_tell(scene: &Scene<'_>, set: &ScaleSet, listening: u64, of: &[&ScaleSet], count: &Count<'_>) -> Found {
    let of = u64::try_from(of.len()).unwrap_or(u64::MAX);
    let fact = Fact::CannotTellWhich { listening, of };
    let young = scene.age() < scene.policy.settle;
    let diagnosis = if young { Diagnosis::Settling } else { Diagnosis::Unknown };
    let changed = set.updated_at.is_some_and(|updated| scene.incarnation.is_some_and(|run| updated > run.0));
    let found = Found::new(diagnosis, Confidence::Weak, scene.now, count.source, fact);
    if changed && count.growing(scene.now) {
        let at = count.scope.map_or(scene.now, |scope| scope.errors_moved);
        return found.working((WorkerState::Retrying, at));
    }
    found
}

/// No source that could tell is available.
fn unseen(scene: &Scene<'_>) -> Found {
    let young = scene.age() < scene.policy.settle;
    let diagnosis = if young { Diagnosis::Settling } else { Diagnosis::Unknown };
    Found::new(diagnosis, Confidence::Weak, scene.now, Source::Api, Fact::NothingToSee)
}

fn listening(decided: &BTreeMap<ScaleSetId, Found>, candidates: &[&ScaleSet]) -> u64 {
    let listens = |set: &&&ScaleSet| {
        decided.get(&set.id).is_some_and(|found| matches!(found.diagnosis, Diagnosis::Listening | Diagnosis::Deaf))
    };
    u64::try_from(candidates.iter().filter(listens).count()).unwrap_or(u64::MAX)
}
