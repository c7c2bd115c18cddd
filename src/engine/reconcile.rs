//! One manager's engine. A reconcile is: sweep → diagnose → step open treatments → decide → treat → report.
//! What one reconcile needs of the one before is in the store or in the diagnosis' memory, so each may be the first
//! after a crash.

use crate::engine::Settings;
use crate::engine::changes::{ChangeReporter, Changes};
use crate::engine::driver::Driver;
use crate::engine::interval::PollInterval;
use crate::engine::records::{Overrides, Records, Rows};
use crate::engine::report::{self, Report};
use crate::engine::sweep::Sweeper;
use crate::engine::treatments::{Finished, Situation, Treatments};
use crate::replay::snapshot::{Recorder, Snapshot};
use crate::status::ManagerStatus;
use futures_util::future::BoxFuture;
use medic_core::clock::Clock;
use medic_core::decide::{self, Conditions, Input, WriteAccess};
use medic_core::diagnose::{self, Context, Fleet, State};
use medic_core::model::{ManagerName, ManualHeal, ManualHealAnswer, Refusal, SetDecision, Span, Treatment};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

pub struct Parts {
    pub settings: Settings,
    pub clock: Arc<dyn Clock>,
    pub sweeper: Sweeper,
    pub records: Records,
    pub driver: Driver,
    pub interval: PollInterval,
    pub background: Background,
}

/// What runs between two reconciles.
pub struct Background {
    /// Websockets and the log's reader. The lock only makes them `Sync`.
    pub tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
    /// Notified when there is a reason to reconcile at once.
    pub wake: Arc<Notify>,
}

pub struct Engine {
    settings: Settings,
    clock: Arc<dyn Clock>,
    sweeper: Sweeper,
    records: Records,
    state: State,
    snapshots: Recorder,
    treatments: Treatments,
    changes: ChangeReporter,
    interval: PollInterval,
    background: Background,
}

/// What one reconcile found and did.
#[derive(Debug, Clone)]
pub struct Reconciled {
    pub status: ManagerStatus,
    pub closed: Vec<Treatment>,
}

impl Engine {
    /// Continues where the store says that the last engine stopped.
    pub fn new(parts: Parts) -> Self {
        let Parts { settings, clock, sweeper, records, driver, interval, background } = parts;
        let changes = ChangeReporter::new(records.store.clone(), Arc::clone(&records.metrics), clock.now().wall);
        Self {
            state: records.load_state(),
            snapshots: Recorder::default(),
            treatments: Treatments::new(driver, settings.policy.clone()),
            settings,
            clock,
            sweeper,
            records,
            changes,
            interval,
            background,
        }
    }

    #[must_use]
    pub fn with_dry_run(mut self) -> Self {
        self.settings.dry_run = true;
        self
    }

    pub const fn name(&self) -> &ManagerName {
        &self.settings.manager
    }

