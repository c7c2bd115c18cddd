//! The simulated GARM: against recordings of two real ones, and a test for each trap of `docs/reference/garm-api.md`
//! §11 and §14 that the recordings do not show.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod conformance;
mod crash;
mod listener;
mod start;

use bytes::Bytes;
use http::Method;
use medic_core::model::{Entity, EntityKind, GithubId, ScaleSetId, Span, Wall};
use medic_lab::backend::{Backend as _, ServerId};
use medic_lab::garm::{Build, GarmConfig, GarmState, WorkerTruth};
use medic_lab::github::{Fault, FaultKind, GithubConfig, NewSet, Route};
use medic_lab::wire::{Answer, Request};
use medic_lab::world::{Fleet, World};
use serde_json::{Value, json};

const START: Wall = Wall(1_795_459_531_600);
const ORIGIN: &str = "http://127.0.0.1:18101";
const GARM: ServerId = ServerId::Manager(0);
const FIRST: ScaleSetId = ScaleSetId(1);
const SECOND: ScaleSetId = ScaleSetId(2);
const BOTH: [Build; 2] = [Build::PreFix, Build::PostFix];
const METRICS: &str = "/metrics";
const GOROUTINES: &str = "/debug/pprof/goroutine?debug=2";

/// One GARM and its GitHub, at a date.
struct Bench {
    world: World,
    now: Wall,
    /// An administrator's token, with its scheme.
    admin: String,
}

impl Bench {
    /// Two sets of one organisation, listening.
    fn new(build: Build) -> Self {
        Self::with(build, |_, _| {})
    }

    fn with(build: Build, change: impl FnOnce(&mut GarmConfig, &mut GithubConfig)) -> Self {
        let mut bench = Self::down(build, 2, change);
        bench.start();
        bench.wait(Span::secs(6));
        bench
    }

    /// The same with any number of sets, not started.
    fn down(build: Build, sets: u32, change: impl FnOnce(&mut GarmConfig, &mut GithubConfig)) -> Self {
        let mut fleet = Fleet::new(build, sets, ORIGIN);
        change(&mut fleet.managers[0], &mut fleet.github);
        Self { world: World::new(&fleet, START), now: START, admin: String::new() }
    }

    fn garm(&self) -> &GarmState {
        self.world.garm(0).unwrap()
    }

    fn garm_mut(&mut self) -> &mut GarmState {
        self.world.garm_mut(0).unwrap().0
    }

    fn start(&mut self) {
        self.world.start(0, self.now);
    }

    /// SIGKILL, and a start a second later.
    fn restart(&mut self) {
        self.world.kill(0, self.now);
        self.wait(Span::secs(1));
        self.start();
    }

    fn wait(&mut self, span: Span) {
        // What was changed by hand takes effect now, not at the end.
        self.world.advance(self.now);
        self.now = self.now.plus(span);
        self.world.advance(self.now);
    }

    fn send(&mut self, method: &str, path: &str, authorization: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = http::Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        let request: Request = request
            .header("authorization", authorization)
            .header("user-agent", "test")
            .body(Bytes::from(body))
            .unwrap();
        self.world.handle(GARM, &request, self.now)
    }

    fn log_in(&mut self) {
        let password = json!({"username": "admin", "password": "correct horse battery staple"});
        self.admin = bearer(&self.send("POST", "/api/v1/auth/login", "", &password));
    }

    fn put(&mut self, set: ScaleSetId, change: &Value) -> Value {
        self.log_in();
        let admin = self.admin.clone();
        let answer = self.send("PUT", &format!("/api/v1/scalesets/{set}"), &admin, change);
        assert_eq!(status(&answer), 200, "{answer:?}");
        body(&answer)
    }

    fn enable(&mut self, set: ScaleSetId, enabled: bool) {
        self.put(set, &json!({"enabled": enabled}));
    }

    /// With a pause between both writes, and time for the worker to start.
    fn toggle(&mut self, set: ScaleSetId) {
        self.enable(set, false);
        self.wait(Span::secs(5));
        self.enable(set, true);
        self.wait(Span::secs(5));
    }

    /// The answer to a scrape with a token for it.
    fn scrape(&mut self) -> Answer {
        self.log_in();
        let admin = self.admin.clone();
        let token = bearer(&self.send("GET", "/api/v1/metrics-token", &admin, &Value::Null));
        self.send("GET", METRICS, &token, &Value::Null)
    }

    fn metrics(&mut self) -> String {
        text(&self.scrape())
    }

    fn inject(&mut self, route: Route, kind: FaultKind) {
        self.world.github.inject(Fault::on(route, kind));
    }

    fn github_id(&self, set: ScaleSetId) -> GithubId {
        self.garm().scale_sets().find(|(id, _, _)| *id == set).unwrap().2
    }

    fn listens(&self, set: ScaleSetId) -> bool {
        let holder = self.world.github.holder(self.github_id(set)).filter(|holder| holder.polling);
        holder.is_some_and(|holder| self.garm().worker(set) == WorkerTruth::Listening(holder.session))
    }

    /// The records of the log since the last call.
    fn log(&mut self) -> Vec<Value> {
        self.garm_mut().take_log().iter().filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// When a route was asked for since a date, in milliseconds from it.
    fn calls_since(&self, since: Wall, route: Route) -> Vec<u64> {
        let calls = self.world.github.calls().filter(|call| call.at >= since && call.route == route);
        calls.map(|call| call.at.since(since).as_millis()).collect()
    }
}

/// The organisations of a world.
fn acme(n: u32) -> Entity {
    Entity { kind: EntityKind::Organization, name: format!("acme{n}") }
}

fn status(answer: &Answer) -> u16 {
    answer.response.status().as_u16()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.response.body().to_vec()).unwrap()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(answer.response.body()).unwrap()
}

fn bearer(answer: &Answer) -> String {
    format!("Bearer {}", body(answer)["token"].as_str().unwrap())
}

fn count(log: &[Value], level: &str, msg: &str) -> usize {
    log.iter().filter(|line| line["level"] == level && line["msg"] == msg).count()
}
