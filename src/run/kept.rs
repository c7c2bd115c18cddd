//! Slow sources' last answers, carried into passes that do not ask again (`probe::plan` says when they do).

use crate::model::{Controller, EntityRef, ForgeSet, Incarnation, Lingering, Mono, ScaleSetId, Seen, Span, Sweep};
use crate::probe::plan::{Asked, Due};
use std::collections::BTreeMap;

/// Answers of a forge list that are older than this many intervals say nothing of the present.
const BROKER_LIFE: u64 = 6;

/// The last answers.
#[derive(Debug, Default)]
pub(super) struct Kept {
    controller: Option<Controller>,
    lingering: Option<BTreeMap<ScaleSetId, Lingering>>,
    broker: BTreeMap<EntityRef, (Mono, Vec<ForgeSet>)>,
    incarnation: Option<Incarnation>,
}

impl Kept {
    /// Notes what `sweep` was told, and fills in what it was not told because it did not ask. A failure is left as it
    /// is: old knowledge never hides that a source fails now.
    pub(super) fn fill(&mut self, sweep: &mut Sweep, due: Due, asked: &mut Asked, interval: Span) {
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
                Seen::Known(sets) => drop(self.broker.insert(entity.clone(), (now, sets.clone()))),
                Seen::Failed(_) => drop(self.broker.remove(entity)),
                Seen::NotAsked => {}
            }
        }
        self.broker.retain(|_, (at, _)| now.since(*at) <= interval.times(BROKER_LIFE));
        if !due.broker {
            for (entity, (_, sets)) in &self.broker {
                sweep.broker.entry(entity.clone()).or_insert_with(|| Seen::Known(sets.clone()));
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
