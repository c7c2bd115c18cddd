//! Why a set has its diagnosis: the rules in their order, which of them decided, and why the ones before it did not.
//! What happens next, and which guards allow it.

use super::words;
use crate::status::{ManagerStatus, SetStatus, ShownDecision, ShownGuard, SourceState};
use medic_core::model::{Decision, Guard, Remedy, Rule, Source, Wall};

/// One line per rule, in the order in which they are asked.
pub fn rules(set: &SetStatus, manager: &ManagerStatus) -> Vec<String> {
    Rule::ALL
        .iter()
        .map(|rule| format!("{}. {}: {}", number(*rule), asks(*rule), outcome(*rule, set, manager)))
        .collect()
}

pub const fn asks(rule: Rule) -> &'static str {
    match rule {
        Rule::SetList => "whether GARM's list of sets can be read",
        Rule::Enabled => "whether the set is enabled",
        Rule::GithubList => "GitHub's list of sets",
        Rule::SessionCheck => "a session check that is newer than everything else",
        Rule::Log => "GARM's log",
        Rule::ListenerMetrics => "the metrics of its own listener",
        Rule::Created => "whether GitHub has created the set",
        Rule::Counters => "the counters of its scope",
        Rule::GracePeriod => "whether GARM is within its grace period",
        Rule::Nothing => "nothing else",
        Rule::WaitingJobs => "whether assigned jobs wait although it listens",
        Rule::RefusedTooLong => "whether it is refused for longer than a stale session lasts",
    }
}

/// Where a rule stands in the order, counted from 1.
fn number(rule: Rule) -> usize {
    Rule::ALL.iter().take_while(|other| **other <= rule).count()
}

fn outcome(rule: Rule, set: &SetStatus, manager: &ManagerStatus) -> String {
    let finding = &set.finding;
    let first = finding.corrected.unwrap_or(finding.rule);
    if rule == finding.rule {
        return format!("decides: {} ({})", finding.diagnosis, finding.confidence);
    }
    match (rule.corrects(), finding.rule.corrects()) {
        (Some(_), _) => "nothing to correct".to_owned(),
        (None, Some(answer)) if rule == first => {
            format!("finds {answer}, which rule {} corrects", number(finding.rule))
        }
        (None, _) if rule > first => format!("not asked: rule {} has answered", number(first)),
        (None, _) => no_answer(rule, manager),
    }
}

fn no_answer(rule: Rule, manager: &ManagerStatus) -> String {
    let sources: &[Source] = match rule {
        Rule::SetList => return "it can".to_owned(),
        Rule::Enabled => return "it is".to_owned(),
        Rule::SessionCheck => return "no such check".to_owned(),
        Rule::Created => return "it has".to_owned(),
        Rule::GracePeriod => return "it is not".to_owned(),
        Rule::GithubList => &[Source::ActionsService],
        Rule::Log => &[Source::Log],
        Rule::ListenerMetrics => &[Source::ListenerMetrics],
        Rule::Counters => &[Source::Metrics, Source::Goroutines],
        Rule::Nothing | Rule::WaitingJobs | Rule::RefusedTooLong => &[],
    };
    let states: Vec<_> = sources.iter().filter_map(|source| manager.sources.get(source)).collect();
    let down = states.iter().find_map(|state| if let SourceState::Down { why } = state { Some(why) } else { None });
    match down {
        _ if states.contains(&&SourceState::Up) => "leaves it open".to_owned(),
        Some(why) => format!("cannot be read: {why}"),
        None => "not configured".to_owned(),
    }
}

/// The guards that do not block the proposed remedy; empty where no remedy is proposed.
pub fn passed(decision: &ShownDecision) -> Vec<Guard> {
    let blocking: &[_] = match decision {
        Decision::Blocked { guards, .. } => guards,
        Decision::Treat { .. } => &[],
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } | Decision::Treating { .. } => {
            return Vec::new();
        }
    };
    Guard::ALL.iter().copied().filter(|guard| blocking.iter().all(|one| one.guard != *guard)).collect()
}

