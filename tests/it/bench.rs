//! Test bench: simulated servers in process, one real engine, and virtual time. Also the configuration and the service
//! of every other test.

use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Diagnosis, GithubId, ManagerName, Outcome, PauseScope, ScaleSetId, Span, Treatment, Wall};
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
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

pub(crate) const START: Wall = Wall(1_764_000_000_000);
/// Of every simulated GARM.
pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const GARM: &str = "garm.test:80";
pub(crate) const GITHUB: &str = "github.test:80";
pub(crate) const BUILDS: [Build; 3] = [Build::PreFix, Build::PostFix, Build::ListenerMetrics];

/// A configuration. Its secrets are written to files beside it.
#[derive(Default)]
pub(crate) struct ConfigText<'a> {
    pub(crate) mode: &'a str,
    /// Below the directory of the configuration.
    pub(crate) state: &'a str,
    /// Lines of `[run]`.
    pub(crate) run: &'a str,
    /// Lines of `[http]`.
    pub(crate) http: &'a str,
    /// Names and addresses.
    pub(crate) managers: &'a [(&'a str, &'a str)],
    /// Lines of each `[[manager]]`.
    pub(crate) manager: &'a str,
    /// Lines of `[[github]]`, if there is one.
    pub(crate) github: Option<&'a str>,
    /// Lines of `[policy]`.
    pub(crate) policy: &'a str,
}

impl ConfigText<'_> {
    pub(crate) fn write(&self, dir: &Path) -> String {
        std::fs::write(dir.join("password"), PASSWORD).unwrap();
        std::fs::write(dir.join("token"), MEDIC_TOKEN).unwrap();
        let (Self { mode, run, http, policy, .. }, place) = (self, dir.display());
        let mut text = format!("[run]\nmode = \"{mode}\"\nstate_dir = \"{}\"\n{run}\n", dir.join(self.state).display());
        let _ = write!(text, "[http]\n{http}\n[policy]\n{policy}\n");
        if let Some(lines) = self.github {
            let _ = write!(text, "[[github]]\nendpoint = \"github.com\"\ntoken_file = \"{place}/token\"\n{lines}\n");
        }
        for (name, url) in self.managers {
            let _ = write!(
                text,
                "[[manager]]\nname = \"{name}\"\nurl = \"{url}\"\nusername = \"admin\"\n\
                 password_file = \"{place}/password\"\n{}\n",
                self.manager
            );
        }
        text
    }

    pub(crate) fn check(&self, dir: &Path) -> Config {
        check(&Sources::of_text("bench.toml", self.write(dir)), Depth::Files).unwrap().config
    }
}

/// The service of one medic, as `run` builds it.
pub(crate) struct Service {
    pub(crate) engines: Vec<Engine>,
    pub(crate) publisher: Arc<Publisher>,
    lease: Arc<Lease>,
    limit: Span,
}

impl Service {
    pub(crate) fn new(
        config: &Config,
        store: &Store,
        clock: &Arc<dyn Clock>,
        holder: &str,
        transport: &Arc<dyn Transport>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let lease = Arc::new(Lease::new(store.clone(), holder.to_owned(), Arc::clone(clock)));
        let shared = Shared {
            store: store.clone(),
            lease: Arc::clone(&lease),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            runtime: Runtime {
                jitter: Arc::new(|most: Span| Span::millis(most.as_millis() / 2)),
                file_reading: Reading::AtOnce,
            },
        };
        let carrier = |_: &_| Ok(Carrier { transport: Arc::clone(transport), upgrader: None });
        let publisher = Publisher {
            board: Arc::new(Board::default()),
            metrics: Arc::clone(metrics),
            clock: Arc::clone(clock),
            mode: config.run.mode,
            interval: config.run.interval,
            order: names(config),
            latest: Mutex::default(),
        };
        let engines = engines(config, &shared, &carrier).unwrap();
        Self { engines, publisher: Arc::new(publisher), lease, limit: config.run.shutdown_limit }
    }

    pub(crate) async fn run(
        self,
        shutdown: impl Future<Output = impl Into<Ending>> + Send,
    ) -> Result<(), service::ServiceError> {
        service::run(self.engines, self.publisher, self.lease, None, self.limit, shutdown).await
    }

    pub(crate) fn spawn(self) -> Spawned {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            self.run(stopped).await.unwrap();
        });
        Spawned { stop, task }
    }
}

