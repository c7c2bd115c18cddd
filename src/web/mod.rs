//! What a browser and Prometheus ask for: the server and the status page.

pub mod page;
pub mod server;
