//! `heal`: a person's order, placed in the store, where the medic that holds the lease takes it up at its next pass;
//! where none runs, this command is the medic for as long as it takes. Who stops the command takes the order back, as far
//! as nobody has taken it up: an order that was called off must not be carried out behind a person's back.

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
use medic_core::model::{Diagnosis, ManagerName, Outcome, ScaleSetId, SessionId, Span, Treatment, TreatmentId, Wall};
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
        // Signals are heard before there is an order that they would leave behind.
        let mut signals = Signals::listen();
        let now = shared.clock.now().wall;
        let order = store.add_manual_heal(set.id, what, &author, now).map_err(Failure::internal)?;
        let (code, given_up) = tokio::select! {
            biased;
            signal = signals.next() => (Ok(signal.exit_code()), true),
            code = carried_out(config, &shared, name, &order) => { let failed = code.is_err(); (code, failed) }
        };
        if given_up {
            diagnostic(&format!("{}\n", withdrawn(&store, &order, &shared).await));
        }
        code
    })?;
    // Whatever came of it, this process leaves nothing half done. Where another medic holds the lease, it sees to that.
    let left = engines(config, &shared, &real_carrier)?;
    medic::runtime()?.block_on(medic::finish(left, shared.clock.as_ref()))?;
    shared.lease.release();
    code
}

/// What a person should have seen before saying yes.
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
    let _ = writeln!(out, "  by itself the medic would: {}", render::decision(set, now));
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
        out.push_str("Deleting a session that a living manager holds crashes that manager.\n");
    }
    Ok(out)
}

/// Whether the person types the set's name.
fn confirmed(set: &SetStatus) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("heal asks for confirmation; without a terminal, give --yes".to_owned()));
    }
    diagnostic(&format!("type the name of the scale set ({}) to go on: ", set.name));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::internal)?;
    Ok(line.trim() == set.name)
}

async fn carried_out(
    config: &Config,
    shared: &Shared,
    name: &ManagerName,
    order: &ManualHeal,
) -> Result<ExitCode, Failure> {
    let mut engine = match shared.lease.hold().map_err(Failure::internal)? {
        LeaseState::Held => {
            // Nothing is begun but what was ordered, which the mode does not hold back.
            let mut config = config.clone();
            config.run.mode = Mode::Observe;
            let all = engines(&config, shared, &real_carrier)?;
            all.into_iter().find(|engine| engine.name() == name)
        }
        LeaseState::HeldByOther { holder, .. } => {
            diagnostic(&format!("handed to the running medic ({holder})\n"));
            None
        }
    };
    let store = shared.store.for_manager(name);
    let began = shared.clock.now().mono;
    let mut told = String::new();
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
        match store.manual_heal_answer(order.id).map_err(Failure::internal)? {
            Some(ManualHealAnswer::Refused { why }) => {
                prose(&format!("refused: {}\n", guards::refusal(&why)))?;
                return Ok(ExitCode::Unhealthy);
            }
            Some(ManualHealAnswer::Treating { treatment }) => {
                let row = treatment_of(&store, treatment)?;
                if let Some(row) = &row {
                    tell(&mut told, &format!("{}: {}\n", words::treatment(treatment), row.step.label()));
                }
                if let Some(code) = row.as_ref().and_then(|row| ended(row, last.as_ref())) {
                    let why = row.as_ref().and_then(Treatment::why).unwrap_or_default();
                    let outcome = row.as_ref().and_then(Treatment::outcome).map_or("over", Outcome::as_str);
                    prose(&format!("{outcome}: {why}\n"))?;
                    return Ok(code);
                }
            }
            Some(ManualHealAnswer::Waiting { why }) => {
                tell(&mut told, &format!("waiting: {}\n", guards::manual_wait(&why)));
            }
            None => {}
        }
        let answered = matches!(store.manual_heal_answer(order.id), Ok(Some(ManualHealAnswer::Treating { .. })));
        if waited >= if answered { TREATMENT_LIMIT } else { MANUAL_HEAL_LIFETIME } {
            prose(&format!("not carried out within {waited}{}{told}", if told.is_empty() { "\n" } else { "; " }))?;
            return Ok(if answered { ExitCode::Unverified } else { ExitCode::Unhealthy });
        }
        shared.clock.sleep(pause).await;
    }
}

/// Takes the order back; in words, whether that was in time.
async fn withdrawn(store: &ManagerStore, order: &ManualHeal, shared: &Shared) -> String {
    let answer = match store.withdraw_manual_heal(order.id) {
        Ok(None) => {
            // A medic that had read the order just before says so in a moment.
            shared.clock.sleep(ASK_EVERY).await;
            store
                .manual_heal_answer(order.id)
                .map(|answer| answer.filter(|answer| !matches!(answer, ManualHealAnswer::Refused { .. })))
        }
        settled => settled,
    };
    match answer {
        Ok(None | Some(ManualHealAnswer::Waiting { .. })) => {
            "the order is withdrawn: nothing was done for it, and nothing will be".to_owned()
        }
        Ok(Some(ManualHealAnswer::Treating { treatment })) => format!(
            "too late to withdraw the order: {} was begun for it and is brought to an end; `scaleset-medic history` tells",
            words::treatment(treatment)
        ),
        Ok(Some(ManualHealAnswer::Refused { why })) => {
            format!("the order was refused already: {}", guards::refusal(&why))
        }
        Err(error) => format!(
            "the order could not be withdrawn, so that a medic may carry it out within {MANUAL_HEAL_LIFETIME} of its date: {error}"
        ),
    }
}

fn treatment_of(store: &ManagerStore, id: TreatmentId) -> Result<Option<Treatment>, Failure> {
    store.treatment(id).map_err(Failure::internal)
}

fn tell(told: &mut String, now: &str) {
    if told != now {
        now.clone_into(told);
        diagnostic(now);
    }
}

/// The exit code once the treatment is over.
fn ended(row: &Treatment, last: Option<&ManagerStatus>) -> Option<ExitCode> {
    let outcome = row.outcome()?;
    let seen = last.and_then(|status| diagnosis_of(status, row.set));
    Some(match (outcome, seen) {
        (Outcome::Recovered | Outcome::SelfRecovered, _) => ExitCode::Well,
        (_, Some(diagnosis)) => of_set(diagnosis, Treated::Closed(outcome)),
        (_, None) => of_set(row.cause, Treated::Closed(outcome)),
    })
}

fn diagnosis_of(status: &ManagerStatus, set: ScaleSetId) -> Option<Diagnosis> {
    status.sets.iter().find(|shown| shown.id == set).map(|shown| shown.finding.diagnosis)
}
