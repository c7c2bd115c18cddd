//! Statuses as typed errors: one table for both servers. Adapters add what they know about the body.
//!
//! A 4xx is a refusal: the request had no effect. A 5xx or a redirect says nothing about the effect: the server may have
//! acted before the answer was made.

use super::excerpt::excerpt;
use super::limits::{refused_until, retry_after};
use super::{ApiError, Effect, Response};
use http::StatusCode;
use medic_core::model::{FailureKind, Now, Operation, Target};

/// The class of an answer that is not 2xx; `None` for 2xx.
pub fn classify(response: &Response, now: Now) -> Option<FailureKind> {
    let status = response.status;
    if status.is_success() {
        return None;
    }
    if refused_until(response, now.wall).is_some() {
        return Some(FailureKind::RateLimited);
    }
    Some(match status {
        StatusCode::UNAUTHORIZED => FailureKind::Unauthorized,
        StatusCode::FORBIDDEN => FailureKind::Forbidden,
        StatusCode::NOT_FOUND => FailureKind::NotFound,
        StatusCode::CONFLICT => FailureKind::Conflict,
        _ if status.is_client_error() => FailureKind::Rejected,
        _ if status.is_redirection() => FailureKind::Redirect,
        _ if status.is_server_error() => FailureKind::Server,
        _ => FailureKind::Malformed,
    })
}

/// The error of an answer that is not 2xx; `None` for 2xx.
pub fn failure(target: Target, operation: Operation, response: &Response, now: Now) -> Option<ApiError> {
    let kind = classify(response, now)?;
    let effect = if response.status.is_client_error() { Effect::None } else { Effect::Unknown };
    let retry_at = refused_until(response, now.wall).or_else(|| retry_after(&response.headers, now.wall));
    Some(ApiError { target, operation, kind, detail: describe(operation, response), effect, retry_at })
}

/// `HTTP 502 Bad Gateway: nginx`. The answer to a login may repeat the password in an unforeseen spelling.
fn describe(operation: Operation, response: &Response) -> String {
    let status = response.status;
    let name = status.canonical_reason().unwrap_or("unknown status");
    let said = match redirect_goal(response) {
        Some(goal) => format!("redirects to {goal}, which is never followed; configure the final address"),
        None if operation == Operation::Login && !response.body.is_empty() => {
            "the answer to a login is not repeated; see the server's log".to_owned()
        }
        None => excerpt(&response.body),
    };
    if said.is_empty() {
        format!("HTTP {} {name}, without a body", status.as_u16())
    } else {
        format!("HTTP {} {name}: {said}", status.as_u16())
    }
}

/// Where a 3xx with `Location` points, without credentials and query.
pub fn redirect_goal(response: &Response) -> Option<String> {
    if !response.status.is_redirection() {
        return None;
    }
    let location = response.headers.get(http::header::LOCATION)?;
    let text = String::from_utf8_lossy(location.as_bytes());
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let text = match text.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => text.to_owned(),
    };
    Some(super::excerpt::one_line(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::HeaderMap;
    use medic_core::model::{Mono, Span, Wall};

    const NOW: Now = Now { wall: Wall(1_700_000_000_000), mono: Mono(0) };

    fn answer(status: u16, body: &'static str) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn fail(response: &Response) -> ApiError {
        failure(Target::Github, Operation::ListGithubSets, response, NOW).unwrap()
    }

    #[test]
    fn failure_has_the_class_effect_and_date_of_its_answer() {
        let table = [
            (400, FailureKind::Rejected, Effect::None),
            (401, FailureKind::Unauthorized, Effect::None),
            (403, FailureKind::Forbidden, Effect::None),
            (404, FailureKind::NotFound, Effect::None),
            (409, FailureKind::Conflict, Effect::None),
            (422, FailureKind::Rejected, Effect::None),
            (429, FailureKind::RateLimited, Effect::None),
            (302, FailureKind::Redirect, Effect::Unknown),
            (500, FailureKind::Server, Effect::Unknown),
            (503, FailureKind::Server, Effect::Unknown),
        ];
        for (status, kind, effect) in table {
            let error = fail(&answer(status, ""));
            assert_eq!((error.kind, error.effect), (kind, effect), "{status}");
        }
        assert!(failure(Target::Github, Operation::ListGithubSets, &answer(204, ""), NOW).is_none());
        let mut busy = answer(503, "");
        busy.headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(fail(&busy).retry_at, Some(NOW.wall.plus(Span::secs(7))));
    }

    #[test]
    fn failure_detail_holds_an_excerpt_of_the_body() {
        assert_eq!(
            fail(&answer(502, "<html><h1>Bad\nGateway</h1></html>")).to_string(),
            "github list_github_sets: server: HTTP 502 Bad Gateway: Bad Gateway"
        );
        assert_eq!(fail(&answer(404, "")).detail, "HTTP 404 Not Found, without a body");
    }

    #[test]
    fn redirect_goal_has_no_credentials_and_no_query() {
        let mut moved = answer(301, "");
        moved.headers.insert("location", "https://user:pw@garm.example/login?token=abc".parse().unwrap());
        let detail = fail(&moved).detail;
        assert!(detail.contains("https://garm.example/login,"), "{detail}");
        assert!(!detail.contains("pw") && !detail.contains("abc"), "{detail}");
    }
}
