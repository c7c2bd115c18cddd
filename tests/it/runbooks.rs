//! Every alert has a runbook with all parts, and its diagnosis starts with a command. `docs/commands.rs` checks the
//! commands.

use crate::docs::{files, root};
use std::collections::BTreeSet;

/// The lines of each alert, by its name.
fn alerts() -> Vec<(String, String)> {
    let rules = std::fs::read_to_string(root().join("manifests/prometheus/prometheusrule.yaml")).unwrap();
    let split = |rule: &str| rule.split_once('\n').map(|(name, body)| (name.trim().to_owned(), body.to_owned()));
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).filter_map(split).collect();
    assert!(alerts.len() > 15, "the rules were not found");
    alerts
}

#[test]
fn alerts_have_all_parts_and_a_runbook() {
    for (name, rule) in alerts() {
        for part in ["for: ", "severity: ", "summary: ", "description: ", "dashboard_url: "] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        assert!(rule.contains(&format!("/docs/runbooks/{name}.md\"")), "{name} has no runbook_url");
    }
}

#[test]
fn runbooks_have_all_parts_in_order_and_an_alert() {
    let alerts: BTreeSet<_> = alerts().into_iter().map(|(name, _)| format!("{name}.md")).collect();
    let mut found = files(&["docs/runbooks"], &["md"]);
    let index = found.remove("docs/runbooks/README.md").unwrap();
    let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    assert_eq!(found.keys().map(|path| name(path)).collect::<BTreeSet<_>>(), alerts);
    for (path, text) in &found {
        let name = name(path);
        assert!(index.contains(&format!("({name})")), "{name} is not in the index");
        let parts: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(parts, ["Meaning", "Impact", "Diagnosis", "Mitigation"], "{name}");
        let (_, diagnosis) = text.split_once("## Diagnosis").unwrap_or_default();
        let (diagnosis, mitigation) = diagnosis.split_once("## Mitigation").unwrap_or_default();
        assert!(diagnosis.contains("- `scaleset-medic "), "{name} starts with no command");
        assert!(mitigation.contains("- "), "{name} has no mitigation");
    }
}
