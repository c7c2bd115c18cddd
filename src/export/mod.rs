//! What leaves the process: Prometheus metrics, the HTTP server, the status page, and the words for people.

pub mod metrics;
pub mod page;
pub mod rules;
pub mod server;
mod set_series;
pub mod words;
