//! Decisions about whole fleets, guard by guard.

use super::testing::{
    check, closed, conditions, evidence, finding, fleet, ledger_session, mins, open, scale_set, scale_set_of,
    worker_restarted,
};
use super::*;
use crate::model::fleet::CRASH_LOOP;
use crate::model::session::{NotStale, SessionEnd};
use crate::model::{
    Bounded, Confidence, ConflictBehaviour, Enablement, EndpointState, Escalation, Fact, FrozenReason, GuardFact,
    Incarnation, ManualAction, ManualHealAnswer, ManualHealId, ManualWait, Note, Outcome, Owner, PauseId, PauseScope,
    Refusal, Revision, SessionId, Span, Step, TreatmentId, Worker, WorkerState,
};
use std::sync::Arc;

mod blast_radius;
mod limits;
mod manual_heals;
mod remedies;

const RUN: Incarnation = Incarnation(mins(60));
/// No treatment.
const NONE: [bool; 0] = [];

struct World {
    fleet: Fleet,
    given: Conditions,
}

impl World {
    /// `count` sets that gave up after the restart at [`RUN`], one minute ago.
    fn stuck(count: u64) -> Self {
        let stuck = |id| (ScaleSetId(id), finding(id, Diagnosis::ConflictAbandoned, Confidence::Proof));
        let fleet = Fleet {
            incarnation: Some(RUN),
            endpoints: BTreeMap::from([(EndpointName::new("github.com"), EndpointState::Up)]),
            findings: (1..=count).map(stuck).collect(),
            sets: Arc::new((1..=count).map(|id| (ScaleSetId(id), scale_set(id))).collect()),
            conflict_behaviour: ConflictBehaviour::GivesUp,
            owner: Some(Owner::of_garm("c1")),
            ..fleet(mins(61))
        };
        let given = conditions(mins(61), Policy { backoff_jitter: 0.0, ..Policy::default() });
        Self { fleet, given }
    }

    fn one(diagnosis: Diagnosis, confidence: Confidence) -> Self {
        let mut world = Self::stuck(1);
        world.fleet.findings.insert(ScaleSetId(1), finding(1, diagnosis, confidence));
        world
    }

    /// Each set in a repository of its own, so that the entity limit blocks none.
    fn spread(mut self) -> Self {
        for (id, set) in Arc::make_mut(&mut self.fleet.sets) {
            *set = scale_set_of(id.0, &format!("acme-{id}"));
        }
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn finding(&mut self) -> &mut Finding {
        self.fleet.findings.get_mut(&ScaleSetId(1)).unwrap()
    }

    fn set(&mut self, id: u64) -> &mut ScaleSet {
        Arc::make_mut(&mut self.fleet.sets).get_mut(&ScaleSetId(id)).unwrap()
    }

    fn add(&mut self, set: ScaleSet, finding: Finding) {
        self.fleet.findings.insert(set.id, finding);
        Arc::make_mut(&mut self.fleet.sets).insert(set.id, set);
    }

    fn remember(&mut self, sessions: impl IntoIterator<Item = LedgerSession>) {
        Arc::make_mut(&mut self.given.ledger).extend(sessions);
    }

    /// The ledger knows the stale session of set 1, and we may delete it.
    fn may_delete(&mut self) {
        self.given.can_check_sessions.insert(ScaleSetId(1));
        self.remember([ledger_session(1, "s-1", Incarnation(mins(10)), mins(11))]);
    }

    fn is_at(&mut self, now: Wall) {
        self.given.now.wall = now;
    }

    fn input(&self) -> Input<'_> {
        Input { fleet: &self.fleet, given: &self.given }
    }

    fn decide(&self) -> Vec<Decision> {
        let decisions = decide(&self.input());
        let sets: Vec<_> = decisions.iter().map(|d| d.set).collect();
        assert_eq!(sets, self.fleet.findings.keys().copied().collect::<Vec<_>>(), "one decision per set, sorted");
        decisions.into_iter().map(|d| d.decision).collect()
    }

