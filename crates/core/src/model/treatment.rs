//! One run of a remedy, as it is journaled: every step is durable before its effect is on the wire (I6).

use super::closed::closed_enum;
use super::decision::Remedy;
use super::diagnosis::Diagnosis;
use super::ids::{Incarnation, Owner, Revision, ScaleSetId, SessionId, TreatmentId};
use super::manual::ManualHealId;
use super::note::{self, Note};
use super::observation::GithubPlace;
use super::time::{Span, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// How a treatment ended.
    pub enum Outcome {
        /// New listener evidence after the treatment.
        Recovered = "recovered",
        /// It recovered before a request of ours took effect.
        SelfRecovered = "self_recovered",
        /// No new listener evidence came in time.
        Unverified = "unverified",
        /// Somebody else changed the set meanwhile.
        Aborted = "aborted",
        /// The request was refused; nothing was changed.
        Failed = "failed",
        /// A session check: somebody holds a session.
        Held = "held",
        /// A session check: nobody held a session.
        Unheld = "unheld",
    }
}

closed_enum! {
    /// The names of the steps before the end.
    pub enum OpenStep {
        Deleting = "deleting",
        Disabling = "disabling",
        DisableUnknown = "disable_unknown",
        Disabled = "disabled",
        Enabling = "enabling",
        Verifying = "verifying",
        CheckOpening = "check_opening",
        CheckOpened = "check_opened",
    }
}

/// Where a treatment stands, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TreatmentState {
    Open(OpenStep),
    Ended(Outcome),
}

impl std::fmt::Display for TreatmentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(step) => step.fmt(f),
            Self::Ended(outcome) => outcome.fmt(f),
        }
    }
}

/// One run of a remedy for one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treatment {
    pub id: TreatmentId,
    pub set: ScaleSetId,
    pub name: String,
    /// Where the set is at GitHub, where known; deletions and session checks need it.
    pub place: Option<GithubPlace>,
    pub remedy: Remedy,
    /// The diagnosis it answers.
    pub cause: Diagnosis,
    /// The manager's incarnation at the decision.
    pub incarnation: Option<Incarnation>,
    pub opened: Wall,
    /// Whether it runs first, alone.
    pub canary: bool,
    pub step: Step,
    pub step_at: Wall,
    /// When the worker of its set was first seen to try again.
    #[serde(alias = "revived")] // its name in snapshots of before 0.1.0
    pub worker_restarted: Option<Wall>,
    /// Who holds the set's session, where the refusal of a session check named it.
    #[serde(default)]
    pub holder: Option<Owner>,
    /// Why the last attempt at its present step failed.
    #[serde(default, deserialize_with = "note::lenient_option")]
    pub refusal: Option<Note>,
    /// The manual heal that it carries out, if it is none of our own decisions.
    #[serde(default, alias = "ordered")] // its name in snapshots of before 0.1.0
    pub manual_heal: Option<ManualHealId>,
}

/// The steps up to [`Step::Verifying`] are *intents*: a request of ours may be in effect that must be undone or
/// completed, even after a crash. `seen` is the set's revision before our disable, `ours` the one that it produced;
/// `attempts` counts requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    Deleting {
        session: SessionId,
        /// The set's revision at the decision: a set that somebody changed since is not toggled after the deletion.
        /// Absent in journals of earlier releases; then it is not toggled either.
        #[serde(default)]
        seen: Option<Revision>,
        attempts: u32,
        not_before: Wall,
    },
    /// A disable is about to be, or has been, sent; its answer is not known.
    Disabling {
        seen: Revision,
        /// When the request was sent; absent while the set is read once more before it, so that after a crash a disable
        /// in that time is known to be somebody else's.
        #[serde(default)]
        sent: Option<Wall>,
    },
    /// The disable's answer did not arrive: reading the set shows its effect.
    DisableUnknown {
        seen: Revision,
        /// When the request was sent; the manager dates our change shortly after it.
        sent: Wall,
    },
    Disabled {
        ours: Revision,
        /// The disable's answer was lost, and a proxy may deliver the request again until then: a set that was enabled
        /// before would be disabled again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_until: Option<Wall>,
    },
    /// An enable is about to be, or has been, sent; its answer is not known.
    Enabling {
        ours: Revision,
        /// Since when the set has been disabled; absent in journals of earlier releases.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Wall>,
        attempts: u32,
        not_before: Wall,
    },
    /// Waiting for listener evidence newer than this step.
    Verifying,
    /// A session check is about to be, or has been, sent; its answer is not known.
    CheckOpening { owner: Owner },
    /// The check opened a session, which we delete.
    CheckOpened { session: SessionId, attempts: u32, not_before: Wall },
    Closed {
        outcome: Outcome,
        #[serde(deserialize_with = "note::lenient")]
        why: Note,
    },
}

