//! What blocks a remedy, a deletion or a manual heal, and what a policy allows at the most, in words.

use crate::status::{ShownDecision, ShownGuard};
use medic_core::decide::Bounds;
use medic_core::decide::breaker::Breaker;
use medic_core::model::session::NotStale;
use medic_core::model::{
    BlockedBy, Bounded, Decision, FrozenReason, GuardFact, ManualWait, Pause, PauseId, PauseScope, Refusal, Wall,
};

pub fn decision(decision: Decision) -> ShownDecision {
    decision.map_guards(|block| shown(&block))
}

pub fn shown(block: &BlockedBy) -> ShownGuard {
    let (value, limit) = value_and_limit(&block.fact, block.until);
    ShownGuard { guard: block.guard(), value, limit, until: block.until }
}

/// What a guard sees, and what it asks for.
fn value_and_limit(fact: &GuardFact, until: Option<Wall>) -> (String, String) {
    const ONE_CAUSE: &str = "conflicts in 1 entity only, or a restart that explains them";
    let fixed = |value: &str, limit: &str| (value.to_owned(), limit.to_owned());
    let breaker =
        |since: Wall, after, rest: &str| format!("open since {since}: {after} treatments in a row did not help{rest}");
    match fact {
        GuardFact::DryRun => fixed("mode is observe", "mode heal"),
        GuardFact::Settle { age, needed, crash_loop } => {
            let unknown = || "just restarted, its age is not known".to_owned();
            let value = age.map_or_else(unknown, |age| format!("{age} of {needed}"));
            let why = if *crash_loop { ", because it keeps crashing" } else { "" };
            (value, format!("{needed} after GARM's start{why}"))
        }
        GuardFact::Unconfirmed { sweeps, needed } => {
            (format!("{sweeps} of {needed} sweeps"), format!("{needed} sweeps"))
        }
        GuardFact::WeakEvidence => fixed("weak evidence", "strong evidence, or proof"),
        GuardFact::Canary { set } => (
            format!("set {set} is treated first, with no sign of its worker yet"),
            "the first treated set tries again or listens".to_owned(),
        ),
        GuardFact::InFlight { open, limit, most } => {
            let more = if limit < most { format!(", up to {most} as workers restart") } else { String::new() };
            (format!("{open} of {limit} open"), format!("{limit} at once{more}"))
        }
        GuardFact::SessionCheckOpen => fixed("1 of 1 session checks open", "1 session check at once"),
        GuardFact::SetBudget { used, budget, window } | GuardFact::ManagerBudget { used, budget, window } => {
            (format!("{used} of {budget} in {window}"), format!("{budget} in {window}"))
        }
        GuardFact::Backoff { passed, wait, treatment, treatments } => (
            format!("{passed} of {wait} since treatment #{treatment}"),
            format!("{wait} after the {} treatment of this set", ordinal(*treatments)),
        ),
        GuardFact::SessionCheckBackoff { passed, wait, last_failed } => {
            let failed = if *last_failed { " failed" } else { "" };
            (
                format!("{passed} of {wait} since the last session check{failed}"),
                format!("{wait} between session checks"),
            )
        }
        GuardFact::BreakerOpen { since, after, half_open } => {
            (breaker(*since, after, ""), format!("a reset, or one trial from {half_open}"))
        }
        GuardFact::BreakerTrial { since, after } => {
            (breaker(*since, after, "; one trial is open"), "a reset, or the trial's recovery".to_owned())
        }
        GuardFact::GithubFault => fixed("several entities fail at once: a fault at GitHub", ONE_CAUSE),
        GuardFact::UnexplainedConflicts { entities } => {
            (format!("sets of {entities} entities conflict, and no restart of GARM explains it"), ONE_CAUSE.to_owned())
        }
        GuardFact::Frozen { reasons } => (
            reasons.iter().map(frozen).collect::<Vec<_>>().join(", "),
            "GARM, an endpoint and sources that answer".to_owned(),
        ),
        GuardFact::Paused { pause } => {
            let what = match pause.scope {
                PauseScope::All => "everything",
                PauseScope::Manager { .. } => "this GARM",
                PauseScope::Set { .. } => "this set",
            };
            let end = until.map_or_else(String::new, |until| format!(", or {}", until.full()));
            (format!("{what} paused by {}: {}", pause.author, pause.reason), format!("resumed{end}"))
        }
        GuardFact::CauseNotResolved => fixed(
            "the cause of the failed start is not known to be resolved",
            "an endpoint that answers, a credential that works, quota left",
        ),
        GuardFact::Quota { remaining, reserve } => (
            format!("{remaining} calls of the credential's quota left"),
            format!("more than the {reserve} that are reserved for GARM"),
        ),
        GuardFact::Lease { holder, ends } => (
            format!("{holder} holds it, until {ends} if it does not renew it"),
            "the lease, once the other instance is gone".to_owned(),
        ),
        GuardFact::Store { why } => fixed(why, "a store that can be read and written"),
        GuardFact::EntityStarting => {
            fixed("GARM is still starting the sets of its entity", "GARM reads changes only after it started every set")
        }
        GuardFact::EntityLimit { waiting, limit } => (
            format!("{waiting} of {limit} sets of its entity wait for their workers"),
            format!("{limit} at once: GARM starts an entity's workers one after another, and drops changes that wait"),
        ),
        GuardFact::LeftDisabled { set, disabled_for, limit } => {
            (format!("set {set} disabled by us for {disabled_for}"), limit.to_string())
        }
        GuardFact::Undated => {
            fixed("GARM's list has no `updated_at`", "a GARM that dates changes, or policy.allow_undated")
        }
        GuardFact::Bound { of, count, limit } => {
            (format!("{count} {}", bounded(*of)), format!("{limit} {}", bounded(*of)))
        }
    }
}

