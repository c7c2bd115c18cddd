//! The GitHub client against the simulated GitHub, in process and under virtual time.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper that cannot go on fails its test")]

use async_trait::async_trait;
use bytes::Bytes;
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::decide::warrant::DeletionWarrant;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Endpoint, EndpointName, Entity, EntityKind, FailureKind, GithubId, GithubPlace, OpenAnswer, Owner, SessionId, Span,
    Wall,
};
use medic_core::ports::read::GithubSource;
use medic_core::ports::write::SessionWriter;
use medic_github::{Access, AccessOptions, Allowances, Credential, GithubClient, SecretSource, Wires};
use medic_http::{Answer, Bounds, NoRecorder, Secret, Transport};
use medic_lab::backend::ServerId;
use medic_lab::endpoint_inproc::InprocTransport;
use medic_lab::garm::Build;
use medic_lab::github::{
    Credential as Known, Fault, FaultKind, GithubConfig as Simulated, GithubState, NewSet, QuotaAnswer, Route,
    UnknownSession,
};
use medic_lab::hub::Hub;
use medic_lab::world::{Fleet, World};
use std::path::Path;
use std::sync::Arc;

const START: Wall = Wall(1_700_000_000_000);
const ORIGIN: &str = "http://github.test";
const TOKEN: &str = "ghp_hunter2";
const APP: u64 = 12;
const INSTALLATION: u64 = 34;

fn warrant(session: &SessionId) -> DeletionWarrant {
    DeletionWarrant::for_tests(session.clone())
}

struct Wire(InprocTransport<World>);

#[async_trait]
impl Transport for Wire {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Answer {
        if matches!(*request.method(), http::Method::POST | http::Method::PATCH) && request.body().is_empty() {
            assert_eq!(request.headers()[http::header::CONTENT_LENGTH], "0", "proxies answer 411 to its absence");
        }
        self.0.send(request, bounds).await
    }
}

struct Bench {
    hub: Arc<Hub<World>>,
    github: Arc<GithubClient>,
    clock: Arc<dyn Clock>,
    /// Of the set `gpu` of `acme`.
    place: GithubPlace,
    secrets: tempfile::TempDir,
    wires: Wires,
    options: AccessOptions,
}

#[derive(Clone, Copy)]
enum As {
    Pat,
    App,
}

fn bench(who: As) -> Bench {
    bench_with(who, &[], |_| {})
}

fn bench_with(who: As, entities: &[&str], change: impl FnOnce(&mut Simulated)) -> Bench {
    let mut simulated =
        Simulated::new(ORIGIN).with(Known::pat("pat", TOKEN)).with(Known::app("app", APP, "Iv1.x", INSTALLATION));
    change(&mut simulated);
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
    let fleet = Fleet { github: simulated, ..Fleet::new(Build::PreFix, 0, ORIGIN) };
    let hub = Hub::new(World::new(&fleet, START), Arc::clone(&clock));
    let secrets = tempfile::tempdir().unwrap();
    let token = secrets.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys/app-key.pkcs1.pem");
    let credential = match who {
        As::Pat => Credential::Pat { token: read(&token) },
        As::App => Credential::App { app_id: APP, installation_id: INSTALLATION, private_key: read(&key) },
    };
    let options = AccessOptions {
        endpoint: EndpointName::new("sim"),
        entities: entities.iter().map(|name| (*name).to_owned()).collect(),
        credential,
        request_timeout: Span::secs(10),
        requests_per_second: 5,
        quota_reserve: 0.0,
    };
    let transport: Arc<dyn Transport> =
        Arc::new(Wire(InprocTransport::new(&hub).at("github.test:80", ServerId::Github)));
    let wires =
        Wires { transport, recorder: Arc::new(NoRecorder), clock: Arc::clone(&clock), jitter: Arc::new(|most| most) };
    let allowances = Allowances::new(options.requests_per_second, options.quota_reserve, &wires.clock);
    let github = Arc::new(GithubClient::new(vec![Access::new(&allowances, options.clone(), &wires)]));
    let place = add(&hub, &acme(), "gpu");
    Bench { hub, github, clock, place, secrets, wires, options }
}

