//! One backend, shared by all doors and by the scenario that moves it.
//!
//! Every access first advances the simulated servers to the present, and afterwards tells whoever waits: held polls
//! that have news, doors that open or close, readers of logs and events, and the [`Pump`], which lets things happen
//! that no request asks for. Log lines are in their file before any answer that follows from them is on its way.

use super::backend::{Backend, DoorId};
use super::log_file::{LogFile, Rotation};
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

/// Lines a reader of logs or events may be behind before it is dropped.
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
    feeds: BTreeMap<DoorId, Feed>,
    doors: BTreeMap<DoorId, watch::Sender<bool>>,
    deadline: Option<Wall>,
}

struct Held {
    door: DoorId,
    session: Option<SessionId>,
    news: Arc<Notify>,
}

struct Feed {
    log: broadcast::Sender<Bytes>,
    events: broadcast::Sender<Bytes>,
    file: Option<LogFile>,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub enum Exchange {
    /// An answer, to be delivered as it says; never [`Delivery::Hold`].
    Answered(Answer),
    /// Nothing listens: the request was not sent.
    Down,
    /// The server went down while it held the request.
    Cut,
}

impl<B: Backend> Hub<B> {
    /// Takes a backend over.
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
                doors: BTreeMap::new(),
                deadline,
            }),
            moved: Notify::new(),
            polls: AtomicU64::new(1),
        })
    }

    /// The clock that everything here goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Looks at the backend, or changes it, at the present date.
    pub fn with<R>(&self, act: impl FnOnce(&mut B, Wall) -> R) -> R {
        self.access(|inner, now| act(&mut inner.backend, now))
    }

    /// Asks, and if the answer is held, waits until it comes. Dropping the future meanwhile is hanging up.
    pub async fn exchange(self: &Arc<Self>, door: DoorId, mut request: Request) -> Exchange {
        request.extensions_mut().insert(PollId(self.polls.fetch_add(1, Ordering::Relaxed)));
        let mut asker = Asker { hub: Arc::clone(self), door, request, held: None };
        loop {
            let until = match asker.ask() {
                Asked::Over(exchange) => return exchange,
                Asked::HeldUntil(until) => until,
            };
            let news = asker.held.as_ref().map(|(_, news)| Arc::clone(news));
            let Some(news) = news else { continue };
            loop {
                let left = until.since(self.clock.now().wall);
                if left == Span::ZERO {
                    break;
                }
                tokio::select! {
                    biased;
                    () = news.notified() => break,
                    () = self.clock.sleep(left) => {}
                }
            }
        }
    }

    /// Whether a server listens, kept up to date.
    pub fn watch_door(&self, door: DoorId) -> watch::Receiver<bool> {
        self.access(|inner, _| {
            let up = inner.backend.is_up(door);
            inner.doors.entry(door).or_insert_with(|| watch::channel(up).0).subscribe()
        })
    }

    /// Log lines of a server from now on. A reader that falls too far behind is told that it has missed some.
    pub fn log_lines(&self, door: DoorId) -> broadcast::Receiver<Bytes> {
        self.drain(door);
        self.access(|inner, _| inner.feed(door).log.subscribe())
    }

    /// Events of a server from now on, bounded likewise.
    pub fn events(&self, door: DoorId) -> broadcast::Receiver<Bytes> {
        self.drain(door);
        self.access(|inner, _| inner.feed(door).events.subscribe())
    }

    /// Appends a server's log lines to a file, from now on; lines that the backend has kept come first.
    pub fn log_to_file(&self, door: DoorId, path: &Path) -> io::Result<()> {
        let file = LogFile::open(path)?;
        self.access(|inner, _| inner.feed(door).file = Some(file));
        Ok(())
    }

    /// Rotates a server's log file.
    pub fn rotate_log(&self, door: DoorId, how: Rotation) -> io::Result<()> {
        self.access(|inner, _| inner.feed(door).file.as_mut().map_or(Ok(()), |file| file.rotate(how)))
    }

    /// Polls held at the doors now.
    pub fn held_polls(&self) -> usize {
        self.lock().held.len()
    }

    /// Lets what was said before go where it belongs: not to a reader who comes now.
    fn drain(&self, door: DoorId) {
        self.access(|inner, _| {
            inner.feed(door);
        });
    }

    fn access<R>(&self, act: impl FnOnce(&mut Inner<B>, Wall) -> R) -> R {
        let mut inner = self.lock();
        let now = self.clock.now().wall;
        inner.backend.advance(now);
        let result = act(&mut inner, now);
        if inner.settle() {
            self.moved.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner<B>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Inner<B> {
    /// Tells the news; whether the next deadline has changed.
    fn settle(&mut self) -> bool {
        let wakes = self.backend.take_wakes();
        for held in self.held.values() {
            let woken = held.session.as_ref().is_some_and(|session| wakes.contains(session));
            if woken || !self.backend.is_up(held.door) {
                held.news.notify_one();
            }
        }
        for (door, feed) in &mut self.feeds {
            feed.log(self.backend.take_log(*door));
            for event in self.backend.take_events(*door) {
                // An error means that nobody reads.
                let _ = feed.events.send(event);
            }
        }
        for (door, state) in &self.doors {
            let up = self.backend.is_up(*door);
            state.send_if_modified(|was| std::mem::replace(was, up) != up);
        }
        let deadline = self.backend.next_deadline();
        std::mem::replace(&mut self.deadline, deadline) != deadline
    }

    fn feed(&mut self, door: DoorId) -> &mut Feed {
        self.feeds.entry(door).or_insert_with(|| Feed {
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

/// One request on its way; hangs up when dropped while held.
struct Asker<B: Backend> {
    hub: Arc<Hub<B>>,
    door: DoorId,
    request: Request,
    held: Option<(u64, Arc<Notify>)>,
}

enum Asked {
    Over(Exchange),
    HeldUntil(Wall),
}

impl<B: Backend> Asker<B> {
    fn ask(&mut self) -> Asked {
        let (door, request, held) = (self.door, &self.request, &mut self.held);
        self.hub.access(|inner, now| {
            if !inner.backend.is_up(door) {
                return Asked::Over(if held.is_some() { Exchange::Cut } else { Exchange::Down });
            }
            let answer = inner.backend.handle(door, request, now);
            if let Delivery::Hold(until) = answer.delivery {
                if held.is_none() {
                    let number = inner.next_held;
                    inner.next_held = number.wrapping_add(1);
                    let news = Arc::new(Notify::new());
                    let session = inner.backend.polled_session(door, request);
                    inner.held.insert(number, Held { door, session, news: Arc::clone(&news) });
                    *held = Some((number, news));
                }
                return Asked::HeldUntil(until);
            }
            if let Some((number, _)) = held.take() {
                inner.held.remove(&number);
            }
            Asked::Over(Exchange::Answered(answer))
        })
    }
}

impl<B: Backend> Drop for Asker<B> {
    fn drop(&mut self) {
        let Some((number, _)) = self.held.take() else { return };
        let (door, request) = (self.door, &mut self.request);
        request.extensions_mut().insert(HungUp);
        self.hub.access(|inner, now| {
            inner.held.remove(&number);
            drop(inner.backend.handle(door, request, now));
        });
    }
}

/// Lets things happen at their dates without a request; stops when dropped.
#[derive(Debug)]
pub struct Pump(tokio::task::JoinHandle<()>);

impl Pump {
    /// Starts to drive a backend. Needs a tokio runtime.
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
