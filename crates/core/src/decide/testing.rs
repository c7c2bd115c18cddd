//! Builders for tests.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot go on has failed")]

use super::{Conditions, WriteAccess};
use crate::model::fleet::Fleet;
use crate::model::session::{LedgerSession, OpenedBy};
use crate::model::{
    Confidence, ConflictBehaviour, Diagnosis, Enablement, Endpoint, EndpointName, Entity, EntityKind, Evidence, Fact,
    Finding, Findings, GithubId, Incarnation, ManagerName, ManagerState, Mono, Note, Now, Outcome, Owner, Remedy,
    Revision, Rule, ScaleSet, ScaleSetId, SessionId, Source, Span, Step, Treatment, TreatmentId, Wall, Worker,
};
use crate::policy::{Mode, Policy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const fn mins(minutes: u64) -> Wall {
    Wall(minutes * 60_000)
}

pub const fn hours(hours: u64) -> Wall {
    mins(hours * 60)
}

/// A set of the organisation `acme`.
pub fn scale_set(id: u64) -> ScaleSet {
    scale_set_of(id, "acme")
}

pub fn scale_set_of(id: u64, organization: &str) -> ScaleSet {
    ScaleSet {
        id: ScaleSetId(id),
        github_id: Some(GithubId(100 + id)),
        name: format!("set-{id}"),
        entity: Some(Entity { kind: EntityKind::Organization, name: organization.to_owned() }),
        endpoint: Some(Arc::new(Endpoint {
            name: EndpointName::new("github.com"),
            base_url: "https://github.com".to_owned(),
            api_base_url: "https://api.github.com/".to_owned(),
        })),
        enabled: Enablement::Enabled,
        desired_runners: 0,
        max_runners: 5,
        revision: Revision::new("r0"),
        updated_at: Some(Wall(0)),
    }
}

pub fn finding(id: u64, diagnosis: Diagnosis, confidence: Confidence) -> Finding {
    Finding {
        set: ScaleSetId(id),
        diagnosis,
        confidence,
        rule: Rule::Nothing,
        corrected: None,
        evidence: Vec::new(),
        since: mins(60),
        ill_since: diagnosis.is_ill().then_some(mins(60)),
        seen: 5,
        worker: Worker::UNKNOWN,
    }
}

pub fn evidence(at: Wall, fact: Fact) -> Evidence {
    Evidence { source: Source::Log, at, fact }
}

pub fn ledger_session(set: u64, id: &str, run: Incarnation, seen: Wall) -> LedgerSession {
    LedgerSession {
        set: ScaleSetId(set),
        place: scale_set(set).place().unwrap(),
        id: SessionId::new(id),
        owner: Owner::of_garm("c1"),
        opened_by: OpenedBy::Manager(run),
        first_seen: seen,
        last_seen: seen.plus(Span::secs(60)),
        ended: None,
    }
}

pub fn open(id: u64, set: u64, opened: Wall, step: Step) -> Treatment {
    Treatment {
        id: TreatmentId(id),
        set: ScaleSetId(set),
        name: format!("set-{set}"),
        place: scale_set(set).place(),
        remedy: Remedy::Toggle,
        cause: Diagnosis::ConflictAbandoned,
        incarnation: None,
        opened,
        canary: false,
        step,
        step_at: opened,
        worker_restarted: None,
        holder: None,
        refusal: None,
        manual_heal: None,
    }
}

pub fn closed(id: u64, set: u64, opened: Wall, at: Wall, outcome: Outcome) -> Treatment {
    Treatment { step_at: at, ..open(id, set, opened, Step::Closed { outcome, why: Note::SetRemoved }) }
}

pub fn worker_restarted(id: u64, set: u64, opened: Wall) -> Treatment {
    Treatment { worker_restarted: Some(opened.plus(Span::secs(4))), ..open(id, set, opened, Step::Verifying) }
}

pub fn check(id: u64, set: u64, opened: Wall, at: Wall, outcome: Outcome) -> Treatment {
    Treatment { remedy: Remedy::SessionCheck, ..closed(id, set, opened, at, outcome) }
}

/// A manager without sets, up and known to nobody.
pub fn fleet(at: Wall) -> Fleet {
    Fleet {
        at: Now { wall: at, mono: Mono(0) },
        manager: ManagerState::Up,
        restart: None,
        restarts: 0,
        incarnation: None,
        endpoints: BTreeMap::new(),
        findings: Findings::new(),
        sets: Arc::default(),
        blind: false,
        fault_at_github: false,
        conflict_behaviour: ConflictBehaviour::Unknown,
        owner: None,
        recoveries: Vec::new(),
    }
}

/// Conditions in which nothing but the policy limits a heal.
pub fn conditions(now: Wall, policy: Policy) -> Conditions {
    Conditions {
        now: Now { wall: now, mono: Mono(0) },
        name: ManagerName::new("garm"),
        mode: Mode::Heal,
        policy,
        history: Vec::new(),
        ledger: Arc::default(),
        pauses: Vec::new(),
        manual_heals: Vec::new(),
        breaker_reset: None,
        can_check_sessions: BTreeSet::new(),
        quotas: BTreeMap::new(),
        write_access: WriteAccess::Granted,
    }
}
