//! A medic over the model's world: the same order as the engine's pass and the driver's chain, cut at every journal
//! boundary. The machine and the decision core are the real ones; only what carries them is small.

use super::broken::Broken;
use super::world::{By, Fleet, World, date, now, owner, session_id, set_id};
use medic_core::decide;
use medic_core::decide::stale::{self, CurrentManager, Proof};
use medic_core::decide::warrant::DeletionWarrant;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Decision, Enablement, FailureKind, ManagerName, ManagerState, Operation, Outcome, Remedy, RequestFailure, ScaleSet,
    ScaleSetId, SetDecision, Span, Step, Treatment, TreatmentId,
};
use medic_core::policy::{Mode, Policy};
use medic_core::ports::write::OpenAnswer;
use medic_core::treat::machine;
use medic_core::treat::transition::{Answer, Input, Request, SetView, Transition, View};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// A row of the journal, hashed by what bears on the future.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row(pub(super) Treatment);

impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let row = &self.0;
        (row.id, row.set, row.remedy.kind(), row.cause, row.incarnation, row.opened).hash(state);
        (row.canary, row.step_at, row.revived, row.step.label(), row.outcome()).hash(state);
        if let Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session } = &row.remedy {
            session.hash(state);
        }
        match &row.step {
            Step::Deleting { session, attempts, not_before, .. }
            | Step::CheckOpened { session, attempts, not_before } => {
                (session, attempts, not_before).hash(state);
            }
            Step::Disabling { seen, sent } => (seen, sent).hash(state),
            Step::DisableUnknown { seen, sent } => (seen, sent).hash(state),
            Step::Disabled { ours, again_until } => (ours, again_until).hash(state),
            Step::Enabling { ours, since, attempts, not_before } => (ours, since, attempts, not_before).hash(state),
            Step::CheckOpening { owner } => owner.hash(state),
            Step::Verifying | Step::Closed { .. } => {}
        }
    }
}

/// An effect that is about to be sent, with the journaled treatment it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending(pub(super) Row, pub(super) Request);

impl Hash for Pending {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        std::mem::discriminant(&self.1).hash(state);
    }
}

/// One decision to act, not yet in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    set: ScaleSetId,
    remedy: Remedy,
    canary: bool,
}

impl Hash for Act {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.set, self.remedy.kind(), self.canary).hash(state);
    }
}

/// Where a medic stands in its pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Dead,
    /// Between two passes; `passed`: this tick's is done.
    Idle {
        passed: bool,
    },
    /// Steps open treatments with what this pass saw.
    Stepping {
        saw: Box<World>,
        lags: bool,
    },
    /// Opens what it decided, one after the other.
    Beginning {
        saw: Box<World>,
        lags: bool,
        plan: Vec<Act>,
    },
    /// Settles before it ends.
    Ending {
        rounds: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Medic {
    pub(super) stage: Stage,
    /// Treatments that this process has stepped, by number.
    known: u64,
    pub(super) pending: Vec<Pending>,
}

impl Medic {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Idle { passed: false }, known: 0, pending: Vec::new() }
    }
    /// Another medic has the lease: what was known of the journal is void.
    pub(super) fn waiting() -> Self {
        Self { stage: Stage::Idle { passed: true }, known: 0, pending: Vec::new() }
    }
    pub(super) fn dead() -> Self {
        Self { stage: Stage::Dead, known: 0, pending: Vec::new() }
    }
}

/// What becomes of one effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum How {
    Answered,
    Refused,
    LostBefore,
    LostAfter,
    /// A disable that takes effect within the next tick.
    LostLate,
    /// A disable that takes effect, is not answered, and comes a second time within the tick after the next.
    Twice,
    /// An enable that the manager's worker does not notice.
    Unnoticed,
}

/// The limits, in few ticks.
pub(super) fn policy(max_in_flight: u32) -> Policy {
    Policy {
        settle: Span::secs(10),
        stale_session_limit: Span::secs(60),
        max_in_flight,
        set_budget: 9,
        backoff: vec![Span::secs(10)],
        backoff_jitter: 0.0,
        breaker_after: 3,
        breaker_half_open_after: Span::secs(20),
        disabled_limit: Span::secs(40),
        restart_timeout: Span::secs(20),
        verify_timeout: Span::secs(80),
        session_check_every: Span::secs(20),
        ..Policy::default()
    }
}

fn index(set: ScaleSetId) -> usize {
    usize::try_from(set.0 - 1).unwrap()
}

