//! Crashes, stops, and requests that are never answered.

use super::*;
use crate::github::{Fault, FaultKind, UnknownSession};

fn deadly(build: Build) -> Bench {
    Bench::with(build, |_| {}, |github| github.unknown_session = UnknownSession::NotFound)
}

#[test]
fn sigkill_leaves_sessions_behind_and_sigterm_none() {
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
fn a_vanished_session_kills_the_process_when_its_delete_is_answered_404() {
    for build in BOTH {
        let mut bench = deadly(build);
        bench.log();
        bench.github.evict_session(bench.github_id(FIRST), bench.now);
        bench.hand_over();
        bench.wait(Span::secs(1));
        assert_eq!(bench.garm.crashes(), 1);
        assert!(!bench.garm.is_up());
        let lines = bench.garm.take_log();
        let lines: Vec<&str> = lines.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        let panic = lines.iter().position(|line| line.starts_with("panic: runtime error: invalid memory")).unwrap();
        // In the pre-fix build the loop that keeps the listener alive still says a word.
        let last = panic - 1 - usize::from(!build.retries());
        assert!(lines[last].contains("message session refresh loop done"), "{}", lines[last]);
        assert!(lines[panic + 4].contains("DeleteMessageSession("));
        assert!(lines.last().unwrap().starts_with("\t/build/garm/workers/scaleset/scaleset_listener.go:102"));
        let other = bench.github.holder(bench.github_id(SECOND)).unwrap();
        assert!(!other.polling, "every other session is stale now");
        bench.start();
        bench.wait(Span::secs(3));
        assert!(bench.listens(FIRST) && !bench.listens(SECOND));
    }
}

#[test]
fn it_survives_when_that_delete_is_answered_400() {
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
fn disabling_a_set_whose_session_vanished_unseen_kills_the_process() {
    let mut bench = deadly(Build::PostFix);
    let set = bench.github_id(FIRST);
    // The next poll is never answered: the listener is deaf.
    bench.github.inject(Fault::on(Route::Poll, FaultKind::Never).for_set(set.0));
    bench.wait(Span::mins(4));
    assert!(bench.github.holder(set).is_none(), "GitHub has forgotten the session");
    assert_eq!(bench.garm.crashes(), 0);
    bench.enable(FIRST, false);
    bench.wait(Span::secs(1));
    assert_eq!(bench.garm.crashes(), 1);
}

#[test]
fn a_set_removed_at_github_ends_in_a_crash_and_is_made_anew_at_the_next_start() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        let old = bench.github_id(FIRST);
        bench.github.remove_set(old, bench.now);
        bench.hand_over();
        bench.wait(Span::secs(1));
        assert_eq!(bench.garm.crashes(), 1, "{build:?}");
        bench.start();
        bench.wait(Span::secs(3));
        assert_ne!(bench.github_id(FIRST), old);
        assert!(bench.listens(FIRST));
    }
}

#[test]
fn a_delete_without_an_answer_blocks_the_worker_for_ever_and_the_api_not_at_all() {
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
fn a_start_without_an_answer_holds_up_the_sets_behind_it() {
    let mut bench = Bench::down(Build::PreFix, |_| {}, |_| {});
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::Never).for_set(bench.github_id(FIRST).0));
    bench.start();
    bench.wait(Span::mins(1));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Hanging);
    assert_eq!(bench.garm.worker(SECOND), WorkerTruth::Absent, "its turn never comes");
}

#[test]
fn a_queue_token_without_exp_kills_the_process_after_a_minute() {
    let mut bench = Bench::down(Build::PostFix, |_| {}, |_| {});
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::TokenWithoutExp));
    bench.start();
    bench.wait(Span::secs(50));
    assert_eq!(bench.garm.crashes(), 0);
    bench.wait(Span::secs(15));
    assert_eq!(bench.garm.crashes(), 1);
}

#[test]
fn a_message_without_statistics_kills_the_process() {
    let mut bench = Bench::new(Build::PreFix);
    let set = bench.github_id(FIRST);
    bench.github.inject(Fault::on(Route::Poll, FaultKind::NoStatistics));
    bench.github.queue_jobs(set, 1, bench.now);
    bench.wait(Span::secs(1));
    assert_eq!(bench.garm.crashes(), 1);
}

#[test]
fn two_runs_of_one_story_are_alike_to_the_byte() {
    let story = || {
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
    assert_eq!(story(), story());
}
