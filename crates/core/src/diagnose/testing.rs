//! A manager as its sources show it, for the tests of this stage: what a test changes is what an operator would see.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "builders for tests: a wrong one fails its test")]

use super::{CheckAnswer, Context, Fleet, State, diagnose};
use crate::decide::testing::conditions;
use crate::decide::{Conditions, Input, decide};
use crate::model::log_fact::{LogEvent, LogEvidence, LogFact, LogSet};
use crate::model::session::LedgerSession;
use crate::model::{
    Confidence, Controller, Decision, Diagnosis, Enablement, EntityKind, EntityRef, Fact, FailureKind, GithubId,
    GithubSet, GithubStatistics, Goroutines, Incarnation, Lingering, ListenerMetrics, ManagerMetrics, Mono, Now,
    Operation, Owner, Quota, Remedy, RequestFailure, Revision, ScaleSet, ScaleSetId, ScopeCounters, Seen, SetDecision,
    Span, Sweep, Treatment, Wall,
};
use crate::policy::Policy;
use std::collections::BTreeMap;

/// Noon of some day.
pub const START: Wall = Wall(1_800_000_000_000);

pub use crate::decide::testing::{ledger_session, open, scale_set, scale_set_of};

pub const fn id(id: u64) -> ScaleSetId {
    ScaleSetId(id)
}

pub fn secs(seconds: u64) -> Span {
    Span::secs(seconds)
}

pub fn failure(operation: Operation, kind: FailureKind) -> RequestFailure {
    RequestFailure {
        target: operation.target(),
        operation,
        kind,
        detail: "as the test wants".to_owned(),
        retry_at: None,
    }
}

/// One manager, its sources, and the medic's state of it.
#[derive(Debug, Clone)]
pub struct Manager {
    pub now: Wall,
    pub state: State,
    pub policy: Policy,
    pub sets: Vec<ScaleSet>,
    /// Why the set list cannot be read.
    pub fails: Option<FailureKind>,
    pub run: Option<Incarnation>,
    pub counters: ScopeCounters,
    /// Listeners that poll, each every 50 s.
    pub polling: u64,
    polled: u64,
    pub metrics: bool,
    pub gauges: bool,
    pub listeners: BTreeMap<ScaleSetId, ListenerMetrics>,
    pub quotas: Vec<Quota>,
    pub goroutines: Option<Goroutines>,
    pub log: Option<LogEvidence>,
    pub lingering: BTreeMap<ScaleSetId, Lingering>,
    pub actions_service: BTreeMap<EntityRef, Seen<Vec<GithubSet>>>,
    pub treatments: Vec<Treatment>,
    pub checks: BTreeMap<ScaleSetId, (Wall, CheckAnswer)>,
    pub ledger: Vec<LedgerSession>,
}

impl Manager {
    /// Sets of one organisation that have listened for an hour; metrics are the only source.
    pub fn healthy(sets: u64) -> Self {
        let run = START.minus(Span::hours(1));
        Self {
            now: START,
            state: State::default(),
            policy: Policy::default(),
            sets: (1..=sets).map(scale_set).collect(),
            fails: None,
            run: Some(Incarnation(run)),
            counters: ScopeCounters { create: sets, poll: 72 * sets, ..ScopeCounters::default() },
            polling: sets,
            polled: 0,
            metrics: true,
            gauges: false,
            listeners: BTreeMap::new(),
            quotas: Vec::new(),
            goroutines: None,
            log: None,
            lingering: BTreeMap::new(),
            actions_service: BTreeMap::new(),
            treatments: Vec::new(),
            checks: BTreeMap::new(),
            ledger: Vec::new(),
        }
    }

    /// The same after a crash and a restart some time ago, by a build that gives up: every set was refused once.
    pub fn given_up(sets: u64, ago: Span) -> Self {
        let mut manager = Self::healthy(sets);
        manager.restarts(ago);
        manager.counters = ScopeCounters { create: sets, create_errors: sets, ..ScopeCounters::default() };
        manager
    }

    /// A new incarnation, of this age, that has not opened a session yet.
    pub fn restarts(&mut self, ago: Span) {
        self.run = self.run.map(|_| Incarnation(self.now.minus(ago)));
        self.counters = ScopeCounters::default();
        self.polling = 0;
    }

    pub fn after(&mut self, span: Span) -> &mut Self {
        self.now = self.now.plus(span);
        self.polled = self.polled.saturating_add(span.as_millis().saturating_mul(self.polling));
        self.counters.poll = self.counters.poll.saturating_add(self.polled / 50_000);
        self.polled %= 50_000;
        self
    }

    /// One listener opens a session and polls.
    pub fn opens(&mut self) {
        self.counters.create += 1;
        self.counters.poll += 1;
        self.polling += 1;
    }

    /// One listener closes its session.
    pub fn closes(&mut self) {
        self.counters.delete += 1;
        self.counters.poll_errors += 1;
        self.polling -= 1;
    }

    pub fn is_refused(&mut self) {
        self.counters.create += 1;
        self.counters.create_errors += 1;
    }

    pub fn set(&mut self, id: u64) -> &mut ScaleSet {
        self.sets.iter_mut().find(|set| set.id == ScaleSetId(id)).unwrap()
    }

    /// Somebody or something changes the set now.
    pub fn change(&mut self, id: u64) {
        let now = self.now;
        let set = self.set(id);
        set.revision = Revision::new(format!("r{}", now.0));
        set.updated_at = Some(now);
    }

