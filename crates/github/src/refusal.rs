//! GitHub's refusals (`docs/reference/actions-service.md` §6): which of its shapes an answer has, what it means, and
//! what an operator can do about it. A status without a body of GitHub's own shape may come from a proxy: it is an error
//! and says nothing about a set or a session.

use super::wire::WireError;
use http::StatusCode;
use medic_core::model::OpenAnswer;
use medic_core::model::{FailureKind, Operation, Owner};
use medic_http::client::without_bom;
use medic_http::excerpt::one_line;
use medic_http::{ApiError, Client, Response};

/// What both wordings of a conflict have in common (`docs/reference/failure-modes.md` §1d).
const CONFLICT: &str = "already has an active session";

/// The text before the owner in the second wording.
const HOLDER: &str = "already has an active session for owner ";

/// The error of an answer that is not 2xx.
pub(super) fn check_status(client: &Client, operation: Operation, response: &Response) -> Result<(), ApiError> {
    let Some(mut error) = client.failure(operation, response) else { return Ok(()) };
    if let Some(said) = parsed(response) {
        let parts = [said.class(), said.message()];
        let words = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        error.detail = one_line(&format!("HTTP {} {words}", response.status.as_u16()));
        if said.class() == "InvalidTokenException" && response.status.is_client_error() {
            error.kind = FailureKind::Unauthorized;
        }
    }
    error.detail = client.without_secrets(&error.detail);
    error.detail.push_str(advice(operation, error.kind));
    if let Some(id) = correlation(response) {
        error.detail = format!("{} (request {id})", error.detail);
    }
    Err(error)
}

/// Whether the set does not exist, in GitHub's own words.
pub(super) fn is_set_gone(response: &Response) -> bool {
    response.status == StatusCode::NOT_FOUND
        && parsed(response).is_some_and(|said| match said.class() {
            "" => !said.message().is_empty(),
            class => class == "RunnerScaleSetNotFoundException",
        })
}

/// Whether a session does not exist, in an answer to DELETE.
pub(super) fn is_session_gone(response: &Response) -> bool {
    let class_is = |wanted: &str| parsed(response).is_some_and(|said| said.class() == wanted);
    match response.status {
        StatusCode::BAD_REQUEST => class_is("RunnerScaleSetSessionExpiredException"),
        StatusCode::NOT_FOUND => is_set_gone(response) || class_is("RunnerAdminException"),
        _ => false,
    }
}

/// The answer that another session is open, if this is one. Only one of the two wordings names its owner.
pub(super) fn conflict(response: &Response) -> Option<OpenAnswer> {
    if response.status != StatusCode::CONFLICT {
        return None;
    }
    let said = parsed(response)?;
    let words = said.message();
    let is_conflict = said.class() == "RunnerScaleSetSessionConflictException" || words.contains(CONFLICT);
    let named = words.rsplit_once(HOLDER).map(|(_, owner)| one_line(owner.trim().trim_end_matches('.')));
    is_conflict.then(|| OpenAnswer::Held { owner: named.filter(|owner| !owner.is_empty()).map(Owner::new) })
}

fn parsed(response: &Response) -> Option<WireError> {
    serde_json::from_slice(without_bom(&response.body)).ok()
}

fn correlation(response: &Response) -> Option<String> {
    let header = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
    let id = header("activityid").or_else(|| header("x-github-request-id"))?;
    let known =
        !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | ':'));
    known.then(|| id.to_owned())
}

