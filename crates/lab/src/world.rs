#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! One simulated GitHub and any number of simulated GARMs, advanced together.

use super::backend::{Backend, ServerId};
use super::garm::{Build, GarmConfig, GarmState};
use super::github::{Credential, GithubConfig, GithubState, NewSet};
use super::wire::{Answer, Request};
use bytes::Bytes;
use medic_core::model::{Entity, EntityKind, GithubId, ScaleSetId, SessionId, Wall};

/// The token of the simulated managers.
pub const GARM_TOKEN: &str = "ghp_lab-garm";
/// The token of the medic: another credential, with a quota of its own.
pub const MEDIC_TOKEN: &str = "ghp_lab-medic";

#[derive(Debug, Clone)]
pub struct Fleet {
    pub managers: Vec<GarmConfig>,
    /// Scale sets of each manager.
    pub sets: u32,
    pub github: GithubConfig,
}

impl Fleet {
    /// One manager of a build with `sets` scale sets, on a GitHub at `origin`.
    #[must_use]
    pub fn new(build: Build, sets: u32, origin: &str) -> Self {
        let github = GithubConfig::new(origin)
            .with(Credential::pat("garm", GARM_TOKEN))
            .with(Credential::pat("medic", MEDIC_TOKEN));
        Self { managers: vec![GarmConfig::new(build, origin, GARM_TOKEN)], sets, github }
    }

    /// With this many managers. Only their controller ids differ.
    #[must_use]
    pub fn managers(mut self, count: usize) -> Self {
        let Some(first) = self.managers.first().cloned() else { return self };
        self.managers = (0..count)
            .map(|n| GarmConfig { controller_id: format!("60b611f2-331d-40a3-a002-{n:012}"), ..first.clone() })
            .collect();
        self
    }

    #[must_use]
    pub fn each(mut self, change: impl Fn(&mut GarmConfig)) -> Self {
        self.managers.iter_mut().for_each(change);
        self
    }
}

#[derive(Debug)]
pub struct World {
    pub github: GithubState,
    garms: Vec<GarmState>,
    wakes: Vec<SessionId>,
}

impl World {
    /// A world whose managers do not run yet. Sets are spread over organisations, ten to each.
    #[must_use]
    pub fn new(fleet: &Fleet, now: Wall) -> Self {
        let mut github = GithubState::new(fleet.github.clone());
        let garms = fleet.managers.iter().enumerate().map(|(manager, config)| {
            let mut garm = GarmState::new(config.clone());
            for n in 0..fleet.sets {
                let (entity, name) = set_of(manager, n);
                let github_id = github.add_set(&NewSet { entity: entity.clone(), name: name.clone() }, now);
                garm.add_scale_set(&entity, &name, github_id, now);
            }
            garm
        });
        let garms = garms.collect();
        Self { github, garms, wakes: Vec::new() }
    }

    #[must_use]
    pub fn garm(&self, manager: usize) -> Option<&GarmState> {
        self.garms.get(manager)
    }

    pub fn garm_mut(&mut self, manager: usize) -> Option<(&mut GarmState, &mut GithubState)> {
        Some((self.garms.get_mut(manager)?, &mut self.github))
    }

    #[must_use]
    pub const fn managers(&self) -> usize {
        self.garms.len()
    }

    pub fn start(&mut self, manager: usize, now: Wall) {
        if let Some((garm, github)) = self.garm_mut(manager) {
            garm.start(now, github);
        }
    }

    /// Kills a manager with SIGKILL.
    pub fn kill(&mut self, manager: usize, now: Wall) {
        if let Some((garm, github)) = self.garm_mut(manager) {
            garm.kill(now, github);
        }
    }

    /// Stops a manager with SIGTERM.
    pub fn stop(&mut self, manager: usize, now: Wall) {
        if let Some((garm, github)) = self.garm_mut(manager) {
            garm.stop(now, github);
        }
    }

    /// The number of a manager's sets that listen on the session that GitHub knows, and of its enabled sets.
    #[must_use]
    pub fn listening(&self, manager: usize) -> (usize, usize) {
        let Some(garm) = self.garms.get(manager) else { return (0, 0) };
        let enabled: Vec<(ScaleSetId, GithubId)> =
            garm.scale_sets().filter(|(id, _, _)| garm.is_enabled(*id)).map(|(id, _, github)| (id, github)).collect();
        let listens = |set: &GithubId| self.github.holder(*set).is_some_and(|holder| garm.holds(&holder.session));
        (enabled.iter().filter(|(_, set)| listens(set)).count(), enabled.len())
    }

    fn next(&self) -> Option<Wall> {
        let garms = self.garms.iter().filter_map(GarmState::next_deadline);
        garms.chain(self.github.next_deadline()).min()
    }

    /// Passes GitHub's wakes on to the managers and to the clients at its endpoint.
    fn hand_over_wakes(&mut self, now: Wall) {
        for session in self.github.take_wakes() {
            match self.garms.iter_mut().find(|garm| garm.holds(&session)) {
                Some(garm) => garm.wake(&session, now),
                None => self.wakes.push(session),
            }
        }
    }
}

fn set_of(manager: usize, n: u32) -> (Entity, String) {
    let organisation = if manager == 0 { format!("acme{}", n / 10) } else { format!("acme{}-{manager}", n / 10) };
    (Entity { kind: EntityKind::Organization, name: organisation }, format!("linux-{n}"))
}

impl Backend for World {
    fn handle(&mut self, server: ServerId, request: &Request, now: Wall) -> Answer {
        let answer = match server {
            ServerId::Github => self.github.handle(now, request),
            ServerId::Manager(manager) => match self.garm_mut(manager) {
                Some((garm, github)) => garm.handle(now, request, github),
                None => Answer::empty(404),
            },
        };
        self.hand_over_wakes(now);
        answer
    }
    fn is_up(&self, server: ServerId) -> bool {
        match server {
            ServerId::Github => true,
            ServerId::Manager(manager) => self.garms.get(manager).is_some_and(GarmState::is_up),
        }
    }
    fn advance(&mut self, now: Wall) {
        self.hand_over_wakes(now);
        while let Some(at) = self.next().filter(|at| *at <= now) {
            self.github.advance(at);
            self.hand_over_wakes(at);
            for garm in &mut self.garms {
                garm.advance(at, &mut self.github);
            }
            self.hand_over_wakes(at);
        }
    }
    fn next_deadline(&self) -> Option<Wall> {
        self.next()
    }
    fn polled_session(&self, server: ServerId, request: &Request) -> Option<SessionId> {
        match server {
            ServerId::Github => GithubState::polled_session(request),
            ServerId::Manager(_) => None,
        }
    }
    fn take_wakes(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.wakes)
    }
    fn take_log(&mut self, server: ServerId) -> Vec<Bytes> {
        match server {
            ServerId::Github => Vec::new(),
            ServerId::Manager(manager) => self.garms.get_mut(manager).map(GarmState::take_log).unwrap_or_default(),
        }
    }
    fn take_events(&mut self, server: ServerId) -> Vec<Bytes> {
        match server {
            ServerId::Github => Vec::new(),
            ServerId::Manager(manager) => self.garms.get_mut(manager).map(GarmState::take_events).unwrap_or_default(),
        }
    }
}
