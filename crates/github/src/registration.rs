//! Access to an entity's Actions service (`docs/reference/actions-service.md` §1.4-1.7): a registration token, used once,
//! gives the service's address and an admin token, which are kept.
//!
//! - A 401 of the service drops the admin token. The request was refused before anything was done, so it is sent once
//!   more with a new token. If that is refused too, no token is requested for a minute.
//! - A registration refused with 401 or 403 is tried once more: its token may not have reached all of GitHub yet.

use super::access::{Access, KEEPING};
use super::address::{AddressError, Addresses, under_service};
use super::refusal::check_status;
use super::wire::WireRegistration;
use http::{HeaderValue, Method, StatusCode, header};
use medic_core::model::{Endpoint, Entity, FailureKind, Operation, Span, Wall};
use medic_http::cached::{Cached, Fetched};
use medic_http::client::without_bom;
use medic_http::{ApiError, Response, Secret, jwt};
use std::sync::Arc;
use url::Url;

/// How long a refused registration waits before it is tried once more.
const REPLICATION: Span = Span::secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Read,
    /// A write: sent once.
    Write,
}

pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// Below `runnerscalesets`.
    pub(super) path: &'a [&'a str],
    pub(super) body: String,
    pub(super) sending: Sending,
}

#[derive(Clone)]
struct Admin {
    service: Url,
    authorization: HeaderValue,
}

/// One entity's access to the Actions service.
pub(super) struct Registration {
    pub(super) access: Arc<Access>,
    addresses: Addresses,
    admin: Cached<Admin>,
}

impl Registration {
    pub(super) fn new(access: Arc<Access>, endpoint: &Endpoint, entity: &Entity) -> Result<Self, AddressError> {
        Ok(Self { access, addresses: Addresses::of(endpoint, entity)?, admin: Cached::new(&KEEPING) })
    }

    /// The service's answer, whatever its status. An error before the request itself has no effect.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, ApiError> {
        let admin = self.admin(None).await.map_err(ApiError::not_sent)?;
        let response = self.send_with(&admin.value, call).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let admin = self.admin(Some(admin.serial)).await.map_err(ApiError::not_sent)?;
        let response = self.send_with(&admin.value, call).await?;
        if response.status == StatusCode::UNAUTHORIZED
            && let Err(error) = self.check_status(call.operation, &response)
        {
            let now = self.access.service.clock().now();
            self.admin.refuse(now, admin.serial, &error).await;
        }
        Ok(response)
    }

    /// The error of an answer that is not 2xx.
    pub(super) fn check_status(&self, operation: Operation, response: &Response) -> Result<(), ApiError> {
        check_status(&self.access.service, operation, response)
    }

    async fn admin(&self, refused: Option<u64>) -> Result<Fetched<Admin>, ApiError> {
        self.admin.get(self.access.service.clock().as_ref(), refused, self.register()).await
    }

    async fn send_with(&self, admin: &Admin, call: &Call<'_>) -> Result<Response, ApiError> {
        let url = under_service(&admin.service, call.path.iter().copied());
        let (operation, method) = (call.operation, call.method.clone());
        let authorization = admin.authorization.clone();
        let request = self.access.request(operation, method, &url, authorization, call.body.clone(), as_json)?;
        match call.sending {
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
        self.check_status(operation, &response)?;
        let malformed = |why: &str| self.access.error(operation, FailureKind::Malformed, why);
        // The parser's error is left out: it may repeat the token.
        let answer: WireRegistration = serde_json::from_slice(without_bom(&response.body))
            .map_err(|_| malformed("the answer holds no service address and admin token"))?;
        if answer.token.trim().is_empty() {
            return Err(malformed("the admin token is empty"));
        }
        let service = self.addresses.service(&answer.url).map_err(|error| malformed(&error.to_string()))?;
        let expires = jwt::expiry(&answer.token);
        let authorization = self.access.authorization(operation, "Bearer", &Secret::new(answer.token))?;
        Ok((Admin { service, authorization }, expires))
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
