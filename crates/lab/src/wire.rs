//! What crosses a simulated wire: a request, and an answer together with the way it is delivered. The pure
//! simulators map (request, time) → [`Answer`]; each endpoint delivers it, in virtual or in real time.

use bytes::Bytes;
use medic_core::model::{Span, Wall};

/// A request as a simulator sees it: path and query in the URI, host left out.
pub type Request = http::Request<Bytes>;

/// Put into a request's extensions to say, of a request answered with [`Delivery::Hold`] before, that its client has
/// disconnected: the long poll is over, and the answer goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HungUp;

/// Put into a request's extensions to distinguish polls of one session: a client may open a new poll before the server
/// has seen the end of the old one (`docs/reference/actions-service.md` §9 point 7). A request that is asked again
/// carries the same; one without it counts as number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PollId(pub u64);

/// How an answer reaches its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Whole, after this latency.
    After(Span),
    /// The connection is refused: nothing listens.
    Refused,
    /// The connection is reset after the request was read (and after any effect it had).
    Reset,
    Never,
    /// Head and this many bytes of the body, then the connection ends.
    Truncated(usize),
    /// One byte of the body per this span.
    Dripping(Span),
    /// A body of this many bytes of garbage instead.
    Huge(u64),
    /// A long poll without an answer yet. The client waits until this date, or until the simulator's state changes,
    /// and then asks again; at the date it gets the empty answer.
    Hold(Wall),
}

#[derive(Debug, Clone)]
pub struct Answer {
    /// Status, headers and body.
    pub response: http::Response<Bytes>,
    /// How it is delivered.
    pub delivery: Delivery,
}

impl Answer {
    /// A JSON answer, delivered at once.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::raw(status, "application/json", body.to_string().into_bytes())
    }

    /// An answer with any body, delivered at once; without a content type if that is empty.
    #[must_use]
    pub fn raw(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let mut response = http::Response::new(Bytes::from(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        if let (false, Ok(value)) = (content_type.is_empty(), http::HeaderValue::from_str(content_type)) {
            response.headers_mut().insert(http::header::CONTENT_TYPE, value);
        }
        Self { response, delivery: Delivery::After(Span::ZERO) }
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::raw(status, "", Vec::new())
    }

    /// Delivered in another way, unless it is held.
    #[must_use]
    pub(crate) fn instead(self, delivery: Delivery) -> Self {
        if matches!(self.delivery, Delivery::Hold(_)) { self } else { self.delivered(delivery) }
    }

    #[must_use]
    pub fn delivered(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }
}
