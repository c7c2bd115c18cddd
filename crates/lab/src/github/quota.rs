//! The primary rate limit of the REST API, per credential: a number of calls in a fixed hour that starts with the first
//! call, and its headers (`docs/reference/actions-service.md` §7.3). The Actions service has no limit.

use super::config::{Credential, QuotaAnswer};
use super::exception::rest_error;
use super::unix_seconds;
use crate::wire::Answer;
use http::HeaderValue;
use medic_core::model::{Span, Wall};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Quotas(BTreeMap<String, Quota>);

#[derive(Debug, Clone)]
struct Quota {
    limit: u64,
    used: u64,
    reset: Wall,
    /// A secondary limit: refused until this date, with `Retry-After`, in this way.
    secondary: Option<(Wall, QuotaAnswer)>,
}

impl Quotas {
    pub(super) fn new(credentials: &[Credential]) -> Self {
        let quota = |c: &Credential| Quota { limit: c.limit, used: 0, reset: Wall(0), secondary: None };
        Self(credentials.iter().map(|credential| (credential.name.clone(), quota(credential))).collect())
    }

    /// Charges one call, or says why it is refused.
    pub(super) fn charge(&mut self, credential: &str, now: Wall, style: QuotaAnswer) -> Result<(), Answer> {
        let Some(quota) = self.0.get_mut(credential) else { return Ok(()) };
        quota.roll(now);
        if let Some((until, style)) = quota.secondary.filter(|(until, _)| now < *until) {
            let answer = rest_error(style.status, "You have exceeded a secondary rate limit. Please wait.");
            return Err(with_retry_after(answer, style, until.since(now)));
        }
        if quota.used >= quota.limit {
            let answer = rest_error(style.status, "API rate limit exceeded for this credential.");
            return Err(with_retry_after(answer, style, quota.reset.since(now)));
        }
        quota.used = quota.used.saturating_add(1);
        Ok(())
    }

    pub(super) fn stamp(&self, credential: &str, answer: &mut Answer) {
        let Some(quota) = self.0.get(credential) else { return };
        let remaining = quota.limit.saturating_sub(quota.used);
        let headers = answer.response.headers_mut();
        for (name, value) in [
            ("x-ratelimit-limit", quota.limit),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-used", quota.used),
            ("x-ratelimit-reset", unix_seconds(quota.reset)),
        ] {
            headers.insert(name, HeaderValue::from(value));
        }
        headers.insert("x-ratelimit-resource", HeaderValue::from_static("core"));
    }

    pub(super) fn json(&mut self, credential: &str, now: Wall) -> Value {
        let Some(quota) = self.0.get_mut(credential) else { return Value::Null };
        quota.roll(now);
        json!({
            "limit": quota.limit,
            "used": quota.used,
            "remaining": quota.limit.saturating_sub(quota.used),
            "reset": unix_seconds(quota.reset),
        })
    }

    pub(super) fn exhaust(&mut self, credential: &str, reset: Wall) {
        if let Some(quota) = self.0.get_mut(credential) {
            quota.used = quota.limit;
            quota.reset = reset;
        }
    }

    pub(super) fn refuse(&mut self, credential: &str, until: Wall, style: QuotaAnswer) {
        if let Some(quota) = self.0.get_mut(credential) {
            quota.secondary = Some((until, style));
        }
    }
}

impl Quota {
    fn roll(&mut self, now: Wall) {
        if now >= self.reset {
            self.used = 0;
            self.reset = now.plus(Span::hours(1));
        }
    }
}

fn with_retry_after(mut answer: Answer, style: QuotaAnswer, wait: Span) -> Answer {
    if style.retry_after {
        let seconds = wait.as_millis().div_ceil(1000);
        answer.response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
