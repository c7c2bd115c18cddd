//! The session slot of a set: E11-E13, and its end by time (`docs/reference/actions-service.md` §4).

use super::config::ConflictWording;
use super::exception::{Exception, bad_request, session_not_in_store, unknown_session};
use super::record::{Actor, Ended, SessionRecord};
use super::set::{Session, User};
use super::sets::body_of;
use super::setting::Takeover;
use super::tokens::{Grant, Scope};
use super::{Ask, Due, GithubState};
use crate::random::uuid;
use crate::wire::{Answer, PollId};
use medic_core::model::{Owner, SessionId, Wall};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// The owner that an anonymous conflict would name, for conflicts without a holder.
const NOBODY: &str = "unknown";

impl GithubState {
    pub(super) fn create_session(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        /// An incoming `sessionId` is ignored: ARC sends a zero UUID.
        #[derive(Deserialize)]
        struct Body {
            #[serde(rename = "ownerName")]
            owner: String,
        }
        let id = self.admin_of_set(ask)?;
        let body: Body = body_of(ask)?;
        if body.owner.is_empty() {
            return Err(bad_request("The owner name of a session must not be empty."));
        }
        if let Some(holder) = self.refusing_owner(id, ask.now) {
            return Err(self.conflict(id, &holder));
        }
        self.open_session(id, Owner::new(body.owner), ask.actor.clone(), User::Client, ask.now);
        self.session_answer(id, ask)
    }

    /// Keeps the id, and issues a new token (`docs/reference/actions-service.md` §4.2).
    pub(super) fn refresh_session(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.named_session(ask)?;
        self.session_answer(id, ask)
    }

    pub(super) fn delete_session(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let id = self.named_session(ask)?;
        self.end_session(id, ask.now, Ended::Deleted { by: ask.actor.clone() });
        Ok(Answer::empty(204))
    }

    /// Puts a new session into the slot, ending whatever is there.
    pub(super) fn open_session(&mut self, set: u64, owner: Owner, by: Actor, used_by: User, now: Wall) {
        self.counters.session = self.counters.session.saturating_add(1);
        let id = SessionId::new(uuid(0x5E55_1011, self.counters.session));
        let Some(slot) = self.sets.get_mut(&set) else { return };
        let record = self.records.opened(SessionRecord {
            set,
            session: id.clone(),
            owner: owner.clone(),
            opened: now,
            opened_by: by,
            ended: None,
        });
        self.living.insert(id.clone(), set);
        slot.slot = Some(Session {
            id,
            owner,
            opened: now,
            used_by,
            polls: BTreeMap::new(),
            last_used: now,
            check_at: Wall(u64::MAX),
            record,
        });
        self.schedule_staleness(set);
    }

    /// Frees the slot, wakes a poll in flight, and lets a waiting other owner in.
    pub(super) fn end_session(&mut self, set: u64, now: Wall, how: Ended) {
        let Some(slot) = self.sets.get_mut(&set) else { return };
        let Some(session) = slot.slot.take() else { return };
        self.living.remove(&session.id);
        if !session.polls.is_empty() {
            self.wakes.insert(session.id);
        }
        let other_owner_may_come = match &how {
            Ended::SetRemoved | Ended::Replaced | Ended::OwnerLeft => false,
            Ended::Deleted { .. } | Ended::Expired | Ended::Evicted => true,
        };
        self.records.ended(session.record, now, how);
        if other_owner_may_come {
            self.let_other_owner_in(set, now);
        }
    }

    /// Gives a free slot to the scenario's other owner who waits for it.
    pub(super) fn let_other_owner_in(&mut self, set: u64, now: Wall) {
        let waiting = self.sets.get(&set).filter(|set| set.slot.is_none()).and_then(|set| set.other_owner.clone());
        if let Some(other_owner) = waiting.filter(|other_owner| now < other_owner.until) {
            self.open_session(set, other_owner.owner, Actor::default(), User::OtherOwner, now);
        }
    }

    pub(super) fn other_owner_takes(&mut self, set: u64, other_owner: super::set::OtherOwner, now: Wall) {
        let (takeover, until) = (other_owner.takeover, other_owner.until);
        let Some(slot) = self.sets.get_mut(&set) else { return };
        slot.other_owner = Some(other_owner);
        match takeover {
            Takeover::AtOnce => self.end_session(set, now, Ended::Replaced),
            Takeover::WhenFree => {}
        }
        self.let_other_owner_in(set, now);
        self.agenda.insert((until, Due::OwnerLeaves(set)));
    }

