//! The ports of GitHub: one client for all configured credentials.
//!
//! - An entity's registration is kept, so a listing costs one request (token renewals aside).
//! - Opening, refreshing and deleting a session are sent once; a lost or unusable answer is an unknown effect.
//! - An answer about another set or another owner is never taken for a session of ours.
//!
//! Edge cases: both wordings of a conflict; the three answers to a deletion (204, 404, 400
//! `RunnerScaleSetSessionExpiredException`); a 404 of a router or a proxy, which says nothing about a set.

use super::access::Access;
use super::address::is_session_id;
use super::refusal::{conflict, is_session_gone, is_set_gone};
use super::registration::{Call, Registration, Sending};
use super::wire::{WireList, WireSession, WireSet};
use async_trait::async_trait;
use http::Method;
use medic_core::decide::warrant::DeletionWarrant;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Endpoint, Entity, FailureKind, GithubPlace, GithubSet, OpenAnswer, Operation, OwnQuota, Owner, RequestFailure,
    SessionId, Target,
};
use medic_core::ports::read::GithubSource;
use medic_core::ports::write::SessionWriter;
use medic_http::{ApiError, Effect};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Entities whose registration is kept.
const ENTITIES_KEPT: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshAnswer {
    Alive,
    /// GitHub does not know it.
    Gone,
}

/// The client of GitHub, for all endpoints and entities with a credential.
#[derive(Debug)]
pub struct GithubClient {
    accesses: Vec<Arc<Access>>,
    registrations: Mutex<Registrations>,
}

#[derive(Default)]
struct Registrations(BTreeMap<(Server, Entity), Arc<Registration>>);

/// Name, web address, API address: managers may use one name for different servers.
type Server = (String, String, String);

impl std::fmt::Debug for Registrations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl GithubClient {
    /// A client with these credentials; for an entity, the first that covers it is used.
    #[must_use]
    pub fn new(accesses: Vec<Access>) -> Self {
        Self { accesses: accesses.into_iter().map(Arc::new).collect(), registrations: Mutex::default() }
    }

    /// One set; `None` when GitHub does not know it.
    pub async fn github_set(&self, place: &GithubPlace) -> Result<Option<GithubSet>, RequestFailure> {
        Ok(self.get_set(place).await?)
    }

    /// Refreshes a session (PATCH). A write: it may prolong the session. Never retried inside.
    pub async fn refresh_session(&self, place: &GithubPlace, session: &SessionId) -> Result<RefreshAnswer, WriteError> {
        Ok(self.patch_session(place, session).await?)
    }

    async fn list_sets(&self, endpoint: &Endpoint, entity: &Entity) -> Result<Vec<GithubSet>, ApiError> {
        let operation = Operation::ListGithubSets;
        let at = self.registration(operation, endpoint, entity)?;
        let (path, body, sending) = (&[], String::new(), Sending::Read);
        let response = at.send(&Call { operation, method: Method::GET, path, body, sending }).await?;
        if let Some(error) = at.refusal(operation, &response) {
            return Err(error);
        }
        let list: WireList = at.access.json(operation, &response)?;
        list.into_model().map_err(|why| at.access.error(operation, FailureKind::Malformed, why))
    }

    async fn get_set(&self, place: &GithubPlace) -> Result<Option<GithubSet>, ApiError> {
        let operation = Operation::ReadGithubSet;
        let at = self.registration(operation, &place.endpoint, &place.entity)?;
        let (id, body, sending) = (place.github_id.to_string(), String::new(), Sending::Read);
        let response = at.send(&Call { operation, method: Method::GET, path: &[&id], body, sending }).await?;
        if is_set_gone(&response) {
            return Ok(None);
        }
        if let Some(error) = at.refusal(operation, &response) {
            return Err(error);
        }
        let set: WireSet = at.access.json(operation, &response)?;
        set.into_model().filter(|set| set.id == place.github_id).map(Some).ok_or_else(|| {
            at.access.error(operation, FailureKind::Malformed, "the answer is about another set than the requested one")
        })
    }

    async fn post_session(&self, place: &GithubPlace, owner: &Owner) -> Result<OpenAnswer, ApiError> {
        let operation = Operation::OpenSession;
        let at = self.registration(operation, &place.endpoint, &place.entity)?;
        let body = serde_json::json!({ "ownerName": owner.as_str() }).to_string();
        let (id, sending) = (place.github_id.to_string(), Sending::Write);
        let path: &[&str] = &[&id, "sessions"];
        let response = at.send(&Call { operation, method: Method::POST, path, body, sending }).await?;
        if let Some(held) = conflict(&response) {
            return Ok(OpenAnswer::Held { owner: held.owner });
        }
        if is_set_gone(&response) {
            return Ok(OpenAnswer::SetGone);
        }
        if let Some(error) = at.refusal(operation, &response) {
            return Err(error);
        }
        let session: WireSession = at.access.json(operation, &response)?;
        session
            .of(place.github_id, owner)
            .map(OpenAnswer::Opened)
            .map_err(|why| at.access.error(operation, FailureKind::Malformed, why))
    }

