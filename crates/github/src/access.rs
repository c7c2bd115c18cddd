//! A credential and its REST token: a personal access token, or an App's installation token, kept until shortly before
//! it expires (`docs/reference/actions-service.md` §1.2-1.3).
//!
//! Secrets are read when they are used, so that the next request uses a rotated one. The REST API has a quota, the
//! Actions service has none (`docs/reference/actions-service.md` §7.3): each has limits of its own here, so that a
//! session can be deleted with a kept admin token while the quota is used up.

use super::address::Addresses;
use super::app_jwt;
use super::refusal::check_status;
use super::wire::WireToken;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use medic_core::clock::Clock;
use medic_core::model::{Endpoint, EndpointName, Entity, FailureKind, Operation, OwnQuota, Span, Target, Wall};
use medic_http::cached::{Cached, Policy};
use medic_http::client::without_bom;
use medic_http::{Allowance, ApiError, Bounds, Client, Jitter, Rate, Recorder, Response, Secret, Transport};
use serde::de::DeserializeOwned;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The longest answer read: a list of ten thousand sets has about 10 MB.
pub const BODY_BOUND: usize = 16 * 1024 * 1024;

/// How many seconds' worth of requests may go out at once after a pause: a sweep asks for all entities together.
const BURST_SECONDS: u32 = 20;

/// How long a refusal is kept before the credential is tried again.
const KEEP_REFUSAL: Span = Span::mins(1);

/// The same for any other failure.
const KEEP_FAILURE: Span = Span::secs(5);

/// For installation and admin tokens. Each fetch costs calls of a quota that the manager shares.
pub(super) static KEEPING: Policy = Policy {
    keep_failure: |kind| match kind {
        FailureKind::HeldBack | FailureKind::RateLimited => Span::ZERO,
        FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotFound | FailureKind::Rejected => {
            KEEP_REFUSAL
        }
        FailureKind::Connect
        | FailureKind::Tls
        | FailureKind::Timeout
        | FailureKind::Broken
        | FailureKind::Conflict
        | FailureKind::NotInitialised
        | FailureKind::Server
        | FailureKind::Redirect
        | FailureKind::Malformed
        | FailureKind::TooLarge
        | FailureKind::NotEnabled => KEEP_FAILURE,
    },
    date_failures: true,
    default_lifetime: Some(Span::mins(5)),
};

const USER_AGENT: &str = concat!("scaleset-medic/", env!("CARGO_PKG_VERSION"));

pub type SecretSource = Arc<dyn medic_http::secret::SecretSource>;

#[derive(Clone)]
pub enum Credential {
    /// A personal access token.
    Pat {
        token: SecretSource,
    },
    App {
        app_id: u64,
        installation_id: u64,
        private_key: SecretSource,
    },
}

/// What carries the requests of one credential.
#[derive(Clone)]
pub struct Wires {
    pub transport: Arc<dyn Transport>,
    pub recorder: Arc<dyn Recorder>,
    pub clock: Arc<dyn Clock>,
    /// Spread of the waits between attempts.
    pub jitter: Jitter,
}

#[derive(Clone)]
pub struct AccessOptions {
    /// The manager's name for the endpoint.
    pub endpoint: EndpointName,
    /// Names of entities to ask about; empty means all of the endpoint.
    pub entities: Vec<String>,
    pub credential: Credential,
    pub request_timeout: Span,
    /// Most requests a second; 0 counts as 1.
    pub requests_per_second: u32,
    /// The part of the credential's quota, from 0 to 1, that is left to the manager.
    pub quota_reserve: f64,
}

/// The limits of one credential, shared by all managers that use it.
#[derive(Clone)]
pub struct Allowances {
    rest: Allowance,
    service: Allowance,
}

