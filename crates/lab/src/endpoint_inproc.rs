//! The endpoints in process: a [`Transport`] that hands requests to a backend without sockets, under the clock of the
//! [`Hub`]. With a paused tokio runtime a simulated day takes milliseconds.
//!
//! Deliveries end in the errors that [`ReqwestTransport`](medic_http::ReqwestTransport) gives over real sockets: no
//! connection (`Connect`, not sent) when nothing listens, `Broken` (sent, effect unknown) when it ends early,
//! `Timeout` at the bound, `TooLarge` as soon as the length is known, `Redirect` for any redirect. There is no
//! connect time-out here, nor TLS.

use super::backend::{Backend, ServerId};
use super::hub::{Exchange, Hub};
use super::wire::{Answer, Delivery};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use medic_core::clock::Clock;
use medic_core::model::{FailureKind, Span};
use medic_http::reqwest_transport::{USER_AGENT, host_of};
use medic_http::{BodySink, Bounds, Response, Transport, TransportError, status};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The content of [`Delivery::Huge`], in pieces.
pub(super) const GARBAGE: &[u8] = &[b'x'; 16 * 1024];

/// Carries requests to simulated servers, by the host and port of their URLs.
pub struct InprocTransport<B> {
    hub: Arc<Hub<B>>,
    servers: BTreeMap<String, ServerId>,
}

impl<B> Clone for InprocTransport<B> {
    fn clone(&self) -> Self {
        Self { hub: Arc::clone(&self.hub), servers: self.servers.clone() }
    }
}

impl<B: Backend> InprocTransport<B> {
    /// A transport that reaches nothing yet.
    #[must_use]
    pub fn new(hub: &Arc<Hub<B>>) -> Self {
        Self { hub: Arc::clone(hub), servers: BTreeMap::new() }
    }

    /// Also reaches `server` at `place`: `host:port`, port 80 or 443 included.
    #[must_use]
    pub fn at(mut self, place: &str, server: ServerId) -> Self {
        self.servers.insert(place.to_owned(), server);
        self
    }

    async fn carry(
        &self,
        mut request: http::Request<Bytes>,
        bounds: Bounds,
        sink: Option<&mut dyn BodySink>,
    ) -> Result<Response, TransportError> {
        let place = host_of(request.uri());
        let refused = || failed(FailureKind::Connect, format!("no connection to {place}: connection refused"));
        let server = *self.servers.get(&place).ok_or_else(refused)?;
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let path: Uri = path.parse().map_err(|_| refused())?;
        *request.uri_mut() = path;
        request.headers_mut().entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        let mut up = self.hub.watch_server(server);
        let exchange = async {
            match self.hub.exchange(server, request).await {
                Exchange::Answered(answer) => self.deliver(&place, answer, bounds, sink).await,
                Exchange::Down => Err(refused()),
                Exchange::Cut => Err(broken(&place, "connection reset by peer")),
            }
        };
        tokio::select! {
            biased;
            done = exchange => done,
            () = closed(&mut up) => Err(broken(&place, "connection reset by peer")),
            () = self.hub.clock().sleep(bounds.total) => {
                Err(failed(FailureKind::Timeout, format!("no complete answer from {place} within {}", bounds.total)))
            }
        }
    }

    async fn deliver(
        &self,
        place: &str,
        answer: Answer,
        bounds: Bounds,
        sink: Option<&mut dyn BodySink>,
    ) -> Result<Response, TransportError> {
        let clock = self.hub.clock();
        let (head, body) = answer.response.into_parts();
        let length = body.len();
        let whole = match answer.delivery {
            Delivery::After(latency) => {
                wait(clock.as_ref(), latency).await;
                true
            }
            Delivery::Refused => {
                return Err(failed(FailureKind::Connect, format!("no connection to {place}: connection refused")));
            }
            Delivery::Reset => return Err(broken(place, "connection reset by peer")),
            // The hub never returns a held answer.
            Delivery::Never | Delivery::Hold(_) => std::future::pending().await,
            Delivery::Truncated(bytes) => bytes >= length,
            Delivery::Dripping(span) if length <= bounds.body => {
                wait(clock.as_ref(), span.times(length as u64)).await;
                true
            }
            Delivery::Dripping(_) => true,
            Delivery::Huge(bytes) => return huge(place, head, bytes, bounds, sink),
        };
        if length > bounds.body {
            return Err(too_large(place, bounds));
        }
        if !whole {
            return Err(broken(place, "end of file before message length reached"));
        }
        let mut response = Response { status: head.status, headers: head.headers, body };
        if let Some(goal) = status::redirect_goal(&response) {
            let detail = format!(
                "{place} redirects to {goal} (HTTP {}), which is never followed; configure the final address",
                response.status.as_u16()
            );
            return Err(failed(FailureKind::Redirect, detail));
        }
        if let Some(sink) = sink.filter(|_| head.status.is_success()) {
            sink.begin();
            sink.piece(&std::mem::take(&mut response.body));
        }
        Ok(response)
    }
}

#[async_trait]
impl<B: Backend> Transport for InprocTransport<B> {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError> {
        self.carry(request, bounds, None).await
    }

    async fn stream(
        &self,
        request: http::Request<Bytes>,
        bounds: Bounds,
        sink: &mut dyn BodySink,
    ) -> Result<Response, TransportError> {
        self.carry(request, bounds, Some(sink)).await
    }
}

/// A huge body, if the bound allows it.
fn huge(
    place: &str,
    head: http::response::Parts,
    bytes: u64,
    bounds: Bounds,
    sink: Option<&mut dyn BodySink>,
) -> Result<Response, TransportError> {
    let Some(mut left) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= bounds.body) else {
        return Err(too_large(place, bounds));
    };
    let mut kept = Vec::new();
    let mut sink = sink.filter(|_| head.status.is_success());
    if let Some(sink) = &mut sink {
        sink.begin();
    }
    while left > 0 {
        let piece = GARBAGE.get(..left.min(GARBAGE.len())).unwrap_or(GARBAGE);
        left = left.saturating_sub(piece.len());
        match &mut sink {
            Some(sink) => sink.piece(piece),
            None => kept.extend_from_slice(piece),
        }
    }
    Ok(Response { status: head.status, headers: head.headers, body: kept.into() })
}

/// Waits, except for zero: a clock may round up.
async fn wait(clock: &dyn Clock, span: Span) {
    if span > Span::ZERO {
        clock.sleep(span).await;
    }
}

/// Waits until the server stops listening.
async fn closed(up: &mut tokio::sync::watch::Receiver<bool>) {
    // The exchange notices a server that was down from the beginning.
    if !*up.borrow_and_update() || up.wait_for(|up| !up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn failed(kind: FailureKind, detail: String) -> TransportError {
    TransportError { kind, detail }
}

fn broken(place: &str, cause: &str) -> TransportError {
    failed(FailureKind::Broken, format!("the connection to {place} broke: {cause}"))
}

fn too_large(place: &str, bounds: Bounds) -> TransportError {
    let detail = format!("{place} answers with more than {} bytes; reading stopped there", bounds.body);
    failed(FailureKind::TooLarge, detail)
}
