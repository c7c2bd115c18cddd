//! Which route a request takes (`docs/reference/garm-api.md` §2-§10). Every route exists with and without a trailing
//! slash.

use crate::wire::Request;
use http::Method;
use medic_core::model::closed::closed_enum;

closed_enum! {
    /// Every route of the manager, for faults and for tests.
    pub enum ManagerRoute {
        /// `POST /auth/login`.
        Login = "login",
        /// `GET /controller-info`.
        Controller = "controller",
        /// `GET /metrics-token`.
        MetricsToken = "metrics_token",
        /// `GET /scalesets`.
        ListSets = "list_sets",
        /// `GET /scalesets/{id}`.
        GetSet = "get_set",
        /// `PUT /scalesets/{id}`.
        UpdateSet = "update_set",
        /// `GET /instances`.
        Instances = "instances",
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

/// The route, and the id in the path as it is written there.
pub(super) fn route(request: &Request) -> (ManagerRoute, &str) {
    use ManagerRoute as R;
    let path = request.uri().path();
    match path.trim_end_matches('/') {
        "/metrics" => return (R::Metrics, ""),
        "/debug/pprof/goroutine" => return (R::Goroutines, ""),
        _ => {}
    }
    let Some(rest) = path.strip_prefix("/api/v1") else { return (R::UnknownPage, "") };
    let segments: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
    let (methods, id): (&[(Method, R)], &str) = match segments.as_slice() {
        ["auth", "login"] => (&[(Method::POST, R::Login)], ""),
        ["controller-info"] => (&[(Method::GET, R::Controller)], ""),
        ["metrics-token"] => (&[(Method::GET, R::MetricsToken)], ""),
        ["scalesets"] => (&[(Method::GET, R::ListSets)], ""),
        ["scalesets", set] => (&[(Method::GET, R::GetSet), (Method::PUT, R::UpdateSet)], set),
        ["instances"] => (&[(Method::GET, R::Instances)], ""),
        ["ws"] | ["ws", "logs"] => (&[(Method::GET, R::LogSocket)], ""),
        ["ws", "events"] => (&[(Method::GET, R::EventSocket)], ""),
        _ => return (R::UnknownResource, ""),
    };
    let found = methods.iter().find(|(method, _)| method == request.method());
    (found.map_or(R::WrongMethod, |(_, route)| *route), id)
}
