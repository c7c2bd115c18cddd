//! Changes of the database reach their consumers (`docs/reference/garm-api.md` §6.6, §8.2): the cache, the provider
//! worker, pool managers, controllers, and the workers themselves. Who is not registered hears nothing.

use super::config::LogLevel::{Debug, Info, Warn};
use super::db::EntityRow;
use super::env::{About, Change, Env, Operation};
use super::log::{By, attrs};
use super::process::{Died, Process, Task};
use std::sync::Arc;

impl Process {
    pub(super) fn deliver(&mut self, change: &Change, env: &mut Env<'_>) -> Result<(), Died> {
        let operation = change.operation;
        match &change.about {
            About::Controller => {
                to_cache("controller", operation, env);
                say_controller_changed(env);
            }
            About::Endpoint => to_cache("github_endpoint", operation, env),
            About::Credentials => to_cache("github_credentials", operation, env),
            About::Entity(entity) => self.entity_changed(entity, operation, env),
            About::Set(set) => {
                to_cache("scaleset", operation, env);
                to_provider("scaleset", operation, env);
                env.say(Debug, "got create/update operation", attrs![], By::Named("provider-worker"));
                let number = set.entity.number;
                if self.controllers.get(&number).is_some_and(|controller| controller.registered) {
                    let consumer = attrs!["consumer_id" => set.entity.controller()];
                    env.say(Debug, "sending payload", consumer, By::Controller(&set.entity));
                    self.offer_set_event(operation, set, env);
                }
                // A worker that this very event made knows already; it registers later.
                if operation == Operation::Update && self.workers.get(&set.id).is_some_and(|w| w.registered) {
                    env.say(Debug, "sending payload", attrs!["consumer_id" => set.worker()], By::Worker(set));
                    env.say(Debug, "got scaleset event", attrs![], By::Worker(set));
                    env.say(Debug, "got update operation", attrs![], By::Worker(set));
                    return self.hear(set, env);
                }
            }
            About::Instance { name, set } => self.instance_changed(name, *set, operation, env),
            About::Job { id, status, entity } => self.job_changed(*id, status, entity, operation, env),
        }
        Ok(())
    }

    fn instance_changed(&mut self, name: &str, set: u64, operation: Operation, env: &mut Env<'_>) {
        to_cache("instance", operation, env);
        to_provider("instance", operation, env);
        let provider = By::Named("provider-worker");
        let attrs = attrs!["instance_name" => name, "operation" => operation.as_str()];
        env.say(Debug, "handling instance event", attrs, provider);
        let worker = format!("instance-worker-{name}");
        let got = match operation {
            Operation::Create => {
                env.say(Debug, "got create operation", attrs![], provider);
                say_instance_manager(name, env);
                "got create operation"
            }
            Operation::Update => {
                env.say(Debug, "got update operation", attrs![], provider);
                env.say(Debug, "updating instance", attrs!["instance_name" => name], provider);
                env.say(Debug, "sending update to instance manager", attrs![], By::Named(&worker));
                env.say(Debug, "received update", attrs![], By::Named(&worker));
                "got update operation"
            }
            Operation::Delete => {
                env.say(Debug, "got delete operation", attrs![], provider);
                "got delete operation"
            }
        };
        let Some(set) = env.db.set(set) else { return };
        if self.workers.get(&set.id).is_some_and(|worker| worker.registered) {
            env.say(Debug, "sending payload", attrs!["consumer_id" => set.worker()], By::Worker(&set));
            env.say(Debug, "got instance event", attrs![], By::Worker(&set));
            env.say(Debug, got, attrs![], By::Worker(&set));
        }
    }

    fn job_changed(&mut self, id: u64, status: &str, entity: &Arc<EntityRow>, operation: Operation, env: &mut Env<'_>) {
        to_cache("job", operation, env);
        env.say(Debug, "unknown entity type", attrs!["entity_type" => "job"], By::Named("cache"));
        let by = By::Pool(entity);
        env.say(Debug, "sending payload", attrs!["consumer_id" => entity.pool_manager()], by);
        if operation == Operation::Create {
            env.say(Debug, "new job via watcher", attrs![], by);
        }
        let job = || attrs!["job_id" => id, "job_status" => status];
        env.say(Debug, "recording job", job(), by);
        if status == "queued" {
            env.say(Debug, "adding job to map", job(), by);
            self.jobs.insert((entity.number, id), env.now);
        } else {
            self.jobs.remove(&(entity.number, id));
        }
    }

