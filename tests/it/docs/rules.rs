//! The tables of `docs/how-it-decides.md`, made by asking the rules themselves.

use super::{code, table};
use medic_core::decide::testing::{conditions, finding, fleet, ledger_session, mins, open, scale_set};
use medic_core::decide::{self, Conditions, Input, WriteAccess};
use medic_core::model::fleet::Fleet;
use medic_core::model::session::{LedgerSession, NotStale};
use medic_core::model::{
    Confidence, ConflictBehaviour, Decision, Diagnosis, Enablement, Escalation, Evidence, Fact, Finding, Findings,
    Guard, Incarnation, ManagerState, ManualAction, ManualHeal, ManualHealId, Note, Outcome, OwnQuota, Owner, Pause,
    PauseId, PauseScope, Revision, Rule, ScaleSet, ScaleSetId, Source, Span, Step, Wall, WorkerState,
};
use medic_core::policy::{Mode, Policy};
use scaleset_medic::config::{Section, kind};
use scaleset_medic::text::sources::{self, SourceText};
use scaleset_medic::text::{guards, rules, words};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A minute after the builders' findings began.
const NOW: Wall = mins(61);
const SET: ScaleSetId = ScaleSetId(1);

/// The rules in the order in which they are asked.
pub(super) fn evidence() -> String {
    let rows = (1..).zip(Rule::ALL).map(|(number, rule)| {
        let makes: Vec<_> = rule.makes().iter().map(code).collect();
        let makes = makes.join(", ");
        let makes = rule.corrects().map_or_else(|| makes.clone(), |of| format!("{makes} instead of {}", code(of)));
        [number.to_string(), code(rule), rules::asks(*rule).to_owned(), makes]
    });
    table(["order", "rule", "asks", "can find"], rows)
}

pub(super) fn diagnoses() -> String {
    let rows = Diagnosis::ALL.iter().map(|diagnosis| {
        let counts = match (diagnosis.is_well(), diagnosis.is_ill()) {
            (true, _) => "healthy",
            (false, true) => "unhealthy",
            (false, false) => "neither",
        };
        [code(diagnosis), words::diagnosis(*diagnosis).to_owned(), counts.to_owned()]
    });
    table(["diagnosis", "meaning", "counts as"], rows)
}

pub(super) fn plain_words() -> String {
    let rows = Diagnosis::ALL.iter().map(|diagnosis| [code(diagnosis), words::diagnosis(*diagnosis).to_owned()]);
    table(["identifier", "plain words"], rows)
}

/// What each source shows and how it is enabled.
pub(super) fn sources() -> String {
    let lines = |lines: &[&str]| match lines {
        [] => "–".to_owned(),
        lines => lines.iter().map(code).collect::<Vec<_>>().join("<br>"),
    };
    let rows = Source::ALL.iter().map(|source| {
        let SourceText { name, shows, without, garm, medic } = sources::text(*source);
        [format!("{name} ({})", code(source)), shows.to_owned(), without.to_owned(), lines(garm), lines(medic)]
    });
    table(["source", "shows", "without it", "in GARM's `config.toml`", "in the medic's configuration"], rows)
}

/// A session that an earlier run opened.
fn stale_session() -> LedgerSession {
    ledger_session(SET.0, "s", Incarnation(mins(1)), mins(2))
}

fn present_run() -> Incarnation {
    Incarnation(NOW.minus(Span::mins(2)))
}

/// One set with this diagnosis, and with what differs from the usual.
struct Question {
    fleet: Fleet,
    given: Conditions,
}

impl Question {
    fn of(diagnosis: Diagnosis) -> Self {
        let mut fleet = fleet(NOW);
        fleet.findings = Findings::from_iter([(SET, finding(SET.0, diagnosis, Confidence::Strong))]);
        fleet.sets = Arc::new([(SET, scale_set(SET.0))].into());
        fleet.incarnation = Some(present_run());
        fleet.conflict_behaviour = ConflictBehaviour::GivesUp;
        fleet.owner = Some(Owner::of_garm("c1"));
        Self { fleet, given: Conditions { can_check_sessions: [SET].into(), ..conditions(NOW, Policy::default()) } }
    }

