//! A disk that can fail, for simulations.

/// Decides about every write of a store. `what` is the action as the store's errors name it.
pub trait FaultyDisk: Send + Sync {
    /// Before a write: `false` makes it fail as on a full disk, with nothing written.
    fn accepts_write(&self) -> bool;
    /// Whether the disk reports success for a write that it loses.
    fn loses_write(&self, _what: &'static str) -> bool {
        false
    }
    /// After a write has reached the disk or failed there, before its caller knows.
    fn after_write(&self, _what: &'static str) {}
}
