//! Findings, evidence and decisions in plain sentences, for the page and the command line. Dates are UTC.

use crate::status::{LeftDisabled, ManagerStatus, SetStatus, ShownDecision, ShownGuard, Status, TreatmentSummary};
use crate::text::{guards, sources};
use medic_core::model::{
    Confidence, Decision, Diagnosis, Enablement, EndpointState, Escalation, Evidence, Fact, Guard, ManagerState,
    OpenStep, Outcome, Pause, PauseScope, Remedy, RemedyKind, RestartKind, Span, TreatmentId, TreatmentState, Waiting,
    Wall,
};
use std::fmt::Write as _;

/// The fleet in one sentence, without its full stop.
pub fn verdict(status: &Status) -> String {
    let sets = || status.managers.iter().flat_map(|manager| &manager.sets);
    let all = sets().count();
    let ill = sets().filter(|set| set.finding.diagnosis.is_ill()).count();
    let unseen = sets().filter(|set| set.finding.diagnosis == Diagnosis::Unknown).count();
    let away =
        status.managers.iter().filter(|m| matches!(m.state, ManagerState::Down | ManagerState::Unreachable)).count();
    let mut parts = Vec::new();
    if ill > 0 {
        parts.push(format!("{ill} of {all} scale sets {} no jobs", if ill == 1 { "receives" } else { "receive" }));
    }
    if unseen > 0 {
        parts.push(format!("{unseen} of {all} scale sets cannot be judged"));
    }
    if away > 0 {
        let of = status.managers.len().saturating_add(status.not_swept_yet.len());
        parts.push(format!("{away} of {of} GARMs cannot be reached"));
    }
    let waiting = status.not_swept_yet.len();
    if waiting > 0 {
        let of = status.managers.len().saturating_add(waiting);
        parts.push(format!("{waiting} of {of} GARMs {} not swept yet", if waiting == 1 { "is" } else { "are" }));
    }
    let summary = match (parts.is_empty(), all) {
        (false, _) => parts.join(", "),
        (true, 0) => "There are no scale sets".to_owned(),
        (true, 1) => "The scale set is healthy".to_owned(),
        (true, _) => format!("All {all} scale sets are healthy"),
    };
    let pauses = || status.managers.iter().flat_map(|manager| &manager.pauses);
    if pauses().any(|pause| pause.scope == PauseScope::All) {
        format!("{summary}; healing is paused")
    } else if pauses().next().is_some() {
        format!("{summary}; healing is paused in part")
    } else {
        summary
    }
}

/// A pause of a manager or of one of its sets: what, by whom, until when, why.
pub fn pause(pause: &Pause, manager: &ManagerStatus, now: Wall) -> String {
    let what = match &pause.scope {
        PauseScope::All | PauseScope::Manager { .. } => pause.scope.to_string(),
        PauseScope::Set { set, .. } => match manager.sets.iter().find(|shown| shown.id == *set) {
            Some(shown) => format!("scale set {} ({set})", shown.name),
            None => format!("scale set {set}, which GARM does not show"),
        },
    };
    format!("healing of {what} is paused {}", guards::pause_terms(pause, now))
}

pub const fn diagnosis(diagnosis: Diagnosis) -> &'static str {
    match diagnosis {
        Diagnosis::Listening => "a listener holds a session and polls",
        Diagnosis::Disabled => "an operator disabled it",
        Diagnosis::DisabledByMedic => "a treatment has disabled it temporarily",
        Diagnosis::Settling => "GARM has just started",
        Diagnosis::ConflictRetrying => "GitHub refuses a session, GARM retries",
        Diagnosis::ConflictAbandoned => "GitHub refused a session, GARM has given up",
        Diagnosis::StartAbandoned => "its first start failed, GARM has given up",
        Diagnosis::Unheld => "no session: enabled, but nothing listens or retries",
        Diagnosis::HeldElsewhere => "session held by another controller",
        Diagnosis::Flapping => "session reopened in a loop",
        Diagnosis::Evicted => "session lost: GitHub forgot it while the listener runs",
        Diagnosis::Mismatched => "id mismatch: GitHub has it under another id",
        Diagnosis::Deaf => "listener stalled: it runs, but no poll completes",
        Diagnosis::Starved => "jobs assigned but no runners",
        Diagnosis::Missing => "GitHub does not know it",
        Diagnosis::Unauthorized => "credentials are refused",
        Diagnosis::Unknown => "not enough can be seen",
    }
}

