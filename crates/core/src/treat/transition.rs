//! What a treatment's machine is given, what it returns, and how a step is left: the vocabulary of `machine.rs`
//! and of the files with its steps.

use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{
    Finding, Incarnation, ManagerState, Note, OpenAnswer, Outcome, Owner, RequestFailure, ScaleSet, Span, Step,
    Treatment, Wall,
};
use crate::policy::Policy;

/// A set as a sweep saw it.
#[derive(Debug, Clone, Copy)]
pub enum SetView<'a> {
    /// The manager could not be asked.
    Unseen,
    /// The manager answered, and its list lacks the set.
    Gone,
    Seen(&'a ScaleSet),
}

/// What one sweep saw that bears on one treatment.
#[derive(Debug, Clone)]
pub struct View<'a> {
    pub manager: ManagerState,
    pub incarnation: Option<Incarnation>,
    pub set: SetView<'a>,
    pub finding: Option<&'a Finding>,
    /// The permission to delete the session, where it still holds.
    pub warrant: Option<DeletionWarrant>,
    /// An operator has paused healing: nothing new is sent; requests that undo still are.
    pub paused: bool,
}

impl View<'_> {
    pub(super) const fn manager_answers(&self) -> bool {
        match self.manager {
            ManagerState::Up | ManagerState::Restarted => true,
            ManagerState::Down | ManagerState::Unreachable => false,
        }
    }
}

#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// In the process that began the treatment, no request is in flight when this comes.
    Sweep(View<'a>),
    /// The answer to the request of the transition before.
    Answer(Answer),
    /// The process must end: undo what must not stay.
    Shutdown,
    /// Another process, or a failed journal, left the treatment in this step: its request may have been sent.
    Recover,
}

/// What is sent once the journal names it. Deletions concern a stale session of the manager's, or one that we opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Disable,
    Enable,
    ReadSet,
    CheckIncarnation { warrant: DeletionWarrant },
    DeleteSession { warrant: DeletionWarrant },
    OpenSession { owner: Owner },
    DeleteOwnSession { warrant: DeletionWarrant },
}

/// An incarnation comes with the warrant for which it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Disabled(Result<ScaleSet, WriteError>),
    Enabled(Result<ScaleSet, WriteError>),
    Read(Result<Option<ScaleSet>, RequestFailure>),
    Incarnation { incarnation: Result<Incarnation, RequestFailure>, warrant: DeletionWarrant },
    SessionDeleted(Result<(), WriteError>),
    SessionOpened(Result<OpenAnswer, WriteError>),
}

/// Where a treatment goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// To be journaled first.
    pub treatment: Treatment,
    /// To be sent then.
    pub request: Option<Request>,
    /// What happened, where the step does not say so.
    pub note: Option<Note>,
}

impl Transition {
    pub(super) fn then_send(mut self, request: Request) -> Self {
        self.request = Some(request);
        self
    }
}

/// A treatment that is about to take a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepContext<'a> {
    pub(super) treatment: &'a Treatment,
    pub(super) now: Wall,
    pub(super) policy: &'a Policy,
}

impl StepContext<'_> {
    pub(super) fn stay_in_step(&self) -> Transition {
        Transition { treatment: self.treatment.clone(), request: None, note: None }
    }

    pub(super) fn send_request(&self, request: Request) -> Transition {
        self.stay_in_step().then_send(request)
    }

    pub(super) fn stay_with_note(&self, note: Note) -> Transition {
        Transition { note: Some(note), ..self.stay_in_step() }
    }

    /// A step of the same kind keeps its date: it is the same wait.
    pub(super) fn change_step(&self, step: Step, note: impl Into<Option<Note>>) -> Transition {
        let before = self.treatment;
        let is_same = std::mem::discriminant(&step) == std::mem::discriminant(&before.step);
        let step_at = if is_same { before.step_at } else { self.now };
        let refusal = before.refusal.clone().filter(|_| is_same);
        let treatment = Treatment { step, step_at, refusal, ..before.clone() };
        Transition { treatment, request: None, note: note.into() }
    }

    pub(super) fn close_treatment(&self, outcome: Outcome, why: Note) -> Transition {
        self.change_step(Step::Closed { outcome, why: why.clone() }, why)
    }

    /// Whether a sweep saw another incarnation of the manager than the one the treatment was decided in.
    pub(super) fn is_other_incarnation(&self, view: &View<'_>) -> bool {
        matches!((self.treatment.incarnation, view.incarnation), (Some(then), Some(now)) if !then.is_same_run(now))
    }
}

/// The manager's clock and ours differ by less than this.
pub(super) const SKEW: Span = Span::secs(2);

/// Attempts at a request that is repeated until it works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) attempts: u32,
    pub(super) not_before: Wall,
}

/// The longest wait between two attempts to undo what must not stay. Where a server asks for a longer one, the HTTP
/// client keeps the request back.
pub const LONGEST_WAIT: Span = Span::secs(30);

/// 1, 2, 4 … 30 s later, or when the server asks for it.
pub(super) fn next_attempt_at(attempts: u32, retry_at: Option<Wall>, now: Wall) -> Wall {
    let seconds = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
    retry_at.unwrap_or(now).max(now.plus(Span::secs(seconds).min(LONGEST_WAIT)))
}

/// The same for what must be undone: no server may delay that.
pub(super) fn next_undo_at(attempts: u32, retry_at: Option<Wall>, now: Wall) -> Wall {
    next_attempt_at(attempts, retry_at, now).min(now.plus(LONGEST_WAIT))
}

/// Also true when the clock was set back meanwhile.
pub(super) fn is_undo_due(not_before: Wall, now: Wall) -> bool {
    now >= not_before || not_before.since(now) > LONGEST_WAIT
}

pub(super) const fn failure_of(error: &WriteError) -> &RequestFailure {
    match error {
        WriteError::NotApplied(failure) | WriteError::Unknown(failure) => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::treat::testing::{T0, after, rev, treatment};

    #[test]
    fn retry_wait_obeys_the_server_and_has_a_limit() {
        assert_eq!([64, u32::MAX].map(|attempts| next_attempt_at(attempts, None, T0)), [after(30); 2]);
        assert_eq!(next_attempt_at(3, Some(after(1)), T0), after(4), "never sooner than by our own rule");
        assert_eq!(next_undo_at(1, Some(Wall(u64::MAX)), Wall(u64::MAX)), Wall(u64::MAX));
    }

    #[test]
    fn change_step_keeps_date_and_refusal_of_the_same_step_only() {
        let step = || Step::Enabling { ours: rev("ours"), since: None, attempts: 1, not_before: T0 };
        let refused = Treatment { refusal: Some(Note::EnableShownDisabled), ..treatment(step()) };
        let ctx = StepContext { treatment: &refused, now: after(9), policy: &Policy::default() };
        let same = ctx.change_step(step(), None).treatment;
        assert_eq!((same.step_at, same.refusal), (T0, Some(Note::EnableShownDisabled)));
        let next = ctx.change_step(Step::Verifying, None).treatment;
        assert_eq!((next.step_at, next.refusal), (after(9), None));
    }
}
