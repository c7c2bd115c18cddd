//! Configuration → engines. The only place that knows which adapter stands behind which port.

use crate::config::{Config, GithubConfig, ManagerConfig, check_key};
use crate::engine::Settings;
use crate::engine::driver::Driver;
use crate::engine::interval::PollInterval;
use crate::engine::lease::Lease;
use crate::engine::log_follower::LogFollower;
use crate::engine::pause_file::{PauseFile, PauseFileReader};
use crate::engine::reconcile::{Background, Engine, Parts};
use crate::engine::records::Records;
use crate::engine::sweep::{Sources, Sweeper};
use crate::metrics::Metrics;
use futures_util::future::BoxFuture;
use medic_core::clock::Clock;
use medic_core::model::{Span, Target};
use medic_garm::api::{GarmClient, GarmOptions, MetricsAccess};
use medic_garm::log::stream::LogStream;
use medic_garm::ws::{self, Channel};
use medic_github::{Access, AccessOptions, Allowances, Credential, GithubClient, Wires};
use medic_http::client::Client;
use medic_http::file::{FileReader, Reading};
use medic_http::limits::Rate;
use medic_http::reqwest_transport::{ReqwestTransport, SetupError, TransportOptions};
use medic_http::{self, Bounds, Jitter, Recorder, Transport, Upgrader};
use medic_store::Store;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

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
    pub lease: Arc<Lease>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub runtime: Runtime,
}

/// What differs between two runs of the same program; a simulation has its own, so that a seed repeats a run.
#[derive(Clone)]
pub struct Runtime {
    /// Spread of the waits between attempts.
    pub jitter: Jitter,
    pub file_reading: Reading,
}

impl Default for Runtime {
    fn default() -> Self {
        Self { jitter: Arc::new(medic_http::client::random_span), file_reading: Reading::OnThreads }
    }
}

/// What the clients of one manager's engine share.
#[derive(Clone)]
pub(crate) struct ClientContext {
    /// Counts every exchange.
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Runtime,
}

/// Connects over real sockets.
pub fn real_carrier(options: &TransportOptions) -> Result<Carrier, SetupError> {
    let transport = Arc::new(ReqwestTransport::new(options)?);
    Ok(Carrier { upgrader: Some(Arc::clone(&transport) as _), transport })
}

/// One engine per configured manager, in the configuration's order.
pub fn engines(config: &Config, shared: &Shared, carriers: Carriers<'_>) -> anyhow::Result<Vec<Engine>> {
    let allowances = allowances(config, &shared.clock);
    config.managers.iter().map(|manager| engine(config, manager, &allowances, shared, carriers)).collect()
}

/// The request limits of each `[[github]]` table's credential, in the tables' order: managers share them.
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
    let Shared { lease, clock, metrics, runtime, .. } = shared;
    let recorder = metrics.recorder(&manager.name);
    let context = ClientContext { recorder, clock: Arc::clone(clock), runtime: runtime.clone() };
    let carrier = carriers(&options_of(manager))?;
    let garm = Arc::new(garm(manager, Arc::clone(&carrier.transport), &context)?);
    let github = github(config.github.iter().zip(allowances), config.policy.quota_reserve, &context, carriers)?;
    let store = shared.store.for_manager(&manager.name).fenced(lease.holder());
    let wake = Arc::new(Notify::new());
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    let mut log = manager.log_file.as_deref().map(|path| LogFollower::open(path, &store, runtime.file_reading));
    if let Some(upgrader) = carrier.upgrader {
        let (pump, feed) = ws::stream(&garm, Arc::clone(&upgrader), Channel::Events);
        tasks.push(Box::pin(pump.run()));
        let (apart, clock) = (config.run.urgent_interval, Arc::clone(clock));
        tasks.push(Box::pin(medic_garm::wake::watch(feed, apart, clock, Arc::clone(&wake))));
        if manager.log_stream && log.is_none() {
            let stream = Arc::new(LogStream::default());
            let (pump, feed) = ws::stream(&garm, upgrader, Channel::Logs);
            tasks.push(Box::pin(pump.run()));
            let (follower, wake) = (Arc::clone(&stream), Arc::clone(&wake));
            tasks.push(Box::pin(async move { follower.follow(feed, &wake).await }));
            log = Some(LogFollower::of_stream(stream, &store));
        }
    }
    tasks.extend(log.as_ref().and_then(|log| log.watch(config.run.interval, clock, &wake)));
    let sources = Sources {
        manager: Arc::clone(&garm) as _,
        metrics: manager.metrics,
        debug_server: manager.debug_server,
        github: github.clone().map(|client| client as _),
        log: log.as_ref().map(LogFollower::source),
        deadline: deadline(manager),
    };
    let driver = Driver {
        manager_name: manager.name.clone(),
        manager: garm,
        sessions: github.map(|client| client as _),
        journal: Arc::new(store.clone()),
        history: Arc::new(store.clone()),
        clock: Arc::clone(clock),
    };
    let pause_file = PauseFileReader::new(PauseFile::of(config), FileReader::new(runtime.file_reading));
    let (policy, interval) = (config.policy.clone(), config.run.interval);
    let (lease, metrics, history) = (Arc::clone(lease), Arc::clone(metrics), policy.history());
    Ok(Engine::new(Parts {
        settings: Settings { manager: manager.name.clone(), policy, mode: config.run.mode, dry_run: false },
        clock: Arc::clone(clock),
        sweeper: Sweeper::new(sources, log, Arc::clone(clock), interval),
        records: Records::new(store, lease, pause_file, metrics, history),
        driver,
        interval: PollInterval::new(interval, config.run.urgent_interval),
        background: Background { tasks: Mutex::new(tasks), wake },
    }))
}

