//! What a scenario or a test sets, and the true state that a test reads. No client can do or see any of this.

use super::config::QuotaAnswer;
use super::record::{Call, Ended, SessionRecord};
use super::route::{EntityKey, Route};
use super::set::{Job, JobState, OtherOwner, User};
use super::{Fault, GithubState};
use crate::fault::{FaultKind, Lasts};
use crate::random::uuid;
use medic_core::model::{Entity, GithubId, Owner, SessionId, Wall};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSet {
    pub entity: Entity,
    pub name: String,
}

/// When another owner gets a session that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// The holder loses it.
    AtOnce,
    /// As on the real GitHub: when the slot is free.
    WhenFree,
}

/// Who holds a set's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub session: SessionId,
    pub owner: Owner,
    /// When it was opened.
    pub opened: Wall,
    /// When its last poll ended; its opening, if none has.
    pub last_used: Wall,
    /// Whether a poll is in flight: somebody listens.
    pub polling: bool,
    /// When it is forgotten, if nobody polls again.
    pub stale_at: Wall,
}

/// Jobs of a set, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// Held back: no poll has capacity for them yet.
    pub waiting: u64,
    /// Assigned, without a runner.
    pub assigned: u64,
    pub running: u64,
    pub completed: u64,
}

impl GithubState {
    /// Adds a scale set, in the default runner group.
    pub fn add_set(&mut self, set: &NewSet, now: Wall) -> GithubId {
        GithubId(self.insert_set(&EntityKey::of(&set.entity), &set.name, now))
    }

    /// Removes a set, as an operator or GitHub's housekeeping does.
    pub fn remove_set(&mut self, set: GithubId, now: Wall) {
        self.advance(now);
        self.drop_set(set.0, now);
    }

    /// `n` jobs want runners of the set.
    pub fn queue_jobs(&mut self, set: GithubId, n: u32, now: Wall) {
        self.advance(now);
        for _ in 0..n {
            self.counters.job = self.counters.job.saturating_add(1);
            let id = self.counters.job;
            let uuid = uuid(0x000B_0B0B, id);
            let job = Job { id, uuid, queued: now, assigned: None, started: None, state: JobState::Waiting };
            if let Some(set) = self.sets.get_mut(&set.0) {
                set.jobs.insert(id, job);
            }
        }
        self.wake(set.0);
    }

    /// Another owner takes the set's session, polls it without a pause, and deletes it at `until`.
    pub fn foreign_owner_takes(&mut self, set: GithubId, owner: &str, takeover: Takeover, now: Wall, until: Wall) {
        self.advance(now);
        self.other_owner_takes(set.0, OtherOwner { owner: Owner::new(owner), until, takeover }, now);
    }

    /// The other owner of the set leaves now.
    pub fn foreign_owner_leaves(&mut self, set: GithubId, now: Wall) {
        self.advance(now);
        if let Some(other_owner) = self.sets.get_mut(&set.0).and_then(|set| set.other_owner.as_mut()) {
            other_owner.until = now;
        }
        self.owner_leaves(set.0, now);
    }

    /// GitHub forgets the set's session: the slot is free, its polls fail.
    pub fn evict_session(&mut self, set: GithubId, now: Wall) {
        self.advance(now);
        self.end_session(set.0, now, Ended::Evicted);
    }

    /// POST of a session gets 409 although nobody holds one (`docs/reference/failure-modes.md` §1 F5).
    pub fn phantom_conflict(&mut self, set: GithubId, until: Wall) {
        if let Some(set) = self.sets.get_mut(&set.0) {
            set.phantom_until = Some(until);
        }
    }

    /// The Actions service is degraded; polls in flight fail at once.
    pub fn degrade_service(&mut self, how: Degraded, lasts: Lasts) {
        for fault in how.faults(lasts) {
            self.faults.add(fault);
        }
        for set in self.sets.keys().copied().collect::<Vec<_>>() {
            self.wake(set);
        }
    }

