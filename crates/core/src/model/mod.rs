//! The domain's types (`docs/reference/design.md` §2): identities, time, observations, findings, decisions, treatments
//! and outcomes.
//!
//! Pure: plain data with small methods; no clock, no randomness, no IO, no async. Every closed
//! enum has `ALL` and `as_str`, which are the only source of label values in logs and metrics.

pub mod closed;
pub mod decision;
pub mod diagnosis;
pub mod failure;
pub mod fleet;
pub mod guard;
pub mod ids;
pub mod log_fact;
pub mod manual;
pub mod note;
pub mod observation;
pub mod pause;
pub mod session;
pub mod time;
pub mod treatment;

pub use decision::{Decision, Escalation, Remedy, RemedyKind, SetDecision, Waiting};
pub use diagnosis::{
    Class, Confidence, ConflictBehaviour, Diagnosis, EndpointState, Evidence, Fact, Finding, Findings, ManagerState,
    RestartKind, Rule, Worker, WorkerState,
};
pub use failure::{FailureKind, Operation, RequestFailure, Target};
pub use guard::{BlockedBy, Bounded, FrozenReason, Guard, GuardFact};
pub use ids::{
    EndpointName, Entity, EntityKind, EntityRef, GithubId, Incarnation, ManagerName, Owner, Revision, ScaleSetId,
    SessionId, TreatmentId,
};
pub use manual::{ManualAction, ManualHeal, ManualHealAnswer, ManualHealId, ManualWait, Refusal};
pub use note::{Failed, Note};
pub use observation::{
    Controller, Enablement, Endpoint, GithubPlace, GithubSet, GithubStatistics, Goroutines, Lingering, ListenerMetrics,
    ManagerMetrics, OwnQuota, Quota, ScaleSet, ScopeCounters, Seen, Source, Sweep,
};
pub use pause::{Pause, PauseId, PauseScope};
pub use session::OpenAnswer;
pub use time::{Mono, Now, Span, Wall};
pub use treatment::{OpenStep, Outcome, Step, Treatment, TreatmentState};
