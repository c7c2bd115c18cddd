//! Metrics, the HTTP server, the status document and the page.
#![expect(clippy::unwrap_used, reason = "a test helper that cannot go on fails its test")]

mod metrics;
mod page;
mod schema;
mod server;

use medic_core::model::log_fact::ListenerErrorKind;
use medic_core::model::{
    Confidence, Decision, Diagnosis, Enablement, EndpointName, EndpointState, Entity, EntityKind, EntityRef,
    Escalation, Evidence, Fact, FailureKind, Finding, GithubId, Guard, Incarnation, Lingering, ManagerName,
    ManagerState, OpenStep, Outcome, Owner, Pause, PauseId, PauseScope, Remedy, RemedyKind, RestartKind, Rule,
    ScaleSetId, SessionId, Source, Span, TreatmentId, TreatmentState, Waiting, Wall, Worker, WorkerState,
};
use medic_core::policy::Mode;
use scaleset_medic::status::{
    Budget, LeftDisabled, ManagerStatus, Recovered, Restart, STATUS_SCHEMA, SetStatus, ShownDecision, ShownGuard,
    SourceState, Status, TreatmentSummary,
};
use std::collections::BTreeMap;

/// The date of every document here.
pub(crate) const AT: Wall = Wall(1_700_000_000_000);

/// A set with a diagnosis and nothing else of note.
pub(crate) fn set(id: u64, name: &str, diagnosis: Diagnosis) -> SetStatus {
    let since = AT.minus(Span::mins(3));
    SetStatus {
        id: ScaleSetId(id),
        github_id: Some(GithubId(id + 100)),
        name: name.to_owned(),
        entity: Some(EntityRef {
            endpoint: EndpointName::new("github.com"),
            entity: Entity { kind: EntityKind::Organization, name: "acme".to_owned() },
        }),
        enabled: Enablement::Enabled,
        finding: Finding {
            set: ScaleSetId(id),
            diagnosis,
            confidence: Confidence::Strong,
            rule: Rule::Counters,
            corrected: None,
            evidence: vec![Evidence { source: Source::Api, at: AT, fact: Fact::Enabled }],
            since,
            ill_since: diagnosis.is_ill().then_some(since),
            seen: 4,
            worker: Worker { state: WorkerState::Unknown, since: AT },
        },
        not_deleted: Vec::new(),
        decision: Decision::Leave,
        recovered: None,
        left_disabled: None,
        lingering: Lingering { deleted: 2, pending_delete: 1, total: 5 },
        budget_remaining: 3,
        budget: Some(Budget { treatments: 3, window: Span::hours(24) }),
        treatments: Vec::new(),
    }
}

/// A manager that is up, with these sets.
pub(crate) fn manager(name: &str, sets: Vec<SetStatus>) -> ManagerStatus {
    ManagerStatus {
        name: ManagerName::new(name),
        at: AT,
        took: Span::millis(40),
        state: ManagerState::Up,
        incarnation: Some(Incarnation(AT.minus(Span::hours(1)))),
        restart: Some(Restart { kind: RestartKind::Crash, at: AT.minus(Span::hours(1)) }),
        endpoints: BTreeMap::from([(EndpointName::new("github.com"), EndpointState::Up)]),
        sources: BTreeMap::from([
            (Source::Api, SourceState::Up),
            (Source::Goroutines, SourceState::Down { why: "HTTP 404".to_owned() }),
            (Source::Log, SourceState::NotConfigured { would_show: "session ids".to_owned() }),
        ]),
        sets,
        pauses: Vec::new(),
        breaker_open: None,
        budget_remaining: 900,
        open_intents: 1,
        known_sessions: 2,
        quota_remaining: BTreeMap::from([(EndpointName::new("github.com"), 4321)]),
        incident: None,
        stale_lifetimes: None,
    }
}

pub(crate) fn status(managers: Vec<ManagerStatus>) -> Status {
    Status {
        schema: STATUS_SCHEMA,
        version: "0.1.0".to_owned(),
        mode: Mode::Heal,
        at: AT,
        managers,
        not_swept_yet: Vec::new(),
    }
}

