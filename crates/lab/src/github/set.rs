//! One scale set as GitHub keeps it: its record, message log, jobs, runners and session slot.

use super::date;
use super::route::EntityKey;
use super::setting::Takeover;
use crate::wire::PollId;
use medic_core::model::{Owner, SessionId, Span, Wall};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Message ids start here (`docs/reference/actions-service.md` §5.1).
const FIRST_MESSAGE: u64 = 100_000_001;

/// Most job messages in one envelope (`docs/reference/actions-service.md` §5.1).
pub(super) const BATCH: usize = 50;

/// Go's zero time, for "not yet".
const NOT_YET: &str = "0001-01-01T00:00:00Z";

#[derive(Debug)]
pub(super) struct Set {
    pub(super) id: u64,
    pub(super) entity: EntityKey,
    pub(super) name: String,
    pub(super) created: Wall,
    pub(super) slot: Option<Session>,
    pub(super) phantom_until: Option<Wall>,
    pub(super) other_owner: Option<OtherOwner>,
    /// The last `X-ScaleSetMaxCapacity` seen.
    pub(super) capacity: Option<u64>,
    pub(super) messages: BTreeMap<u64, Vec<Value>>,
    pub(super) last_message: u64,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) completed: u64,
    pub(super) runners: BTreeMap<u64, Runner>,
}

/// The holder of a set's one session slot.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) owner: Owner,
    pub(super) opened: Wall,
    pub(super) used_by: User,
    /// Polls in flight, and until when each is held.
    pub(super) polls: BTreeMap<PollId, Wall>,
    /// When the last poll ended, or the session was opened.
    pub(super) last_used: Wall,
    /// The date of its earliest entry in the agenda.
    pub(super) check_at: Wall,
    /// Its number in the records.
    pub(super) record: u64,
}

/// Who keeps a session alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// A client, by its polls.
    Client,
    /// A scenario's other owner, who polls without rest.
    OtherOwner,
}

impl Session {
    /// When it is forgotten if nothing more happens.
    pub(super) fn stale_at(&self, lifetime: Span) -> Wall {
        match self.used_by {
            User::Client => self.polls.values().max().copied().unwrap_or(self.last_used).plus(lifetime),
            User::OtherOwner => Wall(u64::MAX),
        }
    }
}

/// A scenario's other owner: takes the slot, holds it, leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtherOwner {
    pub(super) owner: Owner,
    pub(super) until: Wall,
    pub(super) takeover: Takeover,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) uuid: String,
    pub(super) queued: Wall,
    pub(super) assigned: Option<Wall>,
    pub(super) started: Option<Wall>,
    pub(super) state: JobState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobState {
    /// Held back: no poll with capacity for it yet.
    Waiting,
    /// Assigned, no runner yet.
    Assigned,
    Running(u64),
}

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) state: RunnerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunnerState {
    Offline,
    Idle,
    Busy(u64),
}

impl Set {
    pub(super) fn new(id: u64, entity: EntityKey, name: &str, created: Wall) -> Self {
        Self {
            id,
            entity,
            name: name.to_owned(),
            created,
            slot: None,
            phantom_until: None,
            other_owner: None,
            capacity: None,
            messages: BTreeMap::new(),
            last_message: FIRST_MESSAGE - 1,
            jobs: BTreeMap::new(),
            completed: 0,
            runners: BTreeMap::new(),
        }
    }

    /// The object of `docs/reference/actions-service.md` §3.1.
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "runnerGroupId": 1,
            "runnerGroupName": "Default",
            "labels": [{"type": "System", "name": self.name}],
            "createdOn": date(self.created),
            "statistics": self.statistics(),
            "enabled": null,
        })
    }

    /// The object of `docs/reference/actions-service.md` §3.2, always consistent with jobs and runners.
    pub(super) fn statistics(&self) -> Value {
        let jobs = |test: fn(JobState) -> bool| self.jobs.values().filter(|job| test(job.state)).count();
        let busy = self.runners.values().filter(|r| matches!(r.state, RunnerState::Busy(_))).count();
        let idle = self.runners.values().filter(|r| r.state == RunnerState::Idle).count();
        json!({
            "totalAvailableJobs": jobs(|state| matches!(state, JobState::Waiting)),
            "totalAcquiredJobs": jobs(|state| matches!(state, JobState::Assigned)),
            "totalAssignedJobs": jobs(|state| matches!(state, JobState::Assigned | JobState::Running(_))),
            "totalRunningJobs": jobs(|state| matches!(state, JobState::Running(_))),
            "totalRegisteredRunners": self.runners.len(),
            "totalBusyRunners": busy,
            "totalIdleRunners": idle,
        })
    }

    /// Appends one envelope to the message log.
    pub(super) fn post(&mut self, messages: Vec<Value>) {
        self.last_message = self.last_message.saturating_add(1);
        self.messages.insert(self.last_message, messages);
    }

    /// The envelope of a message, with statistics of now.
    pub(super) fn envelope(&self, id: u64, messages: &[Value]) -> Value {
        json!({
            "messageId": id,
            "messageType": "RunnerScaleSetJobMessages",
            "body": Value::from(messages.to_vec()).to_string(),
            "statistics": self.statistics(),
        })
    }

    /// A job message (`docs/reference/actions-service.md` §5.3); `more` are the fields of its type.
    pub(super) fn job_message(&self, kind: &str, job: &Job, finished: Option<Wall>, more: Value) -> Value {
        let (owner, repository) = self.entity.as_str().split_once('/').unwrap_or((self.entity.as_str(), "demo"));
        let when = |at: Option<Wall>| at.map_or_else(|| NOT_YET.to_owned(), date);
        let mut message = json!({
            "messageType": kind,
            "runnerRequestId": job.id,
            "repositoryName": repository,
            "ownerName": owner,
            "jobId": job.uuid,
            "jobWorkflowRef": format!("{owner}/{repository}/.github/workflows/ci.yml@refs/heads/main"),
            "jobDisplayName": format!("build {}", job.id),
            "workflowRunId": 1_000_u64.saturating_add(job.id),
            "eventName": "push",
            "requestLabels": [self.name],
            "queueTime": date(job.queued),
            "scaleSetAssignTime": when(job.assigned),
            "runnerAssignTime": when(job.started),
            "finishTime": when(finished),
        });
        if let (Value::Object(message), Value::Object(more)) = (&mut message, more) {
            message.extend(more);
        }
        message
    }
}
