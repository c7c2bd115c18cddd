//! `/metrics` in the three recorded situations: the same families, help texts, types and label names, and no operation
//! that GARM does not count.

use super::stage::{Stage, VERSIONS, recorded, text_of};
use scaleset_medic::model::Span;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Every operation that GARM counts (`reference/garm-api.md` §9).
const OPERATIONS: &[&str] = &[
    "CreateMessageSession",
    "DeleteMessageSession",
    "RefreshMessageSession",
    "GetMessage",
    "DeleteMessage",
    "AcquireJobs",
    "GetAcquirableJobs",
    "GenerateJitRunnerConfig",
    "GetRunner",
    "GetRunnerByName",
    "ListAllRunners",
    "RemoveRunner",
    "GetRunnerScaleSetByNameAndRunnerGroup",
    "GetRunnerScaleSetByID",
    "ListRunnerScaleSets",
    "CreateRunnerScaleSet",
    "UpdateRunnerScaleSet",
    "DeleteRunnerScaleSet",
    "GetRunnerGroupByName",
    "GetActionServiceInfo",
    "CreateEntityRegistrationToken",
    "ListEntityRunners",
    "ListEntityRunnerApplicationDownloads",
    "RemoveEntityRunner",
    "GetEntityJITConfig",
    "ListHooks",
    "GetHook",
    "CreateHook",
    "DeleteHook",
    "PingHook",
    "ListOrganizationRunnerGroups",
    "ListRunnerGroups",
    "GetRateLimit",
];

/// A family as a reader of metrics knows it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    help: String,
    kind: String,
    labels: BTreeSet<Vec<String>>,
}

fn is_compared(name: &str) -> bool {
    name.starts_with("garm_") || name == "process_start_time_seconds"
}

/// Families by name; values and label values are left out.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        let words = |rest: &str| rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        if let Some((name, help)) = line.strip_prefix("# HELP ").map(words) {
            families.entry(name).or_default().help = help;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").map(words) {
            families.entry(name).or_default().kind = kind;
        } else if !line.is_empty() {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            families.entry(name.to_owned()).or_default().labels.insert(label_names(labels));
        }
    }
    families.retain(|name, _| is_compared(name));
    families
}

/// No recorded label value holds a quote.
fn label_names(labels: &str) -> Vec<String> {
    let pieces: Vec<&str> = labels.split('"').collect();
    let names = pieces.iter().step_by(2).filter_map(|piece| piece.strip_suffix('='));
    names.map(|name| name.trim_start_matches(',').to_owned()).collect()
}

fn scrape(stage: &mut Stage) -> String {
    let answer = stage.ask("GET", "/metrics", &Value::Null, true);
    assert_eq!(answer.response.status(), 200);
    text_of(&answer)
}

fn compare(stage: &mut Stage, version: &str, name: &str) {
    let file = format!("http/metrics-{name}.txt");
    let (real, simulated) = (families(&recorded(version, &file)), families(&scrape(stage)));
    let mut found = BTreeSet::new();
    for (name, family) in &real {
        match simulated.get(name) {
            None => drop(found.insert(format!("{name} is missing"))),
            Some(other) if other != family => drop(found.insert(format!("{name} is {other:?}, not {family:?}"))),
            Some(_) => {}
        }
    }
    found.extend(simulated.keys().filter(|name| !real.contains_key(*name)).map(|name| format!("{name} is not GARM's")));
    stage.settle(version, &file, &found);
}

/// The values of one label of one family.
fn label_values(text: &str, family: &str, label: &str) -> BTreeSet<String> {
    let of_family = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    let value = |line: &str| Some(line.split_once(&format!("{label}=\""))?.1.split_once('"')?.0.to_owned());
    of_family.filter_map(value).collect()
}

#[test]
fn families_are_the_recorded_ones() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.start();
        stage.wait(Span::secs(8));
        compare(&mut stage, version, "healthy");
        stage.queue_jobs(1, 3);
        stage.wait(Span::secs(12));
        stage.kill_and_start();
        stage.wait(Span::secs(8));
        compare(&mut stage, version, "stuck");
        stage.put_enabled(1, false);
        stage.wait(Span::secs(3));
        stage.put_enabled(1, true);
        stage.wait(Span::secs(30));
        compare(&mut stage, version, "after-stale-sessions-expired");
        stage.finish();
    }
}

#[test]
fn only_operations_that_garm_counts_are_counted() {
    for (version, generation) in VERSIONS {
        let mut stage = Stage::new(generation, |_| {});
        stage.start();
        stage.wait(Span::secs(8));
        stage.queue_jobs(1, 3);
        stage.wait(Span::mins(60));
        stage.put_enabled(2, false);
        stage.wait(Span::secs(5));
        stage.put_enabled(2, true);
        stage.wait(Span::mins(1));
        let counted = label_values(&scrape(&mut stage), "garm_github_operations_total", "operation");
        let known: BTreeSet<String> = OPERATIONS.iter().map(|&name| name.to_owned()).collect();
        assert!(counted.is_subset(&known), "{version}: {:?}", counted.difference(&known));
        for expected in ["CreateMessageSession", "DeleteMessageSession", "GetMessage", "RefreshMessageSession"] {
            assert!(counted.contains(expected), "{version}: {expected}");
        }
        let recording = recorded(version, "http/metrics-stuck.txt");
        let scopes = label_values(&recording, "garm_github_operations_total", "scope");
        assert!(label_values(&scrape(&mut stage), "garm_github_operations_total", "scope").is_subset(&scopes));
    }
}
