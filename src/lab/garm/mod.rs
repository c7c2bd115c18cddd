#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! GARM, simulated: one controller with its database, which outlives the process, and the process, which can die. A
//! client of the simulated forge. Deterministic: (request, date) → answer, and discrete events in between.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | generations, settings, timings |
//! | `db` | scale sets and instances, and how the API renders them |
//! | `api` | the HTTP side |
//! | `process` | workers and listeners: how they start, give up, retry, poll, stop and crash |
//! | `runners` | jobs and instances |
//! | `calls` | its requests to GitHub |
//! | `counters` | `/metrics` and goroutine dumps |
//! | `log` | log lines, as recorded |
//!
//! Facts are from `reference/garm-api.md` (§14 is the checklist) and the recordings.

mod api;
mod calls;
pub mod config;
mod counters;
mod db;
mod log;
mod process;
mod runners;
#[cfg(test)]
mod tests;

pub use config::{GarmConfig, Generation, LogFormat, LogLevel, Metrics};

use super::forge::Forge;
use super::wire::{Answer, Delivery, Request};
use crate::model::{Entity, ForgeId, ScaleSetId, SessionId, Span, Wall};
use bytes::Bytes;
use db::Db;
use log::Log;
use process::{Died, Polling, Process, Step};
use serde_json::{Value, json};

/// Events kept for a reader that has not asked yet.
const EVENTS_KEPT: usize = 10_000;

/// A PUT, as it was meant and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When.
    pub at: Wall,
    /// Of which set.
    pub set: ScaleSetId,
    /// `enabled` before.
    pub was: bool,
    /// And after.
    pub enabled: bool,
    /// The asker's `User-Agent`.
    pub by: String,
}

/// What becomes of the next PUT's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostPut {
    /// The request takes effect, its answer is lost.
    AfterEffect,
    /// The request never arrives.
    BeforeEffect,
}

/// The truth about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerTruth {
    /// There is none.
    Absent,
    /// It exists, and does not listen.
    Idle,
    /// It exists, should listen, and tries.
    Retrying,
    /// It listens on this session.
    Listening(SessionId),
    /// It hangs in a request that is never answered.
    Hanging,
}

/// A simulated GARM.
#[derive(Debug)]
pub struct GarmState {
    config: GarmConfig,
    db: Db,
    process: Option<Process>,
    log: Log,
    events: Vec<Value>,
    writes: Vec<Write>,
    crashes: u32,
    lost_put: Option<LostPut>,
    hangs_until: Option<Wall>,
    fails: Option<(u16, Wall)>,
}

impl GarmState {
    /// A GARM without scale sets, not running.
    #[must_use]
    pub fn new(config: GarmConfig) -> Self {
        Self {
            config,
            db: Db::default(),
            process: None,
            log: Log::default(),
            events: Vec::new(),
            writes: Vec::new(),
            crashes: 0,
            lost_put: None,
            hangs_until: None,
            fails: None,
        }
    }

    /// Adds an enabled scale set that exists at the forge.
    pub fn add_scale_set(&mut self, entity: &Entity, name: &str, forge_id: ForgeId, now: Wall) -> ScaleSetId {
        ScaleSetId(self.db.add_set(entity, name, forge_id.0, now))
    }

    /// Starts the process, if it does not run.
    pub fn start(&mut self, now: Wall, forge: &mut dyn Forge) {
        if self.process.is_none() {
            let mut step = step(&self.config, &mut self.db, &mut self.log, &mut self.events, forge, now);
            self.process = Some(Process::start(&mut step));
        }
    }

    /// SIGKILL: its connections are gone, its sessions stay behind.
    pub fn kill(&mut self, now: Wall, forge: &mut dyn Forge) {
        let Some(process) = self.process.take() else { return };
        for (set, worker) in &process.workers {
            let (Some(listening), Some(row)) = (&worker.listener, self.db.sets.get(set)) else { continue };
            let mut caller = calls::Caller { config: &self.config, forge: &mut *forge, now };
            caller.hang_up(&listening.session, row.last_message, listening.poll);
        }
    }

