//! All integration tests in one binary, one module per subject.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bench;
mod binary;
mod cli;
mod commands;
mod config;
mod docs;
mod doctor;
mod export;
mod fault_proxy;
mod faults;
mod fuzz;
mod garm_client;
mod garm_ws;
mod github_client;
mod http_transport;
mod incident;
mod kill9;
mod lab_scenarios;
mod lab_serve;
mod log_replay;
mod manifests;
mod many_managers;
mod model_checking;
mod recordings;
mod replay;
mod runbooks;
mod sockets;
mod tidy;
mod upgrade;
