//! Diagnosing: observations → one finding per set, one state per manager and per endpoint
//! (`docs/reference/design.md` §4). Pure.
//!
//! | file | rule |
//! |---|---|
//! | [`manager`] | the manager's run, its restarts, the endpoints, blindness |
//! | [`rules`] | what one set's own evidence proves, in order |
//! | [`log`] | the strongest of it: the manager's log |
//! | [`attribute`] | counters without names → sets, where the numbers leave no choice |
//! | [`memory`] | what is carried from pass to pass |
//!
//! The first that speaks decides:
//!
//! | order | finding | by |
//! |---|---|---|
//! | 1 | `unknown`, all sets | the set list cannot be read |
//! | 2 | `disabled_by_medic`, `disabled` | the set list, the journal |
//! | 3 | `missing`, `mismatched` | GitHub's list, for as long as `missing_after` |
//! | 4 | `unauthorized`, `evicted`, `flapping`, `conflict_*`, `start_abandoned`, `held_elsewhere`, `listening`, `starved`, `deaf` | the log, its latest word |
//! | 5 | `unheld`, `held_elsewhere` | a session probe that nothing newer contradicts |
//! | 6 | `listening`, `deaf` | the metrics of its own listener |
//! | 7 | `flapping`, `deaf`, `listening`, `conflict_*`, `start_abandoned`, `unheld` | the counters of its scope, where they leave no choice |
//! | 8 | `settling` | a manager younger than its grace |
//! | 9 | `unknown` | nothing |
//!
//! Then: a `conflict_retrying` that no stale session can explain any more is `held_elsewhere`; a `listening` whose jobs
//! stand still is `starved`.
//!
//! Ambiguity is a state: what cannot be told is `unknown`, never the likelier of two.

mod attribute;
mod log;
mod manager;
mod memory;
mod rules;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use crate::model::along::Along;
use crate::model::session::LedgerSession;
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, EndpointName, EndpointState, EntityKind, Evidence, Fact,
    FailureKind, Finding, Findings, Incarnation, ManagerState, Now, Owner, RestartKind, ScaleSet, ScaleSetId, Seen,
    Source, Span, Sweep, Treatment, Wall,
};
use crate::policy::Policy;
use attribute::{Counted, Question};
pub use manager::{CRASH_LOOP, LOOP_WINDOW};
pub use memory::Memory;
use memory::{SetMemory, Verdict};
use rules::{Found, Scene};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// After this, a build that retries has retried.
const FIRST_TRIES: Span = Span::secs(10);
/// A set that processed a message within this was well then.
const LATELY: Span = Span::mins(10);

/// What a session probe answered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CheckAnswer {
    /// Somebody holds the set's session.
    Held {
        /// By name, where GitHub told it.
        owner: Option<Owner>,
    },
    Unheld,
}

/// What we ourselves did and learnt that bears on the diagnosis.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub treatments: &'a [Treatment],
    /// The latest answer of a session probe, by set.
    pub probes: &'a BTreeMap<ScaleSetId, (Wall, CheckAnswer)>,
    /// Living sessions of the ledger.
    pub ledger: &'a [LedgerSession],
}

/// A set that listens again after it was ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    pub set: ScaleSetId,
    /// Since when it had been ill.
    pub ill_since: Wall,
    /// When it was seen to listen.
    pub at: Wall,
}

#[derive(Debug, Clone)]
pub struct Fleet {
    pub at: Now,
    pub manager: ManagerState,
    /// A restart of it, in the one sweep in which it is first told.
    pub restart: Option<(RestartKind, Incarnation)>,
    /// How often it restarted within [`LOOP_WINDOW`].
    pub restarts: u32,
    pub incarnation: Option<Incarnation>,
    /// Its forge endpoints, where anything is known of them.
    pub endpoints: BTreeMap<EndpointName, EndpointState>,
    pub findings: Findings,
    /// The sets, as last seen.
    pub sets: Arc<BTreeMap<ScaleSetId, ScaleSet>>,
    /// Whether most sources do not answer.
    pub blind: bool,
    /// Whether several entities fail at once: a fault at GitHub.
    pub fault_at_github: bool,
    /// What the build does after a refused start.
    pub conflict_behaviour: ConflictBehaviour,
    /// The owner name of the manager's sessions.
    pub owner: Option<Owner>,
    /// Sets that recovered in this sweep.
    pub recoveries: Vec<Recovery>,
}

