//! GARM's database, which outlives the process (`docs/reference/garm-api.md` §5-§7).

use super::stamp::{Stamp, Ticker, scramble, uuid};
use medic_core::model::{Entity, EntityKind, Wall};
use serde_json::Value;
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
    pub created: Stamp,
    pub updated: Stamp,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct SetRow {
    pub id: u64,
    pub github_id: u64,
    pub name: String,
    pub entity: Arc<EntityRow>,
    pub prefix: String,
    pub created: Stamp,
    pub updated: Stamp,
    pub disable_update: bool,
    pub state: String,
    pub extended_state: String,
    pub provider: String,
    pub max_runners: u64,
    pub min_idle_runners: u64,
    pub image: String,
    pub flavor: String,
    pub os_type: String,
    pub os_arch: String,
    pub enabled: bool,
    pub desired: u64,
    pub enable_shell: bool,
    pub generation: u64,
    pub bootstrap_timeout: u64,
    pub extra_specs: Option<Value>,
    pub group: String,
    pub labels: Vec<String>,
    pub last_message: u64,
}

/// Where an instance is in its life; `pending_force_delete`, `stopped`, `error` and `unknown` do not occur here.
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
    /// The provider made it.
    pub provided: bool,
    pub created: Stamp,
    pub updated: Stamp,
}

/// One job, as the messages told it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobRow {
    pub id: u64,
    pub uuid: String,
    pub run_id: u64,
    pub action: String,
    pub status: &'static str,
    pub conclusion: String,
    pub name: String,
    pub runner_name: String,
    pub repository: String,
    pub owner: String,
    pub labels: Vec<String>,
    pub entity: Arc<EntityRow>,
    pub created: Stamp,
    pub updated: Stamp,
}

/// What `PUT /controller` sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Urls {
    pub metadata: String,
    pub callback: String,
    pub webhook: String,
}

#[derive(Debug)]
pub(super) struct Db {
    /// Sets whose job messages cannot be handled.
    pub poisoned: BTreeSet<u64>,
    pub sets: BTreeMap<u64, Arc<SetRow>>,
    /// By their order of creation.
    pub instances: BTreeMap<u64, InstanceRow>,
    pub jobs: BTreeMap<u64, JobRow>,
    pub entities: BTreeMap<u64, Arc<EntityRow>>,
    pub urls: Urls,
    /// The first run is done.
    pub initialised: bool,
    pub user: String,
    pub password: String,
    /// Tokens of another generation are not valid any more.
    pub token_generation: u64,
    pub made: Stamp,
    /// The forge endpoint and its credential exist.
    pub endpoint_made: Stamp,
    ticker: Ticker,
    serial: u64,
    seed: u64,
}

impl Db {
    /// An empty database of a controller.
    pub(super) fn new(config: &super::GarmConfig) -> Self {
        let seed = config.controller_id.bytes().fold(0_u64, |seed, byte| scramble(seed ^ u64::from(byte)));
        let own = &config.own_origin;
        let urls = Urls {
            metadata: format!("{own}/api/v1/metadata"),
            callback: format!("{own}/api/v1/callbacks"),
            webhook: format!("{own}/webhooks"),
        };
        Self {
            poisoned: BTreeSet::new(),
            sets: BTreeMap::new(),
            instances: BTreeMap::new(),
            jobs: BTreeMap::new(),
            entities: BTreeMap::new(),
            urls: if config.initialised { urls } else { Urls::default() },
            initialised: config.initialised,
            user: config.username.clone(),
            password: config.password.clone(),
            token_generation: 0,
            made: Stamp::NEVER,
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

    /// The name of a new runner: a prefix and twelve characters.
    pub(super) fn runner_name(&mut self, prefix: &str) -> String {
        const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut number = scramble(self.seed ^ self.next());
        let letter = |_| {
            let letter = LETTERS.get(usize::try_from(number % 36).unwrap_or(0)).copied().unwrap_or(b'a');
            number /= 36;
            char::from(letter)
        };
        let letters: String = (0..12).map(letter).collect();
        format!("{prefix}-{letters}")
    }

    /// An entity, made if it is new.
    pub(super) fn entity(&mut self, entity: &Entity, endpoint: &str, now: Wall) -> (Arc<EntityRow>, bool) {
        if let Some(row) = self.entities.values().find(|row| row.entity == *entity) {
            return (Arc::clone(row), false);
        }
        let number = self.entities.keys().next_back().copied().unwrap_or(0).saturating_add(1);
        let created = self.stamp(now);
        if self.endpoint_made == Stamp::NEVER {
            self.endpoint_made = created;
        }
        let row = Arc::new(EntityRow {
            number,
            uuid: self.uuid(),
            entity: entity.clone(),
            endpoint: endpoint.to_owned(),
            created,
            updated: created,
        });
        self.entities.insert(number, Arc::clone(&row));
        (row, true)
    }

    /// A new, enabled scale set with the usual settings.
    pub(super) fn add_set(&mut self, entity: &Arc<EntityRow>, name: &str, github_id: u64, now: Wall) -> u64 {
        let id = self.sets.keys().next_back().copied().unwrap_or(0).saturating_add(1);
        let created = self.stamp(now);
        let row = SetRow {
            id,
            github_id,
            name: name.to_owned(),
            entity: Arc::clone(entity),
            prefix: "garm".to_owned(),
            created,
            updated: created,
            disable_update: false,
            state: "pending_create".to_owned(),
            extended_state: String::new(),
            provider: "stub".to_owned(),
            max_runners: 5,
            min_idle_runners: 0,
            image: "ubuntu:22.04".to_owned(),
            flavor: "default".to_owned(),
            os_type: "linux".to_owned(),
            os_arch: "amd64".to_owned(),
            enabled: true,
            desired: 0,
            enable_shell: false,
            generation: 0,
            bootstrap_timeout: 20,
            extra_specs: None,
            group: "Default".to_owned(),
            labels: Vec::new(),
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
    pub(super) fn worker(&self) -> String {
        format!("entity-worker-{}", self.uuid)
    }
    /// Its pool manager's name as a consumer.
    pub(super) fn pool_manager(&self) -> String {
        format!("pool-manager-{}-{}", self.entity.name, self.endpoint)
    }
    /// Its tools updater's name.
    pub(super) fn tools_updater(&self) -> String {
        format!("tools-updater-{}-{}", self.entity.name, self.endpoint)
    }
    /// The path of its web page, which is its configuration URL (`docs/reference/garm-api.md` §5.4).
    pub(super) fn web_path(&self) -> String {
        match self.entity.kind {
            EntityKind::Repository | EntityKind::Organization => self.entity.name.clone(),
            EntityKind::Enterprise => format!("enterprises/{}", self.entity.name),
        }
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
