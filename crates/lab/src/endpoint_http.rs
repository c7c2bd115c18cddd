//! The endpoints over real sockets: one listener on loopback per simulated server.
//!
//! When a server is down its listener and its connections are closed, as when a process is killed. When it is up again
//! the same port is bound again. Each [`Delivery`](super::wire::Delivery) happens on the wire, with one exception: an
//! accepted connection cannot be refused any more, so a single refused request is reset instead.
//!
//! A client that disconnects during a long poll is noticed, because hyper then drops the future that answers it. Bodies
//! are streamed: a huge one costs no memory. Request bodies and the number of connections are limited.

use super::backend::{Backend, ServerId};
use super::endpoint_body::{self, Reply};
use super::endpoint_ws;
use super::hub::{Exchange, Hub};
use super::wire::{Answer, Delivery};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use medic_core::clock::Clock;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The longest request body taken.
const REQUEST_BOUND: usize = 4 * 1024 * 1024;
/// Connections of one server; more are closed at once.
const CONNECTIONS: usize = 4096;
/// Between attempts to bind a port that another process has taken.
const REBIND_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Ports that are bound before anything is served: a simulator needs its own address.
#[derive(Debug)]
pub struct Sockets(BTreeMap<ServerId, (SocketAddr, TcpListener)>);

impl Sockets {
    /// Binds a free port of 127.0.0.1 for each. Needs a tokio runtime.
    pub fn on_loopback(servers: &[ServerId]) -> io::Result<Self> {
        let mut bound = BTreeMap::new();
        for server in servers {
            let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            bound.insert(*server, (listener.local_addr()?, listener));
        }
        Ok(Self(bound))
    }

    #[must_use]
    pub fn address(&self, server: ServerId) -> Option<SocketAddr> {
        self.0.get(&server).map(|(address, _)| *address)
    }

    /// `http://address:port` of a server.
    #[must_use]
    pub fn url(&self, server: ServerId) -> Option<String> {
        self.address(server).map(|address| format!("http://{address}"))
    }
}

/// What went over all connections of a server, heads and websockets included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests whose head was received.
    pub requests: u64,
    /// Bytes read from clients.
    pub received: u64,
    /// Bytes written to clients.
    pub sent: u64,
}

#[derive(Debug, Default)]
struct Meter {
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Meter {
    fn add(to: &AtomicU64, amount: usize) {
        to.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Dropping them closes every listener and connection.
#[derive(Debug)]
pub struct HttpEndpoints {
    meters: BTreeMap<ServerId, Arc<Meter>>,
    tasks: Vec<JoinHandle<()>>,
}

impl HttpEndpoints {
    /// Needs a tokio runtime, and a [`Pump`](super::hub::Pump) for what happens without requests.
    #[must_use]
    pub fn serve<B: Backend>(hub: &Arc<Hub<B>>, sockets: Sockets) -> Self {
        let mut endpoints = Self { meters: BTreeMap::new(), tasks: Vec::new() };
        for (server, (address, listener)) in sockets.0 {
            let meter = Arc::<Meter>::default();
            endpoints.meters.insert(server, Arc::clone(&meter));
            endpoints.tasks.push(tokio::spawn(keep_open(Arc::clone(hub), server, address, listener, meter)));
        }
        endpoints
    }

    #[must_use]
    pub fn traffic(&self, server: ServerId) -> Traffic {
        let Some(meter) = self.meters.get(&server) else { return Traffic::default() };
        let [requests, received, sent] =
            [&meter.requests, &meter.received, &meter.sent].map(|count| count.load(Ordering::Relaxed));
        Traffic { requests, received, sent }
    }
}

impl Drop for HttpEndpoints {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// With `SO_REUSEADDR`: a port whose connections still linger can be bound again at once.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Opens and closes the listener of one server as it starts and stops.
async fn keep_open<B: Backend>(
    hub: Arc<Hub<B>>,
    server: ServerId,
    address: SocketAddr,
    first: TcpListener,
    meter: Arc<Meter>,
) {
    let mut up = hub.watch_server(server);
    let mut spare = Some(first);
    loop {
        if !*up.borrow_and_update() {
            drop(spare.take());
        }
        if up.wait_for(|up| *up).await.is_err() {
            return;
        }
        let listener = match spare.take() {
            Some(listener) => listener,
            None => match listen(address) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!(%server, %address, %error, "the port cannot be bound again yet");
                    tokio::time::sleep(REBIND_PAUSE).await;
                    continue;
                }
            },
        };
        tokio::select! {
            () = accept(&hub, server, listener, &meter) => {}
            gone = up.wait_for(|up| !up) => if gone.is_err() { return },
        }
    }
}

/// Accepts until the future is dropped, and with it every connection.
async fn accept<B: Backend>(hub: &Arc<Hub<B>>, server: ServerId, listener: TcpListener, meter: &Arc<Meter>) {
    let (_open, alive) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                let wire = Wire { stream, reset: Arc::default(), meter: Arc::clone(meter) };
                connections.spawn(connection(Arc::clone(hub), server, wire, alive.clone()));
            }
            Ok(_) => tracing::warn!(%server, "more connections than a simulated server takes; one is closed"),
            Err(error) => {
                tracing::debug!(%server, %error, "a connection could not be accepted");
                tokio::time::sleep(REBIND_PAUSE).await;
            }
        }
    }
}

