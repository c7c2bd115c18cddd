//! Error answers, in the shapes that real clients parse (`docs/reference/actions-service.md` §6).

use super::config::UnknownSession;
use crate::wire::Answer;
use serde_json::json;

/// An exception of the Actions service: its status, namespace and name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exception(u16, &'static str, &'static str);

const RUNTIME: &str = "GitHub.Actions.Runtime.WebApi";
const TASK: &str = "GitHub.DistributedTask.WebApi";

impl Exception {
    pub(super) const SET_EXISTS: Self = Self(400, RUNTIME, "RunnerScaleSetExistsException");
    pub(super) const SESSION_CONFLICT: Self = Self(409, RUNTIME, "RunnerScaleSetSessionConflictException");
    pub(super) const JOB_STILL_RUNNING: Self = Self(400, TASK, "JobStillRunningException");
    pub(super) const AGENT_EXISTS: Self = Self(409, TASK, "AgentExistsException");
    const SET_NOT_FOUND: Self = Self(404, RUNTIME, "RunnerScaleSetNotFoundException");
    const SESSION_EXPIRED: Self = Self(400, RUNTIME, "RunnerScaleSetSessionExpiredException");
    const RUNNER_ADMIN: Self = Self(404, RUNTIME, "RunnerAdminException");
    const INVALID_TOKEN: Self = Self(401, RUNTIME, "InvalidTokenException");
    const BAD_REQUEST: Self = Self(400, RUNTIME, "VssPropertyValidationException");

    pub(super) fn answer(self, message: &str) -> Answer {
        let Self(status, namespace, key) = self;
        Answer::json(
            status,
            &json!({
                "$id": "1",
                "innerException": null,
                "message": message,
                "typeName": format!("{namespace}.{key}, {namespace}"),
                "typeKey": key,
                "errorCode": 0,
                "eventId": 3000,
            }),
        )
    }
}

pub(super) fn set_not_found(id: u64) -> Answer {
    Exception::SET_NOT_FOUND.answer(&format!("No runner scale set found with identifier {id}."))
}

pub(super) fn invalid_token(why: &str) -> Answer {
    Exception::INVALID_TOKEN.answer(&format!("The token is not valid: {why}."))
}

pub(super) fn bad_request(why: &str) -> Answer {
    Exception::BAD_REQUEST.answer(why)
}

pub(super) fn unknown_session(session: &str, switch: UnknownSession) -> Answer {
    match switch {
        UnknownSession::Expired => {
            Exception::SESSION_EXPIRED.answer(&format!("The session identifier {session} is not valid."))
        }
        UnknownSession::NotFound => session_not_in_store(),
    }
}

pub(super) fn session_not_in_store() -> Answer {
    Exception::RUNNER_ADMIN.answer("runner referenced a session ID that doesn't exist in redis")
}

/// An error of the REST API.
pub(super) fn rest_error(status: u16, message: &str) -> Answer {
    Answer::json(
        status,
        &json!({
            "message": message,
            "documentation_url": "https://docs.github.com/rest",
            "status": status.to_string(),
        }),
    )
}

/// What the router says to a path that it does not know.
pub(super) fn page_not_found() -> Answer {
    Answer::raw(404, "text/plain; charset=utf-8", b"404 page not found\n".to_vec())
}
