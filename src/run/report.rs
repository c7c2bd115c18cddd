//! One pass → the picture that metrics, the status API, the page and the commands show.

use super::engine::{Parts, Restart};
use crate::decide::breaker::{self, Breaker};
use crate::decide::budget;
use crate::decide::order::in_words;
use crate::decide::stale::{CurrentManager, newest_is_stale};
use crate::diagnose::{CRASH_LOOP, Fleet, LOOP_WINDOW, ProbeAnswer};
use crate::model::session::LedgerSession;
use crate::model::status::{ManagerStatus, SetStatus, SourceState, TreatmentSummary};
use crate::model::{
    Decision, Diagnosis, EndpointName, EntityRef, Finding, ManagerState, Outcome, RemedyKind, RestartKind, ScaleSet,
    ScaleSetId, Seen, SetDecision, Source, Span, Sweep, Treatment, Waiting, Wall,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many of the latest measured lifetimes are summed up.
const LIFETIMES_TOLD: u32 = 20;
/// A set's latest treatments, as many as people read.
const TREATMENTS_SHOWN: usize = 5;

/// Everything a picture is made of.
pub struct Picture<'a> {
    /// The manager.
    pub parts: &'a Parts,
    /// What the sources said.
    pub sweep: &'a Sweep,
    /// What is wrong.
    pub fleet: &'a Fleet,
    /// What is done about it.
    pub decisions: &'a [SetDecision],
    /// A day of the journal.
    pub history: &'a [Treatment],
    /// Treatments under way.
    pub open: &'a [Treatment],
    /// Living sessions of the ledger.
    pub ledger: &'a [LedgerSession],
    /// The restart seen last.
    pub restart: Restart,
    /// How long the pass took.
    pub took: Span,
}

/// The latest answer of a session probe, by set.
#[must_use]
pub fn probe_answers(history: &[Treatment]) -> BTreeMap<ScaleSetId, (Wall, ProbeAnswer)> {
    let mut answers = BTreeMap::new();
    let mut probes: Vec<_> =
        history.iter().filter(|treatment| treatment.remedy.kind() == RemedyKind::SessionProbe).collect();
    probes.sort_by_key(|treatment| treatment.step_at);
    for probe in probes {
        let answer = match probe.outcome() {
            Some(Outcome::Held) => ProbeAnswer::Held { owner: probe.holder.clone() },
            Some(Outcome::Unheld) => ProbeAnswer::Unheld,
            Some(
                Outcome::Recovered | Outcome::SelfRecovered | Outcome::Unverified | Outcome::Yielded | Outcome::Failed,
            )
            | None => continue,
        };
        answers.insert(probe.set, (probe.step_at, answer));
    }
    answers
}

/// The picture.
#[must_use]
pub fn status(picture: &Picture<'_>) -> ManagerStatus {
    let Picture { parts, sweep, fleet, .. } = picture;
    let now = fleet.at.wall;
    let breaker_reset = parts.store.breaker_reset().ok().flatten();
    let breaker = breaker::state(picture.history, breaker_reset, now, &parts.policy);
    let sets = sets(picture);
    let lifetimes = lifetimes(parts, &sets);
    ManagerStatus {
        name: parts.name.clone(),
        at: now,
        took: picture.took,
        state: fleet.manager,
        incarnation: fleet.incarnation,
        restart: picture.restart,
        endpoints: fleet.endpoints.clone(),
        sources: sources(parts, sweep),
        incident: incident(picture, lifetimes.as_deref(), &sets),
        stale_lifetimes: lifetimes,
        sets,
        breaker_open: breaker_words(breaker),
        budget_remaining: u64::from(budget::global_remaining(picture.history, now, &parts.policy)),
        open_intents: count(picture.open.iter().filter(|treatment| treatment.step.is_intent())),
        known_sessions: count(picture.ledger.iter()),
        quota_remaining: quotas(parts, fleet),
    }
}

