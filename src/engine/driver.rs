//! The only caller of writes. For each step of a treatment's machine: the journal first, then the request, then the
//! answer back into the machine (I6). When the journal fails, only what undoes is sent: the journal has named that
//! intent since before the disable, and a full disk must not leave a set disabled. When another instance has taken
//! over, nothing is sent.

use medic_core::clock::Clock;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Enablement, FailureKind, GithubPlace, ManagerName, Operation, Outcome, RequestFailure, Span, Treatment,
};
use medic_core::policy::Policy;
use medic_core::ports::write::{Journal, JournalError, JournalFault, ManagerWriter, SessionWriter};
use medic_core::treat::audit::{Exchange, RequestRecord};
use medic_core::treat::machine;
use medic_core::treat::transition::{Answer, Input, Request, Transition};
use medic_store::{ManagerStore, StoreError};
use std::sync::Arc;

/// Requests that one treatment may send in one reconcile; the machines need at most five.
const REQUESTS_PER_RECONCILE: usize = 12;

/// Attempts to undo at shutdown. The next start goes on with what is left.
const FINISH_ROUNDS: usize = 10;
const FINISH_PAUSE: Span = Span::millis(500);

/// What treatments of one manager write with.
#[derive(Clone)]
pub struct Driver {
    pub manager_name: ManagerName,
    pub manager: Arc<dyn ManagerWriter>,
    /// Where GitHub credentials are configured.
    pub sessions: Option<Arc<dyn SessionWriter>>,
    pub journal: Arc<dyn Journal>,
    pub history: Arc<dyn RequestHistory>,
    pub clock: Arc<dyn Clock>,
}

/// The history of requests. Nothing depends on it.
pub trait RequestHistory: Send + Sync {
    fn record_request(&self, record: &RequestRecord) -> Result<(), StoreError>;
}