    /// Asks for a reconcile at once when notified.
    pub fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.background.wake)
    }

    /// What must run beside the reconciles of a long-lived engine.
    pub fn take_background(&mut self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(self.background.tasks.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn until_next(&self) -> Span {
        self.interval.until_next()
    }

    pub async fn reconcile(&mut self) -> Reconciled {
        let began = self.clock.now();
        let write_access = self.records.claim_lease(|| self.treatments.forget_progress());
        let sweep = self.sweeper.sweep(self.interval.urgency).await;
        let overrides = self.records.overrides(self.clock.now().wall).await;
        self.sweeper.follow_log(&sweep, &self.records);
        let mut rows = self.records.read_rows(self.clock.now());
        let is_readable = rows.unfinished.is_some() && overrides.failed.is_none();
        let unfinished = self.treatments.unfinished(rows.unfinished.take());
        let before = unfinished.clone();
        let checks = rows.check_answers();
        let ledger = Arc::clone(&rows.ledger);
        let context = Context { treatments: &before, checks: &checks, ledger: &ledger };
        let state = self.state.clone();
        let fleet = diagnose::diagnose(&mut self.state, &sweep, &context, &self.settings.policy);

        let mut treatments =
            self.step_treatments(unfinished, &write_access, is_readable, &fleet, &rows, &overrides).await;
        let write_access = match (write_access, rows.failed.take()) {
            (WriteAccess::Granted, Some(why)) => WriteAccess::StoreFailed { why },
            (write_access, _) => write_access,
        };
        let may_act = write_access == WriteAccess::Granted && !self.settings.dry_run;
        rows.history = merge(std::mem::take(&mut rows.history), &treatments);
        let heals = if may_act { self.records.manual_heals(self.clock.now().wall) } else { Vec::new() };
        let conditions = self.conditions(&fleet, rows, write_access, heals, &overrides);
        let decisions = self.decide(&fleet, &conditions);
        self.record(&Snapshot::new((&state, &sweep), &context, &conditions, &fleet.findings, &decisions));
        if may_act {
            let now = self.clock.now();
            let situation = Situation { fleet: &fleet, ledger: &ledger, pauses: &[], now };
            let heals = &conditions.manual_heals;
            treatments.extend(self.treatments.begin(&decisions, situation, heals, &self.records).await);
        }
        self.records.end_deleted_sessions(&before, &treatments, self.clock.now().wall);
        let (closed, open): (Vec<_>, Vec<_>) = treatments.into_iter().partition(|treatment| treatment.step.is_closed());
        let history = merge(conditions.history, closed.iter().chain(&open));
        self.treatments.set_open(&open);
        self.changes.report(&Changes { fleet: &fleet, decisions: &decisions, closed: &closed, history: &history });
        self.records.save_state(&self.state);
        if may_act {
            self.records.prune(self.clock.now());
        }
        self.interval.observe(&fleet, &open);

        let took = self.clock.now().mono.since(began.mono);
        self.records.metrics.swept(&self.settings.manager, took, sweep.scale_sets.known().is_some());
        let status = report::status(&Report {
            settings: &self.settings,
            sources: &self.sweeper.sources,
            store: &self.records.store,
            changes: &self.changes,
            can_delete: self.treatments.driver.sessions.is_some(),
            sweep: &sweep,
            fleet: &fleet,
            decisions: &decisions,
            history: &history,
            open: &open,
            ledger: &ledger,
            overrides: &overrides,
            took,
        });
        Reconciled { status, closed }
    }

    /// Before the process ends: enables every set that we disabled and deletes every session that we opened, as far as
    /// the servers answer. A store that fails prevents none of it.
    pub async fn finish(&mut self) -> Finished {
        if matches!(self.records.claim_lease(|| self.treatments.forget_progress()), WriteAccess::HeldByOther { .. }) {
            return Finished::default();
        }
        let finished = self.treatments.finish(&self.records).await;
        self.changes.report_closed(&finished.closed);
        finished
    }

    async fn step_treatments(
        &mut self,
        unfinished: Vec<Treatment>,
        write_access: &WriteAccess,
        is_readable: bool,
        fleet: &Fleet,
        rows: &Rows,
        overrides: &Overrides,
    ) -> Vec<Treatment> {
        let now = self.clock.now();
        let situation = Situation { fleet, ledger: &rows.ledger, pauses: &overrides.pauses, now };
        match write_access {
            WriteAccess::HeldByOther { .. } => unfinished,
            WriteAccess::Granted | WriteAccess::StoreFailed { .. } if self.settings.dry_run => unfinished,
            WriteAccess::Granted if is_readable => self.treatments.step_all(unfinished, situation, &self.records).await,
            // A pause that cannot be read may be in force.
            WriteAccess::Granted | WriteAccess::StoreFailed { .. } => {
                self.treatments.undo_all(unfinished, situation, &self.records).await
            }
        }
    }

    fn conditions(
        &self,
        fleet: &Fleet,
        rows: Rows,
        write_access: WriteAccess,
        manual_heals: Vec<ManualHeal>,
        overrides: &Overrides,
    ) -> Conditions {
        let (settings, sources) = (&self.settings, &self.sweeper.sources);
        let can_delete = self.treatments.driver.sessions.is_some();
        Conditions {
            now: self.clock.now(),
            name: settings.manager.clone(),
            mode: settings.mode,
            policy: settings.policy.clone(),
            history: rows.history,
            ledger: rows.ledger,
            pauses: overrides.pauses.clone(),
            manual_heals,
            breaker_reset: overrides.breaker_reset,
            can_check_sessions: if can_delete { sources.covered_sets(fleet) } else { [].into() },
            quotas: sources.quotas(fleet, |github, endpoint| github.own_quota(endpoint)),
            write_access: overrides.failed.clone().map_or(write_access, |why| WriteAccess::StoreFailed { why }),
        }
    }

    fn decide(&self, fleet: &Fleet, conditions: &Conditions) -> Vec<SetDecision> {
        let input = Input { fleet, given: conditions };
        let decisions = decide::decide(&input);
        for heal in &conditions.manual_heals {
            let answer = match decisions.iter().find(|decision| decision.set == heal.set) {
                Some(decided) => decide::manual::answer(&input, heal, &decided.decision),
                None => ManualHealAnswer::Refused { why: Refusal::SetNotShown },
            };
            self.records.answer_manual_heal(heal, &answer);
        }
        decisions
    }

    fn record(&mut self, snapshot: &Snapshot<'_>) {
        if snapshot.conditions.write_access == WriteAccess::Granted
            && let Err(error) = self.snapshots.record(&self.records.store, snapshot)
        {
            let manager = &self.settings.manager;
            tracing::warn!(%manager, %error, "a snapshot could not be saved");
            self.records.metrics.store_failed(manager);
        }
    }
}

fn merge<'a>(history: Vec<Treatment>, newer: impl IntoIterator<Item = &'a Treatment>) -> Vec<Treatment> {
    let mut by_id: BTreeMap<_, _> = history.into_iter().map(|treatment| (treatment.id, treatment)).collect();
    by_id.extend(newer.into_iter().map(|treatment| (treatment.id, treatment.clone())));
    by_id.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Depth, Sources, check};
    use crate::engine::assemble::{Carrier, Runtime, Shared, engines};
    use crate::engine::lease::{LEASE_TTL, Lease};
    use crate::metrics::Metrics;
    use medic_clock::ScaledClock;
    use medic_core::model::{FailureKind, Step, Wall};
    use medic_core::ports::write::Journal as _;
    use medic_core::treat::testing::{T0, rev, treatment};
    use medic_http::file::Reading;
    use medic_http::{Answer, Bounds, Transport, TransportError};
    use medic_store::Store;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts requests, and answers none.
    #[derive(Default)]
    struct Unreachable(AtomicUsize);

    #[async_trait::async_trait]
    impl Transport for Unreachable {
        async fn send(&self, _: http::Request<bytes::Bytes>, _: Bounds) -> Answer {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(TransportError { kind: FailureKind::Connect, detail: "refused".to_owned() })
        }
    }

    /// Finishes an engine whose memory has a set of ours still disabled, while the journal has it enabled again;
    /// whether the lease was lost and acquired in between, and how many requests were sent.
    async fn requests_at_shutdown(is_new_term: bool) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "secret").unwrap();
        let manager =
            format!("name = \"garm\"\nurl = \"http://garm\"\nusername = \"u\"\npassword_file = {password:?}\n");
        let text = format!("[run]\nmode = \"heal\"\nstate_dir = {:?}\n[[manager]]\n{manager}", dir.path());
        let config = check(&Sources::of_text("test.toml", text), Depth::Values).unwrap().config;
        let name = config.managers[0].name.clone();

        let (store, clock) = (Store::in_memory().unwrap(), Arc::new(ScaledClock::new(T0, 1.0)));
        let shared = Shared {
            lease: Arc::new(Lease::new(store.clone(), "one".to_owned(), Arc::clone(&clock) as _)),
            store: store.clone(),
            clock: Arc::clone(&clock) as _,
            metrics: Arc::new(Metrics::new(std::slice::from_ref(&name), config.run.mode).unwrap()),
            runtime: Runtime { jitter: Arc::new(|span| span), file_reading: Reading::AtOnce },
        };
        let transport = Arc::new(Unreachable::default());
        let carrier = Carrier { transport: Arc::<Unreachable>::clone(&transport), upgrader: None };
        let mut engine = engines(&config, &shared, &|_| Ok(carrier.clone())).unwrap().remove(0);

        let journaled = store.for_manager(&name).open(treatment(Step::Verifying)).unwrap();
        assert_eq!(engine.records.claim_lease(|| ()), WriteAccess::Granted);
        let disabled = Step::Disabled { ours: rev("ours"), again_until: None };
        let remembered = Treatment { step: disabled, ..journaled };
        engine.treatments.ahead_of_journal.insert(remembered.id, remembered);
        if is_new_term {
            tokio::time::advance(LEASE_TTL.plus(Span::secs(1)).into()).await;
            let now: Wall = clock.now().wall;
            store.acquire("two", now, LEASE_TTL).unwrap();
            store.release("two").unwrap();
        }
        engine.finish().await;
        transport.0.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn finish_in_a_new_lease_term_forgets_earlier_progress() {
        assert_ne!(requests_at_shutdown(false).await, 0, "the set is to be enabled");
        assert_eq!(requests_at_shutdown(true).await, 0, "another instance has enabled it");
    }
}
