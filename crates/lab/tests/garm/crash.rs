//! Crashes, and requests that are never answered.

use super::*;
use medic_lab::github::UnknownSession;

#[test]
fn disabling_a_set_with_a_lost_session_kills_the_process() {
    for build in BOTH {
        let mut bench = Bench::with(build, |_, github| github.unknown_session = UnknownSession::NotFound);
        let set = bench.github_id(FIRST);
        // The next poll is never answered: the listener is stalled.
        bench.world.github.inject(Fault::on(Route::Poll, FaultKind::Never).for_set(set.0));
        bench.wait(Span::mins(4));
        assert!(bench.world.github.holder(set).is_none(), "GitHub has forgotten the session");
        assert_eq!(bench.garm().crashes(), 0);
        bench.enable(FIRST, false);
        bench.wait(Span::secs(1));
        assert_eq!((bench.garm().crashes(), bench.garm().is_enabled(FIRST)), (1, false), "the write was done");
    }
}

#[test]
fn unanswered_delete_blocks_the_worker_for_ever() {
    let mut bench = Bench::new(Build::PostFix);
    bench.inject(Route::DeleteSession, FaultKind::Never);
    bench.enable(FIRST, false);
    bench.wait(Span::mins(1));
    assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Hanging);
    bench.world.github.clear_faults();
    bench.enable(FIRST, true);
    bench.wait(Span::mins(10));
    assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Hanging, "no time-out, ever");
    assert!(bench.listens(SECOND));
    bench.restart();
    bench.wait(Span::mins(2));
    assert!(bench.listens(FIRST));
}

#[test]
fn unanswered_start_blocks_the_sets_behind_it() {
    let mut bench = Bench::down(Build::PreFix, 2, |_, _| {});
    bench.world.github.inject(Fault::on(Route::CreateSession, FaultKind::Never).for_set(bench.github_id(FIRST).0));
    bench.start();
    bench.wait(Span::mins(1));
    assert_eq!(bench.garm().worker(FIRST), WorkerTruth::Hanging);
    assert_eq!(bench.garm().worker(SECOND), WorkerTruth::Absent, "it is never started");
}

#[test]
fn queue_token_without_exp_kills_the_process() {
    let mut bench = Bench::down(Build::PostFix, 2, |_, _| {});
    bench.inject(Route::CreateSession, FaultKind::TokenWithoutExp);
    bench.start();
    bench.wait(Span::secs(50));
    assert_eq!(bench.garm().crashes(), 0);
    bench.wait(Span::secs(15));
    assert_eq!(bench.garm().crashes(), 1);
}
