//! Writes of scale sets (`docs/reference/garm-api.md` §6.3-§6.5). Only changed columns are written: a PUT that changes
//! nothing writes nothing, leaves `updated_at` alone and wakes nobody. A PUT's 200 says that the row was written, and
//! nothing of any worker.

use super::Write;
use super::api::{Api, NOT_FOUND, line, refuse};
use super::background::say_client;
use super::calls::{self, Ask, Failure};
use super::config::LogLevel::{Error, Info};
use super::db::SetRow;
use super::env::Operation;
use super::log::{By, attrs};
use super::render::{self, View};
use crate::wire::Answer;
use medic_core::model::ScaleSetId;
use serde_json::{Value, json};
use std::sync::Arc;

/// PUTs kept for tests; the oldest are dropped.
const WRITES_KEPT: usize = 100_000;

impl Api<'_> {
    pub(super) fn update_set(&mut self) -> Answer {
        let Some(id) = self.matched.set() else { return self.bad_id() };
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let Some(before) = self.env.db.set(id) else {
            self.env.say(Error, "updating scale set", attrs!["error" => NOT_FOUND], By::Garm);
            return refuse(404, "Not Found", NOT_FOUND);
        };
        let mut after = (*before).clone();
        if let Err(words) = apply(&mut after, &body) {
            return refuse(400, "Bad Request", words);
        }
        self.build_client(&before);
        if let Some(change) = change_at_github(&before, &after) {
            let ask = Ask::UpdateSet(change);
            if let Err(failure) = calls::at_once(&mut self.env, &mut self.process.counters, &before, ask, None) {
                return refused_by_github(failure.as_ref());
            }
        }
        let write = Write {
            at: self.env.now,
            set: ScaleSetId(id),
            was: before.enabled,
            enabled: after.enabled,
            by: self.user_agent(),
        };
        if self.writes.len() >= WRITES_KEPT {
            self.writes.drain(..WRITES_KEPT / 2);
        }
        self.writes.push(write);
        if after != *before {
            self.env.db.write_set(id, self.env.now, |row| *row = after);
            self.env.set_changed(id, Operation::Update, View::Whole);
        }
        self.show(id)
    }

    fn show(&self, id: u64) -> Answer {
        match self.env.db.set(id) {
            Some(set) => line(render::set(self.env.config, self.env.db, &set, View::Whole)),
            None => refuse(404, "Not Found", NOT_FOUND),
        }
    }

    /// A client of GitHub asks for the quota as soon as it is built, whatever it is for; errors are ignored.
    fn build_client(&mut self, set: &SetRow) {
        say_client(&set.entity, &mut self.env);
        let _ = calls::rest(&mut self.env, "rate_limit");
    }

    pub(super) fn create_set(&mut self) -> Answer {
        let Some(entity) = self.named_entity() else { return self.no_entity() };
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let required = ["name", "provider_name", "image", "flavor"];
        let max_runners = body.get("max_runners").and_then(Value::as_u64).unwrap_or(0);
        if required.iter().any(|name| text(name).is_empty()) || max_runners == 0 {
            return refuse(400, "Bad Request", "missing required fields");
        }
        say_template(self);
        let id = self.env.db.add_set(&entity, text("name"), 0, self.env.now);
        let labels = body.get("labels").and_then(Value::as_array).into_iter().flatten();
        let labels: Vec<String> = labels.filter_map(Value::as_str).map(str::to_owned).collect();
        let Some(mut row) = self.env.db.set(id).map(Arc::unwrap_or_clone) else { return Answer::empty(500) };
        row.enabled = false;
        if let Err(words) = apply(&mut row, &body) {
            self.env.db.sets.remove(&id);
            return refuse(400, "Bad Request", words);
        }
        row.labels = labels;
        text("provider_name").clone_into(&mut row.provider);
        self.build_client(&row);
        let created = calls::at_once(&mut self.env, &mut self.process.counters, &row, Ask::CreateSet, None);
        let github_id = match created {
            Ok((body, _)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                body.get("id").and_then(Value::as_u64).unwrap_or(0)
            }
            Err(failure) => {
                self.env.db.sets.remove(&id);
                return refused_by_github(failure.as_ref());
            }
        };
        (row.github_id, row.updated) = (github_id, row.created);
        self.env.db.sets.insert(id, Arc::new(row));
        self.env.set_changed(id, Operation::Create, View::Whole);
        self.show(id)
    }

    /// An error of GitHub's is taken for success, and the row stays.
    pub(super) fn delete_set(&mut self) -> Answer {
        let Some(id) = self.matched.set() else { return self.bad_id() };
        let Some(set) = self.env.db.set(id) else { return Answer::empty(200) };
        if self.env.db.instances_of(id).next().is_some() {
            return refuse(400, "Bad Request", "scale set has runners");
        }
        if set.enabled {
            return refuse(400, "Bad Request", "scale set is enabled; disable it first");
        }
        self.build_client(&set);
        match calls::at_once(&mut self.env, &mut self.process.counters, &set, Ask::DeleteSet, None) {
            Ok(_) => {
                self.env.db.sets.remove(&id);
                self.env.set_deleted(set);
            }
            Err(_) => self.env.say(Info, "scale set not found", attrs!["scale_set_id" => id], By::Garm),
        }
        Answer::empty(200)
    }
}

