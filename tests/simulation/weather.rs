//! The network between one medic and the servers: slow, lossy, given to repeating itself, as the seed says. Every
//! request and every answer is a point at which the medic may die.

use super::mortal::Mortal;
use super::scene::Scene;
use super::truth::Act;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use medic_core::model::{FailureKind, ScaleSetId, Span};
use medic_http::{Bounds, Response, Transport, TransportError};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How bad it is: shares of requests, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Climate {
    /// Lost before they arrive.
    pub(crate) lost: u32,
    pub(crate) unanswered: u32,
    /// Requests and answers that take seconds.
    pub(crate) slow: u32,
    pub(crate) doubled: u32,
    /// Answers cut in the middle.
    pub(crate) cut: u32,
    /// Disables that are taken for lost and arrive up to 25 s later.
    pub(crate) late: u32,
    /// Writes to the store that fail.
    pub(crate) disk: u32,
}

impl Climate {
    pub(crate) const CALM: Self = Self { lost: 0, unanswered: 0, slow: 0, doubled: 0, cut: 0, late: 0, disk: 0 };
}

pub(crate) struct Weather {
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) scene: Arc<Scene>,
    pub(crate) medic: Arc<Mortal>,
}

type Answer = Result<Response, TransportError>;

impl Weather {
    async fn travel(&self, climate: Climate) {
        let slow = self.scene.chance(climate.slow);
        let span = self.scene.draw(if slow { 1_000..6_000 } else { 1..40 });
        self.scene.clock.sleep(Span::millis(span)).await;
    }

    /// The way there, what the server does, and the way back.
    async fn exchange(&self, request: Request<Bytes>, bounds: Bounds, climate: Climate) -> Answer {
        self.travel(climate).await;
        if self.scene.chance(climate.lost) {
            return Err(broken("the request was lost"));
        }
        if self.scene.chance(climate.doubled) {
            let _ = arrive(&self.inner, &self.scene, request.clone(), bounds).await;
        }
        if self.scene.chance(climate.late) && is_disable(&request) {
            self.delay(request, bounds);
            return Err(broken("the answer was lost, and the request is late"));
        }
        let asked = request.clone();
        let mut answer = arrive(&self.inner, &self.scene, request, bounds).await;
        self.scene.step();
        if !self.medic.end() {
            return std::future::pending().await;
        }
        self.travel(climate).await;
        if self.scene.chance(climate.unanswered) {
            answer = Err(broken("the answer was lost"));
        }
        if let Ok(response) = &mut answer
            && self.scene.chance(climate.cut)
        {
            response.body.truncate(response.body.len() / 2);
        }
        let answer = self.scene.broken.spoil(&asked, answer, &self.scene.broken_dates);
        if let (Some(Act::Open), Ok(response)) = (Act::of(&asked), &answer)
            && serde_json::from_slice::<serde_json::Value>(&response.body).is_ok()
        {
            self.scene.truth.lock().unwrap().answered(&response.body);
        }
        answer
    }
}

impl Weather {
    /// Whether it may be sent is judged now: what has changed when it arrives, its sender could not know.
    fn delay(&self, request: Request<Bytes>, bounds: Bounds) {
        let (inner, scene) = (Arc::clone(&self.inner), Arc::clone(&self.scene));
        let delay = Span::millis(scene.draw(2_000..20_000));
        if let Some(act) = Act::of(&request) {
            judge(&scene, &act);
        }
        tokio::spawn(async move {
            scene.clock.sleep(delay).await;
            let _ = take_effect(&inner, &scene, request, bounds).await;
            scene.step();
        });
    }
}

fn judge(scene: &Scene, act: &Act) {
    scene.refresh();
    let may_lag = scene.journal_may_lag();
    scene.hub.with(|world, now| scene.truth.lock().unwrap().arrives(act, may_lag, world, now));
}

/// A request arrives at its server.
async fn arrive(inner: &Arc<dyn Transport>, scene: &Scene, request: Request<Bytes>, bounds: Bounds) -> Answer {
    if let Some(early) = scene.broken.hurries(&request) {
        let _ = Box::pin(arrive(inner, scene, early, bounds)).await;
    }
    if let Some(act) = Act::of(&request) {
        judge(scene, &act);
    }
    take_effect(inner, scene, request, bounds).await
}

async fn take_effect(inner: &Arc<dyn Transport>, scene: &Scene, request: Request<Bytes>, bounds: Bounds) -> Answer {
    let set = set_of(&request);
    let Some(act) = Act::of(&request) else {
        if let Some(set) = set {
            scene.hands_on.lock().unwrap().insert(set, scene.now());
        }
        return inner.send(request, bounds).await;
    };
    let was = set.map(|set| scene.hub.with(|world, _| world.garm(0).unwrap().is_enabled(set)));
    let answer = inner.send(request, bounds).await;
    let disabled = scene.hub.with(|world, now| scene.truth.lock().unwrap().arrived(&act, was, world, now));
    if let Some(set) = set {
        scene.hands_on.lock().unwrap().remove(&set);
        if disabled {
            scene.just_disabled.lock().unwrap().push(set);
            scene.stirred.notify_one();
        }
    }
    answer
}

fn is_disable(request: &Request<Bytes>) -> bool {
    matches!(Act::of(request), Some(Act::Enable(_, false)))
}

/// The one set that a request to the manager is about.
fn set_of(request: &Request<Bytes>) -> Option<ScaleSetId> {
    let (head, last) = request.uri().path().rsplit_once('/')?;
    let alone = head.ends_with("/api/v1/scalesets") && [Method::GET, Method::PUT].contains(request.method());
    last.parse().ok().filter(|_| alone).map(ScaleSetId)
}

pub(crate) fn broken(detail: &str) -> TransportError {
    TransportError { kind: FailureKind::Broken, detail: detail.to_owned() }
}

#[async_trait]
impl Transport for Weather {
    async fn send(&self, request: Request<Bytes>, bounds: Bounds) -> Answer {
        let scene = &self.scene;
        let climate = *scene.climate.lock().unwrap();
        scene.requests.fetch_add(1, Ordering::Relaxed);
        if !self.medic.begin() {
            return std::future::pending().await;
        }
        if let Some(answer) = scene.broken.swallows(&request) {
            return answer;
        }
        if let Some(set) = set_of(&request) {
            scene.hands_on.lock().unwrap().insert(set, scene.now());
        }
        let answer = tokio::select! {
            biased;
            answer = self.exchange(request, bounds, climate) => answer,
            () = scene.clock.sleep(bounds.total) => {
                Err(TransportError { kind: FailureKind::Timeout, detail: format!("no answer within {}", bounds.total) })
            }
        };
        if let Ok(response) = &answer
            && response.body.len() > bounds.body
        {
            scene.violated(
                "I8",
                format!("a body of {} bytes was taken, the bound is {}", response.body.len(), bounds.body),
            );
        }
        answer
    }
}
