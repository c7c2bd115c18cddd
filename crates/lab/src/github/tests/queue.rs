//! The message queue and the course of jobs (`docs/reference/actions-service.md` §5, §9 points 6, 8, 9).

use super::super::testing::{Bench, Opened, START, body, held, request, status};
use super::super::{JobCounts, Route};
use crate::wire::Answer;
use http::Method;
use medic_core::model::{GithubId, Span};
use serde_json::Value;

fn bench() -> (Bench, GithubId, Opened) {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    (bench, set, session)
}

/// How many job messages an envelope has.
fn jobs(answer: &Answer) -> usize {
    serde_json::from_str::<Vec<Value>>(body(answer)["body"].as_str().unwrap()).unwrap().len()
}

fn with_capacity(mut request: crate::wire::Request, header: &str, capacity: u64) -> crate::wire::Request {
    let name = http::HeaderName::from_bytes(header.as_bytes()).unwrap();
    request.headers_mut().insert(name, capacity.into());
    request
}

fn ack(bench: &mut Bench, session: &Opened, message: u64) -> u16 {
    let path = format!("{}/{message}", session.queue);
    status(&bench.send(&request(&Method::DELETE, &path, &session.bearer(), "")))
}

#[test]
fn idle_poll_is_held_and_then_answered_with_an_empty_202() {
    let (mut bench, _, session) = bench();
    let until = START.plus(Span::secs(50));
    assert_eq!(held(&bench.poll(&session)), Some(until));
    bench.wait(Span::secs(49));
    assert_eq!(held(&bench.poll(&session)), Some(until), "asked again too early: the same poll");
    bench.wait(Span::secs(1));
    let answer = bench.poll(&session);
    assert_eq!((status(&answer), held(&answer), answer.response.body().len()), (202, None, 0));
    assert_eq!(bench.github.recent_calls(Route::Poll), 1, "one call");
    assert_eq!(held(&bench.poll(&session)), Some(until.plus(Span::secs(50))), "a new poll");
}

#[test]
fn message_is_delivered_until_it_is_acknowledged() {
    let (mut bench, set, session) = bench();
    bench.github.queue_jobs(set, 1, bench.now);
    assert_eq!(status(&bench.poll(&session)), 200);
    assert_eq!(status(&bench.poll(&session)), 200, "not deleted: delivered again");
    assert!(held(&bench.send(&session.poll(100_000_001))).is_some(), "not beyond the cursor");
    bench.hang_up(&session);
    bench.on_session(&Method::DELETE, set, &session.id);
    let next = bench.opened(set);
    assert_eq!(status(&bench.poll(&next)), 200, "delivered to a later session");
    assert_eq!(ack(&mut bench, &next, 100_000_001), 204);
    assert_eq!(ack(&mut bench, &next, 100_000_001), 204, "twice is no error");
    assert!(held(&bench.poll(&next)).is_some());
}

#[test]
fn jobs_wait_for_capacity() {
    let (mut bench, set, session) = bench();
    bench.github.queue_jobs(set, 3, bench.now);
    let ask = |header, capacity| with_capacity(session.poll(0), header, capacity);
    assert!(held(&bench.send(&ask("X-ScaleSetMaxCapacity", 0))).is_some());
    assert_eq!(bench.github.jobs(set), JobCounts { waiting: 3, ..JobCounts::default() });
    bench.hang_up(&session);
    assert_eq!(jobs(&bench.send(&ask("x-scalesetmaxcapacity", 2))), 2, "any letter case");
    ack(&mut bench, &session, 100_000_001);
    assert!(held(&bench.send(&ask("X-Scalesetmaxcapacity", 2))).is_some());
    bench.hang_up(&session);
    assert_eq!(jobs(&bench.send(&ask("X-Scalesetmaxcapacity", 3))), 1);
}

#[test]
fn one_envelope_holds_fifty_jobs_at_most() {
    let (mut bench, set, session) = bench();
    bench.github.queue_jobs(set, 60, bench.now);
    assert_eq!(jobs(&bench.poll(&session)), 50);
    assert_eq!(jobs(&bench.send(&session.poll(100_000_001))), 10);
}