const fn advice(operation: Operation, kind: FailureKind) -> &'static str {
    match (operation, kind) {
        (Operation::InstallationToken, FailureKind::Unauthorized) => {
            "; check app_id, the private key and this machine's clock"
        }
        (Operation::InstallationToken, FailureKind::NotFound) => "; check installation_id: the App has no such one",
        (Operation::RegistrationToken, FailureKind::Unauthorized) => {
            "; the credential is refused: is it expired or revoked?"
        }
        (Operation::RegistrationToken, FailureKind::Forbidden) => {
            "; the credential may not manage the runners of this entity"
        }
        (Operation::RegistrationToken, FailureKind::NotFound) => {
            "; GitHub says so too of an entity that the credential may not manage"
        }
        (_, FailureKind::Unauthorized) => "; GitHub refuses a token that it has just issued",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use medic_clock::ScaledClock;
    use medic_core::model::{Span, Target, Wall};
    use medic_http::{Answer, Bounds, Effect, NoRecorder, Transport, TransportError};
    use std::sync::Arc;

    struct Nowhere;

    #[async_trait::async_trait]
    impl Transport for Nowhere {
        async fn send(&self, _: http::Request<Bytes>, _: Bounds) -> Answer {
            Err(TransportError { kind: FailureKind::Connect, detail: String::new() })
        }
    }

    fn client() -> Client {
        let clock = Arc::new(ScaledClock::new(Wall(1_700_000_000_000), 1.0));
        let bounds = Bounds { total: Span::secs(1), body: 1 };
        Client::new(Target::Github, Arc::new(Nowhere), Arc::new(NoRecorder), clock, bounds)
    }

    fn answer(status: u16, body: &str) -> Response {
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_has_the_kind_effect_and_detail_of_its_shape() {
        let html = "<html><title>502</title><body><h1>Bad gateway</h1></body></html>";
        let exception = |key: &str| format!(r#"{{"message":"No.","typeName":"A.B.{key}, A.B","typeKey":"{key}"}}"#);
        let table = [
            (401, exception("InvalidTokenException"), FailureKind::Unauthorized, "HTTP 401 InvalidTokenException: No."),
            (400, exception("InvalidTokenException"), FailureKind::Unauthorized, "HTTP 400 InvalidTokenException: No."),
            (404, exception("RunnerScaleSetNotFoundException"), FailureKind::NotFound, "HTTP 404 RunnerScaleSetNot"),
            (409, exception("RunnerScaleSetSessionConflictException"), FailureKind::Conflict, "HTTP 409 RunnerScale"),
            (400, exception("RunnerScaleSetExistsException"), FailureKind::Rejected, "HTTP 400 RunnerScaleSetExists"),
            (400, r#"{"errorKind":"K","errorMessage":"No."}"#.to_owned(), FailureKind::Rejected, "HTTP 400 K: No."),
            (403, r#"{"message":"No right","status":"403"}"#.to_owned(), FailureKind::Forbidden, "HTTP 403 No right"),
            (403, r#"{"message":"API rate limit"}"#.to_owned(), FailureKind::RateLimited, "HTTP 403 API rate limit"),
            (429, String::new(), FailureKind::RateLimited, "HTTP 429 Too Many Requests, without a body"),
            (404, "404 page not found\n".to_owned(), FailureKind::NotFound, "HTTP 404 Not Found: 404 page not found"),
            (401, String::new(), FailureKind::Unauthorized, "HTTP 401 Unauthorized, without a body"),
            (502, html.to_owned(), FailureKind::Server, "HTTP 502 Bad Gateway: 502"),
            (500, exception("AException"), FailureKind::Server, "HTTP 500 AException: No."),
            (302, String::new(), FailureKind::Redirect, "HTTP 302"),
        ];
        for (status, body, kind, words) in table {
            let error = check_status(&client(), Operation::ListGithubSets, &answer(status, &body)).unwrap_err();
            assert_eq!(error.kind, kind, "{status} {body}");
            assert!(error.detail.starts_with(words), "{} is not {words}", error.detail);
            let unknown = !(400..500).contains(&status);
            assert_eq!(error.effect == Effect::Unknown, unknown, "{status} {body}");
        }
        assert_eq!(check_status(&client(), Operation::ListGithubSets, &answer(204, "")), Ok(()));
    }

    #[test]
    fn conflict_is_found_in_both_wordings() {
        let said = |message: &str| conflict(&answer(409, &format!(r#"{{"message":"{message}"}}"#)));
        let anonymous = Some(OpenAnswer::Held { owner: None });
        assert_eq!(said("The actions runner scaleset a already has an active session."), anonymous);
        let owner = said("The runner scale set a already has an active session for owner garm-1.");
        assert_eq!(owner, Some(OpenAnswer::Held { owner: Some(Owner::new("garm-1")) }));
        assert_eq!(said("Something else."), None);
        assert_eq!(conflict(&answer(409, "")), None);
        let bare = answer(409, r#"{"typeName":"A.RunnerScaleSetSessionConflictException, A"}"#);
        assert_eq!(conflict(&bare), anonymous);
        assert_eq!(conflict(&answer(400, r#"{"message":"a already has an active session."}"#)), None);
    }

    #[test]
    fn gone_needs_githubs_own_error() {
        let gone = |status, body: &str| {
            let answer = answer(status, body);
            (is_set_gone(&answer), is_session_gone(&answer))
        };
        assert_eq!(gone(404, r#"{"typeKey":"RunnerScaleSetNotFoundException"}"#), (true, true));
        assert_eq!(gone(404, r#"{"typeKey":"RunnerAdminException"}"#), (false, true));
        assert_eq!(gone(400, r#"{"typeKey":"RunnerScaleSetSessionExpiredException"}"#), (false, true));
        assert_eq!(gone(400, r#"{"typeKey":"VssPropertyValidationException"}"#), (false, false));
        assert_eq!(gone(404, r#"{"message":"Not Found"}"#), (true, true));
        for proxy in ["", "404 page not found\n", "<html></html>", "{}"] {
            assert_eq!(gone(404, proxy), (false, false), "{proxy}");
        }
    }
}