fn frozen(reason: &FrozenReason) -> String {
    match reason {
        FrozenReason::ManagerDown => "GARM is down".to_owned(),
        FrozenReason::ManagerUnreachable => "GARM cannot be asked".to_owned(),
        FrozenReason::EndpointDown { endpoint } => format!("{endpoint} does not answer"),
        FrozenReason::EndpointLimited { endpoint } => format!("the quota at {endpoint} is used up"),
        FrozenReason::SourcesBlind => "most sources cannot be read".to_owned(),
    }
}

const fn bounded(of: Bounded) -> &'static str {
    match of {
        Bounded::HealsOfSet => "heals of the set in a day",
        Bounded::HealsOfManager => "heals of GARM in an hour",
        Bounded::SessionChecksOfSet => "session checks of the set in a day",
        Bounded::InFlight => "open treatments",
    }
}

/// 1st, 2nd, 3rd, 4th, …, 11th.
fn ordinal(number: usize) -> String {
    let end = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        (_, _) => "th",
    };
    format!("{number}{end}")
}

/// What a policy allows at the most, a sentence a line.
pub fn bounds(bounds: &Bounds) -> String {
    let heals = bounds.heals_per_set_and_day;
    let writes = heals.saturating_mul(bounds.writes_per_heal);
    let share = match bounds.in_flight_per_thousand {
        0 => String::new(),
        share => format!(" (or {}.{} % of the sets, if that is more)", share / 10, share % 10),
    };
    format!(
        "At most {heals} heals of one set in a day ({writes} writes, retries aside), {} if it recovers for long enough \
         in between.\n\
         At most {} session checks of one set in a day.\n\
         At most {} open treatments{share}, one until the first worker has restarted, and {} heals in an hour.\n\
         A set is disabled by us for at most {} and one sweep while GARM answers; if it refuses the enable for \
         longer, no other set is disabled.",
        bounds.heals_per_set_and_day_with_recoveries,
        bounds.session_checks_per_set_and_day,
        bounds.in_flight,
        bounds.heals_per_hour,
        bounds.disabled_for,
    )
}

