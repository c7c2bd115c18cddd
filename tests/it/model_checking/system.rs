//! The model for `stateright`: every order of sweeps, faults, operator changes and restarts within the bounds.

use super::broken::Broken;
use super::medic::{Actor, How, Medic, Phase, Row, is_ambiguous, policy};
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
    /// Faults in one history: a crash or a clean end of the medic, a lost, refused, late or unnoticed write, a failed
    /// read, a change by an operator, a restart or an outage of GARM, an early end of a session, a source that lags.
    pub(super) faults: u8,
    /// Ticks with faults. The calm ticks follow.
    pub(super) window: Tick,
    pub(super) calm: Tick,
    pub(super) policy: Policy,
    pub(super) broken: Option<Broken>,
}

impl System {
    pub(super) fn of(sets: u8, medics: u8, faults: u8, window: Tick) -> Self {
        let scenarios = vec![
            Scenario::AbandonedKnown,
            Scenario::AbandonedUnknown,
            Scenario::RetryingKnown,
            Scenario::Suspect,
            Scenario::Healthy,
        ];
        Self { scenarios, sets, medics, faults, window, calm: 24, policy: policy(2), broken: None }
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
    faults: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Disables,
    Enables,
    Edits,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Tick,
    Sweep { medic: usize, lags: bool },
    Decide { medic: usize },
    Open { medic: usize },
    Send { medic: usize, how: How, killed: bool },
    Crash { medic: usize },
    Terminate { medic: usize },
    Finish { medic: usize },
    Start { medic: usize },
    Operator { set: usize, change: Operator },
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
            .all(|set| self.world.holds(set) || self.world.sets[set].disabled_by == Some(By::Operator))
    }

    /// Whether the state can no longer change.
    fn is_quiet(&self) -> bool {
        self.is_well()
            && self.world.late.is_empty()
            && self.journal.iter().all(|row| row.0.step.is_closed())
            && self.medics.iter().all(|medic| medic.phase == Phase::Idle { swept: true })
    }

    fn in_window(&self, system: &System) -> bool {
        self.faults > 0 && self.world.tick < START + system.window
    }

    fn actor<'a>(&'a mut self, system: &'a System, medic: usize) -> Actor<'a> {
        let (world, journal, medic) = (&mut self.world, &mut self.journal, &mut self.medics[medic]);
        Actor { world, journal, medic, policy: &system.policy, broken: system.broken }
    }

    /// Whether a medic with a lower number has not swept yet.
    fn has_earlier(&self, medic: usize) -> bool {
        self.medics[..medic].iter().any(|other| other.phase == Phase::Idle { swept: false })
    }

