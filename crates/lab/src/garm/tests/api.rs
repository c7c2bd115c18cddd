//! The HTTP side.

use super::*;
use crate::garm::{LogStreamer, LostPut, ManagerFault, ManagerRoute, Metrics};
use crate::github::FaultKind;
use crate::wire::Delivery;

fn refused(answer: &Answer) -> (u16, String) {
    (status(answer), body(answer)["error"].as_str().unwrap().to_owned())
}

#[test]
fn nothing_listens_before_the_boot_is_over_or_after_the_end() {
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
fn the_checks_come_in_the_order_of_the_original() {
    let mut bench = Bench::with(Build::PostFix, |garm| garm.initialised = false, |_| {});
    let get = |bench: &mut Bench, token: &str| bench.send(&Method::GET, "/api/v1/scalesets", token, "");
    assert_eq!(refused(&get(&mut bench, "")), (409, "init_required".to_owned()));
    let run =
        json!({"username": "admin", "password": "correct horse battery staple", "email": "a@b.c", "full_name": "x"});
    let first = bench.send(&Method::POST, "/api/v1/first-run", "", &run.to_string());
    assert_eq!((status(&first), &body(&first)["is_admin"]), (200, &json!(true)));
    let again = bench.send(&Method::POST, "/api/v1/first-run", "", &run.to_string());
    assert_eq!(refused(&again), (409, "Conflict".to_owned()));
    let admin = bench.admin();
    assert_eq!(refused(&get(&mut bench, "")), (409, "urls_required".to_owned()), "before the token is looked at");
    let urls = json!({"metadata_url": "http://g/m", "callback_url": "http://g/c", "webhook_url": "http://g/w"});
    let put = bench.send(&Method::PUT, "/api/v1/controller", &admin, &urls.to_string());
    assert_eq!(
        body(&put)["controller_webhook_url"],
        format!("http://g/w/{}", body(&put)["controller_id"].as_str().unwrap())
    );
    assert_eq!(refused(&get(&mut bench, "")), (401, "Authentication failed".to_owned()));
    assert_eq!(refused(&get(&mut bench, "Bearer x.y.z")), (401, "Authentication failed".to_owned()));
    assert_eq!(status(&get(&mut bench, &admin)), 200);
}

#[test]
fn tokens_have_one_purpose_end_and_survive_a_restart() {
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
fn paths_and_methods_are_met_as_by_the_original() {
    let mut bench = Bench::with(Build::PostFix, |garm| garm.base_path = "/garm".to_owned(), |_| {});
    let admin = {
        let password = json!({"username": "admin", "password": "correct horse battery staple"}).to_string();
        let answer = bench.send(&Method::POST, "/garm/api/v1/auth/login", "", &password);
        format!("Bearer {}", body(&answer)["token"].as_str().unwrap())
    };
    let mut ask = |method: Method, path: &str| bench.send(&method, path, &admin, "");
    assert_eq!(status(&ask(Method::GET, "/garm/api/v1/scalesets/")), 200, "a slash at the end changes nothing");
    assert_eq!(status(&ask(Method::PATCH, "/garm/api/v1/scalesets/1")), 405);
    assert_eq!(refused(&ask(Method::GET, "/garm/api/v1/nonsense")), (404, "Not found".to_owned()));
    assert_eq!(ask(Method::GET, "/garm/nonsense").response.body().as_ref(), b"404 page not found\n");
    assert_eq!(status(&ask(Method::GET, "/api/v1/scalesets")), 404, "the proxy knows no other path");
    assert_eq!(status(&ask(Method::GET, "/garm/debug/pprof/goroutine?debug=2")), 404, "off by default");
    assert_eq!(status(&ask(Method::GET, "/garm/api/v1/ws/logs")), 200);
}

#[test]
fn the_log_websocket_needs_its_switch() {
    let mut bench = Bench::with(Build::PostFix, |garm| garm.log_streamer = LogStreamer::Off, |_| {});
    let answer = bench.get("/api/v1/ws/logs");
    assert_eq!(refused(&answer), (400, "Bad Request".to_owned()));
    assert_eq!(status(&bench.get("/api/v1/ws/events")), 200);
}

#[test]
fn zero_values_are_left_out_and_entity_lists_have_a_zero_endpoint() {
    let mut bench = Bench::new(Build::PostFix);
    bench.put(FIRST, &json!({"enabled": false, "max_runners": 0}));
    let set = body(&bench.get("/api/v1/scalesets"))[0].clone();
    for field in ["enabled", "max_runners", "min_idle_runners", "desired_runner_count", "extended_state", "instances"] {
        assert!(set.get(field).is_none(), "{field}");
    }
    assert_eq!(set["status_messages"], Value::Null);
    assert_eq!(set["endpoint"]["base_url"], ORIGIN);
    let entity = set["org_id"].as_str().unwrap();
    let listed = body(&bench.get(&format!("/api/v1/organizations/{entity}/scalesets")))[0].clone();
    assert_eq!(listed["endpoint"], json!({"created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z"}));
}

#[test]
fn a_put_checks_its_values_and_asks_github_for_the_quota() {
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    let mut put = |change: Value| {
        let answer = bench.send(&Method::PUT, "/api/v1/scalesets/1", &admin, &change.to_string());
        (status(&answer), body(&answer))
    };
    assert_eq!(put(json!({"min_idle_runners": 6})).0, 400);
    assert_eq!(put(json!({"runner_bootstrap_timeout": 0})).0, 400);
    assert_eq!(
        put(json!({"github-runner-group": "other"})).1["github-runner-group"],
        "Default",
        "the key is runner_group"
    );
    assert_eq!(put(json!({"extended_state": ""})).0, 200);
    assert_eq!(put(json!({"image": "other"})).1["generation"], json!(1));
    assert_eq!(put(json!({"enabled": null, "unknown": 7})).1["enabled"], json!(true));
    let since = bench.now;
    bench.enable(FIRST, true);
    assert_eq!(bench.calls_since(since, Route::RateLimit).len(), 4 + 1, "each valid PUT, no-ops too");
}

#[test]
fn deletion_answers_200_even_when_github_refuses_it() {
    use crate::github::Fault;
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    let delete = |bench: &mut Bench| status(&bench.send(&Method::DELETE, "/api/v1/scalesets/1", &admin, ""));
    assert_eq!(delete(&mut bench), 400, "still enabled");
    bench.enable(FIRST, false);
    bench.wait(Span::secs(1));
    bench.github.inject(Fault::on(Route::DeleteSet, FaultKind::status(500)).times(1));
    assert_eq!(delete(&mut bench), 200);
    assert_eq!(status(&bench.get("/api/v1/scalesets/1")), 200, "and yet it is there");
    assert_eq!(delete(&mut bench), 200);
    bench.wait(Span::secs(1));
    assert_eq!(status(&bench.get("/api/v1/scalesets/1")), 404);
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Absent);
}

#[test]
fn sets_are_made_over_the_api() {
    for build in BOTH {
        let mut bench = Bench::new(build);
        let admin = bench.admin();
        let made = bench.send(&Method::POST, "/api/v1/repositories", &admin, r#"{"owner":"o","name":"r"}"#);
        let path = format!("/api/v1/repositories/{}/scalesets", body(&made)["id"].as_str().unwrap());
        let wish = json!({"name": "gpu", "provider_name": "stub", "image": "i", "flavor": "f", "max_runners": 2,
            "enabled": true, "labels": ["big"]});
        let set = body(&bench.send(&Method::POST, &path, &admin, &wish.to_string()));
        assert_eq!((&set["repo_name"], &set["tags"][0]["name"]), (&json!("o/r"), &json!("big")));
        bench.wait(Span::secs(12));
        assert!(bench.listens(ScaleSetId(3)), "{build:?}");
        let bad = bench.send(&Method::POST, &path, &admin, r#"{"name":"x"}"#);
        assert_eq!(status(&bad), 400);
        let twin = bench.send(&Method::POST, &path, &admin, &wish.to_string());
        assert_eq!(status(&twin), 400, "GitHub has that name");
        assert_eq!(body(&bench.get("/api/v1/scalesets")).as_array().unwrap().len(), 3);
    }
}

#[test]
fn lost_answers_happen_before_or_after_the_effect() {
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
    assert_eq!(bench.garm.worker(FIRST), WorkerTruth::Idle, "the event was sent all the same");
}

#[test]
fn faults_hit_the_routes_and_sets_they_name() {
    let mut bench = Bench::new(Build::PostFix);
    let admin = bench.admin();
    bench.garm.inject(ManagerFault::on(ManagerRoute::ListSets, FaultKind::MalformedJson).times(1));
    bench.garm.inject(ManagerFault::on(ManagerRoute::GetSet, FaultKind::Never).for_set(FIRST));
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