fn failure(kind: FailureKind) -> RequestFailure {
    let operation = Operation::SetEnabled;
    RequestFailure { target: operation.target(), operation, kind, detail: String::new(), retry_at: None }
}

fn lost() -> WriteError {
    WriteError::Unknown(failure(FailureKind::Timeout))
}

fn refused() -> WriteError {
    WriteError::NotApplied(failure(FailureKind::Rejected))
}

/// A manager's store, its world, and the rules that a medic runs.
pub(super) struct Desk<'a> {
    pub(super) world: &'a mut World,
    pub(super) journal: &'a mut Vec<Row>,
    pub(super) medic: &'a mut Medic,
    pub(super) policy: &'a Policy,
    pub(super) broken: Option<Broken>,
}

impl Desk<'_> {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn rows(&self) -> Vec<Treatment> {
        self.journal.iter().map(|row| row.0.clone()).collect()
    }

    fn step(&self, treatment: &Treatment, input: Input<'_>) -> Transition {
        machine::step(treatment, input, now(self.world.tick), self.policy)
    }

    /// Journal first; then its effect is due.
    fn take(&mut self, transition: Transition) {
        let mut treatment = transition.treatment;
        let mut effect = transition.request;
        if self.is(Broken::ForgetsOwnSession)
            && let Some(Request::DeleteOwnSession { .. }) = effect
        {
            effect = None;
            treatment.step = Step::Closed { outcome: Outcome::Unheld, why: String::new() };
        }
        if let Step::Closed { outcome, .. } = treatment.step {
            treatment.step = Step::Closed { outcome, why: String::new() };
        }
        if self.is(Broken::ForgetsTheSecondCopy)
            && let Step::Disabled { again_until, .. } = &mut treatment.step
        {
            *again_until = None;
        }
        self.note_deleted(&treatment);
        let row = Row(treatment);
        match self.journal.iter_mut().find(|known| known.0.id == row.0.id) {
            Some(known) => *known = row.clone(),
            // Broken: what the journal forgot is gone.
            None => self.journal.push(row.clone()),
        }
        if let Some(effect) = effect {
            self.medic.pending.push(Pending(row, effect));
        }
    }

    /// The ledger learns that a treatment ended its session.
    fn note_deleted(&mut self, treatment: &Treatment) {
        let past = !matches!(treatment.step, Step::Deleting { .. } | Step::Closed { .. });
        if let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }, true) =
            (&treatment.remedy, past)
        {
            let entries = self.world.sets[index(treatment.set)].ledger.iter_mut();
            entries.filter(|entry| session_id(entry.id) == *session).for_each(|entry| entry.ended = true);
        }
    }

    /// A pass begins: look, and step what is open.
    pub(super) fn look(&mut self, lags: bool) {
        let fleet = self.world.sweep(lags, &self.rows());
        for row in self.journal.clone() {
            if row.0.step.is_closed() {
                continue;
            }
            let bit = 1 << row.0.id.0;
            let input =
                if self.medic.known & bit == 0 { Input::Recover } else { Input::Sweep(self.view(&fleet, &row.0)) };
            self.medic.known |= bit;
            let view = self.bent(&row.0, input);
            let transition = machine::step(&row.0, view.input(), now(self.world.tick), self.policy);
            if transition.request.is_some() || transition.treatment != row.0 {
                self.take(transition);
            }
        }
        self.medic.stage = Stage::Stepping { saw: Box::new(self.world.clone()), lags };
    }

    fn view<'v>(&self, fleet: &'v Fleet, treatment: &Treatment) -> View<'v> {
        let set = match fleet.manager {
            ManagerState::Up | ManagerState::Restarted => {
                fleet.sets.get(&treatment.set).map_or(SetView::Gone, SetView::Seen)
            }
            ManagerState::Down | ManagerState::Unreachable => SetView::Unseen,
        };
        let warrant = match &treatment.remedy {
            Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }
                if self.is(Broken::SkipsIncarnationCheck) =>
            {
                Some(DeletionWarrant::for_tests(session.clone()))
            }
            Remedy::DeleteSession { .. } | Remedy::DeleteThenToggle { .. } => {
                Self::proof(fleet, treatment.set).map(DeletionWarrant::from)
            }
            Remedy::Toggle | Remedy::SessionCheck => None,
        };
        View {
            manager: fleet.manager,
            incarnation: fleet.incarnation,
            set,
            finding: fleet.findings.get(&treatment.set),
            warrant,
            paused: false,
        }
    }

    fn proof(fleet: &Fleet, set: ScaleSetId) -> Option<Proof> {
        let owner = owner();
        let manager = CurrentManager { state: fleet.manager, incarnation: fleet.incarnation, owner: Some(&owner) };
        let rows = fleet.ledger.iter().filter(|row| row.set == set);
        stale::newest_is_stale(rows, fleet.sets.get(&set)?, manager).ok()
    }

    /// Broken: the operator's change is taken for ours.
    fn bent<'v>(&self, treatment: &Treatment, input: Input<'v>) -> Bent<'v> {
        match (&treatment.step, input) {
            (Step::Disabled { ours, .. } | Step::Enabling { ours, .. }, Input::Sweep(view))
                if self.is(Broken::FightsTheOperator) =>
            {
                let SetView::Seen(set) = view.set else { return Bent::Plain(Input::Sweep(view)) };
                Bent::Set(view, Box::new(ScaleSet { revision: ours.clone(), ..set.clone() }))
            }
            (_, input) => Bent::Plain(input),
        }
    }
}

