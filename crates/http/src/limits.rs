//! Rate limits (`docs/reference/design.md` §6): a token bucket of our own, and what the server says about its limits
//! (`Retry-After`, `X-RateLimit-*`, `docs/reference/actions-service.md` §7.3).
//!
//! One [`Limits`] belongs to one credential. All clones of its client share it, and all clients with the same
//! [`Allowance`]. A refusal for too many requests blocks *all* of them until the date the server gave, but never longer
//! than [`LONGEST_HOLD`].

use super::Response;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, StatusCode};
use medic_core::clock::Clock;
use medic_core::model::{Mono, Now, Span, Wall};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest time that an answer can block us: GitHub's window is one hour.
pub const LONGEST_HOLD: Span = Span::mins(65);

/// How long to wait after a refusal that gives no date: GitHub asks for "at least one minute".
pub const UNDATED_HOLD: Span = Span::mins(1);

/// The token bucket's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub per_second: NonZeroU32,
    pub burst: NonZeroU32,
    pub max_wait: Span,
}

impl Default for Rate {
    /// Far above what a sweep needs, far below what hurts a server.
    fn default() -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_second: at_least_one(10), burst: at_least_one(50), max_wait: Span::secs(5) }
    }
}

/// The quota of a credential as the server last sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub limit: Option<u64>,
    pub remaining: u64,
    pub reset: Option<Wall>,
}

/// The limits of one credential, to be shared by several clients.
#[derive(Clone)]
pub struct Allowance(pub(super) Arc<Limits>);

impl Allowance {
    /// Fresh limits. `reserve` is the share of the credential's quota, from 0 to 1, that is left to others.
    pub fn new(rate: Rate, reserve: Option<f64>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Limits::new(rate, reserve, clock)))
    }
}

/// Calls an hour of an ordinary credential, where the server does not say.
const ORDINARY_QUOTA: u64 = 5_000;

impl RateLimit {
    /// How many calls of the window a share of it is.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the limit; `as` saturates"
    )]
    #[expect(clippy::cast_precision_loss, reason = "a share is no exact number")]
    pub fn part(&self, share: f64) -> u64 {
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        (share * self.limit.unwrap_or(ORDINARY_QUOTA) as f64).round() as u64
    }

    /// From the headers of an answer; `None` when they do not say what is left.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Some(Self {
            limit: number(headers, "x-ratelimit-limit"),
            remaining: number(headers, "x-ratelimit-remaining")?,
            reset: number(headers, "x-ratelimit-reset").map(|seconds| Wall(seconds.saturating_mul(1000))),
        })
    }
}

/// The date of `Retry-After`, given in seconds or as an HTTP date; bounded by [`LONGEST_HOLD`].
pub fn retry_after(headers: &HeaderMap, now: Wall) -> Option<Wall> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let at = if let Ok(seconds) = text.parse::<u64>() {
        now.plus(Span::secs(seconds))
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Wall(u64::try_from(date.as_millisecond()).ok()?)
    };
    Some(bounded(at, now))
}

/// Whether this answer is a refusal for too many requests, and until when. A 403 is one only with the headers that
/// say so or with GitHub's words for its secondary limit; a plain 403 is a missing right.
pub fn refused_until(response: &Response, now: Wall) -> Option<Wall> {
    let after = retry_after(&response.headers, now);
    let exhausted = RateLimit::from_headers(&response.headers).filter(|quota| quota.remaining == 0);
    let limited = match response.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => after.is_some() || exhausted.is_some() || speaks_of_a_rate_limit(&response.body),
        _ => false,
    };
    limited.then(|| {
        let at = after.or_else(|| exhausted.and_then(|quota| quota.reset)).unwrap_or_else(|| now.plus(UNDATED_HOLD));
        bounded(at, now)
    })
}

fn bounded(at: Wall, now: Wall) -> Wall {
    at.max(now.plus(Span::secs(1))).min(now.plus(LONGEST_HOLD))
}

fn speaks_of_a_rate_limit(body: &[u8]) -> bool {
    let head = String::from_utf8_lossy(body.get(..1024).unwrap_or(body)).to_ascii_lowercase();
    head.contains("rate limit")
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) detail: String,
    pub(super) until: Wall,
}

pub(super) struct Limits {
    bucket: RateLimiter<NotKeyed, InMemoryState, BucketClock, NoOpMiddleware<Duration>>,
    max_wait: Span,
    reserve: Option<f64>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// On the monotonic clock, so that a clock set back cannot prolong it.
    blocked_until: Option<Mono>,
    quota: Option<RateLimit>,
}

