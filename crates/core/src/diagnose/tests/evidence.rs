//! A set's own evidence at its edges: when a line, a session check or a series speaks, and when it no longer does.

use super::super::CheckAnswer;
use super::super::testing::*;
use crate::model::log_fact::{ListenerErrorKind, LogEvent, LogSet};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Fact, FailureKind, GithubId, ListenerMetrics, Owner, Rule, SessionId,
    Span, Wall, WorkerState,
};

use Confidence::{Proof, Strong, Weak};
use ListenerErrorKind::{NotFound, Unauthorized};

fn opened() -> LogEvent {
    LogEvent::SessionOpened { set: by_manager(1), session: SessionId::new("s") }
}

fn poll() -> LogEvent {
    LogEvent::Poll { set: by_manager(1), cursor: 0 }
}

fn fails(kind: ListenerErrorKind, refresh: bool) -> LogEvent {
    LogEvent::ListenerFailed { set: by_manager(1), kind, refresh }
}

fn conflict(gave_up: bool) -> LogEvent {
    LogEvent::Conflict { set: by_manager(1), owner: None, gave_up }
}

/// One set whose log has these lines, each with its age in seconds; no other source has anything.
fn by_log<const N: usize>(lines: [(u64, LogEvent); N]) -> (Diagnosis, Confidence) {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    manager.logs(Span::mins(60), LogEvent::ManagerStarted);
    for (ago, what) in lines {
        manager.logs(secs(ago), what);
    }
    found(&manager.diagnose(), 1)
}

const NOTHING: (Diagnosis, Confidence) = (Diagnosis::Unknown, Weak);

// --- the log ---

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
fn proof_of_the_log_dates_the_unhealthy_period() {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    manager.logs(secs(40), conflict(false));
    manager.logs(secs(2), conflict(false));
    let finding = manager.diagnose().findings[&id(1)].clone();
    assert_eq!((finding.diagnosis, finding.worker.state), (Diagnosis::ConflictRetrying, WorkerState::Retrying));
    assert_eq!(finding.ill_since, Some(manager.now.minus(secs(2))));
    manager.logs(Span::ZERO, poll());
    let fleet = manager.diagnose();
    assert_eq!((fleet.recoveries.len(), fleet.findings[&id(1)].ill_since), (1, None));
}

#[test]
fn conflict_with_a_foreign_owner_is_held_elsewhere() {
    for (owner, expected) in [
        (None, Diagnosis::ConflictRetrying),
        (Some(ours()), Diagnosis::ConflictRetrying),
        (Some(Owner::of_session_check(id(1), Wall(0))), Diagnosis::ConflictRetrying),
        (Some(Owner::new("garm-somebody-else")), Diagnosis::HeldElsewhere),
    ] {
        let refused = || LogEvent::Conflict { set: by_manager(1), owner: owner.clone(), gave_up: false };
        assert_eq!(by_log([(60, refused()), (1, refused())]), (expected, Proof), "{owner:?}");
    }
}

#[test]
fn message_that_fails_three_times_starves_its_set() {
    let failed = || LogEvent::MessageFailed { set: by_manager(1) };
    assert_eq!(by_log([(9, poll()), (1, failed()), (1, failed())]), (Diagnosis::Listening, Proof));
    assert_eq!(by_log([(9, poll()), (1, failed()), (1, failed()), (1, failed())]), (Diagnosis::Starved, Proof));
}

#[test]
fn twenty_sessions_in_a_minute_of_the_log_are_flapping() {
    for (sessions, expected) in [(19, Diagnosis::Listening), (20, Diagnosis::Flapping)] {
        let mut manager = Manager::healthy(1);
        manager.metrics = false;
        manager.logs(secs(1), opened());
        manager.diagnose();
        for _ in 0..sessions {
            manager.logs(Span::ZERO, opened());
            manager.after(secs(1));
        }
        assert_eq!(found(&manager.diagnose(), 1), (expected, Proof));
    }
}

#[test]
fn the_log_of_an_earlier_run_says_nothing() {
    let mut manager = Manager::healthy(1);
    manager.logs(Span::mins(60), LogEvent::ManagerStarted);
    manager.logs(secs(20), poll());
    assert_eq!(found(&manager.diagnose(), 1), (Diagnosis::Listening, Proof));
    manager.restarts(secs(5));
    assert_ne!(found(&manager.diagnose(), 1).1, Proof);
}

