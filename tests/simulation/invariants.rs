//! The invariants of `docs/reference/design.md` §8. Those of writes are checked at every request that arrives, the
//! others after every request, answer, write to a store and event.

use bytes::Bytes;
use http::Method;
use medic_core::model::{
    ManagerName, PauseScope, Remedy, RemedyKind, ScaleSetId, SessionId, Span, Step, Treatment, TreatmentId, Wall,
};
use medic_lab::garm::WorkerTruth;
use medic_lab::world::World;
use memchr::memmem;
use std::collections::{BTreeMap, BTreeSet};

/// A set may be disabled by us this long while everything answers: the policy's limit and the sweeps around it.
const DISABLED_LIMIT: Span = Span::secs(180);
/// A session of ours may be open this long while everything answers and we know its id.
const OURS_LIMIT: Span = Span::secs(30);
/// The sweep before the decision may have missed a listener younger than this.
const JUST_BEGUN: Span = Span::secs(30);
/// A disable may take effect this late, clock skew included.
const LATE: Span = Span::secs(32);
/// From reading the pauses to the disable, with a slow read of the set between.
const PAUSE_DELAY: Span = Span::secs(20);
/// Of one set: the policy's default budget of a day.
const HEALS_IN_AN_HOUR: usize = 3;
/// Treatments at the same time: the policy's default.
const IN_FLIGHT: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) at: Wall,
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

/// States that must not last, and how long each has while everything answered.
type Lasting<K> = BTreeMap<K, Span>;

#[derive(Debug, Default)]
pub(crate) struct Invariants {
    /// Sets that an operator disabled last, or changed last while they were disabled.
    by_operator: BTreeSet<ScaleSetId>,
    by_us: Lasting<ScaleSetId>,
    ours: Lasting<SessionId>,
    /// Those of `ours` whose id a living medic or the journal knows. Others end only when GitHub drops them.
    known: BTreeSet<SessionId>,
    /// From when to when.
    pauses: Vec<(PauseScope, Wall, Wall)>,
    /// The durable journal's open treatments.
    journal: Vec<Treatment>,
    /// Automatic heals within the last hour.
    heals: BTreeMap<ScaleSetId, BTreeMap<TreatmentId, Wall>>,
    stale_lifetime: Span,
    checked: Option<Wall>,
    was_calm: bool,
    pub(crate) violations: Vec<Violation>,
    pub(crate) checks: u64,
    pub(crate) writes: u64,
    /// When each write had its effect.
    pub(crate) done: Vec<(Wall, String)>,
}

/// A write that arrives at a server.
pub(crate) enum Write {
    Enable(ScaleSetId, bool),
    Delete(SessionId),
    Open,
}

impl Write {
    /// `None` for a read.
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

    fn text(&self) -> String {
        match self {
            Self::Enable(set, enabled) => format!("set {set} enabled={enabled}"),
            Self::Delete(session) => format!("session {session} deleted"),
            Self::Open => "a session opened".to_owned(),
        }
    }
}

impl Invariants {
    pub(crate) fn new(stale_lifetime: Span) -> Self {
        Self { stale_lifetime, ..Self::default() }
    }

    pub(crate) fn operator(&mut self, set: ScaleSetId, enabled: bool) {
        self.by_us.remove(&set);
        if enabled {
            self.by_operator.remove(&set);
        } else {
            self.by_operator.insert(set);
        }
    }

    pub(crate) fn paused(&mut self, scope: PauseScope, from: Wall, to: Wall) {
        self.pauses.push((scope, from, to));
    }

    pub(crate) fn resumed(&mut self, now: Wall) {
        for (_, _, to) in &mut self.pauses {
            *to = (*to).min(now);
        }
    }

    fn violated(&mut self, at: Wall, invariant: &'static str, what: String) {
        self.violations.push(Violation { at, invariant, what });
    }

