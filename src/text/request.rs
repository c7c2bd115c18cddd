//! Recorded requests.

use medic_core::treat::audit::{RequestRecord, SentRequest};

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
    let why = match (record.note.as_ref().filter(|note| *note != next), &record.failure) {
        (Some(note), _) => format!(": {note}"),
        (None, Some(failure)) => format!(": {failure}"),
        (None, None) => String::new(),
    };
    format!("{asked}: {answer} after {took}; then {remedy} #{treatment}: {next}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::{RemedyKind, ScaleSetId, SessionId, Span, TreatmentId, Wall};
    use medic_core::treat::audit::AnswerClass;

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
            step: "disabled".to_owned(),
            outcome: None,
            note: Some("it is idle".to_owned()),
        };
        assert_eq!(
            request(&record),
            "delete stale session s-1: done after 30 ms; then toggle #1: disabled: it is idle"
        );
        let silent = RequestRecord { note: None, ..record };
        assert_eq!(request(&silent), "delete stale session s-1: done after 30 ms; then toggle #1: disabled");
    }
}
