//! `heal`: a manual heal, written to the store, where the medic that holds the lease starts it in its next reconcile;
//! where none runs, this command carries it out. Interrupting the command withdraws the manual heal unless it has
//! started.

use super::args::HealArgs;
use super::medic::Signals;
use super::output::{diagnostic, prose};
use super::picture::{find, picture};
use super::{Failure, medic, render};
use crate::config::Config;
use crate::engine::assemble::{Shared, engines, real_carrier};
use crate::exit::{ExitCode, Treated, of_set};
use crate::status::{ManagerStatus, SetStatus};
use crate::text::{guards, words};
use medic_core::model::manual::{MANUAL_HEAL_LIFETIME, ManualAction, ManualHeal, ManualHealAnswer};
use medic_core::model::session::NotStale;
use medic_core::model::{ManagerName, Outcome, SessionId, Span, Treatment, Wall};
use medic_core::policy::Mode;
use medic_store::{LeaseState, ManagerStore};
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};

/// How often the store is asked what the running medic did.
const ASK_EVERY: Span = Span::millis(500);
/// The longest that a treatment is waited for.
const TREATMENT_LIMIT: Span = Span::mins(10);

pub(super) fn run(args: &HealArgs, config: &Config) -> Result<ExitCode, Failure> {
    let (status, _) = picture(config)?;
    let (name, set) = find(&status, &args.set.set, args.set.manager.as_deref())?;
    let shared = medic::shared(config)?;
    let store = shared.store.for_manager(name);
    let what = match &args.session {
        Some(session) => ManualAction::DeleteSession { session: SessionId::new(session.as_str()) },
        None => ManualAction::Heal,
    };
    diagnostic(&evidence(name, set, &what, &store, status.at)?);
    if !args.yes && !confirmed(set)? {
        diagnostic("nothing was done\n");
        return Ok(ExitCode::Unhealthy);
    }
    let author = medic::author(args.author.as_deref());
    let code = medic::runtime()?.block_on(async {
        // Signals are received before there is a manual heal to withdraw.
        let mut signals = Signals::listen();
        let now = shared.clock.now().wall;
        let manual = store.add_manual_heal(set.id, what, &author, now).map_err(Failure::internal)?;
        let (code, given_up) = tokio::select! {
            biased;
            signal = signals.next() => (Ok(signal), true),
            code = carried_out(config, &shared, name, &manual) => { let failed = code.is_err(); (code, failed) }
        };
        if given_up {
            diagnostic(&format!("{}\n", withdrawn(&store, &manual, &shared).await));
        }
        code
    })?;
    // This process finishes its treatments; where another medic holds the lease, that one does.
    let left = engines(config, &shared, &real_carrier)?;
    medic::runtime()?.block_on(medic::finish(left, shared.clock.as_ref()))?;
    shared.lease.release();
    code
}

fn evidence(
    name: &ManagerName,
    set: &SetStatus,
    what: &ManualAction,
    store: &ManagerStore,
    now: Wall,
) -> Result<String, Failure> {
    let mut out = String::new();
    let finding = &set.finding;
    let _ = writeln!(out, "{} (id {} at {name}) is {} ({}):", set.name, set.id, finding.diagnosis, finding.confidence);
    for evidence in &finding.evidence {
        let _ = writeln!(out, "  {}", words::evidence(evidence));
    }
    let _ = writeln!(out, "  the automatic decision is: {}", render::action(set, now));
    if let ManualAction::DeleteSession { session } = what {
        match store.session(session).map_err(Failure::internal)? {
            None => {
                let _ = writeln!(out, "session {session}: {}", guards::not_stale(NotStale::NotInLedger));
            }
            Some(row) => {
                let _ = writeln!(
                    out,
                    "session {session} of {}: seen from {} to {}, {}",
                    row.owner,
                    row.first_seen,
                    row.last_seen,
                    row.ended.map_or_else(|| "no end known".to_owned(), |(at, how)| format!("ended {at} ({how})"))
                );
            }
        }
        out.push_str("Deleting a session that GARM still uses crashes GARM.\n");
    }
    Ok(out)
}

fn confirmed(set: &SetStatus) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("heal asks for confirmation; without a terminal, give --yes".to_owned()));
    }
    diagnostic(&format!("type the name of the scale set ({}) to continue: ", set.name));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::internal)?;
    Ok(line.trim() == set.name)
}

