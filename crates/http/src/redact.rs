//! Removes the secrets that a client has sent from what its server answers: some servers and proxies repeat a request
//! in their error pages. Only the latest few secrets are kept, which are the ones in use.
//!
//! Edge cases: a secret escaped for JSON, HTML or a query; a secret so short that it is in every text is not searched.

use super::Secret;
use bytes::Bytes;
use http::{Request, header};
use memchr::memmem;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Password and tokens, with their predecessors.
const KEPT: usize = 8;

const SHORTEST: usize = 4;

const REDACTED: &[u8] = b"[redacted]";

/// Marks a secret in a request's body; put it into the request's extensions.
#[derive(Clone)]
pub struct Carried(pub Secret);

#[derive(Default)]
pub(super) struct Redactor(Mutex<VecDeque<Spellings>>);

/// All spellings in which one secret may come back; the first is the secret itself.
#[derive(PartialEq, Eq)]
struct Spellings(Vec<Vec<u8>>);

impl Redactor {
    pub(super) fn learn(&self, request: &Request<Bytes>) {
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.rsplit(' ').next());
        let carried = request.extensions().get::<Carried>().map(|carried| carried.0.expose());
        for secret in token.into_iter().chain(carried).filter(|secret| secret.len() >= SHORTEST) {
            let mut secrets = self.lock();
            if secrets.iter().any(|spellings| spellings.0.first().is_some_and(|first| first == secret.as_bytes())) {
                continue;
            }
            if secrets.len() >= KEPT {
                secrets.pop_front();
            }
            secrets.push_back(Spellings::of(secret));
        }
    }

    pub(super) fn clean(&self, body: &Bytes) -> Bytes {
        let secrets = self.lock();
        let mut cleaned: Option<Vec<u8>> = None;
        for spelling in secrets.iter().flat_map(|spellings| &spellings.0) {
            if let Some(without) = without(cleaned.as_deref().unwrap_or(body), spelling) {
                cleaned = Some(without);
            }
        }
        cleaned.map_or_else(|| body.clone(), Bytes::from)
    }

    pub(super) fn clean_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.clean(&Bytes::copy_from_slice(text.as_bytes()))).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Spellings>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spellings {
    fn of(secret: &str) -> Self {
        let json = serde_json::Value::from(secret).to_string();
        let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        let query = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        let path = query.replace('+', "%20");
        let mut all: Vec<Vec<u8>> = vec![secret.as_bytes().to_vec()];
        for spelling in [json.trim_matches('"'), &html, &query, &path] {
            if !all.iter().any(|known| known == spelling.as_bytes()) {
                all.push(spelling.as_bytes().to_vec());
            }
        }
        Self(all)
    }
}

/// `None` when the secret is not in it.
fn without(body: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut from = 0;
    for at in memmem::find_iter(body, secret) {
        out.extend_from_slice(body.get(from..at).unwrap_or_default());
        out.extend_from_slice(REDACTED);
        from = at.saturating_add(secret.len());
    }
    (from > 0).then(|| {
        out.extend_from_slice(body.get(from..).unwrap_or_default());
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_secret_is_redacted_in_every_spelling() {
        let redactor = Redactor::default();
        let mut request = Request::new(Bytes::new());
        request.headers_mut().insert(header::AUTHORIZATION, "Bearer opaque-token".parse().unwrap());
        request.extensions_mut().insert(Carried(Secret::new("p<\"w\" 1")));
        redactor.learn(&request);
        let echo = r#"opaque-token; p<"w" 1; p<\"w\" 1; p&lt;&quot;w&quot; 1; p%3C%22w%22+1; p%3C%22w%22%201; end"#;
        let cleaned = redactor.clean_text(echo);
        assert_eq!(cleaned, "[redacted]; [redacted]; [redacted]; [redacted]; [redacted]; [redacted]; end");
    }

    #[test]
    fn only_the_latest_secrets_are_kept() {
        let redactor = Redactor::default();
        for n in 0..=KEPT {
            let mut request = Request::new(Bytes::new());
            request.extensions_mut().insert(Carried(Secret::new(format!("secret-{n}"))));
            redactor.learn(&request);
            redactor.learn(&request);
        }
        assert_eq!(redactor.clean_text("secret-0 secret-1 secret-8"), "secret-0 [redacted] [redacted]");
    }
}
