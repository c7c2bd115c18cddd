//! Blast radius, by cause (`docs/reference/design.md` §6): "all sets conflict and the manager restarted a moment ago"
//! is one cause and is healed in order; "sets of several entities conflict and nothing restarted" is a fault at GitHub,
//! where every act only adds load (`docs/reference/failure-modes.md` §1b F5). A bare percentage does neither right.
//!
//! A conflict is explained by a restart while a stale session can explain it, and when our own treatment revived the
//! worker that now meets it. A refusal that names another owner is that owner's doing. A worker that gave up did so at the manager's start: that explains itself.

use super::budget::is_heal;
use super::remedy::{conflict_since, named_owner};
use crate::model::{
    BlockedBy, EntityRef, Findings, Guard, Incarnation, Owner, ScaleSet, ScaleSetId, Treatment, Wall, told,
};
use crate::policy::Policy;
use std::collections::{BTreeMap, BTreeSet};

/// What bears on the rule.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    pub findings: &'a Findings,
    pub sets: &'a BTreeMap<ScaleSetId, ScaleSet>,
    /// The owner name of this manager's sessions.
    pub owner: Option<&'a Owner>,
    /// The manager's current run.
    pub incarnation: Option<Incarnation>,
    pub history: &'a [Treatment],
    /// Whether the diagnosis of the whole says: a fault at the forge.
    pub fault_at_github: bool,
    pub now: Wall,
    pub policy: &'a Policy,
}

/// The guard, which holds back every remedy of the manager alike.
#[must_use]
pub fn held(scene: &Scene<'_>) -> Option<BlockedBy> {
    let entities = unexplained(scene);
    let value = match (entities.len(), scene.fault_at_github) {
        (0 | 1, false) => return None,
        (0 | 1, true) => told!("several entities fail at once: a fault at GitHub"),
        (count, _) => told!("sets of {} entities conflict, and no restart of the manager explains it", count),
    };
    Some(BlockedBy {
        guard: Guard::BlastRadius,
        value,
        limit: told!("conflicts in 1 entity only, or a restart that explains them"),
        until: None,
    })
}

fn unexplained(scene: &Scene<'_>) -> BTreeSet<EntityRef> {
    let revived = treated_in(scene.history, scene.incarnation);
    scene
        .findings
        .values()
        .filter(|finding| finding.diagnosis.is_refused_now() && !revived.contains(&finding.set))
        .filter(|finding| named_owner(finding).is_none_or(|owner| scene.owner == Some(owner)))
        .filter(|finding| !by_restart(conflict_since(finding, scene.now), scene))
        .filter_map(|finding| scene.sets.get(&finding.set)?.entity_ref())
        .collect()
}

fn by_restart(since: Wall, scene: &Scene<'_>) -> bool {
    scene.incarnation.is_some_and(|run| since <= run.0.plus(scene.policy.stale_session_limit))
}

fn treated_in(history: &[Treatment], incarnation: Option<Incarnation>) -> BTreeSet<ScaleSetId> {
    history
        .iter()
        .filter(|row| is_heal(row) && incarnation.is_none_or(|run| row.opened >= run.0))
        .map(|row| row.set)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{evidence, finding, mins, open, scale_set_of};
    use crate::model::{Confidence, Diagnosis, Fact, Remedy, Span, Step};

    fn scene_of(
        entities: &[&str],
        since: Wall,
        check: impl FnOnce(&mut Scene<'_>) -> Option<BlockedBy>,
    ) -> Option<BlockedBy> {
        let policy = Policy::default();
        let mut findings = Findings::new();
        let mut sets = BTreeMap::new();
        for (n, entity) in (1..).zip(entities) {
            let mut found = finding(n, Diagnosis::ConflictRetrying, Confidence::Proof);
            found.ill_since = Some(since);
            found.since = since;
            findings.insert(ScaleSetId(n), found);
            sets.insert(ScaleSetId(n), scale_set_of(n, entity));
        }
        check(&mut Scene {
            findings: &findings,
            sets: &sets,
            owner: None,
            incarnation: Some(Incarnation(mins(60))),
            history: &[],
            fault_at_github: false,
            now: mins(120),
            policy: &policy,
        })
    }

    #[test]
    fn a_restart_explains_any_number_of_conflicts() {
        assert_eq!(scene_of(&["a/a", "b/b", "c/c"], mins(61), |scene| held(scene)), None);
    }

    #[test]
    fn several_entities_without_a_restart_withhold_everything() {
        let held = scene_of(&["a/a", "b/b"], mins(100), |scene| held(scene)).unwrap();
        assert_eq!(held.value, "sets of 2 entities conflict, and no restart of the manager explains it");
        assert_eq!(held.guard, Guard::BlastRadius);
    }

    #[test]
    fn a_refusal_that_names_another_owner_is_that_owners_doing() {
        let (ours, theirs) = (Owner::of_garm("c1"), Owner::of_garm("c2"));
        for (named, holds) in [(&ours, true), (&theirs, false)] {
            let held = scene_of(&["a/a", "b/b"], mins(100), |scene| {
                let mut findings = scene.findings.clone();
                for (_, finding) in &mut findings {
                    let fact = Fact::ConflictLine { owner: Some(named.clone()), run: Span::ZERO };
                    finding.evidence.push(evidence(mins(100), fact));
                }
                held(&Scene { findings: &findings, owner: Some(&ours), ..*scene })
            });
            assert_eq!(held.is_some(), holds, "{named}");
        }
    }

    #[test]
    fn sets_that_are_not_in_conflict_are_no_sign_of_a_fault_at_github() {
        for diagnosis in Diagnosis::ALL.iter().copied() {
            let held = scene_of(&["a/a", "b/b"], mins(100), |scene| {
                let mut findings = scene.findings.clone();
                for (_, finding) in &mut findings {
                    finding.diagnosis = diagnosis;
                }
                held(&Scene { findings: &findings, ..*scene })
            });
            let conflict = matches!(diagnosis, Diagnosis::ConflictRetrying | Diagnosis::HeldElsewhere);
            assert_eq!(held.is_some(), conflict, "{diagnosis}");
        }
    }

    #[test]
    fn one_entity_is_no_fault_at_github_unless_the_diagnosis_says_so() {
        assert_eq!(scene_of(&["a/a", "a/a"], mins(100), |scene| held(scene)), None);
        let told = scene_of(&["a/a"], mins(61), |scene| {
            scene.fault_at_github = true;
            held(scene)
        });
        assert_eq!(told.unwrap().value, "several entities fail at once: a fault at GitHub");
    }

    #[test]
    fn a_worker_that_we_revived_meets_an_explained_conflict() {
        let rows = [open(1, 1, mins(99), Step::Verifying), open(2, 2, mins(99), Step::Verifying)];
        assert_eq!(scene_of(&["a/a", "b/b"], mins(100), |scene| { held(&Scene { history: &rows, ..*scene }) }), None);
        let before = rows.clone().map(|row| Treatment { opened: mins(59), ..row });
        let asked = rows.map(|row| Treatment { remedy: Remedy::SessionCheck, ..row });
        for rows in [&before, &asked] {
            let held = scene_of(&["a/a", "b/b"], mins(100), |scene| held(&Scene { history: rows, ..*scene }));
            assert!(held.is_some(), "of a run before, or no heal: {rows:?}");
        }
    }
}
