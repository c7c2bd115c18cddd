//! Decisions about whole fleets: what a person sees, guard by guard.

use super::testing::{closed, evidence, finding, ledger_session, mins, open, probe, revived, scale_set, scale_set_of};
use super::*;
use crate::model::{
    BlockedBy, Confidence, Diagnosis, Escalation, Fact, ManualAction, ManualHealAnswer, Mono, Outcome, Revision,
    SessionId, Span, Step, TreatmentId, WorkerState,
};

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

    /// Each set in a repository of its own, so that no turn holds any.
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

    /// What is said to the only order.
    fn answer(&self) -> ManualHealAnswer {
        let decision = self.first();
        self.with_input(|input| manual::answer(input, &self.orders[0], &decision))
    }

    fn with_input<T>(&self, look: impl FnOnce(&Input<'_>) -> T) -> T {
        let owner = Owner::of_garm("c1");
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
            owner: Some(&owner),
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

    fn guards(&self) -> Vec<BlockedBy> {
        let decision = self.first();
        let Decision::Blocked { guards, .. } = decision else { panic!("not withheld: {decision:?}") };
        guards.to_vec()
    }

    /// The only guard, as (guard, value, limit, until).
    fn only(&self) -> (Guard, String, String, Option<Wall>) {
        let mut guards = self.guards();
        assert_eq!(guards.len(), 1, "{guards:?}");
        let held = guards.remove(0);
        (held.guard, held.value.to_string(), held.limit.to_string(), held.until)
    }

    fn acts(&self) -> Vec<bool> {
        self.decide()
            .iter()
            .filter_map(|d| if let Decision::Treat { canary, .. } = d { Some(*canary) } else { None })
            .collect()
    }
}

fn is(guard: Guard, value: &str, limit: &str, until: Option<Wall>) -> (Guard, String, String, Option<Wall>) {
    (guard, value.to_owned(), limit.to_owned(), until)
}

#[test]
fn a_lone_stuck_set_is_toggled_as_the_canary() {
    assert_eq!(World::stuck(1).first(), Decision::Treat { remedy: Remedy::Toggle, canary: true });
}

#[test]
fn a_healthy_fleet_gets_nothing() {
    let world = World::stuck(3).with(|w| {
        for finding in w.findings.values_mut() {
            finding.diagnosis = Diagnosis::Listening;
        }
    });
    assert_eq!(world.decide(), [Decision::Leave, Decision::Leave, Decision::Leave]);
}

#[test]
fn with_a_proven_stale_session_and_a_client_it_is_deleted_first() {
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
        "a session of the living run is newer: nothing is deleted"
    );
}

#[test]
fn sets_that_the_same_guards_hold_back_share_them() {
    let decisions = World::stuck(3).spread().decide();
    let (Decision::Blocked { guards: one, .. }, Decision::Blocked { guards: other, .. }) =
        (&decisions[1], &decisions[2])
    else {
        panic!("not withheld: {decisions:?}")
    };
    assert!(std::ptr::eq(&raw const **one, &raw const **other), "made anew for each set");
}

#[test]
fn fifty_sets_one_canary_then_ten_at_once() {
    let mut world = World::stuck(50).spread();
    assert_eq!(world.acts(), [true], "one, alone");
    let waiting = world.decide().remove(49);
    let Decision::Blocked { guards, .. } = waiting else { panic!("{waiting:?}") };
    assert_eq!(guards[0].guard, Guard::Canary);
    assert_eq!(guards[0].value, "set 1 goes first and has shown no life yet");

    world.history.push(open(1, 1, mins(61), Step::Verifying));
    assert_eq!(world.acts(), Vec::<bool>::new(), "the canary has shown nothing yet");
    assert_eq!(world.first(), Decision::Treating { treatment: TreatmentId(1) });

    world.history[0] = revived(1, 1, mins(61));
    assert_eq!(world.acts(), [false; 10], "a revived treatment is no longer in flight");
    world.history.extend((2..=8).map(|id| open(id, id, mins(61), Step::Verifying)));
    assert_eq!(world.acts().len(), 3, "seven are in flight");
    let last = world.decide().remove(49);
    let Decision::Blocked { guards, .. } = last else { panic!("{last:?}") };
    assert_eq!((&*guards[0].value.to_string(), &*guards[0].limit.to_string()), ("10 of 10 under way", "10 at once"));
}

