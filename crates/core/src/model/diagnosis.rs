//! What is wrong with a set, how sure we are, and why (`docs/reference/design.md` §4).

use super::closed::closed_enum;
use super::failure::FailureKind;
use super::ids::{GithubId, Incarnation, Owner, ScaleSetId};
use super::observation::Source;
use super::time::{OptionalRfc3339, Rfc3339, Span, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

closed_enum! {
    /// Every set has exactly one of these in each sweep.
    #[derive(Default)]
    pub enum Diagnosis {
        /// A listener holds a session and polls.
        Listening = "listening",
        Disabled = "disabled",
        /// Disabled by us, in the middle of a treatment.
        DisabledByMedic = "disabled_by_medic",
        Settling = "settling",
        /// Refused, the manager still tries.
        ConflictRetrying = "conflict_retrying",
        /// Refused, the manager has given up.
        ConflictAbandoned = "conflict_abandoned",
        /// The manager gave up at the start for another reason.
        StartAbandoned = "start_abandoned",
        /// Enabled, nobody holds a session, and nobody asks for one.
        Unheld = "unheld",
        /// Conflicts longer than a stale session can explain, or a named other owner.
        HeldElsewhere = "held_elsewhere",
        /// Sessions open and end at a rate no healthy poll explains.
        Flapping = "flapping",
        /// GitHub forgot the session under a running listener.
        Evicted = "evicted",
        Mismatched = "mismatched",
        /// A listener runs, but no poll completes.
        Deaf = "deaf",
        /// The listener polls, yet assigned jobs do not turn into runners.
        Starved = "starved",
        Missing = "missing",
        Unauthorized = "unauthorized",
        /// Not enough can be seen.
        #[default]
        Unknown = "unknown",
    }
}

/// What a diagnosis means for the set, in five kinds. Every coarser question is answered from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It can receive jobs, as far as anything shows.
    Well,
    /// It is not meant to receive jobs.
    Idle,
    /// Nothing can be said of it: not yet, or not by any source.
    Unseen,
    /// GitHub refused it a session in favour of another one.
    Refused,
    /// It does not work for another reason.
    Broken,
}

impl Diagnosis {
    pub const fn class(self) -> Class {
        match self {
            Self::Listening => Class::Well,
            Self::Disabled => Class::Idle,
            Self::Settling | Self::Unknown => Class::Unseen,
            Self::ConflictRetrying | Self::ConflictAbandoned | Self::HeldElsewhere => Class::Refused,
            Self::DisabledByMedic
            | Self::StartAbandoned
            | Self::Unheld
            | Self::Flapping
            | Self::Evicted
            | Self::Mismatched
            | Self::Deaf
            | Self::Starved
            | Self::Missing
            | Self::Unauthorized => Class::Broken,
        }
    }

    pub const fn is_well(self) -> bool {
        matches!(self.class(), Class::Well)
    }

    /// Whether the set does not work although it should: the sets that operators must know of.
    pub const fn is_ill(self) -> bool {
        matches!(self.class(), Class::Refused | Class::Broken)
    }

    /// Whether the manager still asks for a session and GitHub refuses it.
    pub const fn is_refused_now(self) -> bool {
        matches!(self, Self::ConflictRetrying | Self::HeldElsewhere)
    }

    /// Whether neither the manager nor the medic changes it soon: it takes an operator, or the other holder.
    pub const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Disabled
                | Self::Missing
                | Self::Mismatched
                | Self::Unauthorized
                | Self::HeldElsewhere
                | Self::Deaf
                | Self::Starved
        )
    }

    /// Whether the manager holds a session for the set; `None` where the diagnosis fits both.
    pub const fn holds_session(self) -> Option<bool> {
        match (self, self.class()) {
            (Self::Deaf | Self::Starved, _) | (_, Class::Well) => Some(true),
            (Self::Settling | Self::DisabledByMedic | Self::StartAbandoned | Self::Unheld, _)
            | (_, Class::Idle | Class::Refused) => Some(false),
            (_, Class::Unseen | Class::Broken) => None,
        }
    }
}

closed_enum! {
    /// The rules of the diagnosis, in the order in which they are asked. The first that answers decides; the last two
    /// correct an answer.
    pub enum Rule {
        /// The manager's list of sets cannot be read.
        SetList = "set_list",
        Enabled = "enabled",
        /// GitHub does not list the set, or lists it under another id, for as long as `missing_after`.
        GithubList = "github_list",
        /// The answer of a session check, unless anything newer is known of the set: a later line of the log too.
        SessionCheck = "session_check",
        Log = "log",
        /// The metrics of the set's own listener.
        ListenerMetrics = "listener_metrics",
        /// GitHub has not created the set yet.
        Created = "created",
        /// The counters of the set's scope, where the numbers leave no choice.
        Counters = "counters",
        GracePeriod = "grace_period",
        Nothing = "nothing",
        /// Assigned jobs stand still at a set that was found to listen.
        WaitingJobs = "waiting_jobs",
        /// A set was refused for longer than any stale session lasts.
        RefusedTooLong = "refused_too_long",
    }
}

