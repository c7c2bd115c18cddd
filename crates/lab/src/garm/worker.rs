//! A scale set's worker: its start, and the loop that keeps its listener alive (`docs/reference/garm-api.md` §11).
//!
//! Pre-fix: the *first* start of a worker opens its session, and any error drops the worker for good. Both builds: a
//! worker that exists checks every 2 s whether it should listen, and tries for ever. A listener that had run is
//! restarted at once, then with growing pauses. While the worker waits for GitHub it holds its locks: events wait.

use super::calls::{Ask, Chain, Failure, Progress, Service, read_session};
use super::config::LogLevel::{Debug, Error, Info};
use super::db::SetRow;
use super::env::{Env, Operation};
use super::listener::Listening;
use super::log::{By, attrs};
use super::process::{Died, Process, Task};
use super::render::View;
use super::scaler::reconcile_instances;
use bytes::Bytes;
use medic_core::model::{Span, Wall};
use serde_json::Value;
use std::collections::VecDeque;

/// The first pause of a listener that cannot be restarted.
const FIRST_PAUSE: Span = Span::secs(5);
/// The longest pause; one pause of the pre-fix build is longer.
const LONGEST_PAUSE: Span = Span::secs(60);

/// What a worker knows of its set. It stays wrong after a missed event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub enabled: bool,
    pub max_runners: u64,
}

impl Known {
    pub(super) fn of(set: &SetRow) -> Self {
        Self { enabled: set.enabled, max_runners: set.max_runners }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Within the start of a pre-fix worker.
    FirstStart,
    /// By the loop that runs every 2 s.
    Loop,
    /// A listener that had run.
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Disabled, or fewer runners: the poll is still in flight, and will be cancelled.
    SetChanged,
    PollFailed,
}

/// What a worker asks GitHub for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// In its start: whether GitHub knows the set.
    Find,
    /// In its start: the set again.
    Create,
    Open(Opening),
    Close(Closing),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// In its start: it reads the database.
    Preparing,
    /// It waits for GitHub.
    Asking(Purpose, Box<Chain>),
    Listening,
    Idle,
    /// Its listener could not be restarted; it tries again later.
    BackingOff,
    /// In a request that is never answered, with its locks held.
    Hanging,
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// Unique in this incarnation.
    pub number: u64,
    pub operation: Operation,
    pub phase: Phase,
    /// When its next step comes.
    pub due: Option<Wall>,
    pub known: Known,
    pub registered: bool,
    /// Its start has succeeded.
    pub runs: bool,
    /// Events that wait for its locks.
    inbox: VecDeque<Known>,
    pub listener: Option<Listening>,
    pause: Span,
    has_paused: bool,
    pub last_success: Option<Wall>,
    pub restarts: u64,
    /// Refusals in a row.
    refused: u32,
    pub born: Wall,
    pub scales_at: Option<Wall>,
}

impl Process {
    pub(super) fn start_worker(&mut self, set: &SetRow, operation: Operation, env: &mut Env<'_>) {
        env.say(Debug, "starting scale set worker", attrs!["scale_set" => set.worker()], By::Worker(set));
        reconcile_instances(set, env);
        let number = self.number();
        let due = env.now.plus(env.config.worker_start);
        let worker = Worker {
            number,
            operation,
            phase: Phase::Preparing,
            due: Some(due),
            known: Known::of(set),
            registered: false,
            runs: false,
            inbox: VecDeque::new(),
            listener: None,
            pause: FIRST_PAUSE,
            has_paused: false,
            last_success: None,
            restarts: 0,
            refused: 0,
            born: env.now,
            scales_at: None,
        };
        self.workers.insert(set.id, worker);
        self.at(due, Task::Main(set.id, number));
    }

    pub(super) fn step_worker(&mut self, id: u64, number: u64, env: &mut Env<'_>) -> Result<(), Died> {
        let Some(set) = env.db.set(id) else { return Ok(()) };
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        if worker.number != number || worker.due != Some(env.now) {
            return Ok(());
        }
        worker.due = None;
        let enabled = worker.known.enabled;
        match std::mem::replace(&mut worker.phase, Phase::Idle) {
            Phase::Preparing => return self.ask(&set, Purpose::Find, Ask::FindSet, None, env),
            Phase::Asking(purpose, chain) => {
                let progress = chain.go_on(env, &mut self.counters, &set);
                return self.wait(&set, purpose, progress, env);
            }
            Phase::Idle if enabled => return self.open_session(&set, Opening::Loop, env),
            Phase::BackingOff if enabled => return self.open_session(&set, Opening::Restart, env),
            Phase::Idle | Phase::BackingOff => self.step_in(id, env.config.retry, Phase::Idle, env.now),
            Phase::Listening => self.set_phase(id, Phase::Listening),
            Phase::Hanging => self.set_phase(id, Phase::Hanging),
        }
        Ok(())
    }