/// When a blocked remedy comes, and which guards must stop blocking before.
pub fn next(remedy: &Remedy, guards: &[ShownGuard], now: Wall) -> String {
    let what = words::remedy(remedy.kind());
    let open: Vec<_> = guards.iter().filter(|one| one.until.is_none()).map(|one| one.guard.as_str()).collect();
    let earliest = guards.iter().filter_map(|one| one.until).max().filter(|until| *until > now);
    match (open.is_empty(), earliest) {
        (true, Some(at)) => format!("{what}, at {} at the earliest, in {}", at.near(now), at.since(now)),
        (true, None) => format!("{what}, in the next reconcile"),
        (false, Some(at)) => {
            format!("{what}, not before {} and once these no longer block: {}", at.near(now), open.join(", "))
        }
        (false, None) => format!("{what}, once these no longer block: {}", open.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::testing;

    fn lines(diagnosis: &str, rule: Rule, corrected: Option<Rule>) -> Vec<String> {
        let mut set = testing::set(diagnosis, &serde_json::json!({"decision": "leave"}));
        (set.finding.rule, set.finding.corrected) = (rule, corrected);
        let down = |why: &str| SourceState::Down { why: why.to_owned() };
        let mut manager = testing::manager(Vec::new());
        manager.sources = [
            (Source::Api, SourceState::Up),
            (Source::Log, down("no such file")),
            (Source::Metrics, down("refused")),
            (Source::Goroutines, SourceState::Up),
        ]
        .into();
        rules(&set, &manager)
    }

    #[test]
    fn rules_show_the_one_that_decided_and_why_others_did_not() {
        let shown = lines("conflict_abandoned", Rule::Counters, None);
        assert_eq!(shown.len(), Rule::ALL.len());
        assert_eq!(shown[1], "2. whether the set is enabled: it is");
        assert_eq!(shown[2], "3. GitHub's list of sets: not configured");
        assert_eq!(shown[4], "5. GARM's log: cannot be read: no such file");
        assert_eq!(shown[7], "8. the counters of its scope: decides: conflict_abandoned (strong)");
        assert_eq!(shown[9], "10. nothing else: not asked: rule 8 has answered");
        assert!(shown[10].ends_with(": nothing to correct"), "{}", shown[10]);
        let check = lines("unheld", Rule::SessionCheck, None);
        assert_eq!(check[4], "5. GARM's log: not asked: rule 4 has answered");
        let open = lines("unknown", Rule::Nothing, None);
        assert_eq!(open[7], "8. the counters of its scope: leaves it open", "one of its two sources answers");
    }

    #[test]
    fn rules_show_a_correction_and_the_answer_that_it_corrects() {
        let shown = lines("held_elsewhere", Rule::RefusedTooLong, Some(Rule::Log));
        assert_eq!(shown[4], "5. GARM's log: finds conflict_retrying, which rule 12 corrects");
        assert_eq!(shown[5], "6. the metrics of its own listener: not asked: rule 5 has answered");
        assert!(shown[10].ends_with(": nothing to correct"), "{}", shown[10]);
        assert!(shown[11].ends_with(": decides: held_elsewhere (strong)"), "{}", shown[11]);
    }

    #[test]
    fn next_names_the_guards_that_block_and_the_earliest_time() {
        let blocked = |guard, until| ShownGuard { guard, value: String::new(), limit: String::new(), until };
        let both = [blocked(Guard::Backoff, Some(Wall(60_000))), blocked(Guard::Paused, None)];
        let next = |guards: &[ShownGuard], now| next(&Remedy::Toggle, guards, Wall(now));
        for (guards, now, expected) in [
            (&both[..], 0, "disable and enable it, not before 00:01:00 and once these no longer block: paused"),
            (&both[1..], 0, "disable and enable it, once these no longer block: paused"),
            (&both[..1], 0, "disable and enable it, at 00:01:00 at the earliest, in 1 min"),
            (&both[..1], 60_000, "disable and enable it, in the next reconcile"),
        ] {
            assert_eq!(next(guards, now), expected);
        }
        let passes = passed(&Decision::Blocked { remedy: Remedy::Toggle, guards: both.to_vec() });
        assert!(passes.contains(&Guard::Settle) && passes.len() == Guard::ALL.len() - 2);
        assert_eq!(passed(&Decision::Leave), []);
    }
}
