//! Overlaps: two managers with one set, two tables for one manager, sessions of another owner.
//!
//! A set has one session. Two controllers that both want it refuse each other without end, and what heals one breaks
//! the other. Two tables for one controller make two engines treat the same sets.

use super::facts::{Facts, ManagerFacts};
use super::{Check, Finding, Subject};
use medic_core::model::{Owner, ScaleSet};
use std::collections::BTreeSet;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    for (n, one) in facts.managers.iter().enumerate() {
        let later = facts.managers.iter().skip(n.saturating_add(1));
        all.extend(later.filter_map(|other| between(one, other)));
    }
    all.extend(facts.managers.iter().filter_map(foreign_owner));
    if all.is_empty() {
        all.push(Check::Overlap.ok(Subject::Medic, "no sign of two controllers on one set"));
    }
    all
}

fn between(one: &ManagerFacts, other: &ManagerFacts) -> Option<Finding> {
    let url = |manager: &ManagerFacts| manager.config.url.as_str().trim_end_matches('/').to_owned();
    let id = |manager: &ManagerFacts| manager.controller.known().map(|controller| controller.id.clone());
    let names = format!("{} and {}", one.config.name, other.config.name);
    if url(one) == url(other) || (id(one).is_some() && id(one) == id(other)) {
        let found = Check::Overlap.fail(Subject::Medic, format!("{names} are one and the same controller"));
        return Some(
            found
                .risks("every set is watched and treated twice, each time against the other")
                .advice("keep one [[manager]] table of it"),
        );
    }
    let shared = shared_sets(one.sets(), other.sets());
    if let Some(first) = shared.first() {
        let count = shared.len();
        let seen = format!("{names} both have {first} (and {count} shared in all), the same set of GitHub");
        return Some(Check::Overlap.fail(Subject::Medic, seen).risks(RIVALS).step(
            "disable or delete the set at one of them, or give one a runner group of its own",
            &["garm-cli scaleset update ID --enabled=false"],
        ));
    }
    let entities =
        |manager: &ManagerFacts| -> BTreeSet<_> { manager.sets().iter().filter_map(ScaleSet::entity_ref).collect() };
    let (one, other) = (entities(one), entities(other));
    let first = one.intersection(&other).next()?;
    Some(
        Check::Overlap
            .warn(Subject::Medic, format!("{names} both have sets of {first}, none the same"))
            .risks("a set that is created with the name of the other's one would be shared")
            .advice("nothing, if this is intended; keep the names of sets different"),
    )
}

/// Names of sets that are one at GitHub.
fn shared_sets(one: &[ScaleSet], other: &[ScaleSet]) -> Vec<String> {
    let places: BTreeSet<_> = other.iter().filter_map(address).collect();
    one.iter().filter(|set| address(set).is_some_and(|at| places.contains(&at))).map(|set| set.name.clone()).collect()
}

fn address(set: &ScaleSet) -> Option<(String, String, u64)> {
    let place = set.place()?;
    let web = place.endpoint.base_url.trim_end_matches('/').to_ascii_lowercase();
    Some((web, place.entity.name.to_ascii_lowercase(), place.github_id.0))
}

/// A refusal that names another owner than this controller.
fn foreign_owner(manager: &ManagerFacts) -> Option<Finding> {
    let ours = Owner::of_garm(&manager.controller.known()?.id);
    let log = manager.log_file.known()?;
    let all = log.by_id.values().chain(log.by_github.values().flat_map(|sets| sets.values()));
    let foreign = all.filter_map(|set| set.conflict_owner.as_ref()).find(|owner| **owner != ours)?;
    let seen =
        format!("the log says that {foreign} holds a session of a set of {}, which is {ours}", manager.config.name);
    Some(Check::Overlap.fail(manager, seen).risks(RIVALS).step(
        "find the other controller (another GARM, or one restored from a copy of this one's database) and stop it",
        &["garm-cli controller show"],
    ))
}

const RIVALS: &str = "the controllers refuse each other's sessions without end: the one that starts second has no \
                      listener, and no remedy of the medic can help";
