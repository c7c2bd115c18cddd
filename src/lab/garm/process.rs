#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! One run of the process: its workers and listeners (`reference/garm-api.md` §11).
//!
//! Pre-fix: the *first* start of a worker opens its session in line; any error drops the worker for good, until an
//! update event of the set makes a new one. Both builds: a worker that exists looks every 2 s whether it should listen,
//! and then tries for ever. A session that has vanished under its listener is deleted by it; a 404 to that kills the
//! process.

use super::calls::{Caller, Reply, Session, error, poll_error, poll_url};
use super::config::LogLevel::{Debug, Error, Info, Warn};
use super::config::{GarmConfig, LogLevel};
use super::counters::Counters;
use super::db::{Db, ENDPOINT, SetRow, later};
use super::log::{Attributes, Log};
use super::runners::{job_message, provided};
use crate::lab::forge::Forge;
use crate::model::{Span, Wall};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How often the quota is asked for.
const PULSE: Span = Span::secs(30);

/// What a running process does next, and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Starts its workers.
    Boot,
    /// A worker whose start failed is started again.
    Start(u64),
    /// The start of a worker ends.
    Started(u64, Operation),
    /// An update event of a set arrives: with this `enabled`.
    Updated(u64, bool),
    /// A worker looks whether it should listen.
    Look(u64),
    /// A held poll is asked again.
    Poll(u64, u64),
    /// Session tokens are looked at.
    Refresh(u64, String),
    /// Runners are brought to their number.
    Scale(u64),
    /// The quota of its credentials is asked for.
    Pulse,
    /// The provider is done with an instance.
    Provided(String),
}

/// Why a worker starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Create,
    Update,
}

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Inside its start: events are missed. Starts before this one failed so often.
    Starting(u32),
    /// Its start failed, so often by now, and is to be tried again.
    Failed(u32),
    /// It is there.
    Running,
}

/// One worker.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// As it last heard: an event that it missed leaves it wrong.
    pub enabled: bool,
    pub phase: Phase,
    pub listener: Option<Listening>,
    /// Successive failures of a listener that had run.
    pub failures: u32,
    /// Its last wait after such a failure, in milliseconds; 0: none yet.
    pub backoff: u64,
    /// Hangs in a request that is never answered, with its locks held.
    pub hangs: bool,
    pub last_success: Option<Wall>,
    pub restarts: u64,
    /// Runners that it has and wants, as last logged.
    pub said_runners: Option<(u64, u64)>,
}

/// A listener.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub session: Session,
    /// The number of its present poll.
    pub poll: u64,
    pub opened: Wall,
}

/// A run of the process.
#[derive(Debug)]
pub(super) struct Process {
    pub started: Wall,
    pub workers: BTreeMap<u64, Worker>,
    pub counters: Counters,
    pub agenda: BTreeSet<(Wall, u64, Task)>,
    /// Whether workers were started; events that come before are missed.
    booted: bool,
    serial: u64,
}

impl Worker {
    const fn new(enabled: bool, phase: Phase) -> Self {
        Self {
            enabled,
            phase,
            listener: None,
            failures: 0,
            backoff: 0,
            hangs: false,
            last_success: None,
            restarts: 0,
            said_runners: None,
        }
    }
}

/// How often a newer build's controller looks for workers that do not run.
const CONTROLLER_LOOKS: Span = Span::secs(5);

/// Whether a poll is to be cancelled when a listener stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polling {
    /// It is: its cancellation counts as an error.
    InFlight,
    /// Its failure is why the listener stops.
    Ended,
}

/// The process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Died;

/// What a step of the process works with.
pub(super) struct Step<'a> {
    pub config: &'a GarmConfig,
    pub db: &'a mut Db,
    pub log: &'a mut Log,
    pub forge: &'a mut dyn Forge,
    pub events: &'a mut Vec<Value>,
    pub now: Wall,
}

