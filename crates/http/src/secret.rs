//! Text that must appear nowhere: passwords and tokens. It has no `Display` and no `Serialize`, so that a log, an
//! error or a status page cannot take it in by accident; [`Secret::expose`] is the one, greppable way out.

use async_trait::async_trait;

/// Gives a secret each time it is needed, so that one that was rotated is used from then on.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// The secret as it is now.
    ///
    /// # Errors
    /// Why it cannot be had, for people.
    async fn secret(&self) -> Result<Secret, String>;
}

/// One that is at hand.
#[async_trait]
impl<F: Fn() -> Result<Secret, String> + Send + Sync> SecretSource for F {
    async fn secret(&self) -> Result<Secret, String> {
        self()
    }
}

/// A password or a token.
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
    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    fn a_debug_print_shows_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert_eq!(secret.expose(), "hunter2");
    }
}