    pub(super) fn owner_leaves(&mut self, set: u64, at: Wall) {
        let Some(slot) = self.sets.get_mut(&set) else { return };
        let has_left = slot.other_owner.take_if(|other_owner| other_owner.until <= at).is_some();
        if has_left && slot.slot.as_ref().is_some_and(|session| session.used_by == User::OtherOwner) {
            self.end_session(set, at, Ended::OwnerLeft);
        }
    }

    /// The client of a poll has disconnected.
    pub(super) fn hang_up(&mut self, session: &SessionId, poll: PollId, now: Wall) {
        let Some(set) = self.living.get(session).copied() else { return };
        let Some(session) = self.sets.get_mut(&set).and_then(|set| set.slot.as_mut()) else { return };
        if let Some(until) = session.polls.remove(&poll) {
            session.last_used = session.last_used.max(now.min(until));
            self.schedule_staleness(set);
        }
    }

    pub(super) fn expire_if_stale(&mut self, set: u64, at: Wall) {
        let Some(session) = self.sets.get(&set).and_then(|set| set.slot.as_ref()) else { return };
        if session.stale_at(self.config.stale_lifetime) <= at {
            self.end_session(set, at, Ended::Expired);
        } else if session.check_at <= at {
            self.reschedule_staleness(set, Wall(u64::MAX));
        }
    }

    /// Plans the check of the slot for the date at which its session becomes stale.
    pub(super) fn schedule_staleness(&mut self, set: u64) {
        let check_at = self.sets.get(&set).and_then(|set| set.slot.as_ref()).map(|session| session.check_at);
        self.reschedule_staleness(set, check_at.unwrap_or(Wall(u64::MAX)));
    }

    fn reschedule_staleness(&mut self, set: u64, unless_before: Wall) {
        let lifetime = self.config.stale_lifetime;
        let Some(session) = self.sets.get_mut(&set).and_then(|set| set.slot.as_mut()) else { return };
        let stale = session.stale_at(lifetime);
        if stale < unless_before {
            session.check_at = stale;
            self.agenda.insert((stale, Due::Stale(set)));
        }
    }

    /// Who stands in the way of a new session.
    fn refusing_owner(&self, id: u64, now: Wall) -> Option<String> {
        let set = self.sets.get(&id)?;
        let phantom = set.phantom_until.is_some_and(|until| now < until);
        let holder = set.slot.as_ref().map(|session| session.owner.to_string());
        holder.or_else(|| phantom.then(|| NOBODY.to_owned()))
    }

    fn conflict(&self, id: u64, holder: &str) -> Answer {
        let name = self.sets.get(&id).map_or("", |set| set.name.as_str());
        Exception::SESSION_CONFLICT.answer(&match self.config.conflict_wording {
            ConflictWording::Anonymous => format!("The actions runner scaleset {name} already has an active session."),
            ConflictWording::NamesOwner => {
                format!("The runner scale set {name} already has an active session for owner {holder}.")
            }
        })
    }

    /// The set that a request names, if it has the session that the request names.
    fn named_session(&self, ask: &Ask<'_>) -> Result<u64, Answer> {
        let id = self.admin_of_set(ask)?;
        let named = ask.matched.session.as_deref().unwrap_or_default();
        let session = self.sets.get(&id).and_then(|set| set.slot.as_ref());
        match session {
            Some(session) if session.id.as_str().eq_ignore_ascii_case(named) => Ok(id),
            Some(_) | None => Err(unknown_session(named, self.config.unknown_session)),
        }
    }

    /// What POST and PATCH answer: the whole session with a fresh token.
    fn session_answer(&mut self, id: u64, ask: &Ask<'_>) -> Result<Answer, Answer> {
        let (session, owner) = self
            .sets
            .get(&id)
            .and_then(|set| set.slot.as_ref())
            .map(|session| (session.id.clone(), session.owner.clone()))
            .ok_or_else(session_not_in_store)?;
        let token = self.queue_token(id, &session, ask);
        let Some(set) = self.sets.get(&id) else { return Err(super::exception::set_not_found(id)) };
        let queue = format!("{}/scalesets/message", self.config.origin);
        Ok(Answer::json(
            200,
            &json!({
                "sessionId": session.as_str(),
                "ownerName": owner.as_str(),
                "runnerScaleSet": set.json(),
                "messageQueueUrl": queue,
                "messageQueueAccessToken": token,
                "statistics": set.statistics(),
            }),
        ))
    }

    fn queue_token(&mut self, set: u64, session: &SessionId, ask: &Ask<'_>) -> String {
        let grant =
            Grant { set, session: session.to_string(), ..Self::grant(Scope::Queue, &ask.actor.credential, "", ask) };
        self.mint(grant, ask.fault.as_ref())
    }
}
