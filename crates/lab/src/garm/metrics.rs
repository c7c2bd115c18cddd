//! `/metrics` (`docs/reference/garm-api.md` §9): the series that a reader of sessions and quotas takes, and a few that
//! it must skip. Counters are live. Gauges are as old as the last collection, which comes once in a period.

use super::config::Build;
use super::db::Db;
use super::env::Env;
use super::process::Process;
use super::render::Rate;
use medic_core::model::Wall;
use std::fmt::Write as _;

/// The Unix time of Go's zero time: the quota was never asked for.
const ZERO_TIME: f64 = -62_135_596_800.0;

/// The gauges as last collected.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    collected: Option<Wall>,
    text: String,
    seen: Option<(super::stamp::Stamp, Option<Rate>)>,
}

impl Process {
    /// Collects, if a collection has become due since the last one. Called before anything changes: it sees what the
    /// collection saw at its date.
    pub(super) fn refresh_gauges(&mut self, env: &Env<'_>) {
        let first = self.started.plus(env.config.boot);
        if env.now < first {
            return;
        }
        let period = env.config.metrics_period.as_millis().max(1);
        let periods = env.now.since(first).as_millis() / period;
        let due = Wall(first.0.saturating_add(periods.saturating_mul(period)));
        if self.gauges.collected.replace(due) == Some(due) {
            return;
        }
        let seen = Some((env.db.latest(), self.rate));
        if std::mem::replace(&mut self.gauges.seen, seen) == seen {
            return;
        }
        let mut out = String::new();
        if !env.db.entities.is_empty() {
            self.rates(&mut out, env);
        }
        family(
            &mut out,
            "garm_runner_status",
            "gauge",
            env.db.instances.values().map(|row| {
                let labels = [("name", row.name.clone()), ("status", row.status.as_str().to_owned())];
                (labels.to_vec(), 1.0)
            }),
        );
        match env.config.build {
            Build::PreFix => {}
            Build::PostFix | Build::ListenerMetrics => sets(&mut out, env.db),
        }
        self.gauges.text = out;
    }

    pub(super) fn exposition(&mut self, env: &Env<'_>) -> String {
        self.refresh_gauges(env);
        let mut out = String::with_capacity(16 * 1024);
        for (name, counts) in [
            ("garm_github_errors_total", &self.counters.errors),
            ("garm_github_operations_total", &self.counters.operations),
        ] {
            family(
                &mut out,
                name,
                "counter",
                counts.iter().map(|((operation, scope), count)| {
                    let labels = [("operation", (*operation).to_owned()), ("scope", (*scope).to_owned())];
                    (labels.to_vec(), as_f64(*count))
                }),
            );
        }
        if env.config.build == Build::ListenerMetrics {
            self.listeners(&mut out);
        }
        out.push_str(&self.gauges.text);
        let quantile = vec![("quantile", "0.5".to_owned())];
        family(&mut out, "go_gc_duration_seconds", "summary", [(quantile, 0.000_353_603)]);
        let started = as_f64(self.started.0 / 10) / 100.0;
        family(&mut out, "process_start_time_seconds", "gauge", [(Vec::new(), started)]);
        out
    }

    fn rates(&self, out: &mut String, env: &Env<'_>) {
        let labels = vec![
            ("credential_id", "1".to_owned()),
            ("credential_name", "pat".to_owned()),
            ("endpoint", env.config.endpoint.clone()),
        ];
        let Rate { limit, remaining, reset } = self.rate.unwrap_or_default();
        let reset = if self.rate.is_some() { as_f64(reset) } else { ZERO_TIME };
        for (name, value) in [
            ("garm_github_rate_limit_limit", as_f64(limit)),
            ("garm_github_rate_limit_remaining", as_f64(remaining)),
            ("garm_github_rate_limit_reset_timestamp", reset),
        ] {
            family(out, name, "gauge", [(labels.clone(), value)]);
        }
    }

    /// Live, and absent for a set whose worker does not run.
    fn listeners(&self, out: &mut String) {
        let running = || self.workers.iter().filter(|(_, worker)| worker.runs);
        let id = |set: &u64| vec![("id", set.to_string())];
        let success = running().filter_map(|(set, worker)| Some((id(set), worker.last_success?.as_secs_f64())));
        family(out, "garm_scaleset_listener_last_success_timestamp", "gauge", success);
        let restarts = running().map(|(set, worker)| (id(set), as_f64(worker.restarts)));
        family(out, "garm_scaleset_listener_restarts_total", "counter", restarts);
    }
}

fn sets(out: &mut String, db: &Db) {
    family(
        out,
        "garm_scaleset_info",
        "gauge",
        db.sets.values().map(|set| (vec![("id", set.id.to_string()), ("name", set.name.clone())], 1.0)),
    );
    family(
        out,
        "garm_scaleset_status",
        "gauge",
        db.sets.values().map(|set| {
            let labels = vec![("enabled", set.enabled.to_string()), ("id", set.id.to_string())];
            (labels, if set.enabled { 1.0 } else { 0.0 })
        }),
    );
}

/// A family without series is not shown.
fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    series: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>,
) {
    let mut is_first = true;
    for (labels, value) in series {
        if std::mem::take(&mut is_first) {
            let _ = writeln!(out, "# HELP {name} As GARM has it.\n# TYPE {name} {kind}");
        }
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
        let _ = writeln!(out, " {}", go_float(value));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and dates stay far below 2^52")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// As Go's shortest `%g` writes it: from a million on with an exponent of at least two digits.
fn go_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(mantissa, exponent)| Some((mantissa, exponent.parse::<i32>().ok()?))) {
        Some((_, -4..=5)) | None => format!("{value}"),
        Some((mantissa, exponent)) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::go_float;

    #[test]
    fn go_float_writes_numbers_as_go_does() {
        for (value, text) in [
            (0.0, "0"),
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
