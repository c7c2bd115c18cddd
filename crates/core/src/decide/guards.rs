//! Everything that holds one remedy back: *all* guards that hold, never just the first, so that a person who lifts
//! one knows what comes next (`docs/reference/design.md` §6).

use super::breaker::Breaker;
use super::canary::Canaries;
use super::entity_limit::Turns;
use super::rollout::Ramp;
use super::{Footing, Input, backoff, breaker, budget, pause};
use crate::model::{
    BlockedBy, Confidence, Diagnosis, EndpointState, Fact, Finding, Guard, Guards, ManagerState, Remedy, RemedyKind,
    ScaleSet, ScaleSetId, Treatment, Wall, Words, told,
};
use crate::policy::{Mode, Policy};

/// Sweeps in a row that must agree before we ask GitHub for a session.
pub const PROBE_CONFIRM: u32 = 3;

/// A manager that keeps crashing must live for so many settle times before anything is done: what is done for a run
/// that dies at once only uses up budgets.
const LOOP_SETTLES: u64 = 6;

/// What is the same for every set of the sweep, and what the sweep has started so far.
#[derive(Debug)]
pub struct Sweeping {
    pub breaker: Breaker,
    pub canaries: Canaries,
    /// How many may be under way.
    pub ramp: Ramp,
    /// How many sets are enabled.
    pub enabled: usize,
    /// The manager's heals within the hour.
    pub recent_heals: Vec<Wall>,
    /// The blast radius, if it holds.
    pub blast: Option<BlockedBy>,
    /// The sets that wait for their workers.
    pub turns: Turns,
    /// A set that we disabled and cannot enable, if there is one.
    pub left_disabled: Option<BlockedBy>,
    /// Heals that this sweep allowed.
    pub started: usize,
    /// Everything that it allowed of our own accord.
    pub allowed: Vec<(ScaleSetId, RemedyKind)>,
    /// The guards of the last remedy that was held back.
    pub last_held: Option<Guards>,
}

impl Sweeping {
    /// The guards, for a decision: sets beside each other are mostly held back by the same ones, and share them.
    pub fn shared(&mut self, held: &[BlockedBy]) -> Guards {
        if let Some(last) = self.last_held.as_ref().filter(|last| ***last == *held) {
            return last.clone();
        }
        self.last_held.insert(Guards::from(held)).clone()
    }
}

/// One remedy, proposed for one set.
#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    pub remedy: &'a Remedy,
    pub set: &'a ScaleSet,
    pub finding: &'a Finding,
    /// The set's rows of the journal.
    pub rows: &'a [&'a Treatment],
    pub by: By,
}

/// Who proposes a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The table of remedies.
    Policy,
    /// A person, who lifts the limits on our own doing.
    Operator,
}

/// All guards that hold, the widest first; the dry run last. They are added to `held`.
pub fn gather(input: &Input<'_>, sweeping: &Sweeping, proposal: &Proposal<'_>, held: &mut Vec<BlockedBy>) {
    let (policy, now) = (input.policy, input.now.wall);
    let probe = proposal.remedy.kind() == RemedyKind::SessionCheck;
    add(held, footing(input));
    held.extend(pause::held(input.pauses, input.name, proposal.set.id, now));
    add(held, frozen(input, proposal.set));
    add(held, sweeping.left_disabled.clone().filter(|_| budget::kind_disables(proposal.remedy.kind())));
    add(held, undated(input.policy, proposal));
    if proposal.by == By::Operator {
        // Weak evidence may miss a listener that runs, whoever asks.
        add(held, weak(proposal.finding));
        add(held, sweeping.turns.held(proposal.set, proposal.finding, proposal.remedy.kind()));
        return;
    }
    add(held, sweeping.blast.clone());
    // A probe only asks: it is no trial of the breaker, but while nothing may be done nothing need be asked.
    let trial_started = !probe && sweeping.started > 0;
    let only_asks = probe && matches!(sweeping.breaker, Breaker::HalfOpen { .. } | Breaker::Trial { .. });
    if !only_asks {
        add(held, breaker::held(sweeping.breaker, trial_started, policy));
    }
    add(held, cause_not_resolved(proposal.finding));
    add(held, settle(input, proposal.finding, probe));
    add(held, confirmation(proposal.finding, probe, policy));
    if probe {
        add(held, sweeping.canaries.session_check_held());
        add(held, in_flight(sweeping));
        add(held, budget::session_check_held(proposal.rows, now, policy));
    } else {
        add(held, sweeping.canaries.held(proposal.finding.diagnosis));
        add(held, in_flight(sweeping));
        add(held, sweeping.turns.held(proposal.set, proposal.finding, proposal.remedy.kind()));
        let counted = budget::counted(proposal.rows, proposal.finding.ill_since, now, policy);
        add(held, budget::set_held(&counted, policy));
        add(held, backoff::held(&counted, now, policy));
        add(held, budget::manager_budget_block(&sweeping.recent_heals, sweeping.started, policy));
    }
    add(held, quota(input, proposal.set, proposal.remedy.kind()));
    add(held, dry_run(input.mode));
}

/// As `extend` does, which moves what it adds several times: most guards do not hold, and all are asked for each set.
#[inline]
fn add(held: &mut Vec<BlockedBy>, one: Option<BlockedBy>) {
    if let Some(one) = one {
        held.push(one);
    }
}

