//! A value that is fetched once, by one caller, for all that need it, and kept until shortly before it expires.
//!
//! Each fetch costs the server something: a password hash, calls of a quota. So concurrent callers share one attempt
//! and its failure, and a failure may be [kept](Policy::keep_failure) for a while. What the HTTP client itself blocks
//! (rate limits) costs nothing and should not be kept.

use crate::ApiError;
use medic_core::clock::Clock;
use medic_core::model::{FailureKind, Mono, Now, Span, Wall};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// A value is renewed this long before it expires (`docs/reference/actions-service.md` §1.7).
pub const MARGIN: Span = Span::secs(60);

#[derive(Debug)]
pub struct Policy {
    /// How long a failure is returned without another attempt.
    pub keep_failure: fn(FailureKind) -> Span,
    /// Whether a kept failure gets the end of that time as its `retry_at`.
    pub date_failures: bool,
    /// Lifetime of a value whose expiry is missing, past or too close (a clock is wrong); `None`: until it is refused.
    pub default_lifetime: Option<Span>,
}

/// A value with the number of its fetch; later ones are higher.
#[derive(Debug, Clone)]
pub struct Fetched<T> {
    pub value: T,
    pub serial: u64,
    renew_at: Option<Wall>,
}

#[derive(Debug)]
pub struct Cached<T> {
    policy: &'static Policy,
    attempts: AtomicU64,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
enum State<T> {
    Empty,
    Value(Fetched<T>),
    /// The date is monotonic, so that a wall clock set back cannot prolong it.
    Failure(ApiError, Mono),
}

impl<T: Clone> Cached<T> {
    pub fn new(policy: &'static Policy) -> Self {
        Self { policy, attempts: AtomicU64::new(0), state: Mutex::new(State::Empty) }
    }

    /// The kept value, or a new one from `fetch`, which also returns its expiry if known. A new one is fetched when
    /// there is none, it is about to expire, or the server refused it (`refused` is its serial).
    pub async fn get(
        &self,
        clock: &dyn Clock,
        refused: Option<u64>,
        fetch: impl Future<Output = Result<(T, Option<Wall>), ApiError>>,
    ) -> Result<Fetched<T>, ApiError> {
        let before = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        let shared = self.attempts.load(Ordering::Acquire) != before;
        let now = clock.now();
        match &*state {
            State::Value(kept)
                if kept.renew_at.is_none_or(|at| now.wall < at)
                    && refused.is_none_or(|serial| kept.serial > serial) =>
            {
                return Ok(kept.clone());
            }
            State::Failure(error, until) if shared || now.mono < *until => return Err(error.clone()),
            State::Empty | State::Value(_) | State::Failure(..) => {}
        }
        let fetched = fetch.await;
        let serial = self.attempts.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let now = clock.now();
        match fetched {
            Ok((value, expires)) => {
                let fetched = Fetched { value, serial, renew_at: self.policy.renew_at(expires, now.wall) };
                *state = State::Value(fetched.clone());
                Ok(fetched)
            }
            Err(error) => {
                *state = self.policy.failure(error.clone(), now);
                Err(error)
            }
        }
    }

    /// The server refused a value that was new: another one would fare no better for a while.
    pub async fn refuse(&self, now: Now, serial: u64, error: &ApiError) {
        let mut state = self.state.lock().await;
        if matches!(&*state, State::Value(kept) if kept.serial == serial) {
            *state = self.policy.failure(error.clone(), now);
        }
    }

    /// When the kept value is renewed, if it has an expiry.
    pub async fn renew_at(&self) -> Option<Wall> {
        match &*self.state.lock().await {
            State::Value(kept) => kept.renew_at,
            State::Empty | State::Failure(..) => None,
        }
    }
}

impl Policy {
    fn renew_at(&self, expires: Option<Wall>, now: Wall) -> Option<Wall> {
        let usable = expires.map(|at| at.minus(MARGIN)).filter(|renew_at| *renew_at > now);
        usable.or_else(|| self.default_lifetime.map(|lifetime| now.plus(lifetime)))
    }

