//! The last answers of slow sources, filled into sweeps that do not ask them (`medic_core::due`).

use medic_core::due::{Asked, Due, Urgency, due};
use medic_core::model::{
    Controller, EntityRef, GithubSet, Incarnation, Lingering, Mono, ScaleSetId, Seen, Span, Sweep,
};
use std::collections::BTreeMap;

/// A GitHub list, or its failure, says nothing of the present after this many intervals.
const GITHUB_LIST_LIFETIME: u64 = 6;

#[derive(Debug)]
pub(crate) struct SourceCache {
    interval: Span,
    asked: Asked,
    controller: Option<Controller>,
    lingering: Option<BTreeMap<ScaleSetId, Lingering>>,
    github: BTreeMap<EntityRef, GithubAnswer>,
    incarnation: Option<Incarnation>,
}

#[derive(Debug)]
struct GithubAnswer {
    at: Mono,
    sets: Seen<Vec<GithubSet>>,
}

impl SourceCache {
    pub(crate) fn new(interval: Span) -> Self {
        let (asked, github) = (Asked::default(), BTreeMap::new());
        Self { interval, asked, controller: None, lingering: None, github, incarnation: None }
    }

    pub(crate) fn due(&self, urgency: Urgency, now: Mono) -> Due {
        due(&self.asked, self.github.len(), urgency, self.interval, now)
    }

    /// Notes the answers in `sweep`, and fills in those of sources that were not due. A failure stays: old knowledge
    /// never hides that a source fails now. A failure of GitHub is filled in too: its sets stay frozen until GitHub
    /// answers.
    pub(crate) fn fill(&mut self, sweep: &mut Sweep, due: Due) {
        let now = sweep.at.mono;
        let incarnation = sweep.metrics.known().and_then(|metrics| metrics.incarnation);
        if incarnation.is_some() && incarnation != self.incarnation {
            self.incarnation = incarnation;
            // Another incarnation may be another controller, and has other instances.
            (self.asked.controller, self.asked.lingering) = (None, None);
        }
        fill_one(&mut sweep.controller, &mut self.controller);
        fill_one(&mut sweep.lingering, &mut self.lingering);
        if due.controller && sweep.controller.known().is_some() {
            self.asked.controller = Some(now);
        }
        if due.lingering && sweep.lingering.known().is_some() {
            self.asked.lingering = Some(now);
        }
        if due.github && sweep.scale_sets.known().is_some() {
            self.asked.github = Some(now);
        }
        for (entity, seen) in &sweep.actions_service {
            match seen {
                Seen::Known(_) | Seen::Failed(_) => {
                    self.github.insert(entity.clone(), GithubAnswer { at: now, sets: seen.clone() });
                }
                Seen::NotAsked => {}
            }
        }
        self.github.retain(|_, answer| now.since(answer.at) <= self.interval.times(GITHUB_LIST_LIFETIME));
        if !due.github {
            for (entity, answer) in &self.github {
                sweep.actions_service.entry(entity.clone()).or_insert_with(|| answer.sets.clone());
            }
        }
    }
}

fn fill_one<T: Clone>(seen: &mut Seen<T>, cached: &mut Option<T>) {
    match (&*seen, &*cached) {
        (Seen::Known(value), _) => *cached = Some(value.clone()),
        (Seen::NotAsked, Some(value)) => *seen = Seen::Known(value.clone()),
        (Seen::NotAsked, None) | (Seen::Failed(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::snapshot::testing::empty_sweep;
    use medic_core::diagnose::testing::{failure, scale_set};
    use medic_core::model::{FailureKind, Operation, Wall};

    fn sweep(at: u64, actions_service: BTreeMap<EntityRef, Seen<Vec<GithubSet>>>) -> Sweep {
        Sweep { actions_service, ..empty_sweep(Wall(at), Mono(at)) }
    }

    #[test]
    fn github_failure_is_filled_in_until_github_is_asked_again() {
        let entity = scale_set(1).entity_ref().unwrap();
        let failure = failure(Operation::ListGithubSets, FailureKind::Redirect);
        let mut cache = SourceCache::new(Span::secs(15));
        for (asked_at, answer, filled_at) in
            [(1_000, Seen::Failed(failure), 2_000), (16_000, Seen::Known(Vec::new()), 17_000)]
        {
            let due = |github| Due { controller: false, lingering: false, github };
            cache.fill(&mut sweep(asked_at, [(entity.clone(), answer.clone())].into()), due(true));
            let mut later = sweep(filled_at, BTreeMap::new());
            cache.fill(&mut later, due(false));
            assert_eq!(later.actions_service.get(&entity), Some(&answer));
        }
    }
}
