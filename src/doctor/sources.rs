//! The manager's other sources: its counters, its goroutines, its change events.

use super::facts::{Facts, ManagerFacts};
use super::{Check, Finding, Subject};
use medic_core::model::{Enablement, FailureKind, RequestFailure, Seen, Span};

pub(super) fn findings(facts: &Facts, manager: &ManagerFacts) -> Vec<Finding> {
    let subject = Subject::Manager(manager.name.clone());
    let mut all = vec![metrics(facts, manager, &subject), goroutines(manager, &subject)];
    all.extend(events(manager, &subject, facts.config.run.interval));
    all
}

const WITHOUT_METRICS: &str = "restarts of the manager, and sessions opened and refused, are not seen: which session is \
                               stale cannot be proven, and most stuck sets stay `unknown`, so they are not healed";

fn metrics(facts: &Facts, manager: &ManagerFacts, subject: &Subject) -> Finding {
    match &manager.metrics {
        Seen::NotAsked => Finding::fail(Check::Metrics, subject, "not read: `metrics = false` is configured")
            .risks(WITHOUT_METRICS)
            .with_medic_line("metrics = true")
            .with_garm_metrics(),
        Seen::Failed(failure) if failure.kind == FailureKind::NotEnabled => {
            Finding::fail(Check::Metrics, subject, "switched off in GARM").risks(WITHOUT_METRICS).with_garm_metrics()
        }
        Seen::Failed(failure) if is_refused(failure) => Finding::fail(Check::Metrics, subject, failure.to_string())
            .risks(WITHOUT_METRICS)
            .with_medic_line("metrics_auth = true"),
        Seen::Failed(failure) => Finding::fail(Check::Metrics, subject, failure.to_string())
            .risks(WITHOUT_METRICS)
            .step("see that a reverse proxy in front of GARM also passes /metrics, not only /api/v1", &[]),
        Seen::Known(metrics) => match metrics.incarnation {
            Some(run) => {
                let age = facts.at.since(run.0);
                let (opened, refused) = manager.sessions();
                let seen = format!("up for {age}; since then {opened} sessions opened, {refused} refused or failed");
                Finding::ok(Check::Metrics, subject, seen)
            }
            None => Finding::warn(Check::Metrics, subject, "readable, without the process's start date")
                .risks("a restart shows only by counters that go backwards; which session is stale cannot be proven")
                .step(
                    "see that nothing between GARM and the medic drops series; this one is needed:",
                    &["process_start_time_seconds"],
                ),
        },
    }
}

const fn is_refused(failure: &RequestFailure) -> bool {
    matches!(failure.kind, FailureKind::Unauthorized | FailureKind::Forbidden)
}

const WITHOUT_GOROUTINES: &str = "the exact number of living listeners and workers: without it a worker that has died \
                                  is told from one that waits only by counters that stand still, which takes longer";

fn goroutines(manager: &ManagerFacts, subject: &Subject) -> Finding {
    let enable = |finding: Finding| {
        finding
            .step(
                "in GARM's config.toml, then restart GARM (it has no authentication and costs some CPU: let only the \
                 medic reach GARM's port):",
                &["[default]", "debug_server = true"],
            )
            .with_medic_line("debug_server = true")
    };
    match &manager.goroutines {
        Seen::NotAsked => {
            enable(Finding::warn(Check::Goroutines, subject, "not configured (debug_server)").risks(WITHOUT_GOROUTINES))
        }
        Seen::Failed(failure) if failure.kind == FailureKind::NotEnabled => enable(
            Finding::fail(Check::Goroutines, subject, "configured, and switched off in GARM").risks(WITHOUT_GOROUTINES),
        ),
        Seen::Failed(failure) => {
            Finding::fail(Check::Goroutines, subject, failure.to_string()).risks(WITHOUT_GOROUTINES).step(
                "see that a reverse proxy in front of GARM also passes this path to the medic:",
                &["/debug/pprof/goroutine"],
            )
        }
        Seen::Known(count) => {
            let enabled = manager.sets().iter().filter(|set| set.enabled == Enablement::Enabled).count();
            let seen =
                format!("{} listeners and {} workers live, for {enabled} enabled sets", count.listeners, count.workers);
            Finding::ok(Check::Goroutines, subject, seen)
        }
    }
}

fn events(manager: &ManagerFacts, subject: &Subject, interval: Span) -> Option<Finding> {
    match &manager.events {
        Seen::NotAsked => None,
        Seen::Known(()) => Some(Finding::ok(Check::Events, subject, "changes of sets are told as they happen")),
        Seen::Failed(failure) => Some(
            Finding::warn(Check::Events, subject, failure.to_string())
                .risks(format!("a set that somebody changes is noticed only at the next pass, up to {interval} later"))
                .step(
                    "let a reverse proxy in front of GARM pass websockets; for nginx:",
                    &[
                        "proxy_http_version 1.1;",
                        "proxy_set_header Upgrade $http_upgrade;",
                        "proxy_set_header Connection \"upgrade\";",
                        "proxy_read_timeout 10m;",
                    ],
                ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::testing::{answer, broken, healthy, lines};
    use super::*;
    use medic_core::model::Operation;

    fn spoilt(spoil: impl Fn(&mut ManagerFacts)) -> Vec<Finding> {
        let mut facts = healthy();
        spoil(&mut facts.managers[0]);
        findings(&facts, &facts.managers[0])
    }

    #[test]
    fn metrics_are_needed_and_their_lines_are_told() {
        for metrics in [Seen::NotAsked, broken(Operation::Metrics, FailureKind::NotEnabled)] {
            let found = answer(&spoilt(|manager| manager.metrics = metrics.clone()), Check::Metrics);
            assert_eq!(found.state, State::Fail);
            for line in ["[metrics]", "enable = true", "disable_auth = true"] {
                assert!(lines(&found).contains(&line), "{found:?}");
            }
        }
        let found =
            answer(&spoilt(|m| m.metrics = broken(Operation::Metrics, FailureKind::Unauthorized)), Check::Metrics);
        assert_eq!((found.state, lines(&found)), (State::Fail, vec!["metrics_auth = true"]));
    }

    #[test]
    fn metrics_without_a_start_date_prove_less() {
        let found = spoilt(|manager| manager.metrics = Seen::Known(medic_core::model::ManagerMetrics::default()));
        assert_eq!(answer(&found, Check::Metrics).state, State::Warn);
    }

    #[test]
    fn goroutines_are_optional_until_they_are_configured() {
        let optional = answer(&spoilt(|manager| manager.goroutines = Seen::NotAsked), Check::Goroutines);
        assert_eq!(optional.state, State::Warn);
        assert!(lines(&optional).contains(&"debug_server = true"));
        for kind in [FailureKind::NotEnabled, FailureKind::Forbidden] {
            let found = spoilt(|manager| manager.goroutines = broken(Operation::Goroutines, kind));
            assert_eq!(answer(&found, Check::Goroutines).state, State::Fail, "{kind}");
        }
    }

    #[test]
    fn events_that_cannot_be_had_only_cost_time() {
        let found = spoilt(|manager| manager.events = broken(Operation::Websocket, FailureKind::Rejected));
        assert_eq!(answer(&found, Check::Events).state, State::Warn);
    }
}
