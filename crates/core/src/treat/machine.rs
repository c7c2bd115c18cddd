//! A treatment's machine: (treatment, what happened) → (treatment, next effect). Pure.
//!
//! The driver journals the treatment of each [`Transition`] before it performs its effect, and feeds the answer back;
//! passes feed [`Input::Sweep`]. So a treatment never sleeps, survives any crash, and holds no effect that the journal
//! does not name. An answer that did not arrive is never guessed: it is settled by reading.
//!
//! | file | step |
//! |---|---|
//! | [`toggle`](super::toggle) | disabling, disabled, enabling |
//! | [`deletion`](super::deletion) | deleting a provably stale session |
//! | [`session_check`](super::session_check) | opening a session to learn whether anybody holds one |
//! | [`verify`](super::verify) | waiting for new listener evidence |

use super::{deletion, session_check, toggle, verify};
use crate::decide::warrant::DeletionWarrant;
use crate::model::failure::WriteError;
use crate::model::{
    ConflictBehaviour, EndpointState, Finding, Incarnation, ManagerState, Now, Outcome, Owner, Remedy, RequestFailure,
    ScaleSet, Span, Step, Treatment, Wall,
};
use crate::policy::Policy;
use crate::ports::write::OpenAnswer;

/// A set as a pass saw it.
#[derive(Debug, Clone, Copy)]
pub enum SetView<'a> {
    /// The manager could not be asked.
    Unseen,
    /// The manager answered and does not know the set.
    Gone,
    /// As the manager showed it.
    Seen(&'a ScaleSet),
}

/// What one pass saw that bears on one treatment.
#[derive(Debug, Clone)]
pub struct View<'a> {
    pub manager: ManagerState,
    pub incarnation: Option<Incarnation>,
    pub set: SetView<'a>,
    /// What is wrong with it.
    pub finding: Option<&'a Finding>,
    /// Its endpoint at the forge.
    pub endpoint: Option<EndpointState>,
    /// That the session to be deleted may still be deleted.
    pub warrant: Option<DeletionWarrant>,
    /// What the manager's build does after a refused start.
    pub conflict_behaviour: ConflictBehaviour,
    /// Whether people let what has not been sent be sent.
    pub leave: Leave,
}

/// Whether what a treatment has not sent yet may be sent. What undoes needs no leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    Granted,
    /// A person has paused healing since the treatment was decided.
    Paused,
}

#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// A pass looked. In the process that began the treatment, nothing is in flight when this comes.
    Sweep(View<'a>),
    /// The answer to the effect of the transition before.
    Answer(Answer),
    /// The process must end: undo what must not stay.
    Shutdown,
    /// Another process, or a failed journal, left the treatment in this step: its effect may have been sent.
    Recover,
}

/// What to do on the wire, after the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Disable,
    Enable,
    ReadSet,
    /// Read the manager's current run; the answer brings the warrant back.
    CheckIncarnation {
        warrant: DeletionWarrant,
    },
    /// Delete a stale session of the manager's.
    DeleteSession {
        warrant: DeletionWarrant,
    },
    /// Ask for a session.
    OpenSession {
        owner: Owner,
    },
    /// Delete a session that we opened.
    DeleteOwnSession {
        warrant: DeletionWarrant,
    },
}

/// The answer to an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Disable`].
    Disabled(Result<ScaleSet, WriteError>),
    /// To [`Request::Enable`].
    Enabled(Result<ScaleSet, WriteError>),
    /// To [`Request::ReadSet`].
    Read(Result<Option<ScaleSet>, RequestFailure>),
    /// To [`Request::CheckIncarnation`].
    Incarnation { run: Result<Incarnation, RequestFailure>, warrant: DeletionWarrant },
    /// To [`Request::DeleteSession`] and [`Request::DeleteOwnSession`].
    SessionDeleted(Result<(), WriteError>),
    /// To [`Request::OpenSession`].
    SessionOpened(Result<OpenAnswer, WriteError>),
}

/// Where a treatment goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The treatment, to be journaled.
    pub treatment: Treatment,
    /// What to do then.
    pub effect: Option<Request>,
    /// What happened, in words.
    pub note: Option<String>,
}

