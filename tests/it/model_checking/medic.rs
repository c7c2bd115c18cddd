//! A medic of the model. It does the same as the engine's reconcile and the driver in the same order, and can stop at
//! every write to the journal. The machine and the decision core are the real ones.

use super::broken::Broken;
use super::world::{By, Fleet, World, date, now, owner, session_id, set_id};
use medic_core::decide::stale::{self, CurrentManager, Proof};
use medic_core::decide::warrant::DeletionWarrant;
use medic_core::decide::{self, Conditions, testing};
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Decision, Enablement, FailureKind, ManagerState, Outcome, Remedy, ScaleSet, ScaleSetId, SetDecision, Span, Step,
    Treatment,
};
use medic_core::policy::Policy;
use medic_core::ports::write::OpenAnswer;
use medic_core::treat::machine;
use medic_core::treat::testing::{failure, lost, refused};
use medic_core::treat::transition::{Answer, Input, Request, SetView, Transition, View};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A row of the journal, hashed by what matters for the future.
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

/// A request to send, with its journaled treatment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pending(pub(super) Row, pub(super) Request);

impl Hash for Pending {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        std::mem::discriminant(&self.1).hash(state);
    }
}

/// A decision to treat that is not in the journal yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    set: ScaleSetId,
    remedy: Remedy,
    canary: bool,
}

