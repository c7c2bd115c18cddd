//! Polls, messages, restarts and refreshes.

use super::*;
use medic_lab::github::{Degraded, Lasts};

#[test]
fn only_fewer_max_runners_restart_the_listener() {
    let mut bench = Bench::new(Build::PostFix);
    let opened = bench.garm().operations("CreateMessageSession").0;
    bench.put(FIRST, &json!({"max_runners": 9}));
    bench.wait(Span::secs(5));
    assert_eq!(bench.garm().operations("CreateMessageSession").0, opened);
    bench.put(FIRST, &json!({"max_runners": 2}));
    bench.wait(Span::millis(100));
    assert_eq!(bench.garm().operations("CreateMessageSession").0, opened + 1);
}

/// Pauses between failed restarts within 12 min, in milliseconds, as GitHub saw the attempts.
fn pauses(bench: &mut Bench) -> Vec<u64> {
    let (since, set) = (bench.now, bench.github_id(FIRST));
    bench.inject(Route::CreateSession, FaultKind::status(503));
    bench.world.github.inject(Fault::on(Route::Poll, FaultKind::status(503)).for_set(set.0).times(1));
    bench.world.github.queue_jobs(set, 1, bench.now);
    bench.wait(Span::mins(12));
    let attempts = bench.calls_since(since, Route::CreateSession);
    bench.world.github.clear_faults();
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
        bench.log();
        let found = pauses(&mut bench);
        let log = bench.log();
        let expected = [&grown[..], longest].concat();
        assert!(found.len() >= expected.len(), "{found:?}");
        assert!(found.iter().zip(&expected).all(|(pause, expected)| pause.abs_diff(*expected) <= 20), "{found:?}");
        let lines = if build.retries() { 1 } else { 2 };
        assert_eq!(count(&log, "ERROR", "error restarting listener"), lines * (found.len() + 1), "{build:?}");
        let backing_off = log.iter().find(|line| line["msg"] == "backing off restart attempt").unwrap();
        assert_eq!(backing_off["backoff"], json!(5_000_000_000_u64));
        let again = pauses(&mut bench)[0];
        assert_eq!(again < 6_000, build.retries(), "only the newer build resets its pause: {again}");
    }
}

#[test]
fn poll_with_401_is_tried_once_more() {
    let mut bench = Bench::new(Build::PostFix);
    let set = bench.github_id(FIRST);
    bench.world.github.inject(Fault::on(Route::Poll, FaultKind::status(401)).for_set(set.0).times(2));
    bench.world.github.queue_jobs(set, 1, bench.now);
    bench.log();
    bench.wait(Span::millis(400));
    let log = bench.log();
    assert_eq!(count(&log, "DEBUG", "got unauthorized error, retrying"), 1);
    assert_eq!(count(&log, "DEBUG", "unauthorized, stopping listener"), 1);
    assert_eq!(count(&log, "ERROR", "getting message"), 0);
    assert!(bench.listens(FIRST), "it was restarted at once");
}

#[test]
fn instances_stay_deleted_while_no_worker_runs() {
    let mut bench = Bench::with(Build::PreFix, |_, github| {
        (github.runner_boot, github.job_length) = (Span::secs(10), Span::secs(7));
    });
    bench.world.github.queue_jobs(bench.github_id(FIRST), 2, bench.now);
    bench.wait(Span::secs(23));
    assert_eq!(bench.garm().instances(FIRST), ["pending_delete"; 2], "the jobs are done");
    bench.restart();
    bench.wait(Span::mins(10));
    assert_eq!(bench.garm().instances(FIRST), ["deleted"; 2]);
    bench.enable(FIRST, false);
    bench.wait(Span::secs(5));
    assert!(bench.garm().instances(FIRST).is_empty(), "a new worker removes them, even a disabled one");
}

#[test]
fn polls_that_fail_at_once_make_four_rounds_a_second() {
    for build in BOTH {
        for degraded in [Degraded::Poll500, Degraded::PollEmpty, Degraded::Poll401] {
            let mut bench = Bench::new(build);
            bench.world.github.degrade_service(degraded, Lasts::Forever);
            bench.wait(Span::secs(1));
            let since = bench.now;
            bench.wait(Span::secs(60));
            let rounds = bench.calls_since(since, Route::CreateSession).len();
            assert!((2 * 225..=2 * 245).contains(&rounds), "{build:?} {degraded:?}: {rounds} of two sets");
            bench.world.github.clear_faults();
            bench.wait(Span::secs(5));
            assert!(bench.listens(FIRST), "{build:?} {degraded:?}");
        }
    }
}

#[test]
fn queue_tokens_are_renewed_and_failures_do_not_stop_polls() {
    let mut bench = Bench::new(Build::PostFix);
    bench.wait(Span::mins(49));
    bench.log();
    bench.wait(Span::mins(5));
    assert_eq!(count(&bench.log(), "DEBUG", "refreshed message session token"), 2);
    bench.inject(Route::RefreshSession, FaultKind::status(404));
    bench.wait(Span::mins(50));
    let failures = count(&bench.log(), "ERROR", "failed to refresh message queue token");
    assert!((6..=22).contains(&failures), "each minute while it fails: {failures} of two sets");
    assert!(bench.listens(FIRST));
}
