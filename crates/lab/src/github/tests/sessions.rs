//! The session slot (`docs/reference/actions-service.md` §4, §9 points 4, 5, 7).

use super::super::testing::{Bench, START, body, exception, held, status};
use super::super::{Ended, UnknownSession};
use http::Method;
use medic_core::model::Span;
use serde_json::json;

const EXPIRED: &str = "RunnerScaleSetSessionExpiredException";

#[test]
fn create_ignores_a_session_id_and_needs_an_owner() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let tail = format!("runtime/runnerscalesets/{}/sessions", set.0);
    for nonsense in [json!({"ownerName": ""}), json!({}), json!([1])] {
        assert_eq!(status(&bench.ask(&Method::POST, &tail, &nonsense)), 400, "{nonsense}");
    }
    let zero = "00000000-0000-0000-0000-000000000000";
    let answer = bench.ask(&Method::POST, &tail, &json!({"sessionId": zero, "ownerName": "arc"}));
    assert_ne!(body(&answer)["sessionId"], zero);
}

#[test]
fn unknown_session_is_refused_as_configured() {
    for (switch, expected) in
        [(UnknownSession::Expired, (400, EXPIRED)), (UnknownSession::NotFound, (404, "RunnerAdminException"))]
    {
        let mut bench = Bench::with(|config| config.unknown_session = switch);
        let (set, other) = (bench.set("gpu"), bench.set("cpu"));
        let (session, of_another) = (bench.opened(set), bench.opened(other));
        let expected = (expected.0, expected.1.to_owned());
        for unknown in ["11111111-2222-4333-8444-555555555555", &of_another.id] {
            assert_eq!(exception(&bench.on_session(&Method::PATCH, set, unknown)), expected);
            assert_eq!(exception(&bench.on_session(&Method::DELETE, set, unknown)), expected);
        }
        assert_eq!(exception(&bench.open(set, "garm-1")).0, 409, "the real one is still there");
        assert_eq!(status(&bench.on_session(&Method::DELETE, set, &session.id)), 204);
        assert_eq!(exception(&bench.on_session(&Method::DELETE, set, &session.id)), expected, "deleted twice");
        assert_eq!(exception(&bench.poll(&session)), expected);
        assert_ne!(bench.opened(set).id, session.id, "the slot is free at once");
    }
}

#[derive(Debug, Clone, Copy)]
enum Use {
    Poll,
    HangUp,
    Refresh,
}

/// With their times, in seconds.
type Uses = &'static [(u64, Use)];

#[test]
fn session_expires_a_lifetime_after_its_last_poll() {
    use Use::{HangUp, Poll, Refresh};
    let cases: [(&str, u64, Uses, u64); 5] = [
        ("never polled", 90, &[], 90),
        ("from the end of the last poll", 90, &[(60, Poll), (110, Poll)], 200),
        ("from the disconnect", 90, &[(0, Poll), (20, HangUp)], 110),
        ("a poll in flight keeps it", 10, &[(0, Poll), (50, Poll)], 60),
        ("a refresh does not prolong it", 90, &[(80, Refresh)], 90),
    ];
    for (name, lifetime, uses, forgotten) in cases {
        let mut bench = Bench::with(|config| config.stale_lifetime = Span::secs(lifetime));
        let set = bench.set("gpu");
        let session = bench.opened(set);
        for (at, how) in uses {
            bench.wait(START.plus(Span::secs(*at)).since(bench.now));
            match how {
                Poll => drop(bench.poll(&session)),
                HangUp => bench.hang_up(&session),
                Refresh => assert_eq!(status(&bench.on_session(&Method::PATCH, set, &session.id)), 200),
            }
        }
        let end = START.plus(Span::secs(forgotten));
        assert_eq!(bench.github.holder(set).map(|holder| holder.stale_at), Some(end), "{name}");
        bench.wait(end.since(bench.now).minus(Span::millis(1)));
        assert_eq!(status(&bench.open(set, "garm-1")), 409, "{name}");
        bench.wait(Span::millis(1));
        let ended = bench.github.sessions().next_back().and_then(|session| session.ended.clone());
        assert_eq!(ended, Some((end, Ended::Expired)), "{name}");
        assert_eq!(status(&bench.open(set, "garm-1")), 200, "{name}");
    }
}

#[test]
fn polls_of_an_expired_session_keep_nothing_alive() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let old = bench.opened(set);
    bench.wait(Span::secs(90));
    bench.opened(set);
    bench.wait(Span::secs(80));
    assert_eq!(exception(&bench.poll(&old)), (400, EXPIRED.to_owned()));
    bench.wait(Span::secs(10));
    assert_eq!(bench.github.holder(set), None, "the new session was never polled");
}

#[test]
fn removed_set_ends_its_session_and_polls() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    assert!(held(&bench.poll(&session)).is_some());
    bench.github.remove_set(set, bench.now);
    let gone = (404, "RunnerScaleSetNotFoundException".to_owned());
    assert_eq!(bench.github.take_wakes().len(), 1);
    assert_eq!(exception(&bench.poll(&session)), gone);
    assert_eq!(exception(&bench.open(set, "garm-1")), gone);
    for method in [Method::PATCH, Method::DELETE] {
        assert_eq!(exception(&bench.on_session(&method, set, &session.id)), gone);
    }
}