    /// Every token issued so far (installation, registration, admin, queue) is expired. Polls in flight go on.
    pub fn expire_tokens(&mut self) {
        self.expired_below = self.counters.token.saturating_add(1);
    }

    /// A credential is refused from now on. As on the real GitHub, admin and queue tokens got with it live on.
    pub fn revoke_credentials(&mut self, credential: &str) {
        self.revoked.insert(credential.to_owned());
    }

    /// A revoked credential works again.
    pub fn restore_credentials(&mut self, credential: &str) {
        self.revoked.remove(credential);
    }

    /// A credential's REST quota is used up until `reset`.
    pub fn exhaust_quota(&mut self, credential: &str, reset: Wall) {
        self.quotas.exhaust(credential, reset);
    }

    /// A secondary rate limit refuses a credential until `until`.
    pub fn secondary_limit(&mut self, credential: &str, until: Wall, answer: QuotaAnswer) {
        self.quotas.refuse(credential, until, answer);
    }

    /// Adds a fault; earlier faults match first.
    pub fn inject(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Ends every fault, degradation included.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Changes the configuration from now on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut super::GithubConfig)) {
        change(&mut self.config);
        for set in self.sets.keys().copied().collect::<Vec<_>>() {
            self.schedule_staleness(set);
        }
    }
}

impl GithubState {
    /// Who holds the set's session.
    #[must_use]
    pub fn holder(&self, set: GithubId) -> Option<Holder> {
        let session = self.sets.get(&set.0)?.slot.as_ref()?;
        Some(Holder {
            session: session.id.clone(),
            owner: session.owner.clone(),
            opened: session.opened,
            last_used: session.last_used,
            polling: match session.used_by {
                User::Client => !session.polls.is_empty(),
                User::OtherOwner => true,
            },
            stale_at: session.stale_at(self.config.stale_lifetime),
        })
    }

    #[must_use]
    pub fn jobs(&self, set: GithubId) -> JobCounts {
        let Some(set) = self.sets.get(&set.0) else { return JobCounts::default() };
        let mut counts = JobCounts { completed: set.completed, ..JobCounts::default() };
        for job in set.jobs.values() {
            match job.state {
                JobState::Waiting => counts.waiting = counts.waiting.saturating_add(1),
                JobState::Assigned => counts.assigned = counts.assigned.saturating_add(1),
                JobState::Running(_) => counts.running = counts.running.saturating_add(1),
            }
        }
        counts
    }

    /// How many of the last calls were on a route.
    #[must_use]
    pub fn recent_calls(&self, route: Route) -> u64 {
        self.calls().map(|call| u64::from(call.route == route)).sum()
    }

    /// The last calls, oldest first (a bounded number).
    pub fn calls(&self) -> impl DoubleEndedIterator<Item = &Call> {
        self.records.calls()
    }

    /// The last sessions, in the order of their opening (bounded likewise).
    pub fn sessions(&self) -> impl DoubleEndedIterator<Item = &SessionRecord> {
        self.records.sessions()
    }
}

/// How polls fail while the Actions service is degraded (`docs/reference/failure-modes.md` §1 F7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Degraded {
    /// Polls answer 500.
    Poll500,
    /// Polls answer 200 with an empty body.
    PollEmpty,
    /// Polls answer 401 for ever.
    Poll401,
}

impl Degraded {
    pub(super) fn faults(self, lasts: Lasts) -> Vec<Fault> {
        let fault = |route, kind| Fault { lasts, ..Fault::on(route, kind) };
        let poll = |kind| vec![fault(Route::Poll, kind)];
        match self {
            Self::Poll500 => poll(FaultKind::status(500)),
            Self::PollEmpty => {
                poll(FaultKind::Answer { status: 200, content_type: String::new(), body: String::new() })
            }
            Self::Poll401 => poll(FaultKind::status(401)),
        }
    }
}