#[test]
fn after_a_failed_canary_another_set_tries_and_then_the_breaker_opens() {
    let mut world = World::stuck(50);
    world.history.push(closed(1, 1, mins(61), mins(62), Outcome::Unverified));
    world.now = mins(62);
    assert_eq!(world.acts(), [true]);
    assert!(matches!(world.first(), Decision::Blocked { .. }), "set 1 is in back-off");
    world.history.push(closed(2, 2, mins(62), mins(63), Outcome::Unverified));
    world.now = mins(63);
    assert_eq!(world.acts(), Vec::<bool>::new());
    world.now = mins(93);
    assert_eq!(world.acts(), [true], "one trial after half an hour");
    world.now = mins(64);
    world.breaker_reset = Some(mins(64));
    assert_eq!(world.acts(), [true], "a person reset it");
}

#[test]
fn a_dry_run_goes_through_everything_but_the_act() {
    let world = World::stuck(50).spread().with(|w| w.mode = Mode::Observe);
    assert_eq!(world.only(), is(Guard::DryRun, "mode is observe", "mode heal", None));
    assert_eq!(world.acts(), Vec::<bool>::new());
    let second = world.decide().remove(1);
    let Decision::Blocked { guards, .. } = second else { panic!("{second:?}") };
    assert_eq!(guards.iter().map(|h| h.guard).collect::<Vec<_>>(), [Guard::Canary, Guard::DryRun]);
    let mut settling = World::one(Diagnosis::Unheld, Confidence::Strong);
    (settling.mode, settling.now) = (Mode::Observe, mins(60));
    let guards: Vec<_> = settling.guards().iter().map(|h| h.guard).collect();
    assert_eq!(guards, [Guard::Settle, Guard::DryRun], "the other guards are told too");
}

#[test]
fn settle_holds_back_what_is_not_proven() {
    let world = World::one(Diagnosis::ConflictAbandoned, Confidence::Strong)
        .with(|w| (w.now, w.manager) = (mins(60).plus(Span::secs(12)), ManagerState::Restarted));
    let until = Some(mins(60).plus(Span::secs(20)));
    assert_eq!(world.only(), is(Guard::Settle, "12 s of 20 s", "20 s after the manager's start", until));
    let proven = world.with(|w| w.finding().confidence = Confidence::Proof);
    assert!(matches!(proven.first(), Decision::Treat { .. }));
    let over =
        World::one(Diagnosis::ConflictAbandoned, Confidence::Strong).with(|w| w.now = mins(60).plus(Span::secs(20)));
    assert!(matches!(over.first(), Decision::Treat { .. }), "at the very date that was told");
    let blind = World::one(Diagnosis::ConflictAbandoned, Confidence::Strong)
        .with(|w| (w.incarnation, w.manager) = (None, ManagerState::Restarted));
    assert_eq!(blind.only().1, "just restarted, its age is not known");
}

#[test]
fn confirmation_counts_sweeps_and_weak_evidence_never_acts() {
    let world = World::one(Diagnosis::Unheld, Confidence::Strong).with(|w| w.finding().seen = 1);
    assert_eq!(world.only(), is(Guard::Confirmation, "1 of 2 sweeps", "2 sweeps", None));
    assert!(matches!(world.with(|w| w.finding().seen = 2).first(), Decision::Treat { .. }));
    let weak = World::one(Diagnosis::Unheld, Confidence::Weak);
    assert_eq!(weak.only(), is(Guard::Confirmation, "weak evidence", "strong evidence, or proof", None));
}

#[test]
fn budget_and_backoff_are_told_together() {
    let rows = (1..=3).map(|n| closed(n, 1, mins(n), mins(60), Outcome::Aborted));
    let world = World::stuck(1).with(|w| w.history.extend(rows));
    let guards = world.guards();
    assert_eq!(guards.iter().map(|h| h.guard).collect::<Vec<_>>(), [Guard::SetBudget, Guard::Backoff]);
    assert_eq!((&*guards[0].value.to_string(), guards[0].until), ("3 of 3 in 24 h", Some(mins(24 * 60 + 1))));
    assert_eq!((&*guards[1].value.to_string(), guards[1].until), ("1 min of 1 h since treatment #3", Some(mins(120))));
}

