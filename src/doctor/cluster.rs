//! How the manager is stopped and rolled out: a run that is killed leaves its sessions behind, and two runs at once
//! refuse each other.
//!
//! Neither the strategy of a Deployment nor a grace period can be read from here. What can be seen are their traces:
//! how the run before ended, and whether the present one was refused. Without a trace the answer is `unknown`, with
//! the lines to compare.

use super::facts::{Facts, ManagerFacts, Place};
use super::{Check, Finding, Subject};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{Span, Wall};

/// A stop or a panic this shortly before a start belongs to the run before.
const BEFORE: Span = Span::mins(10);
/// A start and a stop are dated by two lines of one log.
const MARGIN: Span = Span::secs(2);

pub(super) fn finding(facts: &Facts, manager: &ManagerFacts) -> Finding {
    let subject = Subject::Manager(manager.name.clone());
    let trace = trace(manager);
    let found = match trace {
        Trace::Clean => {
            return Finding::ok(Check::Rollout, &subject, "the run before the present one ended cleanly, by its log");
        }
        Trace::Panic => {
            Finding::warn(Check::Rollout, &subject, "the run before the present one ended in a panic, by its log")
        }
        Trace::Refused => Finding::warn(
            Check::Rollout,
            &subject,
            "the present run was refused sessions: the run before was killed, or still lived when this one began",
        ),
        Trace::Counted(errors) => Finding::warn(
            Check::Rollout,
            &subject,
            format!(
                "the present run was refused sessions, or failed to get them, {errors} times: the run before may have been \
                 killed, or still lived when this one began"
            ),
        ),
        Trace::None => Finding::unknown(
            Check::Rollout,
            &subject,
            "how the manager is stopped and rolled out cannot be seen from here",
        ),
    };
    let found = found.risks(
        "a manager that is killed before it has closed its sessions leaves all of them stale; one that starts before the \
         old one has ended is refused by it",
    );
    advise(found, facts.place)
}

enum Trace {
    /// It said goodbye, and nothing was refused since.
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
        Some(told) => told,
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

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::testing::{NOW, healthy, lines};
    use super::*;
    use medic_core::model::log_fact::SetLog;
    use medic_core::model::{EntityKind, ScaleSetId, ScopeCounters, Seen};

    fn by(log: LogEvidence, place: Place) -> Finding {
        let mut facts = Facts { place, ..healthy() };
        facts.managers[0].log_file = Seen::Known(log);
        finding(&facts, &facts.managers[0])
    }

    #[test]
    fn the_end_of_the_run_before_is_read_from_the_log() {
        let run = LogEvidence { run_started: Some(NOW), ..LogEvidence::default() };
        let just = Some(NOW.minus(Span::secs(3)));
        let long = Some(NOW.minus(Span::hours(3)));
        for (log, state) in [
            (LogEvidence { last_stop: just, ..run.clone() }, State::Ok),
            (LogEvidence { last_panic: just, ..run.clone() }, State::Warn),
            (LogEvidence { last_panic: just, last_stop: just, ..run.clone() }, State::Warn),
            (LogEvidence { last_stop: long, last_panic: long, ..run.clone() }, State::Unknown),
            (run.clone(), State::Unknown),
        ] {
            assert_eq!(by(log.clone(), Place::Elsewhere).state, state, "{log:?}");
        }
    }

    #[test]
    fn refusals_in_the_present_run_are_the_trace_of_a_bad_end() {
        let mut log = LogEvidence { run_started: Some(NOW), last_stop: Some(NOW), ..LogEvidence::default() };
        log.by_id.insert(ScaleSetId(1), SetLog { conflicts: Some((NOW, NOW)), ..SetLog::default() });
        let found = by(log, Place::Kubernetes);
        assert_eq!(found.state, State::Warn);
        assert!(lines(&found).iter().any(|line| line.contains("type: Recreate")), "{found:?}");
        assert!(lines(&found).iter().any(|line| line.starts_with("kubectl get")), "{found:?}");
    }

    #[test]
    fn without_a_log_nobody_can_tell_and_the_lines_to_compare_are_given() {
        let mut facts = healthy();
        facts.managers[0].log_file = Seen::NotAsked;
        let found = finding(&facts, &facts.managers[0]);
        assert_eq!(found.state, State::Unknown);
        assert!(lines(&found).contains(&"TimeoutStopSec=60"));
    }

    #[test]
    fn errors_in_the_counters_are_a_trace_where_the_log_has_none() {
        let mut facts = healthy();
        let Seen::Known(metrics) = &mut facts.managers[0].metrics else { panic!("metrics") };
        let counters = ScopeCounters { create: 40, create_errors: 38, ..ScopeCounters::default() };
        metrics.scopes.insert(EntityKind::Organization, counters);
        assert_eq!(finding(&facts, &facts.managers[0]).state, State::Ok, "the log knows better");
        facts.managers[0].log_file = Seen::NotAsked;
        let found = finding(&facts, &facts.managers[0]);
        assert_eq!(found.state, State::Warn);
        assert!(found.seen.contains("38 times"), "{found:?}");
    }
}