pub const fn manager_state(state: ManagerState) -> &'static str {
    match state {
        ManagerState::Up => "up",
        ManagerState::Restarted => "up, just restarted",
        ManagerState::Down => "down",
        ManagerState::Unreachable => "cannot be asked",
    }
}

/// What an endpoint does, after its name.
pub const fn endpoint_state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Up => "answers",
        EndpointState::Degraded => "answers only in part",
        EndpointState::Down => "does not answer",
        EndpointState::Limited => "refuses requests until its rate limit resets",
    }
}

pub const fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Weak => "one indirect sign",
        Confidence::Strong => "several signs agree",
        Confidence::Proof => "seen directly",
    }
}

pub fn dated(at: Wall, now: Wall) -> String {
    format!("{} ({})", at.near(now), ago(at, now))
}

pub fn ago(at: Wall, now: Wall) -> String {
    let age = now.since(at);
    if age < Span::secs(1) { "just now".to_owned() } else { format!("{age} ago") }
}

/// Since when a set is healthy again, or when it was last unhealthy; nothing while it does not listen.
pub fn recovered(set: &SetStatus, date: impl Fn(Wall) -> String) -> Option<String> {
    let last = set.recovered.filter(|_| set.finding.diagnosis.is_well())?;
    let (at, ill_for) = (date(last.at), last.at.since(last.ill_since));
    Some(if is_well_since(set, last.at) {
        format!("healthy again since {at}, after {ill_for}")
    } else {
        format!("last unhealthy until {at}, for {ill_for}")
    })
}

/// Whether a set has listened all the time since `at`, as far as it was seen.
fn is_well_since(set: &SetStatus, at: Wall) -> bool {
    set.finding.diagnosis.is_well() && set.finding.since <= at
}

/// Since when a whole manager is healthy again; nothing while any of its sets is not.
pub fn well_again(manager: &ManagerStatus, date: impl Fn(Wall) -> String) -> Option<String> {
    let all = manager.sets.len();
    let back: Vec<_> =
        manager.sets.iter().filter_map(|set| set.recovered.filter(|last| is_well_since(set, last.at))).collect();
    let since = back.iter().map(|last| last.at).max()?;
    let longest = back.iter().map(|last| last.at.since(last.ill_since)).max().unwrap_or_default();
    manager.sets.iter().all(SetStatus::is_healthy).then(|| {
        format!(
            "healthy again since {}: {} of {all} scale sets had been unhealthy, for up to {longest}",
            date(since),
            back.len()
        )
    })
}

/// How long a stale session lasts, where the set waits for its end: as measured here, else as usual.
pub fn stale_lasts(set: &SetStatus, measured: Option<&str>) -> Option<String> {
    let usual = "GitHub usually forgets a stale session within 90 s";
    (set.finding.diagnosis == Diagnosis::ConflictRetrying).then(|| measured.unwrap_or(usual).to_owned())
}

/// A treatment by its number in the journal.
pub fn treatment(id: TreatmentId) -> String {
    format!("treatment #{id}")
}

pub fn budget(set: &SetStatus) -> String {
    let left = set.budget_remaining;
    match set.budget {
        Some(all) => format!("{left} of {} treatments in {} left for this set", all.treatments, all.window),
        None => format!("{left} treatment{} left for this set", if left == 1 { "" } else { "s" }),
    }
}

