//! Decisions about whole fleets, guard by guard.

use super::testing::{check, closed, evidence, finding, ledger_session, mins, open, revived, scale_set, scale_set_of};
use super::*;
use crate::model::session::NotStale;
use crate::model::{
    BlockedBy, Bounded, Confidence, Diagnosis, Escalation, Fact, FrozenReason, GuardFact, ManualAction,
    ManualHealAnswer, ManualWait, Mono, Note, Outcome, Refusal, Revision, SessionId, Span, Step, TreatmentId,
    WorkerState,
};

mod blast_radius;
mod limits;

const RUN: Incarnation = Incarnation(mins(60));

struct World {
    now: Wall,
    mode: Mode,
    policy: Policy,
    findings: Findings,
    sets: BTreeMap<ScaleSetId, ScaleSet>,
    manager: ManagerState,
    incarnation: Option<Incarnation>,
    crash_loop: bool,
    conflict_behaviour: ConflictBehaviour,
    endpoints: BTreeMap<EndpointName, EndpointState>,
    blind: bool,
    fault_at_github: bool,
    history: Vec<Treatment>,
    ledger: Vec<LedgerSession>,
    owner: Option<Owner>,
    pauses: Vec<Pause>,
    orders: Vec<ManualHeal>,
    breaker_reset: Option<Wall>,
    covered: BTreeSet<ScaleSetId>,
    quotas: BTreeMap<EndpointName, OwnQuota>,
    footing: Footing,
}

impl World {
    /// `count` sets that gave up after the restart at [`RUN`], one minute ago.
    fn stuck(count: u64) -> Self {
        let ids = 1..=count;
        Self {
            now: mins(61),
            mode: Mode::Heal,
            policy: Policy { backoff_jitter: 0.0, ..Policy::default() },
            findings: ids
                .clone()
                .map(|id| (ScaleSetId(id), finding(id, Diagnosis::ConflictAbandoned, Confidence::Proof)))
                .collect(),
            sets: ids.map(|id| (ScaleSetId(id), scale_set(id))).collect(),
            manager: ManagerState::Up,
            incarnation: Some(RUN),
            crash_loop: false,
            conflict_behaviour: ConflictBehaviour::GivesUp,
            endpoints: BTreeMap::from([(EndpointName::new("github.com"), EndpointState::Up)]),
            blind: false,
            fault_at_github: false,
            history: Vec::new(),
            ledger: Vec::new(),
            owner: Some(Owner::of_garm("c1")),
            pauses: Vec::new(),
            orders: Vec::new(),
            breaker_reset: None,
            covered: BTreeSet::new(),
            quotas: BTreeMap::new(),
            footing: Footing::Firm,
        }
    }

    fn one(diagnosis: Diagnosis, confidence: Confidence) -> Self {
        let mut world = Self::stuck(1);
        world.findings.insert(ScaleSetId(1), finding(1, diagnosis, confidence));
        world
    }

