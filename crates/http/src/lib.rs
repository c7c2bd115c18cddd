//! The shared HTTP client: time-outs, body bounds, `Retry-After`, politeness, retries of reads only, and typed
//! errors that say whether a request was sent. Adapters speak [`http::Request`] and get [`Response`]; what carries
//! them is a [`Transport`]: real sockets in production, the lab's simulators in process under virtual time.
//!
//! - [`client`]: attempts, back-off, holding back; the only thing adapters call.
//! - [`known`]: secrets taken out of what a server repeats.
//! - [`list`]: JSON lists of bounded length.
//! - [`limits`]: the token bucket, `Retry-After`, `X-RateLimit-*`.
//! - [`status`]: statuses as typed errors, with a safe excerpt of the body ([`excerpt`]).
//! - [`reqwest_transport`]: real sockets; large bodies share one account of memory (`room`).
//! - [`file`]: bounded reads of files that may hang.
//! - [`secret`]: secrets, which are never shown, and the files that hold them.

pub mod client;
pub mod excerpt;
pub mod file;
pub mod limits;
pub mod list;
mod memory_limit;
pub mod redact;
pub mod reqwest_transport;
pub mod secret;
pub mod status;

pub use client::{Client, Jitter};
pub use limits::{Allowance, Politeness, RateLimit};
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
    /// Its body, never longer than the bound that was asked for.
    pub body: Bytes,
}

/// Why a transport brought no complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// `Connect`, `Tls`, `Timeout`, `Broken`, `TooLarge`, `Redirect` or `Malformed`.
    pub kind: FailureKind,
    /// In words, without the URL's credentials or any header.
    pub detail: String,
}

/// Bounds of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From sending to the end of the body.
    pub total: Span,
    /// The longest body read, in bytes, after decompression.
    pub body: usize,
}

/// Carries one request and brings one answer. Never retries, never follows redirects.
#[async_trait]
pub trait Transport: Send + Sync {
    /// One exchange within `bounds`.
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError>;

    /// As [`Self::send`], with the body of a 2xx answer handed to `sink` in pieces and not kept.
    async fn stream(
        &self,
        request: http::Request<Bytes>,
        bounds: Bounds,
        sink: &mut dyn BodySink,
    ) -> Result<Response, TransportError> {
        let mut response = self.send(request, bounds).await?;
        sink.begin();
        if response.status.is_success() {
            sink.piece(&std::mem::take(&mut response.body));
        }
        Ok(response)
    }
}

/// A two-way stream of bytes.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The answer to a request to leave HTTP behind.
pub enum Upgrade {
    /// 101: the connection is the new protocol's.
    Switched { headers: http::HeaderMap, stream: Box<dyn Duplex> },
    /// The server answered as to any other request.
    Answered(Response),
}

/// Carries a request to switch protocols, on the same terms as a [`Transport`]: same TLS, same proxy, no retry.
#[async_trait]
pub trait Upgrader: Send + Sync {
    /// One attempt; `bounds` hold until the server has switched, not for what comes then.
    async fn upgrade(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Upgrade, TransportError>;
}

/// Takes a body too large to keep.
pub trait BodySink: Send {
    /// A body begins; whatever came before belongs to a failed attempt and is to be forgotten.
    fn begin(&mut self);
    /// The next piece, of any size.
    fn piece(&mut self, piece: &[u8]);
}

/// Told about every exchange, for `probe_duration_seconds` and `probe_failures_total`.
pub trait Recorder: Send + Sync {
    /// One exchange ended. `failure` is the class of a missing or refusing answer (any status but 2xx); a request
    /// that was held back here counts too, with the time it waited.
    fn exchange(&self, target: Target, operation: Operation, took: Span, failure: Option<FailureKind>);
}

/// A recorder that forgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecorder;

impl Recorder for NoRecorder {
    fn exchange(&self, _: Target, _: Operation, _: Span, _: Option<FailureKind>) {}
}
