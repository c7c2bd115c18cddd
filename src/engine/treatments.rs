//! The treatments of one manager: which are open, how far they have come, and their steps.

use crate::engine::driver::{Driver, NotJournaled};
use crate::engine::records::Records;
use futures_util::future::join_all;
use medic_core::decide::deletion_warrant;
use medic_core::decide::pause;
use medic_core::diagnose::Fleet;
use medic_core::model::session::LedgerSession;
use medic_core::model::{
    Decision, ManagerState, ManualHeal, ManualHealAnswer, Now, Pause, Remedy, ScaleSetId, SetDecision, Step, Treatment,
    TreatmentId,
};
use medic_core::policy::Policy;
use medic_core::ports::write::JournalFault;
use medic_core::treat::machine;
use medic_core::treat::transition::{Input, SetView, Transition, View};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Treatments {
    pub(super) driver: Driver,
    policy: Policy,
    /// Stepped by this process in this term of the lease. Of any other, a request may have been sent.
    stepped: BTreeSet<TreatmentId>,
    /// Open after the last reconcile: what is undone when the store fails.
    open: BTreeMap<TreatmentId, Treatment>,
    /// Those that the journal could not follow, in this term of the lease.
    pub(super) ahead_of_journal: BTreeMap<TreatmentId, Treatment>,
}

/// What one reconcile knows that bears on treatments.
#[derive(Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) ledger: &'a [LedgerSession],
    pub(super) pauses: &'a [Pause],
    pub(super) now: Now,
}

/// The treatments that were open at shutdown.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    pub closed: Vec<Treatment>,
    /// Intents that stay open.
    pub open: Vec<Treatment>,
}

impl Treatments {
    pub(super) fn new(driver: Driver, policy: Policy) -> Self {
        let (stepped, open, ahead_of_journal) = Default::default();
        Self { driver, policy, stepped, open, ahead_of_journal }
    }

    /// After the lease was lost or acquired, only the journal counts.
    pub(super) fn forget_progress(&mut self) {
        self.stepped.clear();
        self.ahead_of_journal.clear();
    }

    /// The open treatments, as far as they have come. What was answered is not sent again: with a manager's clock that
    /// is off, our change would look like somebody else's.
    pub(super) fn unfinished(&mut self, journaled: Option<Vec<Treatment>>) -> Vec<Treatment> {
        let unfinished = journaled.unwrap_or_else(|| self.open.values().cloned().collect());
        self.ahead_of_journal.retain(|id, _| unfinished.iter().any(|treatment| treatment.id == *id));
        let furthest = |row: Treatment| self.ahead_of_journal.get(&row.id).cloned().unwrap_or(row);
        unfinished.into_iter().map(furthest).collect()
    }

    pub(super) fn set_open(&mut self, open: &[Treatment]) {
        self.open = open.iter().map(|treatment| (treatment.id, treatment.clone())).collect();
        self.stepped.retain(|id| self.open.contains_key(id));
    }

    pub(super) async fn step_all(
        &mut self,
        open: Vec<Treatment>,
        situation: Situation<'_>,
        records: &Records,
    ) -> Vec<Treatment> {
        let step = |treatment: Treatment| {
            let input = if self.stepped.insert(treatment.id) {
                Input::Recover
            } else {
                let mut pauses = pause::blocks(situation.pauses, records.manager(), treatment.set, situation.now.wall);
                let paused = pauses.next().is_some();
                Input::Sweep(View { paused, ..view(situation, &treatment) })
            };
            let transition = machine::step(&treatment, input, situation.now, &self.policy);
            (treatment, transition)
        };
        let transitions = open.into_iter().map(step).collect();
        self.carry_out_all(transitions, records).await
    }

    /// Undoes what must not stay although the store fails: enables sets that we disabled, deletes our sessions.
    pub(super) async fn undo_all(
        &mut self,
        unfinished: Vec<Treatment>,
        situation: Situation<'_>,
        records: &Records,
    ) -> Vec<Treatment> {
        let mut open: BTreeMap<_, _> = unfinished.into_iter().map(|treatment| (treatment.id, treatment)).collect();
        open.extend(self.open.iter().map(|(id, treatment)| (*id, treatment.clone())));
        let must_not_stay =
            |treatment: &Treatment| treatment.may_have_disabled() || matches!(treatment.step, Step::CheckOpened { .. });
        let (undone, mut others): (Vec<_>, Vec<_>) = open.into_values().partition(must_not_stay);
        others.extend(self.step_all(undone, Situation { ledger: &[], pauses: &[], ..situation }, records).await);
        others
    }

