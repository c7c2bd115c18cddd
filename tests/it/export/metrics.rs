//! The exposition as Prometheus and its linter see it.

use super::{AT, everything, manager, set, status};
use medic_core::model::{
    Decision, Diagnosis, EndpointName, Escalation, FailureKind, Guard, ManagerName, Operation, Outcome, Remedy,
    RemedyKind, RestartKind, Span, Target, TreatmentId,
};
use scaleset_medic::metrics::{DECLARED, Metrics, PREFIX, RecoveryCause, reference};
use scaleset_medic::status::TreatmentSummary;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn garm() -> ManagerName {
    ManagerName::new("garm")
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&[garm()], "heal").unwrap())
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text().unwrap()).unwrap()
}

/// Whether there is a sample of this family whose labels include all of these.
fn samples(metrics: &Metrics, family: &str, labels: &[&str]) -> Vec<String> {
    let start = format!("{PREFIX}_{family}{{");
    text(metrics)
        .lines()
        .filter(|line| line.starts_with(&start) && labels.iter().all(|label| line.contains(label)))
        .map(ToOwned::to_owned)
        .collect()
}

fn value(metrics: &Metrics, family: &str, labels: &[&str]) -> String {
    let found = samples(metrics, family, labels);
    assert_eq!(found.len(), 1, "{family} {labels:?}: {found:?}");
    found[0].rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn the_exposition_passes_a_linter() {
    let metrics = metrics();
    metrics.watched(&[garm()], Span::secs(15));
    metrics.show(&everything());
    let text = text(&metrics);
    let mut kinds = BTreeMap::new();
    let mut helps = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helps.insert(name.to_owned()), "{name} has two help texts");
            assert!(!help.is_empty(), "{name}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is declared twice");
        } else {
            let (id, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(id.to_owned()), "{id} is there twice");
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
            let name = id.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|family| kinds.contains_key(*family)))
                .unwrap_or(name);
            assert!(kinds.contains_key(family), "{name} comes before its type");
            assert!(name.starts_with(PREFIX) || name.starts_with("process_"), "{name}");
        }
    }
    for declared in DECLARED {
        let name = format!("{PREFIX}_{}", declared.name);
        assert_eq!(kinds.get(&name).map(String::as_str), Some(declared.kind), "{name}");
        assert_eq!(declared.kind == "counter", name.ends_with("_total"), "{name}");
        let measures = name.ends_with("_seconds") && !name.contains("timestamp") && !name.contains("interval");
        assert_eq!(declared.kind == "histogram", measures, "{name}");
        for unit in ["_ms", "_millis", "_milliseconds", "_minutes", "_hours", "_kb", "_mb", "_percent"] {
            assert!(!name.contains(unit), "{name} is not in base units");
        }
        for reserved in ["_bucket", "_sum", "_count", "_info_total"] {
            assert!(!name.ends_with(reserved), "{name}");
        }
        assert!(declared.help.ends_with('.'), "{name}");
        for label in declared.labels {
            assert!(!["le", "quantile", "instance", "job"].contains(label), "{name} {label}");
        }
    }
}

#[test]
fn every_metric_of_the_contract_is_there() {
    let metrics = metrics();
    metrics.watched(&[garm()], Span::secs(15));
    metrics.show(&everything());
    for family in [
        "build_info",
        "scale_set_info",
        "scale_set_healthy",
        "scale_set_state",
        "scale_set_stuck_since_timestamp_seconds",
        "scale_set_disabled_by_medic",
        "remedies_total",
        "withheld_total",
        "recoveries_total",
        "time_to_recover_seconds_count",
        "stale_session_lifetime_seconds_count",
        "probe_duration_seconds_count",
        "probe_failures_total",
        "sweep_duration_seconds_count",
        "last_sweep_timestamp_seconds",
        "manager_up",
        "manager_restarts_total",
        "endpoint_state",
        "breaker_open",
        "budget_remaining",
        "open_intents",
        "known_sessions",
        "lingering_instances",
        "github_rate_limit_remaining",
        "source_up",
    ] {
        assert!(!samples(&metrics, family, &[]).is_empty(), "{family}");
    }
}

