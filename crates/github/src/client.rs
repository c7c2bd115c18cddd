//! The ports of GitHub: one client for all configured credentials.
//!
//! - An entity's registration is kept, so a listing costs one request (token renewals aside).
//! - Opening and deleting a session are sent once; a lost or unusable answer is an unknown effect.
//! - An answer about another set or another owner is never taken for a session of ours.
//!
//! Edge cases: both wordings of a conflict; the three answers to a deletion (204, 404, 400
//! `RunnerScaleSetSessionExpiredException`); a 404 of a router or a proxy, which says nothing about a set.

use super::access::Access;
use super::address::is_session_id;
use super::refusal::{conflict, is_session_gone, is_set_gone};
use super::registration::{Call, Registration, Sending};
use super::wire::{WireList, WireSession};
use async_trait::async_trait;
use http::Method;
use medic_core::decide::warrant::DeletionWarrant;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Endpoint, Entity, FailureKind, GithubPlace, GithubSet, OpenAnswer, Operation, OwnQuota, Owner, RequestFailure,
    Target,
};
use medic_core::ports::read::GithubSource;
use medic_core::ports::write::SessionWriter;
use medic_http::{ApiError, Effect};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const ENTITIES_KEPT: usize = 10_000;

/// The client of GitHub, for all endpoints and entities with a credential.
pub struct GithubClient {
    accesses: Vec<Arc<Access>>,
    registrations: Mutex<BTreeMap<(Server, Entity), Arc<Registration>>>,
}

/// Name, web address, API address: managers may use one name for different servers.
type Server = (String, String, String);

impl std::fmt::Debug for GithubClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GithubClient").field("accesses", &self.accesses).finish_non_exhaustive()
    }
}

impl GithubClient {
    /// A client with these credentials; for an entity, the first that covers it is used.
    pub fn new(accesses: Vec<Access>) -> Self {
        Self { accesses: accesses.into_iter().map(Arc::new).collect(), registrations: Mutex::default() }
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
        if let Some(known) = registrations.get(&key) {
            return Ok(Arc::clone(known));
        }
        let new = Registration::new(Arc::clone(access), endpoint, entity)
            .map_err(|error| refused_here(operation, &format!("{entity} on {}: {error}", endpoint.name)))?;
        if registrations.len() >= ENTITIES_KEPT {
            registrations.pop_first();
        }
        let new = Arc::new(new);
        registrations.insert(key, Arc::clone(&new));
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
        let operation = Operation::ListGithubSets;
        let at = self.registration(operation, endpoint, entity)?;
        let (path, body, sending) = (&[], String::new(), Sending::Read);
        let response = at.send(&Call { operation, method: Method::GET, path, body, sending }).await?;
        at.check_status(operation, &response)?;
        let list: WireList = at.access.json(operation, &response)?;
        Ok(list.into_model().map_err(|why| at.access.error(operation, FailureKind::Malformed, why))?)
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
        let operation = Operation::OpenSession;
        let at = self.registration(operation, &place.endpoint, &place.entity)?;
        let body = serde_json::json!({ "ownerName": owner.as_str() }).to_string();
        let (id, sending) = (place.github_id.to_string(), Sending::Write);
        let path: &[&str] = &[&id, "sessions"];
        let response = at.send(&Call { operation, method: Method::POST, path, body, sending }).await?;
        if let Some(held) = conflict(&response) {
            return Ok(held);
        }
        if is_set_gone(&response) {
            return Ok(OpenAnswer::SetGone);
        }
        at.check_status(operation, &response)?;
        let session: WireSession = at.access.json(operation, &response)?;
        let session = session.of(place.github_id, owner);
        let session = session.map_err(|why| at.access.error(operation, FailureKind::Malformed, why))?;
        Ok(OpenAnswer::Opened(session))
    }
    async fn delete_session(&self, place: &GithubPlace, warrant: &DeletionWarrant) -> Result<(), WriteError> {
        let (operation, session) = (Operation::DeleteSession, warrant.session());
        if !is_session_id(session) {
            return Err(refused_here(operation, "the session's id is no UUID; nothing was sent").into());
        }
        let at = self.registration(operation, &place.endpoint, &place.entity)?;
        let (id, body, sending) = (place.github_id.to_string(), String::new(), Sending::Write);
        let path: &[&str] = &[&id, "sessions", session.as_str()];
        let response = at.send(&Call { operation, method: Method::DELETE, path, body, sending }).await?;
        if !is_session_gone(&response) {
            at.check_status(operation, &response)?;
        }
        Ok(())
    }
}
