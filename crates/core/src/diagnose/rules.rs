//! What one set's own evidence proves, in order: the first rule that speaks decides. What remains open is left to the
//! counters of its scope ([`super::attribute`]).
//!
//! 1. disabled, by us or by a person
//! 2. GitHub does not know it, or knows it under another id
//! 3. the log
//! 4. the newest answer of a session probe
//! 5. the metrics of its own listener

use super::memory::{Scope, SetMemory};
use super::{CheckAnswer, Context, log};
use crate::model::log_fact::LogEvidence;
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, EndpointName, Entity, EntityKind, Evidence, EvidenceList,
    Fact, GithubId, GithubSet, GithubStatistics, Goroutines, Incarnation, ManagerMetrics, Owner, RequestFailure,
    ScaleSet, ScaleSetId, Seen, Source, Span, Sweep, Wall, WorkerState,
};
use crate::policy::Policy;
use smallvec::smallvec;
use std::collections::BTreeMap;

/// A listener's first poll completes within this (`docs/reference/failure-modes.md` §4: 50–90 s when idle).
const FIRST_POLL: Span = Span::secs(120);

/// What was found of one set in one sweep, before it is held against memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub diagnosis: Diagnosis,
    pub confidence: Confidence,
    pub evidence: EvidenceList,
    pub worker: (WorkerState, Wall),
}

impl Found {
    pub(super) fn new(diagnosis: Diagnosis, confidence: Confidence, at: Wall, source: Source, fact: Fact) -> Self {
        let evidence = smallvec![Evidence { source, at, fact }];
        Self { diagnosis, confidence, evidence, worker: (WorkerState::Unknown, Wall(0)) }
    }
    pub(super) fn with(mut self, source: Source, at: Wall, fact: Fact) -> Self {
        self.evidence.push(Evidence { source, at, fact });
        self
    }
    pub(super) fn working(mut self, worker: (WorkerState, Wall)) -> Self {
        self.worker = worker;
        self
    }
}

/// What all sets of a sweep have in common.
pub(super) struct Scene<'a> {
    pub sweep: &'a Sweep,
    pub context: &'a Context<'a>,
    pub policy: &'a Policy,
    pub incarnation: Option<Incarnation>,
    /// The latest date at which the run can have begun.
    pub began: Option<Wall>,
    /// Whether the manager is within its grace.
    pub young: bool,
    pub owner: Option<&'a Owner>,
    pub conflict_behaviour: ConflictBehaviour,
    pub cause_gone: bool,
    pub listener_series: bool,
    pub scopes: &'a BTreeMap<EntityKind, Scope>,
    pub lists: Lists<'a>,
    /// The sets with a session of an earlier run in the ledger, and that run.
    pub stale: BTreeMap<ScaleSetId, Incarnation>,
    /// All sets of the manager, disabled ones included.
    pub total: u32,
    /// Those of them whose worker is known to have given up.
    pub given_up: u32,
    pub now: Wall,
}

/// GitHub's lists of sets, so indexed that a set is found without a copy and without a search.
pub(super) struct Lists<'a>(BTreeMap<(&'a EndpointName, &'a Entity), Result<List<'a>, &'a RequestFailure>>);

/// The sets of one entity, by GitHub.
pub(super) struct List<'a> {
    sets: &'a [GithubSet],
    by_id: BTreeMap<GithubId, &'a GithubSet>,
}

impl<'a> List<'a> {
    fn find(&self, id: GithubId) -> Option<&'a GithubSet> {
        self.by_id.get(&id).copied()
    }
}

impl<'a> Lists<'a> {
    pub(super) fn of(sweep: &'a Sweep) -> Self {
        let list = |sets: &'a Vec<GithubSet>| List { sets, by_id: sets.iter().map(|set| (set.id, set)).collect() };
        let lists = sweep.broker.iter().filter_map(|(of, seen)| {
            let answer = match seen {
                Seen::Known(sets) => Ok(list(sets)),
                Seen::Failed(failure) => Err(failure),
                Seen::NotAsked => return None,
            };
            Some(((&of.endpoint, &of.entity), answer))
        });
        Self(lists.collect())
    }

