//! `run`. A configuration file that changes is read again: a good one takes the place of the old one, a bad one is
//! told and changes nothing.

use super::args::RunArgs;
use super::{Failure, medic};
use crate::config::{Checked, Config};
use crate::exit::ExitCode;
use crate::export::server::Board;
use crate::model::Span;
use crate::run::assemble::{Shared, engines, real_carrier};
use crate::run::service::{Publisher, run as serve};
use crate::store::LeaseState;
use anyhow::Context as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How often the configuration file is looked at.
const REREAD_EVERY: Span = Span::secs(5);

/// Reads the configuration as it is now.
type Reread<'a> = &'a (dyn Fn() -> Result<Checked, Failure> + Sync);

/// Why a round of watching ended.
enum End {
    Signal(ExitCode),
    Changed(Box<Config>),
}

/// Runs the command; `reread` gives the configuration as it is now.
pub(super) fn run(_args: &RunArgs, config: Config, reread: Reread<'_>) -> Result<ExitCode, Failure> {
    let runtime = medic::runtime()?;
    let mut config = config;
    let mut listener = listen(config.http.listen)?;
    loop {
        let socket = listener.try_clone().context("cannot share the listening socket")?;
        match runtime.block_on(watch(&config, socket, reread))? {
            End::Signal(code) => return Ok(code),
            End::Changed(changed) => {
                tracing::info!("the configuration has changed; going on with the new one");
                if changed.http.listen != config.http.listen {
                    listener = listen(changed.http.listen)?;
                }
                config = *changed;
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} (http.listen); is another medic running?"))?;
    listener.set_nonblocking(true).context("cannot make the listening socket non-blocking")?;
    Ok(listener)
}

/// Watches with one configuration until a signal, or until there is another one.
async fn watch(config: &Config, socket: std::net::TcpListener, reread: Reread<'_>) -> Result<End, Failure> {
    let shared = medic::shared(config)?;
    if let LeaseState::HeldByOther { holder, until } = shared.lease.hold().map_err(Failure::internal)? {
        tracing::warn!(
            holder, %until,
            "another medic holds the lease; watching without acting until it is released or runs out"
        );
    }
    let engines = engines(config, &shared, &real_carrier)?;
    let publisher = Arc::new(Publisher {
        board: Arc::new(Board::default()),
        metrics: Arc::clone(&shared.metrics),
        clock: Arc::clone(&shared.clock),
        mode: medic::mode(config),
        interval: config.run.interval,
        order: config.managers.iter().map(|manager| manager.name.clone()).collect(),
        latest: Mutex::default(),
    });
    let listener = TcpListener::from_std(socket).context("cannot use the listening socket")?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), mode = medic::mode(config), address = %config.http.listen,
        managers = config.managers.len(), interval = %config.run.interval,
        "scaleset-medic watches; the status page is at / on this address"
    );
    let (told, ended) = oneshot::channel();
    let shutdown = async {
        let end = tokio::select! {
            biased;
            signal = medic::signal() => {
                tracing::info!(?signal, "asked to end; open intents are settled first");
                End::Signal(signal.exit_code())
            }
            changed = changed(config, &shared, reread) => End::Changed(changed),
        };
        let _ = told.send(end);
    };
    let (lease, limit) = (Arc::clone(&shared.lease), config.run.shutdown_limit);
    serve(engines, publisher, lease, Some(listener), limit, shutdown).await.map_err(Failure::internal)?;
    tracing::info!(at = %shared.clock.now().wall, "ended");
    Ok(ended.await.unwrap_or(End::Signal(ExitCode::Internal)))
}

/// Resolves with a configuration that differs and has no mistakes.
async fn changed(config: &Config, shared: &Shared, reread: Reread<'_>) -> Box<Config> {
    let mut told = None;
    loop {
        shared.clock.sleep(REREAD_EVERY).await;
        let refused = match reread() {
            Ok(now) if now.config != *config => return Box::new(now.config),
            Ok(_) | Err(Failure::ReaderGone) => None,
            Err(Failure::Config(report)) => Some(report.to_string()),
            Err(Failure::Usage(what)) => Some(what),
            Err(Failure::Internal(error)) => Some(format!("{error:#}")),
        };
        shared.metrics.config_read(refused.is_none());
        if refused.is_some() && refused != told {
            tracing::error!(
                report = refused.as_deref(),
                "the configuration has mistakes now; going on with the one that was read before"
            );
        }
        told = refused;
    }
}
