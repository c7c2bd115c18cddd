//! GARM's tokens: login and metrics (`docs/reference/garm-api.md` §3).
//!
//! GARM has no refresh: a new login is the only renewal, and each login costs it a password hash. So callers share one
//! attempt, and refused credentials are not offered again for [`COOLDOWN`]. A token whose `exp` is absent, unreadable or
//! past (a clock is wrong) is used until GARM refuses it.

use super::refusal::check_status;
use super::wire::WireToken;
use http::HeaderValue;
use medic_core::model::{FailureKind, Operation, Span, Wall};
use medic_http::cached::{Cached, Fetched, Policy};
use medic_http::{ApiError, Client, Response, Secret, jwt};

/// How long refused credentials are not offered again.
const COOLDOWN: Span = Span::secs(10);

pub(super) type Token = Fetched<HeaderValue>;
pub(super) type TokenCache = Cached<HeaderValue>;

pub(super) static POLICY: Policy = Policy {
    keep_failure: |kind| match kind {
        FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotInitialised => COOLDOWN,
        _ => Span::ZERO,
    },
    date_failures: false,
    default_lifetime: None,
};

/// The token in an answer, as a header, with its expiry. The parser's error is left out: it may repeat the token.
pub(super) fn token_of(
    client: &Client,
    operation: Operation,
    response: &Response,
) -> Result<(HeaderValue, Option<Wall>), ApiError> {
    check_status(client, operation, response)?;
    let malformed = |why| client.error(operation, FailureKind::Malformed, why);
    let answer: WireToken =
        serde_json::from_slice(&response.body).map_err(|_| malformed("the answer holds no token"))?;
    let token = Secret::new(answer.token);
    let header = token.authorization("Bearer").ok_or_else(|| malformed("the token cannot be used in a header"))?;
    Ok((header, jwt::expiry(token.expose())))
}
