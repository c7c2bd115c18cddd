//! A fleet without trouble is never called ill, whatever is seen of it and whatever is ordinarily done to it: the
//! diagnosis' share of "a healthy fleet sees zero writes" (`docs/reference/design.md` §8, I4).

use super::super::testing::{Manager, by_manager, id, scale_set, secs};
use super::super::{Fleet, State};
use crate::model::log_fact::{LogEvent, LogFact};
use crate::model::{
    ConflictBehaviour, Diagnosis, Enablement, FailureKind, GithubId, Goroutines, ListenerMetrics, ScaleSetId,
    SessionId, Span, Wall,
};
use std::collections::BTreeMap;

/// What is seen of the manager beside its set list.
#[derive(Debug, Clone, Copy)]
struct Eyes {
    counters: bool,
    series: bool,
    goroutines: bool,
    log: bool,
}

/// Every choice of sources that tells anything; the listeners' own series come with the counters.
fn every_choice() -> Vec<Eyes> {
    let mut choices = Vec::new();
    for bits in 1_u8..8 {
        let (counters, goroutines, log) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
        choices.push(Eyes { counters, series: false, goroutines, log });
        if counters {
            choices.push(Eyes { counters, series: true, goroutines, log });
        }
    }
    choices
}

const BEHAVIOURS: [ConflictBehaviour; 3] =
    [ConflictBehaviour::Unknown, ConflictBehaviour::GivesUp, ConflictBehaviour::Retries];

/// A manager whose every listener is well.
struct World {
    manager: Manager,
    eyes: Eyes,
    /// When each listener's first poll began; one takes 50 s.
    listeners: BTreeMap<ScaleSetId, Wall>,
    /// Polls told so far, by listener.
    told: BTreeMap<ScaleSetId, u64>,
    workers: u32,
    name: String,
}

impl World {
    fn new(sets: u64, conflict_behaviour: ConflictBehaviour, eyes: Eyes) -> Self {
        let mut manager = Manager::healthy(sets);
        manager.metrics = eyes.counters;
        manager.gauges = conflict_behaviour == ConflictBehaviour::Retries;
        manager.state.conflict_behaviour = conflict_behaviour;
        let mut world = Self {
            eyes,
            listeners: BTreeMap::new(),
            told: BTreeMap::new(),
            workers: u32::try_from(sets).unwrap(),
            name: format!("{conflict_behaviour:?} {eyes:?}"),
            manager,
        };
        // They began at different times of the last minute.
        for set in 1..=sets {
            let at = world.manager.now.minus(secs(50 + 7 * set % 50));
            world
                .tell(at, LogEvent::SessionOpened { set: by_manager(set), session: SessionId::new(format!("s{set}")) });
            world.listeners.insert(id(set), at);
        }
        world.tell_polls();
        world
    }

    fn tell(&mut self, at: Wall, what: LogEvent) {
        if self.eyes.log {
            self.manager.log.get_or_insert_default().absorb(&LogFact { at, what });
        }
    }

    /// What the sources other than the counters say now.
    fn tell_polls(&mut self) {
        let now = self.manager.now;
        for (set, began) in self.listeners.clone() {
            let completed = now.since(began).as_millis() / 50_000;
            let last = began.plus(secs(50 * completed));
            if self.eyes.series && completed > 0 {
                let series = ListenerMetrics { last_success: Some(last), restarts: 0 };
                self.manager.listeners.insert(set, series);
            }
            if self.told.insert(set, completed) != Some(completed) {
                self.tell(last, LogEvent::Poll { set: by_manager(set.0), cursor: 0 });
            }
        }
        let listeners = u32::try_from(self.listeners.len()).unwrap();
        let counted = Goroutines { listeners, workers: self.workers };
        self.manager.goroutines = self.eyes.goroutines.then_some(counted);
    }

    fn pass(&mut self, span: Span) {
        self.manager.after(span);
        self.tell_polls();
    }

    fn look(&mut self) -> Fleet {
        self.manager.look()
    }

