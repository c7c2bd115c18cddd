//! What really happened, and the invariants of design §8, checked at every request that arrives.

use bytes::Bytes;
use http::Method;
use scaleset_medic::lab::garm::WorkerTruth;
use scaleset_medic::lab::world::World;
use scaleset_medic::model::{Remedy, ScaleSetId, SessionId, Span, Step, Treatment, Wall};
use std::collections::{BTreeMap, BTreeSet};

/// The longest that a set may be disabled by us while everything answers: the policy's limit, and the passes around.
const DISABLED_LIMIT: Span = Span::secs(180);
/// A listener that has begun only now may not have been seen by the pass that decided.
const JUST_BEGUN: Span = Span::secs(30);

/// An invariant of design §8 that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) at: Wall,
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Sets that a person disabled last.
    by_person: BTreeSet<ScaleSetId>,
    /// Sets that we disabled, with the time that everything answered since.
    by_us: BTreeMap<ScaleSetId, Span>,
    listens_since: BTreeMap<ScaleSetId, Wall>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) checks: u64,
    pub(crate) writes: u64,
}

/// A write that arrives at a server.
pub(crate) enum Act {
    Enable(ScaleSetId, bool),
    Delete(SessionId),
    Open,
}

impl Act {
    /// What a request would change; `None` for a read.
    pub(crate) fn of(request: &http::Request<Bytes>) -> Option<Self> {
        let path = request.uri().path();
        let last = path.rsplit('/').next().unwrap_or_default();
        if request.method() == Method::PUT && path.contains("/scalesets/") {
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            return Some(Self::Enable(ScaleSetId(last.parse().unwrap()), body["enabled"].as_bool().unwrap()));
        }
        if request.method() == Method::DELETE && path.contains("/sessions/") {
            return Some(Self::Delete(SessionId::new(last)));
        }
        (request.method() == Method::POST && last == "sessions").then_some(Self::Open)
    }
}

impl Truth {
    pub(crate) fn person(&mut self, set: ScaleSetId, enabled: bool) {
        self.by_us.remove(&set);
        if enabled {
            self.by_person.remove(&set);
        } else {
            self.by_person.insert(set);
        }
    }

    fn violated(&mut self, at: Wall, invariant: &'static str, what: String) {
        self.violations.push(Violation { at, invariant, what });
    }

    /// A write arrives, and has not had its effect yet.
    pub(crate) fn arrives(&mut self, act: &Act, world: &World, journal: &[Treatment], now: Wall) {
        self.checks += 1;
        self.writes += 1;
        let garm = world.garm(0).unwrap();
        if !journal.iter().any(|row| allows(row, act, world)) {
            let what = match act {
                Act::Enable(set, enabled) => format!("set {set} enabled={enabled}"),
                Act::Delete(session) => format!("session {session} deleted"),
                Act::Open => "a session opened".to_owned(),
            };
            self.violated(now, "I6", format!("{what}, and no intent in the journal says so: {journal:?}"));
        }
        match act {
            Act::Enable(set, true) => {
                if self.by_person.contains(set) && !garm.is_enabled(*set) {
                    self.violated(now, "I2", format!("set {set} was disabled by a person, and is enabled by us"));
                }
            }
            Act::Enable(set, false) => {
                if let WorkerTruth::Listening(session) = garm.worker(*set) {
                    let since = self.listens_since.get(set).copied().unwrap_or(now);
                    let holder = scale_set_forge(world, *set).and_then(|forge| world.github.holder(forge));
                    if holder.is_none_or(|holder| holder.session != session) {
                        self.violated(now, "I1", format!("set {set} is disabled, and its listener's session is gone"));
                    } else if now.since(since) > JUST_BEGUN {
                        self.violated(now, "I4", format!("set {set} is disabled, and has listened since {since}"));
                    }
                }
            }
            Act::Delete(session) => {
                if garm.holds(session) {
                    self.violated(now, "I1", format!("session {session} is deleted, and the manager holds it"));
                }
            }
            Act::Open => {}
        }
    }