impl Step<'_> {
    #[expect(clippy::needless_pass_by_value, reason = "attributes are made for one line")]
    pub(super) fn say(&mut self, level: LogLevel, msg: &str, attributes: Attributes) {
        self.log.write(self.config, self.now, level, msg, &attributes);
    }
    pub(super) fn caller(&mut self) -> Caller<'_> {
        Caller { config: self.config, forge: &mut *self.forge, now: self.now }
    }
    fn changed(&mut self, set: u64) {
        if let Some(row) = self.db.sets.get_mut(&set) {
            row.updated = later(row.updated, self.now);
            let payload = self.db.whole(set, self.config);
            self.events.push(json!({"entity-type": "scaleset", "operation": "update", "payload": payload}));
        }
    }
}

pub(super) fn of_worker(set: &SetRow) -> Attributes {
    vec![("worker", json!(set.worker())), ("entity", json!(set.entity.name)), ("endpoint", json!(ENDPOINT))]
}

pub(super) fn of_listener(set: &SetRow) -> Attributes {
    let mut attributes = vec![("sub_worker", json!("scaleset-listener"))];
    attributes.extend(of_worker(set));
    attributes
}

fn of_controller(set: &SetRow) -> Attributes {
    vec![("worker", json!(set.controller())), ("entity", json!(set.entity.name)), ("endpoint", json!(ENDPOINT))]
}

pub(super) fn with(mut first: Attributes, rest: Attributes) -> Attributes {
    first.extend(rest);
    first
}

impl Process {
    pub(super) fn start(step: &mut Step<'_>) -> Self {
        let mut process = Self {
            started: step.now,
            workers: BTreeMap::new(),
            counters: Counters::default(),
            agenda: BTreeSet::new(),
            booted: false,
            serial: 0,
        };
        let url = json!("URL cannot be empty");
        step.say(
            Warn,
            "failed to infer agent URL; please update controller info with proper URL",
            vec![("error", url)],
        );
        step.say(Info, "Loading provider", vec![("provider", json!("stub"))]);
        for consumer in ["cache", "garm-tools-sync", "entity-controller", "provider-worker"] {
            let attributes = vec![("consumer_id", json!(consumer)), ("watcher", json!("database"))];
            step.say(Info, "starting consumer", attributes);
        }
        step.say(Info, "setting up metric routes", vec![]);
        step.say(Info, "register metrics", vec![]);
        step.say(Info, "start metrics collection", vec![]);
        process.at(step.now.plus(step.config.boot), Task::Boot);
        process.at(step.now.plus(PULSE), Task::Pulse);
        process
    }

    pub(super) fn at(&mut self, when: Wall, task: Task) {
        self.serial = self.serial.saturating_add(1);
        self.agenda.insert((when, self.serial, task));
    }

    /// A worker looks again after this, unless it is to look at some time already: a worker has one such loop.
    fn look_after(&mut self, set: u64, wait: Span, now: Wall) {
        if !self.agenda.iter().any(|(_, _, task)| *task == Task::Look(set)) {
            self.at(now.plus(wait), Task::Look(set));
        }
    }

    /// A held poll is asked again now, instead of at its end.
    pub(super) fn poll_now(&mut self, set: u64, poll: u64, now: Wall) {
        self.agenda.retain(|(_, _, task)| *task != Task::Poll(set, poll));
        self.at(now, Task::Poll(set, poll));
    }

    pub(super) fn run(&mut self, task: Task, step: &mut Step<'_>) -> Result<(), Died> {
        match task {
            Task::Boot => {
                self.booted = true;
                for set in step.db.sets.keys().copied().collect::<Vec<_>>() {
                    self.start_worker(set, Operation::Create, step);
                }
                Ok(())
            }
            Task::Start(set) => {
                self.start_worker(set, Operation::Create, step);
                Ok(())
            }
            Task::Started(set, operation) => {
                self.worker_started(set, operation, step);
                Ok(())
            }
            Task::Updated(set, enabled) => self.updated(set, enabled, step),
            Task::Look(set) => {
                self.look(set, step);
                Ok(())
            }
            Task::Poll(set, poll) => self.poll(set, poll, step),
            Task::Refresh(set, session) => {
                self.refresh(set, &session, step);
                Ok(())
            }
            Task::Scale(set) => {
                self.scale(set, step);
                Ok(())
            }
            Task::Pulse => {
                self.pulse(step);
                Ok(())
            }
            Task::Provided(name) => {
                provided(&name, step);
                Ok(())
            }
        }
    }