    fn opens(&mut self, set: u64) {
        let at = self.manager.now;
        self.manager.opens();
        self.listeners.insert(id(set), at);
        self.told.remove(&id(set));
        self.tell(at, LogEvent::SessionOpened { set: by_manager(set), session: SessionId::new(format!("{set}-{at}")) });
        self.tell_polls();
    }

    fn closes(&mut self, set: u64) {
        let at = self.manager.now;
        self.manager.closes();
        self.listeners.remove(&id(set));
        // The series goes with the listener.
        self.manager.listeners.remove(&id(set));
        self.tell(at, LogEvent::SessionClosing { set: by_manager(set) });
        self.tell(at, LogEvent::WorkerIdle { set: by_manager(set) });
        self.tell_polls();
    }

    /// Nothing is ill, and nothing would be done.
    fn is_left_alone(&self, fleet: &Fleet) {
        let ill: Vec<_> = fleet.findings.values().filter(|finding| finding.diagnosis.is_ill()).collect();
        assert!(ill.is_empty(), "{} at {}: {ill:#?}", self.name, self.manager.now);
        assert!(fleet.findings.values().all(|finding| finding.ill_since.is_none()), "{}", self.name);
        assert_eq!(self.manager.remedies(fleet), [], "{} at {}", self.name, self.manager.now);
    }

    /// And every set but the named one listens.
    fn is_well_but(&self, fleet: &Fleet, but: Option<u64>) {
        self.is_left_alone(fleet);
        for finding in fleet.findings.values().filter(|finding| but.is_none_or(|set| finding.set != id(set))) {
            let at = self.manager.now;
            assert_eq!(finding.diagnosis, Diagnosis::Listening, "{} at {at}: {finding:#?}", self.name);
        }
    }
}

fn every_world(sets: u64, mut scene: impl FnMut(World)) {
    for conflict_behaviour in BEHAVIOURS {
        for eyes in every_choice() {
            scene(World::new(sets, conflict_behaviour, eyes));
        }
    }
}

#[test]
fn two_idle_hours_are_two_hours_of_listening() {
    every_world(4, |mut world| {
        for _ in 0..480 {
            let fleet = world.look();
            world.is_well_but(&fleet, None);
            world.pass(secs(15));
        }
    });
}

#[test]
fn a_person_who_disables_and_enables_a_set_harms_no_finding() {
    for (interval, reopened) in [(2, 1), (15, 1), (2, 15), (15, 15), (2, 40), (15, 40)] {
        for offset in [0, 1, 7, 14] {
            every_world(4, |mut world| {
                let name = format!("{} every {interval} s, {offset} s after one, {reopened} s to open", world.name);
                world.name = name;
                toggled_by_a_person(&mut world, interval, offset, reopened);
            });
        }
    }
}

/// Disabled at the offset, closed 1 s later, enabled after 3 s, and listening so long after that.
fn toggled_by_a_person(world: &mut World, interval: u64, offset: u64, reopened: u64) {
    let begin = 30 + offset;
    let reopened = begin + 3 + reopened;
    for second in 0..420 {
        if second == begin {
            world.manager.enable(2, Enablement::Disabled);
        } else if second == begin + 1 {
            world.closes(2);
        } else if second == begin + 3 {
            world.manager.enable(2, Enablement::Enabled);
        } else if second == reopened {
            world.opens(2);
        }
        if second % interval == 0 {
            let fleet = world.look();
            let settled = second < begin || second > reopened + 2 * interval;
            world.is_well_but(&fleet, if settled { None } else { Some(2) });
        }
        world.pass(secs(1));
    }
}

#[test]
fn a_set_that_is_added_settles_in_and_disturbs_nobody() {
    every_world(3, |mut world| {
        for second in 0..180 {
            if second == 31 {
                let mut added = scale_set(4, "acme");
                added.github_id = None;
                added.updated_at = Some(world.manager.now);
                world.manager.sets.push(added);
                world.workers += 1;
            } else if second == 34 {
                // GitHub has created it.
                world.manager.set(4).github_id = Some(GithubId(104));
                world.manager.change(4);
            } else if second == 36 {
                world.opens(4);
            }
            if second % 2 == 0 {
                let fleet = world.look();
                world.is_well_but(&fleet, if (31..40).contains(&second) { Some(4) } else { None });
            }
            world.pass(secs(1));
        }
    });
}

