//! The manifests for Kubernetes, systemd, Prometheus and Grafana fit the program.

use crate::docs::root;
use scaleset_medic::config::{Depth, Sources, check};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn shipped_configurations_pass_the_check() {
    for path in [
        "manifests/base/config.toml",
        "manifests/overlays/oneshot/config.toml",
        "manifests/overlays/standalone/config.toml",
        "packaging/systemd/config.toml",
    ] {
        let checked = check(&Sources::of_text(path, read(path)), Depth::Values);
        assert!(checked.is_ok(), "{path}: {}", checked.unwrap_err());
    }
}

#[test]
fn only_the_sidecar_expects_garm_in_its_pod() {
    assert!(read("manifests/base/config.toml").contains("127.0.0.1"));
    for overlay in ["oneshot", "standalone"] {
        let config = read(&format!("manifests/overlays/{overlay}/config.toml"));
        assert!(!config.contains("127.0.0.1") && !config.contains("log_file"), "{overlay}");
    }
}

#[test]
fn rules_and_panels_use_declared_metrics() {
    let metrics = scaleset_medic::metrics::DECLARED;
    for path in ["manifests/prometheus/prometheusrule.yaml", "grafana/scaleset-medic.json"] {
        let text = read(path);
        let names = text.split("scaleset_medic_").skip(1).filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
            rest.get(..end)
        });
        // `scaleset_medic_able` is a recording rule.
        for name in names.filter(|name| *name != "able") {
            let known = metrics.iter().any(|metric| {
                name == metric.name
                    || metric.kind == scaleset_medic::metrics::Kind::Histogram
                        && ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(metric.name))
            });
            assert!(known, "{path}: {name}");
        }
    }
}

#[test]
fn rules_join_on_labels_that_distinguish_managers() {
    let rules = read("manifests/prometheus/prometheusrule.yaml");
    let joins = rules.split(" on (").skip(1).chain(rules.split(" by (").skip(1));
    let joins: Vec<_> = joins.filter_map(|rest| rest.split_once(')').map(|(labels, _)| labels)).collect();
    let alertmanager = read("manifests/prometheus/alertmanager.yml");
    let lists = alertmanager.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("equal: [").or_else(|| line.strip_prefix("group_by: [alertname, "))
    });
    let lists: Vec<_> = lists.collect();
    assert!(joins.len() >= 3 && lists.len() >= 6, "{joins:?} {lists:?}");
    for labels in joins.into_iter().chain(lists) {
        assert!(labels.starts_with("cluster, namespace, job, manager"), "{labels}");
    }
}
