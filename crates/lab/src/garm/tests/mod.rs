//! A test for each trap of `docs/reference/garm-api.md` §11 and §14.

mod api;
mod crash;
mod listener;
mod start;
mod surface;

use super::{Build, GarmConfig, GarmState, WorkerTruth};
use crate::github::{Credential, GithubConfig, GithubState, NewSet, Route};
use crate::wire::{Answer, Request};
use bytes::Bytes;
use http::Method;
use medic_core::model::{Entity, EntityKind, GithubId, ScaleSetId, Span, Wall};
use serde_json::{Value, json};

const START: Wall = Wall(1_764_000_000_000);
const ORIGIN: &str = "http://github.test";
const PAT: &str = "ghp_0123456789";
const FIRST: ScaleSetId = ScaleSetId(1);
const SECOND: ScaleSetId = ScaleSetId(2);
const BOTH: [Build; 2] = [Build::PreFix, Build::PostFix];

/// One GARM and its GitHub, at a date.
struct Bench {
    github: GithubState,
    garm: GarmState,
    now: Wall,
}

impl Bench {
    /// Two sets of one organisation, listening.
    fn new(build: Build) -> Self {
        Self::with(build, |_| {}, |_| {})
    }

    fn with(build: Build, manager: impl FnOnce(&mut GarmConfig), change: impl FnOnce(&mut GithubConfig)) -> Self {
        let mut bench = Self::down(build, manager, change);
        bench.start();
        bench.wait(Span::secs(6));
        bench
    }

    /// The same, not started.
    fn down(build: Build, manager: impl FnOnce(&mut GarmConfig), change: impl FnOnce(&mut GithubConfig)) -> Self {
        let mut github = GithubConfig::new(ORIGIN).with(Credential::pat("garm", PAT));
        change(&mut github);
        let mut config = GarmConfig::new(build, ORIGIN, PAT);
        manager(&mut config);
        let (mut github, mut garm) = (GithubState::new(github), GarmState::new(config));
        for name in ["set-a", "set-b"] {
            let entity = acme();
            let github_id = github.add_set(&NewSet { entity: entity.clone(), name: name.to_owned() }, START);
            garm.add_scale_set(&entity, name, github_id, START);
        }
        Self { github, garm, now: START }
    }

    fn start(&mut self) {
        self.garm.start(self.now, &mut self.github);
    }

    fn kill(&mut self) {
        self.garm.kill(self.now, &mut self.github);
    }

    fn stop(&mut self) {
        self.garm.stop(self.now, &mut self.github);
    }

    /// SIGKILL, and a start a second later.
    fn restart(&mut self) {
        self.kill();
        self.wait(Span::secs(1));
        self.start();
    }

    fn wait(&mut self, span: Span) {
        let end = self.now.plus(span);
        loop {
            self.pass_wakes_on();
            let next = [self.garm.next_deadline(), self.github.next_deadline()].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.github.advance(self.now);
            self.pass_wakes_on();
            self.garm.advance(self.now, &mut self.github);
        }
        self.now = end;
    }

    fn pass_wakes_on(&mut self) {
        for session in self.github.take_wakes() {
            self.garm.wake(&session, self.now);
        }
    }

    fn send(&mut self, method: &Method, path: &str, authorization: &str, body: &str) -> Answer {
        let request: Request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", authorization)
            .header("user-agent", "test")
            .body(Bytes::from(body.to_owned()))
            .unwrap();
        let answer = self.garm.handle(self.now, &request, &mut self.github);
        self.pass_wakes_on();
        answer
    }

    fn admin(&mut self) -> String {
        let password = json!({"username": "admin", "password": "correct horse battery staple"});
        let answer = self.send(&Method::POST, "/api/v1/auth/login", "", &password.to_string());
        format!("Bearer {}", body(&answer)["token"].as_str().unwrap())
    }

    fn get(&mut self, path: &str) -> Answer {
        let admin = self.admin();
        self.send(&Method::GET, path, &admin, "")
    }

    fn put(&mut self, set: ScaleSetId, change: &Value) -> Value {
        let admin = self.admin();
        let answer = self.send(&Method::PUT, &format!("/api/v1/scalesets/{set}"), &admin, &change.to_string());
        assert_eq!(status(&answer), 200, "{answer:?}");
        body(&answer)
    }

    fn enable(&mut self, set: ScaleSetId, enabled: bool) -> Value {
        self.put(set, &json!({"enabled": enabled}))
    }

    /// With a pause between both writes, and time for the worker to start.
    fn toggle(&mut self, set: ScaleSetId) {
        self.enable(set, false);
        self.wait(Span::secs(5));
        self.enable(set, true);
        self.wait(Span::secs(5));
    }

    fn github_id(&self, set: ScaleSetId) -> GithubId {
        self.garm.scale_sets().find(|(id, _, _)| *id == set).unwrap().2
    }

    fn listens(&self, set: ScaleSetId) -> bool {
        let holder = self.github.holder(self.github_id(set));
        matches!(self.garm.worker(set), WorkerTruth::Listening(session) if holder.is_some_and(|h| h.session == session && h.polling))
    }

    /// The records of the log.
    fn log(&mut self) -> Vec<Value> {
        self.garm.take_log().iter().filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    fn metrics(&mut self) -> String {
        let token = body(&self.get("/api/v1/metrics-token"))["token"].as_str().unwrap().to_owned();
        let answer = self.send(&Method::GET, "/metrics", &format!("Bearer {token}"), "");
        assert_eq!(status(&answer), 200);
        String::from_utf8(answer.response.body().to_vec()).unwrap()
    }

    /// When a route was asked for since a date, in milliseconds from it.
    fn calls_since(&self, since: Wall, route: Route) -> Vec<u64> {
        let calls = self.github.calls().filter(|call| call.at >= since && call.route == route);
        calls.map(|call| call.at.since(since).as_millis()).collect()
    }
}

fn acme() -> Entity {
    Entity { kind: EntityKind::Organization, name: "acme".to_owned() }
}

fn status(answer: &Answer) -> u16 {
    answer.response.status().as_u16()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(answer.response.body()).unwrap()
}

fn count(log: &[Value], level: &str, msg: &str) -> usize {
    log.iter().filter(|line| line["level"] == level && line["msg"] == msg).count()
}
