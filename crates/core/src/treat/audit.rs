//! The history's record of a request: what was sent, the class of the answer, and where the treatment stood after it.
//! Nothing depends on it; what must be known after a crash is in the journal.

use super::transition::{Answer, Request, Transition, failure_of};
use crate::model::closed::closed_enum;
use crate::model::failure::WriteError;
use crate::model::{
    Note, OpenAnswer, Outcome, Owner, RemedyKind, RequestFailure, ScaleSetId, SessionId, Span, Treatment, TreatmentId,
    Wall,
};
use serde::{Deserialize, Serialize};

closed_enum! {
    pub enum AnswerClass {
        Done = "done",
        /// Somebody else holds a session.
        Held = "held",
        /// The scale set is not there.
        Gone = "gone",
        /// Not sent, or refused: it had no effect.
        Refused = "refused",
        /// Sent, without a usable answer: its effect is unknown.
        Unknown = "unknown",
    }
}

/// A request as the history shows it: nothing can be sent from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum SentRequest {
    Disable,
    Enable,
    ReadSet,
    CheckIncarnation,
    DeleteSession { session: SessionId },
    OpenSession { owner: Owner },
    DeleteOwnSession { session: SessionId },
}

impl From<Request> for SentRequest {
    fn from(request: Request) -> Self {
        match request {
            Request::Disable => Self::Disable,
            Request::Enable => Self::Enable,
            Request::ReadSet => Self::ReadSet,
            Request::CheckIncarnation { .. } => Self::CheckIncarnation,
            Request::DeleteSession { warrant } => Self::DeleteSession { session: warrant.session().clone() },
            Request::OpenSession { owner } => Self::OpenSession { owner },
            Request::DeleteOwnSession { warrant } => Self::DeleteOwnSession { session: warrant.session().clone() },
        }
    }
}

/// A request of a treatment, its answer, and what followed from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    pub treatment: TreatmentId,
    pub set: ScaleSetId,
    pub remedy: RemedyKind,
    #[serde(flatten)]
    pub request: SentRequest,
    pub sent: Wall,
    /// How long the answer took.
    pub took: Span,
    pub answer: AnswerClass,
    /// Why it failed, if a server or the connection to it is the cause.
    pub failure: Option<RequestFailure>,
    /// The treatment's step after it.
    pub step: String,
    /// The treatment's outcome, if it closed.
    pub outcome: Option<Outcome>,
    #[serde(default, deserialize_with = "crate::model::note::lenient_option")]
    pub note: Option<Note>,
}

impl RequestRecord {
    /// A request and its answer, before the machine has made its next step.
    pub fn new(treatment: &Treatment, request: Request, sent: Wall, took: Span, answer: &Answer) -> Self {
        let (answer, failure) = classify(answer);
        Self {
            treatment: treatment.id,
            set: treatment.set,
            remedy: treatment.remedy.kind(),
            request: request.into(),
            sent,
            took,
            answer,
            failure: failure.cloned(),
            step: treatment.step.label().to_owned(),
            outcome: None,
            note: None,
        }
    }

    /// With the step after it; `None` for a read that did not change the step.
    pub fn followed_by(mut self, next: &Transition) -> Option<Self> {
        let step = next.treatment.step.label();
        if !writes(&self.request) && self.step == step {
            return None;
        }
        (self.step, self.outcome, self.note) = (step.to_owned(), next.treatment.outcome(), next.note.clone());
        Some(self)
    }
}

const fn writes(request: &SentRequest) -> bool {
    match request {
        SentRequest::Disable
        | SentRequest::Enable
        | SentRequest::DeleteSession { .. }
        | SentRequest::OpenSession { .. }
        | SentRequest::DeleteOwnSession { .. } => true,
        SentRequest::ReadSet | SentRequest::CheckIncarnation => false,
    }
}

