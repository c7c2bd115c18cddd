#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! `/metrics` and `/debug/pprof/goroutine?debug=2` of one run of the process (`reference/garm-api.md` §9, §10). An
//! operation counts when it starts, an error when it returns, cancellation included.

use super::config::{GarmConfig, Generation};
use super::db::{Db, ENDPOINT, InstanceRow, JobRow};
use crate::model::{EntityKind, Wall};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counters of one run.
#[derive(Debug, Default)]
pub(super) struct Counters {
    operations: BTreeMap<(&'static str, &'static str), u64>,
    errors: BTreeMap<(&'static str, &'static str), u64>,
}

pub(super) const fn scope(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Repository => "Repository",
        EntityKind::Organization => "Organization",
        EntityKind::Enterprise => "Enterprise",
    }
}

impl Counters {
    pub(super) fn begin(&mut self, operation: &'static str, kind: EntityKind) {
        let count = self.operations.entry((operation, scope(kind))).or_default();
        *count = count.saturating_add(1);
    }
    pub(super) fn fail(&mut self, operation: &'static str, kind: EntityKind) {
        let count = self.errors.entry((operation, scope(kind))).or_default();
        *count = count.saturating_add(1);
    }
    /// The truth, for tests.
    pub(super) fn get(&self, operation: &str) -> (u64, u64) {
        let sum = |counts: &BTreeMap<(&'static str, &'static str), u64>| {
            counts.iter().filter(|((name, _), _)| *name == operation).map(|(_, count)| *count).sum()
        };
        (sum(&self.operations), sum(&self.errors))
    }
}

/// What the exposition also needs to know of the workers.
pub(super) struct Listener {
    pub set: u64,
    pub last_success: Option<Wall>,
    pub restarts: u64,
}

/// The exposition.
pub(super) fn metrics(
    config: &GarmConfig,
    db: &Db,
    counters: &Counters,
    started: Wall,
    listeners: &[Listener],
) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
        if lines.is_empty() {
            return;
        }
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{labels} {}", go_float(value));
        }
    };
    let counts = |counts: &BTreeMap<(&'static str, &'static str), u64>| {
        counts
            .iter()
            .map(|((operation, scope), count)| {
                (format!("{{operation=\"{operation}\",scope=\"{scope}\"}}"), as_f64(*count))
            })
            .collect()
    };
    family(
        "garm_github_errors_total",
        "counter",
        "Total number of failed github operation attempts",
        counts(&counters.errors),
    );
    family(
        "garm_github_operations_total",
        "counter",
        "Total number of github operation attempts",
        counts(&counters.operations),
    );
    let credential = format!("{{credential_id=\"1\",credential_name=\"pat\",endpoint=\"{ENDPOINT}\"}}");
    for (name, help, value) in [
        ("limit", "The maximum number of requests allowed per hour for GitHub API", 0.0),
        ("remaining", "The number of requests remaining in the current rate limit window", 0.0),
        ("reset_timestamp", "Unix timestamp when the rate limit resets", -62_135_596_800.0),
        ("used", "The number of requests used in the current rate limit window", 0.0),
    ] {
        family(&format!("garm_github_rate_limit_{name}"), "gauge", help, vec![(credential.clone(), value)]);
    }
    let health = format!(
        "{{callback_url=\"\",controller_id=\"{0}\",controller_webhook_url=\"{0}\",metadata_url=\"\",webhook_url=\"\"}}",
        config.controller_id
    );
    family("garm_health", "gauge", "Health of the garm", vec![(health, 1.0)]);
    let organizations: Vec<_> = db.entities.values().filter(|(e, _)| e.kind == EntityKind::Organization).collect();
    let info =
        |(entity, id): &&(crate::model::Entity, String)| (format!("{{id=\"{id}\",name=\"{}\"}}", entity.name), 1.0);
    family("garm_organization_info", "gauge", "Info of the organization", organizations.iter().map(info).collect());
    let status = |(entity, id): &&(crate::model::Entity, String)| {
        (format!("{{id=\"{id}\",name=\"{}\",running=\"true\"}}", entity.name), 1.0)
    };
    let help = "Status of the organization pool manager";
    family("garm_organization_pool_manager_status", "gauge", help, organizations.iter().map(status).collect());
    let provider = "{description=\"stub\",name=\"stub\",type=\"external\"}".to_owned();
    family("garm_provider_info", "gauge", "Info of the organization", vec![(provider, 1.0)]);
    family("garm_job_status", "gauge", "List of workflow jobs and their status", jobs(db));
    family("garm_runner_status", "gauge", "Status of the instance", runners(config.generation, db));
    match config.generation {
        Generation::PreFix => {}
        Generation::PostFix | Generation::ListenerMetrics => set_gauges(db, &mut family),
    }
    match config.generation {
        Generation::PreFix | Generation::PostFix => {}
        Generation::ListenerMetrics => {
            let success =
                listeners.iter().filter_map(|l| Some((format!("{{id=\"{}\"}}", l.set), l.last_success?.as_secs_f64())));
            let help = "Unix time of the last successful poll";
            family("garm_scaleset_listener_last_success_timestamp", "gauge", help, success.collect());
            let restarts = listeners.iter().map(|l| (format!("{{id=\"{}\"}}", l.set), as_f64(l.restarts)));
            let help = "Restarts of the listener";
            family("garm_scaleset_listener_restarts_total", "counter", help, restarts.collect());
        }
    }
    let help = "Start time of the process since unix epoch in seconds.";
    family("process_start_time_seconds", "gauge", help, vec![(String::new(), started.as_secs_f64())]);
    out
}

