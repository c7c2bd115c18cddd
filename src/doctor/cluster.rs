//! How GARM is stopped and rolled out: a process that is killed leaves its sessions behind, and two at once refuse each
//! other.
//!
//! Neither the strategy of a Deployment nor a grace period can be read from here. What can be seen are their traces:
//! how the run before ended, and whether the present one was refused. Without a trace the answer is `unknown`, with
//! the lines to compare.

use super::facts::{Facts, ManagerFacts, Place};
use super::{Check, Finding};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{Span, Wall};

/// A stop or a panic this shortly before a start belongs to the run before.
const BEFORE: Span = Span::mins(10);
/// A start and a stop are dated by two lines of one log.
const MARGIN: Span = Span::secs(2);

pub(super) fn finding(facts: &Facts, manager: &ManagerFacts) -> Finding {
    let trace = trace(manager);
    let found = match trace {
        Trace::Clean => {
            return Check::Rollout.ok(manager, "the previous run of GARM ended cleanly, by its log");
        }
        Trace::Panic => Check::Rollout.warn(manager, "the previous run of GARM ended in a panic, by its log"),
        Trace::Refused => Check::Rollout.warn(
            manager,
            "this run of GARM was refused sessions: the previous one was killed, or still ran when this one started",
        ),
        Trace::Counted(errors) => Check::Rollout.warn(
            manager,
            format!(
                "this run of GARM was refused sessions, or failed to get them, {errors} times: the previous one may \
                 have been killed, or still ran when this one started"
            ),
        ),
        Trace::None => Check::Rollout.unknown(manager, "how GARM is stopped and rolled out cannot be seen from here"),
    };
    let found = found.risks(
        "a GARM that is killed before it has closed its sessions leaves all of them stale; one that starts before the \
         old one has ended is refused sessions",
    );
    advise(found, facts.place)
}

enum Trace {
    /// A clean shutdown, and nothing was refused since.
    Clean,
    Panic,
    /// Conflicts in the present run.
    Refused,
    /// As many errors while opening sessions, in its counters; GitHub may as well have been away.
    Counted(u64),
    None,
}

fn trace(manager: &ManagerFacts) -> Trace {
    match manager.log_file.known().map(by_log) {
        None | Some(Trace::None) => {
            let (_, errors) = manager.sessions();
            if errors > 0 { Trace::Counted(errors) } else { Trace::None }
        }
        Some(trace) => trace,
    }
}

fn by_log(log: &LogEvidence) -> Trace {
    let all = log.by_id.values().chain(log.by_github.values().flat_map(|sets| sets.values()));
    let refused = all.into_iter().any(|set| set.conflicts.is_some() || set.gave_up.is_some());
    let before = |at: Option<Wall>, run: Wall| at.is_some_and(|at| at <= run.plus(MARGIN) && run.since(at) <= BEFORE);
    match log.run_started {
        Some(run) if before(log.last_panic, run) => Trace::Panic,
        _ if refused => Trace::Refused,
        Some(run) if before(log.last_stop, run) => Trace::Clean,
        Some(_) | None => Trace::None,
    }
}

fn advise(found: Finding, place: Place) -> Finding {
    let found = found.step(
        "in GARM's Deployment: never two at once, and time to close the sessions:",
        &[
            "spec:",
            "  replicas: 1",
            "  strategy: { type: Recreate }",
            "  template:",
            "    spec:",
            "      terminationGracePeriodSeconds: 60",
        ],
    );
    match place {
        Place::Kubernetes => found.step(
            "to see what it is now:",
            &["kubectl get deployment garm -o jsonpath='{.spec.replicas} {.spec.strategy.type} \
             {.spec.template.spec.terminationGracePeriodSeconds}{\"\\n\"}'"],
        ),
        Place::Elsewhere => {
            found.step("or, under systemd, in GARM's unit:", &["[Service]", "KillSignal=SIGTERM", "TimeoutStopSec=60"])
        }
    }
}
