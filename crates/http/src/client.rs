//! HTTP client for one server: time-outs, retries, rate limits.
//!
//! - A read is tried up to [`ATTEMPTS`] times, with full-jitter back-off, on failures that may be temporary (no connection,
//!   time-out, broken connection, 500/502/503/504). It is never retried on a 4xx, after its deadline (twice the
//!   exchange's time-out), or before `Retry-After`.
//! - A write is sent exactly once: only its caller can find out, by reading, whether a lost answer hides an effect.
//! - A refusal for too many requests blocks every later request of the credential until the date the server gave
//!   ([`super::limits`]).

use super::excerpt::one_line;
use super::limits::{Allowance, Limits, Rate, RateLimit, retry_after};
use super::redact::Redactor;
use super::{
    ApiError, BodySink, Bounds, Effect, Recorder, Response, Transport, TransportError, Upgrade, Upgrader, status,
};
use bytes::Bytes;
use http::{Request, StatusCode};
use medic_core::clock::Clock;
use medic_core::model::{FailureKind, Operation, Span, Target};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Tries of one read, the first included.
pub const ATTEMPTS: u32 = 3;

/// The first back-off's upper end; it doubles per attempt.
const FIRST_BACKOFF: Span = Span::millis(200);

const LONGEST_BACKOFF: Span = Span::secs(2);

/// Returns a random span up to the one given.
pub type Jitter = Arc<dyn Fn(Span) -> Span + Send + Sync>;

/// The client of one target with one credential. Clones share its limits.
#[derive(Clone)]
pub struct Client {
    pub target: Target,
    transport: Arc<dyn Transport>,
    recorder: Arc<dyn Recorder>,
    clock: Arc<dyn Clock>,
    bounds: Bounds,
    jitter: Jitter,
    limits: Arc<Limits>,
    redactor: Arc<Redactor>,
}

impl Client {
    /// A client of `target` over `transport`, with default [`Rate`].
    pub fn new(
        target: Target,
        transport: Arc<dyn Transport>,
        recorder: Arc<dyn Recorder>,
        clock: Arc<dyn Clock>,
        bounds: Bounds,
    ) -> Self {
        let limits = Arc::new(Limits::new(Rate::default(), None, Arc::clone(&clock)));
        let (jitter, redactor): (Jitter, _) = (Arc::new(random_span), Arc::default());
        Self { target, transport, recorder, clock, bounds, jitter, limits, redactor }
    }

    /// With another token bucket. Call it before cloning: the result shares no limits with `self`.
    #[must_use]
    pub fn with_rate(self, rate: Rate) -> Self {
        let allowance = Allowance::new(rate, None, Arc::clone(&self.clock));
        self.with_allowance(&allowance)
    }

    /// With limits shared with other clients of the same credential.
    #[must_use]
    pub fn with_allowance(mut self, allowance: &Allowance) -> Self {
        self.limits = Arc::clone(&allowance.0);
        self
    }

    /// With other bounds; shares the limits of `self`.
    #[must_use]
    pub fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// With another source of jitter, for simulations that must repeat exactly.
    #[must_use]
    pub fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub fn jitter(&self) -> Jitter {
        Arc::clone(&self.jitter)
    }

    /// The credential's quota, once the server has sent it.
    pub fn quota(&self) -> Option<RateLimit> {
        self.limits.quota()
    }

    /// `text` without the secrets that this client has sent.
    pub fn without_secrets(&self, text: &str) -> String {
        self.redactor.clean_text(text)
    }

    /// An error about an answer or its absence, without secrets: the effect is unknown unless the caller knows better.
    pub fn error(&self, operation: Operation, kind: FailureKind, detail: &str) -> ApiError {
        let detail = self.without_secrets(detail);
        ApiError { target: self.target, operation, kind, detail, effect: Effect::Unknown, retry_at: None }
    }

    /// JSON of a 2xx answer. A byte order mark is tolerated; the parser does not recurse deeper than 128 levels.
    pub fn json<T: DeserializeOwned>(&self, operation: Operation, response: &Response) -> Result<T, ApiError> {
        serde_json::from_slice(without_bom(&response.body)).map_err(|error| {
            let detail = one_line(&format!("not the JSON that the server should send: {error}"));
            self.error(operation, FailureKind::Malformed, &detail)
        })
    }

