//! The HTTP side.

use super::*;
use crate::garm::{LogStreamer, LostPut, ManagerFault, ManagerRoute, Metrics};
use crate::github::{Fault, FaultKind};
use crate::wire::Delivery;

fn refused(answer: &Answer) -> (u16, String) {
    (status(answer), body(answer)["error"].as_str().unwrap().to_owned())
}

#[test]
fn api_refuses_connections_before_boot_and_after_stop() {
    let mut bench = Bench::down(Build::PreFix, |_| {}, |_| {});
    let ask = |bench: &mut Bench| bench.send(&Method::GET, "/api/v1/scalesets", "", "").delivery;
    assert_eq!(ask(&mut bench), Delivery::Refused);
    bench.start();
    assert_eq!(ask(&mut bench), Delivery::Refused);
    bench.wait(Span::millis(100));
    assert_eq!(ask(&mut bench), Delivery::After(Span::ZERO));
    bench.stop();
    assert_eq!(ask(&mut bench), Delivery::Refused);
}

#[test]
fn api_checks_the_first_run_before_the_token() {
    let ask = |bench: &mut Bench, token: &str| refused(&bench.send(&Method::GET, "/api/v1/scalesets", token, ""));
    let mut empty = Bench::with(Build::PostFix, |garm| garm.initialised = false, |_| {});
    assert_eq!(ask(&mut empty, ""), (409, "init_required".to_owned()));
    let mut bench = Bench::new(Build::PostFix);
    for token in ["", "Bearer x.y.z"] {
        assert_eq!(ask(&mut bench, token), (401, "Authentication failed".to_owned()));
    }
}

#[test]
fn tokens_have_one_purpose_and_survive_a_restart() {
    let mut bench = Bench::with(Build::PostFix, |garm| garm.token_lifetime = Span::hours(1), |_| {});
    let admin = bench.admin();
    let metrics = body(&bench.get("/api/v1/metrics-token"))["token"].as_str().unwrap().to_owned();
    let metrics = format!("Bearer {metrics}");
    let ask = |bench: &mut Bench, path: &str, token: &str| status(&bench.send(&Method::GET, path, token, ""));
    assert_eq!((ask(&mut bench, "/metrics", &metrics), ask(&mut bench, "/metrics", &admin)), (200, 401));
    assert_eq!(ask(&mut bench, "/api/v1/scalesets", &metrics), 401);
    assert_eq!(ask(&mut bench, "/api/v1/scalesets", &admin.replace("Bearer", "Anything")), 200);
    bench.restart();
    bench.wait(Span::secs(1));
    assert_eq!(ask(&mut bench, "/api/v1/scalesets", &admin), 200);
    bench.wait(Span::mins(61));
    assert_eq!(ask(&mut bench, "/api/v1/scalesets", &admin), 401);
    let admin = bench.admin();
    bench.garm.expire_tokens();
    assert_eq!(ask(&mut bench, "/api/v1/scalesets", &admin), 401);
}

#[test]
fn routes_match_paths_and_methods_as_garm_does() {
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    let mut ask = |method: Method, path: &str| bench.send(&method, path, &admin, "");
    for (method, path, expected) in [
        (Method::GET, "/api/v1/scalesets/", 200),
        (Method::PATCH, "/api/v1/scalesets/1", 405),
        (Method::GET, "/api/v1/scalesets/x", 400),
        (Method::GET, "/api/v1/nonsense", 404),
        (Method::GET, "/debug/pprof/goroutine?debug=2", 404),
        (Method::GET, "/api/v1/ws/logs", 200),
        (Method::GET, "/api/v1/ws/events", 200),
    ] {
        assert_eq!(status(&ask(method, path)), expected, "{path}");
    }
    assert_eq!(ask(Method::GET, "/nonsense").response.body().as_ref(), b"404 page not found\n");
    let mut without = Bench::with(Build::PostFix, |garm| garm.log_streamer = LogStreamer::Off, |_| {});
    assert_eq!(refused(&without.get("/api/v1/ws/logs")), (400, "Bad Request".to_owned()));
}

