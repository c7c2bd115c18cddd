//! Facts for tests: a deployment in which nothing is amiss, to be spoilt in one respect.

use super::facts::{Facts, GithubFacts, ManagerFacts, Place, StateDir, StoreFacts, StreamFacts};
use super::skew::Skew;
use super::{Check, Finding};
use crate::config::{Config, Depth, Sources, check};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{
    Controller, EndpointName, Entity, EntityKind, FailureKind, GithubSet, Goroutines, Incarnation, ManagerMetrics,
    ManagerName, Operation, RequestFailure, ScaleSet, Seen, Span, Wall,
};

pub(super) const NOW: Wall = Wall(1_764_000_000_000);

pub(super) const CONFIG: &str = r#"
[run]
mode = "heal"
state_dir = "/var/lib/scaleset-medic"
[[manager]]
name = "garm"
url = "http://127.0.0.1:9997"
username = "admin"
password_file = "/run/secrets/garm-password"
log_file = "/var/log/garm/garm.log"
debug_server = true
[[github]]
endpoint = "github.com"
token_file = "/run/secrets/github-token"
"#;

pub(super) fn config(text: &str) -> Config {
    check(&Sources::of_text("test.toml", text), Depth::Values).unwrap().config
}

pub(super) fn scale_set(id: u64, entity: &str) -> ScaleSet {
    let entity = Entity { kind: EntityKind::Organization, name: entity.to_owned() };
    let set = medic_core::decide::testing::scale_set(id);
    ScaleSet { name: format!("linux-{id}"), entity: Some(entity), updated_at: None, ..set }
}

pub(super) fn manager(name: &str, id: &str) -> ManagerFacts {
    ManagerFacts {
        name: ManagerName::new(name),
        controller: Seen::Known(Controller { id: id.to_owned(), version: "v0.2.1".to_owned() }),
        scale_sets: Seen::Known(vec![scale_set(1, "acme"), scale_set(2, "acme")]),
        metrics: Seen::Known(ManagerMetrics {
            incarnation: Some(Incarnation(NOW.minus(Span::hours(3)))),
            has_set_gauges: true,
            ..ManagerMetrics::default()
        }),
        goroutines: Seen::Known(Goroutines { listeners: 2, workers: 2 }),
        log_file: Seen::Known(LogEvidence {
            run_started: Some(NOW.minus(Span::hours(3))),
            last_stop: Some(NOW.minus(Span::hours(3))),
            debug: true,
            newest: Some(NOW),
            ..LogEvidence::default()
        }),
        log_stream: Seen::Known(StreamFacts { lines: 9, debug: true }),
        events: Seen::Known(()),
        login_until: Some(NOW.plus(Span::hours(24))),
        skew: Some(Skew::of(NOW, NOW, NOW)),
    }
}

pub(super) fn healthy() -> Facts {
    let manager = manager("garm", "60b611f2");
    let sets = manager.sets();
    let entity = sets[0].entity_ref().unwrap();
    let listed =
        sets.iter().map(|set| GithubSet { id: set.github_id.unwrap(), name: set.name.clone(), statistics: None });
    let entities = vec![(entity, Seen::Known(listed.collect()))];
    Facts {
        at: NOW,
        config: config(CONFIG),
        place: Place::Elsewhere,
        state_dir: StateDir::Writable { mode: Some(0o700) },
        store: StoreFacts::Readable { live_sessions: 2, open_treatments: 0, pauses: Vec::new(), holder: None },
        left_disabled: Vec::new(),
        pause_file: None,
        github: vec![GithubFacts {
            endpoint: EndpointName::new("github.com"),
            entities,
            not_asked: 0,
            remaining: Some(4_900),
            ends: None,
            skew: Some(Skew::of(NOW, NOW, NOW)),
        }],
        managers: vec![manager],
    }
}

pub(super) fn broken<T>(operation: Operation, kind: FailureKind) -> Seen<T> {
    let detail = "what came back".to_owned();
    Seen::Failed(RequestFailure { target: operation.target(), operation, kind, detail, retry_at: None })
}

/// The answer to one question.
pub(super) fn answer(findings: &[Finding], check: Check) -> Finding {
    let found: Vec<_> = findings.iter().filter(|finding| finding.check == check).collect();
    let told: Vec<_> = findings.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(found.len(), 1, "{check} among {told:?}");
    found[0].clone()
}

/// All lines that it says to put in.
pub(super) fn lines(finding: &Finding) -> Vec<&str> {
    finding.mend.iter().flat_map(|step| &step.lines).map(String::as_str).collect()
}
