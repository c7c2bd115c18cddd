//! The HTTP server and the status page.

pub mod page;
pub mod server;
