//! The present picture for the commands that show it: from the running medic where there is one, else by looking.

use super::output::diagnostic;
use super::{Failure, medic};
use crate::config::Config;
use crate::engine::assemble::{engines, real_carrier};
use crate::engine::dry_run::{copy, dry_run};
use crate::status::{STATUS_SCHEMA, SetStatus, SourceState, Status};
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use medic_core::model::{FailureKind, ManagerName, ManagerState, Source, Span};
use medic_http::reqwest_transport::{ReqwestTransport, TransportOptions};
use medic_http::{Bounds, Transport as _};
use medic_store::Store;
use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest document that is read: ten thousand sets take a tenth of it.
const DOCUMENT_LIMIT: usize = 256 * 1024 * 1024;
/// How long to check where no medic runs: counters must be read twice.
const CHECK_FOR: Span = Span::secs(8);

const DIRECT: &str = "no medic is running here: this is one short direct check, and nothing was changed\n";

/// The status, and what to say where this command made it itself, with a copy of the state directory's records.
pub(super) fn picture(config: &Config) -> Result<(Status, Option<&'static str>), Failure> {
    medic::runtime()?.block_on(async {
        match ask(config.http.listen).await? {
            Some(status) => Ok((status, None)),
            None => Ok((check_directly(config).await?, Some(DIRECT))),
        }
    })?
}

/// The running medic's document; `None` when nothing listens there.
async fn ask(listen: SocketAddr) -> Result<Option<Status>, Failure> {
    let address = reachable(listen);
    let transport = ReqwestTransport::new(&TransportOptions::default()).map_err(Failure::internal)?;
    let request = http::Request::get(format!("http://{address}/api/v1/status")).body(Bytes::new());
    let request = request.map_err(Failure::internal)?;
    let bounds = Bounds { total: Span::secs(5), body: DOCUMENT_LIMIT };
    let response = match transport.send(request, bounds).await {
        Ok(response) => response,
        Err(error) if error.kind == FailureKind::Connect => return Ok(None),
        Err(error) => {
            return Err(Failure::Internal(anyhow!("the medic at {address} did not answer: {}", error.detail)));
        }
    };
    if !response.status.is_success() {
        let status = response.status;
        return Err(Failure::Internal(anyhow!("the medic at {address} answered {status}; it may have just started")));
    }
    let status: Status = serde_json::from_slice(&response.body)
        .with_context(|| format!("what answers at {address} is not a medic of this version"))?;
    if status.schema != STATUS_SCHEMA {
        let theirs = status.schema;
        return Err(Failure::Internal(anyhow!(
            "the medic at {address} serves version {theirs} of the status document, this command reads {STATUS_SCHEMA}"
        )));
    }
    Ok(Some(status))
}

/// An address that listens on every interface is asked on the loopback one.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn check_directly(config: &Config) -> Result<Status, Failure> {
    let shared = medic::shared_in_memory(config)?;
    let copied = match Store::open_read_only(&config.run.state_dir) {
        Ok(Some(records)) => copy(&records, &shared.store, config, shared.clock.now().wall),
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = copied {
        diagnostic(&format!(
            "earlier treatments, pauses and limits are not known in full: {error:#}; see `scaleset-medic doctor`\n"
        ));
    }
    if std::io::stderr().is_terminal() {
        let address = config.http.listen;
        diagnostic(&format!(
            "no medic answers at {address}: checking directly for up to {CHECK_FOR}, because counters must be read \
             twice\n"
        ));
    }
    let engines = engines(config, &shared, &real_carrier)?;
    let managers = dry_run(engines, shared.clock.as_ref(), CHECK_FOR).await;
    Ok(Status::new(config.run.mode, shared.clock.now().wall, managers, Vec::new()))
}

pub(super) fn find<'a>(
    status: &'a Status,
    set: &str,
    manager: Option<&str>,
) -> Result<(&'a ManagerName, &'a SetStatus), Failure> {
    if let Some(name) = manager {
        known_manager(name, status.managers.iter().map(|m| &m.name).chain(&status.not_swept_yet))?;
    }
    let in_scope = |name: &ManagerName| manager.is_none_or(|only| name.as_str() == only);
    let found: Vec<_> = status
        .managers
        .iter()
        .filter(|m| in_scope(&m.name))
        .flat_map(|m| m.sets.iter().map(|s| (&m.name, s)))
        .filter(|(_, s)| s.name == set || s.id.to_string() == set)
        .collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let unseen = unseen(status, in_scope);
            if unseen.is_empty() {
                return Err(Failure::Usage(format!(
                    "no manager knows a scale set {set}; `scaleset-medic status` lists them"
                )));
            }
            Err(Failure::Blind(format!(
                "scale set {set} cannot be checked: {}; see `scaleset-medic doctor`",
                unseen.join("; ")
            )))
        }
        several => {
            let names: Vec<_> = several.iter().map(|(m, s)| format!("{} of {m} ({})", s.id, entity(s))).collect();
            Err(Failure::Usage(format!(
                "{set} may be any of {}; give its id, and --manager if several are configured",
                names.join(", ")
            )))
        }
    }
}

/// The managers whose sets are not seen now, each with the reason.
fn unseen(status: &Status, in_scope: impl Fn(&ManagerName) -> bool) -> Vec<String> {
    let away = status.managers.iter().filter(|m| matches!(m.state, ManagerState::Down | ManagerState::Unreachable));
    let away = away.filter(|m| in_scope(&m.name)).map(|m| match m.sources.get(&Source::Api) {
        Some(SourceState::Down { why }) => format!("{} cannot be asked ({why})", m.name),
        Some(SourceState::Up | SourceState::NotConfigured { .. }) | None => format!("{} cannot be asked", m.name),
    });
    let waiting = status.not_swept_yet.iter().filter(|name| in_scope(name));
    away.chain(waiting.map(|name| format!("{name} was not swept yet"))).collect()
}

pub(super) fn known_manager<'a>(
    name: &str,
    configured: impl Iterator<Item = &'a ManagerName> + Clone,
) -> Result<(), Failure> {
    if configured.clone().any(|one| one.as_str() == name) {
        return Ok(());
    }
    let names: Vec<_> = configured.map(ManagerName::as_str).collect();
    Err(Failure::Usage(format!("no manager {name} is configured; there is {}", names.join(", "))))
}

pub(super) fn entity(set: &SetStatus) -> String {
    set.entity.as_ref().map_or_else(|| "entity unknown".to_owned(), |entity| entity.entity.name.clone())
}