const fn classify(answer: &Answer) -> (AnswerClass, Option<&RequestFailure>) {
    match answer {
        Answer::Disabled(Err(error))
        | Answer::Enabled(Err(error))
        | Answer::SessionDeleted(Err(error))
        | Answer::SessionOpened(Err(error)) => match error {
            WriteError::NotApplied(_) => (AnswerClass::Refused, Some(failure_of(error))),
            WriteError::Unknown(_) => (AnswerClass::Unknown, Some(failure_of(error))),
        },
        Answer::Read(Err(failure)) | Answer::Incarnation { incarnation: Err(failure), .. } => {
            (AnswerClass::Unknown, Some(failure))
        }
        Answer::SessionOpened(Ok(OpenAnswer::Held { .. })) => (AnswerClass::Held, None),
        Answer::Read(Ok(None)) | Answer::SessionOpened(Ok(OpenAnswer::SetGone)) => (AnswerClass::Gone, None),
        Answer::Disabled(Ok(_))
        | Answer::Enabled(Ok(_))
        | Answer::Read(Ok(Some(_)))
        | Answer::Incarnation { incarnation: Ok(_), .. }
        | Answer::SessionDeleted(Ok(()))
        | Answer::SessionOpened(Ok(OpenAnswer::Opened(_))) => (AnswerClass::Done, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Step;
    use crate::policy::Policy;
    use crate::treat::testing::{T0, after, disabled, enabled, lost, refused, rev, treatment, warrant};
    use crate::treat::transition::StepContext;

    /// Of a request in the step `enabling`.
    fn record(next: Step, request: Request, answer: &Answer) -> Option<RequestRecord> {
        let before = treatment(enabling());
        let ctx = StepContext { treatment: &before, now: after(1), policy: &Policy::default() };
        RequestRecord::new(&before, request, T0, Span::millis(30), answer)
            .followed_by(&ctx.change_step(next, Note::WorkerRestarted))
    }

    fn enabling() -> Step {
        Step::Enabling { ours: rev("ours"), since: None, attempts: 1, not_before: T0 }
    }

    #[test]
    fn request_record_classifies_every_answer() {
        let open = || Request::OpenSession { owner: Owner::new("check") };
        for (request, answer, class) in [
            (Request::Disable, Answer::Disabled(Ok(disabled("ours", T0))), AnswerClass::Done),
            (Request::Disable, Answer::Disabled(Err(refused())), AnswerClass::Refused),
            (Request::Enable, Answer::Enabled(Err(lost())), AnswerClass::Unknown),
            (Request::ReadSet, Answer::Read(Ok(Some(enabled("seen")))), AnswerClass::Done),
            (Request::ReadSet, Answer::Read(Ok(None)), AnswerClass::Gone),
            (open(), Answer::SessionOpened(Ok(OpenAnswer::Held { owner: None })), AnswerClass::Held),
        ] {
            let record = record(Step::Verifying, request, &answer).unwrap();
            let failed = matches!(class, AnswerClass::Refused | AnswerClass::Unknown);
            assert_eq!((record.answer, record.failure.is_some()), (class, failed), "{record:?}");
            let read: RequestRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
            assert_eq!(read, record);
        }
    }

    #[test]
    fn request_record_keeps_request_answer_and_next_step() {
        let done = Answer::SessionDeleted(Ok(()));
        let done = record(Step::Verifying, Request::DeleteSession { warrant: warrant() }, &done).unwrap();
        assert_eq!((done.step.as_str(), &done.note, done.outcome), ("verifying", &Some(Note::WorkerRestarted), None));
        let json = serde_json::to_value(&done).unwrap();
        assert_eq!((&json["request"], &json["answer"]), (&"delete_session".into(), &"done".into()));
    }

    #[test]
    fn request_record_of_the_same_step_is_made_of_writes_only() {
        let write = record(enabling(), Request::Enable, &Answer::Enabled(Err(refused()))).unwrap();
        assert_eq!((write.answer, write.step.as_str()), (AnswerClass::Refused, "enabling"));
        assert_eq!(record(enabling(), Request::ReadSet, &Answer::Read(Ok(Some(enabled("seen"))))), None);
    }
}