impl Hash for Planned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.set, self.remedy.kind(), self.canary).hash(state);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Dead,
    /// `swept`: this tick's sweep is done.
    Idle {
        swept: bool,
    },
    /// Steps open treatments with what this sweep found.
    Stepping {
        seen: Box<World>,
        lags: bool,
    },
    /// Opens the planned treatments one after the other.
    Opening {
        seen: Box<World>,
        lags: bool,
        plan: Vec<Planned>,
    },
    /// Finishes open treatments before it ends.
    Ending {
        rounds: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct Medic {
    pub(super) phase: Phase,
    /// Treatments that this process has stepped, by number.
    known: u64,
    pub(super) pending: Vec<Pending>,
}

impl Medic {
    /// It knows nothing of the journal.
    pub(super) fn new(phase: Phase) -> Self {
        Self { phase, known: 0, pending: Vec::new() }
    }

    /// What may become of its next request.
    pub(super) fn outcomes(&self, world: &World) -> &'static [How] {
        use How::{Answered, LostAfter, LostBefore, LostLate, Refused, Twice, Unnoticed};
        match self.pending.first().map(|pending| &pending.1) {
            None => &[],
            Some(_) if world.down => &[LostBefore],
            Some(Request::ReadSet | Request::CheckIncarnation { .. }) => &[Answered, LostBefore],
            Some(Request::Disable) => &[Answered, Refused, LostBefore, LostAfter, LostLate, Twice],
            Some(Request::Enable) => &[Answered, Refused, LostBefore, LostAfter, Unnoticed],
            Some(Request::DeleteSession { .. } | Request::OpenSession { .. } | Request::DeleteOwnSession { .. }) => {
                &[Answered, Refused, LostBefore, LostAfter]
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum How {
    Answered,
    Refused,
    LostBefore,
    LostAfter,
    /// A disable that takes effect within the next tick.
    LostLate,
    /// A disable that takes effect, is not answered, and arrives a second time two ticks later.
    Twice,
    /// An enable that the manager's worker does not notice.
    Unnoticed,
}

/// Limits of few ticks.
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

/// One medic with its world and journal.
pub(super) struct Actor<'a> {
    pub(super) world: &'a mut World,
    pub(super) journal: &'a mut Vec<Row>,
    pub(super) medic: &'a mut Medic,
    pub(super) policy: &'a Policy,
    pub(super) broken: Option<Broken>,
}

impl Actor<'_> {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn rows(&self) -> Vec<Treatment> {
        self.journal.iter().map(|row| row.0.clone()).collect()
    }

    fn step(&self, treatment: &Treatment, input: Input<'_>) -> Transition {
        machine::step(treatment, input, now(self.world.tick), self.policy)
    }

    /// Writes the journal, then queues the request.
    fn take(&mut self, transition: Transition) {
        let mut treatment = transition.treatment;
        let mut request = transition.request;
        if self.is(Broken::ForgetsOwnSession)
            && let Some(Request::DeleteOwnSession { .. }) = request
        {
            request = None;
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
        self.update_ledger(&treatment);
        let row = Row(treatment);
        match self.journal.iter_mut().find(|known| known.0.id == row.0.id) {
            Some(known) => *known = row.clone(),
            // Broken: the journal has lost it.
            None => self.journal.push(row.clone()),
        }
        if let Some(request) = request {
            self.medic.pending.push(Pending(row, request));
        }
    }

    fn update_ledger(&mut self, treatment: &Treatment) {
        let past = !matches!(treatment.step, Step::Deleting { .. } | Step::Closed { .. });
        if let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }, true) =
            (&treatment.remedy, past)
        {
            let entries = self.world.sets[index(treatment.set)].ledger.iter_mut();
            entries.filter(|entry| session_id(entry.id) == *session).for_each(|entry| entry.ended = true);
        }
    }

    /// Sweeps and steps the open treatments.
    pub(super) fn sweep_and_step(&mut self, lags: bool) {
        let mut fleet = self.world.sweep(lags, &self.rows());
        for row in self.journal.clone() {
            if row.0.step.is_closed() {
                continue;
            }
            // Broken: the operator's change looks like ours.
            if let Step::Disabled { ours, .. } | Step::Enabling { ours, .. } = &row.0.step
                && self.is(Broken::FightsTheOperator)
                && let Some(set) = fleet.sets.get_mut(&row.0.set)
            {
                set.revision = ours.clone();
            }
            let bit = 1 << row.0.id.0;
            let input =
                if self.medic.known & bit == 0 { Input::Recover } else { Input::Sweep(self.view(&fleet, &row.0)) };
            self.medic.known |= bit;
            let transition = self.step(&row.0, input);
            if transition.request.is_some() || transition.treatment != row.0 {
                self.take(transition);
            }
        }
        self.medic.phase = Phase::Stepping { seen: Box::new(self.world.clone()), lags };
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
                Self::proof(fleet, treatment.set).map(|proof| DeletionWarrant::for_tests(proof.session().clone()))
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

    /// Decides with what the sweep found and the present journal.
    pub(super) fn decide(&mut self) {
        let Phase::Stepping { seen, lags } = std::mem::replace(&mut self.medic.phase, Phase::Dead) else { return };
        let plan = self.plan(&seen, lags);
        self.medic.phase =
            if plan.is_empty() { Phase::Idle { swept: true } } else { Phase::Opening { seen, lags, plan } };
    }

    fn plan(&self, seen: &World, lags: bool) -> Vec<Planned> {
        let mut history = self.rows();
        let mut fleet = seen.sweep(lags, &history);
        match self.broken {
            Some(Broken::StartsASecondTreatment) => history.retain(|row| row.step.is_closed()),
            Some(Broken::SendsNoCanary) => history.iter_mut().for_each(|row| row.revived = Some(row.opened)),
            Some(Broken::SkipsIncarnationCheck) => fleet.believe_every_session_stale(),
            _ => {}
        }
        let policy = match self.broken {
            Some(Broken::IgnoresTheLimit) => &policy(9),
            Some(Broken::SkipsTheRolloutLimit) => &policy(2),
            _ => self.policy,
        };
        let now = now(self.world.tick);
        let mut diagnosed = testing::fleet(now.wall);
        diagnosed.manager = fleet.manager;
        diagnosed.incarnation = fleet.incarnation;
        diagnosed.conflict_behaviour = seen.scenario.conflict_behaviour();
        diagnosed.owner = Some(owner());
        let given = Conditions {
            now,
            history,
            ledger: Arc::new(fleet.ledger),
            can_check_sessions: fleet.sets.keys().copied().collect(),
            ..testing::conditions(now.wall, policy.clone())
        };
        (diagnosed.findings, diagnosed.sets) = (fleet.findings, Arc::new(fleet.sets));
        let decisions = decide::decide(&decide::Input { fleet: &diagnosed, given: &given });
        let act = |of: SetDecision| match of.decision {
            Decision::Treat { remedy, canary } => Some(Planned { set: of.set, remedy, canary }),
            _ => None,
        };
        decisions.into_iter().filter_map(act).collect()
    }

    /// Opens the next treatment of the plan in the journal, and takes its first step.
    pub(super) fn open_next(&mut self) {
        let Phase::Opening { seen, lags, plan } = self.medic.phase.clone() else { return };
        let Some((act, rest)) = plan.split_first() else {
            self.medic.phase = Phase::Idle { swept: true };
            return;
        };
        let fleet = seen.sweep(lags, &self.rows());
        let at = date(self.world.tick);
        let set = &fleet.sets[&act.set];
        let id = self.journal.last().map_or(1, |row| row.0.id.0 + 1);
        let treatment = Treatment {
            name: String::new(),
            place: set.place(),
            remedy: act.remedy.clone(),
            cause: fleet.findings[&act.set].diagnosis,
            incarnation: fleet.incarnation,
            canary: act.canary,
            ..testing::open(id, act.set.0, at, machine::first_step(&act.remedy, set, at))
        };
        self.check_opening(&treatment);
        self.medic.known |= 1 << treatment.id.0;
        self.journal.push(Row(treatment.clone()));
        let transition = self.step(&treatment, Input::Sweep(self.view(&fleet, &treatment)));
        self.take(transition);
        self.medic.phase = Phase::Opening { seen, lags, plan: rest.to_vec() };
    }

    /// I5, independent of the core's rules.
    fn check_opening(&mut self, new: &Treatment) {
        let open = || self.journal.iter().map(|row| &row.0).filter(|row| !row.step.is_closed());
        if open().any(|row| row.set == new.set) {
            self.world.violated("I5 never more than one treatment per set");
            return;
        }
        let acting = open().filter(|row| row.in_flight()).count();
        if acting >= self.in_flight_limit() {
            self.world.violated("I5 never more than max_in_flight, or the share that has proved to help");
        }
        let run = self.world.incarnation();
        let shown = self.journal.iter().map(|row| &row.0).any(|row| {
            row.is_heal() && row.opened >= run.0 && (row.revived.is_some() || row.outcome() == Some(Outcome::Recovered))
        });
        if acting > 0 && !shown && new.is_heal() && new.incarnation == Some(run) {
            self.world.violated("I5 one before the canary has verified");
        }
    }

    /// `max_in_flight`, or the number of heals that helped since the last that did not, up to the share.
    fn in_flight_limit(&self) -> usize {
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

    /// Sends the next request. Its answer goes into the machine unless the medic is killed.
    pub(super) fn send(&mut self, how: How, killed: bool) {
        let Pending(row, request) = self.medic.pending.remove(0);
        // If it is killed before the answer is in the journal, the answer is lost.
        let answer = self.perform(&row.0, &request, if killed && how == How::Answered { How::LostAfter } else { how });
        if killed {
            self.die();
            return;
        }
        let transition = self.step(&row.0, Input::Answer(answer));
        self.take(transition);
    }

    fn perform(&mut self, row: &Treatment, request: &Request, how: How) -> Answer {
        let set = index(row.set);
        let read_fails = || failure(FailureKind::Timeout);
        match request {
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
                    let known = how == How::Answered;
                    let opened = self.world.open_ours(set, known);
                    let answer =
                        opened.map_or(OpenAnswer::Held { owner: None }, |id| OpenAnswer::Opened(session_id(id)));
                    if known { Ok(answer) } else { Err(lost()) }
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

    /// Broken: the operator's change looks like ours in the last read, too.
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
            // Broken: no answer counts as no effect.
            _ if self.is(Broken::TakesLostForRefused) => Err(refused()),
            How::LostBefore | How::LostAfter | How::LostLate | How::Twice => Err(lost()),
        }
    }

    /// Only the journal remains.
    pub(super) fn die(&mut self) {
        *self.medic = Medic::new(Phase::Dead);
        if self.is(Broken::ForgetsTheJournal) {
            self.journal.retain(|row| row.0.step.is_closed());
        }
    }

    /// SIGTERM: finishes open intents for some rounds.
    pub(super) fn end(&mut self, rounds: u8) {
        self.medic.phase = Phase::Ending { rounds };
        if rounds == 0 {
            *self.medic = Medic::new(Phase::Dead);
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
            *self.medic = Medic::new(Phase::Dead);
        }
    }
}

/// Whether an operator's change could not be distinguished from a lost disable of ours: GARM's writes have no condition
/// and no author, only a date.
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
