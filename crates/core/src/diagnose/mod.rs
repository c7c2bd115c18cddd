//! Diagnosis: from one sweep of all sources to one finding per set and one state per manager and endpoint
//! (`docs/reference/design.md` §4). Pure.
//!
//! | file | content |
//! |---|---|
//! | [`manager`] | the manager's incarnation and its restarts, the endpoints, blindness |
//! | [`conflict_behaviour`] | what the build does after a refused start |
//! | [`rules`] | what one set's own evidence proves |
//! | [`log`], [`session_check`] | two kinds of that evidence |
//! | [`attribute`] | counters without names → sets, where the numbers leave no choice |
//! | [`record`] | comparison with the sweeps before |
//! | [`state`] | what is kept from sweep to sweep |
//!
//! The rules and their order are declared once: [`Rule`]. The first that answers decides, and the finding carries it.
//! Ambiguity is a state: where the evidence fits two diagnoses, the finding is `unknown`, never the likelier one.

mod attribute;
mod conflict_behaviour;
mod context;
mod evidence;
mod log;
mod manager;
mod record;
mod rules;
mod session_check;
mod sets;
mod state;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use crate::model::fleet::{CRASH_LOOP, Fleet, LOOP_WINDOW, Recovery};
use crate::model::session::OpenedBy;
use crate::model::{
    Confidence, Diagnosis, EndpointState, EntityKind, Evidence, Fact, FailureKind, Findings, Incarnation, Owner, Rule,
    ScaleSet, ScaleSetId, Seen, Source, Sweep, Wall,
};
use crate::policy::Policy;
use attribute::Counted;
pub use context::{CheckAnswer, Context};
use evidence::{Found, Lists, SweepEvidence};
use state::SetState;
pub use state::State;
use std::collections::BTreeMap;

pub fn diagnose(state: &mut State, sweep: &Sweep, context: &Context<'_>, policy: &Policy) -> Fleet {
    let incarnation = manager::incarnation(sweep, state);
    manager::note_incarnation(state, incarnation, sweep);
    manager::read_counters(state, sweep);
    if let Some(controller) = sweep.controller.known() {
        state.owner = Some(Owner::of_garm(&controller.id));
    }
    let sets = sets::known(state, sweep);
    let mut fleet = Fleet {
        at: sweep.at,
        manager: manager::state(sweep, state, policy),
        restart: manager::restart(state, sweep, context),
        restarts: manager::restarts(state, sweep.at.wall),
        incarnation: state.incarnation,
        endpoints: manager::endpoints(sweep, &sets, state),
        findings: Findings::new(),
        blind: manager::blind(sweep),
        fault_at_github: false,
        conflict_behaviour: state.conflict_behaviour,
        owner: state.owner.clone(),
        recoveries: Vec::new(),
        sets,
    };
    let found = match sweep.scale_sets {
        Seen::Known(_) => {
            conflict_behaviour::learn(state, sweep, &fleet);
            fleet.conflict_behaviour = state.conflict_behaviour;
            judge(state, sweep, context, policy, &fleet)
        }
        Seen::NotAsked | Seen::Failed(_) => unseen(sweep, &fleet),
    };
    record::record(state, found, policy, &mut fleet);
    fleet.fault_at_github =
        manager::entities_fail(sweep) || manager::entities_conflict(&fleet.findings, &fleet.sets, state, policy);
    fleet
}

fn unseen(sweep: &Sweep, fleet: &Fleet) -> Vec<(ScaleSetId, Found)> {
    let fact = match sweep.scale_sets.failure() {
        Some(failure) => Fact::ManagerUnseen { kind: failure.kind },
        None => Fact::NothingToSee,
    };
    let unknown = (Diagnosis::Unknown, Confidence::Weak);
    let found = Found::new(Rule::SetList, unknown, Source::Api, sweep.at.wall, fact);
    fleet.sets.keys().map(|id| (*id, found.clone())).collect()
}

