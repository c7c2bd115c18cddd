//! Diagnosing: observations → one finding per set, one state per manager and per endpoint (design §4). Pure.
//!
//! | file | rule |
//! |---|---|
//! | [`manager`] | the manager's run, its restarts, the endpoints, blindness |
//! | [`rules`] | what one set's own evidence proves, in order |
//! | [`log`] | the strongest of it: the manager's log |
//! | [`attribute`] | counters without names → sets, where the numbers leave no choice |
//! | [`memory`] | what is carried from pass to pass |
//!
//! Ambiguity is a state: what cannot be told is `unknown`, never the likelier of two.
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

mod attribute;
mod log;
mod manager;
mod memory;
mod rules;
#[cfg(test)]
mod tests;

use crate::decide::policy::Policy;
use crate::model::session::LedgerSession;
use crate::model::{
    Confidence, Diagnosis, Enablement, EndpointName, EndpointState, EntityKind, Evidence, Fact, Finding, Generation,
    Incarnation, ManagerState, Now, Owner, RestartKind, ScaleSet, ScaleSetId, Seen, Source, Sweep, Treatment, Wall,
};
use attribute::Question;
pub use memory::Memory;
use memory::{SetMemory, Verdict};
use rules::{Found, Scene};
use std::collections::BTreeMap;

/// What a session probe answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// Somebody holds the set's session.
    Held {
        /// By name, where GitHub told it.
        owner: Option<Owner>,
    },
    /// Nobody held it.
    Unheld,
}

/// What we ourselves did and learnt that bears on the diagnosis.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Treatments under way.
    pub treatments: &'a [Treatment],
    /// The latest answer of a session probe, by set.
    pub probes: &'a BTreeMap<ScaleSetId, (Wall, ProbeAnswer)>,
    /// Living sessions of the ledger.
    pub ledger: &'a [LedgerSession],
}

/// A set that listens again after it was ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Which.
    pub set: ScaleSetId,
    /// Since when it had been ill.
    pub ill_since: Wall,
    /// When it was seen to listen.
    pub at: Wall,
}

/// One manager, diagnosed.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The sweep's date.
    pub at: Now,
    /// The manager.
    pub manager: ManagerState,
    /// A restart of it, in the one sweep in which it is first told.
    pub restart: Option<(RestartKind, Incarnation)>,
    /// Its present run.
    pub incarnation: Option<Incarnation>,
    /// Its forge endpoints, where anything is known of them.
    pub endpoints: BTreeMap<EndpointName, EndpointState>,
    /// One per set.
    pub findings: BTreeMap<ScaleSetId, Finding>,
    /// The sets, as last seen.
    pub sets: BTreeMap<ScaleSetId, ScaleSet>,
    /// Whether most sources do not answer.
    pub blind: bool,
    /// Whether several entities fail at once: a fault at GitHub.
    pub fault_at_forge: bool,
    /// What the build does after a refused start.
    pub generation: Generation,
    /// The owner name of the manager's sessions.
    pub owner: Option<Owner>,
    /// Sets that recovered in this sweep.
    pub recoveries: Vec<Recovery>,
}

/// Diagnoses one sweep.
pub fn diagnose(memory: &mut Memory, sweep: &Sweep, context: &Context<'_>, policy: &Policy) -> Fleet {
    let incarnation = manager::incarnation(sweep, memory);
    manager::note_run(memory, incarnation);
    manager::read_counters(memory, sweep);
    if let Some(controller) = sweep.controller.known() {
        memory.owner = Some(Owner::of_garm(&controller.id));
    }
    let sets = known_sets(memory, sweep);
    let state = manager::state(sweep, incarnation, policy);
    let mut fleet = Fleet {
        at: sweep.at,
        manager: state,
        restart: manager::restart(memory, sweep, context),
        incarnation,
        endpoints: manager::endpoints(sweep, &sets, memory),
        findings: BTreeMap::new(),
        blind: manager::blind(sweep),
        fault_at_forge: manager::fault_at_forge(sweep),
        generation: memory.generation,
        owner: memory.owner.clone(),
        recoveries: Vec::new(),
        sets,
    };
    let found = match sweep.scale_sets {
        Seen::Known(_) => {
            learn_generation(memory, sweep, &fleet);
            fleet.generation = memory.generation;
            judge(memory, sweep, context, policy, &fleet)
        }
        Seen::NotAsked | Seen::Failed(_) => unseen(sweep, &fleet),
    };
    remember(memory, found, &mut fleet);
    fleet
}