    fn start_worker(&mut self, set: u64, operation: Operation, step: &mut Step<'_>) {
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        if step.config.generation.retries() {
            let attributes = with(vec![("scale_set_id", json!(set))], of_controller(&row));
            step.say(Info, "retrying failed scale set", attributes);
        }
        let scale_set = vec![("scale_set", json!(row.worker()))];
        step.say(Debug, "starting scale set worker", with(scale_set, of_worker(&row)));
        let failed = match self.workers.get(&set).map(|worker| worker.phase) {
            Some(Phase::Failed(failed) | Phase::Starting(failed)) => failed,
            Some(Phase::Running) | None => 0,
        };
        self.workers.insert(set, Worker::new(row.enabled, Phase::Starting(failed)));
        self.at(step.now.plus(step.config.worker_start), Task::Started(set, operation));
    }

    fn worker_started(&mut self, set: u64, operation: Operation, step: &mut Step<'_>) {
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        let Some(enabled) = self.workers.get(&set).map(|worker| worker.enabled) else { return };
        if let Err(words) = self.ensure_created(&row, step) {
            self.first_start_failed(&row, operation, &words, step);
            return;
        }
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        step.say(Debug, "creating scale set listener", of_worker(&row));
        if !step.config.generation.retries() {
            if enabled {
                step.say(Debug, "starting scale set listener", of_worker(&row));
                if let Err(words) = self.listen(&row, step) {
                    self.first_start_failed(&row, operation, &format!("error starting listener: {words}"), step);
                    return;
                }
            } else {
                step.say(Info, "scale set is disabled; not starting listener", of_worker(&row));
            }
        }
        let scale_set = vec![("scale_set", json!(row.worker()))];
        step.say(Debug, "starting scale set worker loops", with(scale_set, of_worker(&row)));
        if step.config.generation.retries() {
            let attributes = with(vec![("scale_set_id", json!(set))], of_controller(&row));
            step.say(Info, "scale set worker successfully started after retry", attributes);
        }
        let attributes = vec![("consumer_id", json!(row.worker())), ("watcher", json!("database"))];
        step.say(Info, "starting consumer", attributes);
        let Some(worker) = self.workers.get_mut(&set) else { return };
        worker.phase = Phase::Running;
        let idle = worker.listener.is_none();
        if idle {
            let first = if step.config.generation.retries() { Span::ZERO } else { step.config.retry };
            self.at(step.now.plus(first), Task::Look(set));
        }
        self.agenda.retain(|(_, _, task)| *task != Task::Scale(set));
        self.at(step.now.plus(Span::secs(5)), Task::Scale(set));
    }

    /// At a worker's start GitHub is asked for the set; one that is gone is created anew.
    fn ensure_created(&mut self, row: &SetRow, step: &mut Step<'_>) -> Result<(), String> {
        let service = self.service(row, step)?;
        self.counters.begin("GetRunnerScaleSetByNameAndRunnerGroup", row.entity.kind);
        match step.caller().knows(row, &service) {
            Reply::Got(200, _) => Ok(()),
            Reply::Got(404, _) => {
                self.counters.begin("CreateRunnerScaleSet", row.entity.kind);
                match step.caller().create_set(row, &service) {
                    Some(id) => {
                        if let Some(set) = step.db.sets.get_mut(&row.id) {
                            (set.forge_id, set.last_message) = (id, 0);
                        }
                        step.changed(row.id);
                        Ok(())
                    }
                    None => Err("error creating scale set".to_owned()),
                }
            }
            reply @ (Reply::Got(..) | Reply::Broken | Reply::Hangs | Reply::Held(_)) => {
                self.counters.fail("GetRunnerScaleSetByNameAndRunnerGroup", row.entity.kind);
                Err(format!("getting scale set: {}", error(&step.config.github_origin, &reply)))
            }
        }
    }

