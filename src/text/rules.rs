//! Why a set is judged as it is: the rules of the diagnosis in their order, which of them spoke, and why the ones before
//! it did not. Read off the picture alone, so that it can be told of a medic elsewhere too.

use super::words;
use crate::status::{ManagerStatus, SetStatus, SourceState};
use medic_core::model::{Decision, Diagnosis, Fact, Guard, Source};

/// The rules, in order, each with the source it reads where it reads one of its own.
const RULES: [(&str, Option<Source>); 9] = [
    ("the manager's list of sets", Some(Source::Api)),
    ("whether it is enabled", None),
    ("GitHub's list of sets", Some(Source::Broker)),
    ("the manager's log", Some(Source::Log)),
    ("a session probe", None),
    ("its own listener's metrics", Some(Source::ListenerMetrics)),
    ("the counters of its scope", Some(Source::Metrics)),
    ("the manager's age", None),
    ("nothing else tells", None),
];

/// One line per rule.
#[must_use]
pub fn rules(set: &SetStatus, manager: &ManagerStatus) -> Vec<String> {
    let spoke = spoke(set);
    let line = |(number, (name, source)): (usize, &(&str, Option<Source>))| {
        let said = match number.cmp(&spoke) {
            std::cmp::Ordering::Less => silent(number, source.and_then(|source| manager.sources.get(&source))),
            std::cmp::Ordering::Equal => format!("decides: {} ({})", set.finding.diagnosis, set.finding.confidence),
            std::cmp::Ordering::Greater => format!("not needed: rule {} has spoken", spoke.saturating_add(1)),
        };
        format!("{}. {name}: {said}", number.saturating_add(1))
    };
    RULES.iter().enumerate().map(line).collect()
}

/// The rule that decided, by its place.
fn spoke(set: &SetStatus) -> usize {
    let first = set.finding.evidence.first();
    match (set.finding.diagnosis, first.map(|evidence| (evidence.source, &evidence.fact))) {
        (Diagnosis::Unknown, Some((_, Fact::ManagerUnseen { .. }))) => 0,
        (Diagnosis::Disabled | Diagnosis::DisabledByMedic, _) => 1,
        (Diagnosis::Missing | Diagnosis::Mismatched, _) => 2,
        (Diagnosis::Settling, _) => 7,
        (Diagnosis::Unknown, _) | (_, None) => 8,
        (_, Some((_, Fact::CheckRefused { .. } | Fact::CheckOpened))) => 4,
        (_, Some((Source::Log, _))) => 3,
        (_, Some((Source::ListenerMetrics, _))) => 5,
        (_, Some((Source::Broker, _))) => 2,
        (_, Some((Source::Goroutines | Source::Metrics | Source::Api | Source::Journal, _))) => 6,
    }
}

/// Why a rule did not speak.
fn silent(number: usize, source: Option<&SourceState>) -> String {
    match (number, source) {
        (0, _) => "read".to_owned(),
        (1, _) => "it is enabled".to_owned(),
        (4, _) => "no answer that nothing newer contradicts".to_owned(),
        (7, _) => "past its grace".to_owned(),
        (_, Some(SourceState::Up)) => "answers, and leaves it open".to_owned(),
        (_, Some(SourceState::Down { why })) => format!("cannot be read: {why}"),
        (_, Some(SourceState::NotConfigured { .. }) | None) => "not configured".to_owned(),
    }
}

/// The guards that let the proposed remedy pass; none where no remedy is proposed.
#[must_use]
pub fn passed(decision: &Decision) -> Vec<Guard> {
    let held: &[_] = match decision {
        Decision::Blocked { guards, .. } => guards,
        Decision::Treat { .. } => &[],
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } | Decision::Treating { .. } => {
            return Vec::new();
        }
    };
    Guard::ALL.iter().copied().filter(|guard| held.iter().all(|one| one.guard != *guard)).collect()
}

