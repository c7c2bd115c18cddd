//! A simulated manager whose every listener is well, seen through some of its sources.

use super::super::Fleet;
use super::super::testing::{Manager, by_manager, github_sets, id, secs};
use crate::model::log_fact::{LogEvent, LogFact};
use crate::model::{
    ConflictBehaviour, Diagnosis, FailureKind, Goroutines, ListenerMetrics, ScaleSetId, SessionId, Span, Wall,
};
use std::collections::BTreeMap;

/// What is seen of the manager beside its set list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Eyes {
    pub counters: bool,
    pub series: bool,
    pub goroutines: bool,
    pub log: bool,
    pub actions_service: bool,
    /// Whether the manager exports no start date.
    pub undated: bool,
}

/// Every choice of sources that shows anything; the listeners' own series come with the counters.
pub(super) fn every_choice() -> Vec<Eyes> {
    let mut choices = Vec::new();
    for bits in 1_u8..8 {
        let (counters, goroutines, log) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
        choices.push(Eyes { counters, goroutines, log, ..Eyes::default() });
        if counters {
            choices.push(Eyes { counters, series: true, goroutines, log, ..Eyes::default() });
        }
    }
    choices
}

pub(super) const BEHAVIOURS: [ConflictBehaviour; 3] =
    [ConflictBehaviour::Unknown, ConflictBehaviour::GivesUp, ConflictBehaviour::Retries];

/// A manager whose every listener is well.
pub(super) struct World {
    pub manager: Manager,
    pub eyes: Eyes,
    /// When each listener's first poll began; one takes 50 s.
    pub listeners: BTreeMap<ScaleSetId, Wall>,
    /// Polls logged so far, by listener.
    logged: BTreeMap<ScaleSetId, u64>,
    pub workers: u32,
    pub name: String,
}

impl World {
    pub(super) fn new(sets: u64, conflict_behaviour: ConflictBehaviour, eyes: Eyes) -> Self {
        let mut manager = Manager::healthy(sets);
        manager.metrics = eyes.counters;
        manager.gauges = conflict_behaviour == ConflictBehaviour::Retries;
        manager.state.conflict_behaviour = conflict_behaviour;
        if eyes.undated {
            manager.run = None;
        }
        if eyes.actions_service {
            manager.listed(Ok(github_sets(1..=sets)));
        }
        let mut world = Self {
            eyes,
            listeners: BTreeMap::new(),
            logged: BTreeMap::new(),
            workers: u32::try_from(sets).unwrap(),
            name: format!("{conflict_behaviour:?} {eyes:?}"),
            manager,
        };
        // They began at different times of the last minute.
        for set in 1..=sets {
            let at = world.manager.now.minus(secs(50 + 7 * set % 50));
            world.log(at, LogEvent::SessionOpened { set: by_manager(set), session: SessionId::new(format!("s{set}")) });
            world.listeners.insert(id(set), at);
        }
        world.update_sources();
        world
    }

    pub(super) fn log(&mut self, at: Wall, what: LogEvent) {
        if self.eyes.log {
            self.manager.log.get_or_insert_default().absorb(&LogFact { at, what });
        }
    }

    /// What the sources other than the counters show now.
    fn update_sources(&mut self) {
        let now = self.manager.now;
        for (set, began) in self.listeners.clone() {
            let completed = now.since(began).as_millis() / 50_000;
            let last = began.plus(secs(50 * completed));
            if self.eyes.series && completed > 0 {
                let series = ListenerMetrics { last_success: Some(last) };
                self.manager.listeners.insert(set, series);
            }
            if self.logged.insert(set, completed) != Some(completed) {
                self.log(last, LogEvent::Poll { set: by_manager(set.0), cursor: 0 });
            }
        }
        let listeners = u32::try_from(self.listeners.len()).unwrap();
        let counted = Goroutines { listeners, workers: self.workers };
        let down = self.manager.fails == Some(FailureKind::Connect);
        self.manager.goroutines = (self.eyes.goroutines && !down).then_some(counted);
    }

    pub(super) fn pass(&mut self, span: Span) {
        self.manager.after(span);
        self.update_sources();
    }

    pub(super) fn diagnose(&mut self) -> Fleet {
        self.manager.diagnose()
    }

    pub(super) fn opens(&mut self, set: u64) {
        let at = self.manager.now;
        self.manager.opens();
        self.listeners.insert(id(set), at);
        self.logged.remove(&id(set));
        self.log(at, LogEvent::SessionOpened { set: by_manager(set), session: SessionId::new(format!("{set}-{at}")) });
        self.update_sources();
    }

    pub(super) fn closes(&mut self, set: u64) {
        let at = self.manager.now;
        self.manager.closes();
        self.listeners.remove(&id(set));
        // The series goes with the listener.
        self.manager.listeners.remove(&id(set));
        self.log(at, LogEvent::SessionClosing { set: by_manager(set) });
        self.log(at, LogEvent::WorkerIdle { set: by_manager(set) });
        self.update_sources();
    }

    /// SIGTERM: the sessions are deleted, and another incarnation begins later.
    pub(super) fn stops(&mut self) {
        for set in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.closes(set.0);
        }
        let now = self.manager.now;
        self.log(now, LogEvent::ManagerStopping);
        self.manager.fails = Some(FailureKind::Connect);
        self.update_sources();
    }

    pub(super) fn starts(&mut self) {
        self.manager.fails = None;
        self.manager.restarts(Span::ZERO);
        self.manager.listeners.clear();
        let now = self.manager.now;
        self.log(now, LogEvent::ManagerStarted);
    }

    /// Nothing is ill, and no remedy is proposed.
    pub(super) fn is_left_alone(&self, fleet: &Fleet) {
        let ill: Vec<_> = fleet.findings.values().filter(|finding| finding.diagnosis.is_ill()).collect();
        assert!(ill.is_empty(), "{} at {}: {ill:#?}", self.name, self.manager.now);
        assert!(fleet.findings.values().all(|finding| finding.ill_since.is_none()), "{}", self.name);
        assert_eq!(self.manager.remedies(fleet), [], "{} at {}", self.name, self.manager.now);
    }

    /// And every set but the named one listens.
    pub(super) fn is_well_but(&self, fleet: &Fleet, but: Option<u64>) {
        self.is_left_alone(fleet);
        for finding in fleet.findings.values().filter(|finding| but.is_none_or(|set| finding.set != id(set))) {
            let at = self.manager.now;
            assert_eq!(finding.diagnosis, Diagnosis::Listening, "{} at {at}: {finding:#?}", self.name);
        }
    }
}