    /// SIGTERM: it deletes its sessions on the way out.
    pub fn stop(&mut self, now: Wall, forge: &mut dyn Forge) {
        let Some(mut process) = self.process.take() else { return };
        let mut step = step(&self.config, &mut self.db, &mut self.log, &mut self.events, forge, now);
        for set in process.workers.keys().copied().collect::<Vec<_>>() {
            process.say_stopped(set, &mut step);
            if process.stop_listening(set, Polling::InFlight, &mut step) == Err(Died) {
                self.process = Some(process);
                self.crash(now, forge);
                return;
            }
        }
    }

    /// Whether the process runs.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Answers one request.
    pub fn handle(&mut self, now: Wall, request: &Request, forge: &mut dyn Forge) -> Answer {
        self.advance(now, forge);
        if self.process.is_none() {
            return Answer::empty(503).delivered(Delivery::Refused);
        }
        if self.hangs_until.is_some_and(|until| now < until) {
            return Answer::empty(503).delivered(Delivery::Never);
        }
        if let Some((status, until)) = self.fails
            && now < until
        {
            let body = json!({"error": "Server error", "details": ""});
            return Answer::json(status, &body);
        }
        if request.method() == http::Method::PUT {
            match self.lost_put.take() {
                Some(LostPut::BeforeEffect) => return Answer::empty(503).delivered(Delivery::Never),
                Some(LostPut::AfterEffect) => {
                    drop(self.answer(now, request));
                    return Answer::empty(503).delivered(Delivery::Reset);
                }
                None => {}
            }
        }
        self.answer(now, request)
    }

    /// Lets happen what is due by `now`.
    pub fn advance(&mut self, now: Wall, forge: &mut dyn Forge) {
        loop {
            let Some(process) = &mut self.process else { return };
            if process.agenda.first().is_none_or(|(at, _, _)| *at > now) {
                return;
            }
            let Some((at, _, task)) = process.agenda.pop_first() else { return };
            let mut step = step(&self.config, &mut self.db, &mut self.log, &mut self.events, forge, at);
            if process.run(task, &mut step) == Err(Died) {
                self.crash(at, forge);
            }
            if self.events.len() > EVENTS_KEPT {
                self.events.drain(..EVENTS_KEPT / 2);
            }
        }
    }

    /// The process panics; every session that it held stays behind.
    fn crash(&mut self, now: Wall, forge: &mut dyn Forge) {
        self.crashes = self.crashes.saturating_add(1);
        for line in PANIC {
            self.log.raw(line);
        }
        self.kill(now, forge);
    }

    /// When something happens here without a request.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Wall> {
        self.process.as_ref()?.agenda.first().map(|(at, _, _)| *at)
    }

    /// The forge has news for a held poll of this session.
    pub fn wake(&mut self, session: &SessionId, now: Wall) {
        let Some(process) = &mut self.process else { return };
        let polls = process.workers.iter().filter_map(|(set, worker)| {
            let listening = worker.listener.as_ref()?;
            (listening.session.id == session.as_str()).then_some((*set, listening.poll))
        });
        for (set, poll) in polls.collect::<Vec<_>>() {
            process.poll_now(set, poll, now);
        }
    }

    /// Whether a listener here holds this session.
    #[must_use]
    pub fn holds(&self, session: &SessionId) -> bool {
        let workers = self.process.iter().flat_map(|process| process.workers.values());
        workers.filter_map(|worker| worker.listener.as_ref()).any(|l| l.session.id == session.as_str())
    }

    /// Log lines since the last call, without line ends.
    pub fn take_log(&mut self) -> Vec<Bytes> {
        self.log.take()
    }

    /// Events since the last call, as JSON.
    pub fn take_events(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.events).iter().map(|event| Bytes::from(event.to_string())).collect()
    }
}

