//! The simulators of GARM and GitHub, and the doors to them. Part of the product: `scaleset-medic lab` and the tests
//! use the same ones. Never imports `diagnose` or `decide`: a simulator that shares the rules it tests would
//! agree with their bugs.
//!
//! A [`backend::Backend`] is pure; one [`hub::Hub`] owns it, gives it the time and lets several doors share it.

pub mod backend;
mod endpoint_body;
pub mod endpoint_http;
pub mod endpoint_inproc;
mod endpoint_ws;
pub mod forge;
pub mod garm;
pub mod github;
pub mod hub;
pub mod log_file;
pub mod scenario;
pub mod wire;
pub mod world;

#[cfg(test)]
mod tests;
