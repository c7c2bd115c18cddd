#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! GARM, simulated: one controller with its database, which outlives the process, and the process, which can die. It is
//! a client of the simulated GitHub. Deterministic: (request, date) → answer, and discrete events in between.
//!
//! | file | what |
//! |---|---|
//! | [`config`] | builds, configuration, timings |
//! | `db`, `stamp`, `render` | the rows, their dates, and how the API shows them |
//! | `api`, `route`, `token`, `update` | the HTTP side |
//! | `process`, `startup` | one incarnation of the process: its memory, its agenda, its start and end |
//! | `controller`, `worker`, `listener`, `scaler` | how sets are started, kept alive, polled and given runners |
//! | `calls`, `counters` | its requests to GitHub, and what it counts of them |
//! | `env`, `deliver` | changes of the database, and their delivery |
//! | `metrics`, `goroutines`, `log` | what it shows of itself |
//! | `setting` | what a scenario or a test sets, and the true state that a test reads |
//!
//! Facts are from `docs/reference/garm-api.md` (§14 is the checklist) and the recordings. `tests/garm/conformance.rs`
//! plays the recorded situations and compares what the medic's parsers read. What they do not read is not simulated,
//! except for a few lines, fields and series that they must skip.

/// The parts of a state that its process works with, borrowed apart from the process.
macro_rules! env {
    ($state:ident, $github:expr, $now:expr) => {
        Env {
            config: &$state.config,
            db: &mut $state.db,
            log: &mut $state.log,
            events: &mut $state.events,
            changes: &mut $state.changes,
            github: $github,
            now: $now,
        }
    };
}

mod api;
mod calls;
pub mod config;
mod controller;
mod counters;
mod db;
mod deliver;
mod env;
mod goroutines;
mod listener;
mod log;
mod metrics;
mod process;
mod render;
mod route;
mod scaler;
mod setting;
mod stamp;
mod startup;
mod token;
mod update;
mod worker;

pub use config::{Build, GarmConfig, LogFormat, LogLevel, LogStreamer, Metrics};
pub use counters::Op;
pub use route::ManagerRoute;
pub use setting::{LostPut, WorkerTruth, Write};

use super::wire::{Answer, Delivery, Request};
use crate::fault::{Fault, FaultTable};
use crate::github::GithubState;
use api::Api;
use bytes::Bytes;
use db::Db;
use env::{Change, Env};
use log::Log;
use medic_core::model::{SessionId, Wall};
use process::{Died, Process};
use std::collections::VecDeque;

/// A fault between a client and the manager.
pub type ManagerFault = Fault<ManagerRoute>;

#[derive(Debug)]
pub struct GarmState {
    config: GarmConfig,
    db: Db,
    process: Option<Process>,
    log: Log,
    events: VecDeque<Bytes>,
    changes: Vec<Change>,
    faults: FaultTable<ManagerRoute>,
    writes: Vec<Write>,
    crashes: u32,
}

impl GarmState {
    /// A GARM without scale sets, not running.
    #[must_use]
    pub fn new(config: GarmConfig) -> Self {
        Self {
            db: Db::new(&config),
            config,
            process: None,
            log: Log::default(),
            events: VecDeque::new(),
            changes: Vec::new(),
            faults: FaultTable::default(),
            writes: Vec::new(),
            crashes: 0,
        }
    }

    /// Starts the process, if it does not run. Its API listens a little later.
    pub fn start(&mut self, now: Wall, github: &mut GithubState) {
        if self.process.is_none() {
            let mut env = env!(self, github, now);
            self.process = Some(Process::start(&mut env));
            self.post(now);
        }
    }

    /// SIGKILL: its connections end, its sessions stay at GitHub.
    pub fn kill(&mut self, now: Wall, github: &mut GithubState) {
        if let Some(process) = self.process.take() {
            process.hang_up_all(&mut env!(self, github, now));
            self.changes.clear();
        }
    }

    /// SIGTERM: it deletes its sessions on the way out, one after the other.
    pub fn stop(&mut self, now: Wall, github: &mut GithubState) {
        let Some(process) = &mut self.process else { return };
        let mut env = env!(self, &mut *github, now);
        match process.stop(&mut env) {
            Ok(()) => {
                self.process = None;
                self.changes.clear();
            }
            Err(died) => self.crash(died, now, github),
        }
    }

    /// Whether the process runs and its API listens.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_open)
    }

    /// Whether the process runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub fn handle(&mut self, now: Wall, request: &Request, github: &mut GithubState) -> Answer {
        self.advance(now, github);
        if !self.is_up() {
            return Answer::empty(503).delivered(Delivery::Refused);
        }
        let (route, id) = route::route(request);
        let fault = self.faults.meet(route, id.parse().ok(), now);
        let Some(process) = &mut self.process else { return Answer::empty(503).delivered(Delivery::Refused) };
        let mut api = Api { env: env!(self, github, now), process, writes: &mut self.writes, request, id };
        api.process.refresh_gauges(&api.env);
        let answer = match fault {
            Some(fault) => fault.answer(|| api.answer(route)),
            None => api.answer(route),
        };
        self.post(now);
        answer
    }

    /// Runs what is due by `now`. GitHub's deadlines are ignored: for jumps beyond the next deadline of either, advance
    /// both in turn, and pass GitHub's wakes on with [`wake`](Self::wake).
    pub fn advance(&mut self, now: Wall, github: &mut GithubState) {
        while let Some(process) = &mut self.process {
            let Some((at, task)) = process.take_due(now) else { return };
            let mut env = env!(self, &mut *github, at);
            process.refresh_gauges(&env);
            match process.run(task, &mut env) {
                Ok(()) => self.post(at),
                Err(died) => self.crash(died, at, github),
            }
        }
    }

    fn post(&mut self, now: Wall) {
        let changes = std::mem::take(&mut self.changes);
        if let Some(process) = &mut self.process {
            process.post(changes, now, self.config.event);
        }
    }

    /// The process panics; every session that it held stays at GitHub.
    fn crash(&mut self, died: Died, now: Wall, github: &mut GithubState) {
        self.crashes = self.crashes.saturating_add(1);
        for line in setting::panic_lines(died, self.config.build) {
            self.log.raw(&line);
        }
        self.kill(now, github);
    }

    /// When something happens here without a request.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Wall> {
        self.process.as_ref()?.next_deadline()
    }

    /// GitHub has an answer for a held poll of this session.
    pub fn wake(&mut self, session: &SessionId, now: Wall) {
        if let Some(process) = &mut self.process {
            process.wake(session.as_str(), now);
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

    /// Events since the last call, as JSON (`docs/reference/garm-api.md` §8.2).
    pub fn take_events(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.events).into()
    }
}
