//! One reconcile → the status that metrics, the status API, the page and the commands show.

use crate::engine::Settings;
use crate::engine::changes::ChangeReporter;
use crate::engine::records::Overrides;
use crate::engine::sweep::Sources;
use crate::status::{Budget, LeftDisabled, ManagerStatus, Restart, SetStatus, ShownDecision, SourceState};
use crate::text::guards;
use crate::text::incident::{self, Incident};
use crate::text::{sources, treatment};
use medic_core::decide::breaker;
use medic_core::decide::budget;
use medic_core::decide::stale::current_manager;
use medic_core::decide::stale::newest_is_stale;
use medic_core::diagnose::Fleet;
use medic_core::model::session::LedgerSession;
use medic_core::model::{
    Decision, EndpointName, EntityRef, Finding, ScaleSet, ScaleSetId, Seen, SetDecision, Source, Span, Sweep,
    Treatment, Waiting,
};
use medic_core::treat::transition::LONGEST_WAIT;
use medic_store::ManagerStore;
use std::collections::BTreeMap;

/// The latest measured lifetimes of stale sessions that are summed up.
const LIFETIMES_SHOWN: u32 = 20;
const TREATMENTS_SHOWN: usize = 5;

pub(super) struct Report<'a> {
    pub(super) settings: &'a Settings,
    pub(super) sources: &'a Sources,
    pub(super) store: &'a ManagerStore,
    pub(super) changes: &'a ChangeReporter,
    /// A GitHub credential is configured.
    pub(super) can_delete: bool,
    pub(super) sweep: &'a Sweep,
    pub(super) fleet: &'a Fleet,
    pub(super) decisions: &'a [SetDecision],
    pub(super) history: &'a [Treatment],
    pub(super) open: &'a [Treatment],
    pub(super) ledger: &'a [LedgerSession],
    pub(super) overrides: &'a Overrides,
    pub(super) took: Span,
}

pub(super) fn status(report: &Report<'_>) -> ManagerStatus {
    let Report { settings, sweep, fleet, overrides, .. } = report;
    let (now, policy) = (fleet.at.wall, &settings.policy);
    let sets = sets(report);
    let lifetimes = lifetimes(report.store, &sets);
    let incident = incident::incident(&Incident {
        manager: fleet.manager,
        failure: sweep.scale_sets.failure(),
        restart: report.changes.restart(),
        restarts: fleet.restarts,
        log: sweep.log.known(),
        lifetimes: lifetimes.as_deref(),
        sets: &sets,
        now,
    });
    let pauses = overrides.pauses.iter().filter(|pause| pause.scope.concerns(&settings.manager));
    ManagerStatus {
        name: settings.manager.clone(),
        at: now,
        took: report.took,
        state: fleet.manager,
        incarnation: fleet.incarnation,
        restart: report.changes.restart().map(|(kind, at)| Restart { kind, at }),
        endpoints: fleet.endpoints.clone(),
        sources: sources(report),
        incident,
        stale_lifetimes: lifetimes,
        sets,
        pauses: pauses.cloned().collect(),
        breaker_open: guards::breaker(breaker::state(report.history, overrides.breaker_reset, now, policy)),
        budget_remaining: u64::from(budget::manager_budget_remaining(report.history, now, policy)),
        open_intents: count(report.open.iter().filter(|treatment| treatment.step.is_intent())),
        known_sessions: count(report.ledger.iter()),
        quota_remaining: report.sources.quotas(fleet, |github, endpoint| github.remaining_quota(endpoint)),
    }
}

/// How long GitHub has kept stale sessions here, while any set may wait for one.
fn lifetimes(store: &ManagerStore, sets: &[SetStatus]) -> Option<String> {
    if sets.iter().all(SetStatus::is_healthy) {
        return None;
    }
    let measured = store.stale_lifetimes(LIFETIMES_SHOWN).ok()?;
    let (shortest, longest) = (measured.iter().map(|one| one.span).min()?, measured.iter().map(|one| one.span).max()?);
    Some(incident::stale_lifetimes(shortest, longest))
}

fn count<T>(things: impl Iterator<Item = T>) -> u32 {
    u32::try_from(things.count()).unwrap_or(u32::MAX)
}

