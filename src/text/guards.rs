//! What blocks a remedy, a deletion or a manual heal, and what a policy allows at the most, in words.

use crate::status::{ShownDecision, ShownGuard};
use medic_core::decide::Bounds;
use medic_core::model::session::NotStale;
use medic_core::model::{
    BlockedBy, Bounded, Decision, FrozenReason, GuardFact, ManualWait, Pause, PauseId, PauseScope, Refusal, Wall,
};

/// A decision as people read it.
#[must_use]
pub fn decision(decision: Decision) -> ShownDecision {
    decision.map_guards(|block| shown(&block))
}

#[must_use]
pub fn shown(block: &BlockedBy) -> ShownGuard {
    ShownGuard {
        guard: block.guard(),
        value: value(&block.fact),
        limit: limit(&block.fact, block.until),
        until: block.until,
    }
}

/// What a guard sees.
fn value(fact: &GuardFact) -> String {
    match fact {
        GuardFact::DryRun => "mode is observe".to_owned(),
        GuardFact::Settle { age: Some(age), needed, .. } => format!("{age} of {needed}"),
        GuardFact::Settle { age: None, .. } => "just restarted, its age is not known".to_owned(),
        GuardFact::Unconfirmed { sweeps, needed } => format!("{sweeps} of {needed} sweeps"),
        GuardFact::WeakEvidence => "weak evidence".to_owned(),
        GuardFact::Canary { set } => format!("set {set} is treated first and has shown no life yet"),
        GuardFact::InFlight { open, limit, .. } => format!("{open} of {limit} open"),
        GuardFact::SessionCheckOpen => "1 of 1 session checks open".to_owned(),
        GuardFact::SetBudget { used, budget, window } | GuardFact::ManagerBudget { used, budget, window } => {
            format!("{used} of {budget} in {window}")
        }
        GuardFact::Backoff { passed, wait, treatment, .. } => {
            format!("{passed} of {wait} since treatment #{treatment}")
        }
        GuardFact::SessionCheckBackoff { passed, wait, last_failed } => {
            let failed = if *last_failed { " failed" } else { "" };
            format!("{passed} of {wait} since the last session check{failed}")
        }
        GuardFact::BreakerOpen { since, after, .. } => {
            format!("open since {since}: {after} treatments in a row did not help")
        }
        GuardFact::BreakerTrial { since, after } => {
            format!("open since {since}: {after} treatments in a row did not help; one trial is open")
        }
        GuardFact::GithubFault => "several entities fail at once: a fault at GitHub".to_owned(),
        GuardFact::UnexplainedConflicts { entities } => {
            format!("sets of {entities} entities conflict, and no restart of GARM explains it")
        }
        GuardFact::Frozen { reasons } => reasons.iter().map(frozen).collect::<Vec<_>>().join(", "),
        GuardFact::Paused { pause } => {
            let what = match pause.scope {
                PauseScope::All => "everything",
                PauseScope::Manager { .. } => "this manager",
                PauseScope::Set { .. } => "this set",
            };
            format!("{what} paused by {}: {}", pause.author, pause.reason)
        }
        GuardFact::CauseNotResolved => "the cause of the failed start is not known to be resolved".to_owned(),
        GuardFact::Quota { remaining, .. } => format!("{remaining} calls of the credential's quota left"),
        GuardFact::Lease { holder, ends } => format!("{holder} holds it, until {ends} if it does not renew it"),
        GuardFact::Store { why } => why.clone(),
        GuardFact::EntityStarting => "GARM is still starting the sets of its entity".to_owned(),
        GuardFact::EntityLimit { waiting, limit } => {
            format!("{waiting} of {limit} sets of its entity wait for their workers")
        }
        GuardFact::LeftDisabled { set, disabled_for, .. } => format!("set {set} disabled by us for {disabled_for}"),
        GuardFact::Undated => "GARM's list has no `updated_at`".to_owned(),
        GuardFact::Bound { of, count, .. } => format!("{count} {}", bounded(*of)),
    }
}

