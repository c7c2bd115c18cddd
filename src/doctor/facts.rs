//! What the questions are answered from. Every part may be missing, and says why.

use super::skew::Skew;
use crate::config::{Config, ManagerConfig};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::pause::Pause;
use medic_core::model::{
    Controller, EndpointName, EntityRef, GithubSet, Goroutines, ManagerMetrics, ManagerName, ScaleSet, Seen, Treatment,
    Wall,
};

/// Everything that was found out, and what is configured.
#[derive(Debug, Clone)]
pub struct Facts {
    pub at: Wall,
    pub config: Config,
    pub place: Place,
    pub state_dir: StateDir,
    /// The store in it.
    pub store: StoreFacts,
    /// Treatments in it that keep their sets disabled, by manager.
    pub left_disabled: Vec<(ManagerName, Treatment)>,
    /// The pause by file in it.
    pub pause_file: Option<Pause>,
    /// Each manager, in the configuration's order.
    pub managers: Vec<ManagerFacts>,
    /// Each `[[github]]` table, in the configuration's order.
    pub github: Vec<GithubFacts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Kubernetes,
    Elsewhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateDir {
    /// It takes a file; its permission bits, `None` while it has yet to be made.
    Writable {
        /// As `chmod` takes them.
        mode: Option<u32>,
    },
    /// It does not, in words.
    Unusable(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFacts {
    /// No medic has run here yet.
    Absent,
    Readable {
        /// Sessions that live as far as the ledger knows, of all configured managers.
        live_sessions: usize,
        open_treatments: usize,
        pauses: Vec<Pause>,
        /// The running medic, if one holds the lease.
        holder: Option<String>,
    },
    /// It cannot, in words.
    Unreadable(String),
}

#[derive(Debug, Clone)]
pub struct ManagerFacts {
    /// Its table.
    pub config: ManagerConfig,
    pub controller: Seen<Controller>,
    pub scale_sets: Seen<Vec<ScaleSet>>,
    pub metrics: Seen<ManagerMetrics>,
    pub goroutines: Seen<Goroutines>,
    /// Its log, by file, read to the end after it was asked other things: those show in a log at level info.
    pub log_file: Seen<LogEvidence>,
    /// Its log, by websocket, over a short time.
    pub log_stream: Seen<StreamFacts>,
    /// Whether its change events can be had.
    pub events: Seen<()>,
    /// When our login ends, where the token shows it.
    pub login_until: Option<Wall>,
    /// Its clock against ours, where its answers show it.
    pub skew: Option<Skew>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamFacts {
    pub lines: usize,
    /// Whether one of them was of level debug.
    pub debug: bool,
}

#[derive(Debug, Clone)]
pub struct GithubFacts {
    /// The manager's name for the endpoint.
    pub endpoint: EndpointName,
    /// The entities of all managers that it covers and that were asked, and what was answered.
    pub entities: Vec<(EntityRef, Seen<Vec<GithubSet>>)>,
    /// Entities that it covers and that were not asked, because there are too many.
    pub not_asked: usize,
    /// Calls left in the credential's window.
    pub remaining: Option<u64>,
    /// When the credential ends, where GitHub shows it.
    pub ends: Option<Wall>,
    /// GitHub's clock against ours.
    pub skew: Option<Skew>,
}

impl ManagerFacts {
    /// Sessions that its present run has opened, and attempts that failed, by its counters.
    pub(super) fn sessions(&self) -> (u64, u64) {
        let scopes = self.metrics.known().into_iter().flat_map(|metrics| metrics.scopes.values());
        scopes.fold((0, 0), |(opened, failed): (u64, u64), scope| {
            (opened.saturating_add(scope.opened()), failed.saturating_add(scope.create_errors))
        })
    }

    pub(super) fn sets(&self) -> &[ScaleSet] {
        self.scale_sets.known().map_or(&[], Vec::as_slice)
    }
}
