//! Time to recover after a crash of GARM: from SIGKILL until every scale set listens again.
//!
//! All ways use the same simulated GARM and GitHub, and the medic is the real one. Two modes:
//!
//! - `cargo bench --bench recovery` runs in virtual time, so no figure depends on the machine. The medic is a task of
//!   this process: its clients, parsers, engine, service loop and store.
//! - `cargo bench --bench recovery -- sockets` runs over real sockets by the real clock, which takes 20 minutes. The
//!   medic is the program, and reads the log file that GARM writes. All ways of one size run at the same time.
//!
//! Either prints the table, and whether the goals are met. `-- 4 50` selects sizes, `-- 500 'pre-fix GARM, ledger'`
//! also ways by name. `-- growth 50` prints what a day of watching 50 sets adds to the store, with and without a crash.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "its output is the table")]

#[path = "../tests/it/bench.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod bench;
#[path = "../tests/it/sockets.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod sockets;

use bench::{ConfigText, START, Spawned, started};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Span, Wall};
use medic_lab::backend::ServerId;
use medic_lab::garm::Build;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, World};
use medic_store::Store;
use sockets::{Running, Servers};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// GitHub keeps a session that nobody polls for this long.
const STALE: Span = Span::secs(90);
/// From SIGKILL to the next start of GARM.
const DOWN: Span = Span::secs(2);
/// Before the crash: longer than a long poll and any grace period.
const CALM: Span = Span::secs(137);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Healer {
    Nobody,
    /// The bug report's workaround: disable, `sleep 3`, enable; one set after the other.
    ScriptInTurn,
    /// The same for all sets together.
    ScriptAtOnce,
    /// Without GARM's log the sessions are unknown, and none may be deleted.
    Medic {
        ledger: bool,
    },
    /// With its ledger, and limits for a fleet of hundreds.
    MedicAtLarge,
}

impl Healer {
    fn has_ledger(self) -> bool {
        matches!(self, Self::Medic { ledger: true } | Self::MedicAtLarge)
    }
}

/// A row of the table.
struct Way {
    name: &'static str,
    build: Build,
    healer: Healer,
    /// The bug report's proposal instead of a retry every 2 s.
    doubling: bool,
}

const fn way(name: &'static str, build: Build, healer: Healer) -> Way {
    Way { name, build, healer, doubling: false }
}

const WAYS: &[Way] = &[
    way("pre-fix GARM alone", Build::PreFix, Healer::Nobody),
    way("post-fix GARM alone (retries every 2 s)", Build::PostFix, Healer::Nobody),
    Way {
        doubling: true,
        ..way("the report's proposal (retries after 5, 10, 20 s ...)", Build::PostFix, Healer::Nobody)
    },
    way("the report's script at once, set after set", Build::PreFix, Healer::ScriptInTurn),
    way("the report's script at once, all sets together", Build::PreFix, Healer::ScriptAtOnce),
    way("medic, pre-fix GARM, no ledger", Build::PreFix, Healer::Medic { ledger: false }),
    way("medic, pre-fix GARM, ledger", Build::PreFix, Healer::Medic { ledger: true }),
    way("medic, pre-fix GARM, ledger, limits for hundreds of sets", Build::PreFix, Healer::MedicAtLarge),
    way("medic, post-fix GARM, no ledger", Build::PostFix, Healer::Medic { ledger: false }),
    way("medic, post-fix GARM, ledger", Build::PostFix, Healer::Medic { ledger: true }),
    way("medic, post-fix GARM, ledger, limits for hundreds of sets", Build::PostFix, Healer::MedicAtLarge),
];

struct Row {
    way: &'static Way,
    /// From SIGKILL until the first, half and all of the sets listen.
    listening: [Option<Span>; 3],
    writes: usize,
    crashes: u32,
}