    /// The error of an answer that is not 2xx; `None` for 2xx.
    pub fn failure(&self, operation: Operation, response: &Response) -> Option<ApiError> {
        status::failure(self.target, operation, response, self.clock.now())
    }

    /// An idempotent read: retried, with jitter, on failures that a second try may cure. Any status is an answer.
    pub async fn read(&self, operation: Operation, request: Request<Bytes>) -> Result<Response, ApiError> {
        self.tries(operation, request, None).await
    }

    /// As [`Self::read`], with the body of a 2xx answer handed to `sink` in pieces and not kept.
    pub async fn read_into(
        &self,
        operation: Operation,
        request: Request<Bytes>,
        sink: &mut dyn BodySink,
    ) -> Result<Response, ApiError> {
        self.tries(operation, request, Some(sink)).await
    }

    /// A write: sent exactly once. Any status is an answer.
    pub async fn write(&self, operation: Operation, request: Request<Bytes>) -> Result<Response, ApiError> {
        self.admit(operation, Span::MAX).await?;
        self.once(operation, request, self.bounds, None).await
    }

    /// A request to switch protocols, carried by `upgrader`: sent once, rate-limited and recorded like any other.
    pub async fn upgrade(
        &self,
        operation: Operation,
        request: Request<Bytes>,
        upgrader: &dyn Upgrader,
    ) -> Result<Upgrade, ApiError> {
        self.admit(operation, Span::MAX).await?;
        self.redactor.learn(&request);
        let sent = self.clock.now().mono;
        let answer = match upgrader.upgrade(request, self.bounds).await {
            Ok(Upgrade::Answered(response)) => Ok(Upgrade::Answered(self.redacted(response))),
            other => other,
        };
        let now = self.clock.now();
        let failure = match &answer {
            Ok(Upgrade::Switched { .. }) => None,
            Ok(Upgrade::Answered(response)) => {
                self.limits.learn(response, now);
                status::classify(response, now).or(Some(FailureKind::Malformed))
            }
            Err(error) => Some(error.kind),
        };
        self.recorder.exchange(self.target, operation, now.mono.since(sent), failure);
        answer.map_err(|error| self.unanswered(operation, &error))
    }

    async fn tries(
        &self,
        operation: Operation,
        request: Request<Bytes>,
        mut sink: Option<&mut dyn BodySink>,
    ) -> Result<Response, ApiError> {
        let deadline = self.bounds.total.times(2);
        let began = self.clock.now().mono;
        let mut attempt = 1;
        let left = || Span(deadline.0.saturating_sub(self.clock.now().mono.since(began).0));
        loop {
            self.admit(operation, left()).await?;
            let bounds = Bounds { total: self.bounds.total.min(left()), ..self.bounds };
            let again = sink.as_mut().map(|sink| &mut **sink as &mut dyn BodySink);
            let answer = self.once(operation, request.clone(), bounds, again).await;
            match self.pause_before_next(attempt, &answer) {
                Some(pause) if pause < left() => self.clock.sleep(pause).await,
                Some(_) | None => return answer.map_err(|error| with_attempts(error, attempt)),
            }
            attempt += 1;
        }
    }

    /// Waits until the limits let a request through, at most `longest`.
    async fn admit(&self, operation: Operation, longest: Span) -> Result<(), ApiError> {
        let began = self.clock.now().mono;
        let Err(blocked) = self.limits.admit(longest).await else { return Ok(()) };
        let took = self.clock.now().mono.since(began);
        self.recorder.exchange(self.target, operation, took, Some(FailureKind::HeldBack));
        let error = self.error(operation, FailureKind::HeldBack, &blocked.detail);
        Err(ApiError { retry_at: Some(blocked.until), ..error.not_sent() })
    }

