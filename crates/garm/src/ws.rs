//! GARM's websockets as streams of text that reconnect automatically: its log and its change events
//! (`docs/reference/garm-api.md` §8).
//!
//! - One long-lived connection per stream, reconnected slowly: many short connections have crashed GARM (§8.1). It uses
//!   the login, TLS, path prefix and limits of every other request. A refused token is renewed once per attempt.
//! - Frames, messages, the queue (by count and by bytes) and silence are bounded; a ping breaks the silence.
//! - A reader that is too slow loses messages, which are counted. It never slows the connection, because GARM would then
//!   drop messages without counting.
//!
//! Edge cases: GARM closes at the token's expiry and at shutdown; a switched-off log streamer answers 400; a frame may
//! hold several lines. Lines sent while disconnected are lost; [`Health::connections`] shows the gap.

use super::api::GarmClient;
use super::events;
use super::refusal::{check_status, wants_new_token};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use medic_core::model::{FailureKind, Operation, RequestFailure, Span, Wall};
use medic_http::excerpt::one_line;
use medic_http::{ApiError, Duplex, Jitter, Response, Upgrade, Upgrader};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// The longest message that a connection survives.
const MESSAGE_BOUND: usize = 4 * 1024 * 1024;
/// The longest line kept; a longer one is dropped and counted.
pub const LINE_BOUND: usize = 256 * 1024;
/// Lines that may wait for the reader.
pub const QUEUE_LINES: usize = 4096;
/// Bytes that may wait for the reader.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Silence after which we ping. GARM itself pings every 54 s.
const QUIET: Span = Span::secs(30);
/// Silence after a ping that means a dead connection; also the time-out of a write.
const PONG_TIMEOUT: Span = Span::secs(20);
/// The first pause before a new attempt; it doubles.
const FIRST_PAUSE: Span = Span::secs(1);
const LONGEST_PAUSE: Span = Span::secs(60);
/// The pause while GARM has the stream switched off.
const DISABLED_PAUSE: Span = Span::mins(5);
/// A connection that lasted this long resets the pause.
const STABLE_AFTER: Span = Span::secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Every line of the manager's log, in its configured format and level.
    Logs,
    /// Changes of scale sets and instances ([`events::parse`] reads them).
    Events,
}

impl Channel {
    const fn path(self) -> &'static str {
        match self {
            Self::Logs => "/ws/logs",
            Self::Events => "/ws/events",
        }
    }

    const fn subscription(self) -> Option<&'static str> {
        match self {
            Self::Logs => None,
            Self::Events => Some(events::SUBSCRIPTION),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// When the current connection was made; `None` while disconnected.
    pub connected_since: Option<Wall>,
    /// Connections made since the start. Each one after the first follows a gap.
    pub connections: u64,
    /// Lines dropped: the reader was too slow, or the line too long.
    pub dropped: u64,
    /// Why the last connection ended or failed.
    pub failure: Option<RequestFailure>,
}

pub struct Feed {
    lines: mpsc::Receiver<String>,
    waiting: Arc<AtomicUsize>,
    health: watch::Receiver<Health>,
}

