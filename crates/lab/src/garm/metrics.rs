//! `/metrics` (`docs/reference/garm-api.md` §9). Counters are live; gauges are as old as the last collection, which
//! comes once in a period: a set that was just disabled still shows as enabled. Families come sorted by name.

use super::config::{Background, Build};
use super::counters::Op;
use super::db::{Db, SetRow};
use super::env::Env;
use super::process::Process;
use super::render::{Rate, ZERO_TIME};
use medic_core::model::{EntityKind, Wall};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the Go runtime and its libraries export, as recorded once.
const GO_RUNTIME: &str = include_str!("go_runtime.txt");

type Labels = Vec<(&'static str, String)>;

#[derive(Debug, Clone, PartialEq)]
struct Family {
    kind: &'static str,
    help: &'static str,
    series: Vec<(Labels, f64)>,
}

type Families = BTreeMap<&'static str, Family>;

/// The gauges as last collected.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    collected: Option<Wall>,
    /// Each family as it is written.
    written: BTreeMap<&'static str, String>,
    /// Of the controller, as it was when the process started.
    health: Labels,
    database_seen: Option<super::stamp::Stamp>,
    rate_seen: Option<Rate>,
}

impl Gauges {
    pub(super) fn at_start(env: &Env<'_>) -> Self {
        let urls = &env.db.urls;
        let id = env.config.controller_id.clone();
        let own = if urls.webhook.is_empty() { id.clone() } else { format!("{}/{id}", urls.webhook) };
        let health = vec![
            ("callback_url", urls.callback.clone()),
            ("controller_id", id),
            ("controller_webhook_url", own),
            ("metadata_url", urls.metadata.clone()),
            ("webhook_url", urls.webhook.clone()),
        ];
        Self { health, ..Self::default() }
    }
}

impl Process {
    /// Collects, if a collection has become due since the last one. Called before anything changes, so that what it
    /// sees is what the collection saw at its date.
    pub(super) fn refresh_gauges(&mut self, env: &Env<'_>) {
        let first = self.started.plus(env.config.boot);
        if env.now < first {
            return;
        }
        let period = env.config.metrics_period.as_millis().max(1);
        let periods = env.now.since(first).as_millis() / period;
        let due = Wall(first.0.saturating_add(periods.saturating_mul(period)));
        if self.gauges.collected == Some(due) {
            return;
        }
        self.gauges.collected = Some(due);
        let latest = env.db.latest();
        if self.gauges.database_seen == Some(latest) && self.gauges.rate_seen == self.rate {
            return;
        }
        (self.gauges.database_seen, self.gauges.rate_seen) = (Some(latest), self.rate);
        let mut families = Families::new();
        gauge(&mut families, "garm_health", "Health of the garm", vec![(self.gauges.health.clone(), 1.0)]);
        self.rates(&mut families, env);
        self.entities(&mut families, env.db);
        let provider = [("description", "stub"), ("name", "stub"), ("type", "external")];
        let provider = provider.map(|(name, value)| (name, value.to_owned())).to_vec();
        // Worded so in the original.
        gauge(&mut families, "garm_provider_info", "Info of the organization", vec![(provider, 1.0)]);
        runners(&mut families, env);
        jobs(&mut families, env.db);
        match env.config.build {
            Build::PreFix => {}
            Build::PostFix | Build::ListenerMetrics => sets(&mut families, env.db),
        }
        self.gauges.written = families.iter().map(|(name, family)| (*name, written(name, family))).collect();
    }

