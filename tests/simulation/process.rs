//! A medic's simulated process. It can be killed before or after any write to the store, any request and any wait.
//! Nothing that a killed one still computes has an effect.

use super::context::Context;
use async_trait::async_trait;
use medic_core::clock::Clock;
use medic_core::model::{Now, Span};
use medic_store::fault_injection::FaultyDisk;
use rand::RngExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Kills at a step from now: a write, a request or a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillAt {
    Before(u32),
    After(u32),
}

#[derive(Debug, Default)]
pub(crate) struct Process {
    dead: AtomicBool,
    died: Notify,
    /// Twice the number of steps left, plus one for `After`; 0 for never.
    kill_at: AtomicU32,
    steps: AtomicU32,
    /// Why it ended without a kill or a stop.
    failure: Mutex<Option<String>>,
}

impl Process {
    pub(crate) fn kill_at(&self, kill_at: KillAt) {
        let code = match kill_at {
            KillAt::Before(n) => n.max(1) * 2,
            KillAt::After(n) => n.max(1) * 2 + 1,
        };
        self.kill_at.store(code, Ordering::SeqCst);
    }

    pub(crate) fn keep(&self) {
        self.kill_at.store(0, Ordering::SeqCst);
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

    pub(crate) fn failed(&self, why: String) {
        *self.failure.lock().unwrap() = Some(why);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap().take()
    }

    pub(crate) async fn died(&self) {
        while !self.is_dead() {
            self.died.notified().await;
        }
    }

    /// A step begins. Returns whether the process is alive.
    pub(crate) fn begin(&self) -> bool {
        if self.kill_at.load(Ordering::SeqCst) == 2 {
            self.kill();
        }
        !self.is_dead()
    }

    /// A step has had its effect. Returns whether the process is alive.
    pub(crate) fn end(&self) -> bool {
        self.steps.fetch_add(1, Ordering::SeqCst);
        match self.kill_at.load(Ordering::SeqCst) {
            0 => {}
            3 => self.kill(),
            left => self.kill_at.store(left.saturating_sub(2).max(2), Ordering::SeqCst),
        }
        !self.is_dead()
    }
}

/// A medic's disk. It can be full or fail single writes.
pub(crate) struct Disk {
    pub(crate) context: Arc<Context>,
    pub(crate) medic: Arc<Process>,
}

impl FaultyDisk for Disk {
    fn accepts_write(&self) -> bool {
        let works = self.medic.begin() && !self.context.disk_full.load(Ordering::SeqCst);
        let flaky = self.context.faults.lock().unwrap().disk;
        let works = works && (flaky == 0 || self.context.rng.lock().unwrap().random_range(0..100) >= flaky);
        if !works {
            *self.context.disk_failed.lock().unwrap() = Some(self.context.now());
        }
        works
    }
    fn loses_write(&self, what: &'static str) -> bool {
        self.context.broken.loses_write(what)
    }
    fn after_write(&self, what: &'static str) {
        if what.ends_with("a treatment") {
            self.context.journal_changed();
        }
        self.context.step();
        let _ = self.medic.end();
    }
}

/// A medic's clock. Every wait is a step.
pub(crate) struct ProcessClock {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) medic: Arc<Process>,
}

#[async_trait]
impl Clock for ProcessClock {
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
