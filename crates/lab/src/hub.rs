//! One backend, shared by all endpoints and by the scenario that controls it.
//!
//! Every access first advances the simulated servers to the present. Afterwards it notifies held polls that have an
//! answer, endpoints that open or close, readers of logs and events, and the [`Pump`], which runs what no request asks
//! for. Log lines are in their file before any answer that follows from them.

use super::backend::{Backend, ServerId};
use super::log_file::LogFile;
use super::wire::{Answer, Delivery, HungUp, PollId, Request};
use bytes::Bytes;
use medic_core::clock::Clock;
use medic_core::model::{SessionId, Span, Wall};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, broadcast, watch};

/// A reader of logs or events that is further behind is dropped.
const FEED_BOUND: usize = 4096;

/// The owner of a backend.
pub struct Hub<B> {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner<B>>,
    /// The next deadline has changed.
    moved: Notify,
    polls: AtomicU64,
}

struct Inner<B> {
    backend: B,
    held: BTreeMap<u64, Held>,
    next_held: u64,
    feeds: BTreeMap<ServerId, Feed>,
    servers: BTreeMap<ServerId, watch::Sender<bool>>,
    deadline: Option<Wall>,
}

struct Held {
    server: ServerId,
    session: Option<SessionId>,
    wake: Arc<Notify>,
}

struct Feed {
    log: broadcast::Sender<Bytes>,
    events: broadcast::Sender<Bytes>,
    file: Option<LogFile>,
}

#[derive(Debug, Clone)]
pub enum Exchange {
    /// To be delivered as the answer says; never [`Delivery::Hold`].
    Answered(Answer),
    /// Nothing listens: the request was not sent.
    Down,
    /// The server went down while it held the request.
    Cut,
}

