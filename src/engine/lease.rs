//! Which medic of several on one store may act (`docs/reference/design.md` §7): one lease, renewed well before it runs
//! out, void when its holder is dead.

use medic_core::clock::Clock;
use medic_core::model::{Span, Wall};
use medic_store::{LeaseState, Store, StoreError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long a lease lasts without renewal: longer than any pass, shorter than anyone's patience.
pub const LEASE_TTL: Span = Span::secs(60);
/// How often it is renewed.
const RENEW_EVERY: Span = Span::secs(15);

/// This medic's claim on the store.
pub struct Lease {
    store: Store,
    holder: String,
    clock: Arc<dyn Clock>,
    claim: Mutex<Claim>,
}

/// What we know of our claim.
#[derive(Default)]
struct Claim {
    /// The lease is ours, as far as we know.
    ours: bool,
    /// When it was taken or prolonged last, if that went well.
    renewed: Option<Wall>,
    /// Counts how often it was taken and lost.
    term: u64,
}

impl Lease {
    /// A claim by `holder`, not yet made good.
    #[must_use]
    pub fn new(store: Store, holder: String, clock: Arc<dyn Clock>) -> Self {
        Self { store, holder, clock, claim: Mutex::default() }
    }

    /// The name that we claim it by.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Takes or prolongs the lease when that is due, and tells whether we hold it.
    ///
    /// # Errors
    /// When the store cannot tell; then nothing may be done.
    pub fn hold(&self) -> Result<LeaseState, StoreError> {
        let now = self.clock.now().wall;
        let mut claim = self.claim();
        if claim.ours {
            if claim.renewed.is_some_and(|at| at <= now && now.since(at) < RENEW_EVERY) {
                return Ok(LeaseState::Held);
            }
            claim.renewed = None;
            if self.store.renew(&self.holder, now, LEASE_TTL)? {
                claim.renewed = Some(now);
                return Ok(LeaseState::Held);
            }
            claim.ours = false;
            claim.term = claim.term.saturating_add(1);
        }
        let state = self.store.acquire(&self.holder, now, LEASE_TTL)?;
        if matches!(state, LeaseState::Held) {
            *claim = Claim { ours: true, renewed: Some(now), term: claim.term.saturating_add(1) };
        }
        Ok(state)
    }

    /// Changes whenever the lease was taken or lost: what was known under another term may not hold any more. A store
    /// that fails for a while ends no term.
    pub fn term(&self) -> u64 {
        self.claim().term
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the lease up, so that the next medic need not wait.
    pub fn release(&self) {
        let was_ours = std::mem::take(&mut self.claim().ours);
        if was_ours && let Err(error) = self.store.release(&self.holder) {
            tracing::warn!(%error, "the lease could not be released; it runs out by itself");
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
    fn a_lease_that_was_lost_and_had_again_between_two_looks_is_another_term() {
        let (store, hand) = (Store::in_memory().unwrap(), Arc::new(Hand::default()));
        let ours = Lease::new(store.clone(), "one".to_owned(), Arc::<Hand>::clone(&hand));
        assert_eq!(ours.hold().unwrap(), LeaseState::Held);
        let first = ours.term();
        hand.0.store(20_000, Ordering::SeqCst);
        assert_eq!((ours.hold().unwrap(), ours.term()), (LeaseState::Held, first), "prolonged");
        // We are frozen; another medic acts, and ends.
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
