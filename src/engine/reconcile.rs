//! One manager's engine: a pass is sweep → diagnose → settle and step treatments → decide → treat → export. Everything
//! between two passes is in the store or in [`Memory`], so that a pass may be the first after a crash.

use crate::engine::changes::Account;
use crate::engine::driver::Driver;
use crate::engine::interval::{Pace, Patience};
use crate::engine::lease::Lease;
use crate::engine::log_follower::Chronicle;
use crate::engine::pause_file::WatchedPause;
use crate::engine::report;
use crate::engine::source_cache::Kept;
use crate::engine::sweep::{Sources, sweep};
use crate::metrics::Metrics;
use crate::replay::snapshot::{Recorder, Snapshot};
use crate::status::ManagerStatus;
use futures_util::future::{BoxFuture, join_all};
use medic_core::clock::Clock;
use medic_core::decide::stale::{self, CurrentManager};
use medic_core::decide::{self, Footing, pause};
use medic_core::diagnose::{self, Context, Fleet, Memory};
use medic_core::due::{Asked, Urgency};
use medic_core::evaluate::Conditions;
use medic_core::model::session::{LedgerSession, SessionEnd};
use medic_core::model::{
    Decision, Diagnosis, Fact, ManagerName, ManagerState, ManualHeal, ManualHealAnswer, Mono, Pause, Remedy, ScaleSet,
    ScaleSetId, SessionId, SetDecision, Span, Step, Sweep, Treatment, TreatmentId, Wall,
};
use medic_core::policy::{Mode, Policy};
use medic_core::ports::write::{Journal, JournalFault};
use medic_core::treat::machine::{self, Input, Leave, SetView, Transition, View};
use medic_store::{LeaseState, ManagerStore, Store, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What one manager's engine is made of.
pub struct Parts {
    pub name: ManagerName,
    /// What may be read.
    pub sources: Sources,
    /// What may be written.
    pub driver: Driver,
    /// Its part of the store.
    pub store: ManagerStore,
    /// All of the store: pauses may be for every manager.
    pub whole_store: Store,
    /// The file that may ask for a pause.
    pub pause_file: WatchedPause,
    /// The claim on the store, without which nothing is done.
    pub lease: Arc<Lease>,
    /// Connections that live as long as the engine: websockets of the manager.
    pub background: Background,
    /// Resolves a pass at once when it is notified.
    pub wake: Arc<Notify>,
    /// The manager's log, where it can be read.
    pub chronicle: Option<Chronicle>,
    pub clock: Arc<dyn Clock>,
    pub policy: Policy,
    /// Whether writes are allowed.
    pub mode: Mode,
    /// Between two passes while all is well.
    pub interval: Span,
    /// Between two passes while anything is ill, unknown or under treatment.
    pub urgent_interval: Span,
    /// Where passes are accounted for.
    pub metrics: Arc<Metrics>,
}

/// What runs beside the passes. The lock makes it shareable; nobody ever waits for it.
pub type Background = Mutex<Vec<BoxFuture<'static, ()>>>;

/// The engine of one manager.
pub struct Engine {
    pub(crate) parts: Parts,
    memory: Memory,
    snapshots: Recorder,
    asked: Asked,
    kept: Kept,
    urgency: Urgency,
    /// Nothing is done, whatever is decided.
    hands_tied: bool,
    patience: Patience,
    /// How often to look while something is not well.
    pace: Pace,
    /// What the store said, and at which version of it.
    records: Option<(Version, Mono, Records)>,
    account: Account,
    pruned: Option<Mono>,
    /// Treatments that this process has stepped; any other was left behind by an earlier one, or by another medic.
    known: BTreeSet<TreatmentId>,
    /// What was open after the last pass, as far as it had come: what is undone when the store fails.
    open: BTreeMap<TreatmentId, Treatment>,
    /// Treatments that have come further than the journal could follow, under the lease that is still held.
    unkept: BTreeMap<TreatmentId, Treatment>,
    /// The term of the lease that all this is known from.
    term: u64,
}

/// How much less often a picture is looked at that is not well, and has not changed for minutes.
const SLOWER: u64 = 5;

/// The longest pause before a look at what has not been well for long: a person's order waits for two minutes.
const CALM: Span = Span::mins(1);

/// How often the journal is read although nobody has written to it.
const READ_ANEW_EVERY: Span = Span::mins(10);

/// How often the store is pruned.
const PRUNE_EVERY: Span = Span::hours(1);

/// What one pass found and did.
#[derive(Debug, Clone)]
pub struct Pass {
    pub status: ManagerStatus,
    /// Treatments that closed in this pass.
    pub closed: Vec<Treatment>,
}

/// What became of the treatments that were open when the process was to end.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Those that have closed.
    pub closed: Vec<Treatment>,
    /// Intents that stay open.
    pub open: Vec<Treatment>,
}

