//! What the build does after a refused start, learnt from what it was seen to do.

use super::super::testing::*;
use crate::model::{ConflictBehaviour, Diagnosis, Enablement, Goroutines, Incarnation, Wall};

use ConflictBehaviour::{GivesUp, Retries, Unknown};

#[test]
fn worker_that_is_missing_after_a_refusal_gave_up() {
    // Set 1 was changed since the start, so that refusals alone do not show the build.
    for (errors, workers, age, expected) in [
        (2, 1, 30, GivesUp),
        (1, 0, 10, GivesUp),
        (2, 1, 9, Unknown),
        (2, 2, 30, Unknown),
        (2, 3, 30, Unknown),
        (0, 1, 30, Unknown),
    ] {
        let mut manager = refused_at_start(errors, age, |manager, _| manager.change(1));
        manager.goroutines = Some(Goroutines { listeners: 0, workers });
        let learnt = manager.diagnose().conflict_behaviour;
        assert_eq!(learnt, expected, "{errors} refusals, {workers} of 2 workers, {age} s");
    }
}

/// Two sets with this many refused starts, in an incarnation of this age.
fn refused_at_start(errors: u64, age: u64, change: impl FnOnce(&mut Manager, Wall)) -> Manager {
    let mut manager = Manager::healthy(2);
    manager.restarts(secs(age));
    for _ in 0..errors {
        manager.is_refused();
    }
    let run = manager.run.map_or(Wall(0), |Incarnation(at)| at);
    change(&mut manager, run);
    manager
}

#[test]
fn changed_sets_do_not_show_the_build() {
    let mut at_start = refused_at_start(2, 30, |manager, run| manager.set(1).updated_at = Some(run));
    assert_eq!(at_start.watch(secs(10)).conflict_behaviour, GivesUp, "changed with the start itself");
    let mut later = refused_at_start(2, 30, |manager, run| manager.set(1).updated_at = Some(run.plus(secs(1))));
    assert_eq!(later.watch(secs(10)).conflict_behaviour, Unknown);
    assert_eq!(later.watch_refused(secs(30)).conflict_behaviour, Unknown, "a changed set tries again in any build");
    let mut undated = refused_at_start(2, 30, |manager, _| manager.set(1).updated_at = None);
    assert_eq!(undated.watch(secs(10)).conflict_behaviour, Unknown);
}

#[test]
fn no_refusal_and_no_set_to_be_refused_do_not_show_the_build() {
    let mut quiet = refused_at_start(0, 30, |_, _| {});
    assert_eq!(quiet.watch(secs(20)).conflict_behaviour, Unknown, "nobody has tried yet");
    let mut disabled = refused_at_start(3, 30, |manager, _| {
        for set in &mut manager.sets {
            set.enabled = Enablement::Disabled;
        }
    });
    let fleet = disabled.watch(secs(20));
    assert_eq!((fleet.conflict_behaviour, diagnoses(&fleet)), (Unknown, vec![Diagnosis::Disabled; 2]));
}

#[test]
fn flat_refusals_show_a_build_that_gives_up() {
    let mut one = refused_at_start(1, 30, |_, _| {});
    assert_eq!(one.watch(secs(10)).conflict_behaviour, GivesUp);
    let mut as_many = refused_at_start(2, 30, |_, _| {});
    assert_eq!(as_many.watch(secs(10)).conflict_behaviour, GivesUp, "each was tried once");
    let mut more = refused_at_start(3, 30, |_, _| {});
    assert_eq!(more.diagnose().conflict_behaviour, Retries, "one was tried twice");
}

#[test]
fn build_that_retries_gets_the_time_to_do_so() {
    let mut young = refused_at_start(2, 1, |_, _| {});
    assert_eq!(young.watch(secs(8)).conflict_behaviour, Unknown, "9 s old; the refusals have stood still for 8 s");
    assert_eq!(young.after(secs(1)).diagnose().conflict_behaviour, GivesUp, "10 s old");
    let mut slow = Manager::healthy(3);
    slow.restarts(secs(12));
    for _ in 0..3 {
        slow.is_refused();
        assert_eq!(slow.diagnose().conflict_behaviour, Unknown, "the first starts are still being made");
        slow.after(secs(5));
    }
    assert_eq!(slow.after(secs(1)).diagnose().conflict_behaviour, GivesUp, "none for 6 s");
}

#[test]
fn refusal_younger_than_the_list_does_not_show_the_build_yet() {
    let looks = |changes: bool| {
        let mut manager = refused_at_start(2, 30, |_, _| {});
        manager.diagnose();
        manager.is_refused();
        let first = manager.after(secs(2)).diagnose().conflict_behaviour;
        if changes {
            manager.change(1);
        }
        (first, manager.after(secs(2)).diagnose().conflict_behaviour)
    };
    assert_eq!(looks(false), (Unknown, Retries), "nothing was changed: one was tried twice");
    assert_eq!(looks(true), (Unknown, Unknown), "it was toggled, which is why it was tried again");
}
