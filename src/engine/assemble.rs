//! Configuration → engines. The only place that knows which adapter stands behind which port.

use crate::config::{Config, GithubAuth, GithubConfig, ManagerConfig, check_key};
use crate::engine::driver::Driver;
use crate::engine::lease::Lease;
use crate::engine::log_follower::Chronicle;
use crate::engine::pause_file::{PauseFile, WatchedPause};
use crate::engine::reconcile::{Engine, Parts};
use crate::engine::sweep::Sources;
use crate::io::file::Reader;
use crate::io::secret;
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use medic_core::clock::Clock;
use medic_core::model::{Span, Target};
use medic_garm::api::{GarmClient, GarmOptions, MetricsAccess};
use medic_garm::log::source::Reading;
use medic_garm::log::stream::LogStream;
use medic_garm::ws::{self, Channel};
use medic_github::{Access, AccessOptions, Allowances, Credential, GithubClient, Wires};
use medic_http::client::Client;
use medic_http::limits::Politeness;
use medic_http::reqwest_transport::{ReqwestTransport, SetupError, TransportOptions};
use medic_http::{self, Bounds, Jitter, Recorder, Transport, Upgrader};
use medic_store::Store;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// What carries requests to one server.
#[derive(Clone)]
pub struct Carrier {
    pub transport: Arc<dyn Transport>,
    /// Websockets, where they can be had.
    pub upgrader: Option<Arc<dyn Upgrader>>,
}

/// Makes the carrier for one server; the lab puts a simulated one in.
pub type Carriers<'a> = &'a dyn Fn(&TransportOptions) -> Result<Carrier, SetupError>;

/// What all engines of a process share.
pub struct Shared {
    pub store: Store,
    /// The claim on it.
    pub lease: Arc<Lease>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// What else differs from one run to the next.
    pub chance: Chance,
}

/// What makes two runs differ; a simulation has its own, so that a seed gives the same run again.
#[derive(Clone)]
pub struct Chance {
    /// Spread of the waits between attempts.
    pub jitter: Jitter,
    /// Where the manager's log and secrets are read.
    pub log_reading: Reading,
}

impl Default for Chance {
    fn default() -> Self {
        Self { jitter: Arc::new(medic_http::client::drawn), log_reading: Reading::OnThreads }
    }
}

/// Over real sockets.
///
/// # Errors
/// When the options cannot be used.
pub fn real_carrier(options: &TransportOptions) -> Result<Carrier, SetupError> {
    let transport = Arc::new(ReqwestTransport::new(options)?);
    Ok(Carrier { upgrader: Some(Arc::clone(&transport) as _), transport })
}

/// One engine per configured manager, in the configuration's order.
///
/// # Errors
/// When an adapter cannot be set up: a certificate that cannot be read, an address that is none.
pub fn engines(config: &Config, shared: &Shared, carriers: Carriers<'_>) -> anyhow::Result<Vec<Engine>> {
    let allowances = allowances(config, &shared.clock);
    config.managers.iter().map(|manager| engine(config, manager, &allowances, shared, carriers)).collect()
}

/// What each `[[github]]` table's credential may send, in the tables' order: managers share it.
fn allowances(config: &Config, clock: &Arc<dyn Clock>) -> Vec<Allowances> {
    let reserve = config.policy.quota_reserve;
    config.github.iter().map(|table| Allowances::new(table.requests_per_second, reserve, clock)).collect()
}

fn engine(
    config: &Config,
    manager: &ManagerConfig,
    allowances: &[Allowances],
    shared: &Shared,
    carriers: Carriers<'_>,
) -> anyhow::Result<Engine> {
    let recorder = shared.metrics.recorder(&manager.name);
    let means = Means {
        recorder: Arc::clone(&recorder),
        clock: Arc::clone(&shared.clock),
        jitter: Arc::clone(&shared.chance.jitter),
        reading: shared.chance.log_reading,
    };
    let carrier = carriers(&options_of(manager))?;
    let garm = Arc::new(garm(manager, Arc::clone(&carrier.transport), &means)?);
    let store = shared.store.for_manager(&manager.name).fenced(shared.lease.holder());
    let wake = Arc::new(Notify::new());
    let mut background: Vec<BoxFuture<'static, ()>> = Vec::new();
    let mut chronicle =
        manager.log_file.as_deref().map(|path| Chronicle::open(path, &store, shared.chance.log_reading));
    if let Some(upgrader) = carrier.upgrader {
        let (pump, feed) = ws::stream(&garm, Arc::clone(&upgrader), Channel::Events);
        background.push(Box::pin(pump.run()));
        let (apart, clock) = (config.run.urgent_interval, Arc::clone(&shared.clock));
        background.push(Box::pin(medic_garm::wake::watch(feed, apart, clock, Arc::clone(&wake))));
        if manager.log_stream && chronicle.is_none() {
            let stream = Arc::new(LogStream::default());
            let (pump, feed) = ws::stream(&garm, upgrader, Channel::Logs);
            background.push(Box::pin(pump.run()));
            let (follower, wake) = (Arc::clone(&stream), Arc::clone(&wake));
            background.push(Box::pin(async move { follower.follow(feed, &wake).await }));
            chronicle = Some(Chronicle::of_stream(stream, &store));
        }
    }
    background
        .extend(chronicle.as_ref().and_then(|chronicle| chronicle.watch(config.run.interval, &shared.clock, &wake)));
    let github = github(config.github.iter().zip(allowances), config.policy.quota_reserve, &means, carriers)?;
    let sources = Sources {
        manager: Arc::clone(&garm) as _,
        metrics: manager.metrics,
        debug_server: manager.debug_server,
        broker: github.clone().map(|client| client as _),
        log: chronicle.as_ref().map(Chronicle::source),
        deadline: deadline(manager),
    };
    let driver = Driver {
        manager_name: manager.name.clone(),
        manager: garm,
        sessions: github.map(|client| client as _),
        journal: Arc::new(store.clone()),
        history: Arc::new(store.clone()),
        clock: Arc::clone(&shared.clock),
    };
    Ok(Engine::new(Parts {
        name: manager.name.clone(),
        sources,
        driver,
        store,
        whole_store: shared.store.clone(),
        pause_file: WatchedPause::new(PauseFile::of(config), Reader::new(shared.chance.log_reading)),
        lease: Arc::clone(&shared.lease),
        background: Mutex::new(background),
        wake,
        chronicle,
        clock: Arc::clone(&shared.clock),
        policy: config.policy.clone(),
        mode: config.run.mode,
        interval: config.run.interval,
        urgent_interval: config.run.urgent_interval,
        metrics: Arc::clone(&shared.metrics),
    }))
}

