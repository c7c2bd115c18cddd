//! The network between one medic and the servers: slow, lossy, given to repeating itself, as the seed says. Every
//! request and every answer is a point at which the medic may die.

use super::mortal::Mortal;
use super::truth::{Act, Truth};
use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use scaleset_medic::clock::Clock;
use scaleset_medic::http::{Bounds, Response, Transport, TransportError};
use scaleset_medic::lab::hub::Hub;
use scaleset_medic::lab::world::World;
use scaleset_medic::model::{FailureKind, Span, Treatment};
use std::sync::{Arc, Mutex};

/// How bad it is: shares of requests, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Climate {
    /// Lost before they arrive.
    pub(crate) lost: u32,
    /// Answers lost.
    pub(crate) unanswered: u32,
    /// Requests and answers that take seconds.
    pub(crate) slow: u32,
    /// Sent twice.
    pub(crate) doubled: u32,
    /// Answers cut in the middle.
    pub(crate) cut: u32,
}

impl Climate {
    pub(crate) const CALM: Self = Self { lost: 0, unanswered: 0, slow: 0, doubled: 0, cut: 0 };
}

/// How a medic is broken on purpose, to see that the checks can fail: each takes from it what one invariant needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is whole.
    Not,
    /// Its enables never arrive. I3.
    NeverEnables,
    /// It sees no session of the manager, whatever there is. I4.
    BlindToSessions,
    /// Its journal keeps how a treatment began, and no step after it: it forgets what it must undo. I3.
    Forgetful,
}

impl Broken {
    fn spoil(self, request: &str, body: Bytes) -> Bytes {
        match self {
            Self::BlindToSessions if request.contains("/metrics") => {
                let text = String::from_utf8_lossy(&body);
                let kept = text.lines().filter(|line| {
                    !["CreateMessageSession", "GetMessage", "RefreshMessageSession"].iter().any(|op| line.contains(op))
                });
                Bytes::from(kept.collect::<Vec<_>>().join("\n") + "\n")
            }
            Self::Not | Self::NeverEnables | Self::Forgetful | Self::BlindToSessions => body,
        }
    }
}

/// What the network, the truth and the scenario share.
pub(crate) struct Scene {
    pub(crate) hub: Arc<Hub<World>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) truth: Mutex<Truth>,
    pub(crate) climate: Mutex<Climate>,
    pub(crate) rng: Mutex<SmallRng>,
    pub(crate) broken: Broken,
    pub(crate) requests: Mutex<u64>,
    pub(crate) journal: Box<dyn Fn() -> Vec<Treatment> + Send + Sync>,
}

impl Scene {
    fn chance(&self, percent: u32) -> bool {
        percent > 0 && self.rng.lock().unwrap().random_range(0..100) < percent
    }

    async fn travel(&self, climate: Climate) {
        let span = if self.chance(climate.slow) {
            self.rng.lock().unwrap().random_range(1_000..6_000)
        } else {
            self.rng.lock().unwrap().random_range(1..40)
        };
        self.clock.sleep(Span::millis(span)).await;
    }
}

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub(crate) struct Weather {
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) scene: Arc<Scene>,
    pub(crate) medic: Arc<Mortal>,
}

impl Weather {
    async fn arrive(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError> {
        let act = Act::of(&request);
        let path = request.uri().path().to_owned();
        let spoiled = |response: Response| Response { body: self.scene.broken.spoil(&path, response.body), ..response };
        let Some(act) = act else { return self.inner.send(request, bounds).await.map(spoiled) };
        if self.scene.broken == Broken::NeverEnables && matches!(act, Act::Enable(_, true)) {
            return Err(broken("the enable was lost"));
        }
        let journal = (self.scene.journal)();
        let was = self.scene.hub.with(|world, now| {
            self.scene.truth.lock().unwrap().arrives(&act, world, &journal, now);
            match act {
                Act::Enable(set, _) => Some(world.garm(0).unwrap().is_enabled(set)),
                Act::Delete(_) | Act::Open => None,
            }
        });
        let answer = self.inner.send(request, bounds).await;
        self.scene.hub.with(|world, _| self.scene.truth.lock().unwrap().arrived(&act, was, world));
        answer.map(spoiled)
    }
}

fn broken(detail: &str) -> TransportError {
    TransportError { kind: FailureKind::Broken, detail: detail.to_owned() }
}

#[async_trait]
impl Transport for Weather {
    async fn send(&self, request: http::Request<Bytes>, bounds: Bounds) -> Result<Response, TransportError> {
        let scene = &self.scene;
        let climate = *scene.climate.lock().unwrap();
        *scene.requests.lock().unwrap() += 1;
        if !self.medic.begin() {
            return std::future::pending().await;
        }
        let exchange = async {
            scene.travel(climate).await;
            if scene.chance(climate.lost) {
                return Err(broken("the request was lost"));
            }
            if scene.chance(climate.doubled) {
                let _ = self.arrive(request.clone(), bounds).await;
            }
            let mut answer = self.arrive(request, bounds).await;
            if !self.medic.end() {
                return std::future::pending().await;
            }
            scene.travel(climate).await;
            if scene.chance(climate.unanswered) {
                return Err(broken("the answer was lost"));
            }
            if let Ok(response) = &mut answer
                && scene.chance(climate.cut)
            {
                response.body.truncate(response.body.len() / 2);
            }
            answer
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            () = scene.clock.sleep(bounds.total) => {
                Err(TransportError { kind: FailureKind::Timeout, detail: format!("no answer within {}", bounds.total) })
            }
        }
    }
}