impl Limits {
    pub(super) fn new(rate: Rate, reserve: Option<f64>, clock: Arc<dyn Clock>) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            bucket: RateLimiter::direct_with_clock(quota, BucketClock(Arc::clone(&clock))),
            max_wait: rate.max_wait,
            reserve,
            clock,
            state: Mutex::default(),
        }
    }

    pub(super) fn quota(&self) -> Option<RateLimit> {
        self.state().quota
    }

    /// Waits for a turn, at most `max_wait` and `longest`.
    pub(super) async fn admit(&self, longest: Span) -> Result<(), Blocked> {
        let longest = self.max_wait.min(longest);
        let began = self.clock.now().mono;
        loop {
            let now = self.clock.now();
            self.check(now)?;
            let Err(not_until) = self.bucket.check() else { return Ok(()) };
            let wait = not_until.wait_time_from(BucketClock(Arc::clone(&self.clock)).now());
            let wait = Span::from(wait).plus(Span::millis(1));
            if now.mono.since(began).plus(wait) > longest {
                return Err(Blocked {
                    detail: "our own limit of requests per second is reached; nothing was sent".to_owned(),
                    until: now.wall.plus(wait),
                });
            }
            self.clock.sleep(wait).await;
        }
    }

    /// Notes what an answer says about limits.
    pub(super) fn learn(&self, response: &Response, now: Now) {
        let quota = RateLimit::from_headers(&response.headers);
        let refused = refused_until(response, now.wall);
        if quota.is_none() && refused.is_none() {
            return;
        }
        let mut state = self.state();
        state.quota = quota.or(state.quota);
        if let Some(until) = refused {
            let until = now.mono.plus(until.since(now.wall));
            state.blocked_until = state.blocked_until.max(Some(until));
        }
    }

    fn check(&self, now: Now) -> Result<(), Blocked> {
        let mut state = self.state();
        match state.blocked_until {
            Some(until) if until > now.mono => {
                return Err(Blocked {
                    detail: "the server limits our requests and said when to ask again; nothing was sent".to_owned(),
                    until: now.wall.plus(until.since(now.mono)),
                });
            }
            Some(_) => state.blocked_until = None,
            None => {}
        }
        let (Some(reserve), Some(quota)) = (self.reserve, state.quota) else { return Ok(()) };
        let reserve = quota.part(reserve);
        match quota.reset {
            Some(reset) if reset > now.wall && quota.remaining <= reserve => Err(Blocked {
                detail: format!(
                    "{} calls are left of the credential's quota, and {reserve} are reserved for GARM; nothing was \
                     sent",
                    quota.remaining
                ),
                until: bounded(reset, now.wall),
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our clock as governor's, so that virtual time fills the bucket too.
#[derive(Clone)]
struct BucketClock(Arc<dyn Clock>);

impl governor::clock::Clock for BucketClock {
    type Instant = Duration;
    fn now(&self) -> Self::Instant {
        Duration::from_millis(self.0.now().mono.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const NOW: Wall = Wall(1_700_000_000_000);

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn refusal_for_too_many_requests_has_an_end() {
        let reset = ("x-ratelimit-reset", "1700000900");
        for (status, headers, body, wanted) in [
            (429, vec![("retry-after", "30")], "", Some(Span::secs(30))),
            (429, vec![("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT")], "", Some(Span::secs(60))),
            (429, vec![("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], "", Some(Span::secs(1))),
            (429, vec![("retry-after", "99999999999999")], "", Some(LONGEST_HOLD)),
            (429, vec![("retry-after", "soon")], "", Some(UNDATED_HOLD)),
            (403, vec![("x-ratelimit-remaining", "4999"), reset], "a plain 403", None),
            (403, vec![("x-ratelimit-remaining", "0"), reset], "", Some(Span::secs(900))),
            (403, vec![], r#"{"message":"You have exceeded a secondary rate limit."}"#, Some(UNDATED_HOLD)),
        ] {
            let until = refused_until(&answer(status, &headers, body), NOW);
            assert_eq!(until, wanted.map(|span| NOW.plus(span)), "{status} {headers:?} {body}");
        }
    }

    #[test]
    fn part_is_a_share_of_the_known_limit() {
        let quota = |limit| RateLimit { limit, remaining: 0, reset: None };
        for (limit, share, calls) in [
            (Some(15_000), 0.2, 3_000),
            (Some(1_000), 0.2, 200),
            (None, 0.2, 1_000),
            (Some(60), 1.0, 60),
            (Some(60), 7.0, 60),
            (Some(60), -1.0, 0),
            (Some(60), f64::NAN, 0),
        ] {
            assert_eq!(quota(limit).part(share), calls, "{limit:?} {share}");
        }
    }

    #[test]
    fn quota_is_read_from_the_headers() {
        let headers =
            [("x-ratelimit-limit", "5000"), ("x-ratelimit-remaining", "4990"), ("x-ratelimit-reset", "1700000900")];
        let quota = RateLimit { limit: Some(5000), remaining: 4990, reset: Some(Wall(1_700_000_900_000)) };
        assert_eq!(RateLimit::from_headers(&answer(200, &headers, "").headers), Some(quota));
        assert_eq!(RateLimit::from_headers(&answer(200, &[], "").headers), None);
    }
}
