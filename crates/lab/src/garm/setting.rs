//! What a scenario or a test sets, and the true state that a test reads. No client can do or see any of this.

use super::env::{Env, Operation};
use super::process::Died;
use super::render::View;
use super::route::ManagerRoute;
use super::worker::{Phase, Purpose};
use super::{Build, GarmState, ManagerFault};
use crate::github::{FaultKind, GithubConfig, GithubState};
use medic_core::model::{Entity, GithubId, Incarnation, ScaleSetId, SessionId, Wall};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub at: Wall,
    pub set: ScaleSetId,
    /// `enabled` before.
    pub was: bool,
    pub enabled: bool,
    /// The client's `User-Agent`.
    pub by: String,
}

/// What becomes of the next PUT's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostPut {
    /// The request takes effect, its answer is lost.
    AfterEffect,
    /// The request never arrives.
    BeforeEffect,
}

/// The true state of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerTruth {
    Absent,
    /// It is being started, and receives no events yet.
    Starting,
    /// It exists, and does not listen.
    Idle,
    /// It exists, should listen, and tries.
    Retrying,
    /// It listens on this session.
    Listening(SessionId),
    /// It waits for an answer that never comes.
    Hanging,
}

impl GarmState {
    pub fn add_entity(&mut self, entity: &Entity, now: Wall) {
        let (row, is_new) = self.db.entity(entity, &self.config.endpoint, now);
        if is_new {
            self.with_env(now, |env| env.entity_created(&row));
        }
    }

    /// Adds an enabled scale set that exists at GitHub.
    pub fn add_scale_set(&mut self, entity: &Entity, name: &str, github_id: GithubId, now: Wall) -> ScaleSetId {
        self.add_entity(entity, now);
        let (row, _) = self.db.entity(entity, &self.config.endpoint, now);
        let id = self.db.add_set(&row, name, github_id.0, now);
        self.with_env(now, |env| env.set_changed(id, Operation::Create, View::Whole));
        ScaleSetId(id)
    }

    /// An operator enables or disables a set, with a real change of the row.
    pub fn operator_sets_enabled(&mut self, set: ScaleSetId, enabled: bool, now: Wall) {
        if self.is_enabled(set) != enabled && self.db.sets.contains_key(&set.0) {
            self.db.write_set(set.0, now, |row| row.enabled = enabled);
            self.with_env(now, |env| env.set_changed(set.0, Operation::Update, View::Whole));
        }
    }

    /// An operator edits a set: its date changes.
    pub fn operator_edits(&mut self, set: ScaleSetId, now: Wall) {
        if self.db.sets.contains_key(&set.0) {
            self.db.write_set(set.0, now, |row| row.max_runners = row.max_runners.saturating_add(1));
            self.with_env(now, |env| env.set_changed(set.0, Operation::Update, View::Whole));
        }
    }

    /// Adds a fault between clients and this manager; earlier faults match first.
    pub fn inject(&mut self, fault: ManagerFault) {
        self.faults.add(fault);
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    pub fn lose_next_put(&mut self, how: LostPut) {
        let fault = match how {
            LostPut::AfterEffect => ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::Reset).after_effect(),
            LostPut::BeforeEffect => ManagerFault::on(ManagerRoute::UpdateSet, FaultKind::Never),
        };
        self.inject(fault.times(1));
    }

    /// Requests are accepted and never answered until this date.
    pub fn hang_until(&mut self, until: Wall) {
        self.inject(ManagerFault::everywhere(FaultKind::Never).until(until));
    }

    /// Requests are answered with this status until this date, in GARM's form.
    pub fn fail_until(&mut self, status: u16, until: Wall) {
        let body = "{\"error\":\"Server error\",\"details\":\"\"}\n".to_owned();
        let kind = FaultKind::Answer { status, content_type: "application/json".to_owned(), body };
        self.inject(ManagerFault::everywhere(kind).until(until));
    }

    /// Every token issued so far is refused: the administrator's password was changed.
    pub fn expire_tokens(&mut self) {
        self.db.token_series = self.db.token_series.saturating_add(1);
    }

