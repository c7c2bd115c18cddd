//! GARM's database, which outlives the process (`docs/reference/garm-api.md` §5-§7).

use super::stamp::{Stamp, Ticker};
use crate::random::{scramble, uuid};
use medic_core::model::{Entity, EntityKind, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A repository, organisation or enterprise.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EntityRow {
    /// Its place in the order of creation, from 1.
    pub number: u64,
    pub uuid: String,
    pub entity: Entity,
    pub endpoint: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct SetRow {
    pub id: u64,
    pub github_id: u64,
    pub name: String,
    pub entity: Arc<EntityRow>,
    pub created: Stamp,
    pub updated: Stamp,
    pub max_runners: u64,
    pub enabled: bool,
    pub desired: u64,
    pub last_message: u64,
}

/// The state of an instance; `pending_force_delete`, `stopped`, `error` and `unknown` do not occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstanceStatus {
    PendingCreate,
    Creating,
    Running,
    PendingDelete,
    Deleting,
    Deleted,
}

impl InstanceStatus {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PendingCreate => "pending_create",
            Self::Creating => "creating",
            Self::Running => "running",
            Self::PendingDelete => "pending_delete",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        }
    }

    /// Whether it counts as a runner of its set.
    pub(super) const fn counts(self) -> bool {
        match self {
            Self::PendingCreate | Self::Creating | Self::Running => true,
            Self::PendingDelete | Self::Deleting | Self::Deleted => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct InstanceRow {
    pub uuid: String,
    pub name: String,
    pub agent: u64,
    pub set: u64,
    pub status: InstanceStatus,
    pub runner_status: &'static str,
    pub updated: Stamp,
}

#[derive(Debug)]
pub(super) struct Db {
    /// Sets whose job messages cannot be handled.
    pub poisoned: BTreeSet<u64>,
    pub sets: BTreeMap<u64, Arc<SetRow>>,
    /// By their order of creation.
    pub instances: BTreeMap<u64, InstanceRow>,
    pub entities: BTreeMap<u64, Arc<EntityRow>>,
    /// Tokens of another series are not valid any more.
    pub token_series: u64,
    /// When the GitHub endpoint was made.
    pub endpoint_made: Stamp,
    ticker: Ticker,
    serial: u64,
    seed: u64,
}

impl Db {
    /// An empty database of a controller.
    pub(super) fn new(config: &super::GarmConfig) -> Self {
        let seed = config.controller_id.bytes().fold(0_u64, |seed, byte| scramble(seed ^ u64::from(byte)));
        Self {
            poisoned: BTreeSet::new(),
            sets: BTreeMap::new(),
            instances: BTreeMap::new(),
            entities: BTreeMap::new(),
            token_series: 0,
            endpoint_made: Stamp::NEVER,
            ticker: Ticker::default(),
            serial: 0,
            seed,
        }
    }

    /// A reproducible number, never twice the same.
    pub(super) fn next(&mut self) -> u64 {
        self.serial = self.serial.saturating_add(1);
        self.serial
    }

    /// A reproducible UUID, never twice the same.
    pub(super) fn uuid(&mut self) -> String {
        let n = self.next();
        uuid(self.seed, n)
    }

    /// A date of a write at `now`, unlike any other.
    pub(super) fn stamp(&mut self, now: Wall) -> Stamp {
        self.ticker.at(now)
    }

    /// The date of the last write.
    pub(super) const fn latest(&self) -> Stamp {
        self.ticker.latest()
    }

    /// The name of a new runner.
    pub(super) fn runner_name(&mut self) -> String {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut number = scramble(self.seed ^ self.next());
        let letter = |_| {
            let letter = LETTERS.get(usize::try_from(number % 36).unwrap_or(0)).copied().unwrap_or(b'a');
            number /= 36;
            char::from(letter)
        };
        let letters: String = (0..12).map(letter).collect();
        format!("garm-{letters}")
    }

    /// An entity, made if it is new.
    pub(super) fn entity(&mut self, entity: &Entity, endpoint: &str, now: Wall) -> (Arc<EntityRow>, bool) {
        if let Some(row) = self.entities.values().find(|row| row.entity == *entity) {
            return (Arc::clone(row), false);
        }
        let number = self.entities.keys().next_back().copied().unwrap_or(0).saturating_add(1);
        if self.endpoint_made == Stamp::NEVER {
            self.endpoint_made = self.stamp(now);
        }
        let row =
            Arc::new(EntityRow { number, uuid: self.uuid(), entity: entity.clone(), endpoint: endpoint.to_owned() });
        self.entities.insert(number, Arc::clone(&row));
        (row, true)
    }

    /// A new, enabled scale set.
    pub(super) fn add_set(&mut self, entity: &Arc<EntityRow>, name: &str, github_id: u64, now: Wall) -> u64 {
        let id = self.sets.keys().next_back().copied().unwrap_or(0).saturating_add(1);
        let created = self.stamp(now);
        let row = SetRow {
            id,
            github_id,
            name: name.to_owned(),
            entity: Arc::clone(entity),
            created,
            updated: created,
            max_runners: 5,
            enabled: true,
            desired: 0,
            last_message: 0,
        };
        self.sets.insert(id, Arc::new(row));
        id
    }

    pub(super) fn set(&self, id: u64) -> Option<Arc<SetRow>> {
        self.sets.get(&id).cloned()
    }

    /// Writes a set's row, with a new date.
    pub(super) fn write_set(&mut self, id: u64, now: Wall, change: impl FnOnce(&mut SetRow)) {
        let updated = self.stamp(now);
        if let Some(row) = self.sets.get_mut(&id) {
            let row = Arc::make_mut(row);
            change(row);
            row.updated = updated;
        }
    }

    /// Writes an instance's row, with a new date.
    pub(super) fn write_instance(&mut self, id: u64, now: Wall, change: impl FnOnce(&mut InstanceRow)) {
        let updated = self.stamp(now);
        if let Some(row) = self.instances.get_mut(&id) {
            change(row);
            row.updated = updated;
        }
    }

    /// Instances of a set.
    pub(super) fn instances_of(&self, set: u64) -> impl Iterator<Item = (u64, &InstanceRow)> {
        self.instances.iter().filter(move |(_, row)| row.set == set).map(|(id, row)| (*id, row))
    }

    /// Runners of a set that have not been given up.
    pub(super) fn runners(&self, set: u64) -> u64 {
        let living = self.instances_of(set).filter(|(_, row)| row.status.counts());
        u64::try_from(living.count()).unwrap_or(u64::MAX)
    }
}

impl EntityRow {
    /// Its scale set controller's name.
    pub(super) fn controller(&self) -> String {
        format!("scaleset-controller-{}", self.uuid)
    }
    /// The path of its REST resources.
    pub(super) fn rest_path(&self) -> String {
        let scope = match self.entity.kind {
            EntityKind::Repository => "repos",
            EntityKind::Organization => "orgs",
            EntityKind::Enterprise => "enterprises",
        };
        format!("{scope}/{}", self.entity.name)
    }
}

impl SetRow {
    pub(super) fn worker(&self) -> String {
        format!("scaleset-worker-{}-{}", self.name, self.id)
    }
}