pub const fn not_stale(reason: NotStale) -> &'static str {
    match reason {
        NotStale::NotInLedger => "its session was never seen, so its id is not known",
        NotStale::Ended => "the last session that was seen has ended",
        NotStale::OpenedByUs => "a session check of ours opened it, and deletes it",
        NotStale::OpeningRunUnknown => "it is not known which run of GARM opened it",
        NotStale::CurrentRunUnknown => "the start of this run of GARM is not known",
        NotStale::SameRun => "this run of GARM opened it: it is in use",
        NotStale::LaterRun => "a later run of GARM than this one opened it",
        NotStale::RunsTooClose => "the run of GARM that opened it and this one may be the same",
        NotStale::OpenedTooLate => "it was first seen too close to the start of this run of GARM",
        NotStale::AliveAfterStart => "it was seen alive after the start of this run of GARM: another process holds it",
        NotStale::ManagerDown => "GARM does not answer, so nothing shows that its process is a new one",
        NotStale::OwnerUnknown => "the name under which GARM opens sessions is not known",
        NotStale::OwnerDiffers => "another owner opened it",
        NotStale::OtherSet => "it belongs to another set",
        NotStale::OtherPlace => "the set was recreated or moved at GitHub, or its place is not known",
    }
}

/// Why no session can be deleted at all.
pub const NO_CREDENTIAL: &str = "no GitHub credential is configured, so nothing can be deleted";

pub fn breaker(breaker: Breaker) -> Option<String> {
    match breaker {
        Breaker::Closed { .. } => None,
        Breaker::Open { since, half_open } => {
            Some(format!("treatments did not help, the last at {since}; one trial is let through at {half_open}"))
        }
        Breaker::HalfOpen { since } => Some(format!("treatments did not help since {since}; one trial may start")),
        Breaker::Trial { since } => Some(format!("treatments did not help since {since}; one trial is under way")),
    }
}

/// Why a manual heal is not carried out.
pub fn refusal(why: &Refusal) -> String {
    match why {
        Refusal::SetNotShown => "GARM does not show the set".to_owned(),
        Refusal::SetDisabled => "an operator disabled the set; enable it in GARM, and it starts".to_owned(),
        Refusal::ListenerRuns => "its listener runs: interrupting it could crash GARM".to_owned(),
        Refusal::Listens => "it listens: there is nothing to heal".to_owned(),
        Refusal::NothingToDo => "there is nothing to do".to_owned(),
        Refusal::ToggleUseless(diagnosis) => format!(
            "a toggle does not help a set that is {diagnosis}; `explain` shows what does, and `--session ID` deletes a \
             session that you know to be stale"
        ),
        Refusal::NoCredential => {
            "no GitHub credential of ours covers the set; configure one under [[github]]".to_owned()
        }
        Refusal::IncarnationUnknown => {
            "the start of this run of GARM is not known, so its sessions cannot be distinguished from older ones"
                .to_owned()
        }
        Refusal::ManagerDown => not_stale(NotStale::ManagerDown).to_owned(),
        Refusal::NotStale { session, against } => {
            let against: Vec<_> = against.iter().copied().map(not_stale).collect();
            format!("session {session} is not deleted: {}", against.join("; "))
        }
        Refusal::NoConflictSeen(diagnosis) => format!(
            "the set is {diagnosis}, and nothing shows that GARM was refused a session: it may hold this one, and \
             deleting that would crash GARM"
        ),
        Refusal::Withdrawn => "it was withdrawn".to_owned(),
    }
}

pub fn manual_wait(why: &ManualWait) -> String {
    match why {
        ManualWait::Begins => "it begins".to_owned(),
        ManualWait::BlockedBy(blocks) => {
            let blocks: Vec<_> =
                blocks.iter().map(|block| format!("{}: {}", block.guard(), shown(block).value)).collect();
            blocks.join("; ")
        }
        ManualWait::Unclear(diagnosis) => format!("the set is {diagnosis} so far"),
    }
}