    pub(crate) fn journal_is(&mut self, journal: Vec<Treatment>, world: &World, now: Wall) {
        let before = std::mem::replace(&mut self.journal, journal);
        let named = self.journal.iter().filter_map(named_session).filter(|session| self.ours.contains_key(session));
        self.known.extend(named.cloned());
        let mut sets = BTreeSet::new();
        let mut wrong = Vec::new();
        for row in before.iter().filter(|row| !self.journal.iter().any(|other| other.id == row.id)) {
            if let Some(session) = named_session(row)
                && open_sessions_of_ours(world).any(|open| open == session)
            {
                wrong.push(("I7", format!("our session {session} is open, and its treatment over")));
            }
        }
        for row in self.journal.iter().filter(|row| !row.step.is_closed()) {
            if !sets.insert(row.set) {
                wrong.push(("I5", format!("two treatments of set {}", row.set)));
            }
            if row.remedy.kind() != RemedyKind::SessionCheck && row.manual_heal.is_none() {
                let heals = self.heals.entry(row.set).or_default();
                heals.retain(|_, opened| opened.plus(Span::hours(1)) > now);
                let is_new = heals.insert(row.id, row.opened).is_none();
                // An hour of health clears the budget of a day, so no hour has more.
                if is_new && heals.len() > HEALS_IN_AN_HOUR {
                    wrong.push(("I5", format!("{} heals of set {} within an hour", heals.len(), row.set)));
                }
            }
            let covers = |scope: &PauseScope| scope.covers(&ManagerName::new("garm"), row.set);
            if self.pauses.iter().any(|(scope, from, to)| covers(scope) && *from < row.opened && row.opened < *to) {
                wrong.push(("pause", format!("a treatment of set {} began, and operators had paused it", row.set)));
            }
            let sent = if let Step::Disabling { sent, .. } = row.step { sent } else { None };
            let paused = |(scope, from, to): &(_, Wall, Wall)| {
                covers(scope) && sent.is_some_and(|sent| from.plus(PAUSE_DELAY) < sent && sent < *to)
            };
            if self.pauses.iter().any(paused) {
                wrong.push(("pause", format!("set {} was disabled, and operators had paused it", row.set)));
            }
        }
        let in_flight = self.journal.iter().filter(|row| row.in_flight()).count();
        if in_flight > IN_FLIGHT {
            wrong.push(("I5", format!("{in_flight} treatments in flight")));
        }
        for (invariant, what) in wrong {
            self.violated(now, invariant, what);
        }
    }

    /// A write arrives, and has not had its effect yet. `may_lag`: the journal has failed lately.
    pub(crate) fn arrives(&mut self, act: &Write, may_lag: bool, world: &World, now: Wall) {
        self.checks += 1;
        self.writes += 1;
        let garm = world.garm(0).unwrap();
        if !self.journal.iter().any(|row| allows(row, act, world) || may_lag && undoes(row, act, world)) {
            let what = format!("{}, and no intent in the journal says so: {:?}", act.text(), self.journal);
            self.violated(now, "I6", what);
        }
        match act {
            Write::Enable(set, true) => {
                if self.by_operator.contains(set) && !garm.is_enabled(*set) {
                    self.violated(now, "I2", format!("set {set} was disabled by an operator, and is enabled by us"));
                }
            }
            Write::Enable(set, false) => {
                if let WorkerTruth::Listening(session) = garm.worker(*set) {
                    let holder = scale_set_forge(world, *set).and_then(|github_id| world.github.holder(github_id));
                    match holder.filter(|holder| holder.session == session) {
                        None => {
                            self.violated(now, "I1", format!("set {set} is disabled, and its session is gone"));
                        }
                        Some(holder) if now.since(holder.opened) > JUST_BEGUN => {
                            let what = format!("set {set} is disabled, and has listened since {}", holder.opened);
                            self.violated(now, "I4", what);
                        }
                        Some(_) => {}
                    }
                }
            }
            Write::Delete(session) => {
                if garm.holds(session) {
                    self.violated(now, "I1", format!("session {session} is deleted, and the manager holds it"));
                }
            }
            Write::Open => {}
        }
    }

    /// The write has had its effect. Returns whether it has disabled a set.
    pub(crate) fn arrived(&mut self, act: &Write, was_enabled: Option<bool>, world: &World, now: Wall) -> bool {
        self.done.push((now, act.text()));
        match act {
            Write::Enable(set, to) => {
                let is = world.garm(0).unwrap().is_enabled(*set);
                let by_us = was_enabled == Some(true) && !is && !to;
                if by_us {
                    self.by_us.insert(*set, Span::ZERO);
                } else if is {
                    self.by_us.remove(set);
                    self.by_operator.remove(set);
                }
                by_us
            }
            Write::Open => {
                for record in open_sessions_of_ours(world) {
                    self.ours.entry(record.clone()).or_insert(Span::ZERO);
                }
                false
            }
            Write::Delete(_) => false,
        }
    }

    /// A complete answer has reached a medic, which must end every session of ours that it names.
    pub(crate) fn answered(&mut self, body: &[u8]) {
        let names = |session: &&SessionId| memmem::find(body, session.as_str().as_bytes()).is_some();
        self.known.extend(self.ours.keys().filter(names).cloned());
    }

    /// A medic has ended. Only the journal keeps the ids that it knew.
    pub(crate) fn medic_ended(&mut self) {
        self.known = self.journal.iter().filter_map(named_session).cloned().collect();
    }

