//! The Prometheus text format, read for what bears on sessions (`docs/reference/garm-api.md` §9).
//!
//! The parser borrows from the text and keeps only the samples it needs, because a busy manager exports a series per
//! runner and per job. Comments, junk and truncated lines are skipped: a sample has a name, balanced labels with the
//! escapes `\\`, `\"` and `\n`, and a number (exponents, `NaN` and `+Inf` included). Edge cases: of a repeated series the
//! last one counts; a value that is no count (`NaN`, negative) is left out; a quota that resets in year 1 was never read.

use medic_core::model::{
    EndpointName, EntityKind, Incarnation, ListenerMetrics, ManagerMetrics, Quota, ScaleSetId, ScopeCounters, Wall,
};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The most series of one kind: one for each set of the largest list that is read.
pub const SERIES_MAX: usize = medic_http::list::ENTRIES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoScrape {
    #[error("holds no Prometheus sample")]
    Empty,
    /// More series than are plausible; they would fill the memory.
    #[error("holds more than {SERIES_MAX} series of one kind")]
    TooMany,
}

pub fn parse(body: &[u8]) -> Result<ManagerMetrics, NoScrape> {
    let text = String::from_utf8_lossy(body);
    let mut gathered = Gathered::default();
    let mut samples = 0_u64;
    for sample in text.lines().filter_map(Sample::read) {
        samples = samples.saturating_add(1);
        gathered.take(&sample);
        if gathered.is_too_much() {
            return Err(NoScrape::TooMany);
        }
    }
    if samples == 0 { Err(NoScrape::Empty) } else { Ok(gathered.finish()) }
}

/// One line of the text format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    pub name: &'a str,
    /// The text between the braces, well-formed.
    labels: &'a str,
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// Reads one line; `None` for comments, empty lines and junk.
    pub fn read(line: &'a str) -> Option<Self> {
        let line = line.trim();
        let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
        let (name, rest) = line.split_at_checked(name_end)?;
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let rest = rest.trim_start();
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => {
                let end = end_of_labels(inside)?;
                (inside.get(..end)?, inside.get(end + 1..)?)
            }
            None => ("", rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next()?.parse().ok()?;
        // A time stamp may follow; anything else makes the line suspect.
        let stamped = words.next().is_none_or(|stamp| stamp.parse::<i64>().is_ok());
        (stamped && words.next().is_none()).then_some(Self { name, labels, value })
    }

    /// The value of a label, unescaped.
    pub fn label(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.labels;
        while let Some((label, raw, after)) = next_label(rest) {
            if label == name {
                return Some(unescaped(raw));
            }
            rest = after;
        }
        None
    }

    fn set_id(&self) -> Option<ScaleSetId> {
        self.label("id")?.parse().ok().map(ScaleSetId)
    }
}

/// Where the closing brace is, if every label before it is well-formed.
fn end_of_labels(inside: &str) -> Option<usize> {
    let mut rest = inside;
    while let Some((_, _, after)) = next_label(rest) {
        rest = after;
    }
    let at = inside.len() - rest.len() + (rest.len() - rest.trim_start().len());
    inside.get(at..)?.starts_with('}').then_some(at)
}

/// Name and raw value of the first label, and what follows it and its comma.
fn next_label(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.trim_start().split_once('=')?;
    let name = name.trim_end();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let rest = rest.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = rest.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    let after = rest.get(end + 1..)?.trim_start();
    Some((name, rest.get(..end)?, after.strip_prefix(',').unwrap_or(after)))
}

fn unescaped(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(match escaped {
            Some('n') => '\n',
            Some(other) => other,
            None => c,
        });
    }
    Cow::Owned(out)
}

/// The counters of one scope by the operation's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counter {
    Started,
    Failed,
}

#[derive(Debug, Default)]
struct Gathered {
    metrics: ManagerMetrics,
    /// By all labels, so that a repeated series counts once.
    counters: BTreeMap<(Counter, EntityKind, String, String), u64>,
    quotas: BTreeMap<(String, String), Quota>,
}

