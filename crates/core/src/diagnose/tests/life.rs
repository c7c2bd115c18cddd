//! An incident from the crash to the last set's return: findings are compared with the truth.

use super::super::testing::{Manager, id, open, secs};
use super::super::{CheckAnswer, Fleet, Recovery};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, FailureKind, Goroutines, ManagerState, Remedy, RestartKind,
    ScaleSetId, Span, Step, Wall, WorkerState,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a set's worker really does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Listens,
    /// Refused every 2 s; the next attempt is due then.
    Tries {
        next: Wall,
    },
    Dead,
    /// It lives and runs no listener: the set is disabled.
    Idle,
}

/// One manager of either kind, with the sessions of its last run still in the way.
struct Incident {
    manager: Manager,
    truth: BTreeMap<ScaleSetId, Truth>,
    /// When each set's stale session ends.
    freed: BTreeMap<ScaleSetId, Wall>,
    retries: bool,
    counts: bool,
    recoveries: Vec<Recovery>,
    /// Seconds between two sweeps.
    every: u64,
}

impl Incident {
    fn new(sets: u64, retries: bool, counts: bool) -> Self {
        let manager = Manager::healthy(sets);
        let truth = (1..=sets).map(|set| (id(set), Truth::Listens)).collect();
        Self { manager, truth, freed: BTreeMap::new(), retries, counts, recoveries: Vec::new(), every: 2 }
    }

    /// SIGKILL: the sessions stay at GitHub, each for its own time.
    fn is_killed(&mut self, stale: impl Fn(u64) -> Span) {
        let now = self.manager.now;
        self.freed = self.truth.keys().map(|set| (*set, now.plus(stale(set.0)))).collect();
        self.manager.fails = Some(FailureKind::Connect);
    }

    /// The next incarnation begins and tries each set once.
    fn is_started(&mut self) {
        self.manager.fails = None;
        self.manager.restarts(Span::ZERO);
        let next = self.manager.now;
        for truth in self.truth.values_mut() {
            *truth = Truth::Tries { next };
        }
        self.work();
        if !self.retries {
            for truth in self.truth.values_mut().filter(|truth| matches!(truth, Truth::Tries { .. })) {
                *truth = Truth::Dead;
            }
        }
    }

    /// Every attempt that is due.
    fn work(&mut self) {
        let now = self.manager.now;
        for (set, truth) in &mut self.truth {
            let Truth::Tries { next } = *truth else { continue };
            if next > now {
                continue;
            }
            if self.freed.get(set).is_none_or(|freed| *freed <= now) {
                self.manager.opens();
                *truth = Truth::Listens;
            } else {
                self.manager.is_refused();
                *truth = Truth::Tries { next: next.plus(secs(2)) };
            }
        }
    }

    fn pass(&mut self, span: Span) {
        let until = self.manager.now.plus(span);
        while self.manager.now < until {
            self.manager.after(secs(1));
            if self.manager.fails.is_none() {
                self.work();
            }
        }
    }

    fn disable(&mut self, set: u64) {
        self.manager.enable(set, Enablement::Disabled);
        let ours = self.manager.set(set).revision.clone();
        let row = open(set, set, self.manager.now, Step::Disabled { ours, again_until: None });
        self.manager.treatments.push(row);
        self.truth.insert(id(set), Truth::Idle);
    }

    fn enable(&mut self, set: u64) {
        self.manager.enable(set, Enablement::Enabled);
        let now = self.manager.now;
        for row in self.manager.treatments.iter_mut().filter(|row| row.set == id(set)) {
            (row.step, row.step_at) = (Step::Verifying, now);
        }
        self.truth.insert(id(set), Truth::Tries { next: now });
    }