/// The first step of a remedy for a set, to be journaled before anything is sent.
#[must_use]
pub fn begin(remedy: &Remedy, set: &ScaleSet, at: Wall) -> Step {
    match remedy {
        Remedy::Toggle => Step::Disabling { seen: set.revision.clone(), sent: None },
        Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session } => {
            let seen = Some(set.revision.clone());
            Step::Deleting { session: session.clone(), seen, attempts: 0, not_before: at }
        }
        // Unique to this probe, so that a conflict with our own lost session can be told from any other.
        Remedy::SessionCheck => Step::CheckOpening { owner: Owner::of_session_check(set.id, at) },
    }
}

/// The next transition. A closed treatment stays as it is.
#[must_use]
pub fn step(treatment: &Treatment, input: Input<'_>, now: Now, policy: &Policy) -> Transition {
    let now = now.wall;
    match &treatment.step {
        Step::Disabling { seen, sent } => toggle::disabling(treatment, seen, *sent, input, now),
        Step::DisableUnknown { seen, sent } => toggle::disable_unknown(treatment, seen, *sent, input, now),
        Step::Disabled { ours, again_until } => toggle::disabled(treatment, (ours, *again_until), &input, now, policy),
        Step::Enabling { ours, since: _, attempts, not_before } => {
            toggle::enabling(treatment, (ours, *attempts, *not_before), input, now)
        }
        Step::Deleting { session, seen, attempts, not_before } => {
            deletion::deleting(treatment, (session, seen.as_ref()), (*attempts, *not_before), input, now)
        }
        Step::CheckOpening { owner } => session_check::opening(treatment, owner, input, now),
        Step::CheckOpened { session, attempts, not_before } => {
            session_check::opened(treatment, (session, *attempts, *not_before), input, now)
        }
        Step::Verifying => verify::verifying(treatment, &input, now, policy),
        Step::Closed { .. } => stay(treatment),
    }
}

/// Nothing changes, nothing is done.
pub(super) fn stay(treatment: &Treatment) -> Transition {
    Transition { treatment: treatment.clone(), effect: None, note: None }
}

/// Nothing changes; `effect` is done.
pub(super) fn ask(treatment: &Treatment, effect: Request) -> Transition {
    Transition { treatment: treatment.clone(), effect: Some(effect), note: None }
}

/// Nothing changes, and something is to be told.
pub(super) fn note(treatment: &Treatment, note: String) -> Transition {
    Transition { treatment: treatment.clone(), effect: None, note: Some(note) }
}

/// Goes to another step. A step of the same kind keeps its date: it is the same wait.
pub(super) fn go(treatment: &Treatment, step: Step, now: Wall, note: impl Into<String>) -> Transition {
    let same = std::mem::discriminant(&step) == std::mem::discriminant(&treatment.step);
    let step_at = if same { treatment.step_at } else { now };
    let refusal = treatment.refusal.clone().filter(|_| same);
    let treatment = Treatment { step, step_at, refusal, ..treatment.clone() };
    Transition { treatment, effect: None, note: Some(note.into()) }
}

pub(super) fn close(treatment: &Treatment, outcome: Outcome, now: Wall, why: impl Into<String>) -> Transition {
    let why = why.into();
    go(treatment, Step::Closed { outcome, why: why.clone() }, now, why)
}

impl Transition {
    /// The same, with an effect.
    pub(super) fn then(mut self, effect: Request) -> Self {
        self.effect = Some(effect);
        self
    }
}

/// The longest wait between two attempts to undo what must not stay. A server that asks for a longer one is obeyed by
/// the HTTP client, which then holds the request back without sending it.
pub const LONGEST_WAIT: Span = Span::secs(30);

/// When to try again after so many attempts: 1, 2, 4 … 30 s, or as late as the server asks.
pub(super) fn next_attempt(attempts: u32, retry_at: Option<Wall>, now: Wall) -> Wall {
    let seconds = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
    retry_at.unwrap_or(now).max(now.plus(Span::secs(seconds).min(LONGEST_WAIT)))
}