pub fn diagnose(memory: &mut Memory, sweep: &Sweep, context: &Context<'_>, policy: &Policy) -> Fleet {
    let incarnation = manager::incarnation(sweep, memory);
    manager::note_run(memory, incarnation, sweep);
    manager::read_counters(memory, sweep);
    let incarnation = memory.incarnation;
    if let Some(controller) = sweep.controller.known() {
        memory.owner = Some(Owner::of_garm(&controller.id));
    }
    let sets = known_sets(memory, sweep);
    note_new_sets(memory, &sets, sweep.at.wall);
    let state = manager::state(sweep, memory, policy);
    let mut fleet = Fleet {
        at: sweep.at,
        manager: state,
        restart: manager::restart(memory, sweep, context),
        restarts: manager::restarts(memory, sweep.at.wall),
        incarnation,
        endpoints: manager::endpoints(sweep, &sets, memory),
        findings: Findings::new(),
        blind: manager::blind(sweep),
        fault_at_github: false,
        conflict_behaviour: memory.conflict_behaviour,
        owner: memory.owner.clone(),
        recoveries: Vec::new(),
        sets,
    };
    let found = match sweep.scale_sets {
        Seen::Known(_) => {
            learn_generation(memory, sweep, &fleet);
            fleet.conflict_behaviour = memory.conflict_behaviour;
            judge(memory, sweep, context, policy, &fleet)
        }
        Seen::NotAsked | Seen::Failed(_) => unseen(sweep, &fleet),
    };
    remember(memory, found, policy, &mut fleet);
    fleet.fault_at_github =
        manager::entities_fail(sweep) || manager::entities_conflict(&fleet.findings, &fleet.sets, memory, policy);
    fleet
}

/// The sets of this sweep; of the last one that saw them, while the manager cannot be asked. Nothing is copied of sets
/// that have not changed.
fn known_sets(memory: &mut Memory, sweep: &Sweep) -> Arc<BTreeMap<ScaleSetId, ScaleSet>> {
    let Some(seen) = sweep.scale_sets.known() else { return Arc::clone(&memory.last_sets) };
    let as_known = seen.iter().zip(memory.last_sets.values()).all(|(set, known)| is_same(known, set));
    if seen.len() != memory.last_sets.len() || !as_known {
        let ids: BTreeSet<ScaleSetId> = seen.iter().map(|set| set.id).collect();
        let last = Arc::make_mut(&mut memory.last_sets);
        last.retain(|id, _| ids.contains(id));
        memory.sets.retain(|id, _| ids.contains(id));
        for set in seen {
            match last.get_mut(&set.id) {
                Some(known) if is_same(known, set) => {}
                Some(known) => {
                    // GARM leaves the endpoint out of some answers; it does not change.
                    let endpoint = set.endpoint.clone().or_else(|| known.endpoint.take());
                    *known = ScaleSet { endpoint, ..set.clone() };
                }
                None => {
                    last.insert(set.id, set.clone());
                }
            }
        }
    }
    Arc::clone(&memory.last_sets)
}

/// Gives every set its place in memory, so that what follows finds it there.
fn note_new_sets(memory: &mut Memory, sets: &BTreeMap<ScaleSetId, ScaleSet>, now: Wall) {
    let mut known = Along::of(&memory.sets);
    let new: Vec<ScaleSetId> = sets.keys().copied().filter(|id| known.at(id).is_none()).collect();
    memory.sets.extend(new.into_iter().map(|id| (id, SetMemory::fresh(now))));
}

