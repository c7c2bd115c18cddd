//! The incident in one sentence: what happened to GARM, how many sets cannot receive jobs, since when and why, and
//! what is done about them. One or two sets are named, more are counted.

use crate::status::{SetStatus, ShownDecision, TreatmentSummary};
use crate::text::words;
use medic_core::diagnose::{CRASH_LOOP, LOOP_WINDOW};
use medic_core::model::log_fact::LogEvidence;
use medic_core::model::{
    Class, Decision, Diagnosis, Guard, ManagerState, Outcome, RequestFailure, RestartKind, Span, TreatmentState,
    Waiting, Wall,
};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What an incident is described from.
pub(crate) struct Incident<'a> {
    pub(crate) manager: ManagerState,
    /// Why the manager cannot be asked.
    pub(crate) failure: Option<&'a RequestFailure>,
    pub(crate) restart: Option<(RestartKind, Wall)>,
    /// Within [`LOOP_WINDOW`].
    pub(crate) restarts: u32,
    pub(crate) log: Option<&'a LogEvidence>,
    /// How long GitHub has kept stale sessions, in words.
    pub(crate) lifetimes: Option<&'a str>,
    pub(crate) sets: &'a [SetStatus],
    pub(crate) now: Wall,
}

pub(crate) fn incident(incident: &Incident<'_>) -> Option<String> {
    let Incident { sets, now, restarts, .. } = *incident;
    let ill: Vec<_> = sets.iter().filter(|set| set.finding.diagnosis.is_ill()).collect();
    let manager_words = match incident.manager {
        ManagerState::Down => Some(away("GARM does not answer: connections have been refused", sets, now)),
        ManagerState::Unreachable => {
            let kind = incident.failure.map(|failure| format!(" ({})", failure.kind));
            Some(away(&format!("GARM cannot be asked{}", kind.unwrap_or_default()), sets, now))
        }
        ManagerState::Up | ManagerState::Restarted => None,
    };
    if ill.is_empty() {
        return manager_words;
    }
    let began = ill.iter().filter_map(|set| set.finding.ill_since).min();
    // A restart long before the sets got stuck is not the cause.
    let is_close = |at: Wall| began.is_some_and(|began| began.since(at) < Span::mins(10));
    let restart = incident.restart.filter(|(_, at)| is_close(*at));
    let restart_words = restart.map(|(kind, at)| {
        let what = match kind {
            RestartKind::Clean => "restarted",
            RestartKind::Crash => "crashed or was killed, and started again",
        };
        format!("GARM {what} at {}{}", at.near(now), cause(incident.log, at, sets))
    });
    let loop_words = (restarts >= CRASH_LOOP)
        .then(|| format!("it restarted {restarts} times within {LOOP_WINDOW}: a crash loop; see its log"));
    let since = restart.map(|(_, at)| at).or(began);
    let words = sets_in_words(sets, &ill, began, since, incident.lifetimes, now);
    Some([manager_words, restart_words, loop_words, Some(words)].into_iter().flatten().collect::<Vec<_>>().join("; "))
}

pub(crate) fn stale_lifetimes(shortest: Span, longest: Span) -> String {
    let seconds = |span: Span| span.as_millis().div_ceil(1000);
    match (seconds(shortest), seconds(longest)) {
        (shortest, longest) if shortest == longest => format!("GitHub has kept such sessions {longest} s here"),
        (shortest, longest) => format!("GitHub has kept such sessions {shortest}\u{2013}{longest} s here"),
    }
}

/// A manager that is away: since when, for how many sets, and what follows.
fn away(what: &str, sets: &[SetStatus], now: Wall) -> String {
    let unseen: Vec<_> = sets.iter().filter(|set| set.finding.diagnosis == Diagnosis::Unknown).collect();
    let since = unseen.iter().map(|set| set.finding.since).min();
    let since = since.map_or_else(String::new, |at| format!(" since {} ({})", at.near(now), now.since(at)));
    let sets = match unseen.as_slice() {
        [] => "none of its sets is known".to_owned(),
        [only] => format!("its set {} cannot be judged", only.name),
        several => format!("its {} sets cannot be judged", several.len()),
    };
    format!("{what}{since}; {sets}, and nothing is done until it answers; see `scaleset-medic doctor`")
}

