//! Deciding: finding + history + policy → act, watch, withhold or escalate. Pure; one rule, one file.
//!
//! | file | rule |
//! |---|---|
//! | [`remedy`] | diagnosis → remedy, wait or escalation; *a no-op update is not a remedy* |
//! | [`stale`] | the proof that allows a session's deletion |
//! | [`guards`] | everything that holds a remedy back, all of it |
//! | [`budget`], [`backoff`] | how often, and how soon again |
//! | [`canary`] | an incident's first treatment goes alone |
//! | [`ramp`] | how many at once: more, as treatments prove to help |
//! | [`turn`] | an entity's workers are started in line |
//! | [`breaker`] | acts that do not help stop the acting |
//! | [`blast`] | many sets at once: one cause, or a fault at GitHub |
//! | [`pause`] | a person says "not now" |
//! | [`order`] | a person says "now" |
//! | [`bounds`](mod@bounds) | the most that a policy allows |
//!
//! [`decide`] applies them to every set, in the order of the sets' ids, so that the same input gives the same answer.
//! What one set is allowed counts for the next ones of the same sweep: no sweep starts more than the limits let it.

pub mod backoff;
pub mod blast;
pub mod bounds;
pub mod breaker;
pub mod budget;
pub mod canary;
pub mod entity_limit;
pub mod guards;
pub mod manual;
pub mod pause;
pub mod remedy;
pub mod rollout;
pub mod stale;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use crate::model::along::Along;
use crate::model::session::{LedgerSession, OpenedBy};
use crate::model::{
    BlockedBy, ConflictBehaviour, Decision, Diagnosis, EndpointName, EndpointState, Finding, Findings, Guard,
    Incarnation, ManagerName, ManagerState, ManualHeal, Now, OwnQuota, Owner, Pause, Remedy, ScaleSet, ScaleSetId,
    SetDecision, Treatment, Waiting, Wall,
};
use crate::policy::{Mode, Policy};
pub use bounds::{Bounds, bounds};
use canary::{Admission, Canaries};
use entity_limit::Turns;
use guards::{By, Proposal, Sweeping};
use remedy::{Case, Prescription};
use rollout::Ramp;
use serde::{Deserialize, Serialize};
use stale::{CurrentManager, Proof};
use std::collections::{BTreeMap, BTreeSet};

/// Everything a decision about one manager's sets depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    pub now: Now,
    /// The manager, by the name that pauses give it.
    pub name: &'a ManagerName,
    /// Whether writes are allowed.
    pub mode: Mode,
    pub policy: &'a Policy,
    pub findings: &'a Findings,
    /// The manager's sets as this sweep saw them.
    pub sets: &'a BTreeMap<ScaleSetId, ScaleSet>,
    /// The manager as a whole.
    pub manager: ManagerState,
    /// Its current run, where known.
    pub incarnation: Option<Incarnation>,
    /// Whether it keeps crashing: no proof waives the settle time then.
    pub crash_loop: bool,
    /// What its build does after a refused start.
    pub conflict_behaviour: ConflictBehaviour,
    /// The forge endpoints; one that is not listed was not asked.
    pub endpoints: &'a BTreeMap<EndpointName, EndpointState>,
    /// Whether most probes are blind.
    pub blind: bool,
    /// Whether several entities show a fault at GitHub.
    pub fault_at_github: bool,
    /// This manager's treatments opened within 24 h, and every open one.
    pub history: &'a [Treatment],
    /// This manager's sessions in the ledger.
    pub ledger: &'a [LedgerSession],
    /// The owner name of this manager's sessions (`garm-<controller id>`), where known.
    pub owner: Option<&'a Owner>,
    /// All pauses of the store.
    pub pauses: &'a [Pause],
    /// Orders of people that are not settled.
    pub orders: &'a [ManualHeal],
    /// When a person last reset the breaker.
    pub breaker_reset: Option<Wall>,
    /// The sets for which a client of ours can open and delete sessions.
    pub can_check_sessions: &'a BTreeSet<ScaleSetId>,
    /// Our own credentials' quotas, where known.
    pub quotas: &'a BTreeMap<EndpointName, OwnQuota>,
    /// What our own store says about acting.
    pub footing: &'a Footing,
}

/// What our own store says about acting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Footing {
    /// The journal can be read, and the lease is ours.
    Firm,
    /// Another medic has the lease.
    LeaseOf {
        /// By the name it gave.
        holder: String,
        /// Until then at the latest, unless it is renewed.
        until: Wall,
    },
    /// The store cannot be read or written: how often was acted is not known, and nothing new could be kept.
    StoreFailed { why: String },
}

