//! A bench: the simulated world behind in-process doors, one real engine in front, and virtual time.

use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Diagnosis, Outcome, PauseScope, ScaleSetId, Span, Treatment, Wall};
use medic_http::Transport;
use medic_http::file::Reading;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_inproc::InprocTransport;
use medic_lab::garm::{self, Build};
use medic_lab::github::Route;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, MEDIC_TOKEN, World};
use medic_store::{HistoryFilter, NewPause, Store};
use scaleset_medic::config::{Config, Depth, Sources, check};
use scaleset_medic::engine::assemble::{Carrier, Runtime, Shared, engines};
use scaleset_medic::engine::lease::Lease;
use scaleset_medic::engine::reconcile::Engine;
use scaleset_medic::engine::service::{self, Ending, Publisher};
use scaleset_medic::metrics::Metrics;
use scaleset_medic::status::{ManagerStatus, STATUS_SCHEMA, Status};
use scaleset_medic::web::server::Board;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

pub(crate) const START: Wall = Wall(1_764_000_000_000);
pub(crate) const GARM: &str = "garm.test:80";
pub(crate) const GITHUB: &str = "github.test:80";

/// What a bench is made of.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) fleet: Fleet,
    mode: &'static str,
    metrics: bool,
    debug_server: bool,
    pub(crate) github: bool,
    pub(crate) log: bool,
    pub(crate) interval: &'static str,
}

impl Given {
    pub(crate) fn of(generation: Build, sets: u32) -> Self {
        let fleet = Fleet::new(generation, sets, "http://github.test");
        Self { fleet, mode: "heal", metrics: true, debug_server: false, github: false, log: false, interval: "15s" }
    }
    pub(crate) fn observing(mut self) -> Self {
        self.mode = "observe";
        self
    }
    pub(crate) fn with_debug_server(mut self) -> Self {
        self.debug_server = true;
        self.fleet = self.fleet.each(|garm| garm.debug_server = true);
        self
    }
    pub(crate) fn with_github(mut self) -> Self {
        self.github = true;
        self
    }
    /// A fleet for a story.
    pub(crate) fn story(generation: Build, ledger: bool) -> Self {
        let given = Self::of(generation, 4).with_debug_server().with_github();
        if ledger { given.with_log(garm::LogLevel::Debug, garm::LogFormat::Json) } else { given }
    }
    /// The medic reads the manager's log file.
    pub(crate) fn with_log(mut self, level: garm::LogLevel, format: garm::LogFormat) -> Self {
        self.log = true;
        self.fleet = self.fleet.each(|garm| (garm.log_level, garm.log_format) = (level, format));
        self
    }
    pub(crate) fn without_metrics(mut self) -> Self {
        self.metrics = false;
        self.fleet = self.fleet.each(|garm| garm.metrics = garm::Metrics::Off);
        self
    }

    pub(crate) fn config(&self, dir: &std::path::Path) -> Config {
        let secret = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let password = secret("password", &self.fleet.managers[0].password);
        let mut text = format!(
            "[run]\ninterval = \"{}\"\nmode = \"{}\"\nstate_dir = \"{}\"\n[[manager]]\nname = \"garm\"\nurl = \"http://garm.test\"\n\
             username = \"admin\"\npassword_file = \"{password}\"\nmetrics = {}\ndebug_server = {}\n",
            self.interval,
            self.mode,
            dir.display(),
            self.metrics,
            self.debug_server
        );
        if self.log {
            let _ = writeln!(text, "log_file = \"{}\"", log_file(dir).display());
        }
        if self.github {
            let token = secret("token", MEDIC_TOKEN);
            let _ = write!(text, "[[github]]\nendpoint = \"github.com\"\ntoken_file = \"{token}\"\n");
        }
        check(&Sources::of_text("bench.toml", text), Depth::Files).unwrap().config
    }
}

fn log_file(dir: &std::path::Path) -> std::path::PathBuf {
    dir.join("garm.log")
}

