//! The HTTP server: read-only, bounded, and independent of every manager.
//!
//! | route | answers |
//! |---|---|
//! | `/metrics` | the Prometheus exposition |
//! | `/healthz` | 200 while the medic's own loops turn; never depends on a manager or on GitHub |
//! | `/readyz` | 200 once every manager was looked at once |
//! | `/api/v1/status` | the whole picture as JSON ([`crate::model::status::Status`]) |
//! | `/` | the same as a page |

use super::metrics::Metrics;
use super::page;
use crate::model::status::Status;
use crate::model::{Span, Wall};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A client has this long to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a connection may live, so that a slow reader cannot hold a place for ever.
const CONNECTION_LIFE: Duration = Duration::from_mins(1);
/// The longest request head.
const HEAD_BYTES: usize = 16 * 1024;

/// What the server shows; the loop writes it, requests read it.
#[derive(Default)]
pub struct Board {
    inner: RwLock<BoardInner>,
}

#[derive(Default)]
struct BoardInner {
    status: Option<Arc<Status>>,
    beat: Option<Wall>,
    patience: Span,
}

impl Board {
    /// Replaces the picture. `patience` is how long the next one may take before the medic counts as stalled.
    pub fn publish(&self, status: Arc<Status>, at: Wall, patience: Span) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = BoardInner { status: Some(status), beat: Some(at), patience };
    }

    /// The latest picture.
    #[must_use]
    pub fn status(&self) -> Option<Arc<Status>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).status.clone()
    }

    fn alive(&self, now: Wall) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.beat.is_none_or(|beat| now.since(beat) <= inner.patience)
    }
}

/// Everything a request may look at.
pub struct Shown {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The picture.
    pub board: Arc<Board>,
    /// The clock.
    pub clock: Arc<dyn crate::clock::Clock>,
}

/// Serves until `shutdown` resolves, then lets open connections finish for a moment.
pub async fn serve(listener: TcpListener, shown: Arc<Shown>, shutdown: impl Future<Output = ()> + Send) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the status server could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let shown = Arc::clone(&shown);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &shown);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, shown: &Shown) -> Response<Full<Bytes>> {
    let head_only = request.method() == Method::HEAD;
    if !head_only && request.method() != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let mut answer = route(request.uri().path(), shown);
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
        "/healthz" => {
            if shown.board.alive(shown.clock.now().wall) {
                text(StatusCode::OK, "ok\n")
            } else {
                text(StatusCode::SERVICE_UNAVAILABLE, "the watch loop has stalled\n")
            }
        }
        "/readyz" => match shown.board.status() {
            Some(_) => text(StatusCode::OK, "ready\n"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the first pass is not done\n"),
        },
        "/api/v1/status" => match shown.board.status() {
            Some(status) => match serde_json::to_vec(status.as_ref()) {
                Ok(body) => reply(StatusCode::OK, "application/json", body),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the status could not be encoded\n"),
            },
            None => reply(
                StatusCode::SERVICE_UNAVAILABLE,
                "application/json",
                br#"{"error":"the first pass is not done"}"#.to_vec(),
            ),
        },
        "/" => {
            let mut answer = reply(
                StatusCode::OK,
                "text/html; charset=utf-8",
                page::render(shown.board.status().as_deref(), shown.clock.now().wall).into_bytes(),
            );
            answer.headers_mut().insert(
                header::CONTENT_SECURITY_POLICY,
                header::HeaderValue::from_static(
                    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
                ),
            );
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "no such page; try / or /metrics\n"),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn reply(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}