    /// Each set in a repository of its own, so that the entity limit blocks none.
    fn spread(mut self) -> Self {
        self.sets = self.sets.into_keys().map(|id| (id, scale_set_of(id.0, &format!("acme/app-{id}")))).collect();
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn finding(&mut self) -> &mut Finding {
        self.findings.get_mut(&ScaleSetId(1)).unwrap()
    }

    fn decide(&self) -> Vec<Decision> {
        let decisions = self.with_input(decide);
        let order: Vec<_> = decisions.iter().map(|d| d.set).collect();
        assert_eq!(order, self.findings.keys().copied().collect::<Vec<_>>(), "one decision per set, in order");
        decisions.into_iter().map(|d| d.decision).collect()
    }

    /// The answer to the only manual heal.
    fn answer(&self) -> ManualHealAnswer {
        let decision = self.first();
        self.with_input(|input| manual::answer(input, &self.orders[0], &decision))
    }

    fn with_input<T>(&self, look: impl FnOnce(&Input<'_>) -> T) -> T {
        look(&Input {
            now: Now { wall: self.now, mono: Mono(0) },
            name: &ManagerName::new("garm"),
            mode: self.mode,
            policy: &self.policy,
            findings: &self.findings,
            sets: &self.sets,
            manager: self.manager,
            incarnation: self.incarnation,
            crash_loop: self.crash_loop,
            conflict_behaviour: self.conflict_behaviour,
            endpoints: &self.endpoints,
            blind: self.blind,
            fault_at_github: self.fault_at_github,
            history: &self.history,
            ledger: &self.ledger,
            owner: self.owner.as_ref(),
            pauses: &self.pauses,
            orders: &self.orders,
            breaker_reset: self.breaker_reset,
            can_check_sessions: &self.covered,
            quotas: &self.quotas,
            footing: &self.footing,
        })
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
fn lone_stuck_set_is_toggled_as_the_canary() {
    assert_eq!(World::stuck(1).first(), Decision::Treat { remedy: Remedy::Toggle, canary: true });
}

#[test]
fn healthy_fleet_is_left_alone() {
    let world = World::stuck(3).with(|w| {
        for finding in w.findings.values_mut() {
            finding.diagnosis = Diagnosis::Listening;
        }
    });
    assert_eq!(world.decide(), [Decision::Leave, Decision::Leave, Decision::Leave]);
}

#[test]
fn proven_stale_session_is_deleted_before_the_toggle() {
    let world = World::stuck(1).with(|w| {
        w.ledger.push(ledger_session(1, "s-1", Incarnation(mins(10)), mins(11)));
    });
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::Toggle, canary: true }, "nobody could delete it");
    let world = world.with(|w| {
        w.covered.insert(ScaleSetId(1));
    });
    let session = SessionId::new("s-1");
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::DeleteThenToggle { session }, canary: true });
    let world = world.with(|w| w.ledger.push(ledger_session(1, "s-2", RUN, mins(61))));
    assert_eq!(
        world.first(),
        Decision::Treat { remedy: Remedy::Toggle, canary: true },
        "a session of the current incarnation is newer"
    );
}

#[test]
fn one_canary_then_max_in_flight_at_once() {
    let mut world = World::stuck(50).spread();
    assert_eq!(world.treats(), [true], "one, alone");
    assert_eq!(world.last_blocks(), [GuardFact::Canary { set: ScaleSetId(1) }.into()]);

    world.history.push(open(1, 1, mins(61), Step::Verifying));
    assert_eq!(world.treats(), Vec::<bool>::new(), "the canary has shown nothing yet");
    assert_eq!(world.first(), Decision::Treating { treatment: TreatmentId(1) });

    world.history[0] = revived(1, 1, mins(61));
    assert_eq!(world.treats(), [false; 10], "a revived treatment is no longer in flight");
    world.history.extend((2..=8).map(|id| open(id, id, mins(61), Step::Verifying)));
    assert_eq!(world.treats().len(), 3, "seven are in flight");
    assert_eq!(world.last_blocks(), [GuardFact::InFlight { open: 10, limit: 10, most: 10 }.into()]);
}

#[test]
fn failed_canary_is_replaced_until_the_breaker_opens() {
    let mut world = World::stuck(50);
    world.history.push(closed(1, 1, mins(61), mins(62), Outcome::Unverified));
    world.now = mins(62);
    assert_eq!(world.treats(), [true]);
    assert!(matches!(world.first(), Decision::Blocked { .. }), "set 1 is in back-off");
    world.history.push(closed(2, 2, mins(62), mins(63), Outcome::Unverified));
    world.now = mins(63);
    assert_eq!(world.treats(), Vec::<bool>::new());
    world.now = mins(93);
    assert_eq!(world.treats(), [true], "one trial after half an hour");
    world.now = mins(64);
    world.breaker_reset = Some(mins(64));
    assert_eq!(world.treats(), [true], "an operator reset it");
}

