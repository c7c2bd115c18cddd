#![deny(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
//! GARM's HTTP side: login, controller, scale sets, instances, metrics, goroutines (`reference/garm-api.md` §2-§10). The
//! order of checks is the original's: first run, token, handler. A PUT's 200 says that the row was written, and
//! nothing of any worker.

use super::config::{GarmConfig, LogLevel, Metrics};
use super::counters::{Listener, goroutines, metrics};
use super::db::later;
use super::process::{Phase, Task};
use super::{GarmState, Write};
use crate::lab::wire::{Answer, Request};
use crate::model::{ScaleSetId, Span, Wall};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};

/// An update event reaches workers after this.
const EVENT: Span = Span::millis(5);

impl GarmState {
    /// Answers one request to a running process, and logs it.
    pub(super) fn answer(&mut self, now: Wall, request: &Request) -> Answer {
        let answer = self.route(now, request);
        let attributes = vec![
            ("method", json!(request.method().as_str())),
            ("uri", json!(request.uri().path_and_query().map_or("/", |uri| uri.as_str()))),
            ("user_agent", json!(agent(request))),
            ("ip", json!("127.0.0.1:50378")),
            ("code", json!(answer.response.status().as_u16())),
            ("bytes", json!(answer.response.body().len())),
            ("request_time", json!(1_000_000)),
        ];
        self.log.write(&self.config, now, LogLevel::Info, "access_log", &attributes);
        answer
    }

    fn route(&mut self, now: Wall, request: &Request) -> Answer {
        let path = request.uri().path();
        let Some(path) = path.strip_prefix(self.config.base_path.as_str()) else { return page_not_found() };
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        match path {
            "/metrics" => self.metrics_page(now, request),
            "/debug/pprof/goroutine" if self.config.debug_server => self.goroutine_dump(),
            _ => match path.strip_prefix("/api/v1") {
                Some(path) => self.api(now, path, request),
                None => page_not_found(),
            },
        }
    }

