//! Everything that holds one remedy back: *all* guards that hold, never just the first, so that a person who lifts
//! one knows what comes next (design §6).
#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]

use super::breaker::Breaker;
use super::canary::Canaries;
use super::policy::{Mode, Policy};
use super::turn::Turns;
use super::{Input, backoff, breaker, budget, pause};
use crate::model::{
    Confidence, Diagnosis, EndpointState, Fact, Finding, Guard, Held, ManagerState, Remedy, RemedyKind, ScaleSet,
    ScaleSetId, Treatment, Wall,
};

/// Sweeps in a row that must agree before we ask GitHub for a session.
pub const PROBE_CONFIRM: u32 = 3;

/// A manager that keeps crashing must live for so many settle times before anything is done: what is done for a run
/// that dies at once only uses up budgets.
const LOOP_SETTLES: u64 = 6;

/// What is the same for every set of the sweep, and what the sweep has started so far.
#[derive(Debug)]
pub struct Sweeping {
    /// The breaker's state.
    pub breaker: Breaker,
    /// The incident's treatments.
    pub canaries: Canaries,
    /// The manager's heals within the hour.
    pub recent_heals: Vec<Wall>,
    /// The blast radius, if it holds.
    pub blast: Option<Held>,
    /// The sets that wait for their workers.
    pub turns: Turns,
    /// Heals that this sweep allowed.
    pub started: usize,
    /// Everything that it allowed of our own accord.
    pub allowed: Vec<(ScaleSetId, RemedyKind)>,
}

/// One remedy, proposed for one set.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    /// The remedy.
    pub remedy: &'a Remedy,
    /// Its set.
    pub set: &'a ScaleSet,
    /// What it answers.
    pub finding: &'a Finding,
    /// The set's rows of the journal.
    pub rows: &'a [&'a Treatment],
    /// Who proposes it.
    pub by: By,
}

/// Who proposes a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The table of remedies.
    Policy,
    /// A person, who lifts the limits on our own doing.
    Order,
}

/// All guards that hold, the widest first; the dry run last.
#[must_use]
pub fn gather(input: &Input<'_>, sweeping: &Sweeping, proposal: &Proposal<'_>) -> Vec<Held> {
    let (policy, now) = (input.policy, input.now.wall);
    let probe = proposal.remedy.kind() == RemedyKind::SessionProbe;
    let mut held = Vec::new();
    held.extend(lease(input));
    held.extend(pause::held(input.pauses, input.name, proposal.set.id, now));
    held.extend(frozen(input, proposal.set));
    if proposal.by == By::Order {
        // Weak evidence may miss a listener that runs, whoever asks.
        held.extend(weak(proposal.finding));
        held.extend(sweeping.turns.held(proposal.set, proposal.finding, proposal.remedy.kind()));
        return held;
    }
    held.extend(sweeping.blast.clone());
    // A probe only asks: it is no trial of the breaker, but while nothing may be done nothing need be asked.
    let trial_started = !probe && sweeping.started > 0;
    let only_asks = probe && matches!(sweeping.breaker, Breaker::HalfOpen { .. } | Breaker::Trial { .. });
    if !only_asks {
        held.extend(breaker::held(sweeping.breaker, trial_started, policy));
    }
    held.extend(cause_present(proposal.finding));
    held.extend(settle(input, proposal.finding, probe));
    held.extend(confirmation(proposal.finding, probe, policy));
    if probe {
        held.extend(sweeping.canaries.probe_held());
        held.extend(in_flight(sweeping, policy));
        held.extend(budget::probe_held(proposal.rows, now, policy));
    } else {
        held.extend(sweeping.canaries.held(proposal.finding.diagnosis));
        held.extend(in_flight(sweeping, policy));
        held.extend(sweeping.turns.held(proposal.set, proposal.finding, proposal.remedy.kind()));
        let counted = budget::counted(proposal.rows, proposal.finding.ill_since, now, policy);
        held.extend(budget::set_held(&counted, policy));
        held.extend(backoff::held(&counted, now, policy));
        held.extend(budget::global_held(&sweeping.recent_heals, sweeping.started, policy));
    }
    held.extend(quota(input, proposal.set, proposal.remedy.kind()));
    held.extend(dry_run(input.mode));
    held
}

fn guard(guard: Guard, value: impl Into<String>, limit: impl Into<String>, until: Option<Wall>) -> Held {
    Held { guard, value: value.into(), limit: limit.into(), until }
}

fn lease(input: &Input<'_>) -> Option<Held> {
    (!input.lease_held)
        .then(|| guard(Guard::Lease, "another medic holds the lease", "the lease, once the other is gone", None))
}

