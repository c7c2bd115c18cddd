//! `status`.

use super::args::{Color, Output, StatusArgs};
use super::output::{data, diagnostic};
use super::picture::{By, known_manager, picture};
use super::render::{self, Look};
use super::{Failure, nagios};
use crate::config::Config;
use crate::exit::{ExitCode, ManagerEnd, Treated, nagios_of_run, of_run};
use crate::model::status::{ManagerStatus, SetStatus, Status};
use crate::model::{Decision, ManagerState};
use std::fmt::Write as _;

/// Runs the command.
pub(super) fn run(args: &StatusArgs, config: &Config, color: Color) -> Result<ExitCode, Failure> {
    loop {
        let (mut status, by) = picture(config)?;
        if let Some(name) = &args.manager {
            known_manager(name, config.managers.iter().map(|manager| &manager.name))?;
            status.managers.retain(|manager| manager.name.as_str() == name);
            status.not_looked_at.retain(|manager| manager.as_str() == name);
        }
        if args.nagios {
            let nagios = nagios_of_run(&ends(&status));
            data(&nagios::line(&status, nagios))?;
            return Ok(nagios.code());
        }
        let text = match args.output {
            Output::Text => text(&status, Look::of_stdout(color)),
            Output::Json => serde_json::to_string_pretty(&status).map_err(Failure::internal)? + "\n",
        };
        if args.watch {
            // Home, then clear what an earlier, longer picture left behind.
            data(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
            std::thread::sleep(std::time::Duration::from_secs(2));
            continue;
        }
        data(&text)?;
        if by == By::Ourselves {
            diagnostic("no medic runs here; this is what one short look shows\n");
        }
        return Ok(of_run(&ends(&status)));
    }
}

fn text(status: &Status, look: Look) -> String {
    let mut out: String =
        status.managers.iter().map(|manager| render::manager_text(manager, status.at, look)).collect();
    for name in &status.not_looked_at {
        let _ = writeln!(out, "{name}: not looked at yet");
    }
    let _ = writeln!(out, "mode {}, looked at {}", status.mode, status.at);
    out
}

fn ends(status: &Status) -> Vec<ManagerEnd> {
    let waiting = status.not_looked_at.iter().map(|_| ManagerEnd::Unseen);
    status.managers.iter().map(end).chain(waiting).collect()
}

fn end(manager: &ManagerStatus) -> ManagerEnd {
    match manager.state {
        ManagerState::Up | ManagerState::Restarted => {}
        ManagerState::Down | ManagerState::Unreachable => return ManagerEnd::Unseen,
    }
    let treated = |set: &SetStatus| match &set.decision {
        _ if set.left_disabled.is_some() => Treated::LeftDisabled,
        Decision::Treating { .. } => Treated::Open,
        Decision::Leave
        | Decision::Watch { .. }
        | Decision::Escalate { .. }
        | Decision::Withhold { .. }
        | Decision::Act { .. } => Treated::No,
    };
    ManagerEnd::Seen(manager.sets.iter().map(|set| (set.finding.diagnosis, treated(set))).collect())
}