#[test]
fn sessions_opened_over_many_minutes_are_no_flapping() {
    let mut manager = Manager::healthy(1);
    manager.metrics = false;
    for _ in 0..60 {
        manager.logs(Span::ZERO, opened());
        assert_eq!(found(&manager.diagnose(), 1).0, Diagnosis::Listening);
        manager.after(secs(30));
    }
}

#[test]
fn change_in_the_moment_of_giving_up_restarts_no_worker() {
    for (later, proven) in [(0, true), (1, false)] {
        let mut manager = Manager::given_up(1, secs(30));
        manager.logs(secs(30), LogEvent::ManagerStarted);
        manager.logs(secs(29), conflict(true));
        manager.set(1).updated_at = Some(manager.now.minus(secs(29)).plus(Span::millis(later)));
        assert_eq!(found(&manager.diagnose(), 1) == (Diagnosis::ConflictAbandoned, Proof), proven, "{later} ms later");
    }
}

#[test]
fn failed_refresh_is_evicted_until_a_session_or_refresh() {
    let evicted = (Diagnosis::Evicted, Proof);
    assert_eq!(by_log([(200, poll()), (149, fails(NotFound, true))]), evicted);
    assert_ne!(by_log([(200, poll()), (150, fails(NotFound, true))]).0, Diagnosis::Evicted, "tried again since");
    assert_eq!(by_log([(90, opened()), (60, fails(NotFound, true))]), evicted);
    assert_eq!(by_log([(60, fails(NotFound, true)), (60, opened())]).0, Diagnosis::Listening, "in the same moment");
}

#[test]
fn failure_line_counts_for_40_seconds_at_most() {
    let refused = (Diagnosis::Unauthorized, Proof);
    assert_eq!(by_log([(20, poll()), (1, fails(Unauthorized, false))]), refused);
    assert_eq!(by_log([(10, fails(Unauthorized, false)), (1, poll())]), (Diagnosis::Listening, Proof));
    assert_eq!(by_log([(10, fails(Unauthorized, false)), (1, conflict(true))]).0, Diagnosis::ConflictAbandoned);
    assert_eq!(by_log([(10, conflict(true)), (1, fails(Unauthorized, false))]).0, Diagnosis::ConflictAbandoned);
    assert_eq!(by_log([(40, fails(Unauthorized, false))]), refused);
    assert_eq!(by_log([(41, fails(Unauthorized, false))]), NOTHING);
}

#[test]
fn poll_failure_within_5_seconds_of_a_close_is_ignored() {
    let closing = || LogEvent::SessionClosing { set: by_manager(1) };
    let evicted = (Diagnosis::Evicted, Proof);
    assert_eq!(by_log([(60, closing()), (1, fails(NotFound, false))]), evicted);
    assert_eq!(by_log([(7, closing()), (1, fails(NotFound, false))]), evicted);
    assert_ne!(by_log([(6, closing()), (1, fails(NotFound, false))]).0, Diagnosis::Evicted);
    assert_eq!(by_log([(9, fails(NotFound, false)), (1, closing())]), evicted, "it came before");
}

#[test]
fn a_conflict_is_a_retry_for_as_long_as_the_next_one_may_take() {
    let retries = (Diagnosis::ConflictRetrying, Proof);
    assert_eq!(by_log([(40, conflict(false))]), retries);
    assert_eq!(by_log([(41, conflict(false))]), NOTHING);
    assert_eq!(by_log([(300, opened()), (120, conflict(false))]), retries, "a listener that had run waits longer");
    assert_ne!(by_log([(300, opened()), (121, conflict(false))]).0, Diagnosis::ConflictRetrying);
    assert_eq!(by_log([(300, conflict(false)), (1, conflict(false))]), retries, "five minutes");
    assert_eq!(by_log([(301, conflict(false)), (1, conflict(false))]).0, Diagnosis::HeldElsewhere);
}

#[test]
fn closed_session_or_idle_worker_does_not_listen() {
    assert_eq!(by_log([(10, poll()), (1, LogEvent::SessionClosing { set: by_manager(1) })]), NOTHING);
    assert_eq!(by_log([(10, poll()), (1, LogEvent::WorkerIdle { set: by_manager(1) })]), NOTHING);
}