fn read(path: &Path) -> SecretSource {
    let path = path.to_owned();
    Arc::new(move || {
        let text = std::fs::read_to_string(&path).map_err(|_| "cannot read the secret".to_owned())?;
        Ok(Secret::new(text.trim()))
    })
}

fn add(hub: &Hub<World>, entity: &Entity, name: &str) -> GithubPlace {
    let set = NewSet { entity: entity.clone(), name: name.to_owned() };
    let github_id = hub.with(|world, now| world.github.add_set(&set, now));
    GithubPlace { endpoint: Arc::new(endpoint()), entity: entity.clone(), github_id }
}

impl Bench {
    fn with<R>(&self, act: impl FnOnce(&mut GithubState) -> R) -> R {
        self.hub.with(|world, _| act(&mut world.github))
    }

    fn calls(&self, route: Route) -> u64 {
        self.with(|github| github.recent_calls(route))
    }

    fn all_calls(&self) -> u64 {
        Route::ALL.iter().map(|route| self.calls(*route)).sum()
    }

    async fn names(&self, entity: &Entity) -> Result<Vec<String>, FailureKind> {
        let sets = self.github.github_sets(&endpoint(), entity).await;
        sets.map(|sets| sets.into_iter().map(|set| set.name).collect()).map_err(|failure| failure.kind)
    }

    async fn open(&self, place: &GithubPlace) -> Result<OpenAnswer, WriteError> {
        self.github.open_session(place, &owner()).await
    }

    fn inject(&self, fault: Fault) {
        self.with(|github| github.inject(fault));
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        name: EndpointName::new("sim"),
        base_url: format!("{ORIGIN}/"),
        api_base_url: format!("{ORIGIN}/api/v3"),
    }
}

fn entity(kind: EntityKind, name: &str) -> Entity {
    Entity { kind, name: name.to_owned() }
}

fn acme() -> Entity {
    entity(EntityKind::Organization, "acme")
}

fn owner() -> Owner {
    Owner::new("scaleset-medic-1")
}

fn opened(answer: Result<OpenAnswer, WriteError>) -> SessionId {
    match answer {
        Ok(OpenAnswer::Opened(session)) => session,
        other => panic!("not opened: {other:?}"),
    }
}

/// The kind of failure, and whether the effect is unknown.
fn failure<T: std::fmt::Debug>(answer: Result<T, WriteError>) -> (FailureKind, bool) {
    match answer.unwrap_err() {
        WriteError::Unknown(failure) => (failure.kind, true),
        WriteError::NotApplied(failure) => (failure.kind, false),
    }
}

