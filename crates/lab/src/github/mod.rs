#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
#![expect(clippy::result_large_err, reason = "here a refusal is an answer like any other")]
//! GitHub's runner scale set service, simulated: (request, date) → answer. Deterministic: no clock, no randomness.
//!
//! The central part is the one session slot of each set. POST on a busy slot is refused for every client. DELETE frees
//! it at once. A session that nobody polls is forgotten after [`GithubConfig::stale_lifetime`], counted from the end of
//! the last poll. A poll in flight keeps its session. A poll ends when it is asked again at its end, or when
//! [`HungUp`](super::wire::HungUp) reports that the client is gone; until then it counts as alive.
//!
//! Facts are from `docs/reference/actions-service.md` (§9 is the checklist); what is not known of the real service is a
//! switch in [`GithubConfig`].

mod config;
mod exception;
mod queue;
mod quota;
mod record;
mod rest;
mod route;
mod runners;
mod sessions;
mod set;
mod sets;
mod setting;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;

pub use crate::fault::{FaultEffect, FaultKind, Lasts};
pub use config::{Auth, ConflictWording, Credential, GithubConfig, QuotaAnswer, UnknownSession};
pub use record::{Actor, Call, Ended, SessionRecord};
pub use route::{EntityKey, Route};
pub use setting::{Degraded, Holder, JobCounts, NewSet, Takeover};

use super::wire::{Answer, Delivery, HungUp, Request};
use crate::fault::FaultTable;
use crate::random::uuid;
use http::{HeaderName, HeaderValue};
use medic_core::model::{SessionId, Span, Wall};
use quota::Quotas;
use record::Records;
use route::Matched;
use set::Set;
use std::collections::{BTreeMap, BTreeSet};
use tokens::{Grant, Scope};

const ACTIVITY_ID: HeaderName = HeaderName::from_static("activityid");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-github-request-id");

/// A fault between a client and GitHub.
pub type Fault = crate::fault::Fault<Route>;

#[derive(Debug)]
pub struct GithubState {
    config: GithubConfig,
    sets: BTreeMap<u64, Set>,
    by_entity: BTreeMap<EntityKey, BTreeSet<u64>>,
    /// The set of each living session.
    living: BTreeMap<SessionId, u64>,
    /// The set of each runner.
    runner_home: BTreeMap<u64, u64>,
    agenda: BTreeSet<(Wall, Due)>,
    wakes: BTreeSet<SessionId>,
    faults: FaultTable<Route>,
    quotas: Quotas,
    revoked: BTreeSet<String>,
    records: Records,
    /// Tokens with a smaller number have been declared expired.
    expired_below: u64,
    counters: Counters,
}

/// Numbers given out so far.
#[derive(Debug, Default)]
struct Counters {
    set: u64,
    session: u64,
    token: u64,
    job: u64,
    runner: u64,
    activity: u64,
}

/// What is due at a date. Entries may be out of date: each is checked when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The session of this set may have become stale.
    Stale(u64),
    /// The other owner of this set's session leaves.
    OwnerLeaves(u64),
    /// This runner comes up.
    RunnerUp(u64),
    /// This runner finishes its job.
    JobDone(u64),
}

/// One request on its way through the handlers.
struct Ask<'a> {
    now: Wall,
    request: &'a Request,
    matched: &'a Matched,
    actor: Actor,
    /// What the request's token grants, if it is one of ours.
    grant: Option<Grant>,
    /// The fault that modifies the answer, for the handlers that build the modified part.
    fault: Option<FaultKind>,
}

impl GithubState {
    /// A GitHub without scale sets.
    #[must_use]
    pub fn new(config: GithubConfig) -> Self {
        let quotas = Quotas::new(&config.credentials);
        Self {
            config,
            sets: BTreeMap::new(),
            by_entity: BTreeMap::new(),
            living: BTreeMap::new(),
            runner_home: BTreeMap::new(),
            agenda: BTreeSet::new(),
            wakes: BTreeSet::new(),
            faults: FaultTable::default(),
            quotas,
            revoked: BTreeSet::new(),
            records: Records::default(),
            expired_below: 0,
            counters: Counters::default(),
        }
    }

    /// Answers one request at `now`.
    pub fn handle(&mut self, now: Wall, request: &Request) -> Answer {
        self.advance(now);
        let (route, matched) = route::route(request.method(), request.uri().path());
        let grant = Self::bearer(request).and_then(Grant::read);
        let session = grant.as_ref().and_then(queue::session_polled_with);
        let poll = queue::poll_id(request);
        if request.extensions().get::<HungUp>().is_some() {
            if let Some(session) = &session {
                self.hang_up(session, poll, now);
            }
            return Answer::empty(499);
        }
        let set = matched.set.or_else(|| grant.as_ref().filter(|g| g.scope == Scope::Queue).map(|g| g.set));
        let actor = self.actor(request, grant.as_ref());
        let asked_again = route == Route::Poll && session.as_ref().is_some_and(|s| self.is_held(s, poll, now));
        let met = self.faults.meet(route, set, now);
        let mut ask = Ask {
            now,
            request,
            matched: &matched,
            actor: actor.clone(),
            grant,
            fault: met.as_ref().map(|f| f.kind.clone()),
        };
        let mut answer = match &met {
            Some(fault) => fault.answer(|| self.dispatch(route, &mut ask)),
            None => self.dispatch(route, &mut ask),
        };
        if route == Route::Poll
            && met.is_some()
            && !matches!(answer.delivery, Delivery::Hold(_))
            && let Some(session) = &session
        {
            self.hang_up(session, poll, now);
        }
        if answer.delivery == Delivery::After(Span::ZERO) {
            answer.delivery = Delivery::After(self.config.latency);
        }
        self.stamp(&mut answer);
        if !asked_again {
            let status = answer.response.status().as_u16();
            self.records.call(Call { at: now, route, set, actor, status });
        }
        answer
    }

