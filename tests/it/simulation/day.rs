//! One simulated day: what is there, what happens, and who is to see to it that a medic is there.

use super::mortal::{Doom, Mortal};
use super::truth::Violation;
use super::weather::{Broken, Climate, Scene, Weather, rng};
use crate::bench::{GARM, GITHUB, Given, START, no_chance};
use rand::RngExt as _;
use rand::rngs::SmallRng;
use scaleset_medic::clock::{Clock, ScaledClock};
use scaleset_medic::config::Config;
use scaleset_medic::export::metrics::Metrics;
use scaleset_medic::export::server::Board;
use scaleset_medic::http::Transport;
use scaleset_medic::lab::backend::DoorId;
use scaleset_medic::lab::door_inproc::InprocTransport;
use scaleset_medic::lab::garm::{Background, Generation, LogFormat, LogLevel};
use scaleset_medic::lab::github::{Degraded, Fault, FaultKind, Lasts, Leaving, Route, Takeover};
use scaleset_medic::lab::hub::{Hub, Pump};
use scaleset_medic::lab::world::{MEDIC_TOKEN, World};
use scaleset_medic::model::status::ManagerStatus;
use scaleset_medic::model::{Decision, Guard, ManagerName, ScaleSetId, Span, Wall};
use scaleset_medic::run::assemble::{Carrier, Shared, engines};
use scaleset_medic::run::lease::Lease;
use scaleset_medic::run::service::{self, Publisher};
use scaleset_medic::store::Store;
use scaleset_medic::treat::ports::Journal as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often the whole is looked at.
const LOOK: Span = Span::secs(10);
/// After a disturbance, for so long nobody is blamed for being late: a dead medic's lease, a back-off, a pass.
const GRACE: Span = Span::secs(100);
/// Quiet at the end, for all that may still be healed.
const REST: Span = Span::mins(150);

/// A day, before it is lived.
pub(crate) struct Day {
    seed: u64,
    given: Given,
    length: Span,
    script: Script,
    broken: Broken,
}

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Everything.
    All,
    /// The manager is killed, and so is the medic, at a random moment of the recovery.
    CrashAndDeath,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) world: String,
    pub(crate) story: Vec<String>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) minutes: u64,
    pub(crate) requests: u64,
    pub(crate) writes: u64,
    pub(crate) deaths: u64,
    pub(crate) crashes: u64,
    pub(crate) checks: u64,
}

fn pick<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

impl Day {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = rng(seed);
        let generation = pick(
            &mut dice,
            &[Generation::PreFix, Generation::PreFix, Generation::PostFix, Generation::ListenerMetrics],
        );
        let sets = pick(&mut dice, &[1, 2, 3, 4, 6, 12]);
        let mut given = Given::of(generation, sets);
        if dice.random_range(0..10) < 7 {
            given = given.with_github();
        }
        match dice.random_range(0..10) {
            0..6 => {
                let format = pick(&mut dice, &[LogFormat::Json, LogFormat::Text]);
                given = given.with_log(LogLevel::Debug, format);
            }
            6..8 => given = given.with_log(LogLevel::Info, LogFormat::Json),
            _ => {}
        }
        if dice.random_range(0..10) < 4 {
            given = given.with_debug_server();
        }
        let (stale, start) = (dice.random_range(45..400), pick(&mut dice, &[5, 5, 100, 400]));
        given.fleet.github.stale_lifetime = Span::secs(stale);
        given.interval = pick(&mut dice, &["15s", "1m", "5m", "5m"]);
        given.fleet = given.fleet.each(|garm| {
            garm.worker_start = Span::millis(start);
            garm.background = Background::StartOnly;
        });
        Self { seed, given, length: Span::hours(24), script: Script::All, broken: Broken::Not }
    }

    /// A manager of any generation is killed at a stale lifetime of ten minutes, and its medic, which knows the
    /// sessions, at a random moment of the recovery.
    pub(crate) fn of_deaths(seed: u64) -> Self {
        let mut dice = rng(seed);
        let generation = pick(&mut dice, &[Generation::PreFix, Generation::PostFix, Generation::ListenerMetrics]);
        let sets = pick(&mut dice, &[1, 4, 4, 12]);
        let mut given = Given::of(generation, sets).with_github().with_log(LogLevel::Debug, LogFormat::Json);
        given.fleet.github.stale_lifetime = Span::mins(10);
        // It ends before GitHub forgets any session: whoever listens by then owes it to the medic.
        Self { seed, given, length: Span::secs(690), script: Script::CrashAndDeath, broken: Broken::Not }
    }

    /// A few hours of crashes and of people, with a medic that is broken on purpose.
    pub(crate) fn of_broken(seed: u64, broken: Broken) -> Self {
        let mut dice = rng(seed);
        let mut given = Given::of(Generation::PreFix, pick(&mut dice, &[1, 2, 3]));
        given.fleet = given.fleet.each(|garm| garm.background = Background::StartOnly);
        Self { seed, given, length: Span::hours(3), script: Script::All, broken }
    }

    /// Lives it under virtual time.
    pub(crate) fn live(self) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async { Life::begin(self).live().await })
    }
}

