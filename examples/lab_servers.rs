//! The lab's servers alone, without a medic: for measuring what watches them, each in a process of its own.
//!
//! `cargo run --release --example lab_servers -- SETS` prints one JSON line with the addresses and the password, and
//! serves until its standard input ends.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a tool for benches")]

use scaleset_medic::clock::{Clock, ScaledClock, system_wall};
use scaleset_medic::lab::backend::DoorId;
use scaleset_medic::lab::door_http::{HttpDoors, Sockets};
use scaleset_medic::lab::garm::{Background, Generation, LogLevel, Metrics};
use scaleset_medic::lab::hub::{Hub, Pump};
use scaleset_medic::lab::world::{Fleet, World};
use std::sync::Arc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let sets = std::env::args().nth(1).and_then(|sets| sets.parse().ok()).expect("a number of sets");
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(system_wall(), 1.0));
    let sockets = Sockets::on_loopback(&[DoorId::Manager(0), DoorId::Github]).expect("free ports");
    let (garm, github) = (sockets.url(DoorId::Manager(0)), sockets.url(DoorId::Github).expect("an address"));
    // A calm manager: what is measured is the watcher. Metrics are open, so that every watcher may read them.
    let fleet = Fleet::new(Generation::PreFix, sets, &github).each(|garm| {
        (garm.log_level, garm.background, garm.metrics) = (LogLevel::Info, Background::StartOnly, Metrics::Open);
    });
    let password = fleet.managers.first().map(|garm| garm.password.clone());
    let hub = Hub::new(World::new(&fleet, clock.now().wall), clock);
    hub.with(|world, now| world.start(0, now));
    let _pump = Pump::start(&hub);
    let _doors = HttpDoors::serve(&hub, sockets);
    println!("{}", serde_json::json!({"garm": garm, "github": github, "password": password}));
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await;
}