    fn finding(&mut self) -> &mut Finding {
        self.fleet.findings.get_mut(&SET).unwrap()
    }

    fn knows(&mut self, session: LedgerSession) {
        self.given.ledger = Arc::new(vec![session]);
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn decision(&self) -> Decision {
        decide::decide(&Input { fleet: &self.fleet, given: &self.given }).remove(0).decision
    }

    fn answer(&self) -> String {
        match self.decision() {
            Decision::Leave | Decision::Treating { .. } => "nothing".to_owned(),
            Decision::Watch { waiting, .. } => format!("waits: {}", words::waiting(waiting)),
            Decision::Escalate { .. } => "escalates to an operator".to_owned(),
            Decision::Treat { remedy, .. } | Decision::Blocked { remedy, .. } => {
                format!("**{}**", words::remedy(remedy.kind()))
            }
        }
    }
}

/// What is done about each diagnosis, by build and by what is known of its session.
pub(super) fn remedies() -> String {
    let rows = Diagnosis::ALL.iter().map(|diagnosis| {
        let ask = |conflict_behaviour, stale: bool| {
            let mut question = Question::of(*diagnosis);
            question.fleet.conflict_behaviour = conflict_behaviour;
            question.given.ledger = Arc::new(stale.then(stale_session).into_iter().collect());
            question.answer()
        };
        let all = [
            ask(ConflictBehaviour::GivesUp, false),
            ask(ConflictBehaviour::Retries, false),
            ask(ConflictBehaviour::GivesUp, true),
            ask(ConflictBehaviour::Retries, true),
        ];
        let [first, ..] = &all;
        let same = all.iter().all(|answer| answer == first);
        let [a, b, c, d] = if same {
            [first.clone(), "the same".to_owned(), "the same".to_owned(), "the same".to_owned()]
        } else {
            all
        };
        [code(diagnosis), a, b, c, d]
    });
    table(
        [
            "diagnosis",
            "a GARM that gives up",
            "a GARM that retries",
            "gives up, and the stale session is known",
            "retries, and the stale session is known",
        ],
        rows,
    )
}

/// What one more fact changes.
pub(super) fn special_cases() -> String {
    let ago = |span| NOW.minus(span);
    let Policy { stale_session_odd: odd, stale_session_limit: limit, .. } = Policy::default();
    let unclear = Evidence { source: Source::Metrics, at: NOW, fact: Fact::CannotTellWhich { listening: 3, of: 4 } };
    let weak = |it: &mut Question| it.finding().confidence = Confidence::Weak;
    let cases = [
        (Diagnosis::Unheld, "the evidence is weak", Question::of(Diagnosis::Unheld).with(weak)),
        (
            Diagnosis::Unknown,
            "some sets of the entity type listen, some do not, and nothing says which",
            Question::of(Diagnosis::Unknown).with(|it| it.finding().evidence.push(unclear)),
        ),
        (
            Diagnosis::Deaf,
            "`policy.allow_risky` is true and its session is known to live",
            Question::of(Diagnosis::Deaf).with(|it| {
                it.given.policy.allow_risky = true;
                it.knows(ledger_session(SET.0, "s", present_run(), NOW));
            }),
        ),
        (
            Diagnosis::ConflictRetrying,
            "for `policy.stale_session_odd`",
            Question::of(Diagnosis::ConflictRetrying).with(|it| it.finding().since = ago(odd)),
        ),
        (
            Diagnosis::ConflictRetrying,
            "for `policy.stale_session_limit`, and several entities show it",
            Question::of(Diagnosis::ConflictRetrying).with(|it| {
                it.finding().since = ago(limit);
                it.fleet.fault_at_github = true;
            }),
        ),
        (
            Diagnosis::ConflictAbandoned,
            "its listener is seen alive",
            Question::of(Diagnosis::ConflictAbandoned).with(|it| it.finding().worker.state = WorkerState::Listening),
        ),
        (
            Diagnosis::ConflictAbandoned,
            "an operator disables it meanwhile",
            Question::of(Diagnosis::ConflictAbandoned).with(|it| {
                let disabled = ScaleSet { enabled: Enablement::Disabled, ..scale_set(SET.0) };
                it.fleet.sets = Arc::new([(SET, disabled)].into());
            }),
        ),
    ];
    let rows = cases.map(|(diagnosis, fact, question)| [code(diagnosis), fact.to_owned(), question.answer()]);
    table(["diagnosis", "and", "then"], rows)
}

/// What is escalated to an operator.
pub(super) fn escalations() -> String {
    let rows = Diagnosis::ALL.iter().filter_map(|diagnosis| {
        let Decision::Escalate { escalation } = Question::of(*diagnosis).decision() else { return None };
        // The builders' findings began a minute ago.
        let status = words::escalation(&escalation).replace(&Span::mins(1).to_string(), "*this long*");
        Some([code(diagnosis), status])
    });
    let fault = ["several entities at once".to_owned(), words::escalation(&Escalation::EndpointFault)];
    table(["diagnosis", "what `status` says"], rows.chain([fault]))
}

/// The keys that set a guard's limit.
fn keys(guard: Guard) -> &'static [&'static str] {
    match guard {
        Guard::DryRun => &["run.mode"],
        Guard::Settle => &["policy.settle"],
        Guard::Confirmation => &["policy.confirm_strong"],
        Guard::InFlight => &["policy.max_in_flight", "policy.in_flight_share"],
        Guard::SetBudget => &["policy.set_budget", "policy.set_budget_window", "policy.budget_cleared_after"],
        Guard::Backoff => &["policy.backoff", "policy.backoff_jitter", "policy.session_check_every"],
        Guard::ManagerBudget => &["policy.heals_per_hour"],
        Guard::Breaker => &["policy.breaker_after", "policy.breaker_half_open_after"],
        Guard::BlastRadius => &["policy.stale_session_limit"],
        Guard::Quota => &["policy.quota_reserve"],
        Guard::LeftDisabled => &["policy.disabled_limit"],
        Guard::Undated => &["policy.allow_undated"],
        Guard::Canary
        | Guard::Frozen
        | Guard::Paused
        | Guard::CauseNotResolved
        | Guard::Lease
        | Guard::Store
        | Guard::EntityLimit
        | Guard::Bound => &[],
    }
}

