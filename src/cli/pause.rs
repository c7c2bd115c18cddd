//! `pause` and `resume`: written to the store, where the running medic reads them in its next reconcile.

use super::args::{PauseArgs, ResumeArgs, ScopeArgs};
use super::output::{one_line, prose};
use super::picture::{find, known_manager, picture};
use super::{Failure, medic};
use crate::config::Config;
use crate::engine::pause_file::PauseFile;
use crate::exit::ExitCode;
use crate::text::guards;
use medic_core::model::{ManagerName, PauseScope, ScaleSetId};
use medic_store::NewPause;

pub(super) fn pause(args: &PauseArgs, config: &Config) -> Result<ExitCode, Failure> {
    let scope = scope(&args.scope, config)?;
    let shared = medic::shared(config)?;
    let created = shared.clock.now().wall;
    let pause = NewPause {
        scope,
        reason: args.reason.clone(),
        author: medic::author(args.author.as_deref()),
        created,
        expires: args.for_time.map(|span| created.plus(span)),
    };
    let pause = shared.store.add_pause(pause).map_err(Failure::internal)?;
    let end =
        pause.expires.map_or_else(|| "until resumed".to_owned(), |end| format!("until {} UTC", end.near(created)));
    prose(&format!(
        "{} paused {end}: watching continues, no treatment starts; one that is under way is completed\nto end it: {}\n",
        pause.scope,
        guards::how_to_end(&pause)
    ))?;
    Ok(ExitCode::Well)
}

pub(super) fn resume(args: &ResumeArgs, config: &Config) -> Result<ExitCode, Failure> {
    let scope = scope(&args.scope, config)?;
    let shared = medic::shared(config)?;
    let now = shared.clock.now().wall;
    if args.breaker {
        let names = config.managers.iter().map(|manager| &manager.name);
        for name in names.filter(|name| args.scope.manager.as_deref().is_none_or(|only| only == name.as_str())) {
            shared.store.for_manager(name).save_breaker_reset(now).map_err(Failure::internal)?;
            prose(&format!("the circuit breaker of {name} is closed: healing is allowed again\n"))?;
        }
    }
    // A reset of the breaker ends no pause.
    if !args.breaker {
        let ended = shared.store.remove_pauses_of(&scope).map_err(Failure::internal)?;
        prose(&format!("{scope} {}\n", if ended == 0 { "was not paused" } else { "resumed" }))?;
    }
    let kept = shared.store.pauses(now).map_err(Failure::internal)?;
    for pause in kept.into_iter().chain(PauseFile::of(config).read(now)) {
        let words = one_line(&guards::pause_terms(&pause, now));
        prose(&format!("still paused: {}, {words} (to end it: {})\n", pause.scope, guards::how_to_end(&pause)))?;
    }
    Ok(ExitCode::Well)
}

fn scope(args: &ScopeArgs, config: &Config) -> Result<PauseScope, Failure> {
    let Some(name) = &args.manager else { return Ok(PauseScope::All) };
    let manager = ManagerName::new(name.as_str());
    known_manager(name, config.managers.iter().map(|configured| &configured.name))?;
    match args.set.as_deref().map(|set| (set, set.parse())) {
        None => Ok(PauseScope::Manager { manager }),
        // An id needs no status: an emergency stop works while the manager is down.
        Some((_, Ok(id))) => Ok(PauseScope::Set { manager, set: ScaleSetId(id) }),
        Some((set, Err(_))) => {
            let (status, _) = picture(config)?;
            let (_, found) = find(&status, set, Some(name)).map_err(by_number)?;
            Ok(PauseScope::Set { manager, set: found.id })
        }
    }
}

/// Where the manager cannot be asked for a name, an id still works.
fn by_number(failure: Failure) -> Failure {
    match failure {
        Failure::Blind(what) => {
            Failure::Blind(format!("{what}; give the set's id instead, or only --manager for all sets"))
        }
        other => other,
    }
}
