//! The medic as a task of this process, on wires that are function calls, under a paused runtime.

use super::stage::{Looks, Stage, Wires as Reach};
use super::ways::{DOWN, Given, Healer, Outcome, WAYS, Way};
use bytes::Bytes;
use medic_core::model::{Span, Wall};
use medic_http::file::Reading;
use medic_http::{Bounds, Response, Transport, TransportError};
use medic_lab::backend::ServerId;
use medic_lab::endpoint_inproc::InprocTransport;
use medic_lab::hub::Hub;
use medic_lab::world::World;
use medic_store::Store;
use scaleset_medic::config::{Config, Depth, Sources, check};
use scaleset_medic::engine::assemble::{Carrier, Runtime, Shared, engines};
use scaleset_medic::engine::lease::Lease;
use scaleset_medic::engine::service::{self, Publisher};
use scaleset_medic::metrics::Metrics;
use scaleset_medic::web::server::Board;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const START: Wall = Wall(1_764_000_000_000);
/// Often while the figures are small.
pub(crate) const LOOKS: Looks =
    Looks { patience: Span::mins(90), every: &[(Span::mins(5), Span::millis(100)), (Span::mins(90), Span::secs(10))] };

/// A virtual minute takes no time: the runtime's clock jumps from one deadline to the next.
pub(crate) fn measure(way: &Way, sets: u32) -> Outcome {
    paused().block_on(async { stage(way, sets).run(way.healer, &LOOKS).await })
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

fn stage(way: &Way, sets: u32) -> Stage {
    let shared_memory = Path::new("/dev/shm");
    let dir = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
    let wires = |hub: &_| Reach::Inproc(Wires { doors: doors(hub), requests: Arc::default() });
    Stage::build(way, sets, START, ["http://garm.test", "http://github.test"], dir.expect("a directory"), wires)
}

/// Wires to GARM and GitHub.
pub(crate) fn doors(hub: &Arc<Hub<World>>) -> Arc<dyn Transport> {
    let doors = InprocTransport::new(hub);
    Arc::new(doors.at("garm.test:80", ServerId::Manager(0)).at("github.test:80", ServerId::Github))
}

/// What a second and a third day add to the store; the first fills the ledger.
#[expect(clippy::print_stdout, reason = "a bench prints")]
pub(crate) fn growth(sets: u32) {
    println!(
        "| sets | crashes a day | after a day | the second day adds | write-ahead log |\n|---:|---:|---:|---:|---:|"
    );
    let way = WAYS.iter().find(|way| way.healer == Healer::Medic { ledger: true }).expect("a medic with a ledger");
    let given = Given { ledger: true, policy: String::new(), pace: String::new() };
    for crashes in [0, 1] {
        let [first, second, log] = paused().block_on(async {
            let stage = stage(way, sets);
            let medic = stage.medic(&given);
            let size = |file: &str| std::fs::metadata(stage.state().join(file)).map_or(0, |of| of.len());
            let mut sizes = [0; 3];
            for day in &mut sizes[..2] {
                stage.clock.sleep(Span::hours(12)).await;
                for _ in 0..crashes {
                    stage.hub.with(|world, now| world.kill(0, now));
                    stage.clock.sleep(DOWN).await;
                    stage.hub.with(|world, now| world.start(0, now));
                }
                stage.clock.sleep(Span::hours(12)).await;
                *day = size("medic.db");
            }
            sizes[2] = size("medic.db-wal");
            medic.end(&stage.clock).await;
            sizes
        });
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        println!("| {sets} | {crashes} | {} | {} | {} |", kib(first), kib(second - first), kib(log));
    }
}

/// To the servers, and what the medic asked of them.
pub(crate) struct Wires {
    doors: Arc<dyn Transport>,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
}

pub(crate) struct Medic {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Medic {
    pub(crate) async fn end(self) {
        let _ = self.stop.send(());
        self.task.await.expect("a medic that ends well");
    }
}

impl Wires {
    pub(crate) fn forget_requests(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.requests.lock().expect("a count"))
    }

    /// The service as `run` starts it.
    pub(crate) fn medic(&self, stage: &Stage, given: &Given) -> Medic {
        let config = checked(stage.config(given));
        let clock = Arc::clone(&stage.clock);
        let store = Store::open(&config.run.state_dir).expect("a store");
        let names: Vec<_> = config.managers.iter().map(|manager| manager.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names, medic_core::policy::Mode::Heal).expect("metrics"));
        let lease = Arc::new(Lease::new(store.clone(), "bench".to_owned(), Arc::clone(&clock)));
        let shared = Shared {
            store,
            lease: Arc::clone(&lease),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            runtime: Runtime {
                jitter: Arc::new(|most: Span| Span::millis(most.as_millis() / 2)),
                file_reading: Reading::AtOnce,
            },
        };
        let transport: Arc<dyn Transport> =
            Arc::new(Counted { wires: Arc::clone(&self.doors), requests: Arc::clone(&self.requests) });
        let carrier = |_: &_| Ok(Carrier { transport: Arc::clone(&transport), upgrader: None });
        let engines = engines(&config, &shared, &carrier).expect("engines");
        let publisher = Arc::new(Publisher {
            board: Arc::new(Board::default()),
            metrics,
            clock,
            mode: medic_core::policy::Mode::Heal,
            interval: config.run.interval,
            order: names,
            latest: Mutex::default(),
        });
        let limit = config.run.shutdown_limit;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            service::run(engines, publisher, lease, None, limit, stopped).await.expect("a service that lives");
        });
        Medic { stop, task }
    }
}

fn checked(text: String) -> Config {
    check(&Sources::of_text("bench.toml", text), Depth::Files).expect("a configuration").config
}

/// The medic's wires, with a count of what goes over them, by method and shape of the address.
struct Counted {
    wires: Arc<dyn Transport>,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
}

#[async_trait::async_trait]
impl Transport for Counted {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError> {
        let address = format!("{}{}", request.uri().host().unwrap_or_default(), request.uri().path());
        let parts = address.split('/').map(|part| if part.contains(|c: char| c.is_ascii_digit()) { "*" } else { part });
        let kind = format!("{} {}", request.method(), parts.collect::<Vec<_>>().join("/"));
        *self.requests.lock().expect("a count").entry(kind).or_default() += 1;
        self.wires.send(request, bounds).await
    }
}