    /// The answer to the only manual heal.
    fn answer(&self) -> ManualHealAnswer {
        manual::answer(&self.input(), &self.given.manual_heals[0], &self.first())
    }

    fn first(&self) -> Decision {
        self.decide().remove(0)
    }

    /// What blocks the first set.
    fn blocks(&self) -> Vec<BlockedBy> {
        blocks_of(&self.first())
    }

    /// What blocks the last set.
    fn last_blocks(&self) -> Vec<BlockedBy> {
        blocks_of(&self.decide().pop().unwrap())
    }

    fn guards(&self) -> Vec<Guard> {
        self.blocks().iter().map(BlockedBy::guard).collect()
    }

    /// The only guard that blocks the first set.
    fn only(&self) -> BlockedBy {
        let mut blocks = self.blocks();
        assert_eq!(blocks.len(), 1, "{blocks:?}");
        blocks.remove(0)
    }

    fn treats(&self) -> Vec<bool> {
        self.decide()
            .iter()
            .filter_map(|d| if let Decision::Treat { canary, .. } = d { Some(*canary) } else { None })
            .collect()
    }
}

fn blocks_of(decision: &Decision) -> Vec<BlockedBy> {
    assert!(matches!(decision, Decision::Blocked { .. }), "not blocked: {decision:?}");
    decision.guards().to_vec()
}

#[test]
fn one_canary_then_max_in_flight_at_once() {
    let mut world = World::stuck(50).spread();
    assert_eq!(world.treats(), [true], "one, alone");
    assert_eq!(world.last_blocks(), [GuardFact::Canary { set: ScaleSetId(1) }.into()]);

    world.given.history.push(open(1, 1, mins(61), Step::Verifying));
    assert_eq!(world.treats(), NONE, "the canary has shown nothing yet");
    assert_eq!(world.first(), Decision::Treating { treatment: TreatmentId(1) });

    world.given.history[0] = worker_restarted(1, 1, mins(61));
    assert_eq!(world.treats(), [false; 10], "a treatment whose worker restarted is no longer in flight");
    world.given.history.extend((2..=8).map(|id| open(id, id, mins(61), Step::Verifying)));
    assert_eq!(world.treats().len(), 3, "seven are in flight");
    assert_eq!(world.last_blocks(), [GuardFact::InFlight { open: 10, limit: 10, most: 10 }.into()]);
}

#[test]
fn failed_canary_is_replaced_until_the_breaker_opens() {
    let mut world = World::stuck(50);
    world.given.history.push(closed(1, 1, mins(61), mins(62), Outcome::Unverified));
    world.is_at(mins(62));
    assert_eq!(world.treats(), [true]);
    assert!(matches!(world.first(), Decision::Blocked { .. }), "set 1 is in back-off");
    world.given.history.push(closed(2, 2, mins(62), mins(63), Outcome::Unverified));
    world.is_at(mins(63));
    assert_eq!(world.treats(), NONE);
    world.is_at(mins(93));
    assert_eq!(world.treats(), [true], "one trial after half an hour");
    world.is_at(mins(64));
    world.given.breaker_reset = Some(mins(64));
    assert_eq!(world.treats(), [true], "an operator reset it");
}

#[test]
fn dry_run_blocks_last_and_counts_for_the_next_sets() {
    let world = World::stuck(50).spread().with(|w| w.given.mode = Mode::Observe);
    assert_eq!(world.only(), GuardFact::DryRun.into());
    assert_eq!(world.treats(), NONE);
    assert_eq!(world.last_blocks(), [GuardFact::Canary { set: ScaleSetId(1) }.into(), GuardFact::DryRun.into()]);
    let settling = World::one(Diagnosis::Unheld, Confidence::Strong).with(|w| {
        w.given.mode = Mode::Observe;
        w.is_at(mins(60));
    });
    assert_eq!(settling.guards(), [Guard::Settle, Guard::DryRun]);
}

