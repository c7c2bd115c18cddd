#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! GARM's database: scale sets and instances, which outlive the process, and how the API renders them
//! (`reference/garm-api.md` §6.2, §7): zero values are left out, a missing `enabled` means disabled.

use super::config::GarmConfig;
use super::log::date;
use crate::model::{Entity, EntityKind, Span, Wall};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One scale set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SetRow {
    pub id: u64,
    pub forge_id: u64,
    pub name: String,
    pub entity: Entity,
    pub entity_id: String,
    pub enabled: bool,
    pub max_runners: u64,
    pub min_idle_runners: u64,
    pub desired: u64,
    pub last_message: u64,
    pub bootstrap_timeout: u64,
    pub extended_state: String,
    pub created: Wall,
    pub updated: Wall,
}

/// One instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InstanceRow {
    pub uuid: String,
    pub name: String,
    pub agent: u64,
    pub set: u64,
    pub status: &'static str,
    pub runner_status: &'static str,
    pub created: Wall,
    pub updated: Wall,
}

/// One job, as its last message told it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobRow {
    pub uuid: String,
    pub name: String,
    pub run: u64,
    pub owner: String,
    pub repository: String,
    pub label: String,
    pub status: &'static str,
    pub conclusion: String,
    pub runner: String,
}

/// The database.
#[derive(Debug, Default)]
pub(super) struct Db {
    pub sets: BTreeMap<u64, SetRow>,
    pub instances: BTreeMap<String, InstanceRow>,
    pub jobs: BTreeMap<u64, JobRow>,
    pub entities: BTreeMap<String, (Entity, String)>,
    serial: u64,
}

impl Db {
    /// A reproducible number, never twice the same.
    pub(super) fn next(&mut self) -> u64 {
        self.serial = self.serial.saturating_add(1);
        self.serial
    }

    /// A job's number.
    pub(super) fn next_job(&self) -> u64 {
        self.jobs.keys().next_back().copied().unwrap_or(0).saturating_add(1)
    }

    pub(super) fn add_set(&mut self, entity: &Entity, name: &str, forge_id: u64, now: Wall) -> u64 {
        let key = format!("{:?} {}", entity.kind, entity.name);
        let serial = self.next();
        let fresh = (entity.clone(), uuid(serial));
        let entity_id = self.entities.entry(key).or_insert(fresh).1.clone();
        let id = self.sets.keys().next_back().copied().unwrap_or(0).saturating_add(1);
        self.sets.insert(
            id,
            SetRow {
                id,
                forge_id,
                name: name.to_owned(),
                entity: entity.clone(),
                entity_id,
                enabled: true,
                max_runners: 5,
                min_idle_runners: 0,
                desired: 0,
                last_message: 0,
                bootstrap_timeout: 20,
                extended_state: String::new(),
                created: now,
                updated: now,
            },
        );
        id
    }

    /// A set as the API renders it alone and in events: with its instances, whose provider is left empty.
    pub(super) fn whole(&self, set: u64, config: &GarmConfig) -> Value {
        let mut row = self.sets.get(&set).map_or(Value::Null, |row| row.json(config));
        let instances: Vec<Value> = self.instances.values().filter(|i| i.set == set).map(InstanceRow::json).collect();
        if let Value::Object(row) = &mut row {
            row.insert("template_name".to_owned(), json!("github_linux"));
            if !instances.is_empty() {
                let mut instances = Value::Array(instances);
                for instance in instances.as_array_mut().into_iter().flatten() {
                    instance["provider_name"] = json!("");
                }
                row.insert("instances".to_owned(), instances);
            }
        }
        row
    }

    /// Instances of a set that have not been removed.
    pub(super) fn runners(&self, set: u64) -> u64 {
        let of_set = self.instances.values().filter(|row| row.set == set && row.status != "deleted");
        u64::try_from(of_set.count()).unwrap_or(u64::MAX)
    }
}

