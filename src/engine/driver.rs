//! The only caller of writes. For each step of a treatment's machine: the journal first, then the wire, then the
//! answer back into the machine (I6). When the journal fails, nothing is sent but what undoes: the journal holds that
//! intent since before the disable, and a full disk must not leave a set disabled. When another medic has taken over,
//! nothing at all is sent.

use medic_core::clock::Clock;
use medic_core::model::failure::WriteError;
use medic_core::model::{
    Enablement, FailureKind, GithubPlace, ManagerName, Operation, RequestFailure, Span, Treatment,
};
use medic_core::policy::Policy;
use medic_core::ports::write::{Journal, JournalError, JournalFault, ManagerWriter, SessionWriter};
use medic_core::treat::audit::{Exchange, RequestRecord};
use medic_core::treat::machine::{self, Answer, Input, Request, Transition};
use medic_store::{ManagerStore, StoreError};
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
    pub manager_name: ManagerName,
    /// The manager's write side.
    pub manager: Arc<dyn ManagerWriter>,
    /// GitHub's write side, where credentials are configured.
    pub sessions: Option<Arc<dyn SessionWriter>>,
    /// Where intents are kept.
    pub journal: Arc<dyn Journal>,
    /// Where requests are recorded for the operator.
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

impl Driver {
    /// Carries a transition out until the machine waits for the next pass or has closed.
    ///
    /// # Errors
    /// When the journal cannot keep a step: an effect that would have followed was not sent, unless it undoes.
    pub async fn carry_out(&self, mut transition: Transition, policy: &Policy) -> Result<Treatment, Unkept> {
        let mut exchange: Option<Exchange> = None;
        let (mut reached, mut failed) = (None, None::<JournalError>);
        for _ in 0..EFFECTS_PER_PASS {
            self.tell(&transition);
            if let Err(error) = self.keep(&transition, exchange.take()) {
                if error.cause == JournalFault::LeaseLost || !may_follow_a_failure(&transition) {
                    return Err(Unkept { reached, error });
                }
                failed = Some(error);
            }
            reached = Some(transition.treatment.clone());
            let Some(effect) = transition.effect else {
                return match failed {
                    Some(error) => Err(Unkept { reached, error }),
                    None => Ok(transition.treatment),
                };
            };
            let (before, sent) = (transition.treatment.step.label(), self.clock.now());
            let answer = self.perform(&transition.treatment, effect.clone()).await;
            let now = self.clock.now();
            exchange = Some(Exchange::new(before, effect, sent.wall, now.mono.since(sent.mono), &answer));
            transition = machine::step(&transition.treatment, Input::Answer(answer), now, policy);
        }
        match self.keep(&transition, exchange) {
            Ok(()) => Ok(transition.treatment),
            Err(error) => Err(Unkept { reached: Some(transition.treatment), error }),
        }
    }

    /// The journal first, which a crash needs; then the history, which people read, and whose failure stops nothing.
    fn keep(&self, transition: &Transition, exchange: Option<Exchange>) -> Result<(), JournalError> {
        let recorded = self.journal.record(&transition.treatment);
        if let Some(record) = exchange.and_then(|exchange| exchange.into_record(transition))
            && let Err(error) = self.history.record_request(&record)
        {
            tracing::warn!(manager = %self.manager_name, %error, "a request could not be recorded in the history");
        }
        recorded
    }