#[test]
fn dry_run_blocks_last_and_counts_for_the_next_sets() {
    let world = World::stuck(50).spread().with(|w| w.mode = Mode::Observe);
    assert_eq!(world.only(), GuardFact::DryRun.into());
    assert_eq!(world.treats(), Vec::<bool>::new());
    assert_eq!(world.last_blocks(), [GuardFact::Canary { set: ScaleSetId(1) }.into(), GuardFact::DryRun.into()]);
    let mut settling = World::one(Diagnosis::Unheld, Confidence::Strong);
    (settling.mode, settling.now) = (Mode::Observe, mins(60));
    assert_eq!(settling.guards(), [Guard::Settle, Guard::DryRun]);
}

#[test]
fn settle_blocks_findings_without_proof() {
    let world = World::one(Diagnosis::ConflictAbandoned, Confidence::Strong)
        .with(|w| (w.now, w.manager) = (mins(60).plus(Span::secs(12)), ManagerState::Restarted));
    let until = Some(mins(60).plus(Span::secs(20)));
    let needed = Span::secs(20);
    let settle = |age| GuardFact::Settle { age, needed, crash_loop: false };
    assert_eq!(world.only(), settle(Some(Span::secs(12))).until(until));
    let proven = world.with(|w| w.finding().confidence = Confidence::Proof);
    assert!(matches!(proven.first(), Decision::Treat { .. }));
    let over =
        World::one(Diagnosis::ConflictAbandoned, Confidence::Strong).with(|w| w.now = mins(60).plus(Span::secs(20)));
    assert!(matches!(over.first(), Decision::Treat { .. }), "at the very end of the settle time");
    let blind = World::one(Diagnosis::ConflictAbandoned, Confidence::Strong)
        .with(|w| (w.incarnation, w.manager) = (None, ManagerState::Restarted));
    assert_eq!(blind.only(), settle(None).into());
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
    let world = World::stuck(1).with(|w| w.history.extend(rows));
    let budget = GuardFact::SetBudget { used: 3, budget: 3, window: Span::hours(24) };
    let (passed, wait) = (Span::mins(1), Span::hours(1));
    let backoff = GuardFact::Backoff { passed, wait, treatment: TreatmentId(3), treatments: 3 };
    assert_eq!(world.blocks(), [budget.until(Some(mins(24 * 60 + 1))), backoff.until(Some(mins(120)))]);
}

#[test]
fn manager_budget_counts_this_sweeps_heals() {
    let world = World::stuck(20).spread().with(|w| {
        w.policy.heals_per_hour = 3;
        w.history.push(revived(1, 1, mins(61)));
    });
    assert_eq!(world.treats().len(), 2);
    let budget = GuardFact::ManagerBudget { used: 3, budget: 3, window: Span::hours(1) };
    assert_eq!(world.last_blocks(), [budget.until(Some(mins(121)))]);
}

#[test]
fn zero_limits_block_everything() {
    for change in [(|p| p.set_budget = 0) as fn(&mut Policy), |p| p.heals_per_hour = 0, |p| p.max_in_flight = 0] {
        let world = World::stuck(3).with(|w| change(&mut w.policy));
        assert_eq!(world.treats(), Vec::<bool>::new());
    }
}

#[test]
fn frozen_names_every_reason() {
    let world = World::stuck(1).with(|w| {
        w.manager = ManagerState::Down;
        w.endpoints.insert(EndpointName::new("github.com"), EndpointState::Limited);
        w.blind = true;
    });
    let endpoint = EndpointName::new("github.com");
    let reasons =
        vec![FrozenReason::ManagerDown, FrozenReason::EndpointLimited { endpoint }, FrozenReason::SourcesBlind];
    assert_eq!(world.only(), GuardFact::Frozen { reasons }.into());
    for state in EndpointState::ALL.iter().copied() {
        let world = World::stuck(1).with(|w| {
            w.endpoints.insert(EndpointName::new("github.com"), state);
        });
        let acts = matches!(state, EndpointState::Up | EndpointState::Degraded);
        assert_eq!(world.treats().len(), usize::from(acts), "{state}");
    }
    let elsewhere = World::stuck(1).with(|w| {
        w.endpoints.insert(EndpointName::new("ghes"), EndpointState::Down);
    });
    assert_eq!(elsewhere.treats(), [true], "another endpoint is down");
}

