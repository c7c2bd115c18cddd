//! What a sweep costs beside its input and output: diagnose + decide for ten thousand scale sets.
//!
//! `cargo bench --bench core` prints the median time of a sweep and its allocations, for a fleet that is well, one that
//! has just crashed, and at three sizes; `-- SETS` only one size. `-- instructions SETS` counts the instructions of a
//! sweep instead: it runs itself under callgrind (Debian's `valgrind`), which no other work of the machine disturbs.
#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot go on has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use medic_core::decide::{self, Input};
use medic_core::diagnose::{self, Context, Memory};
use medic_core::model::{
    Controller, Enablement, Endpoint, EndpointName, Entity, EntityKind, GithubId, Incarnation, ListenerMetrics,
    ManagerMetrics, ManagerName, Mono, Now, Revision, ScaleSet, ScaleSetId, ScopeCounters, Seen, Span, Sweep, Wall,
};
use medic_core::policy::{Mode, Policy};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const START: Wall = Wall(1_800_000_000_000);
const SWEEPS: u64 = 60;

/// What is seen of the manager, and how it fares.
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

/// Of many sweeps: the quickest, which a busy machine disturbs least, and the middle ones.
struct Cost {
    best: Duration,
    time: Duration,
    allocations: usize,
    bytes: usize,
}

fn main() {
    let asked: Vec<u64> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let says = |said: &str| std::env::args().any(|word| word == said);
    if let (true, &[sets, situation, sweeps]) = (says("sweeps"), asked.as_slice()) {
        under_callgrind(sets, situation, sweeps);
        return;
    }
    let sizes = if asked.is_empty() { vec![500, 10_000, 50_000] } else { asked };
    if says("instructions") {
        instructions(&sizes);
        return;
    }
    println!("diagnose + decide, the middle of {SWEEPS} sweeps\n");
    println!(
        "| sets | situation | best | middle | per set | allocations | per set | bytes |\n|---:|---|---:|---:|---:|---:|---:|---:|"
    );
    for sets in sizes {
        for (situation, name) in SITUATIONS {
            let Cost { best, time, allocations, bytes } = cost(sets, situation);
            let per_set = |amount: f64| amount / f64::from(u32::try_from(sets).unwrap_or(u32::MAX));
            println!(
                "| {sets} | {name} | {:.2} ms | {:.2} ms | {:.0} ns | {allocations} | {:.2} | {} KiB |",
                best.as_secs_f64() * 1e3,
                time.as_secs_f64() * 1e3,
                per_set(best.as_secs_f64() * 1e9),
                per_set(f64::from(u32::try_from(allocations).unwrap_or(u32::MAX))),
                bytes / 1024
            );
        }
    }
}

/// Sweeps under callgrind in the shorter and the longer of two runs: their difference leaves out what only the first
/// sweeps do.
const COUNTED: [u64; 2] = [4, 8];

fn instructions(sizes: &[u64]) {
    println!("diagnose + decide, instructions of a sweep by callgrind\n");
    println!("| sets | situation | instructions | per set |\n|---:|---|---:|---:|");
    for sets in sizes {
        for (number, (_, name)) in (0_u64..).zip(SITUATIONS) {
            let [few, many] = COUNTED.map(|sweeps| collected(*sets, number, sweeps));
            let sweep = many.saturating_sub(few) / (COUNTED[1] - COUNTED[0]);
            println!("| {sets} | {name} | {:.2} M | {} |", sweep as f64 / 1e6, sweep / sets);
        }
    }
}

/// What callgrind counts within `sweep_once`.
fn collected(sets: u64, situation: u64, sweeps: u64) -> u64 {
    let itself = std::env::current_exe().expect("a path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*sweep_once*"])
        .arg(itself)
        .arg("sweeps")
        .args([sets, situation, sweeps].map(|number| number.to_string()))
        .output()
        .expect("valgrind, which Debian's package of that name has");
    let told = String::from_utf8_lossy(&output.stderr);
    let count = told.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind told no count:\n{told}"))
}

fn under_callgrind(sets: u64, situation: u64, sweeps: u64) {
    let number = usize::try_from(situation).expect("a small number");
    let mut manager = Manager::new(sets, SITUATIONS[number].0);
    for n in 0..sweeps {
        let sweep = manager.sweep(n);
        manager.sweep_once(&sweep);
    }
}

fn cost(sets: u64, situation: Situation) -> Cost {
    let mut manager = Manager::new(sets, situation);
    let mut costs = Vec::new();
    for n in 0..SWEEPS {
        let sweep = manager.sweep(n);
        let region = Region::new(ALLOCATOR);
        let began = Instant::now();
        manager.sweep_once(&sweep);
        let time = began.elapsed();
        let stats = region.change();
        costs.push((time, stats.allocations + stats.reallocations, stats.bytes_allocated));
    }
    let middle = |mut of: Vec<usize>| {
        of.sort_unstable();
        of.get(of.len() / 2).copied().unwrap_or_default()
    };
    let mut times: Vec<_> = costs.iter().map(|(time, ..)| *time).collect();
    times.sort_unstable();
    Cost {
        best: times.first().copied().unwrap_or_default(),
        time: times.get(times.len() / 2).copied().unwrap_or_default(),
        allocations: middle(costs.iter().map(|(_, allocations, _)| *allocations).collect()),
        bytes: middle(costs.iter().map(|(.., bytes)| *bytes).collect()),
    }
}

/// A manager of sets, a hundred to an organisation.
struct Manager {
    sets: Vec<ScaleSet>,
    situation: Situation,
    memory: Memory,
    policy: Policy,
    name: ManagerName,
    covered: BTreeSet<ScaleSetId>,
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
            memory: Memory::default(),
            policy: Policy::default(),
            name: ManagerName::new("garm"),
            covered: (1..=sets).map(ScaleSetId).collect(),
        }
    }

    /// The `n`-th look, 15 s after the one before.
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
            (set.id, ListenerMetrics { last_success: Some(poll), ..ListenerMetrics::default() })
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
            broker: BTreeMap::new(),
        }
    }

    #[inline(never)]
    fn sweep_once(&mut self, sweep: &Sweep) {
        let probes = BTreeMap::new();
        let context = Context { treatments: &[], probes: &probes, ledger: &[] };
        let fleet = diagnose::diagnose(&mut self.memory, sweep, &context, &self.policy);
        let decisions = decide::decide(&Input {
            now: sweep.at,
            name: &self.name,
            mode: Mode::Heal,
            policy: &self.policy,
            findings: &fleet.findings,
            sets: &fleet.sets,
            manager: fleet.manager,
            incarnation: fleet.incarnation,
            crash_loop: fleet.restarts >= diagnose::CRASH_LOOP,
            conflict_behaviour: fleet.conflict_behaviour,
            endpoints: &fleet.endpoints,
            blind: fleet.blind,
            fault_at_github: fleet.fault_at_github,
            history: &[],
            ledger: &[],
            owner: fleet.owner.as_ref(),
            pauses: &[],
            orders: &[],
            breaker_reset: None,
            can_check_sessions: &self.covered,
            quotas: &BTreeMap::new(),
            footing: &decide::Footing::Firm,
        });
        black_box((fleet, decisions));
    }
}
