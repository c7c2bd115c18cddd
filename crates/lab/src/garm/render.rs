//! Rows as the API and the events show them (`docs/reference/garm-api.md` §4-§7): the fields that a client of scale
//! sets reads, and a few that it must skip. Zero values are left out where GARM leaves them out: a missing `enabled`
//! means disabled.

use super::GarmConfig;
use super::db::{Db, InstanceRow, SetRow};
use super::stamp::Stamp;
use medic_core::model::EntityKind;
use serde::Serialize;
use serde_json::json;

/// How much of a set is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    /// In the events that a message causes: a zero `endpoint`.
    AfterMessage,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn no(flag: &bool) -> bool {
    !*flag
}

#[derive(Default, Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_base_url: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    base_url: &'a str,
    updated_at: String,
}

impl<'a> Endpoint<'a> {
    fn of(config: &'a GarmConfig, db: &Db) -> Self {
        Self {
            name: &config.endpoint,
            api_base_url: config.api_base(),
            base_url: &config.github_origin,
            updated_at: db.endpoint_made.nano(),
        }
    }

    fn nothing() -> Self {
        Self { updated_at: Stamp::NEVER.nano(), ..Self::default() }
    }
}

#[derive(Serialize)]
struct Set<'a> {
    created_at: String,
    updated_at: String,
    id: u64,
    #[serde(skip_serializing_if = "zero")]
    scale_set_id: u64,
    name: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "zero")]
    max_runners: u64,
    #[serde(skip_serializing_if = "no")]
    enabled: bool,
    #[serde(skip_serializing_if = "zero")]
    desired_runner_count: u64,
    endpoint: Endpoint<'a>,
    status_messages: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    repo_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enterprise_name: Option<&'a str>,
}

pub(super) fn set(config: &GarmConfig, db: &Db, row: &SetRow, view: View) -> String {
    let entity = |kind| (row.entity.entity.kind == kind).then_some(row.entity.entity.name.as_str());
    text(&Set {
        created_at: row.created.nano(),
        updated_at: row.updated.nano(),
        id: row.id,
        scale_set_id: row.github_id,
        name: &row.name,
        state: "pending_create",
        max_runners: row.max_runners,
        enabled: row.enabled,
        desired_runner_count: row.desired,
        endpoint: match view {
            View::Whole => Endpoint::of(config, db),
            View::AfterMessage => Endpoint::nothing(),
        },
        status_messages: (),
        repo_name: entity(EntityKind::Repository),
        org_name: entity(EntityKind::Organization),
        enterprise_name: entity(EntityKind::Enterprise),
    })
}

pub(super) fn instance(row: &InstanceRow) -> String {
    json!({
        "id": row.uuid,
        "name": row.name,
        "status": row.status.as_str(),
        "runner_status": row.runner_status,
        "scale_set_id": row.set,
        "updated_at": row.updated.nano(),
    })
    .to_string()
}

/// What GARM last learned of its credential's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rate {
    pub limit: u64,
    pub remaining: u64,
    pub reset: u64,
}

pub(super) fn controller(config: &GarmConfig) -> String {
    json!({
        "controller_id": config.controller_id,
        "hostname": "vm",
        "minimum_job_age_backoff": 30,
        "version": config.build.version(),
    })
    .to_string()
}

/// A JSON list of rendered elements; an empty one is `[]`.
pub(super) fn list(elements: impl IntoIterator<Item = String>) -> String {
    let elements: Vec<String> = elements.into_iter().collect();
    format!("[{}]", elements.join(","))
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