    /// Sessions whose held poll should be asked again, each named once.
    pub fn take_wakes(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.wakes).into_iter().collect()
    }

    /// When something happens here without a request.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Wall> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// Runs what is due by `now`, in order.
    pub fn advance(&mut self, now: Wall) {
        while let Some((at, due)) = self.agenda.first().copied().filter(|(at, _)| *at <= now) {
            self.agenda.pop_first();
            match due {
                Due::Stale(set) => self.expire_if_stale(set, at),
                Due::OwnerLeaves(set) => self.owner_leaves(set, at),
                Due::RunnerUp(runner) => self.runner_up(runner, at),
                Due::JobDone(runner) => self.job_done(runner, at),
            }
        }
    }

    fn dispatch(&mut self, route: Route, ask: &mut Ask<'_>) -> Answer {
        let done = match route {
            Route::RateLimit => self.rate_limit(ask),
            Route::InstallationToken => self.installation_token(ask),
            Route::RegistrationToken => self.registration_token(ask),
            Route::RunnerRegistration => self.runner_registration(ask),
            Route::RunnerDownloads => self.runner_downloads(ask),
            Route::ListSets => self.list_sets(ask),
            Route::GetSet => self.get_set(ask),
            Route::CreateSet => self.create_set(ask),
            Route::DeleteSet => self.delete_set(ask),
            Route::JitConfig => self.jit_config(ask),
            Route::CreateSession => self.create_session(ask),
            Route::RefreshSession => self.refresh_session(ask),
            Route::DeleteSession => self.delete_session(ask),
            Route::Poll => self.poll(ask),
            Route::DeleteMessage => self.delete_message(ask),
            Route::DeleteAgent => self.delete_agent(ask),
            Route::Unknown => Err(exception::page_not_found()),
        };
        done.unwrap_or_else(|refusal| refusal)
    }

    /// The token of an `Authorization` header, with any scheme word.
    fn bearer(request: &Request) -> Option<&str> {
        let value = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        ["bearer", "token", "remoteauth"].iter().any(|word| scheme.eq_ignore_ascii_case(word)).then(|| token.trim())
    }

    fn actor(&self, request: &Request, grant: Option<&Grant>) -> Actor {
        let credential = match grant {
            Some(grant) => grant.credential.clone(),
            None => Self::bearer(request)
                .and_then(|token| self.config.credentials.iter().find(|c| rest::shows(c, token)))
                .map(|credential| credential.name.clone())
                .unwrap_or_default(),
        };
        let user_agent = request.headers().get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        Actor { credential, user_agent: user_agent.unwrap_or_default().to_owned() }
    }

    /// Correlation ids (`docs/reference/actions-service.md` §2).
    fn stamp(&mut self, answer: &mut Answer) {
        self.counters.activity = self.counters.activity.saturating_add(1);
        let id = uuid(0xAC71_71D0, self.counters.activity);
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.response.headers_mut().insert(ACTIVITY_ID, id.clone());
            answer.response.headers_mut().insert(REQUEST_ID, id);
        }
    }

    fn mint(&mut self, grant: Grant, fault: Option<&FaultKind>) -> String {
        self.counters.token = self.counters.token.saturating_add(1);
        let grant = Grant { n: self.counters.token, ..grant };
        match (grant.scope, fault) {
            (Scope::Installation, _) => grant.opaque(tokens::INSTALLATION_PREFIX),
            (Scope::Registration, _) => grant.opaque(tokens::REGISTRATION_PREFIX),
            (Scope::Admin | Scope::Queue, Some(FaultKind::TokenNotJwt)) => grant.opaque(tokens::ODD_PREFIX),
            (Scope::Admin | Scope::Queue, Some(FaultKind::TokenWithoutExp)) => Grant { exp: None, ..grant }.jwt(),
            (Scope::Admin | Scope::Queue, _) => grant.jwt(),
        }
    }

    /// The grant of the request's token, if it is of the asked scope and not expired.
    fn granted(&self, ask: &Ask<'_>, scope: Scope) -> Result<Grant, Answer> {
        let grant = ask.grant.clone().ok_or_else(|| exception::invalid_token("it is missing or not one of ours"))?;
        if grant.scope != scope {
            return Err(exception::invalid_token("it is not meant for this route"));
        }
        if !grant.is_fresh(ask.now, self.expired_below) {
            return Err(exception::invalid_token("it has expired"));
        }
        Ok(grant)
    }

    /// The entity that a service request is about, for an admin token of it.
    fn admin_of(&self, ask: &Ask<'_>) -> Result<EntityKey, Answer> {
        let grant = self.granted(ask, Scope::Admin)?;
        let entity = ask.matched.entity.clone().ok_or_else(exception::page_not_found)?;
        if grant.entity != entity.as_str() {
            return Err(exception::invalid_token("it belongs to another entity"));
        }
        Ok(entity)
    }

    /// The id of the set that a service request names, for an admin token of its entity.
    fn admin_of_set(&self, ask: &Ask<'_>) -> Result<u64, Answer> {
        let entity = self.admin_of(ask)?;
        let id = ask.matched.set.unwrap_or_default();
        match self.sets.get(&id) {
            Some(set) if set.entity == entity => Ok(id),
            Some(_) | None => Err(exception::set_not_found(id)),
        }
    }
}

/// RFC 3339, as GitHub writes dates.
fn date(at: Wall) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |timestamp| timestamp.to_string())
}

const fn unix_seconds(at: Wall) -> u64 {
    at.0 / 1000
}