#[test]
fn settle_blocks_findings_without_proof() {
    let aged = |seconds: u64| {
        World::one(Diagnosis::ConflictAbandoned, Confidence::Strong).with(|w| w.is_at(RUN.0.plus(Span::secs(seconds))))
    };
    let settle = |age| GuardFact::Settle { age, needed: Span::secs(20), crash_loop: false };
    let until = Some(RUN.0.plus(Span::secs(20)));
    assert_eq!(aged(12).only(), settle(Some(Span::secs(12))).until(until));
    assert_eq!(aged(12).with(|w| w.finding().confidence = Confidence::Proof).treats(), [true]);
    assert_eq!(aged(20).treats(), [true], "at the very end of the grace period");
    let undated = aged(20).with(|w| (w.fleet.incarnation, w.fleet.manager) = (None, ManagerState::Restarted));
    assert_eq!(undated.only(), settle(None).into());
}

#[test]
fn confirmation_counts_sweeps_and_weak_evidence_blocks() {
    let world = World::one(Diagnosis::Unheld, Confidence::Strong).with(|w| w.finding().seen = 1);
    assert_eq!(world.only(), GuardFact::Unconfirmed { sweeps: 1, needed: 2 }.into());
    assert!(matches!(world.with(|w| w.finding().seen = 2).first(), Decision::Treat { .. }));
    let weak = World::one(Diagnosis::Unheld, Confidence::Weak);
    assert_eq!(weak.only(), GuardFact::WeakEvidence.into());
}

#[test]
fn set_budget_and_backoff_both_block() {
    let rows = (1..=3).map(|n| closed(n, 1, mins(n), mins(60), Outcome::Aborted));
    let world = World::stuck(1).with(|w| w.given.history.extend(rows));
    let budget = GuardFact::SetBudget { used: 3, budget: 3, window: Span::hours(24) };
    let (passed, wait) = (Span::mins(1), Span::hours(1));
    let backoff = GuardFact::Backoff { passed, wait, treatment: TreatmentId(3), treatments: 3 };
    assert_eq!(world.blocks(), [budget.until(Some(mins(24 * 60 + 1))), backoff.until(Some(mins(120)))]);
}

#[test]
fn manager_budget_counts_this_sweeps_heals() {
    let world = World::stuck(20).spread().with(|w| {
        w.given.policy.heals_per_hour = 3;
        w.given.history.push(worker_restarted(1, 1, mins(61)));
    });
    assert_eq!(world.treats().len(), 2);
    let budget = GuardFact::ManagerBudget { used: 3, budget: 3, window: Span::hours(1) };
    assert_eq!(world.last_blocks(), [budget.until(Some(mins(121)))]);
}

#[test]
fn zero_limits_block_everything() {
    for change in [(|p| p.set_budget = 0) as fn(&mut Policy), |p| p.heals_per_hour = 0, |p| p.max_in_flight = 0] {
        let world = World::stuck(3).with(|w| change(&mut w.given.policy));
        assert_eq!(world.treats(), NONE);
    }
}

#[test]
fn frozen_names_every_reason() {
    let with_endpoint =
        |name: &str, state| World::stuck(1).with(|w| _ = w.fleet.endpoints.insert(EndpointName::new(name), state));
    let endpoint = EndpointName::new("github.com");
    let reasons =
        vec![FrozenReason::ManagerDown, FrozenReason::EndpointLimited { endpoint }, FrozenReason::SourcesBlind];
    let blind = with_endpoint("github.com", EndpointState::Limited)
        .with(|w| (w.fleet.manager, w.fleet.blind) = (ManagerState::Down, true));
    assert_eq!(blind.only(), GuardFact::Frozen { reasons }.into());
    for state in EndpointState::ALL.iter().copied() {
        let acts = matches!(state, EndpointState::Up | EndpointState::Degraded);
        assert_eq!(with_endpoint("github.com", state).treats().len(), usize::from(acts), "{state}");
        assert_eq!(with_endpoint("ghes", state).treats(), [true], "another endpoint is {state}");
    }
}

