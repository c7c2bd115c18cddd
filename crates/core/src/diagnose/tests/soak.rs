//! A fleet without trouble is never called ill, whatever is seen of it and whatever is ordinarily done to it: the
//! diagnosis' share of "a healthy fleet sees zero writes" (`docs/reference/design.md` §8, I4).

use super::super::State;
use super::super::testing::{id, scale_set, secs};
use super::healthy::{BEHAVIOURS, World, every_choice};
use crate::model::{Enablement, GithubId, Span};

fn every_world(sets: u64, mut scene: impl FnMut(World)) {
    for conflict_behaviour in BEHAVIOURS {
        for eyes in every_choice() {
            scene(World::new(sets, conflict_behaviour, eyes));
        }
    }
}

#[test]
fn operators_toggle_disturbs_no_other_set() {
    for (interval, reopened) in [(2, 1), (15, 1), (2, 15), (15, 15), (2, 40), (15, 40)] {
        for offset in [0, 1, 7, 14] {
            every_world(4, |mut world| {
                let name = format!("{} every {interval} s, {offset} s after one, {reopened} s to open", world.name);
                world.name = name;
                toggled_by_an_operator(&mut world, interval, offset, reopened);
            });
        }
    }
}

/// Disabled at the offset, closed 1 s later, enabled after 3 s, and listening some time after that.
fn toggled_by_an_operator(world: &mut World, interval: u64, offset: u64, reopened: u64) {
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
            let fleet = world.diagnose();
            let settled = second < begin || second > reopened + 2 * interval;
            world.is_well_but(&fleet, if settled { None } else { Some(2) });
        }
        world.pass(secs(1));
    }
}

#[test]
fn added_set_disturbs_no_other() {
    every_world(3, |mut world| {
        for second in 0..180 {
            if second == 31 {
                let mut added = scale_set(4);
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
                let fleet = world.diagnose();
                world.is_well_but(&fleet, if (31..40).contains(&second) { Some(4) } else { None });
            }
            world.pass(secs(1));
        }
    });
}

#[test]
fn removed_set_is_forgotten_and_disturbs_no_other() {
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
                let fleet = world.diagnose();
                world.is_well_but(&fleet, if (31..47).contains(&second) { Some(2) } else { None });
                assert_eq!(fleet.findings.contains_key(&id(2)), second < 47);
                assert_eq!(world.manager.state.sets.len(), fleet.findings.len());
            }
            world.pass(secs(1));
        }
    });
}

#[test]
fn medic_restart_begins_no_unhealthy_period() {
    for lost in [false, true] {
        for pause in [1, 60, 3600] {
            every_world(4, |mut world| {
                for _ in 0..20 {
                    world.diagnose();
                    world.pass(secs(15));
                }
                let kept = serde_json::to_string(&world.manager.state).unwrap();
                world.manager.state = if lost { State::default() } else { serde_json::from_str(&kept).unwrap() };
                for _ in 0..pause {
                    world.pass(secs(1));
                }
                for _ in 0..20 {
                    let fleet = world.diagnose();
                    world.is_well_but(&fleet, None);
                    world.pass(secs(15));
                }
            });
        }
    }
}

#[test]
fn clock_jumps_make_no_set_ill() {
    for (forwards, span) in [(true, secs(90)), (false, secs(90)), (true, Span::hours(2)), (false, Span::hours(2))] {
        every_world(4, |mut world| {
            let name = format!("{} {span} forwards: {forwards}", world.name);
            world.name = name;
            if world.eyes.log || world.eyes.series {
                // Dates of lines and polls are of the manager's clock: another test's matter.
                return;
            }
            for _ in 0..20 {
                world.diagnose();
                world.pass(secs(15));
            }
            let now = world.manager.now;
            world.manager.now = if forwards { now.plus(span) } else { now.minus(span) };
            for _ in 0..40 {
                let fleet = world.diagnose();
                world.is_left_alone(&fleet);
                world.manager.after(secs(15));
            }
        });
    }
}
