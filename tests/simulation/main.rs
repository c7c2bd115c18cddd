//! Simulated days from a seed. GARMs of all builds crash; operators toggle, edit, pause and deploy; networks lose,
//! delay, double and cut; disks fail; servers send garbage; medics are killed anywhere, two at a time. The real
//! service, clients, core, machine and store run. The invariants of `docs/reference/design.md` §8 are checked at every
//! write that arrives, after every step, and after the last fault.
//!
//! `docs/reliability.md` has the commands of longer runs and the figures. A seed repeats exactly.
//!
//! A binary of its own, so that it can be built optimised without the other tests.
#![expect(clippy::print_stdout, reason = "figures, and the command that repeats a failed seed")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../it/bench.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod bench;
mod broken;
mod context;
mod events;
mod invariants;
mod log;
mod network;
mod operators;
mod plan;
mod process;
mod simulation;

use broken::Broken;
use plan::{Plan, Recovery};
use process::KillAt;
use simulation::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

const VIOLATIONS_SHOWN: usize = 5;
/// A broken medic must be caught within this many.
const BROKEN_SEEDS: u64 = 12;

/// The seeds of a run: those of a variable (`3..5`, or `0..100,7000..7100`), or the usual ones.
fn seeds(name: &str, usual: Range<u64>) -> Vec<u64> {
    let Ok(text) = std::env::var(name) else { return usual.collect() };
    let range = |text: &str| {
        let (from, to) = text.split_once("..").unwrap_or((text, ""));
        from.trim().parse::<u64>().unwrap()..to.trim().parse().unwrap()
    };
    text.split(',').flat_map(range).collect()
}

/// Runs all seeds on every core. The reports are in the order of the seeds.
fn simulate<T: Copy + Send + Sync>(seeds: &[T], simulate: impl Fn(T) -> Report + Sync) -> Vec<Report> {
    let next = Mutex::new(seeds.iter().copied().enumerate());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some((n, seed)) = next.lock().unwrap().next() else { return };
                    let report = simulate(seed);
                    done.lock().unwrap().insert(n, report);
                }
            });
        }
    });
    done.into_inner().unwrap().into_values().collect()
}

fn assert_all_held(name: &str, again: impl Fn(&Report) -> String, reports: &[Report], began: Instant) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let mut events = BTreeMap::new();
    for (what, count) in reports.iter().flat_map(|report| &report.events) {
        *events.entry(*what).or_insert(0) += count;
    }
    let minutes = sum(|r| r.minutes);
    println!(
        "{name}: {} runs, {}.{} days simulated in {:.0?}, {} requests, {} writes, {} medics ended, {} checks, \
         {} violations",
        reports.len(),
        minutes / 1440,
        minutes % 1440 / 144,
        began.elapsed(),
        sum(|r| r.requests),
        sum(|r| r.writes),
        sum(|r| r.ended),
        sum(|r| r.checks),
        sum(|r| r.violations.len() as u64),
    );
    println!("{name}: {events:?}");
    let failed: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &failed {
        println!("--- seed {}: {}\n{}", report.seed, report.world, report.timeline.join("\n"));
        for violation in report.violations.iter().take(VIOLATIONS_SHOWN) {
            println!("{violation:?}");
        }
        println!("again: {}", again(report));
    }
    let summary: Vec<_> = failed
        .iter()
        .map(|report| (report.seed, report.violations.iter().map(|v| v.invariant).collect::<BTreeSet<_>>()))
        .collect();
    assert!(failed.is_empty(), "{summary:?}");
}

/// The command that repeats a seed.
fn again(variable: &'static str, test: &'static str) -> impl Fn(&Report) -> String {
    move |report| {
        let (seed, next) = (report.seed, report.seed + 1);
        format!("{variable}={seed}..{next} cargo test --release --locked --test simulation {test} -- --nocapture")
    }
}

#[test]
fn simulated_days() {
    let began = Instant::now();
    let reports = simulate(&seeds("SCALESET_MEDIC_SEEDS", 0..1), |seed| Plan::day(seed).simulate());
    assert_all_held("days", again("SCALESET_MEDIC_SEEDS", "simulated_days"), &reports, began);
}

#[test]
fn simulated_weeks() {
    let began = Instant::now();
    let reports = simulate(&seeds("SCALESET_MEDIC_WEEKS", 0..1), |seed| Plan::ten_days(seed).simulate());
    assert_all_held("ten days each", again("SCALESET_MEDIC_WEEKS", "simulated_weeks"), &reports, began);
}

#[test]
fn a_seed_repeats_exactly() {
    let day = || Plan::broken(3, Broken::Not).simulate();
    let (first, second) = (day(), day());
    assert_eq!(first, second);
    assert!(first.requests > 0);
}

#[test]
fn medic_killed_during_a_recovery_does_no_harm() {
    let began = Instant::now();
    let reports = simulate(&seeds("SCALESET_MEDIC_DEATH_SEEDS", 0..30), |seed| Plan::ended(seed).simulate());
    assert_all_held("ended", again("SCALESET_MEDIC_DEATH_SEEDS", "killed_during"), &reports, began);
}

/// The points are before and after every request, write to the store and wait of a recovery.
#[test]
fn medic_killed_at_any_point_of_a_recovery_does_no_harm() {
    let began = Instant::now();
    // Every n-th point is tried.
    let stride: u32 = std::env::var("SCALESET_MEDIC_POINT_STRIDE").ok().map_or(120, |text| text.parse().unwrap());
    let whole = simulate(&Recovery::ALL, |recovery| Plan::point(recovery, KillAt::Before(u32::MAX / 4)).simulate());
    let mut points = Vec::new();
    for (recovery, whole) in Recovery::ALL.iter().zip(&whole) {
        println!("{recovery:?}: {} steps", whole.steps);
        assert!(whole.writes > 0, "{recovery:?}");
        let steps = (1..=whole.steps).step_by(stride as usize);
        points.extend(steps.flat_map(|n| [(*recovery, KillAt::Before(n)), (*recovery, KillAt::After(n))]));
    }
    let reports = simulate(&points, |(recovery, kill_at)| Plan::point(recovery, kill_at).simulate());
    let again = |_: &Report| {
        "SCALESET_MEDIC_POINT_STRIDE=1 cargo test --release --locked --test simulation at_any_point -- --nocapture"
            .to_owned()
    };
    assert_all_held("points of a recovery", again, &reports, began);
}

#[test]
fn broken_medics_are_caught() {
    for (broken, invariant) in broken::ALL {
        let mut seen = Vec::new();
        let caught = (0..BROKEN_SEEDS).find(|seed| {
            let report = Plan::broken(*seed, broken).simulate();
            seen.extend(report.violations.iter().map(|violation| violation.invariant));
            seen.contains(&invariant)
        });
        println!("{broken:?} breaks {invariant}: caught by seed {caught:?}");
        assert!(caught.is_some(), "{broken:?} was not caught within {BROKEN_SEEDS} seeds, only {seen:?}");
    }
    // With counters alone a medic cannot always tell which of several sets is dead. It escalates, which is no harm.
    let whole: Vec<_> = (0..2)
        .flat_map(|seed| Plan::broken(seed, Broken::Not).simulate().violations)
        .filter(|violation| violation.invariant != "liveness")
        .collect();
    assert_eq!(whole, [], "the same hours with an unbroken medic");
}
