//! Every scenario of the lab, under virtual time and for every build of GARM: its ending, and no harm on the way.

use crate::bench::{Bench, Given};
use medic_core::model::{Diagnosis, Span};
use medic_lab::backend::ServerId;
use medic_lab::garm::Build;
use medic_lab::scenario::{SCENARIOS, Scenario, Step, Writes};

async fn play(scenario: &Scenario, build: Build) {
    let what = format!("{} on {build:?}", scenario.name);
    let mut bench = Bench::new(&Given::for_scenario(build, scenario.ledger)).await;
    let began = bench.clock.now().wall;
    for (at, step) in scenario.steps {
        bench.run(began.plus(*at).since(bench.clock.now().wall)).await;
        if *step == Step::RotateLog {
            bench.hub.rotate_log(ServerId::Manager(0)).unwrap();
        }
        bench.with_now(|world, now| drop(step.apply(world, build, now)));
    }
    let before = bench.with(|world| world.garm(0).unwrap().crashes());
    let took = bench.run_until(scenario.limit, |world| scenario.has_ended(world)).await;
    assert!(bench.with(|world| scenario.has_ended(world)), "{what}: not within {took}: {:?}", bench.diagnoses());
    bench.run(Span::mins(6)).await;
    assert!(bench.with(|world| scenario.has_ended(world)), "{what}: it did not last: {:?}", bench.diagnoses());
    let wrong: Vec<_> =
        bench.diagnoses().into_iter().filter(|d| d.is_ill() && *d != Diagnosis::HeldElsewhere).collect();
    assert_eq!(wrong, [], "{what}");
    match scenario.writes {
        Writes::Any => {}
        Writes::AtMost(most) => assert!(bench.writes() <= most, "{what}: {} writes", bench.writes()),
        Writes::None => assert_eq!((bench.writes(), bench.github_writes()), (0, 0), "{what}"),
    }
    let crashes = bench.with(|world| world.garm(0).unwrap().crashes());
    assert_eq!(crashes, before, "{what}: GARM does not crash after the last step");
    assert_eq!(bench.open_check_sessions(), 0, "{what}: every session that the medic opened has ended");
    crate::replay::agrees(&bench.snapshots(), &what);
}

async fn play_all(build: Build) {
    for scenario in SCENARIOS {
        play(scenario, build).await;
    }
}

#[tokio::test(start_paused = true)]
async fn scenarios_reach_their_ending_on_a_build_that_gives_up() {
    play_all(Build::PreFix).await;
}

#[tokio::test(start_paused = true)]
async fn scenarios_reach_their_ending_on_a_build_that_retries() {
    play_all(Build::PostFix).await;
}

#[tokio::test(start_paused = true)]
async fn scenarios_reach_their_ending_with_listener_metrics() {
    play_all(Build::ListenerMetrics).await;
}
