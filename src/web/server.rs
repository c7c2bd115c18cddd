//! The HTTP server: read-only, bounded, and independent of every manager.
//!
//! | route | answers |
//! |---|---|
//! | `/metrics` | the Prometheus exposition |
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 after the first sweep of any manager, while sweeps go on; no manager or GitHub need answer |
//! | `/api/v1/status` | the status document ([`crate::status::Status`]) |
//! | `/api/v1/status.schema.json` | the JSON schema of that document |
//! | `/` | the same as a page |
//!
//! GET and HEAD only; of a request only its head is read. Connections, heads, addresses and the age of a connection are
//! bounded. When all connections are in use, a new one replaces the oldest, so slow readers block nobody. An old
//! connection ends after its present answer, so a scrape is not cut off. No answer may be cached or sniffed.

use super::page;
use crate::metrics::Metrics;
use crate::status::{self, Status};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use medic_core::model::{Span, Wall};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Connections served at once; one more replaces the oldest.
pub const MAX_CONNECTIONS: usize = 64;
/// A client has this long to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a connection may last.
const CONNECTION_LIFE: Duration = Duration::from_mins(1);
/// When a connection has to end, its present answer has this long.
const LAST_ANSWER: Duration = Duration::from_secs(2);
/// The longest request head; a longer one gets 431.
const HEAD_BYTES: usize = 16 * 1024;
/// The longest path with query; a longer one gets 414.
const URI_BYTES: usize = 2048;

/// The latest status; the service writes it, requests read it.
#[derive(Default)]
pub struct Board {
    inner: RwLock<BoardInner>,
}

#[derive(Default)]
struct BoardInner {
    status: Option<Arc<Status>>,
    updated: Option<Wall>,
    stalled_after: Span,
}

impl Board {
    /// Replaces the status. Without another one within `stalled_after`, the medic counts as stalled.
    pub fn publish(&self, status: Arc<Status>, at: Wall, stalled_after: Span) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = BoardInner { status: Some(status), updated: Some(at), stalled_after };
    }

    pub fn status(&self) -> Option<Arc<Status>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    /// Whether any manager was swept and sweeps go on; else why not.
    fn ready(&self, now: Wall) -> Result<(), &'static str> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        match inner.updated {
            None => Err("the first sweep has not ended\n"),
            Some(at) if now.since(at) > inner.stalled_after => Err("sweeps have stalled\n"),
            Some(_) => Ok(()),
        }
    }
}

pub struct Shown {
    pub metrics: Arc<Metrics>,
    pub board: Arc<Board>,
    pub clock: Arc<dyn medic_core::clock::Clock>,
}

/// Serves until `shutdown` resolves; then answers have a moment to finish.
pub async fn serve(listener: TcpListener, shown: Arc<Shown>, shutdown: impl Future<Output = ()> + Send) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let (shown, stopped) = (Arc::clone(&shown), stopped.clone());
                open.push_back(connections.spawn(connection(stream, shown, stopped)));
            }
            Err(error) => {
                tracing::warn!(%error, "the status server could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let _ = stop.send(true);
    let _ = tokio::time::timeout(LAST_ANSWER, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(stream: TcpStream, shown: Arc<Shown>, mut stopped: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &shown);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(CONNECTION_LIFE) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
}

fn answer(request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
    let head_only = request.method() == Method::HEAD;
    if !head_only && request.method() != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let uri = request.uri();
    let mut answer = if uri.path_and_query().map_or(0, |path| path.as_str().len()) > URI_BYTES {
        text(StatusCode::URI_TOO_LONG, "the address is too long\n")
    } else {
        route(uri.path(), shown)
    };
    if head_only {
        let length = hyper::body::Body::size_hint(answer.body()).lower();
        answer.headers_mut().insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
        *answer.body_mut() = Full::default();
    }
    answer
}

fn route(path: &str, shown: &Shown) -> Response<Full<Bytes>> {
    match path {
        "/metrics" => match shown.metrics.text() {
            Ok(body) => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be encoded\n"),
        },
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match shown.board.ready(shown.clock.now().wall) {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/api/v1/status.schema.json" => reply(StatusCode::OK, "application/schema+json", status::schema()),
        "/api/v1/status" => match shown.board.status() {
            Some(status) => match serde_json::to_vec(status.as_ref()) {
                Ok(body) => reply(StatusCode::OK, "application/json", body),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the status could not be encoded\n"),
            },
            None => reply(
                StatusCode::SERVICE_UNAVAILABLE,
                "application/json",
                r#"{"error":"the first sweep has not ended"}"#,
            ),
        },
        "/" => {
            let page = page::render(shown.board.status().as_deref(), shown.clock.now().wall);
            let mut answer = reply(StatusCode::OK, "text/html; charset=utf-8", page);
            answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page::security_policy());
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "no such page; try / or /metrics\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, header::HeaderValue::from_static("no-referrer"));
    response
}
