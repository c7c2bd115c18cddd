//! A set, its manager, a person and a medic that dies: every history of a few passes with up to [`FAULTS`] mishaps is
//! played, and then a calm time follows. A set that we disabled is enabled in the end (I3), a set that a person
//! disabled is never enabled (I2), a session that we opened ends (I7).
//!
//! What no machine can know is left out: GARM has no conditional update, so a person acts between two passes and not
//! between a look and its write; a disable whose answer was lost is told from a person's by its date alone, so nobody
//! disables or edits the set while that is open.

use super::super::machine;
use super::super::testing::{
    NEXT_RUN, RUN, Seen, T0, disabled, enabled, failure, lost, now, refused, rev, session, treatment,
};
use super::super::transition::{Answer, Input, Request};
use crate::model::failure::WriteError;
use crate::model::{
    Enablement, FailureKind, Incarnation, ManagerState, Outcome, Owner, Remedy, ScaleSet, Span, Step, Treatment, Wall,
};
use crate::policy::Policy;
use crate::ports::write::OpenAnswer;

/// Passes in which things go wrong.
const PASSES: usize = 6;
/// Mishaps in one history.
const FAULTS: usize = 3;
const PAUSE: Span = Span::secs(2);
/// A calm time settles everything within the longest time disabled, a lost disable's wait and one back-off.
const CALM: Span = Span::secs(120 + 30 + 30 + 4);

/// Plays every sequence of choices, one after the other.
#[derive(Default)]
struct Choices {
    script: Vec<usize>,
    taken: Vec<(usize, usize)>,
    faults: usize,
}

impl Choices {
    /// 0 is the calm choice; the others are mishaps, of which a history has only so many.
    fn fault(&mut self, kinds: usize) -> usize {
        if self.faults == 0 {
            return 0;
        }
        let options = kinds + 1;
        let choice = self.script.get(self.taken.len()).copied().unwrap_or(0);
        self.taken.push((choice, options));
        if choice > 0 {
            self.faults -= 1;
        }
        choice
    }
    /// The next history; `None` after the last.
    fn next(self) -> Option<Self> {
        let mut taken = self.taken;
        while let Some((choice, options)) = taken.pop() {
            if choice + 1 < options {
                let mut script: Vec<usize> = taken.iter().map(|(choice, _)| *choice).collect();
                script.push(choice + 1);
                return Some(Self { script, taken: Vec::new(), faults: FAULTS });
            }
        }
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Us,
    Person,
}

/// The manager's and GitHub's truth, and what became of the medic.
struct World {
    set: Option<ScaleSet>,
    disabled_by: Option<By>,
    edits: u32,
    run: Incarnation,
    session_of_ours: bool,
    /// A grant whose answer nobody got: it ends by itself.
    grant_lost: bool,
    /// A disable that is still on its way.
    late: bool,
    at: Wall,
    treatment: Treatment,
    known: bool,
    log: Vec<String>,
}

impl World {
    fn of(remedy: Remedy, step: Step) -> Self {
        Self {
            set: Some(enabled("seen")),
            disabled_by: None,
            edits: 0,
            run: RUN,
            session_of_ours: false,
            grant_lost: false,
            late: false,
            at: T0,
            treatment: Treatment { remedy, ..treatment(step) },
            known: true,
            log: Vec::new(),
        }
    }

    fn change(&mut self, to: Enablement, by: By) {
        let Some(set) = &mut self.set else { return };
        if to == Enablement::Enabled && set.enabled == Enablement::Disabled && by == By::Us {
            assert_eq!(self.disabled_by, Some(By::Us), "we enabled what a person disabled: {:#?}", self.log);
        }
        if to != set.enabled {
            self.edits += 1;
            let revision = format!("r{}", self.edits);
            *set = if to == Enablement::Disabled { disabled(&revision, self.at) } else { enabled(&revision) };
            self.disabled_by = (to == Enablement::Disabled).then_some(by);
        }
    }

    /// A person changes something else of the set; while it is disabled, its state is their decision from then on.
    fn edit(&mut self) {
        let Some(set) = &mut self.set else { return };
        self.edits += 1;
        set.revision = rev(&format!("r{}", self.edits));
        set.updated_at = Some(self.at);
        self.disabled_by = self.disabled_by.map(|_| By::Person);
    }

    fn event(&mut self, choices: &mut Choices) -> Option<ManagerState> {
        let open = matches!(self.treatment.step, Step::Disabling { .. } | Step::DisableUnknown { .. });
        let event = choices.fault(if open { 6 } else { 8 });
        self.log.push(format!("{} event {event}", self.at.0 - T0.0));
        match event {
            1 => return Some(ManagerState::Down),
            2 => return Some(ManagerState::Unreachable),
            3 => self.run = NEXT_RUN,
            4 => self.known = false,
            5 => self.change(Enablement::Enabled, By::Person),
            6 => self.set = None,
            7 => self.change(Enablement::Disabled, By::Person),
            8 => self.edit(),
            _ => {}
        }
        None
    }

