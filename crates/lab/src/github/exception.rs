//! Error answers, in the shapes that real clients parse (`docs/reference/actions-service.md` §6).

use super::config::UnknownSession;
use crate::wire::Answer;
use serde_json::json;

/// An exception of the Actions service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exception {
    SetExists,
    SetNotFound,
    SessionConflict,
    SessionExpired,
    RunnerAdmin,
    InvalidToken,
    JobStillRunning,
    AgentExists,
    BadRequest,
}

impl Exception {
    const fn key(self) -> &'static str {
        match self {
            Self::SetExists => "RunnerScaleSetExistsException",
            Self::SetNotFound => "RunnerScaleSetNotFoundException",
            Self::SessionConflict => "RunnerScaleSetSessionConflictException",
            Self::SessionExpired => "RunnerScaleSetSessionExpiredException",
            Self::RunnerAdmin => "RunnerAdminException",
            Self::InvalidToken => "InvalidTokenException",
            Self::JobStillRunning => "JobStillRunningException",
            Self::AgentExists => "AgentExistsException",
            Self::BadRequest => "VssPropertyValidationException",
        }
    }

    const fn namespace(self) -> &'static str {
        match self {
            Self::JobStillRunning | Self::AgentExists => "GitHub.DistributedTask.WebApi",
            Self::SetExists
            | Self::SetNotFound
            | Self::SessionConflict
            | Self::SessionExpired
            | Self::RunnerAdmin
            | Self::InvalidToken
            | Self::BadRequest => "GitHub.Actions.Runtime.WebApi",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::SetExists | Self::SessionExpired | Self::JobStillRunning | Self::BadRequest => 400,
            Self::InvalidToken => 401,
            Self::SetNotFound | Self::RunnerAdmin => 404,
            Self::SessionConflict | Self::AgentExists => 409,
        }
    }

    pub(super) fn answer(self, message: &str) -> Answer {
        let (key, namespace) = (self.key(), self.namespace());
        Answer::json(
            self.status(),
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
    Exception::SetNotFound.answer(&format!("No runner scale set found with identifier {id}."))
}

pub(super) fn invalid_token(why: &str) -> Answer {
    Exception::InvalidToken.answer(&format!("The token is not valid: {why}."))
}

pub(super) fn bad_request(why: &str) -> Answer {
    Exception::BadRequest.answer(why)
}

pub(super) fn unknown_session(session: &str, switch: UnknownSession) -> Answer {
    match switch {
        UnknownSession::Expired => {
            Exception::SessionExpired.answer(&format!("The session identifier {session} is not valid."))
        }
        UnknownSession::NotFound => session_not_in_store(),
    }
}

pub(super) fn session_not_in_store() -> Answer {
    Exception::RunnerAdmin.answer("runner referenced a session ID that doesn't exist in redis")
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
