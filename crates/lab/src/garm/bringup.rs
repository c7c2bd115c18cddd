//! A new GARM is brought up over its API: first run, addresses, endpoint, credentials, entities
//! (`docs/reference/garm-api.md` §3.1, §4, §5). The simulator has one endpoint and one credential, those of its
//! configuration; what a request says of them is not looked at.

use super::api::{Api, line, refuse};
use super::calls;
use super::env::{About, Change, Operation};
use super::render;
use crate::wire::Answer;
use medic_core::model::{Entity, EntityKind};
use serde_json::{Value, json};

impl Api<'_> {
    pub(super) fn first_run(&mut self) -> Answer {
        if self.env.db.initialised {
            return refuse(409, "Conflict", "already initialized");
        }
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (username, password, email) = (text("username"), text("password"), text("email"));
        let is_name =
            |name: &str| !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric());
        if !is_name(&username) || !email.contains('@') {
            return refuse(400, "Bad Request", "invalid username or email");
        }
        if password.len() < 12 {
            return refuse(400, "Bad Request", "password is too weak");
        }
        let made = self.env.db.stamp(self.env.now);
        (self.env.db.initialised, self.env.db.made) = (true, made);
        (self.env.db.user, self.env.db.password) = (username.clone(), password);
        let user = json!({
            "id": super::stamp::uuid(0xAD_1111, 1),
            "created_at": made.nano(),
            "updated_at": made.nano(),
            "email": email,
            "username": username,
            "full_name": text("full_name"),
            "enabled": true,
            "is_admin": true,
        });
        line(user.to_string())
    }

    pub(super) fn update_controller(&mut self) -> Answer {
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let urls = &mut self.env.db.urls;
        let fields = [
            ("metadata_url", &mut urls.metadata),
            ("callback_url", &mut urls.callback),
            ("webhook_url", &mut urls.webhook),
        ];
        for (name, field) in fields {
            if let Some(url) = body.get(name).and_then(Value::as_str) {
                url.clone_into(field);
            }
        }
        self.env.db.stamp(self.env.now);
        let info = render::controller(self.env.config, self.env.db);
        let change = Change { operation: Operation::Update, about: About::Controller };
        self.env.tell("controller", change, &info);
        line(info)
    }

    pub(super) fn create_endpoint(&mut self) -> Answer {
        if self.body().is_none() {
            return refuse(400, "Bad Request", "invalid request");
        }
        self.env.db.endpoint_made = self.env.db.stamp(self.env.now);
        let shown = last_of(&render::endpoints(self.env.config, self.env.db));
        let change = Change { operation: Operation::Create, about: About::Endpoint };
        self.env.tell("github_endpoint", change, &shown);
        line(shown)
    }

    pub(super) fn create_credentials(&mut self) -> Answer {
        if self.body().is_none() {
            return refuse(400, "Bad Request", "invalid request");
        }
        let shown = last_of(&render::credentials(self.env.config, self.env.db, None));
        let change = Change { operation: Operation::Create, about: About::Credentials };
        self.env.tell("github_credentials", change, &shown);
        line(shown)
    }

    pub(super) fn create_entity(&mut self) -> Answer {
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = self.matched.kind.unwrap_or(EntityKind::Organization);
        let name = match kind {
            EntityKind::Repository => format!("{}/{}", text("owner"), text("name")),
            EntityKind::Organization | EntityKind::Enterprise => text("name").to_owned(),
        };
        if text("name").is_empty() || (kind == EntityKind::Repository && text("owner").is_empty()) {
            return refuse(400, "Bad Request", "missing name");
        }
        let _ = calls::rest(&mut self.env, "rate_limit");
        let (row, is_new) = self.env.db.entity(&Entity { kind, name }, &self.env.config.endpoint, self.env.now);
        if !is_new {
            return refuse(409, "Conflict", "entity already exists");
        }
        self.env.entity_changed(&row, Operation::Create);
        line(self.entity(&row))
    }
}

/// The last element of a rendered list.
fn last_of(list: &str) -> String {
    let elements: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(list).unwrap_or_default();
    elements.last().map_or_else(|| "{}".to_owned(), |element| element.get().to_owned())
}
