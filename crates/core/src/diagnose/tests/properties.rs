//! Properties: a healthy fleet is never treated (I4), no input makes the diagnosis fail (I8), and each finding names its
//! rule.

use super::super::testing::{Manager, by_manager, github_sets, secs};
use super::super::{CheckAnswer, Context, State, diagnose};
use super::healthy::{BEHAVIOURS, Eyes, World};
use crate::model::log_fact::LogEvent;
use crate::model::{
    Enablement, EntityKind, FailureKind, GithubId, Goroutines, Incarnation, ListenerMetrics, Revision, Rule,
    ScaleSetId, ScopeCounters, Seen, SessionId, Span, Sweep, Wall,
};
use crate::policy::Policy;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What happens to a healthy fleet in a day.
#[derive(Debug, Clone, Copy)]
enum Event {
    Quiet(u64),
    /// A job's message: the set's revision moves.
    Message(u64),
    /// An operator disables a set, and enables it this many seconds later.
    Toggle(u64, u64),
    /// The worker restarts its listener, with this many seconds in between.
    Restart(u64, u64),
    /// The manager is stopped for some seconds; then it opens one session after each such number of milliseconds.
    CleanRestart(u64, u64),
    /// The metrics cannot be read for this many sweeps.
    MetricsFail(u64),
    /// The manager cannot be asked for this many sweeps.
    Unreachable(u64),
}

fn eyes() -> impl Strategy<Value = Eyes> {
    any::<[bool; 6]>().prop_map(|[counters, series, goroutines, log, actions_service, undated]| Eyes {
        counters,
        series,
        goroutines,
        log,
        actions_service,
        undated,
    })
}

fn event(sets: u64) -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (1_u64..2000).prop_map(Event::Quiet),
        2 => (1..=sets).prop_map(Event::Message),
        1 => (1..=sets, 1_u64..120).prop_map(|(set, off)| Event::Toggle(set, off)),
        1 => (1..=sets, 0_u64..12).prop_map(|(set, gap)| Event::Restart(set, gap)),
        1 => (0_u64..40, 10_u64..3000).prop_map(|(away, each)| Event::CleanRestart(away, each)),
        1 => (1_u64..10).prop_map(Event::MetricsFail),
        1 => (1_u64..10).prop_map(Event::Unreachable),
    ]
}

impl World {
    fn diagnose_and_check(&mut self) {
        let fleet = self.diagnose();
        self.is_left_alone(&fleet);
        assert_eq!(fleet.findings.len(), self.manager.sets.len());
        assert!(!fleet.fault_at_github);
    }

    fn watch(&mut self, every: u64, seconds: u64) {
        let until = self.manager.now.plus(secs(seconds));
        self.diagnose_and_check();
        while self.manager.now < until {
            self.pass(secs(every).min(until.since(self.manager.now)));
            self.diagnose_and_check();
        }
    }

    fn happens(&mut self, every: u64, event: Event) {
        match event {
            Event::Quiet(seconds) => self.watch(every, seconds),
            Event::Message(set) => {
                self.manager.change(set);
                self.log(self.manager.now, LogEvent::JobSeen { set: by_manager(set) });
            }
            Event::Toggle(set, off) => {
                self.manager.enable(set, Enablement::Disabled);
                self.closes(set);
                self.watch(every, off);
                self.manager.enable(set, Enablement::Enabled);
                self.diagnose_and_check();
                self.pass(secs(2));
                self.opens(set);
            }
            Event::Restart(set, gap) => {
                self.closes(set);
                self.watch(every, gap);
                self.opens(set);
            }
            Event::CleanRestart(away, each) => {
                let sets: Vec<u64> = self.listeners.keys().map(|set| set.0).collect();
                self.stops();
                if away > 0 {
                    self.watch(every, away);
                }
                self.starts();
                self.pass(secs(4));
                for set in sets {
                    self.diagnose_and_check();
                    self.pass(Span::millis(each));
                    self.opens(set);
                }
            }
            Event::MetricsFail(sweeps) => {
                self.manager.metrics = false;
                self.watch(every, sweeps.saturating_mul(every));
                self.manager.metrics = self.eyes.counters;
            }
            Event::Unreachable(sweeps) => {
                self.manager.fails = Some(FailureKind::Timeout);
                self.watch(every, sweeps.saturating_mul(every));
                self.manager.fails = None;
            }
        }
        self.watch(every, every.saturating_mul(2));
    }
}

