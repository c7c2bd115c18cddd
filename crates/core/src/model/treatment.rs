//! One run of a remedy, as it is journaled: every step is durable before its effect is on the wire (I6).

use super::closed::closed_enum;
use super::decision::Remedy;
use super::diagnosis::Diagnosis;
use super::ids::{Incarnation, Owner, Revision, ScaleSetId, SessionId, TreatmentId};
use super::manual::ManualHealId;
use super::observation::GithubPlace;
use super::time::{Span, Wall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

closed_enum! {
    /// How a treatment ended.
    pub enum Outcome {
        /// New listener evidence after the act.
        Recovered = "recovered",
        /// It recovered before anything of ours took effect.
        SelfRecovered = "self_recovered",
        /// Acted, and no listener evidence came in time.
        Unverified = "unverified",
        /// Somebody else acted on the set meanwhile; we stepped back.
        Aborted = "aborted",
        /// The act itself was refused; nothing was changed.
        Failed = "failed",
        /// A session probe answered: somebody holds a session.
        Held = "held",
        /// A session probe answered: nobody held a session.
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

/// A treatment of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treatment {
    /// Its number in the journal.
    pub id: TreatmentId,
    pub set: ScaleSetId,
    /// The set's name, for people.
    pub name: String,
    /// Where the set is on its forge, where known; remedies that touch sessions need it.
    pub place: Option<GithubPlace>,
    pub remedy: Remedy,
    /// The diagnosis it answers.
    pub cause: Diagnosis,
    /// The manager's run in which it was decided.
    pub incarnation: Option<Incarnation>,
    /// When it was decided.
    pub opened: Wall,
    /// Whether it goes first, alone.
    pub canary: bool,
    pub step: Step,
    /// When it got there.
    pub step_at: Wall,
    /// When its set was first seen to be revived: the worker lives and tries again.
    pub revived: Option<Wall>,
    /// Who holds the set's session, where the refusal of a session probe named it.
    #[serde(default)]
    pub holder: Option<Owner>,
    /// What came back from the last attempt at its present step, in words, where that did not succeed.
    #[serde(default)]
    pub refusal: Option<String>,
    /// The person's order that it carries out, if not our own decision.
    #[serde(default)]
    pub ordered: Option<ManualHealId>,
}

/// Where a treatment stands. The steps up to [`Step::Verifying`] are *intents*: something of ours may be in
/// effect that must be undone or completed, whatever dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// A stale session is being deleted.
    Deleting {
        session: SessionId,
        /// The set's revision when this was decided: a set that somebody has changed since is not toggled after the
        /// deletion. Journals of earlier releases do not say, and then it is not toggled either.
        #[serde(default)]
        seen: Option<Revision>,
        /// Requests sent so far.
        attempts: u32,
        not_before: Wall,
    },
    /// A disable is about to be, or has been, sent; its answer is not known.
    Disabling {
        /// The set's revision before.
        seen: Revision,
        /// When the request went out; absent while only the last look before it is under way, so that after a crash
        /// a disable in that time is known to be somebody else's.
        #[serde(default)]
        sent: Option<Wall>,
    },
    /// The disable's answer did not arrive: its effect is settled by reading.
    DisableUnknown {
        /// The set's revision before.
        seen: Revision,
        /// When the request went out; the manager's date of our change lies close after it.
        sent: Wall,
    },
    Disabled {
        /// The revision our write produced.
        ours: Revision,
        /// The disable's answer was lost, and what repeats requests on the way may deliver it once more until then: a
        /// set that was enabled before would be disabled again, and nobody would know by whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_until: Option<Wall>,
    },
    /// An enable is about to be, or has been, sent; its answer is not known.
    Enabling {
        /// The revision our disable produced.
        ours: Revision,
        /// Since when the set has been disabled; journals of earlier releases do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Wall>,
        /// Requests sent so far.
        attempts: u32,
        not_before: Wall,
    },
    /// Done; waiting for listener evidence newer than this step.
    Verifying,
    /// A session probe is about to be, or has been, sent; its answer is not known.
    CheckOpening {
        /// Our owner name, unique to this probe.
        owner: Owner,
    },
    /// The probe opened a session, which is ours to end.
    CheckOpened {
        session: SessionId,
        /// Delete requests sent so far.
        attempts: u32,
        not_before: Wall,
    },
    Closed {
        outcome: Outcome,
        why: String,
    },
}

impl Step {
    /// Whether something of ours may be in effect on a server that must not be left so.
    #[must_use]
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

    #[must_use]
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

    /// The step's name, for people and for JSON.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self.state() {
            TreatmentState::Open(step) => step.as_str(),
            TreatmentState::Ended(_) => "closed",
        }
    }

    /// Whether the treatment is over.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl Treatment {
    /// A disable that took effect did so within this after it was sent. A login and the write itself are given up well
    /// before (`garm::api`), and the manager stops when we hang up, but not in the middle of its own write.
    pub const LATE: Span = Span::secs(30);

    /// The outcome, once closed.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.step.state() {
            TreatmentState::Ended(outcome) => Some(outcome),
            TreatmentState::Open(_) => None,
        }
    }

    /// How it ended, in words, once closed.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match &self.step {
            Step::Closed { why, .. } => Some(why),
            Step::Deleting { .. }
            | Step::Disabling { .. }
            | Step::DisableUnknown { .. }
            | Step::Disabled { .. }
            | Step::Enabling { .. }
            | Step::Verifying
            | Step::CheckOpening { .. }
            | Step::CheckOpened { .. } => None,
        }
    }

    /// Whether the set is, or may be, disabled by this treatment.
    #[must_use]
    pub const fn may_have_disabled(&self) -> bool {
        self.disabled_since().is_some()
    }

    /// Since when the set is, or may be, disabled by this treatment.
    #[must_use]
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

    /// How often its present step was tried, and when it is tried next, where it is one that is tried again.
    #[must_use]
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

    /// Whether it counts against `max_in_flight`: acting, or acted and not yet revived.
    #[must_use]
    pub const fn in_flight(&self) -> bool {
        self.step.is_intent() || (matches!(self.step, Step::Verifying) && self.revived.is_none())
    }
}
