//! What was sent and what came back, for the history: request, class of the answer, and what the treatment made of it.
//! Nothing depends on it; what must be known after a crash is in the journal.

use super::machine::{Answer, Request, Transition, failure};
use crate::model::closed::closed_enum;
use crate::model::failure::WriteError;
use crate::model::{Outcome, Owner, RemedyKind, RequestFailure, ScaleSetId, SessionId, Span, TreatmentId, Wall};
use crate::ports::write::OpenAnswer;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// The classes of answers.
    pub enum AnswerClass {
        Done = "done",
        /// Somebody else holds a session.
        Held = "held",
        /// What was asked for is not there.
        Gone = "gone",
        /// Not sent, or refused: certainly without effect.
        Refused = "refused",
        /// Sent, and no usable answer: the effect is not known.
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

/// One request of a treatment, with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub treatment: TreatmentId,
    pub set: ScaleSetId,
    pub remedy: RemedyKind,
    #[serde(flatten)]
    pub request: SentRequest,
    pub sent: Wall,
    /// How long the answer took.
    pub took: Span,
    /// The class of the answer.
    pub answer: AnswerClass,
    /// Why it was not as asked, where a server or the way to it is the reason.
    pub failure: Option<RequestFailure>,
    /// Where the treatment stands then.
    pub step: String,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    pub note: Option<String>,
}

/// A request and its answer, before the treatment has made anything of it.
#[derive(Debug)]
pub struct Exchange {
    request: SentRequest,
    sent: Wall,
    took: Span,
    answer: AnswerClass,
    failure: Option<RequestFailure>,
    before: &'static str,
}

impl Exchange {
    /// Of a treatment that stood at `before`.
    #[must_use]
    pub fn new(before: &'static str, request: Request, sent: Wall, took: Span, answer: &Answer) -> Self {
        let (answer, failure) = class(answer);
        Self { request: request.into(), sent, took, answer, failure: failure.cloned(), before }
    }

    /// The act, once it is known what follows from it. A mere look that changed nothing is none.
    #[must_use]
    pub fn then(self, next: &Transition) -> Option<Act> {
        let treatment = &next.treatment;
        if !writes(&self.request) && self.before == treatment.step.label() {
            return None;
        }
        Some(Act {
            treatment: treatment.id,
            set: treatment.set,
            remedy: treatment.remedy.kind(),
            request: self.request,
            sent: self.sent,
            took: self.took,
            answer: self.answer,
            failure: self.failure,
            step: treatment.step.label().to_owned(),
            outcome: treatment.outcome(),
            note: next.note.clone(),
        })
    }
}

impl Act {
    /// In one line, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let asked = match &self.request {
            SentRequest::Disable => "disable the set".to_owned(),
            SentRequest::Enable => "enable the set".to_owned(),
            SentRequest::ReadSet => "read the set".to_owned(),
            SentRequest::CheckIncarnation => "read the manager's run".to_owned(),
            SentRequest::DeleteSession { session } => format!("delete stale session {session}"),
            SentRequest::OpenSession { owner } => format!("open a session as {owner}"),
            SentRequest::DeleteOwnSession { session } => format!("delete our session {session}"),
        };
        let then = self.outcome.map_or(self.step.as_str(), |outcome| outcome.as_str());
        let why = match (self.note.as_ref().filter(|note| *note != then), &self.failure) {
            (Some(note), _) => format!(": {note}"),
            (None, Some(failure)) => format!(": {failure}"),
            (None, None) => String::new(),
        };
        format!("{asked}: {} after {}; then {} #{}: {then}{why}", self.answer, self.took, self.remedy, self.treatment)
    }
}

const fn writes(effect: &SentRequest) -> bool {
    match effect {
        SentRequest::Disable
        | SentRequest::Enable
        | SentRequest::DeleteSession { .. }
        | SentRequest::OpenSession { .. }
        | SentRequest::DeleteOwnSession { .. } => true,
        SentRequest::ReadSet | SentRequest::CheckIncarnation => false,
    }
}

