//! Gathers the facts for `doctor`: asks each configured source once, with the clients and deadlines of the engine.
//!
//! It writes nothing on the servers (apart from a login and GitHub's registration tokens, which each sweep needs), and
//! leaves no file in the state directory. A manager that does not answer is asked nothing more. The log is read last:
//! the requests before it must show in it.

mod dates;

use crate::config::{Config, GithubConfig, ManagerConfig, check_state_dir};
use crate::doctor::facts::{Facts, GithubFacts, ManagerFacts, Place, StateDir, StoreFacts, StreamFacts};
use crate::engine::assemble::{Carrier, Carriers, ClientContext, Runtime, deadline, garm, github, options_of};
use crate::engine::pause_file::PauseFile;
use crate::engine::sweep::Deadline;
use dates::{DatedTransport, Notes, noted};
use futures_util::future::join_all;
use medic_core::clock::Clock;
use medic_core::model::log_fact::{LogEvidence, ParserState};
use medic_core::model::{
    Enablement, Endpoint, EntityRef, ManagerName, Operation, RequestFailure, Seen, Span, Treatment, Wall,
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

/// How long the log websocket is read: at level debug GARM writes every few seconds.
const LISTEN: Span = Span::secs(10);
/// From an answer of the manager until it shows in its log file.
const WRITTEN: Span = Span::millis(300);
/// Entities asked per `[[github]]` table: each costs one call of the credential's quota.
const ENTITIES: usize = 50;
/// The longest that one entity may take, its wait for a request slot included.
const ENTITY: Span = Span::secs(60);

pub async fn gather(
    config: &Config,
    clock: &Arc<dyn Clock>,
    place: Place,
    carriers: Carriers<'_>,
) -> anyhow::Result<Facts> {
    let managers = join_all(config.managers.iter().map(|table| manager(table, clock, carriers))).await;
    let managers = managers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let homes = homes(&managers);
    let quota_reserve = config.policy.quota_reserve;
    let github =
        join_all(config.github.iter().map(|table| endpoint(table, quota_reserve, &homes, clock, carriers))).await;
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
        github: github.into_iter().collect::<anyhow::Result<_>>()?,
    })
}

