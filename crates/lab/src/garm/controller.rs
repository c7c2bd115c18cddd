//! The scale set controller of an entity starts the workers (`docs/reference/garm-api.md` §11.1, §11.2).
//!
//! Pre-fix: it starts workers one after the other, inside the handling of an event. At boot it receives events only
//! when all workers have been started. A worker that fails to start is dropped; an update event of a set without a
//! worker starts one. While it is busy one event waits in its slot; others are dropped after a second. Later builds
//! keep an entry for every set and start missing workers every 5 s; their queue has no bound.

use super::config::LogLevel::{Debug, Error, Info};
use super::db::{EntityRow, SetRow};
use super::env::{Env, Operation};
use super::log::{By, attrs};
use super::process::{Process, Task};
use super::worker::Worker;
use crate::random::scramble;
use medic_core::model::{Span, Wall};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long an event waits for its consumer to take it.
const HAND_OVER: Span = Span::secs(1);

#[derive(Debug)]
pub(super) struct Controller {
    pub entity: Arc<EntityRow>,
    pub registered: bool,
    started: Wall,
    /// The set whose worker it is starting just now.
    busy: Option<u64>,
    /// Sets still to be started.
    to_start: VecDeque<(Operation, Arc<SetRow>)>,
    /// An event that waits for it, and others that wait for the slot.
    slot: Option<(Operation, Arc<SetRow>)>,
    waiting: VecDeque<(Wall, Operation, Arc<SetRow>)>,
    /// Sets that it knows, in builds that retry.
    entries: BTreeMap<u64, Entry>,
    /// When missing workers are started next.
    retries_at: Option<Wall>,
}

/// A set of a controller.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    failures: u32,
    not_before: Wall,
}

impl Process {
    /// The entity's worker starts, and its controller loads the sets.
    pub(super) fn start_entity(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(entity) = env.db.entities.get(&number).cloned() else { return };
        if self.controllers.contains_key(&number) {
            return;
        }
        let sets: Vec<Arc<SetRow>> =
            env.db.sets.values().filter(|set| set.entity.number == number).map(Arc::clone).collect();
        let retries = env.config.build.retries();
        let mut controller = Controller {
            entity: Arc::clone(&entity),
            registered: false,
            started: env.now,
            busy: None,
            to_start: VecDeque::new(),
            slot: None,
            waiting: VecDeque::new(),
            entries: BTreeMap::new(),
            retries_at: None,
        };
        if retries {
            for set in &sets {
                env.say(Debug, "loading scale set", attrs!["scale_set" => set.id], By::Controller(&entity));
                controller.entries.insert(set.id, Entry::default());
            }
        } else {
            controller.to_start = sets.into_iter().map(|set| (Operation::Create, set)).collect();
        }
        self.controllers.insert(number, controller);
        if retries {
            self.register(number, env);
            self.plan_retry(number, env.now);
        } else {
            self.next_work(number, env);
        }
    }

    fn register(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        controller.registered = true;
        let consumer = attrs!["consumer_id" => controller.entity.controller()];
        env.say(Info, "starting consumer", consumer, By::Watcher);
    }

    /// Takes up the next worker to start, or the next event.
    pub(super) fn next_work(&mut self, number: u64, env: &mut Env<'_>) {
        loop {
            let Some(controller) = self.controllers.get_mut(&number).filter(|c| c.busy.is_none()) else { return };
            if let Some((operation, set)) = controller.to_start.pop_front() {
                let entity = Arc::clone(&controller.entity);
                if env.config.build.retries() {
                    // It may have been started by another way.
                    if self.workers.contains_key(&set.id) {
                        continue;
                    }
                    let id = attrs!["scale_set_id" => set.id];
                    env.say(Info, "retrying failed scale set", id, By::Controller(&entity));
                } else if !controller.registered {
                    env.say(Debug, "loading scale set", attrs!["scale_set" => set.id], By::Controller(&entity));
                }
                controller.busy = Some(set.id);
                self.start_worker(&set, operation, env);
                return;
            }
            if !controller.registered {
                self.register(number, env);
                continue;
            }
            let Some((operation, set)) = controller.slot.take() else { return };
            controller.slot = controller.waiting.pop_front().map(|(_, operation, set)| (operation, set));
            self.handle_set_event(number, operation, &set, env);
        }
    }

    /// The start of a worker has succeeded or failed.
    pub(super) fn worker_start_is_over(&mut self, set: &SetRow, env: &mut Env<'_>) {
        let number = set.entity.number;
        if let Some(controller) = self.controllers.get_mut(&number).filter(|c| c.busy == Some(set.id)) {
            controller.busy = None;
            self.at(env.now, Task::Controller(number));
        }
    }

