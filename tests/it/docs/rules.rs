//! The tables of `docs/how-it-decides.md`, made by asking the rules themselves.

use super::{code, table};
use medic_core::decide::remedy::{Case, Prescription, prescribe};
use medic_core::decide::stale::{CurrentManager, Proof, newest_is_stale};
use medic_core::decide::{self, Footing, Input, testing};
use medic_core::model::session::{LedgerSession, NotStale};
use medic_core::model::{
    Confidence, ConflictBehaviour, Decision, Diagnosis, Enablement, Escalation, Evidence, Fact, Finding, Findings,
    Guard, Incarnation, ManagerName, ManagerState, ManualAction, ManualHeal, ManualHealId, Mono, Now, Outcome,
    OwnQuota, Owner, Pause, PauseId, PauseScope, Revision, Rule, ScaleSet, ScaleSetId, Source, Span, Step, Wall,
    WorkerState,
};
use medic_core::policy::{Mode, Policy};
use scaleset_medic::config::{Section, kind};
use scaleset_medic::text::{guards, rules, words};
use std::collections::{BTreeMap, BTreeSet};

const NOW: Wall = Wall(7_200_000);
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
            (true, _) => "well",
            (false, true) => "ill",
            (false, false) => "neither",
        };
        [code(diagnosis), words::diagnosis(*diagnosis).to_owned(), counts.to_owned()]
    });
    table(["diagnosis", "meaning", "counts as"], rows)
}

fn finding(diagnosis: Diagnosis, confidence: Confidence) -> Finding {
    Finding { since: NOW.minus(Span::mins(1)), ..testing::finding(SET.0, diagnosis, confidence) }
}

fn present_run() -> Incarnation {
    Incarnation(NOW.minus(Span::mins(2)))
}

/// A session that an earlier run opened.
fn stale_session() -> LedgerSession {
    testing::ledger_session(SET.0, "s", Incarnation(NOW.minus(Span::hours(1))), NOW.minus(Span::mins(30)))
}

fn proof() -> Proof {
    let owner = Owner::of_garm("c1");
    let manager = CurrentManager { state: ManagerState::Up, incarnation: Some(present_run()), owner: Some(&owner) };
    newest_is_stale([&stale_session()], &testing::scale_set(SET.0), manager).unwrap()
}

/// One question to the table of remedies, with what differs from the usual.
struct Question {
    finding: Finding,
    set: ScaleSet,
    conflict_behaviour: ConflictBehaviour,
    stale: bool,
    session_lives: bool,
    may_check_session: bool,
    fault_at_github: bool,
    policy: Policy,
}

