//! The log, which names sets and proves.

use super::super::testing::*;
use crate::model::log_fact::{ListenerErrorKind, LogEvent, LogSet};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Fact, GithubId, Owner, SessionId, Span, Wall, WorkerState,
};

use Confidence::Proof;

#[test]
fn log_latest_line_decides() {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    manager.logs(secs(50), LogEvent::ManagerStarted);
    let conflict = |gave_up| LogEvent::Conflict { set: by_manager(1), owner: None, gave_up };
    manager.logs(secs(40), conflict(false));
    manager.logs(secs(2), conflict(false));
    let fleet = manager.diagnose();
    assert_eq!(found(&fleet, 1), (Diagnosis::ConflictRetrying, Proof));
    assert_eq!(fleet.findings[&id(1)].worker.0, WorkerState::Retrying);
    assert_eq!(fleet.findings[&id(1)].ill_since, Some(manager.now.minus(secs(2))));
    manager.logs(secs(1), LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") });
    manager.logs(Span::ZERO, LogEvent::Poll { set: by_manager(1), cursor: 0 });
    let fleet = manager.diagnose();
    assert_eq!(found(&fleet, 1), (Diagnosis::Listening, Proof));
    assert_eq!(fleet.recoveries.len(), 1);
    assert_eq!(fleet.findings[&id(1)].ill_since, None);
}

#[test]
fn controller_line_is_matched_by_github_id() {
    let mut manager = Manager::given_up(2, secs(30));
    let set = LogSet::Github { entity: "acme".to_owned(), github_id: GithubId(102) };
    manager.logs(secs(30), LogEvent::ManagerStarted);
    manager.logs(secs(29), LogEvent::Conflict { set, owner: None, gave_up: true });
    let fleet = manager.diagnose();
    assert_eq!(
        (fleet.conflict_behaviour, found(&fleet, 2)),
        (ConflictBehaviour::GivesUp, (Diagnosis::ConflictAbandoned, Proof))
    );
    assert!(says(&fleet, 2, &Fact::GaveUpLine));
}

#[test]
fn gave_up_line_proves_nothing_after_a_change() {
    let mut manager = Manager::given_up(1, secs(30));
    manager.logs(secs(30), LogEvent::ManagerStarted);
    manager.logs(secs(29), LogEvent::Conflict { set: by_manager(1), owner: None, gave_up: true });
    assert_eq!(found(&manager.watch(secs(4)), 1), (Diagnosis::ConflictAbandoned, Proof));
    manager.change(1);
    assert_ne!(found(&manager.after(secs(2)).diagnose(), 1).1, Proof);
}

#[test]
fn long_conflicts_or_a_foreign_owner_are_held_elsewhere() {
    let stranger = Owner::new("garm-somebody-else");
    for (owner, first, expected) in [
        (None, 60, Diagnosis::ConflictRetrying),
        (None, 400, Diagnosis::HeldElsewhere),
        (Some(ours()), 60, Diagnosis::ConflictRetrying),
        (Some(stranger), 60, Diagnosis::HeldElsewhere),
        (Some(Owner::of_session_check(id(1), Wall(0))), 60, Diagnosis::ConflictRetrying),
    ] {
        let mut manager = Manager::healthy(1);
        for ago in [first, 1] {
            let set = by_manager(1);
            manager.logs(secs(ago), LogEvent::Conflict { set, owner: owner.clone(), gave_up: false });
        }
        assert_eq!(found(&manager.diagnose(), 1), (expected, Proof), "{owner:?} for {first} s");
    }
}

#[test]
fn a_start_that_failed_for_another_reason_is_start_abandoned() {
    let mut manager = Manager::healthy(1);
    manager.restarts(secs(30));
    manager.logs(secs(30), LogEvent::ManagerStarted);
    let kind = ListenerErrorKind::Server;
    manager.logs(secs(29), LogEvent::StartFailed { set: by_manager(1), kind, gave_up: true });
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::StartAbandoned, Proof));
}

#[test]
fn refused_refresh_line_is_an_eviction_while_recent() {
    let mut manager = Manager::healthy(1);
    let refresh = LogEvent::ListenerFailed { set: by_manager(1), kind: ListenerErrorKind::NotFound, refresh: true };
    manager.logs(Span::mins(9), LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") });
    manager.logs(secs(1), refresh);
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Evicted, Proof));
    for _ in 0..8 {
        manager.after(secs(40)).logs(Span::ZERO, LogEvent::Poll { set: by_manager(1), cursor: 0 });
    }
    assert_eq!(
        found(&manager.diagnose(), 1).0,
        Diagnosis::Listening,
        "one failed refresh in five minutes: the next worked"
    );
}

#[test]
fn poll_failing_after_a_close_is_no_eviction() {
    let mut manager = Manager::healthy(1);
    manager.logs(secs(9), LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") });
    manager.logs(secs(1), LogEvent::SessionClosing { set: by_manager(1) });
    let kind = ListenerErrorKind::NotFound;
    manager.logs(Span::ZERO, LogEvent::ListenerFailed { set: by_manager(1), kind, refresh: false });
    assert!(!found(&manager.watch(secs(4)), 1).0.is_ill());
}

#[test]
fn credentials_refused_to_the_manager_are_unauthorized() {
    let mut manager = Manager::healthy(1);
    let kind = ListenerErrorKind::Unauthorized;
    manager.logs(secs(1), LogEvent::ListenerFailed { set: by_manager(1), kind, refresh: false });
    let fleet = manager.diagnose();
    assert_eq!(found(&fleet, 1), (Diagnosis::Unauthorized, Proof));
    assert_eq!(manager.remedies(&fleet), []);
}

#[test]
fn a_message_that_fails_again_and_again_starves_its_set() {
    let mut manager = Manager::healthy(1);
    manager.logs(secs(9), LogEvent::Poll { set: by_manager(1), cursor: 7 });
    for _ in 0..3 {
        manager.logs(secs(1), LogEvent::MessageFailed { set: by_manager(1) });
    }
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Starved, Proof));
}

#[test]
fn sessions_that_the_log_sees_open_again_and_again_are_flapping() {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    let opened = || LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") };
    manager.logs(secs(1), opened());
    manager.diagnose();
    for _ in 0..20 {
        manager.logs(Span::ZERO, opened());
        manager.after(secs(1));
    }
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Flapping, Proof));
}

#[test]
fn silent_set_is_deaf_only_if_the_log_continues() {
    let mut manager = Manager::healthy(2);
    manager.metrics = false;
    manager.logs(secs(300), LogEvent::Poll { set: by_manager(1), cursor: 0 });
    assert_eq!(found(&manager.diagnose(), 1).0, Diagnosis::Unknown);
    manager.logs(secs(1), LogEvent::Poll { set: by_manager(2), cursor: 0 });
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Deaf, Proof));
}