fn set_gauges(db: &Db, family: &mut impl FnMut(&str, &str, &str, Vec<(String, f64)>)) {
    let id = |id: u64| format!("{{id=\"{id}\"}}");
    let gauge = |pick: fn(&super::db::SetRow) -> u64| db.sets.values().map(|s| (id(s.id), as_f64(pick(s)))).collect();
    family(
        "garm_scaleset_bootstrap_timeout",
        "gauge",
        "Runner bootstrap timeout in the scale set",
        gauge(|s| s.bootstrap_timeout),
    );
    family(
        "garm_scaleset_desired_runner_count",
        "gauge",
        "Desired runner count requested by GitHub for the scale set",
        gauge(|s| s.desired),
    );
    let info = db.sets.values().map(|set| {
        let (kind, owner) = (set.entity.kind.as_str(), &set.entity.name);
        let labels = format!(
            "{{flavor=\"default\",id=\"{}\",image=\"ubuntu:22.04\",name=\"{}\",os_arch=\"amd64\",os_type=\"linux\",\
             prefix=\"garm\",provider=\"stub\",runner_group=\"Default\",scaleset_id=\"{}\",scaleset_owner=\"{owner}\",\
             scaleset_type=\"{kind}\",tags=\"\"}}",
            set.id, set.name, set.forge_id
        );
        (labels, 1.0)
    });
    family("garm_scaleset_info", "gauge", "Info of the scale set", info.collect());
    family(
        "garm_scaleset_max_runners",
        "gauge",
        "Maximum number of runners in the scale set",
        gauge(|s| s.max_runners),
    );
    family(
        "garm_scaleset_min_idle_runners",
        "gauge",
        "Minimum number of idle runners in the scale set",
        gauge(|s| s.min_idle_runners),
    );
    let status = db.sets.values().map(|set| {
        let labels = format!("{{enabled=\"{}\",id=\"{}\",state=\"pending_create\"}}", set.enabled, set.id);
        (labels, if set.enabled { 1.0 } else { 0.0 })
    });
    family("garm_scaleset_status", "gauge", "Status of the scale set", status.collect());
}