#[test]
fn deaf_by_log_exactly_from_its_limit() {
    let limit = Manager::healthy(1).policy.deaf_after.as_millis() / 1000;
    let other = || LogEvent::Poll { set: by_manager(2), cursor: 0 };
    assert_eq!(by_log([(limit - 1, poll()), (1, other())]), (Diagnosis::Listening, Proof));
    assert_eq!(by_log([(limit, poll()), (119, other())]), (Diagnosis::Deaf, Proof));
    assert_eq!(by_log([(limit, poll()), (120, other())]), NOTHING);
}

#[test]
fn worker_is_taken_from_the_poll_on_equal_dates() {
    let mut manager = Manager::healthy(1);
    manager.gauges = true;
    manager.logs(secs(5), LogEvent::WorkerIdle { set: by_manager(1) });
    let last_success = Some(manager.now.minus(secs(5)));
    manager.listeners.insert(id(1), ListenerMetrics { last_success });
    let fleet = manager.diagnose();
    assert_eq!(
        (found(&fleet, 1).0, fleet.findings[&id(1)].worker.state),
        (Diagnosis::Listening, WorkerState::Listening)
    );
}

#[test]
fn session_check_decides_before_the_log_unless_it_is_older() {
    for (checked, rule) in [(1, Rule::SessionCheck), (2, Rule::SessionCheck), (3, Rule::Log)] {
        let mut manager = Manager::healthy(1);
        manager.metrics = false;
        manager.logs(secs(2), conflict(false));
        manager.checks.insert(id(1), (manager.now.minus(secs(checked)), CheckAnswer::Unheld));
        assert_eq!(manager.diagnose().findings[&id(1)].rule, rule, "checked {checked} s ago, refused 2 s ago");
    }
}

// --- the set's last change ---

#[test]
fn undated_change_gets_the_date_of_the_sweep() {
    let mut manager = Manager::given_up(1, Span::mins(5));
    manager.set(1).updated_at = Some(manager.now.minus(Span::mins(5)));
    assert_eq!(found(&manager.watch(Span::mins(1)), 1).0, Diagnosis::ConflictAbandoned);
    manager.change(1);
    manager.set(1).updated_at = None;
    assert_eq!(found(&manager.watch(Span::mins(1)), 1).0, Diagnosis::Unheld, "its worker was woken, and nobody came");
}

// --- GitHub's list ---

#[test]
fn failed_github_list_is_evidence_of_an_ill_set() {
    for (kind, fact) in [
        (FailureKind::Unauthorized, Fact::CredentialsRefused),
        (FailureKind::Forbidden, Fact::CredentialsRefused),
        (FailureKind::Timeout, Fact::GithubUnseen { kind: FailureKind::Timeout }),
    ] {
        let mut manager = Manager::given_up(1, secs(30));
        manager.listed(Err(kind));
        let fleet = manager.watch(secs(20));
        assert_eq!(found(&fleet, 1).0, Diagnosis::ConflictAbandoned);
        assert!(says(&fleet, 1, &fact), "{kind}");
    }
}

#[test]
fn cause_is_gone_sooner_if_github_answers_us() {
    for (asked, gone) in [(true, true), (false, false)] {
        let mut manager = Manager::healthy(1);
        manager.restarts(secs(1));
        manager.counters.start_errors = 3;
        if asked {
            manager.listed(Ok(github_sets([1])));
        }
        let fleet = manager.watch(secs(20));
        assert_eq!(found(&fleet, 1).0, Diagnosis::StartAbandoned);
        assert_eq!(says(&fleet, 1, &Fact::CauseGone), gone);
    }
}

// --- session checks ---

