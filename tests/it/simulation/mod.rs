//! Whole days, from a seed: managers that crash, people who toggle, networks that lose answers, disks that fill up, and
//! medics that die anywhere, two at a time. The real service, clients, core, machine and store run in them; the
//! invariants of design §8 are checked at every write that arrives, every few seconds, and after the last storm.
//!
//! `SCALESET_MEDIC_SEEDS=FROM..TO cargo test --locked --test it simulated_days -- --nocapture` runs other seeds, one
//! simulated day each; a seed gives the same day again.
#![expect(clippy::print_stdout, reason = "figures, and how to live a failed day again, for whoever runs it")]

mod day;
mod mortal;
mod truth;
mod weather;

use day::{Day, Report};
use std::ops::Range;
use std::sync::Mutex;
use weather::Broken;

/// Days of a normal test run.
const SEEDS: Range<u64> = 0..2;

/// Days that a broken medic may take to be caught.
const BROKEN_SEEDS: u64 = 6;

fn seeds(name: &str, usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var(name) else { return usual };
    let (from, to) = text.split_once("..").unwrap_or((&text, ""));
    from.parse().unwrap()..to.parse().unwrap()
}

/// Lives the days of the seeds, on two threads; reports by seed.
fn live(seeds: Range<u64>, live: impl Fn(u64) -> Report + Sync) -> Vec<Report> {
    let next = Mutex::new(seeds);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    let report = live(seed);
                    done.lock().unwrap().push(report);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

fn assert_all_held(name: &str, test: &str, reports: &[Report]) {
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{name}: {} seeds, {} min simulated, {} requests, {} writes, {} medics died, {} manager crashes, {} checks",
        reports.len(),
        sum(|r| r.minutes),
        sum(|r| r.requests),
        sum(|r| r.writes),
        sum(|r| r.deaths),
        sum(|r| r.crashes),
        sum(|r| r.checks),
    );
    let failed: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &failed {
        println!("--- seed {}: {:?}\n{}", report.seed, report.world, report.story.join("\n"));
        println!(
            "again: SCALESET_MEDIC_SEEDS={0}..{1} cargo test --locked --test it {test} -- --nocapture",
            report.seed,
            report.seed + 1
        );
    }
    let summary: Vec<_> = failed.iter().map(|report| (report.seed, &report.violations)).collect();
    assert!(failed.is_empty(), "{summary:#?}");
}

#[test]
fn simulated_days() {
    let reports = live(seeds("SCALESET_MEDIC_SEEDS", SEEDS), |seed| Day::of(seed).live());
    assert_all_held("simulated days", "simulated_days", &reports);
}

#[test]
fn a_seed_gives_the_same_day_again() {
    let day = || Day::of_broken(3, Broken::Not).live();
    let (first, second) = (day(), day());
    assert_eq!(first, second);
    assert!(first.requests > 0);
}

#[test]
fn a_medic_that_dies_during_a_recovery_is_no_matter() {
    let reports = live(seeds("SCALESET_MEDIC_DEATH_SEEDS", 0..200), |seed| Day::of_deaths(seed).live());
    assert_all_held("deaths during a recovery", "a_medic_that_dies", &reports);
}

#[test]
fn a_medic_that_is_broken_on_purpose_is_caught() {
    for (broken, invariant) in
        [(Broken::NeverEnables, "I3"), (Broken::BlindToSessions, "I4"), (Broken::Forgetful, "I3")]
    {
        let caught = (0..BROKEN_SEEDS).find(|seed| {
            let report = Day::of_broken(*seed, broken).live();
            report.violations.iter().any(|violation| violation.invariant == invariant)
        });
        println!("{broken:?} breaks {invariant}: caught by seed {caught:?}");
        assert!(caught.is_some(), "{broken:?} was not caught within {BROKEN_SEEDS} seeds");
    }
    let whole: Vec<_> = (0..1).flat_map(|seed| Day::of_broken(seed, Broken::Not).live().violations).collect();
    assert_eq!(whole, [], "the same days with a medic that is whole");
}