impl RequestHistory for ManagerStore {
    fn record_request(&self, record: &RequestRecord) -> Result<(), StoreError> {
        self.append(record.sent, "request", Some(record.set), &serde_json::json!(record))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotJournaled {
    /// How far the treatment has come all the same; `None` when nothing was done.
    pub reached: Option<Treatment>,
    pub error: JournalError,
}

impl Driver {
    /// Carries a transition out until the machine waits for the next sweep or has closed.
    /// Fails when the journal cannot record a step: the request that would have followed was not sent, unless it
    /// undoes.
    pub async fn carry_out(&self, mut transition: Transition, policy: &Policy) -> Result<Treatment, NotJournaled> {
        let mut exchange: Option<Exchange> = None;
        let (mut reached, mut failed) = (None, None::<JournalError>);
        for _ in 0..REQUESTS_PER_RECONCILE {
            self.log_step(&transition);
            if let Err(error) = self.record(&transition, exchange.take()) {
                if error.cause == JournalFault::LeaseLost || !may_follow_a_failure(&transition) {
                    return Err(NotJournaled { reached, error });
                }
                failed = Some(error);
            }
            reached = Some(transition.treatment.clone());
            let Some(request) = transition.request else {
                return match failed {
                    Some(error) => Err(NotJournaled { reached, error }),
                    None => Ok(transition.treatment),
                };
            };
            let (before, sent) = (transition.treatment.step.label(), self.clock.now());
            let answer = self.send(&transition.treatment, request.clone()).await;
            let now = self.clock.now();
            exchange = Some(Exchange::new(before, request, sent.wall, now.mono.since(sent.mono), &answer));
            transition = machine::step(&transition.treatment, Input::Answer(answer), now, policy);
        }
        match self.record(&transition, exchange) {
            Ok(()) => Ok(transition.treatment),
            Err(error) => Err(NotJournaled { reached: Some(transition.treatment), error }),
        }
    }

    /// The journal first, which a crash needs; then the history, whose failure stops nothing.
    fn record(&self, transition: &Transition, exchange: Option<Exchange>) -> Result<(), JournalError> {
        let recorded = self.journal.record(&transition.treatment);
        if let Some(record) = exchange.and_then(|exchange| exchange.into_record(transition))
            && let Err(error) = self.history.record_request(&record)
        {
            tracing::warn!(manager = %self.manager_name, %error, "a request could not be saved in the history");
        }
        recorded
    }

    /// Undoes at shutdown what must not stay: enables a set that we disabled, deletes a session that we opened, reads
    /// back a disable whose answer was lost. The next start finishes what is still an intent then. Fails when another
    /// instance has taken over. A journal that fails otherwise prevents no undoing.
    pub async fn finish(&self, mut treatment: Treatment, policy: &Policy) -> Result<Treatment, JournalError> {
        for round in 0..FINISH_ROUNDS {
            // The first answer may only show that a disable was ours: the enable follows at once.
            if round > 1 {
                self.clock.sleep(FINISH_PAUSE).await;
            }
            let transition = machine::step(&treatment, Input::Shutdown, self.clock.now(), policy);
            if transition.request.is_none() && transition.treatment == treatment {
                break;
            }
            treatment = match self.carry_out(transition, policy).await {
                Ok(done) => done,
                Err(NotJournaled { reached: Some(reached), error }) if error.cause == JournalFault::Storage => {
                    tracing::error!(manager = %self.manager_name, %error, "undone without the journal");
                    reached
                }
                Err(NotJournaled { error, .. }) => return Err(error),
            };
            if !treatment.step.is_intent() {
                break;
            }
        }
        Ok(treatment)
    }

    async fn send(&self, treatment: &Treatment, request: Request) -> Answer {
        let set = treatment.set;
        match request {
            Request::Disable => Answer::Disabled(self.manager.set_enabled(set, Enablement::Disabled).await),
            Request::Enable => Answer::Enabled(self.manager.set_enabled(set, Enablement::Enabled).await),
            Request::ReadSet => Answer::Read(self.manager.read_set(set).await),
            Request::CheckIncarnation { warrant } => {
                Answer::Incarnation { incarnation: self.manager.incarnation().await, warrant }
            }
            Request::DeleteSession { warrant } | Request::DeleteOwnSession { warrant } => {
                Answer::SessionDeleted(match self.github(treatment, Operation::DeleteSession) {
                    Ok((sessions, place)) => sessions.delete_session(place, &warrant).await,
                    Err(error) => Err(error),
                })
            }
            Request::OpenSession { owner } => {
                Answer::SessionOpened(match self.github(treatment, Operation::OpenSession) {
                    Ok((sessions, place)) => sessions.open_session(place, &owner).await,
                    Err(error) => Err(error),
                })
            }
        }
    }

    fn github<'a>(
        &'a self,
        treatment: &'a Treatment,
        operation: Operation,
    ) -> Result<(&'a dyn SessionWriter, &'a GithubPlace), WriteError> {
        let sessions = self.sessions.as_deref().zip(treatment.place.as_ref());
        sessions.ok_or_else(|| {
            WriteError::NotApplied(RequestFailure {
                target: operation.target(),
                operation,
                kind: FailureKind::Rejected,
                detail: "no GitHub credential is configured for this scale set's entity".to_owned(),
                retry_at: None,
            })
        })
    }

    fn log_step(&self, transition: &Transition) {
        let treatment = &transition.treatment;
        tracing::info!(
            manager = %self.manager_name,
            scale_set = %treatment.set,
            name = %treatment.name,
            treatment = %treatment.id,
            remedy = %treatment.remedy.kind(),
            step = treatment.step.label(),
            outcome = treatment.outcome().map(Outcome::as_str),
            note = transition.note.as_deref(),
            "treatment step",
        );
    }
}

/// Whether a step that the journal could not record may go on: if it sends nothing, or only undoes what the journal has
/// named since before it was done.
const fn may_follow_a_failure(transition: &Transition) -> bool {
    match &transition.request {
        None | Some(Request::Enable | Request::DeleteOwnSession { .. }) => true,
        Some(Request::ReadSet) => transition.treatment.may_have_disabled(),
        Some(
            Request::Disable
            | Request::CheckIncarnation { .. }
            | Request::DeleteSession { .. }
            | Request::OpenSession { .. },
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use medic_clock::ScaledClock;
    use medic_core::decide::warrant::DeletionWarrant;
    use medic_core::model::{Incarnation, Owner, Remedy, ScaleSet, ScaleSetId, Step, TreatmentId, Wall};
    use medic_core::ports::write::OpenAnswer;
    use medic_core::treat::audit::{AnswerClass, SentRequest};
    use medic_core::treat::testing::{RUN, Seen, T0, disabled, enabled, lost, refused, rev, session, treatment};
    use medic_store::StoreErrorKind;
    use std::sync::{Mutex, PoisonError};

    /// Journal and servers in one, so that one list has the order of everything.
    struct World {
        log: Mutex<Vec<String>>,
        /// The set as the manager has it.
        set: Mutex<ScaleSet>,
        /// Answers to the next writes, where they are not granted.
        errors: Mutex<Vec<WriteError>>,
        /// Journal entries before the disk is full.
        space: Mutex<usize>,
        fault: Mutex<JournalFault>,
        requests: Mutex<Vec<RequestRecord>>,
    }

    fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl World {
        fn with(set: ScaleSet) -> Arc<Self> {
            Arc::new(Self {
                log: Mutex::default(),
                set: Mutex::new(set),
                errors: Mutex::default(),
                space: Mutex::new(usize::MAX),
                fault: Mutex::new(JournalFault::Storage),
                requests: Mutex::default(),
            })
        }
        fn note(&self, what: impl Into<String>) {
            locked(&self.log).push(what.into());
        }
        fn log(&self) -> Vec<String> {
            locked(&self.log).clone()
        }
        fn next_error(&self) -> Result<(), WriteError> {
            locked(&self.errors).pop().map_or(Ok(()), Err)
        }
        fn driver(self: &Arc<Self>) -> Driver {
            Driver {
                manager_name: ManagerName::new("garm"),
                manager: Arc::clone(self) as Arc<dyn ManagerWriter>,
                sessions: Some(Arc::clone(self) as Arc<dyn SessionWriter>),
                journal: Arc::clone(self) as Arc<dyn Journal>,
                history: Arc::clone(self) as Arc<dyn RequestHistory>,
                clock: Arc::new(ScaledClock::new(T0, 1.0)),
            }
        }
        async fn reconcile(self: &Arc<Self>, treatment: &Treatment) -> Result<Treatment, NotJournaled> {
            let (driver, policy) = (self.driver(), Policy::default());
            let seen = Seen::ill().with(locked(&self.set).clone());
            let now = driver.clock.now();
            driver.carry_out(machine::step(treatment, Input::Sweep(seen.view()), now, &policy), &policy).await
        }
        async fn finish(self: &Arc<Self>, treatment: Treatment) -> Treatment {
            self.driver().finish(treatment, &Policy::default()).await.unwrap()
        }
    }

    #[async_trait]
    impl ManagerWriter for World {
        async fn set_enabled(&self, _: ScaleSetId, to: Enablement) -> Result<ScaleSet, WriteError> {
            self.note(if to == Enablement::Enabled { "ENABLE" } else { "DISABLE" });
            let error = self.next_error();
            if matches!(error, Err(WriteError::NotApplied(_))) {
                return Err(error.unwrap_err());
            }
            let changed = if to == Enablement::Enabled { enabled("enabled") } else { disabled("ours", T0) };
            *locked(&self.set) = changed.clone();
            error.map(|()| changed)
        }
        async fn read_set(&self, _: ScaleSetId) -> Result<Option<ScaleSet>, RequestFailure> {
            self.note("read");
            Ok(Some(locked(&self.set).clone()))
        }
        async fn incarnation(&self) -> Result<Incarnation, RequestFailure> {
            self.note("read run");
            Ok(RUN)
        }
    }

    #[async_trait]
    impl SessionWriter for World {
        async fn open_session(&self, _: &GithubPlace, owner: &Owner) -> Result<OpenAnswer, WriteError> {
            self.note(format!("OPEN as {owner}"));
            self.next_error().map(|()| OpenAnswer::Opened(session()))
        }
        async fn delete_session(&self, _: &GithubPlace, warrant: &DeletionWarrant) -> Result<(), WriteError> {
            self.note(format!("DELETE {}", warrant.session()));
            self.next_error()
        }
    }

    impl Journal for World {
        fn open(&self, treatment: Treatment) -> Result<Treatment, JournalError> {
            Ok(Treatment { id: TreatmentId(1), ..treatment })
        }
        fn record(&self, treatment: &Treatment) -> Result<(), JournalError> {
            let mut space = locked(&self.space);
            let Some(left) = space.checked_sub(1) else {
                self.note("journal full");
                let (path, detail) = ("/state".to_owned(), "the disk is full".to_owned());
                let cause = *locked(&self.fault);
                return Err(JournalError { path, what: "record a treatment", detail, cause });
            };
            *space = left;
            self.note(format!("journal {}", treatment.step.label()));
            Ok(())
        }
        fn unfinished(&self) -> Result<Vec<Treatment>, JournalError> {
            Ok(Vec::new())
        }
        fn since(&self, _: Wall) -> Result<Vec<Treatment>, JournalError> {
            Ok(Vec::new())
        }
    }

    /// A history that always fails stops nothing.
    impl RequestHistory for World {
        fn record_request(&self, record: &RequestRecord) -> Result<(), StoreError> {
            locked(&self.requests).push(record.clone());
            let (path, detail) = ("/state".to_owned(), "the disk is full".to_owned());
            Err(StoreError { path, what: "append to the history", kind: StoreErrorKind::DiskFull, detail })
        }
    }

    fn toggle() -> Treatment {
        treatment(Step::Disabling { seen: rev("seen"), sent: None })
    }

    fn disabled_by_us() -> Treatment {
        treatment(Step::Disabled { ours: rev("ours"), again_until: None })
    }

    fn due_enable() -> Treatment {
        treatment(Step::Enabling { ours: rev("ours"), since: None, attempts: 0, not_before: T0 })
    }

    fn deletion() -> Treatment {
        let step = Step::Deleting { session: session(), seen: Some(rev("seen")), attempts: 0, not_before: T0 };
        Treatment { remedy: Remedy::DeleteThenToggle { session: session() }, ..treatment(step) }
    }

    fn session_check() -> Treatment {
        let step = Step::CheckOpening { owner: Owner::new("check-1") };
        Treatment { remedy: Remedy::SessionCheck, ..treatment(step) }
    }

    #[tokio::test(start_paused = true)]
    async fn driver_journals_every_write_before_it_is_sent() {
        let world = World::with(enabled("seen"));
        let disabled = world.reconcile(&toggle()).await.unwrap();
        let due = Treatment { step_at: T0.minus(Span::secs(20)), ..disabled };
        let done = world.reconcile(&due).await.unwrap();
        let log = "journal disabling|read|journal disabling|DISABLE|journal disabled|\
                   journal enabling|read|journal enabling|ENABLE|journal verifying";
        assert_eq!((world.log().join("|").as_str(), done.step), (log, Step::Verifying));

        let world = World::with(enabled("seen"));
        let done = world.reconcile(&deletion()).await.unwrap();
        let log = "journal deleting|read run|journal deleting|DELETE s-1|journal deleting|read|\
                   journal disabling|DISABLE|journal disabled";
        assert_eq!((world.log().join("|").as_str(), done.step), (log, disabled_by_us().step));

        let world = World::with(enabled("seen"));
        let done = world.reconcile(&session_check()).await.unwrap();
        let log = "journal check_opening|OPEN as check-1|journal check_opened|DELETE s-1|journal closed";
        assert_eq!((world.log().join("|").as_str(), done.outcome()), (log, Some(Outcome::Unheld)));
    }

    #[tokio::test(start_paused = true)]
    async fn driver_records_each_request_with_answer_and_next_step() {
        let recorded = |world: &World| -> Vec<_> {
            let requests = locked(&world.requests).clone();
            requests.into_iter().map(|record| (record.request, record.answer, record.step, record.outcome)).collect()
        };
        let step = |label: &str| label.to_owned();
        let world = World::with(enabled("seen"));
        locked(&world.errors).push(lost());
        world.reconcile(&toggle()).await.unwrap();
        let disable = (SentRequest::Disable, AnswerClass::Unknown, step("disable_unknown"), None);
        let read = (SentRequest::ReadSet, AnswerClass::Done, step("disabled"), None);
        assert_eq!(recorded(&world), [disable, read]);

        let world = World::with(enabled("seen"));
        world.reconcile(&session_check()).await.unwrap();
        let open = SentRequest::OpenSession { owner: Owner::new("check-1") };
        let open = (open, AnswerClass::Done, step("check_opened"), None);
        let delete = SentRequest::DeleteOwnSession { session: session() };
        let delete = (delete, AnswerClass::Done, step("closed"), Some(Outcome::Unheld));
        assert_eq!(recorded(&world), [open, delete]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_more_is_sent_when_the_journal_fails() {
        for begun in [toggle(), deletion(), session_check()] {
            for space in 0..if begun.remedy == Remedy::SessionCheck { 1 } else { 3 } {
                let world = World::with(enabled("seen"));
                *locked(&world.space) = space;
                let failed = world.reconcile(&begun).await.unwrap_err();
                let message = "the journal at /state could not record a treatment: the disk is full";
                assert_eq!(failed.error.to_string(), message);
                let log = world.log();
                assert_eq!(log.last().map(String::as_str), Some("journal full"), "{log:?}");
                assert_eq!(log.iter().filter(|line| line.starts_with("journal ")).count(), space + 1, "{log:?}");
                assert!(space > 0 || (log.len(), failed.reached) == (1, None), "not even a read: {log:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_disk_leaves_no_set_disabled_and_no_session_open() {
        let full = "journal full";
        let world = World::with(disabled("ours", T0));
        *locked(&world.space) = 0;
        let failed = world.reconcile(&due_enable()).await.unwrap_err();
        assert_eq!(world.log(), [full, "read", full, "ENABLE", full]);
        assert_eq!(failed.reached.unwrap().step, Step::Verifying);

        let world = World::with(enabled("seen"));
        *locked(&world.space) = 1;
        let failed = world.reconcile(&session_check()).await.unwrap_err();
        assert_eq!(world.log(), ["journal check_opening", "OPEN as check-1", full, "DELETE s-1", full]);
        assert_eq!(failed.reached.unwrap().outcome(), Some(Outcome::Unheld));

        let world = World::with(disabled("ours", T0));
        *locked(&world.space) = 0;
        let done = world.finish(disabled_by_us()).await;
        assert_eq!((done.step, locked(&world.set).enabled), (Step::Verifying, Enablement::Enabled));
    }

    #[tokio::test(start_paused = true)]
    async fn lost_lease_stops_even_an_enable() {
        let world = World::with(disabled("ours", T0));
        *locked(&world.space) = 0;
        *locked(&world.fault) = JournalFault::LeaseLost;
        assert_eq!(world.reconcile(&due_enable()).await.unwrap_err().reached, None);
        assert!(world.driver().finish(due_enable(), &Policy::default()).await.is_err());
        assert_eq!(world.log(), ["journal full", "journal full"]);
    }

    #[tokio::test(start_paused = true)]
    async fn session_check_without_a_credential_sends_nothing() {
        let world = World::with(enabled("seen"));
        let (driver, policy) = (Driver { sessions: None, ..world.driver() }, Policy::default());
        let seen = Seen::ill();
        let first = machine::step(&session_check(), Input::Sweep(seen.view()), driver.clock.now(), &policy);
        let done = driver.carry_out(first, &policy).await.unwrap();
        assert_eq!(world.log(), ["journal check_opening", "journal closed"]);
        assert_eq!(done.outcome(), Some(Outcome::Failed));
        assert!(done.why().unwrap().contains("no GitHub credential is configured"), "{done:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn finish_enables_what_we_disabled() {
        let world = World::with(disabled("ours", T0));
        let done = world.finish(disabled_by_us()).await;
        assert_eq!(world.log(), ["journal enabling", "read", "journal enabling", "ENABLE", "journal verifying"]);
        assert_eq!(done.step, Step::Verifying);

        let world = World::with(disabled("ours", T0));
        let began = tokio::time::Instant::now();
        let done = world.finish(treatment(Step::Disabling { seen: rev("seen"), sent: Some(T0) })).await;
        assert_eq!(done.step, Step::Verifying, "in the middle of a disable: {:?}", world.log());
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        assert_eq!(locked(&world.set).enabled, Enablement::Enabled);
    }

    #[tokio::test(start_paused = true)]
    async fn finish_tries_for_seconds_and_leaves_the_rest_open() {
        let world = World::with(disabled("ours", T0));
        *locked(&world.errors) = vec![lost(), refused(), refused()];
        let done = world.finish(disabled_by_us()).await;
        assert_eq!(done.step, Step::Verifying, "{:?}", world.log());
        assert_eq!(locked(&world.set).enabled, Enablement::Enabled);

        let world = World::with(disabled("ours", T0));
        *locked(&world.errors) = vec![refused(); 99];
        let began = tokio::time::Instant::now();
        let left = world.finish(disabled_by_us()).await;
        assert!(matches!(left.step, Step::Enabling { attempts: 10, .. }), "{left:?}");
        assert_eq!(began.elapsed(), std::time::Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn finish_deletes_our_session_and_leaves_what_may_stay() {
        let world = World::with(enabled("seen"));
        let opened = Step::CheckOpened { session: session(), attempts: 0, not_before: T0 };
        let done = world.finish(Treatment { step: opened, ..session_check() }).await;
        assert_eq!(world.log(), ["journal check_opened", "DELETE s-1", "journal closed"]);
        assert_eq!(done.outcome(), Some(Outcome::Unheld));

        for step in [deletion(), treatment(Step::Verifying)] {
            let world = World::with(enabled("seen"));
            assert_eq!(world.finish(step.clone()).await, step);
            assert_eq!(world.log(), Vec::<String>::new());
        }
    }
}