/// What the clients of one manager's engine are given.
#[derive(Clone)]
pub(crate) struct Means {
    /// Is told of every exchange.
    pub(crate) recorder: Arc<dyn Recorder>,
    /// Dates them, and waits.
    pub(crate) clock: Arc<dyn Clock>,
    /// Spread of the waits between attempts.
    pub(crate) jitter: Jitter,
    /// Where files are read.
    pub(crate) reading: Reading,
}

/// How a manager is connected to.
pub(crate) fn options_of(manager: &ManagerConfig) -> TransportOptions {
    TransportOptions { connect_timeout: manager.timeouts.connect, ca_file: manager.ca_file.clone(), proxy: None }
}

fn options_of_github(table: &GithubConfig) -> TransportOptions {
    TransportOptions { connect_timeout: table.timeouts.connect, ca_file: table.ca_file.clone(), proxy: None }
}

/// How every server of the configuration is connected to.
pub fn connections(config: &Config) -> impl Iterator<Item = TransportOptions> {
    config.managers.iter().map(options_of).chain(config.github.iter().map(options_of_github))
}

/// The client of one manager.
pub(crate) fn garm(
    manager: &ManagerConfig,
    transport: Arc<dyn Transport>,
    means: &Means,
) -> anyhow::Result<GarmClient> {
    let bounds = Bounds { total: manager.timeouts.request, body: BODY };
    let Means { recorder, clock, jitter, reading } = means.clone();
    let client = Client::new(Target::Manager, transport, recorder, clock, bounds)
        .with_politeness(politeness(manager.requests_per_second))
        .with_jitter(jitter);
    let options = GarmOptions {
        base_url: manager.url.to_string(),
        username: manager.username.clone(),
        password: secret::source(&manager.password_file, |_| Ok(()), Reader::new(reading)),
        metrics: if manager.metrics_auth { MetricsAccess::Token } else { MetricsAccess::Open },
    };
    Ok(GarmClient::new(&client, options)?)
}

/// The longest that one source of a manager may take.
pub(crate) fn deadline(manager: &ManagerConfig) -> Span {
    manager.timeouts.request.plus(manager.timeouts.connect).plus(SLACK)
}

/// One client for all `[[github]]` tables; `None` without any. Each manager has its own, so that one manager's
/// exchanges count as its own; what a credential may send is shared.
pub(crate) fn github<'a>(
    tables: impl IntoIterator<Item = (&'a GithubConfig, &'a Allowances)>,
    quota_reserve: f64,
    means: &Means,
    carriers: Carriers<'_>,
) -> anyhow::Result<Option<Arc<GithubClient>>> {
    let access = |(table, allowances): (&GithubConfig, &Allowances)| -> anyhow::Result<Access> {
        let transport = carriers(&options_of_github(table))?;
        let wires = Wires {
            transport: transport.transport,
            recorder: Arc::clone(&means.recorder),
            clock: Arc::clone(&means.clock),
            jitter: Arc::clone(&means.jitter),
        };
        let options = AccessOptions {
            endpoint: table.endpoint.clone(),
            entities: table.entities.clone(),
            credential: credential(&table.auth, Reader::new(means.reading)),
            request_timeout: table.timeouts.request,
            requests_per_second: table.requests_per_second,
            quota_reserve,
        };
        Ok(Access::sharing(allowances, options, &wires))
    };
    let accesses = tables.into_iter().map(access).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((!accesses.is_empty()).then(|| Arc::new(GithubClient::new(accesses))))
}

fn credential(auth: &GithubAuth, reader: Reader) -> Credential {
    match auth {
        GithubAuth::Pat { token_file } => Credential::Pat { token: secret::source(token_file, |_| Ok(()), reader) },
        GithubAuth::App { app_id, installation_id, private_key_file } => Credential::App {
            app_id: *app_id,
            installation_id: *installation_id,
            private_key: secret::source(private_key_file, check_key, reader),
        },
    }
}

/// The longest answer that has no bound of its own, in bytes.
const BODY: usize = 16 * 1024 * 1024;
/// What one source may take beyond one exchange: a login, or one retry of a fast failure.
const SLACK: Span = Span::secs(2);

/// A second's worth at once, three times: a sweep asks several things together.
fn politeness(per_second: u32) -> Politeness {
    let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    Politeness { per_second, burst: per_second.saturating_mul(BURST), ..Politeness::default() }
}

/// Seconds of the rate that may be used at once.
const BURST: NonZeroU32 = match NonZeroU32::new(3) {
    Some(three) => three,
    None => NonZeroU32::MIN,
};