impl Gathered {
    fn take(&mut self, sample: &Sample<'_>) {
        match sample.name {
            "process_start_time_seconds" => {
                self.metrics.incarnation = date(sample.value).map(Incarnation).or(self.metrics.incarnation);
            }
            "garm_github_operations_total" => self.count(Counter::Started, sample),
            "garm_github_errors_total" => self.count(Counter::Failed, sample),
            "garm_scaleset_info" => self.metrics.has_set_gauges = true,
            "garm_scaleset_listener_last_success_timestamp" => {
                if let Some(listener) = self.listener(sample) {
                    listener.last_success = date(sample.value);
                }
            }
            "garm_scaleset_listener_restarts_total" => {
                // Its worker runs, though it may not have polled yet.
                self.listener(sample);
            }
            "garm_github_rate_limit_limit" => self.quota(sample, |quota, value| quota.limit = count_or_zero(value)),
            "garm_github_rate_limit_remaining" => {
                self.quota(sample, |quota, value| quota.remaining = count_or_zero(value));
            }
            "garm_github_rate_limit_reset_timestamp" => self.quota(sample, |quota, value| quota.reset = date(value)),
            _ => {}
        }
    }

    fn is_too_much(&self) -> bool {
        self.counters.len().max(self.quotas.len()).max(self.metrics.listeners.len()) > SERIES_MAX
    }

    fn count(&mut self, counter: Counter, sample: &Sample<'_>) {
        let (Some(scope), Some(operation), Some(value)) =
            (sample.label("scope").and_then(|scope| kind(&scope)), sample.label("operation"), whole(sample.value))
        else {
            return;
        };
        self.counters.insert((counter, scope, operation.into_owned(), sample.labels.to_owned()), value);
    }

    fn listener(&mut self, sample: &Sample<'_>) -> Option<&mut ListenerMetrics> {
        Some(self.metrics.listeners.entry(sample.set_id()?).or_default())
    }

    fn quota(&mut self, sample: &Sample<'_>, set: impl FnOnce(&mut Quota, f64)) {
        let (Some(credential), Some(endpoint)) = (sample.label("credential_name"), sample.label("endpoint")) else {
            return;
        };
        let quota = self.quotas.entry((endpoint.to_string(), credential.to_string())).or_insert_with(|| Quota {
            credential: credential.into_owned(),
            endpoint: EndpointName::new(endpoint),
            limit: 0,
            remaining: 0,
            reset: None,
        });
        set(quota, sample.value);
    }

    fn finish(mut self) -> ManagerMetrics {
        for ((counter, scope, operation, _), value) in self.counters {
            let scope = self.metrics.scopes.entry(scope).or_default();
            if let Some(field) = field(scope, counter, &operation) {
                *field = field.saturating_add(value);
            }
        }
        self.metrics.quotas = self.quotas.into_values().collect();
        self.metrics
    }
}

/// Where an operation's count belongs. The four calls that come before a session are counted together
/// (`docs/reference/garm-api.md` §11.1): an error in any of them leaves a pre-fix worker dead.
fn field<'a>(scope: &'a mut ScopeCounters, counter: Counter, operation: &str) -> Option<&'a mut u64> {
    Some(match (operation, counter) {
        ("CreateMessageSession", Counter::Started) => &mut scope.create,
        ("CreateMessageSession", Counter::Failed) => &mut scope.create_errors,
        ("DeleteMessageSession", Counter::Started) => &mut scope.delete,
        ("GetMessage", Counter::Started) => &mut scope.poll,
        ("GetMessage", Counter::Failed) => &mut scope.poll_errors,
        ("GetRateLimit", Counter::Failed) => &mut scope.rate_limit_errors,
        (
            "CreateEntityRegistrationToken"
            | "GetActionServiceInfo"
            | "GetRunnerScaleSetByNameAndRunnerGroup"
            | "GetRunnerScaleSetByID",
            Counter::Failed,
        ) => &mut scope.start_errors,
        _ => return None,
    })
}

/// GARM's `scope` label; `Instance` belongs to no entity.
fn kind(scope: &str) -> Option<EntityKind> {
    match scope {
        "Repository" => Some(EntityKind::Repository),
        "Organization" => Some(EntityKind::Organization),
        "Enterprise" => Some(EntityKind::Enterprise),
        _ => None,
    }
}

