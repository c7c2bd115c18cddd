//! The bounds at run time, and the rollout limit.

use super::*;

/// The third heal ended well at 02:02, the set fell ill the day after, and then the clock was set back: health of a
/// whole day clears the set's budget, although its three heals are not a day old.
fn cleared_by_a_clock_set_back() -> World {
    World::stuck(1).with(|w| {
        w.given.policy.budget_cleared_after = Span::hours(24);
        w.given.history.extend((1..=3).map(|n| closed(n, 1, mins(60 + n), mins(62 + n), Outcome::Recovered)));
        w.is_at(mins(1470));
        w.finding().ill_since = Some(mins(1560));
    })
}

#[test]
fn bound_blocks_where_a_clock_set_back_cleared_the_budget() {
    let world = cleared_by_a_clock_set_back();
    assert_eq!(world.only(), GuardFact::Bound { of: Bounded::HealsOfSet, count: 3, limit: 3 }.into());
    let observes = world.with(|w| w.given.mode = Mode::Observe);
    assert_eq!(observes.guards(), [Guard::DryRun, Guard::Bound]);
    let fewer = cleared_by_a_clock_set_back().with(|w| w.given.history.truncate(2));
    assert!(matches!(fewer.first(), Decision::Treat { .. }), "{:?}", fewer.first());
}

#[test]
fn bound_blocks_no_manual_heal() {
    let world = cleared_by_a_clock_set_back().with(|w| w.given.manual_heals.push(manual_heal(ManualAction::Heal)));
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::Toggle, canary: false });
}

#[test]
fn rollout_limit_is_a_share_of_the_enabled_sets() {
    let fleet = |disabled: u64| {
        let mut world = World::stuck(400).spread();
        for id in 1..=disabled {
            world.fleet.findings.insert(ScaleSetId(id), finding(id, Diagnosis::Disabled, Confidence::Proof));
        }
        world.given.history.extend((381..=400).map(|id| worker_restarted(id, id, mins(61))));
        world
    };
    assert_eq!(fleet(0).treats().len(), 20, "5 % of 400 sets, as many as have shown life");
    assert_eq!(fleet(100).treats().len(), 15, "5 % of 300");
    assert_eq!(fleet(300).treats().len(), 10, "5 % of 100 is less than what may always go at once");
}

#[test]
fn heal_counts_against_the_bound_for_a_day() {
    let at = |minutes| cleared_by_a_clock_set_back().with(|w| w.is_at(mins(minutes)));
    assert_eq!(at(61 + 24 * 60 - 1).only().guard(), Guard::Bound);
    assert!(matches!(at(61 + 24 * 60).first(), Decision::Treat { .. }), "the first is a day old");
}

#[test]
fn in_flight_guard_names_how_far_the_limit_can_grow() {
    let mut world = World::stuck(400).spread();
    world.given.history.push(worker_restarted(400, 400, mins(61)));
    world.given.history.extend((390..400).map(|id| open(id, id, mins(61), Step::Verifying)));
    assert_eq!(world.only(), GuardFact::InFlight { open: 10, limit: 10, most: 20 }.into());
}
