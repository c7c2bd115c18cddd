//! The message queue: E14, E15 (`docs/reference/actions-service.md` §5).
//!
//! The message log belongs to the set and the cursor to the request: a message that nobody deleted comes again to any
//! later session that polls from before it. Jobs wait until a poll has capacity for them.

use super::config::POLL_LENGTH;
use super::exception::{set_not_found, unknown_session};
use super::route::query;
use super::set::{BATCH, JobState};
use super::tokens::{Grant, Scope};
use super::{Ask, GithubState};
use crate::wire::{Answer, Delivery, PollId, Request};
use medic_core::model::{SessionId, Wall};
use serde_json::{Value, json};

impl GithubState {
    /// Whether a poll of this session is in flight, so that a request is the same poll asked again. Some time after
    /// its end a poll that was never asked again counts as abandoned.
    pub(super) fn is_held(&self, session: &SessionId, poll: PollId, now: Wall) -> bool {
        let session = self.living.get(session).and_then(|set| self.sets.get(set)).and_then(|set| set.slot.as_ref());
        session.and_then(|session| session.polls.get(&poll)).is_some_and(|until| now <= until.plus(POLL_LENGTH))
    }

    /// The session that a poll is for, by its token.
    #[must_use]
    pub fn polled_session(request: &Request) -> Option<SessionId> {
        Self::bearer(request).and_then(Grant::read).as_ref().and_then(session_polled_with)
    }

    pub(super) fn poll(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let (set, session) = self.polled_set(ask)?;
        let capacity = ask.request.headers().get("x-scalesetmaxcapacity").and_then(|value| value.to_str().ok());
        let capacity = capacity.and_then(|value| value.trim().parse::<u64>().ok());
        let cursor = query(ask.request, "lastMessageId").and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
        let poll = poll_id(ask.request);
        let held = self.is_held(&session, poll, ask.now);
        if let Some(set) = self.sets.get_mut(&set) {
            set.capacity = capacity;
        }
        if self.sets.get(&set).is_some_and(|set| set.messages.range(cursor.saturating_add(1)..).next().is_none()) {
            self.release_jobs(set, ask.now);
        }
        let Some(state) = self.sets.get_mut(&set) else { return Err(set_not_found(set)) };
        if let Some((id, messages)) = state.messages.range(cursor.saturating_add(1)..).next() {
            let envelope = state.envelope(*id, messages);
            self.poll_answered(set, poll, ask.now);
            return Ok(Answer::json(200, &envelope));
        }
        let Some(current) = state.slot.as_mut() else { return Err(set_not_found(set)) };
        let until = match current.polls.get(&poll) {
            Some(until) if held => *until,
            Some(_) | None => ask.now.plus(POLL_LENGTH),
        };
        if ask.now >= until {
            self.poll_answered(set, poll, ask.now);
            return Ok(Answer::empty(202));
        }
        current.polls.retain(|_, until| ask.now <= until.plus(POLL_LENGTH));
        current.polls.insert(poll, until);
        Ok(Answer::empty(202).delivered(Delivery::Hold(until)))
    }

    /// Acknowledges a message; one that is gone already is no error.
    pub(super) fn delete_message(&mut self, ask: &mut Ask<'_>) -> Result<Answer, Answer> {
        let grant = self.granted(ask, Scope::Queue)?;
        let set = self.session_of(&grant)?;
        if let (Some(set), Some(message)) = (self.sets.get_mut(&set), ask.matched.number) {
            set.messages.remove(&message);
        }
        Ok(Answer::empty(204))
    }

    /// The poll in flight, if there is one, is asked again.
    pub(super) fn wake(&mut self, set: u64) {
        let Some(session) = self.sets.get(&set).and_then(|set| set.slot.as_ref()) else { return };
        if !session.polls.is_empty() {
            self.wakes.insert(session.id.clone());
        }
    }

    /// The set and session of a poll. A poll in flight outlives the expiry of its token.
    fn polled_set(&self, ask: &Ask<'_>) -> Result<(u64, SessionId), Answer> {
        let known = ask.grant.clone().filter(|grant| grant.scope == Scope::Queue);
        let in_flight =
            known.filter(|grant| self.is_held(&SessionId::new(grant.session.as_str()), poll_id(ask.request), ask.now));
        let grant = match in_flight {
            Some(grant) => grant,
            None => self.granted(ask, Scope::Queue)?,
        };
        let set = self.session_of(&grant)?;
        Ok((set, SessionId::new(grant.session)))
    }

    /// The set of a queue token's session, if both still exist.
    fn session_of(&self, grant: &Grant) -> Result<u64, Answer> {
        if !self.sets.contains_key(&grant.set) {
            return Err(set_not_found(grant.set));
        }
        let living = self.living.get(&SessionId::new(grant.session.as_str())).copied();
        living.ok_or_else(|| unknown_session(&grant.session, self.config.unknown_session))
    }

    /// A poll is over: with an answer, at once or after a wait.
    fn poll_answered(&mut self, set: u64, poll: PollId, now: Wall) {
        let Some(session) = self.sets.get_mut(&set).and_then(|set| set.slot.as_mut()) else { return };
        session.polls.remove(&poll);
        session.last_used = now;
        self.schedule_staleness(set);
    }

    /// Lets out as many waiting jobs as the last capacity allows, in one envelope.
    fn release_jobs(&mut self, id: u64, now: Wall) {
        let Some(set) = self.sets.get_mut(&id) else { return };
        let out = set.jobs.values().filter(|job| job.state != JobState::Waiting).count();
        let capacity = set
            .capacity
            .map_or(BATCH, |capacity| usize::try_from(capacity).unwrap_or(usize::MAX).saturating_sub(out).min(BATCH));
        let chosen: Vec<u64> =
            set.jobs.values().filter(|job| job.state == JobState::Waiting).map(|job| job.id).take(capacity).collect();
        if chosen.is_empty() {
            return;
        }
        for number in &chosen {
            let Some(job) = set.jobs.get_mut(number) else { continue };
            (job.state, job.assigned) = (JobState::Assigned, Some(now));
        }
        let jobs = chosen.iter().filter_map(|number| set.jobs.get(number));
        let messages: Vec<Value> = jobs.map(|job| set.job_message("JobAssigned", job, None, json!({}))).collect();
        set.post(messages);
        self.match_jobs(id, now);
    }
}

/// The session that a queue token is of.
pub(super) fn session_polled_with(grant: &Grant) -> Option<SessionId> {
    (grant.scope == Scope::Queue).then(|| SessionId::new(grant.session.as_str()))
}

/// Which of a session's polls a request is.
pub(super) fn poll_id(request: &Request) -> PollId {
    request.extensions().get::<PollId>().copied().unwrap_or_default()
}
