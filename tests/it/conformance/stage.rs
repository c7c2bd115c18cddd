//! A world to play the recorded situations in: two GitHub organisations' worth of four sets, stale sessions of 25 s.

use super::{POST, PRE, judge};
use bytes::Bytes;
use scaleset_medic::lab::backend::{Backend, DoorId};
use scaleset_medic::lab::garm::{GarmConfig, Generation};
use scaleset_medic::lab::github::{JobFlow, Leaving, Takeover};
use scaleset_medic::lab::wire::Answer;
use scaleset_medic::lab::world::{Fleet, World};
use scaleset_medic::model::{ForgeId, ScaleSetId, Span};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) const VERSIONS: [(&str, Generation); 2] = [(PRE, Generation::PreFix), (POST, Generation::PostFix)];

const GARM: DoorId = DoorId::Manager(0);

pub(super) fn recording(version: &str, path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recordings").join(version).join(path)
}

pub(super) fn recorded(version: &str, path: &str) -> String {
    let path = recording(version, path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The world, and its date.
pub(super) struct Stage {
    pub(super) world: World,
    config: GarmConfig,
    now: scaleset_medic::model::Wall,
    complaints: Vec<String>,
}

impl Stage {
    pub(super) fn new(generation: Generation, change: impl Fn(&mut GarmConfig)) -> Self {
        let mut fleet = Fleet::new(generation, 4, "http://github.test").each(|garm| {
            garm.debug_server = true;
            change(garm);
        });
        fleet.github.stale_lifetime = Span::secs(25);
        fleet.github.job_flow = JobFlow::Told;
        let now = crate::bench::START;
        Self { world: World::new(&fleet, now), config: fleet.managers[0].clone(), now, complaints: Vec::new() }
    }

    /// Notes how a situation differs from its recording.
    pub(super) fn settle(&mut self, version: &str, at: &str, found: &BTreeSet<String>) {
        self.complaints.extend(judge(version, at, found));
    }
    /// Fails if any situation differed.
    pub(super) fn finish(self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }

    pub(super) fn wait(&mut self, span: Span) {
        self.now = self.now.plus(span);
        self.world.advance(self.now);
    }
    pub(super) fn start(&mut self) {
        self.world.start(0, self.now);
    }
    pub(super) fn stop(&mut self) {
        self.world.stop(0, self.now);
    }
    pub(super) fn kill_and_start(&mut self) {
        self.world.kill(0, self.now);
        self.wait(Span::secs(1));
        self.start();
    }
    fn forge_id(&self, set: u64) -> ForgeId {
        let garm = self.world.garm(0).unwrap();
        garm.scale_sets().find(|(id, _, _)| *id == ScaleSetId(set)).unwrap().2
    }
    pub(super) fn queue_jobs(&mut self, set: u64, n: u32) {
        let forge = self.forge_id(set);
        self.world.github.queue_jobs(forge, n, self.now);
        self.wait(Span::ZERO);
    }
    pub(super) fn another_owner_takes(&mut self, set: u64, span: Span) {
        let (forge, how) = (self.forge_id(set), (Takeover::AtOnce, Leaving::Deletes));
        self.world.github.foreign_owner_takes(forge, "someone-else", how, self.now, self.now.plus(span));
    }
    /// Somebody deletes a set's session at GitHub; its holder finds nothing there any more.
    pub(super) fn third_party_deletes_session(&mut self, set: u64) {
        use scaleset_medic::lab::github::UnknownSession;
        self.world.github.reconfigure(|github| github.unknown_session = UnknownSession::NotFound);
        let forge = self.forge_id(set);
        self.world.github.evict_session(forge, self.now);
    }

    /// A PUT as an administrator sends it.
    pub(super) fn put_enabled(&mut self, set: u64, enabled: bool) -> Answer {
        self.ask("PUT", &format!("/api/v1/scalesets/{set}"), &json!({"enabled": enabled}), true)
    }

    /// One request; `authenticated` with a fresh token of the right kind.
    pub(super) fn ask(&mut self, method: &str, path: &str, body: &Value, authenticated: bool) -> Answer {
        let login = json!({"username": self.config.username, "password": self.config.password});
        let token = match (authenticated, path) {
            (false, _) => None,
            (true, "/metrics") => {
                let token = self.ask("GET", "/api/v1/metrics-token", &Value::Null, true);
                Some(json_of(&token)["token"].as_str().unwrap().to_owned())
            }
            (true, _) => {
                let answer = self.send("POST", "/api/v1/auth/login", &login, None);
                Some(json_of(&answer)["token"].as_str().unwrap().to_owned())
            }
        };
        let body = if body.get("password") == Some(&json!("REDACTED")) { &login } else { body };
        self.send(method, path, body, token)
    }

    fn send(&mut self, method: &str, path: &str, body: &Value, token: Option<String>) -> Answer {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = http::Request::builder().method(method).uri(path).header("user-agent", "conformance");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.world.handle(GARM, &request.body(body).unwrap(), self.now)
    }

    pub(super) fn take_log(&mut self) -> Vec<String> {
        self.world.take_log(GARM).iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }
}

pub(super) fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(answer.response.body()).unwrap()
}

pub(super) fn text_of(answer: &Answer) -> String {
    String::from_utf8(answer.response.body().to_vec()).unwrap()
}
