//! A medic's life: it can end at a date, at any write to the store, before or after it, at any request, before or after
//! its effect, and at any wait. From then on nothing that the dead one still computes has any effect.

use super::scene::Scene;
use async_trait::async_trait;
use medic_core::clock::Clock;
use medic_core::model::{Now, Span};
use medic_store::fault_injection::FaultyDisk;
use rand::RngExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// What kills, counted down by every write, request and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// Before the n-th from now.
    Before(u32),
    After(u32),
}

#[derive(Debug, Default)]
pub(crate) struct Mortal {
    dead: AtomicBool,
    died: Notify,
    /// Twice the number of steps left, plus one for `After`; 0 is no doom.
    doom: AtomicU32,
    steps: AtomicU32,
    /// Why it ended without being killed or told to.
    fell: Mutex<Option<String>>,
}

impl Mortal {
    pub(crate) fn doom(&self, doom: Doom) {
        let code = match doom {
            Doom::Before(n) => n.max(1) * 2,
            Doom::After(n) => n.max(1) * 2 + 1,
        };
        self.doom.store(code, Ordering::SeqCst);
    }

    pub(crate) fn spare(&self) {
        self.doom.store(0, Ordering::SeqCst);
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_waiters();
        self.died.notify_one();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Steps so far: writes, requests and waits.
    pub(crate) fn steps(&self) -> u32 {
        self.steps.load(Ordering::SeqCst)
    }

    pub(crate) fn falls(&self, why: String) {
        *self.fell.lock().unwrap() = Some(why);
    }

    pub(crate) fn fell(&self) -> Option<String> {
        self.fell.lock().unwrap().take()
    }

    pub(crate) async fn died(&self) {
        while !self.is_dead() {
            self.died.notified().await;
        }
    }

    /// A step begins: whether it may.
    pub(crate) fn begin(&self) -> bool {
        if self.doom.load(Ordering::SeqCst) == 2 {
            self.kill();
        }
        !self.is_dead()
    }

    /// A step has had its effect: whether anybody is there to hear of it.
    pub(crate) fn end(&self) -> bool {
        self.steps.fetch_add(1, Ordering::SeqCst);
        match self.doom.load(Ordering::SeqCst) {
            0 => {}
            3 => self.kill(),
            left => self.doom.store(left.saturating_sub(2).max(2), Ordering::SeqCst),
        }
        !self.is_dead()
    }
}

/// A medic's disk: full at times, or given to failing single writes.
pub(crate) struct Disk {
    pub(crate) scene: Arc<Scene>,
    pub(crate) medic: Arc<Mortal>,
}

impl FaultyDisk for Disk {
    fn accepts_write(&self) -> bool {
        let works = self.medic.begin() && !self.scene.disk_full.load(Ordering::SeqCst);
        let flaky = self.scene.climate.lock().unwrap().disk;
        let works = works && (flaky == 0 || self.scene.rng.lock().unwrap().random_range(0..100) >= flaky);
        if !works {
            *self.scene.disk_failed.lock().unwrap() = Some(self.scene.now());
        }
        works
    }
    fn loses_write(&self, what: &'static str) -> bool {
        self.scene.broken.forgets(what)
    }
    fn after_write(&self, what: &'static str) {
        if what.ends_with("a treatment") {
            self.scene.journal_changed();
        }
        self.scene.step();
        let _ = self.medic.end();
    }
}

/// A medic's clock: every wait is a step, at whose beginning or end it may die.
pub(crate) struct MortalClock {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) medic: Arc<Mortal>,
}

#[async_trait]
impl Clock for MortalClock {
    fn now(&self) -> Now {
        self.clock.now()
    }
    async fn sleep(&self, span: Span) {
        if self.medic.begin() {
            self.clock.sleep(span).await;
            if self.medic.end() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