    fn pass(&mut self, choices: &mut Choices) {
        self.at = self.at.plus(PAUSE);
        if std::mem::take(&mut self.late) {
            self.change(Enablement::Disabled, By::Us);
        }
        let state = self.event(choices).unwrap_or(ManagerState::Up);
        let seen = Seen::ill().run(self.run);
        let seen = self.set.clone().map_or(seen.clone().gone(), |set| seen.with(set)).manager(state);
        let reachable = state == ManagerState::Up;
        let input = if self.known { Input::Sweep(seen.view()) } else { Input::Recover };
        self.known = true;
        let mut transition = machine::step(&self.treatment, input, now(self.at), &Policy::default());
        loop {
            self.treatment = transition.treatment;
            let Some(effect) = transition.request else { break };
            let answer = self.perform(&effect, reachable, choices);
            self.log.push(format!("{} {effect:?} → {answer:?}", self.at.0 - T0.0));
            let Some(answer) = answer else {
                self.known = false;
                break;
            };
            transition = machine::step(&self.treatment, Input::Answer(answer), now(self.at), &Policy::default());
        }
    }

    /// The answer; `None` when the medic dies.
    fn perform(&mut self, effect: &Request, reachable: bool, choices: &mut Choices) -> Option<Answer> {
        match effect {
            Request::Disable => Some(Answer::Disabled(self.write(Enablement::Disabled, reachable, choices)?)),
            Request::Enable => Some(Answer::Enabled(self.write(Enablement::Enabled, reachable, choices)?)),
            Request::ReadSet => match choices.fault(2) {
                0 if reachable => Some(Answer::Read(Ok(self.set.clone()))),
                2 => None,
                _ => Some(Answer::Read(Err(failure(FailureKind::Timeout)))),
            },
            Request::CheckIncarnation | Request::DeleteSession { .. } => panic!("not of these remedies: {effect:?}"),
            Request::OpenSession { .. } => self.open(choices),
            Request::DeleteOwnSession { .. } => self.delete(choices),
        }
    }

    fn write(
        &mut self,
        to: Enablement,
        reachable: bool,
        choices: &mut Choices,
    ) -> Option<Result<ScaleSet, WriteError>> {
        let kinds = if to == Enablement::Disabled { 6 } else { 5 };
        let fault = if reachable { choices.fault(kinds) } else { 2 };
        if matches!(fault, 0 | 3 | 5) {
            self.change(to, By::Us);
        }
        self.late = fault == 6;
        match fault {
            0 => Some(self.set.clone().ok_or(WriteError::NotApplied(failure(FailureKind::NotFound)))),
            1 => Some(Err(refused())),
            2 | 3 | 6 => Some(Err(lost())),
            _ => None,
        }
    }

    fn open(&mut self, choices: &mut Choices) -> Option<Answer> {
        let fault = choices.fault(6);
        if matches!(fault, 0 | 4 | 6) {
            self.session_of_ours = true;
            self.grant_lost = fault != 0;
        }
        let answer = match fault {
            0 => Ok(OpenAnswer::Opened(session())),
            1 => Ok(OpenAnswer::Held { owner: None }),
            2 => Err(refused()),
            3 | 4 => Err(lost()),
            _ => return None,
        };
        Some(Answer::SessionOpened(answer))
    }

    fn delete(&mut self, choices: &mut Choices) -> Option<Answer> {
        let fault = choices.fault(5);
        if matches!(fault, 0 | 3 | 5) {
            self.session_of_ours = false;
        }
        let answer = match fault {
            0 => Ok(()),
            1 => Err(refused()),
            2 | 3 => Err(lost()),
            _ => return None,
        };
        Some(Answer::SessionDeleted(answer))
    }

    fn is_settled(&self) -> bool {
        !self.treatment.step.is_intent() && !self.late
    }
}

/// Plays every history; returns their number and the outcomes.
fn play(remedy: &Remedy, step: &Step, check: impl Fn(&World)) -> (usize, Vec<Outcome>) {
    let mut outcomes = Vec::new();
    let mut histories = 0;
    let mut next = Some(Choices { faults: FAULTS, ..Choices::default() });
    while let Some(mut choices) = next {
        let mut world = World::of(remedy.clone(), step.clone());
        for _ in 0..PASSES {
            world.pass(&mut choices);
        }
        choices.faults = 0;
        let calm = world.at;
        while !world.is_settled() {
            assert!(world.at.since(calm) <= CALM, "not settled: {:?} {:#?}", world.treatment.step, world.log);
            world.pass(&mut choices);
        }
        check(&world);
        outcomes.extend(world.treatment.outcome().filter(|outcome| !outcomes.contains(outcome)));
        histories += 1;
        next = choices.next();
    }
    outcomes.sort_unstable();
    (histories, outcomes)
}

#[test]
fn no_set_stays_disabled_by_us_and_none_that_a_person_disabled_is_enabled() {
    let (histories, outcomes) = play(&Remedy::Toggle, &Step::Disabling { seen: rev("seen"), sent: None }, |world| {
        assert!(world.set.is_none() || world.disabled_by != Some(By::Us), "{:#?}", world.log);
    });
    assert!(histories > 10_000, "{histories}");
    assert_eq!(outcomes, [Outcome::Aborted, Outcome::Failed], "and most are verified by a listener, not here");
}

#[test]
fn every_session_that_we_opened_ends() {
    let step = Step::CheckOpening { owner: Owner::new("probe-1") };
    let (histories, outcomes) = play(&Remedy::SessionCheck, &step, |world| {
        assert!(!world.session_of_ours || world.grant_lost, "{:#?}", world.log);
    });
    assert!(histories > 1_000, "{histories}");
    assert_eq!(outcomes, [Outcome::Aborted, Outcome::Failed, Outcome::Held, Outcome::Unheld]);
}
