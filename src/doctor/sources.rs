//! The manager's other sources: its counters, its goroutines, its change events.

use super::facts::{Facts, ManagerFacts};
use super::{Check, Finding};
use crate::text::sources;
use medic_core::model::{Enablement, FailureKind, Seen, Source, Span};

pub(super) fn findings(facts: &Facts, manager: &ManagerFacts) -> Vec<Finding> {
    let mut all = vec![metrics(facts, manager), goroutines(manager)];
    all.extend(events(manager, facts.config.run.interval));
    all
}

fn metrics(facts: &Facts, manager: &ManagerFacts) -> Finding {
    let lines = sources::text(Source::Metrics);
    let fail = |seen: String| Check::Metrics.fail(manager, seen).hides(Source::Metrics);
    let with_garm = |found: Finding| {
        found.step(
            "in GARM's config.toml, then restart GARM (with disable_auth = false the medic fetches a metrics token; \
             keep metrics_auth = true in its own table then):",
            lines.garm,
        )
    };
    match &manager.metrics {
        Seen::NotAsked => {
            with_garm(fail("not read: `metrics = false` is configured".to_owned()).with_medic_lines(lines.medic))
        }
        Seen::Failed(failure) if failure.kind == FailureKind::NotEnabled => {
            with_garm(fail("switched off in GARM".to_owned()))
        }
        Seen::Failed(failure) if matches!(failure.kind, FailureKind::Unauthorized | FailureKind::Forbidden) => {
            fail(failure.to_string()).with_medic_lines(&["metrics_auth = true"])
        }
        Seen::Failed(failure) => fail(failure.to_string())
            .advice("let a reverse proxy in front of GARM also pass /metrics, not only /api/v1"),
        Seen::Known(metrics) => match metrics.incarnation {
            Some(incarnation) => {
                let age = facts.at.since(incarnation.0);
                let (opened, refused) = manager.sessions();
                let seen = format!("up for {age}; since then {opened} sessions opened, {refused} refused or failed");
                Check::Metrics.ok(manager, seen)
            }
            None => Check::Metrics
                .warn(manager, "readable, without the process's start date")
                .risks("a restart shows only by counters that go backwards; no session can be proven stale")
                .step(
                    "check that nothing between GARM and the medic drops series; this one is needed:",
                    &["process_start_time_seconds"],
                ),
        },
    }
}

fn goroutines(manager: &ManagerFacts) -> Finding {
    let lines = sources::text(Source::Goroutines);
    let enable = |found: Finding| {
        found
            .hides(Source::Goroutines)
            .step(
                "in GARM's config.toml, then restart GARM (it has no authentication and costs some CPU: let only the \
                 medic reach GARM's port):",
                lines.garm,
            )
            .with_medic_lines(lines.medic)
    };
    match &manager.goroutines {
        Seen::NotAsked => enable(Check::Goroutines.warn(manager, "not configured (debug_server)")),
        Seen::Failed(failure) if failure.kind == FailureKind::NotEnabled => {
            enable(Check::Goroutines.fail(manager, "configured, and switched off in GARM"))
        }
        Seen::Failed(failure) => Check::Goroutines.fail(manager, failure.to_string()).hides(Source::Goroutines).step(
            "let a reverse proxy in front of GARM also pass this path to the medic:",
            &["/debug/pprof/goroutine"],
        ),
        Seen::Known(count) => {
            let enabled = manager.sets().iter().filter(|set| set.enabled == Enablement::Enabled).count();
            let seen =
                format!("{} listeners and {} workers live, for {enabled} enabled sets", count.listeners, count.workers);
            Check::Goroutines.ok(manager, seen)
        }
    }
}

fn events(manager: &ManagerFacts, interval: Span) -> Option<Finding> {
    match &manager.events {
        Seen::NotAsked => None,
        Seen::Known(()) => Some(Check::Events.ok(manager, "changes of sets are received as they happen")),
        Seen::Failed(failure) => Some(
            Check::Events
                .warn(manager, failure.to_string())
                .risks(format!("a change of a set is noticed only by the next sweep, up to {interval} later"))
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
