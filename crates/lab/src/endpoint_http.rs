//! The door over real sockets: one listener on loopback per simulated server, for the medic's real transport, for a
//! browser, and for a real GARM.
//!
//! When a server is down its listener is closed, and its connections with it, as when a process dies; when it is up
//! again the same port is bound again. Each [`Delivery`](super::wire::Delivery) is played out on the wire, with one
//! exception: a connection that was accepted cannot be refused any more, so a single refused request is reset
//! instead. A server that is down refuses for real.
//!
//! An asker that goes away during a long poll is noticed, because hyper then drops the future that answers it. Bodies
//! are streamed: a huge one costs no memory. A request body has a bound, and so has the number of connections.

use super::backend::{Backend, DoorId};
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
/// Between attempts to bind a port again that somebody else has taken meanwhile.
const REBIND_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Ports that are ours before anything is served, so that a simulator can be told its own address.
#[derive(Debug)]
pub struct Sockets(BTreeMap<DoorId, (SocketAddr, TcpListener)>);

impl Sockets {
    /// Binds each address; port 0 takes any free one. Needs a tokio runtime.
    pub fn reserve(wanted: &[(DoorId, SocketAddr)]) -> io::Result<Self> {
        let mut bound = BTreeMap::new();
        for (door, address) in wanted {
            let listener = listen(*address)?;
            bound.insert(*door, (listener.local_addr()?, listener));
        }
        Ok(Self(bound))
    }

    /// Binds a free port of 127.0.0.1 for each.
    pub fn on_loopback(doors: &[DoorId]) -> io::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::reserve(&doors.iter().map(|door| (*door, any)).collect::<Vec<_>>())
    }

    /// Where a server will be reached.
    #[must_use]
    pub fn address(&self, door: DoorId) -> Option<SocketAddr> {
        self.0.get(&door).map(|(address, _)| *address)
    }

    /// `http://address:port` of a server.
    #[must_use]
    pub fn url(&self, door: DoorId) -> Option<String> {
        self.address(door).map(|address| format!("http://{address}"))
    }
}

/// What went over all connections of a door so far, head lines and websockets included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests whose head has come.
    pub requests: u64,
    /// Bytes read from those who ask.
    pub received: u64,
    /// Bytes written to them.
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

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            Self::add(&self.sent, bytes);
        }
        written
    }
}

/// Served doors; dropping them closes every listener and connection.
#[derive(Debug)]
pub struct HttpDoors {
    addresses: BTreeMap<DoorId, SocketAddr>,
    meters: BTreeMap<DoorId, Arc<Meter>>,
    tasks: Vec<JoinHandle<()>>,
}

impl HttpDoors {
    /// Serves a hub's servers at these sockets. Needs a tokio runtime, and a [`Pump`](super::hub::Pump) besides for
    /// whatever is to happen without requests.
    #[must_use]
    pub fn serve<B: Backend>(hub: &Arc<Hub<B>>, sockets: Sockets) -> Self {
        let mut doors = Self { addresses: BTreeMap::new(), meters: BTreeMap::new(), tasks: Vec::new() };
        for (door, (address, listener)) in sockets.0 {
            let meter = Arc::<Meter>::default();
            doors.addresses.insert(door, address);
            doors.meters.insert(door, Arc::clone(&meter));
            doors.tasks.push(tokio::spawn(keep_open(Arc::clone(hub), door, address, listener, meter)));
        }
        doors
    }

    /// Reserves free ports of 127.0.0.1 and serves there.
    pub fn bind<B: Backend>(hub: &Arc<Hub<B>>, doors: &[DoorId]) -> io::Result<Self> {
        Ok(Self::serve(hub, Sockets::on_loopback(doors)?))
    }

    /// Where a server is reached.
    #[must_use]
    pub fn address(&self, door: DoorId) -> Option<SocketAddr> {
        self.addresses.get(&door).copied()
    }

    /// What went through a door so far; nothing through one that is not served here.
    #[must_use]
    pub fn traffic(&self, door: DoorId) -> Traffic {
        let Some(meter) = self.meters.get(&door) else { return Traffic::default() };
        let [requests, received, sent] =
            [&meter.requests, &meter.received, &meter.sent].map(|count| count.load(Ordering::Relaxed));
        Traffic { requests, received, sent }
    }
}

