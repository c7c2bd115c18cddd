//! Something fetched, kept until shortly before its end: fetched once, by one caller, however many need it.
//!
//! Each fetch costs calls of a quota that the manager shares. So concurrent callers share one attempt, its failure
//! included, and a failure is not repeated at once: after a refusal not for [`REFUSED`], after another failure not for
//! [`FAILED`]. What the shared HTTP client holds back itself (rate limits) costs nothing and is asked again freely.

use medic_core::clock::Clock;
use medic_core::model::{FailureKind, Mono, Now, Span, Wall};
use medic_http::ApiError;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// How long a refusal stands before it is tried again.
pub(super) const REFUSED: Span = Span::mins(1);

/// How long another failure stands before it is tried again.
pub(super) const FAILED: Span = Span::secs(5);

/// What is this close to its end is renewed before use (`docs/reference/actions-service.md` §1.7).
pub(super) const MARGIN: Span = Span::secs(60);

/// The life of what does not tell a usable one.
pub(super) const SHORT_LIFE: Span = Span::mins(5);

/// The kept thing, with the number of its fetch; later ones are higher.
#[derive(Clone)]
pub(super) struct Fresh<T> {
    pub(super) value: T,
    pub(super) serial: u64,
    renew_at: Wall,
}

/// One thing that is fetched.
pub(super) struct Cache<T> {
    attempts: AtomicU64,
    state: Mutex<State<T>>,
}

struct State<T> {
    kept: Option<Fresh<T>>,
    failure: Option<Failure>,
}

struct Failure {
    error: ApiError,
    /// On the monotonic clock, so that a clock set back cannot prolong it.
    stands_until: Mono,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { attempts: AtomicU64::new(0), state: Mutex::new(State { kept: None, failure: None }) }
    }
}

impl<T: Clone> Cache<T> {
    /// The kept value, or a new one from `fetch`, which also says when it ends, if it is told. A new one is fetched
    /// when there is none, it is about to end, or the server refused it (`refused` is its serial).
    pub(super) async fn get(
        &self,
        clock: &dyn Clock,
        refused: Option<u64>,
        fetch: impl Future<Output = Result<(T, Option<Wall>), ApiError>>,
    ) -> Result<Fresh<T>, ApiError> {
        let before = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        let now = clock.now();
        let usable = |kept: &&Fresh<T>| now.wall < kept.renew_at && refused.is_none_or(|serial| kept.serial > serial);
        if let Some(kept) = state.kept.as_ref().filter(usable) {
            return Ok(kept.clone());
        }
        let shared = self.attempts.load(Ordering::Acquire) != before;
        if let Some(failure) = state.failure.as_ref().filter(|failure| shared || now.mono < failure.stands_until) {
            return Err(failure.error.clone());
        }
        let fetched = fetch.await;
        let serial = self.attempts.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let now = clock.now();
        match fetched {
            Ok((value, ends)) => {
                let fresh = Fresh { value, serial, renew_at: renew_at(ends, now.wall) };
                *state = State { kept: Some(fresh.clone()), failure: None };
                Ok(fresh)
            }
            Err(error) => {
                *state = State { kept: None, failure: Some(Failure::new(error.clone(), now)) };
                Err(error)
            }
        }
    }

    /// The server refused a value that was new: another one would fare no better for a while.
    pub(super) async fn refuse(&self, now: Now, serial: u64, error: &ApiError) {
        let mut state = self.state.lock().await;
        if state.kept.as_ref().is_some_and(|kept| kept.serial == serial) {
            *state = State { kept: None, failure: Some(Failure::new(error.clone(), now)) };
        }
    }
}

impl Failure {
    fn new(error: ApiError, now: Now) -> Self {
        let stands = match error.kind {
            FailureKind::HeldBack | FailureKind::RateLimited => Span::ZERO,
            FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotFound | FailureKind::Rejected => {
                REFUSED
            }
            FailureKind::Connect
            | FailureKind::Tls
            | FailureKind::Timeout
            | FailureKind::Broken
            | FailureKind::Conflict
            | FailureKind::NotInitialised
            | FailureKind::Server
            | FailureKind::Redirect
            | FailureKind::Malformed
            | FailureKind::TooLarge
            | FailureKind::NotEnabled => FAILED,
        };
        let retry_at = error.retry_at.or_else(|| (stands > Span::ZERO).then(|| now.wall.plus(stands)));
        Self { error: ApiError { retry_at, ..error }, stands_until: now.mono.plus(stands) }
    }
}

/// An end that is missing, past, or too close to be used (a clock that is wrong) gives a short life: the server
/// refuses what is over, and then it is renewed.
fn renew_at(ends: Option<Wall>, now: Wall) -> Wall {
    let told = ends.map(|ends| ends.minus(MARGIN)).filter(|renew_at| *renew_at > now);
    told.unwrap_or_else(|| now.plus(SHORT_LIFE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_clock::ScaledClock;
    use medic_core::model::{Operation, Target};
    use medic_http::Effect;

    const START: Wall = Wall(1_700_000_000_000);

    fn error(kind: FailureKind) -> ApiError {
        ApiError {
            target: Target::Github,
            operation: Operation::RegistrationToken,
            kind,
            detail: "no".to_owned(),
            effect: Effect::None,
            retry_at: None,
        }
    }

    #[test]
    fn an_end_that_cannot_be_used_gives_a_short_life() {
        let now = START;
        assert_eq!(renew_at(Some(now.plus(Span::hours(1))), now), now.plus(Span::mins(59)));
        for ends in [None, Some(Wall(0)), Some(now), Some(now.plus(Span::secs(30)))] {
            assert_eq!(renew_at(ends, now), now.plus(SHORT_LIFE), "{ends:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_fetch_and_its_failure() {
        let clock = ScaledClock::new(START, 1.0);
        let cache = Cache::<u32>::default();
        let fetches = AtomicU64::new(0);
        let fetch = || async {
            fetches.fetch_add(1, Ordering::Relaxed);
            clock.sleep(Span::secs(1)).await;
            Err(error(FailureKind::Server))
        };
        let (a, b) = tokio::join!(cache.get(&clock, None, fetch()), cache.get(&clock, None, fetch()));
        assert!(a.is_err() && b.is_err());
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        clock.sleep(FAILED).await;
        let good = async { Ok((7, None)) };
        assert_eq!(cache.get(&clock, None, good).await.map(|fresh| fresh.value), Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stands_longer_than_a_failure_and_a_rate_limit_not_at_all() {
        for (kind, stands) in [
            (FailureKind::Unauthorized, REFUSED),
            (FailureKind::Server, FAILED),
            (FailureKind::RateLimited, Span::ZERO),
            (FailureKind::HeldBack, Span::ZERO),
        ] {
            let clock = ScaledClock::new(START, 1.0);
            let cache = Cache::<u32>::default();
            assert!(cache.get(&clock, None, async { Err(error(kind)) }).await.is_err());
            if stands > Span::ZERO {
                clock.sleep(Span(stands.0 - 1)).await;
                let early = cache.get(&clock, None, async { Ok((1, None)) }).await;
                assert_eq!(early.err().and_then(|error| error.retry_at), Some(START.plus(stands)), "{kind}");
                clock.sleep(Span::millis(1)).await;
            }
            assert!(cache.get(&clock, None, async { Ok((1, None)) }).await.is_ok(), "{kind}");
        }
    }
}
