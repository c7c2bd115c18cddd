//! Faults (`docs/reference/actions-service.md` §9 points 2 and 12).

use super::super::testing::{Bench, START, body, get, held, status};
use super::super::{Degraded, Fault, FaultKind, Lasts, Route};
use crate::wire::Delivery;
use http::Method;
use medic_core::model::Span;
use serde_json::Value;

const SETS: &str = "runtime/runnerscalesets";

#[test]
fn fault_replaces_status_and_body() {
    let mut bench = Bench::new();
    bench.github.inject(Fault::on(Route::ListSets, FaultKind::status(503)).times(1));
    bench.github.inject(Fault::on(Route::ListSets, FaultKind::HtmlPage(502)).times(1));
    bench.github.inject(Fault::on(Route::ListSets, FaultKind::MalformedJson).times(1));
    let mut list = || bench.ask(&Method::GET, SETS, &Value::Null);
    assert_eq!(status(&list()), 503);
    let page = list();
    assert_eq!(
        (status(&page), page.response.headers()["content-type"].to_str().unwrap()),
        (502, "text/html; charset=utf-8")
    );
    let broken = list();
    assert_eq!(status(&broken), 200);
    assert!(serde_json::from_slice::<Value>(broken.response.body()).is_err());
    assert_eq!(status(&list()), 200, "all used up");
}

#[test]
fn fault_changes_the_delivery_of_its_route_only() {
    for (kind, delivery) in [
        (FaultKind::Refused, Delivery::Refused),
        (FaultKind::Reset, Delivery::Reset),
        (FaultKind::Never, Delivery::Never),
        (FaultKind::Huge(1 << 40), Delivery::Huge(1 << 40)),
        (FaultKind::Delay(Span::secs(9)), Delivery::After(Span::secs(9))),
        (FaultKind::Truncated(7), Delivery::Truncated(7)),
        (FaultKind::Dripping(Span::secs(1)), Delivery::Dripping(Span::secs(1))),
    ] {
        let mut bench = Bench::new();
        bench.github.inject(Fault::on(Route::ListSets, kind));
        assert_eq!(bench.ask(&Method::GET, SETS, &Value::Null).delivery, delivery);
        let set = bench.set("gpu");
        assert_eq!(status(&bench.open(set, "garm-1")), 200, "other routes are not concerned");
    }
}

#[test]
fn failed_post_may_have_opened_a_session() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::status(500)).times(1).after_effect());
    assert_eq!(status(&bench.open(set, "garm-1")), 500);
    assert_eq!(status(&bench.open(set, "garm-1")), 409, "the client meets its own session");
    let lost = bench.set("cpu");
    bench.github.inject(Fault::on(Route::CreateSession, FaultKind::status(500)).times(1));
    assert_eq!(status(&bench.open(lost, "garm-1")), 500);
    assert_eq!(status(&bench.open(lost, "garm-1")), 200);
}

#[test]
fn delete_with_a_lost_answer_may_have_deleted() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    bench.github.inject(Fault::on(Route::DeleteSession, FaultKind::Reset).times(1).after_effect());
    assert_eq!(bench.on_session(&Method::DELETE, set, &session.id).delivery, Delivery::Reset);
    assert!(bench.github.holder(set).is_none());
}

#[test]
fn session_fault_removes_the_queue_or_the_jwt() {
    let mut bench = Bench::new();
    let mut spoiled = |kind| {
        let set = bench.set(&format!("{kind:?}"));
        bench.github.inject(Fault::on(Route::CreateSession, kind).for_set(set.0));
        body(&bench.open(set, "garm-1"))
    };
    assert_eq!(spoiled(FaultKind::EmptyQueueUrl)["messageQueueUrl"], "");
    assert_eq!(spoiled(FaultKind::TokenNotJwt)["messageQueueAccessToken"].as_str().unwrap().split('.').count(), 1);
}

#[test]
fn message_fault_removes_the_statistics() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    bench.github.queue_jobs(set, 1, START);
    bench.github.inject(Fault::on(Route::Poll, FaultKind::NoStatistics).times(1));
    assert_eq!(body(&bench.poll(&session))["statistics"], Value::Null);
    assert_ne!(body(&bench.poll(&session))["statistics"], Value::Null);
}

#[test]
fn degraded_service_fails_polls_and_recovers() {
    for (how, code) in [(Degraded::Poll500, 500), (Degraded::PollEmpty, 200), (Degraded::Poll401, 401)] {
        let mut bench = Bench::new();
        let set = bench.set("gpu");
        let session = bench.opened(set);
        bench.poll(&session);
        bench.github.degrade_service(how, Lasts::Until(START.plus(Span::mins(5))));
        assert_eq!(bench.github.take_wakes().len(), 1, "polls in flight fail at once");
        let answer = bench.poll(&session);
        assert_eq!((status(&answer), held(&answer)), (code, None), "{how:?}");
        assert!(!bench.github.holder(set).unwrap().polling, "a failed poll keeps nothing alive");
        bench.wait(Span::secs(90));
        assert!(bench.github.holder(set).is_none());
        bench.wait(Span::mins(4));
        let session = bench.opened(set);
        assert!(held(&bench.poll(&session)).is_some());
    }
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    bench.github.degrade_service(Degraded::EmptyQueueUrl, Lasts::Forever);
    assert_eq!(body(&bench.open(set, "garm-1"))["messageQueueUrl"], "");
    bench.github.clear_faults();
    let id = body(&bench.ask(&Method::GET, SETS, &Value::Null))["value"][0]["id"].clone();
    assert_eq!(id, set.0);
}

#[test]
fn fault_everywhere_hits_rest_and_service() {
    let mut bench = Bench::new();
    bench.github.inject(Fault::everywhere(FaultKind::Never).until(START.plus(Span::mins(1))));
    assert_eq!(bench.ask(&Method::GET, SETS, &Value::Null).delivery, Delivery::Never);
    assert_eq!(bench.send(&get("/api/v3/rate_limit", "")).delivery, Delivery::Never);
    bench.wait(Span::mins(1));
    assert_eq!(status(&bench.ask(&Method::GET, SETS, &Value::Null)), 200);
}

#[test]
fn every_answer_takes_the_latency() {
    let mut bench = Bench::with(|config| config.latency = Span::millis(80));
    assert_eq!(bench.ask(&Method::GET, SETS, &Value::Null).delivery, Delivery::After(Span::millis(80)));
}

#[test]
fn poll_that_meets_a_fault_is_over() {
    let mut bench = Bench::new();
    let set = bench.set("gpu");
    let session = bench.opened(set);
    bench.poll(&session);
    bench.wait(Span::secs(10));
    bench.github.inject(Fault::on(Route::Poll, FaultKind::Reset).for_set(set.0).times(1));
    assert_eq!(bench.poll(&session).delivery, Delivery::Reset);
    assert_eq!(bench.github.holder(set).unwrap().stale_at, START.plus(Span::secs(100)));
}
