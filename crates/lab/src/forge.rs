//! What the world asks of a simulated forge: requests in, answers out, and time given as an argument.

use super::wire::{Answer, Request};
use medic_core::model::{SessionId, Wall};

/// A simulated forge, advanced by the world.
pub trait Forge: Send {
    /// Answers one request at `now`. A long poll without news is answered with
    /// [`Delivery::Hold`](super::wire::Delivery::Hold) and asked again, as it was, at that date or when
    /// [`take_wakes`](Self::take_wakes) names its session.
    fn handle(&mut self, now: Wall, request: &Request) -> Answer;
    /// Sessions whose held poll should be asked again: a message arrived, or the session was lost.
    fn take_wakes(&mut self) -> Vec<SessionId>;
    /// When something happens here without a request; `None` when nothing is pending.
    fn next_deadline(&self) -> Option<Wall>;
    /// Lets happen what is due by `now`.
    fn advance(&mut self, now: Wall);
}