#[test]
fn pause_lease_store_and_blast_radius_block() {
    let paused = World::stuck(2).with(|w| {
        w.pauses.push(Pause {
            id: crate::model::PauseId(1),
            scope: crate::model::PauseScope::Set { manager: ManagerName::new("garm"), set: ScaleSetId(1) },
            reason: "moving".into(),
            author: "alice".into(),
            created: mins(60),
            expires: Some(mins(90)),
        });
    });
    let fact = GuardFact::Paused { pause: paused.pauses[0].clone() };
    assert_eq!(paused.only(), fact.until(Some(mins(90))));
    assert_eq!(paused.treats(), [true], "set 2 takes its place as the canary");
    let other = Footing::LeaseOf { holder: "medic-2/7".to_owned(), until: mins(62) };
    let block = World::stuck(1).with(|w| w.footing = other).only();
    assert_eq!(block, GuardFact::Lease { holder: "medic-2/7".to_owned(), ends: mins(62) }.into());
    let why = "the disk is full".to_owned();
    let block = World::stuck(1).with(|w| w.footing = Footing::StoreFailed { why: why.clone() }).only();
    assert_eq!(block, GuardFact::Store { why }.into());
    let fault = World::stuck(1).with(|w| w.fault_at_github = true);
    assert_eq!(fault.only().guard(), Guard::BlastRadius);
}

#[test]
fn blast_radius_blocks_other_remedies_too() {
    let world = World::stuck(3).with(|w| {
        w.now = mins(600);
        for (id, entity) in [(2, "b/b"), (3, "c/c")] {
            let mut found = finding(id, Diagnosis::ConflictRetrying, Confidence::Proof);
            found.since = mins(599);
            w.findings.insert(ScaleSetId(id), found);
            w.sets.insert(ScaleSetId(id), scale_set_of(id, entity));
        }
    });
    assert_eq!(world.only().guard(), Guard::BlastRadius);
}

#[test]
fn cause_not_resolved_blocks_until_the_cause_is_gone() {
    let world = World::one(Diagnosis::StartAbandoned, Confidence::Proof);
    assert_eq!(world.only().guard(), Guard::CauseNotResolved);
    let gone = world.with(|w| w.finding().evidence.push(evidence(mins(61), Fact::CauseGone)));
    assert_eq!(gone.first(), Decision::Treat { remedy: Remedy::Toggle, canary: true });
}

#[test]
fn quota_blocks_deletions_and_no_toggle() {
    let world = World::stuck(1).with(|w| {
        let quota = OwnQuota { remaining: 900, reserve: 1000, reset: mins(90) };
        w.quotas.insert(EndpointName::new("github.com"), quota);
    });
    assert!(matches!(world.first(), Decision::Treat { .. }));
    let deletes = world.with(|w| {
        w.covered.insert(ScaleSetId(1));
        w.ledger.push(ledger_session(1, "s-1", Incarnation(mins(10)), mins(11)));
    });
    let quota = GuardFact::Quota { remaining: 900, reserve: 1000 };
    assert_eq!(deletes.only(), quota.until(Some(mins(90))));
    let more = deletes.with(|w| w.quotas.values_mut().for_each(|quota| quota.remaining = 1001));
    assert!(matches!(more.first(), Decision::Treat { .. }), "the reserve is untouched");
    let elsewhere = more.with(|w| {
        w.quotas =
            BTreeMap::from([(EndpointName::new("ghes"), OwnQuota { remaining: 0, reserve: 1, reset: mins(90) })]);
    });
    assert!(matches!(elsewhere.first(), Decision::Treat { .. }), "another credential's");
}

