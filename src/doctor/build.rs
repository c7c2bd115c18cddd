//! What GARM's build does after a refused first start: gives up for good, or tries again
//! (`docs/reference/design.md` §1, `docs/reference/garm-api.md` §1).
//!
//! Strongest evidence first: metrics that only newer builds have, a log that shows a worker giving up, a version that
//! is exactly a release's. A version with a commit count behind it may be any build and proves nothing.

use super::facts::ManagerFacts;
use super::{Check, Finding};
use medic_core::model::{ManagerMetrics, Span, Wall};

/// The gauges per set are refreshed every minute: a run younger than this may not have them yet.
const GAUGES_BY: Span = Span::mins(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    /// It exports the last poll of each listener.
    ListenerMetrics,
    Retries,
    GivesUp,
    /// It lacks what builds from nine days after the fix have.
    ProbablyGivesUp,
    Unknown,
}

pub(super) fn finding(now: Wall, manager: &ManagerFacts) -> Finding {
    let version = manager.controller.known().map_or("", |controller| controller.version.as_str());
    let called = if version.is_empty() { "a GARM without a version".to_owned() } else { format!("GARM {version}") };
    match build_of(now, manager, version) {
        Build::ListenerMetrics => Check::Build.ok(manager,
            format!("{called}: retries, and exports each listener's last poll"),
        ),
        Build::Retries => Check::Build.ok(manager,
            format!("{called}: retries a refused session, so the medic only shortens the wait"),
        ),
        Build::GivesUp => {
            gives_up(manager, format!("{called}: a worker whose first start is refused gives up for good"))
        }
        Build::ProbablyGivesUp => gives_up(
            manager,
            format!(
                "{called}: exports no gauges per set, so it was built before 2026-04-13 and probably gives up for good \
                 when a worker's first start is refused"
            ),
        ),
        Build::Unknown => Check::Build.unknown(manager,
            format!("{called}: the build is not known"),
        )
        .risks(
            "whether it gives up after a conflict or retries shows only at the next crash; the medic waits for proof",
        )
        .advice("Every release after v0.2.0-alpha retries; enable GARM's metrics, which show the build"),
    }
}

fn gives_up(manager: &ManagerFacts, seen: String) -> Finding {
    Check::Build
        .warn(manager, seen)
        .risks(
            "any error at a start (a stale session, GitHub away for a moment) leaves the set without a listener until \
                somebody disables and enables it",
        )
        .advice("update GARM to a release after v0.2.0-alpha; until then, this medic in mode heal restarts the sets")
}

fn build_of(now: Wall, manager: &ManagerFacts, version: &str) -> Build {
    if let Some(metrics) = manager.metrics.known() {
        if !metrics.listeners.is_empty() {
            return Build::ListenerMetrics;
        }
        if metrics.has_set_gauges {
            return Build::Retries;
        }
    }
    if gave_up_in_log(manager) {
        return Build::GivesUp;
    }
    match version.strip_prefix('v').unwrap_or(version) {
        "0.2.0-alpha" => Build::GivesUp,
        "0.2.0-beta1" | "0.2.0" | "0.2.1-alpha1" | "0.2.1" => Build::Retries,
        _ if manager.metrics.known().is_some_and(|metrics| lacks_gauges(now, manager, metrics)) => {
            Build::ProbablyGivesUp
        }
        _ => Build::Unknown,
    }
}

fn gave_up_in_log(manager: &ManagerFacts) -> bool {
    let Some(log) = manager.log_file.known() else { return false };
    log.by_id.values().chain(log.by_github.values().flat_map(|sets| sets.values())).any(|set| set.gave_up.is_some())
}

/// Whether there are sets whose gauges should be there by now.
fn lacks_gauges(now: Wall, manager: &ManagerFacts, metrics: &ManagerMetrics) -> bool {
    let is_old = metrics.incarnation.is_some_and(|run| now.since(run.0) >= GAUGES_BY);
    is_old && !manager.sets().is_empty()
}