/// What the store said at the beginning of a pass.
#[derive(Clone, Default)]
struct Records {
    /// `None` when it cannot be read.
    unfinished: Option<Vec<Treatment>>,
    history: Vec<Treatment>,
    ledger: Arc<Vec<LedgerSession>>,
    /// Why some of it is missing. What is there may be relied upon.
    failed: Option<String>,
}

/// What people have said that lasts, as one pass read it: its decisions and its picture are made from the same.
pub(crate) struct Standing {
    /// The pauses in force, of the store and of the file.
    pub(crate) pauses: Vec<Pause>,
    /// When a person last reset the breaker.
    pub(crate) breaker_reset: Option<Wall>,
    /// Why the pauses of the store are not known.
    failed: Option<String>,
}

impl Engine {
    /// An engine that continues where the store says the last one stopped.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let saved = parts.store.load_state().unwrap_or_else(|error| {
            tracing::warn!(manager = %parts.name, %error, "the state of earlier sweeps cannot be read; starting without it");
            None
        });
        let memory = saved.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        let account = Account::begin(&parts.store, parts.clock.now().wall);
        Self {
            parts,
            memory,
            snapshots: Recorder::default(),
            asked: Asked::default(),
            kept: Kept::default(),
            urgency: Urgency::Alert,
            hands_tied: false,
            patience: Patience::default(),
            pace: Pace::default(),
            records: None,
            account,
            pruned: None,
            known: BTreeSet::new(),
            open: BTreeMap::new(),
            unkept: BTreeMap::new(),
            term: 0,
        }
    }

    /// The same engine, which decides and does nothing.
    #[must_use]
    pub fn with_tied_hands(self) -> Self {
        Self { hands_tied: true, ..self }
    }

    #[must_use]
    pub const fn name(&self) -> &ManagerName {
        &self.parts.name
    }

    /// A way to ask for a pass at once.
    #[must_use]
    pub fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.parts.wake)
    }

    /// What must run beside the passes of a long-lived engine; a one-shot does without.
    pub fn take_background(&mut self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(self.parts.background.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long to wait before the next pass.
    #[must_use]
    pub fn pause(&self) -> Span {
        match self.urgency {
            Urgency::Calm => self.parts.interval,
            Urgency::Alert => match self.pace {
                Pace::Quick => self.parts.urgent_interval.min(self.parts.interval),
                Pace::Slow => self.parts.urgent_interval.times(SLOWER).min(self.parts.interval),
                Pace::Calm => CALM.min(self.parts.interval),
            },
        }
    }

    pub async fn pass(&mut self) -> Pass {
        let began = self.parts.clock.now();
        let lease = self.lease();
        let sweep = self.look().await;
        let by_file = self.parts.pause_file.read(self.parts.clock.now().wall).await;
        let standing = self.standing(by_file);
        self.chronicle(&sweep);
        let records = self.read_records();
        let readable = records.unfinished.is_some();
        let unfinished = records.unfinished.unwrap_or_else(|| self.open.values().cloned().collect());
        let unfinished = self.as_far_as_they_came(unfinished);
        let before = unfinished.clone();
        let probes = report::probe_answers(&records.history);
        let context = Context { treatments: &before, probes: &probes, ledger: &records.ledger };
        let state = self.memory.clone();
        let fleet = diagnose::diagnose(&mut self.memory, &sweep, &context, &self.parts.policy);

        let mut treatments = match &lease {
            Footing::Firm | Footing::StoreFailed { .. } if self.hands_tied => unfinished,
            // A pause that cannot be read may be in force.
            Footing::Firm if readable && standing.failed.is_none() => {
                self.step_all(unfinished, &fleet, (&records.ledger, &standing.pauses)).await
            }
            Footing::LeaseOf { .. } => unfinished,
            Footing::Firm | Footing::StoreFailed { .. } => self.undo_all(unfinished, &fleet).await,
        };
        let footing = match (lease, records.failed) {
            (Footing::Firm, Some(why)) => Footing::StoreFailed { why },
            (lease, _) => lease,
        };
        let may_act = footing == Footing::Firm && !self.hands_tied;
        let history = merged(records.history, &treatments);
        let orders = if may_act { self.orders() } else { Vec::new() };
        let conditions = self.conditions(&fleet, (history, Arc::clone(&records.ledger)), footing, (orders, &standing));
        let decisions = self.decide(&fleet, &conditions);
        self.record(&Snapshot::new((&state, &sweep), &context, &conditions, &fleet.findings, &decisions));
        if may_act {
            treatments.extend(self.begin(&decisions, &fleet, &records.ledger, &conditions.manual_heals).await);
        }
        self.note_deleted_sessions(&before, &treatments);
        let (closed, open): (Vec<_>, Vec<_>) = treatments.into_iter().partition(|treatment| treatment.step.is_closed());
        let history = merged(conditions.history, closed.iter().chain(&open));
        self.open = open.iter().map(|treatment| (treatment.id, treatment.clone())).collect();
        self.known.retain(|id| self.open.contains_key(id));
        self.account.pass(&self.parts, &fleet, &decisions, &closed, &history);
        self.remember();
        self.prune(may_act);
        self.urgency = urgency(&fleet, &open);
        let diagnoses = fleet.findings.iter().map(|(set, finding)| (*set, finding.diagnosis)).collect();
        self.pace = self.patience.pace((fleet.manager, diagnoses), !open.is_empty(), fleet.at.mono);

        let took = self.parts.clock.now().mono.since(began.mono);
        self.parts.metrics.swept(&self.parts.name, took, sweep.scale_sets.known().is_some());
        let status = report::status(&report::Picture {
            parts: &self.parts,
            sweep: &sweep,
            fleet: &fleet,
            decisions: &decisions,
            history: &history,
            open: &open,
            ledger: &records.ledger,
            account: &self.account,
            standing: &standing,
            took,
        });
        Pass { status, closed }
    }

    /// Settles what must not be left as it is, before the process ends: every set that we disabled is enabled, every
    /// session that we opened is ended, as far as the servers answer. A store that fails hinders no undoing.
    pub async fn settle(&mut self) -> Settled {
        if matches!(self.lease(), Footing::LeaseOf { .. }) {
            return Settled::default();
        }
        let unfinished = self.parts.store.unfinished().unwrap_or_else(|error| {
            self.store_failed(&error);
            self.open.values().cloned().collect()
        });
        let intents = self.as_far_as_they_came(unfinished).into_iter().filter(|treatment| treatment.step.is_intent());
        let this = &*self;
        let settled = join_all(intents.map(|treatment| async move {
            let done = this.parts.driver.settle(treatment.clone(), &this.parts.policy).await;
            done.inspect_err(|error| this.store_failed(error)).unwrap_or(treatment)
        }))
        .await;
        let (closed, open): (Vec<_>, Vec<_>) = settled.into_iter().partition(|treatment| treatment.step.is_closed());
        Account::closed(&self.parts, &closed);
        Settled { closed, open: open.into_iter().filter(|treatment| treatment.step.is_intent()).collect() }
    }
}

impl Engine {
    /// Claims or renews the lease. Who has had it anew goes on from the journal alone: another medic may have acted.
    fn lease(&mut self) -> Footing {
        let held = self.parts.lease.hold();
        let term = self.parts.lease.term();
        if self.term != term {
            (self.term, self.records) = (term, None);
            self.known.clear();
            self.unkept.clear();
        }
        match held {
            Ok(LeaseState::Held) => Footing::Firm,
            Ok(LeaseState::HeldByOther { holder, until }) => Footing::LeaseOf { holder, until },
            Err(error) => {
                self.store_failed(&error);
                Footing::StoreFailed { why: error.to_string() }
            }
        }
    }

    /// One sweep, with the slow sources' last answers filled in where they were not due.
    async fn look(&mut self) -> Sweep {
        let now = self.parts.clock.now().mono;
        if let Some(chronicle) = &self.parts.chronicle {
            chronicle.catch_up().await;
        }
        let due = medic_core::due::due(&self.asked, self.kept.lists(), self.urgency, self.parts.interval, now);
        let mut sweep = sweep(&self.parts.sources, due, self.parts.clock.as_ref()).await;
        self.kept.fill(&mut sweep, due, &mut self.asked, self.parts.interval);
        sweep
    }

    /// Brings the ledger up to date. Where that fails, nothing new is proven stale, and everything else goes on.
    fn chronicle(&mut self, sweep: &Sweep) {
        let parts = &mut self.parts;
        let Some(chronicle) = &mut parts.chronicle else { return };
        if let Err(error) = chronicle.enter(sweep, &parts.store, &parts.metrics, &parts.name) {
            self.store_failed(&error);
        }
    }

    /// What the store says. Where it cannot say, nothing new is begun; what is under way goes on as far as it is known.
    /// A store that nobody has written to since is read again only as old rows go out of view.
    fn read_records(&mut self) -> Records {
        let version = self.parts.whole_store.version();
        let now = self.parts.clock.now();
        if let (Ok(version), Some((known_at, read, known))) = (&version, &self.records)
            && version == known_at
            && now.mono.since(*read) < READ_ANEW_EVERY
        {
            return known.clone();
        }
        let mut failed = None;
        let mut unreadable = |error: &dyn std::fmt::Display| {
            self.store_failed(error);
            failed = Some(error.to_string());
        };
        let since = now.wall.minus(self.parts.policy.history());
        let unfinished = self.parts.store.unfinished().inspect_err(|error| unreadable(error)).ok();
        let history = self.parts.store.since(since).inspect_err(|error| unreadable(error)).unwrap_or_default();
        // Without a readable ledger nothing is provably stale: no deletion, everything else goes on.
        let ledger = self.parts.store.live_sessions().inspect_err(|error| self.store_failed(error));
        let whole = failed.is_none() && ledger.is_ok();
        let records = Records { unfinished, history, ledger: Arc::new(ledger.unwrap_or_default()), failed };
        self.records = version.ok().filter(|_| whole).map(|version| (version, now.mono, records.clone()));
        records
    }

    fn store_failed(&self, error: &dyn std::fmt::Display) {
        tracing::error!(manager = %self.parts.name, %error, "the store failed; nothing new is begun without it");
        self.parts.metrics.store_failed(&self.parts.name);
    }

    /// Steps every open treatment with what this pass saw, all at once.
    async fn step_all(
        &mut self,
        open: Vec<Treatment>,
        fleet: &Fleet,
        (ledger, pauses): (&[LedgerSession], &[Pause]),
    ) -> Vec<Treatment> {
        let now = self.parts.clock.now();
        let transitions: Vec<_> = open
            .into_iter()
            .map(|treatment| {
                let input = if self.known.insert(treatment.id) {
                    Input::Recover
                } else {
                    let paused = pause::held(pauses, &self.parts.name, treatment.set, now.wall).next().is_some();
                    let leave = if paused { Leave::Paused } else { Leave::Granted };
                    Input::Sweep(view(fleet, ledger, &treatment, leave))
                };
                let transition = machine::step(&treatment, input, now, &self.parts.policy);
                (treatment, transition)
            })
            .collect();
        self.carry_out_all(transitions).await
    }

    /// Steps what must not stay as it is although the store fails, from where it had come: sets that we disabled are
    /// enabled, sessions that we opened are ended.
    async fn undo_all(&mut self, unfinished: Vec<Treatment>, fleet: &Fleet) -> Vec<Treatment> {
        let mut open: BTreeMap<_, _> = unfinished.into_iter().map(|treatment| (treatment.id, treatment)).collect();
        open.extend(self.open.iter().map(|(id, treatment)| (*id, treatment.clone())));
        let must_not_stay =
            |treatment: &Treatment| treatment.may_have_disabled() || matches!(treatment.step, Step::CheckOpened { .. });
        let (undone, mut others): (Vec<_>, Vec<_>) = open.into_values().partition(must_not_stay);
        others.extend(self.step_all(undone, fleet, (&[], &[])).await);
        others
    }

    /// Carries transitions out, all at once. A treatment that the journal could not follow is gone on with from where it
    /// had come, as after a crash; one whose lease was lost, from where its new holder has brought it.
    async fn carry_out_all(&mut self, transitions: Vec<(Treatment, Transition)>) -> Vec<Treatment> {
        let this = &*self;
        let done = join_all(transitions.into_iter().map(|(before, transition)| async move {
            let idle = transition.effect.is_none() && transition.treatment == before;
            if idle {
                return Ok((before, false));
            }
            let done = this.parts.driver.carry_out(transition, &this.parts.policy).await;
            done.map(|after| (after, true)).map_err(|unkept| {
                this.store_failed(&unkept.error);
                let ours = unkept.error.cause != JournalFault::LeaseLost;
                (unkept.reached.unwrap_or(before), ours)
            })
        }))
        .await;
        done.into_iter()
            .map(|after| match after {
                Ok((after, kept)) => {
                    if kept {
                        self.unkept.remove(&after.id);
                    }
                    after
                }
                Err((reached, ours)) => {
                    self.known.remove(&reached.id);
                    if ours && !reached.step.is_closed() {
                        self.unkept.insert(reached.id, reached.clone());
                    }
                    reached
                }
            })
            .collect()
    }

    /// The journal's treatments; those that it could not follow as far as they came. What was answered is not asked for
    /// again: a manager's clock that is off would make a change of ours look like somebody else's.
    fn as_far_as_they_came(&mut self, unfinished: Vec<Treatment>) -> Vec<Treatment> {
        self.unkept.retain(|id, _| unfinished.iter().any(|treatment| treatment.id == *id));
        unfinished.into_iter().map(|treatment| self.unkept.get(&treatment.id).cloned().unwrap_or(treatment)).collect()
    }

    fn conditions(
        &self,
        fleet: &Fleet,
        (history, ledger): (Vec<Treatment>, Arc<Vec<LedgerSession>>),
        footing: Footing,
        (manual_heals, standing): (Vec<ManualHeal>, &Standing),
    ) -> Conditions {
        let footing = match &standing.failed {
            Some(why) => Footing::StoreFailed { why: why.clone() },
            None => footing,
        };
        Conditions {
            now: self.parts.clock.now(),
            name: self.parts.name.clone(),
            mode: self.parts.mode,
            policy: self.parts.policy.clone(),
            history,
            ledger,
            pauses: standing.pauses.clone(),
            manual_heals,
            breaker_reset: standing.breaker_reset,
            can_check_sessions: self.covered(fleet),
            quotas: report::own_quotas(&self.parts, fleet),
            footing,
        }
    }

    fn decide(&self, fleet: &Fleet, conditions: &Conditions) -> Vec<SetDecision> {
        let input = conditions.input(fleet);
        let decisions = decide::decide(&input);
        for order in &conditions.manual_heals {
            let decision = decisions.iter().find(|decision| decision.set == order.set);
            let answer = match decision {
                Some(decided) => decide::manual::answer(&input, order, &decided.decision),
                None => ManualHealAnswer::Refused { why: "the manager does not show the set".to_owned() },
            };
            self.answer(order, &answer);
        }
        decisions
    }

    fn record(&mut self, snapshot: &Snapshot<'_>) {
        if snapshot.conditions.footing == Footing::Firm
            && let Err(error) = self.snapshots.record(&self.parts.store, snapshot)
        {
            tracing::warn!(manager = %self.parts.name, %error, "a snapshot could not be kept");
            self.parts.metrics.store_failed(&self.parts.name);
        }
    }

    /// What people have said that is in force now.
    fn standing(&self, by_file: Option<Pause>) -> Standing {
        let now = self.parts.clock.now().wall;
        let mut failed = None;
        let mut pauses = self.parts.whole_store.pauses(now).unwrap_or_else(|error| {
            self.store_failed(&error);
            failed = Some(error.to_string());
            Vec::new()
        });
        pauses.extend(by_file);
        let breaker_reset = self.parts.store.breaker_reset().unwrap_or_else(|error| {
            self.store_failed(&error);
            None
        });
        Standing { pauses, breaker_reset, failed }
    }

    /// Orders of people; those that cannot be read wait.
    fn orders(&self) -> Vec<ManualHeal> {
        let orders = self.parts.store.manual_heals(self.parts.clock.now().wall);
        orders.inspect_err(|error| self.store_failed(error)).unwrap_or_default()
    }

    fn answer(&self, order: &ManualHeal, answer: &ManualHealAnswer) {
        if let Err(error) = self.parts.store.answer_manual_heal(order.id, answer) {
            self.store_failed(&error);
        }
    }

    /// The sets whose sessions a client of ours can open and end.
    fn covered(&self, fleet: &Fleet) -> BTreeSet<ScaleSetId> {
        let Some(broker) = self.parts.sources.broker.as_ref().filter(|_| self.parts.driver.sessions.is_some()) else {
            return BTreeSet::new();
        };
        let covered = |set: &ScaleSet| {
            let place = set.endpoint.as_deref().zip(set.entity.as_ref()).filter(|_| set.has_place());
            place.is_some_and(|(endpoint, entity)| broker.covers(endpoint, entity))
        };
        fleet.sets.values().filter(|set| covered(set)).map(|set| set.id).collect()
    }

    /// Opens a treatment for every decision to act, and takes its first steps.
    async fn begin(
        &mut self,
        decisions: &[SetDecision],
        fleet: &Fleet,
        ledger: &[LedgerSession],
        orders: &[ManualHeal],
    ) -> Vec<Treatment> {
        let mut begun = Vec::new();
        for decision in decisions {
            let Decision::Treat { remedy, canary } = &decision.decision else { continue };
            let order = orders.iter().rev().find(|order| order.set == decision.set);
            let Some(treatment) = self.new_treatment(decision.set, remedy, *canary, fleet) else { continue };
            let treatment = Treatment { ordered: order.map(|order| order.id), ..treatment };
            match self.parts.store.open(treatment) {
                Ok(treatment) => {
                    if let Some(order) = order {
                        self.answer(order, &ManualHealAnswer::Treating { treatment: treatment.id });
                    }
                    begun.push(treatment);
                }
                Err(error) => self.store_failed(&error),
            }
        }
        let now = self.parts.clock.now();
        self.known.extend(begun.iter().map(|treatment| treatment.id));
        let transitions = begun.into_iter().map(|treatment| {
            let input = Input::Sweep(view(fleet, ledger, &treatment, Leave::Granted));
            let transition = machine::step(&treatment, input, now, &self.parts.policy);
            (treatment, transition)
        });
        let transitions = transitions.collect();
        self.carry_out_all(transitions).await
    }

    fn new_treatment(&self, set: ScaleSetId, remedy: &Remedy, canary: bool, fleet: &Fleet) -> Option<Treatment> {
        let (scale_set, finding) = (fleet.sets.get(&set)?, fleet.findings.get(&set)?);
        let at = self.parts.clock.now().wall;
        Some(Treatment {
            id: TreatmentId(0),
            set,
            name: scale_set.name.clone(),
            place: scale_set.place(),
            remedy: remedy.clone(),
            cause: finding.diagnosis,
            incarnation: fleet.incarnation,
            opened: at,
            canary,
            step: machine::begin(remedy, scale_set, at),
            step_at: at,
            revived: None,
            holder: None,
            refusal: None,
            ordered: None,
        })
    }

    /// A session that a treatment has ended is not known as living any more.
    fn note_deleted_sessions(&self, before: &[Treatment], after: &[Treatment]) {
        let at = self.parts.clock.now().wall;
        let ended = after.iter().filter_map(|treatment| {
            let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }) = &treatment.remedy else {
                return None;
            };
            let was_deleting = before
                .iter()
                .find(|earlier| earlier.id == treatment.id)
                .is_none_or(|earlier| matches!(earlier.step, Step::Deleting { .. }));
            let is_past = !matches!(treatment.step, Step::Deleting { .. } | Step::Closed { .. });
            (was_deleting && is_past).then_some(session)
        });
        for session in ended {
            if let Err(error) = self.parts.store.end(session, at, SessionEnd::DeletedByUs) {
                self.store_failed(&error);
            }
        }
    }

    /// Once an hour what is too old, or too much, is forgotten.
    fn prune(&mut self, may_act: bool) {
        let now = self.parts.clock.now();
        if !may_act || self.pruned.is_some_and(|at| now.mono.since(at) < PRUNE_EVERY) {
            return;
        }
        self.pruned = Some(now.mono);
        if let Err(error) = self.parts.store.prune(now.wall) {
            self.store_failed(&error);
        }
    }

    fn remember(&mut self) {
        let saved = serde_json::to_string(&self.memory).map_err(|error| error.to_string());
        if let Err(error) = saved.and_then(|json| self.parts.store.save_state(&json).map_err(|error| error.to_string()))
        {
            self.store_failed(&error);
        }
    }
}