    fn failure<T>(&self, error: ApiError, now: Now) -> State<T> {
        let kept = (self.keep_failure)(error.kind);
        let ends = (self.date_failures && kept > Span::ZERO).then(|| now.wall.plus(kept));
        State::Failure(ApiError { retry_at: error.retry_at.or(ends), ..error }, now.mono.plus(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Effect;
    use medic_clock::ScaledClock;
    use medic_core::model::{Operation, Target};

    const START: Wall = Wall(1_700_000_000_000);
    const KEPT: Span = Span::secs(10);
    const POLICY: Policy = Policy {
        keep_failure: |kind| if matches!(kind, FailureKind::Unauthorized) { KEPT } else { Span::ZERO },
        date_failures: true,
        default_lifetime: Some(Span::mins(5)),
    };

    fn cached() -> (Cached<u32>, ScaledClock) {
        (Cached::new(&POLICY), ScaledClock::new(START, 1.0))
    }

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
    fn unusable_expiry_gives_the_default_lifetime() {
        let until_refused = Policy { default_lifetime: None, ..POLICY };
        for (expires, renew_at) in [
            (Some(START.plus(Span::hours(1))), Some(START.plus(Span::mins(59)))),
            (None, None),
            (Some(Wall(0)), None),
            (Some(START), None),
            (Some(START.plus(Span::secs(30))), None),
        ] {
            assert_eq!(POLICY.renew_at(expires, START), renew_at.or(Some(START.plus(Span::mins(5)))), "{expires:?}");
            assert_eq!(until_refused.renew_at(expires, START), renew_at, "{expires:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_fetch_and_its_failure() {
        let (cached, clock) = cached();
        let fetches = AtomicU64::new(0);
        let fetch = || async {
            fetches.fetch_add(1, Ordering::Relaxed);
            clock.sleep(Span::secs(1)).await;
            Err(error(FailureKind::Server))
        };
        let (a, b) = tokio::join!(cached.get(&clock, None, fetch()), cached.get(&clock, None, fetch()));
        assert!(a.is_err() && b.is_err());
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        assert_eq!(cached.get(&clock, None, async { Ok((7, None)) }).await.map(|fetched| fetched.value), Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_kept_as_long_as_the_policy_says() {
        for (kind, kept) in [(FailureKind::Unauthorized, KEPT), (FailureKind::Server, Span::ZERO)] {
            let (cached, clock) = cached();
            assert!(cached.get(&clock, None, async { Err(error(kind)) }).await.is_err());
            if kept > Span::ZERO {
                clock.sleep(Span(kept.0 - 1)).await;
                let early = cached.get(&clock, None, async { Ok((1, None)) }).await;
                assert_eq!(early.err().and_then(|error| error.retry_at), Some(START.plus(kept)), "{kind}");
                clock.sleep(Span::millis(1)).await;
            }
            assert!(cached.get(&clock, None, async { Ok((1, None)) }).await.is_ok(), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_value_is_replaced_and_a_refused_new_one_is_not() {
        let (cached, clock) = cached();
        let get = async |refused, value| cached.get(&clock, refused, async { Ok((value, None)) }).await;
        assert_eq!(get(None, 1).await.unwrap().serial, 1);
        assert_eq!(get(Some(1), 2).await.unwrap().value, 2);
        assert_eq!(get(Some(1), 3).await.unwrap().value, 2, "another caller has replaced it already");
        cached.refuse(clock.now(), 1, &error(FailureKind::Unauthorized)).await;
        assert_eq!(get(None, 4).await.unwrap().value, 2, "the refusal was about an earlier value");
        cached.refuse(clock.now(), 2, &error(FailureKind::Unauthorized)).await;
        assert_eq!(get(None, 5).await.unwrap_err().kind, FailureKind::Unauthorized);
    }
}