fn suspect() -> World {
    World::one(Diagnosis::Unknown, Confidence::Weak).with(|w| {
        w.covered.insert(ScaleSetId(1));
        w.finding().evidence.push(evidence(mins(61), Fact::CannotTellWhich { listening: 3, of: 4 }));
    })
}

#[test]
fn session_check_needs_suspicion_sweeps_and_settling() {
    assert_eq!(suspect().first(), Decision::Treat { remedy: Remedy::SessionCheck, canary: false });
    assert_eq!(suspect().with(|w| w.finding().seen = 2).only(), GuardFact::Unconfirmed { sweeps: 2, needed: 3 }.into());
    let settling = suspect().with(|w| w.now = mins(60).plus(Span::secs(5)));
    assert_eq!(settling.only().guard(), Guard::Settle);
    let proven = settling.with(|w| {
        *w.finding() = finding(1, Diagnosis::Unheld, Confidence::Proof);
    });
    assert_eq!(proven.first(), Decision::Treat { remedy: Remedy::Toggle, canary: true });
    let unable = suspect().with(|w| w.covered.clear());
    assert_eq!(unable.first(), Decision::Escalate { escalation: Escalation::Unknown });
    let barred = suspect().with(|w| w.policy.session_check = false);
    assert_eq!(barred.first(), Decision::Escalate { escalation: Escalation::Unknown });
}

#[test]
fn session_checks_have_their_own_rate_and_no_heal_budget() {
    let world = suspect().with(|w| {
        w.policy.set_budget = 0;
        w.policy.heals_per_hour = 0;
        w.history.push(check(1, 1, mins(59), mins(59), Outcome::Held));
    });
    assert!(matches!(world.first(), Decision::Treat { remedy: Remedy::SessionCheck, .. }));
    let soon = world.with(|w| w.now = mins(59).plus(Span::secs(90)).minus(Span::secs(31)));
    assert_eq!(soon.guards().last(), Some(&Guard::Backoff));
    let lost = suspect().with(|w| w.history.push(check(1, 1, mins(60), mins(60), Outcome::Failed)));
    let fact = GuardFact::SessionCheckBackoff { passed: Span::mins(1), wait: Span::mins(5), last_failed: true };
    assert_eq!(lost.only(), fact.until(Some(mins(65))));
}

#[test]
fn session_check_never_competes_with_a_listener() {
    for diagnosis in Diagnosis::ALL.iter().copied() {
        let world = World::one(diagnosis, Confidence::Weak).with(|w| {
            w.covered.insert(ScaleSetId(1));
            w.finding().evidence.push(evidence(mins(61), Fact::CannotTellWhich { listening: 3, of: 4 }));
        });
        let asks = |w: &World| {
            matches!(
                w.first(),
                Decision::Treat { remedy: Remedy::SessionCheck, .. }
                    | Decision::Blocked { remedy: Remedy::SessionCheck, .. }
            )
        };
        let suspect = matches!(diagnosis, Diagnosis::Unheld | Diagnosis::Unknown);
        assert_eq!(asks(&world), suspect, "{diagnosis}");
        let listens = world.with(|w| w.finding().worker.0 = WorkerState::Listening);
        assert!(!asks(&listens), "{diagnosis}");
    }
}

#[test]
fn open_treatment_is_never_doubled() {
    let world = World::stuck(1).with(|w| w.history.push(revived(9, 1, mins(60))));
    assert_eq!(world.first(), Decision::Treating { treatment: TreatmentId(9) });
}

#[test]
fn set_that_the_manager_does_not_show_is_not_treated() {
    let world = World::stuck(1).with(|w| w.sets.clear());
    assert_eq!(world.first(), Decision::Watch { waiting: Waiting::Evidence, until: None });
}

