//! Faults (`docs/reference/actions-service.md` §9 points 2 and 12).

use super::super::testing::{Bench, START, get, held, status};
use super::super::{Degraded, Fault, FaultKind, Lasts, Route};
use crate::wire::Delivery;
use http::Method;
use medic_core::model::Span;
use serde_json::Value;

const SETS: &str = "runtime/runnerscalesets";

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
        bench.wait(Span::mins(5));
        let session = bench.opened(set);
        assert!(held(&bench.poll(&session)).is_some());
    }
}

#[test]
fn fault_everywhere_hits_rest_and_service() {
    let mut bench = Bench::with(|config| config.latency = Span::millis(80));
    bench.github.inject(Fault::everywhere(FaultKind::Never).until(START.plus(Span::mins(1))));
    assert_eq!(bench.ask(&Method::GET, SETS, &Value::Null).delivery, Delivery::Never);
    assert_eq!(bench.send(&get("/api/v3/rate_limit", "")).delivery, Delivery::Never);
    bench.wait(Span::mins(1));
    let answer = bench.ask(&Method::GET, SETS, &Value::Null);
    assert_eq!((status(&answer), answer.delivery), (200, Delivery::After(Span::millis(80))), "with the latency");
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