#[test]
fn the_hourly_budget_bounds_one_sweep_too() {
    let world = World::stuck(20).spread().with(|w| {
        w.policy.heals_per_hour = 3;
        w.history.push(revived(1, 1, mins(61)));
    });
    assert_eq!(world.acts().len(), 2);
    let last = world.decide().remove(19);
    let Decision::Blocked { guards, .. } = last else { panic!("{last:?}") };
    assert_eq!((&*guards[0].value.to_string(), &*guards[0].limit.to_string()), ("3 of 3 in 1 h", "3 in 1 h"));
    assert_eq!(guards[0].until, Some(mins(121)));
}

#[test]
fn zero_never_means_unlimited() {
    for change in [(|p| p.set_budget = 0) as fn(&mut Policy), |p| p.heals_per_hour = 0, |p| p.max_in_flight = 0] {
        let world = World::stuck(3).with(|w| change(&mut w.policy));
        assert_eq!(world.acts(), Vec::<bool>::new());
    }
}

#[test]
fn frozen_says_every_reason() {
    let world = World::stuck(1).with(|w| {
        w.manager = ManagerState::Down;
        w.endpoints.insert(EndpointName::new("github.com"), EndpointState::Limited);
        w.blind = true;
    });
    let (guard, value, _, until) = world.only();
    assert_eq!((guard, until), (Guard::Frozen, None));
    assert_eq!(value, "the manager is down, the quota at github.com is used up, most probes are blind");
    for state in EndpointState::ALL.iter().copied() {
        let world = World::stuck(1).with(|w| {
            w.endpoints.insert(EndpointName::new("github.com"), state);
        });
        let acts = matches!(state, EndpointState::Up | EndpointState::Degraded);
        assert_eq!(world.acts().len(), usize::from(acts), "{state}");
    }
    let elsewhere = World::stuck(1).with(|w| {
        w.endpoints.insert(EndpointName::new("ghes"), EndpointState::Down);
    });
    assert_eq!(elsewhere.acts(), [true], "another endpoint's trouble is not this set's");
}

#[test]
fn paused_lease_and_blast_radius() {
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
    let expected =
        is(Guard::Paused, "this set paused by alice: moving", "resumed, or 1970-01-01 01:30:00", Some(mins(90)));
    assert_eq!(paused.only(), expected);
    assert_eq!(paused.acts(), [true], "set 2 takes its place as the canary");
    let other = Footing::LeaseOf { holder: "medic-2/7".to_owned(), until: mins(62) };
    let held = World::stuck(1).with(|w| w.footing = other).only();
    assert_eq!((held.0, held.1.as_str()), (Guard::Lease, "medic-2/7 holds it, until 01:02:00 if it does not renew it"));
    let failed = Footing::StoreFailed { why: "the disk is full".to_owned() };
    let held = World::stuck(1).with(|w| w.footing = failed).only();
    assert_eq!((held.0, held.1.as_str()), (Guard::Store, "the disk is full"));
    let fault = World::stuck(1).with(|w| w.fault_at_github = true);
    assert_eq!(fault.only().0, Guard::BlastRadius);
}

#[test]
fn conflicts_of_several_entities_without_a_restart_stop_even_other_remedies() {
    let world = World::stuck(3).with(|w| {
        w.now = mins(600);
        for (id, entity) in [(2, "b/b"), (3, "c/c")] {
            let mut found = finding(id, Diagnosis::ConflictRetrying, Confidence::Proof);
            found.since = mins(599);
            w.findings.insert(ScaleSetId(id), found);
            w.sets.insert(ScaleSetId(id), scale_set_of(id, entity));
        }
    });
    assert_eq!(world.only().0, Guard::BlastRadius);
}

#[test]
fn a_start_that_failed_for_another_reason_waits_for_its_cause_to_go() {
    let world = World::one(Diagnosis::StartAbandoned, Confidence::Proof);
    assert_eq!(world.only().0, Guard::CauseNotResolved);
    let gone = world.with(|w| w.finding().evidence.push(evidence(mins(61), Fact::CauseGone)));
    assert_eq!(gone.first(), Decision::Treat { remedy: Remedy::Toggle, canary: true });
}