    pub fn enable(&mut self, id: u64, to: Enablement) {
        self.set(id).enabled = to;
        self.change(id);
    }

    pub fn logs(&mut self, ago: Span, what: LogEvent) {
        let at = self.now.minus(ago);
        self.log.get_or_insert_default().absorb(&LogFact { at, what });
    }

    /// GitHub's list of the organisation `acme`.
    pub fn listed(&mut self, answer: Result<Vec<GithubSet>, FailureKind>) {
        self.listed_for("acme", answer);
    }

    pub fn listed_for(&mut self, organization: &str, answer: Result<Vec<GithubSet>, FailureKind>) {
        let key = scale_set_of(1, organization).entity_ref().unwrap();
        let failed = |kind| Seen::Failed(failure(Operation::ListGithubSets, kind));
        self.actions_service.insert(key, answer.map_or_else(failed, Seen::Known));
    }

    pub fn sweep(&self) -> Sweep {
        let since_start = self.now.since(Wall(0)).as_millis();
        Sweep {
            at: Now { wall: self.now, mono: Mono(since_start) },
            controller: Seen::Known(Controller { id: "c1".to_owned(), version: "v0".to_owned() }),
            scale_sets: match self.fails {
                None => Seen::Known(self.sets.clone()),
                Some(kind) => Seen::Failed(failure(Operation::ListScaleSets, kind)),
            },
            lingering: Seen::Known(self.lingering.clone()),
            metrics: match (self.metrics, self.fails) {
                (true, None) => Seen::Known(ManagerMetrics {
                    incarnation: self.run,
                    scopes: BTreeMap::from([(EntityKind::Organization, self.counters)]),
                    listeners: self.listeners.clone(),
                    has_set_gauges: self.gauges,
                    quotas: self.quotas.clone(),
                }),
                (true, Some(kind)) => Seen::Failed(failure(Operation::Metrics, kind)),
                (false, _) => Seen::NotAsked,
            },
            goroutines: self.goroutines.map_or(Seen::NotAsked, Seen::Known),
            log: self.log.clone().map_or(Seen::NotAsked, Seen::Known),
            actions_service: self.actions_service.clone(),
        }
    }

    /// One sweep; every finding names a rule that can make it.
    pub fn diagnose(&mut self) -> Fleet {
        let context = Context { treatments: &self.treatments, checks: &self.checks, ledger: &self.ledger };
        let sweep = self.sweep();
        let fleet = diagnose(&mut self.state, &sweep, &context, &self.policy);
        for finding in fleet.findings.values() {
            assert!(finding.rule.makes().contains(&finding.diagnosis), "{finding:?}");
            let corrects = finding.rule.corrects();
            let first = finding.corrected.map(|rule| corrects.is_some_and(|answer| rule.makes().contains(&answer)));
            assert_eq!(first, corrects.map(|_| true), "{finding:?}");
        }
        fleet
    }

    /// A sweep every two seconds for this span; the last result.
    pub fn watch(&mut self, span: Span) -> Fleet {
        self.watch_while(span, |_| {})
    }

    /// As [`watch`](Self::watch), with refusals every two seconds.
    pub fn watch_refused(&mut self, span: Span) -> Fleet {
        self.watch_while(span, Self::is_refused)
    }

    fn watch_while(&mut self, span: Span, happens: impl Fn(&mut Self)) -> Fleet {
        let until = self.now.plus(span);
        let mut fleet = self.diagnose();
        while self.now < until {
            happens(self);
            fleet = self.after(secs(2)).diagnose();
        }
        fleet
    }

    /// The remedies that would be applied, guards aside.
    pub fn remedies(&self, fleet: &Fleet) -> Vec<(ScaleSetId, Remedy)> {
        let can_check_sessions = fleet.sets.keys().copied().collect();
        let given = Conditions { can_check_sessions, ..conditions(self.now, self.policy.clone()) };
        let remedy = |decided: SetDecision| match decided.decision {
            Decision::Treat { remedy, .. } | Decision::Blocked { remedy, .. } => Some((decided.set, remedy)),
            Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } | Decision::Treating { .. } => None,
        };
        decide(&Input { fleet, given: &given }).into_iter().filter_map(remedy).collect()
    }
}

pub fn by_manager(id: u64) -> LogSet {
    LogSet::Manager(ScaleSetId(id))
}

/// The sets as GitHub lists them.
pub fn github_sets(ids: impl IntoIterator<Item = u64>) -> Vec<GithubSet> {
    let one = |n| GithubSet { id: GithubId(100 + n), name: format!("set-{n}"), statistics: None };
    ids.into_iter().map(one).collect()
}

pub fn with_statistics(id: u64, statistics: GithubStatistics) -> Vec<GithubSet> {
    github_sets([id]).into_iter().map(|set| GithubSet { statistics: Some(statistics), ..set }).collect()
}

pub fn ours() -> Owner {
    Owner::of_garm("c1")
}

/// All sets' diagnoses, in order.
pub fn diagnoses(fleet: &Fleet) -> Vec<Diagnosis> {
    fleet.findings.values().map(|finding| finding.diagnosis).collect()
}

pub fn found(fleet: &Fleet, set: u64) -> (Diagnosis, Confidence) {
    let finding = fleet.findings.get(&ScaleSetId(set)).unwrap();
    (finding.diagnosis, finding.confidence)
}

pub fn says(fleet: &Fleet, set: u64, fact: &Fact) -> bool {
    fleet.findings.get(&ScaleSetId(set)).unwrap().evidence.iter().any(|evidence| evidence.fact == *fact)
}
