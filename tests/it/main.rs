//! All integration tests in one binary.

mod garm_client;
mod http_transport;