/// How many sets are unhealthy since when and why, who was healed `since`, and what is done about the others.
fn sets_in_words(
    sets: &[SetStatus],
    ill: &[&SetStatus],
    began: Option<Wall>,
    since: Option<Wall>,
    lifetimes: Option<&str>,
    now: Wall,
) -> String {
    let enabled = sets.iter().filter(|set| set.finding.diagnosis != Diagnosis::Disabled).count();
    let mut text = format!("{} of {enabled} sets cannot receive jobs", ill.len());
    if let Some(began) = began {
        let _ = write!(text, " since {}", began.near(now));
    }
    let refused = ill.iter().all(|set| set.finding.diagnosis.class() == Class::Refused);
    if refused {
        text.push_str(", because GitHub refuses their sessions");
    }
    let healed: Vec<_> = sets.iter().filter(|set| set.is_healthy() && was_healed(set, since)).collect();
    if !healed.is_empty() {
        let _ = write!(text, "; {} healed", who(&healed, "is", "are"));
    }
    // What our own treatment caused comes first.
    let left: Vec<_> = sets.iter().filter_map(|set| Some((set, set.left_disabled.as_ref()?))).collect();
    match left.as_slice() {
        [] => {}
        [(set, left)] => {
            let _ = write!(text, "; {} is left disabled: {}", set.name, words::left_disabled(left, now));
        }
        several => {
            let sets: Vec<_> = several.iter().map(|(set, _)| *set).collect();
            let _ = write!(text, "; {} left disabled by our treatments: enable them by hand", who(&sets, "is", "are"));
        }
    }
    for (decided, one, many, what) in GROUPS {
        let group = ill.iter().copied().filter(|set| set.left_disabled.is_none() && decided(&set.decision));
        let group: Vec<_> = group.collect();
        if !group.is_empty() {
            let _ = write!(text, "; {} {what}", who(&group, one, many));
        }
    }
    let blocked: Vec<_> =
        ill.iter().copied().filter(|set| set.left_disabled.is_none() && set.guards().next().is_some()).collect();
    if !blocked.is_empty() {
        let guards: BTreeSet<_> = blocked.iter().flat_map(|set| set.guards()).collect();
        let guards: Vec<_> = guards.into_iter().map(Guard::as_str).collect();
        let _ = write!(text, "; {} for a treatment, blocked by {}", who(&blocked, "waits", "wait"), guards.join(", "));
    }
    let may_be_stale = refused && ill.iter().all(|set| set.finding.diagnosis != Diagnosis::HeldElsewhere);
    if let (true, Some(measured)) = (may_be_stale, lifetimes) {
        let _ = write!(text, "; {measured}");
    }
    text
}

