//! Polls, messages, restarts and refreshes.

use super::*;
use crate::github::{Degraded, Fault, FaultKind, JobFlow, Lasts};

#[test]
fn a_healthy_toggle_deletes_the_session_and_opens_another_within_seconds() {
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
fn fewer_runners_restart_the_listener_and_more_do_not() {
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
fn an_idle_poll_ends_with_the_window_and_the_next_begins() {
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

/// Pauses between failed restarts, in milliseconds, as GitHub saw the attempts.
fn pauses(build: Build, span: Span) -> Vec<u64> {
    let mut bench = Bench::new(build);
    let since = bench.now;
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::status(503)));
    bench.github.inject(Fault::on(Route::Poll, FaultKind::status(503)).for_set(bench.github_id(FIRST).0).times(1));
    let set = bench.github_id(FIRST);
    bench.github.queue_jobs(set, 1, bench.now);
    bench.wait(span);
    let attempts = bench.calls_since(since, Route::CreateSession);
    attempts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_listener_that_had_run_is_restarted_with_growing_pauses() {
    let near = |pauses: &[u64], expected: &[u64]| {
        assert!(pauses.len() >= expected.len(), "{pauses:?}");
        for (pause, expected) in pauses.iter().zip(expected) {
            assert!(pause.abs_diff(*expected) <= 20, "{pauses:?}");
        }
    };
    let grown = [5_000, 7_500, 11_250, 16_875, 25_312, 37_968, 56_952];
    let span = Span::mins(12);
    let post = [&grown[..], &[60_000, 60_000, 60_000]].concat();
    near(&pauses(Build::PostFix, span), &post);
    let pre = [&grown[..], &[85_428, 60_000, 90_000, 60_000]].concat();
    near(&pauses(Build::PreFix, span), &pre);
}

#[test]
fn a_failed_restart_is_logged_once_or_twice() {
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
        let backoff = log.iter().find(|line| line.msg == "backing off restart attempt").unwrap();
        assert_eq!(backoff.all["backoff"], json!(5_000_000_000_u64));
    }
}

#[test]
fn polls_that_fail_at_once_make_an_endless_loop_that_takes_time() {
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
fn that_loop_makes_four_rounds_a_second_unless_told_otherwise() {
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
fn a_401_is_tried_once_more_before_the_listener_stops() {
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
fn queue_tokens_are_renewed_in_time_and_failures_never_stop_the_polls() {
    let mut bench = Bench::new(Build::PostFix);
    bench.wait(Span::mins(49));
    bench.log();
    bench.wait(Span::mins(5));
    let log = bench.log();
    assert_eq!(count(&log, "DEBUG", "refreshed message session token"), 2);
    assert_eq!(bench.garm.operations("RefreshMessageSession"), (2, 0));
    let line = log.iter().find(|line| line.msg == "checking if message session token needs refresh").unwrap();
    assert!(line.all["expires_at"].as_str().unwrap().ends_with('Z'));
    bench.github.refuse_refresh(bench.github_id(FIRST));
    bench.wait(Span::mins(50));
    let failures = count(&bench.log(), "ERROR", "failed to refresh message queue token");
    assert!((3..=11).contains(&failures), "each minute while it fails: {failures}");
    assert!(bench.listens(FIRST));
}

#[test]
fn jobs_become_runners_and_runners_go_when_their_job_is_done() {
    let mut bench = Bench::with(
        Build::PostFix,
        |_| {},
        |github| {
            github.job_flow = JobFlow::ByItself { boot: Span::secs(10), work: Span::secs(30) };
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
    assert!(of_kind("instance") >= 12 && of_kind("job") >= 6 && of_kind("scaleset") >= 4);
}

#[test]
fn instances_linger_as_deleted_while_no_worker_runs() {
    let mut bench = Bench::with(
        Build::PreFix,
        |_| {},
        |github| {
            github.job_flow = JobFlow::ByItself { boot: Span::secs(10), work: Span::secs(7) };
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
    assert!(bench.garm.instances(FIRST).is_empty(), "a new worker takes them away, even a disabled one");
}

#[test]
fn the_cursor_survives_a_restart() {
    let mut bench = Bench::new(Build::PostFix);
    bench.github.queue_jobs(bench.github_id(FIRST), 1, bench.now);
    bench.wait(Span::secs(2));
    bench.stop();
    bench.start();
    bench.wait(Span::secs(2));
    let log = bench.log();
    let line =
        log.iter().rfind(|l| l.msg == "getting message" && l.all["worker"] == "scaleset-worker-set-a-1").unwrap();
    assert!(line.all["last_message_id"].as_u64().unwrap() > 0);
}