impl Rule {
    pub const fn makes(self) -> &'static [Diagnosis] {
        self.table().1
    }

    /// The diagnosis that the rule corrects; all other rules are asked only where none before has answered.
    pub const fn corrects(self) -> Option<Diagnosis> {
        self.table().0
    }

    /// What it corrects, and what it makes.
    const fn table(self) -> (Option<Diagnosis>, &'static [Diagnosis]) {
        match self {
            Self::SetList | Self::Created | Self::Nothing => (None, &[Diagnosis::Unknown]),
            Self::Enabled => (None, &[Diagnosis::DisabledByMedic, Diagnosis::Disabled]),
            Self::GithubList => (None, &[Diagnosis::Missing, Diagnosis::Mismatched]),
            Self::SessionCheck => (None, &[Diagnosis::Unheld, Diagnosis::HeldElsewhere]),
            Self::Log => (
                None,
                &[
                    Diagnosis::Unauthorized,
                    Diagnosis::Mismatched,
                    Diagnosis::Evicted,
                    Diagnosis::Flapping,
                    Diagnosis::HeldElsewhere,
                    Diagnosis::ConflictAbandoned,
                    Diagnosis::StartAbandoned,
                    Diagnosis::ConflictRetrying,
                    Diagnosis::Starved,
                    Diagnosis::Listening,
                    Diagnosis::Deaf,
                ],
            ),
            Self::ListenerMetrics => (None, &[Diagnosis::Listening, Diagnosis::Deaf, Diagnosis::ConflictRetrying]),
            Self::Counters => (
                None,
                &[
                    Diagnosis::Flapping,
                    Diagnosis::Deaf,
                    Diagnosis::Listening,
                    Diagnosis::ConflictRetrying,
                    Diagnosis::ConflictAbandoned,
                    Diagnosis::StartAbandoned,
                    Diagnosis::Unheld,
                    Diagnosis::Unknown,
                ],
            ),
            Self::GracePeriod => (None, &[Diagnosis::Settling]),
            Self::WaitingJobs => (Some(Diagnosis::Listening), &[Diagnosis::Starved]),
            Self::RefusedTooLong => (Some(Diagnosis::ConflictRetrying), &[Diagnosis::HeldElsewhere]),
        }
    }
}

closed_enum! {
    /// How sure a finding is. More confidence allows earlier and stronger remedies.
    pub enum Confidence {
        Weak = "weak",
        /// Several signs agree, none contradicts.
        Strong = "strong",
        /// The fact itself was seen.
        Proof = "proof",
    }
}

closed_enum! {
    /// How the incarnation before the present one ended.
    pub enum RestartKind {
        /// It closed its sessions.
        Clean = "clean",
        /// It left sessions behind.
        Crash = "crash",
    }
}

closed_enum! {
    /// A manager as a whole.
    pub enum ManagerState {
        /// Answers, and has been up for longer than its grace period.
        Up = "up",
        Down = "down",
        /// Answers, and is within its grace period.
        Restarted = "restarted",
        /// Cannot be asked: time-outs, refused credentials, garbage.
        Unreachable = "unreachable",
    }
}

closed_enum! {
    /// A GitHub endpoint as a whole.
    pub enum EndpointState {
        /// All asked entities answered.
        Up = "up",
        Degraded = "degraded",
        Down = "down",
        Limited = "limited",
    }
}

closed_enum! {
    /// What the set's worker inside the manager does, as far as the evidence shows.
    pub enum WorkerState {
        Unknown = "unknown",
        /// It gave up and does not exist.
        Absent = "absent",
        /// It exists and runs no listener.
        Idle = "idle",
        /// It exists and keeps asking for a session.
        Retrying = "retrying",
        /// It holds a session.
        Listening = "listening",
    }
}

closed_enum! {
    /// What the manager's build does after a refused first start (`docs/reference/design.md` §1): the pre-fix build
    /// gives up for good, the post-fix build keeps trying.
    #[derive(Default)]
    pub enum ConflictBehaviour {
        #[default]
        Unknown = "unknown",
        /// Its workers give up; only a real change of the set restarts them.
        GivesUp = "gives_up",
        /// Its workers retry; a toggle is useless.
        Retries = "retries",
    }
}

/// One piece of evidence: which source, when, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    pub source: Source,
    /// The date of the fact itself, not of reading it.
    #[serde(with = "Rfc3339")]
    pub at: Wall,
    pub fact: Fact,
}

/// What the worker of a set does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    pub state: WorkerState,
    /// The date of the fact that says so.
    #[serde(with = "Rfc3339")]
    pub since: Wall,
}

impl Worker {
    pub const UNKNOWN: Self = Self { state: WorkerState::Unknown, since: Wall(0) };
}