impl Drop for HttpDoors {
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

/// Opens and closes one door as its server comes and goes.
async fn keep_open<B: Backend>(
    hub: Arc<Hub<B>>,
    door: DoorId,
    address: SocketAddr,
    first: TcpListener,
    meter: Arc<Meter>,
) {
    let mut up = hub.watch_door(door);
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
                    tracing::warn!(%door, %address, %error, "the port cannot be bound again yet");
                    tokio::time::sleep(REBIND_PAUSE).await;
                    continue;
                }
            },
        };
        tokio::select! {
            () = accept(&hub, door, listener, &meter) => {}
            gone = up.wait_for(|up| !up) => if gone.is_err() { return },
        }
    }
}

/// Accepts until the future is dropped, and with it every connection.
async fn accept<B: Backend>(hub: &Arc<Hub<B>>, door: DoorId, listener: TcpListener, meter: &Arc<Meter>) {
    let (_open, life) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS => {
                let wire = Wire { stream, reset: Arc::default(), meter: Arc::clone(meter) };
                connections.spawn(connection(Arc::clone(hub), door, wire, life.clone()));
            }
            Ok(_) => tracing::warn!(%door, "more connections than a simulated server takes; one is closed"),
            Err(error) => {
                tracing::debug!(%door, %error, "a connection could not be accepted");
                tokio::time::sleep(REBIND_PAUSE).await;
            }
        }
    }
}

async fn connection<B: Backend>(hub: Arc<Hub<B>>, door: DoorId, wire: Wire, life: watch::Receiver<()>) {
    let _ = wire.stream.set_nodelay(true);
    let (reset, meter) = (Arc::clone(&wire.reset), Arc::clone(&wire.meter));
    let wire = TokioIo::new(wire);
    let service = service_fn(move |request| {
        Meter::add(&meter.requests, 1);
        let (hub, reset, life) = (Arc::clone(&hub), Arc::clone(&reset), life.clone());
        async move {
            let answered = answer(&hub, door, request, life).await;
            if matches!(answered, Err(Torn::Reset)) {
                reset.store(true, Ordering::Release);
            }
            answered
        }
    });
    // An error is an asker that went away, or a connection torn on purpose.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(wire, service).with_upgrades().await;
}

/// Why a connection ends without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Torn {
    #[error("reset on purpose")]
    Reset,
    /// Closed, as by a server that dies.
    #[error("closed on purpose")]
    Closed,
}

async fn answer<B: Backend>(
    hub: &Arc<Hub<B>>,
    door: DoorId,
    mut request: hyper::Request<Incoming>,
    life: watch::Receiver<()>,
) -> Result<hyper::Response<Reply>, Torn> {
    let upgrade = endpoint_ws::Upgrade::of(hub, door, &mut request);
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_BOUND).collect().await else {
        return Ok(endpoint_body::whole(Answer::empty(413).response));
    };
    let request = origin_form(http::Request::from_parts(head, body.to_bytes()));
    match hub.exchange(door, request).await {
        Exchange::Answered(answer) => match upgrade {
            Some(upgrade) if endpoint_ws::Upgrade::is_granted(&answer) => Ok(upgrade.accept(life)),
            Some(_) | None => deliver(hub.clock(), answer).await,
        },
        Exchange::Down | Exchange::Cut => Err(Torn::Closed),
    }
}

async fn deliver(clock: &Arc<dyn Clock>, answer: Answer) -> Result<hyper::Response<Reply>, Torn> {
    match answer.delivery {
        Delivery::After(latency) => {
            if latency > medic_core::model::Span::ZERO {
                clock.sleep(latency).await;
            }
            Ok(endpoint_body::whole(answer.response))
        }
        Delivery::Refused | Delivery::Reset => Err(Torn::Reset),
        // The hub never lets a held answer out; waiting is what it would mean.
        Delivery::Never | Delivery::Hold(_) => std::future::pending().await,
        Delivery::Truncated(bytes) => Ok(endpoint_body::truncated(answer.response, bytes)),
        Delivery::Dripping(span) => Ok(endpoint_body::dripping(answer.response, Arc::clone(clock), span)),
        Delivery::Huge(bytes) => Ok(endpoint_body::huge(answer.response, bytes)),
    }
}

/// Path and query only, as the simulators expect it; a proxy's absolute form is cut down.
fn origin_form(mut request: http::Request<Bytes>) -> http::Request<Bytes> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    request
}

/// A socket that can be told to end with a reset, and whose bytes are counted.
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
    meter: Arc<Meter>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) {
            // Failing only makes a plain close of it.
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
        self.meter.wrote(written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.meter.wrote(written)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