    /// The write has had its effect.
    pub(crate) fn arrived(&mut self, act: &Act, was_enabled: Option<bool>, world: &World) {
        let Act::Enable(set, to) = act else { return };
        let is = world.garm(0).unwrap().is_enabled(*set);
        if was_enabled == Some(true) && !is && !to {
            self.by_us.insert(*set, Span::ZERO);
        } else if is {
            self.by_us.remove(set);
            self.by_person.remove(set);
        }
    }

    /// Looks at the whole; `calm` when the medic lives and everything answers it, for `elapsed` by now.
    pub(crate) fn look(&mut self, world: &World, journal: &[Treatment], calm: bool, elapsed: Span, now: Wall) {
        self.checks += 1;
        let garm = world.garm(0).unwrap();
        for (set, _, forge) in garm.scale_sets() {
            let listens = matches!(garm.worker(set), WorkerTruth::Listening(ref session)
                if world.github.holder(forge).is_some_and(|holder| holder.session == *session));
            if listens {
                self.listens_since.entry(set).or_insert(now);
            } else {
                self.listens_since.remove(&set);
            }
        }
        self.by_us.retain(|set, _| !garm.is_enabled(*set));
        let mut late = Vec::new();
        for (set, span) in &mut self.by_us {
            if calm && garm.is_up() {
                *span = span.plus(elapsed);
            }
            if *span > DISABLED_LIMIT {
                late.push(*set);
                *span = Span::ZERO;
            }
        }
        for set in late {
            self.violated(
                now,
                "I3",
                format!("set {set} is disabled by us for more than {DISABLED_LIMIT}: {journal:?}"),
            );
        }
        let mut sets = BTreeSet::new();
        for row in journal.iter().filter(|row| !row.step.is_closed()) {
            if !sets.insert(row.set) {
                self.violated(now, "I5", format!("two treatments of set {}", row.set));
            }
        }
        let in_flight = journal.iter().filter(|row| row.in_flight()).count();
        if in_flight > 10 {
            self.violated(now, "I5", format!("{in_flight} treatments in flight"));
        }
    }

    /// Nobody is left behind: what must hold once everything has been calm for long.
    pub(crate) fn rest(&mut self, world: &World, now: Wall) {
        self.checks += 1;
        let ours = world.github.sessions().filter(|session| session.opened_by.credential == "medic");
        let open: Vec<_> = ours.filter(|session| session.ended.is_none()).collect();
        if !open.is_empty() {
            self.violated(now, "I7", format!("{} sessions of ours are open", open.len()));
        }
        let disabled: Vec<_> = self.by_us.keys().copied().collect();
        if !disabled.is_empty() {
            self.violated(now, "I3", format!("left disabled by us: {disabled:?}"));
        }
    }

    /// Sets that a person wants to run.
    pub(crate) fn wanted(&self, world: &World) -> Vec<ScaleSetId> {
        let sets = world.garm(0).unwrap().scale_sets().map(|(set, _, _)| set);
        sets.filter(|set| !self.by_person.contains(set)).collect()
    }
}

/// Whether a row of the journal announces the act.
fn allows(row: &Treatment, act: &Act, world: &World) -> bool {
    match (act, &row.step) {
        (Act::Enable(set, false), Step::Disabling { .. }) | (Act::Enable(set, true), Step::Enabling { .. }) => {
            row.set == *set
        }
        (Act::Delete(session), Step::Deleting { session: named, .. } | Step::ProbeOpened { session: named, .. }) => {
            session == named && (matches!(row.remedy, Remedy::SessionProbe) || is_managers(world, session))
        }
        (Act::Open, Step::ProbeOpening { .. }) => true,
        _ => false,
    }
}

fn is_managers(world: &World, session: &SessionId) -> bool {
    world.github.sessions().any(|record| record.session == *session && record.opened_by.credential == "garm")
}

fn scale_set_forge(world: &World, set: ScaleSetId) -> Option<scaleset_medic::model::ForgeId> {
    world.garm(0)?.scale_sets().find(|(id, _, _)| *id == set).map(|(_, _, forge)| forge)
}
