//! GARM's HTTP side, for reading (`docs/reference/garm-api.md` §2-§10). The order of checks is the original's: first
//! run, addresses, token, handler; so an uninitialised GARM answers 409 even to requests without credentials.

use super::config::{LogLevel, LogStreamer, Metrics};
use super::env::Env;
use super::log::{Attr, By, attrs};
use super::process::Process;
use super::render::{self, View};
use super::route::{ManagerRoute, Matched};
use super::stamp::scramble;
use super::token::{self, For, Shown};
use super::{Write, db::EntityRow};
use crate::wire::{Answer, Request};
use medic_core::model::EntityKind;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// One request, and all that its handlers work with.
pub(super) struct Api<'a> {
    pub env: Env<'a>,
    pub process: &'a mut Process,
    pub writes: &'a mut Vec<Write>,
    pub request: &'a Request,
    pub matched: Matched,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    details: &'a str,
}

pub(super) fn refuse(status: u16, error: &str, details: &str) -> Answer {
    let body = serde_json::to_string(&Refusal { error, details }).unwrap_or_default();
    with_newline(status, body)
}

/// JSON with the newline that Go's encoder ends it with.
pub(super) fn line(body: String) -> Answer {
    with_newline(200, body)
}

fn with_newline(status: u16, mut body: String) -> Answer {
    body.push('\n');
    Answer::raw(status, "application/json", body.into_bytes())
}

pub(super) const NOT_FOUND: &str = "error fetching scale set: error fetching scale set by ID: not found";

fn page_not_found() -> Answer {
    Answer::raw(404, "text/plain; charset=utf-8", b"404 page not found\n".to_vec())
}