impl Allowances {
    pub fn new(requests_per_second: u32, quota_reserve: f64, clock: &Arc<dyn Clock>) -> Self {
        let per_second = NonZeroU32::new(requests_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = per_second.saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
        let rate = Rate { per_second, burst, max_wait: Rate::default().max_wait };
        Self {
            rest: Allowance::new(rate, Some(quota_reserve), Arc::clone(clock)),
            service: Allowance::new(rate, None, Arc::clone(clock)),
        }
    }
}

/// A credential for an endpoint's entities, with its limits.
pub struct Access {
    endpoint: EndpointName,
    entities: Vec<String>,
    credential: Credential,
    /// The part of the quota that is left to the manager.
    reserve: f64,
    /// For requests that cost quota.
    pub(super) rest: Client,
    /// For requests that do not.
    pub(super) service: Client,
    installation: Cached<HeaderValue>,
}

impl Access {
    pub fn new(allowances: &Allowances, options: AccessOptions, wires: &Wires) -> Self {
        let bounds = Bounds { total: options.request_timeout, body: BODY_BOUND };
        let client = |allowance| {
            let Wires { transport, recorder, clock, jitter } = wires.clone();
            Client::new(Target::Github, transport, recorder, clock, bounds)
                .with_jitter(jitter)
                .with_allowance(allowance)
        };
        Self {
            endpoint: options.endpoint,
            entities: options.entities,
            credential: options.credential,
            reserve: options.quota_reserve,
            rest: client(&allowances.rest),
            service: client(&allowances.service),
            installation: Cached::new(&KEEPING),
        }
    }

    /// Whether this credential is configured for the entity. GitHub's names are case-insensitive.
    pub fn covers(&self, endpoint: &Endpoint, entity: &Entity) -> bool {
        let named = || self.entities.iter().any(|name| name.eq_ignore_ascii_case(&entity.name));
        self.is_of(endpoint) && (self.entities.is_empty() || named())
    }

    pub fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.endpoint == endpoint.name
    }

    /// Calls left in the credential's window, if known; all of them once that window is over.
    pub fn remaining(&self) -> Option<u64> {
        let quota = self.rest.quota()?;
        let over = quota.reset.is_some_and(|reset| reset <= self.now());
        if over { quota.limit } else { Some(quota.remaining) }
    }

    /// The quota left and our reserve for the manager, until the window is over.
    pub fn own_quota(&self) -> Option<OwnQuota> {
        let quota = self.rest.quota()?;
        let reset = quota.reset.filter(|reset| *reset > self.now())?;
        Some(OwnQuota { remaining: quota.remaining, reserve: quota.part(self.reserve), reset })
    }

    /// A registration token of the entity: one call of the quota, repeated once with a new installation token if the
    /// kept one is refused.
    pub(super) async fn registration_token(&self, addresses: &Addresses) -> Result<Secret, ApiError> {
        let operation = Operation::RegistrationToken;
        let url = addresses.registration_token();
        let (authorization, serial) = self.rest_token(addresses, None).await?;
        let mut response = self.post_rest(operation, &url, authorization).await?;
        if let (http::StatusCode::UNAUTHORIZED, Some(serial)) = (response.status, serial) {
            let (authorization, _) = self.rest_token(addresses, Some(serial)).await?;
            response = self.post_rest(operation, &url, authorization).await?;
        }
        Ok(Secret::new(self.token(operation, &response)?.token))
    }

    /// The `Authorization` for the REST API, and its number if a new one may be had.
    async fn rest_token(
        &self,
        addresses: &Addresses,
        refused: Option<u64>,
    ) -> Result<(HeaderValue, Option<u64>), ApiError> {
        match &self.credential {
            Credential::Pat { token } => {
                let operation = Operation::RegistrationToken;
                let token = token.secret().await.map_err(|why| self.unreadable(operation, &why))?;
                Ok((self.authorization(operation, "Bearer", &token)?, None))
            }
            Credential::App { app_id, installation_id, private_key } => {
                let fetch = self.installation_token(addresses, *app_id, *installation_id, private_key);
                let token = self.installation.get(self.rest.clock().as_ref(), refused, fetch).await?;
                Ok((token.value, Some(token.serial)))
            }
        }
    }

