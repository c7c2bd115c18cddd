//! What every part of the simulator works with at one date: configuration, database, log, GitHub, and the events of the
//! database.

use super::GarmConfig;
use super::config::LogLevel;
use super::db::{Db, EntityRow, SetRow};
use super::log::{Attrs, By, Log};
use super::render::{self, View};
use crate::github::GithubState;
use bytes::Bytes;
use medic_core::model::Wall;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events kept until they are taken; the oldest are dropped.
const EVENTS_KEPT: usize = 10_000;

/// A change of the database on its way to its consumers.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub operation: Operation,
    pub about: About,
}

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
    /// A new entity.
    Entity(Arc<EntityRow>),
    Set(Arc<SetRow>),
    Instance {
        name: String,
    },
}

pub(super) struct Env<'a> {
    pub config: &'a GarmConfig,
    pub db: &'a mut Db,
    pub log: &'a mut Log,
    pub events: &'a mut VecDeque<Bytes>,
    pub changes: &'a mut Vec<Change>,
    pub github: &'a mut GithubState,
    pub now: Wall,
}

impl Env<'_> {
    pub(super) fn say(&mut self, level: LogLevel, msg: &str, attrs: Attrs, by: By<'_>) {
        self.log.write(self.config, self.now, (level, msg), attrs, by);
    }

    pub(super) fn set_changed(&mut self, id: u64, operation: Operation, view: View) {
        let Some(row) = self.db.set(id) else { return };
        let payload = render::set(self.config, self.db, &row, view);
        self.publish("scaleset", Change { operation, about: About::Set(row) }, &payload);
    }

    pub(super) fn instance_changed(&mut self, id: u64, operation: Operation) {
        let Some(row) = self.db.instances.get(&id) else { return };
        let (payload, about) = (render::instance(row), About::Instance { name: row.name.clone() });
        self.publish("instance", Change { operation, about }, &payload);
    }

    pub(super) fn remove_instance(&mut self, id: u64) {
        self.instance_changed(id, Operation::Delete);
        self.db.instances.remove(&id);
        self.db.stamp(self.now);
    }

    pub(super) fn entity_created(&mut self, row: &Arc<EntityRow>) {
        let payload = json!({"id": row.uuid, "name": row.entity.name}).to_string();
        let change = Change { operation: Operation::Create, about: About::Entity(Arc::clone(row)) };
        self.publish(row.entity.kind.as_str(), change, &payload);
    }

    fn publish(&mut self, entity_type: &str, change: Change, payload: &str) {
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
