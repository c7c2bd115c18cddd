//! Faults of both simulated servers: what goes wrong, on which route, for which set, for how long
//! (`docs/reference/actions-service.md` §9 points 2 and 12, `docs/reference/failure-modes.md` §1 F6-F11).
//!
//! The first fault that matches a request decides. A counted fault is used up by the requests that it matched. A long
//! poll that is asked again counts as a request, because its answer is decided then.

use crate::wire::{Answer, Delivery};
use medic_core::model::{Span, Wall};

/// A fault of a server whose routes are `R`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault<R> {
    /// On this route; `None`: on every route.
    pub route: Option<R>,
    /// For requests about this set, by the id that the server gave it; `None`: for all.
    pub set: Option<u64>,
    pub kind: FaultKind,
    pub effect: FaultEffect,
    pub lasts: Lasts,
}

impl<R> Fault<R> {
    /// A permanent fault on one route. The requests that it hits have no effect.
    #[must_use]
    pub const fn on(route: R, kind: FaultKind) -> Self {
        Self { route: Some(route), set: None, kind, effect: FaultEffect::Lost, lasts: Lasts::Forever }
    }

    /// The same on every route.
    #[must_use]
    pub const fn everywhere(kind: FaultKind) -> Self {
        Self { route: None, set: None, kind, effect: FaultEffect::Lost, lasts: Lasts::Forever }
    }

    #[must_use]
    pub fn for_set(mut self, set: u64) -> Self {
        self.set = Some(set);
        self
    }

    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.lasts = Lasts::Times(times);
        self
    }

    #[must_use]
    pub fn until(mut self, until: Wall) -> Self {
        self.lasts = Lasts::Until(until);
        self
    }

    /// The request takes effect, and the client cannot know it.
    #[must_use]
    pub fn after_effect(mut self) -> Self {
        self.effect = FaultEffect::Committed;
        self
    }
}

impl<R> Fault<R> {
    /// The answer to a request that meets this fault; `real` is the answer without it. A poll that is still held is
    /// left alone.
    pub(crate) fn answer(&self, real: impl FnOnce() -> Answer) -> Answer {
        let replacement = match &self.kind {
            FaultKind::Answer { status, content_type, body } => {
                Answer::raw(*status, content_type, body.clone().into_bytes())
            }
            FaultKind::HtmlPage(status) => Answer::raw(*status, "text/html; charset=utf-8", html_page(*status)),
            FaultKind::MalformedJson => Answer::raw(200, "application/json", b"{\"count\": 1, \"value\": [{".to_vec()),
            FaultKind::Refused => Answer::empty(502).delivered(Delivery::Refused),
            FaultKind::Reset => Answer::empty(502).delivered(Delivery::Reset),
            FaultKind::Never => Answer::empty(504).delivered(Delivery::Never),
            FaultKind::Huge(bytes) => {
                Answer::raw(200, "application/json", Vec::new()).delivered(Delivery::Huge(*bytes))
            }
            FaultKind::Truncated(bytes) => return real().instead(Delivery::Truncated(*bytes)),
            FaultKind::Dripping(span) => return real().instead(Delivery::Dripping(*span)),
            FaultKind::Bom => {
                let mut answer = real();
                if matches!(answer.delivery, Delivery::Hold(_)) {
                    return answer;
                }
                let body = [b"\xEF\xBB\xBF", answer.response.body().as_ref()].concat();
                *answer.response.body_mut() = body.into();
                return answer;
            }
            FaultKind::TokenWithoutExp | FaultKind::TokenNotJwt => return real(),
        };
        if self.effect == FaultEffect::Committed {
            drop(real());
        }
        replacement
    }
}

/// Whether a request that meets a fault takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEffect {
    Lost,
    /// It does, and the client does not learn it.
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    Times(u32),
    /// Up to this date.
    Until(Wall),
    /// Until the table is cleared.
    Forever,
}

/// Kinds that modify the real answer imply that the request took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    Answer {
        status: u16,
        /// Its content type; empty for none.
        content_type: String,
        body: String,
    },
    /// An HTML error page, as a proxy writes it.
    HtmlPage(u16),
    /// 200 with a body that is not JSON.
    MalformedJson,
    /// The connection is refused.
    Refused,
    /// The connection is reset.
    Reset,
    Never,
    /// A body of this many bytes of garbage.
    Huge(u64),
    /// The real answer, cut after this many bytes of its body.
    Truncated(usize),
    /// The real answer, one byte per span.
    Dripping(Span),
    /// The real answer after a UTF-8 byte order mark.
    Bom,
    /// The real answer with tokens that lack `exp`: crashes real GARM.
    TokenWithoutExp,
    /// The real answer with tokens that are not JWTs.
    TokenNotJwt,
}

impl FaultKind {
    /// An error of the server, as JSON.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            content_type: "application/json".to_owned(),
            body: format!(r#"{{"message":"simulated failure {status}"}}"#),
        }
    }
}

/// Faults in force, in the order in which they were set.
#[derive(Debug)]
pub(crate) struct FaultTable<R>(Vec<Fault<R>>);

impl<R> Default for FaultTable<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R: Copy + PartialEq> FaultTable<R> {
    pub(crate) fn add(&mut self, fault: Fault<R>) {
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that a request meets.
    pub(crate) fn meet(&mut self, route: R, set: Option<u64>, now: Wall) -> Option<Fault<R>> {
        self.0.retain(|fault| match fault.lasts {
            Lasts::Times(left) => left > 0,
            Lasts::Until(until) => now < until,
            Lasts::Forever => true,
        });
        let matches = |fault: &&mut Fault<R>| {
            fault.route.is_none_or(|on| on == route) && (fault.set.is_none() || fault.set == set)
        };
        let fault = self.0.iter_mut().find(matches)?;
        if let Lasts::Times(left) = &mut fault.lasts {
            *left = left.saturating_sub(1);
        }
        Some(fault.clone())
    }
}

fn html_page(status: u16) -> Vec<u8> {
    format!(
        "<!DOCTYPE html><html><head><title>{status}</title></head><body><h1>{status}</h1>\
         <p>We had issues producing the response to your request.</p></body></html>"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::github::Route;

    #[test]
    fn fault_ends_after_its_count_or_at_its_date() {
        let mut table = FaultTable::default();
        table.add(Fault::on(Route::Poll, FaultKind::Reset).times(2).for_set(7));
        table.add(Fault::on(Route::GetSet, FaultKind::Never).until(Wall(100)));
        assert!(table.meet(Route::Poll, Some(8), Wall(0)).is_none(), "another set");
        assert!(table.meet(Route::Poll, Some(7), Wall(0)).is_some());
        assert!(table.meet(Route::Poll, Some(7), Wall(0)).is_some());
        assert!(table.meet(Route::Poll, Some(7), Wall(0)).is_none(), "used up");
        assert!(table.meet(Route::GetSet, None, Wall(99)).is_some());
        assert!(table.meet(Route::GetSet, None, Wall(100)).is_none(), "over");
    }
    #[test]
    fn held_poll_is_left_alone() {
        let held = || Answer::empty(202).delivered(Delivery::Hold(Wall(7)));
        for kind in [FaultKind::Truncated(1), FaultKind::Dripping(Span::secs(1)), FaultKind::Bom] {
            let answer = Fault::on(Route::Poll, kind).answer(held);
            assert_eq!((answer.delivery, answer.response.body().len()), (Delivery::Hold(Wall(7)), 0));
        }
    }
}
