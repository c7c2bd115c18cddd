//! Whole incidents under virtual time: the real engine, clients, parsers and store against the simulators, in process.

use crate::bench::{Bench, Given, START};
use scaleset_medic::lab::garm::{Generation, WorkerTruth};
use scaleset_medic::model::{Diagnosis, Outcome, ScaleSetId, Span};

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_build_that_gives_up_is_found_and_healed() {
    let mut bench = Bench::new(&Given::of(Generation::PreFix, 4)).await;
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.listening(), (4, 4));
    assert_eq!(bench.writes(), 0, "a healthy fleet is left alone");
    bench.crash_and_restart(Span::secs(1)).await;
    let took = bench.run_until(Span::mins(5), |world| world.listening(0) == (4, 4)).await;
    assert!(took <= Span::secs(130), "{took}");
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4]);
    assert_eq!(bench.writes(), 8, "each set was disabled and enabled once");
    assert_eq!(bench.outcomes(), [Outcome::Recovered; 4]);
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0);
    let _ = START;
}

#[tokio::test(start_paused = true)]
async fn without_the_medic_such_a_build_never_comes_back() {
    let mut bench = Bench::new(&Given::of(Generation::PreFix, 4).observing()).await;
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::mins(30)).await;
    assert_eq!(bench.listening(), (0, 4));
    assert_eq!(bench.writes(), 0, "mode observe writes nothing");
    assert_eq!(bench.diagnoses(), [Diagnosis::ConflictAbandoned; 4]);
    let metrics = bench.metrics();
    assert!(
        metrics.contains("remedies_total{manager=\"garm\",mode=\"dry_run\",outcome=\"would_act\",remedy=\"toggle\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_build_that_retries_is_watched_and_not_touched() {
    for generation in [Generation::PostFix, Generation::ListenerMetrics] {
        let mut bench = Bench::new(&Given::of(generation, 4)).await;
        bench.run(Span::mins(2)).await;
        bench.crash_and_restart(Span::secs(1)).await;
        bench.run(Span::secs(30)).await;
        assert_eq!(bench.diagnoses(), [Diagnosis::ConflictRetrying; 4], "{generation:?}");
        bench.run(Span::mins(3)).await;
        assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4], "{generation:?}");
        assert_eq!(bench.writes(), 0, "{generation:?}");
        assert!(bench.metrics().contains("recoveries_total{cause=\"self\",manager=\"garm\"} 4"), "{generation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_restart_is_no_incident() {
    for generation in [Generation::PreFix, Generation::PostFix, Generation::ListenerMetrics] {
        let mut bench = Bench::new(&Given::of(generation, 4)).await;
        bench.run(Span::mins(1)).await;
        bench.with_now(|world, now| world.stop(0, now));
        bench.run(Span::secs(3)).await;
        bench.with_now(|world, now| world.start(0, now));
        bench.run(Span::mins(2)).await;
        assert_eq!(bench.listening(), (4, 4), "{generation:?}");
        assert_eq!(bench.writes(), 0, "{generation:?}");
        assert!(
            bench.metrics().contains("manager_restarts_total{kind=\"clean\",manager=\"garm\"} 1"),
            "{generation:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_health_sees_no_write() {
    for generation in [Generation::PreFix, Generation::PostFix, Generation::ListenerMetrics] {
        for given in [
            Given::of(generation, 3),
            Given::of(generation, 3).with_debug_server(),
            Given::of(generation, 3).with_github(),
            Given::of(generation, 3).without_metrics(),
        ] {
            let mut bench = Bench::new(&given).await;
            bench.run(Span::mins(60)).await;
            assert_eq!((bench.writes(), bench.forge_writes()), (0, 0), "{given:?}");
            assert_eq!(bench.listening(), (3, 3), "{given:?}");
            assert!(
                bench.diagnoses().iter().all(|diagnosis| !diagnosis.is_ill()),
                "{given:?}: {:?}",
                bench.diagnoses()
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_disabled_stays_disabled() {
    let mut bench = Bench::new(&Given::of(Generation::PreFix, 4)).await;
    bench.run(Span::mins(1)).await;
    bench.person(ScaleSetId(2), false);
    bench.run(Span::secs(30)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::mins(6)).await;
    assert_eq!(bench.listening(), (3, 3));
    assert!(!bench.with(|world| world.garm(0).unwrap().is_enabled(ScaleSetId(2))));
    assert_eq!(bench.diagnoses()[1], Diagnosis::Disabled);
    assert_eq!(bench.writes(), 6);
    assert_ne!(bench.with(|world| world.garm(0).unwrap().worker(ScaleSetId(2))), WorkerTruth::Retrying);
}

#[tokio::test(start_paused = true)]
async fn fifty_sets_are_healed_in_one_go() {
    let mut bench = Bench::new(&Given::of(Generation::PreFix, 50)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    let took = bench.run_until(Span::mins(10), |world| world.listening(0) == (50, 50)).await;
    assert!(took <= Span::mins(5), "{took}");
    bench.run(Span::mins(3)).await;
    assert_eq!(bench.writes(), 100);
}
