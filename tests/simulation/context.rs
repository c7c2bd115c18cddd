//! Shared by networks, disks, invariants and events.

use super::broken::{Broken, Dates};
use super::invariants::{Invariants, Violation};
use super::network::NetworkFaults;
use super::process::Process;
use medic_core::clock::Clock;
use medic_core::model::{ScaleSetId, Span, Treatment, Wall};
use medic_lab::hub::Hub;
use medic_lab::world::World;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// A read of a set older than this has been answered, and the write after it has been sent.
const CHECKED: Span = Span::secs(15);
/// After a failure of the disk, the journal may lack changes for this long.
const LAGS: Span = Span::mins(1);

pub(crate) struct Context {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) invariants: Mutex<Invariants>,
    pub(crate) faults: Mutex<NetworkFaults>,
    pub(crate) rng: Mutex<SmallRng>,
    pub(crate) broken: Broken,
    pub(crate) broken_dates: Dates,
    pub(crate) requests: AtomicU64,
    /// Reads the durable journal as another process would.
    pub(crate) journal: Box<dyn Fn() -> Vec<Treatment> + Send + Sync>,
    pub(crate) journal_changed: AtomicBool,
    pub(crate) disk_full: AtomicBool,
    /// When the disk last failed.
    pub(crate) disk_failed: Mutex<Option<Wall>>,
    /// The manager was down at the last step.
    pub(crate) down: AtomicBool,
    pub(crate) medics: Mutex<Vec<Arc<Process>>>,
    /// Until then delays are no violations.
    pub(crate) disturbed_until: Mutex<Wall>,
    /// Sets that a medic has read singly, or is writing, and since when.
    pub(crate) in_use: Mutex<BTreeMap<ScaleSetId, Wall>>,
    /// Sets that a medic has just disabled, for operators that interfere.
    pub(crate) just_disabled: Mutex<Vec<ScaleSetId>>,
    pub(crate) wake: Notify,
}

impl Context {
    pub(crate) fn chance(&self, percent: u32) -> bool {
        percent > 0 && self.draw(0..100) < u64::from(percent)
    }

    pub(crate) fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.rng.lock().unwrap().random_range(range)
    }

    pub(crate) fn now(&self) -> Wall {
        self.clock.now().wall
    }

    pub(crate) fn journal_changed(&self) {
        self.journal_changed.store(true, Ordering::SeqCst);
    }

    /// Everything answers, and a medic is there.
    fn is_calm(&self, now: Wall) -> bool {
        now > *self.disturbed_until.lock().unwrap() && self.medics.lock().unwrap().iter().any(|medic| !medic.is_dead())
    }

    /// After each step: checks the invariants that always hold.
    pub(crate) fn step(&self) {
        self.refresh();
        self.hub.with(|world, now| {
            let calm = self.is_calm(now);
            self.invariants.lock().unwrap().check(world, calm, now);
            let down = !world.garm(0).unwrap().is_running();
            if !self.down.swap(down, Ordering::SeqCst) && down {
                self.wake.notify_one();
            }
        });
    }

    /// Reads the journal again, if anybody has written to it.
    pub(crate) fn refresh(&self) {
        if self.journal_changed.swap(false, Ordering::SeqCst) {
            let journal = (self.journal)();
            self.hub.with(|world, now| self.invariants.lock().unwrap().journal_is(journal, world, now));
        }
    }

    /// Whether the journal may lack recent steps: undoing continues when the disk fails.
    pub(crate) fn journal_may_lag(&self) -> bool {
        self.disk_failed.lock().unwrap().is_some_and(|at| self.now().since(at) <= LAGS)
    }

    pub(crate) fn violated(&self, invariant: &'static str, what: String) {
        let violation = Violation { at: self.now(), invariant, what };
        self.invariants.lock().unwrap().violations.push(violation);
    }

    /// Whether an operator's change of the set now could not be distinguished from ours: GARM's writes have no
    /// condition and no author, only a date (`docs/reliability.md`).
    pub(crate) fn is_ambiguous(&self, set: ScaleSetId) -> bool {
        self.refresh();
        let now = self.now();
        let checked = self.in_use.lock().unwrap().get(&set).is_some_and(|at| now.since(*at) <= CHECKED);
        checked || self.invariants.lock().unwrap().is_ambiguous(set, now)
    }
}

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
