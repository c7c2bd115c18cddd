//! The clocks behind [`medic_core::clock::Clock`]: the machine's own, and a scaled one for the lab and tests.

use async_trait::async_trait;
use medic_core::clock::Clock;
use medic_core::model::{Mono, Now, Span, Wall};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

/// A clock whose monotonic side begins now.
impl Default for SystemClock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now { wall: system_wall(), mono: Mono(Span::from(self.origin.elapsed()).as_millis()) }
    }
    async fn sleep(&self, span: Span) {
        tokio::time::sleep(span.into()).await;
    }
}

/// A clock that starts at a given date and runs `speed` times as fast as tokio's, for the lab (real sockets, scaled
/// time) and, with speed 1 on a paused runtime, for simulations under virtual time.
#[derive(Debug)]
pub struct ScaledClock {
    origin: Instant,
    start: Wall,
    speed: f64,
}

impl ScaledClock {
    /// Starts at `start`; `speed` is clamped to at least 0.001.
    pub fn new(start: Wall, speed: f64) -> Self {
        Self { origin: Instant::now(), start, speed: speed.max(0.001) }
    }
}

#[async_trait]
impl Clock for ScaledClock {
    fn now(&self) -> Now {
        let passed = Span::from(self.origin.elapsed().mul_f64(self.speed));
        Now { wall: self.start.plus(passed), mono: Mono(passed.as_millis()) }
    }
    async fn sleep(&self, span: Span) {
        let real = std::time::Duration::from(span).div_f64(self.speed);
        tokio::time::sleep(real.max(std::time::Duration::from_millis(1))).await;
    }
}

/// The date by the machine's clock.
pub fn system_wall() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}
