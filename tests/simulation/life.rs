//! A stretch of time being lived: who sees to it that things happen at their dates, and that a medic is there.

use super::broken::Broken;
use super::events::Event;
use super::log::LogWatch;
use super::mortal::{Disk, Doom, Mortal, MortalClock};
use super::plan::{Plan, Script, pick};
use super::scene::{Scene, rng};
use super::truth::{Truth, Violation};
use super::weather::{Climate, Weather};
use crate::bench::{GARM, GITHUB, START, no_chance};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Decision, Escalation, Guard, ManagerName, ScaleSetId, Span, Wall};
use medic_core::ports::write::Journal as _;
use medic_http::Transport;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_inproc::InprocTransport;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::World;
use medic_store::Store;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use scaleset_medic::config::Config;
use scaleset_medic::engine::assemble::{Carrier, Shared, engines};
use scaleset_medic::engine::lease::Lease;
use scaleset_medic::engine::service::{self, Publisher};
use scaleset_medic::metrics::Metrics;
use scaleset_medic::status::{ManagerStatus, SetStatus, ShownDecision};
use scaleset_medic::web::server::Board;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often the whole is looked at while something goes on, besides after every step.
const LOOK: Span = Span::secs(10);
/// The same while nothing does.
const CALM_LOOK: Span = Span::mins(5);
/// How often what is shown is read for secrets while something goes on.
const READ: Span = Span::mins(2);
/// After a disturbance, for so long nobody is blamed for being late: a dead medic's lease, a back-off, a pass.
pub(super) const GRACE: Span = Span::secs(100);
/// Quiet at the end, for all that may still be healed.
const REST: Span = Span::mins(150);

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
    /// What happened, by kind.
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) checks: u64,
    /// Steps of the first medic until a single recovery was over.
    pub(crate) steps: u32,
}

/// A medic that runs.
pub(super) struct Medic {
    pub(super) number: u64,
    pub(super) mortal: Arc<Mortal>,
    task: JoinHandle<()>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    publisher: Arc<Publisher>,
}

pub(super) struct Life {
    pub(super) plan: Plan,
    pub(super) dice: SmallRng,
    dir: tempfile::TempDir,
    pub(super) config: Config,
    pub(super) scene: Arc<Scene>,
    /// Another process' view of the store: that of the command line.
    pub(super) store: Store,
    log: LogWatch,
    pub(super) medics: Vec<Medic>,
    /// Medics that come back, and when.
    returns: Vec<Wall>,
    agenda: BTreeMap<Wall, Vec<Event>>,
    /// When a person last touched a set.
    pub(super) touched: BTreeMap<ScaleSetId, Wall>,
    pub(super) added: u32,
    read: Wall,
    born: u64,
    deaths: u64,
    steps: u32,
    events: BTreeMap<&'static str, u64>,
    story: Vec<(Wall, String)>,
    _pump: Pump,
}