/// Whether what is seen of a set says nothing new. A field that is added to the set is added here, says the compiler.
fn is_same(known: &ScaleSet, seen: &ScaleSet) -> bool {
    let ScaleSet { id, github_id, name, entity, endpoint, enabled, desired_runners, max_runners, revision, updated_at } =
        seen;
    known.id == *id
        && known.revision == *revision
        && known.enabled == *enabled
        && known.github_id == *github_id
        && known.desired_runners == *desired_runners
        && known.max_runners == *max_runners
        && known.updated_at == *updated_at
        && known.name == *name
        && known.entity == *entity
        && (endpoint.is_none() || known.endpoint == *endpoint)
}

fn unseen(sweep: &Sweep, fleet: &Fleet) -> Vec<(ScaleSetId, Found)> {
    let fact = match sweep.scale_sets.failure() {
        Some(failure) => Fact::ManagerUnseen { kind: failure.kind },
        None => Fact::NothingToSee,
    };
    let found = Found::new(Diagnosis::Unknown, Confidence::Weak, sweep.at.wall, Source::Api, fact);
    fleet.sets.keys().map(|id| (*id, found.clone())).collect()
}

/// What the build does after a refused start, as far as it was seen to do it. What its own metrics say is never
/// overruled; what its behaviour showed is, by a later run that shows the opposite (another build was installed).
fn learn_generation(memory: &mut Memory, sweep: &Sweep, fleet: &Fleet) {
    if memory.has_set_gauges {
        return;
    }
    let now = sweep.at.wall;
    let Some(began) = manager::began(memory) else { return };
    let age = now.since(began);
    if let Some(log) = sweep.log.known()
        && log::is_of_run(log, fleet.incarnation)
        && log.by_id.values().chain(log.by_github.values().flat_map(BTreeMap::values)).any(|set| set.gave_up.is_some())
    {
        memory.conflict_behaviour = ConflictBehaviour::GivesUp;
        return;
    }
    let total = u32::try_from(fleet.sets.len()).unwrap_or(u32::MAX);
    let refused = memory.scopes.values().any(|scope| scope.last.create_errors > 0);
    if let Some(counted) = sweep.goroutines.known()
        && counted.workers < total
        && refused
        && memory.conflict_behaviour == ConflictBehaviour::Unknown
        && age >= Span::secs(10)
    {
        memory.conflict_behaviour = ConflictBehaviour::GivesUp;
    }
    // A build that gives up tries each set once; only a set that was really changed since the start tries again.
    let changed = fleet
        .sets
        .values()
        .any(|set| fleet.incarnation.is_none_or(|run| set.updated_at.is_none_or(|updated| updated > run.0)));
    // A listener that had run tries again in any build: only first starts tell them apart.
    if changed {
        return;
    }
    for (kind, scope) in memory.scopes.iter().filter(|(_, scope)| scope.never_opened()) {
        let candidates = fleet.sets.values().filter(|set| candidate_kind(set) == Some(*kind)).count();
        let candidates = u64::try_from(candidates).unwrap_or(u64::MAX);
        if candidates == 0 || scope.last.create_errors == 0 {
            continue;
        }
        // The counters of this sweep may be younger than its list: a set may have been toggled in between.
        if scope.refused_before(now) > candidates {
            memory.conflict_behaviour = ConflictBehaviour::Retries;
        } else if age >= FIRST_TRIES && scope.is_flat() {
            memory.conflict_behaviour = ConflictBehaviour::GivesUp;
        }
    }
}

/// The scope in which an enabled, created set could hold a session.
fn candidate_kind(set: &ScaleSet) -> Option<EntityKind> {
    match (set.enabled, set.github_id) {
        (Enablement::Enabled, Some(_)) => set.entity.as_ref().map(|entity| entity.kind),
        (Enablement::Enabled, None) | (Enablement::Disabled, _) => None,
    }
}