    fn medic_steps(&self, system: &System, medic: usize, actions: &mut Vec<Action>) {
        let this = &self.medics[medic];
        let fault = self.in_window(system);
        match &this.phase {
            Phase::Dead => actions.push(Action::Start { medic }),
            // Medics are alike, so they sweep in the order of their numbers.
            Phase::Idle { swept: false } if self.has_earlier(medic) => {}
            Phase::Idle { swept: false } => {
                actions.push(Action::Sweep { medic, lags: false });
                if fault && self.world.tick > START {
                    actions.push(Action::Sweep { medic, lags: true });
                }
            }
            _ if !this.pending.is_empty() => {
                let outcomes = this.outcomes(&self.world);
                for (nth, how) in outcomes.iter().enumerate() {
                    if nth == 0 || fault {
                        actions.push(Action::Send { medic, how: *how, killed: false });
                    }
                }
                if fault {
                    // Killed after the effect, before its answer was in the journal.
                    actions.push(Action::Send { medic, how: outcomes[0], killed: true });
                }
            }
            Phase::Idle { swept: true } => {}
            Phase::Stepping { .. } => actions.push(Action::Decide { medic }),
            Phase::Opening { .. } => actions.push(Action::Open { medic }),
            Phase::Ending { .. } => actions.push(Action::Finish { medic }),
        }
        if fault && this.phase != Phase::Dead {
            actions.push(Action::Crash { medic });
            // A medic that ends enables at once and does not wait for a second copy of its disable.
            let twice = self.world.late.iter().any(|(set, _)| self.world.sets[*set].disabled_by.is_some());
            if !matches!(this.phase, Phase::Ending { .. }) && this.pending.is_empty() && !twice {
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
                && !matches!(self.world.sets[set].session, Some(s) if s.holder == (Holder::Medic { known: true }))
            {
                actions.push(Action::SessionExpires { set });
            }
            // GARM has no conditional update, so a change between the last read and the write cannot be seen.
            let writing = self.medics.iter().flat_map(|medic| &medic.pending).any(|pending| {
                pending.0.0.set.0 == set as u64 + 1 && matches!(pending.1, Request::Disable | Request::Enable)
            });
            if self.world.down || writing {
                continue;
            }
            let ambiguous = is_ambiguous(&self.journal, &self.world, set);
            match self.world.sets[set].disabled_by {
                None if !ambiguous => actions.push(Action::Operator { set, change: Operator::Disables }),
                None => {}
                // The second copy of our disable would undo it unseen.
                Some(_) if self.world.is_late(set) => {}
                Some(_) => {
                    actions.push(Action::Operator { set, change: Operator::Enables });
                    if !ambiguous {
                        actions.push(Action::Operator { set, change: Operator::Edits });
                    }
                }
            }
        }
    }

    fn sweep_and_step(&mut self, system: &System, medic: usize, lags: bool) {
        if self.claims(system, medic) {
            self.actor(system, medic).sweep_and_step(lags);
        } else {
            self.medics[medic] = Medic::new(Phase::Idle { swept: true });
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

    /// A medic that ended cleanly releases the lease.
    fn give_up(&mut self, medic: usize) {
        let ended = self.medics[medic].phase == Phase::Dead;
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
            medics: (0..self.medics).map(|_| Medic::new(Phase::Idle { swept: false })).collect(),
            lease: None,
            faults: self.faults,
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
        let may_wait = |medic: &Medic| match medic.phase {
            Phase::Idle { swept } => swept,
            Phase::Dead => state.world.tick < START + self.window,
            Phase::Stepping { .. } | Phase::Opening { .. } | Phase::Ending { .. } => false,
        };
        if state.medics.iter().all(may_wait) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let fault = match &action {
            Action::Tick
            | Action::Decide { .. }
            | Action::Open { .. }
            | Action::Finish { .. }
            | Action::Start { .. } => false,
            Action::Sweep { lags, .. } => *lags,
            Action::Send { medic, how, killed } => {
                *killed || state.medics[*medic].outcomes(&state.world).first() != Some(how)
            }
            Action::Crash { .. }
            | Action::Terminate { .. }
            | Action::Operator { .. }
            | Action::ManagerRestarts
            | Action::ManagerGoesDown
            | Action::SessionExpires { .. } => true,
        };
        state.faults -= u8::from(fault);
        match action {
            Action::Tick => {
                state.world.advance();
                for medic in &mut state.medics {
                    if medic.phase != Phase::Dead {
                        medic.phase = Phase::Idle { swept: false };
                    }
                }
            }
            Action::Sweep { medic, lags } => state.sweep_and_step(self, medic, lags),
            Action::Decide { medic } => state.actor(self, medic).decide(),
            Action::Open { medic } => state.actor(self, medic).open_next(),
            Action::Send { medic, how, killed } => state.actor(self, medic).send(how, killed),
            Action::Crash { medic } => state.actor(self, medic).die(),
            // Without the lease there is nothing to finish.
            Action::Terminate { medic } => {
                let holds = state.claims(self, medic);
                let mut actor = state.actor(self, medic);
                if holds {
                    actor.end(3);
                } else {
                    actor.die();
                }
                state.give_up(medic);
            }
            Action::Finish { medic } => {
                let Phase::Ending { rounds } = state.medics[medic].phase else { return None };
                state.actor(self, medic).end(rounds - 1);
                state.give_up(medic);
            }
            Action::Start { medic } => state.medics[medic] = Medic::new(Phase::Idle { swept: false }),
            Action::Operator { set, change } => match change {
                Operator::Disables => state.world.write(set, Enablement::Disabled, By::Operator, true),
                Operator::Enables => state.world.write(set, Enablement::Enabled, By::Operator, true),
                Operator::Edits => state.world.edit(set),
            },
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
                !state.ended(system) || state.world.sets.iter().all(|set| set.disabled_by != Some(By::Us))
            }),
            Property::always("I5", |_, state| unbroken(state, "I5")),
            Property::always("I7", |system, state: &State| {
                let mut sessions = state.world.sets.iter().filter_map(|set| set.session);
                !state.ended(system) || sessions.all(|session| matches!(session.holder, Holder::Garm(_)))
            }),
            Property::always("liveness", |system, state: &State| !state.ended(system) || state.is_well()),
            Property::sometimes("heals", |_, state: &State| {
                state.journal.iter().any(|row| row.0.outcome() == Some(Outcome::Recovered))
            }),
            Property::sometimes("aborts", |_, state: &State| {
                state.journal.iter().any(|row| row.0.outcome() == Some(Outcome::Aborted))
            }),
        ]
    }
}