/// What is found of each set.
fn judge(
    state: &mut State,
    sweep: &Sweep,
    context: &Context<'_>,
    policy: &Policy,
    fleet: &Fleet,
) -> Vec<(ScaleSetId, Found)> {
    let now = sweep.at.wall;
    let given_up =
        fleet.sets.values().filter(|set| state.sets.get(&set.id).is_some_and(|known| has_given_up(known, set)));
    let given_up = given_up.count();
    let troubled = fleet.endpoints.values().any(|state| *state != EndpointState::Up);
    let cause_gone = !troubled && !state.pulse_fails(now);
    let began = state.began();
    let State { scopes, sets: states, goroutines, listener_series, .. } = state;
    let seen = SweepEvidence {
        sweep,
        context,
        policy,
        log: sweep.log.known().filter(|log| log::is_of_incarnation(log, fleet.incarnation)),
        fleet,
        began,
        cause_gone,
        listener_series: *listener_series,
        scopes,
        lists: Lists::of(sweep),
        stale: known_stale(context, fleet.incarnation),
        given_up: u32::try_from(given_up).unwrap_or(u32::MAX),
        now,
    };
    let mut found = BTreeMap::new();
    let mut candidates: BTreeMap<EntityKind, Vec<&ScaleSet>> = BTreeMap::new();
    for set in fleet.sets.values() {
        let Some(known) = states.get_mut(&set.id) else { continue };
        note_revision(known, set, now);
        if let Some(kind) = conflict_behaviour::candidate_kind(set) {
            candidates.entry(kind).or_default().push(set);
        }
        if let Some(own) = rules::own_evidence(&seen, set, known) {
            found.insert(set.id, own);
        }
    }
    let all: usize = candidates.values().map(Vec::len).sum();
    let all = u32::try_from(all).unwrap_or(u32::MAX);
    let goroutines = goroutines.filter(|_| sweep.goroutines.known().is_some());
    for (kind, candidates) in candidates {
        let goroutines = goroutines.map(|(counted, since)| Counted { now: counted, since, all });
        let answers = attribute::answer(&seen, &candidates, &found, seen.scopes.get(&kind), goroutines, states);
        found.extend(answers);
    }
    for (id, found) in &mut found {
        let (Some(set), Some(known)) = (fleet.sets.get(id), states.get_mut(id)) else { continue };
        add_what_else_is_seen(&seen, set, known, found);
    }
    found.into_iter().collect()
}

/// What bears on the set beside the diagnosis; jobs that stand still correct it.
fn add_what_else_is_seen(seen: &SweepEvidence<'_>, set: &ScaleSet, known: &mut SetState, found: &mut Found) {
    let now = seen.now;
    let waiting = rules::waiting_jobs(seen, set, known);
    if let (Diagnosis::Listening, Some(fact)) = (found.diagnosis, waiting) {
        found.correct(Rule::WaitingJobs, Diagnosis::Starved);
        found.evidence.insert(0, Evidence { source: Source::ActionsService, at: now, fact });
    }
    if !found.diagnosis.is_ill() && found.diagnosis != Diagnosis::Unknown {
        return;
    }
    let mut add = |source, fact| found.evidence.push(Evidence { source, at: now, fact });
    let lingering = seen.sweep.lingering.known().and_then(|all| all.get(&set.id)).map_or(0, |of_set| of_set.deleted);
    if lingering > 0 {
        add(Source::Api, Fact::DeletedInstancesLinger { count: lingering });
    }
    if let Some(incarnation) = seen.stale.get(&set.id) {
        add(Source::Journal, Fact::StaleSessionKnown { incarnation: *incarnation });
    }
    if let Some(failure) = seen.lists.failure(set) {
        let refused = matches!(failure.kind, FailureKind::Unauthorized | FailureKind::Forbidden);
        add(
            Source::ActionsService,
            if refused { Fact::CredentialsRefused } else { Fact::GithubUnseen { kind: failure.kind } },
        );
    }
}

fn note_revision(known: &mut SetState, set: &ScaleSet, now: Wall) {
    if known.revision.as_ref() != Some(&set.revision)
        && let Some(_before) = known.revision.replace(set.revision.clone())
    {
        known.revised = Some(now);
    }
}

/// Whether the set was found to be given up, and nothing of it has changed since.
fn has_given_up(known: &SetState, set: &ScaleSet) -> bool {
    let verdict = known.verdict.as_ref();
    verdict.is_some_and(|verdict| verdict.diagnosis != Diagnosis::Listening && verdict.revision == set.revision)
}

/// The sets with a session of an earlier incarnation in the ledger, and the first such incarnation that it names.
fn known_stale(context: &Context<'_>, current: Option<Incarnation>) -> BTreeMap<ScaleSetId, Incarnation> {
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