#[test]
fn pause_lease_store_and_blast_radius_block() {
    let pause = Pause {
        id: PauseId(1),
        scope: PauseScope::Set { manager: ManagerName::new("garm"), set: ScaleSetId(1) },
        reason: "moving".into(),
        author: "alice".into(),
        created: mins(60),
        expires: Some(mins(90)),
    };
    let paused = World::stuck(2).with(|w| w.given.pauses.push(pause.clone()));
    assert_eq!(paused.only(), GuardFact::Paused { pause }.until(Some(mins(90))));
    assert_eq!(paused.treats(), [true], "set 2 takes its place as the canary");
    let (holder, ends, why) = ("medic-2/7".to_owned(), mins(62), "the disk is full".to_owned());
    let (lease, store) = (GuardFact::Lease { holder: holder.clone(), ends }, GuardFact::Store { why: why.clone() });
    for (write_access, fact) in
        [(WriteAccess::HeldByOther { holder, until: ends }, lease), (WriteAccess::StoreFailed { why }, store)]
    {
        assert_eq!(World::stuck(1).with(|w| w.given.write_access = write_access).only(), fact.into());
    }
    assert_eq!(World::stuck(1).with(|w| w.fleet.fault_at_github = true).only().guard(), Guard::BlastRadius);
}

#[test]
fn quota_blocks_deletions_and_no_toggle() {
    let quota = |remaining| OwnQuota { remaining, reserve: 1000, reset: mins(90) };
    let with_quota = |endpoint: &str, remaining| {
        World::stuck(1).with(|w| _ = w.given.quotas.insert(EndpointName::new(endpoint), quota(remaining)))
    };
    assert_eq!(with_quota("github.com", 900).treats(), [true], "a toggle asks nothing of GitHub");
    let blocked = GuardFact::Quota { remaining: 1000, reserve: 1000 }.until(Some(mins(90)));
    assert_eq!(with_quota("github.com", 1000).with(World::may_delete).only(), blocked);
    for (endpoint, remaining) in [("github.com", 1001), ("ghes", 0)] {
        assert_eq!(with_quota(endpoint, remaining).with(World::may_delete).treats(), [true], "{endpoint} {remaining}");
    }
}

fn suspect() -> World {
    World::one(Diagnosis::Unknown, Confidence::Weak).with(|w| {
        w.given.can_check_sessions.insert(ScaleSetId(1));
        w.finding().evidence.push(evidence(mins(61), Fact::CannotTellWhich { listening: 3, of: 4 }));
    })
}

#[test]
fn session_check_needs_three_sweeps_and_a_settled_manager() {
    assert_eq!(suspect().first(), Decision::Treat { remedy: Remedy::SessionCheck, canary: false });
    assert_eq!(suspect().with(|w| w.finding().seen = 2).only(), GuardFact::Unconfirmed { sweeps: 2, needed: 3 }.into());
    let settling = suspect().with(|w| {
        w.is_at(mins(60).plus(Span::secs(5)));
        w.finding().confidence = Confidence::Proof;
    });
    assert_eq!(settling.only().guard(), Guard::Settle, "proof waives it for heals alone");
}

#[test]
fn session_checks_have_their_own_rate_and_no_heal_budget() {
    let checked = |at, now, outcome| {
        suspect().with(|w| {
            (w.given.policy.set_budget, w.given.policy.heals_per_hour) = (0, 0);
            w.given.history.push(check(1, 1, at, at, outcome));
            w.is_at(now);
        })
    };
    assert_eq!(checked(mins(60), mins(61), Outcome::Held).treats(), [false]);
    assert_eq!(checked(mins(60), Wall(mins(61).0 - 1), Outcome::Held).only().guard(), Guard::Backoff);
    let fact = GuardFact::SessionCheckBackoff { passed: Span::mins(1), wait: Span::mins(5), last_failed: true };
    assert_eq!(checked(mins(60), mins(61), Outcome::Failed).only(), fact.until(Some(mins(65))));
}