    async fn installation_token(
        &self,
        addresses: &Addresses,
        app_id: u64,
        installation_id: u64,
        private_key: &SecretSource,
    ) -> Result<(HeaderValue, Option<Wall>), ApiError> {
        let operation = Operation::InstallationToken;
        let jwt = private_key
            .secret()
            .await
            .and_then(|key| app_jwt::sign(app_id, &key, self.now()))
            .map_err(|why| self.unreadable(operation, &why))?;
        let authorization = self.authorization(operation, "Bearer", &jwt)?;
        let response = self.post_rest(operation, &addresses.installation_token(installation_id), authorization).await?;
        let answer = self.token(operation, &response)?;
        let expires = answer.expires();
        Ok((self.authorization(operation, "Bearer", &Secret::new(answer.token))?, expires))
    }

    /// Asking for a token changes nothing that matters: it is retried like a read.
    async fn post_rest(
        &self,
        operation: Operation,
        url: &url::Url,
        authorization: HeaderValue,
    ) -> Result<Response, ApiError> {
        let request = self.request(operation, Method::POST, url, authorization, String::new(), |request| {
            request.header(header::ACCEPT, "application/vnd.github+json").header("x-github-api-version", "2022-11-28")
        })?;
        self.rest.read(operation, request).await
    }

    /// The parser's error is left out: it may repeat the token.
    fn token(&self, operation: Operation, response: &Response) -> Result<WireToken, ApiError> {
        check_status(&self.rest, operation, response)?;
        serde_json::from_slice::<WireToken>(without_bom(&response.body))
            .ok()
            .filter(|answer| !answer.token.is_empty())
            .ok_or_else(|| self.error(operation, FailureKind::Malformed, "the answer holds no token"))
    }

    pub(super) fn request(
        &self,
        operation: Operation,
        method: Method,
        url: &url::Url,
        authorization: HeaderValue,
        body: String,
        more: impl FnOnce(http::request::Builder) -> http::request::Builder,
    ) -> Result<Request<Bytes>, ApiError> {
        let bare = body.is_empty() && matches!(method, Method::POST | Method::PATCH);
        let mut builder = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::AUTHORIZATION, authorization)
            .header(header::USER_AGENT, USER_AGENT);
        if bare {
            // Without a body the HTTP library sends no length, and some servers answer 411 to that.
            builder = builder.header(header::CONTENT_LENGTH, 0);
        }
        let unusable = |error| format!("the address cannot be used: {error}");
        let built = more(builder).body(Bytes::from(body));
        built.map_err(|error| self.error(operation, FailureKind::Connect, &unusable(error)).not_sent())
    }

    /// `scheme token`, marked as sensitive.
    pub(super) fn authorization(
        &self,
        operation: Operation,
        scheme: &str,
        token: &Secret,
    ) -> Result<HeaderValue, ApiError> {
        let unusable = || self.error(operation, FailureKind::Malformed, "the token cannot be used in a header");
        token.authorization(scheme).ok_or_else(|| unusable().not_sent())
    }

    /// An error about an answer: the effect is unknown unless the caller knows better.
    pub(super) fn error(&self, operation: Operation, kind: FailureKind, detail: &str) -> ApiError {
        self.rest.error(operation, kind, &self.service.without_secrets(detail))
    }

    /// The JSON of an answer; the error is free of the secrets of both clients.
    pub(super) fn json<T: DeserializeOwned>(&self, operation: Operation, response: &Response) -> Result<T, ApiError> {
        let clean = |error: ApiError| ApiError { detail: self.service.without_secrets(&error.detail), ..error };
        self.rest.json(operation, response).map_err(clean)
    }

    fn unreadable(&self, operation: Operation, why: &str) -> ApiError {
        self.error(operation, FailureKind::Unauthorized, why).not_sent()
    }

    fn now(&self) -> Wall {
        self.rest.clock().now().wall
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("endpoint", &self.endpoint)
            .field("entities", &self.entities)
            .finish_non_exhaustive()
    }
}