fn sets(report: &Report<'_>) -> Vec<SetStatus> {
    let decisions: BTreeMap<_, _> = report.decisions.iter().map(|d| (d.set, &d.decision)).collect();
    let mut rows: BTreeMap<ScaleSetId, Vec<&Treatment>> = BTreeMap::new();
    for treatment in report.history {
        rows.entry(treatment.set).or_default().push(treatment);
    }
    let findings = report.fleet.findings.values();
    findings
        .filter_map(|finding| {
            let set = report.fleet.sets.get(&finding.set)?;
            let rows = rows.get(&finding.set).map_or(&[][..], Vec::as_slice);
            let open = report.open.iter().find(|treatment| treatment.set == finding.set);
            // A treatment that has just begun is under way by now.
            let decision = match (decisions.get(&finding.set), open) {
                (Some(Decision::Treat { .. }), Some(open)) => Decision::Treating { treatment: open.id },
                (Some(decision), _) => guards::decision((*decision).clone()),
                (None, _) => Decision::Watch { waiting: Waiting::Evidence, until: None },
            };
            Some(set_status(report, set, finding, decision, rows))
        })
        .collect()
}

fn set_status(
    report: &Report<'_>,
    set: &ScaleSet,
    finding: &Finding,
    decision: ShownDecision,
    rows: &[&Treatment],
) -> SetStatus {
    let policy = &report.settings.policy;
    let counted = budget::counted(rows, finding.ill_since, report.fleet.at.wall, policy);
    let used = u64::try_from(counted.len()).unwrap_or(u64::MAX);
    let lingering = report.sweep.lingering.known().and_then(|all| all.get(&set.id)).copied();
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
        not_deleted: not_deleted(report, set, finding),
        decision,
        recovered: report.changes.recovered(set.id, report.fleet.at.wall),
        left_disabled: left_disabled(report, rows),
        lingering: lingering.unwrap_or_default(),
        budget_remaining: u64::from(policy.set_budget).saturating_sub(used),
        budget: Some(Budget { treatments: u64::from(policy.set_budget), window: policy.set_budget_window }),
        treatments: rows.iter().rev().take(TREATMENTS_SHOWN).map(|row| treatment::summary(row)).collect(),
    }
}

/// Whether a treatment has kept the set disabled for longer than the policy allows, because the enable fails.
fn left_disabled(report: &Report<'_>, rows: &[&Treatment]) -> Option<LeftDisabled> {
    let (row, since) = rows.iter().rev().find_map(|row| Some((row, row.disabled_since()?)))?;
    let (passed, limit) = (report.fleet.at.wall.since(since), report.settings.policy.disabled_limit);
    // At the limit itself the first enable is sent.
    let is_late = passed >= if row.refusal.is_some() { limit } else { limit.plus(LONGEST_WAIT) };
    let tries = row.tries().map_or(0, |(tries, _)| tries);
    is_late.then(|| LeftDisabled { since, tries, answer: row.refusal.as_ref().map(treatment::answer) })
}

fn not_deleted(report: &Report<'_>, set: &ScaleSet, finding: &Finding) -> Vec<String> {
    if !finding.diagnosis.is_ill() {
        return Vec::new();
    }
    let fleet = report.fleet;
    let manager = current_manager(fleet);
    let rows = report.ledger.iter().filter(|row| row.set == set.id);
    let against = newest_is_stale(rows, set, manager).err().unwrap_or_default();
    let mut words: Vec<String> = against.into_iter().map(|reason| guards::not_stale(reason).to_owned()).collect();
    if !report.can_delete {
        words.push(guards::NO_CREDENTIAL.to_owned());
    }
    words
}

fn sources(report: &Report<'_>) -> BTreeMap<Source, SourceState> {
    let sweep = report.sweep;
    let github = match (&report.sources.github, sweep.actions_service.values().find_map(Seen::failure)) {
        (None, _) => not_configured(Source::ActionsService),
        (Some(_), Some(failure)) => SourceState::Down { why: failure.to_string() },
        (Some(_), None) => SourceState::Up,
    };
    BTreeMap::from([
        (Source::Api, state(&sweep.scale_sets, Source::Api)),
        (Source::Metrics, state(&sweep.metrics, Source::Metrics)),
        (Source::Goroutines, state(&sweep.goroutines, Source::Goroutines)),
        (Source::Log, state(&sweep.log, Source::Log)),
        (Source::ListenerMetrics, listener_metrics(sweep)),
        (Source::Journal, SourceState::Up),
        (Source::ActionsService, github),
    ])
}

fn not_configured(source: Source) -> SourceState {
    SourceState::NotConfigured { would_show: sources::text(source).shows.to_owned() }
}

fn state<T>(seen: &Seen<T>, source: Source) -> SourceState {
    match seen {
        Seen::Known(_) => SourceState::Up,
        Seen::NotAsked => not_configured(source),
        Seen::Failed(failure) => SourceState::Down { why: failure.to_string() },
    }
}

fn listener_metrics(sweep: &Sweep) -> SourceState {
    match &sweep.metrics {
        Seen::Known(metrics) if metrics.has_set_gauges => SourceState::Up,
        Seen::Known(_) | Seen::NotAsked => not_configured(Source::ListenerMetrics),
        Seen::Failed(failure) => SourceState::Down { why: failure.to_string() },
    }
}
