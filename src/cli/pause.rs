//! `pause` and `resume`: written to the store, where the running medic reads them at its next pass.

use super::args::{PauseArgs, ResumeArgs, ScopeArgs};
use super::output::data;
use super::picture::{find, picture};
use super::{Failure, medic};
use crate::config::Config;
use crate::exit::ExitCode;
use crate::model::{ManagerName, PauseScope};
use crate::run::pause_file;
use crate::store::NewPause;

/// Runs `pause`.
pub(super) fn pause(args: &PauseArgs, config: &Config) -> Result<ExitCode, Failure> {
    let scope = scope(&args.scope, config)?;
    let shared = medic::shared(config)?;
    let created = shared.clock.now().wall;
    let pause = NewPause {
        scope,
        reason: args.reason.clone(),
        author: args.author.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "unknown".to_owned()),
        created,
        expires: args.for_time.map(|span| created.plus(span)),
    };
    let pause = shared.store.add_pause(pause).map_err(Failure::internal)?;
    let end = pause.expires.map_or_else(|| "until resumed".to_owned(), |end| format!("until {end}"));
    data(&format!(
        "{} paused {end}: watching goes on, nothing new is done; a treatment under way is completed\n",
        words(&pause.scope)
    ))?;
    Ok(ExitCode::Well)
}

/// Runs `resume`.
pub(super) fn resume(args: &ResumeArgs, config: &Config) -> Result<ExitCode, Failure> {
    let scope = scope(&args.scope, config)?;
    let shared = medic::shared(config)?;
    let now = shared.clock.now().wall;
    if args.breaker {
        let names = config.managers.iter().map(|manager| &manager.name);
        for name in names.filter(|name| args.scope.manager.as_deref().is_none_or(|only| only == name.as_str())) {
            shared.store.for_manager(name).save_breaker_reset(now).map_err(Failure::internal)?;
            data(&format!("the circuit breaker of {name} is closed: healing is allowed again\n"))?;
        }
    }
    let ended = shared.store.remove_pauses_of(&scope).map_err(Failure::internal)?;
    let left = shared.store.pauses(now).map_err(Failure::internal)?;
    match ended {
        0 if args.breaker => {}
        0 => data(&format!("{} was not paused\n", words(&scope)))?,
        _ => data(&format!("{} resumed\n", words(&scope)))?,
    }
    for pause in left {
        let end = pause.expires.map_or_else(|| "until resumed".to_owned(), |end| format!("until {end}"));
        data(&format!("still paused {end}: {}, by {}: {}\n", words(&pause.scope), pause.author, pause.reason))?;
    }
    if let Some(pause) = pause_file::read(&config.run.state_dir, now) {
        let (file, what) = (config.run.state_dir.join(pause_file::FILE_NAME), words(&pause.scope));
        data(&format!("still paused: {what}, until {} is removed: {}\n", file.display(), pause.reason))?;
    }
    Ok(ExitCode::Well)
}

fn scope(args: &ScopeArgs, config: &Config) -> Result<PauseScope, Failure> {
    let Some(name) = &args.manager else { return Ok(PauseScope::All) };
    let manager = ManagerName::new(name.as_str());
    if !config.managers.iter().any(|configured| configured.name == manager) {
        return Err(Failure::Usage(format!("no manager {name} is configured")));
    }
    match &args.set {
        None => Ok(PauseScope::Manager { manager }),
        Some(set) => {
            let (status, _) = picture(config)?;
            let (_, found) = find(&status, set, Some(name))?;
            Ok(PauseScope::Set { manager, set: found.id })
        }
    }
}

fn words(scope: &PauseScope) -> String {
    match scope {
        PauseScope::All => "everything".to_owned(),
        PauseScope::Manager { manager } => format!("manager {manager}"),
        PauseScope::Set { manager, set } => format!("scale set {set} of {manager}"),
    }
}