/// How GARM's previous run ended.
pub const fn restart(kind: RestartKind) -> &'static str {
    match kind {
        RestartKind::Clean => "after a clean shutdown",
        RestartKind::Crash => "after a crash: it left its sessions behind",
    }
}

/// A remedy's name, with the session that it deletes.
pub fn remedy_name(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Toggle => "toggle".to_owned(),
        Remedy::DeleteSession { session } => format!("deletion of stale session {session}"),
        Remedy::DeleteThenToggle { session } => format!("deletion of stale session {session} and toggle"),
        Remedy::SessionCheck => "session check".to_owned(),
    }
}

pub const fn remedy(remedy: RemedyKind) -> &'static str {
    match remedy {
        RemedyKind::Toggle => "disable and enable it",
        RemedyKind::DeleteSession => "delete its stale session",
        RemedyKind::DeleteThenToggle => "delete its stale session, then disable and enable it",
        RemedyKind::SessionCheck => "ask GitHub for a session, to see whether it is held",
    }
}

/// The step or outcome of a treatment.
pub const fn step(state: TreatmentState) -> &'static str {
    match state {
        TreatmentState::Open(OpenStep::Deleting) => "deleting the stale session",
        TreatmentState::Open(OpenStep::Disabling) => "disabling the set",
        TreatmentState::Open(OpenStep::DisableUnknown) => "no answer to the disable request; reading the set back",
        TreatmentState::Open(OpenStep::Disabled) => "disabled; enabled again once its worker is seen",
        TreatmentState::Open(OpenStep::Enabling) => "enabling the set again",
        TreatmentState::Open(OpenStep::Verifying) => "waiting for the listener to come back",
        TreatmentState::Open(OpenStep::CheckOpening) => "asking GitHub for a session",
        TreatmentState::Open(OpenStep::CheckOpened) => "no session was held; deleting ours",
        TreatmentState::Ended(Outcome::SelfRecovered) => "recovered without a remedy",
        TreatmentState::Ended(Outcome::Unverified) => "the listener did not come back in time",
        TreatmentState::Ended(Outcome::Aborted) => "aborted: changed by somebody else",
        TreatmentState::Ended(Outcome::Failed) => "refused, and nothing was changed",
        TreatmentState::Ended(Outcome::Held) => "a session is held",
        TreatmentState::Ended(Outcome::Unheld) => "no session was held",
        TreatmentState::Ended(Outcome::Recovered) => "recovered",
    }
}

/// As [`step`], with the number of tries and the last answer.
pub fn progress(row: &TreatmentSummary, now: Wall) -> String {
    let mut words = step(row.state).to_owned();
    if let Some(answer) = &row.answer {
        let times = if row.tries == 1 { "once" } else { "times" };
        let tries = if row.tries == 1 { times.to_owned() } else { format!("{} {times}", row.tries) };
        let _ = write!(words, "; tried {tries}, the last answer: {answer}");
        if let Some(next) = row.next_try.filter(|next| *next > now) {
            let _ = write!(words, "; next try in {}", next.since(now));
        }
    }
    words
}

/// A set that we disabled and cannot enable, and what the operator can do.
pub fn left_disabled(left: &LeftDisabled, now: Wall) -> String {
    let answer = match &left.answer {
        Some(answer) => format!("every enable fails ({} tries; the last answer: {answer})", left.tries),
        None => "GARM cannot be asked to enable it".to_owned(),
    };
    format!("we disabled it {} ago, and {answer}; enable it by hand", now.since(left.since))
}

pub const fn state(set: &SetStatus) -> &'static str {
    if set.left_disabled.is_some() {
        "a treatment disabled it and cannot enable it again"
    } else {
        diagnosis(set.finding.diagnosis)
    }
}

