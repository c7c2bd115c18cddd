//! Whole incidents under virtual time: the real engine, clients, parsers and store against the simulators, in process.

use crate::bench::{Bench, Given};
use medic_core::model::{Diagnosis, ManualAction, ManualHealAnswer, Outcome, PauseScope, ScaleSetId, SessionId, Span};
use medic_lab::garm::{Build, LogFormat, LogLevel, LostPut, ManagerFault, ManagerRoute, WorkerTruth};
use medic_lab::github::{Fault, FaultKind, Leaving, Route, Takeover};
use medic_lab::hub::Hub;
use medic_lab::world::World;
use medic_store::Store;
use medic_store::fault_injection::FaultyDisk;
use scaleset_medic::engine::service::Ending;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

/// How long the simulated GitHub keeps a stale session.
const STALE: Span = Span::secs(90);

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_build_that_gives_up_is_found_and_healed() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 4)).await;
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.listening(), (4, 4));
    assert_eq!(bench.writes(), 0, "a healthy fleet is left alone");
    bench.crash_and_restart(Span::secs(1)).await;
    let took = bench.run_until(Span::mins(5), |world| world.listening(0) == (4, 4)).await;
    assert!(took.plus(Span::secs(1)) <= STALE.plus(Span::secs(10)), "{took} after the start");
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4]);
    assert_eq!(bench.writes(), 8, "each set was disabled and enabled once");
    assert_eq!(bench.outcomes(), [Outcome::Recovered; 4]);
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_medic_such_a_build_never_comes_back() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 4).observing()).await;
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
    for generation in [Build::PostFix, Build::ListenerMetrics] {
        let mut bench = Bench::new(&Given::of(generation, 4)).await;
        bench.run(Span::mins(2)).await;
        bench.crash_and_restart(Span::secs(1)).await;
        bench.run(Span::secs(30)).await;
        assert_eq!(bench.diagnoses(), [Diagnosis::ConflictRetrying; 4], "{generation:?}");
        bench.run(Span::mins(3)).await;
        assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4], "{generation:?}");
        assert_eq!(bench.writes(), 0, "{generation:?}");
        assert_eq!(bench.events("recovery", "self_recovered"), 4, "{generation:?}");
        assert!(bench.metrics().contains("recoveries_total{cause=\"self\",manager=\"garm\"} 4"), "{generation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_restart_is_no_incident() {
    for generation in [Build::PreFix, Build::PostFix, Build::ListenerMetrics] {
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
    for generation in [Build::PreFix, Build::PostFix, Build::ListenerMetrics] {
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
    let mut bench = Bench::new(&Given::of(Build::PreFix, 4)).await;
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
    let mut bench = Bench::new(&Given::of(Build::PreFix, 50)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    let took = bench.run_until(Span::mins(10), |world| world.listening(0) == (50, 50)).await;
    assert!(took.plus(Span::secs(1)) <= STALE.plus(Span::secs(10)), "{took} after the start");
    bench.run(Span::mins(3)).await;
    assert_eq!(bench.writes(), 100);
}

#[tokio::test(start_paused = true)]
async fn goroutine_counts_change_only_the_confidence() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 4).with_debug_server()).await;
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(5), |world| world.listening(0) == (4, 4)).await;
    bench.run(Span::mins(1)).await;
    assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4]);
    assert_eq!(bench.writes(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_medic_that_dies_in_the_middle_leaves_no_set_disabled() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 3)).await;
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    for _ in 0..3 {
        let disabled = |world: &World| world.listening(0).1 < 3;
        bench.run_until(Span::mins(2), disabled).await;
        bench.restart_medic();
    }
    bench.run_until(Span::mins(10), |world| world.listening(0) == (3, 3)).await;
    assert_eq!(bench.listening(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn reload_keeps_a_toggle_and_exit_enables_at_once() {
    for (hands_over, enabled) in [(true, 2), (false, 3)] {
        let mut bench = Bench::new(&Given::of(Build::PreFix, 3)).await;
        bench.run(Span::mins(1)).await;
        bench.crash_and_restart(Span::secs(1)).await;
        let same = [bench.engine.name().clone()].into_iter().collect();
        let ending = if hands_over { Ending::HandedOver(same) } else { Ending::Finished };
        bench.serve_until(|world| world.listening(0).1 < 3, ending).await;
        assert_eq!(bench.listening(), (0, enabled));
        bench.run(Span::mins(10)).await;
        assert_eq!(bench.listening(), (3, 3));
        assert_eq!(bench.writes(), 6, "each set once");
    }
}

/// Stuck, and the first set is disabled by us; the others wait for it.
async fn in_the_middle_of_a_toggle() -> Bench {
    let mut bench = Bench::on_disk(&Given::of(Build::PreFix, 3)).await;
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(2), |world| world.listening(0).1 < 3).await;
    assert_eq!((bench.listening(), bench.writes()), ((0, 2), 1));
    bench
}

#[tokio::test(start_paused = true)]
async fn unreadable_journal_begins_nothing_and_finishes_the_rest() {
    let mut bench = in_the_middle_of_a_toggle().await;
    bench.damage(
        "INSERT INTO treatments (manager, set_id, opened, closed, outcome, is_intent, body)
         SELECT manager, 99, opened, opened, 'recovered', 0, '{\"of\": \"a later release\"}' FROM treatments",
    );
    bench.run(Span::mins(5)).await;
    assert_eq!((bench.listening(), bench.writes()), ((1, 3), 2), "one set is treated, and no other");
    let held = format!("{:?}", bench.status.as_ref().unwrap().sets[1].decision);
    assert!(held.contains("guard: Store") && held.contains("holds JSON that does not parse"), "{held}");
    bench.damage("DELETE FROM treatments WHERE set_id = 99");
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn an_open_treatment_that_cannot_be_read_is_undone_from_memory() {
    let mut bench = in_the_middle_of_a_toggle().await;
    bench.damage("UPDATE treatments SET body = '{' WHERE closed IS NULL");
    bench.run(Span::mins(1)).await;
    assert_eq!(bench.listening().1, 3, "no set is left disabled");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_settled_by_reading() {
    for lost in [LostPut::AfterEffect, LostPut::BeforeEffect] {
        let mut bench = Bench::new(&Given::of(Build::PreFix, 2)).await;
        bench.run(Span::mins(1)).await;
        bench.crash_and_restart(Span::secs(1)).await;
        bench.with(|world| world.garm_mut(0).unwrap().0.lose_next_put(lost));
        let disabled = |world: &World| world.listening(0).1 < 2;
        bench.run_until(Span::mins(3), disabled).await;
        bench.with(|world| world.garm_mut(0).unwrap().0.lose_next_put(lost));
        bench.run_until(Span::mins(20), |world| world.listening(0) == (2, 2)).await;
        assert_eq!(bench.listening(), (2, 2), "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_404_of_a_proxy_to_the_enable_leaves_no_set_disabled() {
    let mut bench = in_the_middle_of_a_toggle().await;
    let fault = ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::HtmlPage(404)).times(3);
    bench.with(|world| world.garm_mut(0).unwrap().0.inject(fault));
    bench.run(Span::mins(10)).await;
    assert_eq!(bench.listening(), (3, 3));
    assert_eq!(bench.outcomes()[0], Outcome::Recovered);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_takes_over_in_the_middle_is_not_fought() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 1)).await;
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(2), |world| world.listening(0).1 == 0).await;
    let set = ScaleSetId(1);
    // Off by us; the person switches it on and off again: now it is off by the person.
    bench.person(set, true);
    bench.person(set, false);
    bench.run(Span::mins(10)).await;
    assert!(!bench.with(|world| world.garm(0).unwrap().is_enabled(set)));
    assert_eq!(bench.writes(), 1, "the disable alone");
    assert_eq!(bench.outcomes(), [Outcome::Aborted]);
    assert_eq!(bench.diagnoses(), [Diagnosis::Disabled]);
}

#[tokio::test(start_paused = true)]
async fn nothing_new_is_done_while_paused() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 2)).await;
    bench.run(Span::mins(1)).await;
    bench.pause(PauseScope::All, Span::mins(10));
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::mins(8)).await;
    assert_eq!((bench.writes(), bench.listening()), (0, (0, 2)));
    assert!(bench.metrics().contains("withheld_total{guard=\"paused\",manager=\"garm\"} 2"));
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (2, 2), "the pause ended by itself");
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_a_treatment_that_has_begun_and_sent_nothing() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 2)).await;
    bench.run(Span::mins(1)).await;
    // The last look before the disable fails.
    let fault = ManagerFault::on(ManagerRoute::GetSet, FaultKind::Reset);
    bench.with(|world| world.garm_mut(0).unwrap().0.inject(fault));
    bench.crash_and_restart(Span::secs(1)).await;
    let open = |bench: &Bench| bench.status.as_ref().is_some_and(|status| status.open_intents > 0);
    for _ in 0..240 {
        if open(&bench) {
            break;
        }
        bench.run(Span::millis(500)).await;
    }
    assert!(open(&bench), "a treatment has begun");
    bench.pause(PauseScope::All, Span::mins(10));
    bench.with(|world| world.garm_mut(0).unwrap().0.clear_faults());
    bench.run(Span::mins(5)).await;
    assert_eq!((bench.writes(), bench.outcomes()), (0, vec![Outcome::Aborted]));
    assert_eq!(bench.closed[0].why(), Some("healing was paused before anything was sent"));
    bench.run(Span::mins(10)).await;
    assert_eq!(bench.listening(), (2, 2), "the pause is over");
}

