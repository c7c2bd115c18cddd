//! Which instance of several on one store may act (`docs/reference/design.md` §7): the holder of the lease. It is renewed
//! well before it expires.

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
    #[must_use]
    pub fn new(store: Store, holder: String, clock: Arc<dyn Clock>) -> Self {
        Self { store, holder, clock, claim: Mutex::default() }
    }

    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Acquires the lease, or renews it when that is due.
    ///
    /// # Errors
    /// When the store fails; then nothing may be done.
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

    /// Changes whenever the lease was acquired or lost: another instance may have acted. A store that fails for a while ends
    /// no term.
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
    use async_trait::async_trait;
    use medic_core::model::{Mono, Now};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock that is set by hand.
    #[derive(Default)]
    struct Hand(AtomicU64);

    #[async_trait]
    impl Clock for Hand {
        fn now(&self) -> Now {
            let at = self.0.load(Ordering::SeqCst);
            Now { wall: Wall(at), mono: Mono(at) }
        }
        async fn sleep(&self, _span: Span) {}
    }

    #[test]
    fn lease_term_changes_when_lost_and_reacquired() {
        let (store, hand) = (Store::in_memory().unwrap(), Arc::new(Hand::default()));
        let ours = Lease::new(store.clone(), "one".to_owned(), Arc::<Hand>::clone(&hand));
        assert_eq!(ours.hold().unwrap(), LeaseState::Held);
        let first = ours.term();
        hand.0.store(20_000, Ordering::SeqCst);
        assert_eq!((ours.hold().unwrap(), ours.term()), (LeaseState::Held, first), "renewed");
        // Our process is suspended; another instance acts, and ends.
        assert_eq!(store.acquire("two", Wall(90_000), LEASE_TTL).unwrap(), LeaseState::Held);
        store.release("two").unwrap();
        hand.0.store(100_000, Ordering::SeqCst);
        assert_eq!(ours.hold().unwrap(), LeaseState::Held);
        assert_ne!(ours.term(), first);

        let second = ours.term();
        assert_eq!(store.acquire("two", Wall(200_000), LEASE_TTL).unwrap(), LeaseState::Held);
        hand.0.store(201_000, Ordering::SeqCst);
        assert!(matches!(ours.hold().unwrap(), LeaseState::HeldByOther { .. }));
        assert_ne!(ours.term(), second);
    }
}
