//! Which route a request takes. REST lies under `/` and under `/api/v3`; runner registration is reached under both
//! too, because GARM drops the prefix (`docs/reference/actions-service.md` §1.5). The Actions service of an entity lies
//! under `/svc/<entity>/`, whatever the entity's form.

use http::Method;
use medic_core::model::closed::closed_enum;
use medic_core::model::{Entity, EntityKind};

closed_enum! {
    /// Every route, for faults and for counting.
    pub enum Route {
        /// `GET /rate_limit`. Costs no quota.
        RateLimit = "rate_limit",
        /// `POST /app/installations/{id}/access_tokens`.
        InstallationToken = "installation_token",
        /// `POST /{scope}/actions/runners/registration-token`.
        RegistrationToken = "registration_token",
        /// `POST /actions/runner-registration`.
        RunnerRegistration = "runner_registration",
        /// `GET /{scope}/actions/runners/downloads`.
        RunnerDownloads = "runner_downloads",
        /// E1 and E2.
        ListSets = "list_sets",
        /// E3.
        GetSet = "get_set",
        /// E4.
        CreateSet = "create_set",
        /// E6.
        DeleteSet = "delete_set",
        /// E8.
        JitConfig = "jit_config",
        /// E11.
        CreateSession = "create_session",
        /// E12.
        RefreshSession = "refresh_session",
        /// E13.
        DeleteSession = "delete_session",
        /// E14.
        Poll = "poll",
        /// E15.
        DeleteMessage = "delete_message",
        /// E19.
        DeleteAgent = "delete_agent",
        Unknown = "unknown",
    }
}

impl Route {
    /// Whether the route changes a scale set, a session, a message or a runner.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Self::CreateSet
                | Self::DeleteSet
                | Self::JitConfig
                | Self::CreateSession
                | Self::RefreshSession
                | Self::DeleteSession
                | Self::DeleteMessage
                | Self::DeleteAgent
        )
    }
}

/// An entity as the path of its web address: `org`, `owner/repo` or `enterprises/slug`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntityKey(String);

impl EntityKey {
    /// From the path of an entity's web address; slashes around it do not matter.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let path = path.trim_matches('/');
        let segments: Vec<&str> = path.split('/').collect();
        let plain = segments.iter().all(|segment| !segment.is_empty());
        (plain && segments.len() <= 2).then(|| Self(path.to_owned()))
    }

    /// Of an entity of the model.
    #[must_use]
    pub fn of(entity: &Entity) -> Self {
        match entity.kind {
            EntityKind::Repository | EntityKind::Organization => Self(entity.name.clone()),
            EntityKind::Enterprise => Self(format!("enterprises/{}", entity.name)),
        }
    }

    /// `org`, `owner/repo` or `enterprises/slug`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a path names, besides its route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Matched {
    pub(super) entity: Option<EntityKey>,
    pub(super) set: Option<u64>,
    /// Installation, agent or message.
    pub(super) number: Option<u64>,
    pub(super) session: Option<String>,
}

/// Where a request goes.
pub(super) fn route(method: &Method, path: &str) -> (Route, Matched) {
    if let Some(rest) = path.strip_prefix("/svc/") {
        return service_route(method, rest);
    }
    if let Some(rest) = path.strip_prefix("/scalesets/message") {
        return queue_route(method, rest);
    }
    rest_route(method, path.strip_prefix("/api/v3").unwrap_or(path))
}

fn rest_route(method: &Method, path: &str) -> (Route, Matched) {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (get, post) = (*method == Method::GET, *method == Method::POST);
    let nothing = Matched::default();
    match segments.as_slice() {
        ["rate_limit"] if get => (Route::RateLimit, nothing),
        ["actions", "runner-registration"] if post => (Route::RunnerRegistration, nothing),
        ["app", "installations", id, "access_tokens"] if post => {
            (Route::InstallationToken, Matched { number: id.parse().ok(), ..nothing })
        }
        ["repos", owner, name, rest @ ..] => scoped(method, &format!("{owner}/{name}"), rest),
        ["orgs", org, rest @ ..] => scoped(method, org, rest),
        ["enterprises", slug, rest @ ..] => scoped(method, &format!("enterprises/{slug}"), rest),
        _ => (Route::Unknown, nothing),
    }
}

fn scoped(method: &Method, entity: &str, rest: &[&str]) -> (Route, Matched) {
    let route = match rest {
        ["actions", "runners", "registration-token"] if *method == Method::POST => Route::RegistrationToken,
        ["actions", "runners", "downloads"] if *method == Method::GET => Route::RunnerDownloads,
        _ => Route::Unknown,
    };
    (route, Matched { entity: EntityKey::from_path(entity), ..Matched::default() })
}

fn service_route(method: &Method, rest: &str) -> (Route, Matched) {
    let Some((entity, api)) = rest.split_once("/_apis/") else {
        return (Route::Unknown, Matched::default());
    };
    let mut matched = Matched { entity: EntityKey::from_path(entity), ..Matched::default() };
    let segments: Vec<&str> = api.split('/').filter(|segment| !segment.is_empty()).collect();
    let route = match segments.as_slice() {
        ["runtime", "runnerscalesets", rest @ ..] => return set_route(method, matched, rest),
        ["distributedtask", "pools", "0", "agents", id] if *method == Method::DELETE => {
            matched.number = id.parse().ok();
            matched.number.map_or(Route::Unknown, |_| Route::DeleteAgent)
        }
        _ => Route::Unknown,
    };
    (route, matched)
}

fn set_route(method: &Method, mut matched: Matched, rest: &[&str]) -> (Route, Matched) {
    if let Some(id) = rest.first() {
        matched.set = id.parse().ok();
        if matched.set.is_none() {
            return (Route::Unknown, matched);
        }
    }
    let route = match (rest, method) {
        ([], &Method::GET) => Route::ListSets,
        ([], &Method::POST) => Route::CreateSet,
        ([_], &Method::GET) => Route::GetSet,
        ([_], &Method::DELETE) => Route::DeleteSet,
        ([_, "generatejitconfig"], &Method::POST) => Route::JitConfig,
        ([_, "sessions"], &Method::POST) => Route::CreateSession,
        ([_, "sessions", uuid], &Method::PATCH) => {
            matched.session = Some((*uuid).to_owned());
            Route::RefreshSession
        }
        ([_, "sessions", uuid], &Method::DELETE) => {
            matched.session = Some((*uuid).to_owned());
            Route::DeleteSession
        }
        _ => Route::Unknown,
    };
    (route, matched)
}

fn queue_route(method: &Method, rest: &str) -> (Route, Matched) {
    let rest = rest.trim_matches('/');
    let matched = Matched { number: rest.parse().ok(), ..Matched::default() };
    match (rest.is_empty(), matched.number, method) {
        (true, _, &Method::GET) => (Route::Poll, matched),
        (false, Some(_), &Method::DELETE) => (Route::DeleteMessage, matched),
        _ => (Route::Unknown, matched),
    }
}

/// The value of a query parameter, decoded.
pub(super) fn query(request: &crate::wire::Request, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.into_owned())
}