    /// Applies the remedies, with at most this many toggles at once; each set is checked once in two minutes.
    fn treats(&mut self, fleet: &Fleet, at_once: usize) {
        let now = self.manager.now;
        let mut toggled = Vec::new();
        for (set, remedy) in self.manager.remedies(fleet) {
            match remedy {
                Remedy::Toggle if toggled.len() < at_once => {
                    self.disable(set.0);
                    toggled.push(set.0);
                }
                Remedy::SessionCheck if !self.is_asked_lately(set) => {
                    let stale = self.freed.get(&set).is_some_and(|freed| *freed > now);
                    let held = stale || self.truth[&set] == Truth::Listens;
                    let answer = if held { CheckAnswer::Held { owner: None } } else { CheckAnswer::Unheld };
                    self.manager.checks.insert(set, (now, answer));
                }
                Remedy::Toggle | Remedy::SessionCheck => {}
                Remedy::DeleteSession { .. } | Remedy::DeleteThenToggle { .. } => panic!("no session is known"),
            }
        }
        if !toggled.is_empty() {
            self.watch(secs(6));
        }
        for set in toggled {
            self.enable(set);
        }
    }

    fn is_asked_lately(&self, set: ScaleSetId) -> bool {
        let now = self.manager.now;
        self.manager.checks.get(&set).is_some_and(|(at, _)| now.since(*at) < Span::mins(2))
    }

    fn diagnose(&mut self) -> Fleet {
        let workers = self.truth.values().filter(|truth| **truth != Truth::Dead).count();
        let listeners = self.truth.values().filter(|truth| **truth == Truth::Listens).count();
        let counted =
            Goroutines { listeners: u32::try_from(listeners).unwrap(), workers: u32::try_from(workers).unwrap() };
        self.manager.goroutines = (self.counts && self.manager.fails.is_none()).then_some(counted);
        let fleet = self.manager.diagnose();
        self.recoveries.extend(&fleet.recoveries);
        // A treatment ends when its set is seen to listen.
        self.manager.treatments.retain(|row| !is_found(&fleet, row.set, Diagnosis::Listening));
        fleet
    }

    /// Diagnoses repeatedly for this span; the last result.
    fn watch(&mut self, span: Span) -> Fleet {
        let until = self.manager.now.plus(span);
        let mut fleet = self.diagnose();
        while self.manager.now < until {
            self.pass(secs(self.every).min(until.since(self.manager.now)));
            fleet = self.diagnose();
            self.holds(&fleet);
        }
        fleet
    }

    /// No finding that may be acted upon is wrong.
    fn holds(&self, fleet: &Fleet) {
        if self.manager.fails.is_some() {
            return;
        }
        for finding in fleet.findings.values().filter(|finding| finding.confidence > Confidence::Weak) {
            let truth = self.truth[&finding.set];
            let right = match finding.diagnosis {
                Diagnosis::Listening => truth == Truth::Listens,
                Diagnosis::ConflictAbandoned | Diagnosis::Unheld => truth == Truth::Dead,
                Diagnosis::ConflictRetrying => matches!(truth, Truth::Tries { .. }),
                Diagnosis::DisabledByMedic => truth == Truth::Idle,
                Diagnosis::Settling | Diagnosis::Unknown => true,
                Diagnosis::Disabled
                | Diagnosis::StartAbandoned
                | Diagnosis::HeldElsewhere
                | Diagnosis::Flapping
                | Diagnosis::Evicted
                | Diagnosis::Mismatched
                | Diagnosis::Deaf
                | Diagnosis::Starved
                | Diagnosis::Missing
                | Diagnosis::Unauthorized => false,
            };
            let now = self.manager.now;
            assert!(right, "at {now} {truth:?} is called {finding:#?}\nof {:?}", self.truth);
        }
        for (set, remedy) in self.manager.remedies(fleet) {
            // A session check may ask about a set that listens, where nothing shows which does: it is refused.
            let truth = self.truth[&set];
            let asks = remedy == Remedy::SessionCheck;
            assert!(truth == Truth::Dead || asks, "{remedy:?} for {truth:?} {set:?}");
        }
    }
}

fn is_found(fleet: &Fleet, set: ScaleSetId, diagnosis: Diagnosis) -> bool {
    fleet
        .findings
        .get(&set)
        .is_some_and(|finding| finding.diagnosis == diagnosis && finding.confidence > Confidence::Weak)
}

fn found(fleet: &Fleet) -> Vec<Diagnosis> {
    super::super::testing::diagnoses(fleet)
}

