//! Tokens: asked for once, by one caller, however many need one; kept until they expire or are refused.
//!
//! GARM has no refresh (`docs/reference/garm-api.md` §3): re-login is the only renewal, and each login costs it a
//! password hash. So concurrent callers share one attempt, its failure included, and refused credentials are not
//! offered again for [`COOLDOWN`]. `exp` is read without verifying the signature: it is a hint for us, GARM checks its
//! tokens itself. Where it is absent, unreadable or already past (a clock that is wrong), the token is used until GARM
//! refuses it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use medic_core::clock::Clock;
use medic_core::model::{FailureKind, Mono, Span, Wall};
use medic_http::{ApiError, Secret};
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// How long refused credentials are not offered again.
const COOLDOWN: Span = Span::secs(10);

/// A token this close to its end is renewed before use.
const MARGIN: Span = Span::secs(60);

/// A token as it is sent.
#[derive(Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(super) header: HeaderValue,
    /// Which one it is; later ones are higher.
    pub(super) serial: u64,
    expires: Option<Wall>,
}

/// One kind of token of one user.
#[derive(Default)]
pub(super) struct TokenCache {
    attempts: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failure: Option<(ApiError, Mono)>,
}

impl TokenCache {
    /// The kept token, or a new one from `fetch` when there is none, it is about to expire, or the server refused
    /// it (`refused` is its serial). Whoever waited while another caller's `fetch` failed gets that failure.
    pub(super) async fn token(
        &self,
        clock: &dyn Clock,
        refused: Option<u64>,
        fetch: impl Future<Output = Result<Secret, ApiError>>,
        unusable: impl FnOnce() -> ApiError,
    ) -> Result<Token, ApiError> {
        let before = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        let now = clock.now();
        let kept = state.token.as_ref().filter(|token| refused.is_none_or(|serial| token.serial > serial));
        if let Some(token) = kept.filter(|token| token.lives_at(now.wall)) {
            return Ok(token.clone());
        }
        if let Some((error, at)) = &state.failure {
            let shared = self.attempts.load(Ordering::Acquire) != before;
            if shared || (is_refusal(error.kind) && now.mono.since(*at) < COOLDOWN) {
                return Err(error.clone());
            }
        }
        let fetched = fetch.await;
        let serial = self.attempts.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let now = clock.now();
        match fetched.and_then(|secret| Token::new(&secret, serial, now.wall).ok_or_else(unusable)) {
            Ok(token) => {
                *state = State { token: Some(token.clone()), failure: None };
                Ok(token)
            }
            Err(error) => {
                *state = State { token: None, failure: Some((error.clone(), now.mono)) };
                Err(error)
            }
        }
    }

    /// When the kept token ends, if there is one and it tells.
    pub(super) async fn ends(&self) -> Option<Wall> {
        self.state.lock().await.token.as_ref()?.expires
    }
}

impl Token {
    /// `None` when the text cannot stand in a header.
    fn new(secret: &Secret, serial: u64, now: Wall) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose())).ok()?;
        header.set_sensitive(true);
        let expires = expiry(secret.expose()).filter(|at| *at > now.plus(MARGIN));
        Some(Self { header, serial, expires })
    }

    fn lives_at(&self, now: Wall) -> bool {
        self.expires.is_none_or(|at| at > now.plus(MARGIN))
    }
}

const fn is_refusal(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotInitialised)
}

/// `exp` of a JWT's payload.
fn expiry(jwt: &str) -> Option<Wall> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = jwt.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let seconds = std::time::Duration::try_from_secs_f64(claims.exp).ok()?;
    Some(Wall(0).plus(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_read_from_the_payload() {
        let jwt = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"exp":1700000000,"iss":"garm"}"#));
        assert_eq!(expiry(&jwt), Some(Wall(1_700_000_000_000)));
        for odd in ["", "a.b", "REDACTED.JWT.TOKEN", "a.e30.b"] {
            assert_eq!(expiry(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_token_that_is_past_at_birth_is_used_until_it_is_refused() {
        let jwt = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"exp":5}"#));
        let token = Token::new(&Secret::new(jwt), 1, Wall(1_700_000_000_000)).unwrap();
        assert!(token.lives_at(Wall(1_700_000_000_000)));
        assert!(Token::new(&Secret::new("a\nb"), 1, Wall(0)).is_none());
    }
}
