//! Polls, messages, restarts and refreshes.

use super::*;
use crate::github::{Degraded, Fault, FaultKind, Lasts};

#[test]
fn toggle_of_a_healthy_set_replaces_its_session_in_seconds() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        bench.log();
        bench.enable(FIRST, false);
        assert!(bench.listens(FIRST), "the answer does not wait for the worker");
        bench.wait(Span::millis(100));
        assert!(bench.github.holder(bench.github_id(FIRST)).is_none());
        assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle);
        bench.enable(FIRST, true);
        bench.wait(Span::millis(2_100));
        assert!(bench.listens(FIRST));
        assert_eq!(bench.garm.operations("GetMessage").1, 1, "the cancelled poll counts as an error");
        let log = bench.log();
        for msg in ["closing message session", "stopping scale set listener", "message session refresh loop done"] {
            assert_eq!(count(&log, "DEBUG", msg), 1, "{msg}");
        }
        assert_eq!(count(&log, "ERROR", "getting message"), 0);
    }
}

#[test]
fn only_fewer_max_runners_restart_the_listener() {
    let mut bench = Bench::new(Build::PostFix);
    let opened = bench.garm.operations("CreateMessageSession").0;
    bench.put(FIRST, &json!({"max_runners": 9}));
    bench.wait(Span::secs(5));
    assert_eq!(bench.garm.operations("CreateMessageSession").0, opened);
    bench.put(FIRST, &json!({"max_runners": 2}));
    bench.wait(Span::millis(100));
    assert_eq!(bench.garm.operations("CreateMessageSession").0, opened + 1);
    assert_eq!(bench.github.capacity(bench.github_id(FIRST)), Some(2));
}

#[test]
fn idle_poll_ends_after_50s_and_the_next_begins() {
    let mut bench = Bench::new(Build::PostFix);
    let before = bench.garm.operations("GetMessage").0;
    bench.log();
    bench.wait(Span::mins(10));
    let polls = bench.garm.operations("GetMessage").0 - before;
    assert!((22..=24).contains(&polls), "two sets, 50 s each: {polls}");
    let log = bench.log();
    assert!((22..=24).contains(&count(&log, "DEBUG", "no messages available in queue")));
    assert!(bench.listens(FIRST));
}

/// Pauses between failed restarts within 12 min, in milliseconds, as GitHub saw the attempts.
fn pauses(bench: &mut Bench) -> Vec<u64> {
    let (since, set) = (bench.now, bench.github_id(FIRST));
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::status(503)));
    bench.github.inject(Fault::on(Route::Poll, FaultKind::status(503)).for_set(set.0).times(1));
    bench.github.queue_jobs(set, 1, bench.now);
    bench.wait(Span::mins(12));
    let attempts = bench.calls_since(since, Route::CreateSession);
    bench.github.clear_faults();
    bench.wait(Span::mins(2));
    assert!(bench.listens(FIRST));
    attempts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn stopped_listener_is_restarted_with_growing_pauses() {
    let grown = [5_000, 7_500, 11_250, 16_875, 25_312, 37_968, 56_952];
    let expected: [(Build, &[u64]); 2] =
        [(Build::PreFix, &[85_428, 60_000, 90_000, 60_000]), (Build::PostFix, &[60_000, 60_000, 60_000])];
    for (build, longest) in expected {
        let mut bench = Bench::new(build);
        let found = pauses(&mut bench);
        let expected = [&grown[..], longest].concat();
        assert!(found.len() >= expected.len(), "{found:?}");
        assert!(found.iter().zip(&expected).all(|(pause, expected)| pause.abs_diff(*expected) <= 20), "{found:?}");
        let again = pauses(&mut bench)[0];
        assert_eq!(again < 6_000, build.retries(), "only the newer build resets its pause: {again}");
    }
}

#[test]
fn failed_restart_is_logged_once_or_twice() {
    for (build, lines) in [(Build::PreFix, 2), (Build::PostFix, 1)] {
        let mut bench = Bench::new(build);
        bench.github.inject(Fault::on(Route::CreateSession, FaultKind::status(503)));
        bench.github.inject(Fault::on(Route::Poll, FaultKind::status(503)));
        bench.github.degrade_service(Degraded::Poll500, Lasts::Forever);
        bench.log();
        bench.wait(Span::secs(3));
        let log = bench.log();
        assert_eq!(count(&log, "ERROR", "error restarting listener"), 2 * lines, "two sets, one attempt");
        assert_eq!(count(&log, "INFO", "backing off restart attempt"), 2);
        let backoff = log.iter().find(|line| line["msg"] == "backing off restart attempt").unwrap();
        assert_eq!(backoff["backoff"], json!(5_000_000_000_u64));
    }
}

#[test]
fn polls_that_fail_at_once_make_an_endless_loop() {
    for degraded in [Degraded::Poll500, Degraded::PollEmpty, Degraded::Poll401, Degraded::EmptyQueueUrl] {
        let mut bench = Bench::with(Build::PostFix, |garm| garm.restart = Span::millis(1), |_| {});
        bench.github.degrade_service(degraded, Lasts::Forever);
        if degraded == Degraded::EmptyQueueUrl {
            bench.enable(FIRST, false);
            bench.wait(Span::secs(1));
            bench.enable(FIRST, true);
        }
        let before = bench.garm.operations("DeleteMessageSession").0;
        bench.wait(Span::secs(5));
        let rounds = bench.garm.operations("DeleteMessageSession").0 - before;
        assert!((200..5_000).contains(&rounds), "{degraded:?}: {rounds} rounds in 5 s");
        let (opened, failed) = bench.garm.operations("CreateMessageSession");
        assert!(opened > 200 && failed == 0, "{degraded:?}: sessions open well");
        bench.github.clear_faults();
        bench.wait(Span::secs(5));
        assert!(bench.listens(FIRST), "{degraded:?}");
        assert_eq!(bench.garm.crashes(), 0);
    }
}

