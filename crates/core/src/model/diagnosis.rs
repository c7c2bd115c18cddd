//! What is wrong with a set, how sure we are, and why (`docs/reference/design.md` §4).

use super::closed::closed_enum;
use super::ids::{GithubId, Incarnation, Owner, ScaleSetId};
use super::observation::{FailureKind, Source};
use super::time::{OptionalRfc3339, Rfc3339, Span, Wall};
use litemap::LiteMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

closed_enum! {
    /// Every set has exactly one of these in each sweep.
    pub enum Diagnosis {
        /// A listener holds a session and polls.
        Listening = "listening",
        /// Disabled by a person.
        Disabled = "disabled",
        /// Disabled by us, in the middle of a treatment.
        DisabledByMedic = "disabled_by_medic",
        /// The manager is younger than its grace.
        Settling = "settling",
        /// Refused, the manager still tries.
        ConflictRetrying = "conflict_retrying",
        /// Refused, the manager has given up.
        ConflictAbandoned = "conflict_abandoned",
        /// The manager gave up at the start for another reason.
        StartAbandoned = "start_abandoned",
        /// Enabled, nobody holds a session, nobody tries.
        Unheld = "unheld",
        /// Conflicts longer than a stale session can explain, or a named other owner.
        HeldElsewhere = "held_elsewhere",
        /// Sessions open and end at a rate no healthy poll explains.
        Flapping = "flapping",
        /// GitHub forgot the session under a running listener.
        Evicted = "evicted",
        /// The forge knows the set under another id.
        Mismatched = "mismatched",
        /// A listener runs, but no poll completes.
        Deaf = "deaf",
        /// The listener polls, yet assigned jobs do not turn into runners.
        Starved = "starved",
        /// The forge does not know the set.
        Missing = "missing",
        Unauthorized = "unauthorized",
        /// Not enough can be seen.
        Unknown = "unknown",
    }
}

impl Diagnosis {
    /// Whether the set can receive jobs, as far as anyone can tell.
    #[must_use]
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Listening)
    }
    /// Whether the set neither works nor is meant to be idle: the ones to tell people about.
    #[must_use]
    pub const fn is_ill(self) -> bool {
        match self {
            Self::Listening | Self::Disabled | Self::Settling | Self::Unknown => false,
            Self::DisabledByMedic
            | Self::ConflictRetrying
            | Self::ConflictAbandoned
            | Self::StartAbandoned
            | Self::Unheld
            | Self::HeldElsewhere
            | Self::Flapping
            | Self::Evicted
            | Self::Mismatched
            | Self::Deaf
            | Self::Starved
            | Self::Missing
            | Self::Unauthorized => true,
        }
    }
}

closed_enum! {
    /// How sure a finding is. Stronger proof allows sooner and stronger acts.
    pub enum Confidence {
        Weak = "weak",
        /// Several signs agree, none contradicts.
        Strong = "strong",
        /// The fact itself was seen.
        Proof = "proof",
    }
}

closed_enum! {
    /// How a manager's run ended before this one.
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
        /// Answers, and has been up for longer than the settle time.
        Up = "up",
        Down = "down",
        /// Answers, and is younger than the settle time.
        Restarted = "restarted",
        /// Cannot be asked: time-outs, refused credentials, garbage.
        Unreachable = "unreachable",
    }
}

closed_enum! {
    /// A forge endpoint as a whole.
    pub enum EndpointState {
        /// All asked entities answered.
        Up = "up",
        Degraded = "degraded",
        Down = "down",
        /// The quota is used up.
        Limited = "limited",
    }
}