/// What a guard asks for.
fn limit(fact: &GuardFact, until: Option<Wall>) -> String {
    match fact {
        GuardFact::DryRun => "mode heal".to_owned(),
        GuardFact::Settle { needed, crash_loop, .. } => {
            let why = if *crash_loop { ", because it keeps crashing" } else { "" };
            format!("{needed} after GARM's start{why}")
        }
        GuardFact::Unconfirmed { needed, .. } => format!("{needed} sweeps"),
        GuardFact::WeakEvidence => "strong evidence, or proof".to_owned(),
        GuardFact::Canary { .. } => "the first treated set tries again or listens".to_owned(),
        GuardFact::InFlight { limit, most, .. } if limit < most => {
            format!("{limit} at once, up to {most} as sets show life")
        }
        GuardFact::InFlight { limit, .. } => format!("{limit} at once"),
        GuardFact::SessionCheckOpen => "1 session check at once".to_owned(),
        GuardFact::SetBudget { budget, window, .. } | GuardFact::ManagerBudget { budget, window, .. } => {
            format!("{budget} in {window}")
        }
        GuardFact::Backoff { wait, treatments, .. } => {
            format!("{wait} after the {} treatment of this set", ordinal(*treatments))
        }
        GuardFact::SessionCheckBackoff { wait, .. } => format!("{wait} between session checks"),
        GuardFact::BreakerOpen { half_open, .. } => format!("a reset, or one trial from {half_open}"),
        GuardFact::BreakerTrial { .. } => "a reset, or the trial's recovery".to_owned(),
        GuardFact::GithubFault | GuardFact::UnexplainedConflicts { .. } => {
            "conflicts in 1 entity only, or a restart that explains them".to_owned()
        }
        GuardFact::Frozen { .. } => "GARM, an endpoint and sources that answer".to_owned(),
        GuardFact::Paused { .. } => {
            until.map_or_else(|| "resumed".to_owned(), |until| format!("resumed, or {}", until.full()))
        }
        GuardFact::CauseNotResolved => "an endpoint that answers, a credential that works, quota left".to_owned(),
        GuardFact::Quota { reserve, .. } => format!("more than the {reserve} that are reserved for GARM"),
        GuardFact::Lease { .. } => "the lease, once the other instance is gone".to_owned(),
        GuardFact::Store { .. } => "a store that can be read and written".to_owned(),
        GuardFact::EntityStarting => "GARM reads changes only after it started every set".to_owned(),
        GuardFact::EntityLimit { limit, .. } => {
            format!("{limit} at once: GARM starts an entity's workers one after another, and drops changes that wait")
        }
        GuardFact::LeftDisabled { limit, .. } => limit.to_string(),
        GuardFact::Undated => "a GARM that dates changes, or policy.allow_undated".to_owned(),
        GuardFact::Bound { of, limit, .. } => format!("{limit} {}", bounded(*of)),
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
#[must_use]
pub fn bounds(bounds: &Bounds) -> String {
    let heals = bounds.heals_per_set_and_day;
    let writes = heals.saturating_mul(bounds.writes_per_heal);
    let share = match bounds.in_flight_per_thousand {
        0 => String::new(),
        share => format!(" (or {}.{} % of the sets, if that is more)", share / 10, share % 10),
    };
    format!(
        "At most {heals} heals of one set in a day ({writes} writes, retries aside), {} if it recovers for long enough in \
         between.\n\
         At most {} session checks of one set in a day.\n\
         At most {} open treatments{share}, one before the first has shown life, and {} heals in an hour.\n\
         A set is disabled by us for at most {} and one sweep while GARM answers; if it refuses the enable for \
         longer, no other set is disabled.",
        bounds.heals_per_set_and_day_with_recoveries,
        bounds.session_checks_per_set_and_day,
        bounds.in_flight,
        bounds.heals_per_hour,
        bounds.disabled_for,
    )
}

/// Why a session is not deleted.
#[must_use]
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

/// Why a manual heal is not carried out.
#[must_use]
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
            "the start of this run of GARM is not known, so its sessions cannot be told from older ones".to_owned()
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

/// What a manual heal waits for.
#[must_use]
pub fn manual_wait(why: &ManualWait) -> String {
    match why {
        ManualWait::Begins => "it begins".to_owned(),
        ManualWait::BlockedBy(blocks) => {
            let blocks: Vec<_> =
                blocks.iter().map(|block| format!("{}: {}", block.guard(), value(&block.fact))).collect();
            blocks.join("; ")
        }
        ManualWait::Unclear(diagnosis) => format!("the set is {diagnosis} so far"),
    }
}

/// `by alice until 16:19:04: upgrade`, `by alice, while the file exists: upgrade`.
#[must_use]
pub fn pause_terms(pause: &Pause, now: Wall) -> String {
    let end = match pause.expires {
        Some(end) => format!(" until {}", end.near(now)),
        None if pause.id == PauseId::FILE => ", while the file exists".to_owned(),
        None => " until resumed".to_owned(),
    };
    format!("by {}{end}: {}", pause.author, pause.reason)
}

/// What an operator does to end a pause.
#[must_use]
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
    use medic_core::decide;
    use medic_core::model::{EndpointName, ManagerName, ScaleSetId, Span, TreatmentId};
    use medic_core::policy::Policy;

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
                "10 at once, up to 20 as sets show life",
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
    fn default_bounds_read_as_sentences() {
        assert_eq!(
            bounds(&decide::bounds(&Policy::default())),
            "At most 3 heals of one set in a day (9 writes, retries aside), 72 if it recovers for long enough in between.\n\
             At most 1440 session checks of one set in a day.\n\
             At most 10 open treatments (or 5.0 % of the sets, if that is more), one before the first has shown life, and \
             1000 heals in an hour.\n\
             A set is disabled by us for at most 2 min and one sweep while GARM answers; if it refuses the enable \
             for longer, no other set is disabled."
        );
    }

    #[test]
    fn refused_deletion_lists_every_reason() {
        let session = medic_core::model::SessionId::new("s-1");
        let against = vec![NotStale::SameRun, NotStale::Ended];
        assert_eq!(
            refusal(&Refusal::NotStale { session, against }),
            "session s-1 is not deleted: this run of GARM opened it: it is in use; the last session that was seen has ended"
        );
    }
}