#[test]
fn incident_of_a_build_that_gives_up_is_followed_to_its_end() {
    use Diagnosis::{ConflictAbandoned, ConflictRetrying, DisabledByMedic, Listening, Unknown};
    let gone = ConflictAbandoned;
    for counts in [false, true] {
        let mut incident = Incident::new(4, false, counts);
        assert_eq!(found(&incident.watch(secs(30))), [Listening; 4]);

        incident.is_killed(|_| secs(70));
        let fleet = incident.diagnose();
        assert_eq!((fleet.manager, found(&fleet)), (ManagerState::Down, vec![Unknown; 4]));
        assert!(fleet.findings.values().all(|finding| finding.ill_since.is_none()));
        incident.pass(secs(5));

        incident.is_started();
        let began = incident.manager.now;
        let first = incident.diagnose();
        assert_eq!(first.restart, Some((RestartKind::Crash, incident.manager.run.unwrap())));
        assert_eq!(first.manager, ManagerState::Restarted);
        let fleet = incident.watch(secs(10));
        assert!((1..=4).all(|set| is_found(&fleet, id(set), gone)), "within 10 s: {:?}", found(&fleet));
        assert_eq!(fleet.conflict_behaviour, ConflictBehaviour::GivesUp);
        let ill_since = fleet.findings[&id(1)].ill_since.unwrap();
        assert!(ill_since >= began && ill_since <= began.plus(secs(10)));

        incident.disable(1);
        let fleet = incident.watch(secs(6));
        assert_eq!(found(&fleet), [DisabledByMedic, gone, gone, gone]);
        assert_eq!(fleet.findings[&id(1)].ill_since, Some(ill_since), "we have not mended it yet");

        incident.enable(1);
        let enabled = incident.manager.now;
        let fleet = incident.watch(secs(10));
        assert_eq!(found(&fleet), [ConflictRetrying, gone, gone, gone]);
        let worker = fleet.findings[&id(1)].worker;
        assert!(worker.state == WorkerState::Retrying && worker.since > enabled, "{worker:?}, enabled at {enabled}");

        let fleet = incident.watch(secs(60));
        assert_eq!(found(&fleet), [Listening, gone, gone, gone]);
        let recovered: Vec<_> = incident.recoveries.iter().map(|one| (one.set, one.ill_since)).collect();
        assert_eq!(recovered, [(id(1), ill_since)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// For any order of treatments, crashes and ends of stale sessions, and with a lost state.
    #[test]
    fn random_incident_has_no_wrong_finding_and_heals(
        retries in any::<bool>(),
        counts in any::<bool>(),
        away in 1_u64..30,
        stale in proptest::collection::vec(20_u64..95, 1..6),
        waits in proptest::collection::vec(2_u64..40, 6),
        forgets in proptest::option::weighted(0.2, 0_usize..6),
        every in 1_u64..16,
        at_once in 1_usize..4,
        second_crash in proptest::option::weighted(0.3, 0_usize..6),
    ) {
        let sets = u64::try_from(stale.len()).unwrap();
        let stale_for = |set| secs(stale[usize::try_from(set).unwrap() - 1]);
        let mut incident = Incident::new(sets, retries, counts);
        incident.every = every;
        incident.watch(secs(30));
        incident.is_killed(stale_for);
        incident.watch(secs(away));
        incident.is_started();
        incident.watch(secs(20));
        for (n, wait) in waits.iter().enumerate() {
            if forgets == Some(n) {
                incident.manager.state = super::super::State::default();
            }
            if second_crash == Some(n) {
                incident.is_killed(stale_for);
                incident.watch(secs(away));
                incident.is_started();
            }
            let fleet = incident.watch(secs(*wait));
            incident.treats(&fleet, at_once);
        }
        for _ in 0..20 {
            let fleet = incident.watch(secs(60));
            incident.treats(&fleet, at_once);
        }
        let fleet = incident.watch(secs(200));
        if forgets.is_none() {
            let open = incident.truth.values().all(|truth| *truth == Truth::Listens);
            prop_assert!(open, "{:?} {:?}", incident.truth, found(&fleet));
            prop_assert_eq!(found(&fleet), vec![Diagnosis::Listening; stale.len()]);
        }
    }
}