/// What is done about a set: which decisions, "is" and "are", and the words.
type Group = (fn(&ShownDecision) -> bool, &'static str, &'static str, &'static str);
const GROUPS: &[Group] = &[
    (|d| matches!(d, Decision::Treat { .. } | Decision::Treating { .. }), "is", "are", "under treatment"),
    (
        |d| matches!(d, Decision::Watch { waiting: Waiting::StaleSession | Waiting::StaleSessionOdd, .. }),
        "waits",
        "wait",
        "for a stale session to end",
    ),
    (
        |d| {
            matches!(d, Decision::Watch { waiting: Waiting::Settling | Waiting::Evidence | Waiting::Treatment, .. })
                || *d == Decision::Leave
        },
        "is",
        "are",
        "watched",
    ),
    (|d| matches!(d, Decision::Escalate { .. }), "needs", "need", "an operator"),
];

/// One or two sets by name, more by number, with the verb that fits.
fn who(sets: &[&SetStatus], one: &str, many: &str) -> String {
    match sets {
        [only] => format!("{} {one}", only.name),
        [first, second] => format!("{} and {} {many}", first.name, second.name),
        more => format!("{} {many}", more.len()),
    }
}

fn was_healed(set: &SetStatus, since: Option<Wall>) -> bool {
    let ours = |row: &&TreatmentSummary| since.is_none_or(|since| row.opened >= since);
    set.treatments.iter().filter(ours).any(|row| row.state == TreatmentState::Ended(Outcome::Recovered))
}

/// Why GARM died, where its log says so: a panic over a session that GitHub had forgotten
/// (`docs/reference/design.md` §1).
fn cause(log: Option<&LogEvidence>, restarted: Wall, sets: &[SetStatus]) -> String {
    let Some(log) = log else { return String::new() };
    let recent = |at: Wall| at <= restarted.plus(Span::secs(5)) && at.plus(Span::mins(10)) >= restarted;
    match (&log.vanished, log.last_panic) {
        (Some(vanished), _) if recent(vanished.at) => {
            let name = vanished.set.and_then(|id| sets.iter().find(|set| set.id == id)).map(|set| set.name.as_str());
            format!(" after a panic: GitHub had forgotten the session of {}", name.unwrap_or("one of its sets"))
        }
        (_, Some(at)) if recent(at) => " after a panic".to_owned(),
        (Some(_) | None, Some(_) | None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::LeftDisabled;
    use crate::text::testing;

    fn set(name: &str, diagnosis: &str, decision: &serde_json::Value, healed_at: Option<u64>) -> SetStatus {
        let healed =
            |at| serde_json::json!({"id": 1, "remedy": "toggle", "opened": at, "state": "recovered", "why": null});
        let treatments = healed_at.map(healed).map(|row| serde_json::from_value(row).unwrap()).into_iter().collect();
        SetStatus { name: name.to_owned(), treatments, ..testing::set(diagnosis, decision) }
    }

    fn text_of(sets: &[SetStatus], lifetimes: Option<&str>) -> String {
        let ill: Vec<_> = sets.iter().filter(|set| set.finding.diagnosis.is_ill()).collect();
        sets_in_words(sets, &ill, Some(Wall(60_000)), Some(Wall(50_000)), lifetimes, Wall(260_000))
    }

    #[test]
    fn incident_names_the_last_set_and_what_it_waits_for() {
        let leave = serde_json::json!({"decision": "leave"});
        let waits = serde_json::json!({"decision": "watch", "waiting": "stale_session", "until": null});
        let sets = [
            set("set-a", "conflict_retrying", &waits, None),
            set("set-b", "listening", &leave, Some(55_000)),
            set("set-c", "listening", &leave, Some(55_000)),
            set("set-d", "listening", &leave, Some(10_000)),
            set("set-e", "disabled", &leave, None),
        ];
        assert_eq!(
            text_of(&sets, Some("GitHub has kept such sessions 61\u{2013}92 s here")),
            "1 of 4 sets cannot receive jobs since 00:01:00, because GitHub refuses their sessions; set-b and set-c \
             are healed; set-a waits for a stale session to end; GitHub has kept such sessions 61\u{2013}92 s here"
        );
    }

    #[test]
    fn incident_names_a_set_left_disabled() {
        let treated = serde_json::json!({"decision": "treating", "treatment": 4});
        let mut sets =
            [set("set-a", "disabled_by_medic", &treated, None), set("set-b", "conflict_abandoned", &treated, None)];
        sets[0].left_disabled =
            Some(LeftDisabled { since: Wall(60_000), tries: 11, answer: Some("HTTP 500".to_owned()) });
        assert_eq!(
            text_of(&sets, None),
            "2 of 2 sets cannot receive jobs since 00:01:00; set-a is left disabled: we disabled it 3 min 20 s ago, \
             and every enable fails (11 tries; the last answer: HTTP 500); enable it by hand; set-b is under treatment"
        );
    }

    #[test]
    fn incident_describes_an_unreachable_manager() {
        let leave = serde_json::json!({"decision": "leave"});
        let sets = [set("a", "unknown", &leave, None), set("b", "unknown", &leave, None)];
        assert_eq!(
            away("GARM does not answer: connections have been refused", &sets, Wall(90_000)),
            "GARM does not answer: connections have been refused since 00:00:00 (1 min 30 s); its 2 sets cannot be \
             judged, and nothing is done until it answers; see `scaleset-medic doctor`"
        );
        assert!(away("GARM cannot be asked", &[], Wall(0)).contains("none of its sets is known"));
    }

    #[test]
    fn incident_names_the_blocking_guards() {
        let held = |guard: &str| {
            let guard = serde_json::json!({"guard": guard, "value": "1 of 2", "limit": "2", "until": null});
            serde_json::json!({"decision": "blocked", "remedy": {"kind": "toggle"}, "guards": [guard]})
        };
        let sets = [
            set("set-a", "unheld", &held("settle"), None),
            set("set-b", "unheld", &held("settle"), None),
            set("set-c", "unheld", &held("canary"), None),
        ];
        assert_eq!(
            text_of(&sets, None),
            "3 of 3 sets cannot receive jobs since 00:01:00; 3 wait for a treatment, blocked by settle, canary"
        );
    }

    #[test]
    fn incident_counts_many_sets_and_blames_github_rightly() {
        let treated = serde_json::json!({"decision": "treating", "treatment": 4});
        let escalated = serde_json::json!({"decision": "escalate", "escalation": {"why": "missing"}});
        let mut sets: Vec<_> =
            (0..3).map(|number| set(&format!("set-{number}"), "conflict_abandoned", &treated, None)).collect();
        sets.push(set("gone", "missing", &escalated, None));
        assert_eq!(
            text_of(&sets, Some("lifetimes")),
            "4 of 4 sets cannot receive jobs since 00:01:00; 3 are under treatment; gone needs an operator"
        );
    }
}
