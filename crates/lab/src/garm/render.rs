//! Rows as the API and the events show them (`docs/reference/garm-api.md` §4-§7), with the original's order of fields.
//! Zero values are left out where the original leaves them out: a missing `enabled` means disabled.

use super::GarmConfig;
use super::db::{Db, EntityRow, InstanceRow, JobRow, SetRow};
use super::stamp::Stamp;
use medic_core::model::EntityKind;
use serde::Serialize;
use serde_json::Value;

const NIL_UUID: &str = "00000000-0000-0000-0000-000000000000";
/// The system's template for Linux on GitHub.
const TEMPLATE: (u64, &str) = (2, "github_linux");

/// How much of a set is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// In `GET /scalesets`.
    Listed,
    /// In the list of its entity: a zero `endpoint`.
    ListedByEntity,
    /// Alone: with its instances and the template's name.
    Whole,
    /// In the events that a message causes: a zero `endpoint`, no template's name.
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

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_base_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    upload_base_url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    base_url: String,
    created_at: String,
    updated_at: String,
    #[serde(rename = "endpoint_type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
}

impl<'a> Endpoint<'a> {
    fn of(config: &'a GarmConfig, db: &Db) -> Self {
        Self {
            name: &config.endpoint,
            description: "x",
            api_base_url: config.api_base(),
            upload_base_url: config.upload_base(),
            base_url: config.github_origin.clone(),
            created_at: db.endpoint_made.nano(),
            updated_at: db.endpoint_made.nano(),
            kind: "github",
        }
    }

    /// The endpoint that every GARM has.
    fn github_com(db: &Db) -> Self {
        Self {
            name: "github.com",
            description: "The github.com endpoint",
            api_base_url: "https://api.github.com/".to_owned(),
            upload_base_url: "https://uploads.github.com/".to_owned(),
            base_url: "https://github.com".to_owned(),
            created_at: db.made.nano(),
            updated_at: db.made.nano(),
            kind: "github",
        }
    }

    fn nothing() -> Self {
        Self {
            name: "",
            description: "",
            api_base_url: String::new(),
            upload_base_url: String::new(),
            base_url: String::new(),
            created_at: Stamp::NEVER.nano(),
            updated_at: Stamp::NEVER.nano(),
            kind: "",
        }
    }
}

#[derive(Serialize)]
struct Owner<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    repo_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repo_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enterprise_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enterprise_name: Option<&'a str>,
}

impl<'a> Owner<'a> {
    fn of(entity: &'a EntityRow) -> Self {
        let of_kind = |kind: EntityKind| (entity.entity.kind == kind).then_some(entity);
        let id = |kind| of_kind(kind).map(|entity| entity.uuid.as_str());
        let name = |kind| of_kind(kind).map(|entity| entity.entity.name.as_str());
        Self {
            repo_id: id(EntityKind::Repository),
            repo_name: name(EntityKind::Repository),
            org_id: id(EntityKind::Organization),
            org_name: name(EntityKind::Organization),
            enterprise_id: id(EntityKind::Enterprise),
            enterprise_name: name(EntityKind::Enterprise),
        }
    }
}

#[derive(Serialize)]
struct Tag<'a> {
    id: String,
    name: &'a str,
}

#[derive(Serialize)]
struct Set<'a> {
    runner_prefix: &'a str,
    created_at: String,
    updated_at: String,
    id: u64,
    #[serde(skip_serializing_if = "zero")]
    scale_set_id: u64,
    name: &'a str,
    disable_update: bool,
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    extended_state: &'a str,
    provider_name: &'a str,
    #[serde(skip_serializing_if = "zero")]
    max_runners: u64,
    #[serde(skip_serializing_if = "zero")]
    min_idle_runners: u64,
    image: &'a str,
    flavor: &'a str,
    os_type: &'a str,
    os_arch: &'a str,
    #[serde(skip_serializing_if = "no")]
    enabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instances: Vec<Instance<'a>>,
    #[serde(skip_serializing_if = "zero")]
    desired_runner_count: u64,
    enable_shell: bool,
    generation: u64,
    endpoint: Endpoint<'a>,
    runner_bootstrap_timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_specs: Option<&'a Value>,
    #[serde(rename = "github-runner-group")]
    group: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Tag<'a>>,
    status_messages: (),
    #[serde(flatten)]
    owner: Owner<'a>,
    template_id: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    template_name: &'a str,
}

#[derive(Serialize)]
struct Capabilities {
    has_shell: bool,
}

#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    provider_id: &'a str,
    provider_name: &'a str,
    #[serde(skip_serializing_if = "zero")]
    agent_id: u64,
    name: &'a str,
    os_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    os_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    os_arch: &'a str,
    status: &'a str,
    runner_status: &'a str,
    scale_set_id: u64,
    created_at: String,
    updated_at: String,
    #[serde(rename = "github-runner-group")]
    group: &'a str,
    heartbeat: String,
    capabilities: Capabilities,
    generation: u64,
}