    fn first_start_failed(&mut self, row: &SetRow, operation: Operation, words: &str, step: &mut Step<'_>) {
        let words = format!("error starting scale set worker: {words}");
        let failed = match self.workers.remove(&row.id).map(|worker| worker.phase) {
            Some(Phase::Starting(failed) | Phase::Failed(failed)) => failed,
            Some(Phase::Running) | None => 0,
        };
        if step.config.generation.retries() {
            let attributes = vec![("scale_set_id", json!(row.id)), ("error", json!(words))];
            step.say(Error, "retry failed: starting scale set worker", with(attributes, of_controller(row)));
            let wait = (0..failed.min(20)).fold(10_000_u64, |wait, _| (wait.saturating_mul(3) / 2).min(300_000));
            let phase = Phase::Failed(failed.saturating_add(1));
            self.workers.insert(row.id, Worker::new(row.enabled, phase));
            self.at(step.now.plus(Span::millis(wait)), Task::Start(row.id));
        } else {
            let msg = match operation {
                Operation::Create => "failed to handle scale set create operation",
                Operation::Update => "failed to handle scale set update operation",
            };
            step.say(Error, msg, with(vec![("error", json!(words))], of_controller(row)));
        }
    }

    pub(super) fn service(&mut self, row: &SetRow, step: &mut Step<'_>) -> Result<(String, String), String> {
        let kind = row.entity.kind;
        self.counters.begin("CreateEntityRegistrationToken", kind);
        let service = step.caller().service(row);
        let reached = !matches!(service, Err(("CreateEntityRegistrationToken", _)));
        if reached {
            self.counters.begin("GetActionServiceInfo", kind);
        }
        service.map_err(|(operation, words)| {
            self.counters.fail(operation, kind);
            format!("error getting scale set client: {words}")
        })
    }

    /// `listener.Start`: opens a session and begins to poll.
    fn listen(&mut self, row: &SetRow, step: &mut Step<'_>) -> Result<(), String> {
        let kind = row.entity.kind;
        let attributes = vec![("id", json!(row.id)), ("scale_set_id", json!(row.forge_id))];
        step.say(Debug, "starting scale set listener", with(attributes, of_listener(row)));
        let forge_id = || vec![("scale_set", json!(row.forge_id))];
        step.say(Debug, "creating new message session", with(forge_id(), of_listener(row)));
        self.counters.begin("CreateMessageSession", kind);
        let opened = match self.service(row, step) {
            Ok(service) => step.caller().open(row, &service),
            Err(words) => Err((Reply::Broken, format!("creating message session: {words}"))),
        };
        let session = match opened {
            Ok(session) => session,
            Err((reply, words)) => {
                self.counters.fail("CreateMessageSession", kind);
                if let (Reply::Hangs, Some(worker)) = (&reply, self.workers.get_mut(&row.id)) {
                    worker.hangs = true;
                }
                return Err(words);
            }
        };
        let id = json!(session.id);
        let attributes = vec![("session_id", id.clone()), ("session_id", id), ("session_listener", json!(row.id))];
        step.say(Debug, "starting message session refresh loop", with(attributes, of_listener(row)));
        step.say(Debug, "starting scale set listener loop", with(forge_id(), of_listener(row)));
        self.serial = self.serial.saturating_add(1);
        let (poll, refreshed) = (self.serial, session.id.clone());
        if let Some(worker) = self.workers.get_mut(&row.id) {
            worker.listener = Some(Listening { session, poll, opened: step.now });
            worker.last_success = worker.last_success.or(Some(step.now));
        }
        self.at(step.now, Task::Poll(row.id, poll));
        self.at(step.now.plus(Span::mins(1)), Task::Refresh(row.id, refreshed));
        self.announce_poll(row.id, step);
        Ok(())
    }

    fn announce_poll(&mut self, set: u64, step: &mut Step<'_>) {
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        let attributes = vec![("last_message_id", json!(row.last_message)), ("max_runners", json!(row.max_runners))];
        step.say(Debug, "getting message", with(attributes, of_listener(&row)));
        self.counters.begin("GetMessage", row.entity.kind);
    }

