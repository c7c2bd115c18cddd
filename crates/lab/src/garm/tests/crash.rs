//! Crashes, stops, and requests that are never answered.

use super::*;
use crate::github::{Fault, FaultKind, UnknownSession};

fn deadly(build: Build) -> Bench {
    Bench::with(build, |_| {}, |github| github.unknown_session = UnknownSession::NotFound)
}

#[test]
fn sigkill_leaves_sessions_and_sigterm_deletes_them() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        bench.kill();
        assert!(!bench.garm.is_up());
        let holder = bench.github.holder(bench.github_id(FIRST)).unwrap();
        assert!(!holder.polling, "its connection is gone");
        bench.wait(Span::secs(100));
        bench.start();
        bench.wait(Span::secs(2));
        assert!(bench.listens(FIRST), "nothing stale any more");
        bench.stop();
        assert!(bench.github.holder(bench.github_id(FIRST)).is_none());
        bench.log();
        bench.start();
        bench.wait(Span::secs(2));
        assert!(bench.listens(FIRST) && bench.listens(SECOND));
        assert_eq!(bench.garm.operations("CreateMessageSession").1, 0, "a clean stop is no incident");
    }
}

#[test]
fn lost_session_kills_the_process_when_its_delete_gets_404() {
    for build in BOTH {
        let mut bench = deadly(build);
        bench.log();
        bench.github.evict_session(bench.github_id(FIRST), bench.now);
        bench.pass_wakes_on();
        bench.wait(Span::secs(1));
        assert_eq!(bench.garm.crashes(), 1);
        assert!(!bench.garm.is_up());
        let lines = bench.garm.take_log();
        let lines: Vec<&str> = lines.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        let panic = lines.iter().position(|line| line.starts_with("panic: runtime error: invalid memory")).unwrap();
        // The pre-fix build writes one more line before the panic.
        let last = panic - 1 - usize::from(!build.retries());
        assert!(lines[last].contains("message session refresh loop done"), "{}", lines[last]);
        assert!(lines[panic + 4].contains("DeleteMessageSession("));
        assert!(lines.last().unwrap().starts_with("\t/build/garm/workers/scaleset/scaleset_listener.go:"));
        let other = bench.github.holder(bench.github_id(SECOND)).unwrap();
        assert!(!other.polling, "every other session is stale now");
        bench.start();
        bench.wait(Span::secs(3));
        assert!(bench.listens(FIRST) && !bench.listens(SECOND));
    }
}

#[test]
fn lost_session_is_replaced_when_its_delete_gets_400() {
    let mut bench = Bench::new(Build::PreFix);
    bench.log();
    bench.github.evict_session(bench.github_id(FIRST), bench.now);
    bench.wait(Span::secs(1));
    assert_eq!(bench.garm.crashes(), 0);
    assert!(bench.listens(FIRST), "a new session at once");
    let log = bench.log();
    assert_eq!(count(&log, "ERROR", "getting message"), 1);
    assert_eq!(count(&log, "ERROR", "error deleting message session"), 1);
}

#[test]
fn disabling_a_set_with_a_lost_session_kills_the_process() {
    for build in BOTH {
        let mut bench = deadly(build);
        let set = bench.github_id(FIRST);
        // The next poll is never answered: the listener is stalled.
        bench.github.inject(Fault::on(Route::Poll, FaultKind::Never).for_set(set.0));
        bench.wait(Span::mins(4));
        assert!(bench.github.holder(set).is_none(), "GitHub has forgotten the session");
        assert_eq!(bench.garm.crashes(), 0);
        bench.enable(FIRST, false);
        bench.wait(Span::secs(1));
        assert_eq!((bench.garm.crashes(), bench.garm.is_enabled(FIRST)), (1, false), "the write was done");
    }
}

#[test]
fn removed_set_crashes_garm_and_is_created_at_the_next_start() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        let old = bench.github_id(FIRST);
        bench.github.remove_set(old, bench.now);
        bench.pass_wakes_on();
        bench.wait(Span::secs(1));
        assert_eq!(bench.garm.crashes(), 1, "{build:?}");
        bench.start();
        bench.wait(Span::secs(3));
        assert_ne!(bench.github_id(FIRST), old);
        assert_eq!(body(&bench.get("/api/v1/scalesets/1"))["scale_set_id"], json!(bench.github_id(FIRST).0));
        assert!(bench.listens(FIRST));
    }
}

#[test]
fn unanswered_delete_blocks_the_worker_for_ever() {
    let mut bench = Bench::new(Build::PostFix);
    bench.github.inject(Fault::on(Route::DeleteSession, FaultKind::Never));
    let answer = bench.enable(FIRST, false);
    assert!(answer.get("enabled").is_none());
    bench.wait(Span::mins(1));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Hanging);
    bench.github.clear_faults();
    bench.enable(FIRST, true);
    bench.wait(Span::mins(10));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Hanging, "no time-out, ever");
    assert!(bench.listens(SECOND));
    bench.restart();
    bench.wait(Span::mins(2));
    assert!(bench.listens(FIRST));
}

#[test]
fn unanswered_start_blocks_the_sets_behind_it() {
    let mut bench = Bench::down(Build::PreFix, |_| {}, |_| {});
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::Never).for_set(bench.github_id(FIRST).0));
    bench.start();
    bench.wait(Span::mins(1));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Hanging);
    assert_eq!(bench.garm.worker(SECOND), WorkerTruth::Absent, "it is never started");
}

#[test]
fn queue_token_without_exp_kills_the_process() {
    let mut bench = Bench::down(Build::PostFix, |_| {}, |_| {});
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::TokenWithoutExp));
    bench.start();
    bench.wait(Span::secs(50));
    assert_eq!(bench.garm.crashes(), 0);
    bench.wait(Span::secs(15));
    assert_eq!(bench.garm.crashes(), 1);
}

#[test]
fn message_without_statistics_kills_the_process() {
    let mut bench = Bench::new(Build::PreFix);
    let set = bench.github_id(FIRST);
    bench.github.inject(Fault::on(Route::Poll, FaultKind::NoStatistics));
    bench.github.queue_jobs(set, 1, bench.now);
    bench.wait(Span::secs(1));
    assert_eq!(bench.garm.crashes(), 1);
}

#[test]
fn equal_runs_give_equal_bytes() {
    let run = || {
        let mut bench = deadly(Build::PreFix);
        bench.github.queue_jobs(bench.github_id(FIRST), 3, bench.now);
        bench.wait(Span::secs(20));
        bench.restart();
        bench.wait(Span::secs(30));
        bench.enable(FIRST, false);
        bench.wait(Span::secs(5));
        bench.enable(FIRST, true);
        bench.wait(Span::mins(2));
        (bench.garm.take_log(), bench.garm.take_events(), bench.metrics())
    };
    assert_eq!(run(), run());
}