fn main() {
    // `cargo bench` and `cargo test --benches` pass flags of their own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (numbers, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.parse::<u32>().is_ok());
    let sizes: Vec<u32> = numbers.iter().filter_map(|word| word.parse().ok()).collect();
    if words.iter().any(|word| word == "growth") {
        return growth(sizes.first().copied().unwrap_or(50));
    }
    let (modes, names): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word == "sockets");
    let named = |way: &&Way| names.is_empty() || names.iter().any(|name| way.name.contains(name.as_str()));
    let ways: Vec<&'static Way> = WAYS.iter().filter(named).collect();
    println!("GARM starts again after {DOWN}; GitHub keeps stale sessions {STALE}.");
    for sets in if sizes.is_empty() { vec![4, 50, 500] } else { sizes } {
        let real = !modes.is_empty();
        let limit = match (real, sets) {
            (false, _) => Span::mins(90),
            (true, ..=100) => Span::mins(5),
            (true, _) => Span::mins(10),
        };
        let rows: Vec<Row> = if real {
            std::thread::scope(|threads| {
                let running: Vec<_> =
                    ways.iter().map(|way| threads.spawn(|| measure(way, sets, real, limit))).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        } else {
            ways.iter().map(|way| measure(way, sets, real, limit)).collect()
        };
        print(&rows, sets, limit);
    }
}

fn print(rows: &[Row], sets: u32, limit: Span) {
    let never = format!("not within {} min", limit.as_millis() / 60_000);
    let seconds = |span: Option<Span>| span.map_or(never.clone(), |span| format!("{:.3} s", span.as_secs_f64()));
    println!("\n{sets} scale sets\n\n| way | first | half | all | of the stale lifetime | PUTs | GARM crashes |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for Row { way, listening, writes, crashes } in rows {
        let [first, half, all] = listening.map(seconds);
        let of_stale = |span: Span| format!("{:.2}", span.as_secs_f64() / STALE.as_secs_f64());
        let ratio = listening[2].map_or_else(|| "\u{2013}".to_owned(), of_stale);
        println!("| {} | {first} | {half} | {all} | {ratio} | {writes} | {crashes} |", way.name);
    }
    println!();
    let word = |met| if met { "met" } else { "MISSED" };
    let all = |row: &Row| row.listening[2].unwrap_or(Span::hours(1000));
    let soonest = rows.iter().filter(|row| !row.way.healer.has_ledger()).min_by_key(|row| all(row));
    for row in rows.iter().filter(|row| row.way.healer.has_ledger()) {
        let (name, own) = (row.way.name, seconds(row.listening[2]));
        let part = [(4, 10), (50, 3)].into_iter().find(|(size, _)| *size == sets);
        if let Some(bound) = part.map(|(_, part)| Span::millis(STALE.as_millis() / part)) {
            println!("- {name}: {}: {own}, goal: under {bound}", word(all(row) < bound));
        }
        if let Some(other) = soonest {
            let (met, other) = (word(all(row) <= all(other)), seconds(other.listening[2]));
            println!("- {name}: {met}: {own}, goal: not later than without a ledger, {other}");
        }
    }
}

fn measure(way: &'static Way, sets: u32, real: bool, limit: Span) -> Row {
    runtime(!real).block_on(async { Site::new(way, sets, real).recover(way, limit).await })
}

fn runtime(virtual_time: bool) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(virtual_time).build().unwrap()
}

/// Keeps the servers running.
enum Keep {
    InProcess { _pump: Pump },
    Sockets { _servers: Servers },
}

struct Site {
    hub: Arc<Hub<World>>,
    clock: Arc<dyn Clock>,
    dir: tempfile::TempDir,
    log: PathBuf,
    garm: String,
    sets: usize,
    servers: Keep,
}

impl Site {
    /// GARM runs and writes its log to `garm.log`.
    fn new(way: &Way, sets: u32, real: bool) -> Self {
        let fleet = |github: &str| {
            let mut fleet = Fleet::new(way.build, sets, github);
            fleet.github.stale_lifetime = STALE;
            fleet.each(|garm| {
                if way.doubling {
                    (garm.retry, garm.retry_doubles_to) = (Span::secs(5), Some(Span::mins(5)));
                }
            })
        };
        let shared_memory = std::path::Path::new("/dev/shm");
        let in_memory = !real && shared_memory.is_dir();
        let dir = if in_memory { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() }.unwrap();
        let sets = usize::try_from(sets).unwrap();
        if real {
            let servers = Servers::serve(|github, now| started(&fleet(github), now));
            let (hub, garm, log) = (Arc::clone(&servers.hub), servers.garm.clone(), servers.log.clone());
            let (clock, servers) = (Arc::clone(hub.clock()), Keep::Sockets { _servers: servers });
            return Self { hub, clock, dir, log, garm, sets, servers };
        }
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let hub = Hub::new(started(&fleet("http://github.test"), START), Arc::clone(&clock));
        let log = dir.path().join("garm.log");
        hub.log_to_file(ServerId::Manager(0), &log).unwrap();
        let servers = Keep::InProcess { _pump: Pump::start(&hub) };
        Self { hub, clock, dir, log, garm: "http://garm.test".to_owned(), sets, servers }
    }

    async fn recover(self, way: &'static Way, limit: Span) -> Row {
        let medic = match way.healer {
            Healer::Medic { .. } | Healer::MedicAtLarge => Some(self.medic(way.healer)),
            Healer::Nobody | Healer::ScriptInTurn | Healer::ScriptAtOnce => None,
        };
        self.clock.sleep(CALM).await;
        assert_eq!(self.hub.with(|world, _| world.listening(0)), (self.sets, self.sets), "all sets listen at first");
        let killed = self.hub.with(|world, now| {
            world.kill(0, now);
            now
        });
        self.clock.sleep(DOWN).await;
        self.hub.with(|world, now| world.start(0, now));
        let script = tokio::spawn(script(Arc::clone(&self.hub), way.healer));
        let listening = self.watch(killed, limit).await;
        script.abort();
        if let Some(medic) = medic {
            medic.stop().await;
        }
        let (writes, crashes) = self.hub.with(|world, _| {
            let garm = world.garm(0).unwrap();
            (garm.writes().len(), garm.crashes())
        });
        // The script changes the sets without HTTP; a real one sends two requests for each.
        let by_script = matches!(way.healer, Healer::ScriptInTurn | Healer::ScriptAtOnce);
        let writes = if by_script { 2 * self.sets } else { writes };
        Row { way, listening, writes, crashes }
    }