/// The same for what must be undone: no server's word lets it stay for longer.
pub(super) fn next_undo(attempts: u32, retry_at: Option<Wall>, now: Wall) -> Wall {
    next_attempt(attempts, retry_at, now).min(now.plus(LONGEST_WAIT))
}

/// Whether the wait for something that must be undone is over; also when the clock was set back meanwhile.
pub(super) fn is_undo_due(not_before: Wall, now: Wall) -> bool {
    now >= not_before || not_before.since(now) > LONGEST_WAIT
}

/// A write's failure, whichever kind.
pub(super) const fn failure(error: &WriteError) -> &RequestFailure {
    match error {
        WriteError::NotApplied(failure) | WriteError::Unknown(failure) => failure,
    }
}

/// Whether a pass saw another run of the manager than the one the treatment was decided in.
pub(super) fn other_run(treatment: &Treatment, view: &View<'_>) -> bool {
    matches!((treatment.incarnation, view.incarnation), (Some(then), Some(current)) if !then.is_same_run(current))
}

/// Why a treatment that has sent nothing yet ends.
pub(super) const PAUSED: &str = "healing was paused before anything was sent";

/// Whether the manager answers.
pub(super) const fn answers(view: &View<'_>) -> bool {
    match view.manager {
        ManagerState::Up | ManagerState::Restarted => true,
        ManagerState::Down | ManagerState::Unreachable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::treat::testing::{T0, after, disabled, enabled, now, rev, session, treatment};

    #[test]
    fn a_treatment_begins_with_a_step_that_names_what_will_be_sent() {
        let set = enabled("r7");
        assert_eq!(begin(&Remedy::Toggle, &set, T0), Step::Disabling { seen: rev("r7"), sent: None });
        for remedy in [Remedy::DeleteSession { session: session() }, Remedy::DeleteThenToggle { session: session() }] {
            assert_eq!(
                begin(&remedy, &set, T0),
                Step::Deleting { session: session(), seen: Some(rev("r7")), attempts: 0, not_before: T0 },
                "{remedy:?}"
            );
        }
        for remedy in [Remedy::Toggle, Remedy::DeleteSession { session: session() }, Remedy::SessionCheck] {
            assert!(begin(&remedy, &set, T0).is_intent(), "{remedy:?}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_half_a_minute_and_obeys_the_server() {
        let waits: Vec<u64> =
            (1..=7).chain([64, u32::MAX]).map(|n| next_attempt(n, None, T0).since(T0).as_millis() / 1000).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(next_attempt(1, Some(after(600)), T0), after(600));
        assert_eq!(next_attempt(3, Some(after(1)), T0), after(4), "a server that is in a hurry changes nothing");
        assert_eq!(next_undo(1, Some(after(600)), T0), after(30));
        assert_eq!(next_undo(1, Some(Wall(u64::MAX)), Wall(u64::MAX)), Wall(u64::MAX));
    }

    #[test]
    fn a_step_of_the_same_kind_keeps_its_date() {
        let verifying = treatment(Step::Verifying);
        assert_eq!(go(&verifying, Step::Verifying, after(9), "again").treatment.step_at, T0);
        let next = go(&verifying, Step::Disabled { ours: rev("ours"), again_until: None }, after(9), "next");
        assert_eq!(next.treatment.step_at, after(9));
    }

    #[test]
    fn a_refusal_is_shown_for_as_long_as_the_treatment_stands_there_and_no_longer() {
        let step = || Step::Enabling { ours: rev("ours"), since: None, attempts: 1, not_before: T0 };
        let refused = Treatment { refusal: Some("quota".to_owned()), ..treatment(step()) };
        assert_eq!(go(&refused, step(), after(1), "again").treatment.refusal.as_deref(), Some("quota"));
        assert_eq!(go(&refused, Step::Verifying, after(1), "enabled").treatment.refusal, None);
    }

    #[test]
    fn a_note_says_what_happened_at_every_change_of_step() {
        let step_of = Step::Disabling { seen: rev("seen"), sent: Some(T0) };
        let answer = Answer::Disabled(Ok(disabled("ours", T0)));
        let transition = step(&treatment(step_of), Input::Answer(answer), now(after(1)), &Policy::default());
        assert_eq!(transition.note.as_deref(), Some("disabled"));
    }
}
