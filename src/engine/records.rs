//! What the store knows of one manager: journal, session ledger, pauses, manual heals, and the state between
//! reconciles.
//!
//! Without a readable journal or lease nothing new begins; without a readable ledger nothing is provably stale. What is
//! under way goes on in both cases.

use crate::engine::lease::Lease;
use crate::engine::pause_file::PauseFileReader;
use crate::metrics::Metrics;
use medic_core::decide::WriteAccess;
use medic_core::diagnose::{CheckAnswer, State};
use medic_core::model::session::{LedgerChange, LedgerSession, SessionEnd};
use medic_core::model::{
    ManagerName, ManualHeal, ManualHealAnswer, Mono, Now, Outcome, Pause, Remedy, RemedyKind, ScaleSetId, Span, Step,
    Treatment, Wall,
};
use medic_core::ports::write::Journal;
use medic_store::{LeaseState, ManagerStore, Version};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

/// How often rows are read although nobody has written any: old ones leave the window.
const REREAD_EVERY: Span = Span::mins(10);
const PRUNE_EVERY: Span = Span::hours(1);

pub struct Records {
    pub(super) store: ManagerStore,
    pub(super) lease: Arc<Lease>,
    pub(super) pause_file: PauseFileReader,
    pub(super) metrics: Arc<Metrics>,
    history: Span,
    cache: Option<Cache>,
    /// The term of the lease in which the cache was read.
    term: u64,
    pruned: Option<Mono>,
}

struct Cache {
    version: Version,
    read_at: Mono,
    rows: Rows,
}

#[derive(Clone, Default)]
pub(super) struct Rows {
    /// Open treatments; `None` when the journal cannot be read.
    pub(super) unfinished: Option<Vec<Treatment>>,
    pub(super) history: Vec<Treatment>,
    pub(super) ledger: Arc<Vec<LedgerSession>>,
    /// Why some rows are missing. Those that are there may be relied upon.
    pub(super) failed: Option<String>,
}

/// What operators have set until further notice.
pub(super) struct Overrides {
    /// The pauses in force, of the store and of the file.
    pub(super) pauses: Vec<Pause>,
    pub(super) breaker_reset: Option<Wall>,
    /// Why the pauses of the store are not known.
    pub(super) failed: Option<String>,
}

impl Records {
    pub fn new(
        store: ManagerStore,
        lease: Arc<Lease>,
        pause_file: PauseFileReader,
        metrics: Arc<Metrics>,
        history: Span,
    ) -> Self {
        Self { store, lease, pause_file, metrics, history, cache: None, term: 0, pruned: None }
    }

    pub(super) const fn manager(&self) -> &ManagerName {
        self.store.manager()
    }

    pub(super) fn report_failure(&self, error: &dyn Display) {
        tracing::error!(manager = %self.manager(), %error, "the store failed; nothing new begins without it");
        self.metrics.store_failed(self.manager());
    }