async fn carried_out(
    config: &Config,
    shared: &Shared,
    name: &ManagerName,
    manual: &ManualHeal,
) -> Result<ExitCode, Failure> {
    let mut engine = match shared.lease.hold().map_err(Failure::internal)? {
        LeaseState::Held => {
            // Only the manual heal is started: the mode does not block it.
            let mut config = config.clone();
            config.run.mode = Mode::Observe;
            let all = engines(&config, shared, &real_carrier)?;
            all.into_iter().find(|engine| engine.name() == name)
        }
        LeaseState::HeldByOther { holder, .. } => {
            diagnostic(&format!("sent to the running medic ({holder})\n"));
            None
        }
    };
    let store = shared.store.for_manager(name);
    let began = shared.clock.now().mono;
    let mut shown = String::new();
    loop {
        let mut last = None;
        let pause = match &mut engine {
            Some(engine) => {
                last = Some(engine.reconcile().await.status);
                engine.until_next()
            }
            None => ASK_EVERY,
        };
        let waited = shared.clock.now().mono.since(began);
        match store.manual_heal_answer(manual.id).map_err(Failure::internal)? {
            Some(ManualHealAnswer::Refused { why }) => {
                prose(&format!("refused: {}\n", guards::refusal(&why)))?;
                return Ok(ExitCode::Unhealthy);
            }
            Some(ManualHealAnswer::Treating { treatment }) => {
                let row = store.treatment(treatment).map_err(Failure::internal)?;
                if let Some(row) = &row {
                    show(&mut shown, &format!("{}: {}\n", words::treatment(treatment), row.step.label()));
                }
                if let Some(code) = row.as_ref().and_then(|row| ended(row, last.as_ref())) {
                    let why = row.as_ref().and_then(Treatment::why).unwrap_or_default();
                    let outcome = row.as_ref().and_then(Treatment::outcome).map_or("ended", Outcome::as_str);
                    prose(&format!("{outcome}: {why}\n"))?;
                    return Ok(code);
                }
            }
            Some(ManualHealAnswer::Waiting { why }) => {
                show(&mut shown, &format!("waiting: {}\n", guards::manual_wait(&why)));
            }
            None => {}
        }
        let answered = matches!(store.manual_heal_answer(manual.id), Ok(Some(ManualHealAnswer::Treating { .. })));
        if waited >= if answered { TREATMENT_LIMIT } else { MANUAL_HEAL_LIFETIME } {
            prose(&format!("not carried out within {waited}{}{shown}", if shown.is_empty() { "\n" } else { "; " }))?;
            return Ok(if answered { ExitCode::Unverified } else { ExitCode::Unhealthy });
        }
        shared.clock.sleep(pause).await;
    }
}

/// Withdraws the manual heal, and says whether that was in time.
async fn withdrawn(store: &ManagerStore, manual: &ManualHeal, shared: &Shared) -> String {
    let answer = match store.withdraw_manual_heal(manual.id) {
        Ok(None) => {
            // A medic that read it just before answers soon.
            shared.clock.sleep(ASK_EVERY).await;
            store
                .manual_heal_answer(manual.id)
                .map(|answer| answer.filter(|answer| !matches!(answer, ManualHealAnswer::Refused { .. })))
        }
        answered => answered,
    };
    match answer {
        Ok(None | Some(ManualHealAnswer::Waiting { .. })) => {
            "the manual heal is withdrawn: nothing was done".to_owned()
        }
        Ok(Some(ManualHealAnswer::Treating { treatment })) => format!(
            "too late to withdraw: {} has begun and will be finished; see `scaleset-medic history`",
            words::treatment(treatment)
        ),
        Ok(Some(ManualHealAnswer::Refused { why })) => {
            format!("the manual heal was already refused: {}", guards::refusal(&why))
        }
        Err(error) => format!(
            "the manual heal could not be withdrawn and may be carried out within {MANUAL_HEAL_LIFETIME}: {error}"
        ),
    }
}

fn show(shown: &mut String, now: &str) {
    if shown != now {
        now.clone_into(shown);
        diagnostic(now);
    }
}

fn ended(row: &Treatment, last: Option<&ManagerStatus>) -> Option<ExitCode> {
    let outcome = row.outcome()?;
    let seen = last.and_then(|status| status.sets.iter().find(|shown| shown.id == row.set));
    Some(match (outcome, seen) {
        (Outcome::Recovered | Outcome::SelfRecovered, _) => ExitCode::Well,
        (_, Some(set)) => of_set((set.finding.diagnosis, Treated::Closed(outcome))),
        (_, None) => of_set((row.cause, Treated::Closed(outcome))),
    })
}
