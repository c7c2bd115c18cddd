//! Time to recover after a manager's crash: from SIGKILL until every scale set listens again.
//!
//! Everything in one run, on the same simulated GARM and GitHub, under virtual time (a paused runtime: the servers'
//! waits take no real time, and no figure depends on this machine). The medic is the real one: its clients, parsers,
//! engine, service loop and store.
//!
//! `cargo bench --bench recovery` prints the table; `-- 4 50` only these numbers of sets, `-- 500 'pre-fix GARM, ledger'`
//! only the ways of such a name; `-- growth 50` instead what a day of watching that many sets adds to the medic's store,
//! with no crash and with one. `RECOVERY_POLICY` and `RECOVERY_PACE` are lines for `[policy]`, and for the tables of
//! GARM and GitHub, in place of the defaults: to see what a limit costs. `RECOVERY_REQUESTS=1` lists what the medic asked.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a bench that cannot go on has failed, and it prints")]

use bytes::Bytes;
use scaleset_medic::clock::{Clock, ScaledClock};
use scaleset_medic::config::raw::Raw;
use scaleset_medic::config::source::{FileText, Sources};
use scaleset_medic::config::{Config, Depth, check};
use scaleset_medic::export::metrics::Metrics;
use scaleset_medic::export::server::Board;
use scaleset_medic::garm::log::source::Reading;
use scaleset_medic::http::{Bounds, Response, Transport, TransportError};
use scaleset_medic::lab::backend::DoorId;
use scaleset_medic::lab::door_inproc::InprocTransport;
use scaleset_medic::lab::garm::Generation;
use scaleset_medic::lab::hub::{Hub, Pump};
use scaleset_medic::lab::world::{Fleet, MEDIC_TOKEN, World};
use scaleset_medic::model::{Span, Wall};
use scaleset_medic::run::assemble::{Carrier, Chance, Shared, engines};
use scaleset_medic::run::lease::Lease;
use scaleset_medic::run::service::{self, Publisher};
use scaleset_medic::store::Store;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::sync::oneshot;

const START: Wall = Wall(1_764_000_000_000);
/// How long GitHub keeps a session that nobody polls.
const STALE: Span = Span::secs(90);
/// From SIGKILL to the next start of the process.
const DOWN: Span = Span::secs(2);
/// After this, it is "never".
const PATIENCE: Span = Span::mins(90);
/// How often the sets are looked at: often while the figures are small.
const LOOKS: [(Span, Span); 2] = [(Span::mins(5), Span::millis(100)), (PATIENCE, Span::secs(10))];

/// Who sees to the recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Healer {
    Nobody,
    /// The bug report's workaround: disable, `sleep 3`, enable; one set after the other.
    ScriptInTurn,
    /// The same for all sets together: disable all, `sleep 3`, enable all.
    ScriptAtOnce,
    Medic {
        ledger: bool,
    },
    /// With its ledger, and limits for a fleet of hundreds.
    MedicAtLarge,
}

/// A row of the table.
struct Way {
    name: &'static str,
    generation: Generation,
    healer: Healer,
    /// The bug report's proposal in place of a retry every 2 s.
    doubling: bool,
}

const fn way(name: &'static str, generation: Generation, healer: Healer) -> Way {
    Way { name, generation, healer, doubling: false }
}

const WAYS: &[Way] = &[
    way("pre-fix GARM alone", Generation::PreFix, Healer::Nobody),
    way("post-fix GARM alone (retries every 2 s)", Generation::PostFix, Healer::Nobody),
    Way {
        name: "the report's proposal (retries after 5, 10, 20 s ...)",
        generation: Generation::PostFix,
        healer: Healer::Nobody,
        doubling: true,
    },
    way("the report's script at once, set after set", Generation::PreFix, Healer::ScriptInTurn),
    way("the report's script at once, all sets together", Generation::PreFix, Healer::ScriptAtOnce),
    way("medic, pre-fix GARM, no ledger", Generation::PreFix, Healer::Medic { ledger: false }),
    way("medic, pre-fix GARM, ledger", Generation::PreFix, Healer::Medic { ledger: true }),
    way("medic, pre-fix GARM, ledger, limits for hundreds of sets", Generation::PreFix, Healer::MedicAtLarge),
    way("medic, post-fix GARM, no ledger", Generation::PostFix, Healer::Medic { ledger: false }),
    way("medic, post-fix GARM, ledger", Generation::PostFix, Healer::Medic { ledger: true }),
    way("medic, post-fix GARM, ledger, limits for hundreds of sets", Generation::PostFix, Healer::MedicAtLarge),
];

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