/// A fleet that uses every part of the document.
pub(crate) fn everything() -> Status {
    let mut sets: Vec<SetStatus> =
        (1..).zip(Diagnosis::ALL).map(|(id, diagnosis)| set(id, &format!("set-{diagnosis}"), *diagnosis)).collect();
    for (set, decision) in sets.iter_mut().zip(decisions()) {
        set.decision = decision;
    }
    sets[4].finding.evidence = facts().into_iter().map(|fact| Evidence { source: Source::Log, at: AT, fact }).collect();
    let refused = Fact::ConflictLine { owner: Some(Owner::new("garm-x")), run: Span::secs(5) };
    sets[5].finding.evidence = [Evidence { source: Source::Log, at: AT, fact: refused }].into_iter().collect();
    sets[5].treatments = vec![TreatmentSummary {
        id: TreatmentId(7),
        remedy: RemedyKind::Toggle,
        opened: AT.minus(Span::mins(2)),
        state: TreatmentState::Ended(Outcome::Recovered),
        why: Some("it polls again".to_owned()),
        tries: 0,
        answer: None,
        next_try: None,
    }];
    sets[7].treatments = vec![TreatmentSummary {
        id: TreatmentId(8),
        remedy: RemedyKind::Toggle,
        opened: AT,
        state: TreatmentState::Open(OpenStep::Verifying),
        why: None,
        tries: 2,
        answer: Some("HTTP 500".to_owned()),
        next_try: Some(AT.plus(Span::secs(4))),
    }];
    sets[7].left_disabled = Some(LeftDisabled { since: AT, tries: 2, answer: Some("HTTP 500".to_owned()) });
    sets[7].not_deleted = vec!["its session is not known".to_owned(), "the manager <may> hold it".to_owned()];
    sets[6].entity = None;
    sets[6].github_id = None;
    sets[6].enabled = Enablement::Disabled;
    sets[0].recovered = Some(Recovered { ill_since: AT.minus(Span::mins(5)), at: AT.minus(Span::mins(3)) });
    let mut unhealthy = manager("garm", sets);
    unhealthy.incident = Some("GARM crashed 14:03:12; 3 of 4 sets were refused".to_owned());
    unhealthy.stale_lifetimes = Some("GitHub has kept such sessions 61\u{2013}92 s here".to_owned());
    unhealthy.breaker_open = Some("two treatments in a row were not verified".to_owned());
    unhealthy.pauses = pauses();
    let mut down = manager("other", Vec::new());
    down.state = ManagerState::Down;
    down.incarnation = None;
    down.restart = None;
    status(vec![unhealthy, down])
}

fn pauses() -> Vec<Pause> {
    let garm = ManagerName::new("garm");
    let scopes = [
        PauseScope::Set { manager: garm.clone(), set: ScaleSetId(3) },
        PauseScope::Manager { manager: garm },
        PauseScope::All,
    ];
    let pause = |(id, scope)| Pause {
        id: PauseId(id),
        scope,
        reason: "upgrade".to_owned(),
        author: "alice".to_owned(),
        created: AT,
        expires: (id == 2).then(|| AT.plus(Span::hours(72))),
    };
    (0..).zip(scopes).map(pause).collect()
}

fn decisions() -> Vec<ShownDecision> {
    let session = SessionId::new("s");
    let held = |guard, until| ShownGuard { guard, value: "1 of 2".to_owned(), limit: "2".to_owned(), until };
    let mut decisions = vec![
        Decision::Leave,
        Decision::Watch { waiting: Waiting::StaleSession, until: Some(AT) },
        Decision::Watch { waiting: Waiting::Evidence, until: None },
        Decision::Blocked {
            remedy: Remedy::DeleteThenToggle { session: session.clone() },
            guards: vec![held(Guard::Confirmation, None), held(Guard::Backoff, Some(AT))],
        },
        Decision::Treat { remedy: Remedy::Toggle, canary: true },
        Decision::Treat { remedy: Remedy::DeleteSession { session }, canary: false },
        Decision::Treat { remedy: Remedy::SessionCheck, canary: false },
        Decision::Treating { treatment: TreatmentId(8) },
    ];
    decisions.extend(
        [
            Escalation::HeldElsewhere { owner: Some(Owner::new("garm-x")), run: Span::mins(6) },
            Escalation::EndpointFault,
            Escalation::Missing,
            Escalation::Mismatched,
            Escalation::Starved,
            Escalation::Deaf,
            Escalation::Flapping,
            Escalation::Evicted,
            Escalation::Unknown,
        ]
        .map(|escalation| Decision::Escalate { escalation }),
    );
    decisions
}

fn facts() -> Vec<Fact> {
    let (kind, span, owner) = (FailureKind::Timeout, Span::secs(5), Some(Owner::new("garm-x")));
    vec![
        Fact::Enabled,
        Fact::Disabled,
        Fact::DisabledByTreatment,
        Fact::ManagerAge { age: span },
        Fact::ManagerUnseen { kind },
        Fact::LivingListeners { living: 1, expected: 2 },
        Fact::LivingWorkers { living: 1, expected: 2 },
        Fact::SessionsByCounters { open: 1, expected: 2 },
        Fact::CreateErrors { count: 1, flat_for: span },
        Fact::CreateErrorsGrow { by: 1, within: span },
        Fact::StartErrors { count: 1 },
        Fact::CauseGone,
        Fact::SessionChurn { opened: 1, within: span },
        Fact::LastPoll { ago: span },
        Fact::NoListenerSeries,
        Fact::BuildRetries,
        Fact::UnchangedSince { since: AT },
        Fact::RevisionMoved,
        Fact::ConflictLine { owner: owner.clone(), run: span },
        Fact::GaveUpLine,
        Fact::SessionOpenedLine,
        Fact::PollLine { ago: span },
        Fact::ListenerErrorLine { kind: ListenerErrorKind::Network },
        Fact::WorkerIdleLine,
        Fact::PoisonMessage { failures: 3 },
        Fact::GithubListsSet,
        Fact::GithubLacksSet { since: AT },
        Fact::GithubOtherId { id: GithubId(4) },
        Fact::JobsWait { waiting: 1, since: AT },
        Fact::CredentialsRefused,
        Fact::GithubUnseen { kind },
        Fact::CheckRefused { owner },
        Fact::CheckOpened,
        Fact::DeletedInstancesLinger { count: 1 },
        Fact::StaleSessionKnown { incarnation: Incarnation(AT) },
        Fact::CannotTellWhich { listening: 1, of: 2 },
        Fact::NothingToSee,
    ]
}