proptest! {
    #[test]
    fn healthy_fleet_is_never_ill_and_never_treated(
        eyes in eyes(),
        every in 1_u64..20,
        behaviour in proptest::sample::select(BEHAVIOURS.as_slice()),
        events in (1_u64..6).prop_flat_map(|sets| (Just(sets), proptest::collection::vec(event(sets), 1..12))),
    ) {
        let (sets, events) = events;
        let mut world = World::new(sets, behaviour, eyes);
        world.watch(every, 30);
        for event in events {
            world.happens(every, event);
        }
        world.watch(every, 60);
        if eyes.counters || eyes.goroutines || eyes.log {
            let fleet = world.diagnose();
            world.is_well_but(&fleet, None);
        }
    }
}

/// Anything a source may say, sensible or not.
fn nonsense() -> impl Strategy<Value = Manager> {
    let small = || prop_oneof![0_u64..4, Just(u64::MAX), any::<u64>()];
    let date = || prop_oneof![Just(Wall(0)), Just(Wall(u64::MAX)), any::<u64>().prop_map(Wall), near()];
    let counters = proptest::array::uniform7(small());
    let kind = proptest::option::of(proptest::sample::select(FailureKind::ALL));
    let sets = proptest::collection::vec((0_u64..5, proptest::option::of(small()), any::<[bool; 4]>(), date()), 0..6);
    let goroutines = proptest::option::of((any::<u32>(), 0_u32..4));
    let facts = proptest::collection::vec((0_u64..5, 0_usize..9, date()), 0..8);
    (counters, kind, sets, goroutines, facts, proptest::option::of(date()), date(), any::<[bool; 4]>()).prop_map(
        |(counters, fails, sets, goroutines, facts, run, now, [metrics, gauges, actions_service, held])| {
            let mut manager = Manager::healthy(0);
            (manager.now, manager.fails, manager.metrics, manager.gauges) = (now, fails, metrics, gauges);
            manager.run = run.map(Incarnation);
            let [create, create_errors, delete, poll, poll_errors, start_errors, rate_limit_errors] = counters;
            manager.counters =
                ScopeCounters { create, create_errors, delete, poll, poll_errors, start_errors, rate_limit_errors };
            for (set, github_id, [enabled, entity, series, endpoint], updated) in sets {
                let mut one = super::super::testing::scale_set(set);
                one.github_id = github_id.map(GithubId);
                one.enabled = if enabled { Enablement::Enabled } else { Enablement::Disabled };
                one.updated_at = Some(updated);
                one.revision = Revision::new(format!("{}", updated.0));
                if !entity {
                    one.entity = None;
                }
                if !endpoint {
                    one.endpoint = None;
                }
                if series {
                    let listener = ListenerMetrics { last_success: Some(updated) };
                    manager.listeners.insert(ScaleSetId(set), listener);
                }
                let answer = if held { CheckAnswer::Held { owner: None } } else { CheckAnswer::Unheld };
                manager.checks.insert(ScaleSetId(set), (updated, answer));
                manager.sets.push(one);
            }
            manager.goroutines = goroutines.map(|(listeners, workers)| Goroutines { listeners, workers });
            if actions_service {
                manager.listed(fails.map_or_else(|| Ok(github_sets([1, 2])), Err));
            }
            for (set, what, at) in facts {
                let set = by_manager(set);
                let what = match what {
                    0 => LogEvent::ManagerStarted,
                    1 => LogEvent::Panic,
                    2 | 3 => LogEvent::Conflict { set, owner: None, gave_up: what == 2 },
                    4 => LogEvent::SessionOpened { set, session: SessionId::new("") },
                    5 => LogEvent::SessionClosing { set },
                    6 => LogEvent::Poll { set, cursor: at.0 },
                    7 => LogEvent::MessageFailed { set },
                    _ => LogEvent::WorkerIdle { set },
                };
                manager.logs(now.since(at), what);
            }
            manager
        },
    )
}