/// How long GitHub has kept stale sessions here, in words, while any set may wait for one.
fn lifetimes(parts: &Parts, sets: &[SetStatus]) -> Option<String> {
    if sets.iter().all(SetStatus::is_healthy) {
        return None;
    }
    let measured = parts.store.stale_lifetimes(LIFETIMES_TOLD).ok()?;
    let (shortest, longest) = (measured.iter().map(|one| one.span).min()?, measured.iter().map(|one| one.span).max()?);
    let seconds = |span: Span| span.as_millis().div_ceil(1000);
    Some(if seconds(shortest) == seconds(longest) {
        format!("GitHub has kept such sessions {} s here", seconds(longest))
    } else {
        format!("GitHub has kept such sessions {}\u{2013}{} s here", seconds(shortest), seconds(longest))
    })
}

fn count<T>(things: impl Iterator<Item = T>) -> u32 {
    u32::try_from(things.count()).unwrap_or(u32::MAX)
}

fn breaker_words(breaker: Breaker) -> Option<String> {
    match breaker {
        Breaker::Closed { .. } => None,
        Breaker::Open { since, half_open } => {
            Some(format!("treatments did not help, the last at {since}; one trial is let through at {half_open}"))
        }
        Breaker::HalfOpen { since } => Some(format!("treatments did not help since {since}; one trial may start")),
        Breaker::Trial { since } => Some(format!("treatments did not help since {since}; one trial is under way")),
    }
}

fn quotas(parts: &Parts, fleet: &Fleet) -> BTreeMap<EndpointName, u64> {
    let Some(broker) = &parts.sources.broker else { return BTreeMap::new() };
    let endpoints: BTreeMap<_, _> =
        fleet.sets.values().filter_map(|set| set.endpoint.as_ref()).map(|e| (e.name.clone(), e)).collect();
    endpoints.into_iter().filter_map(|(name, endpoint)| Some((name, broker.remaining_quota(endpoint)?))).collect()
}

fn sets(picture: &Picture<'_>) -> Vec<SetStatus> {
    let decisions: BTreeMap<_, _> = picture.decisions.iter().map(|d| (d.set, &d.decision)).collect();
    let mut rows: BTreeMap<ScaleSetId, Vec<&Treatment>> = BTreeMap::new();
    for treatment in picture.history {
        rows.entry(treatment.set).or_default().push(treatment);
    }
    let findings = picture.fleet.findings.values();
    findings
        .filter_map(|finding| {
            let set = picture.fleet.sets.get(&finding.set)?;
            let rows = rows.get(&finding.set).map_or(&[][..], Vec::as_slice);
            let open = picture.open.iter().find(|treatment| treatment.set == finding.set);
            // A treatment that began in this pass is under way by now.
            let decision = match (decisions.get(&finding.set), open) {
                (Some(Decision::Act { .. }), Some(open)) => Decision::Treating { treatment: open.id },
                (Some(decision), _) => (*decision).clone(),
                (None, _) => Decision::Watch { waiting: Waiting::Evidence, until: None },
            };
            Some(set_status(picture, set, finding, decision, rows))
        })
        .collect()
}

fn set_status(
    picture: &Picture<'_>,
    set: &ScaleSet,
    finding: &Finding,
    decision: Decision,
    rows: &[&Treatment],
) -> SetStatus {
    let policy = &picture.parts.policy;
    let counted = budget::counted(rows, finding.ill_since, picture.fleet.at.wall, policy);
    let used = u64::try_from(counted.len()).unwrap_or(u64::MAX);
    let lingering = picture.sweep.lingering.known().and_then(|all| all.get(&set.id)).copied();
    SetStatus {
        id: set.id,
        forge_id: set.forge_id,
        name: set.name.clone(),
        entity: set.entity_ref().or_else(|| {
            let entity = set.entity.clone()?;
            Some(EntityRef { endpoint: EndpointName::new(""), entity })
        }),
        enabled: set.enabled,
        finding: finding.clone(),
        not_deleted: not_deleted(picture, set, finding),
        decision,
        lingering: lingering.unwrap_or_default(),
        budget_remaining: u64::from(policy.set_budget).saturating_sub(used),
        treatments: rows.iter().rev().take(TREATMENTS_SHOWN).map(|row| TreatmentSummary::from(*row)).collect(),
    }
}