#[test]
fn session_check_counts_until_something_newer_is_known() {
    type Change = fn(&mut Manager);
    fn polls(manager: &mut Manager, at: Wall) {
        manager.listeners.insert(id(2), ListenerMetrics { last_success: Some(at) });
    }
    fn is_refused(manager: &mut Manager, later: u64) {
        manager.after(secs(later));
        let set = by_manager(2);
        manager.logs(Span::ZERO, LogEvent::Conflict { set, owner: None, gave_up: false });
    }
    let cases: [(&str, Change, bool); 10] = [
        ("changed at once", |manager| manager.set(2).updated_at = Some(manager.now), true),
        ("changed since", |manager| manager.set(2).updated_at = Some(manager.now.plus(Span::millis(1))), false),
        ("for five minutes", |manager| _ = manager.watch(Span::mins(5)), true),
        ("for longer", |manager| _ = manager.watch(Span::mins(5).plus(secs(2))), false),
        ("polled before", |manager| polls(manager, manager.now.minus(secs(9))), true),
        ("polled at once", |manager| polls(manager, manager.now), true),
        ("polled since", |manager| polls(manager, manager.now.plus(secs(1))), false),
        ("refused at once", |manager| is_refused(manager, 0), true),
        ("refused since", |manager| is_refused(manager, 1), false),
        (
            "a session opened since",
            |manager| {
                manager.after(secs(2)).opens();
                manager.watch(secs(4));
            },
            false,
        ),
    ];
    for (what, change, counts) in cases {
        // One of two sets listens, nobody knows which, and a session check has just found that nobody held set 2.
        let mut manager = Manager::given_up(2, Span::mins(20));
        manager.opens();
        manager.watch(secs(20));
        manager.checks.insert(id(2), (manager.now, CheckAnswer::Unheld));
        assert_eq!(diagnoses(&manager.diagnose()), [Diagnosis::Listening, Diagnosis::Unheld], "the session is set 1's");
        change(&mut manager);
        assert_eq!(found(&manager.diagnose(), 2) == (Diagnosis::Unheld, Strong), counts, "{what}");
    }
}

#[test]
fn holder_found_by_a_check_counts_until_the_set_changes() {
    for (later, expected) in [(0, Diagnosis::Unknown), (1, Diagnosis::Unheld)] {
        let mut manager = Manager::given_up(1, Span::mins(10));
        manager.watch(secs(20));
        manager.checks.insert(id(1), (manager.now, CheckAnswer::Held { owner: None }));
        manager.set(1).updated_at = Some(manager.now.plus(Span::millis(later)));
        assert_eq!(found(&manager.watch(Span::mins(1)), 1).0, expected, "{later} ms later");
    }
}

// --- the set's own series ---

/// For this span set 1 listens and has a series, set 2 has none, and refusals grow.
fn without_series(before: impl FnOnce(&mut Manager), span: Span, then: impl FnOnce(&mut Manager)) -> bool {
    let mut manager = Manager::healthy(2);
    manager.gauges = true;
    manager.restarts(Span::mins(10));
    before(&mut manager);
    let mut left = span;
    loop {
        if manager.counters.create == 0 {
            manager.opens();
        }
        manager.listeners.insert(id(1), ListenerMetrics { last_success: Some(manager.now) });
        manager.is_refused();
        manager.diagnose();
        if left == Span::ZERO {
            break;
        }
        left = left.minus(secs(1));
        manager.after(secs(1));
    }
    then(&mut manager);
    let fleet = manager.diagnose();
    let refused = says(&fleet, 2, &Fact::NoListenerSeries);
    let finding = &fleet.findings[&id(2)];
    let first = finding.corrected.map_or(finding.diagnosis, |_| Diagnosis::ConflictRetrying);
    assert!(!refused || (first, finding.confidence) == (Diagnosis::ConflictRetrying, Strong), "{finding:?}");
    refused
}

#[test]
fn missing_series_limits_of_first_poll_and_other_series() {
    assert!(!without_series(|_| {}, secs(119), |_| {}), "a session opened 119 s ago: its first poll may be under way");
    assert!(without_series(|_| {}, secs(120), |_| {}));
    assert!(!without_series(|_| {}, secs(120), |manager| manager.listeners.clear()), "nobody has one");
    let later = |second: u64| {
        without_series(
            |_| {},
            secs(200),
            |manager| {
                manager.change(2);
                for _ in 0..second {
                    manager.diagnose();
                    manager.after(secs(1));
                    manager.is_refused();
                    manager.listeners.insert(id(1), ListenerMetrics { last_success: Some(manager.now) });
                }
            },
        )
    };
    assert!(!later(119), "changed 119 s ago");
    assert!(later(120));
    assert!(!without_series(|_| {}, secs(200), |manager| _ = manager.watch(secs(30))), "nobody is refused now");
}

#[test]
fn a_series_is_deaf_from_the_very_limit() {
    for (ago, expected) in [(1, Diagnosis::Listening), (0, Diagnosis::Deaf)] {
        let mut manager = Manager::healthy(1);
        manager.gauges = true;
        let last_success = Some(manager.now.minus(manager.policy.deaf_after).plus(Span::millis(ago)));
        manager.listeners.insert(id(1), ListenerMetrics { last_success });
        let fleet = manager.diagnose();
        assert_eq!(found(&fleet, 1), (expected, Proof));
        assert_eq!(fleet.findings[&id(1)].worker.state, WorkerState::Listening);
    }
}
