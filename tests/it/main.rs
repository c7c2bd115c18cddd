//! All integration tests in one binary, one module per subject.

mod bench;
mod cli;
mod config;
mod conformance;
mod export;
mod garm_client;
mod garm_ws;
mod github_client;
mod http_transport;
mod incident;
mod runbooks;