pub(crate) struct Bench {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) engine: Engine,
    /// What runs beside the passes; it ends with the medic.
    background: JoinSet<()>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) closed: Vec<Treatment>,
    pub(crate) status: Option<ManagerStatus>,
    pub(crate) store: Store,
    config: Config,
    next_pass: Wall,
    passes: bool,
    _pump: Pump,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A world whose managers have just been started.
    pub(crate) async fn new(given: &Given) -> Self {
        Self::with_store(given, |_| Store::in_memory().unwrap()).await
    }

    /// The same with the store in a file, which can be [damaged](Self::damage).
    pub(crate) async fn on_disk(given: &Given) -> Self {
        Self::with_store(given, |dir| Store::open(dir).unwrap()).await
    }

    pub(crate) async fn with_store(given: &Given, open: impl FnOnce(&std::path::Path) -> Store) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let mut world = World::new(&given.fleet, START);
        world.start(0, START);
        let hub = Hub::new(world, Arc::clone(&clock));
        let dir = tempfile::tempdir().unwrap();
        hub.log_to_file(ServerId::Manager(0), &log_file(dir.path())).unwrap();
        let config = given.config(dir.path());
        let store = open(&dir.path().join("state"));
        let metrics = Arc::new(Metrics::new(&[config.managers[0].name.clone()], config.run.mode).unwrap());
        let mut engine = engine(&config, &hub, &store, &clock, &metrics);
        let background = engine.take_background().into_iter().collect();
        tokio::task::yield_now().await;
        Self {
            _pump: Pump::start(&hub),
            next_pass: clock.now().wall,
            passes: true,
            hub,
            engine,
            background,
            clock,
            metrics,
            closed: Vec::new(),
            status: None,
            store,
            config,
            _dir: dir,
        }
    }

    /// Somebody else writes to the store's file.
    pub(crate) fn damage(&self, sql: &str) {
        let file = rusqlite::Connection::open(self.store.path()).unwrap();
        assert_eq!(file.execute(sql, []).unwrap(), 1, "{sql}");
    }

    /// A person pauses healing.
    pub(crate) fn pause(&self, scope: PauseScope, span: Span) {
        let created = self.clock.now().wall;
        let (reason, author) = ("upgrade".to_owned(), "alice".to_owned());
        let pause = NewPause { scope, reason, author, created, expires: Some(created.plus(span)) };
        self.store.add_pause(pause).unwrap();
    }

    /// Watches as the process does until something is so, and then ends in such a way; another one goes on.
    pub(crate) async fn serve_until(&mut self, so: impl Fn(&World) -> bool + Send + Sync, ending: Ending) {
        let next = engine(&self.config, &self.hub, &self.store, &self.clock, &self.metrics);
        let publisher = Publisher {
            board: Arc::new(Board::default()),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            mode: self.config.run.mode,
            interval: self.config.run.interval,
            order: vec![next.name().clone()],
            latest: Mutex::default(),
        };
        let (hub, clock) = (&self.hub, &self.clock);
        let told = async {
            while !hub.with(|world, _| so(world)) {
                clock.sleep(Span::millis(100)).await;
            }
            ending
        };
        let lease = Arc::new(Lease::new(self.store.clone(), "bench".to_owned(), Arc::clone(&self.clock)));
        let engines = vec![std::mem::replace(&mut self.engine, next)];
        let limit = self.config.run.shutdown_limit;
        service::run(engines, Arc::new(publisher), lease, None, limit, told).await.unwrap();
    }

    /// The medic dies and is started again, with its store.
    pub(crate) fn restart_medic(&mut self) {
        self.engine = engine(&self.config, &self.hub, &self.store, &self.clock, &self.metrics);
        self.background = self.engine.take_background().into_iter().collect();
    }

    /// The medic is not there yet.
    pub(crate) fn pause_passes(&mut self) {
        self.passes = false;
    }

    pub(crate) fn resume_passes(&mut self) {
        self.passes = true;
    }

    /// Sessions that the medic opened and that GitHub still has.
    pub(crate) fn open_check_sessions(&self) -> usize {
        self.with(|world| {
            let opened = world.github.sessions().filter(|session| session.opened_by.credential == "medic");
            opened.filter(|session| session.ended.is_none()).count()
        })
    }

    /// Passes as the service makes them, for this long.
    pub(crate) async fn run(&mut self, span: Span) {
        self.run_until(span, |_| false).await;
    }

    /// The same, until something is so, or at most for this long; how long it took.
    pub(crate) async fn run_until(&mut self, span: Span, so: impl Fn(&World) -> bool) -> Span {
        let began = self.clock.now().wall;
        let end = began.plus(span);
        loop {
            let now = self.clock.now().wall;
            if now >= end || self.with(|world| so(world)) {
                return now.since(began);
            }
            if self.passes && now >= self.next_pass {
                let pass = self.engine.reconcile().await;
                self.closed.extend(pass.closed);
                self.metrics.show(&Arc::new(Status {
                    schema: STATUS_SCHEMA,
                    version: String::new(),
                    mode: medic_core::policy::Mode::Heal,
                    at: now,
                    managers: vec![pass.status.clone()],
                    not_swept_yet: Vec::new(),
                }));
                self.status = Some(pass.status);
                self.next_pass = self.clock.now().wall.plus(self.engine.until_next());
            }
            let next = if self.passes { self.next_pass } else { end };
            let wait = next.min(end).since(self.clock.now().wall);
            let wake = self.engine.wake();
            tokio::select! {
                () = self.clock.sleep(wait.min(Span::millis(500)).max(Span::millis(1))) => {}
                () = wake.notified() => self.next_pass = self.clock.now().wall.plus(Span::millis(250)),
            }
        }
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut World) -> R) -> R {
        self.hub.with(|world, _| look(world))
    }

    pub(crate) fn with_now<R>(&self, act: impl FnOnce(&mut World, Wall) -> R) -> R {
        self.hub.with(act)
    }

    pub(crate) async fn crash_and_restart(&mut self, down: Span) {
        self.with_now(|world, now| world.kill(0, now));
        self.run(down).await;
        self.with_now(|world, now| world.start(0, now));
    }

    pub(crate) fn person(&self, set: ScaleSetId, enabled: bool) {
        self.with_now(|world, now| world.garm_mut(0).unwrap().0.operator_sets_enabled(set, enabled, now));
    }

    pub(crate) fn listening(&self) -> (usize, usize) {
        self.with(|world| world.listening(0))
    }

    /// PUTs that the manager got.
    pub(crate) fn writes(&self) -> usize {
        self.with(|world| world.garm(0).unwrap().writes().len())
    }

    /// Writes that GitHub got from the medic.
    pub(crate) fn forge_writes(&self) -> usize {
        self.with(|world| {
            let calls = world.github.calls().filter(|call| call.actor.credential == "medic");
            calls.filter(|call| Route::is_write(call.route)).count()
        })
    }

    /// Sessions that GitHub was asked to delete by the medic.
    pub(crate) fn deletions(&self) -> usize {
        self.with(|world| {
            let calls = world.github.calls().filter(|call| call.actor.credential == "medic");
            calls.filter(|call| call.route == Route::DeleteSession).count()
        })
    }

    /// Exchanges with a target so far, by the medic's own metrics.
    pub(crate) fn exchanges(&self, target: &str) -> u64 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter(|line| line.contains("probe_duration_seconds_count"));
        let of_target = lines.filter(|line| line.contains(&format!("target=\"{target}\"")));
        of_target.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    pub(crate) fn diagnoses(&self) -> Vec<Diagnosis> {
        self.status.as_ref().unwrap().sets.iter().map(|set| set.finding.diagnosis).collect()
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.closed.iter().filter_map(Treatment::outcome).collect()
    }

    /// Events of a kind whose outcome is so, in the history.
    pub(crate) fn events(&self, kind: &str, outcome: &str) -> usize {
        let all = HistoryFilter { set: None, since: Wall(0), limit: 100_000 };
        let events = self.store.for_manager(self.engine.name()).history(all).unwrap();
        events.iter().filter(|event| event.kind == kind && event.detail["outcome"] == outcome).count()
    }

    /// Every snapshot, as `history --snapshots` exports them.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let store = self.store.for_manager(self.engine.name());
        let ids = store.snapshots(Wall(0)).unwrap();
        ids.into_iter().map(|id| store.snapshot(id).unwrap().unwrap()).collect()
    }

    pub(crate) fn metrics(&self) -> String {
        self.metrics.text().unwrap()
    }
}

/// A run that repeats exactly.
pub(crate) fn no_chance() -> Runtime {
    Runtime { jitter: Arc::new(|most: Span| Span::millis(most.as_millis() / 2)), file_reading: Reading::AtOnce }
}

fn engine(
    config: &Config,
    hub: &Arc<Hub<World>>,
    store: &Store,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Engine {
    let lease = Arc::new(Lease::new(store.clone(), "bench".to_owned(), Arc::clone(clock)));
    let shared = Shared {
        store: store.clone(),
        lease,
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
        runtime: no_chance(),
    };
    let transport = InprocTransport::new(hub).at(GARM, ServerId::Manager(0)).at(GITHUB, ServerId::Github);
    let transport: Arc<dyn Transport> = Arc::new(transport);
    engines(config, &shared, &|_| Ok(Carrier { transport: Arc::clone(&transport), upgrader: None })).unwrap().remove(0)
}
