//! Treatments: how they stand, what happened in them, and their requests.

use crate::status::TreatmentSummary;
use medic_core::model::{Failed, Note, Treatment};
use medic_core::treat::audit::{RequestRecord, SentRequest};
use serde::Deserialize as _;
use serde_json::Value;

/// What happened in a treatment.
pub fn note(note: &Note) -> String {
    let text = match note {
        Note::SetRemoved => "the scale set was removed from GARM",
        Note::ChangedByOthers => "somebody else changed the scale set",
        Note::ManagerAway => "GARM stopped answering before anything was sent",
        Note::RestartedSinceDecision => "GARM has restarted since the decision",
        Note::RestartedUnverified => "GARM restarted before the treatment could be verified",
        Note::ListensAgain { sent: false } => "the set listens again; nothing was sent",
        Note::ListensAgain { sent: true } => "the set listens again; nothing more is sent",
        Note::Paused { sent: false } => "healing was paused before anything was sent",
        Note::Paused { sent: true } => "healing was paused before the deletion was sent again",
        Note::MedicEnded { sent: false } => {
            "the medic ended before anything was sent; the next reconcile decides again"
        }
        Note::MedicEnded { sent: true } => {
            "the medic ended long ago, before the deletion was answered; the next reconcile decides again"
        }
        Note::MedicEnds => "the medic ends: enabling now",
        Note::DisableMaybeSent => "the disable may have been sent",
        Note::DisableShownEnabled => "the answer to the disable shows the set enabled",
        Note::EnableShownDisabled => "the answer to the enable shows the set disabled",
        Note::DisableTookEffect => "the disable had taken effect",
        Note::DisableLost => {
            "the disable request had no visible effect and is assumed lost; if the set turns up disabled later, this \
             request caused it"
        }
        Note::WorkerDue => "enabling without a sign of the worker",
        Note::DisabledTooLong => "disabled for as long as allowed",
        Note::MissingInList => "GARM's list lacks the set: asking for the set by its id",
        Note::FoundEnabled => "the set is enabled",
        Note::StaleSessionGone => "the stale session is gone",
        Note::StaleSessionReplaced => "the session is no longer there to be deleted",
        Note::NoLongerStale => "the session is no longer provably stale",
        Note::SetChanged => "the set has changed; nothing was sent",
        Note::NotAtGithub => "GitHub does not know the set",
        Note::HeldBy { owner: None } => "somebody holds the set's session",
        Note::GrantLost => {
            "whether the session check opened a session is not known; if it did, nobody polls it, and GitHub forgets \
             it within about 90 s"
        }
        Note::CheckOpened => "nobody held a session; the session of the check is deleted",
        Note::HeldByNobody => "nobody held the set's session; the session of the check is deleted",
        Note::WorkerRestarted => "the worker tries again",
        Note::HeldBy { owner: Some(owner) } if owner.is_of_a_session_check() => {
            return format!(
                "the session of an earlier session check ({owner}) is still there: its grant was lost, and GitHub has \
                 not forgotten it yet"
            );
        }
        Note::HeldBy { owner: Some(owner) } => return format!("{owner} holds the set's session"),
        Note::Recovered { after } => return format!("the set listens again, {after} after the decision"),
        Note::NoWorker { within } => return format!("no sign of the worker within {within} of the enable"),
        Note::NoListener { within } => return format!("no listener within {within} of the treatment"),
        Note::Failed { what, failure } => return format!("{}: {failure}", failed(*what)),
        Note::GivenUp { attempts, last, failure } => {
            return format!("{}: {failure}; given up after {attempts} attempts", failed(*last));
        }
        Note::Text { text } => text,
    };
    text.to_owned()
}

const fn failed(what: Failed) -> &'static str {
    match what {
        Failed::ReadBeforeDisable => "the set cannot be read before it is disabled, so no disable was sent",
        Failed::DisableRefused => "the disable was refused, nothing was changed",
        Failed::DisableUnanswered => "whether the disable took effect is not known",
        Failed::ReadAfterDisable => "whether the disable took effect cannot be read",
        Failed::ReadBeforeEnable => "the set cannot be read before it is enabled",
        Failed::Enable => "the enable is retried",
        Failed::ReadIncarnation => "GARM's start time cannot be read before the deletion",
        Failed::DeleteStaleSession => "the stale session is not known to be gone",
        Failed::DeleteBeforeToggle => "not deleted, toggling alone",
        Failed::CheckRefused => "the session check was refused",
        Failed::DeleteOwnSession => "the session of the check is not known to be gone",
        Failed::FindOwnSession => "the session of the check is gone, according to an answer that is not GitHub's own",
    }
}

/// The answer to the last attempt that failed, without what it was for.
pub fn answer(refusal: &Note) -> String {
    refusal.failure().map_or_else(|| note(refusal), ToString::to_string)
}