/// Why the session of a set that is ill is not deleted.
fn not_deleted(picture: &Picture<'_>, set: &ScaleSet, finding: &Finding) -> Vec<String> {
    if !finding.diagnosis.is_ill() {
        return Vec::new();
    }
    let fleet = picture.fleet;
    let manager = CurrentManager { state: fleet.manager, incarnation: fleet.incarnation, owner: fleet.owner.as_ref() };
    let rows = picture.ledger.iter().filter(|row| row.set == set.id);
    let against = newest_is_stale(rows, set, manager).err().unwrap_or_default();
    let mut words: Vec<String> = against.into_iter().map(|reason| in_words(reason).to_owned()).collect();
    if picture.parts.driver.sessions.is_none() {
        words.push("no GitHub credential is configured, so nothing can be deleted".to_owned());
    }
    words
}

fn sources(parts: &Parts, sweep: &Sweep) -> BTreeMap<Source, SourceState> {
    let mut sources = BTreeMap::from([
        (Source::Api, state(&sweep.scale_sets, "every scale set: enabled, edited, deleted")),
        (
            Source::Metrics,
            state(&sweep.metrics, "restarts of the manager, and how many sessions it holds and is refused"),
        ),
        (Source::Goroutines, state(&sweep.goroutines, "exactly how many listeners and workers are alive")),
        (Source::Log, state(&sweep.log, "which set is refused, by whom, and the ids of its sessions")),
        (Source::ListenerMetrics, listener_metrics(sweep)),
        (Source::Journal, SourceState::Up),
    ]);
    let broker = match &parts.sources.broker {
        None => SourceState::NotConfigured {
            would_show: "whether GitHub knows each set, jobs that wait, and stale sessions to end".to_owned(),
        },
        Some(_) => match sweep.broker.values().find_map(Seen::failure) {
            Some(failure) => SourceState::Down { why: failure.to_string() },
            None => SourceState::Up,
        },
    };
    sources.insert(Source::Broker, broker);
    sources
}

fn state<T>(seen: &Seen<T>, would_show: &str) -> SourceState {
    match seen {
        Seen::Known(_) => SourceState::Up,
        Seen::NotAsked => SourceState::NotConfigured { would_show: would_show.to_owned() },
        Seen::Failed(failure) => SourceState::Down { why: failure.to_string() },
    }
}

fn listener_metrics(sweep: &Sweep) -> SourceState {
    match &sweep.metrics {
        Seen::Known(metrics) if metrics.has_set_gauges => SourceState::Up,
        Seen::Known(_) | Seen::NotAsked => SourceState::NotConfigured {
            would_show: "each set's last completed poll; GARM exports it from 2026-09 on".to_owned(),
        },
        Seen::Failed(failure) => SourceState::Down { why: failure.to_string() },
    }
}