/// Decrees, and the truth. No client can do or see any of this.
impl GarmState {
    /// A person enables or disables a set.
    pub fn person_sets_enabled(&mut self, set: ScaleSetId, enabled: bool, now: Wall) {
        let Some(row) = self.db.sets.get_mut(&set.0).filter(|row| row.enabled != enabled) else { return };
        row.enabled = enabled;
        row.updated = db::later(row.updated, now);
        let payload = self.db.whole(set.0, &self.config);
        self.events.push(json!({"entity-type": "scaleset", "operation": "update", "payload": payload}));
        if let Some(process) = &mut self.process {
            process.at(now.plus(Span::millis(5)), process::Task::Updated(set.0, enabled));
        }
    }

    /// What becomes of the next PUT.
    pub fn lose_next_put(&mut self, how: LostPut) {
        self.lost_put = Some(how);
    }

    /// Requests are accepted and never answered until then.
    pub fn hang_until(&mut self, until: Wall) {
        self.hangs_until = Some(until);
    }

    /// Requests are answered with this status until then.
    pub fn fail_until(&mut self, status: u16, until: Wall) {
        self.fails = Some((status, until));
    }

    /// The runners of a set are gone, and wait for a worker to remove them.
    pub fn runners_vanish(&mut self, set: ScaleSetId) {
        for instance in self.db.instances.values_mut().filter(|instance| instance.set == set.0) {
            instance.status = "deleted";
        }
    }

    /// Its controller's id.
    #[must_use]
    pub fn controller_id(&self) -> &str {
        &self.config.controller_id
    }

    /// Every PUT so far.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// How often the process has crashed by itself.
    #[must_use]
    pub const fn crashes(&self) -> u32 {
        self.crashes
    }

    /// Whether the database says enabled.
    #[must_use]
    pub fn is_enabled(&self, set: ScaleSetId) -> bool {
        self.db.sets.get(&set.0).is_some_and(|row| row.enabled)
    }

    /// All sets, with their ids at the forge.
    pub fn scale_sets(&self) -> impl Iterator<Item = (ScaleSetId, &str, ForgeId)> {
        self.db.sets.values().map(|row| (ScaleSetId(row.id), row.name.as_str(), ForgeId(row.forge_id)))
    }

    /// A set's worker.
    #[must_use]
    pub fn worker(&self, set: ScaleSetId) -> WorkerTruth {
        let Some(worker) = self.process.as_ref().and_then(|process| process.workers.get(&set.0)) else {
            return WorkerTruth::Absent;
        };
        match &worker.listener {
            _ if worker.hangs => WorkerTruth::Hanging,
            Some(listening) => WorkerTruth::Listening(SessionId::new(listening.session.id.as_str())),
            None if worker.enabled => WorkerTruth::Retrying,
            None => WorkerTruth::Idle,
        }
    }

    /// Attempts and failures of a GitHub operation in this run of the process.
    #[must_use]
    pub fn operations(&self, operation: &str) -> (u64, u64) {
        self.process.as_ref().map_or((0, 0), |process| process.counters.get(operation))
    }
}

fn step<'a>(
    config: &'a GarmConfig,
    db: &'a mut Db,
    log: &'a mut Log,
    events: &'a mut Vec<Value>,
    forge: &'a mut dyn Forge,
    now: Wall,
) -> Step<'a> {
    Step { config, db, log, forge, events, now }
}

/// As recorded (situation 10).
const PANIC: [&str; 9] = [
    "panic: runtime error: invalid memory address or nil pointer dereference",
    "[signal SIGSEGV: segmentation violation code=0x1 addr=0x40 pc=0xad4930]",
    "",
    "goroutine 79 [running]:",
    "github.com/cloudbase/garm/util/github/scalesets.(*ScaleSetClient).DeleteMessageSession(0x240e9ead7680, {0x11650a0, 0x1ae9700}, 0x240e9eeb64b0)",
    "\t/build/garm/util/github/scalesets/message_sessions.go:329 +0x2b0",
    "github.com/cloudbase/garm/workers/scaleset.(*scaleSetListener).Stop(0x240e9dfd7650)",
    "\t/build/garm/workers/scaleset/scaleset_listener.go:123 +0x318",
    "created by github.com/cloudbase/garm/workers/scaleset.(*scaleSetListener).Start in goroutine 41",
];