/// A service that runs as a task.
pub(crate) struct Spawned {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Spawned {
    /// It must have run until now, and end well.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

fn names(config: &Config) -> Vec<ManagerName> {
    config.managers.iter().map(|manager| manager.name.clone()).collect()
}

pub(crate) fn metrics(config: &Config) -> Arc<Metrics> {
    Arc::new(Metrics::new(&names(config), config.run.mode).unwrap())
}

/// GARM has just been started.
pub(crate) fn started(fleet: &Fleet, now: Wall) -> World {
    let mut world = World::new(fleet, now);
    world.start(0, now);
    world
}

/// The first manager and GitHub, in process.
pub(crate) fn transport(hub: &Arc<Hub<World>>) -> Arc<dyn Transport> {
    Arc::new(InprocTransport::new(hub).at(GARM, ServerId::Manager(0)).at(GITHUB, ServerId::Github))
}

/// The servers and the medic of a bench.
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
    pub(crate) fn of(build: Build, sets: u32) -> Self {
        let fleet = Fleet::new(build, sets, "http://github.test");
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
    /// For a scenario of the lab.
    pub(crate) fn for_scenario(build: Build, ledger: bool) -> Self {
        let given = Self::of(build, 4).with_debug_server().with_github();
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

    pub(crate) fn config(&self, dir: &Path) -> Config {
        let Self { interval, metrics, debug_server, .. } = self;
        let log = if self.log { format!("log_file = \"{}/garm.log\"\n", dir.display()) } else { String::new() };
        ConfigText {
            mode: self.mode,
            run: &format!("interval = \"{interval}\""),
            managers: &[("garm", "http://garm.test")],
            manager: &format!("metrics = {metrics}\ndebug_server = {debug_server}\n{log}"),
            github: self.github.then_some(""),
            ..ConfigText::default()
        }
        .check(dir)
    }
}

pub(crate) struct Bench {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) engine: Engine,
    /// Tasks of the engine. They end with the medic.
    background: JoinSet<()>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) closed: Vec<Treatment>,
    pub(crate) status: Option<ManagerStatus>,
    pub(crate) store: Store,
    config: Config,
    next_reconcile: Wall,
    /// No medic runs.
    pub(crate) stopped: bool,
    _pump: Pump,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// GARM has just been started.
    pub(crate) async fn new(given: &Given) -> Self {
        Self::with_store(given, |_| Store::in_memory().unwrap()).await
    }

    /// With the store in a file, for [`Self::damage`].
    pub(crate) async fn on_disk(given: &Given) -> Self {
        Self::with_store(given, |dir| Store::open(dir).unwrap()).await
    }

    pub(crate) async fn with_store(given: &Given, open: impl FnOnce(&Path) -> Store) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let hub = Hub::new(started(&given.fleet, START), Arc::clone(&clock));
        let dir = tempfile::tempdir().unwrap();
        hub.log_to_file(ServerId::Manager(0), &dir.path().join("garm.log")).unwrap();
        let config = given.config(dir.path());
        let store = open(&dir.path().join("state"));
        let metrics = metrics(&config);
        let mut engine = Service::new(&config, &store, &clock, "bench", &transport(&hub), &metrics).engines.remove(0);
        let background = engine.take_background().into_iter().collect();
        tokio::task::yield_now().await;
        Self {
            _pump: Pump::start(&hub),
            next_reconcile: clock.now().wall,
            stopped: false,
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

    /// GARM has been killed after `calm`, and starts again.
    pub(crate) async fn after_a_crash(given: &Given, calm: Span) -> Self {
        let mut bench = Self::new(given).await;
        bench.run(calm).await;
        bench.crash_and_restart(Span::secs(1)).await;
        bench
    }

    fn service(&self) -> Service {
        Service::new(&self.config, &self.store, &self.clock, "bench", &transport(&self.hub), &self.metrics)
    }

    /// Somebody else writes to the store's file.
    pub(crate) fn damage(&self, sql: &str) {
        let file = rusqlite::Connection::open(self.store.path()).unwrap();
        assert_eq!(file.execute(sql, []).unwrap(), 1, "{sql}");
    }

    /// An operator pauses healing.
    pub(crate) fn pause(&self, scope: PauseScope, span: Span) {
        let created = self.clock.now().wall;
        let (reason, author) = ("upgrade".to_owned(), "alice".to_owned());
        let pause = NewPause { scope, reason, author, created, expires: Some(created.plus(span)) };
        self.store.add_pause(pause).unwrap();
    }

    /// Runs the service until `condition` holds, and ends it with `ending`. Then a new engine takes over.
    pub(crate) async fn serve_until(&mut self, condition: impl Fn(&World) -> bool + Send + Sync, ending: Ending) {
        let mut service = self.service();
        std::mem::swap(&mut self.engine, &mut service.engines[0]);
        let (hub, clock) = (&self.hub, &self.clock);
        let shutdown = async {
            while !hub.with(|world, _| condition(world)) {
                clock.sleep(Span::millis(100)).await;
            }
            ending
        };
        service.run(shutdown).await.unwrap();
    }

    /// The medic dies and starts again with its store.
    pub(crate) fn restart_medic(&mut self) {
        self.engine = self.service().engines.remove(0);
        self.background = self.engine.take_background().into_iter().collect();
    }

    /// Sessions that the medic opened and that GitHub still has.
    pub(crate) fn open_check_sessions(&self) -> usize {
        self.with(|world| {
            let opened = world.github.sessions().filter(|session| session.opened_by.credential == "medic");
            opened.filter(|session| session.ended.is_none()).count()
        })
    }

    /// Reconciles as the service does, for this long.
    pub(crate) async fn run(&mut self, span: Span) {
        self.run_until(span, |_| false).await;
    }

    /// The same until `condition` holds; returns how long that took, at most `span`.
    pub(crate) async fn run_until(&mut self, span: Span, condition: impl Fn(&World) -> bool) -> Span {
        let began = self.clock.now().wall;
        let end = began.plus(span);
        loop {
            let now = self.clock.now().wall;
            if now >= end || self.with(|world| condition(world)) {
                return now.since(began);
            }
            if !self.stopped && now >= self.next_reconcile {
                let done = self.engine.reconcile().await;
                self.closed.extend(done.closed);
                self.metrics.show(&Arc::new(Status {
                    schema: STATUS_SCHEMA,
                    version: String::new(),
                    mode: medic_core::policy::Mode::Heal,
                    at: now,
                    managers: vec![done.status.clone()],
                    not_swept_yet: Vec::new(),
                }));
                self.status = Some(done.status);
                self.next_reconcile = self.clock.now().wall.plus(self.engine.until_next());
            }
            let next = if self.stopped { end } else { self.next_reconcile };
            let wait = next.min(end).since(self.clock.now().wall);
            let wake = self.engine.wake();
            tokio::select! {
                () = self.clock.sleep(wait.min(Span::millis(500)).max(Span::millis(1))) => {}
                () = wake.notified() => self.next_reconcile = self.clock.now().wall.plus(Span::millis(250)),
            }
        }
    }

    /// Until all sets listen, which must happen within `limit`.
    pub(crate) async fn until_all_listen(&mut self, limit: Span) -> Span {
        let took = self.run_until(limit, all_listen).await;
        assert!(self.with(|world| all_listen(world)), "not within {limit}: {:?} listen", self.listening());
        took
    }

    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        self.hub.with(|world, _| act(world))
    }

