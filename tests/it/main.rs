//! All integration tests in one binary, one module per subject.

mod garm_client;
mod http_transport;
mod cli;
mod config;