    async fn patch_session(&self, place: &GithubPlace, session: &SessionId) -> Result<RefreshAnswer, ApiError> {
        let operation = Operation::RefreshSession;
        let (at, response) = self.of_session(operation, Method::PATCH, place, session).await?;
        if is_session_gone(&response) {
            return Ok(RefreshAnswer::Gone);
        }
        at.refusal(operation, &response).map_or(Ok(RefreshAnswer::Alive), Err)
    }

    async fn end_session(&self, place: &GithubPlace, session: &SessionId) -> Result<(), ApiError> {
        let operation = Operation::DeleteSession;
        let (at, response) = self.of_session(operation, Method::DELETE, place, session).await?;
        if is_session_gone(&response) {
            return Ok(());
        }
        at.refusal(operation, &response).map_or(Ok(()), Err)
    }

    async fn of_session(
        &self,
        operation: Operation,
        method: Method,
        place: &GithubPlace,
        session: &SessionId,
    ) -> Result<(Arc<Registration>, medic_http::Response), ApiError> {
        if !is_session_id(session) {
            return Err(refused_here(operation, "the session's id is no UUID; nothing was sent"));
        }
        let at = self.registration(operation, &place.endpoint, &place.entity)?;
        let id = place.github_id.to_string();
        let path: &[&str] = &[&id, "sessions", session.as_str()];
        let response = at.send(&Call { operation, method, path, body: String::new(), sending: Sending::Write }).await?;
        Ok((at, response))
    }

    fn registration(
        &self,
        operation: Operation,
        endpoint: &Endpoint,
        entity: &Entity,
    ) -> Result<Arc<Registration>, ApiError> {
        let Some(access) = self.access(endpoint, entity) else {
            let detail = format!("no [[github]] table covers {entity} on {}", endpoint.name);
            return Err(ApiError { kind: FailureKind::Unauthorized, ..refused_here(operation, &detail) });
        };
        let name = endpoint.name.as_str().to_owned();
        let key = ((name, endpoint.base_url.clone(), endpoint.api_base_url.clone()), entity.clone());
        let mut registrations = self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registrations.0.get(&key) {
            return Ok(Arc::clone(known));
        }
        let new = Registration::new(Arc::clone(access), endpoint, entity)
            .map_err(|error| refused_here(operation, &format!("{entity} on {}: {error}", endpoint.name)))?;
        if registrations.0.len() >= ENTITIES_KEPT {
            registrations.0.pop_first();
        }
        let new = Arc::new(new);
        registrations.0.insert(key, Arc::clone(&new));
        Ok(new)
    }

    fn access(&self, endpoint: &Endpoint, entity: &Entity) -> Option<&Arc<Access>> {
        self.accesses.iter().find(|access| access.covers(endpoint, entity))
    }
}

/// Nothing was sent, because the request cannot be right.
fn refused_here(operation: Operation, detail: &str) -> ApiError {
    let detail = medic_http::excerpt::one_line(detail);
    let (target, kind, effect) = (Target::Github, FailureKind::Rejected, Effect::None);
    ApiError { target, operation, kind, detail, effect, retry_at: None }
}

#[async_trait]
impl GithubSource for GithubClient {
    async fn github_sets(&self, endpoint: &Endpoint, entity: &Entity) -> Result<Vec<GithubSet>, RequestFailure> {
        Ok(self.list_sets(endpoint, entity).await?)
    }
    fn covers(&self, endpoint: &Endpoint, entity: &Entity) -> bool {
        self.access(endpoint, entity).is_some()
    }
    fn remaining_quota(&self, endpoint: &Endpoint) -> Option<u64> {
        self.accesses.iter().filter(|access| access.is_of(endpoint)).filter_map(|access| access.remaining()).min()
    }
    fn own_quota(&self, endpoint: &Endpoint) -> Option<OwnQuota> {
        let of_endpoint = self.accesses.iter().filter(|access| access.is_of(endpoint));
        of_endpoint.filter_map(|access| access.own_quota()).min_by_key(|quota| quota.remaining)
    }
}

#[async_trait]
impl SessionWriter for GithubClient {
    async fn open_session(&self, place: &GithubPlace, owner: &Owner) -> Result<OpenAnswer, WriteError> {
        Ok(self.post_session(place, owner).await?)
    }
    async fn delete_session(&self, place: &GithubPlace, warrant: &DeletionWarrant) -> Result<(), WriteError> {
        Ok(self.end_session(place, warrant.session()).await?)
    }
}