/// What came of it.
struct Outcome {
    /// Of the medic's, from SIGKILL to the end.
    requests: BTreeMap<String, usize>,
    /// The first, the middle and the last set that listens again, since SIGKILL.
    listening: [Option<Span>; 3],
    writes: usize,
    crashes: u32,
}

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags of their own.
    let asked: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    if std::env::args().any(|word| word == "growth") {
        growth(asked.first().copied().unwrap_or(50));
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| is_name(word)).collect();
    let sizes = if asked.is_empty() { vec![4, 50, 500] } else { asked };
    println!(
        "From SIGKILL until all sets listen again; GARM starts again after {DOWN}; GitHub keeps stale sessions {STALE}."
    );
    for sets in sizes {
        println!("\n{sets} scale sets\n\n| way | first | half | all | of the stale lifetime | PUTs | GARM crashes |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        let named = |way: &&Way| words.is_empty() || words.iter().any(|word| way.name.contains(word.as_str()));
        for way in WAYS.iter().filter(named) {
            let began = Instant::now();
            let outcome = measure(way, sets);
            let [first, half, all] = outcome.listening.map(|span| span.map_or_else(|| "never".to_owned(), seconds));
            let ratio = outcome.listening[2].map_or_else(
                || "\u{2013}".to_owned(),
                |span| format!("{:.2}", span.as_secs_f64() / STALE.as_secs_f64()),
            );
            println!(
                "| {} | {first} | {half} | {all} | {ratio} | {} | {} |",
                way.name, outcome.writes, outcome.crashes
            );
            if std::env::var_os("RECOVERY_REQUESTS").is_some() {
                for (kind, count) in outcome.requests {
                    println!("{count:7} {kind}");
                }
            }
            if began.elapsed().as_secs() > 60 {
                eprintln_slow(way.name, began);
            }
        }
    }
}

/// Not a number of sets, and no flag of the tools.
fn is_name(word: &str) -> bool {
    word.parse::<u32>().is_err() && !word.starts_with('-')
}

fn given(variable: &str) -> String {
    std::env::var(variable).map_or_else(|_| String::new(), |lines| lines + "\n")
}

fn seconds(span: Span) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

#[expect(clippy::print_stderr, reason = "for whoever waits for the bench")]
fn eprintln_slow(name: &str, began: Instant) {
    eprintln!("({name} took {:.0} s of real time)", began.elapsed().as_secs_f64());
}

/// What a second and a third day add to the store; the first fills the ledger.
fn growth(sets: u32) {
    println!(
        "| sets | crashes a day | after a day | the second day adds | write-ahead log |\n|---:|---:|---:|---:|---:|"
    );
    for crashes in [0, 1] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let [first, second, log] = runtime.expect("a runtime").block_on(async {
            let stage = Stage::build(&WAYS[6], sets);
            let (stop, stopped) = oneshot::channel::<()>();
            let medic = tokio::spawn(stage.medic(true, "", "", stopped));
            let size =
                |file: &str| std::fs::metadata(stage.dir.path().join("state").join(file)).map_or(0, |of| of.len());
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
            let _ = stop.send(());
            medic.await.expect("a medic that ends well");
            sizes
        });
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        println!("| {sets} | {crashes} | {} | {} | {} |", kib(first), kib(second - first), kib(log));
    }
}

/// A virtual minute takes no time: the runtime's clock jumps from one deadline to the next.
fn measure(way: &Way, sets: u32) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async { Stage::build(way, sets).run(way.healer).await })
}

/// The servers, and where the medic keeps its things.
struct Stage {
    hub: Arc<Hub<World>>,
    clock: Arc<dyn Clock>,
    password: String,
    sets: usize,
    dir: tempfile::TempDir,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
    _pump: Pump,
}