/// One decision per finding, in the order of the sets' ids.
#[must_use]
pub fn decide(input: &Input<'_>) -> Vec<SetDecision> {
    let records = Records::of(input);
    let mut sets = Along::of(input.sets);
    let mut reached = Along::of(input.can_check_sessions.iter().map(|set| (*set, ())));
    let mut reaches = |set: &ScaleSetId| reached.at(set).is_some();
    let prescribed: Vec<(&Finding, Outlook)> = input
        .findings
        .values()
        .map(|finding| (finding, outlook(input, &records, finding, sets.at(&finding.set), &mut reaches)))
        .collect();
    let mut sweeping = sweeping(input, &prescribed);
    let mut held = Vec::new();
    prescribed
        .into_iter()
        .map(|(finding, outlook)| SetDecision {
            set: finding.set,
            decision: match outlook {
                Outlook::Settled(decision) => decision,
                Outlook::Wants(remedy, set) => {
                    let rows = records.rows(set.id);
                    let by = if manual::of(input, set.id).is_some() { By::Operator } else { By::Policy };
                    held.clear();
                    weigh(input, &mut sweeping, &Proposal { remedy: &remedy, set, finding, rows, by }, &mut held)
                }
            },
        })
        .collect()
}

/// What is known of a set before the guards are asked.
enum Outlook<'a> {
    Settled(Decision),
    Wants(Remedy, &'a ScaleSet),
}

/// `reaches` tells whether a client of ours can probe a set's sessions; it is asked in the order of the sets' ids.
fn outlook<'a>(
    input: &Input<'a>,
    records: &Records<'a>,
    finding: &Finding,
    set: Option<&'a ScaleSet>,
    reaches: &mut impl FnMut(&ScaleSetId) -> bool,
) -> Outlook<'a> {
    if let Some(open) = records.rows(finding.set).iter().rev().find(|row| !row.step.is_closed()) {
        return Outlook::Settled(Decision::Treating { treatment: open.id });
    }
    let Some(set) = set else {
        return Outlook::Settled(Decision::Watch { waiting: Waiting::Evidence, until: None });
    };
    let unseen = matches!(input.manager, ManagerState::Down | ManagerState::Unreachable);
    if unseen && finding.diagnosis == Diagnosis::Unknown {
        // It is the manager that needs somebody, and its state says so.
        return Outlook::Settled(Decision::Watch { waiting: Waiting::Evidence, until: None });
    }
    // Nothing is ever done to a set that is well: for it the proof is not sought.
    let well = matches!(finding.diagnosis, Diagnosis::Listening | Diagnosis::Disabled);
    let covered = !well && reaches(&set.id) && set.has_place();
    let proof = if covered { records.proof(input, set) } else { None };
    let prescription = remedy::prescribe(&Case {
        finding,
        set,
        conflict_behaviour: input.conflict_behaviour,
        incarnation: input.incarnation,
        stale: proof.as_ref(),
        session_lives: records.session_lives(input, set.id),
        may_check_session: covered && input.policy.session_check,
        fault_at_github: input.fault_at_github,
        now: input.now.wall,
        policy: input.policy,
    });
    if let Some(order) = manual::of(input, set.id) {
        return match manual::remedy(input, finding, set, order, &prescription) {
            Ok(remedy) => Outlook::Wants(remedy, set),
            Err(_) => Outlook::Settled(Decision::Leave),
        };
    }
    match prescription {
        Prescription::Leave => Outlook::Settled(Decision::Leave),
        Prescription::Watch(waiting, until) => Outlook::Settled(Decision::Watch { waiting, until }),
        Prescription::Escalate(escalation) => Outlook::Settled(Decision::Escalate { escalation }),
        Prescription::Apply(remedy) => Outlook::Wants(remedy, set),
    }
}

