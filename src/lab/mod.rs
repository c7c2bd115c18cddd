//! The simulators of GARM and GitHub, and the doors to them. Part of the product: `scaleset-medic lab` and the tests
//! use the same ones. Never imports `diagnose` or `decide`: a simulator that shares the rules it tests would
//! agree with their bugs.

pub mod door_http;
pub mod door_inproc;
pub mod forge;
pub mod github;
pub mod wire;