fn say_template(api: &mut Api<'_>) {
    let attrs = attrs![
        "name" => "github_linux",
        "os_type" => "linux",
        "pool_os_type" => "linux",
        "forge_type" => "github",
        "pool_forge_type" => "github",
        "owner" => "system",
    ];
    api.env.say(Info, "considering template", attrs, By::Garm);
}

/// What a body changes. Absent keys and empty texts mean "keep"; `github-runner-group` is ignored, the key is
/// `runner_group`.
fn apply(row: &mut SetRow, body: &Value) -> Result<(), &'static str> {
    let text = |name: &str, field: &mut String| {
        if let Some(value) = body.get(name).and_then(Value::as_str).filter(|value| !value.is_empty()) {
            value.clone_into(field);
        }
    };
    let build = (row.image.clone(), row.flavor.clone(), row.os_type.clone(), row.os_arch.clone());
    text("name", &mut row.name);
    text("runner_prefix", &mut row.prefix);
    text("image", &mut row.image);
    text("flavor", &mut row.flavor);
    text("os_type", &mut row.os_type);
    text("os_arch", &mut row.os_arch);
    text("state", &mut row.state);
    text("extended_state", &mut row.extended_state);
    let group = row.group.clone();
    text("runner_group", &mut row.group);
    let flag = |name: &str, field: &mut bool| {
        if let Some(value) = body.get(name).and_then(Value::as_bool) {
            *field = value;
        }
    };
    let shell = row.enable_shell;
    flag("enabled", &mut row.enabled);
    flag("disable_update", &mut row.disable_update);
    flag("enable_shell", &mut row.enable_shell);
    let number = |name: &str, field: &mut u64| {
        if let Some(value) = body.get(name).and_then(Value::as_u64) {
            *field = value;
        }
    };
    number("max_runners", &mut row.max_runners);
    number("min_idle_runners", &mut row.min_idle_runners);
    number("runner_bootstrap_timeout", &mut row.bootstrap_timeout);
    let specs = row.extra_specs.clone();
    if let Some(value) = body.get("extra_specs").filter(|value| !value.is_null()) {
        row.extra_specs = Some(value.clone());
    }
    if row.min_idle_runners > row.max_runners {
        return Err("min_idle_runners cannot be larger than max_runners");
    }
    if row.bootstrap_timeout == 0 {
        return Err("runner_bootstrap_timeout cannot be 0");
    }
    let now = (row.image.clone(), row.flavor.clone(), row.os_type.clone(), row.os_arch.clone());
    if build != now || group != row.group || shell != row.enable_shell || specs != row.extra_specs {
        row.generation = row.generation.saturating_add(1);
    }
    Ok(())
}

/// GitHub is told only of these.
fn change_at_github(before: &SetRow, after: &SetRow) -> Option<Value> {
    let changed =
        before.name != after.name || before.group != after.group || before.disable_update != after.disable_update;
    changed.then(|| json!({"name": after.name, "runnerSetting": {"disableUpdate": after.disable_update}}))
}

fn refused_by_github(failure: Option<&Failure>) -> Answer {
    let text = failure.map(|failure| failure.text.as_str()).unwrap_or_default();
    match failure.and_then(|failure| failure.status) {
        Some(401 | 403) => refuse(401, "Not Authorized", ""),
        Some(404) => refuse(404, "Not Found", text),
        Some(400) => refuse(400, "Bad Request", text),
        Some(409) => refuse(409, "Conflict", text),
        Some(_) | None => refuse(500, "Server error", ""),
    }
}