/// How a treatment ended, and why.
pub fn end(treatment: &Treatment) -> String {
    let outcome = treatment.outcome().map_or("open", |outcome| outcome.as_str());
    format!("{outcome}: {}", treatment.why().map(note).unwrap_or_default())
}

pub fn summary(treatment: &Treatment) -> TreatmentSummary {
    TreatmentSummary {
        id: treatment.id,
        remedy: treatment.remedy.kind(),
        opened: treatment.opened,
        state: treatment.step.state(),
        why: treatment.why().map(note),
        tries: treatment.tries().map_or(0, |(tries, _)| tries),
        answer: treatment.refusal.as_ref().map(answer),
        next_try: treatment.tries().filter(|(tries, _)| *tries > 0).map(|(_, next)| next),
    }
}

/// The detail of an event of the history with its notes as text, as readers of its JSON know them.
pub fn detail(mut detail: Value) -> Value {
    for place in ["/step/why", "/refusal", "/note"] {
        if let Some(value) = detail.pointer_mut(place)
            && let Ok(known) = Note::deserialize(&*value)
        {
            *value = note(&known).into();
        }
    }
    detail
}

/// A recorded request in one line.
pub fn request(record: &RequestRecord) -> String {
    let RequestRecord { answer, took, remedy, treatment, .. } = record;
    let asked = match &record.request {
        SentRequest::Disable => "disable the set".to_owned(),
        SentRequest::Enable => "enable the set".to_owned(),
        SentRequest::ReadSet => "read the set".to_owned(),
        SentRequest::CheckIncarnation => "read the start time of GARM".to_owned(),
        SentRequest::DeleteSession { session } => format!("delete stale session {session}"),
        SentRequest::OpenSession { owner } => format!("open a session as {owner}"),
        SentRequest::DeleteOwnSession { session } => format!("delete our session {session}"),
    };
    let next = record.outcome.map_or(record.step.as_str(), |outcome| outcome.as_str());
    let why = match (record.note.as_ref().map(note).filter(|note| note != next), &record.failure) {
        (Some(note), _) => format!(": {note}"),
        (None, Some(failure)) => format!(": {failure}"),
        (None, None) => String::new(),
    };
    format!("{asked}: {answer} after {took}; then {remedy} #{treatment}: {next}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::{Owner, RemedyKind, ScaleSetId, SessionId, Span, TreatmentId, Wall};
    use medic_core::treat::audit::AnswerClass;
    use medic_core::treat::testing;
    use serde_json::json;

    #[test]
    fn note_text_holds_owner_time_failure_and_attempts() {
        let failure = testing::failure(medic_core::model::FailureKind::Timeout);
        let owner = |name| Note::HeldBy { owner: Some(Owner::new(name)) };
        for (fact, text) in [
            (owner("garm-other"), "garm-other holds the set's session"),
            (
                owner("scaleset-medic-1-0"),
                "the session of an earlier session check (scaleset-medic-1-0) is still there: its grant was lost, and \
                 GitHub has not forgotten it yet",
            ),
            (Note::Recovered { after: Span::secs(8) }, "the set listens again, 8 s after the decision"),
            (Note::NoListener { within: Span::secs(330) }, "no listener within 5 min 30 s of the treatment"),
            (
                Note::GivenUp { attempts: 5, last: Failed::ReadIncarnation, failure },
                "GARM's start time cannot be read before the deletion: manager set_enabled: timeout (as the test \
                 says); given up after 5 attempts",
            ),
        ] {
            assert_eq!(note(&fact), text);
            let stored = json!({"step": {"why": fact}, "refusal": null, "note": fact});
            assert_eq!(detail(stored), json!({"step": {"why": text}, "refusal": null, "note": text}));
        }
        assert_eq!(detail(json!({"note": {"note": "of later"}})), json!({"note": {"note": "of later"}}));
    }

    #[test]
    fn request_text_holds_request_answer_and_next_step() {
        let record = RequestRecord {
            treatment: TreatmentId(1),
            set: ScaleSetId(1),
            remedy: RemedyKind::Toggle,
            request: SentRequest::DeleteSession { session: SessionId::new("s-1") },
            sent: Wall(0),
            took: Span::millis(30),
            answer: AnswerClass::Done,
            failure: None,
            step: "verifying".to_owned(),
            outcome: None,
            note: Some(Note::StaleSessionGone),
        };
        let silent = "delete stale session s-1: done after 30 ms; then toggle #1: verifying";
        assert_eq!(request(&record), format!("{silent}: the stale session is gone"));
        assert_eq!(
            request(&RequestRecord { note: Some(Note::Text { text: "verifying".to_owned() }), ..record.clone() }),
            silent
        );
        assert_eq!(request(&RequestRecord { note: None, ..record }), silent);
    }
}