/// One per set, in the order of their ids.
fn judge(
    memory: &mut Memory,
    sweep: &Sweep,
    context: &Context<'_>,
    policy: &Policy,
    fleet: &Fleet,
) -> Vec<(ScaleSetId, Found)> {
    let now = sweep.at.wall;
    let mut known = Along::of(&memory.sets);
    let given_up = fleet.sets.values().filter(|set| known.at(&set.id).is_some_and(|known| has_given_up(known, set)));
    let given_up = given_up.count();
    let troubled = fleet.endpoints.values().any(|state| *state != EndpointState::Up);
    let cause_gone = !troubled && !manager::pulse_fails(memory, now);
    let began = manager::began(memory);
    let Memory { scopes, sets: remembered, goroutines, conflict_behaviour, listener_series, .. } = memory;
    let scene = Scene {
        sweep,
        context,
        policy,
        incarnation: fleet.incarnation,
        began,
        young: fleet.manager == ManagerState::Restarted,
        owner: fleet.owner.as_ref(),
        conflict_behaviour: *conflict_behaviour,
        cause_gone,
        listener_series: *listener_series,
        scopes,
        lists: rules::Lists::of(sweep),
        stale: known_stale(context, fleet.incarnation),
        total: u32::try_from(fleet.sets.len()).unwrap_or(u32::MAX),
        given_up: u32::try_from(given_up).unwrap_or(u32::MAX),
        now,
    };
    let mut found = Vec::with_capacity(fleet.sets.len());
    let mut candidates: BTreeMap<EntityKind, Vec<&ScaleSet>> = BTreeMap::new();
    let mut known = Along::of(&mut *remembered);
    for set in fleet.sets.values() {
        let Some(known) = known.at(&set.id) else { continue };
        note_revision(known, set, now);
        let own = rules::own_evidence(&scene, set, known);
        let kind = candidate_kind(set);
        if let Some(kind) = kind {
            candidates.entry(kind).or_default().push(set);
        }
        match (own, kind) {
            (Some(own), _) => found.push((set.id, own)),
            (None, None) => found.push((set.id, not_created(now))),
            (None, Some(_)) => {}
        }
    }
    let all: usize = candidates.values().map(Vec::len).sum();
    let all = u32::try_from(all).unwrap_or(u32::MAX);
    let mut counted = Vec::with_capacity(fleet.sets.len().saturating_sub(found.len()));
    for (kind, candidates) in candidates {
        let goroutines = goroutines.filter(|_| sweep.goroutines.known().is_some());
        let question = Question {
            candidates,
            decided: &found,
            scope: scene.scopes.get(&kind),
            goroutines: goroutines.map(|(counted, since)| Counted { now: counted, since, all }),
        };
        attribute::answer(&scene, &question, remembered, &mut counted);
    }
    found.append(&mut counted);
    found.sort_unstable_by_key(|(id, _)| *id);
    let (mut sets, mut known) = (Along::of(&*fleet.sets), Along::of(remembered));
    for (id, found) in &mut found {
        let id = &*id;
        let (Some(set), Some(known)) = (sets.at(id), known.at(id)) else { continue };
        add_what_else_is_seen(&scene, set, known, found);
    }
    found
}

/// What bears on the set beside the diagnosis; jobs that stand still change it.
fn add_what_else_is_seen(scene: &Scene<'_>, set: &ScaleSet, known: &mut SetMemory, found: &mut Found) {
    let now = scene.now;
    let waiting = rules::waiting_jobs(scene, set, known);
    if let (Diagnosis::Listening, Some(fact)) = (found.diagnosis, waiting) {
        found.diagnosis = Diagnosis::Starved;
        found.evidence.insert(0, Evidence { source: Source::Broker, at: now, fact });
    }
    if !found.diagnosis.is_ill() && found.diagnosis != Diagnosis::Unknown {
        return;
    }
    let mut add = |source, fact| found.evidence.push(Evidence { source, at: now, fact });
    let lingering = scene.sweep.lingering.known().and_then(|all| all.get(&set.id)).map_or(0, |of_set| of_set.deleted);
    if lingering > 0 {
        add(Source::Api, Fact::DeletedInstancesLinger { count: lingering });
    }
    if let Some(incarnation) = scene.stale.get(&set.id) {
        add(Source::Journal, Fact::StaleSessionKnown { incarnation: *incarnation });
    }
    if let Some(failure) = scene.lists.failure(set) {
        let refused = matches!(failure.kind, FailureKind::Unauthorized | FailureKind::Forbidden);
        add(Source::Broker, if refused { Fact::CredentialsRefused } else { Fact::GithubUnseen { kind: failure.kind } });
    }
}