fn jobs(db: &Db) -> Vec<(String, f64)> {
    let job = |(id, job): (&u64, &JobRow)| {
        let labels = format!(
            "{{conclusion=\"{}\",job_id=\"{id}\",name=\"{}\",owner=\"{}\",repository=\"{}\",requested_labels=\"{}\",\
             runner_name=\"{}\",scaleset_job_id=\"{}\",status=\"{}\",workflow_job_id=\"0\",workflow_run_id=\"{}\"}}",
            job.conclusion, job.name, job.owner, job.repository, job.label, job.runner, job.uuid, job.status, job.run
        );
        (labels, 1.0)
    };
    db.jobs.iter().map(job).collect()
}

/// The older build knows no scale set here, and leaves the labels of pools empty.
fn runners(generation: Generation, db: &Db) -> Vec<(String, f64)> {
    let runner = |row: &InstanceRow| {
        let (name, runner_status, status) = (&row.name, row.runner_status, row.status);
        let entity = db.sets.get(&row.set).map(|set| &set.entity);
        let (owner, kind) = entity.map_or(("", ""), |entity| (entity.name.as_str(), entity.kind.as_str()));
        let labels = match generation {
            Generation::PreFix => format!(
                "{{name=\"{name}\",pool_id=\"\",pool_owner=\"\",pool_type=\"\",provider=\"\",\
                 runner_status=\"{runner_status}\",status=\"{status}\"}}"
            ),
            Generation::PostFix | Generation::ListenerMetrics => format!(
                "{{name=\"{name}\",pool_id=\"\",pool_owner=\"{owner}\",pool_type=\"{kind}\",provider=\"stub\",\
                 runner_status=\"{runner_status}\",scaleset_id=\"{}\",status=\"{status}\"}}",
                row.set
            ),
        };
        (labels, 1.0)
    };
    db.instances.values().map(runner).collect()
}

/// A goroutine dump with the frames that matter, and a few that do not.
pub(super) fn goroutines(workers: usize, listeners: usize) -> String {
    let mut out = String::from(
        "goroutine 453 [running]:\nruntime/pprof.writeGoroutineStacks({0x7f5098062200, 0x31c4c5ef6420})\n\t/usr/lib/go/src/\
         runtime/pprof/pprof.go:819 +0x6b\n",
    );
    for n in 0..workers {
        let _ = write!(
            out,
            "\ngoroutine {} [select]:\ngithub.com/cloudbase/garm/workers/scaleset.(*Worker).keepListenerAlive(0x31c4c54a0308)\
             \n\t/build/garm/workers/scaleset/scaleset.go:759 +0xf5\ncreated by github.com/cloudbase/garm/workers/\
             scaleset.(*Worker).Start in goroutine 140\n\t/build/garm/workers/scaleset/scaleset.go:344 +0x1d8f\n",
            500 + n
        );
    }
    for n in 0..listeners {
        let _ = write!(
            out,
            "\ngoroutine {} [select]:\nnet/http.(*persistConn).roundTrip(0x31c4c5aca3c0, 0x31c4c5b53950)\
             \n\t/usr/lib/go/src/net/http/transport.go:2911 +0x83d\ngithub.com/cloudbase/garm/util/github/scalesets.\
             (*MessageSession).GetMessage(0x31c4c5b53860, {{0x11650d8, 0x31c4c5cf6420}}, 0x0, 0x5)\n\t/build/garm/util/\
             github/scalesets/message_sessions.go:201 +0x69e\ngithub.com/cloudbase/garm/workers/scaleset.\
             (*scaleSetListener).loop(0x240e9dfd7650)\n\t/build/garm/workers/scaleset/scaleset_listener.go:285 +0x7ed\n",
            5000 + n
        );
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// As Go's `%g` writes it: large numbers with an exponent of two digits.
fn go_float(value: f64) -> String {
    if value.abs() < 1e21 && value.fract() == 0.0 && value.abs() < 1e6 {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(digits) => format!("{mantissa}e-{digits:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
        None => text,
    }
}
