//! One simulated period: it applies events at their dates, keeps a medic running, and checks.

use super::broken::Broken;
use super::context::{Context, rng};
use super::events::Event;
use super::invariants::{Invariants, Violation};
use super::log::LogSearch;
use super::network::{Network, NetworkFaults};
use super::plan::{Plan, Script, pick};
use super::process::{Disk, Process, ProcessClock};
use crate::bench::{self, START};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{Decision, Escalation, Guard, ScaleSetId, Span, Wall};
use medic_core::ports::write::Journal as _;
use medic_http::Transport;
use medic_lab::backend::ServerId;
use medic_lab::hub::{Hub, Pump};
use medic_store::Store;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use scaleset_medic::config::Config;
use scaleset_medic::engine::service::Publisher;
use scaleset_medic::status::{ManagerStatus, SetStatus, ShownDecision};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Between two checks during disturbances. Every step is followed by a check, too.
const CHECK_EVERY: Span = Span::secs(10);
/// The same in calm times.
const CALM_CHECK_EVERY: Span = Span::mins(5);
/// Between two searches for secrets during disturbances.
const READ_EVERY: Span = Span::mins(2);
/// A delay up to this long after a disturbance is no violation: a dead medic's lease, a back-off, a sweep.
pub(super) const GRACE: Span = Span::secs(100);
/// The calm end, in which everything must be healed.
const REST: Span = Span::mins(150);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) world: String,
    pub(crate) timeline: Vec<String>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) minutes: u64,
    pub(crate) requests: u64,
    pub(crate) writes: u64,
    pub(crate) ended: u64,
    /// By kind.
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) checks: u64,
    /// Steps of the first medic until the end of a single recovery.
    pub(crate) steps: u32,
}

pub(super) struct Medic {
    pub(super) number: u64,
    pub(super) process: Arc<Process>,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    publisher: Arc<Publisher>,
}

