//! The built binary is killed with SIGKILL in mid-treatment and started again; nothing may be left behind.
//!
//! For each variant one run without a kill counts the requests from GARM's crash to the recovery. The kill points are
//! spread evenly over them: before the n-th request has an effect, after its effect and before its answer, or some
//! milliseconds after its answer. `SCALESET_MEDIC_KILLS` is the number of points.

mod setup;

use medic_core::model::{Span, Wall};
use medic_lab::garm::Build;
use medic_lab::github::{Fault, FaultKind, Route};
use medic_lab::world::World;
use setup::{Setup, Trap, When};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Kill points of an ordinary test run.
const KILLS: u32 = 60;
/// Runs at a time.
const PARALLEL: usize = 20;
/// Nothing here takes longer on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(75);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    /// Older GARM gives up; a toggle restarts the worker.
    Toggle,
    /// The ledger knows the stale session, which GitHub would keep for long.
    Deletion,
    /// The same on newer GARM, which retries: the deletion alone.
    DeletionOnly,
    /// Only counters: a session check finds the set that does not listen.
    SessionCheck,
    /// As `Toggle`, and an operator disables the first set while no medic runs.
    Operator,
}

const VARIANTS: [Variant; 5] =
    [Variant::SessionCheck, Variant::Toggle, Variant::Operator, Variant::Deletion, Variant::DeletionOnly];

impl Variant {
    fn setup(self) -> Setup {
        let deletes = matches!(self, Self::Deletion | Self::DeletionOnly);
        let build = if self == Self::DeletionOnly { Build::PostFix } else { Build::PreFix };
        let stale = if deletes { Span::mins(10) } else { Span::secs(3) };
        Setup::new(build, stale, self != Self::SessionCheck, deletes || self == Self::SessionCheck)
    }

    /// GARM crashes. For a session check it stops cleanly, and one start of a worker fails.
    fn crash(self, world: &mut World, now: Wall) {
        if self == Self::SessionCheck {
            world.stop(0, now);
            let first = world.garm(0).unwrap().scale_sets().next().map(|(_, _, id)| id.0).unwrap();
            world.github.inject(Fault::on(Route::CreateSession, FaultKind::status(500)).for_set(first).times(1));
        } else {
            world.kill(0, now);
        }
        world.start(0, now);
    }
}

struct Report {
    variant: Variant,
    requests: u32,
    killed_by: Option<String>,
    steps: Vec<String>,
    /// An operator disabled a set after the kill.
    operator: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_any_moment_leaves_nothing_behind() {
    let kills: u32 = std::env::var("SCALESET_MEDIC_KILLS").ok().map_or(KILLS, |text| text.parse().unwrap());
    let began = std::time::Instant::now();
    let mut reference = JoinSet::new();
    for variant in VARIANTS {
        reference.spawn(async move { run(variant, None).await });
    }
    let mut lengths = BTreeMap::new();
    while let Some(report) = reference.join_next().await {
        let report = report.unwrap();
        lengths.insert(report.variant, report.requests);
    }
    let places = Arc::new(Semaphore::new(PARALLEL));
    let mut runs = JoinSet::new();
    let each = kills.div_ceil(u32::try_from(lengths.len()).unwrap()).max(1);
    for (variant, length) in lengths.clone() {
        for n in 0..each {
            let when = match n % 3 {
                0 => When::Before,
                1 => When::After,
                _ => When::Later(u64::from(n) * 37 % 400),
            };
            let at = 1 + n * length / each;
            let places = Arc::clone(&places);
            runs.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                run(variant, Some((at, when))).await
            });
        }
    }
    let mut operators = 0;
    let (mut points, mut steps) = (BTreeMap::<Variant, u32>::new(), BTreeMap::<String, u32>::new());
    while let Some(report) = runs.join_next().await {
        let report = report.unwrap();
        operators += u32::from(report.operator);
        if report.killed_by.is_some() {
            *points.entry(report.variant).or_default() += 1;
            let at = if report.steps.is_empty() { "no open treatment".to_owned() } else { report.steps.join(" + ") };
            *steps.entry(format!("{:?}: {at}", report.variant)).or_default() += 1;
        }
    }
    assert!(operators * 3 >= each, "an operator acted in {operators} of {each} runs with one");
    let killed: u32 = points.values().sum();
    eprintln!(
        "kill -9: {killed} kill points in {:.0?}; requests of a whole treatment: {lengths:?}\n\
         by variant: {points:?}; by the journal's step at death: {steps:#?}",
        began.elapsed()
    );
    assert!(killed * 10 >= kills * 7, "only {killed} of {kills} kill points were reached");
}

