//! One treatment of set 1 under test: what a sweep sees, and what an answer says.

use super::transition::{SetView, View};
use crate::decide::testing::{finding, open, scale_set};
use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{
    Confidence, Diagnosis, Enablement, FailureKind, Finding, Incarnation, ManagerState, Mono, Now, Operation,
    RequestFailure, Revision, ScaleSet, SessionId, Span, Step, Treatment, Wall, Worker, WorkerState,
};

/// When the treatment was decided.
pub const T0: Wall = Wall(1_764_000_000_000);
/// The manager's incarnation in which it was decided.
pub const RUN: Incarnation = Incarnation(Wall(T0.0 - 60_000));
/// The incarnation after a restart, a minute after the decision.
pub const NEXT_RUN: Incarnation = Incarnation(Wall(T0.0 + 60_000));

pub fn rev(text: &str) -> Revision {
    Revision::new(text)
}

pub fn session() -> SessionId {
    SessionId::new("s-1")
}

pub fn warrant() -> DeletionWarrant {
    DeletionWarrant::for_tests(session())
}

pub fn after(seconds: u64) -> Wall {
    T0.plus(Span::secs(seconds))
}

pub fn now(wall: Wall) -> Now {
    Now { wall, mono: Mono(wall.0) }
}

pub fn enabled(revision: &str) -> ScaleSet {
    ScaleSet { revision: rev(revision), updated_at: Some(T0.minus(Span::mins(5))), ..scale_set(1) }
}

/// Disabled by a change of that date.
pub fn disabled(revision: &str, at: Wall) -> ScaleSet {
    ScaleSet { enabled: Enablement::Disabled, updated_at: Some(at), ..enabled(revision) }
}

pub fn failure(kind: FailureKind) -> RequestFailure {
    RequestFailure {
        target: Operation::SetEnabled.target(),
        operation: Operation::SetEnabled,
        kind,
        detail: "as the test says".to_owned(),
        retry_at: None,
    }
}

pub fn refused() -> WriteError {
    WriteError::NotApplied(failure(FailureKind::Rejected))
}

pub fn lost() -> WriteError {
    WriteError::Unknown(failure(FailureKind::Timeout))
}

/// A treatment of a set that the manager has given up, decided at [`T0`] in [`RUN`].
pub fn treatment(step: Step) -> Treatment {
    Treatment { incarnation: Some(RUN), ..open(1, 1, T0, step) }
}

/// The manager's list of sets, as far as set 1 goes.
#[derive(Debug, Clone)]
pub enum List {
    None,
    Lacks,
    Has(ScaleSet),
}

/// What a sweep sees: at first a manager that is up, and the set enabled, given up and unchanged.
#[must_use]
#[derive(Debug, Clone)]
pub struct Seen {
    pub manager: ManagerState,
    pub run: Option<Incarnation>,
    pub list: List,
    pub finding: Finding,
    pub stale: bool,
    pub paused: bool,
}

impl Seen {
    pub fn ill() -> Self {
        Self {
            manager: ManagerState::Up,
            run: Some(RUN),
            list: List::Has(enabled("seen")),
            finding: finding(1, Diagnosis::ConflictAbandoned, Confidence::Proof),
            stale: true,
            paused: false,
        }
    }
    pub fn with(mut self, set: ScaleSet) -> Self {
        self.list = List::Has(set);
        self
    }
    pub fn set(&self) -> Option<&ScaleSet> {
        match &self.list {
            List::Has(set) => Some(set),
            List::None | List::Lacks => None,
        }
    }
    pub fn manager(mut self, manager: ManagerState) -> Self {
        self.manager = manager;
        if matches!(manager, ManagerState::Down | ManagerState::Unreachable) {
            (self.list, self.run) = (List::None, None);
        }
        self
    }
    pub fn run(mut self, run: Incarnation) -> Self {
        self.run = Some(run);
        self
    }
    pub fn worker(mut self, state: WorkerState, since: Wall) -> Self {
        self.finding.worker = Worker { state, since };
        self
    }
    pub fn diagnosis(mut self, diagnosis: Diagnosis, since: Wall) -> Self {
        (self.finding.diagnosis, self.finding.since) = (diagnosis, since);
        self
    }
    /// Listens, by a sign of that date.
    pub fn listening(self, at: Wall) -> Self {
        self.diagnosis(Diagnosis::Listening, at).worker(WorkerState::Listening, at)
    }
    pub fn view(&self) -> View<'_> {
        View {
            manager: self.manager,
            incarnation: self.run,
            set: match &self.list {
                List::None => SetView::Unseen,
                List::Lacks => SetView::Gone,
                List::Has(set) => SetView::Seen(set),
            },
            finding: Some(&self.finding),
            warrant: self.stale.then(warrant),
            paused: self.paused,
        }
    }
}