fn sweeping(input: &Input<'_>, prescribed: &[(&Finding, Outlook<'_>)]) -> Sweeping {
    let (history, now) = (input.history, input.now.wall);
    // The incident is about sets that we heal: one that is missing for days is no part of it.
    let ill = prescribed.iter().filter_map(|(finding, outlook)| match outlook {
        Outlook::Settled(Decision::Treating { .. }) => finding.ill_since,
        Outlook::Wants(remedy, _) if budget::kind_is_heal(remedy.kind()) => finding.ill_since,
        Outlook::Settled(_) | Outlook::Wants(..) => None,
    });
    let began = canary::began(input.incarnation, ill);
    let enabled = input.findings.values().filter(|finding| finding.diagnosis != Diagnosis::Disabled).count();
    Sweeping {
        breaker: breaker::state(history, input.breaker_reset, now, input.policy),
        canaries: Canaries::of(history, began),
        ramp: Ramp::of(history, began, enabled, input.policy),
        enabled,
        recent_heals: budget::recent_heals(history, now),
        blast: blast::held(&blast::Scene {
            findings: input.findings,
            sets: input.sets,
            owner: input.owner,
            incarnation: input.incarnation,
            history,
            fault_at_github: input.fault_at_github,
            now,
            policy: input.policy,
        }),
        turns: Turns::of(input),
        left_disabled: bounds::left_disabled(input.policy, input.history, now),
        started: 0,
        allowed: Vec::new(),
        last_held: None,
    }
}

/// Act or withhold; a dry run counts as an act for what follows, so that it shows what healing would do.
/// `guards` is empty, and lent so that it need not be made for each set.
fn weigh(input: &Input<'_>, sweeping: &mut Sweeping, proposal: &Proposal<'_>, guards: &mut Vec<BlockedBy>) -> Decision {
    guards::gather(input, sweeping, proposal, guards);
    let remedy = proposal.remedy.clone();
    let next = (proposal.set.id, remedy.kind());
    if guards.iter().all(|held| held.guard == Guard::DryRun) && proposal.by == By::Policy {
        guards.extend(bounds::held(
            input.policy,
            sweeping.enabled,
            input.history,
            &sweeping.allowed,
            next,
            input.now.wall,
        ));
        sweeping.allowed.push(next);
    }
    if guards.iter().any(|held| held.guard != Guard::DryRun) {
        return Decision::Blocked { remedy, guards: sweeping.shared(guards) };
    }
    let cause = proposal.finding.diagnosis;
    let canary = if budget::kind_is_heal(remedy.kind()) {
        let first = sweeping.canaries.admit(cause) == Admission::First;
        sweeping.canaries.start_heal(proposal.set.id, cause);
        sweeping.turns.start(proposal.set, remedy.kind());
        sweeping.started = sweeping.started.saturating_add(1);
        proposal.by == By::Policy && (first || sweeping.breaker.is_open())
    } else {
        sweeping.canaries.start_session_check(proposal.set.id);
        false
    };
    if guards.is_empty() {
        Decision::Treat { remedy, canary }
    } else {
        Decision::Blocked { remedy, guards: sweeping.shared(guards) }
    }
}

/// The journal and the ledger, by set.
struct Records<'a> {
    rows: BTreeMap<ScaleSetId, Vec<&'a Treatment>>,
    sessions: BTreeMap<ScaleSetId, Vec<&'a LedgerSession>>,
}

impl<'a> Records<'a> {
    fn of(input: &Input<'a>) -> Self {
        let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in input.history {
            rows.entry(row.set).or_default().push(row);
        }
        for of_set in rows.values_mut() {
            of_set.sort_by_key(|row| (row.opened, row.id));
        }
        let mut sessions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for session in input.ledger {
            sessions.entry(session.set).or_default().push(session);
        }
        Self { rows, sessions }
    }

    fn rows(&self, set: ScaleSetId) -> &[&'a Treatment] {
        self.rows.get(&set).map_or(&[], Vec::as_slice)
    }

    fn sessions(&self, set: ScaleSetId) -> &[&'a LedgerSession] {
        self.sessions.get(&set).map_or(&[], Vec::as_slice)
    }

    fn proof(&self, input: &Input<'_>, set: &ScaleSet) -> Option<Proof> {
        let sessions = self.sessions(set.id);
        if sessions.is_empty() {
            return None;
        }
        let manager = CurrentManager { state: input.manager, incarnation: input.incarnation, owner: input.owner };
        stale::newest_is_stale(sessions.iter().copied(), set, manager).ok()
    }

    fn session_lives(&self, input: &Input<'_>, set: ScaleSetId) -> bool {
        let newest = self.sessions(set).iter().max_by_key(|session| (session.first_seen, &session.id));
        newest.zip(input.incarnation).is_some_and(|(session, current)| {
            session.ended.is_none() && session.opened_by == OpenedBy::Manager(current)
        })
    }
}