/// The sets of this sweep; of the last one that saw them, while the manager cannot be asked.
fn known_sets(memory: &mut Memory, sweep: &Sweep) -> BTreeMap<ScaleSetId, ScaleSet> {
    if let Some(sets) = sweep.scale_sets.known() {
        let mut now: BTreeMap<_, _> = sets.iter().map(|set| (set.id, set.clone())).collect();
        for (id, set) in &mut now {
            // GARM leaves the endpoint out of some answers; it does not change.
            if set.endpoint.is_none() {
                set.endpoint = memory.last_sets.get(id).and_then(|before| before.endpoint.clone());
            }
        }
        memory.sets.retain(|id, _| now.contains_key(id));
        memory.last_sets.clone_from(&now);
    }
    memory.last_sets.clone()
}

fn unseen(sweep: &Sweep, fleet: &Fleet) -> BTreeMap<ScaleSetId, Found> {
    let fact = match sweep.scale_sets.failure() {
        Some(failure) => Fact::ManagerUnseen { kind: failure.kind },
        None => Fact::NothingToSee,
    };
    let found = Found::new(Diagnosis::Unknown, Confidence::Weak, sweep.at.wall, Source::Api, fact);
    fleet.sets.keys().map(|id| (*id, found.clone())).collect()
}

/// What the build does after a refused start, as far as it was seen to do it.
fn learn_generation(memory: &mut Memory, sweep: &Sweep, fleet: &Fleet) {
    if memory.generation == Generation::Retries {
        return;
    }
    if let Some(log) = sweep.log.known()
        && log::is_of_run(log, fleet.incarnation)
    {
        let gave_up = |set: &crate::model::log_fact::SetLog| set.gave_up.is_some();
        if log.by_id.values().any(gave_up) || log.by_forge.values().flat_map(BTreeMap::values).any(gave_up) {
            memory.generation = Generation::GivesUp;
        }
    }
    let total = u32::try_from(fleet.sets.len()).unwrap_or(u32::MAX);
    let refused = memory.scopes.values().any(|scope| scope.last.create_errors > 0);
    let grown_up = fleet.incarnation.is_some_and(|run| sweep.at.wall.since(run.0).as_millis() >= 10_000);
    if let Some(counted) = sweep.goroutines.known()
        && counted.workers < total
        && refused
        && grown_up
    {
        memory.generation = Generation::GivesUp;
    }
    // A build that gives up tries each set once; only a set that was really changed since the start tries again.
    let Some(run) = fleet.incarnation else { return };
    let changed = fleet.sets.values().any(|set| set.updated_at.is_none_or(|updated| updated > run.0));
    if changed {
        return;
    }
    for (kind, scope) in &memory.scopes {
        let candidates = fleet.sets.values().filter(|set| candidate_kind(set) == Some(*kind)).count();
        let candidates = u64::try_from(candidates).unwrap_or(u64::MAX);
        if candidates > 0 && scope.last.create_errors > candidates {
            memory.generation = Generation::Retries;
            return;
        }
        let nobody_tries = scope.last.open_now() < candidates && scope.is_flat(sweep.at.wall);
        if scope.last.create_errors > 0 && nobody_tries && grown_up {
            memory.generation = Generation::GivesUp;
        }
    }
}

/// The scope in which an enabled, created set could hold a session.
fn candidate_kind(set: &ScaleSet) -> Option<EntityKind> {
    match (set.enabled, set.forge_id) {
        (Enablement::Enabled, Some(_)) => set.entity.as_ref().map(|entity| entity.kind),
        (Enablement::Enabled, None) | (Enablement::Disabled, _) => None,
    }
}

