//! GARM's JWTs (`docs/reference/garm-api.md` §3.3, §3.4): HS256, with a secret from the configuration, so that they
//! outlive the process. An admin's token is not valid for `/metrics`, nor the other way round.

use super::GarmConfig;
use super::db::Db;
use crate::random::uuid;
use crate::wire::Request;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use medic_core::model::Wall;
use ring::hmac;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Admin,
    Metrics,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    user: String,
    token_id: String,
    is_admin: bool,
    read_metrics: bool,
    series: u64,
    iss: String,
    exp: u64,
}

fn key(config: &GarmConfig) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, format!("secret of {}", config.controller_id).as_bytes())
}

pub(super) fn issue(config: &GarmConfig, db: &mut Db, purpose: Purpose, now: Wall) -> String {
    let is_admin = purpose == Purpose::Admin;
    let claims = Claims {
        user: if is_admin { uuid(0xAD_1111, 1) } else { String::new() },
        token_id: db.uuid(),
        is_admin,
        read_metrics: !is_admin,
        series: db.token_series,
        iss: "garm".to_owned(),
        exp: now.plus(config.token_lifetime).0 / 1000,
    };
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).unwrap_or_default()));
    let signature = hmac::sign(&key(config), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether a request has a token for this purpose. The scheme word is not checked, as in GARM; the API takes a cookie
/// instead.
pub(super) fn is_valid(config: &GarmConfig, db: &Db, request: &Request, purpose: Purpose, now: Wall) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = header(http::header::AUTHORIZATION).and_then(|value| value.split_once(' ')).map(|(_, token)| token);
    let cookie = header(http::header::COOKIE)
        .filter(|_| purpose == Purpose::Admin)
        .and_then(|cookies| cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix("garm_token=")));
    bearer.or(cookie).and_then(|token| read(config, token)).is_some_and(|claims| {
        let is_for = match purpose {
            Purpose::Admin => claims.is_admin,
            Purpose::Metrics => claims.read_metrics,
        };
        is_for && claims.exp > now.0 / 1000 && claims.series == db.token_series
    })
}

fn read(config: &GarmConfig, token: &str) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    hmac::verify(&key(config), signed.as_bytes(), &signature).ok()?;
    let (_, claims) = signed.split_once('.')?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}
