//! Bounded reads of files that may hang, and secrets that are read again when they change.

pub mod file;
pub mod secret;
