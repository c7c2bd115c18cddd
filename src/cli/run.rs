//! `run`. A change of the configuration or its CA files replaces the old configuration; one with mistakes is logged and
//! changes nothing.

use super::medic::Signals;
use super::{Failure, medic};
use crate::config::describe::unencrypted;
use crate::config::{Checked, Config, ManagerConfig};
use crate::engine::assemble::{Shared, connections, engines, real_carrier};
use crate::engine::reconcile::Engine;
use crate::engine::service::{Ending, Publisher, run as serve};
use crate::exit::ExitCode;
use crate::telemetry;
use crate::web::server::Board;
use anyhow::Context as _;
use medic_core::model::Span;
use medic_http::file::{FileReader, Reading, read_bounded};
use medic_http::reqwest_transport::CA_BYTES_MAX;
use medic_store::LeaseState;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{SocketAddr, TcpListener as Socket};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const REREAD_EVERY: Span = Span::secs(5);

pub(super) type Reread = Arc<dyn Fn() -> Result<Checked, Failure> + Send + Sync>;

enum End {
    Signal(ExitCode),
    Changed(Box<Given>),
}

impl End {
    /// Whether open treatments are finished: where the next configuration has the same manager and store, it continues
    /// them, so that a set that we disabled is not enabled before its worker is ready.
    fn ending(&self, before: &Config) -> Ending {
        match self {
            Self::Changed(given) if given.config.run.state_dir == before.run.state_dir => {
                let same = |manager: &&ManagerConfig| {
                    given.config.managers.iter().any(|next| (&next.name, &next.url) == (&manager.name, &manager.url))
                };
                Ending::HandedOver(before.managers.iter().filter(same).map(|manager| manager.name.clone()).collect())
            }
            Self::Changed(_) | Self::Signal(_) => Ending::Finished,
        }
    }
}

/// A configuration and a hash of its CA files: either may change.
#[derive(Clone, PartialEq)]
struct Given {
    config: Config,
    certificates: u64,
}

impl Given {
    fn now(config: Config) -> Self {
        let mut hasher = DefaultHasher::new();
        for options in connections(&config) {
            let read = options.ca_file.map(|path| read_bounded(&path, CA_BYTES_MAX).ok());
            read.hash(&mut hasher);
        }
        Self { config, certificates: hasher.finish() }
    }

