//! How workers start, give up, retry, and start again.

use super::*;
use crate::github::{Fault, FaultKind};

const GAVE_UP: &str = "failed to handle scale set create operation";

#[test]
fn stale_session_drops_a_pre_fix_worker_after_one_attempt() {
    let mut bench = Bench::new(Build::PreFix);
    assert!(bench.listens(FIRST) && bench.listens(SECOND));
    bench.log();
    let killed = bench.now;
    bench.restart();
    bench.wait(Span::mins(30));
    let log = bench.log();
    assert_eq!(count(&log, "ERROR", GAVE_UP), 2);
    let line = log.iter().find(|line| line["msg"] == GAVE_UP).unwrap();
    let error = line["error"].as_str().unwrap();
    let begin = "error starting scale set worker: error starting listener: creating message session: failed to execute \
                 request to http://github.test/svc/acme/_apis/runtime/runnerscalesets/1/sessions?api-version=6.0-preview: \
                 conflict while calling ";
    assert!(error.starts_with(begin), "{error}");
    assert!(error.contains("already has an active session"), "{error}");
    assert!(line["worker"].as_str().unwrap().starts_with("scaleset-controller-"));
    assert_eq!(bench.calls_since(killed, Route::CreateSession).len(), 2, "one attempt for each set");
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent);
    assert_eq!(bench.garm.operations("CreateMessageSession"), (2, 2));
    assert!(bench.github.holder(bench.github_id(FIRST)).is_none(), "the stale session has long expired");
    let set = body(&bench.get("/api/v1/scalesets/1"));
    assert_eq!((&set["enabled"], &set["state"]), (&json!(true), &json!("pending_create")), "the API shows no error");
}

#[test]
fn post_fix_worker_retries_every_2s_until_the_session_expires() {
    let mut bench = Bench::new(Build::PostFix);
    let killed = bench.now;
    bench.restart();
    bench.wait(Span::secs(20));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Retrying);
    let attempts = bench.calls_since(killed, Route::CreateSession);
    assert!((18..=20).contains(&attempts.len()), "{attempts:?}");
    bench.wait(Span::secs(90 - 21));
    assert!(!bench.listens(FIRST));
    bench.wait(Span::secs(3));
    assert!(bench.listens(FIRST) && bench.listens(SECOND));
    let log = bench.log();
    assert_eq!(count(&log, "ERROR", GAVE_UP), 0);
    let line = log.iter().find(|line| line["msg"] == "error starting listener").unwrap();
    assert_eq!(line["consumer_id"], line["worker"]);
}

#[test]
fn every_attempt_costs_three_requests() {
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

fn inject(bench: &mut Bench, route: Route, kind: FaultKind) {
    bench.github.inject(Fault::on(route, kind));
}

const TROUBLES: [Trouble; 9] = [
    ("409", |bench| bench.github.phantom_conflict(bench.github_id(FIRST), bench.now.plus(Span::secs(20)))),
    ("503", |bench| inject(bench, Route::CreateSession, FaultKind::status(503))),
    ("reset", |bench| inject(bench, Route::CreateSession, FaultKind::Reset)),
    ("500 to the list", |bench| inject(bench, Route::ListSets, FaultKind::status(500))),
    ("refused list", |bench| inject(bench, Route::ListSets, FaultKind::Refused)),
    ("HTML", |bench| inject(bench, Route::RunnerRegistration, FaultKind::HtmlPage(502))),
    ("401", |bench| bench.github.revoke_credentials("garm")),
    ("rate limit", |bench| bench.github.exhaust_quota("garm", bench.now.plus(Span::secs(20)))),
    ("unreachable", |bench| {
        for route in [Route::RegistrationToken, Route::RunnerRegistration, Route::CreateSession] {
            inject(bench, route, FaultKind::Refused);
        }
    }),
];

#[test]
fn any_error_of_the_first_start_drops_a_pre_fix_worker() {
    for (name, trouble) in TROUBLES {
        for build in BOTH {
            let mut bench = Bench::down(build, |_| {}, |_| {});
            trouble(&mut bench);
            bench.start();
            bench.wait(Span::secs(21));
            bench.github.clear_faults();
            bench.github.restore_credentials("garm");
            bench.wait(Span::mins(6));
            assert_eq!(bench.listens(FIRST), build.retries(), "{name} {build:?}");
            let gave_up = bench.log().iter().any(|line| line["msg"] == GAVE_UP);
            assert_eq!(gave_up, !build.retries(), "{name} {build:?}");
            if build == Build::PreFix {
                assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent, "{name}");
                bench.toggle(FIRST);
                assert!(bench.listens(FIRST), "{name}: a toggle starts it");
            }
        }
    }
}

#[test]
fn failed_starts_back_off_until_the_set_changes() {
    let mut bench = Bench::down(Build::PostFix, |_| {}, |_| {});
    inject(&mut bench, Route::ListSets, FaultKind::status(500));
    bench.start();
    bench.wait(Span::hours(1));
    let attempts = count(&bench.log(), "ERROR", "retry failed: starting scale set worker") / 2;
    assert!((15..=20).contains(&attempts), "10 s growing by half to 5 min: {attempts} in an hour");
    bench.github.clear_faults();
    bench.enable(FIRST, true);
    bench.wait(Span::secs(6));
    assert!(!bench.listens(FIRST), "a no-op PUT does not reset the back-off");
    bench.toggle(FIRST);
    bench.wait(Span::secs(5));
    assert!(bench.listens(FIRST));
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
        bench.github.reconfigure(|github| github.stale_lifetime = Span::hours(1));
        bench.enable(SECOND, false);
        let since = bench.now;
        bench.wait(Span::secs(20));
        assert_eq!(bench.calls_since(since, Route::CreateSession).len(), 10, "{build:?}");
    }
}