impl Step {
    /// Whether a request of ours may be in effect that must be undone or completed.
    pub const fn is_intent(&self) -> bool {
        match self {
            Self::Disabling { .. }
            | Self::DisableUnknown { .. }
            | Self::Disabled { .. }
            | Self::Enabling { .. }
            | Self::CheckOpening { .. }
            | Self::CheckOpened { .. }
            | Self::Deleting { .. } => true,
            Self::Verifying | Self::Closed { .. } => false,
        }
    }

    pub const fn state(&self) -> TreatmentState {
        TreatmentState::Open(match self {
            Self::Deleting { .. } => OpenStep::Deleting,
            Self::Disabling { .. } => OpenStep::Disabling,
            Self::DisableUnknown { .. } => OpenStep::DisableUnknown,
            Self::Disabled { .. } => OpenStep::Disabled,
            Self::Enabling { .. } => OpenStep::Enabling,
            Self::Verifying => OpenStep::Verifying,
            Self::CheckOpening { .. } => OpenStep::CheckOpening,
            Self::CheckOpened { .. } => OpenStep::CheckOpened,
            Self::Closed { outcome, .. } => return TreatmentState::Ended(*outcome),
        })
    }

    pub const fn label(&self) -> &'static str {
        match self.state() {
            TreatmentState::Open(step) => step.as_str(),
            TreatmentState::Ended(_) => "closed",
        }
    }

    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl Treatment {
    pub const fn is_heal(&self) -> bool {
        self.remedy.kind().heals()
    }

    /// A disable takes effect within this after it was sent, or never. A login and the write time out well before, and
    /// the manager stops when we hang up, except in the middle of its own write.
    pub const LATE: Span = Span::secs(30);

    pub const fn outcome(&self) -> Option<Outcome> {
        match self.step.state() {
            TreatmentState::Ended(outcome) => Some(outcome),
            TreatmentState::Open(_) => None,
        }
    }

    pub const fn why(&self) -> Option<&Note> {
        if let Step::Closed { why, .. } = &self.step { Some(why) } else { None }
    }

    /// Whether the set is, or may be, disabled by this treatment.
    pub const fn may_have_disabled(&self) -> bool {
        self.disabled_since().is_some()
    }

    /// Since when the set is, or may be, disabled by this treatment.
    pub const fn disabled_since(&self) -> Option<Wall> {
        match &self.step {
            Step::Disabling { sent, .. } => *sent,
            Step::DisableUnknown { sent, .. } => Some(*sent),
            Step::Disabled { again_until: Some(until), .. } => Some(until.minus(Self::LATE)),
            Step::Enabling { since: Some(since), .. } => Some(*since),
            Step::Disabled { again_until: None, .. } | Step::Enabling { since: None, .. } => Some(self.step_at),
            Step::Deleting { .. }
            | Step::Verifying
            | Step::CheckOpening { .. }
            | Step::CheckOpened { .. }
            | Step::Closed { .. } => None,
        }
    }

    /// The attempts at its present step and when the next is due, where the step is retried.
    pub const fn tries(&self) -> Option<(u32, Wall)> {
        match &self.step {
            Step::Deleting { attempts, not_before, .. }
            | Step::Enabling { attempts, not_before, .. }
            | Step::CheckOpened { attempts, not_before, .. } => Some((*attempts, *not_before)),
            Step::Disabling { .. }
            | Step::DisableUnknown { .. }
            | Step::Disabled { .. }
            | Step::Verifying
            | Step::CheckOpening { .. }
            | Step::Closed { .. } => None,
        }
    }

    /// Whether it counts against `max_in_flight`: an intent, or verifying a set whose worker does not try again yet.
    pub const fn in_flight(&self) -> bool {
        self.step.is_intent() || (matches!(self.step, Step::Verifying) && self.worker_restarted.is_none())
    }
}