impl Medic {
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

pub(super) struct Simulation {
    pub(super) plan: Plan,
    pub(super) dice: SmallRng,
    dir: tempfile::TempDir,
    pub(super) config: Config,
    pub(super) context: Arc<Context>,
    /// As the command line opens it.
    pub(super) store: Store,
    log: LogSearch,
    pub(super) medics: Vec<Medic>,
    /// When medics are restarted.
    returns: Vec<Wall>,
    agenda: BTreeMap<Wall, Vec<Event>>,
    /// When an operator last changed a set.
    pub(super) touched: BTreeMap<ScaleSetId, Wall>,
    pub(super) added: u32,
    read: Wall,
    started: u64,
    ended: u64,
    steps: u32,
    events: BTreeMap<&'static str, u64>,
    timeline: Vec<(Wall, String)>,
    _pump: Pump,
}

impl Simulation {
    pub(super) fn new(plan: Plan, log: LogSearch) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let hub = Hub::new(bench::started(&plan.given.fleet, START), Arc::clone(&clock));
        let shared_memory = Path::new("/dev/shm");
        let dir =
            if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() }.unwrap();
        hub.log_to_file(ServerId::Manager(0), &dir.path().join("garm.log")).unwrap();
        let mut config = plan.given.config(dir.path());
        plan.broken.limits(&mut config.policy);
        let store = Store::open(&config.run.state_dir).unwrap();
        let journal = store.for_manager(&config.managers[0].name);
        let dice = rng(plan.seed ^ 0x5EED);
        let context = Arc::new(Context {
            hub: Arc::clone(&hub),
            clock,
            invariants: Mutex::new(Invariants::new(plan.given.fleet.github.stale_lifetime)),
            faults: Mutex::default(),
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
            in_use: Mutex::default(),
            just_disabled: Mutex::default(),
            wake: tokio::sync::Notify::new(),
        });
        Self {
            _pump: Pump::start(&hub),
            plan,
            dice,
            dir,
            config,
            context,
            store,
            log,
            medics: Vec::new(),
            returns: Vec::new(),
            agenda: BTreeMap::new(),
            touched: BTreeMap::new(),
            added: 0,
            read: START,
            started: 0,
            ended: 0,
            steps: 0,
            events: BTreeMap::new(),
            timeline: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Wall {
        self.context.now()
    }

    pub(super) fn note(&mut self, what: &str) {
        self.timeline.push((self.now(), what.to_owned()));
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    pub(super) fn disturb(&mut self, span: Span) {
        let until = self.now().plus(span).plus(GRACE);
        let mut disturbed = self.context.disturbed_until.lock().unwrap();
        *disturbed = disturbed.max(until);
    }

    pub(super) async fn simulate(mut self) -> Report {
        let first = self.start_medic();
        let end = START.plus(self.plan.length);
        let storms_end = end.minus(REST.min(Span::millis(self.plan.length.as_millis() / 4)));
        self.prepare(storms_end);
        let mut cleared = false;
        while self.now() < end {
            self.apply_due_events();
            if self.steps == 0 && matches!(self.plan.script, Script::Point { .. }) && self.has_recovered() {
                self.steps = first.as_ref().map_or(0, |first| first.steps());
            }
            if !cleared && self.now() >= storms_end {
                cleared = true;
                self.clear();
            }
            self.context.step();
            self.search_for_secrets(false);
            let next = self.agenda.keys().next().copied().unwrap_or(end).min(end);
            let check = if self.is_busy() { CHECK_EVERY } else { CALM_CHECK_EVERY };
            let wait = next.since(self.now()).min(check).max(Span::millis(1));
            tokio::select! {
                biased;
                () = self.context.clock.sleep(wait) => {}
                () = self.context.wake.notified() => {}
            }
        }
        self.check_at_end();
        let (violations, checks, writes) = {
            let mut invariants = self.context.invariants.lock().unwrap();
            self.timeline.append(&mut invariants.done);
            (std::mem::take(&mut invariants.violations), invariants.checks, invariants.writes)
        };
        self.timeline.sort_by_key(|(at, _)| *at);
        for medic in self.medics.drain(..) {
            medic.process.kill();
            let _ = medic.task.await;
        }
        drop(self.dir);
        Report {
            seed: self.plan.seed,
            world: format!("{:?}", self.plan.given),
            timeline: self.timeline.into_iter().map(text).collect(),
            violations,
            minutes: self.plan.length.as_millis() / 60_000,
            requests: self.context.requests.load(Ordering::SeqCst),
            writes,
            ended: self.ended,
            events: self.events,
            checks,
            steps: self.steps,
        }
    }

    /// Whether the recovery is complete and no treatment is open.
    fn has_recovered(&self) -> bool {
        let broke = self.events.contains_key(Event::CrashOnce.name());
        let (listening, enabled) = self.context.hub.with(|world, _| world.listening(0));
        broke && self.context.invariants.lock().unwrap().is_quiet() && listening == enabled
    }

    /// Whether to check often.
    fn is_busy(&self) -> bool {
        let disturbed = *self.context.disturbed_until.lock().unwrap() >= self.now();
        disturbed || self.medics.is_empty() || self.context.invariants.lock().unwrap().has_unfinished()
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
                    let how =
                        pick(&mut self.dice, &[Event::MedicKilled, Event::MedicKilledSoon, Event::MedicKilledSoon]);
                    self.at(death, how);
                }
            }
            Script::Point { kill_at } => {
                self.at(START.plus(Span::secs(61)), Event::CrashOnce);
                self.at(START.plus(Span::secs(61)), Event::MedicKilledAt(kill_at));
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

    fn apply_due_events(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if *entry.key() > self.context.now() {
                break;
            }
            for event in entry.remove() {
                self.event(event);
                self.context.step();
            }
        }
        self.operators_react();
        let now = self.now();
        let due = self.returns.extract_if(.., |at| *at <= now).count();
        for _ in 0..due {
            self.start_medic();
        }
        self.remove_ended_medics();
        let down = self.context.hub.with(|world, _| !world.garm(0).unwrap().is_running());
        let starts = self.agenda.values().flatten().any(|event| *event == Event::Start);
        if down && !starts {
            self.disturb(Span::secs(90));
            self.later(1_000..40_000, Event::Start);
        }
    }

    fn remove_ended_medics(&mut self) {
        let dead: Vec<Medic> = self.medics.extract_if(.., |medic| medic.task.is_finished()).collect();
        for medic in dead {
            self.ended += 1;
            self.context.refresh();
            self.context.invariants.lock().unwrap().medic_ended();
            self.context.medics.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &medic.process));
            self.note(&format!("medic {} has ended", medic.number));
            let panicked = (!medic.process.is_dead()).then(|| "it panicked".to_owned());
            if let Some(why) = medic.process.failure().or(panicked) {
                self.context.violated("I8", format!("medic {} ended unexpectedly: {why}", medic.number));
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

    pub(super) fn start_medic(&mut self) -> Option<Arc<Process>> {
        self.started += 1;
        let name = format!("medic {}", self.started);
        let process = Arc::new(Process::default());
        let disk = Arc::new(Disk { context: Arc::clone(&self.context), medic: Arc::clone(&process) });
        let Ok(store) = Store::open_on_faulty_disk(&self.config.run.state_dir, disk) else {
            self.note(&format!("{name} cannot open its store"));
            self.returns.push(self.now().plus(Span::secs(20)));
            return None;
        };
        self.note(&format!("{name} starts"));
        let clock: Arc<dyn Clock> =
            Arc::new(ProcessClock { clock: Arc::clone(&self.context.clock), medic: Arc::clone(&process) });
        let network: Arc<dyn Transport> = Arc::new(Network {
            inner: bench::transport(&self.context.hub),
            context: Arc::clone(&self.context),
            medic: Arc::clone(&process),
        });
        let metrics = bench::metrics(&self.config);
        let service = bench::Service::new(&self.config, &store, &clock, &name, &network, &metrics);
        let publisher = Arc::clone(&service.publisher);
        let (stop, stopped) = oneshot::channel();
        let running = Arc::clone(&process);
        let task = tokio::spawn(async move {
            let stopped = async {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = running.died() => {}
                ended = service.run(stopped) => {
                    if let Err(error) = ended {
                        running.failed(error.to_string());
                    }
                }
            }
            // Its other tasks are dead, too.
            running.kill();
        });
        self.context.medics.lock().unwrap().push(Arc::clone(&process));
        self.medics.push(Medic {
            number: self.started,
            process: Arc::clone(&process),
            task,
            stop: Some(stop),
            publisher,
        });
        Some(process)
    }

    /// The last fault is over: everything answers.
    fn clear(&mut self) {
        self.note("all faults end");
        self.agenda.retain(|_, events| {
            events.retain(|event| matches!(event, Event::Start | Event::OperatorEnables(_)));
            !events.is_empty()
        });
        self.context.disk_full.store(false, Ordering::SeqCst);
        *self.context.faults.lock().unwrap() = NetworkFaults::NONE;
        self.resume();
        self.context.hub.with(|world, now| {
            world.github.clear_faults();
            let (garm, github) = world.garm_mut(0).unwrap();
            garm.clear_faults();
            let github_ids: Vec<_> = garm.scale_sets().map(|(_, _, github_id)| github_id).collect();
            for github_id in github_ids {
                github.foreign_owner_leaves(github_id, now);
            }
        });
        for medic in &self.medics {
            medic.process.keep();
        }
        self.disturb(Span::mins(1));
    }

    /// At the end nothing may be left behind, and all sets that can be healed must listen.
    fn check_at_end(&mut self) {
        self.context.refresh();
        let shown: Vec<ManagerStatus> = self
            .medics
            .iter()
            .flat_map(|medic| medic.publisher.latest.lock().unwrap().values().cloned().collect::<Vec<_>>())
            .collect();
        self.context.hub.with(|world, now| {
            let mut invariants = self.context.invariants.lock().unwrap();
            let github = self.plan.given.github;
            invariants.check_at_end(world, now);
            for set in invariants.wanted(world) {
                let garm = world.garm(0).unwrap();
                let (_, _, github_id) = garm.scale_sets().find(|(id, _, _)| *id == set).unwrap();
                let listens = world.github.holder(github_id).is_some_and(|holder| garm.holds(&holder.session));
                let of_set = shown.iter().flat_map(|status| &status.sets).find(|shown| shown.finding.set == set);
                let known = of_set.is_some_and(|shown| is_budgeted(&shown.decision) || !github && is_escalated(shown));
                if !listens && of_set.is_some_and(is_escalated) {
                    *self.events.entry("escalated").or_default() += 1;
                }
                if !listens && !known {
                    let seen = of_set.map(|shown| format!("{:?} {:?}", shown.finding, shown.decision));
                    let what = format!("set {set} does not listen (its worker: {:?}); {seen:?}", garm.worker(set));
                    invariants.violations.push(Violation { at: now, invariant: "liveness", what });
                }
            }
        });
        self.search_for_secrets(true);
        for file in std::fs::read_dir(&self.config.run.state_dir).unwrap().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let shows = name.starts_with(medic_store::FILE_NAME)
                && self.log.secret_in(&std::fs::read(file.path()).unwrap()).is_some();
            if shows {
                self.context.violated("I9", format!("a secret is in {name}"));
            }
        }
        // A long snapshot is split over pages of the file, so the search above would miss a secret.
        let store = Store::open(&self.config.run.state_dir).unwrap().for_manager(&self.config.managers[0].name);
        for id in store.snapshots(Wall(0)).unwrap() {
            if self.log.secret_in(store.snapshot(id).unwrap().unwrap_or_default().as_bytes()).is_some() {
                self.context.violated("I9", format!("a secret is in snapshot {id}"));
            }
        }
    }

    /// Searches log, status and metrics for secrets.
    fn search_for_secrets(&mut self, all: bool) {
        if let Some(line) = self.log.leaked() {
            self.context.violated("I9", format!("the log shows a secret: {line}"));
        }
        let now = self.now();
        if !all && (now.since(self.read) < READ_EVERY || !self.is_busy()) {
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
            self.context.violated("I9", leak.to_owned());
        }
    }
}

/// Whether the medic escalated. Without GitHub it may not be able to tell which of several sets is dead.
fn is_escalated(shown: &SetStatus) -> bool {
    shown.decision == Decision::Escalate { escalation: Escalation::Unknown }
}

fn text((at, what): (Wall, String)) -> String {
    let at = at.since(START).as_millis();
    format!("{:>9} {what}", format!("{}.{:03}", at / 1000, at % 1000))
}

/// Whether a limit blocks further treatments.
fn is_budgeted(decision: &ShownDecision) -> bool {
    matches!(decision, Decision::Blocked { guards, .. } if guards.iter().any(|block|
        matches!(block.guard, Guard::SetBudget | Guard::Backoff | Guard::ManagerBudget | Guard::Breaker)))
}