async fn manager(
    table: &ManagerConfig,
    clock: &Arc<dyn Clock>,
    carriers: Carriers<'_>,
) -> anyhow::Result<ManagerFacts> {
    let notes = Notes::default();
    let carrier = dated(&options_of(table), &notes, clock, carriers)?;
    let client = Arc::new(garm(table, Arc::clone(&carrier.transport), &context(clock))?);
    let limit = Deadline { clock: clock.as_ref(), limit: deadline(table) };
    // Alone: it logs in, and a manager that does not answer is asked nothing more.
    let controller = limit.ask(Operation::Controller, client.controller()).await;
    let mut facts = ManagerFacts {
        config: table.clone(),
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
        limit.ask(Operation::ListScaleSets, client.scale_sets()),
        limit.ask_if(table.metrics, Operation::Metrics, client.metrics()),
        limit.ask_if(table.debug_server, Operation::Goroutines, client.goroutines()),
        events(&client, carrier.upgrader.as_ref(), limit),
        log_stream(&client, carrier.upgrader.as_ref().filter(|_| followed), limit),
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
    facts.skew = noted(&notes).skew;
    Ok(facts)
}

/// These requests are not counted.
fn context(clock: &Arc<dyn Clock>) -> ClientContext {
    ClientContext { recorder: Arc::new(NoRecorder), clock: Arc::clone(clock), runtime: Runtime::default() }
}

/// What `carriers` gives, noting the dates of answers.
fn dated(
    options: &TransportOptions,
    notes: &Notes,
    clock: &Arc<dyn Clock>,
    carriers: Carriers<'_>,
) -> Result<Carrier, SetupError> {
    let Carrier { transport, upgrader } = carriers(options)?;
    let noting = DatedTransport { inner: transport, clock: Arc::clone(clock), notes: Arc::clone(notes) };
    Ok(Carrier { transport: Arc::new(noting), upgrader })
}

async fn events(client: &Arc<GarmClient>, upgrader: Option<&Arc<dyn Upgrader>>, limit: Deadline<'_>) -> Seen<()> {
    let Some(upgrader) = upgrader else { return Seen::NotAsked };
    let (pump, feed) = ws::stream(client, Arc::clone(upgrader), Channel::Events);
    tokio::select! {
        () = pump.run() => Seen::Failed(limit.exceeded(Operation::Websocket)),
        seen = limit.ask(Operation::Websocket, connected(&feed)) => seen,
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
    limit: Deadline<'_>,
) -> Seen<StreamFacts> {
    let Some(upgrader) = upgrader else { return Seen::NotAsked };
    let (pump, mut feed) = ws::stream(client, Arc::clone(upgrader), Channel::Logs);
    let listening = async {
        if let Seen::Failed(failure) = limit.ask(Operation::Websocket, connected(&feed)).await {
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
            () = limit.clock.sleep(LISTEN) => {}
        }
        Seen::Known(seen)
    };
    tokio::select! {
        () = pump.run() => Seen::Failed(limit.exceeded(Operation::Websocket)),
        seen = listening => seen,
    }
}

/// The longest wait for the log: its last 64 MB from a slow disk.
const LOG_LIMIT: Span = Span::secs(20);

async fn log_file(path: &Path) -> Result<LogEvidence, RequestFailure> {
    let log = Arc::new(LogFile::new(path, None, LogFacts::Dropped));
    log.catch_up(LOG_LIMIT).await;
    log.evidence()
}

fn homes(managers: &[ManagerFacts]) -> BTreeMap<EntityRef, Arc<Endpoint>> {
    let sets = managers.iter().filter_map(|manager| manager.scale_sets.known()).flatten();
    let enabled = sets.filter(|set| set.enabled == Enablement::Enabled);
    enabled.filter_map(|set| Some((set.entity_ref()?, set.endpoint.clone()?))).collect()
}

async fn endpoint(
    table: &GithubConfig,
    quota_reserve: f64,
    homes: &BTreeMap<EntityRef, Arc<Endpoint>>,
    clock: &Arc<dyn Clock>,
    carriers: Carriers<'_>,
) -> anyhow::Result<GithubFacts> {
    let notes = Notes::default();
    let carriers = |options: &TransportOptions| dated(options, &notes, clock, carriers);
    let allowances = Allowances::new(table.requests_per_second, quota_reserve, clock);
    let client = github([(table, &allowances)], quota_reserve, &context(clock), &carriers)?;
    let client = client.unwrap_or_else(|| Arc::new(GithubClient::new(Vec::new())));
    let covered: Vec<_> = homes.iter().filter(|(at, endpoint)| client.covers(endpoint, &at.entity)).collect();
    let limit = Deadline { clock: clock.as_ref(), limit: ENTITY };
    let asked = covered.iter().take(ENTITIES).map(|(at, endpoint)| {
        let answer = client.github_sets(endpoint, &at.entity);
        async move { ((*at).clone(), limit.ask(Operation::ListGithubSets, answer).await) }
    });
    let entities = join_all(asked).await;
    let remaining = homes.values().find(|endpoint| endpoint.name == table.endpoint);
    let remaining = remaining.and_then(|endpoint| client.remaining_quota(endpoint));
    let dates = noted(&notes);
    Ok(GithubFacts {
        endpoint: table.endpoint.clone(),
        not_asked: covered.len().saturating_sub(entities.len()),
        entities,
        remaining,
        ends: dates.token_ends,
        skew: dates.skew,
    })
}

fn state_dir(dir: &Path) -> StateDir {
    // The store makes the directory, not its parents: a missing one is a typing error or a volume that is not mounted.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.exists()) {
        return StateDir::Unusable(format!("{} cannot be made: {} does not exist", dir.display(), parent.display()));
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
        live_sessions = live_sessions
            .saturating_add(part.live_sessions()?.iter().filter(|session| session.ended.is_none()).count());
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
    fn state_dir_is_judged_as_the_store_finds_it() {
        let root = tempfile::tempdir().unwrap();
        let (dir, deep) = (root.path().join("state"), root.path().join("a/b"));
        assert_eq!(state_dir(&dir), StateDir::Writable { mode: None });
        assert!(!dir.exists(), "the check made it");
        drop(Store::open(&dir).unwrap());
        assert_eq!(state_dir(&dir), StateDir::Writable { mode: Some(0o700) });
        assert!(matches!(state_dir(&deep), StateDir::Unusable(why) if why.contains("does not exist")));
        assert!(Store::open(&deep).is_err());
    }
}