/// What happens next, and when.
#[must_use]
pub fn next(set: &SetStatus, now: medic_core::model::Wall) -> String {
    match &set.decision {
        Decision::Leave => "nothing, unless something changes".to_owned(),
        Decision::Watch { waiting, until } => {
            let until = until.map_or_else(String::new, |until| format!(" until {} at most", until.near(now)));
            format!("waiting{until}: {}", words::waiting(*waiting))
        }
        Decision::Escalate { escalation } => format!("nothing by itself; {}", words::escalation(escalation)),
        Decision::Treat { remedy, .. } => format!("{}, with the next pass of a medic", words::remedy(remedy.kind())),
        Decision::Treating { treatment } => match set.treatments.iter().find(|row| row.id == *treatment) {
            Some(row) => words::progress(row, now),
            None => "the next step of the treatment".to_owned(),
        },
        Decision::Blocked { remedy, guards } => {
            let what = words::remedy(remedy.kind());
            let open: Vec<_> =
                guards.iter().filter(|held| held.until.is_none()).map(|held| held.guard.as_str()).collect();
            let earliest = guards.iter().filter_map(|held| held.until).max().filter(|until| *until > now);
            match (open.is_empty(), earliest) {
                (true, Some(at)) => format!("{what}, at {} at the earliest, in {}", at.near(now), at.since(now)),
                (true, None) => format!("{what}, with the next pass"),
                (false, Some(at)) => {
                    format!("{what}, not before {} and once these let it pass: {}", at.near(now), open.join(", "))
                }
                (false, None) => format!("{what}, once these let it pass: {}", open.join(", ")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::Wall;

    fn set(diagnosis: &str, source: &str, decision: &serde_json::Value) -> SetStatus {
        serde_json::from_value(serde_json::json!({
            "id": 1, "github_id": 2, "name": "linux-0", "entity": null, "enabled": "enabled",
            "finding": {
                "set": 1, "diagnosis": diagnosis, "confidence": "strong", "since": 0, "ill_since": null, "seen": 3,
                "evidence": [{"source": source, "at": 0, "fact": {"fact": "gave_up_line"}}], "worker": ["unknown", 0],
            },
            "decision": decision, "budget_remaining": 3, "treatments": [],
            "lingering": {"deleted": 0, "pending_delete": 0, "total": 0},
        }))
        .unwrap()
    }

    fn manager() -> ManagerStatus {
        serde_json::from_value(serde_json::json!({
            "name": "garm", "at": 0, "took": 1, "state": "up", "incarnation": null, "restart": null, "endpoints": {},
            "sources": {"api": {"state": "up"}, "log": {"state": "down", "why": "no such file"}}, "sets": [],
            "breaker_open": null, "budget_remaining": 9, "open_intents": 0, "known_sessions": 0,
            "quota_remaining": {}, "incident": null,
        }))
        .unwrap()
    }

    #[test]
    fn every_rule_is_told_the_silent_ones_with_the_reason() {
        let leave = serde_json::json!({"decision": "leave"});
        let told = rules(&set("conflict_abandoned", "metrics", &leave), &manager());
        assert_eq!(told.len(), 9);
        assert_eq!(told[2], "3. GitHub's list of sets: not configured");
        assert_eq!(told[3], "4. the manager's log: cannot be read: no such file");
        assert_eq!(told[6], "7. the counters of its scope: decides: conflict_abandoned (strong)");
        assert_eq!(told[8], "9. nothing else tells: not needed: rule 7 has spoken");
        assert_eq!(
            rules(&set("listening", "log", &leave), &manager())[3],
            "4. the manager's log: decides: listening (strong)"
        );
    }

    #[test]
    fn guards_that_pass_and_the_next_act_are_told_beside_those_that_hold() {
        let held = |guard: &str, until: Option<u64>| serde_json::json!({"guard": guard, "value": "v", "limit": "l", "until": until});
        let withhold = |guards: &[serde_json::Value]| {
            let remedy = serde_json::json!({"kind": "toggle"});
            set(
                "conflict_abandoned",
                "log",
                &serde_json::json!({"decision": "blocked", "remedy": remedy, "guards": guards}),
            )
        };
        let two = withhold(&[held("backoff", Some(60_000)), held("paused", None)]);
        let passes = passed(&two.decision);
        assert!(
            passes.contains(&Guard::Settle) && !passes.contains(&Guard::Paused) && !passes.contains(&Guard::Backoff)
        );
        assert_eq!(
            next(&two, Wall(0)),
            "disable and enable it, not before 00:01:00 and once these let it pass: paused"
        );
        let one = withhold(&[held("backoff", Some(60_000))]);
        assert_eq!(next(&one, Wall(0)), "disable and enable it, at 00:01:00 at the earliest, in 1 min");
        assert_eq!(passed(&Decision::Leave), []);
    }
}