    /// Every 2 s: a worker that should listen and does not tries.
    fn look(&mut self, set: u64, step: &mut Step<'_>) {
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        let Some(worker) = self.workers.get(&set) else { return };
        if worker.listener.is_some() || worker.phase != Phase::Running || worker.hangs {
            return;
        }
        let failures = worker.failures;
        let mut wait = step.config.retry;
        if worker.enabled {
            if let Err(words) = self.listen(&row, step) {
                if failures == 0 {
                    let attributes = vec![("error", json!(words)), ("consumer_id", json!(row.worker()))];
                    step.say(Error, "error starting listener", with(attributes, of_worker(&row)));
                } else {
                    wait = self.restart_failed(&row, failures, &words, step);
                }
            } else if let Some(worker) = self.workers.get_mut(&set) {
                if failures > 0 {
                    worker.restarts = worker.restarts.saturating_add(1);
                }
                worker.failures = 0;
                if step.config.generation.retries() {
                    worker.backoff = 0;
                }
                return;
            }
        } else if let Some(worker) = self.workers.get_mut(&set) {
            // Disabled over a wake-up: the listener counts as one that never ran.
            worker.failures = 0;
        }
        self.at(step.now.plus(wait), Task::Look(set));
    }

    /// A listener that had run waits longer each time. The older build says each failure twice, tests its bound before it
    /// multiplies, and never begins anew (`reference/garm-api.md` §11.1, §11.2).
    fn restart_failed(&mut self, row: &SetRow, failures: u32, words: &str, step: &mut Step<'_>) -> Span {
        let before = self.workers.get(&row.id).map_or(0, |worker| worker.backoff);
        let longer = before.saturating_mul(3) / 2;
        let wait = match (before, step.config.generation.retries()) {
            (0, _) => 5_000,
            (before, false) if before > 60_000 => 60_000,
            (_, false) => longer,
            (_, true) => longer.min(60_000),
        };
        let backoff = json!(wait.saturating_mul(1_000_000));
        if !step.config.generation.retries() {
            let attributes = with(vec![("error", json!(words))], of_worker(row));
            step.say(Error, "error restarting listener", attributes);
        }
        if failures == 1 {
            let attributes = with(vec![("backoff", backoff.clone())], of_worker(row));
            step.say(Info, "backing off restart attempt", attributes);
        }
        let attributes = vec![("error", json!(words)), ("backoff", backoff)];
        step.say(Error, "error restarting listener", with(attributes, of_worker(row)));
        if let Some(worker) = self.workers.get_mut(&row.id) {
            worker.failures = worker.failures.saturating_add(1);
            worker.backoff = wait;
        }
        Span::millis(wait)
    }

    /// An update event arrives.
    fn updated(&mut self, set: u64, enabled: bool, step: &mut Step<'_>) -> Result<(), Died> {
        let Some(row) = step.db.sets.get(&set).cloned().filter(|_| self.booted) else { return Ok(()) };
        let attributes = vec![("scale_set_id", json!(set)), ("scale_set_name", json!(row.name))];
        step.say(Debug, "got update operation for scale set", with(attributes, of_controller(&row)));
        match self.workers.get_mut(&set) {
            None => {
                self.start_worker(set, Operation::Update, step);
                Ok(())
            }
            // It is inside its start, or hangs, and does not hear.
            Some(worker) if matches!(worker.phase, Phase::Starting(_)) || worker.hangs => Ok(()),
            // A new one, without a past, is started at the controller's next look.
            Some(worker) if worker.phase != Phase::Running => {
                *worker = Worker::new(enabled, Phase::Failed(0));
                self.agenda.retain(|(_, _, task)| *task != Task::Start(set));
                self.at(step.now.plus(CONTROLLER_LOOKS), Task::Start(set));
                Ok(())
            }
            Some(worker) => {
                let was = std::mem::replace(&mut worker.enabled, enabled);
                let listened = worker.listener.is_some();
                step.say(Debug, "got update operation", of_worker(&row));
                if was && !enabled {
                    self.stop_listening(set, Polling::InFlight, step)?;
                    if listened {
                        step.say(Debug, "listener is stopped; attempting to restart", of_worker(&row));
                    }
                    self.look_after(set, step.config.retry, step.now);
                }
                Ok(())
            }
        }
    }

    /// A worker that only waits says that it is stopped.
    pub(super) fn say_stopped(&self, set: u64, step: &mut Step<'_>) {
        let waits = self.workers.get(&set).is_some_and(|w| w.listener.is_none() && w.phase == Phase::Running);
        if let Some(row) = step.db.sets.get(&set).filter(|_| waits).cloned() {
            step.say(Info, "worker is stopped; exiting keepListenerAlive", of_worker(&row));
        }
    }

