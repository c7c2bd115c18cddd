//! What people do: they toggle, edit and pause, deploy managers, medics and sets, and meddle with what a medic has just
//! disabled. None acts on a set in the moments in which nobody could tell who did it (`Scene::is_ambiguous`).

use super::broken::Broken;
use super::events::{Event, GENERATIONS};
use super::life::Life;
use super::plan::pick;
use medic_core::model::{Entity, EntityKind, PauseScope, ScaleSetId, Span, Wall};
use medic_lab::github::NewSet;
use medic_store::NewPause;
use rand::RngExt as _;
use scaleset_medic::engine::pause_file;
use std::sync::Arc;

/// Between two acts of people on one set.
const APART: Span = Span::secs(60);
/// Sets that may be added to a world.
const ADDED: u32 = 3;

impl Life {
    pub(super) fn people(&mut self, event: Event, set: ScaleSetId, until: Wall) {
        match event {
            Event::PersonDisables => {
                if self.sets_enabled(set, false) && self.dice.random_range(0..10) < 8 {
                    self.later(61_000..3_000_000, Event::PersonEnables(set));
                }
            }
            Event::PersonEnables(set) => {
                if !self.sets_enabled(set, true) {
                    self.later(61_000..200_000, Event::PersonEnables(set));
                }
            }
            Event::PersonEdits => self.edits(set),
            Event::PersonMeddles(set) => self.edits(set),
            Event::Pause => self.pauses(set, until),
            Event::Resume => self.resume(),
            Event::DeployManager => {
                let generation = pick(&mut self.dice, &GENERATIONS);
                self.tell(&format!("the manager is replaced by {generation:?}"));
                self.scene.hub.with(|world, now| {
                    world.stop(0, now);
                    world.garm_mut(0).unwrap().0.reconfigure(|garm| garm.build = generation);
                });
                self.later(3_000..60_000, Event::Start);
            }
            Event::DeployMedic => {
                let old: Vec<u64> = self.medics.iter().map(|medic| medic.number).collect();
                self.medic_comes();
                for number in old {
                    self.later(500..30_000, Event::Retire(number));
                }
            }
            _ => self.adds_a_set(),
        }
    }

    /// A person may do something with a set now.
    fn may_touch(&mut self, set: ScaleSetId) -> bool {
        let now = self.now();
        let busy = self.touched.get(&set).is_some_and(|at| now.since(*at) < APART);
        let up = self.scene.hub.with(|world, _| world.garm(0).unwrap().is_up());
        up && !busy && !self.scene.is_ambiguous(set)
    }

    fn sets_enabled(&mut self, set: ScaleSetId, enabled: bool) -> bool {
        let changes = self.may_touch(set)
            && self.scene.hub.with(|world, now| {
                let (garm, _) = world.garm_mut(0).unwrap();
                let changes = garm.is_enabled(set) != enabled;
                if changes {
                    garm.operator_sets_enabled(set, enabled, now);
                    self.scene.truth.lock().unwrap().person(set, enabled);
                }
                changes
            });
        if changes {
            let now = self.now();
            self.touched.insert(set, now);
            self.tell(&format!("a person sets {set} enabled={enabled}"));
            self.count("person toggles");
        }
        changes
    }

    /// A disabled set that a person has changed is that person's, who comes back to enable it.
    fn edits(&mut self, set: ScaleSetId) {
        if !self.may_touch(set) {
            return;
        }
        let enabled = self.scene.hub.with(|world, now| {
            let (garm, _) = world.garm_mut(0).unwrap();
            garm.operator_edits(set, now);
            let enabled = garm.is_enabled(set);
            self.scene.truth.lock().unwrap().operator_edits(set, enabled);
            enabled
        });
        let now = self.now();
        self.touched.insert(set, now);
        self.tell(&format!("a person edits {set}, enabled={enabled}"));
        self.count("person edits");
        if !enabled {
            self.later(61_000..3_000_000, Event::PersonEnables(set));
        }
    }

    /// Some people who see a set disabled do something about it at once.
    pub(super) fn people_react(&mut self) {
        let disabled = std::mem::take(&mut *self.scene.just_disabled.lock().unwrap());
        let chance = if self.plan.broken == Broken::FightsTheOperator { 10 } else { 1 };
        for set in disabled {
            if self.dice.random_range(0..10) < chance {
                self.later(100..12_000, Event::PersonMeddles(set));
            }
        }
    }

    fn pauses(&mut self, set: ScaleSetId, until: Wall) {
        let (now, manager) = (self.now(), self.config.managers[0].name.clone());
        let scope = match self.dice.random_range(0..3) {
            0 => PauseScope::All,
            1 => PauseScope::Manager { manager },
            _ => PauseScope::Set { manager, set },
        };
        self.tell(&format!("a person pauses {scope:?} until {until}"));
        self.count("person pauses");
        let by_file = scope == PauseScope::All && self.dice.random_range(0..2) == 0;
        if by_file {
            std::fs::write(self.config.run.state_dir.join(pause_file::FILE_NAME), "").unwrap();
        } else {
            let expires = (self.dice.random_range(0..2) == 0).then_some(until);
            let (reason, author) = ("to look at it".to_owned(), "a person".to_owned());
            self.store.add_pause(NewPause { scope: scope.clone(), reason, author, created: now, expires }).unwrap();
        }
        self.scene.truth.lock().unwrap().paused(scope, now, until);
        self.at(until, Event::Resume);
    }

    pub(super) fn resume(&mut self) {
        let now = self.now();
        self.scene.truth.lock().unwrap().resumed(now);
        let _ = std::fs::remove_file(self.config.run.state_dir.join(pause_file::FILE_NAME));
        for pause in self.store.pauses(now).unwrap() {
            self.store.remove_pause(pause.id).unwrap();
        }
    }

    fn adds_a_set(&mut self) {
        let up = self.scene.hub.with(|world, _| world.garm(0).unwrap().is_up());
        if !up || self.added >= ADDED {
            return;
        }
        self.added += 1;
        let entity = Entity { kind: EntityKind::Organization, name: "acme0".to_owned() };
        let name = format!("new-{}", self.added);
        self.tell(&format!("a person adds the set {name}"));
        let hub = Arc::clone(&self.scene.hub);
        hub.with(|world, now| {
            let forge = world.github.add_set(&NewSet { entity: entity.clone(), name: name.clone() }, now);
            world.garm_mut(0).unwrap().0.add_scale_set(&entity, &name, forge, now);
        });
    }
}
