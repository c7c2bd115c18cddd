//! GARM and GitHub in the model: the effect of a write, the findings of a sweep.
//!
//! Facts of `docs/reference/garm-api.md`: a write that changes nothing changes no `updated_at` and wakes no worker. A
//! worker that was refused at GARM's start gives up (older builds) or retries (newer ones). A toggled worker retries. A
//! stale session expires. Time is in ticks; the functions under test get real dates.

use medic_core::decide::testing;
use medic_core::model::session::{LedgerSession, OpenedBy};
use medic_core::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, Evidence, Fact, Finding, Findings, GithubId, Incarnation,
    ManagerState, Mono, Now, Outcome, Owner, Revision, ScaleSet, ScaleSetId, SessionId, Source, Span, Treatment, Wall,
    Worker, WorkerState,
};
use std::sync::LazyLock;

pub(super) type Tick = u8;
/// How long a tick is.
pub(super) const TICK: Span = Span::secs(10);
/// The model begins when GARM has crashed and started again.
pub(super) const START: Tick = 10;
/// A stale session ends after this many ticks at the latest.
const STALE_FOR: Tick = 5;

pub(super) fn date(tick: Tick) -> Wall {
    Wall(1_764_000_000_000 + u64::from(tick) * TICK.as_millis())
}

pub(super) fn now(tick: Tick) -> Now {
    Now { wall: date(tick), mono: Mono(date(tick).0) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scenario {
    /// An older build gave up; the log showed the stale session's id.
    AbandonedKnown,
    /// An older build gave up; the id is unknown.
    AbandonedUnknown,
    /// A newer build retries; the id is known.
    RetryingKnown,
    /// An older build gave up; without a log only a session check shows that the set has no session.
    Suspect,
    Healthy,
}

impl Scenario {
    pub(super) fn conflict_behaviour(self) -> ConflictBehaviour {
        match self {
            Self::RetryingKnown => ConflictBehaviour::Retries,
            Self::AbandonedKnown | Self::AbandonedUnknown | Self::Suspect | Self::Healthy => ConflictBehaviour::GivesUp,
        }
    }
    fn keeps_ledger(self) -> bool {
        matches!(self, Self::AbandonedKnown | Self::RetryingKnown | Self::Healthy)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum By {
    Us,
    Operator,
}

/// Who opened a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Garm(u8),
    Medic {
        /// Whether the medic knows its id.
        known: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) id: u8,
    pub(super) holder: Holder,
    opened: Tick,
    used: Tick,
}

/// One line of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) id: u8,
    started_at: Tick,
    opened: Tick,
    pub(super) ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Set {
    pub(super) disabled_by: Option<By>,
    pub(super) revision: u8,
    changed: Tick,
    pub(super) worker: WorkerState,
    since: Tick,
    ill_since: Option<Tick>,
    pub(super) session: Option<Session>,
    pub(super) ledger: Vec<Entry>,
    /// The worker a tick ago, for a source that lags behind.
    before: (WorkerState, Tick),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) tick: Tick,
    pub(super) run: u8,
    pub(super) started_at: Tick,
    pub(super) down: bool,
    pub(super) sets: Vec<Set>,
    /// Sets for which a disable of ours is still on its way, and when it comes.
    pub(super) late: Vec<(usize, Tick)>,
    sessions: u8,
    /// The first invariant that was broken.
    pub(super) broken: Option<&'static str>,
}

/// The result of a sweep.
pub(super) struct Fleet {
    pub(super) manager: ManagerState,
    pub(super) incarnation: Option<Incarnation>,
    pub(super) sets: std::collections::BTreeMap<ScaleSetId, ScaleSet>,
    pub(super) findings: Findings,
    pub(super) ledger: Vec<LedgerSession>,
}

static SET: LazyLock<ScaleSet> = LazyLock::new(|| ScaleSet { name: String::new(), ..testing::scale_set(1) });

pub(super) fn owner() -> Owner {
    Owner::of_garm("c1")
}

pub(super) fn session_id(id: u8) -> SessionId {
    SessionId::new(format!("s-{id}"))
}

pub(super) fn set_id(index: usize) -> ScaleSetId {
    ScaleSetId(index as u64 + 1)
}

impl World {
    pub(super) fn new(scenario: Scenario, sets: u8) -> Self {
        let healthy = scenario == Scenario::Healthy;
        let worker = match scenario {
            Scenario::Healthy => WorkerState::Listening,
            Scenario::RetryingKnown => WorkerState::Retrying,
            Scenario::AbandonedKnown | Scenario::AbandonedUnknown | Scenario::Suspect => WorkerState::Absent,
        };
        let set = |index: u8| Set {
            disabled_by: None,
            revision: 0,
            changed: 0,
            worker,
            since: START,
            ill_since: (!healthy).then_some(START),
            session: Some(Session { id: index, holder: Holder::Garm(u8::from(healthy)), opened: 2, used: START }),
            ledger: vec![Entry { id: index, started_at: 0, opened: 2, ended: false }],
            before: (worker, START),
        };
        Self {
            scenario,
            tick: START,
            run: 1,
            started_at: if healthy { 0 } else { START },
            down: false,
            sets: (0..sets).map(set).collect(),
            late: Vec::new(),
            sessions: sets,
            broken: None,
        }
    }

    pub(super) fn violated(&mut self, invariant: &'static str) {
        self.broken.get_or_insert(invariant);
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(date(self.started_at))
    }

    /// Whether the manager holds this set's session now.
    pub(super) fn holds(&self, set: usize) -> bool {
        let set = &self.sets[set];
        !self.down
            && set.worker == WorkerState::Listening
            && set.session.is_some_and(|session| session.holder == Holder::Garm(self.run))
    }

    fn set_worker(&mut self, set: usize, worker: WorkerState) {
        let tick = self.tick;
        let set = &mut self.sets[set];
        if set.worker != worker {
            (set.worker, set.since) = (worker, tick);
        }
        let well = worker == WorkerState::Listening || set.disabled_by == Some(By::Operator);
        set.ill_since = if well { None } else { set.ill_since.or(Some(tick)) };
    }

    /// The worker asks for a session.
    fn ask_for_session(&mut self, set: usize, refused: WorkerState) {
        if self.sets[set].session.is_some() {
            self.set_worker(set, refused);
            return;
        }
        let id = self.sessions;
        self.sessions += 1;
        let (tick, run, started_at) = (self.tick, self.run, self.started_at);
        self.sets[set].session = Some(Session { id, holder: Holder::Garm(run), opened: tick, used: tick });
        self.sets[set].ledger = vec![Entry { id, started_at, opened: tick, ended: false }];
        self.set_worker(set, WorkerState::Listening);
    }

    /// Asks for a session of our own; `None` when somebody holds one.
    pub(super) fn open_ours(&mut self, set: usize, known: bool) -> Option<u8> {
        if self.sets[set].session.is_some() {
            return None;
        }
        let id = self.sessions;
        self.sessions += 1;
        let tick = self.tick;
        self.sets[set].session = Some(Session { id, holder: Holder::Medic { known }, opened: tick, used: tick });
        Some(id)
    }

    /// GitHub deletes a session, whoever holds it.
    pub(super) fn delete(&mut self, set: usize, id: &SessionId) {
        if self.sets[set].session.is_some_and(|session| session_id(session.id) == *id) {
            if self.holds(set) {
                self.violated("I1 no session of a living incarnation is deleted");
            }
            self.sets[set].session = None;
        }
    }

    /// `wakes`: whether GARM's worker notices.
    pub(super) fn write(&mut self, set: usize, to: Enablement, by: By, wakes: bool) {
        let was = self.sets[set].disabled_by;
        match (to, was) {
            (Enablement::Disabled, None) => {
                if self.holds(set) {
                    self.sets[set].session = None;
                }
                self.touch(set, Some(by));
                self.set_worker(set, WorkerState::Idle);
            }
            (Enablement::Enabled, Some(of)) => {
                if by == By::Us && of == By::Operator {
                    self.violated("I2 no set that an operator disabled is enabled by us");
                }
                self.touch(set, None);
                if wakes {
                    self.ask_for_session(set, WorkerState::Retrying);
                } else {
                    self.set_worker(set, WorkerState::Absent);
                }
            }
            (Enablement::Disabled, Some(_)) | (Enablement::Enabled, None) => {}
        }
    }

    fn touch(&mut self, set: usize, disabled_by: Option<By>) {
        let tick = self.tick;
        let set = &mut self.sets[set];
        (set.disabled_by, set.changed) = (disabled_by, tick);
        set.revision += 1;
    }

    /// An operator changes something else of a disabled set, which counts as disabled by the operator from then on.
    pub(super) fn edit(&mut self, set: usize) {
        self.touch(set, Some(By::Operator));
        let worker = self.sets[set].worker;
        self.set_worker(set, worker);
    }

    /// GARM dies and starts again.
    pub(super) fn restart(&mut self) {
        self.run += 1;
        self.started_at = self.tick;
        self.down = false;
        let refused = match self.scenario.conflict_behaviour() {
            ConflictBehaviour::Retries => WorkerState::Retrying,
            ConflictBehaviour::GivesUp | ConflictBehaviour::Unknown => WorkerState::Absent,
        };
        for set in 0..self.sets.len() {
            self.sets[set].since = self.tick;
            if self.sets[set].disabled_by.is_some() {
                self.set_worker(set, WorkerState::Idle);
            } else {
                self.ask_for_session(set, refused);
            }
        }
    }

    /// Whether GitHub could forget the set's session now.
    pub(super) fn may_expire(&self, set: usize) -> bool {
        self.sets[set].session.is_some_and(|session| self.tick > session.used) && !self.holds(set)
    }

    /// Whether a disable of the set is on its way.
    pub(super) fn is_late(&self, set: usize) -> bool {
        self.late.iter().any(|(other, _)| *other == set)
    }

    /// GitHub forgets a session that nobody polls.
    pub(super) fn expire(&mut self, set: usize) {
        self.sets[set].session = None;
    }

    /// One tick.
    pub(super) fn advance(&mut self) {
        for set in &mut self.sets {
            set.before = (set.worker, set.since);
        }
        self.tick += 1;
        for set in self.late.extract_if(.., |(_, at)| *at <= self.tick).map(|(set, _)| set).collect::<Vec<_>>() {
            self.write(set, Enablement::Disabled, By::Us, true);
        }
        if self.down {
            self.restart();
        }
        for set in 0..self.sets.len() {
            if self.holds(set)
                && let Some(session) = &mut self.sets[set].session
            {
                session.used = self.tick;
            }
            let is_old = self.sets[set].session.is_some_and(|session| self.tick - session.used >= STALE_FOR);
            if is_old && !matches!(self.sets[set].session, Some(Session { holder: Holder::Medic { known: true }, .. }))
            {
                self.expire(set);
            }
            if self.sets[set].worker == WorkerState::Retrying {
                self.ask_for_session(set, WorkerState::Retrying);
            }
        }
    }

    pub(super) fn shows(&self, index: usize) -> ScaleSet {
        let set = &self.sets[index];
        ScaleSet {
            id: set_id(index),
            github_id: Some(GithubId(100 + index as u64)),
            enabled: if set.disabled_by.is_some() { Enablement::Disabled } else { Enablement::Enabled },
            revision: Revision::new(format!("r{}", set.revision)),
            updated_at: Some(date(set.changed)),
            ..SET.clone()
        }
    }
}

impl World {
    /// `lags`: the source about workers is a tick behind.
    pub(super) fn sweep(&self, lags: bool, journal: &[Treatment]) -> Fleet {
        let sets = (0..self.sets.len()).map(|index| (set_id(index), self.shows(index))).collect();
        let findings = (0..self.sets.len()).map(|index| (set_id(index), self.finding(index, lags, journal))).collect();
        let young = self.tick == self.started_at;
        Fleet {
            manager: match (self.down, young) {
                (true, _) => ManagerState::Down,
                (false, true) => ManagerState::Restarted,
                (false, false) => ManagerState::Up,
            },
            incarnation: (!self.down).then(|| self.incarnation()),
            sets,
            findings,
            ledger: self.ledger(),
        }
    }

    fn ledger(&self) -> Vec<LedgerSession> {
        if !self.scenario.keeps_ledger() {
            return Vec::new();
        }
        let of_set = |(index, set): (usize, &Set)| {
            let place = self.shows(index).place();
            let row = |entry: &Entry| LedgerSession {
                set: set_id(index),
                place: place.clone().unwrap(),
                id: session_id(entry.id),
                owner: owner(),
                opened_by: OpenedBy::Manager(Incarnation(date(entry.started_at))),
                first_seen: date(entry.opened),
                last_seen: date(entry.opened),
                ended: None,
            };
            set.ledger.iter().filter(|entry| !entry.ended).map(row).collect::<Vec<_>>()
        };
        self.sets.iter().enumerate().flat_map(of_set).collect()
    }

    fn finding(&self, index: usize, lags: bool, journal: &[Treatment]) -> Finding {
        let set = &self.sets[index];
        let (worker, since) = if lags { set.before } else { (set.worker, set.since) };
        let known = date(if lags { self.tick - 1 } else { self.tick });
        let rows = || journal.iter().filter(|row| row.set == set_id(index));
        let (diagnosis, confidence) = if self.down {
            (Diagnosis::Unknown, Confidence::Weak)
        } else if set.disabled_by.is_some() {
            let ours = rows().any(Treatment::may_have_disabled);
            (if ours { Diagnosis::DisabledByMedic } else { Diagnosis::Disabled }, Confidence::Proof)
        } else {
            match (worker, self.scenario) {
                (WorkerState::Listening, _) => (Diagnosis::Listening, Confidence::Proof),
                (WorkerState::Absent | WorkerState::Idle, Scenario::Suspect) => {
                    let asked = |row: &Treatment| row.outcome() == Some(Outcome::Unheld) && row.opened >= date(since);
                    if rows().any(asked) {
                        (Diagnosis::Unheld, Confidence::Strong)
                    } else {
                        (Diagnosis::Unknown, Confidence::Weak)
                    }
                }
                (WorkerState::Absent | WorkerState::Idle, _) => (Diagnosis::ConflictAbandoned, Confidence::Proof),
                (WorkerState::Retrying | WorkerState::Unknown, _) => (Diagnosis::ConflictRetrying, Confidence::Proof),
            }
        };
        let suspect = Fact::CannotTellWhich { listening: 0, of: 1 };
        let evidence = (diagnosis == Diagnosis::Unknown && !self.down).then_some(Evidence {
            source: Source::Metrics,
            at: known,
            fact: suspect,
        });
        Finding {
            evidence: evidence.into_iter().collect(),
            since: date(since),
            ill_since: set.ill_since.map(date),
            worker: if self.down { Worker::UNKNOWN } else { Worker { state: worker, since: known } },
            ..testing::finding(set_id(index).0, diagnosis, confidence)
        }
    }
}

impl Fleet {
    /// Broken: every session of the ledger looks like one of an earlier incarnation.
    pub(super) fn believe_every_session_stale(&mut self) {
        for row in &mut self.ledger {
            row.opened_by = OpenedBy::Manager(Incarnation(date(0)));
            (row.first_seen, row.last_seen) = (date(2), date(2));
        }
        if let Some(run) = &mut self.incarnation {
            run.0 = run.0.max(date(START));
        }
    }
}