    /// Begins an operation.
    fn ask(
        &mut self,
        set: &SetRow,
        purpose: Purpose,
        ask: Ask,
        service: Option<Service>,
        env: &mut Env<'_>,
    ) -> Result<(), Died> {
        let progress = Chain::begin(env, &mut self.counters, set, ask, service);
        self.wait(set, purpose, progress, env)
    }

    /// Waits for the next answer of an operation, or goes on with its result.
    fn wait(&mut self, set: &SetRow, purpose: Purpose, progress: Progress, env: &mut Env<'_>) -> Result<(), Died> {
        match progress {
            Progress::Until(at, chain) => self.step_at(set.id, at, Phase::Asking(purpose, Box::new(chain))),
            Progress::Hangs => self.set_phase(set.id, Phase::Hanging),
            Progress::Done(result, service) => match purpose {
                Purpose::Find => return self.found(set, result, service, env),
                Purpose::Create => self.created(set, result, env),
                Purpose::Open(why) => return self.opened(set, why, result, service, env),
                Purpose::Close(why) => return self.closed(set, why, result, env),
            },
        }
        Ok(())
    }

    fn set_phase(&mut self, id: u64, phase: Phase) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.phase = phase;
        }
    }

    fn step_in(&mut self, id: u64, span: Span, phase: Phase, now: Wall) {
        self.step_at(id, now.plus(span), phase);
    }

    fn step_at(&mut self, id: u64, at: Wall, phase: Phase) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        (worker.phase, worker.due) = (phase, Some(at));
        let number = worker.number;
        self.at(at, Task::Main(id, number));
    }

    fn start_failed(&mut self, set: &SetRow, text: &str, env: &mut Env<'_>) {
        if let Some(worker) = self.workers.get(&set.id).cloned() {
            self.worker_start_failed(set, &worker, text, env);
        }
    }

    /// GitHub has answered whether it knows the set, by name and group.
    fn found(
        &mut self,
        set: &SetRow,
        result: Result<Bytes, Failure>,
        service: Option<Service>,
        env: &mut Env<'_>,
    ) -> Result<(), Died> {
        let body = match result {
            Ok(body) => body,
            Err(failure) => {
                let text = format!("failed to ensure scale set exists: failed to get scale set: {}", failure.text);
                self.start_failed(set, &text, env);
                return Ok(());
            }
        };
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let known = body.get("value").and_then(Value::as_array).and_then(|sets| sets.first());
        match known.and_then(|set| set.get("id")).and_then(Value::as_u64) {
            Some(id) if id == set.github_id => self.prepared(set, env),
            Some(id) => {
                let text = format!(
                    "failed to ensure scale set exists: scale set already exists in github and it differs from the ID \
                     we know (github: {id} vs local: {})",
                    set.github_id
                );
                self.start_failed(set, &text, env);
            }
            None => return self.ask(set, Purpose::Create, Ask::CreateSet, service, env),
        }
        Ok(())
    }

    /// A set that GitHub had lost exists again, under a new id.
    fn created(&mut self, set: &SetRow, result: Result<Bytes, Failure>, env: &mut Env<'_>) {
        let id = result.and_then(|body| {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let wrong = || Failure { text: "failed to decode response".to_owned(), status: None };
            body.get("id").and_then(Value::as_u64).ok_or_else(wrong)
        });
        match id {
            Ok(github_id) => {
                env.db.write_set(set.id, env.now, |row| row.github_id = github_id);
                env.set_changed(set.id, Operation::Update, View::AfterMessage);
                env.db.write_set(set.id, env.now, |row| row.last_message = 0);
                env.set_changed(set.id, Operation::Update, View::AfterMessage);
                if let Some(set) = env.db.set(set.id) {
                    self.prepared(&set, env);
                }
            }
            Err(failure) => {
                let text = format!("failed to ensure scale set exists: failed to create scale set: {}", failure.text);
                self.start_failed(set, &text, env);
            }
        }
    }

    /// GitHub knows the set: the worker registers for events, and starts to listen.
    fn prepared(&mut self, set: &SetRow, env: &mut Env<'_>) {
        env.say(Info, "starting consumer", attrs!["consumer_id" => set.worker()], By::Watcher);
        let Some(worker) = self.workers.get_mut(&set.id) else { return };
        worker.registered = true;
        let enabled = worker.known.enabled;
        if !env.config.build.retries() {
            if enabled {
                // An error of the first request arrives later: nothing can crash here.
                let _ = self.open_session(set, Opening::FirstStart, env);
                return;
            }
            env.say(Info, "scale set is disabled; not starting listener", attrs![], By::Worker(set));
        }
        self.loops_started(set, env);
        if env.config.build.retries() {
            let id = attrs!["scale_set_id" => set.id];
            env.say(Info, "scale set worker successfully started after retry", id, By::Controller(&set.entity));
        }
        self.worker_start_is_over(set, env);
        let first_step = if enabled { Span::ZERO } else { env.config.retry };
        self.step_in(set.id, first_step, Phase::Idle, env.now);
    }

    fn loops_started(&mut self, set: &SetRow, env: &mut Env<'_>) {
        env.say(Debug, "starting scale set worker loops", attrs!["scale_set" => set.worker()], By::Worker(set));
        let Some(worker) = self.workers.get_mut(&set.id) else { return };
        worker.runs = true;
        self.scale_soon(set.id, env);
    }

    pub(super) fn open_session(&mut self, set: &SetRow, why: Opening, env: &mut Env<'_>) -> Result<(), Died> {
        env.say(Debug, "creating new message session", attrs!["scale_set" => set.github_id], By::Listener(set));
        self.ask(set, Purpose::Open(why), Ask::OpenSession, None, env)
    }

    fn opened(
        &mut self,
        set: &SetRow,
        why: Opening,
        result: Result<Bytes, Failure>,
        service: Option<Service>,
        env: &mut Env<'_>,
    ) -> Result<(), Died> {
        let session = match result.and_then(|body| read_session(&body)) {
            Ok(session) => session,
            Err(failure) => {
                self.not_opened(set, why, &format!("creating message session: {}", failure.text), env);
                return self.read_inbox(set, env);
            }
        };
        if why == Opening::FirstStart {
            self.loops_started(set, env);
        }
        if let Some(worker) = self.workers.get_mut(&set.id) {
            (worker.phase, worker.refused) = (Phase::Listening, 0);
            worker.restarts = worker.restarts.saturating_add(u64::from(why == Opening::Restart));
            if env.config.build.retries() {
                (worker.pause, worker.has_paused) = (FIRST_PAUSE, false);
            }
        }
        self.start_polling(set, session, service, env);
        if why == Opening::FirstStart {
            self.worker_start_is_over(set, env);
        }
        self.read_inbox(set, env)
    }

    fn not_opened(&mut self, set: &SetRow, why: Opening, text: &str, env: &mut Env<'_>) {
        match why {
            Opening::FirstStart => self.start_failed(set, &format!("error starting listener: {text}"), env),
            Opening::Loop => {
                let error = attrs!["error" => text, "consumer_id" => set.worker()];
                env.say(Error, "error starting listener", error, By::Worker(set));
                let wait = self.next_try(set.id, env);
                self.step_in(set.id, wait, Phase::Idle, env.now);
            }
            Opening::Restart => self.not_restarted(set, text, env),
        }
    }

    /// How long a refused worker waits.
    fn next_try(&mut self, id: u64, env: &Env<'_>) -> Span {
        let (retry, refused) = (env.config.retry, self.workers.get(&id).map_or(0, |worker| worker.refused));
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.refused = refused.saturating_add(1);
        }
        let doubled = || retry.times(2_u64.saturating_pow(refused));
        env.config.retry_doubles_to.map_or(retry, |longest| doubled().min(longest))
    }

    /// A listener that had run and cannot be started again waits longer each time. The pre-fix build lets one pause
    /// grow beyond the limit, logs each failure twice, and never resets the pause.
    fn not_restarted(&mut self, set: &SetRow, text: &str, env: &mut Env<'_>) {
        let retries = env.config.build.retries();
        let Some(worker) = self.workers.get_mut(&set.id) else { return };
        let (pause, first) = (worker.pause, !worker.has_paused);
        worker.has_paused = true;
        let grown = Span::millis(pause.as_millis().saturating_mul(3) / 2);
        worker.pause = match (retries, pause > LONGEST_PAUSE) {
            (true, _) => grown.min(LONGEST_PAUSE),
            (false, true) => LONGEST_PAUSE,
            (false, false) => grown,
        };
        let nanos = pause.as_millis().saturating_mul(1_000_000);
        if !retries {
            env.say(Error, "error restarting listener", attrs!["error" => text], By::Worker(set));
        }
        if first {
            env.say(Info, "backing off restart attempt", attrs!["backoff" => nanos], By::Worker(set));
        }
        let error = attrs!["error" => text, "backoff" => nanos];
        env.say(Error, "error restarting listener", error, By::Worker(set));
        self.step_in(set.id, pause, Phase::BackingOff, env.now);
    }

    pub(super) fn close_session(&mut self, set: &SetRow, why: Closing, env: &mut Env<'_>) -> Result<(), Died> {
        let listener = self.workers.get(&set.id).and_then(|worker| worker.listener.as_ref());
        let Some(session) = listener.map(|listener| listener.session.clone()) else { return Ok(()) };
        say_closing(set, &session.id, env);
        self.ask(set, Purpose::Close(why), Ask::CloseSession(session), None, env)
    }

    /// DELETE has been answered. A 404 kills the process.
    fn closed(
        &mut self,
        set: &SetRow,
        why: Closing,
        result: Result<Bytes, Failure>,
        env: &mut Env<'_>,
    ) -> Result<(), Died> {
        match result {
            Ok(_) => {}
            Err(failure) if failure.status == Some(404) => {
                // In the pre-fix build this line is written before the crash.
                if why == Closing::PollFailed && !env.config.build.retries() {
                    env.say(Debug, "listener is stopped; attempting to restart", attrs![], By::Worker(set));
                }
                return Err(Died::SessionNotFound);
            }
            Err(failure) => {
                let error = attrs!["error" => failure.text];
                env.say(Error, "error deleting message session", error, By::Listener(set));
            }
        }
        match why {
            Closing::SetChanged => {
                self.cancel_poll(set, env);
                env.say(Debug, "stopping scale set listener", attrs![], By::Listener(set));
            }
            Closing::PollFailed => {}
        }
        if let Some(worker) = self.workers.get_mut(&set.id) {
            (worker.listener, worker.phase) = (None, Phase::Idle);
        }
        env.say(Debug, "listener is stopped; attempting to restart", attrs![], By::Worker(set));
        self.read_inbox(set, env)?;
        match (self.workers.get(&set.id).map(|worker| worker.known.enabled), why) {
            (Some(true), Closing::SetChanged) => return self.open_session(set, Opening::Restart, env),
            (Some(true), Closing::PollFailed) => self.step_in(set.id, env.config.restart, Phase::BackingOff, env.now),
            (Some(false), _) => self.step_in(set.id, env.config.retry, Phase::Idle, env.now),
            (None, _) => {}
        }
        Ok(())
    }

    /// An update event of its set reaches a registered worker: at once, or when its locks are free.
    pub(super) fn receive_event(&mut self, set: &SetRow, env: &mut Env<'_>) -> Result<(), Died> {
        let Some(worker) = self.workers.get_mut(&set.id).filter(|worker| worker.registered) else { return Ok(()) };
        worker.inbox.push_back(Known::of(set));
        self.scale_soon(set.id, env);
        self.read_inbox(set, env)
    }

    fn read_inbox(&mut self, set: &SetRow, env: &mut Env<'_>) -> Result<(), Died> {
        loop {
            let Some(worker) = self.workers.get_mut(&set.id) else { return Ok(()) };
            let is_free = match worker.phase {
                Phase::Listening | Phase::Idle | Phase::BackingOff => true,
                Phase::Preparing | Phase::Asking(..) | Phase::Hanging => false,
            };
            if !is_free {
                return Ok(());
            }
            let Some(known) = worker.inbox.pop_front() else { return Ok(()) };
            let before = std::mem::replace(&mut worker.known, known);
            if worker.listener.is_some() && (!known.enabled || known.max_runners < before.max_runners) {
                self.close_session(set, Closing::SetChanged, env)?;
            }
        }
    }
}

pub(super) fn say_closing(set: &SetRow, session: &str, env: &mut Env<'_>) {
    env.say(Debug, "closing message session", attrs!["scale_set" => set.github_id], By::Listener(set));
    env.say(Debug, "message session refresh loop done", attrs![], By::Session(set, session));
}
