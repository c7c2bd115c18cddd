#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! GARM as a client of GitHub: the requests of one session's life (`reference/garm-api.md` §11). Every attempt to open
//! a session costs three: registration token, runner registration, POST. There is no time-out in GARM: an answer that
//! never comes hangs its caller.

use super::config::GarmConfig;
use super::db::SetRow;
use crate::lab::forge::Forge;
use crate::lab::wire::{Answer, Delivery, HungUp, PollId, Request};
use crate::model::{EntityKind, Wall};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

/// A session as GARM holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub id: String,
    pub queue: String,
    pub token: String,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// An answer.
    Got(u16, Bytes),
    /// No connection, or one that broke.
    Broken,
    /// Never answered.
    Hangs,
    /// A long poll without news so far.
    Held(Wall),
}

impl Reply {
    fn of(answer: Answer) -> Self {
        match answer.delivery {
            Delivery::After(_) | Delivery::Dripping(_) => {
                Self::Got(answer.response.status().as_u16(), answer.response.into_body())
            }
            Delivery::Refused | Delivery::Reset | Delivery::Truncated(_) | Delivery::Huge(_) => Self::Broken,
            Delivery::Never => Self::Hangs,
            Delivery::Hold(until) => Self::Held(until),
        }
    }
}

/// The error texts of GARM's scale set client.
pub(super) fn error(url: &str, reply: &Reply) -> String {
    match reply {
        Reply::Got(status, body) => {
            let body = Value::from(String::from_utf8_lossy(body).into_owned());
            let class = match status {
                400 => "bad request while calling",
                401 | 403 => "unauthorized while calling",
                404 => "not found while calling",
                409 => "conflict while calling",
                _ => "request failed while calling",
            };
            format!("failed to execute request to {url}: {class} {url}: {body}")
        }
        Reply::Broken => {
            format!("failed to execute request to {url}: Post \"{url}\": dial tcp: connect: connection refused")
        }
        Reply::Hangs | Reply::Held(_) => format!("failed to execute request to {url}: context canceled"),
    }
}

/// The error text of a poll, which has its own words for a queue that is gone.
pub(super) fn poll_error(url: &str, reply: &Reply) -> String {
    match reply {
        Reply::Got(404, body) => {
            format!("resource {url} not found: {}", Value::from(String::from_utf8_lossy(body).into_owned()))
        }
        Reply::Got(..) | Reply::Broken | Reply::Hangs | Reply::Held(_) => error(url, reply),
    }
}

/// The caller.
pub(super) struct Caller<'a> {
    pub config: &'a GarmConfig,
    pub forge: &'a mut dyn Forge,
    pub now: Wall,
}