#[test]
fn every_combination_of_a_counter_is_born_at_zero() {
    let metrics = metrics();
    let born = |family: &str, labels: &[&str]| assert_eq!(value(&metrics, family, labels), "0");
    for remedy in RemedyKind::ALL {
        for outcome in Outcome::ALL.iter().map(|outcome| outcome.as_str()).chain(["would_act"]) {
            for mode in ["heal", "dry_run"] {
                born(
                    "remedies_total",
                    &[
                        &format!("remedy=\"{remedy}\""),
                        &format!("outcome=\"{outcome}\""),
                        &format!("mode=\"{mode}\""),
                        "manager=\"garm\"",
                    ],
                );
            }
        }
    }
    for guard in Guard::ALL {
        born("withheld_total", &[&format!("guard=\"{guard}\"")]);
    }
    for kind in RestartKind::ALL {
        born("manager_restarts_total", &[&format!("kind=\"{kind}\"")]);
    }
    for cause in ["self", "remedy"] {
        born("recoveries_total", &[&format!("cause=\"{cause}\"")]);
    }
    let failures = samples(&metrics, "probe_failures_total", &[]);
    assert_eq!(failures.len(), Operation::ALL.len() * FailureKind::ALL.len());
    assert!(failures.iter().all(|line| line.ends_with(" 0")));
}

#[test]
fn what_happens_is_counted_where_it_belongs() {
    let metrics = metrics();
    metrics.remedy(&garm(), RemedyKind::Toggle, Outcome::Recovered);
    metrics.would_act(&garm(), RemedyKind::Toggle);
    metrics.withheld(&garm(), Guard::Canary);
    metrics.recovered(&garm(), RecoveryCause::Itself, Span::secs(70));
    metrics.stale_session_ended(&garm(), Span::secs(65));
    metrics.restarted(&garm(), RestartKind::Crash);
    let toggle = "remedy=\"toggle\"";
    assert_eq!(value(&metrics, "remedies_total", &[toggle, "\"recovered\"", "\"heal\""]), "1");
    assert_eq!(value(&metrics, "remedies_total", &[toggle, "\"would_act\"", "\"dry_run\""]), "1");
    assert_eq!(value(&metrics, "remedies_total", &[toggle, "\"would_act\"", "\"heal\""]), "0");
    assert_eq!(value(&metrics, "withheld_total", &["\"canary\""]), "1");
    assert_eq!(value(&metrics, "recoveries_total", &["\"self\""]), "1");
    assert_eq!(value(&metrics, "time_to_recover_seconds_sum", &[]), "70");
    assert_eq!(value(&metrics, "time_to_recover_seconds_bucket", &["le=\"60\""]), "0");
    assert_eq!(value(&metrics, "time_to_recover_seconds_bucket", &["le=\"90\""]), "1");
    assert_eq!(value(&metrics, "stale_session_lifetime_seconds_sum", &[]), "65");
    assert_eq!(value(&metrics, "manager_restarts_total", &["\"crash\""]), "1");
    let recorder = metrics.recorder(&garm());
    recorder.exchange(Target::Manager, Operation::Login, Span::millis(250), Some(FailureKind::Unauthorized));
    let login = "operation=\"login\"";
    assert_eq!(value(&metrics, "probe_duration_seconds_sum", &[login]), "0.25");
    assert_eq!(value(&metrics, "probe_failures_total", &[login, "\"unauthorized\""]), "1");
}