impl Api<'_> {
    /// Answers the request, and logs it.
    pub(super) fn answer(&mut self, route: ManagerRoute) -> Answer {
        let answer = self.checked(route);
        // A websocket is logged when it ends.
        if !matches!(route, ManagerRoute::LogSocket | ManagerRoute::EventSocket) {
            self.say_access(&answer);
        }
        answer
    }

    fn say_access(&mut self, answer: &Answer) {
        let n = self.process.number();
        let uri = self.request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let mut attrs = attrs![
            "method" => self.request.method().as_str(),
            "uri" => uri,
            "user_agent" => self.user_agent(),
            "ip" => format!("127.0.0.1:{}", 32_768 + scramble(n) % 28_000),
            "code" => u64::from(answer.response.status().as_u16()),
            "bytes" => u64::try_from(answer.response.body().len()).unwrap_or(0),
        ];
        attrs.push(("request_time", Attr::Nanos(300_000 + scramble(n) % 2_000_000)));
        self.env.say(LogLevel::Info, "access_log", attrs, By::Garm);
    }

    pub(super) fn user_agent(&self) -> String {
        let agent = self.request.headers().get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        agent.unwrap_or_default().to_owned()
    }

    fn checked(&mut self, route: ManagerRoute) -> Answer {
        use ManagerRoute as R;
        match route {
            R::Metrics => return self.metrics(),
            R::Goroutines if self.env.config.debug_server => {
                let dump = self.process.goroutines();
                return Answer::raw(200, "text/plain; charset=utf-8", dump.into_bytes());
            }
            R::Goroutines | R::UnknownPage => return page_not_found(),
            R::UnknownResource => return refuse(404, "Not found", "Resource not found"),
            R::WrongMethod => return Answer::empty(405),
            R::FirstRun => return self.first_run(),
            R::Login
            | R::Controller
            | R::UpdateController
            | R::MetricsToken
            | R::ListSets
            | R::GetSet
            | R::UpdateSet
            | R::DeleteSet
            | R::SetInstances
            | R::EntitySets
            | R::CreateSet
            | R::Instances
            | R::Instance
            | R::Jobs
            | R::Entities
            | R::Entity
            | R::CreateEntity
            | R::Endpoints
            | R::CreateEndpoint
            | R::Credentials
            | R::CreateCredentials
            | R::Providers
            | R::LogSocket
            | R::EventSocket => {}
        }
        if !self.env.db.initialised {
            return refuse(409, "init_required", "Missing superuser");
        }
        if route == R::Login {
            return self.log_in();
        }
        let urls = &self.env.db.urls;
        let needs_urls = !(route == R::UpdateController || route == R::Controller && !self.matched.id.is_empty());
        if needs_urls && (urls.metadata.is_empty() || urls.callback.is_empty()) {
            let words = "Missing required URLs. Make sure you update the metadata and callback URLs";
            return refuse(409, "urls_required", words);
        }
        match token::check(self.env.config, self.env.db, self.request, For::Admin, self.env.now) {
            Shown::Valid => self.handle(route),
            Shown::Invalid => refuse(401, "Authentication failed", ""),
            Shown::Nothing => {
                let error = attrs!["error" => "failed to get cookie: http: named cookie not present"];
                self.env.say(LogLevel::Error, "failed to get auth token", error, By::Garm);
                refuse(401, "Authentication failed", "")
            }
        }
    }

    fn handle(&mut self, route: ManagerRoute) -> Answer {
        use ManagerRoute as R;
        let (config, now) = (self.env.config, self.env.now);
        match route {
            R::Controller => line(render::controller(config, self.env.db)),
            R::UpdateController => self.update_controller(),
            R::MetricsToken => {
                let token = token::issue(config, self.env.db, For::Metrics, now);
                line(json!({"token": token}).to_string())
            }
            R::ListSets => self.list_sets(View::Listed, |_| true),
            R::GetSet => self.get_set(),
            R::UpdateSet => self.update_set(),
            R::DeleteSet => self.delete_set(),
            R::SetInstances => match self.matched.set() {
                Some(set) => line(render::list(self.env.db.instances_of(set).map(|(_, row)| render::instance(row)))),
                None => self.bad_id(),
            },
            R::Instances => line(render::list(self.env.db.instances.values().map(render::instance))),
            R::Instance => match self.env.db.instances.values().find(|row| row.name == self.matched.id) {
                Some(row) => line(render::instance(row)),
                None => refuse(404, "Not Found", "error fetching instance: not found"),
            },
            R::Jobs => line(render::list(self.env.db.jobs.values().map(|job| render::job(config, job)))),
            R::Entities => {
                let of_kind = self.env.db.entities.values().filter(|row| Some(row.entity.kind) == self.matched.kind);
                line(render::list(of_kind.map(|row| self.entity(row))))
            }
            R::Entity => match self.named_entity() {
                Some(row) => line(self.entity(&row)),
                None => self.no_entity(),
            },
            R::EntitySets => match self.named_entity() {
                Some(entity) => self.list_sets(View::ListedByEntity, |number| number == entity.number),
                None => self.no_entity(),
            },
            R::CreateSet => self.create_set(),
            R::CreateEntity => self.create_entity(),
            R::Endpoints => line(render::endpoints(config, self.env.db)),
            R::CreateEndpoint => self.create_endpoint(),
            R::Credentials => line(render::credentials(config, self.env.db, self.process.rate)),
            R::CreateCredentials => self.create_credentials(),
            R::Providers => line(r#"[{"name":"stub","type":"external","description":"stub"}]"#.to_owned()),
            R::LogSocket => match config.log_streamer {
                LogStreamer::On => Answer::empty(200),
                LogStreamer::Off => refuse(400, "Bad Request", "log streamer is disabled"),
            },
            R::EventSocket => Answer::empty(200),
            R::FirstRun
            | R::Login
            | R::Metrics
            | R::Goroutines
            | R::WrongMethod
            | R::UnknownResource
            | R::UnknownPage => refuse(404, "Not found", "Resource not found"),
        }
    }

    fn metrics(&mut self) -> Answer {
        match self.env.config.metrics {
            Metrics::Off => return page_not_found(),
            Metrics::Open => {}
            Metrics::Token => {
                match token::check(self.env.config, self.env.db, self.request, For::Metrics, self.env.now) {
                    Shown::Valid => {}
                    Shown::Nothing | Shown::Invalid => return refuse(401, "Authentication failed", ""),
                }
            }
        }
        let text = self.process.exposition(&self.env);
        Answer::raw(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", text.into_bytes())
    }

    fn log_in(&mut self) -> Answer {
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let is = |name: &str, expected: &str| body.get(name).and_then(Value::as_str) == Some(expected);
        if is("username", &self.env.db.user) && is("password", &self.env.db.password) {
            let token = token::issue(self.env.config, self.env.db, For::Admin, self.env.now);
            line(json!({"token": token}).to_string())
        } else {
            refuse(401, "Not Authorized", "")
        }
    }

    fn list_sets(&self, view: View, is_of: impl Fn(u64) -> bool) -> Answer {
        let sets = self.env.db.sets.values().filter(|set| is_of(set.entity.number));
        line(render::list(sets.map(|set| render::set(self.env.config, self.env.db, set, view))))
    }

    fn get_set(&mut self) -> Answer {
        let Some(id) = self.matched.set() else { return self.bad_id() };
        if let Some(set) = self.env.db.set(id) {
            return line(render::set(self.env.config, self.env.db, &set, View::Whole));
        }
        self.env.say(LogLevel::Error, "fetching scale set", attrs!["error" => NOT_FOUND], By::Garm);
        refuse(404, "Not Found", NOT_FOUND)
    }

    pub(super) fn bad_id(&mut self) -> Answer {
        let words = format!("strconv.ParseUint: parsing \"{}\": invalid syntax", self.matched.id);
        self.env.say(LogLevel::Error, "failed to parse id", attrs!["error" => words], By::Garm);
        refuse(400, "Bad Request", "invalid request")
    }

    pub(super) fn named_entity(&self) -> Option<Arc<EntityRow>> {
        let matches = |row: &&Arc<EntityRow>| Some(row.entity.kind) == self.matched.kind && row.uuid == self.matched.id;
        self.env.db.entities.values().find(matches).map(Arc::clone)
    }

    pub(super) fn no_entity(&self) -> Answer {
        let kind = self.matched.kind.map_or("entity", EntityKind::as_str);
        refuse(404, "Not Found", &format!("error fetching {kind}: not found"))
    }

    pub(super) fn entity(&self, row: &EntityRow) -> String {
        render::entity(self.env.config, self.env.db, row, self.process.pools.contains(&row.number))
    }

    /// The request's body as a JSON object.
    pub(super) fn body(&self) -> Option<Value> {
        serde_json::from_slice::<Value>(self.request.body()).ok().filter(Value::is_object)
    }
}