    /// Whether connections can be made with these CA files; else why not.
    fn usable(&self) -> Result<(), String> {
        connections(&self.config).try_for_each(|options| match real_carrier(&options) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
    }
}

/// Reads the configuration again on a thread of its own: a hanging share delays no manager.
struct Rereading {
    read: Reread,
    reader: FileReader,
}

impl Rereading {
    /// The configuration where it differs from `known`, and whether it is usable; else why it cannot be read.
    async fn now(&self, known: Given) -> Result<Option<(Given, Result<(), String>)>, String> {
        let read = Arc::clone(&self.read);
        let all = move || {
            let now = Given::now(read().map_err(|failure| failure.to_string())?.config);
            Ok((now != known).then(|| {
                let usable = now.usable();
                (now, usable)
            }))
        };
        self.reader.read(all).await.unwrap_or_else(|why| Err(format!("a file of the configuration: {why}")))
    }
}

struct Round {
    given: Given,
    shared: Shared,
    engines: Vec<Engine>,
    socket: Socket,
}

pub(super) fn run(config: Config, reread: &Reread) -> Result<ExitCode, Failure> {
    let runtime = medic::runtime()?;
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let reread = Rereading { read: Arc::clone(reread), reader: FileReader::new(Reading::OnThreads) };
    let mut round = prepare(Given::now(config), None)?;
    // A changed configuration that could not be used, until it changes again.
    let mut unusable = None;
    loop {
        let (before, socket) = (round.given.clone(), again(&round.socket)?);
        let changed = match runtime.block_on(watch(round, unusable.as_ref(), &reread, &mut signals))?? {
            End::Signal(code) => return Ok(code),
            End::Changed(changed) => *changed,
        };
        let kept = (before.config.http.listen == changed.config.http.listen).then(|| again(&socket)).transpose()?;
        round = match prepare(changed.clone(), kept) {
            Ok(round) => {
                telemetry::change(&before.config.log, &round.given.config.log);
                tracing::info!("the configuration has changed; using the new one");
                unusable = None;
                round
            }
            Err(failure) => {
                let why = failure.to_string();
                tracing::error!(why, "the changed configuration cannot be used; keeping the previous one");
                unusable = Some(changed);
                prepare(before, Some(socket))?
            }
        };
    }
}

fn again(socket: &Socket) -> Result<Socket, Failure> {
    Ok(socket.try_clone().context("cannot share the listening socket")?)
}

/// Everything that can fail, before anything starts. A given `socket` already listens.
fn prepare(given: Given, socket: Option<Socket>) -> Result<Round, Failure> {
    let config = &given.config;
    let socket = match socket {
        Some(socket) => socket,
        None => listen(config.http.listen)?,
    };
    let shared = medic::shared(config)?;
    let engines = engines(config, &shared, &real_carrier)?;
    Ok(Round { given, shared, engines, socket })
}

fn listen(address: SocketAddr) -> Result<Socket, Failure> {
    let socket = Socket::bind(address).with_context(|| {
        format!(
            "cannot listen on {address} (http.listen); if another medic runs here, `scaleset-medic status` asks it; \
             else choose another address: SCALESET_MEDIC_HTTP_LISTEN=127.0.0.1:9811"
        )
    })?;
    socket.set_nonblocking(true).context("cannot make the listening socket non-blocking")?;
    Ok(socket)
}

/// Watches with one configuration until a signal, or until there is another one.
async fn watch(
    round: Round,
    unusable: Option<&Given>,
    reread: &Rereading,
    signals: &mut Signals,
) -> Result<End, Failure> {
    let Round { given, shared, engines, socket } = round;
    let config = &given.config;
    if let LeaseState::HeldByOther { holder, until } = shared.lease.hold().map_err(Failure::internal)? {
        tracing::warn!(
            holder, %until,
            "another medic holds the lease; watching only until it is released or expires"
        );
    }
    let publisher = Arc::new(Publisher {
        board: Arc::new(Board::default()),
        metrics: Arc::clone(&shared.metrics),
        clock: Arc::clone(&shared.clock),
        mode: config.run.mode,
        interval: config.run.interval,
        order: config.managers.iter().map(|manager| manager.name.clone()).collect(),
        latest: Mutex::default(),
    });
    let listener = TcpListener::from_std(socket).context("cannot use the listening socket")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), mode = %config.run.mode, address = %config.http.listen,
        managers = config.managers.len(), interval = %config.run.interval,
        "scaleset-medic is watching; the status page is at / on this address"
    );
    for note in unencrypted(config) {
        tracing::warn!("{note}; use https, or a sidecar beside GARM");
    }
    let (sender, ended) = oneshot::channel();
    let shutdown = async {
        let end = tokio::select! {
            biased;
            code = signals.next() => {
                tracing::info!(signal = ?code, "asked to end; finishing open treatments first");
                End::Signal(code)
            }
            changed = changed(&given, unusable, &shared, reread) => End::Changed(changed),
        };
        let ending = end.ending(config);
        let _ = sender.send(end);
        ending
    };
    let (lease, limit) = (Arc::clone(&shared.lease), config.run.shutdown_limit);
    serve(engines, publisher, lease, Some(listener), limit, shutdown).await.map_err(Failure::internal)?;
    tracing::info!(at = %shared.clock.now().wall, "ended");
    Ok(ended.await.unwrap_or(End::Signal(ExitCode::Internal)))
}

/// Resolves with a configuration that differs, has no mistakes, and was not found unusable.
async fn changed(given: &Given, unusable: Option<&Given>, shared: &Shared, reread: &Rereading) -> Box<Given> {
    let mut reported = None;
    shared.metrics.config_read(unusable.is_none());
    loop {
        shared.clock.sleep(REREAD_EVERY).await;
        let refused = match reread.now(given.clone()).await {
            Ok(None) => None,
            Ok(Some((now, _))) if Some(&now) == unusable => continue,
            Ok(Some((now, Ok(())))) => return Box::new(now),
            Ok(Some((_, Err(why)))) | Err(why) => Some(why),
        };
        shared.metrics.config_read(refused.is_none());
        if refused.is_some() && refused != reported {
            tracing::error!(
                report = refused.as_deref(),
                "the configuration has mistakes or cannot be read; keeping the previous one"
            );
        }
        reported = refused;
    }
}
