//! The websockets of a simulated manager: `/api/v1/ws/logs` (and `/api/v1/ws`) and `/api/v1/ws/events`
//! (`docs/reference/garm-api.md` §8).
//!
//! The simulator answers the upgrade request like any other; 101 or any 2xx accepts it. Logs are sent at once, events
//! only after the client has sent its options; every event is sent, whatever they ask for. A reader that is too slow is
//! dropped: queue and write time are limited. The stream ends with its server.

use super::backend::{Backend, ServerId};
use super::endpoint_body::{self, Reply};
use super::hub::Hub;
use super::wire::Answer;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The longest time one frame may take to be written (`docs/reference/garm-api.md` §8).
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to become a websocket, before it is granted.
pub(super) struct Upgrade {
    accept: HeaderValue,
    socket: OnUpgrade,
    feed: broadcast::Receiver<Bytes>,
    begins: Begins,
}

/// When a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    AtOnce,
    AfterOptions,
}

impl Upgrade {
    /// The upgrade that a request asks for, if it does, of a path that has one. The subscription begins here, so that
    /// nothing is lost after the answer.
    pub(super) fn of<B: Backend>(
        hub: &Arc<Hub<B>>,
        server: ServerId,
        request: &mut hyper::Request<Incoming>,
    ) -> Option<Self> {
        let asked = request.headers().get(UPGRADE)?.to_str().ok()?.eq_ignore_ascii_case("websocket");
        if !asked || *request.method() != Method::GET || !matches!(server, ServerId::Manager(_)) {
            return None;
        }
        let key = request.headers().get(SEC_WEBSOCKET_KEY)?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
        let (feed, begins) = match request.uri().path().trim_end_matches('/') {
            "/api/v1/ws" | "/api/v1/ws/logs" => (hub.log_lines(server), Begins::AtOnce),
            "/api/v1/ws/events" => (hub.events(server), Begins::AfterOptions),
            _ => return None,
        };
        Some(Self { accept, socket: hyper::upgrade::on(request), feed, begins })
    }

    pub(super) fn is_granted(answer: &Answer) -> bool {
        let status = answer.response.status();
        status == StatusCode::SWITCHING_PROTOCOLS || status.is_success()
    }

    /// Answers 101 and streams, until `alive` ends.
    pub(super) fn accept(self, mut alive: watch::Receiver<()>) -> hyper::Response<Reply> {
        let (socket, feed, begins) = (self.socket, self.feed, self.begins);
        tokio::spawn(async move {
            let streaming = async {
                if let Ok(socket) = socket.await {
                    stream(socket, feed, begins).await;
                }
            };
            tokio::select! {
                () = streaming => {}
                _ = alive.changed() => {}
            }
        });
        let mut response = http::Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        endpoint_body::whole(response)
    }
}

async fn stream(socket: Upgraded, mut feed: broadcast::Receiver<Bytes>, begins: Begins) {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(socket), Role::Server, None).await;
    let (mut out, mut from) = socket.split();
    let mut flows = begins == Begins::AtOnce;
    loop {
        let line = tokio::select! {
            line = feed.recv(), if flows => line,
            said = from.next() => match said {
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    if !flows {
                        // Events from before the options are lost.
                        feed = feed.resubscribe();
                        flows = true;
                    }
                    continue;
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        };
        // Too far behind, or the simulation is over.
        let Ok(line) = line else { return };
        let text = String::from_utf8_lossy(&line).into_owned();
        let sent = tokio::time::timeout(WRITE_TIMEOUT, out.send(Message::text(text))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
