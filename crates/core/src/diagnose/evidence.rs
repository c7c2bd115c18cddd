//! What one sweep shows that bears on its sets, and what is found of one of them.

use super::context::Context;
use super::state::{Scope, SetState};
use crate::model::fleet::Fleet;
use crate::model::log_fact::LogEvidence;
use crate::model::{
    Confidence, Diagnosis, EndpointName, Entity, EntityKind, Evidence, Fact, GithubId, GithubSet, Goroutines,
    Incarnation, ManagerMetrics, ManagerState, Owner, RequestFailure, Rule, ScaleSet, ScaleSetId, Seen, Source, Span,
    Sweep, Wall, Worker, WorkerState,
};
use crate::policy::Policy;
use std::collections::BTreeMap;

/// What was found of one set in one sweep, before it is compared with the sweeps before.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub rule: Rule,
    pub corrected: Option<Rule>,
    pub diagnosis: Diagnosis,
    pub confidence: Confidence,
    pub evidence: Vec<Evidence>,
    pub worker: Worker,
}

impl Found {
    pub(super) fn new(
        rule: Rule,
        (diagnosis, confidence): (Diagnosis, Confidence),
        source: Source,
        at: Wall,
        fact: Fact,
    ) -> Self {
        let evidence = vec![Evidence { source, at, fact }];
        Self { rule, corrected: None, diagnosis, confidence, evidence, worker: Worker::UNKNOWN }
    }

    pub(super) fn with(mut self, source: Source, at: Wall, fact: Fact) -> Self {
        self.evidence.push(Evidence { source, at, fact });
        self
    }

    pub(super) fn working(mut self, state: WorkerState, since: Wall) -> Self {
        self.worker = Worker { state, since };
        self
    }

    pub(super) fn correct(&mut self, by: Rule, diagnosis: Diagnosis) {
        self.corrected = Some(self.rule);
        (self.rule, self.diagnosis) = (by, diagnosis);
    }
}

/// What all sets of a sweep have in common.
pub(super) struct SweepEvidence<'a> {
    pub sweep: &'a Sweep,
    pub context: &'a Context<'a>,
    pub policy: &'a Policy,
    /// The log, if it is of the present incarnation.
    pub log: Option<&'a LogEvidence>,
    pub fleet: &'a Fleet,
    /// The latest date at which the incarnation can have begun.
    pub began: Option<Wall>,
    pub cause_gone: bool,
    pub listener_series: bool,
    pub scopes: &'a BTreeMap<EntityKind, Scope>,
    pub lists: Lists<'a>,
    /// The sets with a session of an earlier incarnation in the ledger, and that incarnation.
    pub stale: BTreeMap<ScaleSetId, Incarnation>,
    /// Sets whose worker is known to have given up.
    pub given_up: u32,
    pub now: Wall,
}

impl SweepEvidence<'_> {
    /// Whether the manager is within its grace period.
    pub(super) fn young(&self) -> bool {
        self.fleet.manager == ManagerState::Restarted
    }

    /// All sets of the manager, disabled ones included.
    pub(super) fn total(&self) -> u32 {
        u32::try_from(self.fleet.sets.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn age(&self) -> Span {
        self.began.map_or(Span::ZERO, |began| self.now.since(began))
    }

    /// When the set was last changed in this incarnation, by our own clock where we saw it.
    pub(super) fn changed(&self, set: &ScaleSet, known: Option<&SetState>) -> Option<Wall> {
        let seen = known.and_then(|known| known.revised).filter(|at| self.began.is_none_or(|began| *at >= began));
        match (set.updated_at, self.fleet.incarnation) {
            // A change from before the start may be seen only now.
            (Some(updated), Some(incarnation)) => (updated > incarnation.0).then(|| seen.unwrap_or(updated)),
            (Some(_) | None, Some(_) | None) => seen,
        }
    }

    pub(super) const fn metrics(&self) -> Option<&ManagerMetrics> {
        self.sweep.metrics.known()
    }

    pub(super) fn goroutines(&self) -> Option<Goroutines> {
        self.sweep.goroutines.known().copied()
    }

    /// Whether this is the name of another controller.
    pub(super) fn is_foreign(&self, owner: Option<&Owner>) -> bool {
        owner.is_some_and(|owner| self.fleet.owner.as_ref().is_some_and(|ours| owner.is_foreign_to(ours)))
    }
}

/// GitHub's lists of sets, by endpoint and entity.
pub(super) struct Lists<'a>(BTreeMap<(&'a EndpointName, &'a Entity), Result<List<'a>, &'a RequestFailure>>);

/// The sets of one entity, by GitHub.
pub(super) struct List<'a>(BTreeMap<GithubId, &'a GithubSet>);

impl<'a> List<'a> {
    pub(super) fn find(&self, id: GithubId) -> Option<&'a GithubSet> {
        self.0.get(&id).copied()
    }

    pub(super) fn find_by_name(&self, name: &str) -> Option<&'a GithubSet> {
        self.0.values().copied().find(|set| set.name == name)
    }
}

impl<'a> Lists<'a> {
    pub(super) fn of(sweep: &'a Sweep) -> Self {
        let lists = sweep.actions_service.iter().filter_map(|(of, seen)| {
            let answer = match seen {
                Seen::Known(sets) => Ok(List(sets.iter().map(|set| (set.id, set)).collect())),
                Seen::Failed(failure) => Err(failure),
                Seen::NotAsked => return None,
            };
            Some(((&of.endpoint, &of.entity), answer))
        });
        Self(lists.collect())
    }

    /// The list of the set's entity, where this sweep has it.
    pub(super) fn of_set<'s>(&'s self, set: &'s ScaleSet) -> Option<&'s List<'a>> {
        self.answer(set)?.as_ref().ok()
    }

    /// Why this sweep does not have it.
    pub(super) fn failure(&self, set: &ScaleSet) -> Option<&'a RequestFailure> {
        self.answer(set)?.as_ref().err().copied()
    }

    fn answer<'s>(&'s self, set: &'s ScaleSet) -> Option<&'s Result<List<'a>, &'a RequestFailure>> {
        self.0.get(&(&set.endpoint.as_ref()?.name, set.entity.as_ref()?))
    }
}