impl Stage {
    fn build(way: &Way, sets: u32) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let mut fleet = Fleet::new(way.generation, sets, "http://github.test");
        fleet.github.stale_lifetime = STALE;
        if way.doubling {
            fleet = fleet.each(|garm| (garm.retry, garm.retry_doubles_to) = (Span::secs(5), Some(Span::mins(5))));
        }
        let password = fleet.managers.first().map(|garm| garm.password.clone()).unwrap_or_default();
        let mut world = World::new(&fleet, START);
        world.start(0, START);
        let hub = Hub::new(world, Arc::clone(&clock));
        let shared_memory = Path::new("/dev/shm");
        let dir = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        hub.log_to_file(DoorId::Manager(0), &dir.path().join("garm.log")).expect("GARM's log");
        let sets = usize::try_from(sets).expect("a number of sets");
        Self { _pump: Pump::start(&hub), hub, clock, password, sets, dir, requests: Arc::default() }
    }

    async fn run(self, healer: Healer) -> Outcome {
        let (stop, stopped) = oneshot::channel::<()>();
        let medic = match healer {
            Healer::Medic { ledger } => {
                let (policy, pace) = (given("RECOVERY_POLICY"), given("RECOVERY_PACE"));
                Some(tokio::spawn(self.medic(ledger, &policy, &pace, stopped)))
            }
            Healer::MedicAtLarge => {
                Some(tokio::spawn(self.medic(true, "max_in_flight = 100\n", "requests_per_second = 100\n", stopped)))
            }
            Healer::Nobody | Healer::ScriptInTurn | Healer::ScriptAtOnce => None,
        };
        self.clock.sleep(Span::secs(137)).await;
        assert_eq!(self.hub.with(|world, _| world.listening(0)), (self.sets, self.sets), "all is well at first");
        self.requests.lock().expect("a count").clear();
        let killed = self.hub.with(|world, now| {
            world.kill(0, now);
            now
        });
        self.clock.sleep(DOWN).await;
        self.hub.with(|world, now| world.start(0, now));
        let script = Script {
            door: InprocTransport::new(&self.hub).at("garm.test:80", DoorId::Manager(0)),
            clock: Arc::clone(&self.clock),
            password: self.password.clone(),
            sets: u64::try_from(self.sets).expect("a number of sets"),
        };
        let script = tokio::spawn(script.run(healer));
        let listening = self.watch(killed).await;
        script.abort();
        let _ = stop.send(());
        if let Some(medic) = medic {
            medic.await.expect("a medic that ends well");
        }
        let (writes, crashes) =
            self.hub.with(|world, _| world.garm(0).map_or((0, 0), |garm| (garm.writes().len(), garm.crashes())));
        let requests = std::mem::take(&mut *self.requests.lock().expect("a count"));
        Outcome { requests, listening, writes, crashes }
    }

    /// When the first, half, and all of the sets listen.
    async fn watch(&self, killed: Wall) -> [Option<Span>; 3] {
        let goals = [1, self.sets.div_ceil(2), self.sets];
        let mut seen = [None; 3];
        loop {
            let (now, (listening, enabled)) = self.hub.with(|world, now| (now, world.listening(0)));
            for (goal, seen) in goals.iter().zip(&mut seen) {
                if listening >= *goal && seen.is_none() {
                    *seen = Some(now.since(killed));
                }
            }
            let done = listening == self.sets && enabled == self.sets;
            if done || now.since(killed) >= PATIENCE {
                seen[2] = done.then(|| now.since(killed));
                return seen;
            }
            let every =
                LOOKS.iter().find(|(until, _)| now.since(killed) < *until).map_or(PATIENCE, |(_, every)| *every);
            self.clock.sleep(every).await;
        }
    }

    /// The service as `run` starts it, with the shipped defaults.
    fn medic(
        &self,
        ledger: bool,
        policy: &str,
        pace: &str,
        stopped: oneshot::Receiver<()>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let config = self.config(ledger, policy, pace);
        let clock = Arc::clone(&self.clock);
        let store = Store::open(&config.run.state_dir).expect("a store");
        let names: Vec<_> = config.managers.iter().map(|manager| manager.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names, "heal").expect("metrics"));
        let lease = Arc::new(Lease::new(store.clone(), "bench".to_owned(), Arc::clone(&clock)));
        let shared = Shared {
            store,
            lease: Arc::clone(&lease),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            chance: Chance {
                jitter: Arc::new(|most: Span| Span::millis(most.as_millis() / 2)),
                log_reading: Reading::AtOnce,
            },
        };
        let doors = InprocTransport::new(&self.hub);
        let doors = doors.at("garm.test:80", DoorId::Manager(0)).at("github.test:80", DoorId::Github);
        let transport: Arc<dyn Transport> =
            Arc::new(Counted { wires: Arc::new(doors), requests: Arc::clone(&self.requests) });
        let carrier = |_: &_| Ok(Carrier { transport: Arc::clone(&transport), upgrader: None });
        let engines = engines(&config, &shared, &carrier).expect("engines");
        let publisher = Arc::new(Publisher {
            board: Arc::new(Board::default()),
            metrics,
            clock,
            mode: "heal",
            interval: config.run.interval,
            order: names,
            latest: Mutex::default(),
        });
        let limit = config.run.shutdown_limit;
        async move {
            let stopped = async {
                let _ = stopped.await;
            };
            service::run(engines, publisher, lease, None, limit, stopped).await.expect("a service that lives");
        }
    }
}

