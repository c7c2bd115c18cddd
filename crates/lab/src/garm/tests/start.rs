//! How workers start, give up, retry, and are revived.

use super::*;
use crate::github::{Fault, FaultKind, QuotaAnswer};

const GAVE_UP: &str = "failed to handle scale set create operation";

#[test]
fn a_stale_session_leaves_a_pre_fix_worker_dead_with_one_attempt_and_one_line() {
    let mut bench = Bench::new(Build::PreFix);
    assert!(bench.listens(FIRST) && bench.listens(SECOND));
    bench.log();
    let killed = bench.now;
    bench.restart();
    bench.wait(Span::mins(30));
    let log = bench.log();
    assert_eq!(count(&log, "ERROR", GAVE_UP), 2);
    let line = log.iter().find(|line| line.msg == GAVE_UP).unwrap();
    let error = line.all["error"].as_str().unwrap();
    let begin = "error starting scale set worker: error starting listener: creating message session: failed to execute \
                 request to http://github.test/svc/acme/_apis/runtime/runnerscalesets/1/sessions?api-version=6.0-preview: \
                 conflict while calling ";
    assert!(error.starts_with(begin), "{error}");
    assert!(error.contains("already has an active session"), "{error}");
    assert!(line.all["worker"].as_str().unwrap().starts_with("scaleset-controller-"));
    assert_eq!(bench.calls_since(killed, Route::CreateSession).len(), 2, "one attempt for each set");
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent);
    assert_eq!(bench.garm.operations("CreateMessageSession"), (2, 2));
    assert!(bench.github.holder(bench.github_id(FIRST)).is_none(), "the stale session has long expired");
    let set = body(&bench.get("/api/v1/scalesets/1"));
    assert_eq!((&set["enabled"], &set["state"]), (&json!(true), &json!("pending_create")), "the API looks well");
}

#[test]
fn a_post_fix_worker_tries_every_two_seconds_and_heals_with_the_expiry() {
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
    let line = log.iter().find(|line| line.msg == "error starting listener").unwrap();
    assert_eq!(line.all["consumer_id"], line.all["worker"]);
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

#[test]
fn any_error_of_the_first_start_kills_a_pre_fix_worker_and_no_other() {
    let limited = FaultKind::Answer {
        status: 403,
        content_type: "application/json".to_owned(),
        body: r#"{"message":"API rate limit exceeded for this credential."}"#.to_owned(),
    };
    for fault in [
        Fault::on(Route::CreateSession, FaultKind::status(500)),
        Fault::on(Route::RegistrationToken, FaultKind::status(401)),
        Fault::on(Route::RegistrationToken, limited),
        Fault::on(Route::RunnerRegistration, FaultKind::HtmlPage(502)),
        Fault::on(Route::ListSets, FaultKind::Refused),
        Fault::on(Route::CreateSession, FaultKind::Reset),
    ] {
        for build in BOTH {
            let mut bench = Bench::down(build, |_| {}, |_| {});
            bench.github.inject(fault.clone());
            bench.start();
            bench.wait(Span::secs(30));
            bench.github.clear_faults();
            bench.wait(Span::mins(6));
            assert_eq!(bench.listens(FIRST), build.retries(), "{fault:?} {build:?}");
        }
    }
}

#[test]
fn an_exhausted_quota_is_such_an_error() {
    let mut bench = Bench::down(
        Build::PreFix,
        |_| {},
        |github| {
            github.quota_answer = QuotaAnswer { status: 429, retry_after: true };
        },
    );
    bench.github.exhaust_quota("garm", START.plus(Span::mins(10)));
    bench.start();
    bench.wait(Span::mins(15));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent);
    let log = bench.log();
    assert!(log.iter().any(|line| line.msg == GAVE_UP && line.all["error"].as_str().unwrap().contains("429")));
}

#[test]
fn a_no_op_put_wakes_nobody_and_a_real_change_gives_one_attempt() {
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
    let after = bench.put(FIRST, &json!({"runner_bootstrap_timeout": 21}));
    bench.wait(Span::secs(5));
    assert_ne!(before["updated_at"], after["updated_at"]);
    assert_eq!(bench.garm.operations("CreateMessageSession"), (3, 3));
    assert_eq!(count(&bench.log(), "ERROR", "failed to handle scale set update operation"), 1);
    bench.wait(Span::mins(2));
    bench.put(FIRST, &json!({"runner_bootstrap_timeout": 22}));
    bench.wait(Span::secs(5));
    assert!(bench.listens(FIRST), "the stale session is over");
}

#[test]
fn a_toggle_revives_a_dead_worker_even_while_the_conflict_lasts() {
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
fn an_enable_that_comes_before_the_new_worker_hears_is_lost() {
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
            assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle, "it believes to be disabled");
            bench.enable(FIRST, false);
            bench.wait(Span::secs(5));
            bench.enable(FIRST, true);
            bench.wait(Span::secs(10));
            assert!(bench.listens(FIRST), "a slower toggle helps");
        }
    }
}

#[test]
fn a_busy_pre_fix_controller_drops_events_after_a_second() {
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
fn a_set_of_another_id_at_github_keeps_the_worker_from_starting() {
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
        let words = "it differs from the ID we know (github: 3 vs local: 1)";
        let said =
            log.iter().filter(|l| l.level == "ERROR" && l.all["error"].as_str().is_some_and(|e| e.contains(words)));
        let said = said.count();
        assert_eq!(said > 1, build.retries(), "{said} lines: later builds try again, with patience");
        assert!(said < 12);
    }
}

#[test]
fn a_set_made_at_run_time_is_started_at_once_or_by_the_next_tick() {
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