    /// The list of the set's entity, where it was given in this sweep.
    fn of_set<'s>(&'s self, set: &'s ScaleSet) -> Option<&'s List<'a>> {
        self.answer(set)?.as_ref().ok()
    }

    /// Why it could not be given.
    pub(super) fn failure(&self, set: &ScaleSet) -> Option<&'a RequestFailure> {
        self.answer(set)?.as_ref().err().copied()
    }

    fn answer<'s>(&'s self, set: &'s ScaleSet) -> Option<&'s Result<List<'a>, &'a RequestFailure>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(&set.endpoint.as_ref()?.name, set.entity.as_ref()?))
    }
}

impl Scene<'_> {
    /// The run is at least this old.
    pub(super) fn age(&self) -> Span {
        self.began.map_or(Span::ZERO, |began| self.now.since(began))
    }
    /// When the set was last changed in this run, by our own clock where we saw it.
    pub(super) fn changed(&self, set: &ScaleSet, known: Option<&SetMemory>) -> Option<Wall> {
        let seen = known.and_then(|known| known.revised).filter(|at| self.began.is_none_or(|began| *at >= began));
        match (set.updated_at, self.incarnation) {
            // What changed before the run began may be seen only now.
            (Some(updated), Some(run)) => (updated > run.0).then(|| seen.unwrap_or(updated)),
            (Some(_) | None, Some(_) | None) => seen,
        }
    }
    /// Whether GitHub has just answered us for the set's entity.
    pub(super) fn asks_github(&self, set: &ScaleSet) -> bool {
        self.lists.of_set(set).is_some()
    }
    fn log(&self) -> Option<&LogEvidence> {
        self.sweep.log.known().filter(|log| log::is_of_run(log, self.incarnation))
    }
    fn metrics(&self) -> Option<&ManagerMetrics> {
        self.sweep.metrics.known()
    }
    fn goroutines(&self) -> Option<Goroutines> {
        self.sweep.goroutines.known().copied()
    }
}

/// The set by its own evidence; `None` where that says nothing.
pub(super) fn own_evidence(scene: &Scene<'_>, set: &ScaleSet, known: &mut SetMemory) -> Option<Found> {
    let facts = scene.log().and_then(|log| Some((log, log::of_set(log, set)?)));
    let worker = facts.as_ref().map_or((WorkerState::Unknown, Wall(0)), |(_, facts)| log::worker(facts));
    if set.enabled == Enablement::Disabled {
        return Some(disabled(scene, set, worker));
    }
    if let Some(found) = at_github(scene, set, known) {
        return Some(found.working(worker));
    }
    let by_log = facts.as_ref().and_then(|(log, facts)| {
        let scene = log::Scene {
            now: scene.now,
            owner: scene.owner,
            cause_gone: scene.cause_gone,
            churn: log::churn(facts, known, scene.now),
            policy: scene.policy,
        };
        log::verdict(log, facts, set, &scene)
    });
    let newest = by_log.as_ref().and_then(|found| found.evidence.iter().map(|evidence| evidence.at).max());
    if let Some(found) = probed(scene, set, newest) {
        return Some(found.working(worker));
    }
    by_log
        .or_else(|| own_series(scene, set, known))
        .map(|found| if worker.1 > found.worker.1 { found.working(worker) } else { found })
}