    async fn once(
        &self,
        operation: Operation,
        request: Request<Bytes>,
        bounds: Bounds,
        sink: Option<&mut dyn BodySink>,
    ) -> Result<Response, ApiError> {
        self.redactor.learn(&request);
        let sent = self.clock.now().mono;
        let answer = match sink {
            Some(sink) => self.transport.stream(request, bounds, sink).await,
            None => self.transport.send(request, bounds).await,
        };
        let answer = answer.map(|response| self.redacted(response));
        let now = self.clock.now();
        let failure = match &answer {
            Ok(response) => {
                self.limits.learn(response, now);
                status::classify(response, now)
            }
            Err(error) => Some(error.kind),
        };
        self.recorder.exchange(self.target, operation, now.mono.since(sent), failure);
        answer.map_err(|error| self.unanswered(operation, &error))
    }

    fn unanswered(&self, operation: Operation, error: &TransportError) -> ApiError {
        ApiError { effect: effect_of(error.kind), ..self.error(operation, error.kind, &error.detail) }
    }

    /// Answers other than 2xx are shown to people; a 2xx may rightly hold a token that is in use.
    fn redacted(&self, mut response: Response) -> Response {
        if !response.status.is_success() {
            response.body = self.redactor.clean(&response.body);
        }
        response
    }

    /// How long to wait before the next attempt; `None` if there is none.
    fn pause_before_next(&self, attempt: u32, answer: &Result<Response, ApiError>) -> Option<Span> {
        if attempt >= ATTEMPTS {
            return None;
        }
        let asked = match answer {
            Ok(response) if may_pass(response.status) => {
                let now = self.clock.now().wall;
                retry_after(&response.headers, now).map_or(Span::ZERO, |at| at.since(now))
            }
            Err(error) if may_be_cured(error.kind) => Span::ZERO,
            Ok(_) | Err(_) => return None,
        };
        let most = FIRST_BACKOFF.times(1 << (attempt - 1)).min(LONGEST_BACKOFF);
        Some((self.jitter)(most).min(most).max(asked))
    }
}

const fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

const fn may_be_cured(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Connect | FailureKind::Timeout | FailureKind::Broken)
}

const fn effect_of(kind: FailureKind) -> Effect {
    match kind {
        FailureKind::Connect | FailureKind::Tls => Effect::None,
        _ => Effect::Unknown,
    }
}

fn with_attempts(mut error: ApiError, attempts: u32) -> ApiError {
    if attempts > 1 {
        error.detail = format!("{} (tried {attempts} times)", error.detail);
    }
    error
}

/// `body` without a byte order mark, which any answer may begin with (`docs/reference/actions-service.md` §1.5).
pub fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(body)
}

