//! A disk that can fail, for the simulations: whoever holds the gate decides what becomes of each write.

/// Asked about every write of a store.
pub trait Gate: Send + Sync {
    /// Before a write: `false` makes it fail as on a full disk, with nothing written.
    fn before(&self) -> bool;
    /// Whether the disk only says that it keeps what is written, `what` in the words of the store's errors.
    fn forgets(&self, _what: &'static str) -> bool {
        false
    }
    /// A write is on the disk, or has failed there; its caller does not know it yet. `what` as above.
    fn after(&self, what: &'static str);
}