pub(super) fn guards() -> String {
    let default = |dotted: &str| {
        let (section, name) = dotted.split_once('.').unwrap();
        let key = section.parse::<Section>().unwrap().key(name).unwrap();
        format!("`{name}` = `{}`", kind::toml(key.takes.kind, &key.default().unwrap()))
    };
    let (policy, manual) = (blocking(false), blocking(true));
    // A bound holds only where another guard has failed to.
    let missing: Vec<_> =
        Guard::ALL.iter().filter(|guard| **guard != Guard::Bound && !policy.contains(guard)).collect();
    assert!(missing.is_empty(), "no world was found in which these block: {missing:?}");
    let rows = Guard::ALL.iter().map(|guard| {
        let limits = keys(*guard).iter().map(|key| default(key)).collect::<Vec<_>>().join(", ");
        let lifted = if manual.contains(guard) { "no" } else { "yes" };
        let limits = if limits.is_empty() { "–".to_owned() } else { limits };
        [code(guard), words::guard(*guard).to_owned(), limits, lifted.to_owned()]
    });
    table(["guard", "blocks while", "limit, by default", "a manual heal lifts it"], rows)
}

/// The guards that block in the worst of worlds, with and without a manual heal.
fn blocking(manual: bool) -> BTreeSet<Guard> {
    let mut all = BTreeSet::new();
    let other = WriteAccess::HeldByOther { holder: "another".to_owned(), until: NOW };
    let failed = WriteAccess::StoreFailed { why: "the disk is full".to_owned() };
    let start = finding(SET.0, Diagnosis::StartAbandoned, Confidence::Strong);
    all.extend(blocking_for(Finding { seen: 1, ..start }, ManagerState::Down, &other, manual));
    all.extend(blocking_for(
        finding(SET.0, Diagnosis::ConflictAbandoned, Confidence::Proof),
        ManagerState::Up,
        &failed,
        manual,
    ));
    all.extend(blocking_for(finding(SET.0, Diagnosis::Unheld, Confidence::Weak), ManagerState::Up, &other, manual));
    all
}