/// The incident in words: what happened to the manager, how many sets are ill, and what is done about them.
fn incident(picture: &Picture<'_>, lifetimes: Option<&str>, sets: &[SetStatus]) -> Option<String> {
    let (manager, restart) = (picture.fleet.manager, picture.restart);
    let ill: Vec<_> = sets.iter().filter(|set| set.finding.diagnosis.is_ill()).collect();
    let manager_words = match manager {
        ManagerState::Down => Some("GARM does not answer: connections are refused".to_owned()),
        ManagerState::Unreachable => Some("GARM cannot be asked".to_owned()),
        ManagerState::Up | ManagerState::Restarted => None,
    };
    if ill.is_empty() {
        return manager_words;
    }
    let began = ill.iter().filter_map(|set| set.finding.ill_since).min();
    let restart_words = restart.and_then(|(kind, at)| {
        // A restart long before the illness did not bring it about.
        let close = began.is_some_and(|began| began.since(at) < Span::mins(10));
        let what = match kind {
            RestartKind::Clean => "restarted",
            RestartKind::Crash => "crashed or was killed, and started again",
        };
        close.then(|| format!("GARM {what} at {at}{}", cause(picture, at, sets)))
    });
    let loop_words = (picture.fleet.restarts >= CRASH_LOOP).then(|| {
        let within = LOOP_WINDOW;
        format!("it restarted {} times within {within}: a crash loop; see its log", picture.fleet.restarts)
    });
    let enabled = sets.iter().filter(|set| set.finding.diagnosis != Diagnosis::Disabled).count();
    let mut words = format!("{} of {enabled} sets cannot receive jobs", ill.len());
    if let Some(began) = began {
        let _ = write!(words, " since {began}");
    }
    let refused = ill.iter().all(|set| is_refused(set.finding.diagnosis));
    if refused {
        words.push_str(", because GitHub refuses their sessions");
    }
    let since = restart.map(|(_, at)| at).filter(|_| restart_words.is_some()).or(began);
    let healed: Vec<_> = sets.iter().filter(|set| set.is_healthy() && was_healed(set, since)).collect();
    if !healed.is_empty() {
        let _ = write!(words, "; {} healed", who(&healed, "is", "are"));
    }
    for (decided, one, many, what) in GROUPS {
        let group: Vec<_> = ill.iter().copied().filter(|set| decided(&set.decision)).collect();
        if !group.is_empty() {
            let _ = write!(words, "; {} {what}", who(&group, one, many));
        }
    }
    if let (true, Some(measured)) = (refused, lifetimes) {
        let _ = write!(words, "; {measured}");
    }
    Some([manager_words, restart_words, loop_words, Some(words)].into_iter().flatten().collect::<Vec<_>>().join("; "))
}

/// What can be done about a set, as an incident is told: which decisions, "is" and "are", and the words.
type Group = (fn(&Decision) -> bool, &'static str, &'static str, &'static str);
const GROUPS: &[Group] = &[
    (|d| matches!(d, Decision::Act { .. } | Decision::Treating { .. }), "is", "are", "under treatment"),
    (
        |d| matches!(d, Decision::Watch { waiting: Waiting::StaleSession | Waiting::StaleSessionOdd, .. }),
        "waits",
        "wait",
        "for a stale session to end",
    ),
    (
        |d| {
            matches!(d, Decision::Watch { waiting: Waiting::Settling | Waiting::Evidence | Waiting::Treatment, .. })
                || *d == Decision::Leave
        },
        "is",
        "are",
        "watched",
    ),
    (|d| matches!(d, Decision::Withhold { .. }), "is", "are", "held back by guards"),
    (|d| matches!(d, Decision::Escalate { .. }), "needs", "need", "a person"),
];

/// One or two sets by name, more by number, with the verb that fits.
fn who(sets: &[&SetStatus], one: &str, many: &str) -> String {
    match sets {
        [only] => format!("{} {one}", only.name),
        [first, second] => format!("{} and {} {many}", first.name, second.name),
        more => format!("{} {many}", more.len()),
    }
}

/// Whether a treatment of this incident has helped the set.
fn was_healed(set: &SetStatus, since: Option<Wall>) -> bool {
    let ours = |row: &&TreatmentSummary| since.is_none_or(|since| row.opened >= since);
    set.treatments.iter().filter(ours).any(|row| row.state == Outcome::Recovered.as_str())
}

const fn is_refused(diagnosis: Diagnosis) -> bool {
    matches!(diagnosis, Diagnosis::ConflictRetrying | Diagnosis::ConflictAbandoned)
}

/// Why the manager died, where its log tells: a panic over a session that GitHub had forgotten (design §1).
fn cause(picture: &Picture<'_>, restarted: Wall, sets: &[SetStatus]) -> String {
    let Some(log) = picture.sweep.log.known() else { return String::new() };
    let recent = |at: Wall| at <= restarted.plus(Span::secs(5)) && at.plus(Span::mins(10)) >= restarted;
    match (&log.vanished, log.last_panic) {
        (Some(vanished), _) if recent(vanished.at) => {
            let name = vanished.set.and_then(|id| sets.iter().find(|set| set.id == id)).map(|set| set.name.as_str());
            format!(" after a panic: GitHub had forgotten the session of {}", name.unwrap_or("one of its sets"))
        }
        (_, Some(at)) if recent(at) => " after a panic".to_owned(),
        (Some(_) | None, Some(_) | None) => String::new(),
    }
}