const fn class(answer: &Answer) -> (AnswerClass, Option<&RequestFailure>) {
    match answer {
        Answer::Disabled(Err(error))
        | Answer::Enabled(Err(error))
        | Answer::SessionDeleted(Err(error))
        | Answer::SessionOpened(Err(error)) => match error {
            WriteError::NotApplied(_) => (AnswerClass::Refused, Some(failure(error))),
            WriteError::Unknown(_) => (AnswerClass::Unknown, Some(failure(error))),
        },
        Answer::Read(Err(failure)) | Answer::Incarnation { run: Err(failure), .. } => {
            (AnswerClass::Unknown, Some(failure))
        }
        Answer::SessionOpened(Ok(OpenAnswer::Held { .. })) => (AnswerClass::Held, None),
        Answer::Read(Ok(None)) | Answer::SessionOpened(Ok(OpenAnswer::SetGone)) => (AnswerClass::Gone, None),
        Answer::Disabled(Ok(_))
        | Answer::Enabled(Ok(_))
        | Answer::Read(Ok(Some(_)))
        | Answer::Incarnation { run: Ok(_), .. }
        | Answer::SessionDeleted(Ok(()))
        | Answer::SessionOpened(Ok(OpenAnswer::Opened(_))) => (AnswerClass::Done, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Step;
    use crate::treat::machine::{go, stay};
    use crate::treat::testing::{T0, after, disabled, enabled, lost, refused, rev, treatment, warrant};

    fn act(request: Request, answer: &Answer) -> Option<Act> {
        let before = treatment(Step::Disabling { seen: rev("seen"), sent: Some(T0) });
        let next = go(&before, Step::Disabled { ours: rev("ours"), again_until: None }, after(1), "it is idle");
        Exchange::new(before.step.label(), request, T0, Span::millis(30), answer).then(&next)
    }

    #[test]
    fn every_answer_has_its_class() {
        for (request, answer, class) in [
            (Request::Disable, Answer::Disabled(Ok(disabled("ours", T0))), AnswerClass::Done),
            (Request::Disable, Answer::Disabled(Err(refused())), AnswerClass::Refused),
            (Request::Enable, Answer::Enabled(Err(lost())), AnswerClass::Unknown),
            (Request::ReadSet, Answer::Read(Ok(Some(enabled("seen")))), AnswerClass::Done),
            (Request::ReadSet, Answer::Read(Ok(None)), AnswerClass::Gone),
            (
                Request::OpenSession { owner: Owner::new("check") },
                Answer::SessionOpened(Ok(OpenAnswer::Held { owner: None })),
                AnswerClass::Held,
            ),
        ] {
            let act = act(request, &answer).unwrap();
            let failed = matches!(class, AnswerClass::Refused | AnswerClass::Unknown);
            assert_eq!((act.answer, act.failure.is_some()), (class, failed), "{act:?}");
            let read: Act = serde_json::from_str(&serde_json::to_string(&act).unwrap()).unwrap();
            assert_eq!(read, act);
        }
    }

    #[test]
    fn an_act_says_what_was_asked_what_came_back_and_what_followed() {
        let done = act(Request::DeleteSession { warrant: warrant() }, &Answer::SessionDeleted(Ok(()))).unwrap();
        assert_eq!(done.words(), "delete stale session s-1: done after 30 ms; then toggle #1: disabled: it is idle");
        let json = serde_json::to_value(&done).unwrap();
        assert_eq!((&json["request"], &json["answer"]), (&"delete_session".into(), &"done".into()));
    }

    #[test]
    fn a_write_is_told_although_the_treatment_stands_where_it_stood() {
        let ours = || Step::Enabling { ours: rev("ours"), since: None, attempts: 1, not_before: T0 };
        let before = treatment(ours());
        let sent =
            Exchange::new(before.step.label(), Request::Enable, T0, Span::ZERO, &Answer::Enabled(Err(refused())));
        let told = sent.then(&go(&before, ours(), after(1), "tried again")).unwrap();
        assert_eq!((told.answer, told.step.as_str()), (AnswerClass::Refused, "enabling"));
    }

    #[test]
    fn a_look_that_changes_nothing_is_no_act() {
        let before = treatment(Step::Disabling { seen: rev("seen"), sent: None });
        let look = |answer| Exchange::new(before.step.label(), Request::ReadSet, T0, Span::ZERO, &answer);
        assert_eq!(look(Answer::Read(Ok(Some(enabled("seen"))))).then(&stay(&before)), None);
    }
}