fn note_revision(known: &mut SetMemory, set: &ScaleSet, now: Wall) {
    match &known.revision {
        Some(revision) if *revision == set.revision => {}
        Some(_) => {
            known.revised = Some(now);
            known.revision = Some(set.revision.clone());
        }
        None => known.revision = Some(set.revision.clone()),
    }
}

/// Whether the set was found to be given up, and nothing of it has changed since.
fn has_given_up(known: &SetMemory, set: &ScaleSet) -> bool {
    let verdict = known.verdict.as_ref();
    verdict.is_some_and(|verdict| verdict.diagnosis != Diagnosis::Listening && verdict.revision == set.revision)
}

/// The sets with a session of an earlier run in the ledger, and the first such run that it names.
fn known_stale(context: &Context<'_>, current: Option<Incarnation>) -> BTreeMap<ScaleSetId, Incarnation> {
    use crate::model::session::OpenedBy;
    let mut stale = BTreeMap::new();
    for session in context.ledger.iter().filter(|session| session.ended.is_none()) {
        match session.opened_by {
            OpenedBy::Manager(run) if current.is_some_and(|current| run < current) => {
                stale.entry(session.set).or_insert(run);
            }
            OpenedBy::Manager(_) | OpenedBy::UnknownIncarnation | OpenedBy::Medic => {}
        }
    }
    stale
}

/// Enabled, and not created at GitHub yet.
fn not_created(now: Wall) -> Found {
    Found::new(Diagnosis::Unknown, Confidence::Weak, now, Source::Api, Fact::NothingToSee)
}

/// Holds what was found against what was known, and makes the findings.
fn remember(memory: &mut Memory, found: Vec<(ScaleSetId, Found)>, policy: &Policy, fleet: &mut Fleet) {
    let now = fleet.at.wall;
    let sets = Arc::clone(&fleet.sets);
    let (mut seen, mut known) = (Along::of(&*sets), Along::of(&mut memory.sets));
    fleet.findings.reserve(found.len());
    for (id, mut found) in found {
        let Some(set) = known.at(&id) else { continue };
        note_conflict(set, &mut found, policy, now);
        let same = set.seen > 0 && set.diagnosis == found.diagnosis;
        set.seen = if same { set.seen.saturating_add(1) } else { 1 };
        if !same {
            set.since = now;
        }
        set.diagnosis = found.diagnosis;
        match found.diagnosis {
            // One weak look ends no illness.
            Diagnosis::Listening if found.confidence == Confidence::Weak && set.ill_since.is_some() => {}
            Diagnosis::Listening => {
                if let Some(ill_since) = set.ill_since.take() {
                    fleet.recoveries.push(Recovery { set: id, ill_since, at: now });
                }
            }
            Diagnosis::Disabled => set.ill_since = None,
            Diagnosis::Settling | Diagnosis::Unknown => {}
            Diagnosis::DisabledByMedic
            | Diagnosis::ConflictRetrying
            | Diagnosis::ConflictAbandoned
            | Diagnosis::StartAbandoned
            | Diagnosis::Unheld
            | Diagnosis::HeldElsewhere
            | Diagnosis::Flapping
            | Diagnosis::Evicted
            | Diagnosis::Mismatched
            | Diagnosis::Deaf
            | Diagnosis::Starved
            | Diagnosis::Missing
            | Diagnosis::Unauthorized => {
                set.ill_since.get_or_insert(first_ill(&found, now));
            }
        }
        note_verdict(set, &found, seen.at(&id), now);
        let hidden = match found.diagnosis {
            Diagnosis::Settling => true,
            Diagnosis::Listening => found.confidence == Confidence::Weak,
            Diagnosis::Disabled
            | Diagnosis::DisabledByMedic
            | Diagnosis::ConflictRetrying
            | Diagnosis::ConflictAbandoned
            | Diagnosis::StartAbandoned
            | Diagnosis::Unheld
            | Diagnosis::HeldElsewhere
            | Diagnosis::Flapping
            | Diagnosis::Evicted
            | Diagnosis::Mismatched
            | Diagnosis::Deaf
            | Diagnosis::Starved
            | Diagnosis::Missing
            | Diagnosis::Unauthorized
            | Diagnosis::Unknown => false,
        };
        let shown = if hidden { None } else { set.ill_since };
        let finding = Finding {
            set: id,
            diagnosis: found.diagnosis,
            confidence: found.confidence,
            evidence: found.evidence,
            since: set.since,
            ill_since: shown,
            seen: set.seen,
            worker: found.worker,
        };
        if let Some((id, finding)) = fleet.findings.try_append(id, finding) {
            fleet.findings.insert(id, finding);
        }
    }
}

