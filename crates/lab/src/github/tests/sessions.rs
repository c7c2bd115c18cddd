//! The session slot (`docs/reference/actions-service.md` §4, §9 points 4, 5, 7).

use super::super::testing::{Bench, Opened, START, body, exception, held, status};
use super::super::{ConflictWording, Ended, Leaving, Takeover, UnknownSession};
use http::Method;
use medic_core::model::{GithubId, Span};
use serde_json::{Value, json};

const CONFLICT: &str = "RunnerScaleSetSessionConflictException";
const EXPIRED: &str = "RunnerScaleSetSessionExpiredException";
const STALE: Span = Span::secs(90);

fn with_set() -> (Bench, GithubId) {
    with_set_and(|_| {})
}

fn with_set_and(change: impl FnOnce(&mut super::super::GithubConfig)) -> (Bench, GithubId) {
    let mut bench = Bench::with(change);
    let set = bench.set("gpu");
    (bench, set)
}

/// How the set's last session ended.
fn end(bench: &Bench) -> Option<Ended> {
    bench.github.sessions().next_back().and_then(|session| session.ended.clone()).map(|(_, how)| how)
}

#[test]
fn busy_slot_refuses_every_owner_in_both_wordings() {
    for (wording, text) in [
        (ConflictWording::Anonymous, "The actions runner scaleset gpu already has an active session."),
        (ConflictWording::NamesOwner, "The runner scale set gpu already has an active session for owner garm-1."),
    ] {
        let (mut bench, set) = with_set_and(|config| config.conflict_wording = wording);
        bench.opened(set);
        for owner in ["garm-1", "somebody-else"] {
            let refused = bench.open(set, owner);
            assert_eq!(exception(&refused), (409, CONFLICT.to_owned()));
            assert_eq!(body(&refused)["message"], text);
        }
    }
}

#[test]
fn create_and_refresh_answer_the_whole_session() {
    let (mut bench, set) = with_set();
    let created = body(&bench.open(set, "garm-1"));
    let id = created["sessionId"].as_str().unwrap().to_owned();
    assert!(uuid::Uuid::parse_str(&id).is_ok_and(|id| !id.is_nil()));
    let refreshed = body(&bench.on_session(&Method::PATCH, set, &id));
    for session in [&created, &refreshed] {
        assert_eq!(session["sessionId"], id);
        assert_eq!(session["ownerName"], "garm-1");
        assert_eq!(session["runnerScaleSet"]["id"], set.0);
        assert_eq!(session["runnerScaleSet"]["name"], "gpu");
        assert_eq!(session["statistics"]["totalAssignedJobs"], 0);
        assert!(session["messageQueueUrl"].as_str().unwrap().starts_with("http"));
    }
    assert_ne!(created["messageQueueAccessToken"], refreshed["messageQueueAccessToken"], "the token is new");
    let renewed = Opened {
        id,
        queue: refreshed["messageQueueUrl"].as_str().unwrap().to_owned(),
        token: refreshed["messageQueueAccessToken"].as_str().unwrap().to_owned(),
    };
    assert!(held(&bench.poll(&renewed)).is_some());
}

#[test]
fn create_ignores_a_session_id_and_needs_an_owner() {
    let (mut bench, set) = with_set();
    let tail = format!("runtime/runnerscalesets/{}/sessions", set.0);
    for nonsense in [json!({"ownerName": ""}), json!({}), json!([1])] {
        assert_eq!(status(&bench.ask(&Method::POST, &tail, &nonsense)), 400, "{nonsense}");
    }
    let zero = "00000000-0000-0000-0000-000000000000";
    let answer = bench.ask(&Method::POST, &tail, &json!({"sessionId": zero, "ownerName": "arc"}));
    assert_ne!(body(&answer)["sessionId"], zero);
}

#[test]
fn delete_frees_the_slot_at_once_and_is_recorded() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    let deleted = bench.on_session(&Method::DELETE, set, &session.id);
    assert_eq!((status(&deleted), deleted.response.body().len()), (204, 0));
    assert!(matches!(end(&bench), Some(Ended::Deleted { by }) if by.credential == "garm"));
    assert_ne!(bench.opened(set).id, session.id);
}

