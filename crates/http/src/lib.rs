//! The HTTP client that the adapters share. Adapters send [`http::Request`] and get [`Response`]; a [`Transport`]
//! carries them: real sockets in production, the lab's simulators in process under virtual time.
//!
//! - [`client`]: attempts, back-off, rate limits; what adapters call.
//! - [`cached`]: a value fetched once for all callers; [`jwt`]: a token's expiry.
//! - [`redact`]: secrets removed from what a server repeats.
//! - [`list`]: JSON lists of bounded length.
//! - [`limits`]: the token bucket, `Retry-After`, `X-RateLimit-*`.
//! - [`status`]: statuses as typed errors, with a safe excerpt of the body ([`excerpt`]).
//! - [`reqwest_transport`]: real sockets; large bodies share one `memory_limit`.
//! - [`file`]: bounded reads of files that may hang.
//! - [`secret`]: secrets, which are never shown, and the files that hold them.

pub mod cached;
pub mod client;
pub mod excerpt;
pub mod file;
pub mod jwt;
pub mod limits;
pub mod list;
mod memory_limit;
pub mod redact;
pub mod reqwest_transport;
pub mod secret;
pub mod status;

pub use client::{Client, Jitter};
pub use limits::{Allowance, Rate, RateLimit};
pub use medic_core::model::failure::{ApiError, Effect};
pub use reqwest_transport::{ReqwestTransport, TransportOptions};
pub use secret::{Secret, SecretFile};

use async_trait::async_trait;
use bytes::Bytes;
use medic_core::model::{FailureKind, Operation, Span, Target};
use tokio::io::{AsyncRead, AsyncWrite};

/// A complete, bounded answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: http::StatusCode,
    pub headers: http::HeaderMap,
    /// Never longer than the bound of the exchange.
    pub body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// `Connect`, `Tls`, `Timeout`, `Broken`, `TooLarge`, `Redirect` or `Malformed`.
    pub kind: FailureKind,
    /// Without the URL's credentials or any header.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From sending to the end of the body.
    pub total: Span,
    /// The longest body read, in bytes, after decompression.
    pub body: usize,
}

pub type Answer = Result<Response, TransportError>;

/// Sends one request. Never retries, never follows redirects.
#[async_trait]
pub trait Transport: Send + Sync {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Answer;

    /// As [`Self::send`], with the body of a 2xx answer handed to `sink` in pieces and not kept.
    async fn stream(&self, request: http::Request<Bytes>, bounds: Bounds, sink: &mut dyn BodySink) -> Answer {
        let mut response = self.send(request, bounds).await?;
        sink.begin();
        if response.status.is_success() {
            sink.piece(&std::mem::take(&mut response.body));
        }
        Ok(response)
    }
}

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub enum Upgrade {
    /// 101: the connection belongs to the new protocol.
    Switched { headers: http::HeaderMap, stream: Box<dyn Duplex> },
    /// The server answered as to any other request.
    Answered(Response),
}

/// Sends a request to switch protocols, under the rules of a [`Transport`]: same TLS, same proxy, no retry.
#[async_trait]
pub trait Upgrader: Send + Sync {
    /// One attempt; `bounds` hold until the server has switched.
    async fn upgrade(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Upgrade, TransportError>;
}

/// Takes a body too large to keep.
pub trait BodySink: Send {
    /// A body begins; earlier pieces belong to a failed attempt.
    fn begin(&mut self);
    fn piece(&mut self, piece: &[u8]);
}

/// Gets every exchange, for the request metrics.
pub trait Recorder: Send + Sync {
    /// One exchange ended. `failure` is the class of a missing answer or of any status but 2xx. A request that our own
    /// limits blocked counts too, with the time it waited.
    fn exchange(&self, target: Target, operation: Operation, took: Span, failure: Option<FailureKind>);
}

#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn exchange(&self, _: Target, _: Operation, _: Span, _: Option<FailureKind>) {}
}
