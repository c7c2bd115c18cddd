//! Passwords and tokens. A [`Secret`] has no `Display` and no `Serialize`, so that it cannot get into a log, an error or
//! a status page by accident; [`Secret::expose`] is the one, greppable way out.

use async_trait::async_trait;
use http::HeaderValue;

/// Returns a secret each time it is needed, so that a rotated one is used from then on.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The secret as it is now, or why it cannot be read.
    async fn secret(&self) -> Result<Secret, String>;
}

#[async_trait]
impl<F: Fn() -> Result<Secret, String> + Send + Sync> SecretSource for F {
    async fn secret(&self) -> Result<Secret, String> {
        self()
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The text itself, for the wire only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `SCHEME SECRET` as a header, marked as sensitive; `None` if the secret is empty or cannot stand in a header.
    #[must_use]
    pub fn authorization(&self, scheme: &str) -> Option<HeaderValue> {
        let text = Some(self.0.trim()).filter(|text| !text.is_empty())?;
        let mut header = HeaderValue::from_str(&format!("{scheme} {text}")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_and_header_hide_the_secret() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert_eq!(secret.expose(), "hunter2");
        let header = secret.authorization("Bearer").unwrap();
        assert_eq!((header.as_bytes(), header.is_sensitive()), (b"Bearer hunter2".as_slice(), true));
        for unusable in ["", " ", "a\nb"] {
            assert_eq!(Secret::new(unusable).authorization("Bearer"), None, "{unusable:?}");
        }
    }
}
