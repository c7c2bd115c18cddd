//! The words of the field, as types (`docs/reference/design.md` §2): identities, time, observations, findings,
//! decisions, treatments and outcomes.
//!
//! Pure: plain data with small methods; no clock, no randomness, no IO, no async. Every closed
//! enum has `ALL` and `as_str`, which are the only source of label values in logs and metrics.

pub(crate) mod along;
pub mod closed;
pub mod decision;
pub mod diagnosis;
pub mod failure;
pub mod ids;
pub mod log_fact;
pub mod manual;
pub mod observation;
pub mod pause;
pub mod session;
pub mod time;
pub mod told;
pub mod treatment;

pub use decision::{BlockedBy, Decision, Escalation, Guard, Remedy, RemedyKind, SetDecision, Waiting};
pub use diagnosis::{
    Confidence, ConflictBehaviour, Diagnosis, EndpointState, Evidence, EvidenceList, Fact, Finding, Findings,
    ManagerState, RestartKind, WorkerState,
};
pub use failure::RequestFailure;
pub use ids::{
    EndpointName, Entity, EntityKind, EntityRef, GithubId, Incarnation, ManagerName, Owner, Revision, ScaleSetId,
    SessionId, TreatmentId,
};
pub use manual::{ManualAction, ManualHeal, ManualHealAnswer, ManualHealId};
pub use observation::{
    Controller, Enablement, Endpoint, FailureKind, GithubPlace, GithubSet, GithubStatistics, Goroutines, Lingering,
    ListenerMetrics, ManagerMetrics, Operation, OwnQuota, Quota, ScaleSet, ScopeCounters, Seen, Source, Sweep, Target,
};
pub use pause::{Pause, PauseId, PauseScope};
pub use time::{Mono, Now, Span, Wall};
pub(crate) use told::told;
pub use told::{Guards, Words};
pub use treatment::{OpenStep, Outcome, Step, Treatment, TreatmentState};
