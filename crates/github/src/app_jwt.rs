//! The JWT of a GitHub App (`docs/reference/actions-service.md` §1.2): RS256 over `iat`, `exp` and `iss`.
//!
//! `iat` is a minute back and `exp` eight minutes ahead, so that GitHub accepts the token of a clock that is a minute wrong
//! (it refuses an `exp` more than ten minutes ahead).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use medic_core::model::{Span, Wall};
use medic_http::Secret;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

const BACKDATED: Span = Span::secs(60);
const LIFE: Span = Span::mins(9);

/// A signed JWT of the App. The error holds nothing of the key.
pub(super) fn sign(app_id: u64, private_key: &Secret, now: Wall) -> Result<Secret, String> {
    let key = key_pair(private_key)?;
    let issued = now.minus(BACKDATED);
    let claims = serde_json::json!({
        "iat": issued.0 / 1000,
        "exp": issued.plus(LIFE).0 / 1000,
        "iss": app_id.to_string(),
    });
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| "signing with the App's private key failed".to_owned())?;
    Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

fn key_pair(private_key: &Secret) -> Result<RsaKeyPair, String> {
    let unusable = |why: &str| format!("the App's private key cannot be used: {why}");
    let der = PrivateKeyDer::from_pem_slice(private_key.expose().as_bytes())
        .map_err(|_| unusable("it is no PEM file with a private key"))?;
    let key = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(unusable("it is no RSA key; GitHub Apps have no other")),
    };
    key.map_err(|rejected| unusable(&rejected.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    const PKCS1: &str = include_str!("../../../tests/fixtures/keys/app-key.pkcs1.pem");
    const PKCS8: &str = include_str!("../../../tests/fixtures/keys/app-key.pkcs8.pem");
    const PUBLIC: &[u8] = include_bytes!("../../../tests/fixtures/keys/app-key.public.der");
    const NOW: Wall = Wall(1_700_000_000_000);

    #[test]
    fn signature_verifies_for_both_key_forms() {
        for pem in [PKCS1, PKCS8] {
            let jwt = sign(1234, &Secret::new(pem), NOW).unwrap();
            let (signed, signature) = jwt.expose().rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, PUBLIC).verify(signed.as_bytes(), &signature).unwrap();

            let (header, claims) = signed.split_once('.').unwrap();
            assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"RS256","typ":"JWT"}"#);
            let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            let expected = serde_json::json!({"iat": 1_699_999_940, "exp": 1_700_000_480, "iss": "1234"});
            assert_eq!(claims, expected);
        }
    }

    #[test]
    fn unusable_key_is_not_repeated() {
        let cut = PKCS8.replacen("MII", "AAA", 1);
        for odd in ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", &cut] {
            let error = sign(1, &Secret::new(odd), NOW).unwrap_err();
            assert!(error.starts_with("the App's private key cannot be used"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