/// The guards that block a remedy for this finding where everything else is at its limit.
fn blocking_for(found: Finding, manager: ManagerState, write_access: &WriteAccess, manual: bool) -> Vec<Guard> {
    let (other, settling) = (ScaleSetId(2), ScaleSetId(3));
    let policy =
        Policy { set_budget: 1, heals_per_hour: 1, max_in_flight: 1, session_check: false, ..Policy::default() };
    let row = |id, set: ScaleSetId, step| open(id, set.0, NOW.minus(Span::mins(1)), step);
    let bad = || Step::Closed { outcome: Outcome::Unverified, why: Note::NoListener { within: Span::ZERO } };
    let left = Step::Enabling {
        ours: Revision::new("ours"),
        since: Some(NOW.minus(Span::mins(3))),
        attempts: 5,
        not_before: NOW,
    };
    let others = finding(settling.0, Diagnosis::Settling, Confidence::Weak);
    let heal =
        ManualHeal { id: ManualHealId(1), set: SET, what: ManualAction::Heal, author: "you".to_owned(), created: NOW };
    let pause = Pause {
        id: PauseId(1),
        scope: PauseScope::All,
        reason: "upgrade".to_owned(),
        author: "you".to_owned(),
        created: NOW,
        expires: None,
    };
    let quota = OwnQuota { remaining: 0, reserve: 1000, reset: NOW.plus(Span::mins(30)) };
    let quotas = scale_set(SET.0).endpoint.map(|endpoint| (endpoint.name.clone(), quota)).into_iter().collect();
    let mut fleet = fleet(NOW);
    fleet.findings = Findings::from_iter([(SET, found), (settling, others)]);
    let undated = |id: ScaleSetId| (id, ScaleSet { revision: Revision::new(""), ..scale_set(id.0) });
    fleet.sets = Arc::new([SET, other, settling].map(undated).into());
    fleet.manager = manager;
    fleet.incarnation = Some(Incarnation(NOW.minus(Span::secs(5))));
    fleet.conflict_behaviour = ConflictBehaviour::GivesUp;
    (fleet.blind, fleet.fault_at_github) = (manager == ManagerState::Down, true);
    fleet.owner = Some(Owner::of_garm("c1"));
    let given = Conditions {
        mode: Mode::Observe,
        history: vec![row(1, SET, bad()), row(2, SET, bad()), row(3, other, left)],
        ledger: Arc::new(vec![stale_session()]),
        pauses: vec![pause],
        manual_heals: if manual { vec![heal] } else { Vec::new() },
        can_check_sessions: BTreeSet::from([SET]),
        quotas,
        write_access: write_access.clone(),
        ..conditions(NOW, policy)
    };
    let decisions = decide::decide(&Input { fleet: &fleet, given: &given });
    let of_set = decisions.into_iter().find(|decision| decision.set == SET).unwrap();
    let Decision::Blocked { guards, .. } = of_set.decision else { panic!("{:?}", of_set.decision) };
    guards.into_iter().map(|block| block.guard()).collect()
}

/// The most that can happen under the default policy.
pub(super) fn bounds() -> String {
    format!("- {}\n", guards::bounds(&decide::bounds(&Policy::default())).replace('\n', "\n- "))
}

/// Every reason against a deletion.
pub(super) fn stale() -> String {
    let rows = NotStale::ALL.iter().map(|reason| [code(reason), guards::not_stale(*reason).to_owned()]);
    table(["a session stays where", "that is"], rows)
}

pub(super) fn outcomes() -> String {
    let rows = Outcome::ALL.iter().map(|outcome| {
        let means = match outcome {
            Outcome::Recovered => "the set was seen to listen, by evidence newer than the action",
            Outcome::SelfRecovered => "it listened again before anything of ours took effect",
            Outcome::Unverified => "after the action no listener was seen in time; two in a row open the breaker",
            Outcome::Aborted => "somebody else changed the set meanwhile; the medic does nothing more",
            Outcome::Failed => "the action was refused; nothing was changed",
            Outcome::Held => "a session check was refused: somebody holds a session",
            Outcome::Unheld => "a session check opened a session, which was deleted at once: nobody held one",
        };
        [code(outcome), means.to_owned()]
    });
    table(["outcome", "means"], rows)
}
