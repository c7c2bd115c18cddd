//! All integration tests in one binary, one module per subject.

mod cli;
mod config;
mod garm_client;
mod http_transport;
mod log_tail;
