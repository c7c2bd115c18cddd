//! The real clients against servers that accept every login and then answer with the given bytes.

use super::properties::PASSWORD;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::{
    Endpoint, EndpointName, Entity, EntityKind, GithubId, GithubPlace, GithubSet, Owner, RequestFailure, ScaleSet,
    SessionId, Span, Target, Wall,
};
use medic_core::ports::read::{GithubSource, ManagerSource};
use medic_core::ports::write::{OpenAnswer, SessionWriter};
use medic_garm::api::{GarmClient, GarmOptions, MetricsAccess, PasswordSource};
use medic_github::{Access, AccessOptions, Credential, GithubClient, Wires};
use medic_http::{Answer, Bounds, Client, NoRecorder, Response, Secret, Transport};
use std::sync::Arc;

const START: Wall = Wall(1_700_000_000_000);
/// `{"exp": …}` of the year 2100.
const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln";

/// The results of a client.
pub struct Answers<S> {
    /// The sets, if the answer was taken for a list of sets.
    pub sets: Option<Vec<S>>,
    /// The session, if one was taken for opened.
    pub session: Option<SessionId>,
    /// The failures, as shown to operators.
    pub failures: Vec<RequestFailure>,
}

struct Server {
    body: Bytes,
    status: StatusCode,
}

impl Server {
    /// The bytes also decide the status.
    fn new(bytes: &[u8]) -> Self {
        let statuses = [200, 200, 200, 200, 201, 400, 404, 409, 500];
        let sum = bytes.iter().fold(bytes.len(), |sum, byte| sum.wrapping_add(usize::from(*byte)));
        let well_formed = serde_json::from_slice::<serde_json::Value>(bytes).is_ok();
        let status = if well_formed { 200 } else { statuses[sum % statuses.len()] };
        Self { body: Bytes::copy_from_slice(bytes), status: StatusCode::from_u16(status).unwrap() }
    }
}

#[async_trait]
impl Transport for Server {
    async fn send(&self, request: Request<Bytes>, _: Bounds) -> Answer {
        let path = request.uri().path();
        let entrance = if path.ends_with("/auth/login") || path.ends_with("/metrics-token") {
            Some(format!(r#"{{"token":"{JWT}"}}"#))
        } else if path.ends_with("/registration-token") {
            Some(format!(r#"{{"token":"{PASSWORD}","expires_at":"2100-01-01T00:00:00Z"}}"#))
        } else if path.ends_with("/runner-registration") {
            Some(format!(r#"{{"url":"http://service.test/tenant","token":"{JWT}"}}"#))
        } else {
            None
        };
        let (status, body) = match entrance {
            Some(body) => (StatusCode::OK, Bytes::from(body)),
            None => (self.status, self.body.clone()),
        };
        let mut headers = http::HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(Response { status, headers, body })
    }
}

/// Under virtual time.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ScaledClock::new(START, 1.0))
}

pub fn garm(
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    base_url: &str,
    password: &'static str,
    metrics: MetricsAccess,
) -> GarmClient {
    let bounds = Bounds { total: Span::secs(20), body: 1024 * 1024 };
    let client = Client::new(Target::Manager, transport, Arc::new(NoRecorder), clock, bounds);
    let password: PasswordSource = Arc::new(move || Ok(Secret::new(password)));
    let options = GarmOptions { base_url: base_url.to_owned(), username: "admin".to_owned(), password, metrics };
    GarmClient::new(&client, options).unwrap()
}

/// Sends every request to GARM, and gets `bytes` as the answer.
pub fn ask_garm(bytes: &[u8]) -> Answers<ScaleSet> {
    run(async {
        let garm = garm(Arc::new(Server::new(bytes)), clock(), "http://garm.test:9997", PASSWORD, MetricsAccess::Token);
        let sets = garm.scale_sets().await;
        let mut failures = Vec::new();
        failures.extend(sets.as_ref().err().cloned());
        failures.extend(garm.controller().await.err());
        failures.extend(garm.lingering().await.err());
        failures.extend(garm.metrics().await.err());
        failures.extend(garm.goroutines().await.err());
        Answers { sets: sets.ok(), session: None, failures }
    })
}

/// Lists the sets of an entity and opens a session, with `bytes` as the answer.
pub fn ask_github(bytes: &[u8]) -> Answers<GithubSet> {
    run(async {
        let transport: Arc<dyn Transport> = Arc::new(Server::new(bytes));
        let wires = Wires { transport, recorder: Arc::new(NoRecorder), clock: clock(), jitter: Arc::new(|most| most) };
        let options = AccessOptions {
            endpoint: EndpointName::new("sim"),
            entities: Vec::new(),
            credential: Credential::Pat { token: Arc::new(|| Ok(Secret::new(PASSWORD))) },
            request_timeout: Span::secs(10),
            requests_per_second: 5,
            quota_reserve: 0.0,
        };
        let github = GithubClient::new(vec![Access::new(options, &wires)]);
        let endpoint = Endpoint {
            name: EndpointName::new("sim"),
            base_url: "http://github.test".to_owned(),
            api_base_url: "http://github.test".to_owned(),
        };
        let entity = Entity { kind: EntityKind::Organization, name: "acme".to_owned() };
        let sets = github.github_sets(&endpoint, &entity).await;
        let place = GithubPlace { endpoint: Arc::new(endpoint), entity, github_id: GithubId(7) };
        let opened = github.open_session(&place, &Owner::new("medic")).await;
        let session = match opened {
            Ok(OpenAnswer::Opened(session)) => Some(session),
            Ok(OpenAnswer::Held { .. } | OpenAnswer::SetGone) | Err(_) => None,
        };
        let failures = sets.as_ref().err().cloned().into_iter().collect();
        Answers { sets: sets.ok(), session, failures }
    })
}
