//! The built binary, killed with SIGKILL in mid-treatment, started again, and what is left behind.
//!
//! For each variant one run without a kill counts the requests from the manager's crash until all is well; the kill
//! points are then spread evenly over them: before the n-th request has an effect, after its effect and before its
//! answer, and some milliseconds after its answer. `SCALESET_MEDIC_KILLS` says how many points there are.

mod stage;

use medic_core::model::{Span, Wall};
use medic_lab::garm::Build;
use medic_lab::github::{Fault, FaultKind, Route};
use medic_lab::world::{Fleet, World};
use stage::{Sight, Stage, Trap, When};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Kill points of an ordinary test run.
const KILLS: u32 = 60;
/// Worlds at a time.
const WORLDS: usize = 20;
/// Nothing here takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(75);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    /// Older GARM gives up; a toggle revives the worker.
    Toggle,
    /// The ledger knows the stale session, which GitHub would keep for long.
    Deletion,
    /// As above on newer GARM, which still tries: the deletion alone.
    DeletionOnly,
    /// Only counters: a session probe finds the set that does not listen.
    Probe,
    /// As `Toggle`, and a person disables the first set while no medic lives.
    Person,
}

const VARIANTS: [Variant; 5] =
    [Variant::Probe, Variant::Toggle, Variant::Person, Variant::Deletion, Variant::DeletionOnly];

impl Variant {
    fn stage(self) -> Stage {
        let log = self != Self::Probe;
        let generation = if self == Self::DeletionOnly { Build::PostFix } else { Build::PreFix };
        let sight =
            Sight { log, goroutines: log, github: matches!(self, Self::Probe | Self::Deletion | Self::DeletionOnly) };
        let stale = match self {
            Self::Deletion | Self::DeletionOnly => Span::mins(10),
            Self::Toggle | Self::Person | Self::Probe => Span::secs(3),
        };
        Stage::new(
            |github| {
                let mut fleet = Fleet::new(generation, 2, github);
                fleet.github.stale_lifetime = stale;
                fleet
            },
            &sight,
        )
    }

    /// The manager's crash; for a probe, a clean stop and one start that fails.
    fn crash(self, world: &mut World, now: Wall) {
        if self == Self::Probe {
            world.stop(0, now);
            let first = world.garm(0).unwrap().scale_sets().next().map(|(_, _, forge)| forge.0).unwrap();
            world.github.inject(Fault::on(Route::CreateSession, FaultKind::status(500)).for_set(first).times(1));
        } else {
            world.kill(0, now);
        }
        world.start(0, now);
    }
}

/// What one kill came to.
struct Report {
    variant: Variant,
    asked: u32,
    killed: Option<String>,
    steps: Vec<String>,
    /// A person disabled a set after the death.
    acts: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_leaves_nothing_behind() {
    let kills: u32 = std::env::var("SCALESET_MEDIC_KILLS").ok().map_or(KILLS, |text| text.parse().unwrap());
    let began = std::time::Instant::now();
    let mut reference = JoinSet::new();
    for variant in VARIANTS {
        reference.spawn(async move { play(variant, None).await });
    }
    let mut lengths = BTreeMap::new();
    while let Some(report) = reference.join_next().await {
        let report = report.unwrap();
        lengths.insert(report.variant, report.asked);
    }
    let places = Arc::new(Semaphore::new(WORLDS));
    let mut plays = JoinSet::new();
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
            plays.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                play(variant, Some((at, when))).await
            });
        }
    }
    let mut people = 0;
    let (mut points, mut steps) = (BTreeMap::<Variant, u32>::new(), BTreeMap::<String, u32>::new());
    while let Some(report) = plays.join_next().await {
        let report = report.unwrap();
        people += u32::from(report.acts);
        if report.killed.is_some() {
            *points.entry(report.variant).or_default() += 1;
            let at = if report.steps.is_empty() { "no open treatment".to_owned() } else { report.steps.join(" + ") };
            *steps.entry(format!("{:?}: {at}", report.variant)).or_default() += 1;
        }
    }
    tell(&lengths, &points, &steps, began.elapsed());
    assert!(people * 3 >= each, "a person acted in {people} of {each} worlds with one");
    let killed: u32 = points.values().sum();
    assert!(killed * 10 >= kills * 7, "only {killed} of {kills} kill points were reached");
}

#[expect(clippy::print_stderr, reason = "the coverage is for people to read")]
fn tell(
    lengths: &BTreeMap<Variant, u32>,
    points: &BTreeMap<Variant, u32>,
    steps: &BTreeMap<String, u32>,
    took: Duration,
) {
    eprintln!(
        "kill -9: {} kill points in {took:.0?}; requests of a whole treatment: {lengths:?}",
        points.values().sum::<u32>()
    );
    eprintln!("by variant: {points:?}; by the journal's step at death:");
    for (step, count) in steps {
        eprintln!("{count:>5}  {step}");
    }
}

