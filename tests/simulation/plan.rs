//! The plan of a simulated period: its servers, its length, and its events.

use super::broken::Broken;
use super::context::rng;
use super::log::LogSearch;
use super::process::KillAt;
use super::simulation::{Report, Simulation};
use crate::bench::{BUILDS, Given};
use medic_core::model::Span;
use medic_lab::garm::{Build, LogFormat, LogLevel};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use std::ops::Range;

pub(crate) struct Plan {
    pub(super) seed: u64,
    pub(super) given: Given,
    pub(super) length: Span,
    pub(super) script: Script,
    pub(super) broken: Broken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Script {
    /// All events. `minutes`: between two fault periods.
    All { minutes: Range<u64> },
    /// GARM is killed, and the medic at a random moment of the recovery.
    CrashAndDeath,
    /// GARM is killed, and the first medic at this step of the recovery.
    Point { kill_at: KillAt },
}

/// A recovery at each step of which the medic is killed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Older GARM with a log: a toggle.
    Toggle,
    /// Older GARM, and the ledger knows the stale session: a deletion and a toggle.
    Deletion,
    /// Newer GARM, and the ledger knows the stale session: a deletion.
    DeletionAlone,
    /// Only counters: a session check and a toggle.
    SessionCheck,
}

impl Recovery {
    pub(crate) const ALL: [Self; 4] = [Self::Toggle, Self::Deletion, Self::DeletionAlone, Self::SessionCheck];
}

pub(super) fn pick<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn world(dice: &mut SmallRng, intervals: &[&'static str], sets: &[u32], unlogged: u32) -> Given {
    let build = pick(dice, &[Build::PreFix, Build::PreFix, Build::PostFix, Build::ListenerMetrics]);
    let mut given = Given::of(build, pick(dice, sets));
    if dice.random_range(0..10) < 7 {
        given = given.with_github();
    }
    match dice.random_range(0..8 + unlogged) {
        0..6 => given = given.with_log(LogLevel::Debug, pick(dice, &[LogFormat::Json, LogFormat::Text])),
        6..8 => given = given.with_log(LogLevel::Info, LogFormat::Json),
        _ => {}
    }
    if dice.random_range(0..10) < 4 {
        given = given.with_debug_server();
    }
    let (stale, start) = (dice.random_range(45..400), pick(dice, &[5, 5, 100, 400]));
    given.fleet.github.stale_lifetime = Span::secs(stale);
    given.interval = pick(dice, intervals);
    let logs = given.log;
    given.fleet = given.fleet.each(|garm| {
        if !logs {
            garm.log_level = LogLevel::Warn;
        }
        garm.worker_start = Span::millis(start);
        garm.quota_period = Span::mins(5);
    });
    given
}

impl Plan {
    /// A day with faults every few hours.
    pub(crate) fn day(seed: u64) -> Self {
        let given = world(&mut rng(seed), &["15s", "1m", "5m", "5m"], &[1, 2, 3, 4, 6, 12], 2);
        let script = Script::All { minutes: 20..240 };
        Self { seed, given, length: Span::hours(24), script, broken: Broken::Not }
    }

    /// Ten days as in production: calm for hours, then several faults at once.
    pub(crate) fn ten_days(seed: u64) -> Self {
        let given =
            world(&mut rng(seed ^ 0x10DA), &["2m", "5m", "5m", "5m", "5m", "5m", "5m", "5m"], &[1, 1, 1, 1, 2, 3], 6);
        let script = Script::All { minutes: 20..2400 };
        Self { seed, given, length: Span::hours(240), script, broken: Broken::Not }
    }

    /// GARM of any build is killed at a stale lifetime of ten minutes. Its medic, which knows the sessions, is killed
    /// at a random moment of the recovery.
    pub(crate) fn ended(seed: u64) -> Self {
        let mut dice = rng(seed);
        let build = pick(&mut dice, &BUILDS);
        let sets = pick(&mut dice, &[1, 4, 4, 12]);
        let mut given = Given::of(build, sets).with_github().with_log(LogLevel::Debug, LogFormat::Json);
        given.fleet.github.stale_lifetime = Span::mins(10);
        // It ends before GitHub drops any session: only the medic can bring a set back.
        let script = Script::CrashAndDeath;
        Self { seed, given, length: Span::secs(690), script, broken: Broken::Not }
    }

    /// One recovery of two sets. The first medic is killed at one point.
    pub(crate) fn point(recovery: Recovery, kill_at: KillAt) -> Self {
        let build = if recovery == Recovery::DeletionAlone { Build::PostFix } else { Build::PreFix };
        let mut given = Given::of(build, 2);
        given.fleet.github.stale_lifetime = Span::secs(45);
        match recovery {
            Recovery::Toggle => given = given.with_log(LogLevel::Debug, LogFormat::Json),
            Recovery::Deletion | Recovery::DeletionAlone => {
                given = given.with_github().with_log(LogLevel::Debug, LogFormat::Json);
                given.fleet.github.stale_lifetime = Span::mins(10);
            }
            Recovery::SessionCheck => {
                given = given.with_github();
            }
        }
        let script = Script::Point { kill_at };
        Self { seed: 0, given, length: Span::secs(480), script, broken: Broken::Not }
    }

    /// A few hours of faults and operators, with a broken medic.
    pub(crate) fn broken(seed: u64, broken: Broken) -> Self {
        let mut dice = rng(seed);
        let mut given = Given::of(Build::PreFix, pick(&mut dice, &[1, 2, 3]));
        if broken == Broken::IgnoresBudgets {
            given.fleet.github.stale_lifetime = Span::mins(50);
        }
        if [Broken::LeavesSessions, Broken::LogsRequests].contains(&broken) {
            given = given.with_github();
        }
        given.fleet = given.fleet.each(|garm| garm.quota_period = Span::mins(5));
        let script = Script::All { minutes: 20..60 };
        Self { seed, given, length: Span::hours(3), script, broken }
    }

    /// Runs in virtual time.
    pub(crate) fn simulate(self) -> Report {
        let log = LogSearch::new(&self.given);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        log.during(|| runtime.block_on(async { Simulation::new(self, log.clone()).simulate().await }))
    }
}