#[test]
fn a_set_shows_one_state_at_a_time_and_takes_its_series_with_it() {
    let metrics = metrics();
    let one =
        |diagnosis| status(vec![manager("garm", vec![set(1, "a", diagnosis), set(2, "b", Diagnosis::Listening)])]);
    metrics.show(&one(Diagnosis::Unheld));
    let first = "scale_set=\"1\"";
    assert_eq!(value(&metrics, "scale_set_state", &[first, "\"unheld\""]), "1");
    assert_eq!(value(&metrics, "scale_set_healthy", &[first]), "0");
    assert_eq!(value(&metrics, "scale_set_stuck_since_timestamp_seconds", &[first]), "1699999820");
    assert_eq!(samples(&metrics, "scale_set_state", &[first]).len(), Diagnosis::ALL.len());

    metrics.show(&one(Diagnosis::Listening));
    assert_eq!(value(&metrics, "scale_set_state", &[first, "\"unheld\""]), "0");
    assert_eq!(value(&metrics, "scale_set_state", &[first, "\"listening\""]), "1");
    assert_eq!(value(&metrics, "scale_set_stuck_since_timestamp_seconds", &[first]), "0");

    metrics.show(&status(vec![manager("garm", vec![set(2, "b", Diagnosis::Listening)])]));
    assert!(!text(&metrics).contains(first), "every series of the set is gone");
    metrics.show(&one(Diagnosis::Unheld));
    assert_eq!(value(&metrics, "scale_set_state", &[first, "\"unheld\""]), "1");
    assert_eq!(value(&metrics, "scale_set_state", &[first, "\"listening\""]), "0");
}

#[test]
fn a_renamed_set_has_one_info_series() {
    let metrics = metrics();
    for name in ["before", "after"] {
        metrics.show(&status(vec![manager("garm", vec![set(1, name, Diagnosis::Listening)])]));
    }
    let infos = samples(&metrics, "scale_set_info", &[]);
    assert_eq!(infos.len(), 1);
    assert!(infos[0].contains("name=\"after\"") && infos[0].contains("github_id=\"101\""), "{infos:?}");
}

#[test]
fn endpoints_quotas_and_sources_go_when_they_are_gone() {
    let metrics = metrics();
    let mut picture = status(vec![manager("garm", vec![set(1, "a", Diagnosis::Listening)])]);
    metrics.show(&picture);
    assert_eq!(value(&metrics, "source_up", &["\"goroutines\""]), "0");
    assert!(samples(&metrics, "source_up", &["\"log\""]).is_empty(), "no series where it is not configured");
    let manager = &mut picture.managers[0];
    manager.endpoints.clear();
    manager.quota_remaining = [(EndpointName::new("ghes"), 7)].into();
    manager.sources.clear();
    manager.sets.clear();
    metrics.show(&picture);
    for family in ["endpoint_state", "source_up"] {
        assert!(samples(&metrics, family, &[]).is_empty(), "{family}");
    }
    assert_eq!(samples(&metrics, "github_rate_limit_remaining", &[]).len(), 1);
    assert_eq!(value(&metrics, "github_rate_limit_remaining", &["\"ghes\""]), "7");
    assert_eq!(samples(&metrics, "budget_remaining", &[]).len(), 1);
}

#[test]
fn the_fewest_treatments_left_are_those_of_a_set_that_waits_for_one() {
    let metrics = metrics();
    let mut spent_and_well = set(1, "a", Diagnosis::Listening);
    spent_and_well.budget_remaining = 0;
    let mut spent_and_under_treatment = set(2, "b", Diagnosis::ConflictAbandoned);
    spent_and_under_treatment.budget_remaining = 0;
    spent_and_under_treatment.decision = Decision::Treating { treatment: TreatmentId(1) };
    let mut for_a_person = set(3, "c", Diagnosis::HeldElsewhere);
    for_a_person.budget_remaining = 0;
    for_a_person.decision = Decision::Escalate { escalation: Escalation::Missing };
    let mut sets = vec![spent_and_well, spent_and_under_treatment, for_a_person];
    metrics.show(&status(vec![manager("garm", sets.clone())]));
    assert!(samples(&metrics, "budget_remaining", &["scale_set_min"]).is_empty(), "no set waits for a treatment");

    let mut waits = set(4, "d", Diagnosis::ConflictAbandoned);
    waits.budget_remaining = 2;
    waits.decision = Decision::Blocked { remedy: Remedy::Toggle, guards: Vec::new() };
    sets.push(waits);
    metrics.show(&status(vec![manager("garm", sets.clone())]));
    assert_eq!(value(&metrics, "budget_remaining", &["scale_set_min"]), "2");
    sets[3].budget_remaining = 0;
    metrics.show(&status(vec![manager("garm", sets)]));
    assert_eq!(value(&metrics, "budget_remaining", &["scale_set_min"]), "0");
}