/// A disk that is full while a set is disabled.
#[derive(Default)]
struct FullMeanwhile(OnceLock<Weak<Hub<World>>>);

impl FaultyDisk for FullMeanwhile {
    fn accepts_write(&self) -> bool {
        let hub = self.0.get().and_then(Weak::upgrade);
        hub.is_none_or(|hub| hub.with(|world, _| world.listening(0).1 == 3))
    }
}

#[tokio::test(start_paused = true)]
async fn unjournaled_disable_is_finished_from_memory() {
    let gate = Arc::new(FullMeanwhile::default());
    let disk = Arc::clone(&gate);
    let open = |dir: &Path| Store::open_on_faulty_disk(dir, disk).unwrap();
    let mut bench = Bench::with_store(&Given::of(Build::PreFix, 3), open).await;
    bench.run(Span::mins(1)).await;
    gate.0.set(Arc::downgrade(&bench.hub)).unwrap();
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(2), |world| world.listening(0).1 < 3).await;
    let disabled = bench.run_until(Span::mins(2), |world| world.listening(0).1 == 3).await;
    // Else it would be settled by reading, as after a crash, and a second copy of it waited for.
    assert!(disabled < Span::secs(20), "disabled for {disabled}");
    bench.run(Span::mins(10)).await;
    assert_eq!((bench.listening(), bench.writes()), ((3, 3), 6));
    assert_eq!(bench.outcomes(), [Outcome::Recovered; 3]);
}

