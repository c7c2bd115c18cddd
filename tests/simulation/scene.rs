//! What the networks, the disks, the truth and the scenario share.

use super::broken::{Broken, Dates};
use super::mortal::Mortal;
use super::truth::{Truth, Violation};
use super::weather::Climate;
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

/// A last look older than this has been answered, and what follows from it has been sent.
const LOOKED: Span = Span::secs(15);
/// For so long after a failure of the disk, what is undone may not be in the journal.
const LAGS: Span = Span::mins(1);

pub(crate) struct Scene {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) truth: Mutex<Truth>,
    pub(crate) climate: Mutex<Climate>,
    pub(crate) rng: Mutex<SmallRng>,
    pub(crate) broken: Broken,
    pub(crate) broken_dates: Dates,
    pub(crate) requests: AtomicU64,
    /// Reads the durable journal, as another process would.
    pub(crate) journal: Box<dyn Fn() -> Vec<Treatment> + Send + Sync>,
    pub(crate) journal_changed: AtomicBool,
    pub(crate) disk_full: AtomicBool,
    /// When the disk last failed.
    pub(crate) disk_failed: Mutex<Option<Wall>>,
    /// The manager was down at the last step.
    pub(crate) down: AtomicBool,
    pub(crate) medics: Mutex<Vec<Arc<Mortal>>>,
    /// Until then nobody is blamed for being late.
    pub(crate) disturbed_until: Mutex<Wall>,
    /// Sets that a medic has looked at alone, or is writing to, and when it began.
    pub(crate) hands_on: Mutex<BTreeMap<ScaleSetId, Wall>>,
    /// Sets that were just disabled by us, and something that a person does about it.
    pub(crate) just_disabled: Mutex<Vec<ScaleSetId>>,
    pub(crate) stirred: Notify,
}

impl Scene {
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

    /// Something has happened: what must hold always is looked at.
    pub(crate) fn step(&self) {
        self.refresh();
        self.hub.with(|world, now| {
            let calm = self.is_calm(now);
            self.truth.lock().unwrap().look(world, calm, now);
            let down = !world.garm(0).unwrap().is_running();
            if !self.down.swap(down, Ordering::SeqCst) && down {
                self.stirred.notify_one();
            }
        });
    }

    /// Reads the journal again, if anybody has written to it.
    pub(crate) fn refresh(&self) {
        if self.journal_changed.swap(false, Ordering::SeqCst) {
            let journal = (self.journal)();
            self.hub.with(|world, now| self.truth.lock().unwrap().journal_is(journal, world, now));
        }
    }

    /// Whether the journal may lack what was done lately: what undoes goes on when it fails.
    pub(crate) fn journal_may_lag(&self) -> bool {
        self.disk_failed.lock().unwrap().is_some_and(|at| self.now().since(at) <= LAGS)
    }

    pub(crate) fn violated(&self, invariant: &'static str, what: String) {
        let violation = Violation { at: self.now(), invariant, what };
        self.truth.lock().unwrap().violations.push(violation);
    }

    /// Whether a person who acted on the set now could not be told from us, by anybody: GARM's writes carry no
    /// condition and no name, only a date (`docs/reliability.md`, "What is left out").
    pub(crate) fn is_ambiguous(&self, set: ScaleSetId) -> bool {
        self.refresh();
        let now = self.now();
        let looked = self.hands_on.lock().unwrap().get(&set).is_some_and(|at| now.since(*at) <= LOOKED);
        looked || self.truth.lock().unwrap().is_ambiguous(set, now)
    }
}

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
