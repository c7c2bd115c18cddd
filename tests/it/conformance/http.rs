//! Each recorded HTTP answer that the simulator serves: the recorded request is sent to it in the same situation, and
//! its answer must have the same status, content type, and field names and JSON types at every depth.

use super::stage::{Stage, VERSIONS, recorded, text_of};
use scaleset_medic::garm::goroutines::count;
use scaleset_medic::model::Span;
use serde_json::Value;
use std::collections::BTreeSet;

const HEALTHY: &[&str] = &[
    "login-ok",
    "login-bad-password",
    "scalesets-unauthenticated",
    "scalesets-list-healthy",
    "scaleset-get",
    "scaleset-get-unknown",
    "scaleset-get-bad-id",
    "controller-info",
    "metrics-token",
    "scaleset-update-unknown",
];
const WITH_JOBS: &[&str] = &["scalesets-list-with-jobs", "instances-list"];
const TOGGLE: &[&str] = &["scaleset-update-disable", "scaleset-update-noop-disable", "scaleset-update-enable"];
const STUCK: &[&str] = &[
    "scalesets-list-stuck",
    "scaleset-update-noop-enable-stuck",
    "scaleset-update-disable-stuck",
    "scaleset-update-enable-stuck",
];

/// Sends recorded requests and compares the answers.
fn compare(stage: &mut Stage, version: &str, names: &[&str]) {
    for name in names {
        let file = format!("http/{name}.json");
        let recording: Value = serde_json::from_str(&recorded(version, &file)).unwrap();
        let (asked, said) = (&recording["request"], &recording["response"]);
        let text = |name: &str| asked[name].as_str().unwrap();
        let authenticated = asked["authenticated"].as_bool().unwrap();
        let answer = stage.ask(text("method"), text("path"), &asked["body"], authenticated);
        let content_type = answer.response.headers().get("content-type").map(|value| value.to_str().unwrap());
        let body: Value = serde_json::from_slice(answer.response.body()).unwrap();
        let mut found = BTreeSet::new();
        if u64::from(answer.response.status().as_u16()) != said["status"].as_u64().unwrap() {
            found.insert(format!("status {}", answer.response.status()));
        }
        if content_type != said["content_type"].as_str() {
            found.insert(format!("content type {content_type:?}"));
        }
        differences("", &said["body"], &body, &mut found);
        stage.settle(version, &file, &found);
        stage.wait(Span::secs(3));
    }
}

/// How two JSON values differ in fields and types. Lists are compared item by item as far as both go.
fn differences(at: &str, real: &Value, simulated: &Value, found: &mut BTreeSet<String>) {
    match (real, simulated) {
        (Value::Object(real), Value::Object(simulated)) => {
            for (name, value) in real {
                match simulated.get(name) {
                    Some(other) => differences(&format!("{at}.{name}"), value, other, found),
                    None => drop(found.insert(format!("{at}.{name} is missing"))),
                }
            }
            let more = simulated.keys().filter(|name| !real.contains_key(*name));
            found.extend(more.map(|name| format!("{at}.{name} is not GARM's")));
        }
        (Value::Array(real), Value::Array(simulated)) => {
            if real.is_empty() != simulated.is_empty() {
                found.insert(format!("{at}[] has {} items", simulated.len()));
            }
            for (real, simulated) in real.iter().zip(simulated) {
                differences(&format!("{at}[]"), real, simulated, found);
            }
        }
        (Value::Null, Value::Null)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => {}
        (_, other) => drop(found.insert(format!("{at} is {other}"))),
    }
}

#[test]
fn answers_have_the_shape_of_recorded_ones() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.start();
        stage.wait(Span::secs(8));
        compare(&mut stage, version, HEALTHY);
        stage.queue_jobs(1, 3);
        stage.wait(Span::secs(12));
        compare(&mut stage, version, WITH_JOBS);
        compare(&mut stage, version, TOGGLE);
        stage.kill_and_start();
        stage.wait(Span::secs(8));
        compare(&mut stage, version, STUCK);
        stage.finish();
    }
}

#[test]
fn before_the_first_run_everything_is_refused_as_recorded() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |garm| garm.initialised = false);
        stage.start();
        stage.wait(Span::secs(8));
        compare(&mut stage, version, &["login-before-first-run", "controller-info-before-first-run"]);
        stage.finish();
    }
}

#[test]
fn metrics_without_a_token_are_refused_as_recorded() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.start();
        stage.wait(Span::secs(8));
        let answer = stage.ask("GET", "/metrics", &Value::Null, false);
        assert_eq!(answer.response.status(), 401);
        assert_eq!(
            serde_json::from_str::<Value>(&text_of(&answer)).unwrap(),
            serde_json::from_str::<Value>(&recorded(version, "http/metrics-unauthenticated.txt")).unwrap()
        );
    }
}

#[test]
fn goroutines_count_as_recorded() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.start();
        stage.wait(Span::secs(8));
        let check = |stage: &mut Stage, name: &str| {
            let real = count(recorded(version, &format!("http/goroutines-{name}.txt")).as_bytes()).unwrap();
            let answer = stage.ask("GET", "/debug/pprof/goroutine?debug=2", &Value::Null, false);
            assert_eq!(count(answer.response.body()).unwrap(), real, "{version} {name}");
        };
        check(&mut stage, "healthy");
        stage.kill_and_start();
        stage.wait(Span::secs(8));
        check(&mut stage, "stuck");
        stage.put_enabled(1, false);
        stage.wait(Span::secs(3));
        stage.put_enabled(1, true);
        stage.wait(Span::secs(30));
        check(&mut stage, "after-stale-sessions-expired");
    }
}
