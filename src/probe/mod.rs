//! Reading: the sources of evidence, and one concurrent pass over them.

pub mod plan;
pub mod ports;
pub mod sweep;