closed_enum! {
    /// What the set's worker inside the manager is doing, as far as the evidence tells.
    pub enum WorkerState {
        /// Nothing can be said.
        Unknown = "unknown",
        /// There is none: it gave up.
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
    pub enum ConflictBehaviour {
        Unknown = "unknown",
        /// Its workers give up; only a real change of the set revives them.
        GivesUp = "gives_up",
        /// Its workers retry by themselves; a toggle has no use.
        Retries = "retries",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro that declares it takes no attribute on a variant")]
impl Default for ConflictBehaviour {
    fn default() -> Self {
        Self::Unknown
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

/// What a finding rests on. Most rest on one or two pieces, which need no allocation.
pub type EvidenceList = SmallVec<[Evidence; 2]>;

mod evidence_list {
    use super::{Deserialize, Evidence, EvidenceList, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(list: &EvidenceList, to: S) -> Result<S::Ok, S::Error> {
        list.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<EvidenceList, D::Error> {
        Vec::<Evidence>::deserialize(from).map(EvidenceList::from_vec)
    }
}

/// [`Finding::worker`] with names for its parts; recordings of earlier releases hold the pair.
mod worker {
    use super::{Rfc3339, Wall, WorkerState};
    use schemars::JsonSchema;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// What the worker of the set is doing.
    #[derive(Serialize, Deserialize, JsonSchema)]
    pub(super) struct Worker {
        state: WorkerState,
        /// The date of the fact that says so.
        #[serde(with = "Rfc3339")]
        since: Wall,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Named(Worker),
        Pair(WorkerState, Wall),
    }

    pub(super) fn serialize<S: Serializer>(&(state, since): &(WorkerState, Wall), to: S) -> Result<S::Ok, S::Error> {
        Worker { state, since }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<(WorkerState, Wall), D::Error> {
        Ok(match Written::deserialize(from)? {
            Written::Named(Worker { state, since }) | Written::Pair(state, since) => (state, since),
        })
    }
}

/// A fact that bears on a diagnosis. Rendered to words only where people read it.
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
    ManagerAge {
        /// Since its process started.
        age: Span,
    },
    /// The manager cannot be asked.
    ManagerUnseen { kind: FailureKind },
    /// Of the sets that could listen, so many do, by goroutine count.
    LivingListeners { living: u32, expected: u32 },
    /// Workers counted against sets.
    LivingWorkers {
        living: u32,
        /// All sets of the manager.
        expected: u32,
    },
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
    CreateErrorsGrow {
        /// How much it grew.
        by: u64,
        within: Span,
    },
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
    /// The build exports per-set gauges: it retries by itself.
    RetriesByItself,
    /// Nothing changed since an earlier sweep of the same incarnation found this.
    UnchangedSince {
        #[serde(with = "Rfc3339")]
        since: Wall,
    },
    /// The set's revision moved without us: it processed a message or somebody edited it.
    RevisionMoved,
    /// The log: the session conflict, with the owner where the text names one.
    ConflictLine {
        owner: Option<Owner>,
        /// Length of the unbroken run of conflicts.
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
    PoisonMessage {
        /// Failures since the cursor moved.
        failures: u32,
    },
    /// GitHub lists the set.
    GithubListsSet,
    /// GitHub does not list the set, while it answers for its entity.
    GithubLacksSet {
        /// First sweep that missed it.
        #[serde(with = "Rfc3339")]
        since: Wall,
    },
    /// GitHub lists a set of this name under another id.
    GithubOtherId {
        /// The id at GitHub.
        id: GithubId,
    },
    /// Jobs assigned at GitHub do not turn into runners.
    JobsWait {
        waiting: u64,
        #[serde(with = "Rfc3339")]
        since: Wall,
    },
    /// Our credentials are refused.
    CredentialsRefused,
    /// The broker cannot be asked.
    GithubUnseen { kind: FailureKind },
    /// A session probe was refused: somebody holds a session.
    CheckRefused {
        /// The owner the text names.
        owner: Option<Owner>,
    },
    /// A session probe succeeded: nobody held a session.
    CheckOpened,
    /// Instances of the set wait in `deleted`, which only a living worker clears.
    DeletedInstancesLinger { count: u32 },
    /// The ledger knows a session of the set whose incarnation is gone.
    StaleSessionKnown {
        /// The run that opened it.
        #[serde(with = "Rfc3339")]
        incarnation: Incarnation,
    },
    /// Some sets of the scope do not listen, and nothing seen says which, or whether anybody tries.
    CannotTellWhich { listening: u64, of: u64 },
    /// No source that could tell is available.
    NothingToSee,
}

/// The findings of one sweep, by set.
pub type Findings = LiteMap<ScaleSetId, Finding>;

/// The diagnosis of one set in one sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    pub set: ScaleSetId,
    pub diagnosis: Diagnosis,
    pub confidence: Confidence,
    /// Why; the strongest first.
    #[serde(with = "evidence_list")]
    #[schemars(with = "Vec<Evidence>")]
    pub evidence: EvidenceList,
    /// Since when the set has had this diagnosis, across sweeps.
    #[serde(with = "Rfc3339")]
    pub since: Wall,
    /// Since when it has not been well, across diagnoses; absent while well, disabled or settling.
    #[serde(default, with = "OptionalRfc3339")]
    pub ill_since: Option<Wall>,
    /// Sweeps in a row that found the same, this one included.
    pub seen: u32,
    /// The worker, and the date of the fact that says so.
    #[serde(with = "worker")]
    #[schemars(with = "worker::Worker")]
    pub worker: (WorkerState, Wall),
}
