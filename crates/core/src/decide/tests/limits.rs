//! The bounds at run time, and which sets the room is a share of.

use super::*;

/// The third heal ended well at 02:02, the set fell ill the day after, and then the clock was set back: health of a
/// whole day clears the set's budget, although its three heals are not a day old.
fn cleared_by_a_clock_set_back() -> World {
    World::stuck(1).with(|w| {
        w.policy.budget_cleared_after = Span::hours(24);
        w.history.extend((1..=3).map(|n| closed(n, 1, mins(60 + n), mins(62 + n), Outcome::Recovered)));
        w.now = mins(1470);
        w.finding().ill_since = Some(mins(1560));
    })
}

#[test]
fn a_day_has_no_more_heals_than_its_bound_even_where_a_clock_set_back_cleared_the_budget() {
    let world = cleared_by_a_clock_set_back();
    assert_eq!(world.only(), is(Guard::Bound, "3 heals of the set in a day", "3 heals of the set in a day", None));
    let observes = world.with(|w| w.mode = Mode::Observe);
    let guards: BTreeSet<_> = observes.guards().into_iter().map(|held| held.guard).collect();
    assert_eq!(guards, BTreeSet::from([Guard::Bound, Guard::DryRun]), "a dry run says so too");
    let fewer = cleared_by_a_clock_set_back().with(|w| w.history.truncate(2));
    assert!(matches!(fewer.first(), Decision::Treat { .. }), "{:?}", fewer.first());
}

#[test]
fn no_bound_holds_back_what_a_person_orders() {
    let world = cleared_by_a_clock_set_back().with(|w| w.orders.push(order(ManualAction::Heal)));
    assert_eq!(world.first(), Decision::Treat { remedy: Remedy::Toggle, canary: false });
}

#[test]
fn the_room_is_a_share_of_the_enabled_sets_alone() {
    let fleet = |disabled: u64| {
        let mut world = World::stuck(400).spread();
        for id in 1..=disabled {
            world.findings.insert(ScaleSetId(id), finding(id, Diagnosis::Disabled, Confidence::Proof));
        }
        world.history.extend((381..=400).map(|id| revived(id, id, mins(61))));
        world
    };
    assert_eq!(fleet(0).acts().len(), 20, "5 % of 400 sets, as many as have shown life");
    assert_eq!(fleet(100).acts().len(), 15, "5 % of 300");
    assert_eq!(fleet(300).acts().len(), 10, "5 % of 100 is less than what may always go at once");
}

#[test]
fn a_heal_counts_against_the_bound_for_a_day_and_no_longer() {
    let at = |minutes| cleared_by_a_clock_set_back().with(|w| w.now = mins(minutes));
    assert_eq!(at(61 + 24 * 60 - 1).only().0, Guard::Bound);
    assert!(matches!(at(61 + 24 * 60).first(), Decision::Treat { .. }), "the first is a day old");
}

#[test]
fn where_room_may_still_grow_the_guard_says_how_far() {
    let mut world = World::stuck(400).spread();
    world.history.push(revived(400, 400, mins(61)));
    world.history.extend((390..400).map(|id| open(id, id, mins(61), Step::Verifying)));
    let limit = "10 at once, up to 20 as sets show life";
    assert_eq!(world.only(), is(Guard::InFlight, "10 of 10 under way", limit, None));
}