impl<'a> Instance<'a> {
    fn of(row: &'a InstanceRow, provider_name: &'a str) -> Self {
        let (provider_id, os_name, os_version) =
            if row.provided { (row.name.as_str(), "ubuntu", "22.04") } else { ("", "", "") };
        Self {
            id: &row.uuid,
            provider_id,
            provider_name,
            agent_id: row.agent,
            name: &row.name,
            os_type: "linux",
            os_name,
            os_version,
            os_arch: "amd64",
            status: row.status.as_str(),
            runner_status: row.runner_status,
            scale_set_id: row.set,
            created_at: row.created.nano(),
            updated_at: row.updated.nano(),
            group: "Default",
            heartbeat: Stamp::NEVER.nano(),
            capabilities: Capabilities { has_shell: false },
            generation: 0,
        }
    }
}

/// What a template with a name means in a view.
fn shown_template(view: View) -> &'static str {
    match view {
        View::Whole => TEMPLATE.1,
        View::Listed | View::ListedByEntity | View::AfterMessage => "",
    }
}

pub(super) fn set(config: &GarmConfig, db: &Db, row: &SetRow, view: View) -> String {
    let (endpoint, whole) = match view {
        View::Listed => (Endpoint::of(config, db), false),
        View::Whole => (Endpoint::of(config, db), true),
        View::ListedByEntity | View::AfterMessage => (Endpoint::nothing(), false),
    };
    // Embedded instances do not know their provider.
    let instances = db.instances_of(row.id).filter(|_| whole).map(|(_, row)| Instance::of(row, "")).collect();
    let tags = row.labels.iter().zip(1..).map(|(name, n)| Tag { id: super::stamp::uuid(row.id, n), name });
    text(&Set {
        runner_prefix: &row.prefix,
        created_at: row.created.nano(),
        updated_at: row.updated.nano(),
        id: row.id,
        scale_set_id: row.github_id,
        name: &row.name,
        disable_update: row.disable_update,
        state: &row.state,
        extended_state: &row.extended_state,
        provider_name: &row.provider,
        max_runners: row.max_runners,
        min_idle_runners: row.min_idle_runners,
        image: &row.image,
        flavor: &row.flavor,
        os_type: &row.os_type,
        os_arch: &row.os_arch,
        enabled: row.enabled,
        instances,
        desired_runner_count: row.desired,
        enable_shell: row.enable_shell,
        generation: row.generation,
        endpoint,
        runner_bootstrap_timeout: row.bootstrap_timeout,
        extra_specs: row.extra_specs.as_ref().filter(|_| whole),
        group: &row.group,
        tags: if view == View::AfterMessage { Vec::new() } else { tags.collect() },
        status_messages: (),
        owner: Owner::of(&row.entity),
        template_id: TEMPLATE.0,
        template_name: shown_template(view),
    })
}

/// An instance, as it is shown alone and in lists.
pub(super) fn instance(row: &InstanceRow) -> String {
    text(&Instance::of(row, "stub"))
}

pub(super) fn job(config: &GarmConfig, row: &JobRow) -> String {
    #[derive(Serialize)]
    struct Job<'a> {
        id: u64,
        scaleset_job_id: &'a str,
        run_id: u64,
        action: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        conclusion: &'a str,
        status: &'a str,
        name: &'a str,
        started_at: String,
        completed_at: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        runner_name: &'a str,
        runner_group_name: &'a str,
        repository_name: &'a str,
        repository_owner: &'a str,
        workflow_run_url: String,
        labels: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        repo_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        org_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        enterprise_id: Option<&'a str>,
        locked_by: &'a str,
        created_at: String,
        updated_at: String,
    }
    let owner = Owner::of(&row.entity);
    text(&Job {
        id: row.id,
        scaleset_job_id: &row.uuid,
        run_id: row.run_id,
        action: &row.action,
        conclusion: &row.conclusion,
        status: row.status,
        name: &row.name,
        started_at: Stamp::NEVER.nano(),
        completed_at: Stamp::NEVER.nano(),
        runner_name: &row.runner_name,
        runner_group_name: "Default",
        repository_name: &row.repository,
        repository_owner: &row.owner,
        workflow_run_url: format!(
            "{}/{}/{}/actions/runs/{}",
            config.github_origin, row.owner, row.repository, row.run_id
        ),
        labels: &row.labels,
        repo_id: owner.repo_id,
        org_id: owner.org_id,
        enterprise_id: owner.enterprise_id,
        locked_by: NIL_UUID,
        created_at: row.created.nano(),
        updated_at: row.updated.nano(),
    })
}

/// What GARM last heard of a credential's quota; `None`: nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rate {
    pub limit: u64,
    pub used: u64,
    pub remaining: u64,
    pub reset: u64,
}

#[derive(Serialize)]
struct RateLimit {
    #[serde(skip_serializing_if = "zero")]
    limit: u64,
    #[serde(skip_serializing_if = "zero")]
    used: u64,
    #[serde(skip_serializing_if = "zero")]
    remaining: u64,
    reset: i64,
}

