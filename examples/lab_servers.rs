//! The lab's servers without a medic, to measure each observer in a process of its own.
//!
//! `cargo run --release --example lab_servers -- SETS` prints one JSON line with the addresses and the password. For
//! each line of its standard input it prints one JSON line more: how many sets listen, how many are enabled, and what
//! went over GARM's connections so far. It serves until its standard input ends.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a tool for benches")]

use medic_clock::{ScaledClock, system_wall};
use medic_core::clock::Clock;
use medic_core::model::Span;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_http::{HttpEndpoints, Sockets};
use medic_lab::garm::{Build, LogLevel, Metrics};
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, World};
use std::sync::Arc;

/// REST calls an hour that the simulated GitHub allows GARM for each set: the start of a set costs one, and so does each
/// renewal. GARM needs several real credentials (5,000 calls an hour each) to start 10,000 sets; the simulated one has
/// only one.
const QUOTA_PER_SET: u64 = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sets = std::env::args().nth(1).and_then(|sets| sets.parse().ok()).expect("a number of sets");
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
    let sockets = Sockets::on_loopback(&[ServerId::Manager(0), ServerId::Github]).expect("free ports");
    let (garm, github) = (sockets.url(ServerId::Manager(0)), sockets.url(ServerId::Github).expect("an address"));
    // The observer is measured, so the manager does little. Every observer may read its metrics.
    let mut fleet = Fleet::new(Build::PreFix, sets, &github).each(|garm| {
        (garm.log_level, garm.quota_period, garm.metrics) = (LogLevel::Info, Span::mins(5), Metrics::Open);
    });
    for credential in &mut fleet.github.credentials {
        credential.limit = credential.limit.max(QUOTA_PER_SET * u64::from(sets));
    }
    let password = fleet.managers.first().map(|garm| garm.password.clone());
    let hub = Hub::new(World::new(&fleet, clock.now().wall), clock);
    hub.with(|world, now| world.start(0, now));
    let _pump = Pump::start(&hub);
    let endpoints = HttpEndpoints::serve(&hub, sockets);
    println!("{}", serde_json::json!({"garm": garm, "github": github, "password": password}));
    let asked = tokio::task::spawn_blocking(move || {
        for _ in std::io::stdin().lines() {
            let (listening, enabled) = hub.with(|world, _| world.listening(0));
            let traffic = endpoints.traffic(ServerId::Manager(0));
            println!(
                "{}",
                serde_json::json!({
                    "listening": listening,
                    "enabled": enabled,
                    "requests": traffic.requests,
                    "received": traffic.received,
                    "sent": traffic.sent,
                })
            );
        }
    });
    let _ = asked.await;
}