fn judge(
    memory: &mut Memory,
    sweep: &Sweep,
    context: &Context<'_>,
    policy: &Policy,
    fleet: &Fleet,
) -> BTreeMap<ScaleSetId, Found> {
    let now = sweep.at.wall;
    let given_up = fleet.sets.values().filter(|set| has_given_up(memory, set)).count();
    let troubled = fleet.endpoints.values().any(|state| *state != EndpointState::Up);
    let scene = Scene {
        sweep,
        context,
        policy,
        incarnation: fleet.incarnation,
        owner: fleet.owner.as_ref(),
        generation: memory.generation,
        cause_gone: !troubled && !manager::pulse_fails(memory, now),
        listener_series: memory.listener_series,
        total: u32::try_from(fleet.sets.len()).unwrap_or(u32::MAX),
        given_up: u32::try_from(given_up).unwrap_or(u32::MAX),
        now,
    };
    let mut found = BTreeMap::new();
    let mut scopes: BTreeMap<EntityKind, Vec<&ScaleSet>> = BTreeMap::new();
    for set in fleet.sets.values() {
        let set_memory = memory.sets.entry(set.id).or_insert_with(|| SetMemory::fresh(now));
        if set_memory.revision.as_ref() != Some(&set.revision) {
            set_memory.revision = Some(set.revision.clone());
        }
        if let Some(own) = rules::own_evidence(&scene, set, Some(set_memory)) {
            found.insert(set.id, own);
        }
        match candidate_kind(set) {
            Some(kind) => scopes.entry(kind).or_default().push(set),
            None if !found.contains_key(&set.id) => {
                found.insert(set.id, not_created(now));
            }
            None => {}
        }
    }
    let all: usize = scopes.values().map(Vec::len).sum();
    let all = u32::try_from(all).unwrap_or(u32::MAX);
    let mut counted = BTreeMap::new();
    for (kind, candidates) in scopes {
        let question = Question {
            candidates,
            decided: &found,
            scope: memory.scopes.get(&kind),
            goroutines: sweep.goroutines.known().map(|counted| (*counted, all)),
        };
        counted.extend(attribute::answer(&scene, &question, &memory.sets));
    }
    found.extend(counted);
    for set in fleet.sets.values() {
        let (Some(found), Some(memory)) = (found.get_mut(&set.id), memory.sets.get_mut(&set.id)) else { continue };
        let waiting = rules::waiting_jobs(&scene, set, memory);
        if let (Diagnosis::Listening, Some(fact)) = (found.diagnosis, waiting) {
            found.diagnosis = Diagnosis::Starved;
            found.evidence.insert(0, Evidence { source: Source::Broker, at: now, fact });
        }
        let lingering = sweep.lingering.known().and_then(|all| all.get(&set.id)).map_or(0, |of_set| of_set.deleted);
        if lingering > 0 && found.diagnosis.is_ill() {
            let fact = Fact::DeletedInstancesLinger { count: lingering };
            found.evidence.push(Evidence { source: Source::Api, at: now, fact });
        }
        if let Some(run) = known_stale(context, set.id, fleet.incarnation)
            && found.diagnosis.is_ill()
        {
            let fact = Fact::StaleSessionKnown { incarnation: run };
            found.evidence.push(Evidence { source: Source::Journal, at: now, fact });
        }
    }
    found
}

/// Whether the set was found to be given up, and nothing of it has changed since.
fn has_given_up(memory: &Memory, set: &ScaleSet) -> bool {
    memory
        .sets
        .get(&set.id)
        .and_then(|known| known.verdict.as_ref())
        .is_some_and(|verdict| verdict.diagnosis != Diagnosis::Listening && verdict.revision == set.revision)
}

fn known_stale(context: &Context<'_>, set: ScaleSetId, current: Option<Incarnation>) -> Option<Incarnation> {
    use crate::model::session::OpenedBy;
    context.ledger.iter().filter(|session| session.set == set && session.ended.is_none()).find_map(|session| {
        match session.opened_by {
            OpenedBy::Manager(run) if current.is_some_and(|current| run < current) => Some(run),
            OpenedBy::Manager(_) | OpenedBy::UnknownIncarnation | OpenedBy::Medic => None,
        }
    })
}

/// Enabled, and not created at GitHub yet.
fn not_created(now: Wall) -> Found {
    Found::new(Diagnosis::Unknown, Confidence::Weak, now, Source::Api, Fact::NothingToSee)
}

/// Holds what was found against what was known, and makes the findings.
fn remember(memory: &mut Memory, found: BTreeMap<ScaleSetId, Found>, fleet: &mut Fleet) {
    let now = fleet.at.wall;
    for (id, found) in found {
        let set = memory.sets.entry(id).or_insert_with(|| SetMemory::fresh(now));
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
        note_verdict(set, &found, fleet.sets.get(&id), now);
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
        fleet.findings.insert(
            id,
            Finding {
                set: id,
                diagnosis: found.diagnosis,
                confidence: found.confidence,
                evidence: found.evidence,
                since: set.since,
                ill_since: shown,
                seen: set.seen,
                worker: found.worker,
            },
        );
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

impl SetMemory {
    fn fresh(now: Wall) -> Self {
        Self {
            diagnosis: Diagnosis::Unknown,
            since: now,
            seen: 0,
            ill_since: None,
            verdict: None,
            revision: None,
            missing_since: None,
            jobs_wait_since: None,
            log_opened: None,
        }
    }
}