fn guard(guard: Guard, value: Words, limit: Words, until: Option<Wall>) -> BlockedBy {
    BlockedBy { guard, value, limit, until }
}

fn footing(input: &Input<'_>) -> Option<BlockedBy> {
    match input.footing {
        Footing::Firm => None,
        Footing::LeaseOf { holder, until } => Some(guard(
            Guard::Lease,
            format!("{holder} holds it, until {until} if it does not renew it").into(),
            told!("the lease, once the other is gone"),
            None,
        )),
        Footing::StoreFailed { why } => {
            Some(guard(Guard::Store, why.clone().into(), told!("a store that can be read and written"), None))
        }
    }
}

fn frozen(input: &Input<'_>, set: &ScaleSet) -> Option<BlockedBy> {
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
    (!reasons.is_empty()).then(|| {
        guard(Guard::Frozen, reasons.join(", ").into(), told!("a manager, an endpoint and probes that answer"), None)
    })
}

fn cause_not_resolved(finding: &Finding) -> Option<BlockedBy> {
    let gone = finding.evidence.iter().any(|evidence| evidence.fact == Fact::CauseGone);
    (finding.diagnosis == Diagnosis::StartAbandoned && !gone).then(|| {
        guard(
            Guard::CauseNotResolved,
            told!("what made the manager give up is not seen to be gone"),
            told!("an endpoint that answers, a credential that works, quota left"),
            None,
        )
    })
}

/// Proof waives it for a heal; we never ask for a session while the manager is asking for its own.
/// Without a date of its last change, a set that we disabled and one that a person has disabled since look the same
/// (v0.2.0-alpha, `docs/reference/garm-api.md` §1.1).
fn undated(policy: &Policy, proposal: &Proposal<'_>) -> Option<BlockedBy> {
    let is_undated = proposal.set.revision.as_str().is_empty();
    (is_undated && budget::kind_disables(proposal.remedy.kind()) && !policy.allow_undated).then(|| {
        let value = told!("the manager's list has no `updated_at`");
        guard(Guard::Undated, value, told!("a GARM that dates changes, or policy.allow_undated"), None)
    })
}

fn settle(input: &Input<'_>, finding: &Finding, probe: bool) -> Option<BlockedBy> {
    if finding.confidence == Confidence::Proof && !probe && !input.crash_loop {
        return None;
    }
    let settle = if input.crash_loop { input.policy.settle.times(LOOP_SETTLES) } else { input.policy.settle };
    let limit = || {
        let why = if input.crash_loop { ", because it keeps crashing" } else { "" };
        told!("{} after the manager's start{}", settle, why)
    };
    match input.incarnation {
        Some(run) => {
            let age = input.now.wall.since(run.0);
            (age < settle)
                .then(|| guard(Guard::Settle, told!("{} of {}", age, settle), limit(), Some(run.0.plus(settle))))
        }
        None => match input.manager {
            ManagerState::Restarted => {
                Some(guard(Guard::Settle, told!("just restarted, its age is not known"), limit(), None))
            }
            ManagerState::Up | ManagerState::Down | ManagerState::Unreachable => None,
        },
    }
}

fn confirmation(finding: &Finding, probe: bool, policy: &Policy) -> Option<BlockedBy> {
    let needed = match finding.confidence {
        Confidence::Weak | Confidence::Strong | Confidence::Proof if probe => PROBE_CONFIRM,
        Confidence::Weak => return weak(finding),
        Confidence::Strong => policy.confirm_strong.max(1),
        Confidence::Proof => 1,
    };
    let seen = finding.seen;
    (seen < needed)
        .then(|| guard(Guard::Confirmation, told!("{} of {} sweeps", seen, needed), told!("{} sweeps", needed), None))
}

fn weak(finding: &Finding) -> Option<BlockedBy> {
    (finding.confidence == Confidence::Weak)
        .then(|| guard(Guard::Confirmation, told!("weak evidence"), told!("strong evidence, or proof"), None))
}

fn in_flight(sweeping: &Sweeping) -> Option<BlockedBy> {
    let Ramp { now: limit, most } = sweeping.ramp;
    let under_way = sweeping.canaries.in_flight();
    (under_way >= limit).then(|| {
        let limit_told = if limit < most {
            told!("{} at once, up to {} as sets show life", limit, most)
        } else {
            told!("{} at once", limit)
        };
        guard(Guard::InFlight, told!("{} of {} under way", under_way, limit), limit_told, None)
    })
}

/// Our own requests to GitHub leave the manager its share; a toggle makes none.
fn quota(input: &Input<'_>, set: &ScaleSet, kind: RemedyKind) -> Option<BlockedBy> {
    let asks_github = match kind {
        RemedyKind::DeleteSession | RemedyKind::DeleteThenToggle | RemedyKind::SessionCheck => true,
        RemedyKind::Toggle => false,
    };
    if !asks_github {
        return None;
    }
    let quota = input.quotas.get(&set.endpoint.as_ref()?.name)?;
    (quota.remaining <= quota.reserve).then(|| {
        guard(
            Guard::Quota,
            told!("{} calls of the credential's quota left", quota.remaining),
            told!("more than the {} that are kept for the manager", quota.reserve),
            Some(quota.reset),
        )
    })
}

fn dry_run(mode: Mode) -> Option<BlockedBy> {
    match mode {
        Mode::Heal => None,
        Mode::Observe => Some(guard(Guard::DryRun, told!("mode is observe"), told!("mode heal"), None)),
    }
}
