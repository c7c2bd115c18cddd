//! A credential, and the REST token that it gives: a personal access token as it is, or an App's installation token,
//! kept until shortly before its end (`docs/reference/actions-service.md` §1.2-1.3).
//!
//! Secrets are read when they are used, so that a rotated one is picked up by the next request that needs it.
//! The REST API has a quota, the Actions service has none (`docs/reference/actions-service.md` §7.3): each has limits
//! of its own here, so that a session can be ended with a kept admin token while the quota is used up.

use super::address::Addresses;
use super::app_jwt;
use super::cache::{Cache, Fresh};
use super::refusal::{not_sent, refusal, without_bom};
use super::wire::WireToken;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use medic_core::clock::Clock;
use medic_core::model::{Endpoint, EndpointName, Entity, FailureKind, Operation, OwnQuota, Span, Target, Wall};
use medic_http::Jitter;
use medic_http::{Allowance, ApiError, Bounds, Client, Effect, Politeness, Recorder, Response, Secret, Transport};
use serde::de::DeserializeOwned;
use std::num::NonZeroU32;
use std::sync::Arc;

/// The longest answer read: a list of ten thousand sets has about 10 MB.
pub const BODY_BOUND: usize = 16 * 1024 * 1024;

/// How many seconds' worth of requests may go out at once after a pause: a sweep asks for all entities together.
const BURST_SECONDS: u32 = 20;

const USER_AGENT: &str = concat!("scaleset-medic/", env!("CARGO_PKG_VERSION"));

/// Gives a secret each time it is needed. The error is shown to people.
pub type SecretSource = Arc<dyn medic_http::secret::SecretSource>;

/// How we prove to GitHub who we are.
#[derive(Clone)]
pub enum Credential {
    /// A personal access token.
    Pat { token: SecretSource },
    App {
        app_id: u64,
        /// The id of its installation.
        installation_id: u64,
        /// Its private key, as PEM.
        private_key: SecretSource,
    },
}

/// What carries the requests of one credential.
#[derive(Clone)]
pub struct Wires {
    pub transport: Arc<dyn Transport>,
    /// Is told of them.
    pub recorder: Arc<dyn Recorder>,
    /// Dates them, and waits.
    pub clock: Arc<dyn Clock>,
    /// Spread of the waits between attempts.
    pub jitter: Jitter,
}

/// A credential, as configured.
#[derive(Clone)]
pub struct AccessOptions {
    /// The manager's name for the endpoint.
    pub endpoint: EndpointName,
    /// Names of entities to ask about; empty means all of the endpoint.
    pub entities: Vec<String>,
    pub credential: Credential,
    /// From sending a request to the end of its answer.
    pub request_timeout: Span,
    /// Most requests a second; 0 counts as 1.
    pub requests_per_second: u32,
    /// The part of the credential's quota, from 0 to 1, that is left to the manager.
    pub quota_reserve: f64,
}

/// What one credential may send, however many managers are watched with it.
#[derive(Clone)]
pub struct Allowances {
    rest: Allowance,
    service: Allowance,
}