impl Stage {
    fn config(&self, ledger: bool, policy: &str, pace: &str) -> Config {
        let dir = self.dir.path();
        let secret = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).expect("a secret");
            dir.join(name).display().to_string()
        };
        let (password, token) = (secret("password", &self.password), secret("token", MEDIC_TOKEN));
        // Without its log the manager's sessions are unknown, and none may be deleted.
        let sight = if ledger { format!("log_file = \"{}\"\n", dir.join("garm.log").display()) } else { String::new() };
        let text = format!(
            "[run]\nmode = \"heal\"\nstate_dir = \"{}\"\n[policy]\n{policy}[[github]]\nendpoint = \"github.com\"\ntoken_file = \
             \"{token}\"\n{pace}[[manager]]\nname = \"garm\"\nurl = \"http://garm.test\"\nusername = \"admin\"\n\
             password_file = \"{password}\"\n{pace}{sight}",
            dir.join("state").display()
        );
        let file = Some(FileText { name: "bench.toml".to_owned(), text });
        check(&Raw::read(&Sources { file, ..Sources::default() }), Depth::Files).expect("a configuration").config
    }
}

/// The report's script: `curl -X PUT ... '{"enabled": false}'; sleep 3; curl -X PUT ... '{"enabled": true}'`, begun as
/// soon as the restarted manager lets its author log in.
struct Script {
    door: InprocTransport<World>,
    clock: Arc<dyn Clock>,
    password: String,
    sets: u64,
}

impl Script {
    async fn run(self, healer: Healer) {
        let token = loop {
            if let Some(token) = self.log_in().await {
                break token;
            }
            self.clock.sleep(Span::millis(100)).await;
        };
        let sleep = || self.clock.sleep(Span::secs(3));
        match healer {
            Healer::Nobody | Healer::Medic { .. } | Healer::MedicAtLarge => {}
            Healer::ScriptInTurn => {
                for set in 1..=self.sets {
                    self.put(&token, set, false).await;
                    sleep().await;
                    self.put(&token, set, true).await;
                }
            }
            Healer::ScriptAtOnce => {
                for set in 1..=self.sets {
                    self.put(&token, set, false).await;
                }
                sleep().await;
                for set in 1..=self.sets {
                    self.put(&token, set, true).await;
                }
            }
        }
    }

    async fn log_in(&self) -> Option<String> {
        let body = serde_json::json!({"username": "admin", "password": self.password});
        let answer = self.send(http::Request::post("http://garm.test/api/v1/auth/login"), &body).await?;
        let token: serde_json::Value = serde_json::from_slice(&answer).ok()?;
        Some(token.get("token")?.as_str()?.to_owned())
    }

    async fn put(&self, token: &str, set: u64, enabled: bool) {
        let request = http::Request::put(format!("http://garm.test/api/v1/scalesets/{set}"));
        let request = request.header("authorization", format!("Bearer {token}"));
        self.send(request, &serde_json::json!({"enabled": enabled})).await.expect("a PUT that is accepted");
    }

    async fn send(&self, request: http::request::Builder, body: &serde_json::Value) -> Option<Bytes> {
        let request = request.header("content-type", "application/json").body(Bytes::from(body.to_string()));
        let bounds = Bounds { total: Span::secs(10), body: 1024 * 1024 };
        let answer = self.door.send(request.expect("a request"), bounds).await.ok()?;
        answer.status.is_success().then_some(answer.body)
    }
}