    /// `listener.Stop`: deletes the session and cancels the poll.
    pub(super) fn stop_listening(&mut self, set: u64, polling: Polling, step: &mut Step<'_>) -> Result<(), Died> {
        let Some(row) = step.db.sets.get(&set).cloned() else { return Ok(()) };
        let Some(listening) = self.workers.get_mut(&set).and_then(|worker| worker.listener.take()) else {
            return Ok(());
        };
        let kind = row.entity.kind;
        step.say(Debug, "closing message session", with(vec![("scale_set", json!(row.forge_id))], of_listener(&row)));
        let id = json!(listening.session.id);
        let attributes = vec![("session_id", id), ("session_listener", json!(row.id))];
        step.say(Debug, "message session refresh loop done", with(attributes, of_listener(&row)));
        step.say(Debug, "stopping scale set listener", of_listener(&row));
        self.counters.begin("DeleteMessageSession", kind);
        let reply = match self.service(&row, step) {
            Ok(service) => step.caller().on_session(&Method::DELETE, &row, &listening.session, &service),
            Err(_) => Reply::Broken,
        };
        match &reply {
            Reply::Got(204, _) => {}
            Reply::Got(404, _) => {
                // The process dies with the listener's poll: let it be hung up with all others.
                if let Some(worker) = self.workers.get_mut(&set) {
                    worker.listener = Some(listening);
                }
                return Err(Died);
            }
            Reply::Hangs => {
                if let Some(worker) = self.workers.get_mut(&set) {
                    worker.hangs = true;
                }
            }
            Reply::Got(..) | Reply::Broken | Reply::Held(_) => {
                self.counters.fail("DeleteMessageSession", kind);
                let words = error(&step.config.github_origin, &reply);
                step.say(
                    Error,
                    "error deleting message session",
                    with(vec![("error", json!(words))], of_listener(&row)),
                );
            }
        }
        if polling == Polling::InFlight {
            step.caller().hang_up(&listening.session, row.last_message, listening.poll);
            self.counters.fail("GetMessage", kind);
        }
        Ok(())
    }

    /// Asks for messages, or asks again for a held poll.
    pub(super) fn poll(&mut self, set: u64, poll: u64, step: &mut Step<'_>) -> Result<(), Died> {
        let Some(row) = step.db.sets.get(&set).cloned() else { return Ok(()) };
        let Some(worker) = self.workers.get(&set) else { return Ok(()) };
        let Some(listening) = worker.listener.clone().filter(|listening| listening.poll == poll) else { return Ok(()) };
        let reply = step.caller().poll(&listening.session, row.last_message, row.max_runners, poll);
        match reply {
            Reply::Held(until) => {
                self.at(until, Task::Poll(set, poll));
                Ok(())
            }
            Reply::Hangs => Ok(()),
            Reply::Got(202, _) => {
                step.say(Debug, "no messages available in queue", of_listener(&row));
                self.next_poll(set, Span::ZERO, step);
                Ok(())
            }
            Reply::Got(200, ref body) if !body.is_empty() => self.message(set, &listening.session, body, step),
            Reply::Got(..) | Reply::Broken => self.poll_failed(&row, &listening, &reply, step),
        }
    }

    fn next_poll(&mut self, set: u64, wait: Span, step: &mut Step<'_>) {
        self.serial = self.serial.saturating_add(1);
        let poll = self.serial;
        if let Some(worker) = self.workers.get_mut(&set) {
            worker.last_success = Some(step.now);
            if let Some(listening) = &mut worker.listener {
                listening.poll = poll;
            }
        }
        self.announce_poll(set, step);
        self.at(step.now.plus(wait), Task::Poll(set, poll));
    }

    /// A poll that fails at once makes an endless loop: open, poll, delete. One round takes a quarter of a second.
    fn poll_failed(
        &mut self,
        row: &SetRow,
        listening: &Listening,
        reply: &Reply,
        step: &mut Step<'_>,
    ) -> Result<(), Died> {
        self.counters.fail("GetMessage", row.entity.kind);
        let url = poll_url(&listening.session, row.last_message);
        let words = format!("request to {url} failed: {}", poll_error(&url, reply));
        step.say(Error, "getting message", with(vec![("error", json!(words))], of_listener(row)));
        let stopped = self.stop_listening(row.id, Polling::Ended, step);
        // The worker notices while the listener still deletes its session; a newer build's panic is quicker.
        if stopped.is_ok() || !step.config.generation.retries() {
            step.say(Debug, "listener is stopped; attempting to restart", of_worker(row));
        }
        stopped?;
        if let Some(worker) = self.workers.get_mut(&row.id) {
            worker.failures = 1;
        }
        self.look_after(row.id, Span::millis(250), step.now);
        Ok(())
    }

