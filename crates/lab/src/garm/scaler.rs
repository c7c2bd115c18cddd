//! Runners: a worker scales them every 5 s, the provider makes and removes instances (`docs/reference/garm-api.md` §7,
//! §11). A removed instance stays in the database as `deleted` until the worker of its set removes the row: without a
//! worker it lingers.

use super::calls::{Ask, at_once};
use super::config::LogLevel::{Debug, Error};
use super::db::{InstanceRow, InstanceStatus, SetRow};
use super::env::{Env, Operation};
use super::log::{By, attrs};
use super::process::{Process, Task};
use medic_core::model::Span;
use serde_json::Value;

/// From the provider's answer to the row.
const PROVIDER_TALK: Span = Span::millis(80);

impl Process {
    /// Puts the worker's next tick on the agenda: they come every tick since it began.
    pub(super) fn scale_soon(&mut self, set: u64, env: &Env<'_>) {
        let tick = env.config.tick.max(Span::millis(1)).as_millis();
        let Some(worker) = self.workers.get_mut(&set).filter(|worker| worker.scales_at.is_none()) else { return };
        let ticks = env.now.since(worker.born).as_millis() / tick;
        let when = worker.born.plus(Span::millis(ticks.saturating_add(1).saturating_mul(tick)));
        worker.scales_at = Some(when);
        let number = worker.number;
        self.at(when, Task::Scale(set, number));
    }

    pub(super) fn scale(&mut self, id: u64, number: u64, env: &mut Env<'_>) {
        let Some(set) = env.db.set(id) else { return };
        let has_tools = self.tools.contains(&set.entity.number);
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.number == number) else { return };
        worker.scales_at = None;
        if !worker.runs || !has_tools {
            self.scale_soon(id, env);
            return;
        }
        let enabled = worker.known.enabled;
        let current = env.db.runners(id);
        let target = set.desired.min(set.max_runners);
        let numbers = attrs!["current_runners" => current, "target_runners" => target];
        if current == target || (current < target && !enabled) {
            return;
        }
        if current < target {
            env.say(Debug, "scaling up", numbers, By::Worker(&set));
            self.make_runners(&set, target.saturating_sub(current), env);
        } else {
            env.say(Debug, "attempting to scale down", numbers, By::Worker(&set));
            self.remove_idle(&set, current.saturating_sub(target), env);
        }
        self.scale_soon(id, env);
    }

    /// One client for all runners; an error ends the loop.
    fn make_runners(&mut self, set: &SetRow, count: u64, env: &mut Env<'_>) {
        let mut service = None;
        for _ in 0..count {
            let name = env.db.runner_name();
            let ask = Ask::JitConfig(name.clone());
            let body = match at_once(env, &mut self.counters, set, ask, service.take()) {
                Ok((body, kept)) => {
                    service = kept;
                    body
                }
                Err(failure) => {
                    let text = failure.map_or_else(|| "context canceled".to_owned(), |failure| failure.text);
                    env.say(Error, "error scaling up", attrs!["error" => text], By::Worker(set));
                    return;
                }
            };
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let agent = body.pointer("/runner/id").and_then(Value::as_u64).unwrap_or(0);
            let (id, updated) = (env.db.next(), env.db.stamp(env.now));
            let row = InstanceRow {
                uuid: env.db.uuid(),
                name,
                agent,
                set: set.id,
                status: InstanceStatus::PendingCreate,
                runner_status: "pending",
                updated,
            };
            env.db.instances.insert(id, row);
            env.instance_changed(id, Operation::Create);
            self.at(env.now.plus(env.config.provider), Task::Instance(id));
        }
    }

    /// Runners that have no job.
    fn remove_idle(&mut self, set: &SetRow, count: u64, env: &mut Env<'_>) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let idle = env
            .db
            .instances_of(set.id)
            .filter(|(_, row)| row.status == InstanceStatus::Running && row.runner_status != "active");
        for (id, agent) in idle.map(|(id, row)| (id, row.agent)).take(count).collect::<Vec<_>>() {
            if at_once(env, &mut self.counters, set, Ask::RemoveRunner(agent), None).is_ok() {
                self.give_up_instance(id, env);
            }
        }
    }

    /// An instance is to be removed by the provider.
    pub(super) fn give_up_instance(&mut self, id: u64, env: &mut Env<'_>) {
        env.db.write_instance(id, env.now, |row| {
            (row.status, row.runner_status) = (InstanceStatus::PendingDelete, "terminated");
        });
        env.instance_changed(id, Operation::Update);
        self.at(env.now.plus(env.config.provider), Task::Instance(id));
    }

    /// The provider's next step with an instance.
    pub(super) fn step_instance(&mut self, id: u64, env: &mut Env<'_>) {
        let Some(row) = env.db.instances.get(&id) else { return };
        let set = row.set;
        let next = match row.status {
            InstanceStatus::PendingCreate => InstanceStatus::Creating,
            InstanceStatus::Creating => InstanceStatus::Running,
            InstanceStatus::PendingDelete => InstanceStatus::Deleting,
            InstanceStatus::Deleting => InstanceStatus::Deleted,
            InstanceStatus::Running | InstanceStatus::Deleted => return,
        };
        env.db.write_instance(id, env.now, |row| row.status = next);
        env.instance_changed(id, Operation::Update);
        match next {
            InstanceStatus::Creating | InstanceStatus::Deleting => {
                self.at(env.now.plus(PROVIDER_TALK), Task::Instance(id));
            }
            InstanceStatus::Deleted if self.workers.get(&set).is_some_and(|worker| worker.runs) => {
                env.remove_instance(id);
                self.scale_soon(set, env);
            }
            InstanceStatus::PendingCreate
            | InstanceStatus::Running
            | InstanceStatus::PendingDelete
            | InstanceStatus::Deleted => {}
        }
    }
}

/// A worker that starts removes the deleted instances of its set.
pub(super) fn reconcile_instances(set: &SetRow, env: &mut Env<'_>) {
    let deleted = env.db.instances_of(set.id).filter(|(_, row)| row.status == InstanceStatus::Deleted);
    for id in deleted.map(|(id, _)| id).collect::<Vec<_>>() {
        env.remove_instance(id);
    }
}