/// A decision in a sentence, with its guards as `guard` writes them.
pub fn decision(decision: &ShownDecision, now: Wall, guard: impl Fn(&ShownGuard) -> String) -> String {
    match decision {
        Decision::Leave => "nothing to do".to_owned(),
        Decision::Watch { waiting, until } => {
            let until = until.map_or_else(String::new, |until| format!(", until {}", until.near(now)));
            format!("waiting: {}{until}", self::waiting(*waiting))
        }
        Decision::Escalate { escalation } => format!("needs an operator: {}", self::escalation(escalation)),
        Decision::Blocked { remedy, guards } => {
            let guards: Vec<_> = guards.iter().map(guard).collect();
            format!("{} blocked by {}", remedy_name(remedy), guards.join("; "))
        }
        Decision::Treat { remedy, canary } => {
            format!("{} is due{}", remedy_name(remedy), if *canary { " (canary)" } else { "" })
        }
        Decision::Treating { treatment } => format!("{} is under way", self::treatment(*treatment)),
    }
}

/// What is done about a set: its decision, with what else is known of the set.
pub fn action(set: &SetStatus, now: Wall, guard: impl Fn(&ShownGuard) -> String) -> String {
    let words = decision(&set.decision, now, guard);
    match &set.decision {
        Decision::Leave if set.enabled == Enablement::Disabled => "left alone: disabled by an operator".to_owned(),
        Decision::Leave => match recovered(set, |at| dated(at, now)) {
            Some(again) => format!("{words}; {again}"),
            None => words,
        },
        Decision::Treating { treatment } => match set.treatments.iter().find(|row| row.id == *treatment) {
            Some(row) => format!("{words}: {}", progress(row, now)),
            None => words,
        },
        Decision::Watch { .. } | Decision::Escalate { .. } | Decision::Blocked { .. } | Decision::Treat { .. } => words,
    }
}

/// A decision without what changes from one reconcile to the next: equal labels, no news.
pub fn label(decision: &Decision) -> String {
    match decision {
        Decision::Leave => "leave".to_owned(),
        Decision::Watch { waiting, .. } => format!("watch: {waiting}"),
        Decision::Escalate { escalation } => format!("escalate: {}", escalation.as_str()),
        Decision::Blocked { remedy, guards } => {
            let guards: Vec<_> = guards.iter().map(|blocked| blocked.guard().as_str()).collect();
            format!("blocked {}: {}", remedy.kind(), guards.join(", "))
        }
        Decision::Treat { remedy, canary: true } => format!("treat: {} (canary)", remedy.kind()),
        Decision::Treat { remedy, canary: false } => format!("treat: {}", remedy.kind()),
        Decision::Treating { treatment } => format!("treating: {}", self::treatment(*treatment)),
    }
}

/// A guard by its label in the metrics, with its meaning and what it sees.
pub fn guard_briefly(held: &ShownGuard) -> String {
    format!("{}: {} ({})", held.guard, guard(held.guard), held.value)
}

/// As [`guard_briefly`], with its limit and when it stops blocking.
pub fn guard_in_full(held: &ShownGuard, now: Wall) -> String {
    let until = held.until.map_or_else(String::new, |until| {
        let wait = if until > now { format!(", in {}", until.since(now)) } else { String::new() };
        format!("; passes at {}{wait}", until.near(now))
    });
    format!("{}: {} ({}; limit: {}{until})", held.guard, guard(held.guard), held.value, held.limit)
}