impl Life {
    pub(super) fn begin(plan: Plan, log: LogWatch) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let mut world = World::new(&plan.given.fleet, START);
        world.start(0, START);
        let hub = Hub::new(world, Arc::clone(&clock));
        let shared_memory = Path::new("/dev/shm");
        let dir =
            if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() }.unwrap();
        hub.log_to_file(ServerId::Manager(0), &dir.path().join("garm.log")).unwrap();
        let mut config = plan.given.config(dir.path());
        plan.broken.limits(&mut config.policy);
        let store = Store::open(&config.run.state_dir).unwrap();
        let journal = store.for_manager(&config.managers[0].name);
        let dice = rng(plan.seed ^ 0x5EED);
        let scene = Arc::new(Scene {
            hub: Arc::clone(&hub),
            clock,
            truth: Mutex::new(Truth::new(plan.given.fleet.github.stale_lifetime)),
            climate: Mutex::default(),
            rng: Mutex::new(rng(plan.seed ^ 0xCAFE)),
            broken: plan.broken,
            broken_dates: Mutex::default(),
            requests: 0.into(),
            journal: Box::new(move || journal.unfinished().unwrap()),
            journal_changed: false.into(),
            disk_full: false.into(),
            disk_failed: Mutex::default(),
            down: false.into(),
            medics: Mutex::default(),
            disturbed_until: Mutex::new(START.plus(GRACE)),
            hands_on: Mutex::default(),
            just_disabled: Mutex::default(),
            stirred: tokio::sync::Notify::new(),
        });
        Self {
            _pump: Pump::start(&hub),
            plan,
            dice,
            dir,
            config,
            scene,
            store,
            log,
            medics: Vec::new(),
            returns: Vec::new(),
            agenda: BTreeMap::new(),
            touched: BTreeMap::new(),
            added: 0,
            read: START,
            born: 0,
            deaths: 0,
            steps: 0,
            events: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Wall {
        self.scene.now()
    }

    pub(super) fn tell(&mut self, what: &str) {
        self.story.push((self.now(), what.to_owned()));
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    pub(super) fn disturb(&mut self, span: Span) {
        let until = self.now().plus(span).plus(GRACE);
        let mut disturbed = self.scene.disturbed_until.lock().unwrap();
        *disturbed = disturbed.max(until);
    }

    pub(super) async fn live(mut self) -> Report {
        let first = self.medic_comes();
        let end = START.plus(self.plan.length);
        let storms_end = end.minus(REST.min(Span::millis(self.plan.length.as_millis() / 4)));
        self.prepare(storms_end);
        let mut cleared = false;
        while self.now() < end {
            self.happen();
            if self.steps == 0 && matches!(self.plan.script, Script::Point { .. }) && self.has_recovered() {
                self.steps = first.as_ref().map_or(0, |first| first.steps());
            }
            if !cleared && self.now() >= storms_end {
                cleared = true;
                self.clear();
            }
            self.scene.step();
            self.read_what_is_shown(false);
            let next = self.agenda.keys().next().copied().unwrap_or(end).min(end);
            let look = if self.is_restless() { LOOK } else { CALM_LOOK };
            let wait = next.since(self.now()).min(look).max(Span::millis(1));
            tokio::select! {
                biased;
                () = self.scene.clock.sleep(wait) => {}
                () = self.scene.stirred.notified() => {}
            }
        }
        self.rest();
        let (violations, checks, writes) = {
            let mut truth = self.scene.truth.lock().unwrap();
            self.story.append(&mut truth.acts);
            (std::mem::take(&mut truth.violations), truth.checks, truth.writes)
        };
        self.story.sort_by_key(|(at, _)| *at);
        for medic in self.medics.drain(..) {
            medic.mortal.kill();
            let _ = medic.task.await;
        }
        drop(self.dir);
        Report {
            seed: self.plan.seed,
            world: format!("{:?}", self.plan.given),
            story: self.story.into_iter().map(in_words).collect(),
            violations,
            minutes: self.plan.length.as_millis() / 60_000,
            requests: self.scene.requests.load(Ordering::SeqCst),
            writes,
            deaths: self.deaths,
            events: self.events,
            checks,
            steps: self.steps,
        }
    }

    /// Whether what broke is whole again, and nothing is under way.
    fn has_recovered(&self) -> bool {
        let broke = self.events.contains_key(Event::Break.name());
        let (listening, enabled) = self.scene.hub.with(|world, _| world.listening(0));
        broke && self.scene.truth.lock().unwrap().is_quiet() && listening == enabled
    }

    /// Whether it pays to look closely.
    fn is_restless(&self) -> bool {
        let disturbed = *self.scene.disturbed_until.lock().unwrap() >= self.now();
        disturbed || self.medics.is_empty() || self.scene.truth.lock().unwrap().is_tense()
    }

    pub(super) fn at(&mut self, date: Wall, event: Event) {
        self.agenda.entry(date).or_default().push(event);
    }

    pub(super) fn later(&mut self, millis: std::ops::Range<u64>, event: Event) {
        let date = self.now().plus(Span::millis(self.dice.random_range(millis)));
        self.at(date, event);
    }

    fn prepare(&mut self, end: Wall) {
        match self.plan.script.clone() {
            Script::CrashAndDeath => {
                let crash = START.plus(Span::millis(self.dice.random_range(90_000..150_000)));
                self.at(crash, Event::Crash);
                for _ in 0..self.dice.random_range(1..4) {
                    let death = crash.plus(Span::millis(self.dice.random_range(0..25_000)));
                    let how = pick(&mut self.dice, &[Event::MedicDies, Event::MedicDoomed, Event::MedicDoomed]);
                    self.at(death, how);
                }
            }
            Script::Point { doom } => {
                self.at(START.plus(Span::secs(61)), Event::Break);
                self.at(START.plus(Span::secs(61)), Event::Doomed(doom));
            }
            Script::All { minutes } => {
                let mut at = START.plus(Span::mins(self.dice.random_range(3..30)));
                let last = if self.plan.broken == Broken::Not { end.minus(Span::mins(70)) } else { end };
                while at < last {
                    if self.dice.random_range(0..10) < 7 {
                        self.at(at, Event::Crash);
                    }
                    for _ in 0..self.dice.random_range(0..4) {
                        let date = at.plus(Span::millis(self.dice.random_range(0..150_000)));
                        let event = pick(&mut self.dice, &Event::ANY);
                        self.at(date, event);
                    }
                    at = at.plus(Span::mins(self.dice.random_range(minutes.clone())));
                }
            }
        }
    }

    fn happen(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if *entry.key() > self.scene.now() {
                break;
            }
            for event in entry.remove() {
                self.event(event);
                self.scene.step();
            }
        }
        self.people_react();
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
            self.later(1_000..40_000, Event::Start);
        }
    }

    fn bury(&mut self) {
        let dead: Vec<Medic> = self.medics.extract_if(.., |medic| medic.task.is_finished()).collect();
        for medic in dead {
            self.deaths += 1;
            self.scene.refresh();
            self.scene.truth.lock().unwrap().medic_is_gone();
            self.scene.medics.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &medic.mortal));
            self.tell(&format!("medic {} is gone", medic.number));
            let panicked = (!medic.mortal.is_dead()).then(|| "it panicked".to_owned());
            if let Some(why) = medic.mortal.fell().or(panicked) {
                self.scene.violated("I8", format!("medic {} ended by itself: {why}", medic.number));
            }
            let back = Span::millis(self.dice.random_range(500..90_000));
            self.disturb(back);
            if self.medics.is_empty() && self.returns.is_empty() {
                self.returns.push(self.now().plus(back));
                self.at(self.now().plus(back), Event::Nothing);
            }
        }
    }

    pub(super) fn with_medic(&mut self, act: impl FnOnce(&mut Medic, &mut SmallRng)) {
        if self.medics.is_empty() {
            return;
        }
        let n = self.dice.random_range(0..self.medics.len());
        act(&mut self.medics[n], &mut self.dice);
    }

    pub(super) fn medic_comes(&mut self) -> Option<Arc<Mortal>> {
        self.born += 1;
        let name = format!("medic {}", self.born);
        let mortal = Arc::new(Mortal::default());
        let disk = Arc::new(Disk { scene: Arc::clone(&self.scene), medic: Arc::clone(&mortal) });
        let Ok(store) = Store::open_on_faulty_disk(&self.config.run.state_dir, disk) else {
            self.tell(&format!("{name} cannot open its store"));
            self.returns.push(self.now().plus(Span::secs(20)));
            return None;
        };
        self.tell(&format!("{name} comes"));
        let clock: Arc<dyn Clock> =
            Arc::new(MortalClock { clock: Arc::clone(&self.scene.clock), medic: Arc::clone(&mortal) });
        let names: Vec<ManagerName> = self.config.managers.iter().map(|manager| manager.name.clone()).collect();
        let metrics = Arc::new(Metrics::new(&names, medic_core::policy::Mode::Heal).unwrap());
        let lease = Arc::new(Lease::new(store.clone(), name.clone(), Arc::clone(&clock)));
        let shared = Shared {
            store,
            lease: Arc::clone(&lease),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            runtime: no_chance(),
        };
        let doors = InprocTransport::new(&self.scene.hub).at(GARM, ServerId::Manager(0)).at(GITHUB, ServerId::Github);
        let transport: Arc<dyn Transport> =
            Arc::new(Weather { inner: Arc::new(doors), scene: Arc::clone(&self.scene), medic: Arc::clone(&mortal) });
        let carrier = |_: &_| Ok(Carrier { transport: Arc::clone(&transport), upgrader: None });
        let engines = engines(&self.config, &shared, &carrier).unwrap();
        let publisher = Arc::new(Publisher {
            board: Arc::new(Board::default()),
            metrics,
            clock,
            mode: medic_core::policy::Mode::Heal,
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
                ended = service::run(engines, shown, lease, None, limit, stopped) => {
                    if let Err(error) = ended {
                        life.falls(error.to_string());
                    }
                }
            }
            // Whoever still computes for it is dead too.
            life.kill();
        });
        self.scene.medics.lock().unwrap().push(Arc::clone(&mortal));
        self.medics.push(Medic { number: self.born, mortal: Arc::clone(&mortal), task, stop: Some(stop), publisher });
        Some(mortal)
    }

    /// The last storm is over: everything answers, and a medic is there.
    fn clear(&mut self) {
        self.tell("everything is calm from here on");
        self.agenda.retain(|_, events| {
            events.retain(|event| matches!(event, Event::Start | Event::PersonEnables(_)));
            !events.is_empty()
        });
        self.scene.disk_full.store(false, Ordering::SeqCst);
        *self.scene.climate.lock().unwrap() = Climate::CALM;
        self.resume();
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
            medic.mortal.spare();
        }
        self.disturb(Span::mins(1));
    }

    /// In the end nothing is left behind, and who can be healed is.
    fn rest(&mut self) {
        self.scene.refresh();
        let shown: Vec<ManagerStatus> = self
            .medics
            .iter()
            .flat_map(|medic| medic.publisher.latest.lock().unwrap().values().cloned().collect::<Vec<_>>())
            .collect();
        self.scene.hub.with(|world, now| {
            let mut truth = self.scene.truth.lock().unwrap();
            let github = self.plan.given.github;
            truth.rest(world, now);
            for set in truth.wanted(world) {
                let garm = world.garm(0).unwrap();
                let (_, _, forge) = garm.scale_sets().find(|(id, _, _)| *id == set).unwrap();
                let listens = world.github.holder(forge).is_some_and(|holder| garm.holds(&holder.session));
                let of_set = shown.iter().flat_map(|status| &status.sets).find(|shown| shown.finding.set == set);
                let told = of_set.is_some_and(|shown| is_budgeted(&shown.decision) || !github && is_called_for(shown));
                if !listens && of_set.is_some_and(is_called_for) {
                    *self.events.entry("person called for").or_default() += 1;
                }
                if !listens && !told {
                    let seen = of_set.map(|shown| format!("{:?} {:?}", shown.finding, shown.decision));
                    let what = format!("set {set} does not listen (its worker: {:?}); {seen:?}", garm.worker(set));
                    truth.violations.push(Violation { at: now, invariant: "liveness", what });
                }
            }
        });
        self.read_what_is_shown(true);
        for file in std::fs::read_dir(&self.config.run.state_dir).unwrap().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let shows = name.starts_with(medic_store::FILE_NAME)
                && self.log.secret_in(&std::fs::read(file.path()).unwrap()).is_some();
            if shows {
                self.scene.violated("I9", format!("a secret is in {name}"));
            }
        }
        // A long snapshot is split over pages of the file.
        let store = Store::open(&self.config.run.state_dir).unwrap().for_manager(&self.config.managers[0].name);
        for id in store.snapshots(Wall(0)).unwrap() {
            if self.log.secret_in(store.snapshot(id).unwrap().unwrap_or_default().as_bytes()).is_some() {
                self.scene.violated("I9", format!("a secret is in snapshot {id}"));
            }
        }
    }

    /// Reads the log, the status and the metrics for secrets.
    fn read_what_is_shown(&mut self, all: bool) {
        if let Some(line) = self.log.leaked() {
            self.scene.violated("I9", format!("the log shows a secret: {line}"));
        }
        let now = self.now();
        if !all && (now.since(self.read) < READ || !self.is_restless()) {
            return;
        }
        self.read = now;
        let mut leaks = Vec::new();
        for medic in &self.medics {
            let status = serde_json::to_vec(&*medic.publisher.latest.lock().unwrap()).unwrap();
            if self.log.secret_in(&status).is_some() {
                leaks.push("the status shows a secret");
            }
            if all && self.log.secret_in(medic.publisher.metrics.text().unwrap().as_bytes()).is_some() {
                leaks.push("the metrics show a secret");
            }
        }
        for leak in leaks {
            self.scene.violated("I9", leak.to_owned());
        }
    }
}

/// Whether a person has been called for: what a medic without GitHub sees may not tell which of several sets is dead, nor
/// of what.
fn is_called_for(shown: &SetStatus) -> bool {
    shown.decision == Decision::Escalate { escalation: Escalation::Unknown }
}

fn in_words((at, what): (Wall, String)) -> String {
    let at = at.since(START).as_millis();
    format!("{:>9} {what}", format!("{}.{:03}", at / 1000, at % 1000))
}

/// Whether a limit says that it was treated often enough for a day.
fn is_budgeted(decision: &ShownDecision) -> bool {
    matches!(decision, Decision::Blocked { guards, .. } if guards.iter().any(|held|
        matches!(held.guard, Guard::SetBudget | Guard::Backoff | Guard::ManagerBudget | Guard::Breaker)))
}

impl Life {
    /// The first medic's doom, at a step from now.
    pub(super) fn doom_all(&mut self, doom: Doom) {
        for medic in &self.medics {
            medic.mortal.doom(doom);
        }
    }
}
