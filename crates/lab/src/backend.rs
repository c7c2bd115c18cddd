//! What an endpoint needs of the simulated servers: requests in, answers out, time as an argument.

use super::wire::{Answer, Request};
use bytes::Bytes;
use medic_core::model::{SessionId, Wall};

/// Which simulated server a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerId {
    /// A manager, by its index in the world.
    Manager(usize),
    /// GitHub: REST, Actions service and message queue.
    Github,
}

impl std::fmt::Display for ServerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manager(index) => write!(f, "manager {index}"),
            Self::Github => f.write_str("GitHub"),
        }
    }
}

/// Simulated servers. Dates never go backwards from call to call.
pub trait Backend: Send + 'static {
    /// Answers one request at `now`; [`advance`](Self::advance) to `now` came before. A request that carries
    /// [`HungUp`](super::wire::HungUp) says that the client of a held poll is gone; it may come while the server is
    /// down, and its answer goes nowhere.
    fn handle(&mut self, server: ServerId, request: &Request, now: Wall) -> Answer;
    /// Whether the server listens at all.
    fn is_up(&self, server: ServerId) -> bool;
    /// Runs what is due by `now`.
    fn advance(&mut self, now: Wall);
    /// When something happens without a request; `None` when nothing is pending.
    fn next_deadline(&self) -> Option<Wall>;
    /// The session that a request polls, to match it with [`take_wakes`](Self::take_wakes).
    fn polled_session(&self, server: ServerId, request: &Request) -> Option<SessionId>;
    /// Sessions whose poll, held at an endpoint, should be asked again. Polls of simulated managers are not among them.
    fn take_wakes(&mut self) -> Vec<SessionId>;
    /// Log lines since the last call, without line ends.
    fn take_log(&mut self, server: ServerId) -> Vec<Bytes>;
    /// Database events since the last call, as JSON (`docs/reference/garm-api.md` §8.2).
    fn take_events(&mut self, server: ServerId) -> Vec<Bytes>;
}