/// One run: crash, treatment, kill, another medic.
async fn run(variant: Variant, point: Option<(u32, When)>) -> Report {
    let setup = variant.setup();
    until(&setup, variant, "all sets listen at first", |trap| listens(trap, 2)).await;
    setup.spawn();
    until(&setup, variant, "the medic has swept", |trap| trap.requests >= 12).await;
    if matches!(variant, Variant::Deletion | Variant::DeletionOnly) {
        fill_the_ledger(&setup, variant).await;
    }
    setup.with(|trap, now| {
        variant.crash(&mut trap.world, now);
        trap.arm(point);
    });
    until(&setup, variant, "the medic is killed, or all is well", |trap| {
        trap.killed_by.is_some() || (trap.requests > 10 && listens(trap, 2))
    })
    .await;
    let (requests, killed_by) = setup.with(|trap, _| (trap.requests, trap.killed_by.clone()));
    // A kill some milliseconds later is still to come.
    wait(&setup, "the medic dies", || killed_by.is_none() || !setup.medic_is_alive()).await;
    setup.victim.kill();
    let steps = setup.open_steps();
    let since = setup.with(|_, now| now);
    // While our disable is in flight, an operator's disable cannot be distinguished from it (docs/reliability.md).
    let in_flight = steps.iter().any(|step| step.ends_with("/disabling") || step.ends_with("/disable_unknown"));
    let operator = variant == Variant::Operator && !in_flight;
    if operator {
        operator_disables_the_first(&setup);
    }
    setup.spawn();
    let expected = if operator { 1 } else { 2 };
    // A grant whose answer died with the medic is known to nobody: the next session check of the set waits five
    // minutes.
    let grant_lost = steps.iter().any(|step| step.ends_with("/check_opening"));
    let is_well = |trap: &Trap| grant_lost || listens(trap, expected);
    until(&setup, variant, "all is well after the kill", |trap| is_well(trap) && !ours_is_open(trap)).await;
    let finished = || setup.open_steps().iter().all(|step| step.ends_with("/verifying"));
    wait(&setup, "no intent is open", finished).await;
    assert!(setup.medic_is_alive(), "{variant:?} {point:?}: the second medic died:\n{}", setup.stderr());
    setup.victim.kill();
    let stderr = setup.stderr();
    setup.with(|trap, _| {
        assert!(!stderr.contains("panicked"), "{variant:?} {point:?}: {stderr}");
        assert!(is_well(trap), "{variant:?} {point:?} {killed_by:?}: not all listen\n{stderr}");
        assert!(!ours_is_open(trap), "{variant:?} {point:?} {killed_by:?}: our session is open\n{stderr}");
        if operator {
            let garm = trap.world.garm(0).unwrap();
            let first = garm.scale_sets().next().unwrap().0;
            assert!(!garm.is_enabled(first), "{point:?}: enabled what an operator disabled\n{stderr}");
            let against =
                garm.writes().iter().find(|put| put.set == first && put.at > since && put.enabled && is_ours(&put.by));
            assert!(against.is_none(), "{point:?}: {against:?}\n{stderr}");
        }
    });
    Report { variant, requests, killed_by, steps, operator }
}

/// Restarts GARM cleanly while the medic runs, so that the medic sees the ids of its sessions.
async fn fill_the_ledger(setup: &Setup, variant: Variant) {
    setup.with(|trap, now| {
        trap.world.stop(0, now);
        trap.world.start(0, now);
    });
    until(setup, variant, "all sets listen again", |trap| listens(trap, 2)).await;
    wait(setup, "the sessions are known", || setup.known_sessions() >= 2).await;
    // Two starts within two seconds may be one; no session is provably stale then.
    let began = setup.with(|trap, _| trap.world.garm(0).unwrap().incarnation().unwrap().0);
    wait(setup, "five seconds pass", || setup.with(|_, now| now.since(began)) >= Span::secs(5)).await;
}

/// An operator's change: a set that we disabled is enabled first, so that the disable is one.
fn operator_disables_the_first(setup: &Setup) {
    setup.with(|trap, now| {
        let garm = trap.world.garm_mut(0).unwrap().0;
        let first = garm.scale_sets().next().unwrap().0;
        if !garm.is_enabled(first) {
            garm.operator_sets_enabled(first, true, now);
        }
        garm.operator_sets_enabled(first, false, now);
    });
}

fn is_ours(agent: &str) -> bool {
    agent.contains("scaleset-medic")
}

/// Whether this many sets are enabled and all of them listen.
fn listens(trap: &Trap, sets: usize) -> bool {
    trap.world.listening(0) == (sets, sets)
}

fn ours_is_open(trap: &Trap) -> bool {
    trap.world.github.sessions().any(|session| session.ended.is_none() && is_ours(&session.opened_by.user_agent))
}

async fn until(setup: &Setup, variant: Variant, what: &str, condition: impl Fn(&Trap) -> bool) {
    wait(setup, &format!("{variant:?}: {what}"), || setup.with(|trap, _| condition(trap))).await;
}

async fn wait(setup: &Setup, what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| {
        let state = setup.with(|trap, _| format!("{:?}, {} requests", trap.world.listening(0), trap.requests));
        panic!("never: {what}; {state}; open {:?}\n{}", setup.open_steps(), setup.stderr())
    });
}
