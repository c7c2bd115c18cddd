//! The network between one medic and the servers. It delays, loses, repeats and cuts, as the seed says. The medic can
//! be killed at every request and every answer.

use super::context::Context;
use super::invariants::Write;
use super::process::Process;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use medic_core::model::{FailureKind, ScaleSetId, Span};
use medic_http::{Bounds, Response, Transport, TransportError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Shares of requests, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NetworkFaults {
    /// Lost before they arrive.
    pub(crate) lost: u32,
    pub(crate) unanswered: u32,
    /// Requests and answers that take seconds.
    pub(crate) slow: u32,
    pub(crate) doubled: u32,
    /// Answers cut in the middle.
    pub(crate) cut: u32,
    /// Disables that seem lost and arrive up to 25 s later.
    pub(crate) late: u32,
    /// Writes to the store that fail.
    pub(crate) disk: u32,
}

impl NetworkFaults {
    pub(crate) const NONE: Self = Self { lost: 0, unanswered: 0, slow: 0, doubled: 0, cut: 0, late: 0, disk: 0 };
}

pub(crate) struct Network {
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) context: Arc<Context>,
    pub(crate) medic: Arc<Process>,
}

type Answer = Result<Response, TransportError>;

impl Network {
    async fn delay_on_the_way(&self, faults: NetworkFaults) {
        let slow = self.context.chance(faults.slow);
        let span = self.context.draw(if slow { 1_000..6_000 } else { 1..40 });
        self.context.clock.sleep(Span::millis(span)).await;
    }

    async fn exchange(&self, request: Request<Bytes>, bounds: Bounds, faults: NetworkFaults) -> Answer {
        self.delay_on_the_way(faults).await;
        if self.context.chance(faults.lost) {
            return Err(broken("the request was lost"));
        }
        if self.context.chance(faults.doubled) {
            let _ = arrive(&self.inner, &self.context, request.clone(), bounds).await;
        }
        if self.context.chance(faults.late) && is_disable(&request) {
            self.delay(request, bounds);
            return Err(broken("the answer was lost, and the request is late"));
        }
        let asked = request.clone();
        let mut answer = arrive(&self.inner, &self.context, request, bounds).await;
        self.context.step();
        if !self.medic.end() {
            return std::future::pending().await;
        }
        self.delay_on_the_way(faults).await;
        if self.context.chance(faults.unanswered) {
            answer = Err(broken("the answer was lost"));
        }
        if let Ok(response) = &mut answer
            && self.context.chance(faults.cut)
        {
            response.body.truncate(response.body.len() / 2);
        }
        let answer = self.context.broken.change_answer(&asked, answer, &self.context.broken_dates);
        if let (Some(Write::Open), Ok(response)) = (Write::of(&asked), &answer)
            && serde_json::from_slice::<serde_json::Value>(&response.body).is_ok()
        {
            self.context.invariants.lock().unwrap().answered(&response.body);
        }
        answer
    }

    /// The write is judged now, because its sender cannot know what will have changed when it arrives.
    fn delay(&self, request: Request<Bytes>, bounds: Bounds) {
        let (inner, context) = (Arc::clone(&self.inner), Arc::clone(&self.context));
        let delay = Span::millis(context.draw(2_000..20_000));
        if let Some(act) = Write::of(&request) {
            judge(&context, &act);
        }
        tokio::spawn(async move {
            context.clock.sleep(delay).await;
            let _ = take_effect(&inner, &context, request, bounds).await;
            context.step();
        });
    }
}

fn judge(context: &Context, act: &Write) {
    context.refresh();
    let may_lag = context.journal_may_lag();
    context.hub.with(|world, now| context.invariants.lock().unwrap().arrives(act, may_lag, world, now));
}

/// A request arrives at its server.
async fn arrive(inner: &Arc<dyn Transport>, context: &Context, request: Request<Bytes>, bounds: Bounds) -> Answer {
    if let Some(early) = context.broken.sends_early(&request) {
        let _ = Box::pin(arrive(inner, context, early, bounds)).await;
    }
    if let Some(act) = Write::of(&request) {
        judge(context, &act);
    }
    take_effect(inner, context, request, bounds).await
}

async fn take_effect(inner: &Arc<dyn Transport>, context: &Context, request: Request<Bytes>, bounds: Bounds) -> Answer {
    let set = set_of(&request);
    let Some(act) = Write::of(&request) else {
        if let Some(set) = set {
            context.in_use.lock().unwrap().insert(set, context.now());
        }
        return inner.send(request, bounds).await;
    };
    let was = set.map(|set| context.hub.with(|world, _| world.garm(0).unwrap().is_enabled(set)));
    let answer = inner.send(request, bounds).await;
    let disabled = context.hub.with(|world, now| context.invariants.lock().unwrap().arrived(&act, was, world, now));
    if let Some(set) = set {
        context.in_use.lock().unwrap().remove(&set);
        if disabled {
            context.just_disabled.lock().unwrap().push(set);
            context.wake.notify_one();
        }
    }
    answer
}

fn is_disable(request: &Request<Bytes>) -> bool {
    matches!(Write::of(request), Some(Write::Enable(_, false)))
}

/// The set that a request to GARM reads or writes singly.
fn set_of(request: &Request<Bytes>) -> Option<ScaleSetId> {
    let (head, last) = request.uri().path().rsplit_once('/')?;
    let alone = head.ends_with("/api/v1/scalesets") && [Method::GET, Method::PUT].contains(request.method());
    last.parse().ok().filter(|_| alone).map(ScaleSetId)
}

pub(crate) fn broken(detail: &str) -> TransportError {
    TransportError { kind: FailureKind::Broken, detail: detail.to_owned() }
}

#[async_trait]
impl Transport for Network {
    async fn send(&self, request: Request<Bytes>, bounds: Bounds) -> Answer {
        let context = &self.context;
        let faults = *context.faults.lock().unwrap();
        context.requests.fetch_add(1, Ordering::Relaxed);
        if !self.medic.begin() {
            return std::future::pending().await;
        }
        if let Some(answer) = context.broken.drops(&request) {
            return answer;
        }
        if let Some(set) = set_of(&request) {
            context.in_use.lock().unwrap().insert(set, context.now());
        }
        let answer = tokio::select! {
            biased;
            answer = self.exchange(request, bounds, faults) => answer,
            () = context.clock.sleep(bounds.total) => {
                Err(TransportError { kind: FailureKind::Timeout, detail: format!("no answer within {}", bounds.total) })
            }
        };
        if let Ok(response) = &answer
            && response.body.len() > bounds.body
        {
            context.violated(
                "I8",
                format!("a body of {} bytes was taken, the bound is {}", response.body.len(), bounds.body),
            );
        }
        answer
    }
}