fn disabled(scene: &Scene<'_>, set: &ScaleSet, worker: (WorkerState, Wall)) -> Found {
    let treated = scene.context.treatments.iter().any(|row| row.set == set.id && row.may_have_disabled());
    // Every worker but those that gave up lives, and a disabled set's worker runs no listener.
    let all_live =
        scene.goroutines().is_some_and(|counted| counted.workers.saturating_add(scene.given_up) >= scene.total);
    let worker = if all_live && worker.0 != WorkerState::Idle { (WorkerState::Idle, scene.now) } else { worker };
    // Where workers are counted and one is missing, its absence is known.
    let worker = match (worker.0, scene.goroutines()) {
        (WorkerState::Unknown, Some(_)) => (WorkerState::Absent, Wall(0)),
        (WorkerState::Unknown, None)
        | (WorkerState::Absent | WorkerState::Idle | WorkerState::Retrying | WorkerState::Listening, _) => worker,
    };
    let (diagnosis, source, fact) = if treated {
        (Diagnosis::DisabledByMedic, Source::Journal, Fact::DisabledByTreatment)
    } else {
        (Diagnosis::Disabled, Source::Api, Fact::Disabled)
    };
    Found::new(diagnosis, Confidence::Proof, scene.now, source, fact).working(worker)
}

fn at_github(scene: &Scene<'_>, set: &ScaleSet, memory: &mut SetMemory) -> Option<Found> {
    let list = scene.lists.of_set(set)?;
    let github_id = set.github_id?;
    if list.find(github_id).is_some() {
        memory.missing_since = None;
        return None;
    }
    let since = memory.missing_since.filter(|(id, _)| *id == github_id).map_or(scene.now, |(_, since)| since);
    memory.missing_since = Some((github_id, since));
    if scene.now.since(since) < scene.policy.missing_after {
        return None;
    }
    let fact = Fact::GithubLacksSet { since };
    let missing = Found::new(Diagnosis::Missing, Confidence::Proof, scene.now, Source::Broker, fact);
    Some(match list.sets.iter().find(|known| known.name == set.name) {
        Some(other) => Found {
            diagnosis: Diagnosis::Mismatched,
            ..missing.with(Source::Broker, scene.now, Fact::GithubOtherId { id: other.id })
        },
        None => missing,
    })
}

/// A session probe's answer, if nothing newer is known of the run it was asked in.
fn probed(scene: &Scene<'_>, set: &ScaleSet, newest: Option<Wall>) -> Option<Found> {
    let (at, answer) = scene.context.probes.get(&set.id)?;
    let of_run = scene.incarnation.is_none_or(|run| *at >= run.0);
    let changed = set.updated_at.is_some_and(|updated| updated > *at);
    let fresh = scene.now.since(*at) <= scene.policy.stale_session_limit;
    if !of_run || changed || !fresh || newest.is_some_and(|newest| newest > *at) {
        return None;
    }
    match answer {
        // A session opened since, by the counters or by the set's own listener: somebody holds one now, perhaps it.
        CheckAnswer::Unheld if opened_since(scene, set, *at) => None,
        CheckAnswer::Unheld => {
            Some(Found::new(Diagnosis::Unheld, Confidence::Strong, *at, Source::Journal, Fact::CheckOpened))
        }
        CheckAnswer::Held { owner } => {
            let foreign = owner.as_ref().is_some_and(|owner| scene.owner.is_some_and(|ours| owner.is_foreign_to(ours)));
            let fact = Fact::CheckRefused { owner: owner.clone() };
            foreign.then(|| Found::new(Diagnosis::HeldElsewhere, Confidence::Proof, *at, Source::Journal, fact))
        }
    }
}

/// Whether a session probe found a holder that no crash explains: it asked when every stale session had ended, and
/// nothing of the set has changed since. Another owner is told apart elsewhere; this one may well be the manager.
pub(super) fn is_held_by_somebody(scene: &Scene<'_>, set: &ScaleSet) -> bool {
    let Some((at, CheckAnswer::Held { owner })) = scene.context.probes.get(&set.id) else { return false };
    if owner.as_ref().is_some_and(Owner::is_of_a_session_check) {
        return false;
    }
    let explained = scene.began.is_none_or(|began| *at <= began.plus(scene.policy.stale_session_limit));
    let changed = set.updated_at.is_some_and(|updated| updated > *at);
    !explained && !changed && scene.now.since(*at) <= scene.policy.stale_session_limit
}