/// The Unix time of Go's zero time.
pub(super) const ZERO_TIME: i64 = -62_135_596_800;

#[derive(Serialize)]
struct Credentials<'a> {
    id: u64,
    name: &'a str,
    description: &'a str,
    api_base_url: String,
    upload_base_url: String,
    base_url: &'a str,
    #[serde(rename = "auth-type")]
    auth_type: &'a str,
    forge_type: &'a str,
    endpoint: Endpoint<'a>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
}

impl<'a> Credentials<'a> {
    fn of(config: &'a GarmConfig, db: &Db) -> Self {
        Self {
            id: 1,
            name: "pat",
            description: "x",
            api_base_url: config.api_base(),
            upload_base_url: config.upload_base(),
            base_url: &config.github_origin,
            auth_type: "pat",
            forge_type: "github",
            endpoint: Endpoint::of(config, db),
            created_at: db.endpoint_made.nano(),
            updated_at: db.endpoint_made.nano(),
            rate_limit: None,
        }
    }
}

/// The list of credentials.
pub(super) fn credentials(config: &GarmConfig, db: &Db, rate: Option<Rate>) -> String {
    let rate_limit = match rate {
        Some(Rate { limit, used, remaining, reset }) => {
            RateLimit { limit, used, remaining, reset: i64::try_from(reset).unwrap_or(i64::MAX) }
        }
        None => RateLimit { limit: 0, used: 0, remaining: 0, reset: ZERO_TIME },
    };
    text(&[Credentials { rate_limit: Some(rate_limit), ..Credentials::of(config, db) }])
}

/// The list of forge endpoints.
pub(super) fn endpoints(config: &GarmConfig, db: &Db) -> String {
    if config.endpoint == "github.com" {
        return text(&[Endpoint::of(config, db)]);
    }
    text(&[Endpoint::github_com(db), Endpoint::of(config, db)])
}

/// A repository, organisation or enterprise.
pub(super) fn entity(config: &GarmConfig, db: &Db, row: &EntityRow, is_running: bool) -> String {
    #[derive(Serialize)]
    struct Status {
        #[serde(skip_serializing_if = "no")]
        running: bool,
    }
    #[derive(Serialize)]
    struct Shown<'a> {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<&'a str>,
        name: &'a str,
        credentials_name: &'a str,
        credentials: Credentials<'a>,
        credentials_id: u64,
        pool_manager_status: Status,
        pool_balancing_type: &'a str,
        endpoint: Endpoint<'a>,
        created_at: String,
        updated_at: String,
        agent_mode: bool,
    }
    let (owner, name) = match (row.entity.kind, row.entity.name.split_once('/')) {
        (EntityKind::Repository, Some((owner, name))) => (Some(owner), name),
        (EntityKind::Repository | EntityKind::Organization | EntityKind::Enterprise, _) => {
            (None, row.entity.name.as_str())
        }
    };
    text(&Shown {
        id: &row.uuid,
        owner,
        name,
        credentials_name: "pat",
        credentials: Credentials::of(config, db),
        credentials_id: 1,
        pool_manager_status: Status { running: is_running },
        pool_balancing_type: "roundrobin",
        endpoint: Endpoint::of(config, db),
        created_at: row.created.nano(),
        updated_at: row.updated.nano(),
        agent_mode: false,
    })
}

/// Controller information; the fields differ between the builds.
pub(super) fn controller(config: &GarmConfig, db: &Db) -> String {
    #[derive(Serialize)]
    struct Info<'a> {
        controller_id: &'a str,
        hostname: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        metadata_url: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        callback_url: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        webhook_url: &'a str,
        #[serde(skip_serializing_if = "String::is_empty")]
        controller_webhook_url: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        agent_url: &'a str,
        garm_agent_releases_url: &'a str,
        enable_agent_tools_sync: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        garm_agent_version: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        allow_insecure_garm_agent: Option<bool>,
        minimum_job_age_backoff: u64,
        version: &'a str,
    }
    let newer = config.build.retries();
    let webhook = &db.urls.webhook;
    text(&Info {
        controller_id: &config.controller_id,
        hostname: "vm",
        metadata_url: &db.urls.metadata,
        callback_url: &db.urls.callback,
        webhook_url: webhook,
        controller_webhook_url: if webhook.is_empty() {
            String::new()
        } else {
            format!("{webhook}/{}", config.controller_id)
        },
        agent_url: if db.urls.callback.is_empty() { "" } else { &config.own_origin },
        garm_agent_releases_url: super::background::RELEASES,
        enable_agent_tools_sync: false,
        garm_agent_version: newer.then_some(""),
        allow_insecure_garm_agent: newer.then_some(false),
        minimum_job_age_backoff: 30,
        version: config.build.version(),
    })
}

/// A JSON list of rendered elements; an empty one is `[]`.
pub(super) fn list(elements: impl IntoIterator<Item = String>) -> String {
    let elements: Vec<String> = elements.into_iter().collect();
    format!("[{}]", elements.join(","))
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
