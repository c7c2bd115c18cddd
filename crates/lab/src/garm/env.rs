//! What every part of the simulator works with at one date: configuration, database, log, forge, and what the database
//! tells to whom it may concern.

use super::GarmConfig;
use super::config::LogLevel;
use super::db::{Db, EntityRow, SetRow};
use super::log::{Attrs, By, Log};
use super::render::{self, View};
use crate::forge::Forge;
use bytes::Bytes;
use medic_core::model::Wall;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events kept for a reader that has not asked yet; the oldest are dropped.
const EVENTS_KEPT: usize = 10_000;

/// A change of the database on its way to its consumers.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub operation: Operation,
    pub about: About,
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What a change is about: the row as it was then.
#[derive(Debug, Clone)]
pub(super) enum About {
    Controller,
    Endpoint,
    Credentials,
    Entity(Arc<EntityRow>),
    Set(Arc<SetRow>),
    Instance { name: String, set: u64 },
    Job { id: u64, status: &'static str, entity: Arc<EntityRow> },
}

pub(super) struct Env<'a> {
    pub config: &'a GarmConfig,
    pub db: &'a mut Db,
    pub log: &'a mut Log,
    pub events: &'a mut VecDeque<Bytes>,
    pub changes: &'a mut Vec<Change>,
    pub forge: &'a mut dyn Forge,
    pub now: Wall,
}

impl Env<'_> {
    pub(super) fn say(&mut self, level: LogLevel, msg: &str, attrs: Attrs, by: By<'_>) {
        self.log.write(self.config, self.now, (level, msg), attrs, by);
    }

    /// A set was written: tells it, as the writer would show it.
    pub(super) fn set_changed(&mut self, id: u64, operation: Operation, view: View) {
        let Some(row) = self.db.set(id) else { return };
        let payload = render::set(self.config, self.db, &row, view);
        self.tell("scaleset", Change { operation, about: About::Set(row) }, &payload);
    }

    /// A set is gone.
    pub(super) fn set_deleted(&mut self, row: Arc<SetRow>) {
        let payload = render::set(self.config, self.db, &row, View::Whole);
        self.tell("scaleset", Change { operation: Operation::Delete, about: About::Set(row) }, &payload);
    }

    /// An instance was written.
    pub(super) fn instance_changed(&mut self, id: u64, operation: Operation) {
        let Some(row) = self.db.instances.get(&id) else { return };
        let (payload, about) = (render::instance(row), About::Instance { name: row.name.clone(), set: row.set });
        self.tell("instance", Change { operation, about }, &payload);
    }

    /// An instance's row is removed.
    pub(super) fn remove_instance(&mut self, id: u64) {
        self.instance_changed(id, Operation::Delete);
        self.db.instances.remove(&id);
        self.db.stamp(self.now);
    }

    /// A job was written.
    pub(super) fn job_changed(&mut self, id: u64, operation: Operation) {
        let Some(row) = self.db.jobs.get(&id) else { return };
        let about = About::Job { id, status: row.status, entity: Arc::clone(&row.entity) };
        let payload = render::job(self.config, row);
        self.tell("job", Change { operation, about }, &payload);
    }

    /// An entity was written.
    pub(super) fn entity_changed(&mut self, row: &Arc<EntityRow>, operation: Operation) {
        let payload = render::entity(self.config, self.db, row, operation == Operation::Update);
        let about = About::Entity(Arc::clone(row));
        self.tell(row.entity.kind.as_str(), Change { operation, about }, &payload);
    }

    pub(super) fn tell(&mut self, entity_type: &str, change: Change, payload: &str) {
        if self.events.len() >= EVENTS_KEPT {
            self.events.pop_front();
        }
        let operation = change.operation.as_str();
        self.events.push_back(Bytes::from(format!(
            "{{\"entity-type\":\"{entity_type}\",\"operation\":\"{operation}\",\"payload\":{payload}}}"
        )));
        self.changes.push(change);
    }
}
