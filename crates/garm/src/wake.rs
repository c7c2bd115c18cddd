//! Which of a manager's events are a reason to look at once. An event is only that: what it says is read from the API,
//! because events may be lost or come out of order (`docs/reference/garm-api.md` §8.2).
//!
//! The rule: a set that appears, goes, or is enabled or disabled is a reason. Every job changes the row of its set twice
//! (§6.6), so any other change waits for the next pass: on a busy fleet these come without end. Edge case: a set heard
//! of for the first time may have been enabled or disabled just now; such reasons come at least a while apart.

use crate::events::{self, Event};
use crate::ws::Feed;
use medic_core::clock::Clock;
use medic_core::model::{Enablement, Mono, Now, ScaleSetId, Span};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Sets that are remembered; beyond them the lowest are forgotten, and heard of anew.
const SETS_MAX: usize = 50_000;

/// Wakes whoever looks, as long as there are events; first words about sets at least `apart`.
pub async fn watch(mut feed: Feed, apart: Span, clock: Arc<dyn Clock>, wake: Arc<Notify>) {
    let mut heard = Heard::new(apart);
    loop {
        let text = match heard.due {
            None => feed.next().await,
            Some(due) => tokio::select! {
                biased;
                () = clock.sleep(due.since(clock.now().mono)) => {
                    heard.looked_at(clock.now().mono);
                    wake.notify_one();
                    continue;
                }
                text = feed.next() => text,
            },
        };
        let Some(text) = text else { return };
        if events::parse(&text).is_some_and(|event| heard.is_reason(&event, clock.now())) {
            wake.notify_one();
        }
    }
}

/// What was heard so far.
struct Heard {
    apart: Span,
    sets: BTreeMap<ScaleSetId, Enablement>,
    last: Option<Mono>,
    /// When a reason that came too early is due.
    due: Option<Mono>,
}

impl Heard {
    const fn new(apart: Span) -> Self {
        Self { apart, sets: BTreeMap::new(), last: None, due: None }
    }

    /// Whether to look at once; a reason that has to wait is due later.
    fn is_reason(&mut self, event: &Event, now: Now) -> bool {
        let is_new = match event {
            Event::ScaleSetDeleted { id } => {
                self.sets.remove(id);
                false
            }
            Event::ScaleSetChanged { id, enabled, .. } => match self.sets.insert(*id, *enabled) {
                Some(before) if before == *enabled => return false,
                Some(_) => false,
                None => true,
            },
            Event::InstanceChanged { .. } => return false,
        };
        if self.sets.len() > SETS_MAX {
            self.sets.pop_first();
        }
        let early = self.last.map(|last| last.plus(self.apart)).filter(|earliest| *earliest > now.mono);
        if let (true, Some(earliest)) = (is_new, early) {
            self.due = Some(earliest);
            return false;
        }
        self.looked_at(now.mono);
        true
    }

    const fn looked_at(&mut self, now: Mono) {
        (self.last, self.due) = (Some(now), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::{Revision, Wall};

    fn changed(id: u64, enabled: Enablement, revision: u64) -> Event {
        Event::ScaleSetChanged { id: ScaleSetId(id), enabled, revision: Revision::new(revision.to_string()) }
    }

    const fn at(millis: u64) -> Now {
        Now { wall: Wall(millis), mono: Mono(millis) }
    }

    #[test]
    fn a_busy_fleet_is_no_reason_and_a_person_at_a_set_is_one_at_once() {
        let mut heard = Heard::new(Span::secs(2));
        let mut reasons = 0;
        // Two events a job, 40 a second for 100 s, on 20 sets.
        for n in 0..4_000 {
            reasons += u32::from(heard.is_reason(&changed(n % 20, Enablement::Enabled, n), at(n * 25)));
        }
        assert_eq!((reasons, heard.due), (1, Some(Mono(2_000))), "first words are taken together");
        heard.looked_at(Mono(2_000));
        assert!(heard.is_reason(&changed(7, Enablement::Disabled, 1), at(100_000)));
        assert!(!heard.is_reason(&changed(7, Enablement::Disabled, 2), at(100_001)));
        assert!(heard.is_reason(&changed(7, Enablement::Enabled, 3), at(100_002)), "at once, however soon");
        assert!(heard.is_reason(&Event::ScaleSetDeleted { id: ScaleSetId(7) }, at(100_003)));
    }
}