#[test]
fn the_quota_is_the_managers_and_a_toggle_spends_none_of_ours() {
    let world = World::stuck(1).with(|w| {
        let quota = OwnQuota { remaining: 900, reserve: 1000, reset: mins(90) };
        w.quotas.insert(EndpointName::new("github.com"), quota);
    });
    assert!(matches!(world.first(), Decision::Treat { .. }));
    let deletes = world.with(|w| {
        w.covered.insert(ScaleSetId(1));
        w.ledger.push(ledger_session(1, "s-1", Incarnation(mins(10)), mins(11)));
    });
    let (value, limit) =
        ("900 calls of the credential's quota left", "more than the 1000 that are kept for the manager");
    assert_eq!(deletes.only(), is(Guard::Quota, value, limit, Some(mins(90))));
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
fn a_session_probe_needs_a_suspect_three_sweeps_and_a_settled_manager() {
    assert_eq!(suspect().first(), Decision::Treat { remedy: Remedy::SessionCheck, canary: false });
    assert_eq!(suspect().with(|w| w.finding().seen = 2).only().1, "2 of 3 sweeps");
    let settling = suspect().with(|w| w.now = mins(60).plus(Span::secs(5)));
    assert_eq!(settling.only().0, Guard::Settle);
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
fn session_probes_use_their_own_rate_and_no_heal_budget() {
    let world = suspect().with(|w| {
        w.policy.set_budget = 0;
        w.policy.heals_per_hour = 0;
        w.history.push(probe(1, 1, mins(59), mins(59), Outcome::Held));
    });
    assert!(matches!(world.first(), Decision::Treat { remedy: Remedy::SessionCheck, .. }));
    let soon = world.with(|w| w.now = mins(59).plus(Span::secs(90)).minus(Span::secs(31)));
    assert_eq!(soon.guards().last().map(|h| h.guard), Some(Guard::Backoff));
    let lost = suspect().with(|w| w.history.push(probe(1, 1, mins(60), mins(60), Outcome::Failed)));
    assert_eq!(
        lost.only(),
        is(
            Guard::Backoff,
            "1 min of 5 min since the last session probe failed",
            "5 min between session probes",
            Some(mins(65))
        )
    );
}

#[test]
fn session_probes_never_go_where_they_could_win_a_race() {
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
fn an_open_treatment_is_told_and_never_doubled() {
    let world = World::stuck(1).with(|w| w.history.push(revived(9, 1, mins(60))));
    assert_eq!(world.first(), Decision::Treating { treatment: TreatmentId(9) });
}

#[test]
fn a_set_that_the_manager_does_not_show_is_not_touched() {
    let world = World::stuck(1).with(|w| w.sets.clear());
    assert_eq!(world.first(), Decision::Watch { waiting: Waiting::Evidence, until: None });
}

#[test]
fn ten_thousand_sets_are_decided_in_one_pass() {
    let world = World::stuck(10_000).spread().with(|w| {
        w.policy.max_in_flight = 20_000;
        w.policy.heals_per_hour = 20_000;
        w.history.extend((1..=2_000).map(|id| revived(id, id, mins(61))));
    });
    assert_eq!(world.acts().len(), 8_000);
}

#[test]
fn an_entity_is_healed_two_sets_at_a_time_where_workers_are_seen() {
    let mut world = World::stuck(10).with(|w| w.history.push(revived(1, 1, mins(60))));
    assert_eq!(world.acts().len(), 1, "nothing shows workers");
    for finding in world.findings.values_mut() {
        finding.worker = (WorkerState::Absent, mins(60));
    }
    assert_eq!(world.acts().len(), 2);
    let last = world.decide().remove(9);
    let Decision::Blocked { guards, .. } = last else { panic!("{last:?}") };
    assert_eq!(guards[0].guard, Guard::EntityLimit);
    world.history.push(open(2, 2, mins(61), Step::Disabled { ours: Revision::new("ours"), again_until: None }));
    assert_eq!(world.acts().len(), 1, "one waits for its worker");
    world.findings.get_mut(&ScaleSetId(2)).unwrap().worker = (WorkerState::Idle, mins(61));
    assert_eq!(world.acts().len(), 2, "its worker is there");
    world.findings.get_mut(&ScaleSetId(10)).unwrap().diagnosis = Diagnosis::Settling;
    assert_eq!(world.acts().len(), 0, "the manager has not come to the tenth");
    world.history.push(closed(3, 10, mins(50), mins(51), Outcome::Failed));
    assert_eq!(world.acts().len(), 0, "what was once done to it changes nothing");
    let ours = Step::Enabling { ours: Revision::new("ours"), since: None, attempts: 0, not_before: mins(61) };
    world.history.push(open(4, 10, mins(61), ours));
    assert_eq!(world.acts().len(), 2, "the tenth settles because we treat it: the manager has come to it");
}

#[test]
fn while_a_set_that_we_disabled_cannot_be_enabled_no_other_is_disabled_not_even_by_order() {
    let ours = Step::Enabling { ours: Revision::new("ours"), since: Some(mins(58)), attempts: 6, not_before: mins(61) };
    for orders in [Vec::new(), vec![order(ManualAction::Heal)]] {
        let world = World::stuck(3).with(|w| {
            w.history.push(open(4, 3, mins(58), ours.clone()));
            w.orders = orders;
        });
        let held = world.guards();
        let left = held.iter().find(|held| held.guard == Guard::LeftDisabled).unwrap();
        assert!(left.value.to_string().starts_with("set 3 disabled by us for "), "{held:?}");
        assert_eq!(left.until, None);
    }
}

#[test]
fn a_set_whose_changes_have_no_dates_is_not_disabled_unless_that_is_allowed() {
    let undated = |orders: &[ManualHeal], allowed| {
        World::stuck(1).with(|w| {
            w.sets.get_mut(&ScaleSetId(1)).unwrap().revision = Revision::new("");
            (w.orders, w.policy.allow_undated) = (orders.to_vec(), allowed);
        })
    };
    for orders in [&[][..], &[order(ManualAction::Heal)]] {
        let held = undated(orders, false).guards();
        assert_eq!(held.iter().map(|held| held.guard).collect::<Vec<_>>(), [Guard::Undated]);
        assert!(matches!(undated(orders, true).first(), Decision::Treat { remedy: Remedy::Toggle, .. }));
    }
}

#[test]
fn an_order_lifts_our_own_limits_and_no_others() {
    let rows = (1..=3).map(|n| closed(n, 1, mins(n), mins(60), Outcome::Unverified));
    let spent = World::stuck(2).with(|w| {
        w.history.extend(rows);
        w.mode = Mode::Observe;
    });
    assert!(spent.guards().len() > 2, "budget, back-off, breaker, dry run");
    let ordered = spent.with(|w| w.orders.push(order(ManualAction::Heal)));
    assert_eq!(ordered.first(), Decision::Treat { remedy: Remedy::Toggle, canary: false });
    assert!(matches!(ordered.decide().remove(1), Decision::Blocked { .. }), "the other set is not ordered");
    let frozen = ordered.with(|w| w.blind = true);
    assert_eq!(frozen.guards().iter().map(|held| held.guard).collect::<Vec<_>>(), [Guard::Frozen]);
    let mut weak = frozen.with(|w| w.blind = false);
    weak.finding().confidence = Confidence::Weak;
    assert_eq!(weak.guards().iter().map(|held| held.guard).collect::<Vec<_>>(), [Guard::Confirmation]);
    let mut well = weak;
    well.finding().worker.0 = WorkerState::Listening;
    assert_eq!(well.first(), Decision::Leave, "its listener runs");
}

#[test]
fn a_manager_that_keeps_crashing_must_live_before_anything_is_done() {
    let world = World::stuck(1).with(|w| w.crash_loop = true);
    assert_eq!(world.only().0, Guard::Settle, "one minute after its start, proof or not");
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
fn a_half_open_breaker_lets_one_trial_through_although_a_canary_has_verified() {
    let mut world = half_open();
    assert_eq!(world.acts(), [true], "one, and it is a trial");
    world.history.push(open(4, 4, mins(93), Step::Verifying));
    assert_eq!(world.acts(), Vec::<bool>::new());
    let guards = world.guards();
    assert_eq!(guards.iter().map(|held| held.guard).collect::<Vec<_>>(), [Guard::Breaker], "{guards:?}");
    assert!(guards[0].value.to_string().ends_with("one trial is under way"), "{guards:?}");
}

#[test]
fn a_session_probe_is_no_trial_of_the_breaker() {
    let mut world = half_open();
    world.covered.insert(ScaleSetId(6));
    let mut suspect = finding(6, Diagnosis::Unknown, Confidence::Weak);
    suspect.evidence.push(evidence(mins(61), Fact::CannotTellWhich { listening: 3, of: 4 }));
    world.findings.insert(ScaleSetId(6), suspect);
    world.history[2].step = Step::Closed { outcome: Outcome::Recovered, why: "test".to_owned() };
    let decisions = world.decide();
    assert_eq!(decisions[0], Decision::Treat { remedy: Remedy::Toggle, canary: true });
    assert_eq!(decisions[5], Decision::Treat { remedy: Remedy::SessionCheck, canary: false });
    world.now = mins(92);
    let Decision::Blocked { guards, .. } = world.decide().remove(5) else { panic!("asked while nothing may be done") };
    assert_eq!(guards[0].guard, Guard::Breaker);
}

/// Ill for a minute, without a restart, some time after another incident of the same run was healed.
#[test]
fn an_incident_begins_with_the_first_set_to_heal_and_not_with_one_that_is_only_suspect() {
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
fn a_deaf_listener_is_toggled_only_while_its_newest_session_is_the_living_runs() {
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

fn refused(why: &str) -> ManualHealAnswer {
    ManualHealAnswer::Refused { why: why.to_owned() }
}

#[test]
fn an_order_to_heal_does_what_we_would_do_ourselves_and_a_session_probe_heals_nothing() {
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
    let ManualHealAnswer::Refused { why } = asked.answer() else { panic!("{:?}", asked.answer()) };
    assert!(why.starts_with("a toggle does not help a set that is unknown"), "{why}");
}

#[test]
fn an_order_waits_five_sweeps_for_a_diagnosis_that_is_not_clear_yet() {
    for (diagnosis, word) in [(Diagnosis::Settling, "settling"), (Diagnosis::Unknown, "unknown")] {
        let mut world = World::one(diagnosis, Confidence::Weak).with(|w| w.orders.push(order(ManualAction::Heal)));
        for seen in 1..5 {
            world.finding().seen = seen;
            assert_eq!(
                world.answer(),
                ManualHealAnswer::Waiting { why: format!("the set is {word} so far") },
                "{seen}"
            );
        }
        for seen in [5, 6] {
            world.finding().seen = seen;
            assert!(matches!(world.answer(), ManualHealAnswer::Refused { .. }), "{word} {seen}");
        }
    }
    let well = World::one(Diagnosis::Listening, Confidence::Strong).with(|w| {
        w.orders.push(order(ManualAction::Heal));
        w.finding().seen = 1;
    });
    assert_eq!(well.answer(), refused("it listens: there is nothing to heal"), "clear at once");
}

#[test]
fn a_person_reads_why_a_session_is_not_deleted() {
    let session = SessionId::new("s-1");
    let mut world = World::stuck(1).with(|w| w.orders.push(order(ManualAction::DeleteSession { session })));
    let uncovered = "no GitHub credential of ours covers the set; configure one under [[github]]";
    world.ledger.push(ledger_session(1, "s-1", RUN, mins(60)));
    assert_eq!(world.answer(), refused(uncovered));
    world.covered.insert(ScaleSetId(1));
    assert_eq!(
        world.answer(),
        refused(
            "session s-1 is not deleted: the manager's present run opened it: it is in use; it was first seen too \
             close to the present run's start; it was seen alive after the present run's start: another process \
             holds it"
        )
    );
    world.sets.get_mut(&ScaleSetId(1)).unwrap().github_id = None;
    assert_eq!(world.answer(), refused(uncovered), "a set without a place is nobody's");
}