    fn report<T, E: Display>(&self, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|error| self.report_failure(error)).ok()
    }

    /// Acquires or renews the lease. In a new term of it, another medic may have acted and only the journal counts:
    /// `forget_progress` drops what else is known of treatments.
    pub(super) fn claim_lease(&mut self, forget_progress: impl FnOnce()) -> WriteAccess {
        let held = self.lease.hold();
        let term = self.lease.term();
        if self.term != term {
            (self.term, self.cache) = (term, None);
            forget_progress();
        }
        match held {
            Ok(LeaseState::Held) => WriteAccess::Granted,
            Ok(LeaseState::HeldByOther { holder, until }) => WriteAccess::HeldByOther { holder, until },
            Err(error) => {
                self.report_failure(&error);
                WriteAccess::StoreFailed { why: error.to_string() }
            }
        }
    }

    /// Journal and ledger, from the cache where nobody has written since.
    pub(super) fn read_rows(&mut self, now: Now) -> Rows {
        let version = self.store.store().version();
        if let (Ok(version), Some(cache)) = (&version, &self.cache)
            && *version == cache.version
            && now.mono.since(cache.read_at) < REREAD_EVERY
        {
            return cache.rows.clone();
        }
        let mut failed = None;
        let mut note_failure = |error: &dyn Display| {
            self.report_failure(error);
            failed = Some(error.to_string());
        };
        let since = now.wall.minus(self.history);
        let unfinished = self.store.unfinished().inspect_err(|error| note_failure(error)).ok();
        let history = self.store.since(since).inspect_err(|error| note_failure(error)).unwrap_or_default();
        let ledger = self.report(self.store.live_sessions());
        let is_complete = failed.is_none() && ledger.is_some();
        let rows = Rows { unfinished, history, ledger: Arc::new(ledger.unwrap_or_default()), failed };
        let cache = |version| Cache { version, read_at: now.mono, rows: rows.clone() };
        self.cache = version.ok().filter(|_| is_complete).map(cache);
        rows
    }

    pub(super) fn unfinished(&self) -> Option<Vec<Treatment>> {
        self.report(self.store.unfinished())
    }

    pub(super) async fn overrides(&self, now: Wall) -> Overrides {
        let by_file = self.pause_file.read(now).await;
        let pauses = self.store.store().pauses(now).inspect_err(|error| self.report_failure(error));
        let failed = pauses.as_ref().err().map(ToString::to_string);
        let pauses = pauses.into_iter().flatten().chain(by_file).collect();
        Overrides { pauses, breaker_reset: self.report(self.store.breaker_reset()).flatten(), failed }
    }

    /// Those that cannot be read wait.
    pub(super) fn manual_heals(&self, now: Wall) -> Vec<ManualHeal> {
        self.report(self.store.manual_heals(now)).unwrap_or_default()
    }

    pub(super) fn answer_manual_heal(&self, heal: &ManualHeal, answer: &ManualHealAnswer) {
        self.report(self.store.answer_manual_heal(heal.id, answer));
    }

    /// The number of the treatment, once it is journaled.
    pub(super) fn open_treatment(&self, treatment: Treatment) -> Option<Treatment> {
        self.report(self.store.open(treatment))
    }

    /// Marks the sessions that treatments have deleted.
    pub(super) fn end_deleted_sessions(&self, before: &[Treatment], after: &[Treatment], at: Wall) {
        for treatment in after {
            let (Remedy::DeleteSession { session } | Remedy::DeleteThenToggle { session }) = &treatment.remedy else {
                continue;
            };
            let earlier = before.iter().find(|earlier| earlier.id == treatment.id);
            let was_deleting = earlier.is_none_or(|earlier| matches!(earlier.step, Step::Deleting { .. }));
            if was_deleting && !matches!(treatment.step, Step::Deleting { .. } | Step::Closed { .. }) {
                let (session, how) = (session.clone(), SessionEnd::DeletedByUs);
                self.report(self.store.apply(&[LedgerChange::End { session, at, how }]));
            }
        }
    }

    /// What the diagnosis remembers between sweeps.
    pub(super) fn load_state(&self) -> State {
        let saved = self.store.load_state().unwrap_or_else(|error| {
            tracing::warn!(manager = %self.manager(), %error, "the state of earlier sweeps cannot be read; starting \
                without it");
            None
        });
        saved.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
    }

    pub(super) fn save_state(&self, state: &State) {
        if let Some(json) = self.report(serde_json::to_string(state)) {
            self.report(self.store.save_state(&json));
        }
    }

    /// Deletes old rows, once an hour.
    pub(super) fn prune(&mut self, now: Now) {
        if self.pruned.is_none_or(|at| now.mono.since(at) >= PRUNE_EVERY) {
            self.pruned = Some(now.mono);
            self.report(self.store.prune(now.wall));
        }
    }
}

impl Rows {
    /// The latest answer of a session check, by set.
    pub(super) fn check_answers(&self) -> BTreeMap<ScaleSetId, (Wall, CheckAnswer)> {
        let checks = self.history.iter().filter(|row| row.remedy.kind() == RemedyKind::SessionCheck);
        let mut checks: Vec<_> = checks.collect();
        checks.sort_by_key(|check| check.step_at);
        let answers = checks.into_iter().filter_map(|check| {
            let answer = match check.outcome()? {
                Outcome::Held => CheckAnswer::Held { owner: check.holder.clone() },
                Outcome::Unheld => CheckAnswer::Unheld,
                Outcome::Recovered
                | Outcome::SelfRecovered
                | Outcome::Unverified
                | Outcome::Aborted
                | Outcome::Failed => return None,
            };
            Some((check.set, (check.step_at, answer)))
        });
        answers.collect()
    }
}
