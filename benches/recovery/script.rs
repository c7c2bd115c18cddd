//! The bug report's workaround.

use super::ways::Healer;
use bytes::Bytes;
use medic_core::clock::Clock;
use medic_core::model::Span;
use medic_http::{Bounds, Transport};
use std::sync::Arc;

/// The report's script: `curl -X PUT ... '{"enabled": false}'; sleep 3; curl -X PUT ... '{"enabled": true}'`, begun as
/// soon as the restarted manager lets its author log in.
pub(crate) struct Script {
    pub(crate) wires: Arc<dyn Transport>,
    pub(crate) garm: String,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) password: String,
    pub(crate) sets: u64,
}

impl Script {
    pub(crate) async fn run(self, healer: Healer) {
        let token = loop {
            if let Some(token) = self.log_in().await {
                break token;
            }
            self.clock.sleep(Span::millis(100)).await;
        };
        let sleep = || self.clock.sleep(Span::secs(3));
        match healer {
            Healer::Nobody | Healer::Medic { .. } | Healer::MedicAtLarge => {}
            Healer::ScriptInTurn => {
                for set in 1..=self.sets {
                    self.put(&token, set, false).await;
                    sleep().await;
                    self.put(&token, set, true).await;
                }
            }
            Healer::ScriptAtOnce => {
                for set in 1..=self.sets {
                    self.put(&token, set, false).await;
                }
                sleep().await;
                for set in 1..=self.sets {
                    self.put(&token, set, true).await;
                }
            }
        }
    }

    async fn log_in(&self) -> Option<String> {
        let body = serde_json::json!({"username": "admin", "password": self.password});
        let answer = self.send(http::Request::post(format!("{}/api/v1/auth/login", self.garm)), &body).await?;
        let token: serde_json::Value = serde_json::from_slice(&answer).ok()?;
        Some(token.get("token")?.as_str()?.to_owned())
    }

    async fn put(&self, token: &str, set: u64, enabled: bool) {
        let request = http::Request::put(format!("{}/api/v1/scalesets/{set}", self.garm));
        let request = request.header("authorization", format!("Bearer {token}"));
        self.send(request, &serde_json::json!({"enabled": enabled})).await.expect("a PUT that is accepted");
    }

    async fn send(&self, request: http::request::Builder, body: &serde_json::Value) -> Option<Bytes> {
        let request = request.header("content-type", "application/json").body(Bytes::from(body.to_string()));
        let bounds = Bounds { total: Span::secs(10), body: 1024 * 1024 };
        let answer = self.wires.send(request.expect("a request"), bounds).await.ok()?;
        answer.status.is_success().then_some(answer.body)
    }
}
