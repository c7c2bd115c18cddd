//! `once`.

use super::args::{Color, OnceArgs, Output};
use super::output::{data, diagnostic};
use super::render::{self, Look};
use super::{Failure, medic, nagios};
use crate::config::Config;
use crate::engine::assemble::{engines, real_carrier};
use crate::engine::once::{Summary, once};
use crate::exit::{ExitCode, ManagerEnd, Treated, nagios_of_run, of_run};
use crate::status::ManagerStatus;
use medic_core::model::{Decision, ManagerState, Span};
use medic_store::LeaseState;
use std::sync::Arc;

/// How long an ill or unclear fleet is watched before it is judged: the settle time and a few sweeps.
const OBSERVE: Span = Span::secs(30);

pub(super) fn run(args: &OnceArgs, config: &Config, color: Color) -> Result<ExitCode, Failure> {
    let shared = medic::shared(config)?;
    if let LeaseState::HeldByOther { holder, until } = shared.lease.hold().map_err(Failure::internal)? {
        diagnostic(&format!(
            "another medic ({holder}) holds the lease on {} until {until} at least; it is the one that heals, and \
             nothing was done here\n",
            config.run.state_dir.display()
        ));
        if args.nagios {
            nagios::say(
                ExitCode::LeaseHeld,
                &format!("another medic ({holder}) is at work; ask that one: status --nagios"),
            )?;
        }
        return Ok(ExitCode::LeaseHeld);
    }
    let engines = engines(config, &shared, &real_carrier)?;
    let clock = Arc::clone(&shared.clock);
    let ended = medic::runtime()?.block_on(async {
        tokio::select! {
            summary = once(engines, clock.as_ref(), args.observe.unwrap_or(OBSERVE)) => Ok(summary),
            signal = medic::signal() => Err(signal),
        }
    })?;
    let summary = match ended {
        Ok(summary) => summary,
        Err(signal) => {
            // The reconciles were dropped; what they left is in the journal and is finished now.
            let engines = crate::engine::assemble::engines(config, &shared, &real_carrier)?;
            medic::runtime()?.block_on(medic::finish(engines, clock.as_ref()))?;
            shared.lease.release();
            if args.nagios {
                nagios::say(signal.exit_code(), "interrupted before it could judge")?;
            }
            return Ok(signal.exit_code());
        }
    };
    shared.lease.release();
    let ends = ends(&summary);
    let code = of_run(&ends);
    match args.output {
        Output::Text if args.nagios => {
            let status = medic::document(config, summary.managers, clock.now().wall);
            let nagios = nagios_of_run(&ends);
            data(&nagios::line(&status, nagios))?;
            return Ok(nagios.code());
        }
        Output::Text => data(&render::summary(&summary, code, clock.now().wall, Look::of_stdout(color)))?,
        Output::Json => {
            let document = serde_json::json!({
                "exit_code": code.code(),
                "meaning": code.meaning(),
                "status": medic::document(config, summary.managers, clock.now().wall),
                "treatments": summary.closed,
            });
            data(&format!("{document:#}\n"))?;
        }
    }
    Ok(code)
}

/// The exit code of a whole run.
#[must_use]
pub fn exit_code(summary: &Summary) -> ExitCode {
    of_run(&ends(summary))
}

fn ends(summary: &Summary) -> Vec<ManagerEnd> {
    summary.managers.iter().map(|manager| manager_end(manager, summary)).collect()
}

fn manager_end(manager: &ManagerStatus, summary: &Summary) -> ManagerEnd {
    match manager.state {
        ManagerState::Up | ManagerState::Restarted => {}
        ManagerState::Down | ManagerState::Unreachable => return ManagerEnd::Unseen,
    }
    let sets = manager.sets.iter().map(|set| {
        let open = matches!(set.decision, Decision::Treating { .. });
        let last = summary.closed.iter().filter(|(name, closed)| *name == manager.name && closed.set == set.id);
        let last = last.max_by_key(|(_, closed)| (closed.step_at, closed.id)).and_then(|(_, closed)| closed.outcome());
        let treated = match last {
            _ if set.left_disabled.is_some() => Treated::LeftDisabled,
            _ if open => Treated::Open,
            Some(outcome) => Treated::Closed(outcome),
            None => Treated::No,
        };
        (set.finding.diagnosis, treated)
    });
    ManagerEnd::Seen(sets.collect())
}
