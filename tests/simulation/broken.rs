//! Medics broken on purpose show that the checks can fail. Network or disk take from each what one invariant needs; the
//! product knows nothing of them.

use bytes::Bytes;
use http::{Method, Request};
use medic_core::model::Span;
use medic_core::policy::Policy;
use medic_http::{Response, TransportError};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A fault, and the invariant that it violates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Not,
    /// It sees no change of a set that it has disabled, so an operator's change looks like its own. I2.
    FightsTheOperator,
    /// Its enables never arrive. I3.
    NeverEnables,
    /// Its journal keeps the first step of a treatment only, so it forgets what to undo. I3.
    ForgetsSteps,
    /// It never sees a session of GARM. I4.
    SeesNoSession,
    /// It has no budget for a set and no back-off. I5.
    IgnoresBudgets,
    /// It disables a set when it reads it last, before the journal has the intent. I6.
    WritesBeforeJournal,
    /// The deletions of its own sessions never arrive. I7.
    LeavesSessions,
    /// It panics on an answer that is not JSON. I8.
    PanicsOnBadJson,
    /// It logs the requests that fail. I9.
    LogsRequests,
}

/// Each with the invariant that must catch it.
pub(crate) const ALL: [(Broken, &str); 9] = [
    (Broken::FightsTheOperator, "I2"),
    (Broken::NeverEnables, "I3"),
    (Broken::ForgetsSteps, "I3"),
    (Broken::SeesNoSession, "I4"),
    (Broken::IgnoresBudgets, "I5"),
    (Broken::WritesBeforeJournal, "I6"),
    (Broken::LeavesSessions, "I7"),
    (Broken::PanicsOnBadJson, "I8"),
    (Broken::LogsRequests, "I9"),
];

impl Broken {
    /// Whether the disk loses a write that it has confirmed.
    pub(crate) fn loses_write(self, what: &'static str) -> bool {
        self == Self::ForgetsSteps && what == "record a treatment"
    }

    pub(crate) fn limits(self, policy: &mut Policy) {
        if self == Self::IgnoresBudgets {
            (policy.set_budget, policy.breaker_after) = (1_000, 1_000);
            policy.backoff = vec![Span::secs(1)];
        }
    }

    /// The answer to a request that is never sent.
    pub(crate) fn drops(self, request: &Request<Bytes>) -> Option<Result<Response, TransportError>> {
        let path = request.uri().path();
        let enables = request.method() == Method::PUT && request.body().windows(4).any(|word| word == b"true");
        match self {
            Self::NeverEnables if enables => Some(Err(super::network::broken("the enable was lost"))),
            Self::LeavesSessions if request.method() == Method::DELETE && path.contains("/sessions/") => {
                Some(Ok(Response {
                    status: http::StatusCode::NO_CONTENT,
                    headers: http::HeaderMap::new(),
                    body: Bytes::new(),
                }))
            }
            _ => None,
        }
    }

    /// A request that is sent too early.
    pub(crate) fn sends_early(self, request: &Request<Bytes>) -> Option<Request<Bytes>> {
        let last_look = request.method() == Method::GET && request.uri().path().contains("/scalesets/");
        (self == Self::WritesBeforeJournal && last_look).then(|| {
            let mut early = request.clone();
            *early.method_mut() = Method::PUT;
            *early.body_mut() = Bytes::from_static(b"{\"enabled\":false}");
            early
        })
    }

    pub(crate) fn change_answer(
        self,
        request: &Request<Bytes>,
        answer: Result<Response, TransportError>,
        dates: &Dates,
    ) -> Result<Response, TransportError> {
        let path = request.uri().path();
        match (self, answer) {
            (Self::SeesNoSession, Ok(response)) if path.contains("/metrics") => {
                let text = String::from_utf8_lossy(&response.body);
                let kept = text.lines().filter(|line| {
                    !["CreateMessageSession", "GetMessage", "RefreshMessageSession"].iter().any(|op| line.contains(op))
                });
                Ok(Response { body: Bytes::from(kept.collect::<Vec<_>>().join("\n") + "\n"), ..response })
            }
            (Self::FightsTheOperator, Ok(response)) if path.contains("/scalesets") => {
                Ok(Response { body: as_if_untouched(request, &response.body, dates), ..response })
            }
            (Self::PanicsOnBadJson, Ok(response)) if path.contains("/scalesets") => {
                if serde_json::from_slice::<serde_json::Value>(&response.body).is_err() {
                    // Unwinds as a panic does, without its message on the test's output.
                    std::panic::resume_unwind(Box::new("called `Result::unwrap()` on an `Err` value"));
                }
                Ok(response)
            }
            (Self::LogsRequests, Err(error)) => {
                let token = request.headers().get(http::header::AUTHORIZATION).and_then(|token| token.to_str().ok());
                let body = String::from_utf8_lossy(request.body());
                tracing::warn!(%error.detail, token, %body, "a request failed");
                Err(error)
            }
            (_, answer) => answer,
        }
    }
}

/// The date of its disable, by set.
pub(crate) type Dates = Mutex<BTreeMap<u64, serde_json::Value>>;

/// A disabled set keeps the date of the medic's disable, even if it has changed since.
fn as_if_untouched(request: &Request<Bytes>, body: &Bytes, dates: &Dates) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<serde_json::Value>(body) else { return body.clone() };
    let sets = match &mut value {
        serde_json::Value::Array(sets) => sets.iter_mut().collect(),
        one => vec![one],
    };
    let mut dates = dates.lock().unwrap();
    for set in sets {
        let Some(id) = set["id"].as_u64() else { continue };
        if set["enabled"] == true {
            dates.remove(&id);
        } else if request.method() == Method::PUT {
            dates.insert(id, set["updated_at"].clone());
        } else if let Some(date) = dates.get(&id) {
            set["updated_at"] = date.clone();
        }
    }
    Bytes::from(value.to_string())
}
