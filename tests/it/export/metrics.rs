//! The exposition as Prometheus and its linter see it.

use super::{AT, everything, manager, set, status};
use medic_core::model::{
    Decision, Diagnosis, EndpointName, Escalation, FailureKind, Guard, ManagerName, OpenStep, Operation, Outcome,
    Remedy, RemedyKind, RestartKind, Span, Target, TreatmentId, TreatmentState,
};
use medic_core::policy::Mode;
use scaleset_medic::metrics::{DECLARED, Kind, Metrics, PREFIX, RecoveryCause};
use scaleset_medic::status::{SetStatus, Status, TreatmentSummary};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// The metrics of a medic that watches `garm`.
struct Shown(Arc<Metrics>);

fn garm() -> ManagerName {
    ManagerName::new("garm")
}

fn metrics() -> Shown {
    Shown(Arc::new(Metrics::new(&[garm()], Mode::Heal).unwrap()))
}

/// Metrics that show every gauge.
fn complete() -> Shown {
    let metrics = metrics();
    metrics.0.watched(&[garm()], Span::secs(15));
    metrics.show(everything());
    metrics
}

fn fleet(sets: Vec<SetStatus>) -> Status {
    status(vec![manager("garm", sets)])
}

impl Shown {
    fn show(&self, status: Status) {
        self.0.show(&Arc::new(status));
    }

    fn text(&self) -> String {
        self.0.text().unwrap()
    }

    /// The samples of this family whose lines include all of these.
    fn samples(&self, family: &str, labels: &[&str]) -> Vec<String> {
        let start = format!("{PREFIX}_{family}");
        let of_family = |line: &&str| line.strip_prefix(&start).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let text = self.text();
        let found = text.lines().filter(of_family).filter(|line| labels.iter().all(|label| line.contains(label)));
        found.map(ToOwned::to_owned).collect()
    }

    fn value(&self, family: &str, labels: &[&str]) -> String {
        let found = self.samples(family, labels);
        assert_eq!(found.len(), 1, "{family} {labels:?}: {found:?}");
        found[0].rsplit(' ').next().unwrap().to_owned()
    }
}