fn near() -> impl Strategy<Value = Wall> {
    (0_u64..600_000).prop_map(|millis| super::super::testing::START.plus(Span::millis(millis)))
}

fn sets_of(sweep: &Sweep) -> BTreeSet<ScaleSetId> {
    match &sweep.scale_sets {
        Seen::Known(sets) => sets.iter().map(|set| set.id).collect(),
        Seen::NotAsked | Seen::Failed(_) => BTreeSet::new(),
    }
}

proptest! {
    #[test]
    fn any_sources_give_one_finding_per_set_and_bounded_state(
        managers in proptest::collection::vec(nonsense(), 1..8)
    ) {
        let mut state = State::default();
        for manager in managers {
            let sweep = manager.sweep();
            let context = Context { treatments: &[], checks: &manager.checks, ledger: &[] };
            let fleet = diagnose(&mut state, &sweep, &context, &Policy::default());
            let seen = sets_of(&sweep);
            if sweep.scale_sets.known().is_some() {
                prop_assert_eq!(fleet.findings.keys().copied().collect::<BTreeSet<_>>(), seen);
            }
            prop_assert!(state.sets.len() <= 6 && state.last_sets.len() <= 6);
            prop_assert!(state.scopes.len() <= EntityKind::ALL.len());
            let json = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(&serde_json::from_str::<State>(&json).unwrap(), &state);
            for finding in fleet.findings.values() {
                prop_assert!(!finding.evidence.is_empty());
                prop_assert!(finding.seen >= 1);
            }
        }
    }
}

/// Removes what this rule reads, and nothing that other rules read.
fn without_evidence_for(rule: Rule, manager: &mut Manager) {
    match rule {
        Rule::SetList => manager.fails = None,
        Rule::Enabled => manager.sets.iter_mut().for_each(|set| set.enabled = Enablement::Enabled),
        Rule::GithubList => manager.actions_service.clear(),
        Rule::SessionCheck => manager.checks.clear(),
        Rule::Log => {
            if let Some(log) = &mut manager.log {
                log.by_id.clear();
                log.by_github.clear();
            }
        }
        Rule::ListenerMetrics => manager.listeners.clear(),
        Rule::Created => manager.sets.iter_mut().for_each(|set| {
            let created = super::super::testing::scale_set(set.id.0);
            (set.github_id, set.entity) = (created.github_id, created.entity);
        }),
        Rule::Counters => (manager.metrics, manager.goroutines) = (false, None),
        Rule::GracePeriod | Rule::Nothing | Rule::WaitingJobs | Rule::RefusedTooLong => {}
    }
}

/// The rules that a set's own evidence is enough for.
const OWN: [Rule; 6] =
    [Rule::SetList, Rule::Enabled, Rule::GithubList, Rule::SessionCheck, Rule::Log, Rule::ListenerMetrics];

/// Which rule answered first for the set.
fn first_rule(manager: &Manager, set: ScaleSetId) -> Option<Rule> {
    let fleet = manager.clone().diagnose();
    fleet.findings.get(&set).map(|finding| finding.corrected.unwrap_or(finding.rule))
}

proptest! {
    /// Without the evidence for the named rule another one decides; with that evidence alone it still decides.
    #[test]
    fn finding_names_the_rule_that_decided(mut manager in nonsense()) {
        manager.policy.missing_after = Span::ZERO;
        let listed: Vec<ScaleSetId> = manager.sets.iter().map(|set| set.id).collect();
        for set in listed {
            let Some(rule) = first_rule(&manager, set) else { continue };
            let mut blind = manager.clone();
            without_evidence_for(rule, &mut blind);
            if OWN.contains(&rule) || matches!(rule, Rule::Created | Rule::Counters) {
                prop_assert_ne!(first_rule(&blind, set), Some(rule));
            }
            if OWN.contains(&rule) {
                let mut alone = manager.clone();
                for other in OWN.into_iter().filter(|other| *other != rule && *other != Rule::SetList) {
                    without_evidence_for(other, &mut alone);
                }
                (alone.counters, alone.goroutines) = (ScopeCounters::default(), None);
                prop_assert_eq!(first_rule(&alone, set), Some(rule));
            }
        }
    }
}