impl SetRow {
    /// Its worker's name.
    pub(super) fn worker(&self) -> String {
        format!("scaleset-worker-{}-{}", self.name, self.id)
    }

    /// Its controller's name.
    pub(super) fn controller(&self) -> String {
        format!("scaleset-controller-{}", self.entity_id)
    }

    /// As the API renders it in lists.
    pub(super) fn json(&self, config: &GarmConfig) -> Value {
        let mut row = Map::new();
        let mut put = |key: &str, value: Value| drop(row.insert(key.to_owned(), value));
        put("runner_prefix", json!("garm"));
        put("created_at", json!(date(self.created)));
        put("updated_at", json!(date(self.updated)));
        put("id", json!(self.id));
        if self.forge_id > 0 {
            put("scale_set_id", json!(self.forge_id));
        }
        put("name", json!(self.name));
        put("disable_update", json!(false));
        put("state", json!("pending_create"));
        if !self.extended_state.is_empty() {
            put("extended_state", json!(self.extended_state));
        }
        put("provider_name", json!("stub"));
        for (key, number) in [("max_runners", self.max_runners), ("min_idle_runners", self.min_idle_runners)] {
            if number > 0 {
                put(key, json!(number));
            }
        }
        put("image", json!("ubuntu:22.04"));
        put("flavor", json!("default"));
        put("os_type", json!("linux"));
        put("os_arch", json!("amd64"));
        if self.enabled {
            put("enabled", json!(true));
        }
        if self.desired > 0 {
            put("desired_runner_count", json!(self.desired));
        }
        put("enable_shell", json!(false));
        put("generation", json!(0));
        put("endpoint", endpoint(config));
        put("runner_bootstrap_timeout", json!(self.bootstrap_timeout));
        put("github-runner-group", json!("Default"));
        put("status_messages", Value::Null);
        let (id, name) = match self.entity.kind {
            EntityKind::Repository => ("repo_id", "repo_name"),
            EntityKind::Organization => ("org_id", "org_name"),
            EntityKind::Enterprise => ("enterprise_id", "enterprise_name"),
        };
        put(id, json!(self.entity_id));
        put(name, json!(self.entity.name));
        put("template_id", json!(2));
        Value::Object(row)
    }
}

impl InstanceRow {
    pub(super) fn json(&self) -> Value {
        let mut row = json!({
            "id": self.uuid,
            "provider_id": self.name,
            "provider_name": "stub",
            "name": self.name,
            "os_type": "linux",
            "os_name": "ubuntu",
            "os_version": "22.04",
            "os_arch": "amd64",
            "status": self.status,
            "runner_status": self.runner_status,
            "scale_set_id": self.set,
            "created_at": date(self.created),
            "updated_at": date(self.updated),
            "github-runner-group": "Default",
            "heartbeat": "0001-01-01T00:00:00Z",
            "capabilities": {"has_shell": false},
            "generation": 0,
        });
        if self.agent > 0 {
            row["agent_id"] = json!(self.agent);
        }
        row
    }
}

fn endpoint(config: &GarmConfig) -> Value {
    let origin = &config.github_origin;
    let made = "2026-11-23T18:45:32.022214692Z";
    json!({
        "name": ENDPOINT,
        "description": "x",
        "api_base_url": format!("{origin}/api/v3"),
        "upload_base_url": format!("{origin}/api/uploads"),
        "base_url": origin,
        "created_at": made,
        "updated_at": made,
        "endpoint_type": "github",
    })
}

/// The endpoint's name at the manager.
pub(super) const ENDPOINT: &str = "github.com";

/// A reproducible UUID.
pub(super) fn uuid(n: u64) -> String {
    let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bytes = (u128::from(n) << 64) | u128::from(n.rotate_left(29) ^ 0x6A09_E667_F3BC_C908);
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
}

/// GARM's dates are those of the write; two writes never share one.
pub(super) fn later(updated: Wall, now: Wall) -> Wall {
    now.max(updated.plus(Span::millis(1)))
}
