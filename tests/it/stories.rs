//! Every story of the lab, under virtual time and for every generation of GARM: its ending, and no harm on the way.

use crate::bench::{Bench, Given};
use medic_core::model::{Diagnosis, Span};
use medic_lab::backend::DoorId;
use medic_lab::garm::Build;
use medic_lab::log_file::Rotation;
use medic_lab::scenario::{Act, STORIES, Story, Writes};

async fn play(story: &Story, generation: Build) {
    let what = format!("{} on {generation:?}", story.name);
    let mut bench = Bench::new(&Given::for_scenario(generation, story.ledger)).await;
    let began = bench.clock.now().wall;
    for (at, act) in story.acts {
        bench.run(began.plus(*at).since(bench.clock.now().wall)).await;
        if *act == Act::RotateLog {
            bench.hub.rotate_log(DoorId::Manager(0), Rotation::Rename).unwrap();
        }
        bench.with_now(|world, now| drop(act.happen(world, generation, now)));
    }
    let before = bench.with(|world| world.garm(0).unwrap().crashes());
    let took = bench.run_until(story.limit, |world| story.has_ended(world)).await;
    assert!(bench.with(|world| story.has_ended(world)), "{what}: not within {took}: {:?}", bench.diagnoses());
    bench.run(Span::mins(6)).await;
    assert!(bench.with(|world| story.has_ended(world)), "{what}: it did not last: {:?}", bench.diagnoses());
    let wrong: Vec<_> =
        bench.diagnoses().into_iter().filter(|d| d.is_ill() && *d != Diagnosis::HeldElsewhere).collect();
    assert_eq!(wrong, [], "{what}");
    match story.writes {
        Writes::Any => {}
        Writes::AtMost(most) => assert!(bench.writes() <= most, "{what}: {} writes", bench.writes()),
        Writes::None => assert_eq!((bench.writes(), bench.github_writes()), (0, 0), "{what}"),
    }
    let crashes = bench.with(|world| world.garm(0).unwrap().crashes());
    assert_eq!(crashes, before, "{what}: no crash of the manager after the last act");
    assert_eq!(bench.open_check_sessions(), 0, "{what}: every session that the medic opened has ended");
    crate::replay::agrees(&bench.snapshots(), &what);
}

#[tokio::test(start_paused = true)]
async fn every_story_comes_to_its_ending_on_a_build_that_gives_up() {
    for story in STORIES {
        play(story, Build::PreFix).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_story_comes_to_its_ending_on_a_build_that_retries() {
    for story in STORIES {
        play(story, Build::PostFix).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_story_comes_to_its_ending_on_a_build_with_listener_metrics() {
    for story in STORIES {
        play(story, Build::ListenerMetrics).await;
    }
}
