//! Which instance of several on one store may act (`docs/reference/design.md` §7): the holder of the lease. It is
//! renewed well before it expires.

use medic_core::clock::Clock;
use medic_core::model::{Span, Wall};
use medic_store::{LeaseState, Store, StoreError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longer than any reconcile.
pub const LEASE_TTL: Span = Span::secs(60);
const RENEW_EVERY: Span = Span::secs(15);

pub struct Lease {
    store: Store,
    holder: String,
    clock: Arc<dyn Clock>,
    claim: Mutex<Claim>,
}

#[derive(Default)]
struct Claim {
    is_ours: bool,
    /// When it was acquired or renewed last, unless the last renewal failed.
    renewed: Option<Wall>,
    /// Counts how often the lease was acquired and lost.
    term: u64,
}

impl Lease {
    /// Acquires nothing yet.
    pub fn new(store: Store, holder: String, clock: Arc<dyn Clock>) -> Self {
        Self { store, holder, clock, claim: Mutex::default() }
    }

    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Acquires the lease, or renews it when that is due.
    /// Fails when the store fails; then nothing may be done.
    pub fn hold(&self) -> Result<LeaseState, StoreError> {
        let now = self.clock.now().wall;
        let mut claim = self.claim();
        if claim.is_ours {
            if claim.renewed.is_some_and(|at| at <= now && now.since(at) < RENEW_EVERY) {
                return Ok(LeaseState::Held);
            }
            claim.renewed = None;
            if self.store.renew(&self.holder, now, LEASE_TTL)? {
                claim.renewed = Some(now);
                return Ok(LeaseState::Held);
            }
            claim.is_ours = false;
            claim.term = claim.term.saturating_add(1);
        }
        let state = self.store.acquire(&self.holder, now, LEASE_TTL)?;
        if matches!(state, LeaseState::Held) {
            *claim = Claim { is_ours: true, renewed: Some(now), term: claim.term.saturating_add(1) };
        }
        Ok(state)
    }

    /// Changes whenever the lease was acquired or lost: another instance may have acted. A store that fails for a while
    /// ends no term.
    pub fn term(&self) -> u64 {
        self.claim().term
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next instance start without waiting.
    pub fn release(&self) {
        let was_ours = std::mem::take(&mut self.claim().is_ours);
        if was_ours && let Err(error) = self.store.release(&self.holder) {
            tracing::warn!(%error, "the lease could not be released; it expires");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_clock::ScaledClock;

    #[tokio::test(start_paused = true)]
    async fn lease_term_changes_when_lost_and_reacquired() {
        let (store, clock) = (Store::in_memory().unwrap(), Arc::new(ScaledClock::new(Wall(0), 1.0)));
        let ours = Lease::new(store.clone(), "one".to_owned(), Arc::<ScaledClock>::clone(&clock));
        assert_eq!(ours.hold().unwrap(), LeaseState::Held);
        let first = ours.term();
        clock.sleep(Span::secs(20)).await;
        assert_eq!((ours.hold().unwrap(), ours.term()), (LeaseState::Held, first), "renewed");
        // Our process is suspended; another instance acts, and ends.
        clock.sleep(LEASE_TTL).await;
        assert_eq!(store.acquire("two", clock.now().wall, LEASE_TTL).unwrap(), LeaseState::Held);
        store.release("two").unwrap();
        assert_eq!(ours.hold().unwrap(), LeaseState::Held);
        assert_ne!(ours.term(), first);

        let second = ours.term();
        clock.sleep(LEASE_TTL).await;
        assert_eq!(store.acquire("two", clock.now().wall, LEASE_TTL).unwrap(), LeaseState::Held);
        assert!(matches!(ours.hold().unwrap(), LeaseState::HeldByOther { .. }));
        assert_ne!(ours.term(), second);
    }
}
