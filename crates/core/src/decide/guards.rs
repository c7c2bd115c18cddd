//! Everything that blocks one remedy: *all* guards, never just the first, so that an operator who lifts one knows what
//! comes next (`docs/reference/design.md` §6).

use super::bounds::Started;
use super::breaker::Breaker;
use super::canary::Canaries;
use super::entity_limit::EntityLimits;
use super::rollout::Rollout;
use super::{Input, WriteAccess, backoff, breaker, budget, pause};
use crate::model::fleet::CRASH_LOOP;
use crate::model::{
    BlockedBy, Confidence, Diagnosis, EndpointState, Fact, Finding, FrozenReason, GuardFact, ManagerState, Remedy,
    RemedyKind, ScaleSet, Treatment, Wall,
};
use crate::policy::{Mode, Policy};

/// Sweeps in a row that must agree before we ask GitHub for a session.
pub const SESSION_CHECK_CONFIRM: u32 = 3;

/// A manager that keeps crashing must be up for this many grace periods before it is healed: healing an incarnation that
/// crashes at once only uses up budgets.
const CRASH_LOOP_SETTLES: u64 = 6;

/// What is the same for every set of the sweep, and what the sweep has started so far.
#[derive(Debug)]
pub struct SweepState {
    pub breaker: Breaker,
    pub canaries: Canaries,
    pub rollout: Rollout,
    pub enabled: usize,
    /// The manager's heals within the hour.
    pub recent_heals: Vec<Wall>,
    pub blast: Option<BlockedBy>,
    pub entities: EntityLimits,
    pub left_disabled: Option<BlockedBy>,
    /// Heals that this sweep allowed.
    pub started: usize,
    /// Treatments that this sweep allowed, manual heals aside.
    pub allowed: Vec<Started>,
}

#[derive(Debug, Clone, Copy)]
pub struct Proposal<'a> {
    pub remedy: &'a Remedy,
    pub set: &'a ScaleSet,
    pub finding: &'a Finding,
    pub rows: &'a [&'a Treatment],
    pub by: By,
}

/// Who proposes a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The table of remedies.
    Policy,
    /// An operator, who lifts the limits on what we do automatically.
    Operator,
}

/// All guards that block, the widest first; the dry run last.
pub fn gather(input: &Input<'_>, sweep: &SweepState, proposal: &Proposal<'_>) -> Vec<BlockedBy> {
    let (policy, now) = (&input.given.policy, input.given.now.wall);
    let Proposal { set, finding, .. } = *proposal;
    let kind = proposal.remedy.kind();
    let mut blocks = Vec::new();
    blocks.extend(write_access(input));
    blocks.extend(pause::blocks(&input.given.pauses, &input.given.name, set.id, now));
    blocks.extend(frozen(input, set));
    blocks.extend(sweep.left_disabled.clone().filter(|_| kind.disables()));
    blocks.extend(undated(policy, set, kind));
    if proposal.by == By::Operator {
        // Weak evidence may miss a running listener.
        blocks.extend(weak(finding));
        blocks.extend(sweep.entities.block(set, finding, kind));
        return blocks;
    }
    blocks.extend(sweep.blast.clone());
    // A session check is no trial of the breaker, and is not needed while nothing may be healed.
    let trial_started = kind.heals() && sweep.started > 0;
    let is_half_open = matches!(sweep.breaker, Breaker::HalfOpen { .. } | Breaker::Trial { .. });
    if kind.heals() || !is_half_open {
        blocks.extend(breaker::block(sweep.breaker, trial_started, policy));
    }
    blocks.extend(cause_not_resolved(finding));
    blocks.extend(settle(input, finding, kind));
    blocks.extend(confirmation(finding, kind, policy));
    if kind.heals() {
        blocks.extend(sweep.canaries.block(finding.diagnosis));
        blocks.extend(in_flight(sweep));
        blocks.extend(sweep.entities.block(set, finding, kind));
        let counted = budget::counted(proposal.rows, finding.ill_since, now, policy);
        blocks.extend(budget::set_block(&counted, policy));
        blocks.extend(backoff::block(&counted, now, policy));
        blocks.extend(budget::manager_block(&sweep.recent_heals, sweep.started, policy));
    } else {
        blocks.extend(sweep.canaries.session_check_block());
        blocks.extend(in_flight(sweep));
        blocks.extend(budget::session_check_block(proposal.rows, now, policy));
    }
    blocks.extend(quota(input, set, kind));
    blocks.extend((input.given.mode == Mode::Observe).then(|| GuardFact::DryRun.into()));
    blocks
}

