use super::*;

/// Sets of these entities conflict since `since`; the manager started at [`RUN`].
fn conflicts(entities: &[&str], since: Wall) -> World {
    let mut world = World::stuck(0).with(|w| {
        w.fleet.owner = None;
        w.is_at(mins(120));
    });
    for (n, entity) in (1..).zip(entities) {
        let found = finding(n, Diagnosis::ConflictRetrying, Confidence::Proof);
        world.add(scale_set_of(n, entity), Finding { ill_since: Some(since), since, ..found });
    }
    world
}

fn two() -> World {
    conflicts(&["a/a", "b/b"], mins(100))
}

fn block(world: &World) -> Option<GuardFact> {
    blast::block(&world.input()).map(|block| block.fact)
}

#[test]
fn restart_explains_any_number_of_conflicts() {
    assert_eq!(block(&conflicts(&["a/a", "b/b", "c/c"], mins(61))), None);
}

#[test]
fn conflicts_in_two_entities_without_restart_block() {
    assert_eq!(block(&two()), Some(GuardFact::UnexplainedConflicts { entities: 2 }));
}

#[test]
fn conflicts_of_another_owner_do_not_count() {
    let (ours, theirs) = (Owner::of_garm("c1"), Owner::of_garm("c2"));
    for (named, blocks) in [(&ours, true), (&theirs, false)] {
        let world = two().with(|w| {
            w.fleet.owner = Some(ours.clone());
            for finding in w.fleet.findings.values_mut() {
                let fact = Fact::ConflictLine { owner: Some(named.clone()), run: Span::ZERO };
                finding.evidence.push(evidence(mins(100), fact));
            }
        });
        assert_eq!(block(&world).is_some(), blocks, "{named}");
    }
}

#[test]
fn only_live_conflicts_count() {
    for diagnosis in Diagnosis::ALL.iter().copied() {
        let world = two().with(|w| {
            for finding in w.fleet.findings.values_mut() {
                finding.diagnosis = diagnosis;
            }
        });
        let conflict = matches!(diagnosis, Diagnosis::ConflictRetrying | Diagnosis::HeldElsewhere);
        assert_eq!(block(&world).is_some(), conflict, "{diagnosis}");
    }
}

#[test]
fn one_entity_blocks_only_if_diagnosed_as_fault() {
    assert_eq!(block(&conflicts(&["a/a", "a/a"], mins(100))), None);
    let diagnosed = conflicts(&["a/a"], mins(61)).with(|w| w.fleet.fault_at_github = true);
    assert_eq!(block(&diagnosed), Some(GuardFact::GithubFault));
}

#[test]
fn conflicts_of_workers_that_we_restarted_are_explained() {
    let rows = vec![open(1, 1, mins(99), Step::Verifying), open(2, 2, mins(99), Step::Verifying)];
    assert_eq!(block(&two().with(|w| w.given.history = rows.clone())), None);
    let before = rows.iter().map(|row| Treatment { opened: mins(59), ..row.clone() }).collect();
    let checks = rows.iter().map(|row| Treatment { remedy: Remedy::SessionCheck, ..row.clone() }).collect();
    for rows in [before, checks] {
        let world = two().with(|w| w.given.history = rows);
        assert!(block(&world).is_some(), "of an earlier incarnation, or no heal: {:?}", world.given.history);
    }
}
