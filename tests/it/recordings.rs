//! Recorded answers of two real GARM builds, through the real client, parsers and engine: every set's diagnosis, and
//! what is written.

use crate::bench::{self, ConfigText};
use crate::garm_client::{Manager, json, recorded, replayed};
use bytes::Bytes;
use http::Request;
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Confidence, Diagnosis, Span, Wall};
use medic_http::{Answer, Transport};
use medic_store::Store;
use scaleset_medic::engine::reconcile::Engine;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const PRE_FIX: &str = "garm-2026-04-pre-fix";
pub(crate) const POST_FIX: &str = "garm-2026-07-post-fix";
pub(crate) const BUILDS: [&str; 2] = [PRE_FIX, POST_FIX];

pub(crate) fn folder(build: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(build)
}

/// A recorded answer, by its file's name.
pub(crate) fn read(build: &str, file: &str) -> String {
    let path = folder(build).join("http").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Serves one recorded situation, and refuses writes. `name`: as in `metrics-NAME.txt` and `goroutines-NAME.txt`.
fn serve(build: &str, name: &str, request: &Request<Bytes>, serial: usize) -> Answer {
    let list = if name == "healthy" { "scalesets-list-healthy" } else { "scalesets-list-stuck" };
    let path = request.uri().path();
    if is_write(&format!("{} {path}", request.method())) {
        return json(500, "");
    }
    if path == "/api/v1/scalesets/1" {
        let sets: Value = serde_json::from_slice(&recorded(build, list).unwrap().body).unwrap();
        return json(200, &sets[0].to_string());
    }
    let answers = [
        ("/api/v1/controller-info", "controller-info"),
        ("/api/v1/scalesets", list),
        ("/api/v1/instances", "instances-list"),
        ("/metrics", &format!("metrics-{name}.txt")),
        ("/debug/pprof/goroutine", &format!("goroutines-{name}.txt")),
    ];
    replayed(build, &answers, request, serial)
}

fn is_write(line: &str) -> bool {
    !line.starts_with("GET ") && !line.ends_with("/auth/login")
}

/// `goroutines`: the medic reads them besides the metrics.
fn medic(manager: &Arc<Manager>, goroutines: bool, clock: &Arc<dyn Clock>) -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let lines = format!("debug_server = {goroutines}");
    let managers = [("garm", "http://garm.test")];
    let text = ConfigText { mode: "heal", managers: &managers, manager: &lines, ..ConfigText::default() };
    let config = text.check(dir.path());
    let transport: Arc<dyn Transport> = Arc::clone(manager) as _;
    let (store, metrics) = (Store::in_memory().unwrap(), bench::metrics(&config));
    let mut service = bench::Service::new(&config, &store, clock, "replay", &transport, &metrics);
    // The password is read at the first login only.
    std::mem::forget(dir);
    service.engines.remove(0)
}

/// When the recorded process was started.
fn started(build: &str, name: &str) -> Wall {
    let metrics = read(build, &format!("metrics-{name}.txt"));
    medic_garm::metrics_text::parse(metrics.as_bytes()).unwrap().incarnation.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn recorded_situations_lead_to_their_diagnoses_and_writes() {
    let (stuck, expired) = ("stuck", "after-stale-sessions-expired");
    let well = (Diagnosis::Listening, Confidence::Strong);
    let abandoned = (Diagnosis::ConflictAbandoned, Confidence::Strong);
    let unclear = (Diagnosis::Unknown, Confidence::Weak);
    let retrying = |confidence| (Diagnosis::ConflictRetrying, confidence);
    let toggle = &["PUT /api/v1/scalesets/1"][..];
    for (build, name, goroutines, age, sweeps, expected, writes) in [
        (PRE_FIX, "healthy", false, 9, 40, well, &[][..]),
        (PRE_FIX, "healthy", true, 9, 40, well, &[]),
        (POST_FIX, "healthy", false, 9, 40, well, &[]),
        (POST_FIX, "healthy", true, 9, 40, well, &[]),
        // The manager is younger than the grace period; then one canary is toggled, once.
        (PRE_FIX, stuck, false, 5, 7, abandoned, &[]),
        (PRE_FIX, stuck, true, 5, 7, abandoned, &[]),
        (PRE_FIX, stuck, false, 5, 10, abandoned, toggle),
        (PRE_FIX, stuck, true, 5, 10, abandoned, toggle),
        // The recording does not change: only living workers prove that they retry.
        (POST_FIX, stuck, false, 5, 40, retrying(Confidence::Weak), &[]),
        (POST_FIX, stuck, true, 5, 40, retrying(Confidence::Strong), &[]),
        // Which of the four sets listens cannot be told.
        (PRE_FIX, expired, true, 120, 30, unclear, &[]),
        (POST_FIX, expired, false, 60, 3, well, &[]),
    ] {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(started(build, name).plus(Span::secs(age)), 1.0));
        let manager = Manager::new(&clock, move |request, serial| serve(build, name, request, serial));
        let mut engine = medic(&manager, goroutines, &clock);
        let mut last = engine.reconcile().await;
        for _ in 1..sweeps {
            clock.sleep(Span::secs(2)).await;
            last = engine.reconcile().await;
        }
        let what = format!("{build} {name}, goroutines: {goroutines}, {sweeps} sweeps");
        let found = last.status.sets.iter().map(|set| (set.finding.diagnosis, set.finding.confidence));
        assert_eq!(found.collect::<Vec<_>>(), [expected; 4], "{what}");
        let sent: Vec<_> = manager.lines().into_iter().filter(|line| is_write(line)).collect();
        assert_eq!(sent, writes, "{what}");
    }
}
