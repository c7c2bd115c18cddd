//! The GARM adapter: API, metrics text, goroutine dumps, log, websockets and events. Wire types stay inside.

pub mod api;
mod auth;
pub mod events;
pub mod goroutines;
pub mod log;
pub mod metrics_text;
mod refusal;
#[cfg(test)]
mod testing;
pub mod wake;
mod wire;
pub mod ws;
