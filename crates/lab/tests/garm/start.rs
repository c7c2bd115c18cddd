//! How workers start, give up, retry, and start again.

use super::*;

const GAVE_UP: &str = "failed to handle scale set create operation";

#[test]
fn refused_worker_retries_every_2s_with_three_requests() {
    let mut bench = Bench::new(Build::PostFix);
    bench.restart();
    bench.wait(Span::secs(5));
    let since = bench.now;
    bench.wait(Span::secs(20));
    for route in [Route::RegistrationToken, Route::RunnerRegistration, Route::CreateSession] {
        assert_eq!(bench.calls_since(since, route).len(), 20, "{route}");
    }
}

/// What can fail when a worker starts for the first time.
type Trouble = (&'static str, fn(&mut Bench));

const TROUBLES: [Trouble; 9] = [
    ("409", |bench| bench.world.github.phantom_conflict(bench.github_id(FIRST), bench.now.plus(Span::secs(20)))),
    ("503", |bench| bench.inject(Route::CreateSession, FaultKind::status(503))),
    ("reset", |bench| bench.inject(Route::CreateSession, FaultKind::Reset)),
    ("500 to the list", |bench| bench.inject(Route::ListSets, FaultKind::status(500))),
    ("refused list", |bench| bench.inject(Route::ListSets, FaultKind::Refused)),
    ("HTML", |bench| bench.inject(Route::RunnerRegistration, FaultKind::HtmlPage(502))),
    ("401", |bench| bench.world.github.revoke_credentials("garm")),
    ("rate limit", |bench| bench.world.github.exhaust_quota("garm", bench.now.plus(Span::secs(20)))),
    ("unreachable", |bench| {
        for route in [Route::RegistrationToken, Route::RunnerRegistration, Route::CreateSession] {
            bench.inject(route, FaultKind::Refused);
        }
    }),
];

#[test]
fn any_error_of_the_first_start_drops_a_pre_fix_worker() {
    for (name, trouble) in TROUBLES {
        for build in BOTH {
            let mut bench = Bench::down(build, 2, |_, _| {});
            trouble(&mut bench);
            bench.start();
            bench.wait(Span::secs(21));
            bench.world.github.clear_faults();
            bench.world.github.restore_credentials("garm");
            bench.wait(Span::mins(6));
            assert_eq!(bench.listens(FIRST), build.retries(), "{name} {build:?}");
            let gave_up = bench.log().iter().any(|line| line["msg"] == GAVE_UP);
            assert_eq!(gave_up, !build.retries(), "{name} {build:?}");
            if build == Build::PreFix {
                assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Absent, "{name}");
                bench.toggle(FIRST);
                assert!(bench.listens(FIRST), "{name}: a toggle starts it");
            }
        }
    }
}

#[test]
fn failed_starts_back_off_until_the_set_changes() {
    let mut bench = Bench::down(Build::PostFix, 2, |_, _| {});
    bench.inject(Route::ListSets, FaultKind::status(500));
    bench.start();
    bench.wait(Span::hours(1));
    let attempts = count(&bench.log(), "ERROR", "retry failed: starting scale set worker") / 2;
    assert!((15..=20).contains(&attempts), "10 s growing by half to 5 min: {attempts} in an hour");
    bench.world.github.clear_faults();
    bench.enable(FIRST, true);
    bench.wait(Span::secs(6));
    assert!(!bench.listens(FIRST), "a no-op PUT does not reset the back-off");
    bench.toggle(FIRST);
    bench.wait(Span::secs(5));
    assert!(bench.listens(FIRST));
}

#[test]
fn no_op_put_has_no_effect_and_a_change_gives_one_attempt() {
    let mut bench = Bench::new(Build::PreFix);
    bench.restart();
    bench.wait(Span::secs(5));
    let attempts = |bench: &Bench| bench.garm().operations("CreateMessageSession");
    let before = bench.put(FIRST, &json!({"max_runners": 6}));
    bench.wait(Span::secs(5));
    let tried = attempts(&bench);
    bench.garm_mut().take_events();
    let same = bench.put(FIRST, &json!({"enabled": true, "max_runners": 6}));
    bench.wait(Span::secs(5));
    assert_eq!((&same["updated_at"], attempts(&bench)), (&before["updated_at"], tried));
    assert_eq!(bench.garm_mut().take_events(), Vec::<Bytes>::new());
    let changed = bench.put(FIRST, &json!({"max_runners": 7}));
    bench.wait(Span::secs(5));
    assert_ne!(changed["updated_at"], before["updated_at"]);
    assert_eq!(attempts(&bench), (tried.0 + 1, tried.1 + 1), "one attempt, refused");
    assert_eq!(bench.garm_mut().take_events().len(), 1);
}

