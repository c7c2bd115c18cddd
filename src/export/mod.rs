//! What leaves the process: Prometheus metrics, the HTTP server, the status page.

pub mod metrics;
pub mod page;
pub mod server;
