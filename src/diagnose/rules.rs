//! What one set's own evidence proves, in order: the first rule that speaks decides. What remains open is left to the
//! counters of its scope ([`super::attribute`]).
//!
//! 1. disabled, by us or by a person
//! 2. GitHub does not know it, or knows it under another id
//! 3. the log
//! 4. the newest answer of a session probe
//! 5. the metrics of its own listener
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::memory::SetMemory;
use super::{Context, ProbeAnswer, log};
use crate::decide::policy::Policy;
use crate::model::log_fact::LogEvidence;
use crate::model::{
    Confidence, Diagnosis, Enablement, Evidence, Fact, ForgeSet, Generation, Goroutines, Incarnation, ManagerMetrics,
    Owner, ScaleSet, Seen, Source, Span, Sweep, Wall, WorkerState,
};

/// What was found of one set in one sweep, before it is held against memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub diagnosis: Diagnosis,
    pub confidence: Confidence,
    pub evidence: Vec<Evidence>,
    pub worker: (WorkerState, Wall),
}

impl Found {
    pub(super) fn new(diagnosis: Diagnosis, confidence: Confidence, at: Wall, source: Source, fact: Fact) -> Self {
        let evidence = vec![Evidence { source, at, fact }];
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
    pub owner: Option<&'a Owner>,
    pub generation: Generation,
    pub cause_gone: bool,
    pub listener_series: bool,
    /// All sets of the manager, disabled ones included.
    pub total: u32,
    /// Those of them whose worker is known to have given up.
    pub given_up: u32,
    pub now: Wall,
}

impl Scene<'_> {
    /// Since the manager's start; without it, nothing is young.
    pub(super) fn age(&self) -> Span {
        self.incarnation.map_or(Span::MAX, |run| self.now.since(run.0))
    }
    /// Whether GitHub has just answered us for the set's entity.
    pub(super) fn asks_forge(&self, set: &ScaleSet) -> bool {
        listed(self, set).is_some()
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
pub(super) fn own_evidence(scene: &Scene<'_>, set: &ScaleSet, memory: Option<&mut SetMemory>) -> Option<Found> {
    let facts = scene.log().and_then(|log| Some((log, log::of_set(log, set)?)));
    let worker = facts.as_ref().map_or((WorkerState::Unknown, Wall(0)), |(_, facts)| log::worker(facts));
    if set.enabled == Enablement::Disabled {
        return Some(disabled(scene, set, worker));
    }
    if let Some(memory) = memory
        && let Some(found) = at_forge(scene, set, memory)
    {
        return Some(found.working(worker));
    }
    let by_log = facts.as_ref().and_then(|(log, facts)| {
        let churn = None;
        let scene = log::Scene {
            now: scene.now,
            owner: scene.owner,
            cause_gone: scene.cause_gone,
            churn,
            policy: scene.policy,
        };
        log::verdict(log, facts, set, &scene)
    });
    let newest = by_log.as_ref().and_then(|found| found.evidence.iter().map(|evidence| evidence.at).max());
    if let Some(found) = probed(scene, set, newest) {
        return Some(found.working(worker));
    }
    by_log.or_else(|| own_series(scene, set)).map(
        |found| {
            if worker.1 > found.worker.1 { found.working(worker) } else { found }
        },
    )
}

fn disabled(scene: &Scene<'_>, set: &ScaleSet, worker: (WorkerState, Wall)) -> Found {
    let treated = scene.context.treatments.iter().any(|row| row.set == set.id && row.may_have_disabled());
    // Every worker but those that gave up lives, and a disabled set's worker runs no listener.
    let all_live = scene
        .goroutines()
        .is_some_and(|counted| counted.workers.saturating_add(scene.given_up) >= scene.total && scene.total > 0);
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

/// GitHub's list of the set's entity, where it was given in this sweep.
fn listed<'a>(scene: &Scene<'a>, set: &ScaleSet) -> Option<&'a Vec<ForgeSet>> {
    scene.sweep.broker.get(&set.entity_ref()?).and_then(Seen::known)
}

fn at_forge(scene: &Scene<'_>, set: &ScaleSet, memory: &mut SetMemory) -> Option<Found> {
    let list = listed(scene, set)?;
    let forge_id = set.forge_id?;
    if list.iter().any(|known| known.id == forge_id) {
        memory.missing_since = None;
        return None;
    }
    let since = *memory.missing_since.get_or_insert(scene.now);
    if scene.now.since(since) < scene.policy.missing_after {
        return None;
    }
    let fact = Fact::ForgeLacksSet { since };
    let missing = Found::new(Diagnosis::Missing, Confidence::Proof, scene.now, Source::Broker, fact);
    Some(match list.iter().find(|known| known.name == set.name) {
        Some(other) => Found {
            diagnosis: Diagnosis::Mismatched,
            ..missing.with(Source::Broker, scene.now, Fact::ForgeOtherId { id: other.id })
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
        ProbeAnswer::Unheld => {
            Some(Found::new(Diagnosis::Unheld, Confidence::Strong, *at, Source::Journal, Fact::ProbeOpened))
        }
        ProbeAnswer::Held { owner } => {
            let foreign = owner.as_ref().is_some_and(|owner| scene.owner.is_some_and(|ours| ours != owner));
            let fact = Fact::ProbeRefused { owner: owner.clone() };
            foreign.then(|| Found::new(Diagnosis::HeldElsewhere, Confidence::Proof, *at, Source::Journal, fact))
        }
    }
}

/// The metrics of the set's own listener, where the build exports them.
fn own_series(scene: &Scene<'_>, set: &ScaleSet) -> Option<Found> {
    let metrics = scene.metrics()?;
    let last = metrics.listeners.get(&set.id).and_then(|listener| listener.last_success);
    let last = last.filter(|at| scene.incarnation.is_none_or(|run| *at >= run.0));
    if let Some(at) = last {
        let ago = scene.now.since(at);
        let fact = Fact::LastPoll { ago };
        let deaf = ago >= scene.policy.deaf_after;
        let diagnosis = if deaf { Diagnosis::Deaf } else { Diagnosis::Listening };
        let found = Found::new(diagnosis, Confidence::Proof, at, Source::ListenerMetrics, fact);
        return Some(found.working((WorkerState::Listening, at)));
    }
    // A worker that has never polled in this run, in a build that would say so.
    let exported = scene.listener_series && !metrics.listeners.is_empty();
    let kind = set.entity.as_ref().map(|entity| entity.kind)?;
    let refused = metrics.scopes.get(&kind).is_some_and(|counters| counters.create_errors > 0);
    (exported && refused && scene.age() >= scene.policy.settle).then(|| {
        Found::new(
            Diagnosis::ConflictRetrying,
            Confidence::Strong,
            scene.now,
            Source::ListenerMetrics,
            Fact::NoListenerSeries,
        )
        .working((WorkerState::Retrying, scene.now))
    })
}

/// Notes since when jobs of the set wait without a runner.
pub(super) fn waiting_jobs(scene: &Scene<'_>, set: &ScaleSet, memory: &mut SetMemory) -> Option<Fact> {
    let statistics = listed(scene, set)?.iter().find(|known| Some(known.id) == set.forge_id)?.statistics?;
    let waiting = statistics.assigned_jobs.saturating_sub(statistics.running_jobs);
    let room = u64::from(set.max_runners).saturating_sub(statistics.busy_runners);
    if waiting == 0 || room == 0 {
        memory.jobs_wait_since = None;
        return None;
    }
    let since = *memory.jobs_wait_since.get_or_insert(scene.now);
    (scene.now.since(since) >= scene.policy.starved_after).then_some(Fact::JobsWait { waiting, since })
}