#[test]
fn exposition_follows_the_naming_rules() {
    let metrics = complete();
    let text = metrics.text();
    let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let distinct: BTreeSet<_> = series.iter().filter_map(|line| line.rsplit_once(' ')).map(|(id, _)| id).collect();
    assert_eq!(distinct.len(), series.len(), "a series is there twice");
    for line in series {
        assert!(line.starts_with(PREFIX) || line.starts_with("process_"), "{line}");
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
    }
    for declared in DECLARED {
        let (name, kind) = (declared.name, format!("{:?}", declared.kind).to_lowercase());
        assert!(text.contains(&format!("# TYPE {PREFIX}_{name} {kind}\n")), "{name} is not shown as {kind}");
        assert_eq!(declared.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let measures = name.ends_with("_seconds") && !name.contains("timestamp") && !name.contains("interval");
        assert_eq!(declared.kind == Kind::Histogram, measures, "{name}");
        assert_eq!(declared.kind == Kind::Histogram, !declared.buckets.is_empty(), "{name}");
        for unit in ["_ms", "_millis", "_milliseconds", "_minutes", "_hours", "_kb", "_mb", "_percent"] {
            assert!(!name.contains(unit), "{name} is not in base units");
        }
        assert!(declared.help.ends_with('.'), "{name}");
        let reserved = |(label, _): &(&str, _)| ["le", "quantile", "instance", "job"].contains(label);
        assert!(!declared.labels.iter().any(reserved), "{name}");
    }
}

#[test]
fn every_metric_of_the_contract_is_declared() {
    let contract = "build_info scale_set_info scale_set_healthy scale_set_state \
        scale_set_stuck_since_timestamp_seconds scale_set_disabled_by_medic remedies_total withheld_total \
        recoveries_total time_to_recover_seconds stale_session_lifetime_seconds probe_duration_seconds \
        probe_failures_total sweep_duration_seconds last_sweep_timestamp_seconds manager_up manager_restarts_total \
        endpoint_state breaker_open budget_remaining open_intents known_sessions lingering_instances \
        github_rate_limit_remaining source_up";
    for name in contract.split_whitespace() {
        assert!(DECLARED.iter().any(|declared| declared.name == name), "{name}");
    }
}

#[test]
fn counters_start_at_zero_for_every_combination() {
    let metrics = metrics();
    for (family, combinations) in [
        ("remedies_total", RemedyKind::ALL.len() * (Outcome::ALL.len() + 1) * 2),
        ("withheld_total", Guard::ALL.len()),
        ("manager_restarts_total", RestartKind::ALL.len()),
        ("recoveries_total", 2),
        ("sweeps_total", 2),
        ("store_errors_total", 1),
        ("probe_failures_total", Operation::ALL.len() * FailureKind::ALL.len()),
        ("probe_duration_seconds_count", Operation::ALL.len()),
        ("time_to_recover_seconds_count", 1),
        ("stale_session_lifetime_seconds_count", 1),
        ("sweep_duration_seconds_count", 1),
    ] {
        let samples = metrics.samples(family, &["manager=\"garm\""]);
        assert_eq!(samples.len(), combinations, "{family}");
        assert!(samples.iter().all(|line| line.ends_with(" 0")), "{samples:?}");
    }
    let would_act = ["remedy=\"toggle\"", "outcome=\"would_act\"", "mode=\"dry_run\""];
    assert_eq!(metrics.value("remedies_total", &would_act), "0");
}

#[test]
fn manager_has_its_series_before_the_first_sweep() {
    let metrics = metrics();
    for family in
        ["manager_up", "breaker_open", "paused", "open_intents", "known_sessions", "last_sweep_timestamp_seconds"]
    {
        assert_eq!(metrics.value(family, &["manager=\"garm\""]), "0", "{family}");
    }
    assert!(metrics.samples("manager_state", &[]).is_empty(), "no state is known");
    metrics.0.watched(&[garm(), ManagerName::new("other")], Span::mins(10));
    assert_eq!(metrics.samples("interval_seconds", &[" 600"]).len(), 2);
    assert_eq!(metrics.value("config_last_reload_successful", &[]), "1");
    metrics.0.config_read(false);
    assert_eq!(metrics.value("config_last_reload_successful", &[]), "0");
}

#[test]
fn events_are_counted_under_their_labels() {
    let metrics = metrics();
    metrics.0.remedy(&garm(), RemedyKind::Toggle, Outcome::Recovered);
    metrics.0.would_act(&garm(), RemedyKind::Toggle);
    metrics.0.withheld(&garm(), Guard::Canary);
    metrics.0.recovered(&garm(), RecoveryCause::Itself, Span::secs(70));
    metrics.0.stale_session_ended(&garm(), Span::secs(65));
    metrics.0.restarted(&garm(), RestartKind::Crash);
    metrics.0.swept(&garm(), Span::secs(2), false);
    metrics.0.store_failed(&garm());
    let failed = Some(FailureKind::Unauthorized);
    metrics.0.recorder(&garm()).exchange(Target::Manager, Operation::Login, Span::millis(250), failed);
    let (toggle, login) = ("remedy=\"toggle\"", "operation=\"login\"");
    for (family, labels, value) in [
        ("remedies_total", &[toggle, "\"recovered\"", "\"heal\""][..], "1"),
        ("remedies_total", &[toggle, "\"would_act\"", "\"dry_run\""], "1"),
        ("remedies_total", &[toggle, "\"would_act\"", "\"heal\""], "0"),
        ("withheld_total", &["\"canary\""], "1"),
        ("recoveries_total", &["\"self\""], "1"),
        ("time_to_recover_seconds_sum", &[], "70"),
        ("time_to_recover_seconds_bucket", &["le=\"60\""], "0"),
        ("time_to_recover_seconds_bucket", &["le=\"90\""], "1"),
        ("stale_session_lifetime_seconds_sum", &[], "65"),
        ("manager_restarts_total", &["\"crash\""], "1"),
        ("sweep_duration_seconds_sum", &[], "2"),
        ("sweeps_total", &["\"blind\""], "1"),
        ("store_errors_total", &[], "1"),
        ("probe_duration_seconds_sum", &[login, "target=\"manager\""], "0.25"),
        ("probe_failures_total", &[login, "\"unauthorized\""], "1"),
    ] {
        assert_eq!(metrics.value(family, labels), value, "{family} {labels:?}");
    }
}

#[test]
fn scale_set_has_one_state_and_takes_its_series_with_it() {
    let metrics = metrics();
    let both = |diagnosis| fleet(vec![set(1, "a", diagnosis), set(2, "b", Diagnosis::Listening)]);
    metrics.show(both(Diagnosis::Unheld));
    let first = "scale_set=\"1\"";
    assert_eq!(metrics.value("scale_set_state", &[first, "\"unheld\""]), "1");
    assert_eq!(metrics.value("scale_set_healthy", &[first]), "0");
    assert_eq!(metrics.value("scale_set_stuck_since_timestamp_seconds", &[first]), "1699999820");
    assert_eq!(metrics.samples("scale_set_state", &[first]).len(), Diagnosis::ALL.len());

    metrics.show(both(Diagnosis::Listening));
    assert_eq!(metrics.value("scale_set_state", &[first, "\"unheld\""]), "0");
    assert_eq!(metrics.value("scale_set_state", &[first, "\"listening\""]), "1");
    assert_eq!(metrics.value("scale_set_stuck_since_timestamp_seconds", &[first]), "0");

    metrics.show(fleet(vec![set(2, "b", Diagnosis::Listening)]));
    assert!(!metrics.text().contains(first), "every series of the set is gone");
}

#[test]
fn gauges_show_only_the_latest_status_of_a_manager() {
    let (mut renamed, mut other) =
        (manager("garm", vec![set(1, "after", Diagnosis::Listening)]), everything().managers);
    renamed.endpoints.clear();
    renamed.sources.clear();
    renamed.quota_remaining = [(EndpointName::new("ghes"), 7)].into();
    let latest = status(vec![renamed, other.pop().unwrap()]);
    let (fresh, metrics) = (metrics(), metrics());
    metrics.show(everything());
    assert_eq!(metrics.value("source_up", &["manager=\"garm\"", "\"goroutines\""]), "0");
    assert!(metrics.samples("source_up", &["\"log\""]).is_empty(), "no series where it is not configured");
    metrics.show(latest.clone());
    fresh.show(latest);
    let of = |shown: &Shown| {
        let text = shown.text();
        text.lines().filter(|line| line.starts_with(PREFIX)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(&metrics), of(&fresh));
}

#[test]
fn scale_set_min_budget_is_that_of_sets_awaiting_treatment() {
    let metrics = metrics();
    let spent = |id, diagnosis, decision| SetStatus { budget_remaining: 0, decision, ..set(id, "a", diagnosis) };
    let mut sets = vec![
        spent(1, Diagnosis::Listening, Decision::Leave),
        spent(2, Diagnosis::ConflictAbandoned, Decision::Treating { treatment: TreatmentId(1) }),
        spent(3, Diagnosis::HeldElsewhere, Decision::Escalate { escalation: Escalation::Missing }),
    ];
    metrics.show(fleet(sets.clone()));
    assert!(metrics.samples("budget_remaining", &["scale_set_min"]).is_empty(), "no set waits for a treatment");

    let blocked = Decision::Blocked { remedy: Remedy::Toggle, guards: Vec::new() };
    sets.push(spent(4, Diagnosis::ConflictAbandoned, blocked));
    for left in [2, 0] {
        sets[3].budget_remaining = left;
        metrics.show(fleet(sets.clone()));
        assert_eq!(metrics.value("budget_remaining", &["scale_set_min"]), left.to_string());
    }
}

#[test]
fn latest_treatment_of_a_set_has_one_series() {
    let metrics = metrics();
    let row = |remedy, state, id| TreatmentSummary {
        id: TreatmentId(id),
        remedy,
        opened: AT.plus(Span::secs(id)),
        state,
        why: None,
        tries: 0,
        answer: None,
        next_try: None,
    };
    let with = |treatments| fleet(vec![SetStatus { treatments, ..set(1, "a", Diagnosis::Listening) }]);
    let family = "scale_set_last_remedy_timestamp_seconds";
    let recovered = row(RemedyKind::Toggle, TreatmentState::Ended(Outcome::Recovered), 1);
    for (treatments, labels, began) in [
        (
            vec![row(RemedyKind::Toggle, TreatmentState::Open(OpenStep::Verifying), 1)],
            ["\"toggle\"", "\"under_way\""],
            "1700000001",
        ),
        (vec![recovered.clone()], ["\"toggle\"", "\"recovered\""], "1700000001"),
        (
            vec![row(RemedyKind::DeleteSession, TreatmentState::Ended(Outcome::Failed), 2), recovered.clone()],
            ["\"delete_session\"", "\"failed\""],
            "1700000002",
        ),
    ] {
        metrics.show(with(treatments));
        assert_eq!(metrics.samples(family, &[]).len(), 1);
        assert_eq!(metrics.value(family, &labels), began);
    }
}

#[test]
fn status_of_one_manager_leaves_the_others_alone() {
    let metrics = metrics();
    metrics.show(fleet(vec![set(1, "a", Diagnosis::Listening)]));
    metrics.show(status(vec![manager("other", vec![set(1, "b", Diagnosis::Deaf)])]));
    assert_eq!(metrics.value("scale_set_state", &["manager=\"garm\"", "\"listening\""]), "1");
    assert_eq!(metrics.value("scale_set_state", &["manager=\"other\"", "\"deaf\""]), "1");
    assert_eq!(metrics.samples("scale_set_info", &[]).len(), 2);
}

#[test]
fn names_from_outside_cannot_break_the_exposition() {
    let metrics = metrics();
    metrics.show(fleet(vec![set(1, "a\"} 1\nevil 2", Diagnosis::Listening)]));
    assert!(!metrics.text().lines().any(|line| line.starts_with("evil")));
    assert_eq!(metrics.samples("scale_set_info", &["name=\"a\\\"} 1\\nevil 2\""]).len(), 1);
}

/// `docs/metrics.md`, made from the declarations.
fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `src/metrics/declared.rs`; do not edit. The port also serves the usual `process_*` \
         metrics of the medic itself.\n\nDurations are in seconds, dates in seconds since the Unix epoch. `scale_set` is \
         GARM's id of the set; join `scale_set_info` for its name. Every counter starts at 0.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    let list = |names: &[&str], between| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(between);
    let mut values = BTreeSet::new();
    for declared in DECLARED {
        let labels: Vec<_> = declared.labels.iter().map(|(label, _)| *label).collect();
        let (kind, labels) = (format!("{:?}", declared.kind).to_lowercase(), list(&labels, ", "));
        let _ = writeln!(page, "| `{PREFIX}_{}` | {kind} | {labels} | {} |", declared.name, declared.help);
        let closed = declared.labels.iter().map(|(label, all)| (*label, all())).filter(|(_, all)| !all.is_empty());
        values.extend(closed.map(|(label, all)| (label, declared.name, list(&all, " "))));
    }
    page.push_str("\n## Label values\n\n| label | of | values |\n|---|---|---|\n");
    for (label, of, values) in values {
        let _ = writeln!(page, "| `{label}` | `{of}` | {values} |");
    }
    page
}

#[test]
fn reference_page_of_metrics_is_current() {
    expect_test::expect_file!["../../../docs/metrics.md"].assert_eq(&reference());
}