    pub(crate) fn with_now<R>(&self, act: impl FnOnce(&mut World, Wall) -> R) -> R {
        self.hub.with(act)
    }

    pub(crate) async fn crash_and_restart(&mut self, down: Span) {
        self.with_now(|world, now| world.kill(0, now));
        self.run(down).await;
        self.with_now(|world, now| world.start(0, now));
    }

    /// A clean stop of GARM, and a start after `down`.
    pub(crate) async fn stop_and_start(&mut self, down: Span) {
        self.with_now(|world, now| world.stop(0, now));
        self.run(down).await;
        self.with_now(|world, now| world.start(0, now));
    }

    /// Crashes of GARM by its own fault.
    pub(crate) fn crashes(&self) -> u32 {
        self.with(|world| world.garm(0).unwrap().crashes())
    }

    pub(crate) fn github_ids(&self) -> Vec<GithubId> {
        self.with(|world| world.garm(0).unwrap().scale_sets().map(|(_, _, id)| id).collect())
    }

    pub(crate) fn incident(&self) -> String {
        self.status.as_ref().and_then(|status| status.incident.clone()).unwrap_or_default()
    }

    pub(crate) fn operator_sets(&self, set: ScaleSetId, enabled: bool) {
        self.with_now(|world, now| world.garm_mut(0).unwrap().0.operator_sets_enabled(set, enabled, now));
    }

    pub(crate) fn listening(&self) -> (usize, usize) {
        self.with(|world| world.listening(0))
    }

    /// PUTs that GARM received.
    pub(crate) fn writes(&self) -> usize {
        self.with(|world| world.garm(0).unwrap().writes().len())
    }

    /// Requests of the medic to GitHub of some kind.
    pub(crate) fn github_calls(&self, of: impl Fn(Route) -> bool) -> usize {
        self.with(|world| {
            world.github.calls().filter(|call| call.actor.credential == "medic" && of(call.route)).count()
        })
    }

    pub(crate) fn github_writes(&self) -> usize {
        self.github_calls(Route::is_write)
    }

    /// Sessions that the medic deleted.
    pub(crate) fn deletions(&self) -> usize {
        self.github_calls(|route| route == Route::DeleteSession)
    }

    /// Requests to a target so far, by the medic's own metrics.
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

    /// Events of a kind with this outcome in the history.
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

pub(crate) fn all_listen(world: &World) -> bool {
    let sets = world.garm(0).unwrap().scale_sets().count();
    world.listening(0) == (sets, sets)
}
