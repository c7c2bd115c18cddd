//! The start and the end of the process, and what GARM asks GitHub for besides its scale sets: the list of runner
//! downloads, without which no runner is made, and the quota.

use super::calls::{self, Ask};
use super::config::LogLevel::{Debug, Error, Info};
use super::config::Metrics;
use super::counters::Op;
use super::db::{EntityRow, SetRow};
use super::env::Env;
use super::log::{By, attrs};
use super::process::{Died, Process, Task};
use super::render::Rate;
use super::worker::{Phase, say_closing};
use crate::random::scramble;
use medic_core::model::Span;
use serde_json::Value;
use std::sync::Arc;

/// How often an entity's pool manager looks for work.
const POOL_TICK: Span = Span::secs(5);

fn say_consumer(consumer: &str, env: &mut Env<'_>) {
    env.say(Info, "starting consumer", attrs!["consumer_id" => consumer], By::Watcher);
}

/// "Loading provider" is logged twice for each start; the consumer `provider-worker` comes after both.
pub(super) fn say_starting(env: &mut Env<'_>) {
    env.say(Info, "Loading provider", attrs!["provider" => "stub"], By::Garm);
    env.say(Debug, "starting cache worker", attrs![], By::Named("cache"));
    env.say(Info, "Loading provider", attrs!["provider" => "stub"], By::Garm);
    for consumer in ["cache", "provider-worker", "entity-controller"] {
        say_consumer(consumer, env);
    }
}

impl Process {
    /// The list of runner downloads is fetched within 3 s of the start of an entity.
    pub(super) fn plan_tools(&mut self, number: u64, env: &Env<'_>) {
        let jitter = Span::millis(scramble(number ^ self.started.0) % 3_000);
        self.at(env.now.plus(jitter), Task::Tools(number));
    }

    pub(super) fn fetch_tools(&mut self, number: u64, env: &mut Env<'_>) {
        let Some(entity) = env.db.entities.get(&number).cloned() else { return };
        let op = Op::ListEntityRunnerApplicationDownloads;
        self.counters.begin(op, entity.entity.kind);
        if calls::rest(env, &format!("{}/actions/runners/downloads", entity.rest_path())).is_some() {
            env.say(Debug, "updating tools cache", attrs!["entity" => &entity.entity.name], By::Controller(&entity));
            self.tools.insert(number);
        } else {
            self.counters.fail(op, entity.entity.kind);
            let error = attrs!["error" => "failed to list runner downloads"];
            env.say(Error, "failed to update tools", error, By::Controller(&entity));
            let wait = Span::millis(60_000 + scramble(env.now.0) % 120_000);
            self.at(env.now.plus(wait), Task::Tools(number));
        }
    }

    /// The API listens from now on.
    pub(super) fn open(&mut self, env: &mut Env<'_>) {
        self.is_open = true;
        env.say(Info, "register metrics", attrs![], By::Garm);
        self.say_collection(env);
        self.at(env.now.plus(POOL_TICK), Task::PoolLines);
    }

    /// The debug lines of a collection of metrics.
    pub(super) fn say_collection(&mut self, env: &mut Env<'_>) {
        if env.config.log_level > Debug || env.config.metrics == Metrics::Off {
            return;
        }
        let sets = env.config.build.retries().then_some("scale set ");
        let of = ["", "organization ", "enterprise ", "repository ", "provider ", "pool "].into_iter();
        for of in of.chain(sets).chain(["instance ", "health ", "jobs "]) {
            env.say(Debug, &format!("collecting {of}metrics"), attrs![], By::Garm);
        }
        self.at(env.now.plus(env.config.metrics_period), Task::Collection);
    }

    /// The debug lines of the pool manager that each entity has, for its pools and its scale sets.
    pub(super) fn say_pools(&mut self, env: &mut Env<'_>) {
        if env.config.log_level > Debug {
            return;
        }
        for entity in env.db.entities.values().map(Arc::clone).collect::<Vec<_>>() {
            let jobs: u64 = env.db.sets.values().filter(|s| s.entity.number == entity.number).map(|s| s.desired).sum();
            env.say(Debug, "found queued jobs", attrs!["job_count" => jobs], By::Pool(&entity));
            env.say(Debug, "removing instances in pending_delete", attrs![], By::Pool(&entity));
        }
        self.at(env.now.plus(POOL_TICK), Task::PoolLines);
    }

    /// Costs no quota.
    pub(super) fn ask_rate(&mut self, env: &mut Env<'_>) {
        self.at(env.now.plus(env.config.quota_period), Task::Rate);
        // One credential serves all entities; its failures count under the kind of the first one.
        let Some(kind) = env.db.entities.values().next().map(|row| row.entity.kind) else { return };
        let answer = calls::rest(env, "rate_limit");
        let Some(core) = answer.as_ref().and_then(|answer| answer.pointer("/resources/core")) else {
            self.counters.fail(Op::GetRateLimit, kind);
            return;
        };
        let number = |name: &str| core.get(name).and_then(Value::as_u64).unwrap_or(0);
        self.rate = Some(Rate { limit: number("limit"), remaining: number("remaining"), reset: number("reset") });
    }

    /// SIGTERM: sessions are deleted, set by set.
    pub(super) fn stop(&mut self, env: &mut Env<'_>) -> Result<(), Died> {
        let entities: Vec<Arc<EntityRow>> = self.controllers.values().map(|c| Arc::clone(&c.entity)).collect();
        env.say(Info, "shutting down http server", attrs![], By::Garm);
        for (id, set) in self.workers.keys().filter_map(|id| Some((*id, env.db.set(*id)?))).collect::<Vec<_>>() {
            self.stop_worker(id, &set, env)?;
        }
        for entity in &entities {
            let name = attrs!["entity" => &entity.entity.name];
            env.say(Debug, "stopped scale set controller", name, By::Controller(entity));
        }
        Ok(())
    }

    fn stop_worker(&mut self, id: u64, set: &SetRow, env: &mut Env<'_>) -> Result<(), Died> {
        let Some(worker) = self.workers.get(&id) else { return Ok(()) };
        // A worker that hangs keeps its session, and ends with the process.
        if let Some(session) = worker.listener.as_ref().map(|listener| listener.session.clone())
            && worker.phase == Phase::Listening
        {
            say_closing(set, &session.id, env);
            match calls::at_once(env, &mut self.counters, set, Ask::CloseSession(session), None) {
                Ok(_) | Err(None) => {}
                Err(Some(failure)) if failure.status == Some(404) => return Err(Died::SessionNotFound),
                Err(Some(failure)) => {
                    let error = attrs!["error" => failure.text];
                    env.say(Error, "error deleting message session", error, By::Listener(set));
                }
            }
            self.cancel_poll(set, env);
            env.say(Debug, "stopping scale set listener", attrs![], By::Listener(set));
        }
        env.say(Info, "removing consumer from watcher", attrs!["consumer_id" => set.worker()], By::Watcher);
        Ok(())
    }
}