pub const fn guard(guard: Guard) -> &'static str {
    match guard {
        Guard::DryRun => "mode is observe",
        Guard::Settle => "GARM is within its grace period after a start",
        Guard::Confirmation => "more sweeps must agree",
        Guard::Canary => "the first treatment of this incident must succeed",
        Guard::InFlight => "limit of concurrent treatments reached",
        Guard::SetBudget => "heal budget of this scale set exhausted",
        Guard::Backoff => "this set was treated too recently",
        Guard::ManagerBudget => "hourly heal budget of this GARM exhausted",
        Guard::Breaker => "the circuit breaker is open",
        Guard::BlastRadius => "several entities conflict without a restart: a fault at GitHub",
        Guard::Frozen => "frozen: not enough can be seen",
        Guard::Paused => "an operator paused healing",
        Guard::CauseNotResolved => "the cause is not known to be resolved",
        Guard::Quota => "the remaining GitHub quota is reserved for GARM",
        Guard::Lease => "another medic holds the lease",
        Guard::Store => "the medic's store fails",
        Guard::EntityLimit => "other sets of its entity are starting",
        Guard::LeftDisabled => "a set that we disabled cannot be enabled again",
        Guard::Undated => "GARM does not date changes, so an operator's change looks like ours",
        Guard::Bound => "this would break a bound: please report this bug",
    }
}

pub const fn waiting(waiting: Waiting) -> &'static str {
    match waiting {
        Waiting::Settling => "GARM has just started",
        Waiting::StaleSession => "a stale session to end, usually within 90 s",
        Waiting::StaleSessionOdd => "a stale session to end, which takes unusually long",
        Waiting::Evidence => "more evidence",
        Waiting::Treatment => "the treatment under way",
    }
}

/// What the operator must repair, and the first step.
pub fn escalation(escalation: &Escalation) -> String {
    let words = match escalation {
        Escalation::HeldElsewhere { owner, run } => {
            let who = owner.as_ref().map_or("another controller", |owner| owner.as_str());
            return format!("{who} has held its session for {run}; stop one of the two controllers");
        }
        Escalation::EndpointFault => "several entities conflict at once; check GitHub's status page",
        Escalation::Missing => "the set is gone at GitHub; restart GARM, which creates it again, or remove it",
        Escalation::Mismatched => "GitHub has a set of this name under another id; remove one of them",
        Escalation::Unauthorized => "credentials are refused; renew them",
        Escalation::Starved => "jobs do not become runners; check the provider and GARM's log",
        Escalation::Deaf => "the listener is stalled; restart GARM when its runners are idle",
        Escalation::Flapping => "the session is reopened in a loop; check GARM's log and GitHub's status page",
        Escalation::Evicted => "GitHub forgot the session; do not disable the set: that would crash GARM",
        Escalation::Unknown => "not enough can be seen; enable more sources",
    };
    words.to_owned()
}

pub fn evidence(evidence: &Evidence) -> String {
    format!("{} {}: {}", evidence.at, sources::text(evidence.source).name, fact(&evidence.fact))
}

const fn sessions(count: u64) -> &'static str {
    if count == 1 { "session" } else { "sessions" }
}

