//! Writes of scale sets (`docs/reference/garm-api.md` §6.3-§6.5). Only changed columns are written: a PUT that changes
//! nothing leaves `updated_at` alone and causes no event. A PUT's 200 says that the row was written, and nothing about
//! any worker.

use super::Write;
use super::api::{Api, NOT_FOUND, refuse};
use super::calls;
use super::db::SetRow;
use super::env::Operation;
use super::render::View;
use crate::wire::Answer;
use medic_core::model::ScaleSetId;
use serde_json::Value;

/// PUTs kept for tests; the oldest are dropped.
const WRITES_KEPT: usize = 100_000;

impl Api<'_> {
    pub(super) fn update_set(&mut self, id: u64) -> Answer {
        let Some(body) = self.body() else { return refuse(400, "Bad Request", "invalid request") };
        let Some(before) = self.env.db.set(id) else { return refuse(404, "Not Found", NOT_FOUND) };
        let mut after = (*before).clone();
        apply(&mut after, &body);
        // GARM builds a client of GitHub for each update, and asks for the quota with it; errors are ignored.
        let _ = calls::rest(&mut self.env, "rate_limit");
        let write = Write {
            at: self.env.now,
            set: ScaleSetId(id),
            was: before.enabled,
            enabled: after.enabled,
            by: self.user_agent(),
        };
        if self.writes.len() >= WRITES_KEPT {
            self.writes.drain(..WRITES_KEPT / 2);
        }
        self.writes.push(write);
        if after != *before {
            self.env.db.write_set(id, self.env.now, |row| *row = after);
            self.env.set_changed(id, Operation::Update, View::Whole);
        }
        self.get_set(id)
    }
}

/// What a body changes. Absent and `null` keys mean "keep".
fn apply(row: &mut SetRow, body: &Value) {
    if let Some(enabled) = body.get("enabled").and_then(Value::as_bool) {
        row.enabled = enabled;
    }
    if let Some(max_runners) = body.get("max_runners").and_then(Value::as_u64) {
        row.max_runners = max_runners;
    }
}
