//! Slow sources' last answers, carried into passes that do not ask again (`probe::plan` says when they do).

use medic_core::due::{Asked, Due};
use medic_core::model::{
    Controller, EntityRef, GithubSet, Incarnation, Lingering, Mono, ScaleSetId, Seen, Span, Sweep,
};
use std::collections::BTreeMap;

/// Answers of a forge list, failures too, that are older than this many intervals say nothing of the present.
const BROKER_LIFE: u64 = 6;

#[derive(Debug, Default)]
pub(crate) struct Kept {
    controller: Option<Controller>,
    lingering: Option<BTreeMap<ScaleSetId, Lingering>>,
    broker: BTreeMap<EntityRef, (Mono, Seen<Vec<GithubSet>>)>,
    incarnation: Option<Incarnation>,
}

impl Kept {
    /// GitHub's lists that were asked for lately.
    pub(crate) fn lists(&self) -> usize {
        self.broker.len()
    }

    /// Notes what `sweep` was told, and fills in what it was not told because it did not ask. A failure is left as it
    /// is: old knowledge never hides that a source fails now. A forge's failure is carried too: what it froze stays
    /// frozen until the forge is asked again and answers.
    pub(crate) fn fill(&mut self, sweep: &mut Sweep, due: Due, asked: &mut Asked, interval: Span) {
        let now = sweep.at.mono;
        let incarnation = sweep.metrics.known().and_then(|metrics| metrics.incarnation);
        if incarnation.is_some() && incarnation != self.incarnation {
            self.incarnation = incarnation;
            // A new run may be another controller, and its instances are others.
            (asked.controller, asked.lingering) = (None, None);
        }
        keep(&mut sweep.controller, &mut self.controller);
        keep(&mut sweep.lingering, &mut self.lingering);
        if due.controller && sweep.controller.known().is_some() {
            asked.controller = Some(now);
        }
        if due.lingering && sweep.lingering.known().is_some() {
            asked.lingering = Some(now);
        }
        if due.broker && sweep.scale_sets.known().is_some() {
            asked.broker = Some(now);
        }
        for (entity, seen) in &sweep.broker {
            match seen {
                Seen::Known(_) | Seen::Failed(_) => drop(self.broker.insert(entity.clone(), (now, seen.clone()))),
                Seen::NotAsked => {}
            }
        }
        self.broker.retain(|_, (at, _)| now.since(*at) <= interval.times(BROKER_LIFE));
        if !due.broker {
            for (entity, (_, seen)) in &self.broker {
                sweep.broker.entry(entity.clone()).or_insert_with(|| seen.clone());
            }
        }
    }
}

fn keep<T: Clone>(seen: &mut Seen<T>, kept: &mut Option<T>) {
    match seen {
        Seen::Known(value) => *kept = Some(value.clone()),
        Seen::NotAsked => {
            if let Some(value) = kept {
                *seen = Seen::Known(value.clone());
            }
        }
        Seen::Failed(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::{Entity, EntityKind, FailureKind, Now, Operation, RequestFailure, Target, Wall};

    fn sweep(at: u64, broker: BTreeMap<EntityRef, Seen<Vec<GithubSet>>>) -> Sweep {
        Sweep {
            at: Now { wall: Wall(at), mono: Mono(at) },
            controller: Seen::NotAsked,
            scale_sets: Seen::NotAsked,
            lingering: Seen::NotAsked,
            metrics: Seen::NotAsked,
            goroutines: Seen::NotAsked,
            log: Seen::NotAsked,
            broker,
        }
    }

    #[test]
    fn a_forge_that_failed_counts_as_failing_until_it_is_asked_again() {
        let entity = EntityRef {
            endpoint: medic_core::model::EndpointName::new("github.com"),
            entity: Entity { kind: EntityKind::Organization, name: "acme".to_owned() },
        };
        let failure = RequestFailure {
            target: Target::Github,
            operation: Operation::ListGithubSets,
            kind: FailureKind::Redirect,
            detail: "redirects".to_owned(),
            retry_at: None,
        };
        let (mut kept, mut asked) = (Kept::default(), Asked::default());
        let due = |broker| Due { controller: false, lingering: false, broker };
        let interval = Span::secs(15);
        let mut first = sweep(1_000, BTreeMap::from([(entity.clone(), Seen::Failed(failure))]));
        kept.fill(&mut first, due(true), &mut asked, interval);
        let mut second = sweep(2_000, BTreeMap::new());
        kept.fill(&mut second, due(false), &mut asked, interval);
        assert!(second.broker.get(&entity).is_some_and(|seen| seen.failure().is_some()), "{:?}", second.broker);
        let mut third = sweep(16_000, BTreeMap::from([(entity.clone(), Seen::Known(Vec::new()))]));
        kept.fill(&mut third, due(true), &mut asked, interval);
        let mut fourth = sweep(17_000, BTreeMap::new());
        kept.fill(&mut fourth, due(false), &mut asked, interval);
        assert!(fourth.broker.get(&entity).is_some_and(|seen| seen.known().is_some()), "{:?}", fourth.broker);
    }
}