    fn api(&mut self, now: Wall, path: &str, request: &Request) -> Answer {
        if !self.config.initialised {
            return refuse(409, "init_required", "Missing superuser");
        }
        if path == "/auth/login" {
            return if request.method() == Method::POST { self.log_in(now, request) } else { Answer::empty(405) };
        }
        if !is_valid(&self.config, request, "login", now) {
            return refuse(401, "Authentication failed", "");
        }
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method().as_str(), segments.as_slice()) {
            ("GET", ["controller-info" | "controller"]) => line(&self.controller()),
            ("GET", ["metrics-token"]) => line(&json!({"token": token(&self.config, "metrics", now)})),
            ("GET", ["scalesets"]) => line(&self.db.sets.values().map(|set| set.json(&self.config)).collect::<Value>()),
            ("GET", ["instances"]) => {
                line(&self.db.instances.values().map(super::db::InstanceRow::json).collect::<Value>())
            }
            ("GET", ["scalesets", id]) => match id.parse::<u64>() {
                Ok(id) => self.one_set(id),
                Err(_) => refuse(400, "Bad Request", "invalid request"),
            },
            ("PUT", ["scalesets", id]) => match id.parse::<u64>() {
                Ok(id) => self.update(now, id, request),
                Err(_) => refuse(400, "Bad Request", "invalid request"),
            },
            ("GET", ["ws", "logs" | "events"] | ["ws"]) => Answer::empty(200),
            (_, ["scalesets", ..] | ["instances" | "controller-info"]) => Answer::empty(405),
            _ => refuse(404, "Not found", "Resource not found"),
        }
    }

    fn log_in(&self, now: Wall, request: &Request) -> Answer {
        let Ok(body) = serde_json::from_slice::<Value>(request.body()) else {
            return refuse(400, "Bad Request", "invalid request");
        };
        let is = |name: &str, expected: &str| body.get(name).and_then(Value::as_str) == Some(expected);
        if is("username", &self.config.username) && is("password", &self.config.password) {
            line(&json!({"token": token(&self.config, "login", now)}))
        } else {
            refuse(401, "Not Authorized", "")
        }
    }

    fn controller(&self) -> Value {
        let id = &self.config.controller_id;
        let base = "http://garm.test";
        let mut controller = json!({
            "controller_id": id,
            "hostname": "vm",
            "metadata_url": format!("{base}/api/v1/metadata"),
            "callback_url": format!("{base}/api/v1/callbacks"),
            "webhook_url": format!("{base}/webhooks"),
            "controller_webhook_url": format!("{base}/webhooks/{id}"),
            "agent_url": base,
            "garm_agent_releases_url": "https://api.github.com/repos/cloudbase/garm-agent/releases",
            "enable_agent_tools_sync": false,
            "minimum_job_age_backoff": 30,
            "version": "v0.0.0-unknown",
        });
        if self.config.generation.retries() {
            controller["garm_agent_version"] = json!("");
            controller["allow_insecure_garm_agent"] = json!(false);
        }
        controller
    }

    fn one_set(&self, id: u64) -> Answer {
        match self.db.sets.get(&id) {
            Some(_) => line(&self.db.whole(id, &self.config)),
            None => refuse(404, "Not Found", "error fetching scale set: error fetching scale set by ID: not found"),
        }
    }

    /// Only changed columns are written; nothing changed means no write, no event, the same `updated_at`.
    fn update(&mut self, now: Wall, id: u64, request: &Request) -> Answer {
        let Ok(body) = serde_json::from_slice::<Value>(request.body()) else {
            return refuse(400, "Bad Request", "invalid request");
        };
        let Some(set) = self.db.sets.get_mut(&id) else {
            return refuse(404, "Not Found", "error fetching scale set: error fetching scale set by ID: not found");
        };
        let before = set.clone();
        if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
            set.enabled = enabled;
        }
        let number = |name: &str| body.get(name).and_then(Value::as_u64);
        set.max_runners = number("max_runners").unwrap_or(set.max_runners);
        set.min_idle_runners = number("min_idle_runners").unwrap_or(set.min_idle_runners);
        set.bootstrap_timeout = number("runner_bootstrap_timeout").unwrap_or(set.bootstrap_timeout);
        if let Some(state) = body.get("extended_state").and_then(Value::as_str).filter(|state| !state.is_empty()) {
            state.clone_into(&mut set.extended_state);
        }
        let changed = *set != before;
        if changed {
            set.updated = later(set.updated, now);
            let enabled = set.enabled;
            let payload = self.db.whole(id, &self.config);
            self.events.push(json!({"entity-type": "scaleset", "operation": "update", "payload": payload}));
            if let Some(process) = &mut self.process {
                process.at(now.plus(EVENT), Task::Updated(id, enabled));
            }
        }
        self.writes.push(Write {
            at: now,
            set: ScaleSetId(id),
            was: before.enabled,
            enabled: self.db.sets.get(&id).is_some_and(|set| set.enabled),
            by: agent(request).to_owned(),
        });
        match self.db.sets.get(&id) {
            Some(_) => line(&self.db.whole(id, &self.config)),
            None => Answer::empty(500),
        }
    }

    fn metrics_page(&self, now: Wall, request: &Request) -> Answer {
        match self.config.metrics {
            Metrics::Off => return page_not_found(),
            Metrics::Open => {}
            Metrics::Token if is_valid(&self.config, request, "metrics", now) => {}
            Metrics::Token => return refuse(401, "Authentication failed", ""),
        }
        let Some(process) = &self.process else { return Answer::empty(503) };
        let running = process.workers.iter().filter(|(_, worker)| worker.phase == Phase::Running);
        let listeners: Vec<_> = running
            .map(|(set, worker)| Listener { set: *set, last_success: worker.last_success, restarts: worker.restarts })
            .collect();
        let text = metrics(&self.config, &self.db, &process.counters, process.started, &listeners);
        Answer::raw(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", text.into_bytes())
    }

    fn goroutine_dump(&self) -> Answer {
        let workers = self.process.iter().flat_map(|process| process.workers.values());
        let (mut alive, mut listening) = (0, 0);
        for worker in workers.filter(|worker| worker.phase == Phase::Running) {
            alive += 1;
            listening += usize::from(worker.listener.is_some());
        }
        Answer::raw(200, "text/plain; charset=utf-8", goroutines(alive, listening).into_bytes())
    }
}

fn agent(request: &Request) -> &str {
    request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default()
}

/// JSON with the newline that Go's encoder ends it with.
fn line(body: &Value) -> Answer {
    let text = if body.is_null() { "[]".to_owned() } else { body.to_string() };
    Answer::raw(200, "application/json", format!("{text}\n").into_bytes())
}

fn refuse(status: u16, class: &str, details: &str) -> Answer {
    let body = json!({"error": class, "details": details});
    Answer::raw(status, "application/json", format!("{body}\n").into_bytes())
}

fn page_not_found() -> Answer {
    Answer::raw(404, "text/plain; charset=utf-8", b"404 page not found\n".to_vec())
}

/// A JWT of one kind: signed with nothing, believed by this simulator alone.
fn token(config: &GarmConfig, kind: &str, now: Wall) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({"alg": "HS256", "typ": "JWT"}));
    let exp = now.plus(config.token_lifetime).0 / 1000;
    let claims = part(&json!({
        "exp": exp, "iss": "garm", "user": if kind == "login" { "u" } else { "" },
        "is_admin": kind == "login", "read_metrics": kind == "metrics",
    }));
    format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(format!("{kind} {}", config.controller_id)))
}

/// The scheme word is not checked, as in the original.
fn is_valid(config: &GarmConfig, request: &Request, kind: &str, now: Wall) -> bool {
    let claims = || {
        let value = request.headers().get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (_, token) = value.split_once(' ')?;
        let mut parts = token.split('.');
        let (_, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if signature != format!("{kind} {}", config.controller_id).into_bytes() {
            return None;
        }
        serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?.get("exp")?.as_u64()
    };
    claims().is_some_and(|exp| exp > now.0 / 1000)
}