fn frozen(input: &Input<'_>, set: &ScaleSet) -> Option<Held> {
    let mut reasons = Vec::new();
    match input.manager {
        ManagerState::Up | ManagerState::Restarted => {}
        ManagerState::Down => reasons.push("the manager is down".to_owned()),
        ManagerState::Unreachable => reasons.push("the manager cannot be asked".to_owned()),
    }
    let endpoint = set.endpoint.as_ref().map(|endpoint| &endpoint.name);
    if let Some((name, state)) = endpoint.and_then(|name| Some((name, input.endpoints.get(name)?))) {
        match state {
            EndpointState::Up | EndpointState::Degraded => {}
            EndpointState::Down => reasons.push(format!("{name} does not answer")),
            EndpointState::Limited => reasons.push(format!("the quota at {name} is used up")),
        }
    }
    if input.blind {
        reasons.push("most probes are blind".to_owned());
    }
    (!reasons.is_empty())
        .then(|| guard(Guard::Frozen, reasons.join(", "), "a manager, an endpoint and probes that answer", None))
}

fn cause_present(finding: &Finding) -> Option<Held> {
    let gone = finding.evidence.iter().any(|evidence| evidence.fact == Fact::CauseGone);
    (finding.diagnosis == Diagnosis::StartAbandoned && !gone).then(|| {
        guard(
            Guard::CausePresent,
            "what made the manager give up is not seen to be gone",
            "an endpoint that answers, a credential that works, quota left",
            None,
        )
    })
}

/// Proof waives it for a heal; we never ask for a session while the manager is asking for its own.
fn settle(input: &Input<'_>, finding: &Finding, probe: bool) -> Option<Held> {
    if finding.confidence == Confidence::Proof && !probe && !input.crash_loop {
        return None;
    }
    let settle = if input.crash_loop { input.policy.settle.times(LOOP_SETTLES) } else { input.policy.settle };
    let why = if input.crash_loop { ", because it keeps crashing" } else { "" };
    let limit = format!("{settle} after the manager's start{why}");
    match input.incarnation {
        Some(run) => {
            let age = input.now.wall.since(run.0);
            (age < settle).then(|| guard(Guard::Settle, format!("{age} of {settle}"), limit, Some(run.0.plus(settle))))
        }
        None => match input.manager {
            ManagerState::Restarted => Some(guard(Guard::Settle, "just restarted, its age is not known", limit, None)),
            ManagerState::Up | ManagerState::Down | ManagerState::Unreachable => None,
        },
    }
}

fn confirmation(finding: &Finding, probe: bool, policy: &Policy) -> Option<Held> {
    let needed = match finding.confidence {
        Confidence::Weak | Confidence::Strong | Confidence::Proof if probe => PROBE_CONFIRM,
        Confidence::Weak => return weak(finding),
        Confidence::Strong => policy.confirm_strong.max(1),
        Confidence::Proof => 1,
    };
    let seen = finding.seen;
    (seen < needed)
        .then(|| guard(Guard::Confirmation, format!("{seen} of {needed} sweeps"), format!("{needed} sweeps"), None))
}

fn weak(finding: &Finding) -> Option<Held> {
    (finding.confidence == Confidence::Weak)
        .then(|| guard(Guard::Confirmation, "weak evidence", "strong evidence, or proof", None))
}

fn in_flight(sweeping: &Sweeping, policy: &Policy) -> Option<Held> {
    let limit = usize::try_from(policy.max_in_flight).unwrap_or(usize::MAX);
    let under_way = sweeping.canaries.in_flight();
    (under_way >= limit)
        .then(|| guard(Guard::InFlight, format!("{under_way} of {limit} under way"), format!("{limit} at once"), None))
}

/// Our own requests to GitHub leave the manager its share; a toggle makes none.
fn quota(input: &Input<'_>, set: &ScaleSet, kind: RemedyKind) -> Option<Held> {
    let asks_github = match kind {
        RemedyKind::DeleteSession | RemedyKind::DeleteThenToggle | RemedyKind::SessionProbe => true,
        RemedyKind::Toggle => false,
    };
    let quota = input.quotas.get(&set.endpoint.as_ref()?.name)?;
    (asks_github && quota.remaining <= quota.reserve).then(|| {
        guard(
            Guard::Quota,
            format!("{} calls of the credential's quota left", quota.remaining),
            format!("more than the {} that are kept for the manager", quota.reserve),
            Some(quota.reset),
        )
    })
}

fn dry_run(mode: Mode) -> Option<Held> {
    match mode {
        Mode::Heal => None,
        Mode::Observe => Some(guard(Guard::DryRun, "mode is observe", "mode heal", None)),
    }
}
