//! The REST API: registration tokens, and what GARM asks besides (`docs/reference/actions-service.md` §1,
//! §10).

use super::config::{Auth, Credential, TOKEN_LIFETIME};
use super::exception::{page_not_found, rest_error};
use super::route::EntityKey;
use super::tokens::{AppClaims, Grant, Scope};
use super::{Ask, GithubState, date, unix_seconds};
use crate::wire::Answer;
use serde::Deserialize;
use serde_json::json;

/// Whether a token is the PAT of this credential, or a JWT of its App.
pub(super) fn shows(credential: &Credential, token: &str) -> bool {
    match &credential.auth {
        Auth::Pat { token: own } => own == token,
        Auth::App { app_id, client_id, .. } => AppClaims::read(token)
            .is_some_and(|claims| claims.issuer() == app_id.to_string() || claims.issuer() == *client_id),
    }
}

impl GithubState {
    pub(super) fn rate_limit(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let credential = self.authenticate(ask)?;
        let core = self.quotas.json(&credential.name, ask.now);
        let mut answer = Answer::json(200, &json!({"resources": {"core": core.clone()}, "rate": core}));
        self.quotas.stamp(&credential.name, &mut answer);
        Ok(answer)
    }

    pub(super) fn installation_token(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let token = Self::bearer(ask.request).unwrap_or_default();
        let claims = AppClaims::read(token).ok_or_else(|| rest_error(401, "A JSON web token could not be decoded"))?;
        let now = unix_seconds(ask.now);
        if claims.exp <= now || claims.exp > now.saturating_add(600) || claims.iat > now.saturating_add(60) {
            return Err(rest_error(401, "'Expiration time' claim ('exp') must be a numeric value in the near future"));
        }
        let app = self.config.credentials.iter().find(|credential| shows(credential, token)).cloned();
        let app = app.filter(|app| !self.revoked.contains(&app.name));
        let app = app.ok_or_else(|| rest_error(401, "A JSON web token could not be decoded"))?;
        match app.auth {
            Auth::App { installation_id, .. } if Some(installation_id) == ask.matched.number => {}
            Auth::App { .. } | Auth::Pat { .. } => return Err(rest_error(404, "Not Found")),
        }
        self.charge(ask, &app.name)?;
        let expires = ask.now.plus(TOKEN_LIFETIME);
        let grant = Self::grant(Scope::Installation, &app.name, "", ask);
        let token = self.mint(grant, None);
        let mut answer = Answer::json(201, &json!({"token": token, "expires_at": date(expires)}));
        self.quotas.stamp(&app.name, &mut answer);
        Ok(answer)
    }

    pub(super) fn registration_token(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let (credential, entity) = self.rest_entity(ask)?;
        let expires = ask.now.plus(TOKEN_LIFETIME);
        let grant = Self::grant(Scope::Registration, &credential, entity.as_str(), ask);
        let token = self.mint(grant, None);
        let mut answer = Answer::json(201, &json!({"token": token, "expires_at": date(expires)}));
        self.quotas.stamp(&credential, &mut answer);
        Ok(answer)
    }

    /// Not a REST call proper: costs no quota (`docs/reference/actions-service.md` §1.5).
    pub(super) fn runner_registration(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        #[derive(Deserialize)]
        struct Body {
            url: String,
            runner_event: String,
        }
        let scheme = ask.request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let grant = scheme
            .and_then(|value| value.strip_prefix("RemoteAuth "))
            .and_then(Grant::read)
            .filter(|grant| grant.scope == Scope::Registration && grant.is_fresh(ask.now, self.expired_below))
            .filter(|grant| !self.revoked.contains(&grant.credential))
            .ok_or_else(|| rest_error(401, "Bad credentials"))?;
        let body: Body = serde_json::from_slice(ask.request.body())
            .map_err(|error| rest_error(400, &format!("Problems parsing JSON: {error}")))?;
        let entity = url::Url::parse(&body.url).ok().and_then(|url| EntityKey::from_path(url.path()));
        if body.runner_event != "register" || entity.is_none_or(|entity| entity.as_str() != grant.entity) {
            return Err(rest_error(404, "Not Found"));
        }
        let admin = Self::grant(Scope::Admin, &grant.credential, &grant.entity, ask);
        let token = self.mint(admin, ask.fault.as_ref());
        let url = format!("{}/svc/{}/", self.config.origin, grant.entity);
        Ok(Answer::json(200, &json!({"url": url, "token": token})))
    }

    pub(super) fn runner_downloads(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let (credential, _) = self.rest_entity(ask)?;
        let mut answer = Answer::json(200, &json!([{"os": "linux", "architecture": "x64"}]));
        self.quotas.stamp(&credential, &mut answer);
        Ok(answer)
    }

    pub(super) fn grant(scope: Scope, credential: &str, entity: &str, ask: &Ask<'_>) -> Grant {
        Grant {
            scope,
            credential: credential.to_owned(),
            entity: entity.to_owned(),
            set: 0,
            session: String::new(),
            n: 0,
            exp: Some(unix_seconds(ask.now.plus(TOKEN_LIFETIME))),
        }
    }

    /// The credential and entity of a REST call about an entity, charged.
    fn rest_entity(&mut self, ask: &Ask<'_>) -> Result<(String, EntityKey), Answer> {
        let credential = self.authenticate(ask)?;
        self.charge(ask, &credential.name)?;
        Ok((credential.name, ask.matched.entity.clone().ok_or_else(page_not_found)?))
    }

    fn authenticate(&self, ask: &Ask<'_>) -> Result<Credential, Answer> {
        let refusal = || rest_error(401, "Bad credentials");
        let token = Self::bearer(ask.request).ok_or_else(|| rest_error(401, "Requires authentication"))?;
        let by_installation = Grant::read(token)
            .filter(|grant| grant.scope == Scope::Installation && grant.is_fresh(ask.now, self.expired_below))
            .map(|grant| grant.credential);
        let found = self.config.credentials.iter().find(|credential| match &credential.auth {
            Auth::Pat { .. } => shows(credential, token),
            Auth::App { .. } => by_installation.as_ref() == Some(&credential.name),
        });
        found.filter(|credential| !self.revoked.contains(&credential.name)).cloned().ok_or_else(refusal)
    }

    fn charge(&mut self, ask: &Ask<'_>, credential: &str) -> Result<(), Answer> {
        self.quotas.charge(credential, ask.now, self.config.quota_answer).map_err(|mut answer| {
            self.quotas.stamp(credential, &mut answer);
            answer
        })
    }
}
