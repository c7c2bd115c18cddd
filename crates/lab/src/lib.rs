//! The simulators of GARM and GitHub, and the endpoints that serve them. `scaleset-medic lab` and the tests use the
//! same ones.
//!
//! This crate uses the `model` and the clock trait of `medic-core`, and `medic-http`. It never uses `diagnose`,
//! `decide`, `treat` or `policy`: a simulator that shares the rules it tests would agree with their bugs.
//! `medic-garm` and `medic-clock` are dev-dependencies.
//!
//! A [`backend::Backend`] is pure. One [`hub::Hub`] owns it, gives it the time and lets several endpoints share it.

pub mod backend;
mod endpoint_body;
pub mod endpoint_http;
pub mod endpoint_inproc;
mod endpoint_ws;
mod fault;
pub mod garm;
pub mod github;
pub mod hub;
mod log_file;
mod random;
pub mod scenario;
pub mod wire;
pub mod world;

#[cfg(test)]
mod tests;
