//! What `doctor` asks: every configured source once, by the clients that the engine uses.
//!
//! Rules. Nothing is written on either server (a login and GitHub's registration tokens aside, which every sweep needs
//! too), nor into the state directory beyond a probe file that is removed again. Every question has a deadline, the
//! questions to one manager go out together, and a manager that does not answer is asked nothing more. The log is read
//! last: what was asked before must show in it.

mod witness;

use crate::config::{Config, GithubConfig, ManagerConfig, check_state_dir};
use crate::doctor::facts::{Facts, GithubFacts, ManagerFacts, Place, StateDir, StoreFacts, StreamFacts};
use crate::engine::assemble::{Carrier, Carriers, ClientContext, Runtime, deadline, garm, github, options_of};
use crate::engine::pause_file::PauseFile;
use futures_util::future::join_all;
use medic_core::clock::Clock;
use medic_core::model::log_fact::{LogEvidence, ParserState};
use medic_core::model::{
    Enablement, Endpoint, EntityRef, FailureKind, ManagerName, Operation, RequestFailure, Seen, Span, Treatment, Wall,
};
use medic_core::ports::read::{GithubSource as _, LogSource as _, ManagerSource as _};
use medic_core::ports::write::Journal as _;
use medic_garm::api::GarmClient;
use medic_garm::log::parse::Parser;
use medic_garm::log::source::{Facts as LogFacts, LogFile};
use medic_garm::ws::{self, Channel, Feed};
use medic_github::{Allowances, GithubClient};
use medic_http::reqwest_transport::{SetupError, TransportOptions};
use medic_http::{NoRecorder, Upgrader};
use medic_store::{Store, StoreError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use witness::{Notes, Witness, told};

/// How long the log websocket is listened to: at level debug GARM writes something every few seconds.
const LISTEN: Span = Span::secs(10);
/// From an answer of the manager until it shows in its log file.
const WRITTEN: Span = Span::millis(300);
/// Entities asked per `[[github]]` table: each costs one call of the credential's quota.
const ENTITIES: usize = 50;
/// The longest that one entity may take, its turn included.
const ENTITY: Span = Span::secs(60);

/// Looks at everything.
///
/// # Errors
/// When an adapter cannot be set up.
pub async fn look(
    config: &Config,
    clock: &Arc<dyn Clock>,
    place: Place,
    carriers: Carriers<'_>,
) -> anyhow::Result<Facts> {
    let managers = join_all(config.managers.iter().map(|table| manager(table, clock, carriers))).await;
    let managers = managers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let homes = homes(&managers);
    let quota_reserve = config.policy.quota_reserve;
    let forges = join_all(config.github.iter().map(|table| forge(table, quota_reserve, &homes, clock, carriers))).await;
    let at = clock.now().wall;
    Ok(Facts {
        at,
        config: config.clone(),
        place,
        state_dir: state_dir(&config.run.state_dir),
        store: store(config, at).unwrap_or_else(|error| StoreFacts::Unreadable(error.to_string())),
        left_disabled: left_disabled(config, at).unwrap_or_default(),
        pause_file: PauseFile::of(config).read(at),
        managers,
        github: forges.into_iter().collect::<anyhow::Result<_>>()?,
    })
}

async fn manager(
    table: &ManagerConfig,
    clock: &Arc<dyn Clock>,
    carriers: Carriers<'_>,
) -> anyhow::Result<ManagerFacts> {
    let notes = Notes::default();
    let carrier = witnessed(&options_of(table), &notes, clock, carriers)?;
    let client = Arc::new(garm(table, Arc::clone(&carrier.transport), &context(clock))?);
    let limit = deadline(table);
    // Alone: it logs in, and a manager that does not answer is asked nothing more.
    let controller = within(clock, limit, Operation::Controller, client.controller()).await;
    let mut facts = ManagerFacts {
        name: table.name.clone(),
        controller,
        scale_sets: Seen::NotAsked,
        metrics: Seen::NotAsked,
        goroutines: Seen::NotAsked,
        log_file: Seen::NotAsked,
        log_stream: Seen::NotAsked,
        events: Seen::NotAsked,
        login_until: client.login_ends().await,
        skew: None,
    };
    // Without a login nothing else can be had; with one, any other refusal is this one answer's.
    if facts.controller.failure().is_some_and(|failure| failure.operation == Operation::Login) {
        return Ok(facts);
    }
    let followed = table.log_stream && table.log_file.is_none();
    let (sets, metrics, goroutines, events, stream) = tokio::join!(
        within(clock, limit, Operation::ListScaleSets, client.scale_sets()),
        wanted(table.metrics, within(clock, limit, Operation::Metrics, client.metrics())),
        wanted(table.debug_server, within(clock, limit, Operation::Goroutines, client.goroutines())),
        events(&client, carrier.upgrader.as_ref(), clock, limit),
        log_stream(&client, carrier.upgrader.as_ref().filter(|_| followed), clock, limit),
    );
    facts.scale_sets = sets;
    facts.metrics = metrics;
    facts.goroutines = goroutines;
    facts.events = events;
    facts.log_stream = stream;
    if let Some(path) = &table.log_file {
        clock.sleep(WRITTEN).await;
        facts.log_file = Seen::from_result(log_file(path).await);
    }
    facts.skew = told(&notes).skew;
    Ok(facts)
}

/// Nobody counts these exchanges.
fn context(clock: &Arc<dyn Clock>) -> ClientContext {
    ClientContext { recorder: Arc::new(NoRecorder), clock: Arc::clone(clock), runtime: Runtime::default() }
}

/// What `carriers` gives, with a listener in front.
fn witnessed(
    options: &TransportOptions,
    notes: &Notes,
    clock: &Arc<dyn Clock>,
    carriers: Carriers<'_>,
) -> Result<Carrier, SetupError> {
    let Carrier { transport, upgrader } = carriers(options)?;
    let witness = Witness { inner: transport, clock: Arc::clone(clock), notes: Arc::clone(notes) };
    Ok(Carrier { transport: Arc::new(witness), upgrader })
}

async fn wanted<T>(wanted: bool, answer: impl Future<Output = Seen<T>>) -> Seen<T> {
    if wanted { answer.await } else { Seen::NotAsked }
}

async fn within<T>(
    clock: &Arc<dyn Clock>,
    limit: Span,
    operation: Operation,
    answer: impl Future<Output = Result<T, RequestFailure>>,
) -> Seen<T> {
    tokio::select! {
        answer = answer => Seen::from_result(answer),
        () = clock.sleep(limit) => Seen::Failed(late(operation, limit)),
    }
}

fn late(operation: Operation, limit: Span) -> RequestFailure {
    let (target, kind) = (operation.target(), FailureKind::Timeout);
    RequestFailure { target, operation, kind, detail: format!("no answer within {limit}"), retry_at: None }
}

async fn events(
    client: &Arc<GarmClient>,
    upgrader: Option<&Arc<dyn Upgrader>>,
    clock: &Arc<dyn Clock>,
    limit: Span,
) -> Seen<()> {
    let Some(upgrader) = upgrader else { return Seen::NotAsked };
    let (pump, feed) = ws::stream(client, Arc::clone(upgrader), Channel::Events);
    tokio::select! {
        () = pump.run() => Seen::Failed(late(Operation::Websocket, limit)),
        seen = within(clock, limit, Operation::Websocket, connected(&feed)) => seen,
    }
}

/// Waits for the first connection, or for why there is none.
async fn connected(feed: &Feed) -> Result<(), RequestFailure> {
    let mut watch = feed.watch();
    loop {
        {
            let health = watch.borrow_and_update();
            if health.connected_since.is_some() {
                return Ok(());
            }
            if let Some(failure) = &health.failure {
                return Err(failure.clone());
            }
        }
        if watch.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn log_stream(
    client: &Arc<GarmClient>,
    upgrader: Option<&Arc<dyn Upgrader>>,
    clock: &Arc<dyn Clock>,
    limit: Span,
) -> Seen<StreamFacts> {
    let Some(upgrader) = upgrader else { return Seen::NotAsked };
    let (pump, mut feed) = ws::stream(client, Arc::clone(upgrader), Channel::Logs);
    let look = async {
        if let Seen::Failed(failure) = within(clock, limit, Operation::Websocket, connected(&feed)).await {
            return Seen::Failed(failure);
        }
        // At level info this request shows in the log, so that silence means a higher level.
        drop(client.controller().await);
        let mut seen = StreamFacts::default();
        let mut parser = Parser::new(ParserState::default());
        let listen = async {
            while !seen.debug {
                let Some(line) = feed.next().await else { break };
                parser.line(line.as_bytes());
                seen = StreamFacts { lines: seen.lines.saturating_add(1), debug: parser.debug() };
            }
        };
        tokio::select! {
            () = listen => {}
            () = clock.sleep(LISTEN) => {}
        }
        Seen::Known(seen)
    };
    tokio::select! {
        () = pump.run() => Seen::Failed(late(Operation::Websocket, limit)),
        seen = look => seen,
    }
}

/// How long a checkup waits for the log: its last 64 MB from a slow disk.
const LOG_PATIENCE: Span = Span::secs(20);

async fn log_file(path: &Path) -> Result<LogEvidence, RequestFailure> {
    let log = Arc::new(LogFile::new(path, None, LogFacts::Dropped));
    log.catch_up(LOG_PATIENCE).await;
    log.evidence()
}

/// The entities of all enabled sets, with their endpoints.
fn homes(managers: &[ManagerFacts]) -> BTreeMap<EntityRef, Arc<Endpoint>> {
    let sets = managers.iter().filter_map(|manager| manager.scale_sets.known()).flatten();
    let enabled = sets.filter(|set| set.enabled == Enablement::Enabled);
    enabled.filter_map(|set| Some((set.entity_ref()?, set.endpoint.clone()?))).collect()
}

async fn forge(
    table: &GithubConfig,
    quota_reserve: f64,
    homes: &BTreeMap<EntityRef, Arc<Endpoint>>,
    clock: &Arc<dyn Clock>,
    carriers: Carriers<'_>,
) -> anyhow::Result<GithubFacts> {
    let notes = Notes::default();
    let carriers = |options: &TransportOptions| witnessed(options, &notes, clock, carriers);
    let allowances = Allowances::new(table.requests_per_second, quota_reserve, clock);
    let client = github([(table, &allowances)], quota_reserve, &context(clock), &carriers)?;
    let client = client.unwrap_or_else(|| Arc::new(GithubClient::new(Vec::new())));
    let covered: Vec<_> = homes.iter().filter(|(at, endpoint)| client.covers(endpoint, &at.entity)).collect();
    let asked = covered.iter().take(ENTITIES).map(|(at, endpoint)| {
        let answer = client.github_sets(endpoint, &at.entity);
        async { ((*at).clone(), within(clock, ENTITY, Operation::ListGithubSets, answer).await) }
    });
    let entities = join_all(asked).await;
    let remaining = homes.values().find(|endpoint| endpoint.name == table.endpoint);
    let remaining = remaining.and_then(|endpoint| client.remaining_quota(endpoint));
    let told = told(&notes);
    Ok(GithubFacts {
        endpoint: table.endpoint.clone(),
        not_asked: covered.len().saturating_sub(entities.len()),
        entities,
        remaining,
        ends: told.token_ends,
        skew: told.skew,
    })
}

fn state_dir(dir: &Path) -> StateDir {
    // The store makes the directory, not its parents: a missing one is a typing error or a volume that is not mounted.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.exists()) {
        return StateDir::Unusable(format!("{} cannot be made: {} is not there", dir.display(), parent.display()));
    }
    match check_state_dir(dir) {
        Err(why) => StateDir::Unusable(why),
        Ok(()) => StateDir::Writable { mode: mode(dir) },
    }
}

#[cfg(unix)]
fn mode(dir: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(dir).ok().map(|found| found.permissions().mode() & 0o7777)
}

fn store(config: &Config, now: Wall) -> Result<StoreFacts, StoreError> {
    let Some(store) = Store::open_read_only(&config.run.state_dir)? else { return Ok(StoreFacts::Absent) };
    let (mut live_sessions, mut open_treatments) = (0_usize, 0_usize);
    for table in &config.managers {
        let part = store.for_manager(&table.name);
        live_sessions = live_sessions.saturating_add(part.live()?.len());
        open_treatments = open_treatments.saturating_add(part.unfinished().map_or(0, |open| open.len()));
    }
    let holder = store.lease_holder(now)?.map(|(holder, _)| holder);
    Ok(StoreFacts::Readable { live_sessions, open_treatments, pauses: store.pauses(now)?, holder })
}

/// Treatments that keep their sets disabled for longer than they may, or whose enable was refused.
fn left_disabled(config: &Config, now: Wall) -> Option<Vec<(ManagerName, Treatment)>> {
    let store = Store::open_read_only(&config.run.state_dir).ok()??;
    let is_left = |row: &Treatment| {
        let is_over = |since| now.since(since) >= config.policy.disabled_limit;
        row.disabled_since().is_some_and(|since| row.refusal.is_some() || is_over(since))
    };
    let rows = config.managers.iter().flat_map(|table| {
        let open = store.for_manager(&table.name).unfinished().unwrap_or_default();
        open.into_iter().filter(is_left).map(|row| (table.name.clone(), row))
    });
    Some(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_judged_as_the_store_will_find_it() {
        let root = tempfile::tempdir().unwrap();
        let (dir, deep) = (root.path().join("state"), root.path().join("a/b"));
        assert_eq!(state_dir(&dir), StateDir::Writable { mode: None });
        assert!(!dir.exists(), "looking made it");
        drop(Store::open(&dir).unwrap());
        assert_eq!(state_dir(&dir), StateDir::Writable { mode: Some(0o700) });
        assert!(matches!(state_dir(&deep), StateDir::Unusable(why) if why.contains("is not there")));
        assert!(Store::open(&deep).is_err());
    }
}
