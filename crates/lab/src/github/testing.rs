//! Requests as clients build them, for tests: a client with a token chain, and the pieces of an answer.

use super::{Credential, GithubConfig, GithubState, NewSet};
use crate::wire::{Answer, Delivery, HungUp, Request};
use bytes::Bytes;
use http::Method;
use medic_core::model::{Entity, EntityKind, GithubId, Span, Wall};
use serde_json::{Value, json};

pub(crate) const START: Wall = Wall(1_764_000_000_000);
pub(crate) const ORIGIN: &str = "http://github.test";
pub(crate) const PAT: &str = "ghp_0123456789";

/// One request: `authorization` is the header's whole value, none when empty.
pub(crate) fn request(method: &Method, path: &str, authorization: &str, body: &str) -> Request {
    let path = path.strip_prefix(ORIGIN).unwrap_or(path);
    let mut builder = http::Request::builder().method(method).uri(path);
    if !authorization.is_empty() {
        builder = builder.header("authorization", authorization);
    }
    builder.body(Bytes::from(body.to_owned())).unwrap()
}

pub(crate) fn get(path: &str, authorization: &str) -> Request {
    request(&Method::GET, path, authorization, "")
}

pub(crate) fn post(path: &str, authorization: &str, body: &Value) -> Request {
    request(&Method::POST, path, authorization, &body.to_string())
}

pub(crate) fn status(answer: &Answer) -> u16 {
    answer.response.status().as_u16()
}

pub(crate) fn body(answer: &Answer) -> Value {
    serde_json::from_slice(answer.response.body()).unwrap()
}

/// The exception's `typeKey`, after checking that `typeName` has it too.
pub(crate) fn exception(answer: &Answer) -> (u16, String) {
    let body = body(answer);
    let key = body["typeKey"].as_str().unwrap().to_owned();
    assert!(body["typeName"].as_str().unwrap().contains(&format!(".{key}, GitHub.")), "{body}");
    assert!(!body["message"].as_str().unwrap().is_empty());
    (status(answer), key)
}

/// Until when a poll is held.
pub(crate) fn held(answer: &Answer) -> Option<Wall> {
    if let Delivery::Hold(until) = answer.delivery { Some(until) } else { None }
}

pub(crate) fn entity(name: &str) -> Entity {
    let kind = if name.contains('/') { EntityKind::Repository } else { EntityKind::Organization };
    Entity { kind, name: name.to_owned() }
}

/// A session as its opener knows it.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) queue: String,
    pub(crate) token: String,
}

impl Opened {
    pub(crate) fn of(answer: &Answer) -> Self {
        assert_eq!(status(answer), 200, "{:?}", answer.response);
        let body = body(answer);
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { id: text("sessionId"), queue: text("messageQueueUrl"), token: text("messageQueueAccessToken") }
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// A poll from after this message.
    pub(crate) fn poll(&self, after: u64) -> Request {
        let cursor = if after == 0 { String::new() } else { format!("?lastMessageId={after}") };
        get(&format!("{}{cursor}", self.queue), &self.bearer())
    }
}

/// A simulated GitHub at a date, with one credential named `garm` and a client that holds an admin token of `acme`.
pub(crate) struct Bench {
    pub(crate) github: GithubState,
    pub(crate) now: Wall,
    pub(crate) admin: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut GithubConfig)) -> Self {
        let mut config = GithubConfig::new(ORIGIN).with(Credential::pat("garm", PAT));
        change(&mut config);
        let mut bench = Self { github: GithubState::new(config), now: START, admin: String::new() };
        bench.log_in("acme");
        bench
    }

    /// Gets an admin token of an entity by the whole chain.
    pub(crate) fn log_in(&mut self, entity: &str) {
        let scope = if entity.contains('/') { "repos" } else { "orgs" };
        let path = format!("/api/v3/{scope}/{entity}/actions/runners/registration-token");
        let token = self.send(&post(&path, &format!("Bearer {PAT}"), &Value::Null));
        assert_eq!(status(&token), 201);
        let token = body(&token)["token"].as_str().unwrap().to_owned();
        let wish = json!({"url": format!("{ORIGIN}/{entity}"), "runner_event": "register"});
        let registered = self.send(&post("/api/v3/actions/runner-registration", &format!("RemoteAuth {token}"), &wish));
        self.admin = format!("Bearer {}", body(&registered)["token"].as_str().unwrap());
    }

    pub(crate) fn set(&mut self, name: &str) -> GithubId {
        self.github.add_set(&NewSet { entity: entity("acme"), name: name.to_owned() }, self.now)
    }

    pub(crate) fn send(&mut self, request: &Request) -> Answer {
        self.github.handle(self.now, request)
    }

    pub(crate) fn wait(&mut self, span: Span) {
        self.now = self.now.plus(span);
        self.github.advance(self.now);
    }

    /// A request to the service of `acme` with the admin token.
    pub(crate) fn ask(&mut self, method: &Method, tail: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let admin = self.admin.clone();
        self.send(&request(method, &format!("/svc/acme/_apis/{tail}"), &admin, &body))
    }

    pub(crate) fn open(&mut self, set: GithubId, owner: &str) -> Answer {
        let tail = format!("runtime/runnerscalesets/{}/sessions?api-version=6.0-preview", set.0);
        self.ask(&Method::POST, &tail, &json!({"ownerName": owner}))
    }

    pub(crate) fn opened(&mut self, set: GithubId) -> Opened {
        let answer = self.open(set, "garm-1");
        Opened::of(&answer)
    }

    pub(crate) fn on_session(&mut self, method: &Method, set: GithubId, session: &str) -> Answer {
        self.ask(method, &format!("runtime/runnerscalesets/{}/sessions/{session}", set.0), &Value::Null)
    }

    pub(crate) fn poll(&mut self, session: &Opened) -> Answer {
        self.send(&session.poll(0))
    }

    /// The client of a held poll disconnects.
    pub(crate) fn hang_up(&mut self, session: &Opened) {
        let mut request = session.poll(0);
        request.extensions_mut().insert(HungUp);
        self.send(&request);
    }
}