    /// Whether job messages of a set cannot be handled, from now on.
    pub fn poison(&mut self, set: ScaleSetId, poisoned: bool) {
        if poisoned {
            self.db.poisoned.insert(set.0);
        } else {
            self.db.poisoned.remove(&set.0);
        }
    }

    /// Changes a setting from now on.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut super::GarmConfig)) {
        change(&mut self.config);
    }

    /// Nothing that is done here asks GitHub.
    fn with_env(&mut self, now: Wall, act: impl FnOnce(&mut Env<'_>)) {
        let mut unused = GithubState::new(GithubConfig::new(""));
        act(&mut env!(self, &mut unused, now));
        self.post(now);
    }
}

impl GarmState {
    #[must_use]
    pub fn controller_id(&self) -> &str {
        &self.config.controller_id
    }

    /// Every PUT so far, no-ops too (the latest hundred thousand).
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// How often the process has panicked.
    #[must_use]
    pub const fn crashes(&self) -> u32 {
        self.crashes
    }

    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.process.as_ref().map(|process| Incarnation(process.started))
    }

    /// Whether the database says enabled.
    #[must_use]
    pub fn is_enabled(&self, set: ScaleSetId) -> bool {
        self.db.sets.get(&set.0).is_some_and(|row| row.enabled)
    }

    /// All sets, with their ids at GitHub.
    pub fn scale_sets(&self) -> impl Iterator<Item = (ScaleSetId, &str, GithubId)> {
        self.db.sets.values().map(|row| (ScaleSetId(row.id), row.name.as_str(), GithubId(row.github_id)))
    }

    /// Instances of a set, by status.
    #[must_use]
    pub fn instances(&self, set: ScaleSetId) -> Vec<&'static str> {
        self.db.instances_of(set.0).map(|(_, row)| row.status.as_str()).collect()
    }

    #[must_use]
    pub fn worker(&self, set: ScaleSetId) -> WorkerTruth {
        let Some(worker) = self.process.as_ref().and_then(|process| process.workers.get(&set.0)) else {
            return WorkerTruth::Absent;
        };
        match (&worker.phase, &worker.listener) {
            (Phase::Hanging, _) => WorkerTruth::Hanging,
            (_, Some(listener)) => WorkerTruth::Listening(SessionId::new(listener.session.id.as_str())),
            (Phase::Preparing | Phase::Asking(Purpose::Find | Purpose::Create, _), None) => WorkerTruth::Starting,
            (Phase::Asking(..) | Phase::Idle | Phase::BackingOff | Phase::Listening, None) => {
                if worker.known.enabled {
                    WorkerTruth::Retrying
                } else {
                    WorkerTruth::Idle
                }
            }
        }
    }

    /// Attempts and failures of a GitHub operation in this incarnation.
    #[must_use]
    pub fn operations(&self, operation: &str) -> (u64, u64) {
        self.process.as_ref().map_or((0, 0), |process| process.counters.get(operation))
    }
}

/// The trace that a crash leaves in the log; that of a lost session as recorded (situation 10).
pub(super) fn panic_lines(died: Died, build: Build) -> Vec<String> {
    let pc = if build.retries() { "pc=0xed5a30" } else { "pc=0xad4930" };
    let (workers, client) = ("workers/scaleset.(*scaleSetListener)", "util/github/scalesets");
    let function = match died {
        Died::SessionNotFound => format!("{client}.(*ScaleSetClient).DeleteMessageSession"),
        Died::TokenWithoutExpiry => format!("{client}.(*MessageSession).maybeRefreshToken"),
    };
    let mut trace = vec![
        "panic: runtime error: invalid memory address or nil pointer dereference".to_owned(),
        format!("[signal SIGSEGV: segmentation violation code=0x1 addr=0x40 {pc}]"),
        String::new(),
        "goroutine 79 [running]:".to_owned(),
    ];
    for function in [function, format!("{workers}.loop")] {
        trace.push(format!("github.com/cloudbase/garm/{function}(0x240e9dfd7650)"));
        trace.push("\t/build/garm/workers/scaleset/scaleset_listener.go:280 +0x827".to_owned());
    }
    trace
}
