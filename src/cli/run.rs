//! `run`.

use super::args::RunArgs;
use super::{Failure, medic};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::export::server::Board;
use crate::run::assemble::{engines, real_carrier};
use crate::run::service::{Publisher, run as serve};
use crate::store::LeaseState;
use anyhow::Context as _;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Runs the command.
pub(super) fn run(_args: &RunArgs, config: &Config) -> Result<ExitCode, Failure> {
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
    medic::runtime()?.block_on(async {
        let address = config.http.listen;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} (http.listen); is another medic running?"))?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"), mode = medic::mode(config), %address,
            managers = config.managers.len(), interval = %config.run.interval,
            "scaleset-medic watches; the status page is at / on this address"
        );
        let (told, asked) = oneshot::channel();
        let shutdown = async move {
            let signal = medic::signal().await;
            tracing::info!(?signal, "asked to end; open intents are settled first");
            let _ = told.send(signal);
        };
        serve(engines, publisher, Arc::clone(&shared.lease), Some(listener), config.run.shutdown_limit, shutdown)
            .await
            .map_err(Failure::internal)?;
        tracing::info!(at = %shared.clock.now().wall, "ended");
        Ok(asked.await.map_or(ExitCode::Internal, medic::Signal::exit_code))
    })
}
