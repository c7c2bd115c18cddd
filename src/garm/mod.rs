//! The GARM adapter: API, metrics text, goroutine dumps, log. Wire types stay inside.

pub mod api;
mod auth;
pub mod goroutines;
pub mod log;
pub mod metrics_text;
mod refusal;
mod wire;
