//! Incidents in virtual time: the real engine, clients, parsers and store against the simulators in process.

use crate::bench::{BUILDS, Bench, Given};
use medic_core::model::{
    Diagnosis, ManualAction, ManualHealAnswer, Note, Outcome, PauseScope, ScaleSetId, SessionId, Span,
};
use medic_lab::garm::{Build, LogFormat, LogLevel, LostPut, ManagerFault, ManagerRoute, WorkerTruth};
use medic_lab::github::{Fault, FaultKind, Route, Takeover};
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
async fn crash_of_a_build_that_gives_up_is_healed() {
    let of = |sets| Given::of(Build::PreFix, sets);
    for (sets, given) in [
        (4, of(4)),
        (4, of(4).with_debug_server()),
        (50, of(50)),
        (50, of(50).with_debug_server()),
        // Without debug lines no session is known, and none is deleted.
        (3, of(3).with_github().with_log(LogLevel::Info, LogFormat::Json)),
    ] {
        let mut bench = Bench::new(&given).await;
        bench.run(Span::mins(2)).await;
        assert_eq!((bench.listening(), bench.writes()), ((sets, sets), 0), "a healthy fleet is left alone");
        bench.crash_and_restart(Span::secs(1)).await;
        let took = bench.until_all_listen(Span::mins(5)).await;
        assert!(took.plus(Span::secs(1)) <= STALE.plus(Span::secs(10)), "{sets} sets: {took} after the start");
        bench.run(Span::mins(3)).await;
        assert_eq!(bench.diagnoses(), vec![Diagnosis::Listening; sets]);
        assert_eq!(bench.writes(), 2 * sets, "each set was disabled and enabled once");
        assert_eq!(bench.outcomes(), vec![Outcome::Recovered; sets]);
        assert_eq!((bench.crashes(), bench.deletions()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn observe_mode_reports_and_writes_nothing() {
    let mut bench = Bench::after_a_crash(&Given::of(Build::PreFix, 4).observing(), Span::mins(1)).await;
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
async fn build_that_retries_is_not_touched() {
    for build in [Build::PostFix, Build::ListenerMetrics] {
        let mut bench = Bench::after_a_crash(&Given::of(build, 4), Span::mins(2)).await;
        bench.run(Span::secs(30)).await;
        assert_eq!(bench.diagnoses(), [Diagnosis::ConflictRetrying; 4], "{build:?}");
        bench.run(Span::mins(3)).await;
        assert_eq!(bench.diagnoses(), [Diagnosis::Listening; 4], "{build:?}");
        assert_eq!(bench.writes(), 0, "{build:?}");
        assert_eq!(bench.events("recovery", "self_recovered"), 4, "{build:?}");
        assert!(bench.metrics().contains("recoveries_total{cause=\"self\",manager=\"garm\"} 4"), "{build:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn healthy_fleet_with_jobs_and_clean_restarts_has_no_write() {
    for build in BUILDS {
        let of = || Given::of(build, 4);
        for (sources, given, restarts) in [
            ("metrics", of(), 2),
            ("API", of().without_metrics(), 0),
            ("metrics, goroutines, GitHub", of().with_github().with_debug_server(), 2),
            ("debug log, GitHub", of().with_github().with_log(LogLevel::Debug, LogFormat::Json), 2),
            ("info log, GitHub", of().with_github().with_log(LogLevel::Info, LogFormat::Text), 2),
        ] {
            let what = format!("{build:?}: {sources}");
            let mut bench = Bench::new(&given).await;
            // Two sets have work, two are idle.
            let ids = bench.github_ids();
            bench.with_now(|world, now| ids[..2].iter().for_each(|set| world.github.queue_jobs(*set, 3, now)));
            bench.run(Span::mins(20)).await;
            bench.stop_and_start(Span::secs(3)).await;
            bench.restart_medic();
            bench.run(Span::mins(5)).await;
            bench.stop_and_start(Span::secs(3)).await;
            bench.run(Span::mins(20)).await;
            assert_eq!((bench.writes(), bench.github_writes()), (0, 0), "{what}");
            assert_eq!(bench.listening(), (4, 4), "{what}");
            assert!(bench.diagnoses().iter().all(|diagnosis| !diagnosis.is_ill()), "{what}: {:?}", bench.diagnoses());
            let done: u64 = bench.with(|world| ids.iter().map(|set| world.github.jobs(*set).completed).sum());
            assert_eq!(done, 6, "{what}: every job ran");
            let line = format!("manager_restarts_total{{kind=\"clean\",manager=\"garm\"}} {restarts}\n");
            assert!(bench.metrics().contains(&line), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn starved_set_is_diagnosed_and_left_alone() {
    let given = Given::of(Build::PostFix, 2).with_log(LogLevel::Info, LogFormat::Json);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(1)).await;
    let set = bench.github_ids()[0];
    bench.with(|world| world.garm_mut(0).unwrap().0.poison(ScaleSetId(1), true));
    bench.with_now(|world, now| world.github.queue_jobs(set, 1, now));
    bench.run(Span::mins(3)).await;
    assert_eq!((bench.diagnoses(), bench.writes()), (vec![Diagnosis::Starved, Diagnosis::Listening], 0));
}

#[tokio::test(start_paused = true)]
async fn operator_disabled_set_stays_disabled() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 4)).await;
    bench.run(Span::mins(1)).await;
    bench.operator_sets(ScaleSetId(2), false);
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
async fn reload_keeps_a_toggle_and_exit_enables_at_once() {
    for (hands_over, enabled) in [(true, 2), (false, 3)] {
        let mut bench = Bench::after_a_crash(&Given::of(Build::PreFix, 3), Span::mins(1)).await;
        let same = [bench.engine.name().clone()].into_iter().collect();
        let ending = if hands_over { Ending::HandedOver(same) } else { Ending::Finished };
        bench.serve_until(|world| world.listening(0).1 < 3, ending).await;
        assert_eq!(bench.listening(), (0, enabled));
        bench.run(Span::mins(10)).await;
        assert_eq!(bench.listening(), (3, 3));
        assert_eq!(bench.writes(), 6, "each set once");
    }
}

/// All sets are stuck, and the medic has disabled the first.
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
        "INSERT INTO treatments (manager, set_id, opened, closed, outcome, is_intent, treatment)
         SELECT manager, 99, opened, opened, 'recovered', 0, '{\"of\": \"a later release\"}' FROM treatments",
    );
    bench.run(Span::mins(5)).await;
    assert_eq!((bench.listening(), bench.writes()), ((1, 3), 2), "one set is treated, and no other");
    let blocked = format!("{:?}", bench.status.as_ref().unwrap().sets[1].decision);
    assert!(blocked.contains("guard: Store") && blocked.contains("holds JSON that does not parse"), "{blocked}");
    bench.damage("DELETE FROM treatments WHERE set_id = 99");
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn unreadable_open_treatment_is_undone_from_memory() {
    let mut bench = in_the_middle_of_a_toggle().await;
    bench.damage("UPDATE treatments SET treatment = '{' WHERE closed IS NULL");
    bench.run(Span::mins(1)).await;
    assert_eq!(bench.listening().1, 3, "no set is left disabled");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_resolved_by_reading() {
    for lost in [LostPut::AfterEffect, LostPut::BeforeEffect] {
        let mut bench = Bench::after_a_crash(&Given::of(Build::PreFix, 2), Span::mins(1)).await;
        bench.with(|world| world.garm_mut(0).unwrap().0.lose_next_put(lost));
        let disabled = |world: &World| world.listening(0).1 < 2;
        bench.run_until(Span::mins(3), disabled).await;
        bench.with(|world| world.garm_mut(0).unwrap().0.lose_next_put(lost));
        bench.until_all_listen(Span::mins(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_404_to_the_enable_leaves_no_set_disabled() {
    let mut bench = in_the_middle_of_a_toggle().await;
    let fault = ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::HtmlPage(404)).times(3);
    bench.with(|world| world.garm_mut(0).unwrap().0.inject(fault));
    bench.run(Span::mins(10)).await;
    assert_eq!(bench.listening(), (3, 3));
    assert_eq!(bench.outcomes()[0], Outcome::Recovered);
}

#[tokio::test(start_paused = true)]
async fn operator_change_mid_toggle_aborts_the_treatment() {
    let mut bench = Bench::after_a_crash(&Given::of(Build::PreFix, 1), Span::mins(1)).await;
    bench.run_until(Span::mins(2), |world| world.listening(0).1 == 0).await;
    let set = ScaleSetId(1);
    // The medic disabled it. The operator enables and disables it: now it is disabled by the operator.
    bench.operator_sets(set, true);
    bench.operator_sets(set, false);
    bench.run(Span::mins(10)).await;
    assert!(!bench.with(|world| world.garm(0).unwrap().is_enabled(set)));
    assert_eq!(bench.writes(), 1, "the disable alone");
    assert_eq!(bench.outcomes(), [Outcome::Aborted]);
    assert_eq!(bench.diagnoses(), [Diagnosis::Disabled]);
}

#[tokio::test(start_paused = true)]
async fn pause_blocks_new_treatments() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 2)).await;
    bench.run(Span::mins(1)).await;
    bench.pause(PauseScope::All, Span::mins(10));
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::mins(8)).await;
    assert_eq!((bench.writes(), bench.listening()), (0, (0, 2)));
    assert!(bench.metrics().contains("withheld_total{guard=\"paused\",manager=\"garm\"} 2"));
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (2, 2), "the pause has expired");
}

#[tokio::test(start_paused = true)]
async fn pause_stops_a_treatment_that_has_sent_nothing() {
    let mut bench = Bench::new(&Given::of(Build::PreFix, 2)).await;
    bench.run(Span::mins(1)).await;
    // The read before the disable fails.
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
    assert_eq!(bench.closed[0].why(), Some(&Note::Paused { sent: false }));
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
    let full = Arc::new(FullMeanwhile::default());
    let disk = Arc::clone(&full);
    let open = |dir: &Path| Store::open_on_faulty_disk(dir, disk).unwrap();
    let mut bench = Bench::with_store(&Given::of(Build::PreFix, 3), open).await;
    bench.run(Span::mins(1)).await;
    full.0.set(Arc::downgrade(&bench.hub)).unwrap();
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run_until(Span::mins(2), |world| world.listening(0).1 < 3).await;
    let disabled = bench.run_until(Span::mins(2), |world| world.listening(0).1 == 3).await;
    // As after a crash, it would read the set and wait for a second copy of the disable.
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
    bench.until_all_listen(Span::mins(10)).await;
    assert_eq!(bench.crashes(), 0);
}

#[tokio::test(start_paused = true)]
async fn session_of_another_controller_is_never_touched() {
    let mut bench = Bench::new(&Given::of(Build::PostFix, 2).with_github()).await;
    bench.run(Span::mins(1)).await;
    bench.with_now(|world, now| {
        let set = world.garm(0).unwrap().scale_sets().next().unwrap().2;
        world.kill(0, now);
        let until = now.plus(Span::hours(2));
        world.github.foreign_owner_takes(set, "garm-of-somebody-else", Takeover::AtOnce, now, until);
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
        let sweeps = 40;
        let more = bench.exchanges("manager") - before;
        // Set list and counters per sweep, sometimes instances; the controller's identity every ten minutes.
        assert!((sweeps * 2..=sweeps * 3 + 4).contains(&more), "{sets} sets: {more} requests in {sweeps} sweeps");
    }
}

#[tokio::test(start_paused = true)]
async fn medic_started_late_checks_sessions_first() {
    let given = Given::of(Build::PreFix, 4).with_github();
    let mut bench = Bench::new(&given).await;
    bench.stopped = true;
    bench.run(Span::mins(1)).await;
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::secs(10)).await;
    // An operator repairs one set by hand.
    bench.operator_sets(ScaleSetId(1), false);
    bench.run(Span::secs(10)).await;
    bench.operator_sets(ScaleSetId(1), true);
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (1, 4));
    // The medic did not run: with counters alone it cannot tell which set listens.
    bench.stopped = false;
    bench.until_all_listen(Span::mins(30)).await;
    assert_eq!(bench.writes(), 6, "the set that listens is not toggled");
    assert_eq!(bench.open_check_sessions(), 0, "every session that the medic opened has ended");
    assert_eq!(bench.crashes(), 0);
}

/// GitHub keeps stale sessions for ten minutes, and the medic knows them.
#[tokio::test(start_paused = true)]
async fn ledger_heals_in_seconds_at_any_stale_lifetime() {
    for (build, sets, worker_start, within) in [
        (Build::PreFix, 4, 5, 10),
        (Build::PreFix, 50, 5, 30),
        (Build::PostFix, 4, 5, 10),
        (Build::PostFix, 50, 5, 30),
        (Build::ListenerMetrics, 4, 5, 10),
        (Build::ListenerMetrics, 50, 5, 30),
        // Slow starts of workers lose no toggle.
        (Build::PreFix, 4, 300, 10),
        (Build::PreFix, 50, 300, 30),
        (Build::PreFix, 4, 600, 12),
        (Build::PreFix, 50, 600, 30),
        (Build::PreFix, 4, 1_000, 15),
        (Build::PreFix, 50, 1_000, 45),
    ] {
        let what = format!("{build:?}, {sets} sets, {worker_start} ms");
        let format = if build == Build::PostFix { LogFormat::Text } else { LogFormat::Json };
        let mut given = Given::of(build, sets).with_github().with_log(LogLevel::Debug, format);
        given.fleet.github.stale_lifetime = Span::mins(10);
        given.fleet = given.fleet.each(|garm| garm.worker_start = Span::millis(worker_start));
        let mut bench = Bench::after_a_crash(&given, Span::mins(2)).await;
        let took = bench.until_all_listen(Span::mins(9)).await;
        assert!(took <= Span::secs(within), "{what}: {took}");
        bench.run(Span::mins(2)).await;
        let sets = sets as usize;
        assert_eq!(bench.listening(), (sets, sets), "{what}");
        assert_eq!(bench.deletions(), sets, "{what}: every stale session, and no other");
        assert_eq!(bench.crashes(), 0, "{what}: no living session was deleted");
        assert_eq!(bench.outcomes(), vec![Outcome::Recovered; sets], "{what}");
        let toggles = if build == Build::PreFix { sets } else { 0 };
        assert_eq!(bench.writes(), 2 * toggles, "{what}: one toggle each");
    }
}

#[tokio::test(start_paused = true)]
async fn github_is_asked_once_per_entity() {
    for sets in [11, 40] {
        let entities = usize::try_from(sets).unwrap().div_ceil(10);
        let mut bench = Bench::new(&Given::of(Build::PreFix, sets).with_github()).await;
        bench.run(Span::mins(3)).await;
        let calls =
            |bench: &Bench| (bench.github_calls(|route| route == Route::ListSets), bench.github_calls(|_| true));
        let (lists, all) = calls(&bench);
        bench.run(Span::mins(10)).await;
        let (more_lists, more) = calls(&bench);
        let (more_lists, more) = (more_lists - lists, more - all);
        assert_eq!(more, more_lists, "{sets} sets: nothing but lists");
        // On a healthy fleet, once a minute.
        assert!((9 * entities..=11 * entities).contains(&more_lists), "{sets} sets: {more_lists} lists");
    }
}

#[tokio::test(start_paused = true)]
async fn crash_after_a_vanished_session_names_its_cause() {
    let given = Given::for_scenario(Build::PostFix, true);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(2)).await;
    let set = bench.github_ids()[1];
    bench.with_now(|world, now| world.github.remove_set(set, now));
    bench.run_until(Span::mins(3), |world| !world.garm(0).unwrap().is_running()).await;
    bench.run(Span::secs(2)).await;
    bench.with_now(|world, now| world.start(0, now));
    for _ in 0..30 {
        bench.run(Span::secs(1)).await;
        if bench.incident().contains("crashed") {
            break;
        }
    }
    let incident = bench.incident();
    assert!(incident.contains("GitHub had forgotten the session of linux-1"), "{incident}");
}

#[tokio::test(start_paused = true)]
async fn manual_deletion_is_refused_for_a_session_in_use() {
    let mut given = Given::of(Build::PostFix, 2).with_github().with_log(LogLevel::Info, LogFormat::Json);
    given.fleet.github.stale_lifetime = Span::mins(30);
    let mut bench = Bench::new(&given).await;
    bench.run(Span::mins(1)).await;
    let set = bench.github_ids()[0];
    let session = |bench: &Bench| bench.with(|world| world.github.holder(set).unwrap().session);
    let request = |bench: &Bench, session: SessionId| {
        let store = bench.store.for_manager(bench.engine.name());
        let now = bench.clock.now().wall;
        store.add_manual_heal(ScaleSetId(1), ManualAction::DeleteSession { session }, "alice", now).unwrap().id
    };
    let answer = |bench: &Bench, id| bench.store.for_manager(bench.engine.name()).manual_heal_answer(id).unwrap();
    let living = request(&bench, session(&bench));
    bench.run(Span::secs(20)).await;
    assert!(matches!(answer(&bench, living), Some(ManualHealAnswer::Refused { .. })), "{:?}", answer(&bench, living));
    bench.crash_and_restart(Span::secs(1)).await;
    bench.run(Span::mins(2)).await;
    assert_eq!(bench.deletions(), 0, "these sessions are unknown");
    let stale = request(&bench, session(&bench));
    bench.run(Span::secs(20)).await;
    assert!(matches!(answer(&bench, stale), Some(ManualHealAnswer::Treating { .. })), "{:?}", answer(&bench, stale));
    assert_eq!((bench.deletions(), bench.listening()), (1, (1, 2)));
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.crashes(), 0);
}

#[tokio::test(start_paused = true)]
async fn incident_shows_stale_lifetimes_and_undeleted_sessions() {
    // The medic sees the sessions, but has no credential to delete them.
    let mut bench = Bench::new(&Given::of(Build::PostFix, 2).with_log(LogLevel::Debug, LogFormat::Json)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(2)).await;
    bench.until_all_listen(Span::mins(5)).await;
    bench.run(Span::mins(2)).await;
    bench.crash_and_restart(Span::secs(2)).await;
    bench.run(Span::secs(40)).await;
    let incident = bench.incident();
    assert!(incident.contains("GitHub has kept such sessions"), "{incident}");
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
    let mut bench = Bench::new(&Given::for_scenario(Build::PreFix, true)).await;
    bench.run(Span::mins(2)).await;
    for _ in 0..4 {
        bench.crash_and_restart(Span::secs(3)).await;
        bench.run(Span::secs(12)).await;
    }
    let writes = bench.writes();
    bench.run(Span::secs(60)).await;
    let incident = bench.incident();
    assert!(incident.contains("crash loop"), "{incident}");
    assert_eq!(bench.writes(), writes, "nothing is done in a crash loop");
    bench.run(Span::mins(5)).await;
    assert_eq!(bench.listening(), (4, 4));
}
