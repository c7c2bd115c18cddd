//! The only caller of writes. For each step of a treatment's machine: the journal first, then the wire, then the
//! answer back into the machine (I6). When the journal fails, nothing is sent, not even what would undo: the journal
//! still holds the intent, which the next pass or the next process settles by reading.

use super::machine::{self, Answer, Effect, Input, Transition};
use super::ports::{Journal, JournalError, ManagerWriter, SessionWriter, WriteError};
use crate::clock::Clock;
use crate::decide::policy::Policy;
use crate::model::{Enablement, FailureKind, ForgePlace, ManagerName, Operation, ProbeFailure, Span, Treatment};
use std::sync::Arc;

/// Effects one treatment may have in one pass; the machines need at most five.
const EFFECTS_PER_PASS: usize = 12;

/// Attempts to undo when the process must end; who must end sooner drops the future, and the next start goes on.
const SETTLE_ROUNDS: usize = 10;

/// The pause between two of them.
const SETTLE_PAUSE: Span = Span::millis(500);

/// What treatments of one manager act with.
#[derive(Clone)]
pub struct Driver {
    /// Whose sets.
    pub manager_name: ManagerName,
    /// The manager's write side.
    pub manager: Arc<dyn ManagerWriter>,
    /// GitHub's write side, where credentials are configured.
    pub sessions: Option<Arc<dyn SessionWriter>>,
    /// Where intents are kept.
    pub journal: Arc<dyn Journal>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Driver {
    /// Carries a transition out until the machine waits for the next pass or has closed.
    ///
    /// # Errors
    /// When the journal cannot keep a step: the effect that would have followed was not sent.
    pub async fn carry_out(&self, mut transition: Transition, policy: &Policy) -> Result<Treatment, JournalError> {
        for _ in 0..EFFECTS_PER_PASS {
            self.tell(&transition);
            self.journal.record(&transition.treatment)?;
            let Some(effect) = transition.effect else { return Ok(transition.treatment) };
            let answer = self.perform(&transition.treatment, effect).await;
            transition = machine::step(&transition.treatment, Input::Answer(answer), self.clock.now(), policy);
        }
        self.journal.record(&transition.treatment)?;
        Ok(transition.treatment)
    }

    /// Undoes what must not stay when the process ends: enables a set that we disabled, ends a session that we opened,
    /// settles a disable whose effect is not known. What is still an intent in the end is settled by the next start.
    ///
    /// # Errors
    /// When the journal cannot keep a step: the effect that would have followed was not sent.
    pub async fn settle(&self, mut treatment: Treatment, policy: &Policy) -> Result<Treatment, JournalError> {
        for round in 0..SETTLE_ROUNDS {
            // Not after the first: its answer may only tell what to undo, that a disable was ours.
            if round > 1 {
                self.clock.sleep(SETTLE_PAUSE).await;
            }
            let transition = machine::step(&treatment, Input::Shutdown, self.clock.now(), policy);
            if transition.effect.is_none() && transition.treatment == treatment {
                break;
            }
            treatment = self.carry_out(transition, policy).await?;
            if !treatment.step.is_intent() {
                break;
            }
        }
        Ok(treatment)
    }

    async fn perform(&self, treatment: &Treatment, effect: Effect) -> Answer {
        let set = treatment.set;
        match effect {
            Effect::Disable => Answer::Disabled(self.manager.set_enabled(set, Enablement::Disabled).await),
            Effect::Enable => Answer::Enabled(self.manager.set_enabled(set, Enablement::Enabled).await),
            Effect::ReadSet => Answer::Read(self.manager.read_set(set).await),
            Effect::CheckIncarnation => Answer::Incarnation(self.manager.incarnation().await),
            Effect::DeleteSession { session } | Effect::DeleteOwnSession { session } => {
                Answer::SessionDeleted(match self.forge(treatment, Operation::DeleteSession) {
                    Ok((sessions, place)) => sessions.delete_session(place, &session).await,
                    Err(failure) => Err(WriteError::NotApplied(failure)),
                })
            }
            Effect::OpenSession { owner } => {
                Answer::SessionOpened(match self.forge(treatment, Operation::OpenSession) {
                    Ok((sessions, place)) => sessions.open_session(place, &owner).await,
                    Err(failure) => Err(WriteError::NotApplied(failure)),
                })
            }
        }
    }

    fn forge<'a>(
        &'a self,
        treatment: &'a Treatment,
        operation: Operation,
    ) -> Result<(&'a dyn SessionWriter, &'a ForgePlace), ProbeFailure> {
        match (&self.sessions, &treatment.place) {
            (Some(sessions), Some(place)) => Ok((sessions.as_ref(), place)),
            (None, _) | (_, None) => Err(ProbeFailure {
                target: operation.target(),
                operation,
                kind: FailureKind::Rejected,
                detail: "no GitHub credential is configured for this scale set's entity".to_owned(),
                retry_at: None,
            }),
        }
    }

    fn tell(&self, transition: &Transition) {
        let treatment = &transition.treatment;
        tracing::info!(
            manager = %self.manager_name,
            scale_set = %treatment.set,
            name = %treatment.name,
            treatment = %treatment.id,
            remedy = %treatment.remedy.kind(),
            step = treatment.step.label(),
            outcome = treatment.outcome().map(crate::model::Outcome::as_str),
            note = transition.note.as_deref(),
            "treatment step",
        );
    }
}
