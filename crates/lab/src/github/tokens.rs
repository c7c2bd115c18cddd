//! Tokens that carry what they grant, so that nothing has to be remembered about the millions a long simulation
//! issues. Admin and queue tokens are JWTs that a client can decode (`exp`); the others look opaque.
//! Signatures are arbitrary: the simulator believes its own tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use medic_core::model::Wall;
use serde::{Deserialize, Serialize};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    Installation,
    Registration,
    Admin,
    Queue,
}

/// The content of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) scope: Scope,
    /// Credential that it was obtained with, by name.
    pub(super) credential: String,
    /// Entity, for all but installation tokens.
    pub(super) entity: String,
    /// Scale set, for queue tokens.
    pub(super) set: u64,
    /// Session, for queue tokens.
    pub(super) session: String,
    /// The token's number, counting up: every token below a mark can be declared expired at once.
    pub(super) n: u64,
    /// Unix seconds, as JWTs have it. Absent only by a fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<u64>,
}

impl Grant {
    pub(super) fn is_fresh(&self, now: Wall, expired_below: u64) -> bool {
        self.n >= expired_below && self.exp.is_none_or(|exp| exp.saturating_mul(1000) > now.0)
    }

    /// `header.payload.signature`.
    pub(super) fn jwt(&self) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT","kid":"simulated"}"#);
        format!("{header}.{}.{}", self.payload(), URL_SAFE_NO_PAD.encode("not a signature"))
    }

    /// One word with a prefix, as registration and installation tokens look.
    pub(super) fn opaque(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.payload())
    }

    fn payload(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads back any of the forms.
    pub(super) fn read(token: &str) -> Option<Self> {
        let payload = match token.split('.').collect::<Vec<_>>().as_slice() {
            [_, payload, _] => payload,
            [word] => OPAQUE_PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix))?,
            _ => return None,
        };
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

pub(super) const INSTALLATION_PREFIX: &str = "ghs_";
pub(super) const REGISTRATION_PREFIX: &str = "AREG";
/// A queue or admin token that is not a JWT, by a fault.
pub(super) const ODD_PREFIX: &str = "oddtoken_";
const OPAQUE_PREFIXES: [&str; 3] = [INSTALLATION_PREFIX, REGISTRATION_PREFIX, ODD_PREFIX];

/// `iss`, `iat` and `exp` of an App's JWT.
#[derive(Debug, Deserialize)]
pub(super) struct AppClaims {
    pub(super) iss: serde_json::Value,
    #[serde(default)]
    pub(super) iat: u64,
    pub(super) exp: u64,
}

impl AppClaims {
    /// Reads an RS256-shaped JWT; the signature must be there, and is not checked.
    pub(super) fn read(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
        }
        let mut parts = token.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let shaped = header.alg == "RS256" && !signature.is_empty() && parts.next().is_none();
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        shaped.then_some(claims)
    }

    /// The issuer as text, whether it came as a number or as a string.
    pub(super) fn issuer(&self) -> String {
        self.iss.as_str().map_or_else(|| self.iss.to_string(), str::to_owned)
    }
}