impl<B: Backend> Hub<B> {
    #[must_use]
    pub fn new(backend: B, clock: Arc<dyn Clock>) -> Arc<Self> {
        let deadline = backend.next_deadline();
        Arc::new(Self {
            clock,
            inner: Mutex::new(Inner {
                backend,
                held: BTreeMap::new(),
                next_held: 0,
                feeds: BTreeMap::new(),
                servers: BTreeMap::new(),
                deadline,
            }),
            moved: Notify::new(),
            polls: AtomicU64::new(1),
        })
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Reads or changes the backend at the present date.
    pub fn with<R>(&self, act: impl FnOnce(&mut B, Wall) -> R) -> R {
        self.access(|inner, now| act(&mut inner.backend, now))
    }

    /// Asks, and waits for a held answer. Dropping the future disconnects the client.
    pub async fn exchange(self: &Arc<Self>, server: ServerId, mut request: Request) -> Exchange {
        request.extensions_mut().insert(PollId(self.polls.fetch_add(1, Ordering::Relaxed)));
        let mut pending = PendingRequest { hub: Arc::clone(self), server, request, held: None };
        loop {
            let until = match pending.ask() {
                Outcome::Over(exchange) => return exchange,
                Outcome::HeldUntil(until) => until,
            };
            let wake = pending.held.as_ref().map(|(_, wake)| Arc::clone(wake));
            let Some(wake) = wake else { continue };
            loop {
                let left = until.since(self.clock.now().wall);
                if left == Span::ZERO {
                    break;
                }
                tokio::select! {
                    biased;
                    () = wake.notified() => break,
                    () = self.clock.sleep(left) => {}
                }
            }
        }
    }

    /// Whether a server listens, kept up to date.
    pub fn watch_server(&self, server: ServerId) -> watch::Receiver<bool> {
        self.access(|inner, _| {
            let up = inner.backend.is_up(server);
            inner.servers.entry(server).or_insert_with(|| watch::channel(up).0).subscribe()
        })
    }

    /// Log lines of a server from now on. A reader that falls too far behind gets an error.
    pub fn log_lines(&self, server: ServerId) -> broadcast::Receiver<Bytes> {
        self.drain(server);
        self.access(|inner, _| inner.feed(server).log.subscribe())
    }

    /// Events of a server from now on, bounded likewise.
    pub fn events(&self, server: ServerId) -> broadcast::Receiver<Bytes> {
        self.drain(server);
        self.access(|inner, _| inner.feed(server).events.subscribe())
    }

    /// Appends a server's log lines to a file, from now on; lines that the backend has kept come first.
    pub fn log_to_file(&self, server: ServerId, path: &Path) -> io::Result<()> {
        let file = LogFile::open(path)?;
        self.access(|inner, _| inner.feed(server).file = Some(file));
        Ok(())
    }

    /// Rotates a server's log file.
    pub fn rotate_log(&self, server: ServerId) -> io::Result<()> {
        self.access(|inner, _| inner.feed(server).file.as_mut().map_or(Ok(()), LogFile::rotate))
    }

    /// Polls held now.
    pub fn held_polls(&self) -> usize {
        self.lock().held.len()
    }

    /// Lines from before a subscription are not sent to the new reader.
    fn drain(&self, server: ServerId) {
        self.access(|inner, _| {
            inner.feed(server);
        });
    }

    fn access<R>(&self, act: impl FnOnce(&mut Inner<B>, Wall) -> R) -> R {
        let mut inner = self.lock();
        let now = self.clock.now().wall;
        inner.backend.advance(now);
        let result = act(&mut inner, now);
        if inner.notify() {
            self.moved.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Inner<B> {
    /// Notifies all waiters. The result: whether the next deadline has changed.
    fn notify(&mut self) -> bool {
        let wakes = self.backend.take_wakes();
        for held in self.held.values() {
            let woken = held.session.as_ref().is_some_and(|session| wakes.contains(session));
            if woken || !self.backend.is_up(held.server) {
                held.wake.notify_one();
            }
        }
        for (server, feed) in &mut self.feeds {
            feed.log(self.backend.take_log(*server));
            for event in self.backend.take_events(*server) {
                // An error means that nobody reads.
                let _ = feed.events.send(event);
            }
        }
        for (server, state) in &self.servers {
            let up = self.backend.is_up(*server);
            state.send_if_modified(|was| std::mem::replace(was, up) != up);
        }
        let deadline = self.backend.next_deadline();
        std::mem::replace(&mut self.deadline, deadline) != deadline
    }

    fn feed(&mut self, server: ServerId) -> &mut Feed {
        self.feeds.entry(server).or_insert_with(|| Feed {
            log: broadcast::channel(FEED_BOUND).0,
            events: broadcast::channel(FEED_BOUND).0,
            file: None,
        })
    }
}

impl Feed {
    fn log(&mut self, lines: Vec<Bytes>) {
        if lines.is_empty() {
            return;
        }
        if let Some(Err(error)) = self.file.as_mut().map(|file| file.append(&lines)) {
            tracing::warn!(%error, "the simulated log file cannot be written; no more lines go there");
            self.file = None;
        }
        for line in lines {
            let _ = self.log.send(line);
        }
    }
}

/// One request; disconnects when dropped while held.
struct PendingRequest<B: Backend> {
    hub: Arc<Hub<B>>,
    server: ServerId,
    request: Request,
    held: Option<(u64, Arc<Notify>)>,
}

enum Outcome {
    Over(Exchange),
    HeldUntil(Wall),
}

impl<B: Backend> PendingRequest<B> {
    fn ask(&mut self) -> Outcome {
        let (server, request, held) = (self.server, &self.request, &mut self.held);
        self.hub.access(|inner, now| {
            if !inner.backend.is_up(server) {
                return Outcome::Over(if held.is_some() { Exchange::Cut } else { Exchange::Down });
            }
            let answer = inner.backend.handle(server, request, now);
            if let Delivery::Hold(until) = answer.delivery {
                if held.is_none() {
                    let number = inner.next_held;
                    inner.next_held = number.wrapping_add(1);
                    let wake = Arc::new(Notify::new());
                    let session = inner.backend.polled_session(server, request);
                    inner.held.insert(number, Held { server, session, wake: Arc::clone(&wake) });
                    *held = Some((number, wake));
                }
                return Outcome::HeldUntil(until);
            }
            if let Some((number, _)) = held.take() {
                inner.held.remove(&number);
            }
            Outcome::Over(Exchange::Answered(answer))
        })
    }
}

impl<B: Backend> Drop for PendingRequest<B> {
    fn drop(&mut self) {
        let Some((number, _)) = self.held.take() else { return };
        let (server, request) = (self.server, &mut self.request);
        request.extensions_mut().insert(HungUp);
        self.hub.access(|inner, now| {
            inner.held.remove(&number);
            drop(inner.backend.handle(server, request, now));
        });
    }
}

/// Advances the backend at its deadlines; stops when dropped.
#[derive(Debug)]
pub struct Pump(tokio::task::JoinHandle<()>);

impl Pump {
    /// Needs a tokio runtime.
    #[must_use]
    pub fn start<B: Backend>(hub: &Arc<Hub<B>>) -> Self {
        let hub = Arc::clone(hub);
        Self(tokio::spawn(async move {
            loop {
                let (now, deadline) = hub.with(|backend, now| (now, backend.next_deadline()));
                let Some(deadline) = deadline else {
                    hub.moved.notified().await;
                    continue;
                };
                // At least a millisecond: a backend that never gets past a deadline must not spin.
                let left = deadline.since(now).max(Span::millis(1));
                tokio::select! {
                    biased;
                    () = hub.moved.notified() => {}
                    () = hub.clock.sleep(left) => {}
                }
            }
        }))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}
