//! Which route a request takes (`docs/reference/garm-api.md` §2-§10). Every route exists with and without a trailing
//! slash; a reverse proxy's path comes before all.

use crate::wire::Request;
use http::Method;
use medic_core::model::EntityKind;
use medic_core::model::closed::closed_enum;

closed_enum! {
    /// Every route of the manager, for faults and for tests.
    pub enum ManagerRoute {
        /// `POST /first-run`.
        FirstRun = "first_run",
        /// `POST /auth/login`.
        Login = "login",
        /// `GET /controller`, `GET /controller-info`.
        Controller = "controller",
        /// `PUT /controller`.
        UpdateController = "update_controller",
        /// `GET /metrics-token`.
        MetricsToken = "metrics_token",
        /// `GET /scalesets`.
        ListSets = "list_sets",
        /// `GET /scalesets/{id}`.
        GetSet = "get_set",
        /// `PUT /scalesets/{id}`.
        UpdateSet = "update_set",
        /// `DELETE /scalesets/{id}`.
        DeleteSet = "delete_set",
        /// `GET /scalesets/{id}/instances`.
        SetInstances = "set_instances",
        /// `GET /{entities}/{uuid}/scalesets`.
        EntitySets = "entity_sets",
        /// `POST /{entities}/{uuid}/scalesets`.
        CreateSet = "create_set",
        /// `GET /instances`.
        Instances = "instances",
        /// `GET /instances/{name}`.
        Instance = "instance",
        /// `GET /jobs`.
        Jobs = "jobs",
        /// `GET /{entities}`.
        Entities = "entities",
        /// `GET /{entities}/{uuid}`.
        Entity = "entity",
        /// `POST /{entities}`.
        CreateEntity = "create_entity",
        /// `GET /github/endpoints`.
        Endpoints = "endpoints",
        /// `POST /github/endpoints`.
        CreateEndpoint = "create_endpoint",
        /// `GET /github/credentials`.
        Credentials = "credentials",
        /// `POST /github/credentials`.
        CreateCredentials = "create_credentials",
        /// `GET /providers`.
        Providers = "providers",
        /// `GET /ws/logs`, `/ws`.
        LogSocket = "log_socket",
        /// `GET /ws/events`.
        EventSocket = "event_socket",
        /// `/metrics`.
        Metrics = "metrics",
        /// `/debug/pprof/goroutine`.
        Goroutines = "goroutines",
        /// A known path, an unknown method.
        WrongMethod = "wrong_method",
        /// Below `/api/v1`, and unknown.
        UnknownResource = "unknown_resource",
        /// Outside the API, and unknown.
        UnknownPage = "unknown_page",
    }
}

/// What a path names besides its route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Matched {
    /// The id or name in the path, as it stands there.
    pub id: String,
    pub kind: Option<EntityKind>,
}

impl Matched {
    /// The set that the path names, if it is a number.
    pub(super) fn set(&self) -> Option<u64> {
        self.id.parse().ok()
    }
}

pub(super) fn route(request: &Request, base_path: &str) -> (ManagerRoute, Matched) {
    let nothing = Matched::default();
    let Some(path) = request.uri().path().strip_prefix(base_path) else { return (ManagerRoute::UnknownPage, nothing) };
    let method = request.method();
    match path.trim_end_matches('/') {
        "/metrics" => return (ManagerRoute::Metrics, nothing),
        "/debug/pprof/goroutine" => return (ManagerRoute::Goroutines, nothing),
        _ => {}
    }
    let Some(rest) = path.strip_prefix("/api/v1") else { return (ManagerRoute::UnknownPage, nothing) };
    let segments: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
    api(method, &segments)
}

fn api(method: &Method, segments: &[&str]) -> (ManagerRoute, Matched) {
    use ManagerRoute as R;
    let by_method = |get: Option<R>, post: Option<R>, put: Option<R>, delete: Option<R>| {
        let route = match *method {
            Method::GET => get,
            Method::POST => post,
            Method::PUT => put,
            Method::DELETE => delete,
            _ => None,
        };
        route.unwrap_or(R::WrongMethod)
    };
    let get = |route| by_method(Some(route), None, None, None);
    let post = |route| by_method(None, Some(route), None, None);
    let id = |id: &str| Matched { id: id.to_owned(), kind: None };
    let nothing = Matched::default();
    match segments {
        ["first-run"] => (post(R::FirstRun), nothing),
        ["auth", "login"] => (post(R::Login), nothing),
        ["controller-info"] => (get(R::Controller), nothing),
        ["controller"] => (by_method(Some(R::Controller), None, Some(R::UpdateController), None), id("controller")),
        ["metrics-token"] => (get(R::MetricsToken), nothing),
        ["scalesets"] => (get(R::ListSets), nothing),
        ["scalesets", set] => (by_method(Some(R::GetSet), None, Some(R::UpdateSet), Some(R::DeleteSet)), id(set)),
        ["scalesets", set, "instances"] => (get(R::SetInstances), id(set)),
        ["instances"] => (get(R::Instances), nothing),
        ["instances", name] => (get(R::Instance), id(name)),
        ["jobs"] => (get(R::Jobs), nothing),
        ["providers"] => (get(R::Providers), nothing),
        ["github", "endpoints"] => (by_method(Some(R::Endpoints), Some(R::CreateEndpoint), None, None), nothing),
        ["github", "credentials"] | ["credentials"] => {
            (by_method(Some(R::Credentials), Some(R::CreateCredentials), None, None), nothing)
        }
        ["ws"] | ["ws", "logs"] => (get(R::LogSocket), nothing),
        ["ws", "events"] => (get(R::EventSocket), nothing),
        [entities, rest @ ..] => {
            let kind = match *entities {
                "repositories" => EntityKind::Repository,
                "organizations" => EntityKind::Organization,
                "enterprises" => EntityKind::Enterprise,
                _ => return (R::UnknownResource, nothing),
            };
            let named = |id: &str| Matched { id: id.to_owned(), kind: Some(kind) };
            match rest {
                [] => (by_method(Some(R::Entities), Some(R::CreateEntity), None, None), named("")),
                [uuid] => (get(R::Entity), named(uuid)),
                [uuid, "scalesets"] => (by_method(Some(R::EntitySets), Some(R::CreateSet), None, None), named(uuid)),
                _ => (R::UnknownResource, nothing),
            }
        }
        [] => (R::UnknownResource, nothing),
    }
}
