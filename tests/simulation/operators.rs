//! Operators toggle, edit and pause, deploy GARMs, medics and sets, and change sets that a medic has just disabled.
//! They leave a set alone while `Context::is_ambiguous` holds.

use super::broken::Broken;
use super::events::Event;
use super::simulation::Simulation;
use medic_core::model::{Entity, EntityKind, PauseScope, ScaleSetId, Span, Wall};
use medic_lab::github::NewSet;
use medic_store::NewPause;
use rand::RngExt as _;
use scaleset_medic::engine::pause_file;
use std::sync::Arc;

/// Between two changes of one set by operators.
const APART: Span = Span::secs(60);
/// Sets that may be added to a world.
const ADDED: u32 = 3;

impl Simulation {
    fn may_touch(&mut self, set: ScaleSetId) -> bool {
        let now = self.now();
        let busy = self.touched.get(&set).is_some_and(|at| now.since(*at) < APART);
        let up = self.context.hub.with(|world, _| world.garm(0).unwrap().is_up());
        up && !busy && !self.context.is_ambiguous(set)
    }

    pub(super) fn sets_enabled(&mut self, set: ScaleSetId, enabled: bool) -> bool {
        let changes = self.may_touch(set)
            && self.context.hub.with(|world, now| {
                let (garm, _) = world.garm_mut(0).unwrap();
                let changes = garm.is_enabled(set) != enabled;
                if changes {
                    garm.operator_sets_enabled(set, enabled, now);
                    self.context.invariants.lock().unwrap().operator(set, enabled);
                }
                changes
            });
        if changes {
            let now = self.now();
            self.touched.insert(set, now);
            self.note(&format!("an operator sets {set} enabled={enabled}"));
            self.count("operator toggles");
        }
        changes
    }

    /// A disabled set that an operator has changed is enabled by the operator later.
    pub(super) fn edits(&mut self, set: ScaleSetId) {
        if !self.may_touch(set) {
            return;
        }
        let enabled = self.context.hub.with(|world, now| {
            let (garm, _) = world.garm_mut(0).unwrap();
            garm.operator_edits(set, now);
            let enabled = garm.is_enabled(set);
            // A disabled set counts as disabled by the operator from now on.
            if !enabled {
                self.context.invariants.lock().unwrap().operator(set, false);
            }
            enabled
        });
        let now = self.now();
        self.touched.insert(set, now);
        self.note(&format!("an operator edits {set}, enabled={enabled}"));
        self.count("operator edits");
        if !enabled {
            self.later(61_000..3_000_000, Event::OperatorEnables(set));
        }
    }

    /// Some operators change a set at once that a medic has disabled.
    pub(super) fn operators_react(&mut self) {
        let disabled = std::mem::take(&mut *self.context.just_disabled.lock().unwrap());
        let chance = if self.plan.broken == Broken::FightsTheOperator { 10 } else { 1 };
        for set in disabled {
            if self.dice.random_range(0..10) < chance {
                self.later(100..12_000, Event::OperatorInterferes(set));
            }
        }
    }

    pub(super) fn pauses(&mut self, set: ScaleSetId, until: Wall) {
        let (now, manager) = (self.now(), self.config.managers[0].name.clone());
        let scope = match self.dice.random_range(0..3) {
            0 => PauseScope::All,
            1 => PauseScope::Manager { manager },
            _ => PauseScope::Set { manager, set },
        };
        self.note(&format!("an operator pauses {scope:?} until {until}"));
        self.count("operator pauses");
        let by_file = scope == PauseScope::All && self.dice.random_range(0..2) == 0;
        if by_file {
            std::fs::write(self.config.run.state_dir.join(pause_file::FILE_NAME), "").unwrap();
        } else {
            let expires = (self.dice.random_range(0..2) == 0).then_some(until);
            let (reason, author) = ("to check at it".to_owned(), "an operator".to_owned());
            self.store.add_pause(NewPause { scope: scope.clone(), reason, author, created: now, expires }).unwrap();
        }
        self.context.invariants.lock().unwrap().paused(scope, now, until);
        self.at(until, Event::Resume);
    }

    pub(super) fn resume(&mut self) {
        let now = self.now();
        self.context.invariants.lock().unwrap().resumed(now);
        let _ = std::fs::remove_file(self.config.run.state_dir.join(pause_file::FILE_NAME));
        for pause in self.store.pauses(now).unwrap() {
            self.store.remove_pause(pause.id).unwrap();
        }
    }

    pub(super) fn adds_a_set(&mut self) {
        let up = self.context.hub.with(|world, _| world.garm(0).unwrap().is_up());
        if !up || self.added >= ADDED {
            return;
        }
        self.added += 1;
        let entity = Entity { kind: EntityKind::Organization, name: "acme0".to_owned() };
        let name = format!("new-{}", self.added);
        self.note(&format!("an operator adds the set {name}"));
        let hub = Arc::clone(&self.context.hub);
        hub.with(|world, now| {
            let github_id = world.github.add_set(&NewSet { entity: entity.clone(), name: name.clone() }, now);
            world.garm_mut(0).unwrap().0.add_scale_set(&entity, &name, github_id, now);
        });
    }
}