#[test]
fn unknown_session_is_refused_as_configured() {
    for (switch, expected) in
        [(UnknownSession::Expired, (400, EXPIRED)), (UnknownSession::NotFound, (404, "RunnerAdminException"))]
    {
        let (mut bench, set) = with_set_and(|config| config.unknown_session = switch);
        let session = bench.opened(set);
        let expected = (expected.0, expected.1.to_owned());
        let other = "11111111-2222-4333-8444-555555555555";
        assert_eq!(exception(&bench.on_session(&Method::PATCH, set, other)), expected);
        assert_eq!(exception(&bench.on_session(&Method::DELETE, set, other)), expected);
        assert_eq!(exception(&bench.open(set, "garm-1")).0, 409, "the real one is still there");
        bench.on_session(&Method::DELETE, set, &session.id);
        assert_eq!(exception(&bench.on_session(&Method::DELETE, set, &session.id)), expected, "deleted twice");
        assert_eq!(exception(&bench.poll(&session)), expected);
    }
}

#[test]
fn delete_refuses_a_session_of_another_set() {
    let (mut bench, set) = with_set();
    let other = bench.set("cpu");
    let session = bench.opened(set);
    assert_eq!(exception(&bench.on_session(&Method::DELETE, other, &session.id)).0, 400);
    assert!(bench.github.holder(set).is_some());
}

#[test]
fn unpolled_session_expires_after_its_lifetime() {
    let (mut bench, set) = with_set();
    bench.opened(set);
    assert_eq!(bench.github.next_deadline(), Some(START.plus(STALE)));
    bench.wait(Span::millis(89_999));
    assert_eq!(status(&bench.open(set, "garm-1")), 409);
    bench.wait(Span::millis(1));
    assert_eq!(end(&bench), Some(Ended::Expired));
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn lifetime_counts_from_the_end_of_the_last_poll() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    bench.wait(Span::secs(60));
    bench.poll(&session);
    bench.wait(Span::secs(50));
    assert_eq!(status(&bench.poll(&session)), 202);
    bench.wait(Span::millis(89_999));
    assert_eq!(status(&bench.open(set, "garm-1")), 409);
    bench.wait(Span::millis(1));
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn session_ages_from_the_disconnect_of_its_poll() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    bench.poll(&session);
    bench.wait(Span::secs(20));
    bench.hang_up(&session);
    let holder = bench.github.holder(set).unwrap();
    assert!(!holder.polling);
    assert_eq!(holder.stale_at, START.plus(Span::secs(20)).plus(STALE));
    bench.wait(STALE);
    assert_eq!(end(&bench), Some(Ended::Expired));
}

#[test]
fn poll_in_flight_keeps_its_session() {
    let (mut bench, set) = with_set_and(|config| config.stale_lifetime = Span::secs(10));
    let session = bench.opened(set);
    bench.poll(&session);
    bench.wait(Span::secs(50));
    assert_eq!(status(&bench.open(set, "garm-1")), 409);
    assert_eq!(status(&bench.poll(&session)), 202);
    bench.wait(Span::secs(10));
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn polls_of_an_expired_session_keep_nothing_alive() {
    let (mut bench, set) = with_set();
    let old = bench.opened(set);
    bench.wait(STALE);
    let new = bench.opened(set);
    bench.wait(Span::secs(80));
    assert_eq!(exception(&bench.poll(&old)), (400, EXPIRED.to_owned()));
    bench.wait(Span::secs(10));
    assert_eq!(end(&bench), Some(Ended::Expired), "the new session {} was never polled", new.id);
}

#[test]
fn refresh_does_not_prolong_a_stale_session() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    bench.wait(Span::secs(80));
    assert_eq!(status(&bench.on_session(&Method::PATCH, set, &session.id)), 200);
    bench.wait(Span::secs(10));
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn session_with_refused_refresh_still_polls() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    bench.github.refuse_refresh(set);
    let refused = bench.on_session(&Method::PATCH, set, &session.id);
    assert_eq!(exception(&refused), (404, "RunnerAdminException".to_owned()));
    assert!(held(&bench.poll(&session)).is_some());
}