#[test]
fn answers_leave_out_zero_values() {
    let mut bench = Bench::new(Build::PostFix);
    bench.put(FIRST, &json!({"enabled": false, "max_runners": 0}));
    let set = body(&bench.get("/api/v1/scalesets"))[0].clone();
    for field in ["enabled", "max_runners", "desired_runner_count"] {
        assert!(set.get(field).is_none(), "{field}");
    }
    assert_eq!(set["status_messages"], Value::Null);
    assert_eq!(set["endpoint"]["base_url"], ORIGIN);
}

#[test]
fn put_ignores_null_and_unknown_keys_and_asks_for_the_quota() {
    let mut bench = Bench::new(Build::PostFix);
    let since = bench.now;
    assert_eq!(bench.put(FIRST, &json!({"enabled": null, "unknown": 7}))["enabled"], json!(true));
    bench.enable(FIRST, true);
    assert_eq!(bench.calls_since(since, Route::RateLimit).len(), 2, "no-ops too");
}

#[test]
fn delete_answers_200_even_when_github_refuses() {
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    let delete = |bench: &mut Bench| status(&bench.send(&Method::DELETE, "/api/v1/scalesets/1", &admin, ""));
    assert_eq!(delete(&mut bench), 400, "still enabled");
    bench.enable(FIRST, false);
    bench.wait(Span::secs(1));
    bench.github.inject(Fault::on(Route::DeleteSet, FaultKind::status(500)).times(1));
    assert_eq!(delete(&mut bench), 200);
    assert_eq!(status(&bench.get("/api/v1/scalesets/1")), 200, "it still exists");
    assert_eq!(delete(&mut bench), 200);
    bench.wait(Span::secs(1));
    assert_eq!(status(&bench.get("/api/v1/scalesets/1")), 404);
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent);
}

#[test]
fn lost_put_happens_before_or_after_its_effect() {
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    let put =
        |bench: &mut Bench| bench.send(&Method::PUT, "/api/v1/scalesets/1", &admin, r#"{"enabled":false}"#).delivery;
    bench.garm.lose_next_put(LostPut::BeforeEffect);
    assert_eq!(put(&mut bench), Delivery::Never);
    assert!(bench.garm.is_enabled(FIRST) && bench.garm.writes().is_empty());
    bench.garm.lose_next_put(LostPut::AfterEffect);
    assert_eq!(put(&mut bench), Delivery::Reset);
    assert!(!bench.garm.is_enabled(FIRST));
    bench.wait(Span::secs(1));
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle, "the event was delivered");
}

#[test]
fn faults_match_their_route_and_set() {
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    bench.garm.inject(ManagerFault::on(ManagerRoute::ListSets, FaultKind::MalformedJson).times(1));
    bench.garm.inject(ManagerFault::on(ManagerRoute::GetSet, FaultKind::Never).for_set(FIRST.0));
    bench.garm.inject(ManagerFault::on(ManagerRoute::Instances, FaultKind::Truncated(1)));
    let mut get = |path: &str| bench.send(&Method::GET, path, &admin, "");
    assert!(serde_json::from_slice::<Value>(get("/api/v1/scalesets").response.body()).is_err());
    assert!(serde_json::from_slice::<Value>(get("/api/v1/scalesets").response.body()).is_ok(), "once");
    assert_eq!(get("/api/v1/scalesets/1").delivery, Delivery::Never);
    assert_eq!(status(&get("/api/v1/scalesets/2")), 200);
    assert_eq!(get("/api/v1/instances").delivery, Delivery::Truncated(1));
    bench.garm.clear_faults();
    bench.garm.fail_until(502, bench.now.plus(Span::secs(10)));
    assert_eq!(status(&bench.send(&Method::GET, "/api/v1/scalesets", &admin, "")), 502);
    bench.wait(Span::secs(10));
    assert_eq!(status(&bench.send(&Method::GET, "/api/v1/scalesets", &admin, "")), 200);
}

#[test]
fn metrics_can_be_open_or_off() {
    for (metrics, expected) in [(Metrics::Open, 200), (Metrics::Off, 404), (Metrics::Token, 401)] {
        let mut bench = Bench::with(Build::PostFix, |garm| garm.metrics = metrics, |_| {});
        assert_eq!(status(&bench.send(&Method::GET, "/metrics", "", "")), expected);
    }
}