/// A count; `None` for what cannot be one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "finite and not negative; `as` saturates")]
fn whole(value: f64) -> Option<u64> {
    (value.is_finite() && value >= 0.0).then_some(value as u64)
}

fn count_or_zero(value: f64) -> u64 {
    whole(value).unwrap_or(0)
}

/// A date in seconds since the epoch; zero and earlier mean "never".
fn date(seconds: f64) -> Option<Wall> {
    whole((seconds * 1000.0).round()).filter(|millis| *millis > 0).map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{POST_FIX, PRE_FIX};
    use proptest::prelude::*;

    fn recorded(build: &str, name: &str) -> ManagerMetrics {
        parse(&crate::testing::recorded(build, &format!("http/metrics-{name}.txt"))).unwrap()
    }

    fn organization(create: u64, create_errors: u64, poll: u64) -> ScopeCounters {
        ScopeCounters { create, create_errors, poll, ..ScopeCounters::default() }
    }

    #[test]
    fn recorded_scrapes_give_their_counters() {
        for (build, name, expected, incarnation) in [
            (PRE_FIX, "healthy", organization(4, 0, 4), 1_795_459_531_170),
            (PRE_FIX, "stuck", organization(4, 4, 0), 1_795_459_566_600),
            (PRE_FIX, "after-stale-sessions-expired", organization(12, 11, 1), 1_795_459_566_600),
            (POST_FIX, "healthy", organization(4, 0, 4), 1_795_459_531_140),
            (POST_FIX, "stuck", organization(16, 16, 0), 1_795_459_566_670),
            (POST_FIX, "after-stale-sessions-expired", organization(54, 50, 4), 1_795_459_566_670),
        ] {
            let metrics = recorded(build, name);
            let scopes: Vec<_> = metrics.scopes.iter().map(|(kind, counters)| (*kind, *counters)).collect();
            assert_eq!(scopes, [(EntityKind::Organization, expected)], "{build} {name}");
            assert_eq!(metrics.incarnation, Some(Incarnation(Wall(incarnation))), "{build} {name}");
            assert_eq!(metrics.has_set_gauges, build == POST_FIX, "{build} {name}");
            assert!(metrics.listeners.is_empty());
        }
    }

    #[test]
    fn quota_that_was_never_read_has_no_reset() {
        let never = recorded(POST_FIX, "healthy").quotas;
        let quota = |limit, remaining, reset| Quota {
            credential: "pat".to_owned(),
            endpoint: EndpointName::new("fake"),
            limit,
            remaining,
            reset,
        };
        assert_eq!(never, [quota(0, 0, None)]);
        let asked = recorded(POST_FIX, "after-stale-sessions-expired").quotas;
        assert_eq!(asked, [quota(5000, 4990, Some(Wall(1_795_463_197_000)))]);
    }

    #[test]
    fn per_set_listener_metrics_are_read() {
        let text = "garm_scaleset_listener_last_success_timestamp{id=\"7\"} 1.7954595666e+09\r\n\
            garm_scaleset_listener_restarts_total{id=\"7\"} 3\r\n\
            garm_scaleset_listener_last_success_timestamp{id=\"8\"} 0\n\
            garm_scaleset_listener_last_success_timestamp{id=\"x\"} 1\n";
        let listeners = parse(text.as_bytes()).unwrap().listeners;
        assert_eq!(listeners.len(), 2);
        let seven = ListenerMetrics { last_success: Some(Wall(1_795_459_566_600)) };
        assert_eq!(listeners.get(&ScaleSetId(7)), Some(&seven));
        assert_eq!(listeners.get(&ScaleSetId(8)), Some(&ListenerMetrics::default()));
    }

    #[test]
    fn start_errors_are_the_four_calls_before_a_session() {
        let text = "garm_github_errors_total{operation=\"CreateEntityRegistrationToken\",scope=\"Repository\"} 1\n\
            garm_github_errors_total{operation=\"GetActionServiceInfo\",scope=\"Repository\"} 2\n\
            garm_github_errors_total{operation=\"GetRunnerScaleSetByNameAndRunnerGroup\",scope=\"Repository\"} 4\n\
            garm_github_errors_total{operation=\"GetRunnerScaleSetByID\",scope=\"Repository\"} 8\n\
            garm_github_errors_total{operation=\"GetRateLimit\",scope=\"Repository\"} 16\n\
            garm_github_errors_total{operation=\"AcquireJobs\",scope=\"Repository\"} 32\n\
            garm_github_operations_total{operation=\"GetActionServiceInfo\",scope=\"Repository\"} 64\n\
            garm_github_errors_total{operation=\"GetRunnerScaleSetByID\",scope=\"Instance\"} 128\n";
        let metrics = parse(text.as_bytes()).unwrap();
        let repository = metrics.scopes[&EntityKind::Repository];
        assert_eq!((repository.start_errors, repository.rate_limit_errors), (15, 16));
        assert_eq!(metrics.scopes.len(), 1, "`Instance` is no entity");
    }

    #[test]
    fn odd_but_legal_lines_are_read() {
        let sample = Sample::read(r#"  m { a="x\\\"y\nz}" , b="2",} +1.5e3 1700000000000"#).unwrap();
        assert_eq!((sample.name, sample.value), ("m", 1500.0));
        assert_eq!(sample.label("a").as_deref(), Some("x\\\"y\nz}"));
        assert_eq!(sample.label("b").as_deref(), Some("2"));
        assert_eq!(sample.label("c"), None);
        assert!(Sample::read("m NaN").unwrap().value.is_nan());
        assert!(Sample::read("m{} -Inf").unwrap().value.is_infinite());
    }

    #[test]
    fn junk_lines_are_skipped() {
        for junk in
            ["", "# HELP m x", "m", "m{a=\"1\" 2", "m{a=1} 2", "{a=\"1\"} 2", "m one", "9m 1", "m 1 2 3", "m{a=\"1"]
        {
            assert_eq!(Sample::read(junk), None, "{junk}");
        }
        let text = "<html>\nm{a=\"\nprocess_start_time_seconds 5\n\u{0}\n";
        assert_eq!(parse(text.as_bytes()).unwrap().incarnation, Some(Incarnation(Wall(5000))));
        assert_eq!(parse(b"{\"error\":\"Authentication failed\",\"details\":\"\"}"), Err(NoScrape::Empty));
        assert_eq!(parse(b""), Err(NoScrape::Empty));
    }

    #[test]
    fn scrape_with_too_many_series_is_refused() {
        for line in [
            "garm_scaleset_listener_restarts_total{id=\"N\"} 1\n",
            "garm_github_operations_total{operation=\"GetMessage\",scope=\"Repository\",x=\"N\"} 1\n",
            "garm_github_rate_limit_limit{credential_name=\"N\",endpoint=\"e\"} 1\n",
        ] {
            let series = |count: usize| (0..count).map(|n| line.replace('N', &n.to_string())).collect::<String>();
            assert!(parse(series(SERIES_MAX).as_bytes()).is_ok(), "{line}");
            assert_eq!(parse(series(SERIES_MAX + 1).as_bytes()), Err(NoScrape::TooMany), "{line}");
        }
    }

    #[test]
    fn repeated_series_counts_once_and_finer_labels_add_up() {
        let one = "garm_github_operations_total{operation=\"GetMessage\",scope=\"Organization\"";
        let text =
            format!("{one}}} 3\n{one}}} 4\n{one},credential=\"a\"}} 10\n{one},credential=\"b\"}} NaN\n{one}}} -1\n");
        assert_eq!(parse(text.as_bytes()).unwrap().scopes[&EntityKind::Organization].poll, 14);
    }

    proptest! {
        #[test]
        fn any_label_value_is_unescaped(value in any::<String>(), number in any::<u32>()) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let line = format!("m{{a=\"{escaped}\"}} {number}");
            let sample = Sample::read(&line).unwrap();
            prop_assert_eq!(sample.label("a").unwrap(), value);
            prop_assert_eq!(whole(sample.value), Some(u64::from(number)));
        }
    }
}