#[test]
fn evicted_session_frees_the_slot_and_fails_its_poll() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    bench.poll(&session);
    bench.github.evict_session(set, bench.now);
    let woken = bench.github.take_wakes();
    assert_eq!(woken.iter().map(medic_core::model::SessionId::as_str).collect::<Vec<_>>(), [session.id.as_str()]);
    assert_eq!(exception(&bench.poll(&session)), (400, EXPIRED.to_owned()));
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn phantom_conflict_refuses_a_free_slot() {
    let (mut bench, set) = with_set();
    bench.github.phantom_conflict(set, START.plus(Span::mins(10)));
    assert_eq!(exception(&bench.open(set, "garm-1")), (409, CONFLICT.to_owned()));
    assert!(bench.github.holder(set).is_none());
    bench.wait(Span::mins(10));
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn foreign_owner_waits_for_the_slot_and_deletes_its_session() {
    let (mut bench, set) = with_set_and(|config| config.conflict_wording = ConflictWording::NamesOwner);
    let session = bench.opened(set);
    let until = START.plus(Span::hours(2));
    bench.github.foreign_owner_takes(set, "arc-pod", (Takeover::WhenFree, Leaving::Deletes), START, until);
    assert_eq!(bench.github.holder(set).unwrap().owner.as_str(), "garm-1", "not by force");
    bench.on_session(&Method::DELETE, set, &session.id);
    bench.wait(Span::mins(30));
    let refused = bench.open(set, "garm-1");
    assert!(body(&refused)["message"].as_str().unwrap().ends_with("for owner arc-pod."));
    bench.wait(Span::mins(90));
    bench.log_in("acme");
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn foreign_owner_at_once_evicts_and_may_leave_a_session() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    let until = START.plus(Span::mins(5));
    bench.github.foreign_owner_takes(set, "arc-pod", (Takeover::AtOnce, Leaving::Abandons), START, until);
    assert_eq!(exception(&bench.poll(&session)), (400, EXPIRED.to_owned()));
    bench.wait(Span::mins(5));
    assert_eq!(status(&bench.open(set, "garm-1")), 409, "left, but not deleted");
    bench.wait(STALE);
    assert_eq!(status(&bench.open(set, "garm-1")), 200);
}

#[test]
fn removed_set_ends_its_session_and_polls() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    bench.poll(&session);
    bench.github.remove_set(set, bench.now);
    let gone = (404, "RunnerScaleSetNotFoundException".to_owned());
    assert_eq!(bench.github.take_wakes().len(), 1);
    assert_eq!(exception(&bench.poll(&session)), gone);
    assert_eq!(exception(&bench.open(set, "garm-1")), gone);
    assert_eq!(exception(&bench.on_session(&Method::PATCH, set, &session.id)), gone);
    assert_eq!(exception(&bench.on_session(&Method::DELETE, set, &session.id)), gone);
    let record = bench.github.sessions().next_back().unwrap();
    assert_eq!(record.ended.clone().map(|(_, how)| how), Some(Ended::SetRemoved));
}

#[test]
fn sessions_cannot_be_read() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    for tail in ["", &format!("/{}", session.id)] {
        let answer =
            bench.ask(&Method::GET, &format!("runtime/runnerscalesets/{}/sessions{tail}", set.0), &Value::Null);
        assert_eq!(status(&answer), 404);
    }
}

#[test]
fn two_polls_of_one_session_end_separately() {
    let (mut bench, set) = with_set();
    let session = bench.opened(set);
    let poll = |number| {
        let mut request = session.poll(0);
        request.extensions_mut().insert(crate::wire::PollId(number));
        request
    };
    let (old, new) = (poll(1), poll(2));
    assert!(held(&bench.send(&old)).is_some());
    bench.wait(Span::secs(10));
    assert_eq!(held(&bench.send(&new)), Some(START.plus(Span::secs(60))), "a poll of its own");
    let mut gone = old.clone();
    gone.extensions_mut().insert(crate::wire::HungUp);
    bench.send(&gone);
    assert!(bench.github.holder(set).unwrap().polling, "the new one goes on");
    bench.github.queue_jobs(set, 1, bench.now);
    assert_eq!(bench.github.take_wakes().len(), 1);
    assert_eq!(status(&bench.send(&new)), 200);
    assert!(!bench.github.holder(set).unwrap().polling);
    assert_eq!(bench.github.polls(set), 2);
}