/// What a treatment's machine may know of this pass.
fn view<'a>(fleet: &'a Fleet, ledger: &[LedgerSession], treatment: &Treatment, leave: Leave) -> View<'a> {
    let seen = matches!(fleet.manager, ManagerState::Up | ManagerState::Restarted);
    let set = match fleet.sets.get(&treatment.set) {
        Some(set) if seen => SetView::Seen(set),
        None if seen => SetView::Gone,
        Some(_) | None => SetView::Unseen,
    };
    let endpoint = treatment.place.as_ref().and_then(|place| fleet.endpoints.get(&place.endpoint.name).copied());
    View {
        manager: fleet.manager,
        incarnation: fleet.incarnation,
        set,
        finding: fleet.findings.get(&treatment.set),
        endpoint,
        stale_proof: still_stale(fleet, ledger, treatment),
        conflict_behaviour: fleet.conflict_behaviour,
        leave,
    }
}

/// The manager, as a proof of staleness needs it.
pub(crate) fn present(fleet: &Fleet) -> CurrentManager<'_> {
    CurrentManager { state: fleet.manager, incarnation: fleet.incarnation, owner: fleet.owner.as_ref() }
}

/// Whether the session that a treatment is to end is provably stale still.
fn still_stale(fleet: &Fleet, ledger: &[LedgerSession], treatment: &Treatment) -> bool {
    let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }) = &treatment.remedy else {
        return false;
    };
    let Some(set) = fleet.sets.get(&treatment.set) else { return false };
    if treatment.ordered.is_some() {
        return order_holds(fleet, ledger, treatment, set, session);
    }
    let manager = present(fleet);
    let rows = ledger.iter().filter(|row| row.set == treatment.set);
    stale::newest_is_stale(rows, set, manager).is_ok_and(|proof| proof.session() == session)
}