#[test]
fn ten_thousand_sets_are_decided_in_one_sweep() {
    let world = World::stuck(10_000).spread().with(|w| {
        w.policy.max_in_flight = 20_000;
        w.policy.heals_per_hour = 20_000;
        w.history.extend((1..=2_000).map(|id| revived(id, id, mins(61))));
    });
    assert_eq!(world.treats().len(), 8_000);
}

#[test]
fn entity_limit_is_two_where_workers_are_seen() {
    let mut world = World::stuck(10).with(|w| w.history.push(revived(1, 1, mins(60))));
    assert_eq!(world.treats().len(), 1, "nothing shows workers");
    for finding in world.findings.values_mut() {
        finding.worker = (WorkerState::Absent, mins(60));
    }
    assert_eq!(world.treats().len(), 2);
    assert_eq!(world.last_blocks()[0].guard(), Guard::EntityLimit);
    world.history.push(open(2, 2, mins(61), Step::Disabled { ours: Revision::new("ours"), again_until: None }));
    assert_eq!(world.treats().len(), 1, "one waits for its worker");
    world.findings.get_mut(&ScaleSetId(2)).unwrap().worker = (WorkerState::Idle, mins(61));
    assert_eq!(world.treats().len(), 2, "its worker is there");
    world.findings.get_mut(&ScaleSetId(10)).unwrap().diagnosis = Diagnosis::Settling;
    assert_eq!(world.treats().len(), 0, "the manager has not come to the tenth");
    world.history.push(closed(3, 10, mins(50), mins(51), Outcome::Failed));
    assert_eq!(world.treats().len(), 0, "what was once done to it changes nothing");
    let ours = Step::Enabling { ours: Revision::new("ours"), since: None, attempts: 0, not_before: mins(61) };
    world.history.push(open(4, 10, mins(61), ours));
    assert_eq!(world.treats().len(), 2, "the tenth settles because we treat it: the manager has come to it");
}

#[test]
fn left_disabled_set_blocks_toggles_and_manual_heals() {
    let ours = Step::Enabling { ours: Revision::new("ours"), since: Some(mins(58)), attempts: 6, not_before: mins(61) };
    for orders in [Vec::new(), vec![order(ManualAction::Heal)]] {
        let world = World::stuck(3).with(|w| {
            w.history.push(open(4, 3, mins(58), ours.clone()));
            w.orders = orders;
        });
        let (disabled_for, limit) = (Span::mins(3), Span::mins(2));
        let left = GuardFact::LeftDisabled { set: ScaleSetId(3), disabled_for, limit };
        assert!(world.blocks().contains(&left.into()), "{:?}", world.blocks());
    }
}

#[test]
fn undated_set_is_disabled_only_if_allowed() {
    let undated = |orders: &[ManualHeal], allowed| {
        World::stuck(1).with(|w| {
            w.sets.get_mut(&ScaleSetId(1)).unwrap().revision = Revision::new("");
            (w.orders, w.policy.allow_undated) = (orders.to_vec(), allowed);
        })
    };
    for orders in [&[][..], &[order(ManualAction::Heal)]] {
        assert_eq!(undated(orders, false).guards(), [Guard::Undated]);
        assert!(matches!(undated(orders, true).first(), Decision::Treat { remedy: Remedy::Toggle, .. }));
    }
}

#[test]
fn manual_heal_lifts_our_own_limits_alone() {
    let rows = (1..=3).map(|n| closed(n, 1, mins(n), mins(60), Outcome::Unverified));
    let spent = World::stuck(2).with(|w| {
        w.history.extend(rows);
        w.mode = Mode::Observe;
    });
    assert!(spent.guards().len() > 2, "budget, back-off, breaker, dry run");
    let ordered = spent.with(|w| w.orders.push(order(ManualAction::Heal)));
    assert_eq!(ordered.first(), Decision::Treat { remedy: Remedy::Toggle, canary: false });
    assert!(matches!(ordered.decide().remove(1), Decision::Blocked { .. }), "the request names one set");
    let frozen = ordered.with(|w| w.blind = true);
    assert_eq!(frozen.guards(), [Guard::Frozen]);
    let mut weak = frozen.with(|w| w.blind = false);
    weak.finding().confidence = Confidence::Weak;
    assert_eq!(weak.guards(), [Guard::Confirmation]);
    let mut well = weak;
    well.finding().worker.0 = WorkerState::Listening;
    assert_eq!(well.first(), Decision::Leave, "its listener runs");
}

