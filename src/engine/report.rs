//! One pass → the picture that metrics, the status API, the page and the commands show.

use crate::engine::changes::Account;
use crate::engine::reconcile::{Parts, Standing, present};
use crate::status::{Budget, LeftDisabled, ManagerStatus, Restart, SetStatus, SourceState, TreatmentSummary};
use crate::text::incident;
use medic_core::decide::breaker::{self, Breaker};
use medic_core::decide::budget;
use medic_core::decide::manual::in_words;
use medic_core::decide::stale::newest_is_stale;
use medic_core::diagnose::{CheckAnswer, Fleet};
use medic_core::model::session::LedgerSession;
use medic_core::model::{
    Decision, Endpoint, EndpointName, EntityRef, Finding, Outcome, OwnQuota, Pause, RemedyKind, ScaleSet, ScaleSetId,
    Seen, SetDecision, Source, Span, Sweep, Treatment, Waiting, Wall,
};
use medic_core::ports::read::GithubSource;
use medic_core::treat::machine::LONGEST_WAIT;
use std::collections::BTreeMap;

/// How many of the latest measured lifetimes are summed up.
const LIFETIMES_TOLD: u32 = 20;
/// A set's latest treatments, as many as people read.
const TREATMENTS_SHOWN: usize = 5;

/// Everything a picture is made of.
pub struct Picture<'a> {
    pub parts: &'a Parts,
    /// What the sources said.
    pub sweep: &'a Sweep,
    pub fleet: &'a Fleet,
    /// What is done about it.
    pub decisions: &'a [SetDecision],
    /// A day of the journal.
    pub history: &'a [Treatment],
    pub open: &'a [Treatment],
    /// Living sessions of the ledger.
    pub ledger: &'a [LedgerSession],
    /// What was seen of restarts and recoveries.
    pub account: &'a Account,
    /// What people have said that lasts.
    pub(crate) standing: &'a Standing,
    /// How long the pass took.
    pub took: Span,
}

/// The latest answer of a session probe, by set.
#[must_use]
pub fn probe_answers(history: &[Treatment]) -> BTreeMap<ScaleSetId, (Wall, CheckAnswer)> {
    let mut answers = BTreeMap::new();
    let mut probes: Vec<_> =
        history.iter().filter(|treatment| treatment.remedy.kind() == RemedyKind::SessionCheck).collect();
    probes.sort_by_key(|treatment| treatment.step_at);
    for probe in probes {
        let answer = match probe.outcome() {
            Some(Outcome::Held) => CheckAnswer::Held { owner: probe.holder.clone() },
            Some(Outcome::Unheld) => CheckAnswer::Unheld,
            Some(
                Outcome::Recovered | Outcome::SelfRecovered | Outcome::Unverified | Outcome::Aborted | Outcome::Failed,
            )
            | None => continue,
        };
        answers.insert(probe.set, (probe.step_at, answer));
    }
    answers
}

#[must_use]
pub fn status(picture: &Picture<'_>) -> ManagerStatus {
    let Picture { parts, sweep, fleet, .. } = picture;
    let now = fleet.at.wall;
    let breaker = breaker::state(picture.history, picture.standing.breaker_reset, now, &parts.policy);
    let sets = sets(picture);
    let lifetimes = lifetimes(parts, &sets);
    ManagerStatus {
        name: parts.name.clone(),
        at: now,
        took: picture.took,
        state: fleet.manager,
        incarnation: fleet.incarnation,
        restart: picture.account.restart().map(|(kind, at)| Restart { kind, at }),
        endpoints: fleet.endpoints.clone(),
        sources: sources(parts, sweep),
        incident: incident::incident(picture, lifetimes.as_deref(), &sets),
        stale_lifetimes: lifetimes,
        sets,
        pauses: pauses(picture),
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

/// The pauses of this manager and of its sets. What cannot be read was told by the decisions of this pass.
fn pauses(picture: &Picture<'_>) -> Vec<Pause> {
    let kept = picture.standing.pauses.iter();
    kept.filter(|pause| pause.scope.concerns(&picture.parts.name)).cloned().collect()
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
    of_endpoints(parts, fleet, |broker, endpoint| broker.remaining_quota(endpoint))
}

/// The quotas of our credentials, for the guard that keeps a share of them for the manager.
pub fn own_quotas(parts: &Parts, fleet: &Fleet) -> BTreeMap<EndpointName, OwnQuota> {
    of_endpoints(parts, fleet, |broker, endpoint| broker.own_quota(endpoint))
}

fn of_endpoints<T>(
    parts: &Parts,
    fleet: &Fleet,
    ask: impl Fn(&dyn GithubSource, &Endpoint) -> Option<T>,
) -> BTreeMap<EndpointName, T> {
    let Some(broker) = &parts.sources.broker else { return BTreeMap::new() };
    let endpoints: BTreeMap<_, _> =
        fleet.sets.values().filter_map(|set| set.endpoint.as_ref()).map(|e| (&e.name, e)).collect();
    endpoints.into_iter().filter_map(|(name, e)| Some((name.clone(), ask(broker.as_ref(), e)?))).collect()
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
                (Some(Decision::Treat { .. }), Some(open)) => Decision::Treating { treatment: open.id },
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
        github_id: set.github_id,
        name: set.name.clone(),
        entity: set.entity_ref().or_else(|| {
            let entity = set.entity.clone()?;
            Some(EntityRef { endpoint: EndpointName::new(""), entity })
        }),
        enabled: set.enabled,
        finding: finding.clone(),
        not_deleted: not_deleted(picture, set, finding),
        decision,
        recovered: picture.account.recovered(set.id, picture.fleet.at.wall),
        left_disabled: left_disabled(picture, rows),
        lingering: lingering.unwrap_or_default(),
        budget_remaining: u64::from(policy.set_budget).saturating_sub(used),
        budget: Some(Budget { treatments: u64::from(policy.set_budget), window: policy.set_budget_window }),
        treatments: rows.iter().rev().take(TREATMENTS_SHOWN).map(|row| TreatmentSummary::from(*row)).collect(),
    }
}

/// Whether a treatment has kept the set disabled for longer than the policy allows, and the enable does not help.
fn left_disabled(picture: &Picture<'_>, rows: &[&Treatment]) -> Option<LeftDisabled> {
    let (row, since) = rows.iter().rev().find_map(|row| Some((row, row.disabled_since()?)))?;
    let (passed, limit) = (picture.fleet.at.wall.since(since), picture.parts.policy.disabled_limit);
    // At the limit itself the enable is only begun.
    let is_late = passed >= if row.refusal.is_some() { limit } else { limit.plus(LONGEST_WAIT) };
    let tries = row.tries().map_or(0, |(tries, _)| tries);
    is_late.then(|| LeftDisabled { since, tries, answer: row.refusal.clone() })
}

/// Why the session of a set that is ill is not deleted.
fn not_deleted(picture: &Picture<'_>, set: &ScaleSet, finding: &Finding) -> Vec<String> {
    if !finding.diagnosis.is_ill() {
        return Vec::new();
    }
    let fleet = picture.fleet;
    let manager = present(fleet);
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
