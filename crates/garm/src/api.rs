//! GARM's REST API, metrics and goroutine dump as the ports see a manager.
//!
//! - One login serves all calls. A token that GARM refuses is renewed once, by one caller, and the request is sent
//!   again: it was refused before anything was done.
//! - An update is sent once, with exactly `{"enabled": …}`; its 200 means only that the row was written
//!   (`docs/reference/garm-api.md` §6.4).
//! - `/metrics` has a token of its own, the debug server has none. A 404 there means that it is switched off.
//!
//! Edge cases: GARM behind a path prefix; the three shapes of 401 and the two of 409 ([`super::refusal`]); lists that
//! are `null`; an answer about another set than the requested one, which is malformed.

use super::auth::{self, Token, TokenCache, token_of};
use super::goroutines::GoroutineCounter;
use super::metrics_text;
use super::refusal::{check_status, is_unknown_object, wants_new_token};
use super::wire::{self, Endpoints, WireController, WireInstance, WireScaleSet};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Controller, Enablement, FailureKind, Goroutines, Incarnation, Lingering, ManagerMetrics, Operation, RequestFailure,
    ScaleSet, ScaleSetId, Span, Wall,
};
use medic_core::ports::read::ManagerSource;
use medic_core::ports::write::ManagerWriter;
use medic_http::cached::MARGIN;
use medic_http::list::List;
use medic_http::redact::Carried;
use medic_http::secret::SecretSource;
use medic_http::{ApiError, Bounds, Client, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest answer about one object: a token, the controller, one set.
pub const SMALL_BOUND: usize = 1024 * 1024;

/// For the answer to a write; with a login before it, well within `Treatment::LATE`.
const WRITE_TIMEOUT: Span = Span::secs(10);

pub const LIST_BOUND: usize = 16 * 1024 * 1024;

/// The longest goroutine dump read. Go cuts a dump silently at 64 MiB; with a lower bound, every dump read is whole.
pub const DUMP_BOUND: usize = 63 * 1024 * 1024;

/// Returns the password at each login, so that a rotated file is read again.
pub type PasswordSource = Arc<dyn SecretSource>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsAccess {
    /// With a metrics token, which any server accepts.
    #[default]
    Token,
    /// Without a token (`[metrics] disable_auth = true` in GARM); if GARM asks for one after all, it gets one.
    Open,
}

#[derive(Clone)]
pub struct GarmOptions {
    /// Its address, with the path of a reverse proxy if there is one, without `/api/v1`.
    pub base_url: String,
    pub username: String,
    pub password: PasswordSource,
    pub metrics: MetricsAccess,
}

/// Why an address cannot be used. The address is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("GARM's url cannot be used: {0}")]
pub struct AddressError(String);

pub struct GarmClient {
    client: Client,
    dumps: Client,
    base: String,
    username: String,
    password: PasswordSource,
    login: TokenCache,
    metrics: TokenCache,
    metrics_want_token: AtomicBool,
}

impl GarmClient {
    /// A client over `client`, whose time-out and limits are kept; body bounds are set here.
    pub fn new(client: &Client, options: GarmOptions) -> Result<Self, AddressError> {
        let total = client.bounds().total;
        Ok(Self {
            base: checked_base(&options.base_url)?,
            dumps: client.clone().with_bounds(Bounds { total, body: DUMP_BOUND }),
            client: client.clone().with_bounds(Bounds { total, body: LIST_BOUND }),
            username: options.username,
            password: options.password,
            login: TokenCache::new(&auth::POLICY),
            metrics: TokenCache::new(&auth::POLICY),
            metrics_want_token: AtomicBool::new(options.metrics == MetricsAccess::Token),
        })
    }

    /// The absolute address of a path of the API (`/ws/logs` gives `http://…/api/v1/ws/logs`).
    pub fn api_address(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    /// When the current login expires, if its token says so (`docs/reference/garm-api.md` §3.3).
    pub async fn login_ends(&self) -> Option<Wall> {
        self.login.renew_at().await.map(|at| at.plus(MARGIN))
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The shared login's token; a newer one if GARM refused the one with this serial.
    pub(super) async fn login_token(&self, refused: Option<u64>) -> Result<Token, ApiError> {
        self.login.get(self.client.clock().as_ref(), refused, self.log_in()).await
    }

    async fn log_in(&self) -> Result<(HeaderValue, Option<Wall>), ApiError> {
        let operation = Operation::Login;
        let unreadable = |why| format!("the password cannot be read: {why}");
        let password = self
            .password
            .secret()
            .await
            .map_err(|why| self.client.error(operation, FailureKind::Unauthorized, &unreadable(why)).not_sent())?;
        let body = serde_json::json!({ "username": self.username, "password": password.expose() });
        let address = self.api_address("/auth/login");
        let mut request = self.request(operation, Method::POST, &address, None, body.to_string())?;
        request.extensions_mut().insert(Carried(password));
        let response = self.small().read(operation, request).await?;
        token_of(&self.client, operation, &response)
    }

    async fn metrics_token(&self, refused: Option<u64>) -> Result<Token, ApiError> {
        let operation = Operation::MetricsToken;
        let fetch = async {
            let response = self.get(&self.small(), operation, "/metrics-token").await?;
            token_of(&self.client, operation, &response)
        };
        self.metrics.get(self.client.clock().as_ref(), refused, fetch).await
    }

    /// A read of the API, with a token, renewed once if GARM refuses it. The answer is 2xx.
    async fn get(&self, client: &Client, operation: Operation, path: &str) -> Result<Response, ApiError> {
        let response = self.get_any(client, operation, path).await?;
        check_status(&self.client, operation, &response)?;
        Ok(response)
    }

    /// The same, with any status.
    async fn get_any(&self, client: &Client, operation: Operation, path: &str) -> Result<Response, ApiError> {
        let address = self.api_address(path);
        let send = async |token: &Token| {
            client.read(operation, self.request(operation, Method::GET, &address, Some(token), String::new())?).await
        };
        let token = self.login_token(None).await?;
        let response = send(&token).await?;
        if !wants_new_token(&response) {
            return Ok(response);
        }
        send(&self.login_token(Some(token.serial)).await?).await
    }

    /// For answers about one object.
    fn small(&self) -> Client {
        self.client.clone().with_bounds(Bounds { body: SMALL_BOUND, ..self.client.bounds() })
    }

    fn one_set(&self, operation: Operation, asked: ScaleSetId, response: &Response) -> Result<ScaleSet, ApiError> {
        let wire: WireScaleSet = self.client.json(operation, response)?;
        let set = wire.into_model(&mut Endpoints::default()).filter(|set| set.id == asked);
        let malformed = "the answer is about another set than the requested one";
        set.ok_or_else(|| self.client.error(operation, FailureKind::Malformed, malformed))
    }

    async fn scrape_text(&self) -> Result<Response, ApiError> {
        let operation = Operation::Metrics;
        let address = format!("{}/metrics", self.base);
        let send = async |token: Option<&Token>| {
            let request = self.request(operation, Method::GET, &address, token, String::new())?;
            self.client.read(operation, request).await
        };
        if !self.metrics_want_token.load(Ordering::Relaxed) {
            let response = send(None).await?;
            if response.status != StatusCode::UNAUTHORIZED {
                return Ok(response);
            }
            self.metrics_want_token.store(true, Ordering::Relaxed);
        }
        let token = self.metrics_token(None).await?;
        let response = send(Some(&token)).await?;
        if response.status != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let token = self.metrics_token(Some(token.serial)).await?;
        send(Some(&token)).await
    }

    fn request(
        &self,
        operation: Operation,
        method: Method,
        address: &str,
        token: Option<&Token>,
        body: String,
    ) -> Result<Request<Bytes>, ApiError> {
        let mut builder = Request::builder().method(method).uri(address);
        if let Some(token) = token {
            builder = builder.header(header::AUTHORIZATION, token.value.clone());
        }
        if !body.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        let unusable = |error| format!("the address cannot be used: {error}");
        builder
            .body(Bytes::from(body))
            .map_err(|error| self.client.error(operation, FailureKind::Connect, &unusable(error)).not_sent())
    }

    fn not_enabled(&self, operation: Operation, advice: &str) -> ApiError {
        let detail = format!("HTTP 404: switched off on the server; {advice}");
        self.client.error(operation, FailureKind::NotEnabled, &detail)
    }
}

impl std::fmt::Debug for GarmClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GarmClient").field("base", &self.base).field("username", &self.username).finish_non_exhaustive()
    }
}

/// The address without a trailing slash and without `/api/v1`.
fn checked_base(text: &str) -> Result<String, AddressError> {
    let refuse = |why: &str| Err(AddressError(why.to_owned()));
    let Ok(url) = url::Url::parse(text.trim()) else {
        return refuse("it is not an absolute address like http://host:9997");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("its scheme is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("it holds credentials; give them as username and password_file");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("it has a query or a fragment");
    }
    let base = url.as_str().trim_end_matches('/');
    Ok(base.strip_suffix("/api/v1").unwrap_or(base).trim_end_matches('/').to_owned())
}

#[async_trait]
impl ManagerSource for GarmClient {
    async fn controller(&self) -> Result<Controller, RequestFailure> {
        let operation = Operation::Controller;
        let response = self.get(&self.small(), operation, "/controller-info").await?;
        let wire: WireController = self.client.json(operation, &response)?;
        let malformed = || self.client.error(operation, FailureKind::Malformed, "the answer holds no controller id");
        Ok(wire.into_model().ok_or_else(malformed)?)
    }
    async fn scale_sets(&self) -> Result<Vec<ScaleSet>, RequestFailure> {
        let operation = Operation::ListScaleSets;
        let response = self.get(&self.client, operation, "/scalesets").await?;
        let wire: Option<List<WireScaleSet>> = self.client.json(operation, &response)?;
        let mut endpoints = Endpoints::default();
        let mut seen = BTreeSet::new();
        let mut model = |set: WireScaleSet| set.into_model(&mut endpoints).filter(|set| seen.insert(set.id));
        let sets = wire.map_or_else(Vec::new, |list| list.0).into_iter().map(&mut model).collect::<Option<_>>();
        let malformed = "the list holds a set without an id, or one id twice";
        Ok(sets.ok_or_else(|| self.client.error(operation, FailureKind::Malformed, malformed))?)
    }
    async fn lingering(&self) -> Result<BTreeMap<ScaleSetId, Lingering>, RequestFailure> {
        let operation = Operation::ListInstances;
        let response = self.get(&self.client, operation, "/instances").await?;
        let wire: Option<List<WireInstance>> = self.client.json(operation, &response)?;
        Ok(wire::lingering(wire.map_or_else(Vec::new, |list| list.0)))
    }
    async fn metrics(&self) -> Result<ManagerMetrics, RequestFailure> {
        let operation = Operation::Metrics;
        let response = self.scrape_text().await?;
        if response.status == StatusCode::NOT_FOUND {
            let advice = "set `enable = true` under [metrics] in GARM's configuration";
            return Err(self.not_enabled(operation, advice).into());
        }
        check_status(&self.client, operation, &response)?;
        let malformed = |why| self.client.error(operation, FailureKind::Malformed, &format!("the answer {why}"));
        Ok(metrics_text::parse(&response.body).map_err(malformed)?)
    }
    async fn goroutines(&self) -> Result<Goroutines, RequestFailure> {
        let operation = Operation::Goroutines;
        let address = format!("{}/debug/pprof/goroutine?debug=2", self.base);
        let request = self.request(operation, Method::GET, &address, None, String::new())?;
        let mut counter = GoroutineCounter::default();
        let response = self.dumps.read_into(operation, request, &mut counter).await?;
        if response.status == StatusCode::NOT_FOUND {
            let advice = "set `debug_server = true` under [default] in GARM's configuration";
            return Err(self.not_enabled(operation, advice).into());
        }
        check_status(&self.dumps, operation, &response)?;
        let malformed = || self.client.error(operation, FailureKind::Malformed, "the answer is no goroutine dump");
        Ok(counter.finish().ok_or_else(malformed)?)
    }
}

#[async_trait]
impl ManagerWriter for GarmClient {
    async fn set_enabled(&self, set: ScaleSetId, to: Enablement) -> Result<ScaleSet, WriteError> {
        let (operation, bounds) = (Operation::SetEnabled, self.client.bounds());
        let client = self.client.clone().with_bounds(Bounds { total: bounds.total.min(WRITE_TIMEOUT), ..bounds });
        let address = self.api_address(&format!("/scalesets/{set}"));
        let body = match to {
            Enablement::Enabled => r#"{"enabled":true}"#,
            Enablement::Disabled => r#"{"enabled":false}"#,
        };
        let send = async |token: &Token| {
            client.write(operation, self.request(operation, Method::PUT, &address, Some(token), body.to_owned())?).await
        };
        let token = self.login_token(None).await.map_err(ApiError::not_sent)?;
        let mut response = send(&token).await?;
        if wants_new_token(&response) {
            response = send(&self.login_token(Some(token.serial)).await.map_err(ApiError::not_sent)?).await?;
        }
        check_status(&self.client, operation, &response)?;
        Ok(self.one_set(operation, set, &response)?)
    }
    async fn read_set(&self, set: ScaleSetId) -> Result<Option<ScaleSet>, RequestFailure> {
        let operation = Operation::ReadScaleSet;
        let response = self.get_any(&self.small(), operation, &format!("/scalesets/{set}")).await?;
        if is_unknown_object(&response) {
            return Ok(None);
        }
        check_status(&self.client, operation, &response)?;
        Ok(Some(self.one_set(operation, set, &response)?))
    }
    async fn incarnation(&self) -> Result<Incarnation, RequestFailure> {
        let incarnation = self.metrics().await?.incarnation;
        let detail = "the metrics hold no process_start_time_seconds";
        Ok(incarnation.ok_or_else(|| self.client.error(Operation::Metrics, FailureKind::Malformed, detail))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_address_has_one_form() {
        for (given, base) in [
            ("http://127.0.0.1:9997", "http://127.0.0.1:9997"),
            ("http://127.0.0.1:9997/", "http://127.0.0.1:9997"),
            ("https://ci.example/garm/", "https://ci.example/garm"),
            ("https://ci.example/garm/api/v1/", "https://ci.example/garm"),
        ] {
            assert_eq!(checked_base(given).unwrap(), base);
        }
    }

    #[test]
    fn unusable_address_is_not_repeated() {
        for given in ["", "127.0.0.1:9997", "ftp://host", "http://admin:hunter2@host", "http://host?x=hunter2"] {
            let error = checked_base(given).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