/// A medic that runs.
struct Medic {
    name: String,
    mortal: Arc<Mortal>,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    publisher: Arc<Publisher>,
}

struct Life {
    day: Day,
    dice: SmallRng,
    dir: tempfile::TempDir,
    config: Config,
    scene: Arc<Scene>,
    disk_full: Arc<AtomicBool>,
    medics: Vec<Medic>,
    /// Medics that come back, and when.
    returns: Vec<Wall>,
    /// What happens when.
    agenda: BTreeMap<Wall, Vec<Event>>,
    touched: BTreeMap<ScaleSetId, Wall>,
    disturbed_until: Wall,
    born: u64,
    deaths: u64,
    story: Vec<String>,
    _pump: Pump,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Crash,
    CleanStop,
    Start,
    PersonDisables,
    PersonEnables(ScaleSetId),
    Storm,
    Calm,
    ManagerHangs,
    ManagerFails,
    TokensExpire,
    GithubFails,
    BrokerDegrades,
    QuotaRunsOut,
    Evicted,
    PhantomConflict,
    ForeignOwner,
    MedicDies,
    MedicDoomed,
    MedicStops,
    SecondMedic,
    OneMedicLess,
    DiskFills,
    DiskEmpties,
    Jobs,
}

impl Life {
    fn begin(day: Day) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let mut world = World::new(&day.given.fleet, START);
        world.start(0, START);
        let hub = Hub::new(world, Arc::clone(&clock));
        let shared_memory = Path::new("/dev/shm");
        let dir =
            if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() }.unwrap();
        hub.log_to_file(DoorId::Manager(0), &dir.path().join("garm.log")).unwrap();
        let config = day.given.config(dir.path());
        let name = config.managers[0].name.clone();
        let journal = Store::open(&config.run.state_dir).unwrap().for_manager(&name);
        let dice = rng(day.seed ^ 0x5EED);
        let scene = Arc::new(Scene {
            hub: Arc::clone(&hub),
            clock,
            truth: Mutex::default(),
            climate: Mutex::default(),
            rng: Mutex::new(rng(day.seed ^ 0xCAFE)),
            broken: day.broken,
            requests: Mutex::default(),
            journal: Box::new(move || journal.unfinished().unwrap()),
        });
        Self {
            _pump: Pump::start(&hub),
            day,
            dice,
            dir,
            config,
            scene,
            disk_full: Arc::default(),
            medics: Vec::new(),
            returns: Vec::new(),
            agenda: BTreeMap::new(),
            touched: BTreeMap::new(),
            disturbed_until: START.plus(GRACE),
            born: 0,
            deaths: 0,
            story: Vec::new(),
        }
    }

    fn now(&self) -> Wall {
        self.scene.clock.now().wall
    }

    fn tell(&mut self, what: &str) {
        let at = self.now().since(START);
        self.story.push(format!("{:>9} {what}", format!("{}.{:03}", at.as_millis() / 1000, at.as_millis() % 1000)));
    }

    fn disturb(&mut self, span: Span) {
        self.disturbed_until = self.disturbed_until.max(self.now().plus(span).plus(GRACE));
    }

    async fn live(mut self) -> Report {
        self.medic_comes();
        let end = START.plus(self.day.length);
        let storms_end = end.minus(REST.min(Span::millis(self.day.length.as_millis() / 4)));
        self.plan(storms_end);
        let mut cleared = false;
        while self.now() < end {
            self.happen();
            if !cleared && self.now() >= storms_end {
                cleared = true;
                self.clear();
            }
            self.look();
            let next = self.agenda.keys().next().copied().unwrap_or(end).min(end);
            let wait = next.since(self.now()).min(LOOK).max(Span::millis(1));
            self.scene.clock.sleep(wait).await;
        }
        self.rest();
        let (violations, checks, writes) = {
            let mut truth = self.scene.truth.lock().unwrap();
            (std::mem::take(&mut truth.violations), truth.checks, truth.writes)
        };
        for medic in self.medics.drain(..) {
            medic.mortal.kill();
            let _ = medic.task.await;
        }
        drop(self.dir);
        Report {
            seed: self.day.seed,
            world: format!("{:?}", self.day.given),
            story: self.story,
            violations,
            minutes: self.day.length.as_millis() / 60_000,
            requests: *self.scene.requests.lock().unwrap(),
            writes,
            deaths: self.deaths,
            crashes: u64::from(self.scene.hub.with(|world, _| world.garm(0).unwrap().crashes())),
            checks,
        }
    }

    fn at(&mut self, date: Wall, event: Event) {
        self.agenda.entry(date).or_default().push(event);
    }

    fn later(&mut self, seconds: std::ops::Range<u64>, event: Event) {
        let date = self.now().plus(Span::millis(self.dice.random_range(seconds.start * 1000..seconds.end * 1000)));
        self.at(date, event);
    }

    fn plan(&mut self, end: Wall) {
        if self.day.script == Script::CrashAndDeath {
            let crash = START.plus(Span::millis(self.dice.random_range(90_000..150_000)));
            self.at(crash, Event::Crash);
            for _ in 0..self.dice.random_range(1..4) {
                let death = crash.plus(Span::millis(self.dice.random_range(0..25_000)));
                let how = pick(&mut self.dice, &[Event::MedicDies, Event::MedicDoomed, Event::MedicDoomed]);
                self.at(death, how);
            }
            return;
        }
        let mut at = START.plus(Span::mins(self.dice.random_range(3..30)));
        let last = if self.day.broken == Broken::Not { end.minus(Span::mins(70)) } else { end };
        while at < last {
            if self.dice.random_range(0..10) < 7 {
                self.at(at, Event::Crash);
            }
            for _ in 0..self.dice.random_range(0..4) {
                let date = at.plus(Span::millis(self.dice.random_range(0..150_000)));
                let event = pick(
                    &mut self.dice,
                    &[
                        Event::Crash,
                        Event::CleanStop,
                        Event::PersonDisables,
                        Event::PersonDisables,
                        Event::Storm,
                        Event::Storm,
                        Event::ManagerHangs,
                        Event::ManagerFails,
                        Event::TokensExpire,
                        Event::GithubFails,
                        Event::BrokerDegrades,
                        Event::QuotaRunsOut,
                        Event::Evicted,
                        Event::PhantomConflict,
                        Event::ForeignOwner,
                        Event::MedicDies,
                        Event::MedicDoomed,
                        Event::MedicDoomed,
                        Event::MedicStops,
                        Event::SecondMedic,
                        Event::DiskFills,
                        Event::Jobs,
                    ],
                );
                self.at(date, event);
            }
            at = at.plus(Span::mins(self.dice.random_range(20..240)));
        }
    }

    fn happen(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if *entry.key() > self.scene.clock.now().wall {
                break;
            }
            for event in entry.remove() {
                self.event(event);
            }
        }
        let now = self.now();
        let due = self.returns.extract_if(.., |at| *at <= now).count();
        for _ in 0..due {
            self.medic_comes();
        }
        self.bury();
        let down = self.scene.hub.with(|world, _| !world.garm(0).unwrap().is_running());
        let starts = self.agenda.values().flatten().any(|event| *event == Event::Start);
        if down && !starts {
            self.disturb(Span::secs(90));
            self.later(1..40, Event::Start);
        }
    }

    fn bury(&mut self) {
        let dead: Vec<Medic> = self.medics.extract_if(.., |medic| medic.task.is_finished()).collect();
        for medic in dead {
            self.deaths += 1;
            self.tell(&format!("{} is gone", medic.name));
            let back = Span::millis(self.dice.random_range(500..90_000));
            self.disturb(back);
            if self.medics.is_empty() && self.returns.is_empty() {
                self.returns.push(self.now().plus(back));
                self.at(self.now().plus(back), Event::Calm);
            }
        }
    }

    fn random_set(&mut self) -> (ScaleSetId, scaleset_medic::model::ForgeId) {
        let sets: Vec<_> = self
            .scene
            .hub
            .with(|world, _| world.garm(0).unwrap().scale_sets().map(|(id, _, forge)| (id, forge)).collect());
        pick(&mut self.dice, &sets)
    }

    /// A person changes a set, unless somebody did a moment ago: people are no races.
    fn person(&mut self, set: ScaleSetId, enabled: bool) -> bool {
        let now = self.now();
        let busy = self.touched.get(&set).is_some_and(|at| now.since(*at) < Span::secs(60));
        let changes = self.scene.hub.with(|world, now| {
            let (garm, _) = world.garm_mut(0).unwrap();
            let changes = garm.is_up() && garm.is_enabled(set) != enabled && !busy;
            if changes {
                garm.person_sets_enabled(set, enabled, now);
                self.scene.truth.lock().unwrap().person(set, enabled);
            }
            changes
        });
        if changes {
            self.touched.insert(set, now);
            self.tell(&format!("a person sets {set} enabled={enabled}"));
        }
        changes
    }

    fn event(&mut self, event: Event) {
        let (set, forge) = self.random_set();
        let minutes = Span::secs(self.dice.random_range(30..600));
        let until = self.now().plus(minutes);
        match event {
            Event::PersonDisables | Event::PersonEnables(_) | Event::Calm | Event::Jobs => {}
            _ => self.tell(&format!("{event:?} for {minutes}, set {set}")),
        }
        self.disturb(match event {
            Event::Jobs | Event::PersonDisables | Event::PersonEnables(_) | Event::Calm => Span::ZERO,
            _ => minutes,
        });
        let hub = Arc::clone(&self.scene.hub);
        match event {
            Event::Crash => {
                hub.with(|world, now| world.kill(0, now));
                self.later(1..90, Event::Start);
            }
            Event::CleanStop => {
                hub.with(|world, now| world.stop(0, now));
                self.later(3..90, Event::Start);
            }
            Event::Start => hub.with(|world, now| {
                if !world.garm(0).unwrap().is_running() {
                    world.start(0, now);
                }
            }),
            Event::PersonDisables => {
                if self.person(set, false) && self.dice.random_range(0..10) < 8 {
                    self.later(61..3_000, Event::PersonEnables(set));
                }
            }
            Event::PersonEnables(set) => {
                if !self.person(set, true) {
                    self.later(61..200, Event::PersonEnables(set));
                }
            }
            Event::Storm => {
                let mut share = |most: u32| self.dice.random_range(0..most);
                let climate = Climate {
                    lost: share(30),
                    unanswered: share(30),
                    slow: share(30),
                    doubled: share(15),
                    cut: share(10),
                };
                *self.scene.climate.lock().unwrap() = climate;
                self.at(until, Event::Calm);
            }
            Event::Calm => *self.scene.climate.lock().unwrap() = Climate::CALM,
            Event::ManagerHangs => hub.with(|world, _| world.garm_mut(0).unwrap().0.hang_until(until)),
            Event::ManagerFails => hub.with(|world, _| world.garm_mut(0).unwrap().0.fail_until(503, until)),
            Event::TokensExpire => hub.with(|world, _| {
                world.garm_mut(0).unwrap().0.expire_tokens();
                world.github.expire_tokens();
            }),
            Event::GithubFails => {
                let route = pick(
                    &mut self.dice,
                    &[
                        Route::RegistrationToken,
                        Route::RunnerRegistration,
                        Route::CreateSession,
                        Route::DeleteSession,
                        Route::ListSets,
                    ],
                );
                let status = pick(&mut self.dice, &[500, 502, 503, 429, 401]);
                hub.with(|world, _| {
                    let fault = Fault { lasts: Lasts::Until(until), ..Fault::on(route, FaultKind::status(status)) };
                    world.github.inject(fault);
                });
            }
            Event::BrokerDegrades => {
                let how = pick(&mut self.dice, &[Degraded::Poll500, Degraded::PollEmpty, Degraded::Poll401]);
                hub.with(|world, _| world.github.broker_degraded(how, Lasts::Until(until)));
            }
            Event::QuotaRunsOut => {
                let whose = pick(&mut self.dice, &["medic", "garm"]);
                hub.with(|world, _| world.github.exhaust_quota(whose, until));
            }
            Event::Evicted => hub.with(|world, now| world.github.evict_session(forge, now)),
            Event::PhantomConflict => hub.with(|world, _| world.github.phantom_conflict(forge, until)),
            Event::ForeignOwner => hub.with(|world, now| {
                let how = (Takeover::WhenFree, Leaving::Deletes);
                world.github.foreign_owner_takes(forge, "garm-of-somebody-else", how, now, until);
            }),
            Event::MedicDies => self.with_medic(|medic, _| medic.mortal.kill()),
            Event::MedicDoomed => self.with_medic(|medic, dice| {
                let n = dice.random_range(1..80);
                medic.mortal.doom(if dice.random_range(0..2) == 0 { Doom::Before(n) } else { Doom::After(n) });
            }),
            Event::MedicStops | Event::OneMedicLess => self.with_medic(|medic, _| {
                if let Some(stop) = medic.stop.take() {
                    let _ = stop.send(());
                }
            }),
            Event::SecondMedic => {
                self.medic_comes();
                self.at(until, Event::OneMedicLess);
            }
            Event::DiskFills => {
                self.disk_full.store(true, Ordering::SeqCst);
                self.at(until, Event::DiskEmpties);
            }
            Event::DiskEmpties => self.disk_full.store(false, Ordering::SeqCst),
            Event::Jobs => hub.with(|world, now| world.github.queue_jobs(forge, 2, now)),
        }
    }

    fn with_medic(&mut self, act: impl FnOnce(&mut Medic, &mut SmallRng)) {
        if self.medics.is_empty() {
            return;
        }
        let n = self.dice.random_range(0..self.medics.len());
        act(&mut self.medics[n], &mut self.dice);
    }

    fn medic_comes(&mut self) {
        self.born += 1;
        let name = format!("medic {}", self.born);
        let mortal = Mortal::new(&self.disk_full, self.day.broken == Broken::Forgetful);
        let Ok(store) = Store::open_gated(&self.config.run.state_dir, Arc::clone(&mortal) as _) else {
            self.tell(&format!("{name} cannot open its store"));
            self.returns.push(self.now().plus(Span::secs(20)));
            return;
        };
        self.tell(&format!("{name} comes"));
        let clock = Arc::clone(&self.scene.clock);
        let names: Vec<ManagerName> = self.config.managers.iter().map(|manager| manager.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names, "heal").unwrap());
        let lease = Arc::new(Lease::new(store.clone(), name.clone(), Arc::clone(&clock)));
        let shared = Shared {
            store,
            lease: Arc::clone(&lease),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            chance: no_chance(),
        };
        let doors = InprocTransport::new(&self.scene.hub).at(GARM, DoorId::Manager(0)).at(GITHUB, DoorId::Github);
        let transport: Arc<dyn Transport> =
            Arc::new(Weather { inner: Arc::new(doors), scene: Arc::clone(&self.scene), medic: Arc::clone(&mortal) });
        let carrier = |_: &_| Ok(Carrier { transport: Arc::clone(&transport), upgrader: None });
        let engines = engines(&self.config, &shared, &carrier).unwrap();
        let publisher = Arc::new(Publisher {
            board: Arc::new(Board::default()),
            metrics,
            clock,
            mode: "heal",
            interval: self.config.run.interval,
            order: names,
            latest: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (life, limit, shown) = (Arc::clone(&mortal), self.config.run.shutdown_limit, Arc::clone(&publisher));
        let task = tokio::spawn(async move {
            let stopped = async {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = life.died() => {}
                ended = service::run(engines, shown, lease, None, limit, stopped) => ended.unwrap(),
            }
            // Whoever still computes for it is dead too.
            life.kill();
        });
        self.medics.push(Medic { name, mortal, task, stop: Some(stop), publisher });
    }

    fn look(&mut self) {
        let calm = self.now() > self.disturbed_until && self.medics.iter().any(|medic| !medic.mortal.is_dead());
        let journal = (self.scene.journal)();
        self.scene.hub.with(|world, now| {
            self.scene.truth.lock().unwrap().look(world, &journal, calm, LOOK, now);
        });
    }

    /// The last storm is over: everything answers, and a medic is there.
    fn clear(&mut self) {
        self.tell("everything is calm from here on");
        self.agenda.retain(|_, events| {
            events.retain(|event| matches!(event, Event::Start | Event::PersonEnables(_)));
            !events.is_empty()
        });
        self.disk_full.store(false, Ordering::SeqCst);
        *self.scene.climate.lock().unwrap() = Climate::CALM;
        self.scene.hub.with(|world, now| {
            world.github.clear_faults();
            let (garm, github) = world.garm_mut(0).unwrap();
            garm.clear_faults();
            let forges: Vec<_> = garm.scale_sets().map(|(_, _, forge)| forge).collect();
            for forge in forges {
                github.foreign_owner_leaves(forge, now);
            }
        });
        for medic in &self.medics {
            medic.mortal.doom(Doom::Before(u32::MAX / 4));
        }
        self.disturb(Span::mins(1));
    }

    /// In the end nothing is left behind, and who can be healed is.
    fn rest(&mut self) {
        let shown: Vec<ManagerStatus> = self
            .medics
            .iter()
            .flat_map(|medic| medic.publisher.latest.lock().unwrap().values().cloned().collect::<Vec<_>>())
            .collect();
        self.scene.hub.with(|world, now| {
            let mut truth = self.scene.truth.lock().unwrap();
            truth.rest(world, now);
            for set in truth.wanted(world) {
                let garm = world.garm(0).unwrap();
                let (_, _, forge) = garm.scale_sets().find(|(id, _, _)| *id == set).unwrap();
                let listens = world.github.holder(forge).is_some_and(|holder| garm.holds(&holder.session));
                let of_set = shown.iter().flat_map(|status| &status.sets).find(|shown| shown.finding.set == set);
                let budgeted = of_set.is_some_and(|shown| is_budgeted(&shown.decision));
                if !listens && !budgeted {
                    let seen = of_set.map(|shown| format!("{:?} {:?}", shown.finding, shown.decision));
                    let what = format!("set {set} does not listen (its worker: {:?}); {seen:?}", garm.worker(set));
                    truth.violations.push(Violation { at: now, invariant: "liveness", what });
                }
            }
        });
        for medic in &self.medics {
            let text = String::from_utf8(medic.publisher.metrics.text().unwrap()).unwrap();
            let status = serde_json::to_string(&*medic.publisher.latest.lock().unwrap()).unwrap();
            let secrets = [MEDIC_TOKEN, self.day.given.fleet.managers[0].password.as_str()];
            if secrets.iter().any(|secret| text.contains(secret) || status.contains(secret)) {
                let what = "a secret is shown".to_owned();
                self.scene.truth.lock().unwrap().violations.push(Violation { at: self.now(), invariant: "I9", what });
            }
        }
    }
}

/// Whether a limit says that it was treated often enough for a day.
fn is_budgeted(decision: &Decision) -> bool {
    matches!(decision, Decision::Withhold { guards, .. } if guards.iter().any(|held|
        matches!(held.guard, Guard::SetBudget | Guard::Backoff | Guard::GlobalBudget | Guard::Breaker)))
}