#[tokio::test(start_paused = true)]
async fn sets_given_up_in_an_outage_are_toggled_after_it() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 2)).await;
    bench.run(Span::mins(1)).await;
    bench.with_now(|world, now| world.stop(0, now));
    bench.run(Span::secs(2)).await;
    bench.with(|world| {
        for route in [Route::RegistrationToken, Route::RateLimit] {
            world.github.inject(Fault::on(route, FaultKind::status(503)));
        }
    });
    bench.with_now(|world, now| world.start(0, now));
    bench.run(Span::mins(1)).await;
    assert_eq!(bench.listening(), (0, 2));
    bench.with(|world| world.github.clear_faults());
    bench.run_until(Span::mins(10), |world| world.listening(0) == (2, 2)).await;
    assert_eq!(bench.listening(), (2, 2));
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_another_controller_took_is_never_touched() {
    let mut bench = Bench::new(&Given::of(Build::PostFix, 2).with_github()).await;
    bench.run(Span::mins(1)).await;
    bench.with_now(|world, now| {
        let set = world.garm(0).unwrap().scale_sets().next().unwrap().2;
        world.kill(0, now);
        let how = (Takeover::AtOnce, Leaving::Deletes);
        world.github.foreign_owner_takes(set, "garm-of-somebody-else", how, now, now.plus(Span::hours(2)));
    });
    bench.run(Span::secs(1)).await;
    bench.with_now(|world, now| world.start(0, now));
    bench.run(Span::mins(20)).await;
    assert_eq!(bench.listening(), (1, 2));
    assert_eq!((bench.writes(), bench.deletions()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn sweep_costs_two_requests_at_any_number_of_sets() {
    for sets in [1, 200] {
        let mut bench = Bench::new(&Given::of(Build::PreFix, sets)).await;
        bench.run(Span::mins(2)).await;
        let before = bench.exchanges("manager");
        bench.run(Span::mins(10)).await;
        let passes = 40;
        let more = bench.exchanges("manager") - before;
        // The set list and the counters each pass; instances with them; who it is every ten minutes.
        assert!((passes * 2..=passes * 3 + 4).contains(&more), "{sets} sets: {more} requests in {passes} passes");
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_sets_with_exact_counts_are_no_slower() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 50).with_debug_server()).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    let took = bench.run_until(Span::mins(10), |world| world.listening(0) == (50, 50)).await;
    assert!(took.plus(Span::secs(1)) <= STALE.plus(Span::secs(10)), "{took} after the start");
    assert_eq!(bench.writes(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_medic_that_comes_late_asks_before_it_touches_anything() {
    let given = Given::of(Build::PreFix, 4).with_github();
    let mut bench = Bench::new(&given).await;
    bench.pause_passes();
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::secs(10)).await;
    // A person mends one set by hand, and goes home.
    bench.person(ScaleSetId(1), false);
    bench.run(Span::secs(10)).await;
    bench.person(ScaleSetId(1), true);
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (1, 4));
    // The medic was not there: the counters alone leave a choice.
    bench.resume_passes();
    bench.run_until(Span::mins(30), |world| world.listening(0) == (4, 4)).await;
    assert_eq!(bench.listening(), (4, 4));
    assert_eq!(bench.writes(), 6, "the set that listens is not toggled");
    assert_eq!(bench.open_check_sessions(), 0, "every session that the medic opened has ended");
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0);
}

/// GitHub keeps stale sessions for ten minutes, and the medic knows them: how long after its start all sets of the
/// killed manager listen again, and the bench for a closer look.
async fn recovery_with_a_ledger(generation: Build, sets: u32, worker_start: Span) -> (Span, Bench) {
    let mut given = Given::of(generation, sets).with_github().with_log(LogLevel::Debug, LogFormat::Json);
    given.fleet.github.stale_lifetime = Span::mins(10);
    given.fleet = given.fleet.each(|garm| garm.worker_start = worker_start);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    let all = (sets as usize, sets as usize);
    let took = bench.run_until(Span::mins(9), |world| world.listening(0) == all).await;
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.listening(), all, "{generation:?} {sets} sets");
    assert_eq!(bench.deletions(), sets as usize, "{generation:?} {sets} sets: every stale session, and no other");
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0, "no living session was deleted");
    (took, bench)
}