pub fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Enabled => "it is enabled".into(),
        Fact::Disabled => "it is disabled".into(),
        Fact::DisabledByTreatment => "our treatment disabled it".into(),
        Fact::CauseGone => "the cause of the failed start is resolved".into(),
        Fact::NoListenerSeries => "there are listener metrics, but none for this set: its worker never polled".into(),
        Fact::BuildRetries => "this build of GARM retries".into(),
        Fact::RevisionMoved => "the set changed without us: it handled a message, or somebody edited it".into(),
        Fact::GaveUpLine => "its worker gave up".into(),
        Fact::SessionOpenedLine => "it opened a session".into(),
        Fact::WorkerIdleLine => "its worker runs without a listener, because it is disabled".into(),
        Fact::GithubListsSet => "GitHub lists the set".into(),
        Fact::CredentialsRefused => "our credentials are refused".into(),
        Fact::CheckOpened => "a session check succeeded: no session was held".into(),
        Fact::NothingToSee => "no source shows its state".into(),
        Fact::ManagerAge { age } => format!("GARM has been up for {age}"),
        Fact::ManagerUnseen { kind } => format!("GARM cannot be asked ({kind})"),
        Fact::LivingListeners { living, expected } => format!("{living} of {expected} listeners are running"),
        Fact::LivingWorkers { living, expected } => format!("{living} of {expected} workers are running"),
        Fact::SessionsByCounters { open, expected } => format!("{open} of {expected} sessions are open"),
        Fact::CreateErrors { count, flat_for } => {
            format!("GitHub refused {count} {}, and no more for {flat_for}", sessions(*count))
        }
        Fact::CreateErrorsGrow { by, within } => format!("GitHub refused {by} more {} within {within}", sessions(*by)),
        Fact::StartErrors { count } => format!("{count} requests before a session failed: GARM's access to GitHub"),
        Fact::SessionChurn { opened, within } => format!("{opened} sessions were opened within {within}"),
        Fact::LastPoll { ago } => format!("its last poll completed {ago} before"),
        Fact::PollLine { ago } => format!("it polled {ago} before"),
        Fact::UnchangedSince { since } => format!("nothing has changed since {since}"),
        Fact::ConflictLine { owner, run } => {
            let who = owner.as_ref().map_or_else(String::new, |owner| format!(" held by {}", owner.as_str()));
            let run = if *run == Span::ZERO { String::new() } else { format!(", for {run} now") };
            format!("refused: another session{who} is active{run}")
        }
        Fact::ListenerErrorLine { kind } => format!("its listener failed ({kind})"),
        Fact::PoisonMessage { failures } => format!("the same message failed {failures} times"),
        Fact::GithubLacksSet { since } => format!("GitHub has not listed the set since {since}"),
        Fact::GithubOtherId { id } => format!("GitHub lists a set of this name under id {id}"),
        Fact::JobsWait { waiting, since } => format!("{waiting} assigned jobs have waited since {since}"),
        Fact::GithubUnseen { kind } => format!("GitHub cannot be asked ({kind})"),
        Fact::CheckRefused { owner } => {
            let who = owner.as_ref().map_or("another controller", |owner| owner.as_str());
            format!("a session check was refused: {who} holds a session")
        }
        Fact::DeletedInstancesLinger { count } => format!("{count} deleted instances wait for a running worker"),
        Fact::StaleSessionKnown { incarnation } => format!("its stale session is known, of GARM's run {incarnation}"),
        Fact::CannotTellWhich { listening: 0, of } => {
            format!("none of {of} sets listens, and no source shows whether GARM retries")
        }
        Fact::CannotTellWhich { listening, of } => {
            format!("{listening} of {of} sets listen, and no source shows which")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Recovered;
    use crate::text::testing::{self, set};
    use medic_core::model::Owner;

    #[test]
    fn conflict_text_names_owner_and_length_if_known() {
        let conflict = |owner: Option<&str>, run| fact(&Fact::ConflictLine { owner: owner.map(Owner::new), run });
        assert_eq!(conflict(None, Span::ZERO), "refused: another session is active");
        assert_eq!(
            conflict(Some("garm-x"), Span::secs(70)),
            "refused: another session held by garm-x is active, for 1 min 10 s now"
        );
    }

    #[test]
    fn step_text_covers_every_state() {
        let open = OpenStep::ALL.iter().map(|step| TreatmentState::Open(*step));
        for state in open.chain(Outcome::ALL.iter().map(|outcome| TreatmentState::Ended(*outcome))) {
            assert!(!step(state).contains('_'), "{state}");
        }
        let verifying = TreatmentState::Open(OpenStep::Verifying);
        assert_eq!(step(verifying), "waiting for the listener to come back");
    }

    #[test]
    fn blocked_remedy_lists_guards_with_value_limit_and_date() {
        let until = Some(Wall(3_600_000));
        let guards = vec![
            ShownGuard { guard: Guard::Backoff, value: "2 min ago".to_owned(), limit: "5 min".to_owned(), until },
            ShownGuard { guard: Guard::DryRun, value: "observe".to_owned(), limit: "heal".to_owned(), until: None },
        ];
        let blocked = Decision::Blocked { remedy: Remedy::Toggle, guards };
        let at = |now| decision(&blocked, Wall(now), |guard| guard_in_full(guard, Wall(now)));
        assert_eq!(
            at(3_540_000),
            "toggle blocked by backoff: this set was treated too recently (2 min ago; limit: 5 min; passes at \
             01:00:00, in 1 min); dry_run: mode is observe (observe; limit: heal)"
        );
        assert!(at(3_600_000).contains("; passes at 01:00:00);"), "its time has come");
        assert_eq!(
            decision(&blocked, Wall(0), guard_briefly),
            "toggle blocked by backoff: this set was treated too recently (2 min ago); dry_run: mode is observe \
             (observe)"
        );
    }

    #[test]
    fn action_adds_what_is_known_of_the_set() {
        let action = |set: &SetStatus| action(set, Wall(120_000), guard_briefly);
        let mut set = set("listening", &serde_json::json!({"decision": "leave"}));
        assert_eq!(action(&set), "nothing to do");
        set.finding.since = Wall(60_000);
        set.recovered = Some(Recovered { ill_since: Wall(10_000), at: Wall(60_000) });
        assert_eq!(action(&set), "nothing to do; healthy again since 00:01:00 (1 min ago), after 50 s");
        set.enabled = Enablement::Disabled;
        assert_eq!(action(&set), "left alone: disabled by an operator");
        let treating = serde_json::json!({"decision": "treating", "treatment": 4});
        let row =
            r#"{"id":4,"remedy":"toggle","opened":0,"state":"verifying","why":null,"tries":2,"answer":"HTTP 500"}"#;
        let set =
            SetStatus { treatments: vec![serde_json::from_str(row).unwrap()], ..testing::set("unheld", &treating) };
        assert_eq!(
            action(&set),
            "treatment #4 is under way: waiting for the listener to come back; tried 2 times, the last answer: HTTP 500"
        );
    }

    /// A set with this diagnosis since this time, and from when to when it was unhealthy before.
    fn recovered_set(diagnosis: &str, since: u64, before: Option<(u64, u64)>) -> SetStatus {
        let mut set = set(diagnosis, &serde_json::json!({"decision": "leave"}));
        set.finding.since = Wall(since);
        set.recovered = before.map(|(ill_since, at)| Recovered { ill_since: Wall(ill_since), at: Wall(at) });
        set
    }

    #[test]
    fn recovered_set_shows_since_when_and_how_long_it_was_unhealthy() {
        let before = Some((10_000, 60_000));
        for (diagnosis, since, before, expected) in [
            ("listening", 60_000, before, Some("healthy again since 00:01:00 (1 min ago), after 50 s")),
            ("listening", 90_000, before, Some("last unhealthy until 00:01:00 (1 min ago), for 50 s")),
            ("listening", 60_000, None, None),
            ("unknown", 60_000, before, None),
        ] {
            let set = recovered_set(diagnosis, since, before);
            assert_eq!(recovered(&set, |at| dated(at, Wall(120_000))).as_deref(), expected, "{diagnosis}");
        }
    }

    #[test]
    fn manager_is_healthy_again_since_its_last_set() {
        let well_again =
            |sets: &[SetStatus]| well_again(&testing::manager(sets.to_vec()), |at| dated(at, Wall(120_000)));
        let first = recovered_set("listening", 30_000, Some((0, 30_000)));
        let last = recovered_set("listening", 60_000, Some((50_000, 60_000)));
        let never = recovered_set("listening", 0, None);
        assert_eq!(
            well_again(&[first.clone(), last, never.clone()]).unwrap(),
            "healthy again since 00:01:00 (1 min ago): 2 of 3 scale sets had been unhealthy, for up to 30 s"
        );
        assert_eq!(well_again(&[first, recovered_set("conflict_abandoned", 0, None)]), None);
        assert_eq!(well_again(&[never]), None);
    }
}