/// Measures the unbroken run of conflicts; one that no stale session can explain has another holder. Not to see, or a
/// manager that settles, ends no run; every other answer does.
fn note_conflict(set: &mut SetMemory, found: &mut Found, policy: &Policy, now: Wall) {
    match found.diagnosis {
        Diagnosis::ConflictRetrying if found.confidence > Confidence::Weak => {
            let first = found.evidence.iter().find_map(|evidence| {
                if let Fact::ConflictLine { run, .. } = &evidence.fact { Some(evidence.at.minus(*run)) } else { None }
            });
            let since = set.conflict_since.unwrap_or(now).min(first.unwrap_or(now)).min(now);
            set.conflict_since = Some(since);
            if now.since(since) > policy.stale_session_limit {
                found.diagnosis = Diagnosis::HeldElsewhere;
            }
        }
        Diagnosis::HeldElsewhere => {
            set.conflict_since.get_or_insert(first_ill(found, now));
        }
        Diagnosis::ConflictRetrying | Diagnosis::Unknown | Diagnosis::Settling => {}
        Diagnosis::Listening
        | Diagnosis::Disabled
        | Diagnosis::DisabledByMedic
        | Diagnosis::ConflictAbandoned
        | Diagnosis::StartAbandoned
        | Diagnosis::Unheld
        | Diagnosis::Flapping
        | Diagnosis::Evicted
        | Diagnosis::Mismatched
        | Diagnosis::Deaf
        | Diagnosis::Starved
        | Diagnosis::Missing
        | Diagnosis::Unauthorized => set.conflict_since = None,
    }
}

/// The date of the oldest proof, which may be older than our first look.
fn first_ill(found: &Found, now: Wall) -> Wall {
    match found.confidence {
        Confidence::Proof => found.evidence.iter().map(|evidence| evidence.at).min().unwrap_or(now).min(now),
        Confidence::Strong | Confidence::Weak => now,
    }
}

fn note_verdict(memory: &mut SetMemory, found: &Found, set: Option<&ScaleSet>, now: Wall) {
    let Some(set) = set else { return };
    let lasting =
        matches!(found.diagnosis, Diagnosis::Listening | Diagnosis::ConflictAbandoned | Diagnosis::StartAbandoned);
    if lasting && found.confidence > Confidence::Weak {
        let kept = memory.verdict.as_ref().filter(|v| v.diagnosis == found.diagnosis && v.revision == set.revision);
        if kept.is_none() {
            memory.verdict = Some(Verdict { diagnosis: found.diagnosis, at: now, revision: set.revision.clone() });
        }
    } else if memory.verdict.as_ref().is_some_and(|verdict| verdict.revision != set.revision) {
        memory.verdict = None;
    }
}