pub fn random_span(most: Span) -> Span {
    Span(rand::random_range(0..=most.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, NoRecorder};
    use async_trait::async_trait;
    use medic_clock::ScaledClock;
    use medic_core::model::Wall;
    use std::collections::VecDeque;
    use std::num::NonZeroU32;
    use std::sync::Mutex;

    /// Answers from a list, then 200.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Answer>>,
        bounds: Mutex<Vec<Bounds>>,
    }

    impl Script {
        fn sent(&self) -> usize {
            self.bounds.lock().unwrap().len()
        }
    }

    #[async_trait]
    impl Transport for Script {
        async fn send(&self, _: Request<Bytes>, bounds: Bounds) -> Answer {
            self.bounds.lock().unwrap().push(bounds);
            self.answers.lock().unwrap().pop_front().unwrap_or_else(|| ok(200, &[]))
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "an element of a script")]
    fn ok(status: u16, headers: &[(&'static str, &str)]) -> Answer {
        let mut response = Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: Bytes::new(),
        };
        for (name, value) in headers {
            response.headers.insert(*name, value.parse().unwrap());
        }
        Ok(response)
    }

    fn broken(kind: FailureKind) -> Answer {
        Err(TransportError { kind, detail: "it broke".to_owned() })
    }

    fn client(answers: impl IntoIterator<Item = Answer>) -> (Client, Arc<Script>, Arc<dyn Clock>) {
        let script = Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), ..Script::default() });
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(Wall(1_700_000_000_000), 1.0));
        let bounds = Bounds { total: Span::secs(10), body: 1024 };
        let transport: Arc<dyn Transport> = script.clone();
        let client = Client::new(Target::Github, transport, Arc::new(NoRecorder), Arc::clone(&clock), bounds)
            .with_jitter(Arc::new(|most| most));
        (client, script, clock)
    }

    async fn read(client: &Client) -> Result<Response, ApiError> {
        client.read(Operation::ListGithubSets, Request::new(Bytes::new())).await
    }

    async fn write(client: &Client) -> Result<Response, ApiError> {
        client.write(Operation::SetEnabled, Request::new(Bytes::new())).await
    }

    #[tokio::test(start_paused = true)]
    async fn read_is_tried_three_times_with_growing_pauses() {
        let (client, script, clock) = client((0..5).map(|_| broken(FailureKind::Connect)));
        let error = read(&client).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (FailureKind::Connect, Effect::None));
        assert_eq!(error.detail, "it broke (tried 3 times)");
        assert_eq!(script.sent(), 3);
        assert_eq!(clock.now().mono.0, 600, "200 ms, then 400 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn read_is_retried_only_after_a_passing_failure() {
        for (status, sent) in [503, 502, 500, 504]
            .map(|status| (status, 2))
            .into_iter()
            .chain([400, 401, 403, 404, 409, 422, 501].map(|status| (status, 1)))
        {
            let (client, script, _) = client([ok(status, &[])]);
            let last = if sent == 2 { 200 } else { status };
            assert_eq!((read(&client).await.unwrap().status.as_u16(), script.sent()), (last, sent));
        }
        let (client, script, _) = client([broken(FailureKind::Timeout)]);
        assert!(read(&client).await.is_ok() && script.sent() == 2);
        for kind in [FailureKind::Tls, FailureKind::TooLarge, FailureKind::Redirect, FailureKind::Malformed] {
            let (client, script, _) = self::client([broken(kind)]);
            assert_eq!((read(&client).await.unwrap_err().kind, script.sent()), (kind, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn write_is_sent_once_whatever_comes_back() {
        for answer in [ok(503, &[]), ok(500, &[])] {
            let (client, script, _) = client([answer]);
            assert!(write(&client).await.unwrap().status.is_server_error());
            assert_eq!(script.sent(), 1);
        }
        for (kind, effect) in [
            (FailureKind::Connect, Effect::None),
            (FailureKind::Tls, Effect::None),
            (FailureKind::Timeout, Effect::Unknown),
            (FailureKind::Broken, Effect::Unknown),
            (FailureKind::TooLarge, Effect::Unknown),
            (FailureKind::Malformed, Effect::Unknown),
        ] {
            let (client, script, _) = client([broken(kind)]);
            assert_eq!(write(&client).await.unwrap_err().effect, effect, "{kind}");
            assert_eq!(script.sent(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rate_limit_refusal_blocks_all_clones_until_its_date() {
        let (client, script, clock) = client([ok(429, &[("retry-after", "30")])]);
        let other = client.clone();
        let until = clock.now().wall.plus(Span::secs(30));
        assert_eq!(read(&client).await.unwrap().status.as_u16(), 429);
        clock.sleep(Span::secs(29)).await;
        let error = write(&other).await.unwrap_err();
        assert_eq!((error.kind, error.effect, error.retry_at), (FailureKind::HeldBack, Effect::None, Some(until)));
        assert_eq!(script.sent(), 1, "nothing is sent while blocked");
        clock.sleep(Span::secs(1)).await;
        assert!(write(&other).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn quota_reserve_is_left_to_the_manager() {
        let reset = ("x-ratelimit-reset", "1700000060");
        let exhausted = [("x-ratelimit-remaining", "100"), ("x-ratelimit-limit", "500"), reset];
        let more = [("x-ratelimit-remaining", "101"), ("x-ratelimit-limit", "500"), reset];
        let (client, script, clock) = client([ok(200, &more), ok(200, &exhausted)]);
        let allowance = Allowance::new(Rate::default(), Some(0.2), Arc::clone(&clock));
        let client = client.with_allowance(&allowance);
        read(&client).await.unwrap();
        read(&client).await.unwrap();
        let error = read(&client).await.unwrap_err();
        assert_eq!((error.kind, error.retry_at), (FailureKind::HeldBack, Some(Wall(1_700_000_060_000))));
        clock.sleep(Span::secs(60)).await;
        read(&client).await.unwrap();
        assert_eq!(script.sent(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn read_ends_within_twice_the_exchange_timeout() {
        // The exchange's time-out is 10 s.
        let (client, script, clock) = client([ok(503, &[("retry-after", "25")])]);
        assert_eq!(read(&client).await.unwrap().status.as_u16(), 503);
        assert_eq!((script.sent(), clock.now().mono.0), (1, 0), "waiting 25 s would be too late");
        let (client, script, _) = self::client([ok(503, &[("retry-after", "14")])]);
        read(&client).await.unwrap();
        let totals: Vec<u64> = script.bounds.lock().unwrap().iter().map(|bounds| bounds.total.0).collect();
        assert_eq!(totals, [10_000, 6_000], "the second attempt has what is left");
    }

    #[tokio::test(start_paused = true)]
    async fn bucket_blocks_a_request_that_would_wait_too_long() {
        let one = NonZeroU32::MIN;
        let (client, script, clock) = client([]);
        let client = client.with_rate(Rate { per_second: one, burst: one, max_wait: Span::secs(2) });
        for _ in 0..3 {
            write(&client).await.unwrap();
        }
        assert_eq!(script.sent(), 3);
        assert!((2_000..2_100).contains(&clock.now().mono.0), "{}", clock.now().mono.0);
        let patient = client.clone();
        let hasty = client.with_rate(Rate { per_second: one, burst: one, max_wait: Span::millis(500) });
        write(&hasty).await.unwrap();
        let error = write(&hasty).await.unwrap_err();
        assert_eq!((error.kind, error.effect), (FailureKind::HeldBack, Effect::None));
        assert!(error.retry_at.is_some());
        write(&patient).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn streamed_body_drops_a_failed_attempt() {
        #[derive(Default)]
        struct Kept(Vec<u8>);
        impl BodySink for Kept {
            fn begin(&mut self) {
                self.0.clear();
            }
            fn piece(&mut self, piece: &[u8]) {
                self.0.extend_from_slice(piece);
            }
        }
        let body = |status, text: &'static str| {
            let mut response = ok(status, &[])?;
            response.body = Bytes::from_static(text.as_bytes());
            Ok(response)
        };
        let (client, _, _) = client([body(503, "busy"), body(200, "all of it"), body(404, "none")]);
        let mut kept = Kept::default();
        let response = client.read_into(Operation::Goroutines, Request::default(), &mut kept).await.unwrap();
        assert_eq!((kept.0.as_slice(), response.body.len()), (b"all of it".as_slice(), 0));
        let refused = client.read_into(Operation::Goroutines, Request::default(), &mut kept).await.unwrap();
        assert_eq!((kept.0.len(), refused.body.as_ref()), (0, b"none".as_slice()), "a refusal keeps its body");
    }

    #[tokio::test(start_paused = true)]
    async fn every_exchange_is_recorded_with_its_failure() {
        #[derive(Default)]
        struct Seen(Mutex<Vec<Option<FailureKind>>>);
        impl Recorder for Seen {
            fn exchange(&self, _: Target, _: Operation, _: Span, failure: Option<FailureKind>) {
                self.0.lock().unwrap().push(failure);
            }
        }
        let (client, _, _) = client([broken(FailureKind::Broken), ok(500, &[]), ok(200, &[]), ok(429, &[])]);
        let seen = Arc::new(Seen::default());
        let client = Client { recorder: seen.clone(), ..client };
        for _ in 0..3 {
            let _ = read(&client).await;
        }
        let expected = [
            Some(FailureKind::Broken),
            Some(FailureKind::Server),
            None,
            Some(FailureKind::RateLimited),
            Some(FailureKind::HeldBack),
        ];
        assert_eq!(*seen.0.lock().unwrap(), expected);
    }
}
