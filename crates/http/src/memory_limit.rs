//! A memory limit for large bodies, shared by all connections of one client, so that lists requested at the same time
//! do not each grow to their own bound. Each manager's clients have a limit of their own: endless answers of one do not
//! delay another.
//!
//! Up to [`FREE`] bytes a body needs no permit. A larger one takes a permit for everything it may still become, at once,
//! so it cannot deadlock with itself. Each wait ends at the time-out of its own exchange.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// Bytes that a body may hold without a permit: the lists of all but large fleets.
pub(super) const FREE: usize = 256 * 1024;
/// What all larger bodies of a client may hold together, in KiB: the largest bound of a body.
const TOTAL_KIB: u32 = 16 * 1024;

#[derive(Debug)]
pub(super) struct MemoryLimit(Semaphore);

impl Default for MemoryLimit {
    fn default() -> Self {
        Self(Semaphore::new(TOTAL_KIB as usize))
    }
}

impl MemoryLimit {
    /// A permit for a body that may become `bytes` long; `None` if there was none by `until`. A body that may become
    /// longer than the limit takes all of it.
    pub(super) async fn acquire(&self, bytes: usize, until: Instant) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(TOTAL_KIB).min(TOTAL_KIB);
        // The semaphore is never closed.
        timeout_at(until, self.0.acquire_many(kib)).await.ok()?.ok()
    }
}