    async fn watch(&self, killed: Wall, limit: Span) -> [Option<Span>; 3] {
        let goals = [1, self.sets.div_ceil(2), self.sets];
        let mut seen = [None; 3];
        loop {
            let (passed, (listening, enabled)) = self.hub.with(|world, now| (now.since(killed), world.listening(0)));
            for (goal, seen) in goals.iter().zip(&mut seen) {
                if listening >= *goal && seen.is_none() {
                    *seen = Some(passed);
                }
            }
            let done = listening == self.sets && enabled == self.sets;
            if done || passed >= limit {
                seen[2] = done.then_some(passed);
                return seen;
            }
            let often = passed < Span::mins(5) || matches!(self.servers, Keep::Sockets { .. });
            self.clock.sleep(if often { Span::millis(100) } else { Span::secs(10) }).await;
        }
    }

    /// Starts a medic with the shipped defaults.
    fn medic(&self, healer: Healer) -> Medic {
        let (dir, at_large) = (self.dir.path(), healer == Healer::MedicAtLarge);
        let pace = if at_large { "requests_per_second = 100\n" } else { "" };
        let log = if healer.has_ledger() { format!("log_file = \"{}\"\n", self.log.display()) } else { String::new() };
        let text = ConfigText {
            mode: "heal",
            state: "state",
            http: "listen = \"127.0.0.1:0\"",
            managers: &[("garm", &self.garm)],
            manager: &format!("{pace}{log}"),
            github: Some(pace),
            policy: if at_large { "max_in_flight = 100" } else { "" },
            ..ConfigText::default()
        };
        if let Keep::Sockets { .. } = self.servers {
            let config = dir.join("medic.toml");
            std::fs::write(&config, text.write(dir)).unwrap();
            let errors = std::fs::File::create(dir.join("medic.log")).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_scaleset-medic"));
            command.arg("--config").arg(&config).arg("run").env_clear().current_dir(dir);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
            return Medic::Process(Running(Some(child)));
        }
        let config = text.check(dir);
        let store = Store::open(&config.run.state_dir).unwrap();
        let transport = bench::transport(&self.hub);
        let service = bench::Service::new(&config, &store, &self.clock, "bench", &transport, &bench::metrics(&config));
        Medic::Task(service.spawn())
    }
}

enum Medic {
    Task(Spawned),
    Process(Running),
}

impl Medic {
    async fn stop(self) {
        match self {
            Self::Task(running) => running.stop().await,
            Self::Process(running) => drop(running.stop("-TERM").await),
        }
    }
}

/// The bug report's script: `curl -X PUT ... '{"enabled": false}'; sleep 3; curl -X PUT ... '{"enabled": true}'`, begun
/// as soon as the restarted GARM serves its API.
async fn script(hub: Arc<Hub<World>>, healer: Healer) {
    let sets: Vec<_> = hub.with(|world, _| world.garm(0).unwrap().scale_sets().map(|(set, _, _)| set).collect());
    let at_a_time = match healer {
        Healer::Nobody | Healer::Medic { .. } | Healer::MedicAtLarge => return,
        Healer::ScriptInTurn => 1,
        Healer::ScriptAtOnce => sets.len(),
    };
    while !hub.with(|world, _| world.garm(0).unwrap().is_up()) {
        hub.clock().sleep(Span::millis(100)).await;
    }
    for sets in sets.chunks(at_a_time) {
        for enabled in [false, true] {
            hub.with(|world, now| {
                let garm = world.garm_mut(0).unwrap().0;
                for set in sets {
                    garm.operator_sets_enabled(*set, enabled, now);
                }
            });
            if !enabled {
                hub.clock().sleep(Span::secs(3)).await;
            }
        }
    }
}

/// What a second day adds to the store; the first fills the ledger.
fn growth(sets: u32) {
    println!("| sets | crashes a day | after a day | the second day adds | write-ahead log |");
    println!("|---:|---:|---:|---:|---:|");
    let way = way("", Build::PreFix, Healer::Medic { ledger: true });
    for crashes in [0, 1] {
        let [first, second, log] = runtime(true).block_on(async {
            let site = Site::new(&way, sets, false);
            let medic = site.medic(way.healer);
            let size =
                |file: &str| std::fs::metadata(site.dir.path().join("state").join(file)).map_or(0, |of| of.len());
            let mut sizes = [0; 3];
            for day in &mut sizes[..2] {
                site.clock.sleep(Span::hours(12)).await;
                for _ in 0..crashes {
                    site.hub.with(|world, now| world.kill(0, now));
                    site.clock.sleep(DOWN).await;
                    site.hub.with(|world, now| world.start(0, now));
                }
                site.clock.sleep(Span::hours(12)).await;
                *day = size("medic.db");
            }
            sizes[2] = size("medic.db-wal");
            medic.stop().await;
            sizes
        });
        let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
        println!("| {sets} | {crashes} | {} | {} | {} |", kib(first), kib(second - first), kib(log));
    }
}