    /// `calm`: a medic runs and everything answers.
    pub(crate) fn check(&mut self, world: &World, calm: bool, now: Wall) {
        self.checks += 1;
        let garm = world.garm(0).unwrap();
        let calm = calm && garm.is_up();
        let before = self.checked.replace(now).unwrap_or(now);
        let elapsed = if calm && self.was_calm { now.since(before) } else { Span::ZERO };
        self.was_calm = calm;
        if !self.by_us.is_empty() {
            self.by_us.retain(|set, _| !garm.is_enabled(*set));
            for (set, limit) in too_long(&mut self.by_us, elapsed, |_| DISABLED_LIMIT) {
                let what = format!("set {set} is disabled by us for more than {limit}: {:?}", self.journal);
                self.violated(now, "I3", what);
            }
        }
        if !self.ours.is_empty() {
            let open: BTreeSet<_> = open_sessions_of_ours(world).cloned().collect();
            self.ours.retain(|session, _| open.contains(session));
            self.known.retain(|session| open.contains(session));
            let (known, stale) = (&self.known, self.stale_lifetime);
            let limit = |session: &_| OURS_LIMIT.plus(if known.contains(session) { Span::ZERO } else { stale });
            for (session, limit) in too_long(&mut self.ours, elapsed, limit) {
                let what = format!("our session {session} is open for more than {limit}: {:?}", self.journal);
                self.violated(now, "I7", what);
            }
        }
    }

    /// No treatment is open.
    pub(crate) fn is_quiet(&self) -> bool {
        self.journal.is_empty()
    }

    /// Whether there is a state that must not last.
    pub(crate) fn has_unfinished(&self) -> bool {
        !self.by_us.is_empty() || !self.ours.is_empty()
    }

    /// After a long calm.
    pub(crate) fn check_at_end(&mut self, world: &World, now: Wall) {
        self.checks += 1;
        let open = open_sessions_of_ours(world).count();
        if open > 0 {
            self.violated(now, "I7", format!("{open} sessions of ours are open"));
        }
        let disabled: Vec<_> = self.by_us.keys().copied().collect();
        if !disabled.is_empty() {
            self.violated(now, "I3", format!("left disabled by us: {disabled:?}"));
        }
    }

    pub(crate) fn wanted(&self, world: &World) -> Vec<ScaleSetId> {
        let sets = world.garm(0).unwrap().scale_sets().map(|(set, _, _)| set);
        sets.filter(|set| !self.by_operator.contains(set)).collect()
    }

    /// Whether a disable that seems lost may still arrive.
    pub(crate) fn is_ambiguous(&self, set: ScaleSetId, now: Wall) -> bool {
        self.journal.iter().filter(|row| row.set == set).any(|row| match &row.step {
            Step::Disabling { sent: Some(sent), .. } | Step::DisableUnknown { sent, .. } => now.since(*sent) <= LATE,
            Step::Disabled { again_until: Some(until), .. } => now <= *until,
            _ => false,
        })
    }
}

/// Adds `elapsed`. Returns what has lasted too long, once, with its limit.
fn too_long<K: Ord + Clone>(lasting: &mut Lasting<K>, elapsed: Span, limit: impl Fn(&K) -> Span) -> Vec<(K, Span)> {
    let mut over = Vec::new();
    for (what, span) in lasting {
        *span = span.plus(elapsed);
        if *span > limit(what) {
            over.push((what.clone(), limit(what)));
            *span = Span::ZERO;
        }
    }
    over
}

fn named_session(row: &Treatment) -> Option<&SessionId> {
    if let Step::CheckOpened { session, .. } = &row.step { Some(session) } else { None }
}

fn open_sessions_of_ours(world: &World) -> impl Iterator<Item = &SessionId> {
    let open = world.github.sessions().rev().take(200).filter(|session| session.ended.is_none());
    open.filter(|session| session.opened_by.credential == "medic").map(|session| &session.session)
}

/// Whether a row of the journal announces the write.
fn allows(row: &Treatment, act: &Write, world: &World) -> bool {
    match (act, &row.step) {
        (Write::Enable(set, false), Step::Disabling { sent: Some(_), .. })
        | (Write::Enable(set, true), Step::Enabling { .. }) => row.set == *set,
        (Write::Delete(session), Step::Deleting { session: named, .. } | Step::CheckOpened { session: named, .. }) => {
            session == named && (matches!(row.remedy, Remedy::SessionCheck) || is_managers(world, session))
        }
        (Write::Open, Step::CheckOpening { .. }) => true,
        _ => false,
    }
}

/// Whether the write undoes a step of the row.
fn undoes(row: &Treatment, act: &Write, world: &World) -> bool {
    match act {
        Write::Enable(set, true) => row.set == *set && row.may_have_disabled(),
        Write::Delete(session) => {
            matches!(row.step, Step::CheckOpening { .. }) && open_sessions_of_ours(world).any(|open| open == session)
        }
        Write::Enable(_, false) | Write::Open => false,
    }
}

fn is_managers(world: &World, session: &SessionId) -> bool {
    world.github.sessions().rev().any(|record| record.session == *session && record.opened_by.credential == "garm")
}

fn scale_set_forge(world: &World, set: ScaleSetId) -> Option<medic_core::model::GithubId> {
    world.garm(0)?.scale_sets().find(|(id, _, _)| *id == set).map(|(_, _, github_id)| github_id)
}
