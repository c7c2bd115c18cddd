#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! Jobs and runners: what a message says of jobs, and how a living worker brings its runners to their number
//! (`reference/garm-api.md` §7, §11). While a set has no worker, its instances stay as they are, the deleted too.

use super::config::LogLevel::{Debug, Info};
use super::db::{InstanceRow, JobRow, SetRow, uuid};
use super::process::{Process, Step, Task, of_listener, of_worker, with};
use crate::model::Span;
use serde_json::{Value, json};
use std::cmp::Ordering;

/// Runners that one look makes at most.
const MADE_AT_ONCE: u64 = 100;

impl Process {
    /// Every 5 s a living worker removes what is deleted and makes what is missing.
    pub(super) fn scale(&mut self, set: u64, step: &mut Step<'_>) {
        let Some(row) = step.db.sets.get(&set).cloned() else { return };
        if !self.workers.contains_key(&set) {
            return;
        }
        let gone: Vec<_> = step
            .db
            .instances
            .values()
            .filter(|i| i.set == set && i.status == "deleted")
            .map(|i| i.name.clone())
            .collect();
        for name in gone {
            if let Some(instance) = step.db.instances.remove(&name) {
                step.events.push(json!({"entity-type": "instance", "operation": "delete", "payload": instance.json()}));
            }
        }
        let target = row.desired.saturating_add(row.min_idle_runners).min(row.max_runners);
        let current = step.db.runners(set);
        self.say_runners(&row, (current, target), step);
        if row.enabled {
            for _ in current..target.min(current.saturating_add(MADE_AT_ONCE)) {
                self.make_runner(&row, step);
            }
        }
        self.at(step.now.plus(Span::secs(5)), Task::Scale(set));
    }

    /// Said when it changes.
    fn say_runners(&mut self, row: &SetRow, (current, target): (u64, u64), step: &mut Step<'_>) {
        let Some(worker) = self.workers.get_mut(&row.id) else { return };
        if worker.said_runners.replace((current, target)) == Some((current, target)) {
            return;
        }
        let msg = match current.cmp(&target) {
            Ordering::Less => "scaling up",
            Ordering::Equal => "desired runner count reached",
            Ordering::Greater => "attempting to scale down",
        };
        let attributes = vec![("current_runners", json!(current)), ("target_runners", json!(target))];
        step.say(Debug, msg, with(attributes, of_worker(row)));
    }

    fn make_runner(&mut self, row: &SetRow, step: &mut Step<'_>) {
        let serial = step.db.next();
        let name = format!("garm-{serial:012x}");
        let Ok(service) = self.service(row, step) else { return };
        self.counters.begin("GenerateJitRunnerConfig", row.entity.kind);
        let Some(agent) = step.caller().jit(row, &name, &service) else {
            self.counters.fail("GenerateJitRunnerConfig", row.entity.kind);
            return;
        };
        let instance = InstanceRow {
            uuid: uuid(serial),
            name: name.clone(),
            agent,
            set: row.id,
            status: "pending_create",
            runner_status: "pending",
            created: step.now,
            updated: step.now,
        };
        step.events.push(json!({"entity-type": "instance", "operation": "create", "payload": instance.json()}));
        step.db.instances.insert(name.clone(), instance);
        self.at(step.now.plus(step.config.provider), Task::Provided(name));
    }
}

/// The provider brought an instance up, or took it down.
pub(super) fn provided(name: &str, step: &mut Step<'_>) {
    let Some(instance) = step.db.instances.get_mut(name) else { return };
    instance.status = match instance.status {
        "pending_create" => "running",
        "pending_delete" => "deleted",
        other => other,
    };
    instance.updated = step.now;
    step.events.push(json!({"entity-type": "instance", "operation": "update", "payload": instance.json()}));
}

pub(super) fn job_message(row: &SetRow, job: &Value, step: &mut Step<'_>) {
    let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, runner) = (text("messageType"), text("runnerName"));
    let mut attributes = vec![("job_id", json!(text("jobId"))), ("job_name", json!(text("jobDisplayName")))];
    if !runner.is_empty() {
        attributes.push(("runner_name", json!(runner)));
    }
    let msg = match kind.as_str() {
        "JobAvailable" => "job available",
        "JobAssigned" => "new job assigned",
        "JobStarted" => "job started",
        "JobCompleted" => "job completed",
        _ => return,
    };
    step.say(Info, msg, with(attributes, of_listener(row)));
    record(job, msg, step);
    let Some(instance) = step.db.instances.get_mut(&runner) else { return };
    match kind.as_str() {
        "JobStarted" => instance.runner_status = "active",
        "JobCompleted" => instance.status = "deleted",
        _ => {}
    }
    instance.updated = step.now;
}

/// Jobs are kept, as the original keeps them, for a while.
const JOBS_KEPT: usize = 1_000;

fn record(job: &Value, msg: &str, step: &mut Step<'_>) {
    let text = |name: &str| job.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let uuid = text("jobId");
    let known = step.db.jobs.iter().find(|(_, row)| row.uuid == uuid).map(|(id, _)| *id);
    let id = known.unwrap_or_else(|| step.db.next_job());
    let status = match msg {
        "job started" => "in_progress",
        "job completed" => "completed",
        _ => "queued",
    };
    step.db.jobs.insert(
        id,
        JobRow {
            uuid,
            name: text("jobDisplayName"),
            run: job.get("workflowRunId").and_then(Value::as_u64).unwrap_or_default(),
            owner: text("ownerName"),
            repository: text("repositoryName"),
            label: job.pointer("/requestLabels/0").and_then(Value::as_str).unwrap_or_default().to_owned(),
            status,
            conclusion: text("result"),
            runner: text("runnerName"),
        },
    );
    while step.db.jobs.len() > JOBS_KEPT {
        step.db.jobs.pop_first();
    }
}