fn write_access(input: &Input<'_>) -> Option<BlockedBy> {
    match &input.given.write_access {
        WriteAccess::Granted => None,
        WriteAccess::HeldByOther { holder, until } => {
            Some(GuardFact::Lease { holder: holder.clone(), ends: *until }.into())
        }
        WriteAccess::StoreFailed { why } => Some(GuardFact::Store { why: why.clone() }.into()),
    }
}

fn frozen(input: &Input<'_>, set: &ScaleSet) -> Option<BlockedBy> {
    let mut reasons = Vec::new();
    match input.fleet.manager {
        ManagerState::Up | ManagerState::Restarted => {}
        ManagerState::Down => reasons.push(FrozenReason::ManagerDown),
        ManagerState::Unreachable => reasons.push(FrozenReason::ManagerUnreachable),
    }
    let endpoint = set.endpoint.as_ref().map(|endpoint| &endpoint.name);
    if let Some((endpoint, state)) = endpoint.and_then(|name| Some((name.clone(), input.fleet.endpoints.get(name)?))) {
        match state {
            EndpointState::Up | EndpointState::Degraded => {}
            EndpointState::Down => reasons.push(FrozenReason::EndpointDown { endpoint }),
            EndpointState::Limited => reasons.push(FrozenReason::EndpointLimited { endpoint }),
        }
    }
    if input.fleet.blind {
        reasons.push(FrozenReason::SourcesBlind);
    }
    (!reasons.is_empty()).then(|| GuardFact::Frozen { reasons }.into())
}

fn cause_not_resolved(finding: &Finding) -> Option<BlockedBy> {
    let resolved = finding.evidence.iter().any(|evidence| evidence.fact == Fact::CauseGone);
    (finding.diagnosis == Diagnosis::StartAbandoned && !resolved).then(|| GuardFact::CauseNotResolved.into())
}

/// Without a date of its last change, a set that we disabled and one that an operator has disabled since look the same
/// (v0.2.0-alpha, `docs/reference/garm-api.md` §1.1).
fn undated(policy: &Policy, set: &ScaleSet, kind: RemedyKind) -> Option<BlockedBy> {
    let is_undated = set.revision.as_str().is_empty();
    (is_undated && kind.disables() && !policy.allow_undated).then(|| GuardFact::Undated.into())
}

/// Proof waives it for a heal. A session check never competes with a manager that is opening its own sessions.
fn settle(input: &Input<'_>, finding: &Finding, kind: RemedyKind) -> Option<BlockedBy> {
    let crash_loop = input.fleet.restarts >= CRASH_LOOP;
    if finding.confidence == Confidence::Proof && kind.heals() && !crash_loop {
        return None;
    }
    let needed =
        if crash_loop { input.given.policy.settle.times(CRASH_LOOP_SETTLES) } else { input.given.policy.settle };
    match input.fleet.incarnation {
        Some(run) => {
            let age = input.given.now.wall.since(run.0);
            let fact = GuardFact::Settle { age: Some(age), needed, crash_loop };
            (age < needed).then(|| fact.until(Some(run.0.plus(needed))))
        }
        None => (input.fleet.manager == ManagerState::Restarted)
            .then(|| GuardFact::Settle { age: None, needed, crash_loop }.into()),
    }
}

fn confirmation(finding: &Finding, kind: RemedyKind, policy: &Policy) -> Option<BlockedBy> {
    let needed = match finding.confidence {
        Confidence::Weak | Confidence::Strong | Confidence::Proof if !kind.heals() => SESSION_CHECK_CONFIRM,
        Confidence::Weak => return weak(finding),
        Confidence::Strong => policy.confirm_strong.max(1),
        Confidence::Proof => 1,
    };
    let sweeps = finding.seen;
    (sweeps < needed).then(|| GuardFact::Unconfirmed { sweeps, needed }.into())
}

fn weak(finding: &Finding) -> Option<BlockedBy> {
    (finding.confidence == Confidence::Weak).then(|| GuardFact::WeakEvidence.into())
}

fn in_flight(sweep: &SweepState) -> Option<BlockedBy> {
    let Rollout { now: limit, most } = sweep.rollout;
    let open = sweep.canaries.in_flight();
    (open >= limit).then(|| GuardFact::InFlight { open, limit, most }.into())
}

/// Our own requests to GitHub leave the manager its share; a toggle makes none.
fn quota(input: &Input<'_>, set: &ScaleSet, kind: RemedyKind) -> Option<BlockedBy> {
    if kind == RemedyKind::Toggle {
        return None;
    }
    let quota = input.given.quotas.get(&set.endpoint.as_ref()?.name)?;
    let fact = GuardFact::Quota { remaining: quota.remaining, reserve: quota.reserve };
    (quota.remaining <= quota.reserve).then(|| fact.until(Some(quota.reset)))
}