#[test]
fn a_set_that_is_removed_is_forgotten_and_disturbs_nobody() {
    every_world(4, |mut world| {
        for second in 0..120 {
            if second == 31 {
                world.manager.enable(2, Enablement::Disabled);
            } else if second == 33 {
                world.closes(2);
            } else if second == 47 {
                world.manager.sets.retain(|set| set.id != id(2));
                world.workers -= 1;
            }
            if second % 2 == 0 {
                let fleet = world.look();
                world.is_well_but(&fleet, if (31..47).contains(&second) { Some(2) } else { None });
                assert_eq!(fleet.findings.contains_key(&id(2)), second < 47);
            }
            world.pass(secs(1));
        }
    });
}

impl World {
    /// SIGTERM: the sessions are deleted, and another run begins after so many seconds.
    fn stops(&mut self) {
        for set in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.closes(set.0);
        }
        let now = self.manager.now;
        self.tell(now, LogEvent::ManagerStopping);
        self.manager.fails = Some(FailureKind::Connect);
        self.manager.goroutines = None;
    }

    fn starts(&mut self) {
        self.manager.fails = None;
        self.manager.restarts(Span::ZERO);
        self.manager.listeners.clear();
        let now = self.manager.now;
        self.tell(now, LogEvent::ManagerStarted);
    }
}

#[test]
fn a_clean_restart_of_the_manager_is_no_illness() {
    for (interval, down) in [(2, 5), (15, 5), (2, 60), (15, 60)] {
        every_world(4, |mut world| {
            let name = format!("{} every {interval} s, down {down} s", world.name);
            world.name = name;
            let up = 31 + down;
            for second in 0..240 {
                if second == 31 {
                    world.stops();
                } else if second == up {
                    world.starts();
                } else if (up + 2..up + 6).contains(&second) {
                    world.opens(second - up - 1);
                }
                if second % interval == 0 {
                    let fleet = world.look();
                    world.is_left_alone(&fleet);
                    if second < 31 || second > up + 6 + 2 * interval {
                        world.is_well_but(&fleet, None);
                    }
                }
                world.pass(secs(1));
                if (31..up).contains(&second) {
                    world.manager.goroutines = None;
                }
            }
        });
    }
}

#[test]
fn a_restart_of_the_medic_is_no_illness_with_or_without_its_memory() {
    for lost in [false, true] {
        for pause in [1, 60, 3600] {
            every_world(4, |mut world| {
                for _ in 0..20 {
                    world.look();
                    world.pass(secs(15));
                }
                let kept = serde_json::to_string(&world.manager.state).unwrap();
                world.manager.state = if lost { State::default() } else { serde_json::from_str(&kept).unwrap() };
                for _ in 0..pause {
                    world.pass(secs(1));
                }
                for _ in 0..20 {
                    let fleet = world.look();
                    world.is_well_but(&fleet, None);
                    world.pass(secs(15));
                }
            });
        }
    }
}

#[test]
fn clocks_that_jump_make_nobody_ill() {
    for (forwards, span) in [(true, secs(90)), (false, secs(90)), (true, Span::hours(2)), (false, Span::hours(2))] {
        every_world(4, |mut world| {
            let name = format!("{} {span} forwards: {forwards}", world.name);
            world.name = name;
            if world.eyes.log || world.eyes.series {
                // Dates of lines and polls are of the manager's clock: another test's matter.
                return;
            }
            for _ in 0..20 {
                world.look();
                world.pass(secs(15));
            }
            let now = world.manager.now;
            world.manager.now = if forwards { now.plus(span) } else { now.minus(span) };
            for _ in 0..40 {
                let fleet = world.look();
                world.is_left_alone(&fleet);
                world.manager.after(secs(15));
            }
        });
    }
}
