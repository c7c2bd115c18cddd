//! The time of diagnose + decide for all sets of one sweep; the goal is 10,000 sets in less than 10 ms.
//!
//! `cargo bench --package medic-core --bench core` shows it for fleets of three sizes; `-- SETS` for one size.
#![expect(clippy::print_stdout, reason = "a bench prints")]

use medic_core::decide::{self, Conditions, Input, WriteAccess};
use medic_core::diagnose::{self, Context, State};
use medic_core::model::{
    Controller, Enablement, Endpoint, EndpointName, Entity, EntityKind, GithubId, Incarnation, ListenerMetrics,
    ManagerMetrics, ManagerName, Mono, Now, Revision, ScaleSet, ScaleSetId, ScopeCounters, Seen, Span, Sweep, Wall,
};
use medic_core::policy::{Mode, Policy};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const START: Wall = Wall(1_800_000_000_000);
const SWEEPS: u64 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// All listen; counters are the only evidence.
    WellByCounters,
    /// All listen; each listener has its own series.
    WellBySeries,
    /// All were refused after a crash, and nobody tries again.
    GivenUp,
}

const SITUATIONS: [(Situation, &str); 3] = [
    (Situation::WellByCounters, "all well, counters only"),
    (Situation::WellBySeries, "all well, a series per listener"),
    (Situation::GivenUp, "all given up after a crash"),
];

fn main() {
    let asked: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![500, 10_000, 50_000] } else { asked };
    println!("diagnose + decide, {SWEEPS} sweeps\n\n| sets | situation | best | median |\n|---:|---|---:|---:|");
    for sets in sizes {
        for (situation, name) in SITUATIONS {
            let times = times(sets, situation);
            let millis = |place: usize| times.get(place).map_or(0.0, Duration::as_secs_f64) * 1e3;
            println!("| {sets} | {name} | {:.2} ms | {:.2} ms |", millis(0), millis(times.len() / 2));
        }
    }
}

/// The time of each sweep, in rising order.
fn times(sets: u64, situation: Situation) -> Vec<Duration> {
    let mut manager = Manager::new(sets, situation);
    let time = |n| {
        let sweep = manager.sweep(n);
        let began = Instant::now();
        manager.reconcile(&sweep);
        began.elapsed()
    };
    let mut times: Vec<_> = (0..SWEEPS).map(time).collect();
    times.sort_unstable();
    times
}

/// A manager whose organisations have a hundred sets each.
struct Manager {
    sets: Vec<ScaleSet>,
    situation: Situation,
    state: State,
    given: Conditions,
}

impl Manager {
    fn new(sets: u64, situation: Situation) -> Self {
        let endpoint = Arc::new(Endpoint {
            name: EndpointName::new("github.com"),
            base_url: "https://github.com".to_owned(),
            api_base_url: "https://api.github.com/".to_owned(),
        });
        let set = |n: u64| ScaleSet {
            id: ScaleSetId(n),
            github_id: Some(GithubId(1000 + n)),
            name: format!("linux-large-{n}"),
            entity: Some(Entity { kind: EntityKind::Organization, name: format!("acme-{}", n / 100) }),
            endpoint: Some(Arc::clone(&endpoint)),
            enabled: Enablement::Enabled,
            desired_runners: 0,
            max_runners: 5,
            revision: Revision::new("2026-11-24T12:00:00.000000000Z"),
            updated_at: Some(START.minus(Span::hours(24))),
        };
        Self {
            sets: (1..=sets).map(set).collect(),
            situation,
            state: State::default(),
            given: Conditions {
                now: Now::default(),
                name: ManagerName::new("garm"),
                mode: Mode::Heal,
                policy: Policy::default(),
                history: Vec::new(),
                ledger: Arc::default(),
                pauses: Vec::new(),
                manual_heals: Vec::new(),
                breaker_reset: None,
                can_check_sessions: (1..=sets).map(ScaleSetId).collect(),
                quotas: BTreeMap::new(),
                write_access: WriteAccess::Granted,
            },
        }
    }

    /// The `n`-th sweep, 15 s after the one before.
    fn sweep(&self, n: u64) -> Sweep {
        let sets = u64::try_from(self.sets.len()).unwrap_or(u64::MAX);
        let passed = Span::secs(15 * n);
        let polls = sets * (3600 + 15 * n) / 50;
        let up = |create_errors, poll| ScopeCounters { create: sets, create_errors, poll, ..ScopeCounters::default() };
        let counters = match self.situation {
            Situation::WellByCounters | Situation::WellBySeries => up(0, polls),
            Situation::GivenUp => up(sets, 0),
        };
        let at = START.plus(passed);
        let listener = |set: &ScaleSet| {
            let poll = at.minus(Span::secs(set.id.0 % 50));
            (set.id, ListenerMetrics { last_success: Some(poll) })
        };
        let listeners = match self.situation {
            Situation::WellBySeries => self.sets.iter().map(listener).collect(),
            Situation::WellByCounters | Situation::GivenUp => BTreeMap::new(),
        };
        Sweep {
            at: Now { wall: at, mono: Mono(passed.as_millis()) },
            controller: Seen::Known(Controller { id: "c1".to_owned(), version: "v0".to_owned() }),
            scale_sets: Seen::Known(self.sets.clone()),
            lingering: Seen::Known(BTreeMap::new()),
            metrics: Seen::Known(ManagerMetrics {
                incarnation: Some(Incarnation(START.minus(Span::hours(1)))),
                scopes: BTreeMap::from([(EntityKind::Organization, counters)]),
                has_set_gauges: self.situation == Situation::WellBySeries,
                listeners,
                quotas: Vec::new(),
            }),
            goroutines: Seen::NotAsked,
            log: Seen::NotAsked,
            actions_service: BTreeMap::new(),
        }
    }

    fn reconcile(&mut self, sweep: &Sweep) {
        let context = Context { treatments: &[], checks: &BTreeMap::new(), ledger: &[] };
        let fleet = diagnose::diagnose(&mut self.state, sweep, &context, &self.given.policy);
        self.given.now = sweep.at;
        let decisions = decide::decide(&Input { fleet: &fleet, given: &self.given });
        black_box((fleet, decisions));
    }
}