#[test]
fn crash_loop_needs_six_settle_times_even_with_proof() {
    let world = World::stuck(1).with(|w| w.crash_loop = true);
    assert_eq!(world.only().guard(), Guard::Settle, "one minute after its start, proof or not");
    let later = world.with(|w| w.now = mins(63));
    assert!(matches!(later.first(), Decision::Treat { .. }));
}

/// Two treatments did not help; a third, of the same incident, did. The breaker is half open.
fn half_open() -> World {
    let mut world = World::stuck(6).spread();
    world.history.push(closed(1, 1, mins(61), mins(62), Outcome::Unverified));
    world.history.push(closed(2, 2, mins(61), mins(63), Outcome::Unverified));
    world.history.push(revived(3, 3, mins(61)));
    world.now = mins(93);
    world
}

#[test]
fn half_open_breaker_allows_one_trial_after_a_canary() {
    let mut world = half_open();
    assert_eq!(world.treats(), [true], "one, and it is a trial");
    world.history.push(open(4, 4, mins(93), Step::Verifying));
    assert_eq!(world.treats(), Vec::<bool>::new());
    assert_eq!(world.only(), GuardFact::BreakerTrial { since: mins(63), after: 2 }.into());
}

#[test]
fn session_check_is_no_trial_of_the_breaker() {
    let mut world = half_open();
    world.covered.insert(ScaleSetId(6));
    let mut suspect = finding(6, Diagnosis::Unknown, Confidence::Weak);
    suspect.evidence.push(evidence(mins(61), Fact::CannotTellWhich { listening: 3, of: 4 }));
    world.findings.insert(ScaleSetId(6), suspect);
    world.history[2].step = Step::Closed { outcome: Outcome::Recovered, why: Note::SetRemoved };
    let decisions = world.decide();
    assert_eq!(decisions[0], Decision::Treat { remedy: Remedy::Toggle, canary: true });
    assert_eq!(decisions[5], Decision::Treat { remedy: Remedy::SessionCheck, canary: false });
    world.now = mins(92);
    assert_eq!(world.last_blocks()[0].guard(), Guard::Breaker);
}

/// Ill for a minute, without a restart, some time after another incident of the same run was healed.
#[test]
fn incident_begins_with_the_first_set_to_heal() {
    let mut world = World::stuck(2).spread().with(|w| {
        w.now = mins(75);
        w.history.push(closed(1, 9, mins(64), mins(65), Outcome::Recovered));
        w.finding().ill_since = Some(mins(74));
    });
    let mut suspect = finding(2, Diagnosis::Unknown, Confidence::Weak);
    suspect.ill_since = Some(mins(62));
    suspect.evidence.push(evidence(mins(74), Fact::CannotTellWhich { listening: 3, of: 4 }));
    world.covered.insert(ScaleSetId(2));
    world.findings.insert(ScaleSetId(2), suspect);
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::Toggle, canary: true }, "a new incident, a new canary");
}