async fn connection<B: Backend>(hub: Arc<Hub<B>>, server: ServerId, wire: Wire, alive: watch::Receiver<()>) {
    let _ = wire.stream.set_nodelay(true);
    let (reset, meter) = (Arc::clone(&wire.reset), Arc::clone(&wire.meter));
    let wire = TokioIo::new(wire);
    let service = service_fn(move |request| {
        Meter::add(&meter.requests, 1);
        let (hub, reset, alive) = (Arc::clone(&hub), Arc::clone(&reset), alive.clone());
        async move {
            let answered = answer(&hub, server, request, alive).await;
            if matches!(answered, Err(Broken::Reset)) {
                reset.store(true, Ordering::Release);
            }
            answered
        }
    });
    // An error is a client that disconnected, or a connection broken on purpose.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(wire, service).with_upgrades().await;
}

/// Why a connection ends without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Broken {
    #[error("reset on purpose")]
    Reset,
    /// Closed, as by a killed process.
    #[error("closed on purpose")]
    Closed,
}

async fn answer<B: Backend>(
    hub: &Arc<Hub<B>>,
    server: ServerId,
    mut request: hyper::Request<Incoming>,
    alive: watch::Receiver<()>,
) -> Result<hyper::Response<Reply>, Broken> {
    let upgrade = endpoint_ws::Upgrade::of(hub, server, &mut request);
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_BOUND).collect().await else {
        return Ok(endpoint_body::whole(Answer::empty(413).response));
    };
    let request = origin_form(http::Request::from_parts(head, body.to_bytes()));
    match hub.exchange(server, request).await {
        Exchange::Answered(answer) => match upgrade {
            Some(upgrade) if endpoint_ws::Upgrade::is_granted(&answer) => Ok(upgrade.accept(alive)),
            Some(_) | None => deliver(hub.clock(), answer).await,
        },
        Exchange::Down | Exchange::Cut => Err(Broken::Closed),
    }
}

async fn deliver(clock: &Arc<dyn Clock>, answer: Answer) -> Result<hyper::Response<Reply>, Broken> {
    match answer.delivery {
        Delivery::After(latency) => {
            if latency > medic_core::model::Span::ZERO {
                clock.sleep(latency).await;
            }
            Ok(endpoint_body::whole(answer.response))
        }
        Delivery::Refused | Delivery::Reset => Err(Broken::Reset),
        // The hub never returns a held answer.
        Delivery::Never | Delivery::Hold(_) => std::future::pending().await,
        Delivery::Truncated(bytes) => Ok(endpoint_body::truncated(answer.response, bytes)),
        Delivery::Dripping(span) => Ok(endpoint_body::dripping(answer.response, Arc::clone(clock), span)),
        Delivery::Huge(bytes) => Ok(endpoint_body::huge(answer.response, bytes)),
    }
}

/// Path and query only, as the simulators expect it.
fn origin_form(mut request: http::Request<Bytes>) -> http::Request<Bytes> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    request
}

/// A socket that can end with a reset, and whose bytes are counted.
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
    meter: Arc<Meter>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) {
            // If this fails, the connection is closed normally.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        Meter::add(&self.meter.received, buf.filled().len().saturating_sub(before));
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            Meter::add(&self.meter.sent, bytes);
        }
        written
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