const GENERATIONS: [Build; 3] = [Build::PreFix, Build::PostFix, Build::ListenerMetrics];

#[tokio::test(start_paused = true)]
async fn ledger_heals_in_seconds_at_any_stale_lifetime() {
    for generation in GENERATIONS {
        for (sets, within) in [(4, Span::secs(10)), (50, Span::secs(30))] {
            let (took, bench) = recovery_with_a_ledger(generation, sets, Span::millis(5)).await;
            assert!(took <= within, "{generation:?} {sets} sets: {took}");
            assert_eq!(bench.outcomes(), vec![Outcome::Recovered; sets as usize]);
            let toggles = if generation == Build::PreFix { sets as usize } else { 0 };
            assert_eq!(bench.writes(), 2 * toggles, "{generation:?} {sets} sets");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_worker_starts_lose_no_toggle() {
    for (worker_start, four, fifty) in [(300, 10, 30), (600, 12, 30), (1_000, 15, 45)] {
        for (sets, within) in [(4, Span::secs(four)), (50, Span::secs(fifty))] {
            let (took, bench) = recovery_with_a_ledger(Build::PreFix, sets, Span::millis(worker_start)).await;
            assert!(took <= within, "{worker_start} ms, {sets} sets: {took}");
            assert_eq!(bench.writes(), 2 * sets as usize, "{worker_start} ms, {sets} sets: one toggle each");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retrying_build_needs_a_deletion_and_no_toggle() {
    let given = Given::of(Build::PostFix, 4).with_github().with_log(LogLevel::Debug, LogFormat::Text);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    let took = bench.run_until(Span::mins(5), |world| world.listening(0) == (4, 4)).await;
    assert!(took <= Span::secs(20), "{took}");
    bench.run(Span::mins(2)).await;
    assert_eq!((bench.writes(), bench.deletions()), (0, 4));
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0);
}

#[tokio::test(start_paused = true)]
async fn at_info_level_no_session_is_known_and_none_is_deleted() {
    let given = Given::of(Build::PreFix, 3).with_github().with_log(LogLevel::Info, LogFormat::Json);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(5), |world| world.listening(0) == (3, 3)).await;
    assert_eq!(bench.listening(), (3, 3));
    assert_eq!(bench.deletions(), 0);
    assert_eq!(bench.writes(), 6);
}

#[tokio::test(start_paused = true)]
async fn healthy_fleet_with_log_sees_no_write_for_an_hour() {
    for generation in [Build::PreFix, Build::PostFix, Build::ListenerMetrics] {
        for level in [LogLevel::Debug, LogLevel::Info] {
            let given = Given::of(generation, 3).with_github().with_log(level, LogFormat::Json);
            let mut bench = Bench::new(&given).await;
            bench.run(Span::mins(20)).await;
            bench.with_now(|world, now| world.stop(0, now));
            bench.run(Span::secs(2)).await;
            bench.with_now(|world, now| world.start(0, now));
            bench.restart_medic();
            bench.run(Span::mins(40)).await;
            assert_eq!((bench.writes(), bench.forge_writes()), (0, 0), "{generation:?} {level:?}");
            assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 3], "{generation:?} {level:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn github_is_asked_once_per_entity_however_many_sets_there_are() {
    for sets in [11, 40] {
        let entities = usize::try_from(sets).unwrap().div_ceil(10);
        let mut bench = Bench::new(&Given::of(Build::PreFix, sets).with_github()).await;
        bench.run(Span::mins(3)).await;
        let asked = |bench: &Bench| {
            bench.with(|world| {
                let calls = world.github.calls().filter(|call| call.actor.credential == "medic");
                let routes: Vec<_> = calls.map(|call| call.route).collect();
                (routes.iter().filter(|route| **route == Route::ListSets).count(), routes.len())
            })
        };
        let (lists, all) = asked(&bench);
        bench.run(Span::mins(10)).await;
        let (more_lists, more) = asked(&bench);
        let (more_lists, more) = (more_lists - lists, more - all);
        assert_eq!(more, more_lists, "{sets} sets: nothing but lists");
        // While all is well each entity is asked once a minute.
        assert!((9 * entities..=11 * entities).contains(&more_lists), "{sets} sets: {more_lists} lists");
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_with_jobs_and_proper_restarts_sees_no_write() {
    for generation in [Build::PreFix, Build::PostFix, Build::ListenerMetrics] {
        let mut bench = Bench::new(&Given::of(generation, 4).with_github().with_debug_server()).await;
        for _ in 0..4 {
            bench.with_now(|world, now| {
                let sets: Vec<_> = world.garm(0).unwrap().scale_sets().map(|(_, _, forge)| forge).collect();
                // Two sets have work, two are idle.
                for set in sets.iter().take(2) {
                    world.github.queue_jobs(*set, 3, now);
                }
            });
            bench.run(Span::mins(13)).await;
            bench.with_now(|world, now| world.stop(0, now));
            bench.run(Span::secs(4)).await;
            bench.with_now(|world, now| world.start(0, now));
            bench.run(Span::mins(2)).await;
        }
        assert_eq!((bench.writes(), bench.forge_writes()), (0, 0), "{generation:?}");
        assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4], "{generation:?}");
        let done: u64 = bench.with(|world| {
            let sets: Vec<_> = world.garm(0).unwrap().scale_sets().map(|(_, _, forge)| forge).collect();
            sets.iter().map(|set| world.github.jobs(*set).completed).sum()
        });
        assert_eq!(done, 24, "{generation:?}: every job ran");
    }
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_set_is_told_apart_and_left_to_a_person() {
    let given = Given::of(Build::PostFix, 2).with_log(LogLevel::Info, LogFormat::Json);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(1)).await;
    bench.with_now(|world, now| {
        let (set, _, forge) = world.garm(0).unwrap().scale_sets().next().unwrap();
        world.garm_mut(0).unwrap().0.poison(set, true);
        world.github.queue_jobs(forge, 1, now);
    });
    bench.run(Span::mins(3)).await;
    assert_eq!(bench.diagnoses(), [Diagnosis::Starved, Diagnosis::Listening]);
    assert_eq!(bench.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_died_over_a_vanished_session_is_named_as_such() {
    let given = Given::story(Build::PostFix, true);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(2)).await;
    bench.with_now(|world, now| {
        let set = world.garm(0).unwrap().scale_sets().nth(1).unwrap().2;
        world.github.remove_set(set, now);
    });
    bench.run_until(Span::mins(3), |world| !world.garm(0).unwrap().is_running()).await;
    bench.run(Span::secs(2)).await;
    bench.with_now(|world, now| world.start(0, now));
    let told = |bench: &Bench| bench.status.as_ref().and_then(|status| status.incident.clone()).unwrap_or_default();
    let mut words = String::new();
    for _ in 0..30 {
        bench.run(Span::secs(1)).await;
        words = told(&bench);
        if words.contains("crashed") {
            break;
        }
    }
    assert!(words.contains("GitHub had forgotten the session of linux-1"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn manual_deletion_takes_unseen_sessions_and_no_living_one() {
    let mut given = Given::of(Build::PostFix, 2).with_github().with_log(LogLevel::Info, LogFormat::Json);
    given.fleet.github.stale_lifetime = Span::mins(30);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(1)).await;
    let session = |bench: &Bench, n: usize| {
        bench.with(|world| {
            let forge = world.garm(0).unwrap().scale_sets().nth(n).unwrap().2;
            world.github.holder(forge).unwrap().session
        })
    };
    let order = |bench: &Bench, set: u64, session: SessionId| {
        let store = bench.store.for_manager(bench.engine.name());
        let now = bench.clock.now().wall;
        store.add_manual_heal(ScaleSetId(set), ManualAction::DeleteSession { session }, "alice", now).unwrap().id
    };
    let answer = |bench: &Bench, id| bench.store.for_manager(bench.engine.name()).manual_heal_answer(id).unwrap();
    let living = order(&bench, 1, session(&bench, 0));
    bench.run(Span::secs(20)).await;
    assert!(matches!(answer(&bench, living), Some(ManualHealAnswer::Refused { .. })), "{:?}", answer(&bench, living));
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.deletions(), 0, "nothing is known of these sessions");
    let stale = order(&bench, 1, session(&bench, 0));
    bench.run(Span::secs(20)).await;
    assert!(matches!(answer(&bench, stale), Some(ManualHealAnswer::Treating { .. })), "{:?}", answer(&bench, stale));
    assert_eq!((bench.deletions(), bench.listening()), (1, (1, 2)));
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.with(|world| world.garm(0).unwrap().crashes()), 0);
}

fn incident(bench: &Bench) -> String {
    bench.status.as_ref().and_then(|status| status.incident.clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn measured_lifetimes_are_told_and_so_is_why_nothing_is_deleted() {
    // It sees the sessions, and has no credential to end them.
    let mut bench = Bench::new(&Given::of(Build::PostFix, 2).with_log(LogLevel::Debug, LogFormat::Json)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(2)).await;
    bench.run_until(Span::mins(5), |world| world.listening(0) == (2, 2)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(2)).await;
    bench.run(Span::secs(40)).await;
    let told = incident(&bench);
    assert!(told.contains("GitHub has kept such sessions"), "{told}");
    let status = bench.status.as_ref().unwrap();
    let why = &status.sets[0].not_deleted;
    assert!(why.iter().any(|reason| reason.contains("no GitHub credential")), "{why:?}");
    let mut blind = Bench::new(&Given::of(Build::PostFix, 1).with_log(LogLevel::Info, LogFormat::Json)).await;
    blind.run(Span::mins(1)).await;
    blind.crash_and_restart(Span::secs(2)).await;
    blind.run(Span::secs(40)).await;
    let why = &blind.status.as_ref().unwrap().sets[0].not_deleted;
    assert!(why.iter().any(|reason| reason.contains("was never seen")), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn crash_loop_is_reported_and_left_alone() {
    let mut bench = Bench::new(&Given::story(Build::PreFix, true)).await;
    bench.run(Span::mins(2)).await;
    for _ in 0..4 {
        bench.crash_and_restart(Span::secs(3)).await;
        bench.run(Span::secs(12)).await;
    }
    let writes = bench.writes();
    bench.run(Span::secs(60)).await;
    let told = incident(&bench);
    assert!(told.contains("crash loop"), "{told}");
    assert_eq!(bench.writes(), writes, "nothing is done for a run that may die at once");
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (4, 4));
}