impl Allowances {
    #[must_use]
    pub fn new(requests_per_second: u32, quota_reserve: f64, clock: &Arc<dyn Clock>) -> Self {
        let per_second = NonZeroU32::new(requests_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = per_second.saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
        let politeness = Politeness { per_second, burst, patience: Politeness::default().patience };
        Self {
            rest: Allowance::new(politeness, Some(quota_reserve), Arc::clone(clock)),
            service: Allowance::new(politeness, None, Arc::clone(clock)),
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
    /// For what costs quota.
    pub(super) rest: Client,
    /// For what does not.
    pub(super) service: Client,
    installation: Cache<HeaderValue>,
}

impl Access {
    /// As configured, over these wires, with limits of its own.
    #[must_use]
    pub fn new(options: AccessOptions, wires: &Wires) -> Self {
        let allowances = Allowances::new(options.requests_per_second, options.quota_reserve, &wires.clock);
        Self::sharing(&allowances, options, wires)
    }

    /// As configured, over these wires, with limits that are shared.
    #[must_use]
    pub fn sharing(allowances: &Allowances, options: AccessOptions, wires: &Wires) -> Self {
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
            installation: Cache::default(),
        }
    }

    /// Whether this credential is meant for the entity. GitHub's names have no case.
    #[must_use]
    pub fn covers(&self, endpoint: &Endpoint, entity: &Entity) -> bool {
        let named = || self.entities.iter().any(|name| name.eq_ignore_ascii_case(&entity.name));
        self.is_of(endpoint) && (self.entities.is_empty() || named())
    }

    /// Whether this credential is one of the endpoint.
    #[must_use]
    pub fn is_of(&self, endpoint: &Endpoint) -> bool {
        self.endpoint == endpoint.name
    }

    /// Calls left in the credential's window, once GitHub has told; all of them once that window is over.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        let quota = self.rest.quota()?;
        let over = quota.reset.is_some_and(|reset| reset <= self.now());
        if over { quota.limit } else { Some(quota.remaining) }
    }

    /// What is left, and how much of it we leave to the manager, until the window that GitHub told of is over.
    #[must_use]
    pub fn own_quota(&self) -> Option<OwnQuota> {
        let quota = self.rest.quota()?;
        let reset = quota.reset.filter(|reset| *reset > self.now())?;
        Some(OwnQuota { remaining: quota.remaining, reserve: quota.part(self.reserve), reset })
    }

    /// A registration token of the entity: one call of the quota, repeated once with a new installation token should
    /// the kept one be refused.
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
                let Fresh { value, serial, .. } =
                    self.installation.get(self.rest.clock().as_ref(), refused, fetch).await?;
                Ok((value, Some(serial)))
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
        let ends = answer.ends();
        Ok((self.authorization(operation, "Bearer", &Secret::new(answer.token))?, ends))
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

    /// The parser's words are left out: they may repeat the token.
    fn token(&self, operation: Operation, response: &Response) -> Result<WireToken, ApiError> {
        if let Some(error) = refusal(&self.rest, operation, response) {
            return Err(error);
        }
        serde_json::from_slice::<WireToken>(without_bom(&response.body))
            .ok()
            .filter(|answer| !answer.token.is_empty())
            .ok_or_else(|| self.error(operation, FailureKind::Malformed, "the answer holds no token"))
    }

    /// A request with what all of them carry.
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
            // Without a body the HTTP library says no length, and some servers answer 411 to that.
            builder = builder.header(header::CONTENT_LENGTH, 0);
        }
        more(builder).body(Bytes::from(body)).map_err(|error| {
            not_sent(self.error(operation, FailureKind::Connect, &format!("the address cannot be used: {error}")))
        })
    }

    /// `scheme token`, marked as sensitive.
    pub(super) fn authorization(
        &self,
        operation: Operation,
        scheme: &str,
        token: &Secret,
    ) -> Result<HeaderValue, ApiError> {
        let mut value = HeaderValue::from_str(&format!("{scheme} {}", token.expose().trim())).map_err(|_| {
            not_sent(self.error(operation, FailureKind::Malformed, "the token cannot stand in a header"))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// An error about an answer: the effect is unknown unless the caller knows better.
    pub(super) fn error(&self, operation: Operation, kind: FailureKind, detail: &str) -> ApiError {
        let (target, detail) = (self.rest.target, self.rest.without_secrets(&self.service.without_secrets(detail)));
        ApiError { target, operation, kind, detail, effect: Effect::Unknown, retry_at: None }
    }

    /// JSON of a 2xx answer. The parser does not recurse deeper than 128 levels.
    pub(super) fn json<T: DeserializeOwned>(&self, operation: Operation, response: &Response) -> Result<T, ApiError> {
        serde_json::from_slice(without_bom(&response.body)).map_err(|error| {
            let words = medic_http::excerpt::one_line(&format!("not the JSON that GitHub sends: {error}"));
            self.error(operation, FailureKind::Malformed, &words)
        })
    }

    fn unreadable(&self, operation: Operation, why: &str) -> ApiError {
        not_sent(self.error(operation, FailureKind::Unauthorized, why))
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