#[test]
fn open_treatment_is_never_doubled() {
    let world = World::stuck(1).with(|w| w.given.history.push(worker_restarted(9, 1, mins(60))));
    assert_eq!(world.first(), Decision::Treating { treatment: TreatmentId(9) });
}

#[test]
fn set_that_the_manager_does_not_show_is_not_treated() {
    let world = World::stuck(1).with(|w| w.fleet.sets = Arc::default());
    assert_eq!(world.first(), Decision::Watch { waiting: Waiting::Evidence, until: None });
}

#[test]
fn entity_limit_is_two_where_workers_are_seen() {
    let mut world = World::stuck(10).with(|w| w.given.history.push(worker_restarted(1, 1, mins(60))));
    assert_eq!(world.treats().len(), 1, "nothing shows workers");
    for finding in world.fleet.findings.values_mut() {
        finding.worker = Worker { state: WorkerState::Absent, since: mins(60) };
    }
    assert_eq!(world.treats().len(), 2);
    assert_eq!(world.last_blocks()[0].guard(), Guard::EntityLimit);
    world.given.history.push(open(2, 2, mins(61), Step::Disabled { ours: Revision::new("ours"), again_until: None }));
    assert_eq!(world.treats().len(), 1, "one waits for its worker");
    world.fleet.findings.get_mut(&ScaleSetId(2)).unwrap().worker = Worker { state: WorkerState::Idle, since: mins(61) };
    assert_eq!(world.treats().len(), 2, "its worker is there");
    world.fleet.findings.get_mut(&ScaleSetId(10)).unwrap().diagnosis = Diagnosis::Settling;
    assert_eq!(world.treats().len(), 0, "the manager has not come to the tenth");
    world.given.history.push(closed(3, 10, mins(50), mins(51), Outcome::Failed));
    assert_eq!(world.treats().len(), 0, "what was once done to it changes nothing");
    let ours = Step::Enabling { ours: Revision::new("ours"), since: None, attempts: 0, not_before: mins(61) };
    world.given.history.push(open(4, 10, mins(61), ours));
    assert_eq!(world.treats().len(), 2, "the tenth settles because we treat it: the manager has come to it");
}

#[test]
fn left_disabled_set_blocks_toggles_and_manual_heals() {
    let ours = Step::Enabling { ours: Revision::new("ours"), since: Some(mins(58)), attempts: 6, not_before: mins(61) };
    for manual_heals in [vec![], vec![manual_heal(ManualAction::Heal)]] {
        let world = World::stuck(3).with(|w| {
            w.given.history.push(open(4, 3, mins(58), ours.clone()));
            w.given.manual_heals = manual_heals;
        });
        let (disabled_for, limit) = (Span::mins(3), Span::mins(2));
        let left = GuardFact::LeftDisabled { set: ScaleSetId(3), disabled_for, limit };
        assert!(world.blocks().contains(&left.into()), "{:?}", world.blocks());
    }
}

#[test]
fn undated_set_is_disabled_only_if_allowed() {
    for manual_heals in [vec![], vec![manual_heal(ManualAction::Heal)]] {
        let undated = World::stuck(1).with(|w| {
            w.set(1).revision = Revision::new("");
            w.given.manual_heals = manual_heals;
        });
        assert_eq!(undated.guards(), [Guard::Undated]);
        assert_eq!(undated.with(|w| w.given.policy.allow_undated = true).treats().len(), 1);
    }
}

