//! GARM's refusals (`docs/reference/garm-api.md` §2): which of its shapes an answer has, and what an operator can do.

use super::wire::WireError;
use http::StatusCode;
use medic_core::model::{FailureKind, Operation};
use medic_http::excerpt::one_line;
use medic_http::{ApiError, Client, Response};

/// GARM's own answers to a login: nothing else of an answer to a password is repeated.
const LOGIN_CLASSES: [&str; 6] =
    ["Authentication failed", "Bad Request", "Not Authorized", "Server error", "init_required", "urls_required"];

/// The three meanings of a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unauthorized {
    /// `Authentication failed`: the token is missing, wrong, expired or revoked. Also anything unknown.
    Token,
    /// Plain text `Unauthorized`: the token is good, but its user is no administrator.
    NoAdmin,
    /// `Not Authorized`: at login the password is wrong, elsewhere GitHub refused GARM's credentials.
    Handler,
}

impl Unauthorized {
    fn of(response: &Response) -> Option<Self> {
        if response.status != StatusCode::UNAUTHORIZED {
            return None;
        }
        Some(match error_class(response).as_deref() {
            Some("Not Authorized") => Self::Handler,
            None if response.body.trim_ascii() == b"Unauthorized" => Self::NoAdmin,
            Some(_) | None => Self::Token,
        })
    }
}

/// Whether a new token may help. The token is checked before anything is done, so the request had no effect.
pub(super) fn wants_new_token(response: &Response) -> bool {
    Unauthorized::of(response) == Some(Unauthorized::Token)
}

/// Whether GARM itself says that the object does not exist. A 404 of a wrong path or a proxy says nothing about it.
pub(super) fn is_unknown_object(response: &Response) -> bool {
    response.status == StatusCode::NOT_FOUND && error_class(response).as_deref() == Some("Not Found")
}

/// The error of an answer that is not 2xx.
pub(super) fn check_status(client: &Client, operation: Operation, response: &Response) -> Result<(), ApiError> {
    let Some(mut error) = client.failure(operation, response) else { return Ok(()) };
    let body = parsed(response);
    if let Some(WireError { error: Some(class), details }) = &body
        && (operation != Operation::Login || LOGIN_CLASSES.contains(&class.as_str()))
    {
        let details = details.as_deref().filter(|details| !details.is_empty() && operation != Operation::Login);
        let details = details.map(|details| format!(": {details}")).unwrap_or_default();
        let detail = client.without_secrets(&format!("HTTP {} {class}{details}", response.status.as_u16()));
        error.detail = one_line(&detail);
    }
    let class = body.as_ref().and_then(|body| body.error.as_deref());
    let advice = match (error.kind, class) {
        (FailureKind::Conflict, Some("init_required")) => {
            error.kind = FailureKind::NotInitialised;
            "; GARM has no administrator yet: run `garm-cli init`"
        }
        (FailureKind::Conflict, Some("urls_required")) => {
            error.kind = FailureKind::NotInitialised;
            "; GARM does not know its own addresses yet: set them with `garm-cli controller update --metadata-url … \
             --callback-url …`"
        }
        (FailureKind::Unauthorized, _) => match Unauthorized::of(response) {
            Some(Unauthorized::NoAdmin) => {
                error.kind = FailureKind::Forbidden;
                "; the user is no administrator of GARM: configure one that is"
            }
            Some(Unauthorized::Handler) if operation == Operation::Login => "; check username and password",
            Some(Unauthorized::Handler) => "; GitHub refused the credentials that GARM has for this entity",
            Some(Unauthorized::Token) => "; GARM refuses a token that it has just issued",
            None => "",
        },
        (FailureKind::NotFound, _) if !is_unknown_object(response) => {
            "; is the url right, with the path of GARM's reverse proxy?"
        }
        (FailureKind::Server, Some(_)) => "; GARM writes the cause to its log only",
        _ => "",
    };
    error.detail.push_str(advice);
    Err(error)
}

fn parsed(response: &Response) -> Option<WireError> {
    serde_json::from_slice(&response.body).ok()
}

fn error_class(response: &Response) -> Option<String> {
    parsed(response)?.error
}