impl Question {
    fn of(diagnosis: Diagnosis) -> Self {
        Self {
            finding: finding(diagnosis, Confidence::Strong),
            set: testing::scale_set(SET.0),
            conflict_behaviour: ConflictBehaviour::GivesUp,
            stale: false,
            session_lives: false,
            may_check_session: true,
            fault_at_github: false,
            policy: Policy::default(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn says(&self) -> Prescription {
        let proof = self.stale.then(proof);
        prescribe(&Case {
            finding: &self.finding,
            set: &self.set,
            conflict_behaviour: self.conflict_behaviour,
            incarnation: Some(present_run()),
            stale: proof.as_ref(),
            session_lives: self.session_lives,
            may_check_session: self.may_check_session,
            fault_at_github: self.fault_at_github,
            now: NOW,
            policy: &self.policy,
        })
    }

    fn answer(&self) -> String {
        match self.says() {
            Prescription::Leave => "nothing".to_owned(),
            Prescription::Watch(waiting, _) => format!("waits: {}", words::waiting(waiting)),
            Prescription::Escalate(_) => "escalates to an operator".to_owned(),
            Prescription::Apply(remedy) => format!("**{}**", words::remedy(remedy.kind())),
        }
    }
}

/// What is done about each diagnosis, by build and by what is known of its session.
pub(super) fn remedies() -> String {
    let rows = Diagnosis::ALL.iter().map(|diagnosis| {
        let ask = |conflict_behaviour, stale| {
            Question::of(*diagnosis).with(|it| (it.conflict_behaviour, it.stale) = (conflict_behaviour, stale)).answer()
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
    let unclear = Evidence { source: Source::Metrics, at: NOW, fact: Fact::CannotTellWhich { listening: 3, of: 4 } };
    let weak = |it: &mut Question| it.finding.confidence = Confidence::Weak;
    let cases = [
        (Diagnosis::Unheld, "the evidence is weak", Question::of(Diagnosis::Unheld).with(weak)),
        (
            Diagnosis::Unknown,
            "some sets of the entity type listen, some do not, and nothing says which",
            Question::of(Diagnosis::Unknown).with(|it| it.finding.evidence.push(unclear)),
        ),
        (
            Diagnosis::Deaf,
            "`policy.allow_risky` is true and its session is known to live",
            Question::of(Diagnosis::Deaf).with(|it| (it.policy.allow_risky, it.session_lives) = (true, true)),
        ),
        (
            Diagnosis::ConflictRetrying,
            "for `policy.stale_session_odd`",
            Question::of(Diagnosis::ConflictRetrying).with(|it| it.finding.since = ago(it.policy.stale_session_odd)),
        ),
        (
            Diagnosis::ConflictRetrying,
            "for `policy.stale_session_limit`, and several entities show it",
            Question::of(Diagnosis::ConflictRetrying)
                .with(|it| (it.finding.since, it.fault_at_github) = (ago(it.policy.stale_session_limit), true)),
        ),
        (
            Diagnosis::ConflictAbandoned,
            "its listener is seen alive",
            Question::of(Diagnosis::ConflictAbandoned).with(|it| it.finding.worker.0 = WorkerState::Listening),
        ),
        (
            Diagnosis::ConflictAbandoned,
            "an operator disables it meanwhile",
            Question::of(Diagnosis::ConflictAbandoned).with(|it| it.set.enabled = Enablement::Disabled),
        ),
    ];
    let rows = cases.map(|(diagnosis, fact, question)| [code(diagnosis), fact.to_owned(), question.answer()]);
    table(["diagnosis", "and", "then"], rows)
}

/// What is escalated to an operator.
pub(super) fn escalations() -> String {
    let rows = Diagnosis::ALL.iter().filter_map(|diagnosis| {
        let question = Question::of(*diagnosis);
        let Prescription::Escalate(escalation) = question.says() else { return None };
        let span = NOW.since(question.finding.ill_since.unwrap_or(NOW)).to_string();
        Some([code(diagnosis), words::escalation(&escalation).replace(&span, "*this long*")])
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
    let (policy, order) = (held(false), held(true));
    // A bound holds only where another guard has failed to.
    let missing: Vec<_> =
        Guard::ALL.iter().filter(|guard| **guard != Guard::Bound && !policy.contains(guard)).collect();
    assert!(missing.is_empty(), "no world was found in which these hold: {missing:?}");
    let rows = Guard::ALL.iter().map(|guard| {
        let limits = keys(*guard).iter().map(|key| default(key)).collect::<Vec<_>>().join(", ");
        let lifted = if order.contains(guard) { "no" } else { "yes" };
        let limits = if limits.is_empty() { "–".to_owned() } else { limits };
        [code(guard), words::guard(*guard).to_owned(), limits, lifted.to_owned()]
    });
    table(["guard", "blocks while", "limit, by default", "a manual heal lifts it"], rows)
}

/// The guards that hold in the worst of worlds, with and without a manual heal.
fn held(ordered: bool) -> BTreeSet<Guard> {
    let mut all = BTreeSet::new();
    let other = Footing::LeaseOf { holder: "another".to_owned(), until: NOW };
    let failed = Footing::StoreFailed { why: "the disk is full".to_owned() };
    let start = Finding { seen: 1, ..finding(Diagnosis::StartAbandoned, Confidence::Strong) };
    for (finding, manager, footing) in [
        (start, ManagerState::Down, &other),
        (finding(Diagnosis::ConflictAbandoned, Confidence::Proof), ManagerState::Up, &failed),
        (finding(Diagnosis::Unheld, Confidence::Weak), ManagerState::Up, &other),
    ] {
        all.extend(withheld(finding, manager, footing, ordered));
    }
    all
}

/// The guards that hold a remedy for this finding back where everything else is at its limit.
fn withheld(finding: Finding, manager: ManagerState, footing: &Footing, ordered: bool) -> Vec<Guard> {
    let (other, settling) = (2, 3);
    let policy =
        Policy { set_budget: 1, heals_per_hour: 1, max_in_flight: 1, session_check: false, ..Policy::default() };
    let ago = |minutes| NOW.minus(Span::mins(minutes));
    let bad = |id| testing::closed(id, SET.0, ago(1), ago(1), Outcome::Unverified);
    let left = Step::Enabling { ours: Revision::new("ours"), since: Some(ago(3)), attempts: 5, not_before: NOW };
    let history = [bad(1), bad(2), testing::open(3, other, ago(1), left)];
    let others = testing::finding(settling, Diagnosis::Settling, Confidence::Weak);
    let owner = Owner::of_garm("c1");
    let order =
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
    let undated = |id| ScaleSet { revision: Revision::new(""), ..testing::scale_set(id) };
    let quotas = undated(1).endpoint.map(|endpoint| (endpoint.name.clone(), quota)).into_iter().collect();
    let decisions = decide::decide(&Input {
        now: Now { wall: NOW, mono: Mono(0) },
        name: &ManagerName::new("garm"),
        mode: Mode::Observe,
        policy: &policy,
        findings: &Findings::from_iter([(SET, finding), (ScaleSetId(settling), others)]),
        sets: &[SET.0, other, settling].map(|id| (ScaleSetId(id), undated(id))).into(),
        manager,
        incarnation: Some(Incarnation(NOW.minus(Span::secs(5)))),
        crash_loop: false,
        conflict_behaviour: ConflictBehaviour::GivesUp,
        endpoints: &BTreeMap::new(),
        blind: manager == ManagerState::Down,
        fault_at_github: true,
        history: &history,
        ledger: &[stale_session()],
        owner: Some(&owner),
        pauses: &[pause],
        orders: if ordered { std::slice::from_ref(&order) } else { &[] },
        breaker_reset: None,
        can_check_sessions: &BTreeSet::from([SET]),
        quotas: &quotas,
        footing,
    });
    let of_set = decisions.into_iter().find(|decision| decision.set == SET).unwrap();
    let Decision::Blocked { guards, .. } = of_set.decision else { panic!("{:?}", of_set.decision) };
    guards.into_iter().map(|held| held.guard()).collect()
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
