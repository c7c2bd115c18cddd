//! `status`.

use super::args::{Color, Output, StatusArgs};
use super::output::{data, diagnostic};
use super::picture::{known_manager, picture};
use super::render::{self, Style};
use super::{Failure, nagios};
use crate::config::Config;
use crate::exit::{ExitCode, ManagerEnd, Treated, nagios_of_run, of_run};
use crate::status::{ManagerStatus, SetStatus, Status};
use medic_core::model::{Decision, ManagerName, ManagerState, Treatment};
use std::fmt::Write as _;
use std::io::IsTerminal as _;

const REPEAT_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) fn run(args: &StatusArgs, config: &Config, color: Color) -> Result<ExitCode, Failure> {
    if let Some(name) = &args.manager {
        known_manager(name, config.managers.iter().map(|manager| &manager.name))?;
    }
    if args.watch {
        return watch(args, config, color);
    }
    let (status, remark) = of_manager(args, config)?;
    if args.nagios {
        let nagios = nagios_of_run(&ends_of(&status));
        data(&nagios::line(&status, nagios))?;
        return Ok(nagios.code());
    }
    data(&shown(args, &status, Style::of_stdout(color))?)?;
    if let Some(remark) = remark {
        diagnostic(remark);
    }
    Ok(of_run(&ends_of(&status)))
}

/// Repeats the status. On a terminal each replaces the one before; in a pipe they follow each other, JSON as one
/// document a line. A failure may be temporary: a medic that has just started, a slow answer.
fn watch(args: &StatusArgs, config: &Config, color: Color) -> Result<ExitCode, Failure> {
    let on_terminal = std::io::stdout().is_terminal() && args.output == Output::Text;
    loop {
        match of_manager(args, config) {
            Ok((status, _)) if on_terminal => {
                // Cursor home; clear the rest of each line and of the screen.
                let text = shown(args, &status, Style::of_stdout(color))?;
                data(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?;
            }
            Ok((status, _)) if args.output == Output::Json => {
                data(&(serde_json::to_string(&status).map_err(Failure::internal)? + "\n"))?;
            }
            Ok((status, _)) => data(&shown(args, &status, Style::of_stdout(color))?)?,
            Err(failure @ (Failure::Internal(_) | Failure::Blind(_))) => {
                diagnostic(&format!("{failure}; retrying\n"));
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(REPEAT_EVERY);
    }
}

fn of_manager(args: &StatusArgs, config: &Config) -> Result<(Status, Option<&'static str>), Failure> {
    let (mut status, remark) = picture(config)?;
    if let Some(name) = &args.manager {
        status.managers.retain(|manager| manager.name.as_str() == name);
        status.not_swept_yet.retain(|manager| manager.as_str() == name);
    }
    Ok((status, remark))
}

fn shown(args: &StatusArgs, status: &Status, style: Style) -> Result<String, Failure> {
    Ok(match args.output {
        Output::Text => text(status, style),
        Output::Json => serde_json::to_string_pretty(status).map_err(Failure::internal)? + "\n",
    })
}

fn text(status: &Status, style: Style) -> String {
    let mut out: String =
        status.managers.iter().map(|manager| render::manager_text(manager, status.at, style)).collect();
    for name in &status.not_swept_yet {
        let _ = writeln!(out, "{name}: not swept yet");
    }
    let _ = writeln!(out, "mode {}, checked at {} UTC", status.mode, status.at);
    out
}

/// What the exit code is made of: each manager, and what was done about its sets. `closed` are the treatments that this
/// command has finished.
pub(super) fn ends(managers: &[ManagerStatus], closed: &[(ManagerName, Treatment)]) -> Vec<ManagerEnd> {
    managers.iter().map(|manager| end(manager, closed)).collect()
}

fn ends_of(status: &Status) -> Vec<ManagerEnd> {
    let waiting = status.not_swept_yet.iter().map(|_| ManagerEnd::Unseen);
    ends(&status.managers, &[]).into_iter().chain(waiting).collect()
}

fn end(manager: &ManagerStatus, closed: &[(ManagerName, Treatment)]) -> ManagerEnd {
    if matches!(manager.state, ManagerState::Down | ManagerState::Unreachable) {
        return ManagerEnd::Unseen;
    }
    let treated = |set: &SetStatus| {
        let own = closed.iter().filter(|(name, row)| *name == manager.name && row.set == set.id);
        let last = own.max_by_key(|(_, row)| (row.step_at, row.id)).and_then(|(_, row)| row.outcome());
        match (set.left_disabled.is_some(), matches!(set.decision, Decision::Treating { .. }), last) {
            (true, _, _) => Treated::LeftDisabled,
            (false, true, _) => Treated::Open,
            (false, false, Some(outcome)) => Treated::Closed(outcome),
            (false, false, None) => Treated::No,
        }
    };
    ManagerEnd::Seen(manager.sets.iter().map(|set| (set.finding.diagnosis, treated(set))).collect())
}