#[test]
fn failing_polls_make_four_rounds_a_second_by_default() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        bench.github.degrade_service(Degraded::Poll500, Lasts::Forever);
        bench.wait(Span::secs(1));
        let since = bench.now;
        bench.wait(Span::secs(60));
        let rounds = bench.calls_since(since, Route::CreateSession).len();
        assert!((2 * 225..=2 * 245).contains(&rounds), "{build:?}: {rounds} of two sets");
    }
}

#[test]
fn poll_with_401_is_tried_once_more() {
    let mut bench = Bench::new(Build::PostFix);
    let set = bench.github_id(FIRST);
    bench.github.inject(Fault::on(Route::Poll, FaultKind::status(401)).for_set(set.0).times(2));
    bench.github.queue_jobs(set, 1, bench.now);
    bench.log();
    bench.wait(Span::millis(400));
    let log = bench.log();
    assert_eq!(count(&log, "DEBUG", "got unauthorized error, retrying"), 1);
    assert_eq!(count(&log, "DEBUG", "unauthorized, stopping listener"), 1);
    assert_eq!(count(&log, "ERROR", "getting message"), 0);
    assert!(bench.listens(FIRST), "it was restarted at once");
}

#[test]
fn queue_tokens_are_renewed_and_failures_do_not_stop_polls() {
    let mut bench = Bench::new(Build::PostFix);
    bench.wait(Span::mins(49));
    bench.log();
    bench.wait(Span::mins(5));
    let log = bench.log();
    assert_eq!(count(&log, "DEBUG", "refreshed message session token"), 2);
    assert_eq!(bench.garm.operations("RefreshMessageSession"), (2, 0));
    let line = log.iter().find(|line| line["msg"] == "checking if message session token needs refresh").unwrap();
    assert!(line["expires_at"].as_str().unwrap().ends_with('Z'));
    bench.github.refuse_refresh(bench.github_id(FIRST));
    bench.wait(Span::mins(50));
    let failures = count(&bench.log(), "ERROR", "failed to refresh message queue token");
    assert!((3..=11).contains(&failures), "each minute while it fails: {failures}");
    assert!(bench.listens(FIRST));
}

#[test]
fn jobs_get_runners_that_end_with_their_job() {
    let mut bench = Bench::with(
        Build::PostFix,
        |_| {},
        |github| {
            (github.runner_boot, github.job_length) = (Span::secs(10), Span::secs(30));
        },
    );
    let set = bench.github_id(FIRST);
    bench.github.queue_jobs(set, 2, bench.now);
    bench.garm.take_events();
    bench.wait(Span::secs(6));
    assert_eq!(bench.garm.instances(FIRST), ["pending_create"; 2]);
    assert_eq!(body(&bench.get("/api/v1/scalesets/1"))["desired_runner_count"], json!(2));
    bench.wait(Span::secs(6));
    assert_eq!(bench.garm.instances(FIRST), ["running"; 2]);
    bench.wait(Span::secs(10));
    let instance = body(&bench.get("/api/v1/instances"))[0].clone();
    assert_eq!(instance["runner_status"], "active");
    bench.wait(Span::mins(1));
    assert!(bench.garm.instances(FIRST).is_empty());
    assert_eq!(bench.github.jobs(set).completed, 2);
    assert_eq!(bench.github.undeleted_messages(set), 0, "messages are acknowledged");
    let events = bench.garm.take_events();
    let of_kind = |kind: &str| {
        let mark = format!("{{\"entity-type\":\"{kind}\",");
        events.iter().filter(|event| event.starts_with(mark.as_bytes())).count()
    };
    assert!(of_kind("instance") >= 12 && of_kind("scaleset") >= 4);
}

#[test]
fn instances_stay_deleted_while_no_worker_runs() {
    let mut bench = Bench::with(
        Build::PreFix,
        |_| {},
        |github| {
            (github.runner_boot, github.job_length) = (Span::secs(10), Span::secs(7));
        },
    );
    bench.github.queue_jobs(bench.github_id(FIRST), 2, bench.now);
    bench.wait(Span::secs(23));
    assert_eq!(bench.garm.instances(FIRST), ["pending_delete"; 2], "the jobs are done");
    bench.restart();
    bench.wait(Span::mins(10));
    assert_eq!(bench.garm.instances(FIRST), ["deleted"; 2]);
    bench.enable(FIRST, false);
    bench.wait(Span::secs(5));
    assert!(bench.garm.instances(FIRST).is_empty(), "a new worker removes them, even a disabled one");
}

#[test]
fn message_cursor_survives_a_restart() {
    let mut bench = Bench::new(Build::PostFix);
    bench.github.queue_jobs(bench.github_id(FIRST), 1, bench.now);
    bench.wait(Span::secs(2));
    bench.stop();
    bench.start();
    bench.wait(Span::secs(2));
    let log = bench.log();
    let line = log.iter().rfind(|l| l["msg"] == "getting message" && l["worker"] == "scaleset-worker-set-a-1").unwrap();
    assert!(line["last_message_id"].as_u64().unwrap() > 0);
}