/// The same for a session that a person named.
fn order_holds(
    fleet: &Fleet,
    ledger: &[LedgerSession],
    treatment: &Treatment,
    set: &ScaleSet,
    session: &SessionId,
) -> bool {
    let Some(finding) = fleet.findings.get(&treatment.set) else { return false };
    let covered = treatment.place.is_some();
    let sight = decide::manual::Sight {
        finding,
        set,
        manager: present(fleet),
        conflict_behaviour: fleet.conflict_behaviour,
        covered,
    };
    decide::manual::delete(&sight, session, ledger).is_ok()
}

fn merged<'a>(history: Vec<Treatment>, newer: impl IntoIterator<Item = &'a Treatment>) -> Vec<Treatment> {
    let mut by_id: BTreeMap<_, _> = history.into_iter().map(|treatment| (treatment.id, treatment)).collect();
    by_id.extend(newer.into_iter().map(|treatment| (treatment.id, treatment.clone())));
    by_id.into_values().collect()
}

/// Looking often pays while something may change soon.
fn urgency(fleet: &Fleet, open: &[Treatment]) -> Urgency {
    let answers = fleet.manager == ManagerState::Up;
    let ill = fleet.findings.values().any(|finding| match finding.diagnosis {
        // Well; or nothing that we do or see soon changes it.
        Diagnosis::Listening
        | Diagnosis::Disabled
        | Diagnosis::Missing
        | Diagnosis::Mismatched
        | Diagnosis::Unauthorized
        | Diagnosis::HeldElsewhere
        | Diagnosis::Deaf
        | Diagnosis::Starved => false,
        // Without a source that could tell, looking more often tells no more.
        Diagnosis::Unknown => finding.evidence.iter().all(|evidence| evidence.fact != Fact::NothingToSee),
        Diagnosis::DisabledByMedic
        | Diagnosis::Settling
        | Diagnosis::ConflictRetrying
        | Diagnosis::ConflictAbandoned
        | Diagnosis::StartAbandoned
        | Diagnosis::Unheld
        | Diagnosis::Flapping
        | Diagnosis::Evicted => true,
    });
    if answers && !ill && open.is_empty() { Urgency::Calm } else { Urgency::Alert }
}

/// The date that a manager's status shows for its last restart.
pub(crate) type Restart = Option<(medic_core::model::RestartKind, Wall)>;
