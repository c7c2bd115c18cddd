//! What was sent and what came back, for the history: request, class of the answer, and what the treatment made of it.
//! Nothing depends on it; what must be known after a crash is in the journal.

use super::transition::{Answer, OpenAnswer, Request, Transition, failure_of};
use crate::model::closed::closed_enum;
use crate::model::failure::WriteError;
use crate::model::{Outcome, RemedyKind, RequestFailure, ScaleSetId, Span, TreatmentId, Wall};
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

/// One request of a treatment, with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub treatment: TreatmentId,
    pub set: ScaleSetId,
    pub remedy: RemedyKind,
    #[serde(flatten)]
    pub request: Request,
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
    request: Request,
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
        Self { request, sent, took, answer, failure: failure.cloned(), before }
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
            Request::Disable => "disable the set".to_owned(),
            Request::Enable => "enable the set".to_owned(),
            Request::ReadSet => "read the set".to_owned(),
            Request::CheckIncarnation => "read the manager's run".to_owned(),
            Request::DeleteSession { session } => format!("delete stale session {session}"),
            Request::OpenSession { owner } => format!("open a session as {owner}"),
            Request::DeleteOwnSession { session } => format!("delete our session {session}"),
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

const fn writes(effect: &Request) -> bool {
    match effect {
        Request::Disable
        | Request::Enable
        | Request::DeleteSession { .. }
        | Request::OpenSession { .. }
        | Request::DeleteOwnSession { .. } => true,
        Request::ReadSet | Request::CheckIncarnation => false,
    }
}

const fn class(answer: &Answer) -> (AnswerClass, Option<&RequestFailure>) {
    match answer {
        Answer::Disabled(Err(error))
        | Answer::Enabled(Err(error))
        | Answer::SessionDeleted(Err(error))
        | Answer::SessionOpened(Err(error)) => match error {
            WriteError::NotApplied(_) => (AnswerClass::Refused, Some(failure_of(error))),
            WriteError::Unknown(_) => (AnswerClass::Unknown, Some(failure_of(error))),
        },
        Answer::Read(Err(failure)) | Answer::Incarnation(Err(failure)) => (AnswerClass::Unknown, Some(failure)),
        Answer::SessionOpened(Ok(OpenAnswer::Held { .. })) => (AnswerClass::Held, None),
        Answer::Read(Ok(None)) | Answer::SessionOpened(Ok(OpenAnswer::SetGone)) => (AnswerClass::Gone, None),
        Answer::Disabled(Ok(_))
        | Answer::Enabled(Ok(_))
        | Answer::Read(Ok(Some(_)))
        | Answer::Incarnation(Ok(_))
        | Answer::SessionDeleted(Ok(()))
        | Answer::SessionOpened(Ok(OpenAnswer::Opened(_))) => (AnswerClass::Done, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Step, Treatment};
    use crate::policy::Policy;
    use crate::treat::testing::{T0, after, disabled, enabled, lost, refused, rev, session, treatment};
    use crate::treat::transition::StepContext;

    fn change_step(before: &Treatment, step: Step, note: &str) -> Transition {
        StepContext { treatment: before, now: after(1), policy: &Policy::default() }.change_step(step, note)
    }

    fn act(request: Request, answer: &Answer) -> Option<Act> {
        let before = treatment(Step::Disabling { seen: rev("seen"), sent: Some(T0) });
        let next = change_step(&before, Step::Disabled { ours: rev("ours"), again_until: None }, "it is idle");
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
                Request::OpenSession { owner: crate::model::Owner::new("probe") },
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
        let done = act(Request::DeleteSession { session: session() }, &Answer::SessionDeleted(Ok(()))).unwrap();
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
        let told = sent.then(&change_step(&before, ours(), "tried again")).unwrap();
        assert_eq!((told.answer, told.step.as_str()), (AnswerClass::Refused, "enabling"));
    }

    #[test]
    fn a_look_that_changes_nothing_is_no_act() {
        let before = treatment(Step::Disabling { seen: rev("seen"), sent: None });
        let look = |answer| Exchange::new(before.step.label(), Request::ReadSet, T0, Span::ZERO, &answer);
        assert_eq!(
            look(Answer::Read(Ok(Some(enabled("seen"))))).then(&Transition {
                treatment: before.clone(),
                request: None,
                note: None
            }),
            None
        );
    }
}
