//! One manager's engine: a pass is sweep → diagnose → settle and step treatments → decide → treat → export. Everything
//! between two passes is in the store or in [`Memory`], so that a pass may be the first after a crash.

use super::report;
use crate::clock::Clock;
use crate::decide::policy::{Mode, Policy};
use crate::decide::{self, breaker};
use crate::diagnose::{self, Context, Fleet, Memory};
use crate::export::metrics::{Metrics, RecoveryCause};
use crate::model::status::ManagerStatus;
use crate::model::treatment::Outcome;
use crate::model::{
    Controller, Decision, EntityRef, Finding, ForgeSet, Guard, Incarnation, Lingering, ManagerName, ManagerState, Mono, Owner,
    Remedy, ScaleSetId, Seen, SetDecision, Span, Sweep, Treatment, Wall,
};
use crate::probe::plan::{self, Asked, Urgency};
use crate::probe::sweep::{Sources, sweep};
use crate::store::ManagerStore;
use crate::treat::driver::Driver;
use crate::treat::machine::{self, Input, Transition, View};
use crate::treat::ports::{Journal, JournalError};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one manager's engine is made of.
pub struct Parts {
    /// Its name.
    pub name: ManagerName,
    /// What may be read.
    pub sources: Sources,
    /// What may be written.
    pub driver: Driver,
    /// Its part of the store.
    pub store: ManagerStore,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Rules and limits.
    pub policy: Policy,
    /// Whether writes are allowed.
    pub mode: Mode,
    /// Calm interval between passes.
    pub interval: Span,
    /// Metrics, where exported.
    pub metrics: Option<Arc<Metrics>>,
}

/// The engine of one manager.
pub struct Engine {
    parts: Parts,
    memory: Memory,
    asked: Asked,
    kept: Kept,
    urgency: Urgency,
    held: BTreeSet<(ScaleSetId, Guard)>,
    would_act: BTreeSet<ScaleSetId>,
    saved: Option<String>,
}

/// While anything is ill, unknown or under treatment.
const ALERT_INTERVAL: Span = Span::secs(2);
/// Journal rows that budgets and back-off look at.
const HISTORY: Span = Span::hours(24);

/// Slow sources' last answers, carried into passes that do not ask again.
#[derive(Default)]
struct Kept {
    controller: Option<Controller>,
    controller_of: Option<Incarnation>,
    lingering: Option<BTreeMap<ScaleSetId, Lingering>>,
    broker: BTreeMap<EntityRef, (Mono, Vec<ForgeSet>)>,
}

/// What one pass found and did.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The picture.
    pub status: ManagerStatus,
    /// Treatments that closed in this pass.
    pub closed: Vec<Treatment>,
    /// How soon to look again.
    pub urgency: Urgency,
}

impl Engine {
    /// An engine that continues where the store says the last one stopped.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let saved = match parts.store.load_memory() {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(manager = %parts.name, %error, "the memory of earlier passes cannot be read; starting afresh");
                None
            }
        };
        let memory = saved.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        Self {
            parts,
            memory,
            asked: Asked::default(),
            kept: Kept::default(),
            urgency: Urgency::Alert,
            held: BTreeSet::new(),
            would_act: BTreeSet::new(),
            saved,
        }
    }

    /// The manager's name.
    #[must_use]
    pub fn name(&self) -> &ManagerName {
        &self.parts.name
    }

    /// How long to wait before the next pass.
    #[must_use]
    pub fn pause(&self) -> Span {
        match self.urgency {
            Urgency::Calm => self.parts.interval,
            Urgency::Alert => ALERT_INTERVAL.min(self.parts.interval),
        }
    }

    /// One pass.
    pub async fn pass(&mut self) -> Pass {
        let began = self.parts.clock.now();
        let sweep = self.look().await;
        let mut closed = Vec::new();
        let now = self.parts.clock.now();

        let journal = self.read_journal(now.wall);
        let (unfinished, history) = match &journal {
            Ok((unfinished, history)) => (unfinished.clone(), history.clone()),
            Err(_) => (Vec::new(), Vec::new()),
        };
        let ledger = self.parts.store.live_sessions();
        let ledger = match ledger {
            Ok(sessions) => sessions,
            Err(error) => {
                self.store_failed(&error);
                Vec::new()
            }
        };
        let context = Context { treatments: &unfinished, probes: &report::probe_answers(&history), ledger: &ledger };
        let mut fleet = diagnose::diagnose(&mut self.memory, &sweep, &context, &self.parts.policy);

        let mut treatments = self.step_treatments(&unfinished, &fleet, &mut closed).await;
        let decisions = if journal.is_ok() {
            let history = merged(history, &treatments, &closed);
            let decisions = self.decide(&fleet, &history, &ledger);
            treatments.extend(self.begin(&decisions, &fleet, &mut closed).await);
            decisions
        } else {
            Vec::new()
        };
        self.account(&fleet, &decisions, &closed);
        self.remember();
        self.urgency = urgency(&fleet, &treatments);
        let took = self.parts.clock.now().mono.since(began.mono);
        if let Some(metrics) = &self.parts.metrics {
            metrics.swept(&self.parts.name, took, sweep.scale_sets.known().is_some());
        }
        let status = report::status(report::Seen {
            name: &self.parts.name,
            sources: &self.parts.sources,
            policy: &self.parts.policy,
            store: &self.parts.store,
            sweep: &sweep,
            fleet: &mut fleet,
            decisions,
            took,
        });
        Pass { status, closed, urgency: self.urgency }
    }

    /// Settles what must not be left as it is, before the process ends: every set that we disabled is enabled, every
    /// session that we opened is ended, as far as the servers answer.
    pub async fn settle(&mut self) -> Result<Vec<Treatment>, JournalError> {
        let unfinished = self.parts.store.unfinished()?;
        let now = self.parts.clock.now();
        let transitions = unfinished
            .iter()
            .filter(|treatment| treatment.step.is_intent())
            .map(|treatment| machine::step(treatment, Input::Shutdown, now, &self.parts.policy));
        join_all(transitions.map(|transition| self.parts.driver.carry_out(transition, &self.parts.policy)))
            .await
            .into_iter()
            .collect()
    }
}

