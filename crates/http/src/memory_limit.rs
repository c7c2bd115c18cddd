//! Memory for large bodies: one account for all connections of one client, so that lists that are asked for at the same
//! time do not each grow to their own bound. Each manager's clients have their own: one manager's endless answers keep no
//! other one waiting.
//!
//! The rule: up to [`FREE`] bytes a body is kept without asking. One that grows beyond takes room for all that it may
//! still become, at once, and gives it back when it has been read or given up. Nobody waits for a second share while
//! holding a first one, so that nobody waits for himself; and each wait and each reading ends at the time-out of its
//! own exchange, so that an answer that never ends delays others no longer than that.

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

/// What a body may keep without asking, in bytes: the lists of all but large fleets.
pub(super) const FREE: usize = 256 * 1024;
/// What all larger bodies of a client may keep together, in KiB: the largest bound that there is, once.
const TOGETHER_KIB: u32 = 16 * 1024;

/// The account of one client.
#[derive(Debug)]
pub(super) struct Room(Semaphore);

impl Default for Room {
    fn default() -> Self {
        Self(Semaphore::new(TOGETHER_KIB as usize))
    }
}

impl Room {
    /// Room for a body that may become `bytes` long, until the permit is dropped; `None` when there was none by `until`.
    /// One that may become longer than all the room there is takes all of it.
    pub(super) async fn take(&self, bytes: usize, until: Instant) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(TOGETHER_KIB).min(TOGETHER_KIB);
        // Nobody closes it.
        timeout_at(until, self.0.acquire_many(kib)).await.ok()?.ok()
    }
}