fn answered(status: u16, body: &str) -> FaultKind {
    FaultKind::Answer { status, content_type: String::new(), body: body.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn second_listing_costs_one_request_for_each_kind() {
    for who in [As::Pat, As::App] {
        let bench = bench(who);
        let entities = [
            entity(EntityKind::Organization, "org"),
            entity(EntityKind::Repository, "acme/app"),
            entity(EntityKind::Enterprise, "big"),
        ];
        for entity in &entities {
            add(&bench.hub, entity, &format!("gpu of {entity}"));
        }
        for entity in &entities {
            assert_eq!(bench.names(entity).await, Ok(vec![format!("gpu of {entity}")]));
            let before = bench.all_calls();
            assert_eq!(bench.names(entity).await, Ok(vec![format!("gpu of {entity}")]));
            assert_eq!(bench.all_calls() - before, 1);
        }
        assert_eq!(bench.calls(Route::RegistrationToken), 3);
        assert_eq!(bench.calls(Route::InstallationToken), u64::from(matches!(who, As::App)));
        let agents: Vec<_> = bench.with(|github| github.calls().map(|call| call.actor.user_agent.clone()).collect());
        assert!(agents.iter().all(|agent| agent.starts_with("scaleset-medic/")), "{agents:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn list_holds_the_statistics_of_each_set() {
    let bench = bench(As::Pat);
    bench.with(|github| github.queue_jobs(bench.place.github_id, 3, START));
    let sets = bench.github.github_sets(&endpoint(), &acme()).await.unwrap();
    assert_eq!(sets[0].statistics.unwrap().available_jobs + sets[0].statistics.unwrap().assigned_jobs, 3);
    let nobody = GithubPlace { github_id: GithubId(999), ..bench.place.clone() };
    assert_eq!(bench.open(&nobody).await, Ok(OpenAnswer::SetGone));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_renewed_before_they_expire() {
    for who in [As::Pat, As::App] {
        let bench = bench(who);
        for _ in 0..10 {
            assert!(bench.names(&acme()).await.is_ok());
            bench.clock.sleep(Span::mins(20)).await;
        }
        assert!(bench.with(|github| github.calls().all(|call| call.status < 300)), "nothing was refused");
        assert_eq!(bench.calls(Route::RunnerRegistration), 4, "three hours, an hour each, a minute early");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_admin_token_is_renewed_once() {
    for who in [As::Pat, As::App] {
        let bench = bench(who);
        assert!(bench.names(&acme()).await.is_ok());
        bench.with(GithubState::expire_tokens);
        assert!(bench.names(&acme()).await.is_ok());
        assert_eq!((bench.calls(Route::ListSets), bench.calls(Route::RunnerRegistration)), (3, 2));
        bench.with(GithubState::expire_tokens);
        opened(bench.open(&bench.place).await);
        assert_eq!(bench.calls(Route::CreateSession), 2, "the first was refused before anything was done");
        assert_eq!(bench.with(|github| github.sessions().count()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_new_admin_token_is_not_replaced_for_a_minute() {
    let bench = bench(As::Pat);
    bench.inject(Fault::on(Route::ListSets, FaultKind::status(401)));
    assert_eq!(bench.names(&acme()).await, Err(FailureKind::Unauthorized));
    assert_eq!((bench.calls(Route::ListSets), bench.calls(Route::RegistrationToken)), (2, 2));
    for _ in 0..20 {
        bench.clock.sleep(Span::secs(2)).await;
        assert_eq!(bench.names(&acme()).await, Err(FailureKind::Unauthorized));
    }
    assert_eq!(bench.calls(Route::RegistrationToken), 2, "the quota is the manager's too");
    bench.with(GithubState::clear_faults);
    bench.clock.sleep(Span::secs(30)).await;
    assert!(bench.names(&acme()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn odd_admin_tokens_and_a_byte_order_mark_are_accepted() {
    for kind in [FaultKind::TokenNotJwt, FaultKind::TokenWithoutExp, FaultKind::Bom] {
        let bench = bench(As::Pat);
        bench.inject(Fault::on(Route::RunnerRegistration, kind.clone()));
        bench.inject(Fault::on(Route::ListSets, FaultKind::Bom));
        for _ in 0..2 {
            assert_eq!(bench.names(&acme()).await, Ok(vec!["gpu".to_owned()]), "{kind:?}");
        }
        assert_eq!(bench.calls(Route::RunnerRegistration), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_registration_is_tried_once_more() {
    let bench = bench(As::Pat);
    bench.inject(Fault::on(Route::RunnerRegistration, FaultKind::status(401)).times(1));
    assert!(bench.names(&acme()).await.is_ok());
    assert_eq!((bench.calls(Route::RegistrationToken), bench.calls(Route::RunnerRegistration)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn session_is_opened_and_deleted() {
    let bench = bench(As::App);
    let session = opened(bench.open(&bench.place).await);
    let held = || bench.with(|github| github.holder(bench.place.github_id).map(|held| (held.session, held.owner)));
    assert_eq!(held(), Some((session.clone(), owner())));
    assert_eq!(bench.github.delete_session(&bench.place, &warrant(&session)).await, Ok(()));
    assert_eq!(held(), None);
    assert_eq!(bench.calls(Route::DeleteSession), 1);
}

#[tokio::test(start_paused = true)]
async fn deletion_of_a_gone_session_succeeds() {
    for switch in [UnknownSession::Expired, UnknownSession::NotFound] {
        let bench = bench_with(As::Pat, &[], |simulated| simulated.unknown_session = switch);
        let session = opened(bench.open(&bench.place).await);
        bench.clock.sleep(Span::secs(100)).await;
        assert_eq!(bench.github.delete_session(&bench.place, &warrant(&session)).await, Ok(()), "{switch:?}");
        bench.hub.with(|world, now| world.github.remove_set(bench.place.github_id, now));
        assert_eq!(bench.github.delete_session(&bench.place, &warrant(&session)).await, Ok(()), "{switch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_deletion_is_a_failure() {
    let bench = bench(As::Pat);
    let session = opened(bench.open(&bench.place).await);
    bench.inject(Fault::on(Route::DeleteSession, FaultKind::status(400)).times(1));
    assert_eq!(
        failure(bench.github.delete_session(&bench.place, &warrant(&session)).await),
        (FailureKind::Rejected, false)
    );
    bench.inject(Fault::on(Route::DeleteSession, FaultKind::HtmlPage(502)).times(1));
    assert_eq!(
        failure(bench.github.delete_session(&bench.place, &warrant(&session)).await),
        (FailureKind::Server, true)
    );
    assert_eq!(bench.calls(Route::DeleteSession), 2, "a write is never retried inside");
    let before = bench.all_calls();
    for odd in ["", "../../7", "00000000-0000-0000-0000-000000000000"] {
        let answer = bench.github.delete_session(&bench.place, &warrant(&SessionId::new(odd))).await;
        assert_eq!(failure(answer), (FailureKind::Rejected, false), "{odd}");
    }
    assert_eq!(bench.all_calls(), before, "what cannot be right is not sent");
}

#[tokio::test(start_paused = true)]
async fn lost_answer_to_opening_is_unknown_and_not_retried() {
    for (kind, expected) in [
        (FaultKind::Never, FailureKind::Timeout),
        (FaultKind::Truncated(10), FailureKind::Broken),
        (FaultKind::HtmlPage(502), FailureKind::Server),
        (FaultKind::MalformedJson, FailureKind::Malformed),
        (answered(200, ""), FailureKind::Malformed),
        (answered(200, "{}"), FailureKind::Malformed),
        (answered(302, ""), FailureKind::Redirect),
    ] {
        let bench = bench(As::Pat);
        bench.inject(Fault::on(Route::CreateSession, kind.clone()).times(1).after_effect());
        assert_eq!(failure(bench.open(&bench.place).await), (expected, true), "{kind:?}");
        assert_eq!(bench.calls(Route::CreateSession), 1, "{kind:?}");
        assert_eq!(bench.open(&bench.place).await, Ok(OpenAnswer::Held { owner: None }), "{kind:?}: it hid a success");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_or_unsent_opening_has_no_effect() {
    for (route, kind, expected) in [
        (Route::CreateSession, FaultKind::Refused, FailureKind::Connect),
        (Route::CreateSession, FaultKind::status(403), FailureKind::Forbidden),
        (Route::CreateSession, FaultKind::status(400), FailureKind::Rejected),
        (Route::CreateSession, FaultKind::status(409), FailureKind::Conflict),
        (Route::CreateSession, FaultKind::HtmlPage(404), FailureKind::NotFound),
        (Route::RegistrationToken, FaultKind::HtmlPage(502), FailureKind::Server),
        (Route::RunnerRegistration, FaultKind::Reset, FailureKind::Broken),
        (Route::RunnerRegistration, FaultKind::MalformedJson, FailureKind::Malformed),
    ] {
        let bench = bench(As::Pat);
        bench.inject(Fault::on(route, kind.clone()));
        assert_eq!(failure(bench.open(&bench.place).await), (expected, false), "{route} {kind:?}");
        assert_eq!(bench.with(|github| github.sessions().count()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn unreadable_list_is_a_failure_and_not_empty() {
    for (kind, expected, tries) in [
        (FaultKind::HtmlPage(502), FailureKind::Server, 3),
        (FaultKind::MalformedJson, FailureKind::Malformed, 1),
        (FaultKind::status(404), FailureKind::NotFound, 1),
        (answered(200, "{}"), FailureKind::Malformed, 1),
        (answered(204, ""), FailureKind::Malformed, 1),
    ] {
        let bench = bench(As::Pat);
        bench.inject(Fault::on(Route::ListSets, kind.clone()));
        assert_eq!(bench.names(&acme()).await, Err(expected), "{kind:?}");
        assert_eq!(bench.calls(Route::ListSets), tries, "{kind:?}");
        bench.with(GithubState::clear_faults);
        assert!(bench.names(&acme()).await.is_ok(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limit_is_obeyed_with_and_without_retry_after() {
    let ends = Span::mins(10);
    for (answer, primary, held) in [
        (QuotaAnswer { status: 403, retry_after: false }, true, ends),
        (QuotaAnswer { status: 429, retry_after: true }, true, ends),
        (QuotaAnswer { status: 403, retry_after: true }, false, ends),
        (QuotaAnswer { status: 429, retry_after: true }, false, ends),
        (QuotaAnswer { status: 403, retry_after: false }, false, Span::mins(1)),
    ] {
        let bench = bench_with(As::Pat, &[], |simulated| simulated.quota_answer = answer);
        if primary {
            bench.with(|github| github.exhaust_quota("pat", START.plus(ends)));
        } else {
            bench.with(|github| github.secondary_limit("pat", START.plus(ends), answer));
        }
        let failure = bench.github.github_sets(&endpoint(), &acme()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::RateLimited, "{failure}");
        let blocked = failure.retry_at.unwrap().since(START);
        assert!(blocked >= held && blocked <= held.plus(Span::secs(1)), "{answer:?}: {blocked}");
        let before = bench.all_calls();
        bench.clock.sleep(Span(held.0 - 5_000)).await;
        assert_eq!(bench.names(&acme()).await, Err(FailureKind::HeldBack));
        assert_eq!(bench.all_calls(), before, "nothing is sent before the date");
        bench.clock.sleep(Span(ends.0 - held.0 + 7_000)).await;
        assert!(bench.names(&acme()).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn managers_with_one_credential_share_its_limits() {
    let bench = bench(As::Pat);
    let options = AccessOptions { quota_reserve: 0.2, ..bench.options.clone() };
    let shared = Allowances::new(5, 0.2, &bench.clock);
    let of_manager = || GithubClient::new(vec![Access::new(&shared, options.clone(), &bench.wires)]);
    let (one, other) = (of_manager(), of_manager());
    assert!(one.github_sets(&endpoint(), &acme()).await.is_ok());
    let quota = other.own_quota(&endpoint()).unwrap();
    assert_eq!((quota.remaining, quota.reserve), (4_999, 1_000), "a share of the known quota");
    let before = bench.all_calls();
    let began = bench.clock.now().mono;
    for _ in 0..75 {
        for client in [&one, &other] {
            assert!(client.github_sets(&endpoint(), &acme()).await.is_ok());
        }
    }
    assert!(bench.all_calls() - before >= 150);
    let took = bench.clock.now().mono.since(began);
    assert!(took >= Span::secs(8), "150 requests, of which 100 at once, with 5 a second for both: {took}");

    bench.with(|github| github.exhaust_quota("pat", START.plus(Span::mins(50))));
    let entities = ["second", "third"].map(|name| entity(EntityKind::Organization, name));
    assert_eq!(one.github_sets(&endpoint(), &entities[0]).await.unwrap_err().kind, FailureKind::RateLimited);
    let asked = bench.all_calls();
    assert_eq!(other.github_sets(&endpoint(), &entities[1]).await.unwrap_err().kind, FailureKind::HeldBack);
    assert_eq!(bench.all_calls(), asked, "the other manager sends nothing either");
}

#[tokio::test(start_paused = true)]
async fn used_up_quota_does_not_block_a_deletion() {
    let bench = bench(As::Pat);
    let session = opened(bench.open(&bench.place).await);
    bench.with(|github| github.exhaust_quota("pat", START.plus(Span::mins(50))));
    let other = entity(EntityKind::Organization, "other");
    assert_eq!(bench.names(&other).await, Err(FailureKind::RateLimited));
    assert_eq!(bench.github.remaining_quota(&endpoint()), Some(0));
    assert_eq!(bench.github.delete_session(&bench.place, &warrant(&session)).await, Ok(()));
    bench.clock.sleep(Span::mins(51)).await;
    assert_eq!(bench.github.remaining_quota(&endpoint()), Some(5_000), "a new window");
}

#[tokio::test(start_paused = true)]
async fn refused_credential_is_read_again_after_a_minute() {
    let bench = bench(As::Pat);
    std::fs::write(bench.secrets.path().join("token"), "ghp_wrong").unwrap();
    let failure = bench.github.github_sets(&endpoint(), &acme()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(failure.detail.contains("expired or revoked") && !failure.detail.contains("ghp_"), "{failure}");
    assert_eq!(bench.names(&acme()).await, Err(FailureKind::Unauthorized));
    assert_eq!(bench.calls(Route::RegistrationToken), 1);
    std::fs::write(bench.secrets.path().join("token"), TOKEN).unwrap();
    bench.clock.sleep(Span::mins(1)).await;
    assert!(bench.names(&acme()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unreadable_secret_sends_nothing() {
    let bench = bench(As::Pat);
    std::fs::remove_file(bench.secrets.path().join("token")).unwrap();
    let failure = bench.github.github_sets(&endpoint(), &acme()).await.unwrap_err();
    assert!(failure.detail.contains("cannot read the secret"), "{failure}");
    assert_eq!(bench.all_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn refused_app_gets_advice() {
    let bench = bench(As::App);
    bench.with(|github| github.revoke_credentials("app"));
    let failure = bench.github.github_sets(&endpoint(), &acme()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unauthorized);
    assert!(failure.detail.contains("app_id"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn only_configured_entities_are_covered() {
    let bench = bench_with(As::Pat, &["Acme", "acme/app"], |_| {});
    let elsewhere = Endpoint { name: EndpointName::new("github.com"), ..endpoint() };
    let covered = |endpoint: &Endpoint, entity: &Entity| bench.github.covers(endpoint, entity);
    assert!(covered(&endpoint(), &acme()));
    assert!(covered(&endpoint(), &entity(EntityKind::Repository, "acme/app")));
    assert!(!covered(&endpoint(), &entity(EntityKind::Organization, "other")));
    assert!(!covered(&elsewhere, &acme()));
    assert_eq!(bench.names(&entity(EntityKind::Organization, "other")).await, Err(FailureKind::Unauthorized));
    assert_eq!((bench.all_calls(), bench.github.remaining_quota(&endpoint())), (0, None));
    assert!(bench.names(&acme()).await.is_ok());
    assert_eq!(bench.github.remaining_quota(&endpoint()), Some(4_999));
    assert_eq!(bench.github.remaining_quota(&elsewhere), None);
    assert!(!format!("{:?}", bench.github).contains("hunter2"));
}
