//! GARM's HTTP side (`docs/reference/garm-api.md` §2-§10). The order of checks is GARM's: first run, token, handler.
//! An uninitialised GARM answers 409 even to requests without credentials.

use super::Write;
use super::config::{LogLevel, LogStreamer, Metrics};
use super::env::Env;
use super::log::{By, attrs};
use super::process::Process;
use super::render::{self, View};
use super::route::ManagerRoute;
use super::token::{self, Purpose};
use crate::wire::{Answer, Request};
use serde_json::{Value, json};

/// One request, and all that its handlers work with.
pub(super) struct Api<'a> {
    pub env: Env<'a>,
    pub process: &'a mut Process,
    pub writes: &'a mut Vec<Write>,
    pub request: &'a Request,
    /// The id in the path, as it is written there.
    pub id: &'a str,
}

pub(super) fn refuse(status: u16, error: &str, details: &str) -> Answer {
    with_newline(status, json!({"error": error, "details": details}).to_string())
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

fn unauthorized() -> Answer {
    refuse(401, "Authentication failed", "")
}

fn page_not_found() -> Answer {
    Answer::raw(404, "text/plain; charset=utf-8", b"404 page not found\n".to_vec())
}

impl Api<'_> {
    /// Answers the request, and logs it.
    pub(super) fn answer(&mut self, route: ManagerRoute) -> Answer {
        let answer = self.checked(route);
        let uri = self.request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let attrs = attrs![
            "method" => self.request.method().as_str(),
            "uri" => uri,
            "user_agent" => self.user_agent(),
            "code" => u64::from(answer.response.status().as_u16()),
        ];
        self.env.say(LogLevel::Info, "access_log", attrs, By::Garm);
        answer
    }

    pub(super) fn user_agent(&self) -> String {
        let agent = self.request.headers().get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        agent.unwrap_or_default().to_owned()
    }

    fn checked(&mut self, route: ManagerRoute) -> Answer {
        use ManagerRoute as R;
        match route {
            R::Metrics => self.metrics(),
            R::Goroutines if self.env.config.debug_server => {
                let dump = self.process.goroutines();
                Answer::raw(200, "text/plain; charset=utf-8", dump.into_bytes())
            }
            R::Goroutines | R::UnknownPage => page_not_found(),
            R::UnknownResource => refuse(404, "Not found", "Resource not found"),
            R::WrongMethod => Answer::empty(405),
            _ if !self.env.config.initialised => refuse(409, "init_required", "Missing superuser"),
            R::Login => self.log_in(),
            _ if !self.is_allowed(Purpose::Admin) => unauthorized(),
            R::Controller => line(render::controller(self.env.config)),
            R::MetricsToken => self.token(Purpose::Metrics),
            R::ListSets => {
                let sets = self.env.db.sets.values();
                line(render::list(sets.map(|set| render::set(self.env.config, self.env.db, set, View::Whole))))
            }
            R::GetSet => self.with_set(|api, id| api.get_set(id)),
            R::UpdateSet => self.with_set(Self::update_set),
            R::Instances => line(render::list(self.env.db.instances.values().map(render::instance))),
            R::LogSocket => match self.env.config.log_streamer {
                LogStreamer::On => Answer::empty(200),
                LogStreamer::Off => refuse(400, "Bad Request", "log streamer is disabled"),
            },
            R::EventSocket => Answer::empty(200),
        }
    }

    fn is_allowed(&self, purpose: Purpose) -> bool {
        token::is_valid(self.env.config, self.env.db, self.request, purpose, self.env.now)
    }

    fn token(&mut self, purpose: Purpose) -> Answer {
        let token = token::issue(self.env.config, self.env.db, purpose, self.env.now);
        line(json!({"token": token}).to_string())
    }

    fn metrics(&mut self) -> Answer {
        match self.env.config.metrics {
            Metrics::Off => return page_not_found(),
            Metrics::Token if !self.is_allowed(Purpose::Metrics) => return unauthorized(),
            Metrics::Open | Metrics::Token => {}
        }
        let text = self.process.exposition(&self.env);
        Answer::raw(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", text.into_bytes())
    }

    fn log_in(&mut self) -> Answer {
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let is = |name: &str, expected: &str| body.get(name).and_then(Value::as_str) == Some(expected);
        if is("username", &self.env.config.username) && is("password", &self.env.config.password) {
            self.token(Purpose::Admin)
        } else {
            refuse(401, "Not Authorized", "")
        }
    }

    fn with_set(&mut self, handle: impl FnOnce(&mut Self, u64) -> Answer) -> Answer {
        match self.id.parse() {
            Ok(id) => handle(self, id),
            Err(_) => refuse(400, "Bad Request", "invalid request"),
        }
    }

    pub(super) fn get_set(&self, id: u64) -> Answer {
        match self.env.db.set(id) {
            Some(set) => line(render::set(self.env.config, self.env.db, &set, View::Whole)),
            None => refuse(404, "Not Found", NOT_FOUND),
        }
    }

    /// The request's body as a JSON object.
    pub(super) fn body(&self) -> Option<Value> {
        serde_json::from_slice::<Value>(self.request.body()).ok().filter(Value::is_object)
    }
}
