//! Reading: the sources of evidence, and one concurrent pass over them.

pub mod ports;
