//! Which of a manager's events wake a reconcile. An event is only a wake-up: the state is read from the API, because
//! events may be lost or reordered (`docs/reference/garm-api.md` §8.2).
//!
//! A set that appears, is deleted, enabled or disabled wakes at once. Every job changes the row of its set twice (§6.6),
//! so any other change waits for the next reconcile. A set seen for the first time may just have been enabled or
//! disabled; such wake-ups are spaced.

use crate::events::{self, Event};
use crate::ws::Feed;
use medic_core::clock::Clock;
use medic_core::model::{Enablement, Mono, Now, ScaleSetId, Span};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Beyond this number of sets the lowest is forgotten, and new at its next event.
const SETS_MAX: usize = 50_000;

/// Wakes the reconcile loop until the feed ends; for new sets at most once per `spacing`.
pub async fn watch(mut feed: Feed, spacing: Span, clock: Arc<dyn Clock>, wake: Arc<Notify>) {
    let mut filter = WakeFilter::new(spacing);
    loop {
        let text = match filter.due {
            None => feed.next().await,
            Some(due) => tokio::select! {
                biased;
                () = clock.sleep(due.since(clock.now().mono)) => {
                    filter.woken(clock.now().mono);
                    wake.notify_one();
                    continue;
                }
                text = feed.next() => text,
            },
        };
        let Some(text) = text else { return };
        if events::parse(&text).is_some_and(|event| filter.wakes(event, clock.now())) {
            wake.notify_one();
        }
    }
}

struct WakeFilter {
    spacing: Span,
    sets: BTreeMap<ScaleSetId, Enablement>,
    last: Option<Mono>,
    /// When a wake-up that came too early is due.
    due: Option<Mono>,
}

impl WakeFilter {
    const fn new(spacing: Span) -> Self {
        Self { spacing, sets: BTreeMap::new(), last: None, due: None }
    }

    /// Whether to wake now; a wake-up that has to wait becomes due later.
    fn wakes(&mut self, event: Event, now: Now) -> bool {
        let is_new = match event {
            Event::ScaleSetDeleted { id } => {
                self.sets.remove(&id);
                false
            }
            Event::ScaleSetChanged { id, enabled } => match self.sets.insert(id, enabled) {
                Some(before) if before == enabled => return false,
                Some(_) => false,
                None => true,
            },
        };
        if self.sets.len() > SETS_MAX {
            self.sets.pop_first();
        }
        let early = self.last.map(|last| last.plus(self.spacing)).filter(|earliest| *earliest > now.mono);
        if let (true, Some(earliest)) = (is_new, early) {
            self.due = Some(earliest);
            return false;
        }
        self.woken(now.mono);
        true
    }

    const fn woken(&mut self, now: Mono) {
        (self.last, self.due) = (Some(now), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::Wall;

    const fn changed(id: u64, enabled: Enablement) -> Event {
        Event::ScaleSetChanged { id: ScaleSetId(id), enabled }
    }

    const fn at(millis: u64) -> Now {
        Now { wall: Wall(millis), mono: Mono(millis) }
    }

    #[test]
    fn wake_ignores_jobs_and_reacts_to_an_operator_at_once() {
        let mut filter = WakeFilter::new(Span::secs(2));
        let mut wakes = 0;
        // Two events a job, 40 a second for 100 s, on 20 sets.
        for n in 0..4_000 {
            wakes += u32::from(filter.wakes(changed(n % 20, Enablement::Enabled), at(n * 25)));
        }
        assert_eq!((wakes, filter.due), (1, Some(Mono(2_000))), "wake-ups for new sets are spaced");
        filter.woken(Mono(2_000));
        assert!(filter.wakes(changed(7, Enablement::Disabled), at(100_000)));
        assert!(!filter.wakes(changed(7, Enablement::Disabled), at(100_001)));
        assert!(filter.wakes(changed(7, Enablement::Enabled), at(100_002)), "at once, however soon");
        assert!(filter.wakes(Event::ScaleSetDeleted { id: ScaleSetId(7) }, at(100_003)));
    }
}