impl Feed {
    /// The next line, without its end; `None` once the [`Pump`] is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<String> {
        let line = self.lines.recv().await?;
        self.waiting.fetch_sub(line.len(), Ordering::AcqRel);
        Some(line)
    }

    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// To wait for a change of the health.
    pub fn watch(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

/// Keeps the connection; must be run.
pub struct Pump {
    garm: Arc<GarmClient>,
    upgrader: Arc<dyn Upgrader>,
    channel: Channel,
    jitter: Jitter,
    lines: mpsc::Sender<String>,
    waiting: Arc<AtomicUsize>,
    health: watch::Sender<Health>,
}

/// A stream of `channel`, connected through `upgrader`. Its jitter is the client's.
pub fn stream(garm: &Arc<GarmClient>, upgrader: Arc<dyn Upgrader>, channel: Channel) -> (Pump, Feed) {
    let (sender, receiver) = mpsc::channel(QUEUE_LINES);
    let (health, watched) = watch::channel(Health::default());
    let waiting = Arc::new(AtomicUsize::new(0));
    let feed = Feed { lines: receiver, waiting: Arc::clone(&waiting), health: watched };
    let jitter = garm.client().jitter();
    (Pump { garm: Arc::clone(garm), upgrader, channel, jitter, lines: sender, waiting, health }, feed)
}

impl Pump {
    /// Connects and reconnects until the [`Feed`] is dropped.
    pub async fn run(self) {
        tokio::select! {
            () = self.lines.closed() => {}
            () = self.reconnect() => {}
        }
    }

    async fn reconnect(&self) {
        let clock = Arc::clone(self.garm.client().clock());
        let mut failures: u32 = 0;
        loop {
            let began = clock.now().mono;
            let error = match self.connect().await {
                Ok(socket) => self.listen(socket).await,
                Err(error) => error,
            };
            if clock.now().mono.since(began) >= STABLE_AFTER {
                failures = 0;
            }
            let pause = self.pause(failures, &error);
            failures = failures.saturating_add(1);
            self.health.send_modify(|health| {
                health.connected_since = None;
                health.failure = Some(error.into());
            });
            clock.sleep(pause).await;
        }
    }

    /// Between half and the whole of a doubling span, and not before `Retry-After`.
    fn pause(&self, failures: u32, error: &ApiError) -> Span {
        let whole = match error.kind {
            FailureKind::NotEnabled => DISABLED_PAUSE,
            _ => FIRST_PAUSE.times(1 << failures.min(6)).min(LONGEST_PAUSE),
        };
        let half = Span(whole.0 / 2);
        let asked = error.retry_at.map_or(Span::ZERO, |at| at.since(self.garm.client().clock().now().wall));
        half.plus((self.jitter)(half).min(half)).max(asked)
    }

    async fn connect(&self) -> Result<WebSocketStream<Box<dyn Duplex>>, ApiError> {
        let token = self.garm.login_token(None).await?;
        let (mut key, mut answer) = self.dial(&token.value).await?;
        if let Upgrade::Answered(response) = &answer
            && wants_new_token(response)
        {
            let token = self.garm.login_token(Some(token.serial)).await?;
            (key, answer) = self.dial(&token.value).await?;
        }
        let stream = match answer {
            Upgrade::Switched { headers, stream } if accepts(&headers, &key) => stream,
            Upgrade::Switched { .. } => {
                return Err(self.error(FailureKind::Malformed, "the server did not switch to a websocket"));
            }
            Upgrade::Answered(response) => return Err(self.refused(&response)),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(64 * 1024)
            .max_message_size(Some(MESSAGE_BOUND))
            .max_frame_size(Some(MESSAGE_BOUND));
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        if let Some(subscription) = self.channel.subscription() {
            self.send(&mut socket, Message::text(subscription)).await?;
        }
        Ok(socket)
    }

    async fn dial(&self, authorization: &HeaderValue) -> Result<(String, Upgrade), ApiError> {
        let operation = Operation::Websocket;
        let key = generate_key();
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.garm.api_address(self.channel.path()))
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .header(header::AUTHORIZATION, authorization.clone())
            .body(Bytes::new())
            .map_err(|error| self.error(FailureKind::Connect, &format!("the address cannot be used: {error}")))?;
        let answer = self.garm.client().upgrade(operation, request, self.upgrader.as_ref()).await?;
        Ok((key, answer))
    }

    fn refused(&self, response: &Response) -> ApiError {
        let Err(mut error) = check_status(self.garm.client(), Operation::Websocket, response) else {
            return self.error(FailureKind::Malformed, "the server answered without switching to a websocket");
        };
        if error.detail.contains("log streamer is disabled") {
            error.kind = FailureKind::NotEnabled;
            error.detail.push_str("; set `enable_log_streamer = true` under [logging] in GARM's configuration");
        }
        error
    }

    /// Reads until the connection ends, and returns why it did.
    async fn listen(&self, mut socket: WebSocketStream<Box<dyn Duplex>>) -> ApiError {
        let clock = Arc::clone(self.garm.client().clock());
        self.health.send_modify(|health| {
            health.connected_since = Some(clock.now().wall);
            health.connections = health.connections.saturating_add(1);
            health.failure = None;
        });
        let mut pinged = false;
        loop {
            let frame = tokio::select! {
                frame = socket.next() => frame,
                () = clock.sleep(if pinged { PONG_TIMEOUT } else { QUIET }) => {
                    if pinged {
                        let words = format!("not a byte for {}, not even an answer to a ping", QUIET.plus(PONG_TIMEOUT));
                        return self.error(FailureKind::Timeout, &words);
                    }
                    pinged = true;
                    match self.send(&mut socket, Message::Ping(Bytes::new())).await {
                        Ok(()) => continue,
                        Err(error) => return error,
                    }
                }
            };
            pinged = false;
            match frame {
                Some(Ok(Message::Text(text))) => self.take(&text),
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map_or_else(String::new, |f| format!(" with code {}: {}", f.code, f.reason));
                    return self.error(FailureKind::Broken, &one_line(&format!("GARM closed the stream{why}")));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return self.broken(&error),
                None => return self.error(FailureKind::Broken, "the connection ended"),
            }
        }
    }

    async fn send(&self, socket: &mut WebSocketStream<Box<dyn Duplex>>, message: Message) -> Result<(), ApiError> {
        tokio::select! {
            sent = socket.send(message) => sent.map_err(|error| self.broken(&error)),
            () = self.garm.client().clock().sleep(PONG_TIMEOUT) => {
                Err(self.error(FailureKind::Timeout, "GARM does not read what was sent"))
            }
        }
    }

    fn take(&self, text: &str) {
        for line in text.lines().filter(|line| !line.is_empty()) {
            if !self.offer(line) {
                self.health.send_modify(|health| health.dropped = health.dropped.saturating_add(1));
            }
        }
    }

    /// Whether the line was queued.
    fn offer(&self, line: &str) -> bool {
        // Only this side adds, so the sum cannot pass the bound after the check.
        let waits = self.waiting.load(Ordering::Acquire);
        if line.len() > LINE_BOUND || waits.saturating_add(line.len()) > QUEUE_BYTES {
            return false;
        }
        let Ok(place) = self.lines.try_reserve() else { return false };
        self.waiting.fetch_add(line.len(), Ordering::AcqRel);
        place.send(line.to_owned());
        true
    }

    fn broken(&self, error: &WsError) -> ApiError {
        let kind = match error {
            WsError::Capacity(_) => FailureKind::TooLarge,
            WsError::Protocol(_) | WsError::Utf8(_) | WsError::AttackAttempt => FailureKind::Malformed,
            _ => FailureKind::Broken,
        };
        self.error(kind, &one_line(&error.to_string()))
    }

    fn error(&self, kind: FailureKind, detail: &str) -> ApiError {
        self.garm.client().error(Operation::Websocket, kind, detail).not_sent()
    }
}

/// Whether the server's answer is to this very handshake (RFC 6455 §4.1).
fn accepts(headers: &HeaderMap, key: &str) -> bool {
    let expected = derive_accept_key(key.as_bytes());
    let upgraded = headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgraded && headers.get(header::SEC_WEBSOCKET_ACCEPT).is_some_and(|v| v.as_bytes() == expected.as_bytes())
}