    fn entity_changed(&mut self, entity: &Arc<EntityRow>, operation: Operation, env: &mut Env<'_>) {
        to_cache(entity.entity.kind.as_str(), operation, env);
        let by = By::Named("entity-controller");
        let retries = env.config.build.retries();
        env.say(Debug, "sending payload", attrs!["consumer_id" => "entity-controller"], by);
        say_received(by, env);
        env.say(Debug, &format!("got {} payload event", entity.entity.kind), attrs![], by);
        match operation {
            Operation::Create => {
                env.say(Debug, "got create operation", attrs![], by);
                if retries {
                    // Its worker is started by the next look after workers that do not run.
                    let tick = env.config.tick.max(medic_core::model::Span::millis(1)).as_millis();
                    let ticks = env.now.since(self.started).as_millis() / tick;
                    let next = medic_core::model::Span::millis(ticks.saturating_add(1).saturating_mul(tick));
                    self.at(self.started.plus(next), Task::Entity(entity.number));
                } else {
                    // The update that the pool manager writes now comes before the worker is in the list.
                    self.at(env.now.plus(env.config.event.times(2)), Task::Entity(entity.number));
                }
                self.watch_pool(entity.number, env.now, env);
            }
            Operation::Update => {
                env.say(Debug, "got update operation", attrs![], by);
                let id = attrs!["entity_id" => &entity.uuid];
                match (self.controllers.contains_key(&entity.number), retries) {
                    (true, _) => env.say(Debug, "worker is already running, skipping update", id, by),
                    (false, false) => env.say(Info, "entity not found in worker list", id, by),
                    (false, true) => {
                        let attrs = attrs!["entity_id" => &entity.uuid, "entity_type" => entity.entity.kind.as_str()];
                        env.say(Info, "updating entity worker", attrs, by);
                    }
                }
                self.tell_entity_workers(entity, env);
            }
            Operation::Delete => {}
        }
    }

    fn tell_entity_workers(&self, entity: &Arc<EntityRow>, env: &mut Env<'_>) {
        if self.controllers.get(&entity.number).is_some_and(|controller| controller.registered) {
            let worker = entity.worker();
            let by = By::Named(&worker);
            env.say(Debug, "sending payload", attrs!["consumer_id" => &worker], by);
            say_received(by, env);
            env.say(Debug, "got update operation", attrs![], by);
            let by = By::Controller(entity);
            env.say(Debug, "sending payload", attrs!["consumer_id" => entity.controller()], by);
            say_received(by, env);
            env.say(Debug, "got entity payload event", attrs![], by);
            env.say(Debug, "got update operation", attrs![], by);
        }
        let by = By::Pool(entity);
        let id = || attrs!["entity" => &entity.uuid];
        env.say(Debug, "sending payload", attrs!["consumer_id" => entity.pool_manager()], by);
        let attrs = attrs!["entity" => &entity.uuid, "operation" => "update"];
        env.say(Debug, "received entity operation", attrs, by);
        for msg in ["updating entity", "lock acquired", "lock released"] {
            env.say(Debug, msg, id(), by);
        }
        env.say(Debug, "deferred tools update", attrs!["credentials_update" => false], by);
    }
}

/// The provider's manager of one instance begins.
pub(super) fn say_instance_manager(name: &str, env: &mut Env<'_>) {
    let worker = format!("instance-worker-{name}");
    env.say(Debug, "starting instance manager", attrs!["instance" => name], By::Named(&worker));
}

fn say_received(by: By<'_>, env: &mut Env<'_>) {
    if env.config.build.retries() {
        env.say(Debug, "received payload, queuing for processing", attrs![], by);
    } else {
        env.say(Info, "received payload", attrs![], by);
    }
}

fn to_cache(entity_type: &str, operation: Operation, env: &mut Env<'_>) {
    let by = By::Named("cache");
    env.say(Debug, "sending payload", attrs!["consumer_id" => "cache"], by);
    let attrs = attrs!["event_entity_type" => entity_type, "event_operation" => operation.as_str()];
    env.say(Debug, "handling event", attrs, by);
}

fn to_provider(entity_type: &str, operation: Operation, env: &mut Env<'_>) {
    let by = By::Named("provider-worker");
    env.say(Debug, "sending payload", attrs!["consumer_id" => "provider-worker"], by);
    if env.config.build.retries() {
        env.say(Debug, "received payload, queuing for processing", attrs![], by);
    } else {
        let attrs = attrs!["operation" => operation.as_str(), "entity_type" => entity_type];
        env.say(Debug, "received payload", attrs, by);
    }
}

fn say_controller_changed(env: &mut Env<'_>) {
    let by = By::Named("garm-tools-sync");
    env.say(Debug, "sending payload", attrs!["consumer_id" => "garm-tools-sync"], by);
    let event = attrs!["event_type" => "controller", "operation" => "update"];
    env.say(Info, "got controller update event", event, by);
    if env.config.build.retries() {
        super::background::say_no_release("failed to sync GARM agent tools after controller update", env);
    } else {
        env.say(Warn, "tools sync is disabled, skipping force sync", attrs![], by);
    }
}