/// A fact that bears on a diagnosis. The texts for people are made from it elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The API says enabled.
    Enabled,
    /// The API says disabled (or, as GARM does, says nothing).
    Disabled,
    /// Our own treatment disabled it.
    DisabledByTreatment,
    /// The manager has been up this long.
    ManagerAge { age: Span },
    /// The manager cannot be asked.
    ManagerUnseen { kind: FailureKind },
    /// Listeners by goroutine count, of the sets that could listen.
    LivingListeners { living: u32, expected: u32 },
    /// Workers counted against sets.
    LivingWorkers { living: u32, expected: u32 },
    /// Sessions open by the counters of a scope.
    SessionsByCounters {
        /// Opened minus ended since the manager started.
        open: u64,
        /// Enabled sets of the scope that could hold one.
        expected: u64,
    },
    /// Refusals of session creation since the manager started.
    CreateErrors {
        count: u64,
        /// For how long the counter has not moved.
        flat_for: Span,
    },
    /// The refusal counter keeps growing.
    CreateErrorsGrow { by: u64, within: Span },
    /// The manager's calls before a session fail too: not a conflict but its access to GitHub.
    StartErrors { count: u64 },
    /// The cause of a failed start is seen to be gone.
    CauseGone,
    /// Sessions open and end too fast.
    SessionChurn { opened: u64, within: Span },
    /// The last completed poll, by the per-set metric.
    LastPoll { ago: Span },
    /// The manager exports listener metrics, but none for this set: its worker never polled.
    NoListenerSeries,
    /// The build exports per-set gauges: it retries.
    #[serde(alias = "retries_by_itself")]
    BuildRetries,
    /// Nothing changed since an earlier sweep of the same incarnation found this.
    UnchangedSince {
        #[serde(with = "Rfc3339")]
        since: Wall,
    },
    /// The set's revision moved without us: it processed a message or somebody edited it.
    RevisionMoved,
    /// The log: a session conflict.
    ConflictLine {
        /// Where the text names one.
        owner: Option<Owner>,
        /// Length of the unbroken series of conflicts.
        run: Span,
    },
    /// The log: the worker gave up.
    GaveUpLine,
    /// The log: a session opened.
    SessionOpenedLine,
    /// The log: a poll was issued.
    PollLine { ago: Span },
    /// The log: a listener error.
    ListenerErrorLine { kind: super::log_fact::ListenerErrorKind },
    /// The log: the worker runs and, the set being disabled, has no listener.
    WorkerIdleLine,
    /// The log: the same message is delivered again and again.
    PoisonMessage { failures: u32 },
    /// GitHub lists the set.
    GithubListsSet,
    /// GitHub does not list the set, while it answers for its entity.
    GithubLacksSet {
        #[serde(with = "Rfc3339")]
        since: Wall,
    },
    /// GitHub lists a set of this name under another id.
    GithubOtherId { id: GithubId },
    /// Jobs assigned at GitHub do not turn into runners.
    JobsWait {
        waiting: u64,
        #[serde(with = "Rfc3339")]
        since: Wall,
    },
    /// Our credentials are refused.
    CredentialsRefused,
    /// GitHub cannot be asked.
    GithubUnseen { kind: FailureKind },
    /// A session check was refused: somebody holds a session.
    CheckRefused { owner: Option<Owner> },
    /// A session check succeeded: nobody held a session.
    CheckOpened,
    /// Instances of the set wait in `deleted`, which only a living worker clears.
    DeletedInstancesLinger { count: u32 },
    /// The ledger knows a session of the set whose incarnation is gone.
    StaleSessionKnown {
        #[serde(with = "Rfc3339")]
        incarnation: Incarnation,
    },
    /// Some sets of the scope do not listen, and no source says which.
    CannotTellWhich { listening: u64, of: u64 },
    /// No source that could show it is available.
    NothingToSee,
}

pub type Findings = BTreeMap<ScaleSetId, Finding>;

/// The diagnosis of one set in one sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    pub set: ScaleSetId,
    pub diagnosis: Diagnosis,
    pub confidence: Confidence,
    /// The rule that decided.
    pub rule: Rule,
    /// The rule whose answer `rule` corrected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Rule>,
    /// Why; the strongest first.
    pub evidence: Vec<Evidence>,
    /// Since when the set has had this diagnosis, across sweeps.
    #[serde(with = "Rfc3339")]
    pub since: Wall,
    /// Since when it has not been well, across diagnoses; absent while well, disabled or settling.
    #[serde(default, with = "OptionalRfc3339")]
    pub ill_since: Option<Wall>,
    /// Sweeps in a row that found the same, this one included.
    pub seen: u32,
    pub worker: Worker,
}

/// When a series of conflicts began, by the log.
pub fn conflicts_began(evidence: &[Evidence]) -> Option<Wall> {
    evidence.iter().find_map(|evidence| {
        if let Fact::ConflictLine { run, .. } = &evidence.fact { Some(evidence.at.minus(*run)) } else { None }
    })
}

impl Finding {
    /// The owner of the conflicting session, where a refusal named one.
    pub fn named_owner(&self) -> Option<&Owner> {
        self.evidence.iter().find_map(|evidence| {
            if let Fact::ConflictLine { owner, .. } | Fact::CheckRefused { owner } = &evidence.fact {
                owner.as_ref()
            } else {
                None
            }
        })
    }
}
