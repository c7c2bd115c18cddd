//! Tokens, metrics and deadlines.

use super::*;
use medic_lab::garm::{LogLevel, LogStreamer, Metrics};
use medic_lab::wire::Delivery;

#[test]
fn api_refuses_connections_until_boot() {
    let mut bench = Bench::down(Build::PreFix, 2, |_, _| {});
    for (wait, expected) in [
        (Span::ZERO, Delivery::Refused),
        (Span::millis(99), Delivery::Refused),
        (Span::millis(1), Delivery::After(Span::ZERO)),
    ] {
        bench.wait(wait);
        assert_eq!(bench.send("GET", "/api/v1/scalesets", "", &Value::Null).delivery, expected);
        bench.start();
    }
}

#[test]
fn tokens_have_one_purpose_and_survive_a_restart() {
    let mut bench = Bench::with(Build::PostFix, |garm, _| garm.token_lifetime = Span::hours(1));
    bench.log_in();
    let admin = bench.admin.clone();
    let metrics = bearer(&bench.send("GET", "/api/v1/metrics-token", &admin, &Value::Null));
    let ask = |bench: &mut Bench, path: &str, token: &str| status(&bench.send("GET", path, token, &Value::Null));
    let sets = "/api/v1/scalesets";
    assert_eq!((ask(&mut bench, METRICS, &metrics), ask(&mut bench, METRICS, &admin)), (200, 401));
    assert_eq!((ask(&mut bench, sets, &metrics), ask(&mut bench, sets, "Bearer x.y.z")), (401, 401));
    assert_eq!(ask(&mut bench, sets, &admin.replace("Bearer", "Anything")), 200);
    bench.restart();
    bench.wait(Span::secs(1));
    assert_eq!(ask(&mut bench, sets, &admin), 200);
    bench.wait(Span::mins(61));
    assert_eq!(ask(&mut bench, sets, &admin), 401);
    bench.log_in();
    bench.garm_mut().expire_tokens();
    let admin = bench.admin.clone();
    assert_eq!(ask(&mut bench, sets, &admin), 401);
}

#[test]
fn sources_are_served_as_configured() {
    for (metrics, expected) in [(Metrics::Open, 200), (Metrics::Off, 404), (Metrics::Token, 401)] {
        let mut bench = Bench::with(Build::PostFix, |garm, _| {
            (garm.metrics, garm.log_streamer) = (metrics, LogStreamer::Off);
        });
        bench.log_in();
        let admin = bench.admin.clone();
        for (method, path, expected) in [
            ("GET", METRICS, expected),
            ("GET", GOROUTINES, 404),
            ("GET", "/api/v1/ws/logs", 400),
            ("GET", "/api/v1/ws/events", 200),
            ("GET", "/api/v1/scalesets/", 200),
            ("PATCH", "/api/v1/scalesets/1", 405),
            ("GET", "/api/v1/nonsense", 404),
        ] {
            assert_eq!(status(&bench.send(method, path, &admin, &Value::Null)), expected, "{path}");
        }
        assert_eq!(text(&bench.send("GET", "/nonsense", "", &Value::Null)), "404 page not found\n");
    }
}

#[test]
fn gauges_are_as_old_as_the_last_collection() {
    let mut bench = Bench::new(Build::PostFix);
    bench.wait(Span::secs(10));
    bench.enable(FIRST, false);
    bench.wait(Span::secs(1));
    let metrics = bench.metrics();
    assert!(metrics.contains("garm_scaleset_status{enabled=\"true\",id=\"1\"} 1\n"));
    let counter = "garm_github_operations_total{operation=\"DeleteMessageSession\",scope=\"Organization\"} 1\n";
    assert!(metrics.contains(counter), "counters are live");
    bench.wait(Span::mins(1));
    assert!(bench.metrics().contains("garm_scaleset_status{enabled=\"false\",id=\"1\"} 0\n"));
}

#[test]
fn listener_series_exist_in_one_build_while_workers_run() {
    let name = "garm_scaleset_listener_last_success_timestamp";
    assert!(!Bench::new(Build::PostFix).metrics().contains(name));
    let mut bench = Bench::new(Build::ListenerMetrics);
    bench.wait(Span::secs(60));
    let metrics = bench.metrics();
    let fresh: Vec<f64> = metrics
        .lines()
        .filter(|line| line.starts_with(name))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(fresh.len() == 2 && fresh.iter().all(|at| bench.now.as_secs_f64() - at < 51.0), "{fresh:?}");
    assert!(metrics.contains("garm_scaleset_listener_restarts_total{id=\"1\"} 0\n"));
    bench.world.github.evict_session(bench.github_id(FIRST), bench.now);
    bench.wait(Span::secs(1));
    assert!(bench.metrics().contains("garm_scaleset_listener_restarts_total{id=\"1\"} 1\n"));
    bench.restart();
    bench.wait(Span::secs(5));
    assert!(!bench.metrics().contains(name), "no poll has succeeded since the restart");
}

#[test]
fn idle_fleet_has_few_deadlines() {
    let mut bench = Bench::with(Build::PostFix, |garm, _| {
        (garm.quota_period, garm.log_level) = (Span::mins(5), LogLevel::Info);
    });
    let end = bench.now.plus(Span::mins(10));
    let mut steps = 0;
    while let Some(at) = bench.garm().next_deadline().filter(|at| *at <= end) {
        bench.wait(at.since(bench.now));
        steps += 1;
    }
    assert!(steps < 120, "{steps} steps in ten minutes");
}