impl Caller<'_> {
    fn send(&mut self, method: &Method, url: &str, authorization: &str, body: String) -> Reply {
        Reply::of(self.ask(method, url, authorization, body, |_| {}))
    }

    fn ask(
        &mut self,
        method: &Method,
        url: &str,
        authorization: &str,
        body: String,
        extend: impl FnOnce(&mut Request),
    ) -> Answer {
        let path = url.strip_prefix(self.config.github_origin.as_str()).unwrap_or(url);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", authorization)
            .header("user-agent", "garm")
            .header("content-type", "application/json")
            .body(Bytes::from(body));
        let Ok(mut request) = request else { return Answer::empty(400) };
        extend(&mut request);
        self.forge.handle(self.now, &request)
    }

    /// Registration token and runner registration: the Actions service's address and an admin token. The error names
    /// the GARM operation that failed.
    pub(super) fn service(&mut self, set: &SetRow) -> Result<(String, String), (&'static str, String)> {
        let origin = self.config.github_origin.clone();
        let (scope, web) = match set.entity.kind {
            EntityKind::Repository => ("repos", set.entity.name.clone()),
            EntityKind::Organization => ("orgs", set.entity.name.clone()),
            EntityKind::Enterprise => ("enterprises", format!("enterprises/{}", set.entity.name)),
        };
        let url = format!("{origin}/api/v3/{scope}/{}/actions/runners/registration-token", set.entity.name);
        let pat = format!("Bearer {}", self.config.github_token);
        let reply = self.send(&Method::POST, &url, &pat, String::new());
        let token = text(&reply, "token").ok_or_else(|| ("CreateEntityRegistrationToken", error(&url, &reply)))?;
        let url = format!("{origin}/api/v3/actions/runner-registration");
        let wish = json!({"url": format!("{origin}/{web}"), "runner_event": "register"}).to_string();
        let reply = self.send(&Method::POST, &url, &format!("RemoteAuth {token}"), wish);
        let failed = || ("GetActionServiceInfo", error(&url, &reply));
        let service = text(&reply, "url").ok_or_else(failed)?;
        let token = text(&reply, "token").ok_or_else(failed)?;
        Ok((service.trim_end_matches('/').to_owned(), format!("Bearer {token}")))
    }

    /// `GET /rate_limit`.
    pub(super) fn rate_limit(&mut self) -> Reply {
        let url = format!("{}/api/v3/rate_limit", self.config.github_origin);
        let pat = format!("Bearer {}", self.config.github_token);
        self.send(&Method::GET, &url, &pat, String::new())
    }

    /// POST of a session.
    pub(super) fn open(
        &mut self,
        set: &SetRow,
        (service, admin): &(String, String),
    ) -> Result<Session, (Reply, String)> {
        let url = format!("{service}/_apis/runtime/runnerscalesets/{}/sessions?api-version=6.0-preview", set.forge_id);
        let owner = json!({"ownerName": format!("garm-{}", self.config.controller_id)}).to_string();
        let reply = self.send(&Method::POST, &url, admin, owner);
        let session = || {
            Some(Session {
                id: text(&reply, "sessionId")?,
                queue: text(&reply, "messageQueueUrl")?,
                token: text(&reply, "messageQueueAccessToken")?,
            })
        };
        match reply {
            Reply::Got(200, _) => session().ok_or_else(|| (Reply::Broken, "decoding response".to_owned())),
            Reply::Got(..) | Reply::Broken | Reply::Hangs | Reply::Held(_) => {
                let words = format!("creating message session: {}", error(&url, &reply));
                Err((reply, words))
            }
        }
    }

    /// DELETE or PATCH of a session.
    pub(super) fn on_session(
        &mut self,
        method: &Method,
        set: &SetRow,
        session: &Session,
        service: &(String, String),
    ) -> Reply {
        let url = format!(
            "{}/_apis/runtime/runnerscalesets/{}/sessions/{}?api-version=6.0-preview",
            service.0, set.forge_id, session.id
        );
        self.send(method, &url, &service.1, String::new())
    }

    /// One poll, or the same again.
    pub(super) fn poll(&mut self, session: &Session, after: u64, capacity: u64, poll: u64) -> Reply {
        let url = poll_url(session, after);
        let bearer = format!("Bearer {}", session.token);
        let answer = self.ask(&Method::GET, &url, &bearer, String::new(), |request| {
            request.extensions_mut().insert(PollId(poll));
            if let Ok(capacity) = http::HeaderValue::from_str(&capacity.to_string()) {
                request.headers_mut().insert("x-scalesetmaxcapacity", capacity);
            }
        });
        Reply::of(answer)
    }

    /// The poll is over, and its asker gone.
    pub(super) fn hang_up(&mut self, session: &Session, after: u64, poll: u64) {
        let url = poll_url(session, after);
        let bearer = format!("Bearer {}", session.token);
        self.ask(&Method::GET, &url, &bearer, String::new(), |request| {
            request.extensions_mut().insert(PollId(poll));
            request.extensions_mut().insert(HungUp);
        });
    }

    /// Acknowledges a message.
    pub(super) fn acknowledge(&mut self, session: &Session, message: u64) -> Reply {
        let (base, query) = session.queue.split_once('?').map_or((session.queue.as_str(), None), |(b, q)| (b, Some(q)));
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let url = format!("{}/{message}{query}", base.trim_end_matches('/'));
        self.send(&Method::DELETE, &url, &format!("Bearer {}", session.token), String::new())
    }

    /// A JIT configuration: the runner's id.
    pub(super) fn jit(&mut self, set: &SetRow, name: &str, (service, admin): &(String, String)) -> Option<u64> {
        let url = format!(
            "{service}/_apis/runtime/runnerscalesets/{}/generatejitconfig?api-version=6.0-preview",
            set.forge_id
        );
        let body = json!({"name": name, "workFolder": "_work"}).to_string();
        let Reply::Got(200 | 201, body) = self.send(&Method::POST, &url, admin, body) else { return None };
        let body: Value = serde_json::from_slice(&body).ok()?;
        body.get("runner")?.get("id")?.as_u64()
    }

    /// `GET` of the set: whether GitHub knows it.
    pub(super) fn knows(&mut self, set: &SetRow, (service, admin): &(String, String)) -> Reply {
        let url = format!("{service}/_apis/runtime/runnerscalesets/{}?api-version=6.0-preview", set.forge_id);
        self.send(&Method::GET, &url, admin, String::new())
    }

    /// Creates the set anew: its id at GitHub.
    pub(super) fn create_set(&mut self, set: &SetRow, (service, admin): &(String, String)) -> Option<u64> {
        let url = format!("{service}/_apis/runtime/runnerscalesets?api-version=6.0-preview");
        let body = json!({"name": set.name, "runnerGroupId": 1, "labels": [{"name": set.name, "type": "System"}],
            "runnerSetting": {"disableUpdate": false}});
        let Reply::Got(200 | 201, body) = self.send(&Method::POST, &url, admin, body.to_string()) else { return None };
        let body: Value = serde_json::from_slice(&body).ok()?;
        body.get("id")?.as_u64()
    }
}

pub(super) fn poll_url(session: &Session, after: u64) -> String {
    match (after, session.queue.contains('?')) {
        (0, _) => session.queue.clone(),
        (after, true) => format!("{}&lastMessageId={after}", session.queue),
        (after, false) => format!("{}?lastMessageId={after}", session.queue),
    }
}

fn text(reply: &Reply, field: &str) -> Option<String> {
    let Reply::Got(200 | 201, body) = reply else { return None };
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.get(field)?.as_str()?.to_owned())
}