#[test]
fn deaf_set_is_toggled_only_if_its_session_lives() {
    let lives = |id: &str, seen| ledger_session(1, id, RUN, seen);
    let ended = |mut session: LedgerSession| {
        session.ended = Some((session.last_seen, crate::model::session::SessionEnd::Closed));
        session
    };
    let cases = [
        (vec![], false),
        (vec![lives("s-1", mins(61))], true),
        (vec![ended(lives("s-1", mins(61)))], false),
        (vec![ledger_session(1, "old", Incarnation(mins(10)), mins(11))], false),
        (vec![lives("s-1", mins(61)), ended(lives("s-2", mins(62)))], false),
        (vec![ended(lives("s-1", mins(61))), lives("s-2", mins(62))], true),
        (vec![ledger_session(2, "another set's", RUN, mins(61))], false),
    ];
    for (ledger, toggled) in cases {
        let mut world = World::one(Diagnosis::Deaf, Confidence::Strong);
        world.policy.allow_risky = true;
        world.finding().worker.0 = WorkerState::Listening;
        world.ledger = ledger;
        let expected = if toggled {
            Decision::Treat { remedy: Remedy::Toggle, canary: true }
        } else {
            Decision::Escalate { escalation: Escalation::Deaf }
        };
        assert_eq!(world.first(), expected, "{:?}", world.ledger);
    }
}

fn order(what: ManualAction) -> ManualHeal {
    let author = "alice".to_owned();
    ManualHeal { id: crate::model::ManualHealId(7), set: ScaleSetId(1), what, author, created: mins(61) }
}

fn refused(why: Refusal) -> ManualHealAnswer {
    ManualHealAnswer::Refused { why }
}

#[test]
fn manual_heal_uses_the_table_and_no_session_check() {
    let mut world = World::stuck(1).with(|w| {
        w.orders.push(order(ManualAction::Heal));
        w.covered.insert(ScaleSetId(1));
        w.ledger.push(ledger_session(1, "s-1", Incarnation(mins(10)), mins(11)));
    });
    let session = SessionId::new("s-1");
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::DeleteThenToggle { session }, canary: false });
    world.ledger.clear();
    *world.finding() = finding(1, Diagnosis::Unheld, Confidence::Strong);
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::Toggle, canary: false });
    let asked = suspect().with(|w| w.orders.push(order(ManualAction::Heal)));
    assert_eq!(asked.first(), Decision::Leave);
    assert_eq!(asked.answer(), refused(Refusal::ToggleUseless(Diagnosis::Unknown)));
}

#[test]
fn manual_heal_waits_five_sweeps_for_a_clear_diagnosis() {
    for diagnosis in [Diagnosis::Settling, Diagnosis::Unknown] {
        let mut world = World::one(diagnosis, Confidence::Weak).with(|w| w.orders.push(order(ManualAction::Heal)));
        for seen in 1..5 {
            world.finding().seen = seen;
            let why = ManualWait::Unclear(diagnosis);
            assert_eq!(world.answer(), ManualHealAnswer::Waiting { why }, "{seen}");
        }
        for seen in [5, 6] {
            world.finding().seen = seen;
            assert!(matches!(world.answer(), ManualHealAnswer::Refused { .. }), "{diagnosis} {seen}");
        }
    }
    let well = World::one(Diagnosis::Listening, Confidence::Strong).with(|w| {
        w.orders.push(order(ManualAction::Heal));
        w.finding().seen = 1;
    });
    assert_eq!(well.answer(), refused(Refusal::Listens), "clear at once");
}

#[test]
fn refusal_of_a_deletion_names_every_reason() {
    let session = SessionId::new("s-1");
    let what = ManualAction::DeleteSession { session: session.clone() };
    let mut world = World::stuck(1).with(|w| w.orders.push(order(what)));
    world.ledger.push(ledger_session(1, "s-1", RUN, mins(60)));
    assert_eq!(world.answer(), refused(Refusal::NoCredential));
    world.covered.insert(ScaleSetId(1));
    let against = vec![NotStale::SameRun, NotStale::OpenedTooLate, NotStale::AliveAfterStart];
    assert_eq!(world.answer(), refused(Refusal::NotStale { session, against }));
    world.sets.get_mut(&ScaleSetId(1)).unwrap().github_id = None;
    assert_eq!(world.answer(), refused(Refusal::NoCredential), "the set's place is not known");
}
