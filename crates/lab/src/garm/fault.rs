//! What goes wrong between a client and the manager, with the kinds of fault that the simulated GitHub has too. The
//! first fault that fits a request decides; a counted one is used up by requests that it fitted.

use super::route::ManagerRoute;
use crate::github::{FaultEffect, FaultKind, Lasts};
use medic_core::model::{ScaleSetId, Wall};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerFault {
    /// On this route; `None`: on every route.
    pub route: Option<ManagerRoute>,
    /// For requests about this set; `None`: for all.
    pub set: Option<ScaleSetId>,
    pub kind: FaultKind,
    /// Whether the request takes effect all the same.
    pub effect: FaultEffect,
    /// How long it lasts.
    pub lasts: Lasts,
}

impl ManagerFault {
    /// A lasting fault on one route, without effect of the requests it hits.
    #[must_use]
    pub const fn on(route: ManagerRoute, kind: FaultKind) -> Self {
        Self { route: Some(route), set: None, kind, effect: FaultEffect::Lost, lasts: Lasts::Forever }
    }

    /// The same on every route.
    #[must_use]
    pub const fn everywhere(kind: FaultKind) -> Self {
        Self { route: None, set: None, kind, effect: FaultEffect::Lost, lasts: Lasts::Forever }
    }

    /// The same for requests about one set.
    #[must_use]
    pub fn for_set(mut self, set: ScaleSetId) -> Self {
        self.set = Some(set);
        self
    }

    /// The same for so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.lasts = Lasts::Times(times);
        self
    }

    /// The same up to a date.
    #[must_use]
    pub fn until(mut self, until: Wall) -> Self {
        self.lasts = Lasts::Until(until);
        self
    }

    /// The same after the request took effect: the asker cannot know it.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.effect = FaultEffect::Committed;
        self
    }
}

/// Faults in force, in the order in which they were set.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ManagerFault>);

impl Faults {
    pub(super) fn add(&mut self, fault: ManagerFault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that a request meets.
    pub(super) fn meet(&mut self, route: ManagerRoute, set: Option<u64>, now: Wall) -> Option<ManagerFault> {
        self.0.retain(|fault| match fault.lasts {
            Lasts::Times(left) => left > 0,
            Lasts::Until(until) => now < until,
            Lasts::Forever => true,
        });
        let fits = |fault: &&mut ManagerFault| {
            fault.route.is_none_or(|on| on == route) && fault.set.is_none_or(|on| Some(on.0) == set)
        };
        let fault = self.0.iter_mut().find(fits)?;
        if let Lasts::Times(left) = &mut fault.lasts {
            *left = left.saturating_sub(1);
        }
        Some(fault.clone())
    }
}