#[test]
fn manual_heal_lifts_our_own_limits_alone() {
    let rows = (1..=3).map(|n| closed(n, 1, mins(n), mins(60), Outcome::Unverified));
    let mut world = World::stuck(2).with(|w| {
        w.given.history.extend(rows);
        w.given.mode = Mode::Observe;
    });
    assert!(world.guards().len() > 2, "budget, back-off, breaker, dry run");
    world.given.manual_heals.push(manual_heal(ManualAction::Heal));
    assert_eq!(world.treats(), [false], "of the set that it names");
    world.fleet.blind = true;
    assert_eq!(world.guards(), [Guard::Frozen]);
    world.fleet.blind = false;
    world.finding().confidence = Confidence::Weak;
    assert_eq!(world.guards(), [Guard::Confirmation]);
    world.finding().worker.state = WorkerState::Listening;
    assert_eq!(world.first(), Decision::Leave, "its listener runs");
}

fn manual_heal(what: ManualAction) -> ManualHeal {
    ManualHeal { id: ManualHealId(7), set: ScaleSetId(1), what, author: "alice".to_owned(), created: mins(61) }
}

#[test]
fn crash_loop_needs_six_settle_times_even_with_proof() {
    let world = World::stuck(1).with(|w| w.fleet.restarts = CRASH_LOOP);
    assert_eq!(world.only().guard(), Guard::Settle, "one minute after its start, proof or not");
    assert_eq!(world.with(|w| w.is_at(mins(62))).treats(), [true]);
}

/// Two treatments did not help; a third, of the same incident, did. The breaker is half open.
fn half_open() -> World {
    let mut world = World::stuck(6).spread();
    world.given.history.push(closed(1, 1, mins(61), mins(62), Outcome::Unverified));
    world.given.history.push(closed(2, 2, mins(61), mins(63), Outcome::Unverified));
    world.given.history.push(worker_restarted(3, 3, mins(61)));
    world.is_at(mins(93));
    world
}

#[test]
fn half_open_breaker_allows_one_trial_after_a_canary() {
    let mut world = half_open();
    assert_eq!(world.treats(), [true], "one, and it is a trial");
    world.given.history.push(open(4, 4, mins(93), Step::Verifying));
    assert_eq!(world.treats(), NONE);
    assert_eq!(world.only(), GuardFact::BreakerTrial { since: mins(63), after: 2 }.into());
}

#[test]
fn session_check_is_no_trial_of_the_breaker() {
    let mut world = half_open();
    world.given.can_check_sessions.insert(ScaleSetId(6));
    let mut suspect = finding(6, Diagnosis::Unknown, Confidence::Weak);
    suspect.evidence.push(evidence(mins(61), Fact::CannotTellWhich { listening: 3, of: 4 }));
    world.fleet.findings.insert(ScaleSetId(6), suspect);
    world.given.history[2].step = Step::Closed { outcome: Outcome::Recovered, why: Note::SetRemoved };
    let decisions = world.decide();
    assert_eq!(decisions[0], Decision::Treat { remedy: Remedy::Toggle, canary: true });
    assert_eq!(decisions[5], Decision::Treat { remedy: Remedy::SessionCheck, canary: false });
    world.is_at(mins(92));
    assert_eq!(world.last_blocks()[0].guard(), Guard::Breaker);
}

/// Ill for a minute, without a restart, some time after another incident of the same run was healed.
#[test]
fn incident_begins_with_the_first_set_to_heal() {
    let mut world = World::stuck(2).spread().with(|w| {
        w.is_at(mins(75));
        w.given.history.push(closed(1, 9, mins(64), mins(65), Outcome::Recovered));
        w.finding().ill_since = Some(mins(74));
    });
    let mut suspect = finding(2, Diagnosis::Unknown, Confidence::Weak);
    suspect.ill_since = Some(mins(62));
    suspect.evidence.push(evidence(mins(74), Fact::CannotTellWhich { listening: 3, of: 4 }));
    world.given.can_check_sessions.insert(ScaleSetId(2));
    world.fleet.findings.insert(ScaleSetId(2), suspect);
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::Toggle, canary: true }, "a new incident, a new canary");
}