    /// Pre-fix the worker is gone until the next update event of its set.
    pub(super) fn worker_start_failed(&mut self, set: &SetRow, worker: &Worker, text: &str, env: &mut Env<'_>) {
        self.workers.remove(&set.id);
        let text = format!("error starting scale set worker: {text}");
        let by = By::Controller(&set.entity);
        if env.config.build.retries() {
            let error = attrs!["scale_set_id" => set.id, "error" => text];
            env.say(Error, "retry failed: starting scale set worker", error, by);
            self.put_off(set, env.now);
        } else {
            let msg = match worker.operation {
                Operation::Create => "failed to handle scale set create operation",
                Operation::Update | Operation::Delete => "failed to handle scale set update operation",
            };
            env.say(Error, msg, attrs!["error" => text], by);
        }
        if worker.registered {
            let consumer = attrs!["consumer_id" => set.worker()];
            env.say(Info, "removing consumer from watcher", consumer, By::Watcher);
        }
        self.worker_start_is_over(set, env);
    }

    /// 10 s, half as much more each time, up to 5 min, give or take a fifth.
    fn put_off(&mut self, set: &SetRow, now: Wall) {
        let number = set.entity.number;
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        let entry = controller.entries.entry(set.id).or_default();
        let wait = (0..entry.failures.min(20)).fold(10_000_u64, |wait, _| (wait.saturating_mul(3) / 2).min(300_000));
        let jitter = scramble(set.id ^ u64::from(entry.failures)) % 41;
        entry.not_before = now.plus(Span::millis(wait.saturating_mul(80 + jitter) / 100));
        entry.failures = entry.failures.saturating_add(1);
        let due = entry.not_before;
        self.plan_retry(number, due);
    }

    /// Plans the first retry at or after a date: retries come every tick since the controller's start.
    fn plan_retry(&mut self, number: u64, from: Wall) {
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        let tick = 5_000;
        let ticks = from.since(controller.started).as_millis().div_ceil(tick);
        let when = controller.started.plus(Span::millis(ticks.saturating_mul(tick)));
        if controller.retries_at.is_none_or(|at| at > when || at < from) {
            controller.retries_at = Some(when);
            self.at(when, Task::Retry(number));
        }
    }

    pub(super) fn retry_workers(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        if controller.retries_at == Some(env.now) {
            controller.retries_at = None;
        }
        let (mut due, mut later) = (Vec::new(), None);
        for (set, entry) in &controller.entries {
            if self.workers.contains_key(set) || controller.to_start.iter().any(|(_, row)| row.id == *set) {
                continue;
            }
            if entry.not_before <= env.now {
                due.push(*set);
            } else {
                later = Some(later.map_or(entry.not_before, |at: Wall| at.min(entry.not_before)));
            }
        }
        controller.to_start.extend(due.iter().filter_map(|set| Some((Operation::Create, env.db.set(*set)?))));
        if let Some(later) = later {
            self.plan_retry(number, later);
        }
        self.next_work(number, env);
    }

    /// An event of one of its sets reaches a registered controller.
    pub(super) fn offer_set_event(&mut self, operation: Operation, set: &Arc<SetRow>, env: &mut Env<'_>) {
        let number = set.entity.number;
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        if env.config.build.retries() || (controller.busy.is_none() && controller.slot.is_none()) {
            self.handle_set_event(number, operation, set, env);
        } else if controller.slot.is_none() {
            controller.slot = Some((operation, Arc::clone(set)));
        } else {
            controller.waiting.push_back((env.now, operation, Arc::clone(set)));
            self.at(env.now.plus(HAND_OVER), Task::HandOver(number));
        }
    }

    pub(super) fn drop_late_events(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        while controller.waiting.front().is_some_and(|(since, _, _)| since.plus(HAND_OVER) <= env.now) {
            let Some((_, _, set)) = controller.waiting.pop_front() else { return };
            let payload = attrs!["payload" => set.name.as_str()];
            env.say(Debug, "timeout trying to send payload", payload, By::Controller(&set.entity));
        }
    }

    fn handle_set_event(&mut self, number: u64, operation: Operation, set: &Arc<SetRow>, env: &mut Env<'_>) {
        let by = By::Controller(&set.entity);
        let names = attrs!["scale_set_id" => set.id, "scale_set_name" => &set.name];
        env.say(Debug, &format!("got {} operation for scale set", operation.as_str()), names, by);
        let has_worker = self.workers.contains_key(&set.id);
        let Some(controller) = self.controllers.get_mut(&number) else { return };
        if env.config.build.retries() {
            let entry = controller.entries.entry(set.id).or_default();
            if !has_worker {
                // A real update clears the back-off.
                *entry = Entry::default();
                self.plan_retry(number, env.now);
            }
        } else if !has_worker {
            controller.busy = Some(set.id);
            self.start_worker(set, operation, env);
        }
    }
}
