//! A medic's life: it can end at a date, at any write to the store, before or after it, and at any request, before or
//! after its effect. From then on nothing that the dead one still computes has any effect.

use scaleset_medic::store::gate::Gate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::sync::Notify;

/// What kills, counted down by every write and request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// Before the n-th from now.
    Before(u32),
    /// After it.
    After(u32),
}

#[derive(Debug, Default)]
pub(crate) struct Mortal {
    dead: AtomicBool,
    died: Notify,
    /// Twice the number of steps left, plus one for `After`; 0 is no doom.
    doom: AtomicU32,
    disk_full: Arc<AtomicBool>,
    /// Its disk only says that it keeps the steps of treatments.
    forgets: bool,
}

impl Mortal {
    pub(crate) fn new(disk_full: &Arc<AtomicBool>, forgets: bool) -> Arc<Self> {
        Arc::new(Self { disk_full: Arc::clone(disk_full), forgets, ..Self::default() })
    }

    pub(crate) fn doom(&self, doom: Doom) {
        let code = match doom {
            Doom::Before(n) => n.max(1) * 2,
            Doom::After(n) => n.max(1) * 2 + 1,
        };
        self.doom.store(code, Ordering::SeqCst);
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_waiters();
        self.died.notify_one();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
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
        match self.doom.load(Ordering::SeqCst) {
            0 => {}
            3 => self.kill(),
            left => self.doom.store(left.saturating_sub(2).max(2), Ordering::SeqCst),
        }
        !self.is_dead()
    }
}

impl Gate for Mortal {
    fn before(&self) -> bool {
        self.begin() && !self.disk_full.load(Ordering::SeqCst)
    }
    fn forgets(&self, what: &'static str) -> bool {
        self.forgets && what == "record a treatment"
    }
    fn after(&self) {
        let _ = self.end();
    }
}