    /// Opens a treatment for every decision to treat, and takes its first steps.
    pub(super) async fn begin(
        &mut self,
        decisions: &[SetDecision],
        situation: Situation<'_>,
        heals: &[ManualHeal],
        records: &Records,
    ) -> Vec<Treatment> {
        let mut transitions = Vec::new();
        for SetDecision { set, decision } in decisions {
            let Decision::Treat { remedy, canary } = decision else { continue };
            let heal = heals.iter().rev().find(|heal| heal.set == *set);
            let treatment = new_treatment(situation, *set, remedy).and_then(|treatment| {
                records.open_treatment(Treatment {
                    canary: *canary,
                    manual_heal: heal.map(|heal| heal.id),
                    ..treatment
                })
            });
            let Some(treatment) = treatment else { continue };
            if let Some(heal) = heal {
                records.answer_manual_heal(heal, &ManualHealAnswer::Treating { treatment: treatment.id });
            }
            self.stepped.insert(treatment.id);
            let input = Input::Sweep(view(situation, &treatment));
            let transition = machine::step(&treatment, input, self.driver.clock.now(), &self.policy);
            transitions.push((treatment, transition));
        }
        self.carry_out_all(transitions, records).await
    }

    /// Carries transitions out, all at once. A treatment that the journal could not follow goes on from where it has
    /// come, as after a crash; one whose lease was lost, from where the new holder has brought it.
    async fn carry_out_all(&mut self, transitions: Vec<(Treatment, Transition)>, records: &Records) -> Vec<Treatment> {
        let (driver, policy) = (&self.driver, &self.policy);
        let carried = join_all(transitions.into_iter().map(|(before, transition)| async move {
            if transition.request.is_none() && transition.treatment == before {
                return (before, None);
            }
            let carried = driver.carry_out(transition, policy).await;
            (before, Some(carried))
        }));
        let mut treatments = Vec::new();
        for (before, carried) in carried.await {
            treatments.push(match carried {
                None => before,
                Some(Ok(after)) => {
                    self.ahead_of_journal.remove(&after.id);
                    after
                }
                Some(Err(NotJournaled { reached, error })) => {
                    records.report_failure(&error);
                    let reached = reached.unwrap_or(before);
                    self.stepped.remove(&reached.id);
                    if error.cause != JournalFault::LeaseLost && !reached.step.is_closed() {
                        self.ahead_of_journal.insert(reached.id, reached.clone());
                    }
                    reached
                }
            });
        }
        treatments
    }

    /// Undoes what must not stay when the process ends, as far as the servers answer.
    pub(super) async fn finish(&mut self, records: &Records) -> Finished {
        let unfinished = self.unfinished(records.unfinished());
        let intents = unfinished.into_iter().filter(|treatment| treatment.step.is_intent());
        let (driver, policy) = (&self.driver, &self.policy);
        let finished = join_all(intents.map(|treatment| async move {
            let finished = driver.finish(treatment.clone(), policy).await;
            finished.inspect_err(|error| records.report_failure(error)).unwrap_or(treatment)
        }));
        let (closed, open): (Vec<_>, Vec<_>) =
            finished.await.into_iter().partition(|treatment| treatment.step.is_closed());
        Finished { closed, open: open.into_iter().filter(|treatment| treatment.step.is_intent()).collect() }
    }
}

fn new_treatment(situation: Situation<'_>, set: ScaleSetId, remedy: &Remedy) -> Option<Treatment> {
    let fleet = situation.fleet;
    let (scale_set, finding) = (fleet.sets.get(&set)?, fleet.findings.get(&set)?);
    let at = situation.now.wall;
    Some(Treatment {
        id: TreatmentId(0),
        set,
        name: scale_set.name.clone(),
        place: scale_set.place(),
        remedy: remedy.clone(),
        cause: finding.diagnosis,
        incarnation: fleet.incarnation,
        opened: at,
        canary: false,
        step: machine::first_step(remedy, scale_set, at),
        step_at: at,
        worker_restarted: None,
        holder: None,
        refusal: None,
        manual_heal: None,
    })
}

/// What a treatment's machine may know of this sweep.
fn view<'a>(situation: Situation<'a>, treatment: &Treatment) -> View<'a> {
    let fleet = situation.fleet;
    let answers = matches!(fleet.manager, ManagerState::Up | ManagerState::Restarted);
    let set = match fleet.sets.get(&treatment.set) {
        Some(set) if answers => SetView::Seen(set),
        None if answers => SetView::Gone,
        Some(_) | None => SetView::Unseen,
    };
    View {
        manager: fleet.manager,
        incarnation: fleet.incarnation,
        set,
        finding: fleet.findings.get(&treatment.set),
        warrant: deletion_warrant(fleet, situation.ledger, treatment),
        paused: false,
    }
}
