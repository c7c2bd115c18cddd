//! The way to an entity's Actions service (`docs/reference/actions-service.md` §1.4-1.7): a registration token, which
//! is used at once and thrown away, gives the service's address and an admin token, which are kept.
//!
//! Rules. `exp` of the admin token is read without verifying it: it is a hint for us, GitHub checks its tokens itself.
//! A 401 of the service drops the admin token, and the request, which was refused before anything was done, is sent
//! once more with a new one. Should that be refused too, no further one is asked for during a minute.
//! A registration refused with 401 or 403 is tried once more: its token may not have reached all of GitHub yet.

use super::access::Access;
use super::address::{AddressError, Addresses, under_service};
use super::cache::{Cache, Fresh};
use super::refusal::{not_sent, refusal};
use super::wire::WireRegistration;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, StatusCode, header};
use medic_core::model::{Endpoint, Entity, FailureKind, Operation, Span, Wall};
use medic_http::{ApiError, Response, Secret};
use serde::Deserialize;
use std::sync::Arc;
use url::Url;

/// How long to wait before a registration that was refused is tried once more.
const REPLICATION: Span = Span::secs(1);

/// How a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Read,
    /// A write: sent once.
    Write,
}

/// What is asked of the service.
pub(super) struct Question<'a> {
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// Below `runnerscalesets`.
    pub(super) path: &'a [&'a str],
    pub(super) body: String,
    pub(super) sending: Sending,
}

/// Where the service is, and what opens it.
#[derive(Clone)]
struct Admin {
    service: Url,
    authorization: HeaderValue,
}

/// One entity's access to the Actions service.
pub(super) struct Registration {
    pub(super) access: Arc<Access>,
    addresses: Addresses,
    admin: Cache<Admin>,
}

impl Registration {
    pub(super) fn new(access: Arc<Access>, endpoint: &Endpoint, entity: &Entity) -> Result<Self, AddressError> {
        Ok(Self { access, addresses: Addresses::of(endpoint, entity)?, admin: Cache::default() })
    }

    /// The service's answer, whatever its status. An error before the request itself has no effect.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Response, ApiError> {
        let admin = self.admin(None).await.map_err(not_sent)?;
        let response = self.send(&admin.value, question).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let admin = self.admin(Some(admin.serial)).await.map_err(not_sent)?;
        let response = self.send(&admin.value, question).await?;
        if response.status == StatusCode::UNAUTHORIZED
            && let Some(error) = self.refusal(question.operation, &response)
        {
            let now = self.access.service.clock().now();
            self.admin.refuse(now, admin.serial, &error).await;
        }
        Ok(response)
    }

    /// The error of an answer that is not 2xx; `None` for 2xx.
    pub(super) fn refusal(&self, operation: Operation, response: &Response) -> Option<ApiError> {
        refusal(&self.access.service, operation, response)
    }

    async fn admin(&self, refused: Option<u64>) -> Result<Fresh<Admin>, ApiError> {
        self.admin.get(self.access.service.clock().as_ref(), refused, self.register()).await
    }

    async fn send(&self, admin: &Admin, question: &Question<'_>) -> Result<Response, ApiError> {
        let url = under_service(&admin.service, question.path.iter().copied());
        let (operation, method) = (question.operation, question.method.clone());
        let authorization = admin.authorization.clone();
        let request = self.access.request(operation, method, &url, authorization, question.body.clone(), as_json)?;
        match question.sending {
            Sending::Read => self.access.service.read(operation, request).await,
            Sending::Write => self.access.service.write(operation, request).await,
        }
    }

    async fn register(&self) -> Result<(Admin, Option<Wall>), ApiError> {
        let operation = Operation::RunnerRegistration;
        let token = self.access.registration_token(&self.addresses).await?;
        let mut response = self.post_registration(&token).await?;
        if matches!(response.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.access.service.clock().sleep(REPLICATION).await;
            response = self.post_registration(&token).await?;
        }
        if let Some(error) = self.refusal(operation, &response) {
            return Err(error);
        }
        let malformed = |why: &str| self.access.error(operation, FailureKind::Malformed, why);
        // The parser's words are left out: they may repeat the token.
        let answer: WireRegistration = serde_json::from_slice(super::refusal::without_bom(&response.body))
            .map_err(|_| malformed("the answer holds no service address and admin token"))?;
        if answer.token.trim().is_empty() {
            return Err(malformed("the admin token is empty"));
        }
        let service = self.addresses.service(&answer.url).map_err(|error| malformed(&error.to_string()))?;
        let ends = expiry(&answer.token);
        let authorization = self.access.authorization(operation, "Bearer", &Secret::new(answer.token))?;
        Ok((Admin { service, authorization }, ends))
    }

    async fn post_registration(&self, token: &Secret) -> Result<Response, ApiError> {
        let operation = Operation::RunnerRegistration;
        let authorization = self.access.authorization(operation, "RemoteAuth", token)?;
        let body = serde_json::json!({ "url": self.addresses.web().as_str(), "runner_event": "register" });
        let url = self.addresses.runner_registration();
        let request = self.access.request(operation, Method::POST, &url, authorization, body.to_string(), as_json)?;
        self.access.service.read(operation, request).await
    }
}

/// On every request to the service, with or without a body (`docs/reference/actions-service.md` §2).
fn as_json(request: http::request::Builder) -> http::request::Builder {
    request.header(header::CONTENT_TYPE, "application/json")
}

/// `exp` of a JWT's payload; `None` when it is no JWT or has none.
fn expiry(jwt: &str) -> Option<Wall> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = jwt.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let seconds = std::time::Duration::try_from_secs_f64(claims.exp).ok()?;
    Some(Wall(0).plus(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_admin_token_is_read_where_there_is_one() {
        let jwt = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry(&jwt(r#"{"exp":1700000000,"scp":"x"}"#)), Some(Wall(1_700_000_000_000)));
        assert_eq!(expiry(&jwt(r#"{"exp":1700000000.5}"#)), Some(Wall(1_700_000_000_500)));
        for odd in [jwt("{}"), jwt(r#"{"exp":-1}"#), jwt(r#"{"exp":null}"#), "oddtoken".to_owned(), String::new()] {
            assert_eq!(expiry(&odd), None, "{odd}");
        }
    }
}