pub(crate) fn options_of(manager: &ManagerConfig) -> TransportOptions {
    TransportOptions { connect_timeout: manager.connect_timeout, ca_file: manager.ca_file.clone(), proxy: None }
}

fn options_of_github(table: &GithubConfig) -> TransportOptions {
    TransportOptions { connect_timeout: table.connect_timeout, ca_file: table.ca_file.clone(), proxy: None }
}

/// How every server of the configuration is connected to.
pub fn connections(config: &Config) -> impl Iterator<Item = TransportOptions> {
    config.managers.iter().map(options_of).chain(config.github.iter().map(options_of_github))
}

pub(crate) fn garm(
    manager: &ManagerConfig,
    transport: Arc<dyn Transport>,
    context: &ClientContext,
) -> anyhow::Result<GarmClient> {
    let bounds = Bounds { total: manager.request_timeout, body: BODY };
    let ClientContext { recorder, clock, runtime: Runtime { jitter, file_reading } } = context.clone();
    let client = Client::new(Target::Manager, transport, recorder, clock, bounds)
        .with_rate(rate(manager.requests_per_second))
        .with_jitter(jitter);
    let options = GarmOptions {
        base_url: manager.url.to_string(),
        username: manager.username.clone(),
        password: manager.password_file.source(|_| Ok(()), FileReader::new(file_reading)),
        metrics: if manager.metrics_auth { MetricsAccess::Token } else { MetricsAccess::Open },
    };
    Ok(GarmClient::new(&client, options)?)
}

/// The longest that one source of a manager may take.
pub(crate) fn deadline(manager: &ManagerConfig) -> Span {
    manager.request_timeout.plus(manager.connect_timeout).plus(SLACK)
}

/// One client for all `[[github]]` tables; `None` without any. Each manager has its own, so that its requests are
/// counted as its own; the credentials' limits are shared.
pub(crate) fn github<'a>(
    tables: impl IntoIterator<Item = (&'a GithubConfig, &'a Allowances)>,
    quota_reserve: f64,
    context: &ClientContext,
    carriers: Carriers<'_>,
) -> anyhow::Result<Option<Arc<GithubClient>>> {
    let access = |(table, allowances): (&GithubConfig, &Allowances)| -> anyhow::Result<Access> {
        let transport = carriers(&options_of_github(table))?;
        let wires = Wires {
            transport: transport.transport,
            recorder: Arc::clone(&context.recorder),
            clock: Arc::clone(&context.clock),
            jitter: Arc::clone(&context.runtime.jitter),
        };
        let options = AccessOptions {
            endpoint: table.endpoint.clone(),
            entities: table.entities.clone(),
            credential: credential(table, FileReader::new(context.runtime.file_reading))?,
            request_timeout: table.request_timeout,
            requests_per_second: table.requests_per_second,
            quota_reserve,
        };
        Ok(Access::new(allowances, options, &wires))
    };
    let accesses = tables.into_iter().map(access).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((!accesses.is_empty()).then(|| Arc::new(GithubClient::new(accesses))))
}

fn credential(table: &GithubConfig, reader: FileReader) -> anyhow::Result<Credential> {
    match (&table.token_file, table.app_id, table.installation_id, &table.private_key_file) {
        (Some(token_file), ..) => Ok(Credential::Pat { token: token_file.source(|_| Ok(()), reader) }),
        (None, Some(app_id), Some(installation_id), Some(key_file)) => {
            Ok(Credential::App { app_id, installation_id, private_key: key_file.source(check_key, reader) })
        }
        // The check of the configuration refuses it.
        (None, ..) => anyhow::bail!("no credential for the GitHub endpoint {}", table.endpoint),
    }
}

/// The longest answer that has no limit of its own, in bytes.
const BODY: usize = 16 * 1024 * 1024;
/// What one source may take beyond one exchange: a login, or one retry of a fast failure.
const SLACK: Span = Span::secs(2);

/// A sweep sends several requests together.
fn rate(per_second: u32) -> Rate {
    let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    Rate { per_second, burst: per_second.saturating_mul(BURST), ..Rate::default() }
}

/// Seconds of the rate that may be used at once.
const BURST: NonZeroU32 = match NonZeroU32::new(3) {
    Some(three) => three,
    None => NonZeroU32::MIN,
};