#[test]
fn many_toggles_make_one_retry_loop() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        bench.restart();
        bench.wait(Span::secs(10));
        for _ in 0..5 {
            bench.toggle(FIRST);
        }
        bench.world.github.reconfigure(|github| github.stale_lifetime = Span::hours(1));
        bench.enable(SECOND, false);
        let since = bench.now;
        bench.wait(Span::secs(20));
        assert_eq!(bench.calls_since(since, Route::CreateSession).len(), 10, "{build:?}");
    }
}

#[test]
fn put_during_boot_starts_no_second_worker() {
    for build in BOTH {
        let mut bench = Bench::down(build, 2, |_, _| {});
        bench.start();
        bench.wait(Span::millis(100));
        bench.enable(FIRST, false);
        bench.enable(FIRST, true);
        bench.wait(Span::secs(10));
        assert!(bench.listens(FIRST), "{build:?}");
        assert_eq!(count(&bench.log(), "DEBUG", "starting scale set worker"), 2, "{build:?}: one for each set");
        assert_eq!(bench.calls_since(START, Route::CreateSession).len(), 2, "{build:?}");
    }
}

#[test]
fn enable_before_the_new_worker_is_registered_is_lost() {
    for (pause, listens) in [(Span::millis(200), false), (Span::secs(5), true)] {
        let mut bench = Bench::new(Build::PreFix);
        bench.restart();
        bench.wait(Span::mins(3));
        bench.world.github.reconfigure(|github| github.latency = Span::millis(500));
        bench.enable(FIRST, false);
        bench.wait(pause);
        bench.enable(FIRST, true);
        bench.wait(Span::mins(5));
        assert!(bench.garm().is_enabled(FIRST));
        assert_eq!(bench.listens(FIRST), listens, "{pause} between the writes");
        if !listens {
            assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Idle, "it has missed the event");
            bench.enable(FIRST, false);
            bench.wait(Span::secs(5));
            bench.enable(FIRST, true);
            bench.wait(Span::secs(10));
            assert!(bench.listens(FIRST), "a slower toggle helps");
        }
    }
}

#[test]
fn busy_pre_fix_controller_drops_events_after_a_second() {
    let mut bench = Bench::down(Build::PreFix, 8, |_, _| {});
    bench.start();
    bench.wait(Span::secs(6));
    bench.restart();
    bench.wait(Span::mins(3));
    bench.world.github.reconfigure(|github| github.latency = Span::millis(400));
    bench.log();
    for set in 1..=8 {
        bench.enable(ScaleSetId(set), false);
    }
    bench.wait(Span::secs(30));
    let dropped = count(&bench.log(), "DEBUG", "timeout trying to send payload");
    assert_eq!(dropped, 6, "one was handled, one waited in the slot");
    assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Idle);
    assert_eq!(bench.garm().worker(ScaleSetId(8)), WorkerTruth::Absent);
}

#[test]
fn worker_does_not_start_when_github_has_another_set_id() {
    for build in BOTH {
        let mut bench = Bench::down(build, 2, |_, _| {});
        let id = bench.github_id(FIRST);
        bench.world.github.remove_set(id, START);
        bench.world.github.add_set(&NewSet { entity: acme(0), name: "linux-0".to_owned() }, START);
        bench.start();
        bench.wait(Span::mins(2));
        assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Absent);
        assert!(bench.listens(SECOND));
        let log = bench.log();
        let text = "it differs from the ID we know (github: 3 vs local: 1)";
        let said =
            log.iter().filter(|l| l["level"] == "ERROR" && l["error"].as_str().is_some_and(|e| e.contains(text)));
        let said = said.count();
        assert_eq!(said > 1, build.retries(), "{said} lines: later builds try again");
        assert!(said < 12);
    }
}
