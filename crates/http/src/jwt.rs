//! The expiry of a JWT, read without verifying the signature: for us a hint, the server checks its tokens itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use medic_core::model::Wall;
use serde::Deserialize;

/// `exp` of the payload; `None` when the text is no JWT or has none.
pub fn expiry(jwt: &str) -> Option<Wall> {
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
    fn expiry_is_read_from_the_payload_or_absent() {
        let jwt = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry(&jwt(r#"{"exp":1700000000,"iss":"garm"}"#)), Some(Wall(1_700_000_000_000)));
        assert_eq!(expiry(&jwt(r#"{"exp":1700000000.5}"#)), Some(Wall(1_700_000_000_500)));
        for claims in ["{}", r#"{"exp":-1}"#, r#"{"exp":null}"#] {
            assert_eq!(expiry(&jwt(claims)), None, "{claims}");
        }
        for text in ["", "a.b", "REDACTED.JWT.TOKEN", "oddtoken"] {
            assert_eq!(expiry(text), None, "{text}");
        }
    }
}
