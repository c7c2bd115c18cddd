//! Medics that are broken on purpose, to see that the checks can fail: each takes from a medic, through its network or
//! its disk, what one invariant needs. The product knows nothing of them.

use bytes::Bytes;
use http::{Method, Request};
use medic_core::model::Span;
use medic_core::policy::Policy;
use medic_http::{Response, TransportError};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// One way to be broken, and what it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Not,
    /// It sees no change of a set that it has disabled, so that a person's looks like its own. I2.
    FightsTheOperator,
    /// Its enables never arrive. I3.
    NeverEnables,
    /// Its journal keeps how a treatment began, and no step after it: it forgets what it must undo. I3.
    Forgetful,
    /// It sees no session of the manager, whatever there is. I4.
    BlindToSessions,
    /// It has no budget for a set, and no pause between two heals. I5.
    Spendthrift,
    /// It disables a set while it takes its last look, before the journal says that it will. I6.
    Hasty,
    /// The deletions of its own sessions never arrive. I7.
    LeavesSessions,
    /// An answer that is not JSON ends it. I8.
    Unwraps,
    /// It logs what it sends, when that fails. I9.
    Blabs,
}

/// Every one, and the invariant that must notice.
pub(crate) const ALL: [(Broken, &str); 9] = [
    (Broken::FightsTheOperator, "I2"),
    (Broken::NeverEnables, "I3"),
    (Broken::Forgetful, "I3"),
    (Broken::BlindToSessions, "I4"),
    (Broken::Spendthrift, "I5"),
    (Broken::Hasty, "I6"),
    (Broken::LeavesSessions, "I7"),
    (Broken::Unwraps, "I8"),
    (Broken::Blabs, "I9"),
];

impl Broken {
    /// Whether its disk only says that it keeps what is written.
    pub(crate) fn forgets(self, what: &'static str) -> bool {
        self == Self::Forgetful && what == "record a treatment"
    }

    /// The limits that it keeps.
    pub(crate) fn limits(self, policy: &mut Policy) {
        if self == Self::Spendthrift {
            (policy.set_budget, policy.breaker_after) = (1_000, 1_000);
            policy.backoff = vec![Span::secs(1)];
        }
    }

    /// A request that it never sends.
    pub(crate) fn swallows(self, request: &Request<Bytes>) -> Option<Result<Response, TransportError>> {
        let path = request.uri().path();
        let enables = request.method() == Method::PUT && request.body().windows(4).any(|word| word == b"true");
        match self {
            Self::NeverEnables if enables => Some(Err(super::weather::broken("the enable was lost"))),
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

    /// A request that it sends too early.
    pub(crate) fn hurries(self, request: &Request<Bytes>) -> Option<Request<Bytes>> {
        let last_look = request.method() == Method::GET && request.uri().path().contains("/scalesets/");
        (self == Self::Hasty && last_look).then(|| {
            let mut early = request.clone();
            *early.method_mut() = Method::PUT;
            *early.body_mut() = Bytes::from_static(b"{\"enabled\":false}");
            early
        })
    }

    /// What it makes of an answer.
    pub(crate) fn spoil(
        self,
        request: &Request<Bytes>,
        answer: Result<Response, TransportError>,
        dates: &Dates,
    ) -> Result<Response, TransportError> {
        let path = request.uri().path();
        match (self, answer) {
            (Self::BlindToSessions, Ok(response)) if path.contains("/metrics") => {
                let text = String::from_utf8_lossy(&response.body);
                let kept = text.lines().filter(|line| {
                    !["CreateMessageSession", "GetMessage", "RefreshMessageSession"].iter().any(|op| line.contains(op))
                });
                Ok(Response { body: Bytes::from(kept.collect::<Vec<_>>().join("\n") + "\n"), ..response })
            }
            (Self::FightsTheOperator, Ok(response)) if path.contains("/scalesets") => {
                Ok(Response { body: as_if_untouched(request, &response.body, dates), ..response })
            }
            (Self::Unwraps, Ok(response)) if path.contains("/scalesets") => {
                if serde_json::from_slice::<serde_json::Value>(&response.body).is_err() {
                    // Unwinds as a panic does, without its message on the test's output.
                    std::panic::resume_unwind(Box::new("called `Result::unwrap()` on an `Err` value"));
                }
                Ok(response)
            }
            (Self::Blabs, Err(error)) => {
                let token = request.headers().get(http::header::AUTHORIZATION).and_then(|token| token.to_str().ok());
                let body = String::from_utf8_lossy(request.body());
                tracing::warn!(%error.detail, token, %body, "a request failed");
                Err(error)
            }
            (_, answer) => answer,
        }
    }
}

/// The date that its disable gave a set, by the set.
pub(crate) type Dates = Mutex<BTreeMap<u64, serde_json::Value>>;

/// A disabled set is shown as last changed when it disabled it, whoever has changed it since.
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