/// `by alice until 16:19:04: upgrade`, `by alice, while the file exists: upgrade`.
pub fn pause_terms(pause: &Pause, now: Wall) -> String {
    let end = match pause.expires {
        Some(end) => format!(" until {}", end.near(now)),
        None if pause.id == PauseId::FILE => ", while the file exists".to_owned(),
        None => " until resumed".to_owned(),
    };
    format!("by {}{end}: {}", pause.author, pause.reason)
}

pub fn how_to_end(pause: &Pause) -> String {
    if pause.id == PauseId::FILE {
        return "remove the file `pause` from the state directory".to_owned();
    }
    match &pause.scope {
        PauseScope::All => "scaleset-medic resume".to_owned(),
        PauseScope::Manager { manager } => format!("scaleset-medic resume --manager {manager}"),
        PauseScope::Set { manager, set } => format!("scaleset-medic resume --manager {manager} --set {set}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::{EndpointName, ManagerName, ScaleSetId, Span, TreatmentId};

    #[test]
    fn ordinals_are_english() {
        let ordinals = [1, 2, 3, 4, 11, 12, 13, 21, 22, 103, 111].map(ordinal);
        let expected = ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "103rd", "111th"];
        assert_eq!(ordinals, expected.map(str::to_owned));
    }

    #[test]
    fn facts_read_as_value_and_limit() {
        let (minute, five, start) = (Span::mins(1), Span::mins(5), Wall(3_600_000));
        let scope = PauseScope::Set { manager: ManagerName::new("garm"), set: ScaleSetId(1) };
        let (reason, author) = ("moving".to_owned(), "alice".to_owned());
        let pause = Pause { id: PauseId(1), scope, reason, author, created: start, expires: None };
        let endpoint = EndpointName::new("github.com");
        let reasons = vec![FrozenReason::ManagerDown, FrozenReason::EndpointLimited { endpoint }];
        for (fact, value, limit) in [
            (
                GuardFact::Settle { age: Some(Span::secs(12)), needed: Span::secs(20), crash_loop: false },
                "12 s of 20 s",
                "20 s after GARM's start",
            ),
            (
                GuardFact::Backoff { passed: minute, wait: five, treatment: TreatmentId(7), treatments: 1 },
                "1 min of 5 min since treatment #7",
                "5 min after the 1st treatment of this set",
            ),
            (
                GuardFact::SessionCheckBackoff { passed: minute, wait: five, last_failed: true },
                "1 min of 5 min since the last session check failed",
                "5 min between session checks",
            ),
            (
                GuardFact::InFlight { open: 10, limit: 10, most: 20 },
                "10 of 10 open",
                "10 at once, up to 20 as workers restart",
            ),
            (GuardFact::InFlight { open: 10, limit: 10, most: 10 }, "10 of 10 open", "10 at once"),
            (GuardFact::SetBudget { used: 3, budget: 3, window: Span::hours(24) }, "3 of 3 in 24 h", "3 in 24 h"),
            (
                GuardFact::Frozen { reasons },
                "GARM is down, the quota at github.com is used up",
                "GARM, an endpoint and sources that answer",
            ),
            (GuardFact::Paused { pause }, "this set paused by alice: moving", "resumed, or 1970-01-01 01:30:00"),
            (
                GuardFact::Lease { holder: "medic-2/7".to_owned(), ends: start },
                "medic-2/7 holds it, until 01:00:00 if it does not renew it",
                "the lease, once the other instance is gone",
            ),
            (
                GuardFact::LeftDisabled { set: ScaleSetId(7), disabled_for: five, limit: minute },
                "set 7 disabled by us for 5 min",
                "1 min",
            ),
        ] {
            let shown = shown(&fact.until(Some(start.plus(Span::mins(30)))));
            assert_eq!((shown.value.as_str(), shown.limit.as_str()), (value, limit));
        }
    }

    #[test]
    fn refused_deletion_lists_every_reason() {
        let session = medic_core::model::SessionId::new("s-1");
        let against = vec![NotStale::SameRun, NotStale::Ended];
        assert_eq!(
            refusal(&Refusal::NotStale { session, against }),
            "session s-1 is not deleted: this run of GARM opened it: it is in use; the last session that was seen has \
             ended"
        );
    }
}