#[test]
fn the_interval_is_told_for_every_manager_that_is_watched() {
    let metrics = metrics();
    metrics.watched(&[garm(), ManagerName::new("other")], Span::mins(10));
    assert_eq!(samples(&metrics, "interval_seconds", &[" 600"]).len(), 2);
}

#[test]
fn the_latest_treatment_of_a_set_has_one_series_that_goes_with_it() {
    let metrics = metrics();
    let at = |remedy: &str, state: &str, id| TreatmentSummary {
        id: TreatmentId(id),
        remedy: remedy.to_owned(),
        opened: AT.plus(Span::secs(id)),
        state: state.to_owned(),
        why: None,
        tries: 0,
        answer: None,
        next_try: None,
    };
    let family = "scale_set_last_remedy_timestamp_seconds";
    let mut one = set(1, "a", Diagnosis::Listening);
    for (treatments, labels, began) in [
        (vec![at("toggle", "verifying", 1)], ["\"toggle\"", "\"under_way\""], "1700000001"),
        (vec![at("toggle", "recovered", 1)], ["\"toggle\"", "\"recovered\""], "1700000001"),
        (
            vec![at("delete_session", "failed", 2), at("toggle", "recovered", 1)],
            ["\"delete_session\"", "\"failed\""],
            "1700000002",
        ),
    ] {
        one.treatments = treatments;
        metrics.show(&status(vec![manager("garm", vec![one.clone()])]));
        assert_eq!(samples(&metrics, family, &[]).len(), 1);
        assert_eq!(value(&metrics, family, &labels), began);
    }
    one.treatments.clear();
    metrics.show(&status(vec![manager("garm", vec![one.clone()])]));
    assert!(samples(&metrics, family, &[]).is_empty(), "none while the history holds none");
    one.treatments = vec![at("toggle", "held", 3)];
    metrics.show(&status(vec![manager("garm", vec![one])]));
    metrics.show(&status(vec![manager("garm", Vec::new())]));
    assert!(samples(&metrics, family, &[]).is_empty(), "gone with its set");
}

#[test]
fn a_picture_of_one_manager_leaves_the_others_alone() {
    let metrics = metrics();
    metrics.show(&status(vec![manager("garm", vec![set(1, "a", Diagnosis::Listening)])]));
    metrics.show(&status(vec![manager("other", vec![set(1, "b", Diagnosis::Deaf)])]));
    assert_eq!(value(&metrics, "scale_set_state", &["manager=\"garm\"", "\"listening\""]), "1");
    assert_eq!(value(&metrics, "scale_set_state", &["manager=\"other\"", "\"deaf\""]), "1");
    assert_eq!(samples(&metrics, "scale_set_info", &[]).len(), 2);
}

#[test]
fn names_from_outside_cannot_break_the_exposition() {
    let metrics = metrics();
    metrics.show(&status(vec![manager("garm", vec![set(1, "a\"} 1\nevil 2", Diagnosis::Listening)])]));
    assert!(!text(&metrics).lines().any(|line| line.starts_with("evil")));
    assert_eq!(samples(&metrics, "scale_set_info", &["name=\"a\\\"} 1\\nevil 2\""]).len(), 1);
}

#[test]
fn the_reference_page_is_current() {
    expect_test::expect_file!["../../../docs/metrics.md"].assert_eq(&reference());
}
