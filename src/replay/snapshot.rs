//! Snapshots: when a reconcile decides differently from the one before, everything that it evaluated goes into the
//! store, so that [`replay`](super::replay) can evaluate it again with another release or configuration.
//!
//! The rule: **a reconcile that decides the same costs no more than a comparison.** Waiting times and other figures
//! within a decision do not count. Nor does a restart of ours: the newest snapshot says what was decided last. Only the
//! medic that holds the lease takes snapshots.
//!
//! Edge case: a snapshot that is too long is not kept, and the history says so.

use crate::text::words::label;
use medic_core::decide::Conditions;
use medic_core::diagnose::{CheckAnswer, Context, State};
use medic_core::model::{Decision, Findings, ScaleSetId, SetDecision, Sweep, Treatment, Wall};
use medic_store::{ManagerStore, SNAPSHOT_LIMIT, StoreError};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

/// The version of a snapshot's form; raised when an older snapshot can no longer be read.
pub const SNAPSHOT_SCHEMA: u32 = 2;

/// The `kind` of a snapshot among the lines of a history.
pub const SNAPSHOT_KIND: &str = "snapshot";

/// The event of a snapshot that was too long.
pub const NOT_KEPT: &str = "snapshot_not_kept";

/// What one reconcile evaluated, found and decided: borrowed when it is taken, owned when it is read.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot<'a> {
    kind: Cow<'a, str>,
    schema: u32,
    pub medic: Cow<'a, str>,
    /// The state before the sweep.
    pub state: Cow<'a, State>,
    pub sweep: Cow<'a, Sweep>,
    pub treatments: Cow<'a, [Treatment]>,
    /// The latest answers of session checks.
    pub checks: Cow<'a, BTreeMap<ScaleSetId, (Wall, CheckAnswer)>>,
    pub conditions: Cow<'a, Conditions>,
    pub findings: Cow<'a, Findings>,
    pub decisions: Cow<'a, [SetDecision]>,
}

impl<'a> Snapshot<'a> {
    pub fn new(
        (state, sweep): (&'a State, &'a Sweep),
        context: &Context<'a>,
        conditions: &'a Conditions,
        findings: &'a Findings,
        decisions: &'a [SetDecision],
    ) -> Self {
        Self {
            kind: SNAPSHOT_KIND.into(),
            schema: SNAPSHOT_SCHEMA,
            medic: env!("CARGO_PKG_VERSION").into(),
            state: Cow::Borrowed(state),
            sweep: Cow::Borrowed(sweep),
            treatments: context.treatments.into(),
            checks: Cow::Borrowed(context.checks),
            conditions: Cow::Borrowed(conditions),
            findings: Cow::Borrowed(findings),
            decisions: decisions.into(),
        }
    }
}

#[derive(Debug, Default)]
pub struct Recorder {
    /// What was decided last; absent until the first reconcile.
    last: Option<Labels>,
}

/// The labels of decisions other than to leave a set alone.
type Labels = BTreeMap<ScaleSetId, String>;

impl Recorder {
    /// Keeps a snapshot if it decides differently from the last one. One that fails is not tried again.
    pub fn record(&mut self, store: &ManagerStore, snapshot: &Snapshot<'_>) -> Result<(), StoreError> {
        self.record_within(SNAPSHOT_LIMIT, store, snapshot)
    }

    fn record_within(&mut self, limit: usize, store: &ManagerStore, snapshot: &Snapshot<'_>) -> Result<(), StoreError> {
        let labels = labels(&snapshot.decisions);
        if self.last.is_none() {
            self.last = Some(newest_labels(store)?);
        }
        if self.last.as_ref() == Some(&labels) {
            return Ok(());
        }
        self.last = Some(labels);
        let at = snapshot.conditions.now.wall;
        match bounded_json(snapshot, limit) {
            Some(json) => store.append_snapshot(at, &json),
            None => store.append(at, NOT_KEPT, None, &serde_json::json!({ "limit": limit })),
        }
    }
}

fn labels(decisions: &[SetDecision]) -> Labels {
    let not_left = decisions.iter().filter(|decided| decided.decision != Decision::Leave);
    not_left.map(|decided| (decided.set, label(&decided.decision))).collect()
}

/// The labels of an earlier process's newest snapshot; empty without one that can be read.
fn newest_labels(store: &ManagerStore) -> Result<Labels, StoreError> {
    #[derive(Deserialize)]
    struct Newest {
        decisions: Vec<SetDecision>,
    }
    let newest = store.newest_snapshot()?.and_then(|json| serde_json::from_str::<Newest>(&json).ok());
    Ok(newest.map(|newest| labels(&newest.decisions)).unwrap_or_default())
}