    /// Handles a message: two updates of the set, then the acknowledgement.
    fn message(&mut self, set: u64, session: &Session, body: &[u8], step: &mut Step<'_>) -> Result<(), Died> {
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(row) = step.db.sets.get(&set).cloned() else { return Ok(()) };
        let id = message.get("messageId").and_then(Value::as_u64).unwrap_or_default();
        step.say(Debug, "handling message", with(vec![("message_id", json!(id))], of_listener(&row)));
        // GARM does not expect a message without statistics.
        let Some(assigned) = message.pointer("/statistics/totalAssignedJobs").and_then(Value::as_u64) else {
            return Err(Died);
        };
        let jobs: Vec<Value> =
            message.get("body").and_then(Value::as_str).and_then(|b| serde_json::from_str(b).ok()).unwrap_or_default();
        for job in &jobs {
            job_message(&row, job, step);
        }
        if let Some(row) = step.db.sets.get_mut(&set) {
            (row.last_message, row.desired) = (id, assigned);
        }
        step.changed(set);
        step.changed(set);
        self.counters.begin("DeleteMessage", row.entity.kind);
        if !matches!(step.caller().acknowledge(session, id), Reply::Got(200 | 204, _)) {
            self.counters.fail("DeleteMessage", row.entity.kind);
        }
        self.next_poll(set, Span::millis(10), step);
        Ok(())
    }

    /// Every 30 s each entity's client asks for its quota; only failures are counted.
    fn pulse(&mut self, step: &mut Step<'_>) {
        let entities: Vec<_> = step.db.entities.values().map(|(entity, _)| entity.kind).collect();
        for kind in entities {
            if !matches!(step.caller().rate_limit(), Reply::Got(200, _)) {
                self.counters.fail("GetRateLimit", kind);
            }
        }
        self.at(step.now.plus(PULSE), Task::Pulse);
    }

    /// Each minute; a token close to its end is renewed.
    fn refresh(&mut self, set: u64, session: &str, step: &mut Step<'_>) {
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        let listening = self.workers.get(&set).and_then(|worker| worker.listener.clone());
        let Some(listening) = listening.filter(|listening| listening.session.id == session) else { return };
        let id = json!(listening.session.id);
        let attributes = || with(vec![("session_id", id.clone()), ("session_listener", json!(set))], of_listener(&row));
        step.say(Debug, "checking if message session token needs refresh", attributes());
        if step.now.since(listening.opened) >= Span::mins(50) {
            step.say(Debug, "refreshing message session token", attributes());
            self.counters.begin("RefreshMessageSession", row.entity.kind);
            let reply = match self.service(&row, step) {
                Ok(service) => step.caller().on_session(&Method::PATCH, &row, &listening.session, &service),
                Err(_) => Reply::Broken,
            };
            let token = match &reply {
                Reply::Got(200, body) => serde_json::from_slice::<Value>(body)
                    .ok()
                    .and_then(|body| Some(body.get("messageQueueAccessToken")?.as_str()?.to_owned())),
                Reply::Got(..) | Reply::Broken | Reply::Hangs | Reply::Held(_) => None,
            };
            let listener = self.workers.get_mut(&set).and_then(|worker| worker.listener.as_mut());
            if let (Some(token), Some(listening)) = (token, listener) {
                listening.session.token = token;
                listening.opened = step.now;
                step.say(Debug, "refreshed message session token", attributes());
            } else {
                self.counters.fail("RefreshMessageSession", row.entity.kind);
                let words = error(&step.config.github_origin, &reply);
                let attributes = with(vec![("error", json!(words))], attributes());
                step.say(Error, "failed to refresh message queue token", attributes);
            }
        }
        self.at(step.now.plus(Span::mins(1)), Task::Refresh(set, session.to_owned()));
    }
}