    /// Undoes what must not stay when the process ends: enables a set that we disabled, ends a session that we opened,
    /// settles a disable whose effect is not known. What is still an intent in the end is settled by the next start.
    ///
    /// # Errors
    /// When another medic has taken over. A journal that keeps nothing hinders no undoing.
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
            treatment = match self.carry_out(transition, policy).await {
                Ok(done) => done,
                Err(Unkept { reached: Some(reached), error }) if error.cause == JournalFault::Storage => {
                    tracing::error!(manager = %self.manager_name, %error, "undone all the same");
                    reached
                }
                Err(Unkept { error, .. }) => return Err(error),
            };
            if !treatment.step.is_intent() {
                break;
            }
        }
        Ok(treatment)
    }

    async fn perform(&self, treatment: &Treatment, effect: Request) -> Answer {
        let set = treatment.set;
        match effect {
            Request::Disable => Answer::Disabled(self.manager.set_enabled(set, Enablement::Disabled).await),
            Request::Enable => Answer::Enabled(self.manager.set_enabled(set, Enablement::Enabled).await),
            Request::ReadSet => Answer::Read(self.manager.read_set(set).await),
            Request::CheckIncarnation => Answer::Incarnation(self.manager.incarnation().await),
            Request::DeleteSession { session } | Request::DeleteOwnSession { session } => {
                Answer::SessionDeleted(match self.forge(treatment, Operation::DeleteSession) {
                    Ok((sessions, place)) => sessions.delete_session(place, &session).await,
                    Err(failure) => Err(WriteError::NotApplied(failure)),
                })
            }
            Request::OpenSession { owner } => {
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
    ) -> Result<(&'a dyn SessionWriter, &'a GithubPlace), RequestFailure> {
        match (&self.sessions, &treatment.place) {
            (Some(sessions), Some(place)) => Ok((sessions.as_ref(), place)),
            (None, _) | (_, None) => Err(RequestFailure {
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
            outcome = treatment.outcome().map(medic_core::model::Outcome::as_str),
            note = transition.note.as_deref(),
            "treatment step",
        );
    }
}

/// What the journal could not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unkept {
    /// How far the treatment has come all the same; `None` when nothing was done.
    pub reached: Option<Treatment>,
    pub error: JournalError,
}

/// Whether a step that the journal could not keep may go on: if it has no effect, or only undoes what the journal has
/// known of since before it was done.
const fn may_follow_a_failure(transition: &Transition) -> bool {
    match &transition.effect {
        None | Some(Request::Enable | Request::DeleteOwnSession { .. }) => true,
        Some(Request::ReadSet) => transition.treatment.may_have_disabled(),
        Some(
            Request::Disable | Request::CheckIncarnation | Request::DeleteSession { .. } | Request::OpenSession { .. },
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use medic_clock::ScaledClock;
    use medic_core::model::{
        Incarnation, Outcome, Owner, Remedy, ScaleSet, ScaleSetId, SessionId, Step, TreatmentId, Wall,
    };
    use medic_core::ports::write::OpenAnswer;
    use medic_core::treat::audit::AnswerClass;
    use medic_core::treat::testing::{RUN, Seen, T0, disabled, enabled, lost, refused, rev, session, treatment};
    use medic_store::StoreErrorKind;
    use std::sync::{Mutex, PoisonError};

    /// Journal and servers in one, so that the order of everything is one list.
    struct Everything {
        log: Mutex<Vec<String>>,
        /// The set as the manager has it.
        set: Mutex<ScaleSet>,
        /// Answers to the next writes, where they are not granted.
        errors: Mutex<Vec<WriteError>>,
        /// Journal entries before the disk is full.
        room: Mutex<usize>,
        /// What it then says.
        fault: Mutex<JournalFault>,
        /// What the history was given.
        requests: Mutex<Vec<RequestRecord>>,
    }

    fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl Everything {
        fn with(set: ScaleSet) -> Arc<Self> {
            Arc::new(Self {
                log: Mutex::default(),
                set: Mutex::new(set),
                errors: Mutex::default(),
                room: Mutex::new(usize::MAX),
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
        /// One pass over a treatment.
        async fn pass(self: &Arc<Self>, treatment: &Treatment) -> Result<Treatment, Unkept> {
            let (driver, policy) = (self.driver(), Policy::default());
            let seen = Seen::ill().with(locked(&self.set).clone());
            let now = driver.clock.now();
            driver.carry_out(machine::step(treatment, Input::Sweep(seen.view()), now, &policy), &policy).await
        }
        async fn settle(self: &Arc<Self>, treatment: Treatment) -> Treatment {
            self.driver().settle(treatment, &Policy::default()).await.unwrap()
        }
    }

    #[async_trait]
    impl ManagerWriter for Everything {
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
    impl SessionWriter for Everything {
        async fn open_session(&self, _: &GithubPlace, owner: &Owner) -> Result<OpenAnswer, WriteError> {
            self.note(format!("OPEN as {owner}"));
            self.next_error().map(|()| OpenAnswer::Opened(session()))
        }
        async fn delete_session(&self, _: &GithubPlace, session: &SessionId) -> Result<(), WriteError> {
            self.note(format!("DELETE {session}"));
            self.next_error()
        }
    }

    impl Journal for Everything {
        fn open(&self, treatment: Treatment) -> Result<Treatment, JournalError> {
            Ok(Treatment { id: TreatmentId(1), ..treatment })
        }
        fn record(&self, treatment: &Treatment) -> Result<(), JournalError> {
            let mut room = locked(&self.room);
            let Some(left) = room.checked_sub(1) else {
                self.note("journal full");
                let (path, detail) = ("/state".to_owned(), "the disk is full".to_owned());
                let cause = *locked(&self.fault);
                return Err(JournalError { path, what: "record a treatment", detail, cause });
            };
            *room = left;
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
    impl RequestHistory for Everything {
        fn record_request(&self, record: &RequestRecord) -> Result<(), StoreError> {
            locked(&self.requests).push(record.clone());
            let (path, detail) = ("/state".to_owned(), "the disk is full".to_owned());
            Err(StoreError { path, what: "append to the history", kind: StoreErrorKind::DiskFull, detail })
        }
    }

    fn toggle() -> Treatment {
        treatment(Step::Disabling { seen: rev("seen"), sent: None })
    }

    fn deletion() -> Treatment {
        let step = Step::Deleting { session: session(), seen: Some(rev("seen")), attempts: 0, not_before: T0 };
        Treatment { remedy: Remedy::DeleteThenToggle { session: session() }, ..treatment(step) }
    }

    fn probe() -> Treatment {
        let step = Step::CheckOpening { owner: Owner::new("probe-1") };
        Treatment { remedy: Remedy::SessionCheck, ..treatment(step) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_journal_names_every_write_before_it_is_sent() {
        let all = Everything::with(enabled("seen"));
        let disabled = all.pass(&toggle()).await.unwrap();
        let due = Treatment { step_at: T0.minus(Span::secs(20)), ..disabled };
        let done = all.pass(&due).await.unwrap();
        assert_eq!(
            all.log(),
            [
                "journal disabling",
                "read",
                "journal disabling",
                "DISABLE",
                "journal disabled",
                "journal enabling",
                "read",
                "journal enabling",
                "ENABLE",
                "journal verifying"
            ]
        );
        assert_eq!(done.step, Step::Verifying);
    }

    #[tokio::test(start_paused = true)]
    async fn driver_records_each_request_with_answer_and_next_step() {
        let recorded = |all: &Everything| -> Vec<_> {
            let requests = locked(&all.requests).clone();
            requests.into_iter().map(|record| (record.request, record.answer, record.step, record.outcome)).collect()
        };
        let all = Everything::with(enabled("seen"));
        locked(&all.errors).push(lost());
        all.pass(&toggle()).await.unwrap();
        let step = |label: &str| label.to_owned();
        let disable = (Request::Disable, AnswerClass::Unknown, step("disable_unknown"), None);
        let read = (Request::ReadSet, AnswerClass::Done, step("disabled"), None);
        assert_eq!(recorded(&all), [disable, read]);

        let all = Everything::with(enabled("seen"));
        all.pass(&probe()).await.unwrap();
        let open = Request::OpenSession { owner: Owner::new("probe-1") };
        let open = (open, AnswerClass::Done, step("check_opened"), None);
        let delete = Request::DeleteOwnSession { session: session() };
        let delete = (delete, AnswerClass::Done, step("closed"), Some(Outcome::Unheld));
        assert_eq!(recorded(&all), [open, delete]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_and_its_toggle_fit_into_one_pass() {
        let all = Everything::with(enabled("seen"));
        let done = all.pass(&deletion()).await.unwrap();
        assert_eq!(
            all.log(),
            [
                "journal deleting",
                "read run",
                "journal deleting",
                "DELETE s-1",
                "journal deleting",
                "read",
                "journal disabling",
                "DISABLE",
                "journal disabled"
            ]
        );
        assert_eq!(done.step, Step::Disabled { ours: rev("ours"), again_until: None });
    }

    #[tokio::test(start_paused = true)]
    async fn the_id_of_a_session_that_we_opened_is_kept_before_anything_else() {
        let all = Everything::with(enabled("seen"));
        let done = all.pass(&probe()).await.unwrap();
        assert_eq!(
            all.log(),
            ["journal check_opening", "OPEN as probe-1", "journal check_opened", "DELETE s-1", "journal closed"]
        );
        assert_eq!(done.outcome(), Some(Outcome::Unheld));
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_journal_fails_nothing_more_is_sent() {
        for begun in [toggle(), deletion()] {
            for room in 0..3 {
                let all = Everything::with(enabled("seen"));
                *locked(&all.room) = room;
                let error = all.pass(&begun).await.unwrap_err().error;
                assert_eq!(error.to_string(), "the journal at /state could not record a treatment: the disk is full");
                let log = all.log();
                assert_eq!(log.last().map(String::as_str), Some("journal full"), "{log:?}");
                assert_eq!(log.iter().filter(|line| line.starts_with("journal ")).count(), room + 1, "{log:?}");
            }
        }
        for begun in [toggle(), deletion(), probe()] {
            let all = Everything::with(enabled("seen"));
            *locked(&all.room) = 0;
            let unkept = all.pass(&begun).await.unwrap_err();
            assert_eq!((all.log(), unkept.reached), (vec!["journal full".to_owned()], None), "not even a read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_leaves_no_set_disabled_and_no_session_open() {
        let all = Everything::with(disabled("ours", T0));
        *locked(&all.room) = 0;
        let due = treatment(Step::Enabling { ours: rev("ours"), since: None, attempts: 0, not_before: T0 });
        let unkept = all.pass(&due).await.unwrap_err();
        let full = "journal full";
        assert_eq!(all.log(), [full, "read", full, "ENABLE", full]);
        assert_eq!(unkept.reached.unwrap().step, Step::Verifying);

        let all = Everything::with(enabled("seen"));
        *locked(&all.room) = 1;
        let unkept = all.pass(&probe()).await.unwrap_err();
        assert_eq!(all.log(), ["journal check_opening", "OPEN as probe-1", full, "DELETE s-1", full]);
        assert_eq!(unkept.reached.unwrap().outcome(), Some(Outcome::Unheld));

        let all = Everything::with(disabled("ours", T0));
        *locked(&all.room) = 0;
        let done = all.settle(treatment(Step::Disabled { ours: rev("ours"), again_until: None })).await;
        assert_eq!((done.step, locked(&all.set).enabled), (Step::Verifying, Enablement::Enabled));
    }

    #[tokio::test(start_paused = true)]
    async fn after_another_medic_took_over_not_even_an_enable_is_sent() {
        let all = Everything::with(disabled("ours", T0));
        *locked(&all.room) = 0;
        *locked(&all.fault) = JournalFault::LeaseLost;
        let due = treatment(Step::Enabling { ours: rev("ours"), since: None, attempts: 0, not_before: T0 });
        assert_eq!(all.pass(&due).await.unwrap_err().reached, None);
        assert!(all.driver().settle(due, &Policy::default()).await.is_err());
        assert_eq!(all.log(), ["journal full", "journal full"]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_credential_for_github_a_session_probe_says_so_and_sends_nothing() {
        let all = Everything::with(enabled("seen"));
        let (driver, policy) = (Driver { sessions: None, ..all.driver() }, Policy::default());
        let seen = Seen::ill();
        let first = machine::step(&probe(), Input::Sweep(seen.view()), driver.clock.now(), &policy);
        let done = driver.carry_out(first, &policy).await.unwrap();
        assert_eq!(all.log(), ["journal check_opening", "journal closed"]);
        assert_eq!(done.outcome(), Some(Outcome::Failed));
        assert!(done.why().unwrap().contains("no GitHub credential is configured"), "{done:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_medic_that_ends_enables_what_it_disabled() {
        let all = Everything::with(disabled("ours", T0));
        let done = all.settle(treatment(Step::Disabled { ours: rev("ours"), again_until: None })).await;
        assert_eq!(all.log(), ["journal enabling", "read", "journal enabling", "ENABLE", "journal verifying"]);
        assert_eq!(done.step, Step::Verifying);
    }

    #[tokio::test(start_paused = true)]
    async fn a_medic_that_ends_in_the_middle_of_a_disable_finds_out_and_enables() {
        let all = Everything::with(disabled("ours", T0));
        let began = tokio::time::Instant::now();
        let sent = Step::Disabling { seen: rev("seen"), sent: Some(T0) };
        let done = all.settle(treatment(sent)).await;
        assert_eq!(done.step, Step::Verifying, "{:?}", all.log());
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        assert_eq!(locked(&all.set).enabled, Enablement::Enabled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_medic_that_ends_tries_for_a_few_seconds_and_leaves_the_rest_to_the_journal() {
        let all = Everything::with(disabled("ours", T0));
        *locked(&all.errors) = vec![lost(), refused(), refused()];
        let done = all.settle(treatment(Step::Disabled { ours: rev("ours"), again_until: None })).await;
        assert_eq!(done.step, Step::Verifying, "{:?}", all.log());
        assert_eq!(locked(&all.set).enabled, Enablement::Enabled);

        let all = Everything::with(disabled("ours", T0));
        *locked(&all.errors) = vec![refused(); 99];
        let began = tokio::time::Instant::now();
        let left = all.settle(treatment(Step::Disabled { ours: rev("ours"), again_until: None })).await;
        assert!(matches!(left.step, Step::Enabling { attempts: 10, .. }), "{left:?}");
        assert_eq!(began.elapsed(), std::time::Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_medic_that_ends_deletes_its_session_and_leaves_alone_what_may_stay() {
        let all = Everything::with(enabled("seen"));
        let opened = Step::CheckOpened { session: session(), attempts: 0, not_before: T0 };
        let done = all.settle(Treatment { step: opened, ..probe() }).await;
        assert_eq!(all.log(), ["journal check_opened", "DELETE s-1", "journal closed"]);
        assert_eq!(done.outcome(), Some(Outcome::Unheld));

        for step in [deletion(), treatment(Step::Verifying)] {
            let all = Everything::with(enabled("seen"));
            assert_eq!(all.settle(step.clone()).await, step);
            assert_eq!(all.log(), Vec::<String>::new());
        }
    }
}
