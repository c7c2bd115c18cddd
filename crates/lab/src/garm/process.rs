//! One incarnation of the process: what it holds in memory, and its agenda (`docs/reference/garm-api.md` §11).
//!
//! Every task names the number of its worker, poll or listener: a task that is out of date does nothing.

use super::controller::Controller;
use super::counters::Counters;
use super::env::{Change, Env};
use super::metrics::Gauges;
use super::render::Rate;
use super::startup::say_starting;
use super::worker::Worker;
use medic_core::model::{Span, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// What a running process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Open,
    /// The worker and the scale set controller of an entity start.
    Entity(u64),
    /// A change of the database reaches its consumers.
    Deliver(u64),
    /// A controller takes up its next piece of work.
    Controller(u64),
    /// Events that a busy controller did not take in time are dropped.
    HandOver(u64),
    /// A controller starts the workers that do not run.
    Retry(u64),
    /// A worker's next step: of this set, of this worker.
    Main(u64, u64),
    /// An answer to a poll, or a held poll that is asked again: of this set, of this poll.
    Poll(u64, u64),
    /// A session's token is checked: of this set, of this listener.
    Refresh(u64, u64),
    /// Runners are scaled: of this set, of this worker.
    Scale(u64, u64),
    /// The provider's next step with an instance.
    Instance(u64),
    /// The list of runner downloads is fetched.
    Tools(u64),
    /// The credential's quota is asked for.
    Rate,
    /// The debug lines of a collection of metrics.
    Collection,
    /// The debug lines of the pool managers.
    PoolLines,
}

/// The bug that the process died of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Died {
    /// DELETE of a session was answered 404.
    SessionNotFound,
    /// A queue token has no `exp`.
    TokenWithoutExpiry,
}

#[derive(Debug)]
pub(super) struct Process {
    pub started: Wall,
    pub is_open: bool,
    pub counters: Counters,
    /// By the entity's number.
    pub controllers: BTreeMap<u64, Controller>,
    pub workers: BTreeMap<u64, Worker>,
    pub rate: Option<Rate>,
    pub gauges: Gauges,
    /// Entities whose list of downloads is known: before that no runner is made.
    pub tools: BTreeSet<u64>,
    agenda: BTreeSet<(Wall, u64, Task)>,
    mail: BTreeMap<u64, Change>,
    serial: u64,
}

impl Process {
    pub(super) fn start(env: &mut Env<'_>) -> Self {
        let mut process = Self {
            started: env.now,
            is_open: false,
            counters: Counters::default(),
            controllers: BTreeMap::new(),
            workers: BTreeMap::new(),
            rate: None,
            gauges: Gauges::default(),
            tools: BTreeSet::new(),
            agenda: BTreeSet::new(),
            mail: BTreeMap::new(),
            serial: 0,
        };
        say_starting(env);
        let ready = env.now.plus(env.config.boot);
        for entity in env.db.entities.keys().copied().collect::<Vec<_>>() {
            process.at(ready, Task::Entity(entity));
            process.plan_tools(entity, env);
        }
        for id in env.db.instances.keys().copied().collect::<Vec<_>>() {
            process.at(ready.plus(env.config.provider), Task::Instance(id));
        }
        process.at(ready, Task::Open);
        process.at(env.now.plus(Span::secs(30)), Task::Rate);
        process
    }

    /// A number that this incarnation has not used.
    pub(super) fn number(&mut self) -> u64 {
        self.serial = self.serial.saturating_add(1);
        self.serial
    }

    pub(super) fn at(&mut self, when: Wall, task: Task) {
        let serial = self.number();
        self.agenda.insert((when, serial, task));
    }

    pub(super) fn next_deadline(&self) -> Option<Wall> {
        self.agenda.first().map(|(at, _, _)| *at)
    }

    /// The next task that is due by `now`.
    pub(super) fn take_due(&mut self, now: Wall) -> Option<(Wall, Task)> {
        let (at, _, task) = *self.agenda.first().filter(|(at, _, _)| *at <= now)?;
        self.agenda.pop_first();
        Some((at, task))
    }

    /// Changes of the database, to be delivered after a delay.
    pub(super) fn post(&mut self, changes: Vec<Change>, now: Wall, delay: Span) {
        for change in changes {
            let number = self.number();
            self.mail.insert(number, change);
            self.at(now.plus(delay), Task::Deliver(number));
        }
    }

    pub(super) fn run(&mut self, task: Task, env: &mut Env<'_>) -> Result<(), Died> {
        match task {
            Task::Open => self.open(env),
            Task::Entity(entity) => self.start_entity(entity, env),
            Task::Deliver(number) => {
                if let Some(change) = self.mail.remove(&number) {
                    return self.deliver(&change, env);
                }
            }
            Task::Controller(entity) => self.next_work(entity, env),
            Task::HandOver(entity) => self.drop_late_events(entity, env),
            Task::Retry(entity) => self.retry_workers(entity, env),
            Task::Main(set, worker) => return self.step_worker(set, worker, env),
            Task::Poll(set, poll) => return self.step_poll(set, poll, env),
            Task::Refresh(set, listener) => return self.step_refresh(set, listener, env),
            Task::Scale(set, worker) => self.scale(set, worker, env),
            Task::Instance(id) => self.step_instance(id, env),
            Task::Tools(entity) => self.fetch_tools(entity, env),
            Task::Rate => self.ask_rate(env),
            Task::Collection => self.say_collection(env),
            Task::PoolLines => self.say_pools(env),
        }
        Ok(())
    }

    /// The connections end with the process.
    pub(super) fn hang_up_all(&self, env: &mut Env<'_>) {
        for (set, worker) in &self.workers {
            if let (Some(listening), Some(row)) = (&worker.listener, env.db.set(*set)) {
                super::calls::hang_up(env, &listening.session, row.last_message, listening.poll);
            }
        }
    }
}