impl Engine {
    /// One sweep, with the slow sources' last answers filled in where they were not due.
    async fn look(&mut self) -> Sweep {
        let now = self.parts.clock.now().mono;
        let due = plan::due(&self.asked, self.urgency, self.parts.interval, now);
        let mut sweep = sweep(&self.parts.sources, due, self.parts.clock.as_ref()).await;
        if due.controller && sweep.controller.known().is_some() {
            self.asked.controller = Some(now);
        }
        if due.lingering && sweep.lingering.known().is_some() {
            self.asked.lingering = Some(now);
        }
        if due.broker && sweep.scale_sets.known().is_some() {
            self.asked.broker = Some(now);
        }
        self.kept.fill(&mut sweep, due.broker, self.parts.interval);
        sweep
    }

    fn read_journal(&self, now: Wall) -> Result<(Vec<Treatment>, Vec<Treatment>), JournalError> {
        let read = self.parts.store.unfinished().and_then(|open| {
            let history = self.parts.store.since(now.minus(HISTORY))?;
            Ok((open, history))
        });
        if let Err(error) = &read {
            self.store_failed(error);
        }
        read
    }

    fn store_failed(&self, error: &dyn std::fmt::Display) {
        tracing::error!(manager = %self.parts.name, %error, "the store failed; nothing is done without it");
        if let Some(metrics) = &self.parts.metrics {
            metrics.store_failed(&self.parts.name);
        }
    }

    /// Steps every open treatment with what this pass saw, all at once, and returns those still open.
    async fn step_treatments(&self, open: &[Treatment], fleet: &Fleet, closed: &mut Vec<Treatment>) -> Vec<Treatment> {
        let now = self.parts.clock.now();
        let transitions = open.iter().map(|treatment| {
            let view = view(fleet, treatment.set);
            machine::step(treatment, Input::Sweep(view), now, &self.parts.policy)
        });
        let changed = transitions.zip(open).filter(|(next, before)| next.effect.is_some() || next.treatment != **before);
        let running = changed.map(|(transition, _)| self.carry_out(transition)).collect::<Vec<_>>();
        let mut by_id: BTreeMap<_, _> = open.iter().map(|t| (t.id, t.clone())).collect();
        for treatment in join_all(running).await.into_iter().flatten() {
            by_id.insert(treatment.id, treatment);
        }
        let (done, going): (Vec<_>, Vec<_>) = by_id.into_values().partition(|t| t.step.is_closed());
        closed.extend(done);
        going
    }

    fn decide(&self, fleet: &Fleet, history: &[Treatment], ledger: &[crate::model::session::LedgerSession]) -> Vec<SetDecision> {
        let now = self.parts.clock.now();
        let pauses = self.parts.store.pauses(now.wall).unwrap_or_else(|error| {
            self.store_failed(&error);
            Vec::new()
        });
        let breaker_reset = self.parts.store.breaker_reset().ok().flatten();
        decide::decide(&decide::Input {
            now,
            mode: self.parts.mode,
            policy: &self.parts.policy,
            manager_name: &self.parts.name,
            findings: &fleet.findings,
            sets: &fleet.sets,
            manager: fleet.manager,
            incarnation: fleet.incarnation,
            generation: fleet.generation,
            endpoints: &fleet.endpoints,
            blind: fleet.blind,
            fault_at_forge: fleet.fault_at_forge,
            history,
            ledger,
            owner: fleet.owner.as_ref(),
            pauses: &pauses,
            breaker_reset,
        })
    }
}

fn merged(history: Vec<Treatment>, open: &[Treatment], closed: &[Treatment]) -> Vec<Treatment> {
    let mut by_id: BTreeMap<_, _> = history.into_iter().map(|t| (t.id, t)).collect();
    for treatment in open.iter().chain(closed) {
        by_id.insert(treatment.id, treatment.clone());
    }
    by_id.into_values().collect()
}