enum Bent<'v> {
    Plain(Input<'v>),
    Set(View<'v>, Box<ScaleSet>),
}

impl Bent<'_> {
    fn input(&self) -> Input<'_> {
        match self {
            Self::Plain(input) => input.clone(),
            Self::Set(view, set) => Input::Sweep(View { set: SetView::Seen(set), ..view.clone() }),
        }
    }
}

impl Desk<'_> {
    /// Decides with what the pass saw, and with the journal as it is by now.
    pub(super) fn decide(&mut self) {
        let Stage::Stepping { saw, lags } = self.medic.stage.clone() else { return };
        let plan = self.acts(&saw, lags);
        self.medic.stage =
            if plan.is_empty() { Stage::Idle { passed: true } } else { Stage::Beginning { saw, lags, plan } };
    }

    fn acts(&self, saw: &World, lags: bool) -> Vec<Act> {
        let mut history = self.rows();
        let mut fleet = saw.sweep(lags, &history);
        match self.broken {
            Some(Broken::StartsASecondTreatment) => history.retain(|row| row.step.is_closed()),
            Some(Broken::SendsNoCanary) => history.iter_mut().for_each(|row| row.revived = Some(row.opened)),
            Some(Broken::SkipsIncarnationCheck) => fleet.believe_every_session_stale(),
            _ => {}
        }
        let (name, owner) = (ManagerName::new("garm"), owner());
        let policy = match self.broken {
            Some(Broken::IgnoresTheLimit) => &policy(9),
            Some(Broken::SkipsTheRamp) => &policy(2),
            _ => self.policy,
        };
        let (endpoints, probed) = (BTreeMap::new(), fleet.sets.keys().copied().collect::<BTreeSet<_>>());
        let decisions = decide::decide(&decide::Input {
            now: now(self.world.tick),
            name: &name,
            mode: Mode::Heal,
            policy,
            findings: &fleet.findings,
            sets: &fleet.sets,
            manager: fleet.manager,
            incarnation: fleet.incarnation,
            crash_loop: false,
            orders: &[],
            conflict_behaviour: saw.scenario.conflict_behaviour(),
            endpoints: &endpoints,
            blind: false,
            fault_at_github: false,
            history: &history,
            ledger: &fleet.ledger,
            owner: Some(&owner),
            pauses: &[],
            breaker_reset: None,
            can_check_sessions: &probed,
            quotas: &BTreeMap::new(),
            footing: &decide::Footing::Firm,
        });
        let act = |of: SetDecision| match of.decision {
            Decision::Treat { remedy, canary } => Some(Act { set: of.set, remedy, canary }),
            _ => None,
        };
        decisions.into_iter().filter_map(act).collect()
    }

    /// Opens the next treatment of the plan in the journal, and takes its first step.
    pub(super) fn begin(&mut self) {
        let Stage::Beginning { saw, lags, plan } = self.medic.stage.clone() else { return };
        let Some((act, rest)) = plan.split_first() else {
            self.medic.stage = Stage::Idle { passed: true };
            return;
        };
        let fleet = saw.sweep(lags, &self.rows());
        let at = date(self.world.tick);
        let set = &fleet.sets[&act.set];
        let treatment = Treatment {
            id: TreatmentId(self.journal.last().map_or(1, |row| row.0.id.0 + 1)),
            set: act.set,
            name: String::new(),
            place: set.place(),
            remedy: act.remedy.clone(),
            cause: fleet.findings[&act.set].diagnosis,
            incarnation: fleet.incarnation,
            opened: at,
            canary: act.canary,
            step: machine::first_step(&act.remedy, set, at),
            step_at: at,
            holder: None,
            refusal: None,
            ordered: None,
            revived: None,
        };
        self.judge_beginning(&treatment);
        self.medic.known |= 1 << treatment.id.0;
        self.journal.push(Row(treatment.clone()));
        let transition = self.step(&treatment, Input::Sweep(self.view(&fleet, &treatment)));
        self.take(transition);
        self.medic.stage = Stage::Beginning { saw, lags, plan: rest.to_vec() };
    }

    /// I5, stated anew and not with the core's own words.
    fn judge_beginning(&mut self, new: &Treatment) {
        let open = || self.journal.iter().map(|row| &row.0).filter(|row| !row.step.is_closed());
        if open().any(|row| row.set == new.set) {
            self.world.blame("I5 never more than one treatment per set");
            return;
        }
        let acting = open().filter(|row| row.in_flight()).count();
        if acting >= self.room() {
            self.world.blame("I5 never more than max_in_flight, or the share that has proved to help");
        }
        let run = self.world.incarnation();
        let shown = self.journal.iter().map(|row| &row.0).any(|row| {
            row.is_heal() && row.opened >= run.0 && (row.revived.is_some() || row.outcome() == Some(Outcome::Recovered))
        });
        if acting > 0 && !shown && new.is_heal() && new.incarnation == Some(run) {
            self.world.blame("I5 one before the canary has verified");
        }
    }

    /// `max_in_flight`, or as many as this run's heals have brought to life since one did not help, up to the share.
    fn room(&self) -> usize {
        let run = self.world.incarnation();
        let heals = || self.journal.iter().map(|row| &row.0).filter(|row| row.is_heal() && row.opened >= run.0);
        let bad = |row: &&Treatment| matches!(row.outcome(), Some(Outcome::Unverified | Outcome::Failed));
        let last_bad = heals().filter(bad).map(|row| row.step_at).max().unwrap_or_default();
        let alive = heals().filter_map(|row| match row.outcome() {
            None => row.revived,
            Some(Outcome::Recovered) => Some(row.revived.unwrap_or(row.step_at)),
            Some(_) => None,
        });
        let real = |sets: usize| f64::from(u32::try_from(sets).unwrap());
        let part = |sets: &usize| real(*sets) <= self.policy.in_flight_share * real(self.world.sets.len());
        let share = (0..=self.world.sets.len()).rev().find(part).unwrap();
        alive.filter(|at| *at > last_bad).count().min(share).max(usize::try_from(self.policy.max_in_flight).unwrap())
    }

    /// What may become of the next effect.
    pub(super) fn fates(&self) -> &'static [How] {
        use How::{Answered, LostAfter, LostBefore, LostLate, Refused, Twice, Unnoticed};
        match self.medic.pending.first().map(|pending| &pending.1) {
            None => &[],
            Some(_) if self.world.down => &[LostBefore],
            Some(Request::ReadSet | Request::CheckIncarnation { .. }) => &[Answered, LostBefore],
            Some(Request::Disable) => &[Answered, Refused, LostBefore, LostAfter, LostLate, Twice],
            Some(Request::Enable) => &[Answered, Refused, LostBefore, LostAfter, Unnoticed],
            Some(Request::DeleteSession { .. } | Request::OpenSession { .. } | Request::DeleteOwnSession { .. }) => {
                &[Answered, Refused, LostBefore, LostAfter]
            }
        }
    }

    /// Sends the next effect; its answer goes into the machine, unless the medic `dies` of it.
    pub(super) fn send(&mut self, how: How, dies: bool) {
        let Pending(row, effect) = self.medic.pending.remove(0);
        // Who dies before the answer is in the journal has not been told.
        let answer = self.perform(&row.0, &effect, if dies && how == How::Answered { How::LostAfter } else { how });
        if dies {
            self.die();
            return;
        }
        let transition = self.step(&row.0, Input::Answer(answer));
        self.take(transition);
    }

    fn perform(&mut self, row: &Treatment, effect: &Request, how: How) -> Answer {
        let set = index(row.set);
        let read_fails = || failure(FailureKind::Timeout);
        match effect {
            Request::ReadSet if how == How::Answered => Answer::Read(Ok(Some(self.reads(row, set)))),
            Request::ReadSet => Answer::Read(Err(read_fails())),
            Request::CheckIncarnation { warrant } => {
                let run = match how {
                    How::Answered if self.is(Broken::SkipsIncarnationCheck) => Ok(row.incarnation.unwrap()),
                    How::Answered => Ok(self.world.incarnation()),
                    _ => Err(read_fails()),
                };
                Answer::Incarnation { incarnation: run, warrant: warrant.clone() }
            }
            Request::Disable if self.is(Broken::SendsANoOp) => {
                Answer::Disabled(Ok(ScaleSet { enabled: Enablement::Disabled, ..self.world.shows(set) }))
            }
            Request::Disable => Answer::Disabled(self.write(set, Enablement::Disabled, how)),
            Request::Enable if self.is(Broken::NeverEnables) => {
                Answer::Enabled(Ok(ScaleSet { enabled: Enablement::Enabled, ..self.world.shows(set) }))
            }
            Request::Enable => Answer::Enabled(self.write(set, Enablement::Enabled, how)),
            Request::OpenSession { .. } => Answer::SessionOpened(match how {
                How::Refused => Err(refused()),
                How::LostBefore => Err(lost()),
                _ => {
                    let told = how == How::Answered;
                    let opened = self.world.open_ours(set, told);
                    let answer =
                        opened.map_or(OpenAnswer::Held { owner: None }, |id| OpenAnswer::Opened(session_id(id)));
                    if told { Ok(answer) } else { Err(lost()) }
                }
            }),
            Request::DeleteSession { warrant } | Request::DeleteOwnSession { warrant } => {
                if matches!(how, How::Answered | How::LostAfter) {
                    self.world.delete(set, warrant.session());
                }
                Answer::SessionDeleted(match how {
                    How::Answered => Ok(()),
                    How::Refused => Err(refused()),
                    _ => Err(lost()),
                })
            }
        }
    }

    /// Broken: the operator's change is taken for ours, also at the last look.
    fn reads(&self, row: &Treatment, set: usize) -> ScaleSet {
        let shown = self.world.shows(set);
        match &row.step {
            Step::Enabling { ours, .. } if self.is(Broken::FightsTheOperator) => {
                ScaleSet { revision: ours.clone(), ..shown }
            }
            _ => shown,
        }
    }

    fn write(&mut self, set: usize, to: Enablement, how: How) -> Result<ScaleSet, WriteError> {
        match how {
            How::Answered | How::LostAfter => self.world.write(set, to, By::Us, true),
            How::Unnoticed => self.world.write(set, to, By::Us, false),
            How::LostLate => self.world.late.push((set, self.world.tick + 1)),
            How::Twice => {
                self.world.write(set, to, By::Us, true);
                self.world.late.push((set, self.world.tick + 2));
            }
            How::Refused | How::LostBefore => {}
        }
        match how {
            How::Answered | How::Unnoticed => Ok(self.world.shows(set)),
            How::Refused => Err(refused()),
            // Broken: what has no answer is taken for what had no effect.
            _ if self.is(Broken::TakesLostForRefused) => Err(refused()),
            How::LostBefore | How::LostAfter | How::LostLate | How::Twice => Err(lost()),
        }
    }

    /// The process is gone, and with it all that is not in the journal.
    pub(super) fn die(&mut self) {
        *self.medic = Medic::dead();
        if self.is(Broken::ForgetsTheJournal) {
            self.journal.retain(|row| row.0.step.is_closed());
        }
    }

    /// SIGTERM: settle what must not stay, for a few rounds.
    pub(super) fn end(&mut self, rounds: u8) {
        self.medic.stage = Stage::Ending { rounds };
        if rounds == 0 {
            *self.medic = Medic::dead();
            return;
        }
        for row in self.journal.clone() {
            if row.0.step.is_intent() {
                let transition = self.step(&row.0, Input::Shutdown);
                if transition.request.is_some() || transition.treatment != row.0 {
                    self.take(transition);
                }
            }
        }
        if self.medic.pending.is_empty() {
            *self.medic = Medic::dead();
        }
    }
}

/// Whether a change of this set by a person could not be told from a lost disable of ours, by anybody: GARM's writes
/// carry no condition and no name, only a date.
pub(super) fn is_ambiguous(journal: &[Row], world: &World, set: usize) -> bool {
    let limit = Span::secs(32);
    world.is_late(set)
        || journal.iter().filter(|row| row.0.set == set_id(set)).any(|row| match &row.0.step {
            Step::Disabling { sent: Some(sent), .. } | Step::DisableUnknown { sent, .. } => {
                date(world.tick).since(*sent) <= limit
            }
            _ => false,
        })
}