fn opened_since(scene: &Scene<'_>, set: &ScaleSet, at: Wall) -> bool {
    let polled = scene
        .metrics()
        .and_then(|metrics| metrics.listeners.get(&set.id)?.last_success)
        .is_some_and(|success| success > at);
    let scope = set.entity.as_ref().and_then(|entity| scene.scopes.get(&entity.kind));
    polled || scope.is_some_and(|scope| scope.grown_since(at) > 0)
}

/// The metrics of the set's own listener, where the build exports them.
fn own_series(scene: &Scene<'_>, set: &ScaleSet, known: &SetMemory) -> Option<Found> {
    let metrics = scene.metrics()?;
    let changed = scene.changed(set, Some(known)).map_or(Span::MAX, |at| scene.now.since(at));
    let last = metrics.listeners.get(&set.id).and_then(|listener| listener.last_success);
    let last = last.filter(|at| scene.incarnation.is_none_or(|run| *at >= run.0));
    if let Some(at) = last {
        let ago = scene.now.since(at);
        let fact = Fact::LastPoll { ago };
        let found = |diagnosis| {
            Found::new(diagnosis, Confidence::Proof, at, Source::ListenerMetrics, fact.clone())
                .working((WorkerState::Listening, at))
        };
        return if ago < scene.policy.deaf_after {
            Some(found(Diagnosis::Listening))
        } else if changed >= scene.policy.deaf_after {
            Some(found(Diagnosis::Deaf))
        } else {
            // The poll of before the change; the listener of after it has not completed one yet.
            None
        };
    }
    // A worker that has never polled in this run, in a build that would say so: not before its first poll had the time
    // to complete, and only while the manager is being refused.
    let exported = scene.listener_series && !metrics.listeners.is_empty();
    let scope = scene.scopes.get(&set.entity.as_ref().map(|entity| entity.kind)?)?;
    let in_time =
        scene.age().min(changed) < FIRST_POLL || scope.open.is_none_or(|(_, at)| scene.now.since(at) < FIRST_POLL);
    (exported && !in_time && scope.is_growing(scene.now)).then(|| {
        Found::new(
            Diagnosis::ConflictRetrying,
            Confidence::Strong,
            scene.now,
            Source::ListenerMetrics,
            Fact::NoListenerSeries,
        )
        .working((WorkerState::Retrying, scope.errors_moved))
    })
}

/// Notes since when jobs of the set wait and nothing moves: no job starts, no runner comes, none waits less. A busy set
/// always has jobs that wait; it is starved only when it stands still.
pub(super) fn waiting_jobs(scene: &Scene<'_>, set: &ScaleSet, memory: &mut SetMemory) -> Option<Fact> {
    let statistics = scene.lists.of_set(set)?.find(set.github_id?)?.statistics?;
    let waiting = |counts: &GithubStatistics| counts.assigned_jobs.saturating_sub(counts.running_jobs);
    let room = u64::from(set.max_runners).saturating_sub(statistics.busy_runners);
    if waiting(&statistics) == 0 || room == 0 {
        memory.jobs_wait = None;
        return None;
    }
    let still = memory.jobs_wait.filter(|(_, before)| {
        waiting(&statistics) >= waiting(before)
            && statistics.running_jobs <= before.running_jobs
            && statistics.registered_runners <= before.registered_runners
    });
    let since = still.map_or(scene.now, |(since, _)| since);
    memory.jobs_wait = Some((since, statistics));
    let waiting = waiting(&statistics);
    (scene.now.since(since) >= scene.policy.starved_after).then_some(Fact::JobsWait { waiting, since })
}
