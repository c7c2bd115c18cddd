//! Metrics, goroutines and log formats.

use super::*;
use crate::garm::{LogFormat, LogLevel};
use medic_garm::goroutines::GoroutineCounter;
use medic_http::BodySink as _;

fn goroutines(bench: &mut Bench) -> (u64, u64) {
    let answer = bench.send(&Method::GET, "/debug/pprof/goroutine?debug=2", "", "");
    let mut counter = GoroutineCounter::default();
    counter.begin();
    counter.piece(answer.response.body());
    let counts = counter.finish().unwrap();
    (u64::from(counts.listeners), u64::from(counts.workers))
}

#[test]
fn goroutine_dump_counts_listeners_and_workers() {
    for (build, stuck) in [(Build::PreFix, (0, 0)), (Build::PostFix, (0, 2))] {
        let mut bench = Bench::with(build, |garm| garm.debug_server = true, |_| {});
        assert_eq!(goroutines(&mut bench), (2, 2));
        bench.restart();
        bench.wait(Span::secs(5));
        assert_eq!(goroutines(&mut bench), stuck, "{build:?}");
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
    assert!(
        metrics.contains("garm_github_operations_total{operation=\"DeleteMessageSession\",scope=\"Organization\"} 1\n")
    );
    bench.wait(Span::mins(1));
    assert!(bench.metrics().contains("garm_scaleset_status{enabled=\"false\",id=\"1\"} 0\n"));
}

#[test]
fn listener_series_exist_in_one_build_while_workers_run() {
    let name = "garm_scaleset_listener_last_success_timestamp";
    assert!(!Bench::new(Build::PostFix).metrics().contains(name));
    let mut bench = Bench::new(Build::ListenerMetrics);
    bench.wait(Span::secs(60));
    let series = |metrics: &str| -> Vec<f64> {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    let fresh = series(&bench.metrics());
    assert_eq!(fresh.len(), 2);
    let age = |now: Wall, at: f64| now.as_secs_f64() - at;
    assert!(fresh.iter().all(|at| age(bench.now, *at) < 51.0), "{fresh:?}");
    assert!(bench.metrics().contains("garm_scaleset_listener_restarts_total{id=\"1\"} 0\n"));
    bench.github.evict_session(bench.github_id(FIRST), bench.now);
    bench.wait(Span::secs(1));
    assert!(bench.metrics().contains("garm_scaleset_listener_restarts_total{id=\"1\"} 1\n"));
    bench.restart();
    bench.wait(Span::secs(5));
    assert!(series(&bench.metrics()).is_empty(), "no poll has succeeded since the restart");
}

#[test]
fn process_start_time_changes_with_a_restart() {
    let mut bench = Bench::new(Build::PreFix);
    let start = |metrics: &str| {
        let line = metrics.lines().find(|line| line.starts_with("process_start_time_seconds ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let first = start(&bench.metrics());
    bench.wait(Span::secs(5));
    assert!((start(&bench.metrics()) - first).abs() < f64::EPSILON);
    bench.restart();
    bench.wait(Span::secs(1));
    assert!(start(&bench.metrics()) > first);
}

#[test]
fn text_log_at_info_level_has_conflicts_and_no_session_ids() {
    for (build, expected) in [
        (Build::PreFix, "level=ERROR msg=\"failed to handle scale set create operation\" error=\"error starting"),
        (Build::PostFix, "level=ERROR msg=\"error starting listener\" error=\"creating message session: failed"),
    ] {
        let mut bench =
            Bench::with(build, |garm| (garm.log_format, garm.log_level) = (LogFormat::Text, LogLevel::Info), |_| {});
        bench.restart();
        bench.wait(Span::secs(5));
        let lines = bench.garm.take_log();
        let text: Vec<&str> = lines.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        assert!(text.iter().all(|line| line.starts_with("time=20") && !line.contains("session_id=")), "{text:?}");
        let conflict = text.iter().find(|line| line.contains(expected)).unwrap();
        assert!(conflict.contains("\\\"") && conflict.ends_with(" entity=acme endpoint=github.com"), "{conflict}");
    }
}

#[test]
fn session_id_is_in_one_line_and_twice_in_it() {
    let mut bench = Bench::new(Build::PreFix);
    let lines = bench.garm.take_log();
    let opened: Vec<&[u8]> = lines
        .iter()
        .map(AsRef::as_ref)
        .filter(|line: &&[u8]| line.windows(12).any(|part| part == b"\"session_id\""))
        .collect();
    assert_eq!(opened.len(), 2);
    let line = std::str::from_utf8(opened[0]).unwrap();
    assert_eq!(line.matches("\"session_id\":").count(), 2, "{line}");
    assert!(line.contains("\"msg\":\"starting message session refresh loop\""));
}

#[test]
fn idle_fleet_has_few_deadlines() {
    let mut bench = Bench::with(
        Build::PostFix,
        |garm| (garm.quota_period, garm.log_level) = (Span::mins(5), LogLevel::Info),
        |_| {},
    );
    bench.wait(Span::mins(1));
    let mut steps = 0;
    let end = bench.now.plus(Span::mins(10));
    while let Some(at) = bench.garm.next_deadline().filter(|at| *at <= end) {
        bench.wait(at.since(bench.now));
        steps += 1;
    }
    assert!(steps < 120, "{steps} steps in ten minutes");
}