#[test]
fn put_during_boot_starts_no_second_worker() {
    for build in BOTH {
        let mut bench = Bench::down(build, |_| {}, |_| {});
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
fn no_op_put_has_no_effect_and_a_change_gives_one_attempt() {
    let mut bench = Bench::new(Build::PreFix);
    bench.restart();
    bench.wait(Span::secs(5));
    bench.garm.take_events();
    let before = body(&bench.get("/api/v1/scalesets/1"));
    let after = bench.enable(FIRST, true);
    bench.wait(Span::secs(5));
    assert_eq!(before["updated_at"], after["updated_at"]);
    assert!(bench.garm.take_events().is_empty());
    assert_eq!(bench.garm.operations("CreateMessageSession"), (2, 2));
    let after = bench.put(FIRST, &json!({"max_runners": 6}));
    bench.wait(Span::secs(5));
    assert_ne!(before["updated_at"], after["updated_at"]);
    assert_eq!(bench.garm.operations("CreateMessageSession"), (3, 3));
    assert_eq!(count(&bench.log(), "ERROR", "failed to handle scale set update operation"), 1);
    bench.wait(Span::mins(2));
    bench.put(FIRST, &json!({"max_runners": 7}));
    bench.wait(Span::secs(5));
    assert!(bench.listens(FIRST), "the stale session is over");
}

#[test]
fn toggle_restarts_a_dropped_worker_during_the_conflict() {
    let mut bench = Bench::new(Build::PreFix);
    bench.restart();
    bench.wait(Span::secs(5));
    let answer = bench.enable(FIRST, false);
    assert!(answer.get("enabled").is_none(), "a false `enabled` is left out");
    bench.wait(Span::secs(1));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle);
    assert_eq!(count(&bench.log(), "INFO", "scale set is disabled; not starting listener"), 1);
    bench.enable(FIRST, true);
    let since = bench.now;
    bench.wait(Span::secs(20));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Retrying);
    assert!((9..=10).contains(&bench.calls_since(since, Route::CreateSession).len()), "every 2 s");
    assert_eq!(bench.garm.worker(SECOND), WorkerTruth::Absent);
    bench.wait(Span::secs(70));
    assert!(bench.listens(FIRST));
    assert_eq!(bench.garm.writes().len(), 2);
    assert_eq!((bench.garm.writes()[0].was, bench.garm.writes()[0].enabled), (true, false));
    assert_eq!(bench.garm.writes()[0].by, "test");
}

#[test]
fn enable_before_the_new_worker_is_registered_is_lost() {
    for (pause, listens) in [(Span::millis(200), false), (Span::secs(5), true)] {
        let mut bench = Bench::new(Build::PreFix);
        bench.restart();
        bench.wait(Span::mins(3));
        bench.github.reconfigure(|github| github.latency = Span::millis(500));
        bench.enable(FIRST, false);
        bench.wait(pause);
        bench.enable(FIRST, true);
        bench.wait(Span::mins(5));
        assert!(bench.garm.is_enabled(FIRST));
        assert_eq!(bench.listens(FIRST), listens, "{pause} between the writes");
        if !listens {
            assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle, "it has missed the event");
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
    let mut bench = Bench::down(Build::PreFix, |_| {}, |_| {});
    for n in 0..6 {
        let name = format!("more-{n}");
        let id = bench.github.add_set(&NewSet { entity: acme(), name: name.clone() }, START);
        bench.garm.add_scale_set(&acme(), &name, id, START);
    }
    bench.start();
    bench.wait(Span::secs(6));
    bench.restart();
    bench.wait(Span::mins(3));
    bench.github.reconfigure(|github| github.latency = Span::millis(400));
    bench.log();
    for set in 1..=8 {
        bench.enable(ScaleSetId(set), false);
    }
    bench.wait(Span::secs(30));
    let dropped = count(&bench.log(), "DEBUG", "timeout trying to send payload");
    assert_eq!(dropped, 6, "one was handled, one waited in the slot");
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle);
    assert_eq!(bench.garm.worker(ScaleSetId(8)), WorkerTruth::Absent);
}

#[test]
fn worker_does_not_start_when_github_has_another_set_id() {
    for build in BOTH {
        let mut bench = Bench::down(build, |_| {}, |_| {});
        let id = bench.github_id(FIRST);
        bench.github.remove_set(id, START);
        bench.github.add_set(&NewSet { entity: acme(), name: "set-a".to_owned() }, START);
        bench.start();
        bench.wait(Span::mins(2));
        assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent);
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

#[test]
fn new_set_is_started_at_once_or_by_the_next_tick() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        let id = bench.github.add_set(&NewSet { entity: acme(), name: "late".to_owned() }, bench.now);
        let set = bench.garm.add_scale_set(&acme(), "late", id, bench.now);
        bench.wait(Span::millis(100));
        assert_eq!(bench.listens(set), !build.retries(), "{build:?}");
        bench.wait(Span::secs(5));
        assert!(bench.listens(set), "{build:?}");
    }
}
