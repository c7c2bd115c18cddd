//! The whole as `stateright` sees it: every order of passes, mishaps, people and restarts within the bounds.

use super::broken::Broken;
use super::medic::{Desk, How, Medic, Row, Stage, is_ambiguous, policy};
use super::world::{By, Holder, START, Scenario, Tick, World};
use medic_core::model::{Enablement, Outcome};
use medic_core::policy::Policy;
use medic_core::treat::transition::Request;
use stateright::{Model, Property};

/// How long a lease lasts without renewal.
const LEASE: Tick = 3;

#[derive(Debug, Clone)]
pub(super) struct System {
    pub(super) scenarios: Vec<Scenario>,
    pub(super) sets: u8,
    pub(super) medics: u8,
    /// Mishaps in one history, of any kind: a crash or a clean end of the medic, a lost, refused, late or unnoticed
    /// write, a failed read, an act of a person, a restart or an outage of the manager, an early end of a session,
    /// a source that lags.
    pub(super) mishaps: u8,
    /// Ticks in which mishaps happen; after them comes a calm time.
    pub(super) window: Tick,
    pub(super) calm: Tick,
    pub(super) policy: Policy,
    pub(super) broken: Option<Broken>,
}

impl System {
    pub(super) fn of(sets: u8, medics: u8, mishaps: u8, window: Tick) -> Self {
        let scenarios = vec![
            Scenario::AbandonedKnown,
            Scenario::AbandonedUnknown,
            Scenario::RetryingKnown,
            Scenario::Suspect,
            Scenario::Healthy,
        ];
        Self { scenarios, sets, medics, mishaps, window, calm: 24, policy: policy(2), broken: None }
    }
    fn end(&self) -> Tick {
        START + self.window + self.calm
    }
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(super) struct State {
    pub(super) world: World,
    pub(super) journal: Vec<Row>,
    medics: Vec<Medic>,
    lease: Option<(usize, Tick)>,
    mishaps: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Person {
    Disables,
    Enables,
    Edits,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Tick,
    Look { medic: usize, lags: bool },
    Decide { medic: usize },
    Begin { medic: usize },
    Send { medic: usize, how: How, dies: bool },
    Crash { medic: usize },
    Terminate { medic: usize },
    Settle { medic: usize },
    Start { medic: usize },
    Person { set: usize, does: Person },
    ManagerRestarts,
    ManagerGoesDown,
    SessionExpires { set: usize },
}

impl State {
    fn ended(&self, system: &System) -> bool {
        self.world.tick >= system.end()
    }

    fn is_well(&self) -> bool {
        (0..self.world.sets.len())
            .all(|set| self.world.holds(set) || self.world.sets[set].disabled_by == Some(By::Person))
    }

    /// Nothing more can come of this state.
    fn is_quiet(&self) -> bool {
        self.is_well()
            && self.world.late.is_empty()
            && self.journal.iter().all(|row| row.0.step.is_closed())
            && self.medics.iter().all(|medic| medic.stage == Stage::Idle { passed: true })
    }

    fn in_window(&self, system: &System) -> bool {
        self.mishaps > 0 && self.world.tick < START + system.window
    }

    fn desk<T>(&mut self, system: &System, medic: usize, act: impl FnOnce(&mut Desk<'_>) -> T) -> T {
        let (world, journal) = (&mut self.world, &mut self.journal);
        let medic = &mut self.medics[medic];
        act(&mut Desk { world, journal, medic, policy: &system.policy, broken: system.broken })
    }

    /// Whether a medic with a lower number has still to begin its pass.
    fn has_earlier(&self, medic: usize) -> bool {
        self.medics[..medic].iter().any(|other| other.stage == Stage::Idle { passed: false })
    }

    fn medic_steps(&self, system: &System, medic: usize, actions: &mut Vec<Action>) {
        let this = &self.medics[medic];
        let mishap = self.in_window(system);
        match &this.stage {
            Stage::Dead => actions.push(Action::Start { medic }),
            // The order in which several medics begin a pass is one of their numbers: they are alike.
            Stage::Idle { passed: false } if self.has_earlier(medic) => {}
            Stage::Idle { passed: false } => {
                actions.push(Action::Look { medic, lags: false });
                if mishap && self.world.tick > START {
                    actions.push(Action::Look { medic, lags: true });
                }
            }
            _ if !this.pending.is_empty() => {
                let fates = self.clone().desk(system, medic, |desk| desk.fates());
                for (nth, how) in fates.iter().enumerate() {
                    if nth == 0 || mishap {
                        actions.push(Action::Send { medic, how: *how, dies: false });
                    }
                }
                if mishap {
                    // Died after the effect, before its answer was in the journal.
                    actions.push(Action::Send { medic, how: fates[0], dies: true });
                }
            }
            Stage::Idle { passed: true } => {}
            Stage::Stepping { .. } => actions.push(Action::Decide { medic }),
            Stage::Beginning { .. } => actions.push(Action::Begin { medic }),
            Stage::Ending { .. } => actions.push(Action::Settle { medic }),
        }
        if mishap && this.stage != Stage::Dead {
            actions.push(Action::Crash { medic });
            // A medic that ends enables at once, and does not wait for a second copy of its disable.
            let twice = self.world.late.iter().any(|(set, _)| self.world.sets[*set].disabled_by.is_some());
            if !matches!(this.stage, Stage::Ending { .. }) && this.pending.is_empty() && !twice {
                actions.push(Action::Terminate { medic });
            }
        }
    }

    fn events(&self, actions: &mut Vec<Action>) {
        actions.push(Action::ManagerRestarts);
        if !self.world.down {
            actions.push(Action::ManagerGoesDown);
        }
        for set in 0..self.world.sets.len() {
            if self.world.may_expire(set)
                && !matches!(self.world.sets[set].session, Some(s) if s.holder == (Holder::Medic { told: true }))
            {
                actions.push(Action::SessionExpires { set });
            }
            // GARM has no conditional update: nobody can act well between a last look and its write.
            let writing = self.medics.iter().flat_map(|medic| &medic.pending).any(|pending| {
                pending.0.0.set.0 == set as u64 + 1 && matches!(pending.1, Request::Disable | Request::Enable)
            });
            if self.world.down || writing {
                continue;
            }
            let ambiguous = is_ambiguous(&self.journal, &self.world, set);
            match self.world.sets[set].disabled_by {
                None if !ambiguous => actions.push(Action::Person { set, does: Person::Disables }),
                None => {}
                // The second copy of a disable of ours would undo it, and nobody would know.
                Some(_) if self.world.is_late(set) => {}
                Some(_) => {
                    actions.push(Action::Person { set, does: Person::Enables });
                    if !ambiguous {
                        actions.push(Action::Person { set, does: Person::Edits });
                    }
                }
            }
        }
    }

    fn look(&mut self, system: &System, medic: usize, lags: bool) {
        if self.claims(system, medic) {
            self.desk(system, medic, |desk| desk.look(lags));
        } else {
            self.medics[medic] = Medic::waiting();
        }
    }

    /// Takes or renews the lease, if it is free.
    fn claims(&mut self, system: &System, medic: usize) -> bool {
        let tick = self.world.tick;
        if system.medics == 1 || system.broken == Some(Broken::HasNoLease) {
            return true;
        }
        let is_free = self.lease.is_none_or(|(holder, until)| holder == medic || until <= tick);
        if is_free {
            self.lease = Some((medic, tick + LEASE));
        }
        is_free
    }

    /// A medic that has come to its end in order leaves no lease behind.
    fn give_up(&mut self, medic: usize) {
        let ended = self.medics[medic].stage == Stage::Dead;
        self.lease = self.lease.filter(|(holder, _)| !(ended && *holder == medic));
    }
}

impl Model for System {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let state = |scenario: &Scenario| State {
            world: World::new(*scenario, self.sets),
            journal: Vec::new(),
            medics: (0..self.medics).map(|_| Medic::new()).collect(),
            lease: None,
            mishaps: self.mishaps,
        };
        self.scenarios.iter().map(state).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.ended(self) || state.world.broken.is_some() || (state.is_quiet() && !state.in_window(self)) {
            return;
        }
        for medic in 0..state.medics.len() {
            state.medic_steps(self, medic, actions);
        }
        if state.in_window(self) {
            state.events(actions);
        }
        let may_wait = |medic: &Medic| match medic.stage {
            Stage::Idle { passed } => passed,
            Stage::Dead => state.world.tick < START + self.window,
            Stage::Stepping { .. } | Stage::Beginning { .. } | Stage::Ending { .. } => false,
        };
        if state.medics.iter().all(may_wait) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let mishap = match &action {
            Action::Tick
            | Action::Decide { .. }
            | Action::Begin { .. }
            | Action::Settle { .. }
            | Action::Start { .. } => false,
            Action::Look { lags, .. } => *lags,
            Action::Send { medic, how, dies } => {
                *dies || state.desk(self, *medic, |desk| desk.fates().first() != Some(how))
            }
            Action::Crash { .. }
            | Action::Terminate { .. }
            | Action::Person { .. }
            | Action::ManagerRestarts
            | Action::ManagerGoesDown
            | Action::SessionExpires { .. } => true,
        };
        state.mishaps -= u8::from(mishap);
        match action {
            Action::Tick => {
                state.world.go_on();
                for medic in &mut state.medics {
                    if medic.stage != Stage::Dead {
                        medic.stage = Stage::Idle { passed: false };
                    }
                }
            }
            Action::Look { medic, lags } => state.look(self, medic, lags),
            Action::Decide { medic } => state.desk(self, medic, |desk| {
                desk.decide();
            }),
            Action::Begin { medic } => state.desk(self, medic, |desk| {
                desk.begin();
            }),
            Action::Send { medic, how, dies } => state.desk(self, medic, |desk| desk.send(how, dies)),
            Action::Crash { medic } => state.desk(self, medic, |desk| {
                desk.die();
            }),
            // Without the lease there is nothing to settle; at its end a medic gives the lease up.
            Action::Terminate { medic } => {
                let holds = state.claims(self, medic);
                state.desk(self, medic, |desk| if holds { desk.end(3) } else { desk.die() });
                state.give_up(medic);
            }
            Action::Settle { medic } => {
                let Stage::Ending { rounds } = state.medics[medic].stage else { return None };
                state.desk(self, medic, |desk| desk.end(rounds - 1));
                state.give_up(medic);
            }
            Action::Start { medic } => state.medics[medic] = Medic::new(),
            Action::Person { set, does: Person::Disables } => {
                state.world.write(set, Enablement::Disabled, By::Person, true);
            }
            Action::Person { set, does: Person::Enables } => {
                state.world.write(set, Enablement::Enabled, By::Person, true);
            }
            Action::Person { set, does: Person::Edits } => state.world.edit(set),
            Action::ManagerRestarts => state.world.restart(),
            Action::ManagerGoesDown => state.world.down = true,
            Action::SessionExpires { set } => state.world.expire(set),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn unbroken(state: &State, invariant: &str) -> bool {
            !state.world.broken.is_some_and(|broken| broken.starts_with(invariant))
        }
        vec![
            Property::always("I1", |_, state| unbroken(state, "I1")),
            Property::always("I2", |_, state| unbroken(state, "I2")),
            Property::always("I3", |system, state: &State| {
                let ours = |set: &super::world::Set| set.disabled_by == Some(By::Us);
                !state.ended(system) || !state.world.sets.iter().any(ours)
            }),
            Property::always("I5", |_, state| unbroken(state, "I5")),
            Property::always("I7", |system, state: &State| {
                let ours = |set: &super::world::Set| {
                    set.session.is_some_and(|session| matches!(session.holder, Holder::Medic { .. }))
                };
                !state.ended(system) || !state.world.sets.iter().any(ours)
            }),
            Property::always("liveness", |system, state: &State| !state.ended(system) || state.is_well()),
            Property::sometimes("heals", |_, state: &State| {
                state.journal.iter().any(|row| row.0.outcome() == Some(Outcome::Recovered))
            }),
            Property::sometimes("yields", |_, state: &State| {
                state.journal.iter().any(|row| row.0.outcome() == Some(Outcome::Aborted))
            }),
        ]
    }
}