    pub(super) fn exposition(&mut self, env: &Env<'_>) -> String {
        self.refresh_gauges(env);
        let mut families = Families::new();
        for (name, help, counts) in [
            ("garm_github_errors_total", "Total number of failed github operation attempts", &self.counters.errors),
            ("garm_github_operations_total", "Total number of github operation attempts", &self.counters.operations),
        ] {
            let series = counts.iter().map(|((operation, scope), count)| {
                (vec![("operation", (*operation).to_owned()), ("scope", (*scope).to_owned())], as_f64(*count))
            });
            add(&mut families, name, "counter", help, series.collect());
        }
        match env.config.build {
            Build::PreFix | Build::PostFix => {}
            Build::ListenerMetrics => self.listeners(&mut families),
        }
        let live: BTreeMap<_, _> = families.iter().map(|(name, family)| (*name, written(name, family))).collect();
        let mut all: Vec<(&str, &String)> =
            self.gauges.written.iter().chain(&live).map(|(n, text)| (*n, text)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut out = String::with_capacity(16 * 1024);
        out.extend(all.into_iter().map(|(_, text)| text.as_str()));
        if env.config.background == Background::AsRecorded {
            out.push_str(GO_RUNTIME);
        }
        let started = Family {
            kind: "gauge",
            help: "Start time of the process since unix epoch in seconds.",
            series: vec![(Labels::new(), as_f64(self.started.0 / 10) / 100.0)],
        };
        write_family(&mut out, "process_start_time_seconds", &started);
        let scrapes = |code: &str, count: u64| (vec![("code", code.to_owned())], as_f64(count));
        let scrapes = Family {
            kind: "counter",
            help: "Total number of scrapes by HTTP status code.",
            series: vec![scrapes("200", self.scrapes), scrapes("500", 0), scrapes("503", 0)],
        };
        write_family(&mut out, "promhttp_metric_handler_requests_total", &scrapes);
        self.scrapes = self.scrapes.saturating_add(1);
        out
    }

    fn rates(&self, families: &mut Families, env: &Env<'_>) {
        if env.db.entities.is_empty() {
            return;
        }
        let labels = || {
            vec![
                ("credential_id", "1".to_owned()),
                ("credential_name", "pat".to_owned()),
                ("endpoint", env.config.endpoint.clone()),
            ]
        };
        let Rate { limit, used, remaining, reset } = self.rate.unwrap_or_default();
        let reset = if self.rate.is_some() { as_f64(reset) } else { zero_time() };
        for (name, help, value) in [
            (
                "garm_github_rate_limit_limit",
                "The maximum number of requests allowed per hour for GitHub API",
                as_f64(limit),
            ),
            (
                "garm_github_rate_limit_remaining",
                "The number of requests remaining in the current rate limit window",
                as_f64(remaining),
            ),
            ("garm_github_rate_limit_reset_timestamp", "Unix timestamp when the rate limit resets", reset),
            (
                "garm_github_rate_limit_used",
                "The number of requests used in the current rate limit window",
                as_f64(used),
            ),
        ] {
            gauge(families, name, help, vec![(labels(), value)]);
        }
    }

    /// The original writes repositories into the families of enterprises.
    fn entities(&self, families: &mut Families, db: &Db) {
        for row in db.entities.values() {
            let labels = || vec![("id", row.uuid.clone()), ("name", row.entity.name.clone())];
            let runs = self.pools.contains(&row.number);
            let mut status = labels();
            status.push(("running", runs.to_string()));
            let value = if runs { 1.0 } else { 0.0 };
            let (info, state) = match row.entity.kind {
                EntityKind::Organization => (
                    ("garm_organization_info", "Info of the organization"),
                    ("garm_organization_pool_manager_status", "Status of the organization pool manager"),
                ),
                EntityKind::Repository | EntityKind::Enterprise => (
                    ("garm_enterprise_info", "Info of the enterprise"),
                    ("garm_enterprise_pool_manager_status", "Status of the enterprise pool manager"),
                ),
            };
            gauge(families, info.0, info.1, vec![(labels(), 1.0)]);
            gauge(families, state.0, state.1, vec![(status, value)]);
        }
    }

    /// Live, and absent for a set whose worker does not run.
    fn listeners(&self, families: &mut Families) {
        let running = || self.workers.iter().filter(|(_, worker)| worker.runs);
        let id = |set: &u64| vec![("id", set.to_string())];
        let success = running().filter_map(|(set, worker)| Some((id(set), worker.last_success?.as_secs_f64())));
        let name = "garm_scaleset_listener_last_success_timestamp";
        gauge(families, name, "Unix timestamp of the last successful poll of the listener", success.collect());
        let restarts = running().map(|(set, worker)| (id(set), as_f64(worker.restarts)));
        let name = "garm_scaleset_listener_restarts_total";
        add(families, name, "counter", "Total number of listener restarts", restarts.collect());
    }

    /// Attempts and failures of an operation in this run.
    pub(super) fn operations(&self, operation: &str) -> (u64, u64) {
        debug_assert!(operation.parse::<Op>().is_ok(), "no such operation: {operation}");
        self.counters.get(operation)
    }
}

fn runners(families: &mut Families, env: &Env<'_>) {
    let series = env.db.instances.values().filter_map(|row| {
        let set = env.db.set(row.set)?;
        // The pre-fix build knows nothing of an instance's scale set.
        let known = env.config.build.retries();
        let of_set = |text: &str| if known { text.to_owned() } else { String::new() };
        let mut labels = vec![
            ("name", row.name.clone()),
            ("pool_id", String::new()),
            ("pool_owner", of_set(&set.entity.entity.name)),
            ("pool_type", of_set(set.entity.entity.kind.as_str())),
            ("provider", of_set(&set.provider)),
            ("runner_status", row.runner_status.to_owned()),
        ];
        if known {
            labels.push(("scaleset_id", set.id.to_string()));
        }
        labels.push(("status", row.status.as_str().to_owned()));
        Some((labels, 1.0))
    });
    gauge(families, "garm_runner_status", "Status of the instance", series.collect());
}

fn jobs(families: &mut Families, db: &Db) {
    let series = db.jobs.values().map(|job| {
        let labels = vec![
            ("conclusion", job.conclusion.clone()),
            ("job_id", job.id.to_string()),
            ("name", job.name.clone()),
            ("owner", job.owner.clone()),
            ("repository", job.repository.clone()),
            ("requested_labels", job.labels.join(" ")),
            ("runner_name", job.runner_name.clone()),
            ("scaleset_job_id", job.uuid.clone()),
            ("status", job.status.to_owned()),
            ("workflow_job_id", "0".to_owned()),
            ("workflow_run_id", job.run_id.to_string()),
        ];
        (labels, 1.0)
    });
    gauge(families, "garm_job_status", "List of workflow jobs and their status", series.collect());
}

fn sets(families: &mut Families, db: &Db) {
    let per_set = |families: &mut Families, name, help, pick: fn(&SetRow) -> u64| {
        let series = db.sets.values().map(|set| (vec![("id", set.id.to_string())], as_f64(pick(set))));
        gauge(families, name, help, series.collect());
    };
    let name = "garm_scaleset_bootstrap_timeout";
    per_set(families, name, "Runner bootstrap timeout in the scale set", |set| set.bootstrap_timeout);
    let name = "garm_scaleset_desired_runner_count";
    per_set(families, name, "Desired runner count requested by GitHub for the scale set", |set| set.desired);
    let name = "garm_scaleset_max_runners";
    per_set(families, name, "Maximum number of runners in the scale set", |set| set.max_runners);
    let name = "garm_scaleset_min_idle_runners";
    per_set(families, name, "Minimum number of idle runners in the scale set", |set| set.min_idle_runners);
    let info = db.sets.values().map(|set| {
        let labels = vec![
            ("flavor", set.flavor.clone()),
            ("id", set.id.to_string()),
            ("image", set.image.clone()),
            ("name", set.name.clone()),
            ("os_arch", set.os_arch.clone()),
            ("os_type", set.os_type.clone()),
            ("prefix", set.prefix.clone()),
            ("provider", set.provider.clone()),
            ("runner_group", set.group.clone()),
            ("scaleset_id", set.github_id.to_string()),
            ("scaleset_owner", set.entity.entity.name.clone()),
            ("scaleset_type", set.entity.entity.kind.as_str().to_owned()),
            ("tags", set.labels.join(" ")),
        ];
        (labels, 1.0)
    });
    gauge(families, "garm_scaleset_info", "Info of the scale set", info.collect());
    let status = db.sets.values().map(|set| {
        let labels =
            vec![("enabled", set.enabled.to_string()), ("id", set.id.to_string()), ("state", set.state.clone())];
        (labels, if set.enabled { 1.0 } else { 0.0 })
    });
    gauge(families, "garm_scaleset_status", "Status of the scale set", status.collect());
}

fn gauge(families: &mut Families, name: &'static str, help: &'static str, series: Vec<(Labels, f64)>) {
    add(families, name, "gauge", help, series);
}

/// A family without series is not shown.
fn add(
    families: &mut Families,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    series: Vec<(Labels, f64)>,
) {
    if !series.is_empty() {
        families.entry(name).or_insert_with(|| Family { kind, help, series: Vec::new() }).series.extend(series);
    }
}

fn written(name: &str, family: &Family) -> String {
    let mut out = String::new();
    write_family(&mut out, name, family);
    out
}

fn write_family(out: &mut String, name: &str, family: &Family) {
    let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
    for (labels, value) in &family.series {
        out.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(out, "{before}{label}=\"{value}\"");
            before = ',';
        }
        if before == ',' {
            out.push('}');
        }
        let _ = writeln!(out, " {}", go_float(*value));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and dates stay far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "the number is far below 2^52")]
fn zero_time() -> f64 {
    ZERO_TIME as f64
}

/// As Go's shortest `%g` writes it: from a million on with an exponent of at least two digits.
fn go_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..21) if exponent < 6 => format!("{value}"),
        Ok(exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::go_float;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, text) in [
            (0.0, "0"),
            (5000.0, "5000"),
            (248_358.0, "248358"),
            (3_515_120.0, "3.51512e+06"),
            (1_795_459_566.67, "1.79545956667e+09"),
            (-62_135_596_800.0, "-6.21355968e+10"),
            (0.29, "0.29"),
            (0.000_052_07, "5.207e-05"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }
}