/// One world: crash, treatment, death at the point, another medic, the end.
async fn play(variant: Variant, point: Option<(u32, When)>) -> Report {
    let stage = variant.stage();
    until(&stage, variant, "all sets listen at first", |trap| listens(trap, 2)).await;
    stage.spawn();
    until(&stage, variant, "the medic has looked round", |trap| trap.asked >= 12).await;
    if matches!(variant, Variant::Deletion | Variant::DeletionOnly) {
        fill_the_ledger(&stage, variant).await;
    }
    stage.with(|trap, now| {
        variant.crash(&mut trap.world, now);
        trap.arm(point);
    });
    until(&stage, variant, "the medic dies, or all is well", |trap| {
        trap.sprung.is_some() || (trap.asked > 10 && listens(trap, 2))
    })
    .await;
    let (asked, killed) = stage.with(|trap, _| (trap.asked, trap.sprung.clone()));
    // A kill some milliseconds later is still to come.
    let dying = async {
        while killed.is_some() && stage.medic_lives() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dying).await.unwrap();
    stage.victim.kill();
    let steps = stage.open_steps();
    let since = stage.with(|_, now| now);
    // While a disable of ours is on its way, nobody can tell a person's from it (docs/reliability.md).
    let on_its_way = steps.iter().any(|step| step.ends_with("/disabling") || step.ends_with("/disable_unknown"));
    let acts = variant == Variant::Person && !on_its_way;
    if acts {
        person_disables_the_first(&stage);
    }
    stage.spawn();
    let expected = if acts { 1 } else { 2 };
    until(&stage, variant, "all is well after the death", |trap| listens(trap, expected) && !ours_is_open(trap)).await;
    settled(&stage).await;
    assert!(stage.medic_lives(), "{variant:?} {point:?}: the second medic died:\n{}", stage.told());
    stage.victim.kill();
    let told = stage.told();
    stage.with(|trap, _| {
        assert!(!told.contains("panicked"), "{variant:?} {point:?}: {told}");
        assert!(listens(trap, expected), "{variant:?} {point:?} {killed:?}: not all listen\n{told}");
        assert!(!ours_is_open(trap), "{variant:?} {point:?} {killed:?}: our session is open\n{told}");
        if acts {
            let garm = trap.world.garm(0).unwrap();
            let first = garm.scale_sets().next().unwrap().0;
            assert!(!garm.is_enabled(first), "{point:?}: enabled what a person disabled\n{told}");
            let against =
                garm.writes().iter().find(|put| put.set == first && put.at > since && put.enabled && is_ours(&put.by));
            assert!(against.is_none(), "{point:?}: {against:?}\n{told}");
        }
    });
    Report { variant, asked, killed, steps, acts }
}

/// A proper restart of the manager under the medic's eyes, so that the ids of its sessions are seen.
async fn fill_the_ledger(stage: &Stage, variant: Variant) {
    stage.with(|trap, now| {
        trap.world.stop(0, now);
        trap.world.start(0, now);
    });
    until(stage, variant, "all sets listen again", |trap| listens(trap, 2)).await;
    let waiting = async {
        while stage.known_sessions() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("an empty ledger\n{}", stage.told()));
    // Two runs that begin within two seconds may be one, and nothing of theirs is provably stale.
    let began = stage.with(|trap, _| trap.world.garm(0).unwrap().incarnation().unwrap().0);
    let waiting = async {
        while stage.with(|_, now| now.since(began)) < Span::secs(5) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// A person's own act, whatever we had done: enabled first where we had disabled, so that it is a change.
fn person_disables_the_first(stage: &Stage) {
    stage.with(|trap, now| {
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

/// Whether so many sets are enabled, and all of them listen.
fn listens(trap: &Trap, sets: usize) -> bool {
    trap.world.listening(0) == (sets, sets)
}

fn ours_is_open(trap: &Trap) -> bool {
    trap.world.github.sessions().any(|session| session.ended.is_none() && is_ours(&session.opened_by.user_agent))
}

/// Until the journal knows of no intent either.
async fn settled(stage: &Stage) {
    let waiting = async {
        while stage.open_steps().iter().any(|step| !step.ends_with("/verifying")) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("intents stay open: {:?}\n{}", stage.open_steps(), stage.told()));
}

async fn until(stage: &Stage, variant: Variant, what: &str, so: impl Fn(&Trap) -> bool) {
    let waiting = async {
        while !stage.with(|trap, _| so(trap)) {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| {
        let state = stage.with(|trap, _| format!("{:?}, asked {}", trap.world.listening(0), trap.asked));
        panic!("{variant:?}: never: {what}; {state}; open {:?}\n{}", stage.open_steps(), stage.told())
    });
}