/// JSON of at most `limit` bytes; no more than that is ever in memory.
fn bounded_json<T: Serialize>(value: &T, limit: usize) -> Option<String> {
    struct Bounded {
        bytes: Vec<u8>,
        limit: usize,
    }
    impl io::Write for Bounded {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            if self.bytes.len().saturating_add(part.len()) > self.limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.bytes.extend_from_slice(part);
            Ok(part.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut to = Bounded { bytes: Vec::new(), limit };
    serde_json::to_writer(&mut to, value).ok()?;
    String::from_utf8(to.bytes).ok()
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::with_snapshot;
    use super::*;
    use medic_core::model::{ManagerName, Remedy, Waiting};
    use medic_store::{HistoryFilter, Store};

    fn memory() -> ManagerStore {
        Store::in_memory().unwrap().for_manager(&ManagerName::new("garm"))
    }

    /// Records a snapshot in which set 1 gets this decision; how many there are then.
    fn record(recorder: &mut Recorder, store: &ManagerStore, decision: Decision) -> usize {
        let decisions = [SetDecision { set: ScaleSetId(1), decision }];
        with_snapshot(Wall(1), &decisions, |snapshot| recorder.record(store, snapshot)).unwrap();
        store.snapshots(Wall(0)).unwrap().len()
    }

    #[test]
    fn recorder_keeps_a_snapshot_only_of_new_decisions() {
        let (store, mut recorder) = (memory(), Recorder::default());
        let watch = |until| Decision::Watch { waiting: Waiting::Settling, until: Some(Wall(until)) };
        let treat = Decision::Treat { remedy: Remedy::Toggle, canary: false };
        assert_eq!(record(&mut recorder, &store, Decision::Leave), 0, "all is well from the start");
        assert_eq!(record(&mut recorder, &store, watch(5)), 1);
        assert_eq!(record(&mut recorder, &store, watch(6)), 1, "only a figure changed");
        assert_eq!(record(&mut Recorder::default(), &store, watch(7)), 1, "another process, and no news");
        assert_eq!(record(&mut recorder, &store, treat), 2);
        assert_eq!(record(&mut recorder, &store, watch(8)), 3, "back again");
        assert_eq!(record(&mut recorder, &store, Decision::Leave), 4);
    }

    #[test]
    fn recorder_notes_a_snapshot_that_is_too_long_once() {
        let (store, mut recorder) = (memory(), Recorder::default());
        let watch = Decision::Watch { waiting: Waiting::Settling, until: None };
        let decisions = [SetDecision { set: ScaleSetId(1), decision: watch }];
        let events = || store.history(HistoryFilter { set: None, since: Wall(0), limit: 10 }).unwrap();
        let length = with_snapshot(Wall(1), &decisions, |snapshot| serde_json::to_string(snapshot).unwrap().len());
        for _ in 0..2 {
            with_snapshot(Wall(1), &decisions, |snapshot| recorder.record_within(length - 1, &store, snapshot))
                .unwrap();
        }
        assert_eq!((store.snapshots(Wall(0)).unwrap().len(), events().len()), (0, 1));
        assert_eq!((events()[0].kind.as_str(), &events()[0].detail["limit"]), (NOT_KEPT, &(length - 1).into()));
        with_snapshot(Wall(1), &decisions, |snapshot| Recorder::default().record_within(length, &store, snapshot))
            .unwrap();
        assert_eq!(store.snapshots(Wall(0)).unwrap().len(), 1);
    }

    #[cfg(feature = "lab")]
    #[test]
    fn recorder_does_not_retry_after_a_full_disk() {
        struct Full;
        impl medic_store::fault_injection::FaultyDisk for Full {
            fn accepts_write(&self) -> bool {
                false
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_on_faulty_disk(dir.path(), std::sync::Arc::new(Full)).unwrap();
        let (store, mut recorder) = (store.for_manager(&ManagerName::new("garm")), Recorder::default());
        let decisions =
            [SetDecision { set: ScaleSetId(1), decision: Decision::Treat { remedy: Remedy::Toggle, canary: true } }];
        with_snapshot(Wall(1), &decisions, |snapshot| {
            recorder.record(&store, snapshot).unwrap_err();
            recorder.record(&store, snapshot).unwrap();
        });
        assert_eq!(store.snapshots(Wall(0)).unwrap(), [0_u64; 0]);
    }
}
