//! Which medic of several on one store may act (design §7): one lease, renewed well before it runs out, void when its
//! holder is dead.

use crate::clock::Clock;
use crate::model::{Span, Wall};
use crate::store::{LeaseState, Store, StoreError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How long a lease lasts without renewal: longer than any pass, shorter than anyone's patience.
pub const LEASE_TTL: Span = Span::secs(60);
/// How often it is renewed.
const RENEW_EVERY: Span = Span::secs(15);

/// This medic's claim on the store.
pub struct Lease {
    store: Store,
    holder: String,
    clock: Arc<dyn Clock>,
    held: AtomicBool,
    renewed: Mutex<Option<Wall>>,
}

impl Lease {
    /// A claim by `holder`, not yet made good.
    #[must_use]
    pub fn new(store: Store, holder: String, clock: Arc<dyn Clock>) -> Self {
        Self { store, holder, clock, held: AtomicBool::new(false), renewed: Mutex::new(None) }
    }

    /// The name that we claim it by.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Acquires or renews the lease when that is due, and tells whether we hold it.
    ///
    /// # Errors
    /// When the store cannot tell; then nothing may be done.
    pub fn hold(&self) -> Result<LeaseState, StoreError> {
        let now = self.clock.now().wall;
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = renewed.is_some_and(|at| at <= now && now.since(at) < RENEW_EVERY);
        if fresh && self.held.load(Ordering::Acquire) {
            return Ok(LeaseState::Held);
        }
        let state = self.store.acquire(&self.holder, now, LEASE_TTL).inspect_err(|_| {
            self.held.store(false, Ordering::Release);
        })?;
        let held = matches!(state, LeaseState::Held);
        self.held.store(held, Ordering::Release);
        *renewed = held.then_some(now);
        Ok(state)
    }

    /// Gives the lease up, so that the next medic need not wait.
    pub fn release(&self) {
        if self.held.swap(false, Ordering::AcqRel)
            && let Err(error) = self.store.release(&self.holder)
        {
            tracing::warn!(%error, "the lease could not be released; it runs out by itself");
        }
    }
}
